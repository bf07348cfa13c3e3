"""What `medjax pet simulate` does: an object on a fine grid, counts from it, and a counts file with the truth."""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import typer

from medjax.errors import ConfigError, DataError
from medjax.io.counts import Counts, write_counts
from medjax.io.nifti import Volume, read_nifti, resample, write_nifti
from medjax.pet import simulate as simulation
from medjax.pet.acquisition import check_counts, check_mu
from medjax.pet.grid import Grid
from medjax.pet.io import image_affine
from medjax.pet.scanner import Scanner, lines, preset, with_rings
from medjax.pet.system import build_system
from medjax.phantoms import brain
from medjax.running.config import did_you_mean
from medjax.tools.checks import at_least, check_output, counted

FINE_MM = 1.0  # voxels of the simulation along x and y
MARGIN_MM = 10.0  # around the object, for the blur
TRUES_PER_MM3 = 10.0


class Counting(NamedTuple):
    """How many counts, how many of them background, at which resolution and with what noise; checked."""

    trues_per_mm3: float
    trues: float | None  # in all, instead
    background: float
    psf_mm: float
    seed: int


def choose_counting(
    trues_per_mm3: float | None, trues: float | None, background: float, psf_mm: float, seed: int
) -> Counting:
    """The settings of these options.

    Raises:
        ConfigError: two count levels, or a number out of range.
    """
    if trues_per_mm3 is not None and trues is not None:
        raise ConfigError(f"--trues-per-mm3 {trues_per_mm3:g} and --trues {trues:g}; expected one of them")
    for name, level in (("--trues-per-mm3", trues_per_mm3), ("--trues", trues)):
        if level is not None and not (math.isfinite(level) and level > 0):
            raise ConfigError(f"{name} {level:g}; expected more than 0")
    if not 0 <= background < 1:
        raise ConfigError(f"--background {background:g}; expected a share of the counts, 0 or more and below 1")
    at_least("--psf-mm", psf_mm, 0)
    at_least("--seed", seed, 0)
    return Counting(TRUES_PER_MM3 if trues_per_mm3 is None else trues_per_mm3, trues, background, psf_mm, seed)


@dataclass(frozen=True)
class Object:
    """What is scanned, on the grid it came on."""

    name: str
    activity: Volume
    mu: Volume | None = None
    t1: Volume | None = None

    @property
    def middle_mm(self) -> np.ndarray:
        """The middle of the activity image's field of view."""
        affine = self.activity.affine
        return np.matmul(affine[:3, :3], np.subtract(self.activity.array.shape, 1) / 2) + affine[:3, 3]


class Source(NamedTuple):
    """Where the object comes from: a phantom's tracer, or files."""

    tracer: str
    activity: Path | None
    mu: Path | None
    lesions: int
    kind: str


def source(phantom: str | None, activity: Path | None, mu: Path | None, lesions: int, kind: str) -> Source:
    """The source of these options.

    Raises:
        ConfigError: both a phantom and an image, an option that goes with the other one, or an unknown name.
    """
    if activity is not None and (phantom or lesions):
        raise ConfigError(f"--activity and {'--phantom' if phantom else '--lesions'}; lesions go into a phantom")
    if activity is None and mu is not None:
        raise ConfigError("--mu goes with --activity; a phantom has its own")
    tracer = phantom or "fdg"
    for name, value, known in (("--phantom", tracer, brain.ACTIVITY), ("--lesion-kind", kind, brain.KINDS)):
        if value not in known:
            raise ConfigError(f"{name} {value}; expected one of {', '.join(known)}{did_you_mean(value, known)}")
    at_least("--lesions", lesions, 0)
    return Source(tracer, activity, mu, lesions, kind)


def simulate(
    what: Source,
    output: Path,
    scanner_name: str,
    counting: Counting,
    *,
    planes: int | None = None,
    slice_mm: float | None = None,
    centre_mm: tuple[float, float, float] | None = None,
    size: int = 128,
    voxel_mm: float | None = None,
    truth_dir: Path | None = None,
) -> None:
    """Simulate a scan and write its counts file, with the truth on the grid of a reconstruction.

    Raises:
        ConfigError, DataError: something given cannot be used; nothing has been written then.
        OSError: a file cannot be written.
    """
    scanner = preset(scanner_name)
    _check_numbers(scanner, planes, slice_mm, size, voxel_mm)
    check_output(output, (".npz",))
    if truth_dir is not None and truth_dir.exists() and not truth_dir.is_dir():
        raise DataError(f"{truth_dir}: a file; expected a folder for the truth")
    thing = _files(what) if what.activity else _phantom(what.tracer)
    x, y, z = (thing.middle_mm if centre_mm is None else np.asarray(centre_mm, float)).tolist()
    centre = (x, y, z if slice_mm is None else slice_mm)
    fine, grid = _grids(scanner, thing, centre, planes, size, voxel_mm)
    if what.lesions:
        thing = _with_lesions(what, counting.seed, fine, centre)
    counts = _scan(with_rings(scanner, grid.shape[2]), thing, counting, fine, grid, centre)
    write_counts(output, counts)
    written = [str(output), *_write_truth(truth_dir, thing, counts)]
    total, expected = counts.counts.sum(dtype=float), counts.additive.sum(dtype=float)
    where = ", ".join(f"{c:g}" for c in centre)
    typer.echo(
        f"{thing.name} in {scanner.name}, {counted(grid.shape[2], 'plane')} about {where} mm: {total:,.0f} counts, "
        f"{expected / max(total, 1):.0%} of them background; wrote {', '.join(written)}"
    )


