"""Contrast against noise: grey–white contrast and white-matter SD of a method along its hyper-parameter.

contrast         mean of grey matter over mean of white matter
background_sd    SD over the voxels of white matter, over their mean: the normalised white-matter SD of the paper
realization_sd   SD over noise realisations, mean over white matter, over its mean

A competitor's prior is traced, so that all priors of a scanner are one compilation.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array
from ml_collections import ConfigDict

from experiments.pet import conventional, samplers
from experiments.pet.methods import METHODS, Reconstructor, batch_cases
from experiments.pet.multi_subject import planes_of
from experiments.pet.samplers import SlicePrior
from experiments.pet.scans import Reconstruction, Scan, Scans, ScanSetup, Subject, measures, simulate
from medjax.diffusion.prior import Prior, slice_denoiser
from medjax.diffusion.reconstruct import SamplerSettings
from medjax.phantoms.multi_subject import SubjectHead
from medjax.running.tuning import Tuning, grid_search, thin_grid
from medjax.running.workdir import WorkDir, stage

CONVENTIONAL = ("osem", "map_em", "mr_map_em")
MEASURES = ("contrast", "background_sd", "realization_sd", "nrmse", "ssim")
PRIOR_GRID = {"variance": (0.25, 1.0, 4.0, 16.0)}
CURVES: dict[str, tuple[str, tuple[float, ...], dict[str, float]]] = {  # hyper-parameter, its values, the others
    "osem": ("iterations", (1.0, 2.0, 4.0, 8.0), {"filter_mm": 0.0}),
    "map_em": ("beta", (0.5, 2.0, 8.0, 32.0), {"iterations": 10.0, "filter_mm": 0.0}),
    "mr_map_em": ("beta", (2.0, 8.0, 32.0, 128.0), {"iterations": 10.0, "filter_mm": 0.0}),
    "prior": ("variance", PRIOR_GRID["variance"], {}),
}


class TargetScans(NamedTuple):
    """Scans of one target's direct planes, planes outermost, and its grey matter."""

    cases: Scans
    gray: np.ndarray  # (case, x, y, 1)
    realizations: int


class ScanMethods(NamedTuple):
    """Reconstructions of one scanner: conventional ones by name, and the sampler, whose prior is `params`."""

    setup: ScanSetup
    conventional: dict[str, Reconstructor]
    sampler: Reconstructor


def scan_methods(setup: ScanSetup, size: int) -> ScanMethods:
    """Methods of a scanner, `size` cases at once."""
    known = {name: batch_cases(setup, conventional.METHODS[name], size) for name in CONVENTIONAL}
    return ScanMethods(setup, known, batch_cases(setup, _sampled, size))


def scan_target(
    work: WorkDir, name: str, setup: ScanSetup, head: SubjectHead, heights_mm: Sequence[float], level: float,
    realizations: int, seed: int,
) -> TargetScans:  # fmt: skip
    """Scans of a target's planes, kept as a stage."""

    def make() -> dict[str, np.ndarray]:
        planes: list[Subject] = planes_of(setup, head, heights_mm)
        scans = simulate(setup, planes, [level], realizations, seed)
        gray = np.stack([one.truth.gray > 0.8 for one in planes])
        return scans.arrays() | {"gray": np.repeat(gray, realizations, axis=0)}

    kept = stage(work, name, make)
    return TargetScans(
        Scans(**{field: kept[field] for field in Scans._fields if field in kept}), kept["gray"], realizations
    )


def competitor(methods: ScanMethods, name: str, prior: Prior | None) -> Callable[..., Reconstruction]:
    """Reconstruction (key, cases, hyperparameters) by a conventional method, or with a prior."""
    if prior is None:
        return methods.conventional[name]
    return lambda key, cases, own: methods.sampler(key, cases, own, params=prior)


def curve(
    work: WorkDir, name: str, run: Callable[..., Reconstruction], scans: TargetScans, kind: str, values: int, seed: int
) -> dict[str, np.ndarray]:
    """Measures (value, plane) of a method along its curve's hyper-parameter, kept as a stage; `kind`: of `CURVES`."""
    hyperparameter, every, others = CURVES[kind]
    chosen = thin_grid({hyperparameter: every}, values)[hyperparameter]

    def make() -> dict[str, np.ndarray]:
        rows = [reconstruct(run, scans, {hyperparameter: value} | others, 1, seed)[1] for value in chosen]
        return {measure: np.stack([row[measure] for row in rows]) for measure in MEASURES} | {
            "values": np.asarray(chosen)
        }

    return stage(work, name, make)


