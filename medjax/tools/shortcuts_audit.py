"""Shortcut audit of attribution maps in files of any framework, as in `medjax shortcuts audit`.

    result = audit_maps("ts.npz", "ba.npz", "sa.npz", "grid:7x7", "out", images="images.npz")
    result.verdict.decision                                      "shortcut", "no evidence" or "undecided"

For arrays: `medjax.shortcuts.oscar_audit`. Files are those of `attribution_maps`, regions those of `audit_regions`.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from medjax.errors import ConfigError, DataError
from medjax.shortcuts.attribution.methods import SIGNS, importance, sign_of
from medjax.shortcuts.image_ids import match_ids
from medjax.shortcuts.oscar_audit import NETWORKS, audit_ranks, check_means, is_constant
from medjax.shortcuts.oscar_verdict import Limits, check_limits, verdict
from medjax.shortcuts.rank_profile import rank_regions
from medjax.shortcuts.regions import Regions, region_means
from medjax.tools.attribution_maps import Image, MapSet, check_map, list_inputs, open_maps
from medjax.tools.attribution_networks import network_maps
from medjax.tools.audit_regions import Partition, choose_regions, distances, region_files
from medjax.tools.checks import (
    as_paths,
    check_choice,
    check_no_overwrite,
    check_output_files,
    check_output_folder,
    check_seed,
)
from medjax.tools.shortcuts_outputs import ShortcutsAudit, output_files, write_outputs

Paths = Path | str | Sequence[Path | str]


class RankedSources(NamedTuple):
    """What is read of the maps, and what there is to say of each source, by its name."""

    ranks: Float[np.ndarray, "network image region"]  # of a network their mean over its sources
    distances: Float[np.ndarray, "region region"]  # of regions; means over images where each has regions of its own
    grid: Image  # a map, with the first affine that was found
    constant: dict[str, int]  # number of maps that are constant, and so tell nothing
    negative: dict[str, int]  # number of maps with negative values
    without_affine: list[str]  # sources of maps without an affine, where others have one


def audit_maps(
    ts: Paths,
    ba: Paths,
    sa: Paths,
    regions: str,
    output: Path | str | None = None,
    *,
    images: Path | str | None = None,
    names: Path | str | None = None,
    method: str | None = None,
    network: Any = None,
    sign: str | None = None,
    seed: int = 0,
    limits: Limits = Limits(),  # noqa: B008 (immutable)
    progress: Callable[[Sequence[str]], Iterable[str]] = iter,
    command: str = "",
) -> ShortcutsAudit:
    """Audit of maps of TS, BA and SA; of several files each, such as seeds, ranks are averaged over them.

    Args:
        ts, ba, sa: maps of the network under audit, of the task's network on balanced data, of the attribute's network.
        regions: regions of the maps, see `audit_regions`.
        output: folder to write to; None: nothing is written.
        images: the images, for superpixels and figures; there may be more than maps.
        names: CSV of names of label values, see `choose_regions`.
        method: name of an attribution method of `attribution_networks`: `ts`, `ba` and `sa` are then files of trained
            classifiers (`classifier_file`), and maps are made of all `images`.
        network: their network, where medjax does not know it: a Model, or a function that makes one, a Part or not.
        sign: what of a map is importance, of `SIGNS`; default: as `sign_of` the method, or the map as it is.
        seed: random seed of resamples, permutations and surrogates.
        limits: limits of the decision.
        progress: iterates over the ids, with a bar say.
        command: command line that repeats this call, for the report.

    Raises:
        ConfigError: regions, a seed or a sign that cannot be.
        DataError: a file or its maps cannot be used, ids differ, or an output is an input.
    """
    check_seed(seed)
    check_limits(limits)
    if sign is not None:
        check_choice("--sign", sign, SIGNS)
    given = {name: _as_list(one) for name, one in zip(NETWORKS, (ts, ba, sa), strict=True)}
    output, images, names = as_paths(output, images, names)
    shown = None if images is None else open_maps(images)
    if output is not None:
        read = [path for several in given.values() for path in several] + ([images] if images else [])
        check_output_folder(output)
        check_output_files(output_files(output))
        check_no_overwrite(
            [output, *output_files(output)],
            [*(file for path in read for file in list_inputs(path)), *region_files(regions), names],
        )
    networks = {name: [_open(path, method, network, shown, seed) for path in paths] for name, paths in given.items()}
    every = [one for sources in networks.values() for one in sources]
    ids = match_sources(every, shown)
    partition = choose_regions(regions, reference(every, ids[0])[0], ids, shown, names)
    used = sign or ("signed" if method is None else sign_of(method))
    ranked = rank_sources(networks, ids, partition, used, progress)
    found = audit_ranks(jax.random.key(seed), ranked.ranks, partition.regions, ranked.distances)
    settings = {
        **{name: [path.name for path in paths] for name, paths in given.items()},
        "regions": regions, "method": method, "sign": used, "seed": seed, **limits._asdict(),
    }  # fmt: skip
    warnings = _warnings(ranked, len(ids), chosen=sign is not None or method is not None)
    counts = (ranked.constant, ranked.negative)
    result = ShortcutsAudit(found, verdict(found, limits), limits, partition, ids, *counts, warnings, settings)
    if output is not None:
        write_outputs(output, result, ranked.grid, shown, command)
    return result


def _open(path: Path, method: str | None, network: Any, images: MapSet | None, seed: int) -> MapSet:
    if method is None:
        return open_maps(path)
    if images is None:
        raise ConfigError(f"--method {method} needs --images, of which the networks' maps are made")
    return network_maps(path, method, images, images.ids, network, seed)


def match_sources(maps: Sequence[MapSet], images: MapSet | None) -> list[str]:
    """Sorted ids of all maps, which each source must have; the images may be of others too.

    Raises:
        DataError: a source has not all, or one twice.
    """
    names = [f"{one.name} (file {number + 1})" for number, one in enumerate(maps)]
    if len({one.name for one in maps}) == len(maps):
        names = [one.name for one in maps]
    ids, _ = match_ids(dict(zip(names, (one.ids for one in maps), strict=True)))
    if images is not None and (missing := sorted(set(ids) - set(images.ids))):
        raise DataError(f"{images.name}: no image {missing[0]}, of which there are maps; expected all of them")
    return ids


def reference(sources: Sequence[MapSet], image: str) -> tuple[Image, str]:
    """Map of an image in the first source where it has an affine, else in the first one; and its name for messages."""
    for source in sources:
        if (one := source.read(image)).affine is not None:
            return one, f"{source.name}: {image}"
    return sources[0].read(image), f"{sources[0].name}: {image}"


class _Place(NamedTuple):
    """Regions of an image, a map of it whose grid all others must have, and its name for messages."""

    regions: Regions
    like: Image
    name: str


def _place(sources: Sequence[MapSet], image: str, partition: Partition) -> _Place:
    like, name = reference(sources, image)
    regions, affine = partition.of(image, like)
    return _Place(regions, like if like.affine is not None else Image(like.values, affine), name)


def rank_sources(
    networks: dict[str, list[MapSet]],
    ids: list[str],
    partition: Partition,
    sign: str = "signed",
    progress: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> RankedSources:
    """Ranks of the regions by the `importance` of the maps.

    Raises:
        DataError: a map is not finite, on another grid than the regions, or all of a source are constant.
    """
    every = [one for sources in networks.values() for one in sources]
    means = np.zeros((len(every), len(ids), len(partition.regions.names)))
    negative, without = np.zeros(len(every), int), np.zeros(len(every), bool)
    between, place = np.zeros(()), _place(every, ids[0], partition)
    first = place.like
    for number, image in enumerate(progress(ids)):
        place = place if partition.one or not number else _place(every, image, partition)
        if not number or not partition.one:
            between = between + distances(place.regions, place.like) / (1 if partition.one else len(ids))
        for k, source in enumerate(every):
            one, name = source.read(image), f"{source.name}: {image}"
            values = check_map(one, name, place.like, place.name)
            negative[k] += values.min() < 0
            without[k] |= one.affine is None
            means[k, number] = region_means(importance(values, sign)[None], place.regions)[0]
    names = [one.name for one in every]
    ranks = [rank_regions(check_means(row, name)) for row, name in zip(means, names, strict=True)]
    sizes = np.cumsum([len(sources) for sources in networks.values()])[:-1]
    return RankedSources(
        np.stack([np.mean(part, axis=0) for part in np.split(np.stack(ranks), sizes)]),
        between,
        first,
        {name: int(is_constant(row).sum()) for name, row in zip(names, means, strict=True)},
        dict(zip(names, negative.tolist(), strict=True)),
        [] if first.affine is None else [name for name, one in zip(names, without, strict=True) if one],
    )


def _warnings(ranked: RankedSources, images: int, chosen: bool) -> list[str]:
    """What to say of the maps; of negative values unless it was `chosen` what is done with them."""
    warnings = [
        f"{name}: {number} of {images} maps are constant and tell nothing"
        for name, number in ranked.constant.items()
        if number
    ]
    if not chosen and any(ranked.negative.values()):
        found = ", ".join(f"{number} of {images} maps of {name}" for name, number in ranked.negative.items() if number)
        how = f"ranked as they are, below 0; --sign {', '.join(SIGNS[:-1])} or {SIGNS[-1]} says what is important"
        warnings.append(f"negative values in {found}: {how}")
    if ranked.without_affine:
        warnings.append(f"no affine in {', '.join(ranked.without_affine)}: taken to be on the grid of the others")
    return warnings


def _as_list(paths: Paths) -> list[Path]:
    return [*as_paths(*([paths] if isinstance(paths, str | Path) else paths))]
