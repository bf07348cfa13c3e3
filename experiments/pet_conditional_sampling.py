"""Does score-based reconstruction work at 1 % counts, and how certain is it? Conditional diffusion sampling (paper 10).

A 2-D score prior of brain slices is sampled given low-count scans of heads it has never seen: by editing the score
(PET-Naive), by differentiating through the network (DPS), by data steps from the denoised image (DDS), by the damped
gradient steps of the paper (DDS-δ), by DDS with each data step solved, and by split Gibbs sampling. Against them stand
OSEM, MAP-EM with quadratic and patch-based penalties and BSREM; all but the last two samplers, which have one setting
for all counts, are tuned in the same way on validation scans. Then bias against standard deviation over realisations,
and of many samples an uncertainty map, with the question that such a map must answer: does it cover the truth, in the
family of heads that the prior knows and beyond it?
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.pet import comparison, full_count, planning, samplers, subjects, summary, uncertainty
from experiments.pet.comparison import TEST_SEED, Study, StudyInputs
from experiments.pet.methods import METHODS, title
from experiments.pet.oblique import of_geometry
from experiments.pet.scans import Scans
from experiments.pet.uncertainty import SampledSet
from medjax.errors import MedjaxError
from medjax.metrics.image import bias_and_standard_deviation
from medjax.report.html import Figure, Section, Table
from medjax.report.points import Curve, points
from medjax.running.experiment import Result, results_or_errors, run_module
from medjax.running.plan import Stage
from medjax.running.workdir import WorkDir, save_figure, stage

CALIBRATED_METHODS = ("dds_cg", "split_gibbs")  # methods whose coverage is looked at in and out of distribution
PUBLISHED_METHODS = ("dds", "dds_delta")  # many times as slow: their coverage is looked at on one scan of each level
ONE_SCAN = "lesions, one scan"
COVERAGE_NOTE = (
    "The factor widens the samples about their mean; it is estimated on validation scans. `family`: held-out heads of "
    "the family that the prior learnt from. `lesions`: the test scans. `prior without`: a prior that has seen none."
)
CHAINS_NOTE = "Four chains of split Gibbs sampling on one scan, after annealing; R̂ near 1: the chains agree."
TRACED = ("seed",)  # config keys in which members of a population may differ


def run(config: ConfigDict, work: WorkDir, *, denoiser: Any = None) -> Result:
    """Tune, reconstruct and compare the methods; then bias, SD and uncertainty. `denoiser`: see `study_inputs`."""
    config = of_geometry(config)
    [inputs] = comparison.study_inputs([config], [work], denoiser)
    return _study(config, inputs, denoiser)


def population(
    configs: Sequence[ConfigDict], works: Sequence[WorkDir], *, denoiser: Any = None
) -> list[Result | MedjaxError]:
    """Run the studies one after the other; compiled programs serve all."""
    configs = [of_geometry(config) for config in configs]
    inputs = comparison.study_inputs(configs, works, denoiser)
    return results_or_errors(partial(_study, denoiser=denoiser), configs, inputs)


def plan(config: ConfigDict, *, denoiser: Any = None) -> list[Stage]:
    """Stages of the study: tuning and reconstructions, curves of bias, and the samples of every set of scans."""
    inputs, p, test = planning.direct_inputs(config, WorkDir(Path()), denoiser), config.posterior, config.test
    levels, tested = len(inputs.levels), test.heads * test.realizations * len(inputs.levels)
    more = dict[str, int]()
    for name in config.methods:
        curve = config.noise.realizations * len(next(iter(METHODS[name][1].values()), ()))
        drawn = config.tuning.heads * levels if name in test.mean_of_samples else 0
        if name in CALIBRATED_METHODS:
            drawn += p.heads * levels + (tested if p.without_lesions and denoiser is None else 0)
        elif name in PUBLISHED_METHODS:
            drawn = 2 * levels
        samples = 1 if name == "split_gibbs" else test.samples
        more[name] = samples * drawn + (curve if name in config.noise.methods else 0)
    return planning.study_stages(config, inputs, more)


def _study(config: ConfigDict, inputs: StudyInputs, denoiser: Any = None) -> Result:
    lowest, lesions, test = min(inputs.levels), config.scan.lesions, config.test
    study = comparison.run_study(config, inputs, config.methods)
    noise, noise_figure = _bias_and_deviation(study, lowest, config)
    oblique = inputs.setup.michelogram is not None
    certain, own_sections = _volumes(study, config) if oblique else _posterior(study, config, denoiser)
    sections = [
        Section(
            "Bias and deviation", "Along each method's first hyper-parameter, at the lowest counts.", [noise_figure]
        ),
        *own_sections,
    ]
    published = (
        "2.5 trues/mm³ are what 1 % of a full scan's counts come to. The published figures of the paper (26.1, 23.7 "
        "and 21.2 % NRMSE for OSEM, patch MAP-EM and DDS-δ) are of other data: real [18F]DPA-714 scans in 3-D."
    )
    heading = "Conditional diffusion sampling at low counts"
    found = noise | certain
    return summary.summarize(study, heading, published, found, sections, test.heads, lesions, test.realizations)


def _bias_and_deviation(study: Study, level: float, config: ConfigDict) -> tuple[dict[str, float], Figure]:
    """Normalised bias and deviation of realisations of one scan, for each value of a method's first hyper-parameter."""
    inputs, lesions, number = study.inputs, config.scan.lesions, config.noise.realizations
    if inputs.setup.michelogram is None:
        heads = partial(subjects.held_out_subjects, inputs.setup, TEST_SEED, 1, lesions)
        cases = inputs.scans("noise", heads, number).at_level(level)
    else:  # of a volume the test scans of the first head
        cases = study.cases.at_level(level).select(slice(min(number, study.realizations)))
    metrics: dict[str, float] = {}
    groups = dict[str, tuple[np.ndarray, np.ndarray]]()
    for name in (one for one in config.noise.methods if one in study.methods):
        method, best = study.methods[name], study.hyperparameters(name)[level]
        hyperparameter, values = next(iter(method.grid.items()))
        measured = []
        for value in values:
            hyperparameters = {level: best | {hyperparameter: value}}
            done = inputs.reconstruct(f"noise_{name}_{value:g}", method.run, cases, hyperparameters)
            result = bias_and_standard_deviation(done.image, cases.truth[0], cases.mask[0], cases.white[0])
            measured.append((float(result.normalized_deviation), float(result.normalized_bias)))
            metrics[f"noise_deviation/{name}/{value:g}"], metrics[f"noise_bias/{name}/{value:g}"] = measured[-1]
        deviation, bias = np.array(sorted(measured)).T
        groups[title(name)] = deviation, bias
    labels = "standard deviation / mean in white matter", "normalised bias in the brain"
    curves = {name: Curve(*one) for name, one in groups.items()}
    if inputs.setup.michelogram is not None:  # others as they are tuned
        of_scan = np.flatnonzero(study.cases.level == np.float32(level))[: cases.number]
        for name in (one for one in study.results if title(one) not in groups):
            images = study.results[name].image[of_scan]
            result = bias_and_standard_deviation(images, cases.truth[0], cases.mask[0], cases.white[0])
            groups[title(name)] = np.array([result.normalized_deviation]), np.array([result.normalized_bias])
    drawn = points(groups, *labels, curves=curves)
    return metrics, Figure(save_figure(inputs.work, "bias", drawn), f"{level:g} trues/mm³, one head.")


