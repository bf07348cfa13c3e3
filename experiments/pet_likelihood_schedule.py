"""Can the balance between prior and data be set without tuning step sizes? Likelihood-scheduled sampling (paper 8).

A 2-D score prior of brain slices meets low-count scans of heads it has never seen. Every reverse step has the
likelihood of an MLEM iterate as its target; the number of iterations is the one hyper-parameter. It stands as
published, by EM updates, and with each step solved in one Krylov space. Against it stand conventional reconstructions
and supervised networks, other published samplers, each tuned on validation scans for each count level, and split
Gibbs sampling, which is not tuned. Then: what half and twice a hyper-parameter does, what happens with another tracer
and another brain, and what three orientations of planes do for a volume.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.pet import comparison, full_count, planning, samplers, scans, subjects, summary, supervised
from experiments.pet.comparison import TEST_SEED, Study, StudyInputs
from experiments.pet.methods import Reconstructor, title
from experiments.pet.oblique import of_geometry
from experiments.pet.scans import Subject
from medjax.errors import MedjaxError
from medjax.metrics.image import nrmse, roughness
from medjax.models.model import Network
from medjax.models.score_unet import score_unet
from medjax.report.figures import curves, montage
from medjax.report.html import Figure, Section, Table
from medjax.running.experiment import Result, results_or_errors, run_module, single_result
from medjax.running.network_part import network_part
from medjax.running.plan import Stage
from medjax.running.workdir import WorkDir, save_figure, stage

OUT_OF_DISTRIBUTION_METHODS = (
    "osem", "map_em", "supervised", "unrolled", "dds", "likelihood_schedule", "likelihood_schedule_cg", "split_gibbs",
)  # fmt: skip
OUT_OF_DISTRIBUTION_MEASURES = ("nrmse", "ssim", "lesion_contrast")
SCHEDULES = ("likelihood_schedule", "likelihood_schedule_cg")  # published and solved
CURVES_NOTE = "NRMSE on held-out scans during training; the best parameters are kept."
COMPARED_COSTS = (*SCHEDULES, "dds_cg")  # methods whose error and projector calls are compared with those of DDS
TRACED = ("seed", "training.rate")  # config keys in which members of a population may differ


def run(config: ConfigDict, work: WorkDir, *, denoiser: Any = None, network: Network | None = None) -> Result:
    """Train, tune, reconstruct and compare the methods; then the schedule, other tracers and brains, and a volume.

    `denoiser` takes the prior's place (see `study_inputs`), `network` that of the U-Net behind MLEM and OSEM: a Model
    with apply(params, images, level), images (batch, x, y, 2) → (batch, x, y, 1), the log10 of the trues per mm³ as
    level, or a function of the image's side.
    """
    return single_result(population([config], [work], denoiser=denoiser, network=network))


def population(
    configs: Sequence[ConfigDict], works: Sequence[WorkDir], *, denoiser: Any = None, network: Network | None = None
) -> list[Result | MedjaxError]:
    """Train the supervised networks of all members together, then run each member's study with its own.

    They are of slices: studies with oblique planes, of volumes, have none.
    """
    configs = [of_geometry(config) for config in configs]
    t, p, inputs = configs[0].training, configs[0].population, comparison.study_inputs(configs, works, denoiser)
    if configs[0].geometry == "oblique":
        return results_or_errors(_study, configs, inputs)
    setup, methods = inputs[0].setup, _supervised_methods(configs[0], inputs[0], network)

    def heads() -> tuple[list[Subject], list[Subject]]:
        validation = subjects.training_subjects(setup, t.validation_slices, subjects.FIRST_VALIDATION_SEED)
        return subjects.training_subjects(setup, t.slices), validation

    data = supervised.training_set(setup, heads, inputs[0].levels, t.realizations, inputs[0].batch)
    unets, unrolled = supervised.train(
        methods, inputs, data, [config.training.rate for config in configs], (t.unet.steps, t.unrolled.steps), t.batch,
        p.strategy or None, p.width or None,
    )  # fmt: skip
    return results_or_errors(_study, configs, inputs, unets, unrolled)


def plan(config: ConfigDict, *, denoiser: Any = None, network: Network | None = None) -> list[Stage]:
    """Stages of the study: supervised trainings, tuning and reconstructions, and a volume."""
    inputs, t = planning.direct_inputs(config, WorkDir(Path()), denoiser), config.training
    methods, levels = _supervised_methods(config, inputs, network), len(inputs.levels)
    steps = (t.unet.steps, t.unrolled.steps)
    more = dict.fromkeys(OUT_OF_DISTRIBUTION_METHODS, (2 if config.other_brain else 1) * 2 * levels)
    volume = scans.volume_setup(inputs.setup, config.volume.planes)

    def sampled(mode: str, key: Any, scan: scans.Scan) -> Any:
        return samplers.sample_volume(key, scan.acquisition, inputs.prior, mode)

    return [
        *planning.supervised_stages(inputs, methods, t.rate, steps, t.batch),
        *planning.study_stages(config, inputs, more),
        *(planning.reconstructions("dds_cg", volume, partial(sampled, mode), {}, 1, 1, f"volume, {mode}")
          for mode in config.volume.modes),
    ]  # fmt: skip


def _supervised_methods(
    config: ConfigDict, inputs: StudyInputs, network: Network | None
) -> list[supervised.SupervisedMethod]:
    t, side = config.training, config.grid.size
    unet = score_unet(tuple(t.unet.widths), 1, tuple(t.unet.attention), patch=t.unet.patch)
    small = score_unet(tuple(t.unrolled.widths), 1, (), patch=t.unet.patch)
    model = network_part(unet if network is None else network, side, "--part network").value
    return [supervised.unet_behind_osem(model, side), supervised.unrolled_em_network(inputs.setup, small)]


def _study(
    config: ConfigDict, inputs: StudyInputs, unet: Reconstructor | None = None, unrolled: Reconstructor | None = None
) -> Result:
    lesions, test = config.scan.lesions, config.test
    networks = {name: one for name, one in (("supervised", unet), ("unrolled", unrolled)) if one is not None}
    study = comparison.run_study(config, inputs, config.methods, networks)
    steps, step_figures = _steps(study)
    schedule = dict[str, float]()
    for name, own in steps.items():
        for level in inputs.levels:
            one = own[f"{level:g}"]
            schedule[f"targets_reached/{name}/{level:g}"] = float(np.mean(one["reached_target"]))
            schedule[f"target_error/{name}/{level:g}"] = one["error"]
    other, tables = _out_of_distribution(study, lesions, config.other_brain)
    stack, own_sections = _volume_sections(study, config)
    sections = [
        Section("The schedule", "Target deviance of each reverse step.", step_figures),
        *([Section("Supervised networks", CURVES_NOTE, _learning_curves(inputs))] if networks else []),
        *(Section(name, "", table=one) for name, one in tables.items()),
        *own_sections,
    ]
    learners = "The prior and the supervised networks" if networks else "The prior"
    learnt = f"{learners} learnt from deformations of the same head, of both tracers, half of them with lesions."
    metrics, heading = _costs(study) | schedule | other | stack, "Likelihood-scheduled sampling"
    return summary.summarize(study, heading, learnt, metrics, sections, test.heads, lesions, test.realizations)


def _volume_sections(study: Study, config: ConfigDict) -> tuple[dict[str, float], list[Section]]:
    """A volume beside slices; or where all are volumes, what they are over realisations."""
    if study.inputs.setup.michelogram is not None:
        metrics, section = full_count.volume_section(study, summary.study_metrics(study))
        return metrics, [section]
    v = config.volume
    metrics, images, table = _volume(study, v.planes, v.head, v.trues_per_mm3, v.modes)
    return metrics, [Section("A volume", "", [images], table)]


def _learning_curves(inputs: StudyInputs) -> list[Figure]:
    """NRMSE on validation scans against training steps of each supervised network."""
    figures = []
    for name, method in {"unet": "supervised", "unrolled": "unrolled"}.items():
        found = supervised.learning_curve(inputs.work, name)
        series = {f"{level:g} trues/mm³": found[f"validation/{level:g}"] for level in inputs.levels}
        drawn = curves(found["step"], series, "training step", "NRMSE on validation scans", title=title(method))
        figures.append(Figure(save_figure(inputs.work, f"learning_curve_{name}", drawn), f"{title(method)}."))
    return figures


def _costs(study: Study) -> dict[str, float]:
    """Error and projector calls of one sample on the test scans, relative to those of DDS."""
    out: dict[str, float] = {}
    found = summary.study_metrics(study)
    for name in (one for one in COMPARED_COSTS if one in study.methods and "dds" in study.methods):
        for level in study.inputs.levels:
            for measure in ("nrmse", "projector_calls"):
                own, dds = (found[f"{measure}/{method}/{level:g}"] for method in (name, "dds"))
                out[f"{measure}_relative_to_dds/{name}/{level:g}"] = own / dds
    return out


def _steps(study: Study) -> tuple[dict[str, dict[str, Any]], list[Figure]]:
    """Deviance, target and updates of every step of one sampling a level, by the published and the solved step."""
    inputs, setup = study.inputs, study.inputs.setup
    found, figures = dict[str, dict[str, Any]](), list[Figure]()
    for name in (one for one in SCHEDULES if one in study.methods):

        @jax.jit
        def run(key: Any, case: scans.Scans, value: Any, name: str = name) -> Any:
            return samplers.schedule_steps(name, key, scans.scan_of(setup, case), value, inputs.prior)

        def make(name: str = name, run: Any = run) -> dict[str, Any]:
            out: dict[str, Any] = {}
            for level, hyperparameters in study.hyperparameters(name).items():
                case = jax.tree.map(jnp.asarray, study.cases.at_level(level).select(0))
                [value] = hyperparameters.values()
                info = run(jax.random.key(inputs.seed), case, jnp.asarray(value))
                span = info.target[0] - info.target[-1]
                missed = jnp.where(info.reached_target, jnp.abs(info.deviance - info.target), 0).max() / span
                out[f"{level:g}"] = info._asdict() | {"error": missed}
            return out

        found[name] = stage(inputs.work, f"steps_{name}", make)
        level, one = next(iter(found[name].items()))
        x = np.arange(1, len(one["target"]) + 1)
        deviances = {"target": one["target"], "reached": one["deviance"]}
        drawn = curves(x, deviances, "reverse step", "Poisson deviance", title=f"{title(name)}, {level} trues/mm³")
        note = f"{np.mean(one['reached_target']):.0%} of the steps are at their target or below."
        figures.append(Figure(save_figure(inputs.work, f"targets_{name}", drawn), note))
    return found, figures


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
        for method in (one for one in OUT_OF_DISTRIBUTION_METHODS if one in study.methods):
            run, best = study.methods[method].run, study.hyperparameters(method)
            values = scans.evaluate(inputs.reconstruct(f"{name}_{method}", run, cases, best).image, cases)
            means = {measure: summary.by_level(values[measure], cases) for measure in OUT_OF_DISTRIBUTION_MEASURES}
            for measure, levels in means.items():
                metrics |= {f"{measure}_{name}/{method}/{level:g}": mean for level, (mean, _) in levels.items()}
            rows.append([title(method), *(round(mean, 3) for mean, _ in means["nrmse"].values())])
        header = ["NRMSE", *(f"{level:g} trues/mm³" for level in np.unique(cases.level))]
        tables[headings[name]] = Table(header, rows, "Hyper-parameters as tuned on FDG; two noise realisations.")
    return metrics, tables


def _volume(
    study: Study, planes: int, head: int, level: float, modes: Sequence[str]
) -> tuple[dict[str, float], Figure, Table]:
    """One volume by transverse slices, and by slices in three orientations in turn or on average."""
    inputs, seed = study.inputs, study.inputs.seed
    setup = scans.volume_setup(inputs.setup, planes)
    [subject] = subjects.held_out_subjects(setup, head, 1)
    acquisition = scans.simulate_scan(jax.random.key(seed + 7), setup, subject, level)
    mask, truth = subject.truth.brain_mask, np.maximum(subject.truth.activity, 0)
    metrics: dict[str, float] = {}
    shown, rows = {"Truth": truth}, list[list[Any]]()
    for mode in modes:
        run = jax.jit(partial(samplers.sample_volume, prior=inputs.prior, mode=mode))
        done = stage(inputs.work, f"volume_{mode}", lambda run=run: run(jax.random.key(seed), acquisition)._asdict())
        rough = [roughness(done["image"], axis, mask) / roughness(truth, axis, mask) for axis in (2, 0)]
        values = (nrmse(done["image"], truth, mask), *rough, done["projector_calls"])
        names = ("nrmse", "roughness_between", "roughness_within", "projector_calls")
        metrics |= {f"volume_{name}/{mode}": float(value) for name, value in zip(names, values, strict=True)}
        rows.append([mode, *(round(float(value), 3) for value in values)])
        shown[mode] = done["image"]
    figure = montage(shown, subject.truth.affine, note=f"Simulated, {level:g} trues/mm³")
    note = "DDS with a solved step, of one volume; roughness in units of the truth's: 1 is ideal."
    header = ["slices", "NRMSE", "roughness between transverse slices", "roughness within", "projector calls"]
    return metrics, Figure(save_figure(inputs.work, "volume", figure), note), Table(header, rows, note)


if __name__ == "__main__":
    run_module(__file__)
