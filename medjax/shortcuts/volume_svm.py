"""Linear support-vector machine on the volumes of regions: the classical baseline of classifying brain scans.

    volumes = np.stack([region_volumes(one, regions=38, voxel_mm=4.0) for one in segmentations])
    svm = volume_svm(relative_volumes(volumes[train]), label[train])
    auroc(svm_scores(svm, relative_volumes(volumes[test])), label[test] == 1)

Volumes relative to the whole brain tell shape and not size, which differs between the sexes. Each volume is
standardised by the training set. Weights are per standard deviation, so they rank the regions.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Real

from medjax.errors import DataError

AnyArray = Array | np.ndarray


class VolumeSvm(NamedTuple):
    """A linear classifier of volumes: score = Σ_r weight_r (volume_r − mean_r) / sd_r + intercept."""

    weights: Float[np.ndarray, " region"]
    intercept: float
    mean: Float[np.ndarray, " region"]
    sd: Float[np.ndarray, " region"]  # 1 where a volume is constant


def region_volumes(
    labels: Int[AnyArray, "*space"], regions: int, voxel_mm: float | int | tuple[float | int, ...]
) -> Float[np.ndarray, " region"]:
    """Volume (mm³, of 2-D images mm²) of the regions 0 … `regions` − 1 of one label image; −1 is in no region.

    Raises:
        DataError: a label beyond the regions.
    """
    values = np.asarray(labels).ravel()
    if values.size and (values.max() >= regions or values.min() < -1):
        raise DataError(f"labels: {values.min()} to {values.max()}; expected −1 to {regions - 1}")
    counts = np.bincount(values[values >= 0], minlength=regions)
    return counts * float(np.prod(np.broadcast_to(np.asarray(voxel_mm, float), np.ndim(labels))))


def relative_volumes(volumes: Real[AnyArray, "case region"]) -> Float[np.ndarray, "case region"]:
    """Volumes as fractions of their sum, the volume of the brain if regions are all of it and nothing else.

    Raises:
        DataError: a scan without any volume.
    """
    array = np.asarray(volumes, float)
    total = array.sum(1, keepdims=True)
    if not (total > 0).all():
        raise DataError(
            f"volumes: scan {int(np.argmin(total))} sums to {total.min():g}; expected a positive brain volume"
        )
    return array / total


def volume_svm(
    volumes: Real[AnyArray, "case region"], label: Int[AnyArray, " case"], c: float | int = 1.0
) -> VolumeSvm:
    """Train a linear SVM (squared hinge loss, ridge penalty) on standardised volumes.

    Args:
        volumes: volume of each region.
        label: 0 or 1.
        c: inverse strength of the penalty.

    Raises:
        DataError: volumes that are not finite, or labels of other values or of one.
    """
    from sklearn.svm import LinearSVC

    array, y = np.asarray(volumes, float), np.asarray(label)
    if not np.isfinite(array).all():
        raise DataError(f"volumes: {np.sum(~np.isfinite(array))} NaN or infinite; expected finite numbers")
    if set(np.unique(y).tolist()) != {0, 1}:
        raise DataError(f"label: values {np.unique(y).tolist()[:4]}; expected both 0 and 1")
    mean, sd = array.mean(0), array.std(0)
    sd = np.where(sd > 1e-12 * np.abs(mean), sd, 1.0)
    svm = LinearSVC(C=c, dual=False).fit((array - mean) / sd, y)
    return VolumeSvm(svm.coef_[0], float(svm.intercept_[0]), mean, sd)


def svm_scores(svm: VolumeSvm, volumes: Real[AnyArray, "case region"]) -> Float[np.ndarray, " case"]:
    """Score of each scan, above 0 for label 1."""
    return np.matmul((np.asarray(volumes, float) - svm.mean) / svm.sd, svm.weights) + svm.intercept
