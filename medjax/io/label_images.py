"""Label images and a network's logits or probabilities from files: two files to compare, or folders of equal names.

    as_labels(values, path)                              whole numbers from 0, or it is no label image
    read_labeled(Path("image.png"), Path("mask.png"))    an image and its label mask

    for name, (predicted, truth) in pair_files(Path("pred"), Path("gt")).items():
        read_pair(predicted, truth, [0, 85, 170])        both as classes 0, 1, 2 of these label values
    read_scores(Path("logits/case_1.npy"), (64, 64, 3), softmax=False)

Endings that are read: `ENDINGS` of label images, `SCORE_ENDINGS` of scores.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Real

from medjax.errors import DataError
from medjax.io.files import read_npy, read_npz
from medjax.io.grids import check_same_grid
from medjax.io.images import read_image, resize
from medjax.io.nifti_file import float_values, load_nifti

ENDINGS = (".nii.gz", ".nii", ".png")
SCORE_ENDINGS = (".nii.gz", ".nii", ".npy", ".npz")
ROUNDING = 1e-3  # distance to a whole number that counts as rounding, of scaled integers in NIfTI
TINY = 1e-30  # value below which a probability's logarithm is not taken

Affine = Float[np.ndarray, "4 4"]


def as_labels(values: Real[np.ndarray, "*space"], name: Path | str) -> Int[np.ndarray, "*space"]:
    """Labels of an image: its values, which must be whole numbers from 0 but for rounding (`ROUNDING`).

    Raises:
        DataError: they are not; `name` is the image in the message.
    """
    values = np.asarray(values, np.float64)
    numbers = np.rint(values)
    odd = ~((np.abs(values - numbers) <= ROUNDING) & (numbers >= 0) & (numbers < 2**31))
    if odd.any():
        found = f"{values[odd][0]:g} in {odd.sum()} of {odd.size} voxels"
        raise DataError(f"{name}: values that are no labels, such as {found}; expected whole numbers from 0")
    return numbers.astype(np.int32)


class LabeledImage(NamedTuple):
    """An image and its label mask on one grid; without an affine for PNG."""

    image: Float[np.ndarray, "*space"]
    label: Int[np.ndarray, "*space"]
    affine: Affine | None


def read_labeled(image: Path, mask: Path, classes: int | None = None) -> LabeledImage:
    """Read an image and its label mask; labels are class numbers from 0, below `classes` if not None.

    Raises:
        DataError: shapes or affines differ, or a label is no class number.
    """
    gray, affine = read_image(image)
    label, other = read_labels(mask)
    check_same_grid(mask, label.shape, other, image.name, gray.shape, affine)
    if classes is not None and label.max(initial=0) >= classes:
        raise DataError(f"{mask}: label {label.max()}; expected 0 to {classes - 1}")
    return LabeledImage(gray, label, affine)


def fit_to_grid(
    labeled: LabeledImage, space: tuple[int, ...]
) -> tuple[Float[np.ndarray, "*new"], Int[np.ndarray, "*new"]]:
    """Fit a labelled image to a grid of `space` voxels over the same field, and rescale its intensities to 0 … 1.

    0 and 1 are the 1st and the 99th percentile.

    Raises:
        DataError: another number of axes.
    """
    if labeled.image.ndim != len(space):
        raise DataError(f"an image of {labeled.image.ndim} axes; expected {len(space)}, as the others have")
    low, high = np.percentile(labeled.image, [1, 99])
    gray = np.clip((labeled.image - low) / max(high - low, 1e-12), 0, 1)
    return resize(gray, space, 1).astype(np.float32), resize(labeled.label, space, 0)


def list_files(path: Path, endings: tuple[str, ...] = ENDINGS) -> dict[str, Path]:
    """List a folder's files with these endings (or the one file), by name without ending.

    Raises:
        DataError: there is none, or two have one name.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    found: dict[str, Path] = {}
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        ending = next((one for one in endings if file.name.endswith(one)), None)
        if ending is None:
            continue
        if (name := file.name.removesuffix(ending)) in found:
            raise DataError(f"{path}: two files named {name}; expected one")
        found[name] = file
    if not found:
        raise DataError(f"{path}: no file that ends in {', '.join(endings)}")
    return found


