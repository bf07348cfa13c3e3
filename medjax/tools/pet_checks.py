"""Checks of a reconstruction: attenuation once, maps that cover the emission, an image that the counts allow."""

import warnings
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import ndimage

from medjax import iterate
from medjax.errors import ConfigError, DataError, pluralize
from medjax.memory import check_memory
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, select_subset
from medjax.pet.grid import Grid
from medjax.pet.list_system import ListSystem
from medjax.pet.scan import Scan
from medjax.pet.scanner import lors
from medjax.pet.truncation import truncation
from medjax.tools.checks import MAX_SIDE, MAX_VOXEL_MM, MIN_VOXEL_MM, check_positive, check_range
from medjax.tools.pet_settings import MIN_COUNTS, ReconstructionSettings

MIN_COVERAGE, USUAL_COVERAGE = 2 / 3, 0.9  # fractions of the emission within a map: refused, told of
EMISSION = 0.3  # fraction of a smoothed early image's 99th percentile, above which a voxel counts as emission
SMOOTHING_MM = 10.0  # FWHM, of that image
IMAGES = 8  # images that a reconstruction holds at once
EARLY_UPDATES = 8  # of OSEM
MAX_TRUNCATION = 0.5  # fraction of the net counts on lines of response that miss the image
MAX_BACKGROUND = 0.8  # of the counts; beyond, noise tells of emission where none is, and the image keeps what is > 0
REFUSED_DEVIATION, USUAL_DEVIATION = 0.3, 0.05  # of an image's expected counts, relative to the net counts
HELD = 1e-5  # fraction of the net counts that may miss an image of the proposed size
SIZE_STEP = 8  # voxels, of the proposed number along x and y
Image = Float[np.ndarray, "x y z"]


def check_grid(size: int | None, voxel_mm: float | None) -> None:
    """Check the number and size of the voxels along x and y, where they are given.

    Raises:
        ConfigError: out of range.
    """
    if size is not None:
        check_range("--size", size, 2, MAX_SIDE)
    if voxel_mm is not None:
        check_positive("--voxel-mm", voxel_mm, MAX_VOXEL_MM)
        check_range("--voxel-mm", voxel_mm, MIN_VOXEL_MM, MAX_VOXEL_MM)


def check_grid_memory(grid: Grid) -> None:
    """Check that there is memory for images of this grid.

    Raises:
        DataError: there is not.
    """
    x, y, z = grid.shape
    check_memory(f"--size {x}", IMAGES * 4 * x * y * z, f"use a smaller one: there are {pluralize(z, 'plane')}")


def check_attenuation_once(scan: Scan) -> None:
    """Check that attenuation factors of a μ-map are not those that the scan's factors hold already.

    Warns where nothing is known of them.

    Raises:
        ConfigError: they hold attenuation.
    """
    if source := scan.corrections.get("attenuation"):
        raise ConfigError(f"--mu would correct attenuation twice: {source}; leave --mu out")
    if "attenuation" not in scan.uncorrected:
        text = "--mu: nothing says whether the multiplicative factors hold attenuation already; taken as if not: state "
        warnings.warn(text + "it by --corrections, or as `corrections` in the file's metadata", stacklevel=3)


def early_emission(stacked: Acquisition, state: em.State, grid: Grid) -> Image:
    """Where the emission lies: 1 in voxels of the smoothed image of a few OSEM updates that are not much below most.

    Args:
        stacked: the data in subsets.
        state: first image.
        grid: its voxels.
    """
    states = iterate.loop(em.osem(stacked), state, EARLY_UPDATES, every=EARLY_UPDATES)
    return emission_of(np.asarray(iterate.last(states, state).image), grid)


def emission_of(image: Image, grid: Grid) -> Image:
    """Where the emission of an image lies: 1 in voxels that are, smoothed, not much below most."""
    smooth = ndimage.gaussian_filter(image, [SMOOTHING_MM / 2.355 / side for side in grid.voxel_mm])
    return (smooth > EMISSION * np.percentile(smooth[smooth > 0], 99)).astype(np.float32) if smooth.any() else smooth


def check_coverage(
    emission: Image, maps: Mapping[str, Float[Array | np.ndarray, "x y z"] | None], background: float = 0.0
) -> tuple[str, ...]:
    """Check that the box of each map's non-zero voxels covers the emission; returns a line on how much of it.

    Args:
        emission: activity, or a mask of it.
        maps: maps on the same grid by name, such as a μ-map's file.
        background: fraction of the counts that the emission is known from; beyond 80 % less than two thirds is only
            warned of.

    Raises:
        DataError: less than two thirds are covered.
    """
    lines = list[str]()
    for name, array in maps.items():
        if array is None or not emission.any():
            continue
        fraction = _covered(emission, np.asarray(array))
        found = f"{name}: covers {fraction:.0%} of the emission"
        remedy = "look at its voxel size in mm, and --centre"
        if background > MAX_BACKGROUND:
            found += f", which is uncertain as {background:.0%} of the counts are background"
            if fraction < MIN_COVERAGE:
                warnings.warn(f"{found}: {remedy}", stacklevel=3)
        elif fraction < MIN_COVERAGE:
            raise DataError(f"{found}; expected {USUAL_COVERAGE:.0%} or more: {remedy}")
        elif fraction < USUAL_COVERAGE:
            warnings.warn(f"{found}; it is taken as 0 beyond", stacklevel=3)
        lines.append(found)
    return tuple(lines)


