"""What `medjax pet simulate` does: an object on a fine grid, counts from it, and a counts file with the truth."""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from medjax.errors import ConfigError, DataError
from medjax.io.counts import Counts, write_counts
from medjax.io.nifti import Volume, reach_mm, resample, write_nifti
from medjax.pet import simulate as simulation
from medjax.pet.acquisition import check_counts, check_mu
from medjax.pet.grid import Grid
from medjax.pet.io import image_affine
from medjax.pet.scanner import Scanner, lors, preset, with_rings
from medjax.pet.system import build_system
from medjax.phantoms import brain
from medjax.running.config import did_you_mean
from medjax.tools.checks import as_paths, at_least, check_output, checked_volume, counted
from medjax.tools.pet_defaults import BACKGROUND, PSF_MM, SCANNER, SIZE

FINE_MM = 1.0  # voxels of the simulation along x and y
MARGIN_MM = 10.0  # around the object, for the blur
TRUES_PER_MM3 = 10.0


@dataclass(frozen=True)
class Object:
    """What is scanned, on the grid it came on."""

    name: str
    activity: Volume
    mu: Volume | None = None
    t1: Volume | None = None


class Counting(NamedTuple):
    """How many counts, how many of them background, at which resolution and with what noise."""

    trues_per_mm3: float | None = None  # expected, of what emits; 10 unless given
    trues: float | None = None  # in all, instead
    background: float = BACKGROUND  # fraction of the prompts
    psf_mm: float = PSF_MM
    seed: int = 0


class Simulation(NamedTuple):
    """A simulated scan."""

    counts: Counts  # with the truth, on the grid of a reconstruction; its metadata say how it was made
    files: tuple[Path, ...]  # what was written


def simulate(
    output: Path | str | None = None,
    *,
    phantom: str | None = None,
    activity: Path | str | Volume | None = None,
    mu: Path | str | Volume | None = None,
    lesions: int = 0,
    lesion_kind: str = "both",
    scanner: str = SCANNER,
    counting: Counting | None = None,
    planes: int | None = None,
    slice_mm: float | None = None,
    centre_mm: tuple[float, float, float] | None = None,
    size: int = SIZE,
    voxel_mm: float | None = None,
    truth_dir: Path | str | None = None,
) -> Simulation:
    """Simulate a scan of a brain phantom (by its tracer) or of an activity image, with noise and a flat background.

    Counts and truth go to the counts file `output`, truth, μ-map and T1 to `truth_dir`, where these are given. The
    options are those of `medjax pet simulate`, whose help says more.

    Raises:
        ConfigError, DataError: something given cannot be used; nothing has been written then.
        OSError: a file cannot be written.
    """
    output, activity, mu, truth_dir = as_paths(output, activity, mu, truth_dir)
    counting = counting or Counting()
    _check_counting(counting)
    _check_object(phantom, activity, mu, lesions, lesion_kind)
    ring, tracer = preset(scanner), phantom or "fdg"
    _check_grid(ring, planes, slice_mm, size, voxel_mm)
    if output is not None:
        check_output(output, (".npz",))
    if truth_dir is not None and truth_dir.exists() and not truth_dir.is_dir():
        raise DataError(f"{truth_dir}: a file; expected a folder for the truth")
    if activity is None:
        thing = _phantom(tracer)
    else:
        mu_map = None if mu is None else checked_volume(mu, "μ-map", check_mu)[0]
        image, name = checked_volume(activity, "activity", _check_activity)
        thing = Object(Path(name).name, image, mu_map)
    x, y, z = thing.activity.centre_mm if centre_mm is None else centre_mm
    centre = (x, y, z if slice_mm is None else slice_mm)
    fine, grid = _grids(ring, thing, centre, planes, size, voxel_mm)
    if lesions:
        anatomy = brain.brain(fine.voxel_mm, tracer, fine.shape, centre_mm=centre)  # lesions lie where it is scanned
        kind: brain.Kind = lesion_kind  # pyrefly: ignore[bad-assignment] (checked against KINDS)
        thing = _phantom(tracer, brain.random_lesions(counting.seed, anatomy, lesions, kind))
    counts = _scan(with_rings(ring, grid.shape[2]), thing, counting, fine, grid, centre)
    if output is not None:
        write_counts(output, counts)
    written = [] if output is None else [output]
    return Simulation(counts, (*written, *_write_truth(truth_dir, thing, counts)))


def _check_counting(counting: Counting) -> None:
    per_mm3, trues, background, psf_mm, seed = counting
    if per_mm3 is not None and trues is not None:
        raise ConfigError(f"--trues-per-mm3 {per_mm3:g} and --trues {trues:g}; expected one of them")
    for name, level in (("--trues-per-mm3", per_mm3), ("--trues", trues)):
        if level is not None and not (math.isfinite(level) and level > 0):
            raise ConfigError(f"{name} {level:g}; expected more than 0")
    if not 0 <= background < 1:
        raise ConfigError(f"--background {background:g}; expected a fraction of the prompts, 0 or more and below 1")
    at_least("--psf-mm", psf_mm, 0)
    at_least("--seed", seed, 0)


def _check_object(phantom: str | None, activity: Any, mu: Any, lesions: int, kind: str) -> None:
    if activity is not None and (phantom or lesions):
        raise ConfigError(f"--activity and {'--phantom' if phantom else '--lesions'}; lesions go into a phantom")
    if activity is None and mu is not None:
        raise ConfigError("--mu goes with --activity; a phantom has its own")
    for name, value, known in (("--phantom", phantom or "fdg", brain.ACTIVITY), ("--lesion-kind", kind, brain.KINDS)):
        if value not in known:
            raise ConfigError(f"{name} {value}; expected one of {', '.join(known)}{did_you_mean(value, known)}")
    at_least("--lesions", lesions, 0)


