"""nnU-Net's experiment planning as a pure function: from the data set's fingerprint to patch, batch and topology.

    cases = [Case(volume, labels, (1.0, 1.0, 3.0)), ...]
    p = plan(fingerprint(cases, classes=3), memory_gb=8.0)      the network, patch, batch and spacing that fit 8 GB
    plan_file.from_json(plan_file.to_json(p)) == p

Axes are (x, y, z) as nibabel gives them; nnU-Net itself transposes the axis of lowest resolution to the front. The
configuration is 3d_fullres or 2d, whose patches are one voxel thick: volumes stay volumes, and each case keeps its own
slice distance. Memory budget and width are parameters, so that the same function plans for a laptop's CPU.

Source: Isensee et al., Nature Methods 18, 2021 (nnU-Net), supplementary note 2; nnU-Net v2's ExperimentPlanner.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from medjax import defaults
from medjax.errors import DataError
from medjax.segmentation.configuration import (
    MIN_BATCH,
    Memory,
    fit_network,
    in_plane,
    rules_of,
    slice_axis,
    with_slice_axis,
)
from medjax.segmentation.regions import check_regions
from medjax.segmentation.resample import (
    ANISOTROPY_THRESHOLD,
    IntensityProperties,
    Shape,
    Spacing,
    new_shape,
    nonzero_box,
)
from medjax.segmentation.topology import flat_axis, to_sides

MAX_DATASET_COVERAGE = 0.05  # largest fraction of all voxels in a batch
FOREGROUND_SAMPLES = 10_000  # voxels of each case for the intensity statistics


class Case(NamedTuple):
    """Training case: image, labels and voxel size of one subject."""

    image: Float[np.ndarray, "x y z channel"]
    labels: Int[np.ndarray, "x y z"]  # class numbers
    spacing: Spacing  # mm


@dataclass(frozen=True)
class Fingerprint:
    """Data set fingerprint: shapes, spacings and intensities of all cases after the crop to nonzero."""

    shapes: tuple[Shape, ...]
    spacings: tuple[Spacing, ...]  # mm
    crop_fractions: tuple[float, ...]  # fraction of voxels that the crop leaves, of each case
    intensities: tuple[IntensityProperties, ...]  # statistics of each channel
    channels: tuple[str, ...]
    classes: int  # background included
    ignore: bool = False  # voxels labelled `classes`, above all classes, count for nothing


@dataclass(frozen=True)
class Plan:
    """Plan of preprocessing, network and patches for training and prediction; hashable, and JSON both ways."""

    spacing: Spacing  # mm
    median_shape: Shape  # median shape of the cases at that spacing
    patch: Shape
    batch: int
    widths: tuple[int, ...]  # channels of each level, finest first
    kernels: tuple[Shape, ...]
    strides: tuple[Shape, ...]  # into each level; the first is 1
    channels: tuple[str, ...]
    classes: int
    intensities: tuple[IntensityProperties, ...]
    batch_dice: bool  # Dice over the voxels of a whole batch, where a patch is less than a quarter of a case
    use_mask_for_norm: bool  # z-scores over nonzero voxels only
    flat_axis: int | None  # low-resolution axis of an anisotropic patch: augmentation is 2-D, perpendicular to it
    mirror: tuple[int, ...] = (0, 1, 2)  # axes that training and prediction mirror; plans without it mirrored all
    orientations: tuple[str, ...] = ()  # orientations of the training cases, such as RAS; (): not known
    slice_axis: int | None = None  # of the 2-D configuration: patches are slices, 1 voxel along it; None: 3-D
    ignore: int | None = None  # label of voxels that count for nothing, `classes`
    regions: tuple[tuple[int, ...], ...] = ()  # classes of each region to predict; (): classes are predicted
    region_order: tuple[int, ...] = ()  # class that each region is written as, a later one over an earlier

    @property
    def outputs(self) -> int:
        """Number of the network's logits: one a region, or one a class."""
        return len(self.regions) or self.classes

    @property
    def label_values(self) -> int:
        """Number of label values: classes, and that of ignored voxels."""
        return self.classes + (self.ignore is not None)


