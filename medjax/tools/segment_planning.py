"""Planning of `medjax segment train` on files: one pass over the data set gives fingerprint and mirror axes.

own_plan = plan_dataset(read_dataset(folder), mirror=None, base_width=32, memory_gb=8.0, patch=None)
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from medjax.errors import ConfigError, DataError
from medjax.io.nnunet_raw import RawDataset, read_scan
from medjax.running.progress import say, track
from medjax.segmentation.laterality import (
    LabelMoments,
    label_moments,
    lateral_labels,
    left_right_axes,
    mirror_images,
    orientation,
    same_orientation,
)
from medjax.segmentation.plan import Case, Plan, fingerprint, plan
from medjax.tools.checks import MAX_RATE, MAX_SIDE, MAX_STEPS, MAX_WIDTH, check_positive, check_range

ALL_AXES = (0, 1, 2)
ALL_NAMES = ("x", "y", "z")
MAX_MEMORY_GB = 1e5


def check_numbers(
    epochs: int, iterations: int, rate: float, base_width: int, memory_gb: float, patch: tuple[int, ...] | None
) -> None:
    """Check the numbers of a training before its data are read.

    Raises:
        ConfigError: one is out of range.
    """
    check_range("--epochs", epochs, 1, MAX_STEPS)
    check_range("--iterations", iterations, 1, MAX_STEPS)
    check_positive("--rate", rate, MAX_RATE)
    check_range("--base-width", base_width, 1, MAX_WIDTH)
    check_positive("--memory-gb", memory_gb, MAX_MEMORY_GB)
    for side in patch or ():
        check_range("--patch", side, 1, MAX_SIDE)


def plan_dataset(data: RawDataset, *, mirror: Sequence[int] | None = None, **planning: Any) -> Plan:
    """Plan for the training cases of a data set, read one by one; `planning` are keywords of `plan`.

    Args:
        mirror: voxel axes to mirror; None: all, but for those from left to right if names of labels say a side.

    Warns of structures that are mirror images of each other where no name says a side, and of cases whose orientations
    differ by more than mirroring.

    Raises:
        DataError: as `read_scan`, `fingerprint` and `plan`.
    """
    moments, across, orientations = list[LabelMoments](), set[int](), set[str]()

    def cases() -> Iterator[Case]:
        for number in track(len(data.training), "reading"):
            case, affine = read_training_case(data, number)
            across.update(left_right_axes(affine))
            orientations.add(orientation(affine))
            moments.append(label_moments(case.labels, case.image, data.classes))
            yield case

    files = [str(case.images[0]) for case in data.training]
    found = fingerprint(cases(), data.classes, data.channels, files, data.naming.ignore is not None)
    chosen = _mirror_axes(list(data.labels), mirror, sorted(across))
    _warn_of_mirror_images(data.naming.class_names, moments, chosen, mirror)
    _warn_of_orientations(data.folder, sorted(orientations), chosen)
    regions = {"regions": data.naming.regions, "region_order": data.naming.order}
    return replace(plan(found, mirror=chosen, **regions, **planning), orientations=tuple(sorted(orientations)))


def read_training_case(data: RawDataset, number: int) -> tuple[Case, Float[np.ndarray, "4 4"]]:
    """A training case with its labels, and its affine.

    Raises:
        DataError: as `read_scan`, or there are no labels.
    """
    scan = read_scan(data.training[number], data.label_values)
    if scan.labels is None:
        raise DataError(f"{scan.name}: no labels; expected them for training")
    return Case(scan.image, scan.labels, scan.spacing), scan.affine


def mirror_setting(names: Sequence[str], mirror: Sequence[int] | None) -> str:
    """Mirror axes as a model folder records them: `x,y,z`, `none`, or what the planning finds for these labels."""
    if mirror is None and lateral_labels(names):
        return "all but left-right"
    return axes_text(ALL_AXES if mirror is None else mirror)


def axes_text(axes: Sequence[int]) -> str:
    """Voxel axes as the option names them: `x,z`, or `none`."""
    return ",".join(ALL_NAMES[axis] for axis in axes) or "none"


def parse_axes(text: str | None) -> tuple[int, ...] | None:
    """Voxel axes of the option `--mirror`: "x,z" is (0, 2), "none" is (), None is None.

    Raises:
        ConfigError: not such axes, or one twice.
    """
    if text is None:
        return None
    names = list[str]() if text.strip() == "none" else [name.strip() for name in text.lower().split(",")]
    if any(name not in ALL_NAMES or names.count(name) > 1 for name in names):
        raise ConfigError(f"--mirror {text}; expected some of x, y, z, as in --mirror x,z, or none")
    return tuple(sorted(ALL_NAMES.index(name) for name in names))


def _mirror_axes(names: Sequence[str], mirror: Sequence[int] | None, across: Sequence[int]) -> tuple[int, ...]:
    """Axes to mirror, with a line if names of labels say a side."""
    sides, free = lateral_labels(names), tuple(axis for axis in ALL_AXES if axis not in across)
    listed = f"{', '.join(sides[:4])}{', …' if len(sides) > 4 else ''}"
    if mirror is None and sides:
        say(f"labels name a side ({listed}): not mirrored along {axes_text(across)}, which runs from left to right; "
            f"--mirror {axes_text(ALL_AXES)} mirrors all axes")  # fmt: skip
        return free
    if mirror is not None and sides and (wrong := [axis for axis in mirror if axis in across]):
        warnings.warn(
            f"--mirror {axes_text(mirror)}: labels name a side ({listed}), which mirroring along {axes_text(wrong)} "
            f"takes away; --mirror {axes_text([axis for axis in mirror if axis not in wrong])} keeps it",
            stacklevel=3,
        )
    return ALL_AXES if mirror is None else tuple(mirror)


def _warn_of_orientations(folder: Path, found: Sequence[str], mirror: Sequence[int]) -> None:
    """Warn where a network would see cases from several sides that mirroring does not show it."""
    if not all(same_orientation(one, found[0], mirror) for one in found):
        warnings.warn(
            f"{folder}: cases are oriented {' and '.join(found)}, so one side lies at different ends of their arrays; "
            "expected one orientation: reorient the images, with their labels",
            stacklevel=3,
        )


def _warn_of_mirror_images(
    names: Sequence[str], moments: Sequence[LabelMoments], chosen: Sequence[int], mirror: Sequence[int] | None
) -> None:
    pairs = [pair for pair in mirror_images(moments) if pair[2] in chosen]
    if pairs and mirror is None:
        one, other, axis = pairs[0]
        more = f" (and {len(pairs) - 1} more pairs)" if pairs[1:] else ""
        kept = [one for one in chosen if one not in {pair[2] for pair in pairs}]
        warnings.warn(
            f"labels {names[one]} and {names[other]}{more} are mirror images along {ALL_NAMES[axis]}, so a network "
            f"trained with mirroring cannot tell them apart; --mirror {axes_text(kept)} turns it off there",
            stacklevel=3,
        )
