"""Samplers on a real list-mode scan of the mMR, fully in 3-D: how certain they are, beside OSEM and MAP-EM.

    medjax pet train-prior -o DIR --phantoms 40 --size 64 --voxel-mm 4.0625 --start noise_free --steps 500
    python scripts/real_listmode.py FILE.l --prior DIR/prior.npz --out OUT [--seeds 25] [--schedule-iterations 2]

Every prompt of a line of response that crosses the image is used. Rings, views and bins are summed in pairs (32 rings
8.125 mm apart, 126 views, span 5) and voxels are cubes of 4.0625 mm, so that two cores do with it. Randoms are of the
singles that explain the delayeds; attenuation is that of water within the head's outline, as OSEM without correction
shows it (calculated attenuation); neither normalisation nor scatter are corrected.

An interrupted run goes on with the seeds that OUT holds. Written: images.npz; images.png with OSEM, MAP-EM, the mean
of PET-DDS-δ over its seeds and the likelihood schedule with perpendicular slices; variation.png, the coefficient of
variation of PET-DDS-δ over its seeds.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from experiments.pet import conventional, samplers
from experiments.pet.samplers import SlicePrior
from experiments.pet.scans import ACQUISITION_FIELDS, RESOLUTION_MM, Reconstruction, Scan
from medjax.atomic import replacing
from medjax.diffusion.prior import slice_denoiser
from medjax.diffusion.prior_file import load_prior
from medjax.diffusion.reconstruct import SamplerSettings
from medjax.io.siemens_listmode import ListmodeHeader, read_event_chunks
from medjax.pet.acquisition import acquire
from medjax.pet.attenuation import attenuation_factors
from medjax.pet.grid import Grid
from medjax.pet.listmode_randoms import event_fan_sums
from medjax.pet.listmode_scan import read_checked_header
from medjax.pet.listmode_sinograms import rings_of_file
from medjax.pet.michelogram import Michelogram, Segment, michelogram
from medjax.pet.psf import gaussian_psf
from medjax.pet.randoms import randoms_from_singles, singles_from_fan_sums
from medjax.pet.scan import pair_numbers
from medjax.pet.scanner import Scanner, coverage, crystal_pairs, preset
from medjax.pet.system3d import build_system3d
from medjax.phantoms.brain import MU_SOFT
from medjax.report.figures import DEVIATION, montage, write_png

PAIR, SPAN, SIZE, SUBSETS, STEPS = 2, 5, 64, 9, 50
DELTA = 0.5  # of PET-DDS-δ
SCHEDULE_ITERATIONS = 2.0  # of MLEM, whose log-likelihood the schedule ends at: few counts are fitted in few
OSEM = {"iterations": 2.0, "filter_mm": 6.0}
MAP_EM = {"iterations": 4.0, "beta": 2.0, "filter_mm": 0.0}
NOTE = "Real data, mMR, calculated attenuation, no scatter or normalisation correction"


class Coarse(NamedTuple):
    """Sinograms whose rings, views and bins are summed in pairs."""

    counts: np.ndarray  # (view, bin, plane)
    pairs: np.ndarray  # of real crystals in each bin
    randoms: np.ndarray  # expected
    end_points: np.ndarray  # (view, bin, end, axis), mm
    planes: Michelogram
    spacing_mm: float  # of rings


def read_coarse(path: Path) -> Coarse:
    """The scan of a list-mode file, of the bins that cross the image."""
    header, scanner = read_checked_header(path, preset("mmr"), None)
    planes = michelogram(header.rings // PAIR, SPAN, header.max_ring_difference // PAIR)
    (sums,) = event_fan_sums(header, read_event_chunks(header.path)[1], scanner)
    singles = singles_from_fan_sums(sums, scanner, header.max_ring_difference, hierarchical=True)
    counts = _prompts(header, scanner, planes)
    pairs, randoms = np.zeros_like(counts), np.zeros_like(counts)
    for difference in range(header.max_ring_difference + 1):
        bands = dict.fromkeys((difference, -difference))
        fine = Michelogram(header.rings, tuple(Segment(one, one) for one in bands))
        first, second = (fine.plane_rings.astype(int) // PAIR).T
        plane = planes.plane_of_pair[first, second]
        for total, values in (
            (pairs, pair_numbers(scanner, fine)),
            (randoms, randoms_from_singles(singles, scanner, fine)),
        ):
            for number, own in enumerate(plane):
                if own >= 0:
                    total[..., own] += _paired(values[..., number : number + 1])[..., 0]
    angle = [np.pi / 2 + 2 * np.pi / scanner.crystals * _mean(one[:, 0]) for one in crystal_pairs(scanner)]
    radius = scanner.radius_mm + scanner.depth_mm
    ends = radius * np.stack([np.stack([np.cos(one), np.sin(one)], axis=-1) for one in angle], axis=-2)
    half = SIZE * scanner.ring_spacing_mm / 2
    distance = radius * np.abs(np.cos((angle[1] - angle[0]) / 2))
    kept = (distance < half).all(axis=0)
    return Coarse(
        counts[:, kept], pairs[:, kept], randoms[:, kept], ends[:, kept], planes, PAIR * scanner.ring_spacing_mm
    )


def _prompts(header: ListmodeHeader, scanner: Scanner, planes: Michelogram) -> np.ndarray:
    counts = np.zeros((scanner.views // PAIR, scanner.bins // PAIR, planes.planes), np.float32)
    plane = planes.plane_of_pair[tuple(rings_of_file(header) // PAIR)]
    real = coverage(scanner) > 0
    for _, events in read_event_chunks(header.path)[1]:
        sinogram, line = np.divmod(events.address[events.prompt], header.views * header.bins)
        view, bins = np.divmod(line, header.bins)
        held = real[view, bins] & (plane[sinogram] >= 0)
        np.add.at(counts, (view[held] // PAIR, bins[held] // PAIR, plane[sinogram[held]]), np.float32(1))
    return counts


def _paired(values: np.ndarray) -> np.ndarray:
    views, bins, planes = values.shape
    return values.reshape(views // PAIR, PAIR, bins // PAIR, PAIR, planes).sum(axis=(1, 3))


def _mean(crystals: np.ndarray) -> np.ndarray:
    views, bins = crystals.shape
    return crystals.reshape(views // PAIR, PAIR, bins // PAIR, PAIR).mean(axis=(1, 3))


def prepare(coarse: Coarse) -> Scan:
    """The scan with calculated attenuation: of water within the outline of an image without any."""
    voxel = coarse.spacing_mm / 2
    grid = Grid((SIZE, SIZE, 2 * coarse.planes.rings - 1), (voxel, voxel, voxel))
    system = build_system3d(coarse.end_points, coarse.planes, coarse.spacing_mm, grid)
    counts, pairs, randoms = (jnp.asarray(one, jnp.float32) for one in (coarse.counts, coarse.pairs, coarse.randoms))
    resolution = gaussian_psf(grid, RESOLUTION_MM)
    plain = Scan(acquire(system, counts, pairs, randoms, resolution), grid, None)
    image = ndimage.gaussian_filter(_conventional(plain)["OSEM"], 10 / 2.355 / voxel)
    inside = ndimage.binary_dilation(image > 0.1 * np.percentile(image, 99.9), iterations=2)
    factors = attenuation_factors(system, jnp.asarray(MU_SOFT * ndimage.binary_fill_holes(inside), jnp.float32))
    return plain._replace(acquisition=acquire(system, counts, pairs * factors, randoms, resolution))


def compile_image(run: Callable[..., Reconstruction], scan: Scan) -> Callable[..., np.ndarray]:
    """Image of `run(key, scan, **hyperparameters)`, compiled once; the system stays a constant, for its subsets."""

    @jax.jit
    def image(data: dict[str, Any], key: Any, own: dict[str, Any]) -> Any:
        return run(key, scan._replace(acquisition=replace(scan.acquisition, **data)), **own).image

    data = {name: getattr(scan.acquisition, name) for name in ACQUISITION_FIELDS}
    return lambda seed, **own: np.asarray(image(data, jax.random.key(seed), jax.tree.map(jnp.asarray, own)))


def _conventional(scan: Scan, *, both: bool = False) -> dict[str, np.ndarray]:
    runs: dict[str, tuple[Any, dict[str, float]]] = {"OSEM": (partial(conventional.osem, subsets=SUBSETS), OSEM)}
    if both:
        runs["MAP-EM"] = conventional.map_em, MAP_EM
    return {name: compile_image(run, scan)(0, **own) for name, (run, own) in runs.items()}


def main() -> None:
    """Reconstruct, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--prior", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=25)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--schedule-iterations", type=float, default=SCHEDULE_ITERATIONS)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()

    def tell(what: str) -> None:
        print(f"{time.perf_counter() - start:6.0f} s  {what}", flush=True)

    coarse = read_coarse(arguments.file)
    tell(f"{coarse.counts.sum():,.0f} prompts, {coarse.randoms.sum():,.0f} expected randoms in {coarse.counts.shape}")
    scan = prepare(coarse)
    images = _conventional(scan, both=True)
    tell("OSEM, MAP-EM")
    prior = load_prior(arguments.prior)
    denoisers = (slice_denoiser(prior, 0), slice_denoiser(prior, 1), slice_denoiser(prior, 2))
    across = SlicePrior(denoisers, prior.settings.multiple, SamplerSettings(arguments.steps), subsets=SUBSETS)
    perpendicular = samplers.methods(across._replace(mode="alternated"))["likelihood_schedule"]
    images["likelihood schedule"] = compile_image(perpendicular, scan)(0, iterations=arguments.schedule_iterations)
    tell("likelihood schedule, perpendicular slices")
    sampled = compile_image(samplers.methods(across)["dds_delta"], scan)
    draws = known_draws(arguments.out / "images.npz", arguments.steps)
    for seed in range(len(draws), arguments.seeds):
        draws.append(sampled(seed, delta=DELTA))
        tell(f"PET-DDS-δ, seed {seed + 1} of {arguments.seeds}")
        write(arguments.out, images, np.stack(draws), scan.grid, arguments.steps)
    write(arguments.out, images, np.stack(draws), scan.grid, arguments.steps)
    _, variation, seen = variation_of(np.stack(draws))
    low, median, high = np.percentile(variation[seen], (10, 50, 90))
    tell(f"coefficient of variation: median {median:.2f}, 10th and 90th percentile {low:.2f} and {high:.2f}")