def fingerprint(
    cases: Iterable[Case], classes: int, channels: Sequence[str] = (), names: Sequence[str] = (), ignore: bool = False
) -> Fingerprint:
    """Data set fingerprint of the cases: shapes, spacings and foreground intensities; cases are read one by one.

    Args:
        classes: number of classes, with background.
        channels: their names; "CT" is normalised by these intensities, any other by each image's own. Default: "".
        names: names of the cases in error messages; default: "case 0", …
        ignore: voxels labelled `classes` are not labelled; nothing is learned from them.

    Raises:
        DataError: no case, or one of other channels, shapes that differ, labels beyond `classes`, NaN or all voxels 0.
    """
    shapes, spacings, crop_fractions = list[Shape](), list[Spacing](), list[float]()
    voxels = list[np.ndarray]()
    for number, case in enumerate(cases):
        count = voxels[0].shape[1] if voxels else len(channels) or case.image.shape[-1]
        _check(names[number] if names else f"case {number}", case, classes + ignore, count)
        box, _ = nonzero_box(case.image)
        x, y, z = case.image[box].shape[:3]
        shapes.append((x, y, z))
        spacings.append(case.spacing)
        crop_fractions.append(x * y * z / case.labels.size)
        foreground = np.flatnonzero((case.labels > 0) & (case.labels < classes))
        if len(foreground) > FOREGROUND_SAMPLES:
            foreground = np.random.default_rng(number).choice(foreground, FOREGROUND_SAMPLES, replace=False)
        voxels.append(case.image.reshape(-1, case.image.shape[-1])[foreground])
    if not voxels:
        raise DataError("cases: none; expected at least one")
    values = np.concatenate(voxels)
    if not len(values):
        raise DataError("cases: no label is above 0; expected structures to learn")
    intensities = tuple(_intensities(values[:, k]) for k in range(values.shape[1]))
    of_channels = tuple(channels) or ("",) * len(intensities)
    return Fingerprint(tuple(shapes), tuple(spacings), tuple(crop_fractions), intensities, of_channels, classes, ignore)


def plan(
    fingerprint: Fingerprint,
    *,
    memory_gb: float = defaults.SEGMENT_MEMORY_GB,
    base_width: int = defaults.SEGMENT_WIDTH,
    max_width: int | None = None,
    patch: tuple[int, ...] | None = None,
    batch: int | None = None,
    mirror: Sequence[int] = (0, 1, 2),
    configuration: str = defaults.SEGMENT_CONFIGURATION,
    regions: Sequence[Sequence[int]] = (),
    region_order: Sequence[int] = (),
) -> Plan:
    """Plan of nnU-Net's 3d_fullres or 2d for this data set and `memory_gb` of accelerator memory.

    The patch starts with 256³ voxels (2048² in 2-D) in the proportions of 1 / spacing, at most the median case, and
    shrinks where it is longest against the median case until the feature maps, counted as nnU-Net counts them, fit. A
    batch has 2 patches or more, as many as fit and cover no more than 5 % of all voxels.

    In 2-D all of this is done in the plane; along the slice axis, that of the largest spacing, patch, kernels and
    strides are 1, nothing is mirrored, and no case is resampled (`case_spacing`). Dice is that of batches.

    Args:
        base_width: channels of the finest level.
        max_width: channels at most; default: nnU-Net's, 320, in 2-D 512.
        patch: voxels, rounded up to multiples of the strides, overruling the budget; in 2-D of the two axes of the
            plane, or of all three, 1 along the slice axis.
        batch: patches in a batch.
        mirror: axes that training and prediction mirror; left and right in a label's name forbid one of them.
        configuration: "3d_fullres" or "2d".
        regions: classes of each region to predict instead of classes, and
        region_order: the class that each is written as, see `nnunet_predict.paint_regions`.

    Raises:
        DataError: another configuration; a budget, width, patch or batch that is not positive; an infinite budget, or
            one that no patch fits; a patch of another number of axes, or of several slices; regions of other classes.
    """
    rules = rules_of(configuration)
    check_regions(regions, region_order, fingerprint.classes)
    limit = rules.max_width if max_width is None else max_width
    smallest = min(memory_gb, base_width, limit, *(patch or (1,)), 1 if batch is None else batch)
    if not (smallest > 0 and np.isfinite(memory_gb)):
        raise DataError(
            f"plan: {memory_gb} GB, widths {base_width}, {limit}, patch {patch}, batch {batch}; "
            "expected above 0 and finite"
        )
    spacing = target_spacing(fingerprint)
    shapes = [new_shape(*one, spacing) for one in zip(fingerprint.shapes, fingerprint.spacings, strict=True)]
    x, y, z = to_sides(np.ceil(np.median(shapes, axis=0)))
    across = slice_axis(spacing, (x, y, z)) if configuration == "2d" else None
    memory = Memory(rules, memory_gb, base_width, limit, len(regions) or fingerprint.classes)
    net, widths, largest = fit_network(memory, in_plane(spacing, across), in_plane((x, y, z), across), patch, across)
    own, whole = with_slice_axis(net.patch, across), float(x * y * z)
    voxels = float(np.prod(own))
    if batch is None:
        batch = max(round(min(largest, round(MAX_DATASET_COVERAGE * whole * len(shapes) / voxels))), MIN_BATCH)
    return Plan(
        spacing=spacing,
        median_shape=(x, y, z),
        patch=own,
        batch=batch,
        widths=widths,
        kernels=tuple(with_slice_axis(kernel, across) for kernel in net.kernels),
        strides=tuple(with_slice_axis(stride, across) for stride in net.strides),
        channels=fingerprint.channels,
        classes=fingerprint.classes,
        intensities=fingerprint.intensities,
        batch_dice=across is not None or voxels < 0.25 * whole,
        use_mask_for_norm=float(np.median(fingerprint.crop_fractions)) < 0.75,
        flat_axis=flat_axis(spacing, own) if across is None else across,
        mirror=tuple(axis for axis in mirror if axis != across),
        slice_axis=across,
        ignore=fingerprint.classes if fingerprint.ignore else None,
        regions=tuple(map(tuple, regions)),
        region_order=tuple(region_order),
    )


