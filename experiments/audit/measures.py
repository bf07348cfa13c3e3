"""Measures of `shortcut_audit`: audits of every TS network, where they place the cue, and how they agree.

A name of a metric is NAME/METHOD/CUE/ARCHITECTURE/PARTITION/FRACTION, `agreement_seeds` and the like too.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from experiments.audit.images import cue_center
from experiments.audit.networks import BALANCED, Setup, TrainedNetwork
from medjax.metrics.correlation import pearson
from medjax.metrics.summary import mean_sd, range_over_runs, summarize_runs
from medjax.running.progress import track
from medjax.shortcuts.oscar import effective_area
from medjax.shortcuts.oscar_audit import Audit, audit
from medjax.shortcuts.oscar_figures import paint
from medjax.shortcuts.oscar_verdict import SHORTCUT, verdicts
from medjax.shortcuts.regions import Regions

Networks = Mapping[tuple, TrainedNetwork]  # by `Cell.key`


class Where(NamedTuple):
    """What an audit is of, but for the seed."""

    method: str
    cue: str
    architecture: str
    partition: str
    fraction: float

    def metric(self, name: str) -> str:
        """Name of a metric of it."""
        return "/".join([name, self.method, self.cue, self.architecture, self.partition, f"{self.fraction:g}"])


Audits = dict[Where, list[Audit]]  # an audit for each seed


def run_audits(setup: Setup, networks: Networks) -> Audits:
    """Audit of every TS network with the BA and SA networks of its seed, by every method and partition."""
    config = setup.config
    axes = (config.attribution.methods, config.cues, setup.models, setup.regions, config.fractions)
    every = [(Where(*one), seed) for one in product(*axes) for seed in range(config.seeds)]
    audits: Audits = {}
    for where, seed in track(every, "audits"):
        start, ties = (
            (where.architecture, where.cue, seed),
            (("ts", where.fraction), ("ba", BALANCED), ("sa", BALANCED)),
        )
        ts, ba, sa = (networks[*start, *tie, "erm"].means[where.method][where.partition] for tie in ties)
        key = jax.random.fold_in(jax.random.key(config.seed), seed)
        regions = setup.regions[where.partition]
        one = audit(key, ts, ba, sa, regions, **config.audit)
        audits.setdefault(where, []).append(one)
    return audits


def measure(setup: Setup, audits: Audits) -> dict[str, float]:
    """Metrics of all audits: mean ± sd over seeds; p-values as their range."""
    metrics: dict[str, float] = {}
    decisions = _decisions(audits)
    for where, several in audits.items():
        regions = setup.regions[where.partition]
        center = cue_center(setup.config, regions.labels.shape) if where.cue == "localized" else None
        rows = [_measure_one(one, regions, center) for one in several]
        for row, decision in zip(rows, decisions[where], strict=True):
            row["verdict_shortcut"] = float(decision == SHORTCUT)
        p = [
            {"p_spatial": float(one.p_spatial.shortcut), "p_permutation": float(one.p_permutation.shortcut)}
            for one in several
        ]
        ranges = {_range_name(where, name): value for name, value in range_over_runs(p).items()}
        metrics |= summarize_runs([{where.metric(name): value for name, value in row.items()} for row in rows]) | ranges
    return metrics | agreements(setup, audits)


def agreements(setup: Setup, audits: Audits) -> dict[str, float]:
    """Mean agreement, Pearson's r, of maps of region contribution scores between seeds, partitions, architectures.

    Between partitions it is that of the voxels; with no pair to compare, of one seed say, there is no metric.
    """
    metrics: dict[str, float] = {}
    for where, several in audits.items():
        others = [one for one in setup.regions if one != where.partition]
        architectures = [one for one in setup.models if one != where.architecture]
        pairs = {
            "agreement_seeds": list(combinations([one.scores for one in several], 2)),
            "agreement_partitions": [
                (_painted(setup, where, own), _painted(setup, other, one))
                for other in (where._replace(partition=name) for name in others)
                for own, one in zip(several, audits[other], strict=True)
            ],
            "agreement_architectures": [
                (own.scores, one.scores)
                for name in architectures
                for own, one in zip(several, audits[where._replace(architecture=name)], strict=True)
            ],
        }
        for name, each in pairs.items():
            if each:
                metrics[where.metric(name)] = mean_sd([float(pearson(a, b)) for a, b in each])[0]
    return metrics


def mean_scores(setup: Setup, audits: Audits, where: Where) -> Float[np.ndarray, "*space"]:
    """Map of the region contribution scores, averaged over seeds."""
    return np.mean([paint(one.scores, setup.regions[where.partition]) for one in audits[where]], axis=0)


def peak_distance(scores: Float[np.ndarray, " region"], regions: Regions, center: Sequence[float]) -> float:
    """Distance of the highest score's region from the cue, in cells; NaN if no score is positive.

    The largest difference along an axis between the region's centroid and the cue's centre, over the side of a cell of
    as many voxels as there are in a region on average.
    """
    if not (scores > 0).any():
        return float("nan")
    inside = np.argwhere(regions.labels == np.nanargmax(scores))
    side = (regions.labels.size / len(regions.names)) ** (1 / regions.labels.ndim)
    return float(np.abs(inside.mean(0) - center).max() / side)


def _measure_one(one: Audit, regions: Regions, center: Sequence[float] | None) -> dict[str, float]:
    r, both = one.correlations, one.quadrants.both_more
    row = {
        "shortcut": float(r.shortcut),
        "task": float(r.task),
        "deviation": float(r.deviation),
        "ts_sa": float(r.ts_sa),
        "significant_spatial": float(one.p_spatial.shortcut < 0.05),
        "significant_permutation": float(one.p_permutation.shortcut < 0.05),
        "effective_area": float(one.effective_area),
        "effective_area_both": float(effective_area(both)),
        "reliability_ba": float(one.reliability[1]),
    }
    if center is None:
        return row
    distances = {"peak_distance": one.scores, "peak_distance_both": both}
    return row | {name: peak_distance(np.asarray(scores), regions, center) for name, scores in distances.items()}


def _decisions(audits: Audits) -> dict[Where, list[str]]:
    """Decision of each audit; those of one network by one method, on several partitions, are judged together."""
    decisions: dict[Where, list[str]] = {}
    for where in audits:
        together = [one for one in audits if one._replace(partition=where.partition) == where]
        each = [verdicts([audits[one][seed] for one in together]) for seed in range(len(audits[where]))]
        decisions[where] = [answers[together.index(where)].decision for answers in each]
    return decisions


def _range_name(where: Where, name: str) -> str:
    """min/p_spatial → min/p_spatial/METHOD/…"""
    end, metric = name.split("/")
    return f"{end}/{where.metric(metric)}"


def _painted(setup: Setup, where: Where, one: Audit) -> Float[np.ndarray, " voxel"]:
    return paint(one.scores, setup.regions[where.partition]).ravel()