def _posterior(study: Study, config: ConfigDict, denoiser: Any) -> tuple[dict[str, float], list[Section]]:
    """Coverage in and out of distribution, recalibration, and convergence of long chains."""
    inputs, setup, lowest = study.inputs, study.inputs.setup, min(study.inputs.levels)
    certain = [name for name in CALIBRATED_METHODS if name in study.draws]
    best = {name: study.hyperparameters(name) for name in study.draws}
    validation = {name: inputs.draw(f"validation_{name}", name, study.validation, best[name]) for name in study.draws}
    factors = uncertainty.recalibration_factors(study.validation, validation, inputs.levels)
    family = inputs.scans("family", lambda: subjects.family_subjects(setup, TEST_SEED, config.posterior.heads), 1)
    inside = {name: inputs.draw(f"family_{name}", name, family, best[name]) for name in certain}
    sets = [
        SampledSet("family", family, inside),
        SampledSet("lesions", study.cases, study.draws),
        SampledSet("inside lesions", study.cases, study.draws, "lesions"),
    ]
    if denoiser is None and config.posterior.without_lesions:
        other = comparison.with_prior(config, inputs, config.posterior.without_lesions)
        outside = {name: other.draw(f"without_lesions_{name}", name, study.cases, best[name]) for name in certain}
        sets.append(SampledSet("lesions, prior without", study.cases, outside))
        sets.append(SampledSet("inside lesions, prior without", study.cases, outside, "lesions"))
    if slow := [name for name in PUBLISHED_METHODS if name in study.methods and name not in study.draws]:
        of_one, own_factors = _samples_of_one(study, slow)
        factors |= own_factors
        sets.append(of_one)
    metrics, table = uncertainty.coverage_of_sets(sets, factors)
    maps = uncertainty.uncertainty_maps(inputs.work, sets[1], lowest, setup.grid.voxel_mm)
    plots = [uncertainty.error_against_uncertainty(inputs.work, one, lowest) for one in sets[:2]]
    sections = [
        Section("Uncertainty", "Samples of the lowest counts.", [*maps, *plots]),
        Section("Coverage", COVERAGE_NOTE, table=table),
    ]
    if config.posterior.draws:
        chains, chain_table = _chains(study, config.posterior.draws)
        metrics |= chains
        sections.append(Section("Convergence of chains", CHAINS_NOTE, table=chain_table))
    return metrics, sections


