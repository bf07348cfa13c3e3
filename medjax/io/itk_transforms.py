"""Affine transforms in ITK's files: text (.txt, .tfm), and ANTs' binary .mat (MATLAB version 4).

ITK's transform takes points of the fixed image's space to the moving one's, y = A (x − c) + c + t, in LPS+ mm; matrices
here are homogeneous and in RAS+ mm: 4 × 4, or 3 × 3 for 2-D. Of a composite of affines the last one is applied first.

Source: itkTransformFileWriter and the SetParameters of each class, ITK 5.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Array, Float

from medjax.atomic import replacing, write_text
from medjax.errors import DataError
from medjax.io.displacement_fields import LPS
from medjax.io.files import read_bytes, read_text

TEXT_SUFFIXES, BINARY_SUFFIX = (".txt", ".tfm"), ".mat"
AFFINE_SUFFIXES = (*TEXT_SUFFIXES, BINARY_SUFFIX)
EXPECTED = f"an ITK transform ({', '.join(AFFINE_SUFFIXES)})"
MAX_BYTES = 2**20  # an affine has a dozen numbers
HEADER = "#Insight Transform File V1.0"
KINDS = "AffineTransform, MatrixOffsetTransformBase, Euler2D/3D, VersorRigid3D, Translation or Identity"


def read_itk_affine(path: str | Path) -> Float[np.ndarray, "size size"]:
    """Homogeneous matrix, RAS+ mm, of an ITK transform file: affine, rigid (Euler, versor), translation, or several.

    Raises:
        DataError: missing, not such a file, damaged, or a transform of another kind.
    """
    path = Path(path)
    parts = _read_binary(path) if path.suffix == BINARY_SUFFIX else _read_text(path)
    with np.errstate(all="ignore"):  # what overflows is refused
        out = _composed(path, parts)
    if not np.isfinite(out).all():
        raise DataError(f"{path}: parameters too large to be composed; expected an affine transform")
    return flip_axes(out)


def _composed(path: Path, parts: Iterator[tuple[str, list[float], list[float]]]) -> np.ndarray:
    """Matrix, LPS+ mm, of all transforms one after the other, the last of them first."""
    matrices = [_matrix(path, *part) for part in parts if not part[0].startswith("CompositeTransform")]
    if not matrices or len({len(one) for one in matrices}) > 1:
        raise DataError(f"{path}: {len(matrices)} transforms; expected one, or several of one dimension")
    out = matrices[0]
    for one in matrices[1:]:
        out = np.matmul(out, one)
    return out


def write_itk_affine(path: str | Path, matrix: Float[np.ndarray, "size size"] | Float[Array, "size size"]) -> None:
    """Write a homogeneous matrix, RAS+ mm, as ITK's AffineTransform of centre 0: text, or ANTs' binary by .mat.

    Raises:
        DataError: a name that ends otherwise, or a matrix that is neither 3 × 3 nor 4 × 4, or not finite.
        OSError: it cannot be written.
    """
    path, matrix = Path(path), np.asarray(matrix, float)
    if path.suffix not in AFFINE_SUFFIXES:
        raise DataError(f"{path}: expected a name that ends in {', '.join(AFFINE_SUFFIXES)}")
    if matrix.shape not in ((3, 3), (4, 4)) or not np.isfinite(matrix).all():
        raise DataError(f"{path}: a matrix of shape {matrix.shape} to write; expected a finite 3 × 3 or 4 × 4 one")
    size, lps = len(matrix) - 1, flip_axes(matrix)
    name = f"AffineTransform_double_{size}_{size}"
    parameters, center = np.concatenate([lps[:-1, :-1].ravel(), lps[:-1, -1]]), np.zeros(size)
    if path.suffix == BINARY_SUFFIX:
        import scipy.io

        with replacing(path) as file:
            scipy.io.savemat(file, {name: parameters[:, None], "fixed": center[:, None]}, format="4")
        return
    numbers = [" ".join(f"{value:.17g}" for value in values) for values in (parameters, center)]
    lines = (
        HEADER,
        "#Transform 0",
        f"Transform: {name}",
        f"Parameters: {numbers[0]}",
        f"FixedParameters: {numbers[1]}",
    )
    write_text(path, "\n".join(lines) + "\n")


def flip_axes(matrix: Float[np.ndarray, "size size"]) -> Float[np.ndarray, "size size"]:
    """Homogeneous matrix between LPS+ points of one between RAS+ points, or the other way."""
    signs = np.append(LPS[: len(matrix) - 1], 1.0)
    return signs[:, None] * matrix * signs


def _read_text(path: Path) -> Iterator[tuple[str, list[float], list[float]]]:
    text = read_text(path, EXPECTED, max_bytes=MAX_BYTES)
    if not text.startswith("#Insight Transform File"):
        raise DataError(f"{path}: no ITK transform file; expected its first line to be {HEADER}")
    for block in text.split("Transform:")[1:]:
        name, *rest = block.splitlines()
        numbers = {"Parameters": list[float](), "FixedParameters": list[float]()}
        for line in rest:
            key, _, values = line.partition(":")
            if key in numbers:
                try:
                    numbers[key] = [float(value) for value in values.split()]
                except ValueError as error:
                    raise DataError(f"{path}: {key} that are no numbers; expected an ITK transform file") from error
        yield name.strip(), numbers["Parameters"], numbers["FixedParameters"]


def _read_binary(path: Path) -> Iterator[tuple[str, list[float], list[float]]]:
    import scipy.io

    file = io.BytesIO(read_bytes(path, EXPECTED, max_bytes=MAX_BYTES))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = scipy.io.loadmat(file)
        names = [name for name in content if "Transform" in name]
        fixed = np.ravel(content["fixed"]).tolist()
        values = [np.ravel(content[name]).tolist() for name in names]
    except Exception as error:  # a damaged file can fail anywhere inside SciPy
        raise DataError(f"{path}: no binary transform file of ITK; expected one that ANTs wrote") from error
    for name, parameters in zip(names, values, strict=True):
        yield name, parameters, fixed


def _matrix(path: Path, name: str, parameters: Sequence[float], fixed: Sequence[float]) -> np.ndarray:
    """LPS+ matrix of one transform: (A, t) about the centre c."""
    if not (np.isfinite(parameters).all() and np.isfinite(fixed).all()):
        raise DataError(f"{path}: parameters that are not finite; expected an affine transform")
    kind, size = name.split("_")[0], 2 if name.endswith("_2_2") else 3
    values, number = np.asarray(parameters, float), len(parameters)
    if kind in ("AffineTransform", "MatrixOffsetTransformBase") and number == size * (size + 1):
        linear, shift = values[: size * size].reshape(size, size), values[size * size :]
    elif kind == "TranslationTransform" and number == size:
        linear, shift = np.eye(size), values
    elif kind == "IdentityTransform" and number == 0:
        linear, shift = np.eye(size), np.zeros(size)
    elif kind == "Euler2DTransform" and number == 3:
        linear, shift = _turn(values[0]), values[1:]
    elif kind == "Euler3DTransform" and number == 6:
        linear, shift = _euler(values[:3], zyx=len(fixed) > 3 and bool(fixed[3])), values[3:]
    elif kind == "VersorRigid3DTransform" and number == 6:
        linear, shift = _versor(values[:3]), values[3:]
    else:
        raise DataError(f"{path}: {name or 'a transform'} of {number} parameters; expected {KINDS}")
    center = np.asarray(fixed[:size], float) if len(fixed) >= size else np.zeros(size)
    out = np.eye(size + 1)
    out[:-1, :-1], out[:-1, -1] = linear, shift + center - np.matmul(linear, center)
    return out


def _turn(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _euler(angles: np.ndarray, *, zyx: bool) -> np.ndarray:
    """R = Rz Rx Ry of angles about x, y and z; Rz Ry Rx with `zyx`."""
    from scipy.spatial.transform import Rotation

    x, y, z = (Rotation.from_euler(axis, angle) for axis, angle in zip("xyz", angles, strict=True))
    return (z * y * x if zyx else z * x * y).as_matrix()


def _versor(vector: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    scalar = np.sqrt(max(0.0, 1 - float(vector @ vector)))
    return Rotation.from_quat([*vector, scalar]).as_matrix()
