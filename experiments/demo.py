"""Demonstration: a low-count FDG brain scan, reconstructed by OSEM and by MAP-EM guided by the subject's MR.

The MNI brain is given FDG-like activity and three lesions: one that only the PET shows, one that only the MR shows,
one that both show. Counts are simulated on a 1 mm grid through finer rays than any reconstruction uses, thinned to a
low level with half of the prompts background, and reconstructed at 2 mm on the mMR's own ring. The question that any
use of MR must answer is in the table: how much noise does it remove, what is lost where PET and MR disagree? Then a
few slices, where a score prior of other heads takes the place of the MR: one sample of DDS with a solved data step, and
the mean of samples of the posterior by split Gibbs, with their standard deviation.
"""

import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from scipy import ndimage

from medjax import iterate
from medjax.bowsher import bowsher
from medjax.diffusion import prior as priors
from medjax.diffusion.prior_file import load_prior
from medjax.metrics.image import contrast_recovery, nrmse, psnr, ssim
from medjax.penalty import Neighbors, Quadratic, neighbors
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, acquire, ordered_subsets
from medjax.pet.grid import Grid
from medjax.pet.psf import blur, gaussian_psf
from medjax.pet.scanner import grid, lors, preset, with_rings
from medjax.pet.simulate import (
    emission_volume_mm3,
    expected_trues,
    middle_planes,
    multiplicative_factors,
    sample_counts,
    with_margin,
)
from medjax.pet.system import build_system
from medjax.phantoms.brain import Brain, Lesion, brain
from medjax.report.figures import DEVIATION, MR, curves, montage
from medjax.report.html import Figure, Report, Section, Table
from medjax.running.experiment import Result, run_module
from medjax.running.progress import track
from medjax.running.workdir import WorkDir, record_timings, save_figure, stage
from medjax.tools.pet_sample import SAMPLERS, SamplingOptions, sample

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
    "dds-cg": "DDS, solved step",
    "split-gibbs": "split Gibbs, mean",
}
COLUMNS = {
    "NRMSE": "nrmse",
    "SSIM": "ssim",
    "WM noise": "white_matter_sd",
    "PET-only": "lesion_contrast/pet_only",
    "both": "lesion_contrast/both",
    "MR-only": "false_contrast/mr_only",
}
Images = dict[str, np.ndarray]


class Scan(NamedTuple):
    """A scan to reconstruct, and the truth of its object."""

    acquisition: Acquisition
    subject: Brain  # on the reconstruction grid
    grid: Grid
    trues: float  # expected, in all

    def error(self, image: Any) -> float:
        """NRMSE of an image in the brain."""
        return float(nrmse(image, self.subject.activity, self.subject.brain_mask))


def run(config: ConfigDict, work: WorkDir, prior: Any = None) -> Result:
    """Simulate, reconstruct, measure and report; every reconstruction is a stage, and a later run resumes.

    A `prior`, a denoiser of slices of mean emission 1, takes the place of the one that comes with medjax.
    """
    scan = simulate(work, "scan", config.seed, config.scan, config.grid)
    plain = neighbors(scan.grid.shape, scan.grid.voxel_mm)
    similar = bowsher(plain, jnp.asarray(scan.subject.t1), config.mr_map_em.similar)
    images, paths, metrics = Images(), Images(), dict[str, float]()
    for method, pairs in (("osem", None), ("map_em", plain), ("mr_map_em", similar)):
        s = config[method]
        done = stage(work, method, partial(reconstruct, scan, NAMES[method], s.subsets, s.iterations, pairs, s.beta))
        images[method], paths[NAMES[method]] = done["image"], done["nrmse"]
        metrics |= {f"iterations_nrmse/{method}/{k}": float(v) for k, v in enumerate(done["nrmse"], 1)}
        record_timings(work, {f"{method}.seconds_per_iteration": float(np.median(done["seconds"]))})
        if method == "osem":
            post_filter = gaussian_psf(scan.grid, s.post_filter_mm)
            images["osem_filtered"] = np.asarray(blur(post_filter, jnp.asarray(images["osem"])))
    for method, image in images.items():
        metrics |= {f"{name}/{method}": value for name, value in measures(image, scan.subject).items()}
    sampled, slices = reconstruct_slices(config, work, prior)
    table = Table(
        ["method", *COLUMNS],
        [[NAMES[m], *(round(metrics[f"{name}/{m}"], 3) for name in COLUMNS.values())] for m in images],
        "Lesions in PET only and in both: contrast recovery, ideally 1. "
        "MR-only: false contrast of that lesion in PET, ideally 0. WM noise: SD / mean in white matter.",
    )
    return Result(metrics | sampled, report(config, work, scan, images, paths, slices, table), table)