def _volumes(study: Study, config: ConfigDict) -> tuple[dict[str, float], list[Section]]:
    """Realisations of a volume, and uncertainty: many samples of one scan, their factor from a validation scan."""
    metrics, section = full_count.volume_section(study, summary.study_metrics(study))
    names = [name for name in config.posterior.methods if name in study.methods]
    if not names:
        return metrics, [section]
    sampled, factors = _samples_of_one(study, names)
    found, table = uncertainty.coverage_of_sets([sampled], factors)
    maps = uncertainty.uncertainty_maps(
        study.inputs.work, sampled, min(study.inputs.levels), study.inputs.setup.grid.voxel_mm
    )
    uncertain = Section("Uncertainty", "Samples of one scan of the lowest counts.", maps)
    return metrics | found, [section, uncertain, Section("Coverage", COVERAGE_NOTE, table=table)]


def _samples_of_one(study: Study, names: Sequence[str]) -> tuple[SampledSet, dict[str, Any]]:
    """Samples of one scan of each level by these methods, and the factors of a validation scan of each."""
    inputs = study.inputs
    few, own = _one_of_each_level(study.cases), _one_of_each_level(study.validation)
    sampled, known = (
        {name: inputs.draw(f"{kind}_{name}", name, cases, study.hyperparameters(name)) for name in names}
        for kind, cases in (("samples", few), ("validation", own))
    )
    return SampledSet(ONE_SCAN, few, sampled), uncertainty.recalibration_factors(own, known, inputs.levels)


def _one_of_each_level(cases: Scans) -> Scans:
    return cases.select(np.unique(cases.level, return_index=True)[1])


def _chains(study: Study, draws: int) -> tuple[dict[str, float], Table]:
    """Split-R̂ and effective sample size of long split-Gibbs chains on one scan of each count level."""
    inputs, key = study.inputs, jax.random.key(study.inputs.seed + 3)
    run = samplers.long_chains(inputs.setup, inputs.prior, draws)
    metrics, rows = dict[str, float](), list[list[Any]]()
    for level in inputs.levels:
        case = study.cases.at_level(level).select(0)
        made = stage(inputs.work, f"chains_{level:g}", lambda case=case: {"images": run(key, case)})
        found = uncertainty.convergence(made["images"], case.mask)
        metrics |= {f"{name}/split_gibbs/{level:g}": value for name, value in found.items()}
        rows.append([f"{level:g}", *(round(value, 3) for value in found.values())])
    return metrics, Table(["trues/mm³", "median R̂", "99th percentile of R̂", "effective fraction"], rows)


if __name__ == "__main__":
    run_module(__file__)
