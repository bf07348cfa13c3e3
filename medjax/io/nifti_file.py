"""NIfTI files as they are on disk: what a header declares is compared with the content before anything is allocated.

image = load_nifti(path)                nibabel's image, whole
array = float_values(path, image)       float32, of the file's axes, scaled as it says
"""

import gzip
import logging
import warnings
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from medjax.errors import DataError
from medjax.io.files import check_file
from medjax.memory import check_memory

if TYPE_CHECKING:
    from nibabel import Nifti1Image

SUFFIXES = (".nii", ".nii.gz")
EXPECTED = "a NIfTI volume (.nii or .nii.gz)"
MAX_HEADER = 540  # bytes of a header of NIfTI-2
MAX_EXCESS = 2**20  # bytes that a compressed file may have beyond its voxels
CHUNK = 2**24  # bytes


def load_nifti(path: Path) -> "Nifti1Image":
    """Load a NIfTI file whole, a compressed one with its checksum.

    Raises:
        DataError: as `read_content`, or nibabel cannot read it.
    """
    content = read_content(path)
    try:
        with _quiet():
            return _kind(path, content).from_bytes(content)
    except DataError:
        raise
    except Exception as error:  # a damaged header can fail anywhere inside nibabel
        raise DataError(f"{path}: cannot be read as NIfTI ({_one_line(error)})") from error


def read_content(path: Path) -> bytes:
    """Read the content of a NIfTI file, decompressed, with its checksum.

    Raises:
        DataError: it is missing, not NIfTI or damaged, its header declares more than its content has or the memory
            holds, or its content is more than that.
    """
    import nibabel

    check_file(path, EXPECTED)
    if not path.name.endswith(SUFFIXES):
        raise DataError(f"{path}: expected NIfTI, with a name that ends in .nii or .nii.gz")
    try:
        with _quiet(), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _read(path, file)
    except DataError:
        raise
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read, damaged ({_one_line(error)}); expected a whole file") from error
    except nibabel.spatialimages.HeaderDataError as error:
        raise DataError(f"{path}: cannot be read as NIfTI ({_one_line(error)})") from error
    except OSError:
        raise
    except Exception as error:  # a damaged header can fail anywhere inside nibabel
        raise DataError(f"{path}: cannot be read as NIfTI ({_one_line(error)})") from error


def float_values(path: Path, image: "Nifti1Image") -> Float[np.ndarray, "*axes"]:
    """Values of an image that `load_nifti` gave, scaled as its header says, as float32.

    Raises:
        DataError: they are complex or colours, or cannot be scaled.
    """
    kind = image.get_data_dtype()
    if kind.kind not in "iufb":
        raise DataError(f"{path}: values of type {kind}; expected whole or real numbers")
    try:
        with _quiet():
            return np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"))
    except Exception as error:  # a damaged file can fail anywhere inside nibabel
        raise DataError(f"{path}: cannot be read as NIfTI ({_one_line(error)})") from error


def _read(path: Path, file: Any) -> bytes:
    """Content of a file, no more of it than its header declares, and some."""
    head = file.read(MAX_HEADER)
    declared, voxels = _declared(path, head)
    check_memory(str(path), declared + 4.0 * voxels)
    parts, size = [head], len(head)
    limit = declared + MAX_EXCESS if path.suffix == ".gz" else path.stat().st_size
    while part := file.read(CHUNK):
        parts.append(part)
        size += len(part)
        if size > limit:
            found = f"its header declares {declared:,} bytes, and there are more than {limit:,}"
            raise DataError(f"{path}: {found}; expected {EXPECTED}")
    if size < declared:
        raise DataError(f"{path}: damaged or cut: its header declares {declared:,} bytes, and there are {size:,}")
    return b"".join(parts)


def _kind(path: Path, head: bytes) -> Any:
    import nibabel

    both = (nibabel.Nifti1Image, nibabel.Nifti2Image)
    kinds = [kind for kind in both if kind.header_class.may_contain_header(head)]
    sizes = {int.from_bytes(head[:4], order) for order in ("little", "big")}
    if not kinds or kinds[0].header_class.sizeof_hdr not in sizes:
        raise DataError(f"{path}: cannot be read as NIfTI (no header of it); expected a NIfTI volume")
    return kinds[0]


def _declared(path: Path, head: bytes) -> tuple[int, int]:
    """Bytes that the file has by its header, and number of voxels."""
    kind = _kind(path, head).header_class
    header = kind(head[: kind.template_dtype.itemsize], check=False)
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    offset, voxels = header.get_data_offset(), prod(int(side) for side in shape)
    if not shape or min(shape) < 1 or offset < 0 or 8 * dtype.itemsize != int(header["bitpix"]):
        found = f"shape {tuple(map(int, shape))} of {int(header['bitpix'])} bits from byte {offset}"
        raise DataError(f"{path}: cannot be read as NIfTI ({found}); expected positive sides")
    if any(np.isinf(header[key]) for key in ("scl_slope", "scl_inter")):
        raise DataError(f"{path}: cannot be read as NIfTI (values scaled by infinity); expected a whole file")
    return offset + voxels * dtype.itemsize, voxels


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Context in which nibabel and NumPy print nothing beside an error."""
    logger = logging.getLogger("nibabel.global")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