def known_draws(file: Path, steps: int) -> list[np.ndarray]:
    """Samples of the first seeds that a run of as many steps has left."""
    if not file.exists():
        return []
    with np.load(file) as found:
        if int(found["steps"]) != steps or float(found["delta"]) != DELTA:
            raise SystemExit(f"{file}: of {found['steps']} steps and δ {found['delta']}; use another --out")
        return list(found["draws"])


def write(out: Path, images: dict[str, np.ndarray], draws: np.ndarray, grid: Grid, steps: int) -> None:
    """Images and figures of the seeds so far."""
    mean, variation, seen = variation_of(draws)
    shown = images | {"PET-DDS-δ, one seed": draws[0], f"mean of {len(draws)} seeds": mean}
    with replacing(out / "images.npz") as file:
        np.savez(
            file, draws=draws, affine=grid.affine, names=[*images], images=[*images.values()], steps=steps, delta=DELTA
        )
    write_png(out / "images.png", montage(shown, grid.affine, columns=True, note=NOTE))
    if len(draws) > 1:
        scale = DEVIATION._replace(unit="coefficient of variation", high=float(np.percentile(variation[seen], 99)))
        pictures: dict[str, Any] = {f"mean of {len(draws)} seeds": mean, "coefficient of variation": variation}
        drawn = montage(
            pictures, grid.affine, other_scales={"coefficient of variation": scale},
            marked={"coefficient of variation": ~seen}, mark="grey: below a tenth of the maximum, or outside",
            note=NOTE,
        )  # fmt: skip
        write_png(out / "variation.png", drawn)


def variation_of(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of the draws, their coefficient of variation, and where it is known: in the head, where there is uptake."""
    mean, deviation = draws.mean(axis=0), draws.std(axis=0, ddof=min(1, len(draws) - 1))
    parts, _ = ndimage.label(mean > 0.1 * np.percentile(mean, 99.9))
    seen = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    return mean, np.divide(deviation, mean, out=np.zeros_like(mean), where=seen), seen


if __name__ == "__main__":
    main()