def check_image(acquisition: Acquisition, image: Image, method: str, *, penalized: bool = False) -> None:
    """Check an image against its counts: its expected trues A x should be the net counts, Σ y − Σ b, of lines it meets.

    MLEM keeps them to the Poisson noise √Σy; ordered subsets and samplers may differ by some per cent, a penalty by as
    much as its strength. Noise of much background stays in part, as no voxel is below 0. Where a subset has no counts
    along any line of response of a voxel, OSEM sets it to 0 for good, so that of few counts little or nothing remains.

    Args:
        acquisition: the counts and their model, whole or in subsets.
        image: the image.
        method: its method, for messages.
        penalized: whether a penalty may keep it from the counts: then there are warnings only, but for an image of 0.

    Raises:
        DataError: the image is 0, or its expected trues differ from the net counts by more than 4 standard deviations
            and 30 %. From 5 % on there is a warning. Where more than 80 % of the counts are background, more trues are
            a warning only, from 30 % on.
    """
    subsets = acquisition.sensitivity.shape[0] if acquisition.sensitivity.ndim == 4 else 0
    parts = (select_subset(acquisition, k) for k in range(subsets)) if subsets else (acquisition,)
    total, background, trues = (float(one) for one in np.sum([_sums(part, image) for part in parts], axis=0))
    net = total - background
    found = f"{method}: the image's expected trues are {trues:,.0f}, its counts beyond the background {net:,.0f}"
    excess = abs(trues - net) - 4 * max(total, 1) ** 0.5
    if image.any() and trues > net and background > MAX_BACKGROUND * total:
        if excess > REFUSED_DEVIATION * max(net, 0):
            text = f"{found}: noise of a background of {background / total:.0%}, as no voxel is below 0"
            warnings.warn(text, stacklevel=3)
        return
    if not image.any() or (excess > REFUSED_DEVIATION * net and not penalized):
        raise DataError(f"{found}; nothing is written: use fewer --subsets, or look at the scale of the factors")
    if excess > USUAL_DEVIATION * net:
        remedy = "a smaller --beta" if penalized else "fewer --subsets or more --iterations"
        warnings.warn(f"{found}: use {remedy}", stacklevel=3)


def _sums(acquisition: Acquisition, image: Image) -> tuple[float, float, float]:
    """Counts and background of lines of response that meet the image (of events: of all), and its expected trues."""
    seen = acquisition.forward(jnp.ones(image.shape, image.dtype)) > 0
    if isinstance(acquisition.system, ListSystem):
        seen = jnp.ones_like(seen)  # its last bin has the background of all lines, those that miss the image too
    counts, background = (float(jnp.sum(a, where=seen)) for a in (acquisition.counts, acquisition.additive))
    return counts, background, float(acquisition.forward(jnp.asarray(image)).sum())


def warn_of_few_counts(scan: Scan, settings: ReconstructionSettings) -> None:
    """Warn where a subset of OSEM has few counts a plane."""
    counts = float(scan.counts.sum(dtype=float)) / scan.slices / settings.subsets
    if settings.method == "osem" and counts < MIN_COUNTS:
        fewer = "fewer --subsets, " * (settings.subsets > 1)
        text = f"only {counts:.0f} counts a subset and plane: use {fewer}--sum-planes or --method map-em"
        warnings.warn(text, stacklevel=3)


def check_truncation(scan: Scan, grid: Grid) -> None:
    """Warn where the image does not hold the whole object, by the counts on lines of response that miss it.

    Raises:
        DataError: more than half of the net counts are on such lines.
    """
    found = truncation(lors(scan.scanner), grid, scan.counts, scan.additive)
    if not found.significant:
        return
    x, y = (n * v / 2 for n, v in zip(grid.shape[:2], grid.voxel_mm[:2], strict=True))
    text = f"{found.fraction:.0%} of the net counts are on lines of response that miss the image of ±{x:.0f} × ±{y:.0f}"
    larger = f"use {_size_that_holds(scan, grid)}"
    background = "unless they are background that the counts file does not have"
    if not scan.additive.any():
        larger, background = "are they background? The file has none (additive is 0)", f"else {larger}"
    if found.fraction > MAX_TRUNCATION:
        raise DataError(f"{text} mm; expected an image that holds the object: {larger}")
    warnings.warn(f"{text} mm: it is too bright towards its edges; {larger}, {background}", stacklevel=3)


def _size_that_holds(scan: Scan, grid: Grid) -> str:
    """The first --size, in steps of `SIZE_STEP`, that `HELD` of the counts or noise alone misses.

    A convex object reaches beyond the image further than the few counts on lines that miss it let suppose.
    """
    x, y, z = grid.shape
    end_points, most = lors(scan.scanner), int(2 * scan.scanner.field_of_view_mm / grid.voxel_mm[0])
    counts, additive = (a.sum(axis=tuple(range(2, a.ndim)), dtype=float) for a in (scan.counts, scan.additive))
    for size in range(x - x % SIZE_STEP + SIZE_STEP, most + 1, SIZE_STEP):
        wider = Grid((size, size + y - x, z), grid.voxel_mm)
        missed = truncation(end_points, wider, counts, additive)
        if missed.fraction < HELD or missed.standard_deviations < 2:
            return f"--size {size} or more"
    return "a larger --size"


def _covered(emission: Image, array: np.ndarray) -> float:
    """Fraction of the emission within the box of an array's non-zero voxels."""
    box = [np.flatnonzero(array.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    if not all(index.size for index in box):
        return 0.0
    inside = emission[tuple(slice(index[0], index[-1] + 1) for index in box)]
    return float(inside.sum(dtype=float) / emission.sum(dtype=float))
