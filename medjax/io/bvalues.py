"""b-values from text files: FSL's one row (.bval), or one a line."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from medjax.errors import DataError


def read_bvalues(path: str | Path) -> Float[np.ndarray, " frame"]:
    """Read b-values in s/mm², in the order of the frames, separated by spaces, commas or line breaks.

    Raises:
        DataError: missing, empty, not numbers, or a table of more than one row and one column (a file of directions).
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a text file with a b-value for each frame")
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = [[float(word) for word in line.replace(",", " ").split()] for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise DataError(f"{path}: cannot be read as numbers ({error}); expected b-values in s/mm²") from error
    if not rows:
        raise DataError(f"{path}: empty; expected a b-value for each frame")
    if len(rows) > 1 and any(len(row) > 1 for row in rows):
        raise DataError(f"{path}: {len(rows)} rows of {len(rows[0])}; expected one row or one b-value a line (.bval)")
    return np.array([value for row in rows for value in row], np.float32)