def pair_files(predictions: Path, truth: Path) -> dict[str, tuple[Path, Path]]:
    """Pair prediction and truth files by name, sorted; two single files are a pair whatever their names.

    Raises:
        DataError: as `list_files`, or a name is in one folder only.
    """
    predicted, true = list_files(predictions), list_files(truth)
    if predictions.is_file() and truth.is_file():
        return {next(iter(true)): (next(iter(predicted.values())), next(iter(true.values())))}
    if odd := sorted(predicted.keys() ^ true.keys()):
        where = (truth, predictions) if odd[0] in predicted else (predictions, truth)
        raise DataError(f"{where[0]}: no {odd[0]}, which {where[1]} has; expected the same names in both")
    return {name: (predicted[name], true[name]) for name in sorted(true)}


def read_labels(path: Path) -> tuple[Int[np.ndarray, "*space"], Affine | None]:
    """Read a label image: label values as they are in the file, and its affine if it has one.

    Raises:
        DataError: it cannot be read, or holds other values than labels.
    """
    try:
        image, affine = read_image(path, labels=True)
    except ImportError as error:
        raise DataError(f"{path}: PNG needs pillow; install medjax[data], or use NIfTI") from error
    return as_labels(image, path), affine


def read_classes(path: Path, known: list[int]) -> tuple[Int[np.ndarray, "*space"], Affine | None]:
    """Read a label image as classes 0, 1, … in the order of the label values `known`; and its affine, if any.

    Raises:
        DataError: as `read_labels`, or a value that is not known.
    """
    image, affine = read_labels(path)
    if odd := sorted(set(np.unique(image).tolist()) - set(known)):
        raise DataError(f"{path}: label {odd[0]}; expected {', '.join(map(str, known))}, or name all with --labels")
    order = np.argsort(known)
    return order[np.searchsorted(np.asarray(known)[order], image)].astype(np.int32), affine


def read_pair(
    prediction: Path, truth: Path, known: list[int]
) -> tuple[Int[np.ndarray, "*space"], Int[np.ndarray, "*space"]]:
    """Read prediction and truth as classes, see `read_classes`.

    Raises:
        DataError: as `read_classes`, or they do not lie on one grid.
    """
    (predicted, affine), (true, true_affine) = read_classes(prediction, known), read_classes(truth, known)
    check_same_grid(prediction, predicted.shape, affine, truth, true.shape, true_affine)
    return predicted, true


def read_scores(path: Path, shape: tuple[int, ...], softmax: bool) -> Float[np.ndarray, "*space class"]:
    """Read the logits of an image; with `softmax` the file has probabilities, and their logarithms are returned.

    Raises:
        DataError: it cannot be read as one array, has another shape (but for axes of length 1), or other values.
    """
    values = _read_array(path)
    if [side for side in values.shape if side != 1] == [side for side in shape if side != 1]:
        values = values.reshape(shape)  # a slice is a volume of one
    if values.shape != shape:
        raise DataError(f"{path}: shape {values.shape}; expected {shape}, the image's with a value for each label")
    if not np.isfinite(values).all() or (softmax and not (values.min() >= 0 and values.max() <= 1 + 1e-3)):
        raise DataError(f"{path}: values that are no {'probabilities' if softmax else 'logits'}; expected finite ones")
    return (np.log(np.maximum(values, TINY)) if softmax else values).astype(np.float32)


def _read_array(path: Path) -> np.ndarray:
    expected = "one array of scores"
    if path.suffix == ".npy":
        values = read_npy(path, expected)
    elif path.suffix == ".npz":
        arrays = read_npz(path, expected)
        if len(arrays) != 1:
            raise DataError(f"{path}: {len(arrays)} arrays; expected {expected}")
        [values] = arrays.values()
    else:
        return float_values(path, load_nifti(path))
    if values.dtype.kind not in "fiub":
        raise DataError(f"{path}: values of type {values.dtype}; expected {expected}, real numbers")
    return values