def _scan(
    scanner: Scanner, thing: Object, counting: Counting, fine: Grid, grid: Grid, centre: tuple[float, float, float]
) -> Counts:
    """The counts, and all that a reconstruction needs."""
    activity, mu = (_on(volume, fine, centre) for volume in (thing.activity, thing.mu))
    if activity is None or not activity.any():
        half = fine.shape[2] * fine.voxel_mm[2] / 2
        raise DataError(f"{thing.name}: no activity in z = {centre[2] - half:.0f} to {centre[2] + half:.0f} mm")
    expected = simulation.expected_trues(scanner, activity, fine, mu, counting.psf_mm)
    volume = simulation.emission_volume_mm3(activity, fine)
    trues = counting.trues_per_mm3 * volume if counting.trues is None else counting.trues
    drawn = simulation.draw(jax.random.key(counting.seed), scanner, expected, trues, counting.background)
    coarse_mu = _on(thing.mu, grid, centre)
    system = build_system(lines(scanner), grid)
    factors = simulation.factors(scanner, system, drawn.scale, None if coarse_mu is None else jnp.asarray(coarse_mu))
    return Counts(
        np.asarray(drawn.counts),
        np.asarray(drawn.additive),
        np.broadcast_to(np.asarray(factors), drawn.counts.shape),
        scanner.name,
        metadata={
            "object": thing.name,
            "centre_mm": list(centre),
            "trues": trues,
            "trues_per_mm3": trues / volume,
            "background": counting.background,
            "psf_mm": counting.psf_mm,
            "seed": counting.seed,
            "attenuation": thing.mu is not None,
        },
        truth=_on(thing.activity, grid, centre),
        affine=image_affine(grid, centre),
    )


def _files(what: Source) -> Object:
    assert what.activity is not None
    activity = read_nifti(what.activity)
    mu = None if what.mu is None else read_nifti(what.mu)
    for path, volume, check in ((what.activity, activity, _check_activity), (what.mu, mu, check_mu)):
        if volume is not None:
            try:
                check(volume.array)
            except DataError as error:
                raise DataError(f"{path}: {error}") from error
    return Object(what.activity.name, activity, mu)


def _check_activity(array: np.ndarray) -> None:
    check_counts("activity", jnp.asarray(array))
    if not array.any():
        raise DataError("no voxel is above 0; expected an activity image")


def _phantom(tracer: str, lesions: tuple[brain.Lesion, ...] = ()) -> Object:
    head = brain.brain(1.0, tracer, lesions=lesions)
    activity, mu, t1 = (Volume(array, head.affine) for array in (head.activity, head.mu, head.t1))
    number = f" with {counted(len(lesions), 'lesion')}" if lesions else ""
    return Object(f"{tracer} phantom{number}", activity, mu, t1)


def _with_lesions(what: Source, seed: int, fine: Grid, centre: tuple[float, float, float]) -> Object:
    """The phantom with lesions where the scanner sees them."""
    anatomy = brain.brain(fine.voxel_mm, what.tracer, fine.shape, centre_mm=centre)
    kind: brain.Kind = what.kind  # pyrefly: ignore[bad-assignment] (checked against KINDS)
    return _phantom(what.tracer, brain.random_lesions(seed, anatomy, what.lesions, kind))


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
    reach = _reach(thing, centre)
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


def _reach(thing: Object, centre: tuple[float, float, float]) -> list[float]:
    """How far the object extends from the centre along x, y and z, in mm."""
    far = np.zeros(3)
    for volume in (thing.activity, thing.mu):
        if volume is None or not volume.array.any():
            continue
        edges = []
        for axis in range(3):
            inside = np.flatnonzero(volume.array.any(axis=tuple({0, 1, 2} - {axis})))
            edges.append((inside[0] - 0.5, inside[-1] + 0.5))
        corners = np.stack(np.meshgrid(*edges, indexing="ij"), axis=-1).reshape(-1, 3)
        points = np.matmul(corners, volume.affine[:3, :3].T) + volume.affine[:3, 3]
        far = np.maximum(far, np.abs(points - centre).max(axis=0))
    return far.tolist()


def _on(volume: Volume | None, grid: Grid, centre: tuple[float, float, float]) -> np.ndarray | None:
    return None if volume is None else resample(volume, grid.shape, image_affine(grid, centre)).array


def _write_truth(folder: Path | None, thing: Object, counts: Counts) -> list[str]:
    """The files written: what is known of the object, on the grid of the counts file's truth."""
    if folder is None or counts.truth is None or counts.affine is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, volume in (("truth", thing.activity), ("mu", thing.mu), ("t1", thing.t1)):
        if volume is not None:
            path = folder / f"{name}.nii.gz"
            write_nifti(path, resample(volume, counts.truth.shape, counts.affine).array, counts.affine)
            written.append(str(path))
    return written


def _check_numbers(
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
