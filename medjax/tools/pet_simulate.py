"""PET simulation (`medjax pet simulate`): an object on a fine grid, its counts, and a counts file with the truth."""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from medjax import defaults
from medjax.atomic import replacing_together
from medjax.errors import ConfigError, DataError, pluralize
from medjax.io.counts import Counts, write_counts
from medjax.io.nifti import Volume, extent_mm, resample, write_nifti
from medjax.pet import simulate as simulation
from medjax.pet.acquisition import check_counts
from medjax.pet.attenuation import check_mu
from medjax.pet.grid import Grid
from medjax.pet.scan import image_affine
from medjax.pet.scanner import Scanner, lors, preset, with_rings
from medjax.pet.system import build_system
from medjax.phantoms import brain
from medjax.running.config import did_you_mean
from medjax.tools.checks import (
    MAX_FWHM_MM,
    as_paths,
    check_no_overwrite,
    check_output,
    check_position,
    check_positive,
    check_range,
    check_seed,
    check_volume,
    short_number,
)
from medjax.tools.pet_checks import check_coverage, check_grid, check_grid_memory
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
    planes: int | None = None,
    slice_mm: float | None = None,
    center_mm: tuple[float, float, float] | None = None,
    size: int = defaults.PET_SIZE,
    voxel_mm: float | None = None,
    truth_dir: Path | str | None = None,
) -> Simulation:
    """Simulate the counts of a brain phantom or of an activity image, with Poisson noise and uniform background.

    Args:
        output: counts file (.npz) to write; None: none.
        phantom: tracer of the brain phantom, fdg or dpa714.
        activity: emission image instead of a phantom, any unit a volume.
        mu: attenuation map of `activity`, in mm⁻¹.
        lesions: number of lesions in the phantom.
        lesion_kind: pet, mr or both: the images in which lesions are visible.
        scanner: name of a preset.
        count_settings: count level, background, resolution and seed.
        planes: number of direct planes, odd.
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
    _check_grid(ring, planes, slice_mm, size, voxel_mm)
    if output is not None:
        check_output(output, (".npz",))
    if truth_dir is not None and truth_dir.exists() and not truth_dir.is_dir():
        raise DataError(f"{truth_dir}: a file; expected a folder for the truth")
    truths = [] if truth_dir is None else [truth_dir / f"{name}.nii.gz" for name in TRUTHS]
    check_no_overwrite([*truths, *([] if output is None else [output])], [activity, mu])
    if activity is None:
        scanned = _phantom(tracer)
    else:
        mu_map = None if mu is None else check_volume(mu, "μ-map", check_mu)[0]
        image, name = check_volume(activity, "activity", _check_activity)
        scanned = ScannedObject(Path(name).name, image, mu_map)
    x, y, z = scanned.activity.center_mm if center_mm is None else center_mm
    center = (x, y, z if slice_mm is None else slice_mm)
    check_position(center, "--centre or --slice-mm")
    fine, grid = _grids(ring, scanned, center, planes, size, voxel_mm)
    check_grid_memory(grid)
    if lesions:
        anatomy = brain.brain(fine.voxel_mm, tracer, fine.shape, center_mm=center)  # lesions lie where it is scanned
        kind: brain.LesionKind = lesion_kind  # pyrefly: ignore[bad-assignment] (checked against KINDS)
        scanned = _phantom(tracer, brain.random_lesions(count_settings.seed, anatomy, lesions, kind))
    counts = _scan(with_rings(ring, grid.shape[2]), scanned, count_settings, fine, grid, center)
    return Simulation(counts, _write(output, truth_dir, scanned, counts))


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
    expected = simulation.expected_trues(scanner, activity, longer, mu, psf_mm)
    volume = simulation.emission_volume_mm3(seen, fine)
    total = (per_mm3 or DEFAULT_TRUES_PER_MM3) * volume if total is None else total
    if mu is not None:
        check_coverage(seen, {f"μ-map of {scanned.name}": mu[..., middle]})
    drawn = simulation.sample_counts(jax.random.key(seed), scanner, expected, total, background)
    coarse_mu = resample_to_grid(scanned.mu, grid, center)
    system = build_system(lors(scanner), grid)
    factors = simulation.multiplicative_factors(
        scanner, system, drawn.scale, None if coarse_mu is None else jnp.asarray(coarse_mu)
    )
    metadata = {
        "object": scanned.name, "centre_mm": list(center), "trues": total, "trues_per_mm3": total / volume,
        "background": background, "psf_mm": psf_mm, "seed": seed, "attenuation": scanned.mu is not None,
        "corrections": ["attenuation"] * (scanned.mu is not None),
    }  # fmt: skip
    metadata |= {"tracer": scanned.tracer} if scanned.tracer else {}
    arrays = (np.asarray(drawn.counts), np.asarray(drawn.additive), np.broadcast_to(factors, drawn.counts.shape))
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


def _grids(
    scanner: Scanner,
    scanned: ScannedObject,
    center: tuple[float, float, float],
    planes: int | None,
    size: int,
    voxel_mm: float | None,
) -> tuple[Grid, Grid]:
    """Fine grid of the simulation, which contains the object, and grid of the reconstruction."""
    plane_mm = scanner.ring_spacing_mm / 2
    seen = [scanned.activity] if scanned.mu is None else [scanned.activity, scanned.mu]
    reach = np.max([extent_mm(volume, center) for volume in seen], axis=0).tolist()
    if planes is None:
        planes = min(2 * math.ceil(max(reach[2] / plane_mm - 0.5, 0)) + 1, scanner.planes)
    max_half = math.floor(min((scanner.radius_mm + scanner.depth_mm) / math.sqrt(2), scanner.field_of_view_mm)) - 1
    half = max(reach[:2])
    if half > max_half:
        raise DataError(
            f"{scanned.name}: reaches {half:.0f} mm from the scanner's axis at x, y = {center[0]:g}, {center[1]:g} mm; "
            f"{scanner.name} allows {max_half} mm: crop the image, or use --centre"
        )
    voxel = voxel_mm or scanner.voxel_mm
    short = f"{scanned.name}: reaches {half:.0f} mm from the axis, the image grid {size * voxel / 2:.0f} mm"
    if half > size * voxel:
        raise DataError(f"{short}; expected a --size of {math.ceil(2 * half / voxel)} or more")
    if half > size * voxel / 2:
        warnings.warn(f"{short}; use a larger --size", stacklevel=2)
    side = 8 * math.ceil(min(half + OBJECT_MARGIN_MM, max_half) / SIMULATION_VOXEL_MM / 4)
    fine = Grid(
        (min(side, 2 * max_half), min(side, 2 * max_half), planes), (SIMULATION_VOXEL_MM, SIMULATION_VOXEL_MM, plane_mm)
    )
    return fine, Grid((size, size, planes), (voxel, voxel, plane_mm))


def _write(output: Path | None, folder: Path | None, scanned: ScannedObject, counts: Counts) -> tuple[Path, ...]:
    """Write the counts, and truth, μ-map and T1 on the grid of their truth, all or none; the files written.

    What else lies in the folder stays; of a μ-map or T1 there that is not of this object, one line says so.
    """
    contents = dict[Path, Volume | Counts]() if output is None else {output: counts}
    files: list[Path] = [] if folder is None else [folder / f"{name}.nii.gz" for name in TRUTHS]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        volumes = (scanned.activity, scanned.mu, scanned.t1)
        contents |= {path: volume for path, volume in zip(files, volumes, strict=True) if volume is not None}
    with replacing_together(*contents) as parts:
        for part, content in zip(parts, contents.values(), strict=True):
            if isinstance(content, Counts):
                write_counts(part, content)
            elif counts.truth is not None and counts.affine is not None:
                write_nifti(part, resample(content, counts.truth.shape, counts.affine).array, counts.affine)
    for path in files:
        if path not in contents and path.exists():
            warnings.warn(f"{path}: was there before, not of this simulation; it stays", stacklevel=3)
    return tuple(contents)


def _check_grid(
    scanner: Scanner, planes: int | None, slice_mm: float | None, size: int, voxel_mm: float | None
) -> None:
    if planes is not None and (planes % 2 == 0 or not 1 <= planes <= scanner.planes):
        raise ConfigError(
            f"--planes {short_number(planes)}; expected an odd number from 1 to {scanner.planes}, those of "
            f"{scanner.name}"
        )
    if slice_mm is not None and not math.isfinite(slice_mm):
        raise ConfigError(f"--slice-mm {slice_mm}; expected mm")
    check_grid(size, voxel_mm)
