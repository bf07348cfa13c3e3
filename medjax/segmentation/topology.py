"""Topology of nnU-Net's U-Net: strides and kernels of its levels for a patch, and the patch that a memory holds.

    net = topology(spacing, first_patch(spacing, median))       voxels and mm along (x, y, z), or two axes of a slice
    while feature_maps(net.patch, net.strides, widths, classes) > budget:
        net = smaller(spacing, net, median, memory_gb)

The rules are the same for two axes, nnU-Net's 2-D configuration, as for three.

Source: Isensee et al., Nature Methods 18, 2021 (nnU-Net), supplementary note 2; nnU-Net v2's ExperimentPlanner.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from medjax.errors import DataError
from medjax.segmentation.resample import ANISOTROPY_THRESHOLD, Shape, Spacing

MIN_EDGE_LENGTH = 4  # voxels of the coarsest feature map along an axis
INITIAL_EDGE_LENGTH = {2: 2048, 3: 256}  # voxels of an isotropic patch along 2 or 3 axes, before it is shrunk
CONVOLUTIONS = 2  # number in each stage of encoder and decoder
SPACING_TOLERANCE = 0.01  # relative difference of two spacings that counts as none


Sides = tuple[int, ...]


class Topology(NamedTuple):
    """Patch, and kernels and strides of each level; the patch is a multiple of `multiple`."""

    patch: Sides
    kernels: tuple[Sides, ...]
    strides: tuple[Sides, ...]
    multiple: Sides


def first_patch(spacing: Sequence[float], median: Sides) -> Sides:
    """Patch with the proportions of 1 / spacing and 256³ voxels or 2048² pixels, at most the median case."""
    finest, axes = 1 / np.array(spacing), len(spacing)
    sides = np.rint(finest * (INITIAL_EDGE_LENGTH[axes] ** axes / np.prod(finest)) ** (1 / axes))
    return to_sides(np.minimum(sides, median))


def topology(spacing: Sequence[float], patch: Sides) -> Topology:
    """Network topology: halve axes with 8 voxels or more and spacing below twice the smallest, a single one from 12 on.

    A kernel is 3 wide along an axis from the level on at which its spacing is below twice the smallest; it is 3
    everywhere on the coarsest. The patch is rounded up to multiples of the strides.
    """
    axes, ones = range(len(patch)), [1] * len(patch)
    sizes, mm, multiple = list(patch), list(spacing), list(ones)
    kernel, kernels, strides = ones, list[Sides](), [tuple(ones)]
    while True:
        large = [axis for axis in axes if sizes[axis] >= 2 * MIN_EDGE_LENGTH]
        halved = [axis for axis in large if mm[axis] < 2 * min(mm[k] for k in large)]
        if not halved or (len(halved) == 1 and sizes[halved[0]] < 3 * MIN_EDGE_LENGTH):
            break
        kernel = [3 if mm[axis] < 2 * min(mm) else kernel[axis] for axis in axes]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in halved else 1 for axis in axes))
        for axis in halved:
            sizes[axis], mm[axis], multiple[axis] = -(-sizes[axis] // 2), 2 * mm[axis], 2 * multiple[axis]
    rounded = tuple(-(-side // by) * by for side, by in zip(patch, multiple, strict=True))
    return Topology(rounded, (*kernels, (3,) * len(patch)), tuple(strides), tuple(multiple))


def smaller(spacing: Sequence[float], net: Topology, median: Sides, memory_gb: float) -> Topology:
    """Topology of a patch one step smaller along the axis that is longest against the median case."""
    axis = int(np.argsort([side / whole for side, whole in zip(net.patch, median, strict=True)])[-1])
    sides = list(net.patch)
    sides[axis] -= net.multiple[axis]
    if sides[axis] >= 1:  # a shorter side may be halved less often: step by what it needs, so that no size is skipped
        sides[axis] = net.patch[axis] - topology(spacing, tuple(sides)).multiple[axis]
    if sides[axis] < 1:
        raise DataError(f"plan: no patch fits {memory_gb} GB; expected more memory or a smaller base width")
    return topology(spacing, tuple(sides))


def feature_maps(patch: Sides, strides: Sequence[Sides], widths: Sequence[int], classes: int) -> int:
    """Number of feature-map elements of a plain U-Net on one patch, as nnU-Net's planner counts them.

    Convolutions of encoder and decoder, transposed ones, and the finest logits: deep supervision's others do not count.
    """
    sides, voxels = np.array(patch), list[int]()
    for stride in strides:
        sides = sides // np.array(stride)
        voxels.append(int(np.prod(sides)))
    down = sum(CONVOLUTIONS * width * count for width, count in zip(widths, voxels, strict=True))
    up = sum((CONVOLUTIONS + 1) * width * count for width, count in zip(widths[:-1], voxels[:-1], strict=True))
    return down + up + (classes * voxels[0] if voxels[1:] else 0)


def flat_axis(spacing: Spacing, patch: Shape) -> int | None:
    """Low-resolution axis of an anisotropic patch, with fewer voxels than a third of the longest side, or None.

    It is the axis of one voxel if there is one, else that of the largest spacing; of equal spacings (within 1 %) that
    of the fewest voxels: a thin volume of cubic voxels is thin along its short axis.
    """
    coarse = [side >= (1 - SPACING_TOLERANCE) * max(spacing) for side in spacing]
    axis = min(range(3), key=lambda k: (patch[k] > 1, not coarse[k], patch[k]))
    return axis if max(patch) / patch[axis] > ANISOTROPY_THRESHOLD else None


def to_sides(sides: Any) -> Sides:
    """Numbers along the axes as whole ones."""
    return tuple(int(side) for side in sides)
