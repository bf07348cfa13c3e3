"""Numbers over several runs (seeds, cohorts, realisations): mean and standard deviation, and how they are written.

metrics = over_runs([{"dice": 0.81}, {"dice": 0.83}])        {"dice": 0.82, "sd/dice": 0.0141…}
cell(metrics, "dice")                                        "0.820 ± 0.014"
ends = range_over_runs([{"p": 0.011}, {"p": 0.48}])          {"least/p": 0.011, "most/p": 0.48}
cell(ends, "p")                                              "0.011 to 0.48"
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

NAN = float("nan")
Values = Sequence[float] | Float[np.ndarray, " run"]


def mean_sd(values: Values) -> tuple[float, float]:
    """Mean and standard deviation, Σ (x − mean)² / (n − 1), of the values that are defined (not NaN).

    The deviation of a single one is NaN; so are both where none is defined.
    """
    known = _known(values)
    return float(known.mean()) if len(known) else NAN, float(known.std(ddof=1)) if len(known) > 1 else NAN


def confidence_interval(values: Values, level: float = 0.95) -> tuple[float, float]:
    """The interval of the mean, mean ± t sd / √n with Student's t of n − 1 degrees of freedom; NaN below two values."""
    known, (mean, sd) = _known(values), mean_sd(values)
    half = float(stats.t.ppf((1 + level) / 2, len(known) - 1)) * sd / np.sqrt(len(known)) if len(known) > 1 else NAN
    return mean - half, mean + half


def over_runs(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each metric of the runs the mean under its name and the standard deviation under `sd/NAME`, as `mean_sd`."""
    summaries = {name: mean_sd([row[name] for row in rows]) for name in rows[0]}
    means = {name: mean for name, (mean, _) in summaries.items()}
    return means | {f"sd/{name}": sd for name, (_, sd) in summaries.items()}


def flat(metrics: Mapping[str, Any], condition: str = "") -> dict[str, float]:
    """Nested metrics under names such as `auroc/loss/CONDITION`, as metrics.json has them."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        inner = flat(value) if isinstance(value, Mapping) else {"": float(value)}
        found |= {"/".join(part for part in (name, more, condition) if part): one for more, one in inner.items()}
    return found


def cell(metrics: Mapping[str, float], name: str, digits: int = 3, percent: bool = False, sd: str | None = None) -> str:
    """A metric in a table: "0.812 ± 0.013" from `name` and from `sd/NAME`, or the key `sd`.

    The deviation is left out where it is not known; "–" stands for what is undefined. A metric of `range_over_runs`
    is "0.011 to 0.48", to two digits.
    """
    if f"least/{name}" in metrics:
        return _range(metrics[f"least/{name}"], metrics[f"most/{name}"])
    factor, unit = (100, " %") if percent else (1, "")
    mean, deviation = metrics.get(name, NAN), metrics.get(f"sd/{name}" if sd is None else sd, NAN)
    if np.isnan(mean):
        return "–"
    spread = "" if np.isnan(deviation) else f" ± {factor * deviation:.{digits}f}"
    return f"{factor * mean:.{digits}f}{spread}{unit}"


def range_over_runs(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each metric of the runs, such as a p-value, the smallest under `least/NAME` and the largest under `most/NAME`.

    NaN is left out; both are NaN where no value is known.
    """
    every = {name: _known([row[name] for row in rows]) for name in rows[0]}
    least = {f"least/{name}": float(values.min()) if len(values) else NAN for name, values in every.items()}
    return least | {f"most/{name}": float(values.max()) if len(values) else NAN for name, values in every.items()}


def _range(least: float, most: float) -> str:
    texts = [f"{value:.2g}" for value in (least, most)]
    return "–" if np.isnan(least) else texts[0] if texts[0] == texts[1] else " to ".join(texts)


def _known(values: Values) -> np.ndarray:
    every = np.asarray(values, float)
    return every[~np.isnan(every)]
