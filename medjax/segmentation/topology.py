"""Topology of nnU-Net's 3-D U-Net: strides and kernels of its levels for a patch, and the patch that a memory holds.

    net = topology(spacing, first_patch(spacing, median))       voxels and mm along (x, y, z)
    while feature_maps(net.patch, net.strides, widths, classes) > budget:
        net = smaller(spacing, net, median, memory_gb)

Source: Isensee et al., Nature Methods 18, 2021 (nnU-Net), supplementary note 2; nnU-Net v2's ExperimentPlanner.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from medjax.errors import DataError
from medjax.segmentation.resample import ANISOTROPY_THRESHOLD, Shape, Spacing

MIN_EDGE_LENGTH = 4  # voxels of the coarsest feature map along an axis
INITIAL_EDGE_LENGTH = 256  # voxels of an isotropic patch along each axis, before it is shrunk
CONVOLUTIONS = 2  # number in each stage of encoder and decoder
SPACING_TOLERANCE = 0.01  # relative difference of two spacings that counts as none


class Topology(NamedTuple):
    """Patch, and kernels and strides of each level; the patch is a multiple of `multiple`."""

    patch: Shape
    kernels: tuple[Shape, ...]
    strides: tuple[Shape, ...]
    multiple: Shape


def first_patch(spacing: Spacing, median: Shape) -> Shape:
    """Patch with the proportions of 1 / spacing and 256³ voxels, at most the median case."""
    finest = 1 / np.array(spacing)
    sides = np.rint(finest * (INITIAL_EDGE_LENGTH**3 / np.prod(finest)) ** (1 / 3))
    return to_shape(np.minimum(sides, median))


def topology(spacing: Spacing, patch: Shape) -> Topology:
    """Network topology: halve axes with 8 voxels or more and spacing below twice the smallest, a single one from 12 on.

    A kernel is 3 wide along an axis from the level on at which its spacing is below twice the smallest; it is 3
    everywhere on the coarsest. The patch is rounded up to multiples of the strides.
    """
    sizes, mm, multiple = list(patch), list(spacing), [1, 1, 1]
    kernel, kernels, strides = [1, 1, 1], list[Shape](), [(1, 1, 1)]
    while True:
        large = [axis for axis in range(3) if sizes[axis] >= 2 * MIN_EDGE_LENGTH]
        halved = [axis for axis in large if mm[axis] < 2 * min(mm[k] for k in large)]
        if not halved or (len(halved) == 1 and sizes[halved[0]] < 3 * MIN_EDGE_LENGTH):
            break
        kernel = [3 if mm[axis] < 2 * min(mm) else kernel[axis] for axis in range(3)]
        kernels.append(to_shape(kernel))
        strides.append(to_shape(2 if axis in halved else 1 for axis in range(3)))
        for axis in halved:
            sizes[axis], mm[axis], multiple[axis] = -(-sizes[axis] // 2), 2 * mm[axis], 2 * multiple[axis]
    rounded = to_shape(-(-side // by) * by for side, by in zip(patch, multiple, strict=True))
    return Topology(rounded, (*kernels, (3, 3, 3)), tuple(strides), to_shape(multiple))


def smaller(spacing: Spacing, net: Topology, median: Shape, memory_gb: float) -> Topology:
    """Topology of a patch one step smaller along the axis that is longest against the median case."""
    axis = int(np.argsort([side / whole for side, whole in zip(net.patch, median, strict=True)])[-1])
    sides = list(net.patch)
    sides[axis] -= net.multiple[axis]
    if sides[axis] >= 1:  # a shorter side may be halved less often: step by what it needs, so that no size is skipped
        sides[axis] = net.patch[axis] - topology(spacing, to_shape(sides)).multiple[axis]
    if sides[axis] < 1:
        raise DataError(f"plan: no patch fits {memory_gb} GB; expected more memory or a smaller base width")
    return topology(spacing, to_shape(sides))


def feature_maps(patch: Shape, strides: Sequence[Shape], widths: Sequence[int], classes: int) -> int:
    """Number of feature-map elements of a plain U-Net with deep supervision on one patch, as nnU-Net counts them."""
    sides, voxels = np.array(patch), list[int]()
    for stride in strides:
        sides = sides // np.array(stride)
        voxels.append(int(np.prod(sides)))
    down = sum(CONVOLUTIONS * width * count for width, count in zip(widths, voxels, strict=True))
    up = sum(
        ((CONVOLUTIONS + 1) * width + classes) * count for width, count in zip(widths[:-1], voxels[:-1], strict=True)
    )
    return down + up


def flat_axis(spacing: Spacing, patch: Shape) -> int | None:
    """Low-resolution axis of an anisotropic patch, with fewer voxels than a third of the longest side, or None.

    It is the axis of one voxel if there is one, else that of the largest spacing; of equal spacings (within 1 %) that
    of the fewest voxels: a thin volume of cubic voxels is thin along its short axis.
    """
    coarse = [side >= (1 - SPACING_TOLERANCE) * max(spacing) for side in spacing]
    axis = min(range(3), key=lambda k: (patch[k] > 1, not coarse[k], patch[k]))
    return axis if max(patch) / patch[axis] > ANISOTROPY_THRESHOLD else None


def to_shape(sides: Any) -> Shape:
    """Three numbers as a shape."""
    x, y, z = (int(side) for side in sides)
    return x, y, z
