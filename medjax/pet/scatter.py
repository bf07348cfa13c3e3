"""Single-scatter simulation: expected coincidences of which one photon has scattered once, from activity and μ.

For detectors A and B and scatter points k of volume V_k,

    S_AB = r_AB² / (c_A c_B) · Σ_k V_k μ_k (1/σ dσ/dΩ)(θ) · ε(E') / ε(511) · c_Ak c_Bk / (r_Ak² r_Bk²)
           · [ a_A e^{−(m_A + ρ m_B)} + a_B e^{−(ρ m_A + m_B)} ],     ρ = σ(E') / σ(511 keV),

a and m the line integrals of activity and μ from k to a detector, c cosines of incidence, r distances, ε the efficiency
of the energy window. The first factor divides by the solid angle of the unscattered pair, so S has the unit of a line
integral of the image, in image units × mm: it is multiplied by the normalization factors of a bin, without attenuation,
to be the expected scatter beside m · P x. Photons that scatter twice are left to a scale: see `scatter_tails`.

Source: Watson, Newport & Casey, in Three-Dimensional Image Reconstruction in Radiology and Nuclear Medicine, 1996;
Ollinger, Physics in Medicine and Biology 41, 1996; Watson, IEEE Transactions on Nuclear Science 47(4), 2000.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from medjax.errors import ConfigError, DataError
from medjax.interpolation import sample
from medjax.pet.attenuation import check_mu
from medjax.pet.compton import ELECTRON_KEV, EnergyWindow, detection_efficiency, klein_nishina, scattered_energy
from medjax.pet.compton import total_cross_section as cross_section
from medjax.pet.gathers import take
from medjax.pet.grid import Grid
from medjax.pet.michelogram import Michelogram
from medjax.pet.scanner import Scanner
from medjax.pet.scatter_interpolation import coarsen, interpolate_pairs

_HIGHEST = lax.Precision.HIGHEST
_NODES = 2048  # of the look-up table; linear interpolation is within 1e-4 of the largest value


@dataclass(frozen=True)
class ScatterSampling:
    """Sampling of a scatter simulation. Hashable.

    Scatter is computed between `rings` × `crystals` detectors and interpolated; scatter points lie in cells of about
    `cell_mm` whose mean μ is `mu_threshold` (in mm⁻¹) or more; images are averaged to voxels of about `voxel_mm`, which
    is the step along a line too.
    """

    rings: int = 8
    crystals: int = 48
    cell_mm: float = 20.0
    voxel_mm: float = 6.0
    mu_threshold: float = 0.001

    def __post_init__(self) -> None:
        if self.rings < 1 or self.crystals < 8:
            raise ConfigError(
                f"scatter sampling: {self.rings} rings of {self.crystals} crystals; expected at least 1 of at least 8"
            )
        if not (self.cell_mm > 0 and self.voxel_mm > 0 and self.mu_threshold > 0):
            raise ConfigError(
                f"scatter sampling: cells of {self.cell_mm:g} mm, voxels of {self.voxel_mm:g} mm, μ threshold "
                f"{self.mu_threshold:g}; expected more than 0"
            )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ScatterPoints:
    """Scatter points: position (x, y, z) in mm, and volume × μ in mm²."""

    position_mm: Float[Array, "*point 3"]
    weight_mm2: Float[Array, "*point"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Detectors:
    """Detector centers (x, y, z) in mm and the unit normals of their faces, which point to the scanner's axis."""

    position_mm: Float[Array, "detector 3"]
    normal: Float[Array, "detector 3"]


def ring_detectors(scanner: Scanner, rings: int, crystals: int) -> Detectors:
    """Detectors at equal angles, the first at crystal 0, ring by ring from the scanner's first to its last."""
    angle = np.pi / 2 + 2 * np.pi * np.arange(crystals) / crystals
    outwards = np.stack([np.cos(angle), np.sin(angle), np.zeros(crystals)], axis=-1)
    half = (scanner.rings - 1) * scanner.ring_spacing_mm / 2
    z = np.linspace(-half, half, rings) if rings > 1 else np.zeros(1)
    radius = scanner.radius_mm + scanner.depth_mm
    position = radius * outwards + z[:, None, None] * np.array([0, 0, 1])
    normal = np.broadcast_to(-outwards, position.shape)
    return Detectors(*(jnp.asarray(a.reshape(-1, 3), jnp.float32) for a in (position, normal)))