def case_spacing(plan: Plan, spacing: Spacing) -> Spacing:
    """Spacing that a case of this `spacing` is resampled to, mm: the plan's, but its own across the slices of 2-D."""
    x, y, z = (
        own if axis == plan.slice_axis else new
        for axis, (own, new) in enumerate(zip(spacing, plan.spacing, strict=True))
    )
    return x, y, z


def target_spacing(fingerprint: Fingerprint) -> Spacing:
    """Target spacing: the median; the 10th percentile along an axis 3 times coarser with 3 times fewer voxels."""
    spacings, sides = np.array(fingerprint.spacings), np.median(fingerprint.shapes, axis=0)
    target = np.median(spacings, axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    coarse = float(target[others].max())
    if target[worst] > ANISOTROPY_THRESHOLD * coarse and sides[worst] * ANISOTROPY_THRESHOLD < sides[others].min():
        tenth = float(np.percentile(spacings[:, worst], 10))
        target[worst] = tenth if tenth >= coarse else coarse + 1e-5  # never finer than the other axes
    x, y, z = target.tolist()
    return x, y, z


def _check(name: str, case: Case, classes: int, channels: int) -> None:
    if case.image.ndim != 4 or case.image.shape[:3] != case.labels.shape or case.image.shape[3] != channels:
        raise DataError(
            f"{name}: image {case.image.shape}, labels {case.labels.shape}; expected (x, y, z, {channels}), (x, y, z)"
        )
    if not (np.isfinite(case.image).all() and min(case.spacing) > 0):
        raise DataError(
            f"{name}: NaN or infinite voxels, or spacing {case.spacing}; expected finite ones and mm above 0"
        )
    if not case.image.any():
        raise DataError(f"{name}: every voxel is 0; expected something to segment")
    if case.labels.min() < 0 or case.labels.max() >= classes:
        raise DataError(f"{name}: labels from {case.labels.min()} to {case.labels.max()}; expected 0 to {classes - 1}")


def _intensities(values: np.ndarray) -> IntensityProperties:
    low, high = np.percentile(values, [0.5, 99.5])
    return IntensityProperties(float(values.mean()), float(values.std()), float(low), float(high))
