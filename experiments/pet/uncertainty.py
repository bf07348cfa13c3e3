"""How certain samplers are, and whether they are right: coverage, sharpness, recalibration, convergence of chains.

    sets = {"family": (cases, draws), "lesions": …}      samples of every scan of a set, by method
    metrics, table = coverage_of_sets(sets, factors)     before and after one recalibration factor a method and level

Coverage is the fraction of the brain's voxels whose truth lies in a credible interval; a calibrated posterior has the
interval's own level.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.pet.methods import title
from experiments.pet.scans import Draws, Scans
from medjax.diffusion import posterior
from medjax.metrics.image import nrmse
from medjax.report.figures import DEVIATION, curves, montage
from medjax.report.html import Figure, Table
from medjax.running.workdir import WorkDir, save_figure

CREDIBLE_LEVELS = (0.5, 0.8, 0.9)  # probabilities of the credible intervals
BINS = 12  # of the predicted deviation, in the plot of error against it


class SampledSet(NamedTuple):
    """Scans, and samples of them by each method."""

    name: str
    cases: Scans
    draws: Mapping[str, Draws]
    region: str = "mask"  # field of `Scans` whose voxels count


def recalibration_factors(cases: Scans, draws: Mapping[str, Draws], levels: Sequence[float]) -> dict[str, dict]:
    """Factor of the samples' deviations from their mean, of each method and count level, from validation scans."""
    return {name: {level: _factor(cases, drawn, level) for level in levels} for name, drawn in draws.items()}


def _factor(cases: Scans, drawn: Draws, level: float) -> float:
    return posterior.recalibration_factor(*_at_level(cases, drawn, level))