def test(
    work: WorkDir,
    name: str,
    run: Callable[..., Reconstruction],
    scans: TargetScans,
    hyperparameters: Mapping[str, float],
    samples: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Measures (plane,) and the first realisation's `images` with these hyper-parameters, kept as a stage."""

    def make() -> dict[str, np.ndarray]:
        images, found = reconstruct(run, scans, hyperparameters, samples, seed)
        return found | {"images": images}

    return stage(work, name, make)


def single_method(name: str, prior: Prior) -> tuple[Callable[..., Reconstruction], Mapping[str, tuple[float, ...]]]:
    """Reconstruction of one scan by a conventional method or the `prior`, and the grid that it is tuned over."""
    if name == "prior":
        return partial(_sampled, params=prior), PRIOR_GRID
    return conventional.METHODS[name], METHODS[name][1]


def number_of_cases(name: str, test: ConfigDict, targets: int, curves: bool) -> int:
    """Number of scans that a method reconstructs: tuning, test, and its curve where there are `curves`."""
    grid = thin_grid(PRIOR_GRID if name == "prior" else METHODS[name][1], test.values_per_hyperparameter)
    values = thin_grid({"curve": CURVES[name][1]}, test.values_per_hyperparameter)["curve"]
    samples = test.samples if name == "prior" else 1
    scans = prod(map(len, grid.values())) + targets * (samples + (len(values) if curves else 0))
    return scans * test.planes * test.realizations


def over_targets(rows: Sequence[Mapping[str, np.ndarray]], axis: int) -> dict[str, np.ndarray]:
    """Measures of several targets, their planes along `axis`; values of a curve are the same for all."""
    found = {measure: np.concatenate([row[measure] for row in rows], axis=axis) for measure in MEASURES}
    return found | ({"values": rows[0]["values"]} if "values" in rows[0] else {})


def tune(
    work: WorkDir, name: str, run: Callable[..., Reconstruction], scans: TargetScans, kind: str, values: int, seed: int
) -> dict[str, float]:
    """Hyper-parameters of minimum mean NRMSE on a validation head's scans."""
    grid = thin_grid(PRIOR_GRID if kind == "prior" else METHODS[kind][1], values)

    def evaluate(**own: float) -> tuple[list[float], list[float]]:
        _, found = reconstruct(run, scans, own, 1, seed)
        return [float(found["nrmse"].mean())], [0.0]

    kept = stage(work, name, lambda: grid_search(grid, evaluate, [0], name)._asdict())
    return Tuning(**kept).best[0]


def reconstruct(
    run: Callable[..., Reconstruction],
    scans: TargetScans,
    hyperparameters: Mapping[str, float],
    samples: int,
    seed: int,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Images of the first realisation of each plane, and measures (plane,), means over realisations.

    Of a method that samples, the mean of `samples` is the image.
    """
    cases = scans.cases.repeat(samples)
    own = {name: np.full(cases.number, value) for name, value in hyperparameters.items()}
    made = np.asarray(run(jax.random.key(seed), cases, own).image)
    images = made.reshape(scans.cases.number, samples, *made.shape[1:]).mean(axis=1)
    return images[:: scans.realizations], plane_measures(images, scans)


def plane_measures(images: np.ndarray, scans: TargetScans) -> dict[str, np.ndarray]:
    """Each of `MEASURES` for each plane."""
    rows = []
    for number, image in enumerate(images):
        case = scans.cases.select(number)
        found = measures(image, case)
        contrast = float(image[scans.gray[number]].mean() / max(image[case.white].mean(), 1e-6))
        rows.append([contrast, found["background_sd"], np.nan, found["nrmse"], found["ssim"]])
    planes = np.asarray(rows).reshape(-1, scans.realizations, len(MEASURES)).mean(axis=1)
    grouped = images.reshape(-1, scans.realizations, *images.shape[1:])
    for plane, group in enumerate(grouped):
        white = group[:, scans.cases.white[plane * scans.realizations]]
        planes[plane, 2] = white.std(axis=0, ddof=1).mean() / max(white.mean(), 1e-6)
    return dict(zip(MEASURES, planes.T, strict=True))


def _sampled(key: Array, scan: Scan, variance: Array, params: Prior) -> Reconstruction:
    """One sample by DDS with a solved data step."""
    denoisers = (slice_denoiser(params, 0), slice_denoiser(params, 1), slice_denoiser(params, 2))
    prior = SlicePrior(denoisers, params.settings.multiple, SamplerSettings())
    return samplers.methods(prior)["dds_cg"](key, scan, variance=variance)
