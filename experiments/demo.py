"""PET counts in, image out: a low-count FDG brain scan, reconstructed by OSEM and by MAP-EM guided by the subject's MR.

The MNI brain is given FDG-like activity and three lesions: one that only the PET shows, one that only the MR shows,
one that both show. Counts are simulated on a 1 mm grid through finer rays than any reconstruction uses, thinned to a
low level with half of the prompts background, and reconstructed at 2 mm on the mMR's own ring. The question that any
use of MR must answer is in the table: what does it gain in noise, what does it lose where PET and MR disagree? Then a
few slices, where a score prior of other heads takes the place of the MR: DDS, and likelihood-scheduled sampling with
the spread of its samples.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from scipy import ndimage

from medjax import iterate
from medjax.diffusion.prior import denoiser
from medjax.diffusion.prior_file import load_prior
from medjax.metrics.image import contrast_recovery, nrmse, psnr, ssim
from medjax.penalty import Penalty, Quadratic, bowsher, neighbours
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, acquire, ordered_subsets
from medjax.pet.grid import Grid
from medjax.pet.psf import blur, gaussian_psf
from medjax.pet.scanner import Scanner, grid, lines, preset, with_rings
from medjax.pet.simulate import draw, emission_volume_mm3, expected_trues, factors
from medjax.pet.system import build_system
from medjax.phantoms.brain import Brain, Lesion, brain
from medjax.report.figures import MR, PET, curves, montage
from medjax.report.html import Figure, Report, Section, Table
from medjax.running.experiment import Result, run_module
from medjax.running.progress import track
from medjax.running.workdir import WorkDir, record_timings, save_figure, stage
from medjax.tools.pet_sample import Sampling, sample

LESIONS = {
    "pet_only": Lesion((-27.0, -22.0, 28.0), 7.0, "pet", contrast=3.0),
    "both": Lesion((27.0, -22.0, 28.0), 7.0, "both", contrast=3.0),
    "mr_only": Lesion((-26.0, 8.0, 26.0), 7.0, "mr"),
}
NAMES = {
    "osem": "OSEM",
    "osem_filtered": "OSEM, filtered",
    "map_em": "MAP-EM, quadratic",
    "mr_map_em": "MAP-EM, MR-guided",
    "dds": "DDS",
    "likelihood-schedule": "likelihood schedule",
}


class Scan(NamedTuple):
    """What the reconstructions get, and the truth that judges them."""

    acquisition: Acquisition
    subject: Brain  # on the reconstruction grid
    grid: Grid
    trues: float


def run(config: ConfigDict, work: WorkDir) -> Result:
    """Simulate, reconstruct, measure, report; every reconstruction is a stage that a later run finds done."""
    scan = _scan(config, work, "scan")
    images, paths = _reconstructions(config, scan, work)
    metrics = {
        f"{name}/{method}": value
        for method, image in images.items()
        for name, value in _measures(image, scan.subject).items()
    }
    metrics |= {
        f"iterations_nrmse/{method}/{k + 1}": float(v) for method, values in paths.items() for k, v in enumerate(values)
    }
    sampled, slices = _slices(config, work)
    metrics |= sampled
    figures = _figures(scan, images, paths, work) | {"slices": slices}
    table = _table(images, metrics)
    return Result(metrics, _report(config, scan, figures, table), table)


def _slices(config: ConfigDict, work: WorkDir) -> tuple[dict[str, float], Figure]:
    """A few slices of the same head at higher counts, with the prior: NRMSE of each image, and the images."""
    s = config.slices
    few = ConfigDict(config.to_dict())
    few.scan.update(planes=s.planes, trues_per_mm3=s.trues_per_mm3, centre_mm=(0.0, -18.0, 28.0))
    few.grid.update(size=s.size, voxel_mm=s.voxel_mm)
    scan = _scan(few, work, "slices")
    volumes, start = denoiser(load_prior()), em.init(scan.acquisition).image
    images: dict[str, np.ndarray] = {"Truth": scan.subject.activity}
    for name, settings in (("osem", few.osem), ("map_em", few.map_em)):
        penalty = Quadratic(neighbours(scan.grid.shape, scan.grid.voxel_mm)) if name == "map_em" else None
        images[NAMES[name]] = stage(
            work, f"slices_{name}", lambda n=name, o=settings, p=penalty: _reconstruct(o, scan, p, NAMES[n])
        )["image"]
    for method, iterations, samples in (
        ("dds", s.dds_updates, 1),
        ("likelihood-schedule", s.schedule_iterations, s.samples),
    ):
        how = Sampling(None, s.steps, samples, config.seed)

        def sampled(method: str = method, iterations: int = iterations, how: Sampling = how) -> dict[str, np.ndarray]:
            mean, spread = sample(method, scan.acquisition, volumes, start, iterations, how)
            return {"mean": mean, "spread": np.zeros_like(mean) if spread is None else spread}

        done = stage(work, f"slices_{method}", sampled)
        images[NAMES[method]] = done["mean"]
    images["its spread"] = done["spread"]
    metrics = {
        f"slices_nrmse/{name.replace('-', '_')}": float(
            nrmse(images[NAMES[name]], scan.subject.activity, scan.subject.brain_mask)
        )
        for name in ("osem", "map_em", "dds", "likelihood-schedule")
    }
    largest = float(done["spread"].max()) or 1.0
    drawn = montage(
        images, scan.subject.affine, other_scales={"its spread": PET._replace(high=largest)},
        note=f"Simulated, {s.trues_per_mm3:g} trues/mm³",
    )  # fmt: skip
    caption = f"Likelihood schedule: mean of {s.samples} samples, and their standard deviation."
    return metrics, Figure(save_figure(work, "slices", drawn), caption)


def _scan(config: ConfigDict, work: WorkDir, name: str) -> Scan:
    s = config.scan
    scanner = with_rings(preset(s.scanner), s.planes)
    coarse = grid(scanner, config.grid.size, config.grid.voxel_mm)
    lesions = tuple(LESIONS.values())
    subject = brain(coarse.voxel_mm, s.tracer, coarse.shape, lesions, s.centre_mm)
    simulated = stage(work, name, lambda: _simulate(config, scanner, coarse, lesions))
    system = build_system(lines(scanner), coarse)
    multiplicative = factors(scanner, system, float(simulated["scale"]), jnp.asarray(subject.mu))
    psf = gaussian_psf(coarse, s.resolution_mm)
    acquisition = acquire(
        system, jnp.asarray(simulated["counts"]), multiplicative, jnp.asarray(simulated["additive"]), psf
    )
    return Scan(acquisition, subject, coarse, float(simulated["trues"]))


def _simulate(config: ConfigDict, scanner: Scanner, coarse: Grid, lesions: tuple[Lesion, ...]) -> dict[str, Any]:
    """Counts from a grid of 1 mm in plane that covers what the reconstruction's does."""
    s = config.scan
    size = int(np.ceil(min(coarse.shape[0] * coarse.voxel_mm[0], 260.0)))
    fine = Grid((size, size, s.planes), (1.0, 1.0, coarse.voxel_mm[2]))
    head = brain(fine.voxel_mm, s.tracer, fine.shape, lesions, s.centre_mm)
    trues = expected_trues(scanner, head.activity, fine, head.mu, s.resolution_mm)
    total = s.trues_per_mm3 * emission_volume_mm3(head.activity, fine)
    scan = draw(jax.random.key(config.seed), scanner, trues, total, s.background)
    return {"counts": scan.counts, "additive": scan.additive, "scale": scan.scale, "trues": total}


