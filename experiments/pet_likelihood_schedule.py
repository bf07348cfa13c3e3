"""Can the balance between prior and data be set without tuning step sizes? Likelihood-scheduled sampling (paper 8).

A 2-D score prior of FDG-like brain slices meets low-count scans of heads it has never seen, with lesions it has never
seen. Every reverse step is held to the likelihood that MLEM reaches at a set iteration; how many iterations is the one
knob. Against it stand conventional reconstructions, supervised networks and other samplers, each tuned on validation
scans for each count level. Then: how much depends on the knob, does one value serve all levels, what happens with
another tracer and another brain, and what three orientations of planes do for a volume.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments._pet import Scans
from experiments._pet_batched import to_device
from experiments._pet_samplers import schedule_steps
from experiments._pet_study import (
    NAMES,
    TESTED,
    Study,
    assess,
    by_level,
    heads,
    plot_images,
    reconstructed,
    run_study,
    scanned,
    study_metrics,
    study_table,
    tuning_table,
)
from experiments._pet_volume import MODES, sample, volume_measures, volume_scan
from medjax.report.figures import curves, montage
from medjax.report.html import Figure, Report, Section, Table
from medjax.running.experiment import Result, run_module
from medjax.running.workdir import WorkDir, save_figure, stage

METHODS = (
    "osem", "map_em", "mr_map_em", "supervised", "unrolled", "dps", "dds", "dds_delta", "likelihood_schedule",
    "likelihood_schedule_fit",
)  # fmt: skip
ELSEWHERE = ("osem", "map_em", "supervised", "unrolled", "dds", "likelihood_schedule")  # on what no training saw


def run(config: ConfigDict, work: WorkDir, denoiser: Any = None) -> Result:
    """Tune, reconstruct, judge; then the schedule itself, other tracers and brains, and a volume."""
    study = run_study(config, work, METHODS, denoiser)
    levels = config.scan.trues_per_mm3
    metrics = study_metrics(study) | _equal_error(study)
    steps = _steps(config, work, study)
    metrics |= {f"landing_error/likelihood_schedule/{level:g}": steps[f"{level:g}"]["error"] for level in levels}
    other, tables = _elsewhere(config, work, study)
    volume, images = _volume(config, work, study)
    metrics |= other | volume
    table = study_table(metrics, tuple(study.images), levels)
    sections = [
        Section("Images", "", [plot_images(study, work, level) for level in levels]),
        Section("Figures of merit", "In the brain, against the truth.", table=table),
        Section("Tuning", "", table=tuning_table(study)),
        Section("The schedule", "What each reverse step aimed at, and what it took.", _step_figures(steps, work)),
        *(Section(title, "", table=one) for title, one in tables.items()),
        Section("A volume", _said_of_volume(volume), [images]),
    ]
    return Result({k: float(v) for k, v in metrics.items()}, _report(config, study, sections), table)


def _equal_error(study: Study) -> dict[str, float]:
    """Projector calls with which each sampler is as good as the better-tuned of the two is bad, on validation scans."""
    pair = ("dds", "likelihood_schedule")
    goal = np.max([study.tuned[name].errors.min(axis=0) for name in pair], axis=0) * 1.001
    return {
        f"calls_at_equal_nrmse/{name}/{level:g}": float(calls)
        for name in pair
        for level, calls in zip(study.tuned[name].levels, study.tuned[name].calls_to_reach(goal), strict=True)
    }


def _steps(config: ConfigDict, work: WorkDir, study: Study) -> dict[str, Any]:
    """Deviance, target and updates of every step of one sampling a level."""
    run = jax.jit(partial(schedule_steps, study.bench, s=study.sampling))

    def make() -> dict[str, Any]:
        out: dict[str, Any] = {}
        for level, knobs in study.tuned["likelihood_schedule"].knobs.items():
            first = int(np.flatnonzero(study.cases.level == np.float32(level))[0])
            case = Scans(*(array[0] for array in to_device(study.cases, np.array([first]))))
            info = run(jax.random.key(config.seed), case, iterations=jnp.asarray(knobs["iterations"]))
            span = info.target[0] - info.target[-1]
            missed = jnp.where(info.reached_target, jnp.abs(info.deviance - info.target), 0).max() / span
            out[f"{level:g}"] = info._asdict() | {"error": missed}
        return out

    return stage(work, "steps", make)


def _step_figures(steps: dict[str, Any], work: WorkDir) -> list[Figure]:
    level, one = next(iter(steps.items()))
    x = np.arange(1, len(one["target"]) + 1)
    aims = {"target": one["target"], "reached": one["deviance"]}
    drawn = curves(x, aims, "reverse step", "Poisson deviance", title=f"Targets at {level} trues/mm³")
    counts = {f"{name} trues/mm³": values["updates"] for name, values in steps.items()}
    updates = curves(x, counts, "reverse step", "EM updates", title="EM updates a step")
    return [
        Figure(
            save_figure(work, "targets", drawn), "Where the denoised image fits better than asked, it is left alone."
        ),
        Figure(save_figure(work, "updates", updates)),
    ]


def _elsewhere(config: ConfigDict, work: WorkDir, study: Study) -> tuple[dict[str, float], dict[str, Table]]:
    """What no training saw: another tracer's pattern; another brain. Knobs stay as they were tuned on FDG."""
    b, seed = study.bench, config.seed
    sets = {"dpa714": scanned(work, "dpa714", b, config, lambda: heads(b, TESTED, 1, config, "dpa714"), 2)}
    if config.other_brain:
        from experiments._pet_other import other_subjects

        folder = Path(config.other_brain)
        sets["other_brain"] = scanned(work, "other_brain", b, config, lambda: other_subjects(b, folder), 2)
    titles = {"dpa714": "Another tracer: DPA-714-like uptake", "other_brain": "Another brain"}
    metrics: dict[str, float] = {}
    tables = {}
    for name, cases in sets.items():
        rows: list[list[Any]] = []
        for method in ELSEWHERE:
            tuned = study.tuned[method].knobs
            done = reconstructed(work, f"{name}_{method}", study.methods[method], cases, tuned, seed)
            values = assess(done["image"], cases)
            for measure in ("nrmse", "ssim", "lesion_contrast"):
                for level, (mean, _) in by_level(values[measure], cases).items():
                    metrics[f"{measure}_{name}/{method}/{level:g}"] = mean
            means = [mean for mean, _ in by_level(values["nrmse"], cases).values()]
            rows.append([NAMES[method], *(round(mean, 3) for mean in means)])
        header = ["NRMSE", *(f"{level:g} trues/mm³" for level in np.unique(cases.level))]
        tables[titles[name]] = Table(header, rows, "Knobs as tuned on FDG; two noise realisations.")
    return metrics, tables


