"""Tuning of reconstructions on validation scans, all with the same rule: every setting of a grid, by NRMSE."""

from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array

from experiments._pet import Scans, measures
from experiments._pet_batched import Method
from medjax.running.progress import track


class Tuned(NamedTuple):
    """What tuning found, and what it cost. Arrays, so that a stage can keep it."""

    names: np.ndarray  # of the knobs
    settings: np.ndarray  # (setting, knob)
    levels: np.ndarray
    errors: np.ndarray  # (setting, level), mean NRMSE
    projections: np.ndarray  # (setting, level), mean
    cases: np.ndarray  # reconstructions made

    @property
    def knobs(self) -> dict[float, dict[str, float]]:
        """The best setting of each count level."""
        return {float(level): self._named(self.errors[:, k].argmin()) for k, level in enumerate(self.levels)}

    @property
    def shared(self) -> dict[str, float]:
        """The one setting that is best for all levels together."""
        return self._named(self._shared())

    @property
    def cost(self) -> float:
        """Projections that tuning took in all."""
        return float(self.projections.mean() * self.cases) if self.projections.size else 0.0

    def shared_loss(self) -> np.ndarray:
        """By how much NRMSE rises at each level when all share one setting."""
        return self.errors[self._shared()] / self.errors.min(axis=0) - 1

    def sensitivity(self, knob: str) -> np.ndarray:
        """By how much NRMSE rises at each level, at worst, when `knob` is up to 4 times too large or too small."""
        column = list(self.names).index(knob)
        rise = []
        for k in range(len(self.levels)):
            best = self.settings[self.errors[:, k].argmin()]
            others = np.delete(self.settings, column, 1) == np.delete(best, column)
            near = np.abs(np.log2(self.settings[:, column] / best[column])) < 2.1
            rise.append(self.errors[others.all(axis=1) & near, k].max() / self.errors[:, k].min() - 1)
        return np.array(rise)

    def calls_to_reach(self, errors: np.ndarray) -> np.ndarray:
        """The fewest projections with which a setting is as good as `errors` at each level; NaN where none is."""
        calls = np.where(self.errors <= errors, self.projections, np.inf).min(axis=0)
        return np.where(np.isfinite(calls), calls, np.nan)

    def _shared(self) -> int:
        return int((self.errors / self.errors.min(axis=0)).mean(axis=1).argmin())

    def _named(self, row: Any) -> dict[str, float]:
        return {str(name): float(value) for name, value in zip(self.names, self.settings[row], strict=True)}


def tune(method: Method, cases: Scans, key: Array) -> Tuned:
    """NRMSE of every setting on validation cases; a setting whose image is not finite counts as NRMSE 10."""
    names, levels = np.array(list(method.grid), "U32"), np.unique(cases.level)
    settings = np.array(list(product(*method.grid.values())), float)
    errors, cost = np.zeros((2, len(settings), len(levels)))
    for row, values in enumerate(track(list(settings), f"tuning {method.name}") if method.grid else ()):
        made = method.run(key, cases, {str(n): np.full(cases.number, v) for n, v in zip(names, values, strict=True)})
        each = np.array([measures(image, cases.where(i))["nrmse"] for i, image in enumerate(made.image)])
        errors[row] = [each[cases.level == level].mean() for level in levels]
        cost[row] = [made.projections[cases.level == level].mean() for level in levels]
    errors = np.where(np.isfinite(errors), errors, 10.0)
    number = len(settings) * cases.number if method.grid else 0
    return Tuned(names, settings, levels, errors, cost, np.array(number))


def knobs_for(cases: Scans, tuned: Mapping[float, Mapping[str, float]]) -> dict[str, np.ndarray]:
    """Each case's knobs, by its level."""
    names = next(iter(tuned.values()))
    return {name: np.array([tuned[float(level)][name] for level in cases.level]) for name in names}
