"""Hyper-parameter tuning by grid search: the error of every setting for each group of cases, its cost, sensitivity.

    def evaluate(beta, iterations):                      one value of each axis of the grid
        return errors, costs                             one of each group of cases, such as a count level

    tuning = grid_search({"beta": (1.0, 2.0, 4.0), "iterations": (4, 10)}, evaluate, groups=(2.5, 10.0))
    tuning.best[2.5]                                     {"beta": 2.0, "iterations": 4.0}

Two methods are compared fairly when both are tuned by one rule on cases that neither is tested on, and when the cost
of tuning and the sensitivity to it are reported.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from medjax.errors import DataError, pluralize
from medjax.report.html import Table
from medjax.running.progress import track

FAILED_ERROR = 10.0  # minimum error that is assigned to a setting whose error is not finite
PerGroup = Float[np.ndarray, " group"]


class Tuning(NamedTuple):
    """Result of a grid search: arrays, so that `_asdict()` can be kept as a stage, and `Tuning(**kept)` restores it.

    Without any axis there is one setting, the empty one, which is not evaluated.
    """

    names: np.ndarray  # names of the hyper-parameters
    settings: Float[np.ndarray, "setting name"]  # values of the hyper-parameters
    groups: np.ndarray  # groups of cases, such as count levels
    errors: Float[np.ndarray, "setting group"]  # mean error of the cases
    costs: Float[np.ndarray, "setting group"]  # mean cost of a case

    @property
    def best(self) -> dict[Any, dict[str, float]]:
        """Setting of minimum error, for each group."""
        return {group: self._named(row) for group, row in zip(self.groups.tolist(), self._best(), strict=True)}

    @property
    def shared(self) -> dict[str, float]:
        """Setting shared by all groups: minimum mean of the errors relative to the groups' minima."""
        return self._named(self._shared())

    @property
    def cost(self) -> float:
        """Mean cost of a case, over settings and groups."""
        return float(self.costs.mean())

    def shared_loss(self) -> PerGroup:
        """Relative increase of the error where all groups have one shared setting."""
        return self.errors[self._shared()] / self.errors.min(axis=0) - 1

    def sensitivity(self, name: str, factor: float | int = 4.0) -> PerGroup:
        """Largest relative rise of the error where `name` alone is up to `factor` times too large or too small.

        Values of the grid that lie 5 % beyond that count as within (for grids in rounded powers of 2).
        """
        column = list(self.names).index(name)
        rise = []
        for group, row in enumerate(self._best()):
            best = self.settings[row]
            same = (np.delete(self.settings, column, 1) == np.delete(best, column)).all(axis=1)
            near = np.abs(np.log(self.settings[:, column] / best[column])) < 1.05 * np.log(factor)
            rise.append(self.errors[same & near, group].max() / self.errors[row, group] - 1)
        return np.array(rise)

    def change_around(self, setting: Mapping[str, float], name: str, factor: float | int = 2.0) -> PerGroup:
        """Largest relative change of the error where `name` alone is up to `factor` times that of a `setting`.

        For methods that are not tuned: `setting` is their default. Rounded as `sensitivity`.
        """
        column = list(self.names).index(name)
        values = np.array([setting[str(one)] for one in self.names])
        same = (np.delete(self.settings, column, 1) == np.delete(values, column)).all(axis=1)
        ratio = np.abs(np.log(self.settings[:, column] / values[column]))
        own = self.errors[same & (ratio < 1e-6)][0]
        return np.abs(self.errors[same & (ratio < 1.05 * np.log(factor))] / own - 1).max(axis=0)

    def cost_to_reach(self, errors: PerGroup) -> PerGroup:
        """Minimum cost of a setting whose error is no larger than `errors` in each group; NaN where there is none."""
        costs = np.where(self.errors <= errors, self.costs, np.inf).min(axis=0)
        return np.where(np.isfinite(costs), costs, np.nan)

    def _best(self) -> list[int]:
        return self.errors.argmin(axis=0).tolist()

    def _shared(self) -> int:
        return int((self.errors / self.errors.min(axis=0)).mean(axis=1).argmin())

    def _named(self, row: int) -> dict[str, float]:
        return {str(name): float(value) for name, value in zip(self.names, self.settings[row], strict=True)}


def grid_search(
    grid: Mapping[str, Sequence[float]],
    evaluate: Callable[..., tuple[Any, Any]],
    groups: Sequence[Any] | np.ndarray,
    description: str = "tuning",
) -> Tuning:
    """Grid search: `evaluate(**setting)` of every combination of the grid's values, under a progress bar.

    It returns an error, which should be positive, and a cost for each of the `groups`. An error that is not finite
    counts as twice the largest finite one, and at least `FAILED_ERROR`: it is never the best. The last axis is fastest.

    Raises:
        DataError: an axis has no values, or not every group has an error and a cost.
    """
    if empty := [name for name, values in grid.items() if not len(values)]:
        raise DataError(f"grid: {empty[0]} has no values; expected one or more")
    settings = np.array(list(product(*grid.values())), float)
    errors, costs = np.zeros((2, len(settings), len(groups)))
    for row, values in enumerate(track(settings.tolist(), description) if grid else ()):
        found = [np.asarray(each, float) for each in evaluate(**dict(zip(grid, values, strict=True)))]
        if any(each.shape != (len(groups),) for each in found):
            shapes = " and ".join(str(each.shape) for each in found)
            raise DataError(
                f"tuning: errors and costs of shape {shapes}; expected one for each of {len(groups)} groups"
            )
        errors[row], costs[row] = found
    finite = np.isfinite(errors)
    errors = np.where(finite, errors, max(FAILED_ERROR, 2 * errors.max(where=finite, initial=0.0)))
    return Tuning(np.array(list(grid), "U32"), settings, np.asarray(groups), errors, costs)


def thin_grid(grid: Mapping[str, Sequence[float]], values: int) -> dict[str, tuple[float, ...]]:
    """Thin a grid to at most `values` values of each axis, from its middle; 0: all."""
    first = {name: max((len(axis) - values) // 2, 0) for name, axis in grid.items()}
    return {name: tuple(axis)[first[name] if values else 0 :][: values or None] for name, axis in grid.items()}


def tuning_table(tunings: Mapping[str, Tuning], cases: int, error: str = "error", unit: str = "cost") -> Table:
    """Table of the best setting of each method for each group, the cost of tuning on `cases`, and the sensitivity.

    The sensitivity is to the first hyper-parameter. Methods without any are left out.
    """
    rows: list[list[str]] = []
    for method, tuning in tunings.items():
        if not len(tuning.names):
            continue
        made, first = len(tuning.settings) * cases, str(tuning.names[0])
        best = {group: (f"{name} {value:g}" for name, value in own.items()) for group, own in tuning.best.items()}
        rise = (f"{100 * value:.0f} %" for value in tuning.sensitivity(first))
        row = [
            method,
            ", ".join(f"{group:g}: {' '.join(setting)}" for group, setting in best.items()),
            f"{pluralize(made, 'result')}, {made * tuning.cost:,.0f} {unit}",
            f"{first}: {', '.join(rise)}",
            ", ".join(f"{100 * value:.1f} %" for value in tuning.shared_loss()),
        ]
        rows.append(row)
    header = ("method", "best", "tuning cost", f"rise of {error} within ×/÷ 4 of it", "loss by one setting for all")
    return Table(header, rows, "On validation cases; percentages for the groups in order.")
