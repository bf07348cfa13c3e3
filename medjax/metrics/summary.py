"""Metrics over several runs (seeds, cohorts, realisations): mean, standard deviation, range, and their table cells.

metrics = summarize_runs([{"dice": 0.81}, {"dice": 0.83}])   {"dice": 0.82, "sd/dice": 0.0141…}
cell(metrics, "dice")                                        "0.820 ± 0.014"
ends = range_over_runs([{"p": 0.011}, {"p": 0.48}])          {"min/p": 0.011, "max/p": 0.48}
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
    """Confidence interval of the mean, mean ± t sd / √n, t of n − 1 degrees of freedom; NaN below two values."""
    known, (mean, sd) = _known(values), mean_sd(values)
    half = float(stats.t.ppf((1 + level) / 2, len(known) - 1)) * sd / np.sqrt(len(known)) if len(known) > 1 else NAN
    return mean - half, mean + half


def summarize_runs(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each metric over runs, under its name, and standard deviation, under `sd/NAME`, as `mean_sd`."""
    summaries = {name: mean_sd([row[name] for row in rows]) for name in rows[0]}
    means = {name: mean for name, (mean, _) in summaries.items()}
    return means | {f"sd/{name}": sd for name, (_, sd) in summaries.items()}


def flatten_metrics(metrics: Mapping[str, Any], condition: str = "") -> dict[str, float]:
    """Flatten nested metrics to names such as `auroc/loss/CONDITION`, as metrics.json has them."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        inner = flatten_metrics(value) if isinstance(value, Mapping) else {"": float(value)}
        found |= {"/".join(part for part in (name, more, condition) if part): one for more, one in inner.items()}
    return found


def cell(metrics: Mapping[str, float], name: str, digits: int = 3, percent: bool = False, sd: str | None = None) -> str:
    """Table cell of a metric: "0.812 ± 0.013" from `name` and from `sd/NAME`, or the key `sd`.

    Without a deviation it is left out; an undefined metric is "–", one of `range_over_runs` "0.011 to 0.48".

    Args:
        metrics: metrics by name.
        name: name of the metric.
        digits: decimal places.
        percent: whether to write percent.
        sd: name of the standard deviation, if it is not `sd/NAME`.
    """
    if f"min/{name}" in metrics:
        return _range(metrics[f"min/{name}"], metrics[f"max/{name}"])
    factor, unit = (100, " %") if percent else (1, "")
    mean, deviation = metrics.get(name, NAN), metrics.get(f"sd/{name}" if sd is None else sd, NAN)
    if np.isnan(mean):
        return "–"
    sd_text = "" if np.isnan(deviation) else f" ± {factor * deviation:.{digits}f}"
    return f"{factor * mean:.{digits}f}{sd_text}{unit}"


def range_over_runs(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Range of each metric over runs, such as of a p-value: minimum under `min/NAME`, maximum under `max/NAME`.

    NaN is left out; both are NaN where no value is known.
    """
    every = {name: _known([row[name] for row in rows]) for name in rows[0]}
    minima = {f"min/{name}": float(values.min()) if len(values) else NAN for name, values in every.items()}
    return minima | {f"max/{name}": float(values.max()) if len(values) else NAN for name, values in every.items()}


def _range(low: float, high: float) -> str:
    texts = [f"{value:.2g}" for value in (low, high)]
    return "–" if np.isnan(low) else texts[0] if texts[0] == texts[1] else " to ".join(texts)


def _known(values: Values) -> np.ndarray:
    every = np.asarray(values, float)
    return every[~np.isnan(every)]
