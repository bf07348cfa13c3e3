"""Regions of a diffusion scan by a trained network: `medjax ivim fit --segment MODEL`.

    segmentation = segment_scan(read_scan(Path("dwi.nii.gz"), Path("dwi.bval")), Path("model"))
    segmentation.labels                       (x, y, z), class numbers of the model
    region_masks(segmentation)["left lung"]   (x, y, z), where that structure is

The network sees the mean of the b = 0 frames, the image with the most signal and the least diffusion weighting.

Source: Xiao et al., arXiv 2507.13106, 2025 (lungs are segmented on the b = 0 frame, then fitted without a reader).
"""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from medjax.errors import DataError
from medjax.io.nifti import voxel_mm
from medjax.io.nnunet_labels import Structure
from medjax.ivim.io import DiffusionScan
from medjax.segmentation.evaluation import structure_mask
from medjax.segmentation.nnunet_predict import predict_case
from medjax.tools.segment_model import NetworkSource, load_model, prefix_errors
from medjax.tools.segment_predict import orientation_findings

MAX_BASELINE = 10.0  # s/mm²: with D* = 0.05 mm²/s perfusion has kept 60 % of its signal, as on scanners without b = 0


class Baseline(NamedTuple):
    """Mean of the frames of the lowest b-value, which is 0 on most scanners."""

    image: Float[np.ndarray, "x y z"]
    b_value: float  # s/mm²
    frames: int  # number of frames of the mean


class ScanSegmentation(NamedTuple):
    """Labels of a diffusion scan as a network predicts them from its b = 0 frame."""

    labels: Int[np.ndarray, "x y z"]  # class numbers, 0 background
    structures: dict[str, Structure]  # class number of each name, or those of a region; without the background
    classes: int  # number of classes, background included
    baseline: Baseline


def segment_scan(
    scan: DiffusionScan, model: Path, name: str = "the scan", network: NetworkSource | None = None
) -> ScanSegmentation:
    """Segmentation of a scan by the ensemble of a model folder, from the mean of its b = 0 frames.

    Warns where the scan is oriented otherwise than the training cases, or sides may be exchanged.

    Args:
        scan: diffusion scan.
        model: folder that `segment_train.train` wrote, of one channel.
        name: what messages call the scan.
        network: the user's network that the model was trained with, if it was.

    Raises:
        ConfigError, WorkdirError: the model's network is not built in and not passed, or another one is.
        DataError: a file of the model is missing or damaged, it takes several channels, the scan has no frame near
            b = 0, or no structure is found in it.
    """
    trained = load_model(model, network=network)
    if (channels := len(trained.plan.channels)) != 1:
        raise DataError(f"{model}: a model of {channels} channels; expected one of one channel, the b = 0 frame")
    first = baseline(scan, name)
    affine = scan.series.affine
    with prefix_errors(Path(name)):
        prediction = predict_case(
            trained.network, trained.params, first.image[..., None], voxel_mm(affine), trained.plan, keep=trained.keep
        )
    if not prediction.labels.any():
        raise DataError(
            f"{model}: no structure found in the b = {first.b_value:g} frame of {name}; expected a scan like those of "
            "its training, or --mask and --labels"
        )
    for what in orientation_findings(affine, trained):
        warnings.warn(f"{name}: {what}", stacklevel=2)
    structures = {label: one for label, one in trained.labels.items() if one != 0}
    return ScanSegmentation(prediction.labels, structures, trained.plan.classes, first)


def baseline(scan: DiffusionScan, name: str = "the scan") -> Baseline:
    """Mean of the frames of the lowest b-value; of voxels that are not finite, over the frames in which they are, or 0.

    Raises:
        DataError: the lowest b-value is above `MAX_BASELINE`.
    """
    lowest = float(scan.bvalues.min())
    if lowest > MAX_BASELINE:
        raise DataError(
            f"{name}: lowest b-value {lowest:g} s/mm²; expected frames of b = 0, or {MAX_BASELINE:g} at most"
        )
    frames = scan.series.array[..., scan.bvalues == lowest]
    finite = np.isfinite(frames)
    total = np.where(finite, frames, 0).sum(-1, dtype=np.float64)  # float32 signals may be large
    return Baseline((total / np.maximum(finite.sum(-1), 1)).astype(np.float32), lowest, frames.shape[-1])


def region_masks(segmentation: ScanSegmentation) -> dict[str, Bool[np.ndarray, "x y z"]]:
    """Voxels of each structure, by its name; one that is called `all` gets `all (label)`, as `all` are all voxels."""
    masks = {name: structure_mask(segmentation.labels, one) for name, one in segmentation.structures.items()}
    return {f"{name} (label)" if name == "all" else name: mask for name, mask in masks.items()}
