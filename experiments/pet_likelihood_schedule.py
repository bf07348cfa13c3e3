"""Can the balance between prior and data be set without tuning step sizes? Likelihood-scheduled sampling (paper 8).

A 2-D score prior of FDG-like brain slices meets low-count scans of heads it has never seen, with lesions it has never
seen. Every reverse step is held to the likelihood that MLEM reaches at a set iteration; how many iterations is the one
knob. Against it stand conventional reconstructions, supervised networks and other samplers, each tuned on validation
scans for each count level. Then: how much depends on the knob, does one value serve all levels, what happens with
another tracer and another brain, and what three orientations of planes do for a volume.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.pet import comparison, learned, samplers, scans, subjects, summary
from experiments.pet.comparison import TESTED, Session, Study
from experiments.pet.methods import Run, title
from medjax.diffusion.prior import MODES
from medjax.errors import MedjaxError
from medjax.metrics.image import nrmse, roughness
from medjax.models.model import Network
from medjax.report.figures import curves, montage
from medjax.report.html import Figure, Section, Table
from medjax.running.experiment import Result, attempts, only, run_module
from medjax.running.network_part import network_part
from medjax.running.workdir import WorkDir, save_figure, stage

METHODS = (
    "osem", "map_em", "mr_map_em", "supervised", "unrolled", "dps", "dds", "dds_delta", "likelihood_schedule",
    "likelihood_schedule_fit",
)  # fmt: skip
ELSEWHERE = ("osem", "map_em", "supervised", "unrolled", "dds", "likelihood_schedule")  # on what no training saw
JUDGED = ("nrmse", "ssim", "lesion_contrast")  # there
PAIR = ("dds", "likelihood_schedule")  # of which the cost at equal error is compared
MIDDLE_MM = 10.0  # of the volume
TRACED = ("seed", "training.rate")  # what members of a population may differ in


def run(config: ConfigDict, work: WorkDir, *, denoiser: Any = None, network: Network | None = None) -> Result:
    """Train, tune, reconstruct, judge; then the schedule itself, other tracers and brains, and a volume.

    `denoiser` takes the prior's place (see `sessions`), `network` that of the U-Net behind OSEM: a Model with
    apply(params, image, level), the log10 of the trues per mm³ as level, or a function of the image's side.
    """
    return only(population([config], [work], denoiser=denoiser, network=network))


def population(
    configs: Sequence[ConfigDict], works: Sequence[WorkDir], *, denoiser: Any = None, network: Network | None = None
) -> list[Result | MedjaxError]:
    """Train the networks of one kind of all members together; then make each study, with its own."""
    model = network_part(learned.UNET if network is None else network, configs[0].grid.size, "--part network").value
    t, p, sessions = configs[0].training, configs[0].population, comparison.sessions(configs, works, denoiser)
    setup, osem, size = sessions[0].setup, sessions[0].runs["osem"], sessions[0].size
    data = [one.scans("training", lambda: subjects.training(setup, t.heads), 1) for one in sessions]
    train = partial(
        learned.train, sessions=sessions, scans=data, rates=[config.training.rate for config in configs], batch=t.batch,
        strategy=p.strategy or None, width=p.width or None,
    )  # fmt: skip
    unet = learned.unet_behind_osem(setup, osem, size, model)
    unets = train(unet, steps=t.unet_steps)
    unrolled = train(learned.unrolled_em(setup, osem, size), steps=t.unrolled_steps)
    return attempts(_study, configs, sessions, unets, unrolled)


def _study(config: ConfigDict, session: Session, unet: Run, unrolled: Run) -> Result:
    lesions, test, v = config.scan.lesions, config.test, config.volume
    study = comparison.run_study(config, session, METHODS, {"supervised": unet, "unrolled": unrolled})
    steps, step_figures = _steps(study)
    landing = {f"landing_error/likelihood_schedule/{level:g}": steps[f"{level:g}"]["error"] for level in session.levels}
    other, tables = _elsewhere(study, lesions, config.other_brain)
    stack, images, stack_table = _volume(study, v.planes, v.head, v.trues_per_mm3, v.iterations)
    sections = [
        Section("The schedule", "What each reverse step aimed at, and what it took.", step_figures),
        *(Section(name, "", table=one) for name, one in tables.items()),
        Section("A volume", "", [images], stack_table),
    ]
    learnt = "The prior and the supervised networks learnt from deformations of the same head without lesions."
    metrics, heading = _equal_error(study) | landing | other | stack, "Likelihood-scheduled sampling"
    return summary.summarise(study, heading, learnt, metrics, sections, test.heads, lesions, test.realisations)


def _equal_error(study: Study) -> dict[str, float]:
    """Projector calls with which each sampler is as good as the better-tuned of the two is bad, on validation scans."""
    goal = np.max([study.tuned[name].errors.min(axis=0) for name in PAIR], axis=0) * 1.001
    return {
        f"calls_at_equal_nrmse/{name}/{level:g}": float(calls)
        for name in PAIR
        for level, calls in zip(study.tuned[name].groups, study.tuned[name].cost_to_reach(goal), strict=True)
    }


def _steps(study: Study) -> tuple[dict[str, Any], list[Figure]]:
    """Deviance, target and updates of every step of one sampling a level."""
    session, setup = study.session, study.session.setup
    run = jax.jit(lambda key, case, n: samplers.schedule_steps(key, scans.scan_of(setup, case), n, session.sampled))

    def make() -> dict[str, Any]:
        out: dict[str, Any] = {}
        for level, knobs in study.tuned["likelihood_schedule"].best.items():
            case = jax.tree.map(jnp.asarray, study.cases.at_level(level).where(0))
            info = run(jax.random.key(session.seed), case, jnp.asarray(knobs["iterations"]))
            span = info.target[0] - info.target[-1]
            missed = jnp.where(info.reached_target, jnp.abs(info.deviance - info.target), 0).max() / span
            out[f"{level:g}"] = info._asdict() | {"error": missed}
        return out

    steps = stage(session.work, "steps", make)
    level, one = next(iter(steps.items()))
    x = np.arange(1, len(one["target"]) + 1)
    aims = {"target": one["target"], "reached": one["deviance"]}
    targets = curves(x, aims, "reverse step", "Poisson deviance", title=f"Targets at {level} trues/mm³")
    counts = {f"{name} trues/mm³": values["updates"] for name, values in steps.items()}
    updates = curves(x, counts, "reverse step", "EM updates", title="EM updates a step")
    note = "Where the denoised image fits better than asked, it is left alone."
    figures = {"targets": (targets, note), "updates": (updates, "")}
    return steps, [Figure(save_figure(session.work, name, drawn), said) for name, (drawn, said) in figures.items()]


def _elsewhere(study: Study, lesions: int, folder: str) -> tuple[dict[str, float], dict[str, Table]]:
    """What no training saw: another tracer's pattern; another brain. Knobs stay as they were tuned on FDG."""
    session, setup = study.session, study.session.setup
    sets = {"dpa714": lambda: subjects.held_out(setup, TESTED, 1, lesions, "dpa714")}
    if folder:
        sets["other_brain"] = lambda: subjects.other_brain(setup, Path(folder))
    headings = {"dpa714": "Another tracer: DPA-714-like uptake", "other_brain": "Another brain"}
    metrics: dict[str, float] = {}
    tables = {}
    for name, heads in sets.items():
        cases = session.scans(name, heads, 2)
        rows: list[list[Any]] = []
        for method in ELSEWHERE:
            run, best = study.methods[method].run, study.tuned[method].best
            values = scans.judge(session.reconstruct(f"{name}_{method}", run, cases, best).image, cases)
            means = {measure: summary.by_level(values[measure], cases) for measure in JUDGED}
            for measure, levels in means.items():
                metrics |= {f"{measure}_{name}/{method}/{level:g}": mean for level, (mean, _) in levels.items()}
            rows.append([title(method), *(round(mean, 3) for mean, _ in means["nrmse"].values())])
        header = ["NRMSE", *(f"{level:g} trues/mm³" for level in np.unique(cases.level))]
        tables[headings[name]] = Table(header, rows, "Knobs as tuned on FDG; two noise realisations.")
    return metrics, tables


