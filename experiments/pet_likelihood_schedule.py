"""Can the balance between prior and data be set without tuning step sizes? Likelihood-scheduled sampling (paper 8).

A 2-D score prior of FDG-like brain slices meets low-count scans of heads it has never seen, with lesions it has never
seen. Every reverse step has the likelihood of an MLEM iterate as its target; the number of iterations is the one
hyper-parameter. Against it stand conventional reconstructions, supervised networks and other samplers, each
tuned on validation scans for each count level. Then: how sensitive is the error to it, does one value serve all levels,
what happens with another tracer and another brain, and what three orientations of planes do for a volume.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.pet import comparison, samplers, scans, subjects, summary, supervised
from experiments.pet.comparison import TEST_SEED, Study, StudyInputs
from experiments.pet.methods import Reconstructor, title
from medjax.diffusion.prior import MODES
from medjax.errors import MedjaxError
from medjax.metrics.image import nrmse, roughness
from medjax.models.model import Network
from medjax.models.score_unet import score_unet
from medjax.report.figures import curves, montage
from medjax.report.html import Figure, Section, Table
from medjax.running.experiment import Result, results_or_errors, run_module, single_result
from medjax.running.network_part import network_part
from medjax.running.workdir import WorkDir, save_figure, stage

METHODS = (
    "osem", "map_em", "mr_map_em", "supervised", "unrolled", "dps", "dds", "dds_delta", "likelihood_schedule",
    "likelihood_schedule_fit",
)  # fmt: skip
OUT_OF_DISTRIBUTION_METHODS = (
    "osem",
    "map_em",
    "supervised",
    "unrolled",
    "dds",
    "likelihood_schedule",
)  # on another tracer and another brain
OUT_OF_DISTRIBUTION_MEASURES = ("nrmse", "ssim", "lesion_contrast")
EQUAL_ERROR_METHODS = ("dds", "likelihood_schedule")  # whose projector calls at equal error are compared
VOLUME_CENTER_MM = 10.0  # z of the volume's middle
TRACED = ("seed", "training.rate")  # config keys in which members of a population may differ


def run(config: ConfigDict, work: WorkDir, *, denoiser: Any = None, network: Network | None = None) -> Result:
    """Train, tune, reconstruct and compare the methods; then the schedule, other tracers and brains, and a volume.

    `denoiser` takes the prior's place (see `study_inputs`), `network` that of the U-Net behind OSEM: a Model with
    apply(params, image, level), the log10 of the trues per mm³ as level, or a function of the image's side.
    """
    return single_result(population([config], [work], denoiser=denoiser, network=network))


def population(
    configs: Sequence[ConfigDict], works: Sequence[WorkDir], *, denoiser: Any = None, network: Network | None = None
) -> list[Result | MedjaxError]:
    """Train the supervised networks of all members together, then run each member's study with its own."""
    unet = score_unet(tuple(configs[0].training.unet.widths), 1, tuple(configs[0].training.unet.attention))
    model = network_part(unet if network is None else network, configs[0].grid.size, "--part network").value
    t, p, inputs = configs[0].training, configs[0].population, comparison.study_inputs(configs, works, denoiser)
    setup, osem, batch = inputs[0].setup, inputs[0].reconstructors["osem"], inputs[0].batch
    data = [one.scans("training", lambda: subjects.training_subjects(setup, t.heads), 1) for one in inputs]
    train = partial(
        supervised.train, inputs=inputs, scans=data, rates=[config.training.rate for config in configs], batch=t.batch,
        strategy=p.strategy or None, width=p.width or None,
    )  # fmt: skip
    unet = supervised.unet_behind_osem(setup, osem, batch, model)
    unets = train(unet, steps=t.unet_steps)
    unrolled = train(supervised.unrolled_em_network(setup, osem, batch), steps=t.unrolled_steps)
    return results_or_errors(_study, configs, inputs, unets, unrolled)


def _study(config: ConfigDict, inputs: StudyInputs, unet: Reconstructor, unrolled: Reconstructor) -> Result:
    lesions, test, v = config.scan.lesions, config.test, config.volume
    study = comparison.run_study(config, inputs, METHODS, {"supervised": unet, "unrolled": unrolled})
    steps, step_figures = _steps(study)
    target_error = {
        f"target_error/likelihood_schedule/{level:g}": steps[f"{level:g}"]["error"] for level in inputs.levels
    }
    other, tables = _out_of_distribution(study, lesions, config.other_brain)
    stack, images, stack_table = _volume(study, v.planes, v.head, v.trues_per_mm3, v.iterations)
    sections = [
        Section("The schedule", "Target deviance of each reverse step, and the EM updates to reach it.", step_figures),
        *(Section(name, "", table=one) for name, one in tables.items()),
        Section("A volume", "", [images], stack_table),
    ]
    learnt = "The prior and the supervised networks learnt from deformations of the same head without lesions."
    metrics, heading = _equal_error(study) | target_error | other | stack, "Likelihood-scheduled sampling"
    return summary.summarize(study, heading, learnt, metrics, sections, test.heads, lesions, test.realizations)


def _equal_error(study: Study) -> dict[str, float]:
    """Projector calls with which each sampler is as good as the better-tuned of the two is bad, on validation scans."""
    target = np.max([study.tunings[name].errors.min(axis=0) for name in EQUAL_ERROR_METHODS], axis=0) * 1.001
    return {
        f"projector_calls_at_equal_nrmse/{name}/{level:g}": float(calls)
        for name in EQUAL_ERROR_METHODS
        for level, calls in zip(study.tunings[name].groups, study.tunings[name].cost_to_reach(target), strict=True)
    }