def sample_scatter_points(
    mu: Float[Array, "x y z"], grid: Grid, cell_mm: float, mu_threshold: float, key: Array | None = None
) -> ScatterPoints:
    """One scatter point in each cell whose mean μ reaches the threshold: at its center, or anywhere in it with a key.

    Raises:
        DataError: no cell does.
    """
    cells, coarse = coarsen(jnp.asarray(mu)[None], grid, cell_mm)
    means = np.asarray(cells[0])
    index = np.argwhere(means >= mu_threshold)
    if not len(index):
        raise DataError(
            f"μ-map: no cell of {cell_mm:g} mm has a mean μ of {mu_threshold:g} mm⁻¹ or more, so nothing scatters"
        )
    center = index - (np.asarray(coarse.shape) - 1) / 2
    position = jnp.asarray(center, jnp.float32)
    if key is not None:
        position = position + jax.random.uniform(key, position.shape, minval=-0.5, maxval=0.5)
    weight = means[tuple(index.T)] * coarse.voxel_volume_mm3
    return ScatterPoints(position * jnp.asarray(coarse.voxel_mm, jnp.float32)[None], jnp.asarray(weight, jnp.float32))


@partial(jax.jit, static_argnames=("grid", "window", "samples", "batch_size"))
def pair_scatter(
    emission: Float[Array, "x y z"],
    mu: Float[Array, "x y z"],
    points: ScatterPoints,
    detectors: Detectors,
    *,
    grid: Grid,
    window: EnergyWindow,
    samples: int,
    batch_size: int = 1,
) -> Float[Array, "detector detector"]:
    """The sum over scatter points of S, without the factor before it: in image units / mm³, symmetric.

    Args:
        emission: activity, in image units.
        mu: linear attenuation coefficients at 511 keV in mm⁻¹.
        points: scatter points.
        detectors: detectors.
        grid: grid of both images; beyond it there is nothing.
        window: energy window.
        samples: number of equal steps from a scatter point to where a line leaves the box around both images.
        batch_size: number of scatter points at a time; memory grows with it.
    """
    images = jnp.stack([emission, mu])
    box = _bounding_box(images, grid)
    number = len(points.weight_mm2)
    missing = -number % batch_size  # filled with points of weight 0
    padded = ScatterPoints(
        jnp.concatenate([points.position_mm, jnp.repeat(points.position_mm[-1:], missing, axis=0)]),
        jnp.pad(points.weight_mm2, (0, missing)),
    )
    batches = jax.tree.map(lambda a: a.reshape(-1, batch_size, *a.shape[1:]), padded)

    def one(point: ScatterPoints) -> Array:
        integrals = _line_integrals(images, box, grid, point.position_mm, detectors.position_mm, samples)
        return _one_point(point, detectors, integrals, window)

    def add(total: Array, batch: ScatterPoints) -> tuple[Array, None]:
        return total + jax.vmap(one)(batch).sum(axis=0), None

    size = len(detectors.position_mm)
    total, _ = lax.scan(add, jnp.zeros((size, size), images.dtype), batches)
    return total + total.T


def _one_point(
    point: ScatterPoints, detectors: Detectors, integrals: Float[Array, "2 detector"], window: EnergyWindow
) -> Float[Array, "detector detector"]:
    """What one scatter point gives to pairs (A, B) of which the photon to B has scattered."""
    along = detectors.position_mm - point.position_mm[None]
    distance = jnp.linalg.norm(along, axis=-1)
    direction = along / distance[:, None]
    facing = jnp.maximum(0, -jnp.sum(direction * detectors.normal, axis=-1)) / distance**2
    activity, mu = integrals
    towards, ratio = _by_cosine(-jnp.matmul(direction, direction.T, precision=_HIGHEST), window)
    unscattered = point.weight_mm2 * facing * activity * jnp.exp(-mu)
    return unscattered[:, None] * facing[None, :] * towards * jnp.exp(-ratio * mu[None, :])


def _by_cosine(cosine: Float[Array, "..."], window: EnergyWindow) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """(1/σ dσ/dΩ) ε(E') / ε(511) and σ(E') / σ(511 keV) of a scatter angle, looked up: erf and log are slow."""
    nodes = jnp.linspace(-1, 1, _NODES + 1, dtype=cosine.dtype)
    energy, unscattered = scattered_energy(nodes), jnp.asarray(ELECTRON_KEV, cosine.dtype)
    efficiency = detection_efficiency(energy, window) / detection_efficiency(unscattered, window)
    towards = klein_nishina(nodes) / cross_section(unscattered) * efficiency
    at = (cosine + 1) * (_NODES / 2)
    low = jnp.clip(at.astype(jnp.int32), 0, _NODES - 1)
    part = at - low
    ratio = cross_section(energy) / cross_section(unscattered)
    found = [(1 - part) * take(table, low) + part * take(table, low + 1) for table in (towards, ratio)]
    return found[0], found[1]