def simulate(work: WorkDir, name: str, seed: int, scan: ConfigDict, image: ConfigDict) -> Scan:
    """Simulated scan: counts from a grid of 1 mm in plane; `scan` and `image` are the config's, `name` the stage's."""
    ring, lesions = with_rings(preset(scan.scanner), scan.planes), tuple(LESIONS.values())
    coarse = grid(ring, image.size, image.voxel_mm)
    subject = brain(coarse.voxel_mm, scan.tracer, coarse.shape, lesions, scan.center_mm)

    def counts() -> dict[str, Any]:
        side = int(np.ceil(min(image.size * image.voxel_mm, 260.0)))
        fine = with_margin(Grid((side, side, scan.planes), (1.0, 1.0, coarse.voxel_mm[2])), scan.resolution_mm)
        head = brain(fine.voxel_mm, scan.tracer, fine.shape, lesions, scan.center_mm)
        trues = expected_trues(ring, head.activity, fine, head.mu, scan.resolution_mm)
        total = scan.trues_per_mm3 * emission_volume_mm3(head.activity[..., middle_planes(fine, scan.planes)], fine)
        drawn = sample_counts(jax.random.key(seed), ring, trues, total, scan.background)
        return {"counts": drawn.counts, "additive": drawn.additive, "scale": drawn.scale, "trues": total}

    drawn, system = stage(work, name, counts), build_system(lors(ring), coarse)
    multiplicative = multiplicative_factors(ring, system, float(drawn["scale"]), jnp.asarray(subject.mu))
    measured = (jnp.asarray(drawn["counts"]), multiplicative, jnp.asarray(drawn["additive"]))
    acquisition = acquire(system, *measured, gaussian_psf(coarse, scan.resolution_mm))
    return Scan(acquisition, subject, coarse, float(drawn["trues"]))


def reconstruct(
    scan: Scan, name: str, subsets: int, iterations: int, pairs: Neighbors | None = None, beta: float = 0.0
) -> dict[str, Any]:
    """OSEM, or MAP-EM with a quadratic penalty on these pairs; error and seconds of each iteration."""
    stacked = ordered_subsets(scan.acquisition, subsets)
    algorithm = em.osem(stacked)
    if pairs is not None:
        algorithm = em.map_em(stacked, Quadratic(pairs), jax.jit(em.penalty_weight)(stacked, float(beta)))
    state, errors, clock = em.init(stacked), list[float](), [time.perf_counter()]
    progress = partial(track, description=name)
    steps = iterate.loop(algorithm, state, em.updates(stacked, iterations), every=subsets, progress=progress)
    for state, _ in steps:
        errors.append(scan.error(state.image))
        clock.append(time.perf_counter())
    return {"image": state.image, "nrmse": np.array(errors), "seconds": np.diff(clock)}


def reconstruct_slices(config: ConfigDict, work: WorkDir, prior: Any) -> tuple[dict[str, float], Figure]:
    """A few slices of the same head at higher counts, with the score prior: NRMSE of each image, and a figure."""
    s = config.slices
    there = {"planes": s.planes, "trues_per_mm3": s.trues_per_mm3, "center_mm": (0.0, -18.0, 28.0)}
    scan = simulate(work, "slices", config.seed, ConfigDict({**config.scan, **there}), s)
    denoiser = priors.denoiser(load_prior()) if prior is None else priors.volume_denoiser([prior] * 3, "transverse")
    first = sd = em.init(scan.acquisition).image
    images = Images()
    for name, pairs in (("osem", None), ("map_em", neighbors(scan.grid.shape, scan.grid.voxel_mm))):
        o = config[name]
        compute = partial(reconstruct, scan, NAMES[name], o.subsets, o.iterations, pairs, o.beta)
        images[name] = stage(work, f"slices_{name}", compute)["image"]
    for name, steps, samples in (("dds-cg", s.dds_steps, 1), ("split-gibbs", s.gibbs_steps, s.samples)):
        options, iterations = SamplingOptions(None, steps, samples, config.seed), SAMPLERS[name].iterations
        compute = partial(sample, name, scan.acquisition, denoiser, first, iterations, options)
        images[name], sd = stage(work, f"slices_{name}", compute, like=(first, first))
    metrics = {f"slices_nrmse/{name.replace('-', '_')}": scan.error(image) for name, image in images.items()}
    shown = {"Truth": scan.subject.activity} | {NAMES[name]: image for name, image in images.items()}
    scales, note = (
        {"standard deviation": DEVIATION._replace(high=float(sd.max()) or 1.0)},
        f"{s.trues_per_mm3:g} trues/mm³",
    )
    drawn = montage(
        shown | {"standard deviation": sd}, scan.subject.affine, other_scales=scales, note=f"Simulated, {note}"
    )
    caption = f"Split Gibbs: mean of {s.samples} samples of the posterior, and their standard deviation."
    return metrics, Figure(save_figure(work, "slices", drawn), caption)


