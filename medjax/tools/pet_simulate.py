"""PET simulation (`medjax pet simulate`): an object on a fine grid, its counts, and files of them with the truth."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from medjax import defaults
from medjax.errors import ConfigError, DataError, pluralize
from medjax.io.counts import Counts
from medjax.io.nifti import Volume
from medjax.pet import simulate as simulation
from medjax.pet.acquisition import check_counts
from medjax.pet.attenuation import check_mu
from medjax.pet.grid import Grid
from medjax.pet.michelogram import Michelogram, michelogram
from medjax.pet.petsird_simulation import check_petsird
from medjax.pet.plane_metadata import plane_metadata
from medjax.pet.scan import image_affine, system_model
from medjax.pet.scanner import Scanner, preset, with_rings
from medjax.pet.tof import Tof
from medjax.phantoms import brain
from medjax.running.config import did_you_mean
from medjax.tools.checks import (
    MAX_FWHM_MM,
    as_paths,
    check_no_overwrite,
    check_position,
    check_positive,
    check_range,
    check_seed,
    check_volume,
)
from medjax.tools.pet_checks import check_coverage, check_grid, check_grid_memory
from medjax.tools.pet_counts_output import LIST_MODE, check_counts_output, write_simulation
from medjax.tools.pet_planes import PlaneSettings, check_planes, simulation_grids
from medjax.tools.pet_resampling import resample_beyond_ends, resample_to_grid

SIMULATION_VOXEL_MM = 1.0  # along x and y
OBJECT_MARGIN_MM = 10.0  # around the object, for the blur
DEFAULT_TRUES_PER_MM3 = 10.0
MAX_TRUES, MAX_LESIONS = 1e38, 1000
TRUTHS = ("truth", "mu", "t1")  # files of --truth-dir


@dataclass(frozen=True)
class ScannedObject:
    """Scanned object: activity, μ-map and T1 image on their own grids."""

    name: str
    activity: Volume
    mu: Volume | None = None
    t1: Volume | None = None
    tracer: str = ""  # of a phantom


class CountSettings(NamedTuple):
    """Count settings of a simulation: count level, background, resolution and random seed."""

    trues_per_mm3: float | None = None  # expected true coincidences per mm³ of emission volume; default 10
    trues: float | None = None  # total expected true coincidences, instead
    background: float = defaults.PET_BACKGROUND  # fraction of the prompts that is randoms + scatter
    psf_mm: float = defaults.PET_PSF_MM  # resolution of the scanner, FWHM
    seed: int = 0  # random seed of lesions and noise


class Simulation(NamedTuple):
    """Simulated counts with their truth, and the files written."""

    counts: Counts  # counts with the truth on the reconstruction's grid; its metadata hold the settings
    files: tuple[Path, ...]  # written


def simulate(
    output: Path | str | None = None,
    *,
    phantom: str | None = None,
    activity: Path | str | Volume | None = None,
    mu: Path | str | Volume | None = None,
    lesions: int = 0,
    lesion_kind: str = "both",
    scanner: str = defaults.PET_SCANNER,
    count_settings: CountSettings | None = None,
    plane_settings: PlaneSettings | None = None,
    slice_mm: float | None = None,
    center_mm: tuple[float, float, float] | None = None,
    size: int = defaults.PET_SIZE,
    voxel_mm: float | None = None,
    truth_dir: Path | str | None = None,
) -> Simulation:
    """Simulate the counts of a brain phantom or of an activity image, with Poisson noise and uniform background.

    Args:
        output: file to write: counts with the truth (.npz), Interfile (.hs, with the factors beside it) or PETSIRD list
            mode (.petsird, .ndjson), which needs planes of span 1; None: none.
        phantom: tracer of the brain phantom, fdg or dpa714.
        activity: emission image instead of a phantom, any unit a volume.
        mu: attenuation map of `activity`, in mm⁻¹.
        lesions: number of lesions in the phantom.
        lesion_kind: pet, mr or both: the images in which lesions are visible.
        scanner: name of a preset.
        count_settings: count level, background, resolution and seed.
        plane_settings: direct or oblique planes, and time-of-flight bins.
        slice_mm: z of the middle plane.
        center_mm: position of the scanner's centre, RAS+.
        size: voxels of the truth along x and y.
        voxel_mm: voxel size of the truth along x and y.
        truth_dir: folder to write truth, μ-map and T1 to; None: none.

    Raises:
        ConfigError, DataError: an argument cannot be used; nothing has been written then.
        OSError: a file cannot be written.
    """
    output, activity, mu, truth_dir = as_paths(output, activity, mu, truth_dir)
    count_settings = count_settings or CountSettings()
    _check_counting(count_settings)
    _check_object(phantom, activity, mu, lesions, lesion_kind)
    ring, tracer = preset(scanner), phantom or "fdg"
    chosen = plane_settings or PlaneSettings()
    check_planes(ring, chosen, slice_mm)
    check_grid(size, voxel_mm)
    files = [] if output is None else check_counts_output(output)
    if truth_dir is not None and truth_dir.exists() and not truth_dir.is_dir():
        raise DataError(f"{truth_dir}: a file; expected a folder for the truth")
    truths = [] if truth_dir is None else [truth_dir / f"{name}.nii.gz" for name in TRUTHS]
    check_no_overwrite([*truths, *files], [activity, mu])
    if activity is None:
        scanned = _phantom(tracer)
    else:
        mu_map = None if mu is None else check_volume(mu, "μ-map", check_mu)[0]
        image, name = check_volume(activity, "activity", _check_activity)
        scanned = ScannedObject(Path(name).name, image, mu_map)
    x, y, z = scanned.activity.center_mm if center_mm is None else center_mm
    center = (x, y, z if slice_mm is None else slice_mm)
    check_position(center, "--centre or --slice-mm")
    fine, grid = simulation_grids(
        ring, scanned.name, [scanned.activity, scanned.mu], center, chosen.planes, size, voxel_mm
    )
    check_grid_memory(grid)
    ring = with_rings(ring, grid.shape[2])
    oblique = None if chosen.span is None else michelogram(ring.rings, chosen.span, chosen.max_ring_difference)
    if output is not None and output.suffix in LIST_MODE:
        check_petsird(ring, oblique)
    if lesions:
        anatomy = brain.brain(fine.voxel_mm, tracer, fine.shape, center_mm=center)  # lesions lie where it is scanned
        kind: brain.LesionKind = lesion_kind  # pyrefly: ignore[bad-assignment] (checked against KINDS)
        scanned = _phantom(tracer, brain.random_lesions(count_settings.seed, anatomy, lesions, kind))
    counts = _scan(ring, scanned, count_settings, fine, grid, center, oblique, chosen.tof)
    volumes = (scanned.activity, scanned.mu, scanned.t1)
    return Simulation(counts, write_simulation(output, dict(zip(truths, volumes, strict=False)), counts, ring))


def _check_counting(count_settings: CountSettings) -> None:
    per_mm3, trues, background, psf_mm, seed = count_settings
    if per_mm3 is not None and trues is not None:
        raise ConfigError(f"--trues-per-mm3 {per_mm3:g} and --trues {trues:g}; expected one of them")
    for name, level in (("--trues-per-mm3", per_mm3), ("--trues", trues)):
        if level is not None:
            check_positive(name, level, MAX_TRUES)
    if not 0 <= background < 1:
        raise ConfigError(f"--background {background:g}; expected a fraction of the prompts, 0 or more and below 1")
    check_range("--psf-mm", psf_mm, 0, MAX_FWHM_MM)
    check_seed(seed)


def _check_object(phantom: str | None, activity: Any, mu: Any, lesions: int, kind: str) -> None:
    if activity is not None and (phantom is not None or lesions):
        raise ConfigError(
            f"--activity and {'--lesions' if phantom is None else '--phantom'}; lesions go into a phantom"
        )
    if activity is None and mu is not None:
        raise ConfigError("--mu goes with --activity; a phantom has its own")
    for name, value, known in (
        ("--phantom", "fdg" if phantom is None else phantom, brain.ACTIVITY),
        ("--lesion-kind", kind, brain.KINDS),
    ):
        if value not in known:
            raise ConfigError(f"{name} {value}; expected one of {', '.join(known)}{did_you_mean(value, known)}")
    check_range("--lesions", lesions, 0, MAX_LESIONS)


def _scan(
    scanner: Scanner,
    scanned: ScannedObject,
    count_settings: CountSettings,
    fine: Grid,
    grid: Grid,
    center: tuple[float, float, float],
    oblique: Michelogram | None,
    tof: Tof | None,
) -> Counts:
    """Counts with factors, background and truth."""
    per_mm3, total, background, psf_mm, seed = count_settings
    longer = simulation.with_margin(fine, psf_mm)
    activity = resample_beyond_ends(scanned.activity, longer, fine.shape[2], center)
    mu = resample_to_grid(scanned.mu, longer, center)
    middle = simulation.middle_planes(longer, fine.shape[2])
    seen = activity[..., middle]
    if not seen.any():
        half = fine.shape[2] * fine.voxel_mm[2] / 2
        raise DataError(f"{scanned.name}: no activity between z = {center[2] - half:.0f} to {center[2] + half:.0f} mm")
    expected = simulation.expected_trues(scanner, activity, longer, mu, psf_mm, michelogram=oblique, tof=tof)
    volume = simulation.emission_volume_mm3(seen, fine)
    total = (per_mm3 or DEFAULT_TRUES_PER_MM3) * volume if total is None else total
    if mu is not None:
        check_coverage(seen, {f"μ-map of {scanned.name}": mu[..., middle]})
    drawn = simulation.sample_counts(jax.random.key(seed), scanner, expected, total, background, oblique)
    coarse_mu = resample_to_grid(scanned.mu, grid, center)
    system = system_model(scanner, grid, oblique, tof)
    mu_image = None if coarse_mu is None else jnp.asarray(coarse_mu)
    factors = simulation.multiplicative_factors(scanner, system, drawn.scale, mu_image, oblique)
    metadata = {
        "object": scanned.name, "centre_mm": list(center), "trues": total, "trues_per_mm3": total / volume,
        "background": background, "psf_mm": psf_mm, "seed": seed, "scale": drawn.scale,
        "attenuation": scanned.mu is not None, "corrections": ["attenuation"] * (scanned.mu is not None),
    }  # fmt: skip
    metadata |= {"tracer": scanned.tracer} if scanned.tracer else {}
    metadata |= plane_metadata(oblique, tof)
    arrays = (np.asarray(drawn.counts), np.asarray(drawn.additive), np.broadcast_to(factors, drawn.counts.shape[:3]))
    truth = resample_to_grid(scanned.activity, grid, center)
    return Counts(*arrays, scanner.name, metadata, truth, image_affine(grid, center))


def _check_activity(array: np.ndarray) -> None:
    check_counts("activity", jnp.asarray(array))
    if not array.any():
        raise DataError("no voxel is above 0; expected an activity image")


def _phantom(tracer: str, lesions: tuple[brain.Lesion, ...] = ()) -> ScannedObject:
    head = brain.brain(1.0, tracer, lesions=lesions)
    activity, mu, t1 = (Volume(array, head.affine) for array in (head.activity, head.mu, head.t1))
    number = f" with {pluralize(len(lesions), 'lesion')}" if lesions else ""
    return ScannedObject(f"{tracer} phantom{number}", activity, mu, t1, tracer)