def _at_level(cases: Scans, drawn: Draws, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples (sample, scan, *space), truth and brain mask of the scans of a count level."""
    chosen = cases.level == np.float32(level)
    return np.moveaxis(np.asarray(drawn.images)[chosen], 1, 0), cases.truth[chosen], cases.mask[chosen]


def coverage_of_sets(
    sets: Sequence[SampledSet], factors: Mapping[str, Mapping[float, float]]
) -> tuple[dict[str, float], Table]:
    """Coverage and sharpness on each set, as drawn and recalibrated, and the NRMSE of the mean of the samples.

    Metrics: `coverage/SET/METHOD/COUNTS/INTERVAL`, `coverage_recalibrated/…`, `sharpness/SET/METHOD/COUNTS` (mean width
    of the 80 % interval over mean activity), `nrmse_of_mean/…`, `recalibration_factor/METHOD/COUNTS`.
    """
    metrics: dict[str, float] = {
        f"recalibration_factor/{name}/{level:g}": value for name, own in factors.items() for level, value in own.items()
    }
    rows: list[list[Any]] = []
    for one in sets:
        for name, drawn in one.draws.items():
            for level in np.unique(one.cases.level).tolist():
                factor = factors[name][level]
                found = _coverage(one, drawn, level, factor)
                key = f"{one.name}/{name}/{level:g}"
                metrics |= {f"sharpness/{key}": found["sharpness"], f"nrmse_of_mean/{key}": found["nrmse"]}
                for kind in ("coverage", "coverage_recalibrated"):
                    pairs = zip(CREDIBLE_LEVELS, found[kind], strict=True)
                    metrics |= {f"{kind}/{key}/{interval:g}": float(value) for interval, value in pairs}
                as_text = (
                    " / ".join(f"{100 * v:.0f}" for v in found[k]) for k in ("coverage", "coverage_recalibrated")
                )
                row = [one.name, title(name), f"{level:g}", *as_text, f"{factor:.2f}", f"{found['sharpness']:.3f}"]
                rows.append([*row, f"{found['nrmse']:.3f}"])
    intervals = " / ".join(f"{100 * level:.0f}" for level in CREDIBLE_LEVELS)
    header = ["scans", "method", "trues/mm³", f"truth inside {intervals} %", "recalibrated", "factor", "width", "NRMSE"]
    note = "Percentage of voxels; width of the 80 % interval relative to the mean activity; NRMSE of the samples' mean."
    return metrics, Table(header, rows, note)


def _coverage(one: SampledSet, drawn: Draws, level: float, factor: float) -> dict[str, Any]:
    """Means over the scans of a count level that have voxels in the region."""
    found: list[tuple[Any, ...]] = []
    for i in np.flatnonzero(one.cases.level == np.float32(level)):
        region = np.asarray(getattr(one.cases, one.region)[i]) & one.cases.mask[i]
        if not region.any():
            continue
        samples, truth = jnp.asarray(drawn.images[i]), jnp.asarray(one.cases.truth[i])
        wider = posterior.recalibrate(samples, factor)
        levels, mask = jnp.asarray(CREDIBLE_LEVELS), jnp.asarray(region)
        covered = [np.asarray(posterior.coverage(each, truth, mask, levels)) for each in (samples, wider)]
        width = posterior.sharpness(samples, mask, jnp.asarray([0.8]))[0] / jnp.mean(truth, where=mask)
        found.append((*covered, float(width), float(nrmse(samples.mean(axis=0), truth, mask))))
    if not found:
        nothing = np.full(len(CREDIBLE_LEVELS), np.nan)
        return {"coverage": nothing, "coverage_recalibrated": nothing, "sharpness": np.nan, "nrmse": np.nan}
    means = [np.mean([row[k] for row in found], axis=0) for k in range(4)]
    return dict(zip(("coverage", "coverage_recalibrated", "sharpness", "nrmse"), means, strict=True))


def uncertainty_maps(work: WorkDir, one: SampledSet, level: float, voxel_mm: Sequence[float]) -> list[Figure]:
    """For each method the first scan of a count level: one sample, mean, standard deviation and error."""
    first = int(np.flatnonzero(one.cases.level == np.float32(level))[0])
    truth, figures = one.cases.truth[first], list[Figure]()
    for name, drawn in one.draws.items():
        samples = np.asarray(drawn.images[first])
        mean, deviation = samples.mean(axis=0), samples.std(axis=0, ddof=1)
        shown = {
            "Truth": truth, "one sample": samples[0], "mean": mean, "standard deviation": deviation,
            "|mean − truth|": np.abs(mean - truth),
        }  # fmt: skip
        high = float(np.percentile(np.abs(mean - truth), 99.8)) or 1.0
        own = DEVIATION._replace(unit="standard deviation and error", high=high)
        drawn_figure = montage(
            shown, np.diag([*voxel_mm, 1.0]), other_scales=dict.fromkeys([*shown][3:], own),
            note=f"{title(name)}, {len(samples)} samples",
        )  # fmt: skip
        figures.append(Figure(save_figure(work, f"uncertainty_{name}", drawn_figure), f"{title(name)}."))
    return figures


def error_against_uncertainty(work: WorkDir, one: SampledSet, level: float) -> Figure:
    """Root mean square error of the samples' mean in bins of their standard deviation; calibrated is the diagonal."""
    points = {
        name: posterior.error_bins(*_at_level(one.cases, drawn, level), BINS) for name, drawn in one.draws.items()
    }
    high = max(float(deviation.max()) for deviation, _ in points.values())
    x = np.linspace(0, high, 40)
    series = {title(name): np.interp(x, sd, error, np.nan, np.nan) for name, (sd, error) in points.items()}
    drawn = curves(x, {**series, "calibrated": x}, "standard deviation of the samples", "error of their mean (RMS)")
    scans = int((one.cases.level == np.float32(level)).sum())
    note = f"{level:g} trues/mm³, {scans} scans: above the diagonal the samples are overconfident."
    return Figure(save_figure(work, f"error_against_uncertainty_{one.name}", drawn), note)


def convergence(images: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Split-R̂ and effective sample size of long chains (chain, draw, *space), over the mask's voxels."""
    rhat, size = posterior.split_rhat(images[:, :, mask]), posterior.effective_sample_size(images[:, :, mask])
    draws = images.shape[0] * images.shape[1]
    return {
        "rhat_median": float(np.median(rhat)), "rhat_99": float(np.quantile(rhat, 0.99)),
        "effective_fraction": float(np.median(size)) / draws,
    }  # fmt: skip
