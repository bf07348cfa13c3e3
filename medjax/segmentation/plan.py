"""What nnU-Net decides before it trains, as a pure function: data sets have a fingerprint, a fingerprint has a plan.

    cases = [Case(volume, labels, (1.0, 1.0, 3.0)), ...]
    p = plan(fingerprint(cases, classes=3), memory_gb=8.0)      the network, patch, batch and spacing that fit 8 GB
    from_json(to_json(p)) == p

Axes are (x, y, z) as nibabel gives them throughout; nnU-Net itself turns the thickest axis to the front, here it stays
where it is. The rules are those of the configuration 3d_fullres; budget and width are parameters, so that the same
function plans for a notebook's CPU.

Source: Isensee et al., Nature Methods 18, 2021 (nnU-Net), supplementary note 2; nnU-Net v2's ExperimentPlanner.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from dataclasses import fields as fields_of
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from medjax.errors import DataError
from medjax.segmentation.resample import ANISOTROPIC, Grey, Shape, Spacing, new_shape, non_zero

LEAST_SIDE = 4  # voxels of the coarsest feature map
REFERENCE = 5.6e8  # numbers in feature maps that fit 8 GB with a batch of 2
MOST_OF_DATA = 0.05  # share of all voxels in a batch
FIELD = 256  # an isotropic patch starts with so many voxels a side
CONVOLUTIONS = 2  # in each stage
SAMPLED = 10_000  # foreground voxels a case that grey values are taken from


class Case(NamedTuple):
    """One subject."""

    image: Float[np.ndarray, "x y z channel"]
    labels: Int[np.ndarray, "x y z"]  # class numbers
    spacing: Spacing  # mm


@dataclass(frozen=True)
class Fingerprint:
    """What is known of a data set: cases after the crop to voxels that are not 0."""

    shapes: tuple[Shape, ...]
    spacings: tuple[Spacing, ...]  # mm
    kept: tuple[float, ...]  # share of voxels that the crop leaves
    greys: tuple[Grey, ...]  # of each channel
    channels: tuple[str, ...]
    classes: int  # background included


@dataclass(frozen=True)
class Plan:
    """Everything that training and prediction need to know; hashable, and JSON both ways."""

    spacing: Spacing  # mm
    median_shape: Shape  # of the cases at that spacing
    patch: Shape
    batch: int
    widths: tuple[int, ...]  # channels of each level, finest first
    kernels: tuple[Shape, ...]
    strides: tuple[Shape, ...]  # into each level; the first is 1
    channels: tuple[str, ...]
    classes: int
    greys: tuple[Grey, ...]
    batch_dice: bool  # Dice over the voxels of a whole batch, where a patch is less than a quarter of a case
    masked: bool  # z-scores over voxels that are not 0 only
    flat_axis: int | None  # the thick axis of a flat patch, which augmentation leaves alone


class _Topology(NamedTuple):
    patch: Shape
    kernels: tuple[Shape, ...]
    strides: tuple[Shape, ...]
    multiple: Shape


def fingerprint(
    cases: Iterable[Case], classes: int, channels: Sequence[str] = (), names: Sequence[str] = ()
) -> Fingerprint:
    """Shapes, spacings, grey values of the foreground; cases are looked at one by one and not kept.

    `channels` names them; "CT" is scaled by these grey values, any other name by each image's own. Default: no names.
    `names` are those of the cases in messages, "case 0" and so on without.

    Raises:
        DataError: no case, channels or shapes differ, labels beyond `classes`, NaN, a spacing that is not positive,
            every voxel of an image 0.
    """
    shapes, spacings, kept = list[Shape](), list[Spacing](), list[float]()
    voxels = list[np.ndarray]()
    for number, case in enumerate(cases):
        count = voxels[0].shape[1] if voxels else len(channels) or case.image.shape[-1]
        _check(names[number] if names else f"case {number}", case, classes, count)
        box, _ = non_zero(case.image)
        x, y, z = case.image[box].shape[:3]
        shapes.append((x, y, z))
        spacings.append(case.spacing)
        kept.append(x * y * z / case.labels.size)
        places = np.flatnonzero(case.labels)
        if len(places) > SAMPLED:
            places = np.random.default_rng(number).choice(places, SAMPLED, replace=False)
        voxels.append(case.image.reshape(-1, case.image.shape[-1])[places])
    if not voxels:
        raise DataError("cases: none; expected at least one")
    foreground = np.concatenate(voxels)
    if not len(foreground):
        raise DataError("cases: no label is above 0; expected structures to learn")
    greys = tuple(_grey(foreground[:, k]) for k in range(foreground.shape[1]))
    of_channels = tuple(channels) or ("",) * len(greys)
    return Fingerprint(tuple(shapes), tuple(spacings), tuple(kept), greys, of_channels, classes)


def plan(
    fingerprint: Fingerprint,
    *,
    memory_gb: float = 8.0,
    base_width: int = 32,
    most_width: int = 320,
    patch: Shape | None = None,
    batch: int | None = None,
) -> Plan:
    """The plan of nnU-Net's 3d_fullres for this data set and `memory_gb` of accelerator memory.

    The patch starts with 256³ voxels in the proportions of 1 / spacing, at most the median case, and shrinks where it
    is longest against the median case until the feature maps, counted as nnU-Net counts them, fit. A batch has 2
    patches or more, as many as fit and cover no more than 5 % of all voxels. `patch` and `batch` overrule; a given
    patch is rounded up to what the network halves, and never shrunk.

    Raises:
        DataError: a budget, width, patch or batch that is not positive, an infinite budget, or one that no patch fits.
    """
    least = min(memory_gb, base_width, most_width, *(patch or (1,)), 1 if batch is None else batch)
    if not (least > 0 and np.isfinite(memory_gb)):
        raise DataError(
            f"plan: {memory_gb} GB, widths {base_width}, {most_width}, patch {patch}, batch {batch}; "
            "expected above 0 and finite"
        )
    spacing = target_spacing(fingerprint)
    sides = [new_shape(*one, spacing) for one in zip(fingerprint.shapes, fingerprint.spacings, strict=True)]
    median = _shape(np.ceil(np.median(sides, axis=0)))
    budget = REFERENCE * memory_gb / 8

    def cost(net: _Topology) -> int:
        return feature_maps(net.patch, net.strides, widths_of(net), fingerprint.classes)

    def widths_of(net: _Topology) -> tuple[int, ...]:
        return tuple(min(most_width, base_width * 2**level) for level in range(len(net.strides)))

    net = _topology(spacing, patch or _first_patch(spacing, median))
    while patch is None and cost(net) > budget:
        net = _smaller(spacing, net, median, memory_gb)
    if batch is None:
        most = round(MOST_OF_DATA * float(np.prod(median)) * len(sides) / float(np.prod(net.patch)))
        batch = max(round(min(2 * budget / cost(net), most)), 2)
    thick = int(np.argmax(spacing))
    return Plan(
        spacing=spacing,
        median_shape=median,
        patch=net.patch,
        batch=batch,
        widths=widths_of(net),
        kernels=net.kernels,
        strides=net.strides,
        channels=fingerprint.channels,
        classes=fingerprint.classes,
        greys=fingerprint.greys,
        batch_dice=float(np.prod(net.patch)) < 0.25 * float(np.prod(median)),
        masked=float(np.median(fingerprint.kept)) < 0.75,
        flat_axis=thick if max(net.patch) / net.patch[thick] > ANISOTROPIC else None,
    )


def target_spacing(fingerprint: Fingerprint) -> Spacing:
    """The median spacing; the 10th percentile along an axis that is 3 times coarser and has 3 times fewer voxels.

    It never gets finer than the other axes.
    """
    spacings, sides = np.array(fingerprint.spacings), np.median(fingerprint.shapes, axis=0)
    target = np.median(spacings, axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    coarse = float(target[others].max())
    if target[worst] > ANISOTROPIC * coarse and sides[worst] * ANISOTROPIC < sides[others].min():
        tenth = float(np.percentile(spacings[:, worst], 10))
        target[worst] = tenth if tenth >= coarse else coarse + 1e-5
    x, y, z = target.tolist()
    return x, y, z


def feature_maps(patch: Shape, strides: Sequence[Shape], widths: Sequence[int], classes: int) -> int:
    """Numbers in the feature maps of a plain U-Net with deep supervision on one patch, as nnU-Net counts them.

    Each level of the encoder and the decoder has 2 convolutions; the decoder also the transposed one and the logits.
    """
    sides, voxels = np.array(patch), list[int]()
    for stride in strides:
        sides = sides // np.array(stride)
        voxels.append(int(np.prod(sides)))
    down = sum(CONVOLUTIONS * width * count for width, count in zip(widths, voxels, strict=True))
    up = sum(
        ((CONVOLUTIONS + 1) * width + classes) * count for width, count in zip(widths[:-1], voxels[:-1], strict=True)
    )
    return down + up


def to_json(plan: Plan) -> str:
    """The plan as text."""
    return json.dumps(asdict(plan), indent=2) + "\n"


def from_json(text: str) -> Plan:
    """The plan that `to_json` wrote; entries that are none of a plan's are left alone.

    Raises:
        DataError: it is another text.
    """
    try:
        known = {field.name for field in fields_of(Plan)}
        fields = {name: _tuples(value) for name, value in json.loads(text).items() if name in known}
        greys = tuple(Grey(*grey) for grey in fields.pop("greys"))
        return Plan(**fields, greys=greys)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"plan: {error}; expected the JSON of a plan") from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value


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


def _grey(values: np.ndarray) -> Grey:
    low, high = np.percentile(values, [0.5, 99.5])
    return Grey(float(values.mean()), float(values.std()), float(low), float(high))


def _shape(sides: Any) -> Shape:
    x, y, z = (int(side) for side in sides)
    return x, y, z


def _first_patch(spacing: Spacing, median: Shape) -> Shape:
    """A field with the proportions of 1 / spacing and 256³ voxels, cut to the median case."""
    finest = 1 / np.array(spacing)
    sides = np.rint(finest * (FIELD**3 / np.prod(finest)) ** (1 / 3))
    return _shape(np.minimum(sides, median))


def _topology(spacing: Spacing, patch: Shape) -> _Topology:
    """Halve axes with 8 voxels or more whose spacing is below twice the least, a single one from 12 voxels on.

    A kernel is 3 wide along an axis from the level on at which its spacing is below twice the least; it is 3 everywhere
    on the coarsest. The patch is rounded up to multiples of the strides.
    """
    sizes, mm, multiple = list(patch), list(spacing), [1, 1, 1]
    kernel, kernels, strides = [1, 1, 1], list[Shape](), [(1, 1, 1)]
    while True:
        large = [axis for axis in range(3) if sizes[axis] >= 2 * LEAST_SIDE]
        halved = [axis for axis in large if mm[axis] < 2 * min(mm[k] for k in large)]
        if not halved or (len(halved) == 1 and sizes[halved[0]] < 3 * LEAST_SIDE):
            break
        kernel = [3 if mm[axis] < 2 * min(mm) else kernel[axis] for axis in range(3)]
        kernels.append(_shape(kernel))
        strides.append(_shape(2 if axis in halved else 1 for axis in range(3)))
        for axis in halved:
            sizes[axis], mm[axis], multiple[axis] = -(-sizes[axis] // 2), 2 * mm[axis], 2 * multiple[axis]
    rounded = _shape(-(-side // by) * by for side, by in zip(patch, multiple, strict=True))
    return _Topology(rounded, (*kernels, (3, 3, 3)), tuple(strides), _shape(multiple))


def _smaller(spacing: Spacing, net: _Topology, median: Shape, memory_gb: float) -> _Topology:
    """One step down along the axis that is longest against the median case."""
    axis = int(np.argsort([side / whole for side, whole in zip(net.patch, median, strict=True)])[-1])
    sides = list(net.patch)
    sides[axis] -= net.multiple[axis]
    if sides[axis] >= 1:  # a shorter side may be halved less often: step by what it needs, so that no size is skipped
        sides[axis] = net.patch[axis] - _topology(spacing, _shape(sides)).multiple[axis]
    if sides[axis] < 1:
        raise DataError(f"plan: no patch fits {memory_gb} GB; expected more memory or a smaller base width")
    return _topology(spacing, _shape(sides))
