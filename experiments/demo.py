"""PET counts in, image out: a low-count FDG brain scan, reconstructed by OSEM and by MAP-EM guided by the subject's MR.

The MNI brain is given FDG-like activity and three lesions: one that only the PET shows, one that only the MR shows,
one that both show. Counts are simulated on a 1 mm grid through finer rays than any reconstruction uses, thinned to a
low level with half of the prompts background, and reconstructed at 2 mm on the mMR's own ring. The question that any
use of MR must answer is in the table: what does it gain in noise, what does it lose where PET and MR disagree? Then a
few slices, where a score prior of other heads takes the place of the MR: DDS, and likelihood-scheduled sampling with
the spread of its samples.
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
from medjax.diffusion import prior as priors
from medjax.diffusion.prior_file import load_prior
from medjax.metrics.image import contrast_recovery, nrmse, psnr, ssim
from medjax.penalty import Neighbours, Quadratic, bowsher, neighbours
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, acquire, ordered_subsets
from medjax.pet.grid import Grid
from medjax.pet.psf import blur, gaussian_psf
from medjax.pet.scanner import grid, lors, preset, with_rings
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
COLUMNS = {
    "NRMSE": "nrmse",
    "SSIM": "ssim",
    "WM noise": "white_matter_sd",
    "PET-only": "lesion_contrast/pet_only",
    "both": "lesion_contrast/both",
    "MR-only": "leak",
}
Images = dict[str, np.ndarray]


class Scan(NamedTuple):
    """What the reconstructions get, and the truth that judges them."""

    acquisition: Acquisition
    subject: Brain  # on the reconstruction grid
    grid: Grid
    trues: float

    def error(self, image: Any) -> float:
        """NRMSE in the brain."""
        return float(nrmse(image, self.subject.activity, self.subject.brain_mask))


def run(config: ConfigDict, work: WorkDir, prior: Any = None) -> Result:
    """Simulate, reconstruct, measure, report; every reconstruction is a stage that a later run finds done.

    A `prior`, a denoiser of slices of mean emission 1, takes the place of the one that comes with medjax.
    """
    scan = simulate(work, "scan", config.seed, config.scan, config.grid)
    plain = neighbours(scan.grid.shape, scan.grid.voxel_mm)
    similar = bowsher(plain, jnp.asarray(scan.subject.t1), config.mr_map_em.similar)
    images, paths, metrics = Images(), Images(), dict[str, float]()
    for method, pairs in (("osem", None), ("map_em", plain), ("mr_map_em", similar)):
        s = config[method]
        done = stage(work, method, partial(reconstruct, scan, NAMES[method], s.subsets, s.iterations, pairs, s.beta))
        images[method], paths[NAMES[method]] = done["image"], done["nrmse"]
        metrics |= {f"iterations_nrmse/{method}/{k}": float(v) for k, v in enumerate(done["nrmse"], 1)}
        record_timings(work, {f"{method}.seconds_a_pass": float(np.median(done["seconds"]))})
        if method == "osem":
            post_filter = gaussian_psf(scan.grid, s.post_filter_mm)
            images["osem_filtered"] = np.asarray(blur(post_filter, jnp.asarray(images["osem"])))
    for method, image in images.items():
        metrics |= {f"{name}/{method}": value for name, value in measures(image, scan.subject).items()}
    sampled, slices = sampled_slices(config, work, prior)
    table = Table(
        ["method", *COLUMNS],
        [[NAMES[m], *(round(metrics[f"{name}/{m}"], 3) for name in COLUMNS.values())] for m in images],
        "Lesions in PET only and in both: recovered fraction of the true contrast, ideally 1. "
        "MR-only: contrast that lesion gets in PET, ideally 0. WM noise: standard deviation / mean in white matter.",
    )
    return Result(metrics | sampled, report(config, work, scan, images, paths, slices, table), table)


def simulate(work: WorkDir, name: str, seed: int, s: ConfigDict, image: ConfigDict) -> Scan:
    """A scan whose counts come from a grid of 1 mm in plane that covers what the reconstruction's does."""
    ring, lesions = with_rings(preset(s.scanner), s.planes), tuple(LESIONS.values())
    coarse = grid(ring, image.size, image.voxel_mm)
    subject = brain(coarse.voxel_mm, s.tracer, coarse.shape, lesions, s.centre_mm)

    def counts() -> dict[str, Any]:
        side = int(np.ceil(min(image.size * image.voxel_mm, 260.0)))
        fine = Grid((side, side, s.planes), (1.0, 1.0, coarse.voxel_mm[2]))
        head = brain(fine.voxel_mm, s.tracer, fine.shape, lesions, s.centre_mm)
        trues = expected_trues(ring, head.activity, fine, head.mu, s.resolution_mm)
        total = s.trues_per_mm3 * emission_volume_mm3(head.activity, fine)
        drawn = draw(jax.random.key(seed), ring, trues, total, s.background)
        return {"counts": drawn.counts, "additive": drawn.additive, "scale": drawn.scale, "trues": total}

    drawn, system = stage(work, name, counts), build_system(lors(ring), coarse)
    multiplicative = factors(ring, system, float(drawn["scale"]), jnp.asarray(subject.mu))
    measured = (jnp.asarray(drawn["counts"]), multiplicative, jnp.asarray(drawn["additive"]))
    acquisition = acquire(system, *measured, gaussian_psf(coarse, s.resolution_mm))
    return Scan(acquisition, subject, coarse, float(drawn["trues"]))


