"""Anatomy of a fetus in its uterus, drawn on any grid, for a gestational age.

Organs are ellipsoids, capsules and parts of them in the fetus's own coordinates p = (left, anterior, cranial), given in
mm for 28 weeks around the middle of the chest and scaled by one growth factor. A smooth random displacement makes each
fetus another one. A rigid placement lies between those coordinates and the scanner's: the fetal axis is near the
mother's coronal plane, at any angle in it and with any roll, as in longitudinal, oblique and transverse lies.

The two lungs fill the chest between ribs, heart, spine, mediastinum and diaphragm. Of the depth φ below those walls
(mm), φ < level holds in the lungs, and `level` is chosen so that they have the requested volume.

Shapes and sizes are ours, drawn to look like fetal MRI; no atlas. The mother lies on her back: +y is her front.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import interpolate
from scipy.spatial.transform import Rotation

from medjax.io.nifti import Number

CLASSES = (
    "background",
    "lungs",
    "liver",
    "heart",
    "spine",
    "fetal body",
    "placenta",
    "amniotic fluid",
    "maternal tissue",
)
LUNGS, LIVER, HEART, SPINE, BODY, PLACENTA, FLUID, MATERNAL = range(1, 9)
# Tissues that no label names; they count as the class in `CLASS_OF_TISSUE`.
BRAIN, BOWEL, FETAL_FLUID, UTERUS, FAT, VISCERA = range(9, 15)
CLASS_OF_TISSUE = np.array([*range(9), BODY, BODY, BODY, MATERNAL, MATERNAL, MATERNAL], np.int32)
SHAPE_MM, SHAPE_WIDTH_MM, AXIS_SD = 2.0, 26.0, 0.05  # displacement between fetuses at 28 weeks, its width; axes
CAVITY_MM = (50.0, 54.0, 118.0)  # half axes of the amniotic cavity around the fetus
GAP_MM, MIN_GAP_MM = 5.0, 4.0  # distance from the midline to either lung, and its minimum at any age
ROUND_MM = np.float32(
    2.5
)  # rounding of the lungs' edges: a smooth maximum over the walls, which leaves no thin rim between two
MAX_CHEST_EXPANSION_MM = 4.0  # distance by which lungs may push the chest's walls back, which limits their volume
WALL_MM, FAT_MM = 7.0, 12.0  # the uterus's wall, the fat under the mother's skin


class Placement(NamedTuple):
    """Position, orientation and size of the fetus, and its placenta."""

    rotation: Float[np.ndarray, "3 3"]  # rows: the fetus's left, anterior and cranial axes in the scanner
    center_mm: Float[np.ndarray, "3"]  # centre of the chest, from the middle of the field of view
    scale: float  # lengths relative to those at 28 weeks
    sizes: Float[np.ndarray, "3"]  # factors of this fetus's axes
    placenta: Float[np.ndarray, "3"]  # direction of the placenta from the fetus
    thickness_mm: float  # thickness of the placenta


class Anatomy(NamedTuple):
    """Tissue labels on a grid: the fetus, and the uterus without it."""

    fetus: Int[np.ndarray, "x y z"]  # tissue, 0 outside the fetus
    sides: Int[np.ndarray, "x y z"]  # 1 left lung, 2 right lung, 0 elsewhere
    uterus: Int[np.ndarray, "x y z"]  # tissue, with fluid where the fetus is


def placement(rng: np.random.Generator, scale: Number) -> Placement:
    """Random position, orientation and build of a fetus; `scale` is relative to 28 weeks."""
    lie, lean, roll = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.2), rng.uniform(0, 2 * np.pi)
    cranial = np.array([np.sin(lie) * np.cos(lean), np.sin(lean), np.cos(lie) * np.cos(lean)])
    across = np.cross(cranial, [0.0, 1.0, 0.0])
    across /= np.linalg.norm(across)
    left = Rotation.from_rotvec(roll * cranial).apply(across)
    rotation = np.stack([left, np.cross(cranial, left), cranial])
    side = rng.normal(0, 0.5, 3) + np.array([0, rng.choice([-1.0, 1.0]), 0])
    side -= 0.9 * (side @ cranial) * cranial
    return Placement(
        rotation=rotation,
        center_mm=rng.uniform(-4, 4, 3) - 4 * scale * cranial,  # the lungs reach further up than down
        scale=float(scale),
        sizes=np.exp(AXIS_SD * rng.standard_normal(3)),
        placenta=side / np.linalg.norm(side),
        thickness_mm=float(rng.uniform(22, 30) * scale**0.5),
    )


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing: Sequence[Number], width_mm: Number
) -> Float[np.ndarray, "x y z"]:
    """A smooth random field of mean 0 and variance 1 at every voxel: cubic B-splines `width_mm` apart, normal weights.

    Its correlation is a half over `width_mm`, a twentieth over twice that, and then none.
    """
    bases = []
    for side, step in zip(shape, spacing, strict=True):
        position = (np.arange(side) - side / 2) * step / width_mm
        knots = np.arange(np.floor(position[0]) - 3, np.ceil(position[-1]) + 5)
        basis = interpolate.BSpline.design_matrix(position, knots, 3, extrapolate=True).toarray()
        bases.append((basis / np.linalg.norm(basis, axis=1, keepdims=True)).astype(np.float32))
    weights = rng.standard_normal([basis.shape[1] for basis in bases]).astype(np.float32)
    for basis in bases:  # each turn contracts the first axis and appends the grid's
        weights = np.tensordot(weights, basis, axes=(0, 1))
    return weights


def anatomy(
    rng: np.random.Generator,
    position: Placement,
    shape: tuple[int, int, int],
    spacing: Sequence[Number],
    lung_volume_ml: Number,
) -> Anatomy:
    """Tissue labels at the voxel centres of a grid around 0 mm, for a fetus in that position.

    Args:
        rng: random generator.
        position: position, orientation and size of the fetus.
        shape: voxels.
        spacing: voxel size, mm.
        lung_volume_ml: volume of both lungs together.
    """
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    x, y, z = np.ix_(*(axis.astype(np.float32) for axis in axes))
    size = position.scale
    bend = [SHAPE_MM * smooth_field(rng, shape, spacing, SHAPE_WIDTH_MM * size) for _ in range(3)]
    body, around = list[np.ndarray](), list[np.ndarray]()
    for row, own, moved in zip(position.rotation.astype(np.float32), position.sizes, bend, strict=True):
        straight = (
            row[0] * (x - np.float32(position.center_mm[0]))
            + row[1] * (y - np.float32(position.center_mm[1]))
            + row[2] * (z - np.float32(position.center_mm[2]))
        ) * np.float32(1 / size)
        body.append(straight * np.float32(1 / own) + moved)
        around.append(straight - moved)
    unit_ml = float(np.prod(spacing)) / 1000
    fetus, sides = _fetus(body, size, round(lung_volume_ml / unit_ml))
    return Anatomy(fetus, sides, _uterus(rng, position, around, (x, y, z), spacing))


def _fetus(p: list[np.ndarray], size: float, lung_voxels: int) -> tuple[np.ndarray, np.ndarray]:
    """Tissues of the fetus, and the lungs' sides."""
    left, front, up = p
    out = np.zeros(left.shape, np.int32)
    trunk = np.minimum(_ball(p, (0, -2, -6), (38, 33, 58)), _ball(p, (0, 0, -52), (38, 36, 50)))
    limbs = [((31, 6, 30), (43, 14, -14), 8), ((43, 14, -14), (14, 42, 8), 6.5)]
    limbs += [((19, 6, -86), (27, 46, -58), 11), ((27, 46, -58), (12, 44, -104), 8)]
    for start, end, radius in limbs:
        for mirror in (-1, 1):
            out[_capsule(p, (mirror * start[0], *start[1:]), (mirror * end[0], *end[1:])) < radius] = BODY
    out[trunk < 0] = BODY
    out[_capsule(p, (0, -8, 40), (0, 2, 64)) < 15] = BODY
    head = _ball(p, (0, 14, 90), (36, 46, 40))
    out[head < 0] = BODY
    out[head < -5] = BRAIN
    out[(trunk < -7) & (up < -44)] = BOWEL
    dome = -24 + 14 * np.exp(-(((np.abs(left) - 15) / 15) ** 2) - ((front - 3) / 18) ** 2)
    edge = np.where(left < 0, -54, -54 + 0.7 * left)  # the right lobe reaches further down
    out[(trunk < -6) & (up < dome - 2) & (up > edge) & (front > -15)] = LIVER
    for mirror in (-1, 1):
        out[_ball(p, (mirror * 15, -17, -52), (8, 7, 14)) < 0] = BODY  # kidneys
    out[_ball(p, (17, -6, -38), (7, 7, 9)) < 0] = FETAL_FLUID  # stomach
    out[_ball(p, (0, 16, -84), (8, 8, 9)) < 0] = FETAL_FLUID  # bladder
    heart = _ball((left - 0.3 * front, front, up), (3, 10, -4), (13, 13, 15))
    out[heart < 0] = HEART
    bow = -25 - 6 * np.exp(-(((up + 10) / 45) ** 2))
    spine = np.hypot(left, front - bow)
    out[(spine < 5.5) & (up > -96) & (up < 56)] = SPINE
    chest = _ball((left, front, np.maximum(up + 14, 0)), (0, -2, 0), (31, 27, 50))
    gap = max(GAP_MM, MIN_GAP_MM / size)
    walls = (chest, dome + 2 - up, 2 - heart, 7.5 - spine, gap + 1 - np.abs(left))
    depth = ROUND_MM * np.log(sum(np.exp(np.clip(wall, -40, 40) / ROUND_MM) for wall in walls))
    free = (heart > 1) & (spine > 6) & (np.abs(left) > gap) & (trunk < -3)
    inside = depth[free]
    level = np.partition(inside, lung_voxels)[lung_voxels] if lung_voxels < inside.size else np.inf
    lungs = free & (depth < min(level, MAX_CHEST_EXPANSION_MM))
    out[lungs] = LUNGS
    return out, np.where(lungs, np.where(left > 0, 1, 2), 0).astype(np.int32)