def _reconstructions(
    config: ConfigDict, scan: Scan, work: WorkDir
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Each method's image, and its NRMSE after every iteration."""
    plain = neighbours(scan.grid.shape, scan.grid.voxel_mm)
    penalties: dict[str, Callable[[], Penalty | None]] = {
        "osem": lambda: None,
        "map_em": lambda: Quadratic(plain),
        "mr_map_em": lambda: Quadratic(bowsher(plain, jnp.asarray(scan.subject.t1), config.mr_map_em.similar)),
    }
    images: dict[str, np.ndarray] = {}
    paths: dict[str, np.ndarray] = {}
    for method, penalty in penalties.items():
        done = stage(work, method, lambda m=method, p=penalty: _reconstruct(config[m], scan, p(), NAMES[m]))
        images[method], paths[method] = done["image"], done["nrmse"]
        record_timings(work, {f"{method}.seconds_a_pass": float(np.median(done["seconds"]))})
    filtered = blur(gaussian_psf(scan.grid, config.osem.post_filter_mm), jnp.asarray(images["osem"]))
    order = {"osem": images["osem"], "osem_filtered": np.asarray(filtered)}
    return order | {m: images[m] for m in ("map_em", "mr_map_em")}, paths


def _reconstruct(settings: ConfigDict, scan: Scan, penalty: Penalty | None, name: str) -> dict[str, Any]:
    stacked = ordered_subsets(scan.acquisition, settings.subsets)
    algorithm = em.osem(stacked)
    if penalty is not None:
        algorithm = em.map_em(stacked, penalty, jax.jit(em.penalty_weight)(stacked, float(settings.beta)))
    image, errors, seconds, start = em.init(stacked).image, list[float](), list[float](), time.perf_counter()
    n, progress = em.updates(stacked, settings.iterations), partial(track, description=name)
    for state, _ in iterate.loop(algorithm, em.init(stacked), n, every=settings.subsets, progress=progress):
        image = state.image
        seconds.append(time.perf_counter() - start)
        errors.append(float(nrmse(image, scan.subject.activity, scan.subject.brain_mask)))
        start = time.perf_counter()
    return {"image": image, "nrmse": np.array(errors), "seconds": np.array(seconds)}


def _measures(image: np.ndarray, subject: Brain) -> dict[str, float]:
    """Agreement with the truth in the brain, and what happened to each lesion.

    `lesion_contrast` is recovered over true contrast, 1 is perfect; `leak` is the contrast that a lesion of the MR
    alone gets in PET, 0 is perfect; `white_matter_sd` is the standard deviation over the mean in pure white matter.
    """
    truth, mask = subject.activity, subject.brain_mask
    white = (subject.white > 0.95) & (subject.lesions == 0)
    pure = ndimage.binary_erosion(white, iterations=2) if min(white.shape) > 16 else white
    out = {
        "nrmse": float(nrmse(image, truth, mask)),
        "ssim": float(ssim(image, truth, mask)),
        "psnr": float(psnr(image, truth, mask)),
        "white_matter_sd": float(image[pure].std() / image[pure].mean()) if pure.any() else float("nan"),
    }
    for number, name in enumerate(LESIONS, 1):
        lesion = subject.lesion_ids == number
        ring = (
            ndimage.binary_dilation(lesion, iterations=5)
            & ~ndimage.binary_dilation(lesion, iterations=2)
            & (subject.white > 0.8)
        )
        if not (lesion.any() and ring.any()):
            value = float("nan")
        elif name == "mr_only":
            value = float(_contrast(image, lesion, ring) - _contrast(truth, lesion, ring))
        else:
            value = float(contrast_recovery(image, truth, lesion, ring))
        out["leak" if name == "mr_only" else f"lesion_contrast/{name}"] = value
    return out


def _contrast(image: np.ndarray, lesion: np.ndarray, ring: np.ndarray) -> float:
    return float(image[lesion].mean() / image[ring].mean() - 1)


def _figures(
    scan: Scan, images: dict[str, np.ndarray], paths: dict[str, np.ndarray], work: WorkDir
) -> dict[str, Figure]:
    truth = {"Truth": scan.subject.activity, "T1 MR": scan.subject.t1}
    shown = truth | {NAMES[method]: image for method, image in images.items()}
    at = LESIONS["pet_only"].centre_mm
    note = "Simulated: MNI152 anatomy, FDG-like activity, mMR ring"
    views = montage(shown, scan.subject.affine, other_scales={"T1 MR": MR}, at_mm=at, note=note)
    longest = max(map(len, paths.values()))
    x = np.arange(1, longest + 1)
    series = {NAMES[m]: np.pad(v, (0, longest - len(v)), constant_values=np.nan) for m, v in paths.items()}
    progress = curves(x, series, "iteration (all subsets)", "NRMSE in the brain", title="Error against iteration")
    return {
        "images": Figure(
            save_figure(work, "images", views),
            "All lesions lie in white matter: at the left the one that only PET shows and, further to the front, "
            "the one that only MR shows; at the right the one that both show.",
        ),
        "progress": Figure(
            save_figure(work, "progress", progress),
            "OSEM is stopped early because its noise grows; a penalty lets the iteration run on.",
        ),
    }


def _table(images: dict[str, np.ndarray], metrics: dict[str, float]) -> Table:
    columns = {
        "NRMSE": "nrmse",
        "SSIM": "ssim",
        "WM noise": "white_matter_sd",
        "PET-only": "lesion_contrast/pet_only",
        "both": "lesion_contrast/both",
        "MR-only": "leak",
    }
    rows = [[NAMES[m], *(round(metrics[f"{name}/{m}"], 3) for name in columns.values())] for m in images]
    return Table(
        ["method", *columns],
        rows,
        "Lesions in PET only and in both: recovered share of the true contrast, ideally 1. "
        "MR-only: contrast that lesion gets in PET, ideally 0. WM noise: standard deviation / mean in white matter.",
    )


def _report(config: ConfigDict, scan: Scan, figures: dict[str, Figure], table: Table) -> Report:
    summary = [
        f"Simulated FDG scan of the MNI152 brain on the {config.scan.scanner} ring: {scan.trues / 1e6:.1f} million "
        f"true coincidences ({config.scan.trues_per_mm3:g} per mm³ of head), {config.scan.background:.0%} of the "
        "prompts background. "
        f"Counts come from a 1 mm grid through finer rays; images have voxels of {config.grid.voxel_mm:.3g} mm.",
        "One noise realisation of one simulated anatomy, with the MR in perfect register: a demonstration, not an "
        "evaluation.",
    ]
    sections = [
        Section("Images", "Neurological convention: the subject's left is at the left.", [figures["images"]]),
        Section("Figures of merit", "In the brain, against the truth.", table=table),
        Section("Convergence", "", [figures["progress"]]),
        Section(
            "A few slices with a prior",
            "The prior learnt from other head shapes, without lesions.",
            [figures["slices"]],
        ),
    ]
    return Report("Low-count FDG: with and without the MR", summary, sections)


if __name__ == "__main__":
    run_module(__file__)
