"""Does score-based reconstruction work at 1 % counts, and how certain is it? Conditional diffusion sampling (paper 10).

A 2-D score prior of FDG-like brain slices is sampled given low-count scans of heads it has never seen: by editing the
score (PET-Naive), by differentiating through the network (DPS), by data steps from the denoised image (DDS), and by
the damped gradient steps of the paper (DDS-δ). Against them stand OSEM, MAP-EM with quadratic and patch-based
penalties and BSREM, all tuned in the same way on validation scans. Then bias against standard deviation over
realisations, and over seeds of the sampler an uncertainty map, with the question that such a map must answer: does it
cover the truth?
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.pet import comparison, subjects, summary
from experiments.pet.comparison import TEST_SEED, Study, StudyInputs
from experiments.pet.methods import title
from medjax.diffusion.posterior import coverage, summarize
from medjax.errors import MedjaxError
from medjax.metrics.image import bias_and_standard_deviation, nrmse
from medjax.report.figures import curves, montage
from medjax.report.html import Figure, Section, Table
from medjax.running.experiment import Result, results_or_errors, run_module
from medjax.running.workdir import WorkDir, save_figure

METHODS = ("osem", "map_em", "patch_map_em", "bsrem", "naive", "dps", "dds", "dds_delta")
BIAS_METHODS = ("osem", "map_em", "dds", "dds_delta")  # bias against deviation, along the first hyper-parameter
POSTERIOR_METHODS = ("dds", "dds_delta")  # methods of which many posterior samples are drawn
CREDIBLE_LEVELS = (0.5, 0.8, 0.9)  # probabilities of the credible intervals
TRACED = ("seed",)  # config keys in which members of a population may differ


def run(config: ConfigDict, work: WorkDir, *, denoiser: Any = None) -> Result:
    """Tune, reconstruct and compare the methods; then bias, SD and uncertainty. `denoiser`: see `study_inputs`."""
    return _study(config, *comparison.study_inputs([config], [work], denoiser))


def population(
    configs: Sequence[ConfigDict], works: Sequence[WorkDir], *, denoiser: Any = None
) -> list[Result | MedjaxError]:
    """Run the studies one after the other; compiled programs serve all."""
    return results_or_errors(_study, configs, comparison.study_inputs(configs, works, denoiser))


def _study(config: ConfigDict, inputs: StudyInputs) -> Result:
    lowest, lesions, seeds, test = min(inputs.levels), config.scan.lesions, config.posterior.seeds, config.test
    study = comparison.run_study(config, inputs, METHODS)
    noise, noise_figure = _bias_and_deviation(study, lowest, config.noise.realizations, lesions)
    certain, figures, table = _posterior(study, lowest, seeds)
    sections = [
        Section(
            "Bias and deviation", "Along each method's first hyper-parameter, at the lowest counts.", [noise_figure]
        ),
        Section("Uncertainty", f"{seeds} seeds on one scan.", figures, table),
    ]
    published = (
        "2.5 trues/mm³ are what 1 % of a full scan's counts come to. The published figures of the paper (26.1, 23.7 "
        "and 21.2 % NRMSE for OSEM, patch MAP-EM and DDS-δ) are of other data: real [18F]DPA-714 scans in 3-D."
    )
    heading = "Conditional diffusion sampling at low counts"
    found = noise | certain
    return summary.summarize(study, heading, published, found, sections, test.heads, lesions, test.realizations)


def _bias_and_deviation(study: Study, level: float, realizations: int, lesions: int) -> tuple[dict[str, float], Figure]:
    """Normalised bias and deviation of realisations of one scan, for each value of a method's first hyper-parameter."""
    inputs = study.inputs
    cases = inputs.scans("noise", lambda: subjects.held_out_subjects(inputs.setup, TEST_SEED, 1, lesions), realizations)
    cases = cases.at_level(level)
    metrics: dict[str, float] = {}
    series: dict[str, np.ndarray] = {}
    axis = np.linspace(0, 0.6, 61)  # of deviation: each curve is interpolated on it, between its own ends
    for name in BIAS_METHODS:
        method, best = study.methods[name], study.tunings[name].best[level]
        hyperparameter, values = next(iter(method.grid.items()))
        points = []
        for value in values:
            hyperparameters = {level: best | {hyperparameter: value}}
            done = inputs.reconstruct(f"noise_{name}_{value:g}", method.run, cases, hyperparameters)
            result = bias_and_standard_deviation(done.image, cases.truth[0], cases.mask[0], cases.white[0])
            points.append((float(result.normalized_deviation), float(result.normalized_bias)))
            metrics[f"noise_deviation/{name}/{value:g}"], metrics[f"noise_bias/{name}/{value:g}"] = points[-1]
        deviation, bias = np.array(sorted(points)).T
        series[title(name)] = np.interp(axis, deviation, bias, np.nan, np.nan)
    drawn = curves(axis, series, "standard deviation / mean in white matter", "normalised bias in the brain")
    return metrics, Figure(save_figure(inputs.work, "bias", drawn), f"{level:g} trues/mm³, one head.")


def _posterior(study: Study, level: float, seeds: int) -> tuple[dict[str, float], list[Figure], Table]:
    """Mean, deviation and coverage over seeds, on the first scan of a count level."""
    inputs, one = study.inputs, study.cases.at_level(level).select([0])
    truth, mask = jnp.asarray(one.truth[0]), jnp.asarray(one.mask[0])
    affine = np.diag([*inputs.setup.grid.voxel_mm, 1.0])
    metrics: dict[str, float] = {}
    figures: list[Figure] = []
    rows: list[list[Any]] = []
    for name in POSTERIOR_METHODS:
        run, best = study.methods[name].run, study.tunings[name].best
        samples = jnp.asarray(inputs.reconstruct(f"seeds_{name}", run, one.repeat(seeds), best).image)
        posterior = summarize(samples)
        covered = np.asarray(coverage(samples, truth, mask, jnp.asarray(CREDIBLE_LEVELS))).tolist()
        metrics |= {
            f"coverage/{name}/{interval:g}": value for interval, value in zip(CREDIBLE_LEVELS, covered, strict=True)
        }
        metrics[f"nrmse_of_mean/{name}"] = float(nrmse(posterior.mean, truth, mask))
        metrics[f"nrmse_of_sample/{name}"] = float(np.mean([float(nrmse(image, truth, mask)) for image in samples]))
        metrics[f"coefficient_of_variation/{name}"] = float(jnp.mean(posterior.coefficient_of_variation, where=mask))
        shown = {
            "Truth": truth, "one sample": samples[0], "mean": posterior.mean,
            "standard deviation": posterior.standard_deviation, "|mean − truth|": jnp.abs(posterior.mean - truth),
        }  # fmt: skip
        drawn = montage({k: np.asarray(v) for k, v in shown.items()}, affine, note=f"{title(name)}, {seeds} seeds")
        figures.append(Figure(save_figure(inputs.work, f"uncertainty_{name}", drawn), f"{title(name)}."))
        rows.append([title(name), *(round(value, 3) for value in covered)])
    header = ["truth inside the interval of", *(f"{interval:.0%}" for interval in CREDIBLE_LEVELS)]
    note = "Fraction of the brain's voxels; a calibrated posterior has the interval's own level."
    return metrics, figures, Table(header, rows, note)


if __name__ == "__main__":
    run_module(__file__)
