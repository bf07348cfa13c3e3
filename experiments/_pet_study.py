"""A comparison of reconstructions as both sampling experiments make it: tune on validation scans, judge on test scans.

Every stage is kept in the work directory, so a killed run goes on where it was.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments._pet import MEASURES, Scans, Setup, Subject, bench, measures, scan, subject, training_subject
from experiments._pet_batched import Method, averaged
from experiments._pet_learned import train_unet, train_unrolled, unet_method, unrolled_method
from experiments._pet_methods import methods
from experiments._pet_samplers import Sampling
from experiments._pet_tuning import Tuned, knobs_for, tune
from medjax.diffusion.prior import slices
from medjax.diffusion.prior_file import load_prior
from medjax.errors import ConfigError
from medjax.report.figures import montage
from medjax.report.html import Figure, Table
from medjax.running.progress import track
from medjax.running.workdir import WorkDir, save_figure, stage

NAMES = {
    "osem": "OSEM",
    "map_em": "MAP-EM, quadratic",
    "mr_map_em": "MAP-EM, MR-guided",
    "patch_map_em": "MAP-EM, patches",
    "bsrem": "BSREM, RDP",
    "supervised": "U-Net behind OSEM",
    "unrolled": "unrolled EM",
    "naive": "PET-Naive",
    "dps": "PET-DPS",
    "dds": "PET-DDS",
    "dds_delta": "PET-DDS-δ",
    "likelihood_schedule": "likelihood schedule",
    "likelihood_schedule_fit": "likelihood schedule, to noise level",
    "dds_mean": "PET-DDS, mean of samples",
    "dds_delta_mean": "PET-DDS-δ, mean of samples",
    "likelihood_schedule_mean": "likelihood schedule, mean of samples",
}
VALIDATION, TESTED = 500, 0  # first seeds of the heads that knobs are tuned on, and of those that are judged


class Study(NamedTuple):
    """What was reconstructed of the test scans, and how the knobs were found."""

    bench: Setup
    sampling: Sampling
    methods: dict[str, Method]
    tuned: dict[str, Tuned]
    cases: Scans
    images: dict[str, np.ndarray]
    projections: dict[str, np.ndarray]


def prepare(config: ConfigDict, denoiser: Any = None) -> tuple[Setup, Sampling]:
    """The scanner's slice, and the prior with how it is sampled.

    A `denoiser` of slices (batch, a, b) of mean emission 1, with its `sde`, takes the place of the prior that the
    config names.

    Raises:
        ConfigError: the prior has other voxels than the slices.
    """
    g, s = config.grid, config.sampling
    denoisers, multiple = ((denoiser,) * 3, 1) if denoiser is not None else _prior(config)
    sampling = Sampling(denoisers, multiple, s.steps, s.first, s.last, s.eta)
    return bench(config.scan.scanner, g.size, g.voxel_mm, background=config.scan.background), sampling


def _prior(config: ConfigDict) -> tuple[tuple[Any, Any, Any], int]:
    """Denoisers of slices perpendicular to each axis, and what the sides of slices must be multiples of."""
    g, s = config.grid, config.sampling
    prior = load_prior(Path(s.prior) if s.prior else None)
    multiple = prior.settings.multiple
    if abs(prior.settings.voxel_mm - g.voxel_mm) > 0.3 * g.voxel_mm or g.size % multiple:
        raise ConfigError(
            f"grid: {g.size} voxels of {g.voxel_mm:g} mm; expected about {prior.settings.voxel_mm:g} mm, as the prior "
            f"has, and a multiple of {multiple} voxels"
        )
    return (slices(prior, 0), slices(prior, 1), slices(prior, 2)), multiple


def scanned(
    work: WorkDir, name: str, b: Setup, config: ConfigDict, subjects: Callable[[], Sequence[Subject]], realisations: int
) -> Scans:
    """Scans of the subjects at every count level, kept as a stage."""

    def make() -> dict[str, np.ndarray]:
        return scan(b, subjects(), config.scan.trues_per_mm3, realisations, config.seed)._asdict()

    return Scans(**stage(work, name, make))


def heads(b: Setup, first: int, number: int, config: ConfigDict, tracer: str = "fdg") -> list[Subject]:
    """Held-out heads, each with its lesions."""
    return [subject(b, first + k, tracer, config.scan.lesions) for k in track(number, f"{tracer} heads")]


def run_study(config: ConfigDict, work: WorkDir, wanted: Sequence[str], denoiser: Any = None) -> Study:
    """Train what is to be trained, tune, reconstruct the test scans with the knobs found for each count level.

    A `denoiser` takes the place of the config's prior: see `prepare`.
    """
    b, s = prepare(config, denoiser)
    t = config.tuning
    validation = scanned(work, "validation", b, config, lambda: heads(b, VALIDATION, t.heads, config), 1)
    cases = scanned(
        work, "test", b, config, lambda: heads(b, TESTED, config.test.heads, config), config.test.realisations
    )
    found = {name: method for name, method in methods(b, s, config.chunk).items() if name in wanted}
    found |= _learned(config, work, b, wanted)
    found = {name: thinned(method, t.per_knob) for name, method in found.items()}
    tuned = {name: _tuned(work, found[name], validation, config.seed) for name in wanted}
    images: dict[str, np.ndarray] = {}
    projections: dict[str, np.ndarray] = {}
    for name in wanted:
        done = reconstructed(work, f"test_{name}", found[name], cases, tuned[name].knobs, config.seed)
        images[name], projections[name] = done["image"], done["projections"]
    for name in config.test.averaged:
        mean = averaged(found[name], config.test.samples)
        done = reconstructed(work, f"test_{mean.name}", mean, cases, tuned[name].knobs, config.seed)
        images[mean.name], projections[mean.name] = done["image"], done["projections"]
    return Study(b, s, found, tuned, cases, images, projections)


def thinned(method: Method, values: int) -> Method:
    """The method with at most so many values a knob, from the middle of its grid; 0: all."""
    middle = {name: max((len(grid) - values) // 2, 0) for name, grid in method.grid.items()}
    grid = {name: grid[middle[name] :][: values or None] for name, grid in method.grid.items()}
    return method._replace(grid=grid) if values else method


def plot_images(study: Study, work: WorkDir, level: float) -> Figure:
    """The first test scan of a count level by every method."""
    first = int(np.flatnonzero(study.cases.level == np.float32(level))[0])
    shown = {"Truth": study.cases.truth[first]} | {NAMES[name]: images[first] for name, images in study.images.items()}
    figure = montage(shown, np.diag([*study.bench.grid.voxel_mm, 1.0]), note=f"Simulated, {level:g} trues/mm³")
    return Figure(save_figure(work, f"images_{level:g}", figure), f"{level:g} trues per mm³.")


def reconstructed(
    work: WorkDir, name: str, method: Method, cases: Scans, tuned: Mapping[float, Mapping[str, float]], seed: int
) -> dict[str, np.ndarray]:
    """Image and projections of every case, kept as a stage."""

    def make() -> dict[str, np.ndarray]:
        return method.run(jax.random.key(seed + 1), cases, knobs_for(cases, tuned))._asdict()

    return stage(work, name, make)


def _learned(config: ConfigDict, work: WorkDir, b: Setup, wanted: Sequence[str]) -> dict[str, Method]:
    t = config.training
    if not {"supervised", "unrolled"} & set(wanted):
        return {}
    cases = scanned(
        work, "training", b, config, lambda: [training_subject(b, k) for k in track(t.heads, "training heads")], 1
    )
    unet = stage(work, "unet", lambda: train_unet(b, cases, t.unet_steps, t.batch, config.seed))
    em = stage(work, "unrolled", lambda: train_unrolled(b, cases, t.unrolled_steps, t.batch, config.seed))
    return {"supervised": unet_method(b, unet), "unrolled": unrolled_method(b, em, config.chunk)}


def _tuned(work: WorkDir, method: Method, cases: Scans, seed: int) -> Tuned:
    kept = stage(work, f"tuned_{method.name}", lambda: tune(method, cases, jax.random.key(seed))._asdict())
    return Tuned(**kept)


# ── what comes of it ──


def assess(images: np.ndarray, cases: Scans) -> dict[str, np.ndarray]:
    """Each measure of each case."""
    rows = [measures(image, cases.where(i)) for i, image in enumerate(images)]
    return {name: np.array([row[name] for row in rows]) for name in MEASURES}


def by_level(values: np.ndarray, cases: Scans) -> dict[float, tuple[float, float]]:
    """Mean and standard deviation over the cases of each count level; NaN left out."""
    out = {}
    for level in np.unique(cases.level):
        mine = values[cases.level == level]
        mine = mine[np.isfinite(mine)]
        out[float(level)] = (float(mine.mean()), float(mine.std(ddof=1))) if len(mine) > 1 else (float("nan"),) * 2
    return out


def study_metrics(study: Study) -> dict[str, float]:
    """`MEASURE/METHOD/COUNTS`, its standard deviation as `MEASURE_sd/…`, costs, knobs found and sensitivity to them."""
    out: dict[str, float] = {}
    for name, images in study.images.items():
        values = assess(images, study.cases) | {"projector_calls": study.projections[name]}
        for measure, each in values.items():
            for level, (mean, deviation) in by_level(each, study.cases).items():
                out[f"{measure}/{name}/{level:g}"] = mean
                out[f"{measure}_sd/{name}/{level:g}"] = deviation
        if name in study.methods:
            out |= _tuning_metrics(study.methods[name], study.tuned[name])
    return out


def _tuning_metrics(method: Method, tuned: Tuned) -> dict[str, float]:
    out = {f"tuning_reconstructions/{method.name}": float(tuned.cases)}
    if not method.grid:
        return out
    out[f"tuning_projector_calls/{method.name}"] = tuned.cost
    shared, sensitivity = tuned.shared_loss(), tuned.sensitivity(next(iter(method.grid)))
    for column, (level, knobs) in enumerate(tuned.knobs.items()):
        out |= {f"knob_{knob}/{method.name}/{level:g}": value for knob, value in knobs.items()}
        out[f"sensitivity/{method.name}/{level:g}"] = float(sensitivity[column])
        out[f"shared_knob_loss/{method.name}/{level:g}"] = float(shared[column])
    return out


def study_table(metrics: Mapping[str, float], names: Sequence[str], levels: Sequence[float]) -> Table:
    """A row a method and count level."""
    shown = (*MEASURES, "projector_calls")
    rows: list[list[Any]] = []
    for level in levels:
        for name in names:
            cells = (
                f"{metrics[f'{m}/{name}/{level:g}']:.3g} ± {metrics[f'{m}_sd/{name}/{level:g}']:.2g}" for m in shown
            )
            rows.append([f"{level:g}", NAMES[name], *cells])
    header = ["trues/mm³", "method", "NRMSE", "SSIM", "lesion contrast", "background SD", "projector calls"]
    return Table(header, rows, "Mean ± SD over realisations and heads, at the knobs tuned for each count level.")


def tuning_table(study: Study) -> Table:
    """What was found for each method, what it cost, and how much depends on it."""
    rows: list[list[Any]] = []
    for name, method in study.methods.items():
        if not method.grid:
            continue
        tuned, knob = study.tuned[name], next(iter(method.grid))
        best = ", ".join(f"{level:g}: {_said(knobs)}" for level, knobs in tuned.knobs.items())
        cost = f"{tuned.cases} images, {tuned.cost:,.0f} calls"
        spread = ", ".join(f"{100 * value:.0f} %" for value in tuned.sensitivity(knob))
        loss = ", ".join(f"{100 * value:.1f} %" for value in tuned.shared_loss())
        rows.append([NAMES[name], best, cost, f"{knob}: {spread}", loss])
    header = [
        "method",
        "best by level",
        "tuning cost",
        "NRMSE's rise within ×/÷ 4 of a knob",
        "loss by one setting for all",
    ]
    return Table(header, rows, "On validation scans; percentages for the count levels in rising order.")


def _said(knobs: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:g}" for name, value in knobs.items())