def _line_integrals(
    images: Float[Array, "image x y z"],
    box: Float[Array, "2 3"],
    grid: Grid,
    point: Float[Array, " 3"],
    ends: Float[Array, "end 3"],
    samples: int,
) -> Float[Array, "image end"]:
    """Integrals in mm from a point to each end, within the box, by the midpoint rule on linear interpolation."""
    along = ends - point[None]
    exits = jnp.where(along > 0, box[1:] - point[None], box[:1] - point[None]) / jnp.where(along == 0, 1, along)
    leave = jnp.clip(jnp.where(along == 0, 1, exits).min(axis=-1), 0, 1)
    fraction = (jnp.arange(samples, dtype=images.dtype) + 0.5) / samples
    coords = jnp.stack(
        [
            (point[axis] + (along[:, axis] * leave)[:, None] * fraction[None]) / voxel + (size - 1) / 2
            for axis, (size, voxel) in enumerate(zip(grid.shape, grid.voxel_mm, strict=True))
        ]
    )
    inside = leave * jnp.linalg.norm(along, axis=-1)
    return sample(images, coords).mean(axis=-1) * inside[None]


def _bounding_box(images: Float[Array, "image x y z"], grid: Grid) -> Float[Array, "2 3"]:
    """Lowest and highest corner in mm of the voxels that are not zero, with half a voxel around, inside the grid."""
    inside = jnp.any(images != 0, axis=0)
    corners: list[Array] = []
    for axis, (size, voxel) in enumerate(zip(grid.shape, grid.voxel_mm, strict=True)):
        some = inside.any(axis=tuple(k for k in range(3) if k != axis))
        low, high = jnp.argmax(some) - 1.0, size - jnp.argmax(some[::-1]) + 0.0
        limits = jnp.clip(jnp.stack([low, high]), -0.5, size - 0.5)
        corners.append((limits - (size - 1) / 2) * voxel)
    return jnp.stack(corners, axis=-1).astype(images.dtype)


def simulate_scatter(
    emission: Float[Array, "x y z"],
    mu: Float[Array, "..."],
    grid: Grid,
    scanner: Scanner,
    planes: Michelogram,
    window: EnergyWindow,
    *,
    sampling: ScatterSampling | None = None,
    key: Array | None = None,
    batch_size: int = 1,
) -> Float[Array, "view bin plane"]:
    """Single scatter in each bin, in image units × mm: S of this module's equation.

    Planes that sum pairs of rings have their mean. Activity and matter beyond the grid are not known to it.

    Args:
        emission: activity, in any unit, 0 or more.
        mu: linear attenuation coefficients at 511 keV in mm⁻¹, on the same grid.
        grid: image grid, its center in the scanner's.
        scanner: scanner.
        planes: planes of the sinogram.
        window: energy window.
        sampling: scatter points, detectors and voxels of the simulation; None: the default.
        key: with it, scatter points lie anywhere in their cells; None: at their centers.
        batch_size: number of scatter points at a time; memory grows with it.

    Raises:
        DataError: an image of another shape than the grid, values that are negative or not finite, μ in another unit,
            or nothing that scatters; planes of another number of rings than the scanner's.
    """
    chosen = sampling or ScatterSampling()
    _check(emission, mu, grid, scanner, planes)
    both, coarse = coarsen(
        jnp.stack([jnp.asarray(emission, jnp.float32), jnp.maximum(jnp.asarray(mu, jnp.float32), 0)]),
        grid,
        chosen.voxel_mm,
    )
    points = sample_scatter_points(mu, grid, chosen.cell_mm, chosen.mu_threshold, key)
    rings, crystals = min(chosen.rings, scanner.rings), min(chosen.crystals, scanner.crystals)
    box = np.asarray(_bounding_box(both[1:], coarse))
    samples = max(8, int(np.ceil(np.linalg.norm(box[1] - box[0]) / chosen.voxel_mm)))
    pairs = pair_scatter(
        both[0],
        both[1],
        points,
        ring_detectors(scanner, rings, crystals),
        grid=coarse,
        window=window,
        samples=samples,
        batch_size=batch_size,
    )
    return interpolate_pairs(pairs.reshape(rings, crystals, rings, crystals), scanner, planes)


def _check(emission: Array, mu: Array, grid: Grid, scanner: Scanner, planes: Michelogram) -> None:
    for name, image in (("emission image", emission), ("μ-map", mu)):
        if image.shape != grid.shape:
            raise DataError(f"{name}: shape {image.shape}; expected that of the grid, {grid.shape}")
    activity = np.asarray(emission)
    if not np.isfinite(activity).all() or activity.min() < 0:
        raise DataError("emission image: holds values that are negative or not finite; expected an activity")
    check_mu(np.asarray(mu))
    if planes.rings != scanner.rings:
        raise DataError(f"planes: of {planes.rings} rings; the scanner {scanner.name} has {scanner.rings}")