def _uterus(
    rng: np.random.Generator,
    position: Placement,
    p: list[np.ndarray],
    grid: tuple[np.ndarray, ...],
    spacing: Sequence[Number],
) -> np.ndarray:
    """What is around the fetus: fluid, placenta, the uterus's wall, the mother and, in front of her, air."""
    size = position.scale
    toward = position.rotation @ position.placenta  # in the fetus's coordinates
    middle = np.array([0.0, 5.0, -2.0]) + 0.35 * position.thickness_mm / size * toward
    away = [a - np.float32(m) for a, m in zip(p, middle, strict=True)]
    direction = [a * np.float32(1 / r) for a, r in zip(away, CAVITY_MM, strict=True)]
    length = np.sqrt(sum(a * a for a in direction)) + np.float32(1e-6)
    cavity = np.float32(size) * np.sqrt(sum(a * a for a in away)) * (1 - 1 / length)  # mm along the ray, inside < 0
    pole = toward / np.asarray(CAVITY_MM)
    pole /= np.linalg.norm(pole)
    cosine = sum(a * np.float32(b) for a, b in zip(direction, pole, strict=True)) / length
    thick = np.float32(position.thickness_mm) * np.sqrt(np.clip((cosine - 0.5) / 0.5, 0, 1))
    x, y, _ = grid
    front = 0.5 * position.center_mm[1] + size * CAVITY_MM[1] + WALL_MM + rng.uniform(2, 8) + FAT_MM
    skin = y + x * x / np.float32(260) - np.float32(front) + np.zeros_like(cavity)
    out = np.full(cavity.shape, MATERNAL, np.int32)
    patches = smooth_field(rng, cavity.shape, spacing, 11.0)
    out[patches > 0.7] = VISCERA
    out[(patches < -1.0) | (skin > -FAT_MM)] = FAT
    out[skin > 0] = 0
    out[cavity < WALL_MM] = UTERUS
    out[cavity < 0] = FLUID
    out[(cavity < 0) & (cavity > -thick)] = PLACENTA
    return out


def _ball(p: Sequence[np.ndarray], center: tuple[Number, ...], radii: tuple[Number, ...]) -> np.ndarray:
    """About the signed distance from an ellipsoid in mm, negative inside: (|q| − 1) · mean radius, q = (p − c) / r."""
    squares = sum(((a - np.float32(c)) * np.float32(1 / r)) ** 2 for a, c, r in zip(p, center, radii, strict=True))
    return (np.sqrt(squares) - 1) * np.float32(np.mean(radii))


def _capsule(p: Sequence[np.ndarray], start: tuple[Number, ...], end: tuple[Number, ...]) -> np.ndarray:
    """Distance from a segment."""
    along = np.subtract(end, start).astype(np.float32)
    away = [a - np.float32(s) for a, s in zip(p, start, strict=True)]
    fraction = sum(a * d for a, d in zip(away, along, strict=True)) / np.float32(along @ along)
    fraction = np.clip(fraction, 0, 1)
    return np.sqrt(sum((a - fraction * d) ** 2 for a, d in zip(away, along, strict=True)))