def _volume(config: ConfigDict, work: WorkDir, study: Study) -> tuple[dict[str, float], Figure]:
    acquisition, truth = volume_scan(config)
    metrics: dict[str, float] = {}
    shown = {"Truth": np.maximum(truth.activity, 0)}
    for mode in MODES:
        run = jax.jit(partial(sample, s=study.sampling, mode=mode, iterations=config.volume.iterations))
        done = stage(work, f"volume_{mode}", lambda run=run: run(jax.random.key(config.seed), acquisition))
        found = volume_measures(done["image"], truth) | {"projector_calls": float(done["projections"])}
        metrics |= {f"volume_{name}/{mode}": value for name, value in found.items()}
        shown[mode] = done["image"]
    figure = montage(shown, truth.affine, note=f"Simulated, {config.volume.trues_per_mm3:g} trues/mm³")
    return metrics, Figure(save_figure(work, "volume", figure), "Likelihood-scheduled sampling of one volume.")


def _said_of_volume(volume: dict[str, float]) -> str:
    parts = [
        f"{mode}: NRMSE {volume[f'volume_nrmse/{mode}']:.3f}, roughness between transverse slices "
        f"{volume[f'volume_roughness_between/{mode}']:.2f} and within them "
        f"{volume[f'volume_roughness_within/{mode}']:.2f} of the truth's"
        for mode in MODES
    ]
    return "; ".join(parts) + "."


def _report(config: ConfigDict, study: Study, sections: list[Section]) -> Report:
    summary = [
        f"Simulated FDG-like scans on the {config.scan.scanner} ring, {config.scan.background:.0%} of the prompts "
        f"background, {config.test.heads} held-out deformations of the MNI152 head with {config.scan.lesions} lesions "
        f"each, {config.test.realisations} noise realisations. Counts come from a 1 mm grid through finer rays; images "
        f"have voxels of {config.grid.voxel_mm:g} mm.",
        "The prior and the supervised networks learnt from deformations of the same head without lesions.",
    ]
    return Report("Likelihood-scheduled sampling", summary, sections)


if __name__ == "__main__":
    run_module(__file__)
