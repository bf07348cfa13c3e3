"""b-values from text files: FSL's one row (.bval), or one a line."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from medjax.errors import DataError
from medjax.io.files import read_text

MAX_BYTES = 2**22
MAX_BVALUE = 1e10  # s/mm²; in s/m² they are this large, which those who use them can say


def read_bvalues(path: str | Path) -> Float[np.ndarray, " frame"]:
    """Read b-values in s/mm², in the order of the frames, separated by spaces, commas or line breaks.

    Raises:
        DataError: missing, empty, not numbers of 0 or more, or a table of more than one row and one column (a file of
            directions).
    """
    path = Path(path)
    text = read_text(path, "a text file with a b-value for each frame", max_bytes=MAX_BYTES)
    try:
        rows = [[float(word) for word in line.replace(",", " ").split()] for line in text.splitlines() if line.strip()]
    except ValueError as error:
        reason = f"{str(error)[:80]}{'…' if len(str(error)) > 80 else ''}"
        raise DataError(f"{path}: cannot be read as numbers ({reason}); expected b-values in s/mm²") from error
    if not rows:
        raise DataError(f"{path}: empty; expected a b-value for each frame")
    if len(rows) > 1 and any(len(row) > 1 for row in rows):
        raise DataError(f"{path}: {len(rows)} rows of {len(rows[0])}; expected one row or one b-value a line (.bval)")
    values = [value for row in rows for value in row]
    if odd := [value for value in values if not 0 <= value <= MAX_BVALUE]:
        raise DataError(f"{path}: {odd[0]:g} among the b-values; expected 0 to {MAX_BVALUE:g} s/mm²")
    return np.array(values, np.float32)