def _steps(study: Study) -> tuple[dict[str, Any], list[Figure]]:
    """Deviance, target and updates of every step of one sampling a level."""
    inputs, setup = study.inputs, study.inputs.setup
    run = jax.jit(lambda key, case, n: samplers.schedule_steps(key, scans.scan_of(setup, case), n, inputs.prior))

    def make() -> dict[str, Any]:
        out: dict[str, Any] = {}
        for level, hyperparameters in study.tunings["likelihood_schedule"].best.items():
            case = jax.tree.map(jnp.asarray, study.cases.at_level(level).select(0))
            info = run(jax.random.key(inputs.seed), case, jnp.asarray(hyperparameters["iterations"]))
            span = info.target[0] - info.target[-1]
            missed = jnp.where(info.reached_target, jnp.abs(info.deviance - info.target), 0).max() / span
            out[f"{level:g}"] = info._asdict() | {"error": missed}
        return out

    steps = stage(inputs.work, "steps", make)
    level, one = next(iter(steps.items()))
    x = np.arange(1, len(one["target"]) + 1)
    deviances = {"target": one["target"], "reached": one["deviance"]}
    targets = curves(x, deviances, "reverse step", "Poisson deviance", title=f"Targets at {level} trues/mm³")
    counts = {f"{name} trues/mm³": values["updates"] for name, values in steps.items()}
    updates = curves(x, counts, "reverse step", "EM updates", title="EM updates a step")
    note = "A denoised image that fits better than its target is left unchanged."
    figures = {"targets": (targets, note), "updates": (updates, "")}
    return steps, [Figure(save_figure(inputs.work, name, drawn), caption) for name, (drawn, caption) in figures.items()]


def _out_of_distribution(study: Study, lesions: int, folder: str) -> tuple[dict[str, float], dict[str, Table]]:
    """Out of distribution: another tracer; another brain. Hyper-parameters stay as tuned on FDG."""
    inputs, setup = study.inputs, study.inputs.setup
    sets = {"dpa714": lambda: subjects.held_out_subjects(setup, TEST_SEED, 1, lesions, "dpa714")}
    if folder:
        sets["other_brain"] = lambda: subjects.other_brain_subjects(setup, Path(folder))
    headings = {"dpa714": "Another tracer: DPA-714-like uptake", "other_brain": "Another brain"}
    metrics: dict[str, float] = {}
    tables = {}
    for name, heads in sets.items():
        cases = inputs.scans(name, heads, 2)
        rows: list[list[Any]] = []
        for method in OUT_OF_DISTRIBUTION_METHODS:
            run, best = study.methods[method].run, study.tunings[method].best
            values = scans.evaluate(inputs.reconstruct(f"{name}_{method}", run, cases, best).image, cases)
            means = {measure: summary.by_level(values[measure], cases) for measure in OUT_OF_DISTRIBUTION_MEASURES}
            for measure, levels in means.items():
                metrics |= {f"{measure}_{name}/{method}/{level:g}": mean for level, (mean, _) in levels.items()}
            rows.append([title(method), *(round(mean, 3) for mean, _ in means["nrmse"].values())])
        header = ["NRMSE", *(f"{level:g} trues/mm³" for level in np.unique(cases.level))]
        tables[headings[name]] = Table(header, rows, "Hyper-parameters as tuned on FDG; two noise realisations.")
    return metrics, tables


def _volume(
    study: Study, planes: int, head: int, level: float, iterations: float
) -> tuple[dict[str, float], Figure, Table]:
    """One volume by transverse slices, and by slices in three orientations in turn or on average."""
    inputs, seed = study.inputs, study.inputs.seed
    setup = scans.volume_setup(inputs.setup, planes)
    [subject] = subjects.held_out_subjects(setup, head, 1, z_mm=VOLUME_CENTER_MM)
    acquisition = scans.simulate_scan(jax.random.key(seed + 7), setup, subject, level)
    mask, truth = subject.truth.brain_mask, np.maximum(subject.truth.activity, 0)
    metrics: dict[str, float] = {}
    shown, rows = {"Truth": truth}, list[list[Any]]()
    for mode in MODES:
        run = jax.jit(partial(samplers.sample_volume, prior=inputs.prior, mode=mode, iterations=iterations))
        done = stage(inputs.work, f"volume_{mode}", lambda run=run: run(jax.random.key(seed), acquisition)._asdict())
        rough = [roughness(done["image"], axis, mask) / roughness(truth, axis, mask) for axis in (2, 0)]
        values = (nrmse(done["image"], truth, mask), *rough, done["projector_calls"])
        names = ("nrmse", "roughness_between", "roughness_within", "projector_calls")
        metrics |= {f"volume_{name}/{mode}": float(value) for name, value in zip(names, values, strict=True)}
        rows.append([mode, *(round(float(value), 3) for value in values)])
        shown[mode] = done["image"]
    figure = montage(shown, subject.truth.affine, note=f"Simulated, {level:g} trues/mm³")
    note = "Likelihood-scheduled sampling of one volume; roughness in units of the truth's: 1 is ideal."
    header = ["slices", "NRMSE", "roughness between transverse slices", "roughness within", "projector calls"]
    return metrics, Figure(save_figure(inputs.work, "volume", figure), note), Table(header, rows, note)


if __name__ == "__main__":
    run_module(__file__)
