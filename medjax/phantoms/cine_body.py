"""What surrounds the heart in a short-axis image: lungs, chest wall, liver, stomach, descending aorta.

Positions are mm from the left ventricle's long axis in the plane (x to the patient's left, y downwards, to the
inferior wall), z along the long axis. Every subject has a body of their own, drawn from the heart's seed.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import ndimage

EXTENT = 120.0  # half side of the field on which texture is drawn and which is repeated, mm
CELLS = 48


class Tissues(NamedTuple):
    """Signal of tissues in a bSSFP image, relative to blood's."""

    blood: float = 1.0
    myocardium: float = 0.3
    fat: float = 0.95
    lung: float = 0.06
    muscle: float = 0.25
    liver: float = 0.4


class Body(NamedTuple):
    """Surroundings of one heart; distances in mm, slopes a distance along the long axis."""

    chest: tuple[float, float, float]  # distance of the chest wall, its angle, its slope
    layers: tuple[float, float]  # thickness of muscle and of subcutaneous fat
    diaphragm: tuple[float, float, float]  # distance below the heart, slope in the plane, slope
    stomach: tuple[float, float]  # where the liver gives way to the stomach; signal relative to the liver's
    aorta: tuple[float, float, float, float]  # position, radius, slope
    mediastinum: tuple[float, float, float]  # position and size of its fat
    texture: Float[np.ndarray, "kind x y z"]


def random_body(seed: int, heart: float) -> Body:
    """Random surroundings of a heart whose epicardium has a radius of `heart` mm."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((3, CELLS, CELLS, CELLS // 2), dtype=np.float32)
    widths = (4.0, 1.2, 0.8)
    texture = np.stack([ndimage.gaussian_filter(n, s, mode="wrap") for n, s in zip(noise, widths, strict=True)])
    return Body(
        chest=(heart * rng.uniform(1.45, 2.1), rng.uniform(-2.35, -1.75), rng.uniform(-0.3, -0.1)),
        layers=(rng.uniform(8, 18), rng.uniform(6, 35)),
        diaphragm=(heart * rng.uniform(1.02, 1.4), rng.uniform(-0.35, 0.25), rng.uniform(-0.25, -0.05)),
        stomach=(rng.uniform(-20, 40), rng.choice([0.2, 0.7, 1.3, 1.9])),
        aorta=(heart * rng.uniform(1.6, 2.1), heart * rng.uniform(0.2, 1.1), rng.uniform(9, 13), rng.normal(0, 0.15)),
        mediastinum=(rng.uniform(-30, 0), -heart * rng.uniform(1.0, 1.3), rng.uniform(8, 20)),
        texture=texture / texture.std(axis=(1, 2, 3), keepdims=True),
    )


def body_signal(
    body: Body, tissues: Tissues, x: Float[np.ndarray, "*point"], y: Float[np.ndarray, "*point"], z: float, pixel: float
) -> Float[np.ndarray, "*point"]:
    """Signal of the surroundings at points of a plane at z; edges are blurred over one pixel (mm)."""
    broad, medium, fine = (_sample(t, x, y, z) for t in body.texture)
    vessels = np.clip(fine - 1.6, 0, 0.8) + np.clip(medium - 1.9, 0, 0.8)
    lung = tissues.lung * (1 + 0.25 * broad + 0.2 * medium) + 0.4 * tissues.blood * vessels
    mx, my, size = body.mediastinum
    mediastinum = size - np.hypot((x - mx) / 2.2, y - my - 0.2 * z) + 5 * broad
    out = _mix(lung, tissues.fat * (0.7 + 0.1 * medium), mediastinum, 2 * pixel)
    depth = y - body.diaphragm[0] - body.diaphragm[1] * x - body.diaphragm[2] * z + 4 * broad
    organ = tissues.liver * (1 + 0.06 * medium + 0.04 * fine) + 0.4 * np.clip(medium - 1.5, 0, 1)
    stomach = tissues.liver * body.stomach[1] * (1 + 0.15 * medium)
    organ = _mix(organ, stomach, x - body.stomach[0] - 6 * broad, 3 * pixel)
    out = _mix(out, 0.7 * tissues.fat, depth + 3, pixel)
    out = _mix(out, organ, depth, pixel)
    ax, ay, radius, drift = body.aorta
    distance = radius - np.hypot(x - ax - drift * z, y - ay)
    out = _mix(out, tissues.muscle, distance + 2, pixel)
    out = _mix(out, 0.95 * tissues.blood, distance, pixel)
    return _chest_wall(body, tissues, out, (x, y, z), (broad, medium), pixel)


def _chest_wall(
    body: Body,
    tissues: Tissues,
    signal: np.ndarray,
    at: tuple[np.ndarray, np.ndarray, float],
    texture: tuple[np.ndarray, np.ndarray],
    pixel: float,
) -> np.ndarray:
    distance, angle, slope = body.chest
    (x, y, z), (broad, medium) = at, texture
    along = -x * np.sin(angle) + y * np.cos(angle)
    out = x * np.cos(angle) + y * np.sin(angle) - distance - slope * z + along**2 / 400 + 3 * broad
    ribs = tissues.muscle * (1 + 0.15 * medium) + 0.5 * tissues.fat * np.clip(np.cos(along / 4.5) - 0.4, 0, 1)
    signal = _mix(signal, ribs, out, pixel)
    muscle, fat = body.layers
    signal = _mix(signal, tissues.fat * (1 + 0.05 * medium), out - muscle, pixel)
    return _mix(signal, 0 * signal, out - muscle - fat, pixel)


def _mix(signal: np.ndarray, inner: np.ndarray | float, distance: np.ndarray, pixel: float) -> np.ndarray:
    """`inner` where the distance inside is positive, with an edge one pixel wide."""
    return signal + (inner - signal) * np.clip(0.5 + distance / pixel, 0, 1)


def _sample(texture: np.ndarray, x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
    at = [(axis + EXTENT) / (2 * EXTENT) * CELLS for axis in (x, y, np.full_like(x, 0.5 * z))]
    return ndimage.map_coordinates(texture, at, order=1, mode="grid-wrap")