def reconstruct(
    scan: Scan, name: str, subsets: int, iterations: int, pairs: Neighbours | None = None, beta: float = 0.0
) -> dict[str, Any]:
    """OSEM, or MAP-EM with a quadratic penalty on these pairs; its error and seconds after every iteration."""
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


def sampled_slices(config: ConfigDict, work: WorkDir, prior: Any) -> tuple[dict[str, float], Figure]:
    """A few slices of the same head at higher counts, with the prior: NRMSE of each image, and the images."""
    s = config.slices
    there = {"planes": s.planes, "trues_per_mm3": s.trues_per_mm3, "centre_mm": (0.0, -18.0, 28.0)}
    scan = simulate(work, "slices", config.seed, ConfigDict({**config.scan, **there}), s)
    denoiser = priors.denoiser(load_prior()) if prior is None else priors.volumes([prior] * 3, "transverse")
    first = sd = em.init(scan.acquisition).image
    images = Images()
    for name, pairs in (("osem", None), ("map_em", neighbours(scan.grid.shape, scan.grid.voxel_mm))):
        o = config[name]
        compute = partial(reconstruct, scan, NAMES[name], o.subsets, o.iterations, pairs, o.beta)
        images[name] = stage(work, f"slices_{name}", compute)["image"]
    dds, scheduled = (Sampling(None, s.steps, samples, config.seed) for samples in (1, s.samples))
    for name, updates, how in (("dds", s.dds_updates, dds), ("likelihood-schedule", s.schedule_iterations, scheduled)):
        compute = partial(sample, name, scan.acquisition, denoiser, first, updates, how)
        images[name], sd = stage(work, f"slices_{name}", compute, like=(first, first))
    metrics = {f"slices_nrmse/{name.replace('-', '_')}": scan.error(image) for name, image in images.items()}
    shown = {"Truth": scan.subject.activity} | {NAMES[name]: image for name, image in images.items()}
    scales, note = {"its spread": PET._replace(high=float(sd.max()) or 1.0)}, f"{s.trues_per_mm3:g} trues/mm³"
    drawn = montage(shown | {"its spread": sd}, scan.subject.affine, other_scales=scales, note=f"Simulated, {note}")
    said = f"Likelihood schedule: mean of {s.samples} samples, and their standard deviation."
    return metrics, Figure(save_figure(work, "slices", drawn), said)


def measures(image: np.ndarray, subject: Brain) -> dict[str, float]:
    """Agreement with the truth in the brain, and what happened to each lesion.

    `lesion_contrast` is recovered over true contrast, 1 is perfect; `leak` is the contrast that a lesion of the MR
    alone gets in PET, 0 is perfect; `white_matter_sd` is the standard deviation over the mean in pure white matter.
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
        out["leak" if name == "mr_only" else f"lesion_contrast/{name}"] = value
    return out


def report(
    config: ConfigDict, work: WorkDir, scan: Scan, images: Images, paths: Images, slices: Figure, table: Table
) -> Report:
    """The page: what was simulated, images, table, convergence, slices."""
    note = "Simulated: MNI152 anatomy, FDG-like activity, mMR ring"
    truth, scales = {"Truth": scan.subject.activity, "T1 MR": scan.subject.t1}, {"T1 MR": MR}
    shown, at = truth | {NAMES[method]: image for method, image in images.items()}, LESIONS["pet_only"].centre_mm
    views = montage(shown, scan.subject.affine, other_scales=scales, at_mm=at, note=note)
    x = np.arange(1, max(map(len, paths.values())) + 1)
    series = {name: np.pad(v, (0, len(x) - len(v)), constant_values=np.nan) for name, v in paths.items()}
    drawn = curves(x, series, "iteration (all subsets)", "NRMSE in the brain", title="Error against iteration")
    lesions = (
        "All lesions lie in white matter: at the left the one that only PET shows and, further to the front, the one "
        "that only MR shows; at the right the one that both show."
    )
    stopped = "OSEM is stopped early because its noise grows; a penalty lets the iteration run on."
    orientation = "Neurological convention: the subject's left is at the left."
    sections = [
        Section("Images", orientation, [Figure(save_figure(work, "images", views), lesions)]),
        Section("Figures of merit", "In the brain, against the truth.", table=table),
        Section("Convergence", "", [Figure(save_figure(work, "progress", drawn), stopped)]),
        Section("A few slices with a prior", "The prior learnt from other head shapes, without lesions.", [slices]),
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
