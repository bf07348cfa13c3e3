"""nnU-Net's configurations, 3d_fullres and 2d: memory, batch and widths of each, and the slice axis of 2d.

    axis = slice_axis(spacing, median_shape)          2 for short-axis slices, say
    memory = Memory(rules_of("2d"), memory_gb=8.0, base_width=32, max_width=512, classes=4)
    net, widths, batch = fit_network(memory, in_plane(spacing, axis), in_plane(median_shape, axis))
    with_slice_axis(net.patch, axis)                  (256, 224, 1)

Volumes stay volumes in 2-D: their slices are patches of one voxel along that axis.

Source: Isensee et al., Nature Methods 18, 2021 (nnU-Net), supplementary note 2; nnU-Net v2's ExperimentPlanner.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from medjax.errors import DataError
from medjax.segmentation.resample import Shape, Spacing
from medjax.segmentation.topology import (
    SPACING_TOLERANCE,
    Sides,
    Topology,
    feature_maps,
    first_patch,
    smaller,
    topology,
)


class Configuration(NamedTuple):
    """What an nnU-Net configuration fixes: feature-map elements that fit 8 GB with a batch of so many, and widths."""

    budget: float
    batch: int
    max_width: int  # channels of a level, at most


CONFIGURATIONS = {"3d_fullres": Configuration(5.6e8, 2, 320), "2d": Configuration(8.5e7, 12, 512)}
MIN_BATCH = 2  # patches


class Memory(NamedTuple):
    """Accelerator memory to plan for, and what fills it: widths of the levels and classes of the logits."""

    rules: Configuration
    memory_gb: float
    base_width: int  # channels of the finest level
    max_width: int
    classes: int


def rules_of(configuration: str) -> Configuration:
    """Rules of a configuration.

    Raises:
        DataError: it is neither "3d_fullres" nor "2d".
    """
    if configuration not in CONFIGURATIONS:
        raise DataError(f"configuration: {configuration!r}; expected {' or '.join(CONFIGURATIONS)}")
    return CONFIGURATIONS[configuration]


def fit_network(
    memory: Memory, spacing: Sequence[float], median: Sides, patch: Sides | None = None, axis: int | None = None
) -> tuple[Topology, tuple[int, ...], float]:
    """Topology with the largest patch of which two fit the memory, or the given one; widths; patches that fit.

    Raises:
        DataError: no patch fits; a patch of another number of axes, or of several slices along `axis`.
    """

    def widths_of(net: Topology) -> tuple[int, ...]:
        return tuple(min(memory.max_width, memory.base_width * 2**level) for level in range(len(net.strides)))

    def batch_of(net: Topology) -> float:
        elements = feature_maps(net.patch, net.strides, widths_of(net), memory.classes)
        return memory.rules.batch * memory.rules.budget * memory.memory_gb / 8 / elements

    net = topology(spacing, first_patch(spacing, median) if patch is None else chosen_patch(patch, axis))
    while patch is None and batch_of(net) < MIN_BATCH:
        net = smaller(spacing, net, median, memory.memory_gb)
    return net, widths_of(net), batch_of(net)


def slice_axis(spacing: Spacing, shape: Shape) -> int:
    """Axis across the slices of 2-D networks: that of one voxel if there is one, else that of the largest spacing.

    Of equal spacings (within 1 %) the last one, z. nnU-Net transposes this axis to the front.
    """
    coarse = [side >= (1 - SPACING_TOLERANCE) * max(spacing) for side in spacing]
    return min(range(3), key=lambda k: (shape[k] > 1, not coarse[k], -k))


def in_plane(values: Sequence[Any], axis: int | None) -> tuple[Any, ...]:
    """Values along (x, y, z) without that of the slice axis; all where there is none."""
    return tuple(value for k, value in enumerate(values) if k != axis)


def with_slice_axis(sides: Sides, axis: int | None) -> Shape:
    """Sides in the plane as a shape of 1 voxel along the slice axis: the inverse of `in_plane` for one slice."""
    x, y, z = sides if axis is None else (*sides[:axis], 1, *sides[axis:])
    return x, y, z


def chosen_patch(patch: Sides, axis: int | None) -> Sides:
    """Patch that a user has chosen, in the plane if there is a slice axis."""
    if len(patch) == 3 and (axis is None or patch[axis] == 1):
        return in_plane(patch, axis)
    if len(patch) == 2 and axis is not None:
        return patch
    expected = "" if axis is None else f", 1 along the slice axis {'xyz'[axis]}, or two numbers"
    raise DataError(f"patch: {patch}; expected three numbers of voxels{expected}")