def _volume(
    study: Study, planes: int, head: int, level: float, iterations: float
) -> tuple[dict[str, float], Figure, Table]:
    """One volume by transverse slices, and by slices in three orientations in turn or on average."""
    session, seed = study.session, study.session.seed
    setup = scans.stack(session.setup, planes)
    [subject] = subjects.held_out(setup, head, 1, z_mm=MIDDLE_MM)
    acquisition = scans.measure(jax.random.key(seed + 7), setup, subject, level)
    mask, truth = subject.truth.brain_mask, np.maximum(subject.truth.activity, 0)
    metrics: dict[str, float] = {}
    shown, rows = {"Truth": truth}, list[list[Any]]()
    for mode in MODES:
        run = jax.jit(partial(samplers.sample_volume, s=session.sampled, mode=mode, iterations=iterations))
        done = stage(session.work, f"volume_{mode}", lambda run=run: run(jax.random.key(seed), acquisition)._asdict())
        rough = [roughness(done["image"], axis, mask) / roughness(truth, axis, mask) for axis in (2, 0)]
        values = (nrmse(done["image"], truth, mask), *rough, done["projections"])
        names = ("nrmse", "roughness_between", "roughness_within", "projector_calls")
        metrics |= {f"volume_{name}/{mode}": float(value) for name, value in zip(names, values, strict=True)}
        rows.append([mode, *(round(float(value), 3) for value in values)])
        shown[mode] = done["image"]
    figure = montage(shown, subject.truth.affine, note=f"Simulated, {level:g} trues/mm³")
    note = "Likelihood-scheduled sampling of one volume; roughness in units of the truth's: 1 is ideal."
    header = ["slices", "NRMSE", "roughness between transverse slices", "roughness within", "projector calls"]
    return metrics, Figure(save_figure(session.work, "volume", figure), note), Table(header, rows, note)


if __name__ == "__main__":
    run_module(__file__)