def measures(image: np.ndarray, subject: Brain) -> dict[str, float]:
    """Error, similarity, noise and lesion contrasts of an image against the truth.

    `lesion_contrast` is recovered over true contrast, 1 is perfect; `false_contrast` is that of a lesion of the MR
    alone in the PET image, 0 is perfect; `white_matter_sd` is the SD / mean in pure white matter.
    """
    truth, mask = subject.activity, subject.brain_mask
    white = (subject.white > 0.95) & (subject.lesions == 0)
    pure = ndimage.binary_erosion(white, iterations=2) if min(white.shape) > 16 else white
    out = {one.__name__: float(one(image, truth, mask)) for one in (nrmse, ssim, psnr)}
    out["white_matter_sd"] = float(image[pure].std() / image[pure].mean()) if pure.any() else float("nan")
    for number, name in enumerate(LESIONS, 1):
        lesion = subject.lesion_ids == number
        near, far = (ndimage.binary_dilation(lesion, iterations=n) for n in (2, 5))
        ring = far & ~near & (subject.white > 0.8)
        if not (lesion.any() and ring.any()):
            value = float("nan")
        elif name == "mr_only":
            value = float(image[lesion].mean() / image[ring].mean() - truth[lesion].mean() / truth[ring].mean())
        else:
            value = float(contrast_recovery(image, truth, lesion, ring))
        out["false_contrast/mr_only" if name == "mr_only" else f"lesion_contrast/{name}"] = value
    return out


def report(
    config: ConfigDict, work: WorkDir, scan: Scan, images: Images, paths: Images, slices: Figure, table: Table
) -> Report:
    """Report: data, images, figures of merit, convergence and slices."""
    note = "Simulated: MNI152 anatomy, FDG-like activity, mMR ring"
    truth, scales = {"Truth": scan.subject.activity, "T1 MR": scan.subject.t1}, {"T1 MR": MR}
    shown, at = truth | {NAMES[method]: image for method, image in images.items()}, LESIONS["pet_only"].center_mm
    views = montage(shown, scan.subject.affine, other_scales=scales, at_mm=at, note=note)
    x = np.arange(1, max(map(len, paths.values())) + 1)
    series = {name: np.pad(v, (0, len(x) - len(v)), constant_values=np.nan) for name, v in paths.items()}
    drawn = curves(x, series, "iteration (all subsets)", "NRMSE in the brain", title="Error against iteration")
    lesions = (
        "All lesions lie in white matter: at the left the one that only PET shows and, further to the front, the one "
        "that only MR shows; at the right the one that both show."
    )
    stopped = "OSEM is stopped early because its noise grows; with a penalty the iteration converges."
    orientation = "Neurological convention: the subject's left is at the left."
    sections = [
        Section("Images", orientation, [Figure(save_figure(work, "images", views), lesions)]),
        Section("Figures of merit", "In the brain, against the truth.", table=table),
        Section("Convergence", "", [Figure(save_figure(work, "progress", drawn), stopped)]),
        Section("A few slices with a prior", "The prior learnt from other heads, half of them with lesions.", [slices]),
    ]
    summary = [
        f"Simulated FDG scan of the MNI152 brain on the {config.scan.scanner} ring: {scan.trues / 1e6:.1f} million "
        f"true coincidences ({config.scan.trues_per_mm3:g} per mm³ of head), {config.scan.background:.0%} of the "
        "prompts background. "
        f"Counts come from a 1 mm grid through finer rays; images have voxels of {config.grid.voxel_mm:.3g} mm.",
        "One noise realisation of one simulated anatomy, with the MR in perfect register: a demonstration, not an "
        "evaluation.",
    ]
    return Report("Low-count FDG: with and without the MR", summary, sections)


if __name__ == "__main__":
    run_module(__file__)