def _scan(
    scanner: Scanner, thing: Object, counting: Counting, fine: Grid, grid: Grid, centre: tuple[float, float, float]
) -> Counts:
    """The counts, and all that a reconstruction needs."""
    activity, mu = (_on(volume, fine, centre) for volume in (thing.activity, thing.mu))
    if activity is None or not activity.any():
        half = fine.shape[2] * fine.voxel_mm[2] / 2
        raise DataError(f"{thing.name}: no activity in z = {centre[2] - half:.0f} to {centre[2] + half:.0f} mm")
    per_mm3, total, background, psf_mm, seed = counting
    expected = simulation.expected_trues(scanner, activity, fine, mu, psf_mm)
    volume = simulation.emission_volume_mm3(activity, fine)
    total = (per_mm3 or TRUES_PER_MM3) * volume if total is None else total
    drawn = simulation.draw(jax.random.key(seed), scanner, expected, total, background)
    coarse_mu = _on(thing.mu, grid, centre)
    system = build_system(lors(scanner), grid)
    factors = simulation.factors(scanner, system, drawn.scale, None if coarse_mu is None else jnp.asarray(coarse_mu))
    metadata = {
        "object": thing.name, "centre_mm": list(centre), "trues": total, "trues_per_mm3": total / volume,
        "background": background, "psf_mm": psf_mm, "seed": seed, "attenuation": thing.mu is not None,
    }  # fmt: skip
    arrays = (np.asarray(drawn.counts), np.asarray(drawn.additive), np.broadcast_to(factors, drawn.counts.shape))
    truth = _on(thing.activity, grid, centre)
    return Counts(*arrays, scanner.name, metadata, truth, image_affine(grid, centre))


def _check_activity(array: np.ndarray) -> None:
    check_counts("activity", jnp.asarray(array))
    if not array.any():
        raise DataError("no voxel is above 0; expected an activity image")


def _phantom(tracer: str, lesions: tuple[brain.Lesion, ...] = ()) -> Object:
    head = brain.brain(1.0, tracer, lesions=lesions)
    activity, mu, t1 = (Volume(array, head.affine) for array in (head.activity, head.mu, head.t1))
    number = f" with {counted(len(lesions), 'lesion')}" if lesions else ""
    return Object(f"{tracer} phantom{number}", activity, mu, t1)


def _grids(
    scanner: Scanner,
    thing: Object,
    centre: tuple[float, float, float],
    planes: int | None,
    size: int,
    voxel_mm: float | None,
) -> tuple[Grid, Grid]:
    """The grid to simulate on, which holds the object, and the one to reconstruct on."""
    plane_mm = scanner.ring_spacing_mm / 2
    seen = [thing.activity] if thing.mu is None else [thing.activity, thing.mu]
    reach = np.max([reach_mm(volume, centre) for volume in seen], axis=0).tolist()
    if planes is None:
        planes = min(2 * math.ceil(max(reach[2] / plane_mm - 0.5, 0)) + 1, scanner.planes)
    most = math.floor(min((scanner.radius_mm + scanner.depth_mm) / math.sqrt(2), scanner.field_of_view_mm)) - 1
    half = max(reach[:2])
    if half > most:
        raise DataError(
            f"{thing.name}: reaches {half:.0f} mm from the scanner's axis at x, y = {centre[0]:g}, {centre[1]:g} mm; "
            f"{scanner.name} takes {most} mm: cut the image, or give --centre"
        )
    voxel = voxel_mm or scanner.voxel_mm
    if half > size * voxel / 2:
        warnings.warn(
            f"{thing.name}: reaches {half:.0f} mm from the axis, the reconstruction's grid {size * voxel / 2:.0f} mm; "
            "give a larger --size",
            stacklevel=2,
        )
    side = 8 * math.ceil(min(half + MARGIN_MM, most) / FINE_MM / 4)
    fine = Grid((min(side, 2 * most), min(side, 2 * most), planes), (FINE_MM, FINE_MM, plane_mm))
    return fine, Grid((size, size, planes), (voxel, voxel, plane_mm))


def _on(volume: Volume | None, grid: Grid, centre: tuple[float, float, float]) -> np.ndarray | None:
    return None if volume is None else resample(volume, grid.shape, image_affine(grid, centre)).array


def _write_truth(folder: Path | None, thing: Object, counts: Counts) -> list[Path]:
    """The files written: what is known of the object, on the grid of the counts file's truth."""
    if folder is None or counts.truth is None or counts.affine is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    volumes = {"truth": thing.activity, "mu": thing.mu, "t1": thing.t1}
    written = {folder / f"{name}.nii.gz": volume for name, volume in volumes.items() if volume is not None}
    for path, volume in written.items():
        write_nifti(path, resample(volume, counts.truth.shape, counts.affine).array, counts.affine)
    return [*written]


def _check_grid(
    scanner: Scanner, planes: int | None, slice_mm: float | None, size: int, voxel_mm: float | None
) -> None:
    if planes is not None and (planes % 2 == 0 or not 1 <= planes <= scanner.planes):
        raise ConfigError(
            f"--planes {planes}; expected an odd number from 1 to {scanner.planes}, those of {scanner.name}"
        )
    if slice_mm is not None and not math.isfinite(slice_mm):
        raise ConfigError(f"--slice-mm {slice_mm}; expected mm")
    if voxel_mm is not None and not (math.isfinite(voxel_mm) and voxel_mm > 0):
        raise ConfigError(f"--voxel-mm {voxel_mm:g}; expected more than 0")
    at_least("--size", size, 2)
