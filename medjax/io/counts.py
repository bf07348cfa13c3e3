"""The counts file of medjax (.npz): measured or simulated PET counts, additive and multiplicative factors, metadata.

Its entries: `counts`, `additive` and `multiplicative`, each (plane, view, bin); `scanner`, a name; and optionally
`metadata`, a JSON object whose `corrections` lists those that the multiplicative factors hold, and `truth` (x, y, z)
with `affine` (4, 4). Oblique planes are those of segments 0, +1, −1, …, one segment after the other; `rings` and
`segments` of the metadata, [smallest, largest ring difference] of each, tell them. Counts and background with time of
flight are (tof, plane, view, bin); `tof` of the metadata tells `bins`, `bin_ps`, `resolution_ps`. Nothing pickled: any
NumPy reads and writes it.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from medjax.atomic import replacing
from medjax.errors import DataError
from medjax.io.files import read_npz

SINOGRAMS = ("counts", "additive", "multiplicative")
OPTIONAL = {"truth": 3, "affine": 2}  # and their numbers of axes
LARGEST = float(np.finfo(np.float32).max)  # values are float32 in use
CORRECTIONS = ("attenuation", "normalisation", "dead time", "decay", "arc correction")  # that factors can hold


@dataclass(frozen=True)
class Counts:
    """PET counts ~ Poisson(multiplicative · P x + additive), with P the line integrals of the scanner."""

    counts: Float[np.ndarray, "view bin plane *tof"]
    additive: Float[np.ndarray, "view bin plane *tof"]  # expected randoms + scatter, in counts
    multiplicative: Float[np.ndarray, "view bin plane"]  # normalisation · attenuation factors
    scanner: str  # a preset of medjax.pet.scanner
    metadata: dict[str, Any] = field(default_factory=dict)  # JSON: corrections (in the factors), tracer, …
    truth: Float[np.ndarray, "x y z"] | None = None  # the true activity, where it is known
    affine: Float[np.ndarray, "4 4"] | None = None  # affine of the truth, voxel index → RAS+ mm


def write_counts(path: str | Path, counts: Counts) -> None:
    """Write a counts file, whole or not at all.

    Raises:
        DataError: the name does not end in .npz, or values that `read_counts` would refuse.
        OSError: it cannot be written (disk full, no permission, no such folder).
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise DataError(f"{path}: expected a name that ends in .npz")
    names = (*SINOGRAMS, *OPTIONAL)
    arrays = {name: np.asarray(values) for name in names if (values := getattr(counts, name)) is not None}
    _check(path, arrays)
    arrays |= {name: _from_memory(arrays[name]) for name in SINOGRAMS}
    try:
        metadata = json.dumps(counts.metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: metadata cannot be JSON ({error})") from error
    with replacing(path) as file:
        arrays |= {"scanner": np.array(counts.scanner), "metadata": np.array(metadata)}
        np.savez(file, **arrays)  # pyrefly: ignore[bad-argument-type] (it takes allow_pickle for one of them)


def read_counts(path: str | Path) -> Counts:
    """Read a counts file; sinograms come back as (view, bin, plane), or (view, bin, plane, tof), as float32.

    Raises:
        DataError: missing, no npz, entries missing, shapes that differ, or negative, NaN or infinite values.
    """
    path = Path(path)
    entries = read_npz(path, "a counts file (.npz)")
    if missing := [name for name in (*SINOGRAMS, "scanner") if name not in entries]:
        raise DataError(f"{path}: no {', '.join(missing)}; expected {', '.join(SINOGRAMS)} and scanner")
    axes = 4 if entries["counts"].ndim == 4 else 3
    arrays = {name: _to_memory(_numbers(path, entries, name, axes)) for name in ("counts", "additive")}
    arrays["multiplicative"] = _to_memory(_numbers(path, entries, "multiplicative", 3))
    arrays |= {name: _numbers(path, entries, name, axes) for name, axes in OPTIONAL.items() if name in entries}
    _check(path, arrays)
    return Counts(
        *(arrays[name] for name in SINOGRAMS),
        scanner=str(entries["scanner"]),
        metadata=_metadata(path, str(entries.get("metadata", "{}"))),
        truth=arrays["truth"].astype(np.float32) if "truth" in arrays else None,
        affine=arrays["affine"].astype(float) if "affine" in arrays else None,
    )


def _from_memory(values: np.ndarray) -> np.ndarray:
    """(view, bin, plane) → (plane, view, bin), and (view, bin, plane, tof) → (tof, plane, view, bin)."""
    return values.transpose((3, 2, 0, 1) if values.ndim == 4 else (2, 0, 1))


def _to_memory(values: np.ndarray) -> np.ndarray:
    order = (2, 3, 1, 0) if values.ndim == 4 else (1, 2, 0)
    return np.ascontiguousarray(values.transpose(order), np.float32)


def _check(path: Path, arrays: dict[str, np.ndarray]) -> None:
    shape = arrays["counts"].shape
    for name in SINOGRAMS:
        values = arrays[name]
        if values.shape != (shape[:3] if name == "multiplicative" else shape):
            raise DataError(f"{path}: {name} has (view, bin, plane) {values.shape}; the counts have {shape}")
        if values.size == 0 or not (values.min() >= 0 and values.max() <= LARGEST):
            raise DataError(f"{path}: {name} is empty or has negative, NaN or infinite values; expected none of them")
    for name in OPTIONAL:
        if name in arrays and not np.all(np.abs(arrays[name]) <= LARGEST):
            raise DataError(f"{path}: {name} has NaN or infinite values; expected finite ones")
    if "affine" in arrays and arrays["affine"].shape != (4, 4):
        raise DataError(f"{path}: affine of shape {arrays['affine'].shape}; expected (4, 4)")


def _numbers(path: Path, entries: dict[str, np.ndarray], name: str, axes: int) -> np.ndarray:
    values = entries[name]
    if values.ndim != axes or values.dtype.kind not in "iuf":
        order = ", (plane, view, bin)" if name in SINOGRAMS and axes == 3 else ""
        found = f"{values.dtype} of shape {values.shape}"
        raise DataError(f"{path}: {name} is {found}; expected numbers on {axes} axes{order}")
    return values


def _metadata(path: Path, text: str) -> dict[str, Any]:
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:  # RecursionError: nested too deep
        raise DataError(f"{path}: metadata is not JSON ({error})") from error
    if not isinstance(metadata, dict):
        raise DataError(f"{path}: metadata is a JSON {type(metadata).__name__}; expected an object")
    return metadata
