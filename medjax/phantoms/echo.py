"""Simulated echocardiograms with perfect labels: apical two- and four-chamber views at end-diastole and end-systole.

    data = echo(seed, number=200, size=64, hard=0.2)

An image is made as a scanner makes one. Scatterers on a polar grid have the strength of the tissue they lie in; the
pulse blurs them (narrow along a line, wide across, so speckle grows with depth), the envelope of the sum is
Rayleigh-distributed speckle; attenuation, shadows of ribs and lung, clutter near the probe and gain follow; then
logarithmic compression and conversion to a sector. A share of the images is *hard but correct*: low contrast, shadows,
clutter over the apex. Their labels are as true as the others'.

No patient: it serves to test methods whose truth must be known. Labels are CAMUS's: 1 left ventricle (LV), 2 its wall,
3 left atrium.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

CLASSES = ("background", "left ventricle", "myocardium", "left atrium")
LV, WALL, ATRIUM = 1, 2, 3
GROUPS = ("2CH ED", "2CH ES", "4CH ED", "4CH ES")
HALF_ANGLE, NEAR, FAR = 0.66, 0.06, 1.0  # of the sector: radians, share of the depth
LINES, SAMPLES = 96, 192  # of the polar grid
# echo strength of blood, myocardium, atrial wall and other tissue, pericardium; amplitudes
BLOOD, MUSCLE, OTHER, PERICARDIUM, VALVE = 0.05, 0.55, 0.3, 1.4, 1.0


class Echo(NamedTuple):
    """Images in 0 … 1 and their labels; `hard` marks poor images; `group` numbers view and phase as in `GROUPS`."""

    images: Float[np.ndarray, "image side side 1"]
    labels: Int[np.ndarray, "image side side"]
    hard: Bool[np.ndarray, " image"]
    group: Int[np.ndarray, " image"]


class Anatomy(NamedTuple):
    """One heart in one view and phase; lengths as shares of the depth, angles in radians."""

    base: tuple[float, float]  # middle of the mitral annulus: across, down
    tilt: float
    length: float  # from annulus to apex
    width: float  # half, at its widest
    wall: float
    atrium: tuple[float, float]  # half width, length
    blunt: float  # of the apex
    waves: np.ndarray  # of the outline
    right_heart: bool  # four chambers


def echo(seed: int, number: int, size: int = 64, hard: float = 0.2) -> Echo:
    """`number` images of different hearts, the share `hard` of them poor. The same seed gives the same images."""
    draw = np.random.default_rng(seed)
    poor = draw.permutation(np.arange(number) < round(hard * number))
    group = draw.permutation(np.arange(number) % len(GROUPS))
    images, labels = list[np.ndarray](), list[np.ndarray]()
    for k in range(number):
        own = np.random.default_rng((seed, k))
        heart = anatomy(own, four_chambers=bool(group[k] >= 2), systole=bool(group[k] % 2))
        across, down = _cartesian(size)
        labels.append(label(heart, across, down))
        images.append(image(own, heart, size, hard=bool(poor[k])))
    return Echo(np.stack(images)[..., None], np.stack(labels), poor, group)


def anatomy(draw: np.random.Generator, *, four_chambers: bool, systole: bool) -> Anatomy:
    """A random heart. In systole the ventricle is shorter and narrower, its wall thicker and the atrium larger."""
    squeeze = draw.uniform(0.62, 0.85) if systole else 1.0
    length = draw.uniform(0.40, 0.52) * squeeze**0.5
    return Anatomy(
        base=(draw.normal(0.02, 0.03), draw.uniform(0.58, 0.66) - (0.03 if systole else 0.0)),
        tilt=draw.normal(0, 0.12),
        length=length,
        width=draw.uniform(0.125, 0.175) * squeeze,
        wall=draw.uniform(0.045, 0.06) * (1.3 if systole else 1.0),
        atrium=(draw.uniform(0.10, 0.15), draw.uniform(0.18, 0.27) * (1.1 if systole else 1.0)),
        blunt=draw.uniform(2.0, 3.0),
        waves=draw.normal(0, 0.03, (2, 3)),
        right_heart=four_chambers,
    )


def label(
    heart: Anatomy, across: Float[np.ndarray, "*space"], down: Float[np.ndarray, "*space"]
) -> Int[np.ndarray, "*space"]:
    """Class numbers at points of the image plane, in shares of the depth; the sector does not cut them."""
    along, side = _axes(heart, across, down)
    endocardium = _ventricle(heart, along, side, 0.0)
    epicardium = _ventricle(heart, along, side, heart.wall)
    out = np.zeros(across.shape, np.int32)
    out[_atrium(heart, along, side, 0.0)] = ATRIUM
    out[epicardium] = WALL
    out[endocardium] = LV
    return out


def image(draw: np.random.Generator, heart: Anatomy, size: int, *, hard: bool) -> Float[np.ndarray, "side side"]:
    """One B-mode image in 0 … 1."""
    angle, depth = np.meshgrid(
        np.linspace(-HALF_ANGLE, HALF_ANGLE, LINES), np.linspace(NEAR, FAR, SAMPLES), indexing="xy"
    )
    strength = _strength(draw, heart, depth * np.sin(angle), depth * np.cos(angle), hard)
    scatterers = strength * (draw.standard_normal(strength.shape) + 1j * draw.standard_normal(strength.shape))
    pulse = draw.uniform(1.4, 1.9) * (1.3 if hard else 1.0), draw.uniform(1.0, 1.5) * (1.5 if hard else 1.0)
    blurred = [ndimage.gaussian_filter(part, pulse, mode="nearest") for part in (scatterers.real, scatterers.imag)]
    envelope = np.hypot(*blurred) * _transmitted(draw, angle, depth, hard)
    envelope = envelope / np.quantile(envelope, 0.98) + draw.uniform(0.004, 0.008) * (3 if hard else 1)
    range_db = draw.uniform(38, 50)
    grey = np.clip(1 + 20 * np.log10(envelope * draw.uniform(0.7, 1.1)) / range_db, 0, 1)
    return _scan_converted(grey, size)


def sector(size: int) -> Bool[np.ndarray, "{size} {size}"]:
    """Where an image has data."""
    across, down = _cartesian(size)
    depth, angle = np.hypot(across, down), np.arctan2(across, down)
    return (np.abs(angle) <= HALF_ANGLE) & (depth >= NEAR) & (depth <= FAR)


def _strength(
    draw: np.random.Generator, heart: Anatomy, across: np.ndarray, down: np.ndarray, hard: bool
) -> np.ndarray:
    """Echo strength of the tissue at each place."""
    along, side = _axes(heart, across, down)
    uneven = ndimage.gaussian_filter(draw.standard_normal(across.shape), (12, 8))
    tissue = np.exp(0.35 * uneven / uneven.std())
    out = OTHER * tissue
    outside = _ventricle(heart, along, side, 1.25 * heart.wall) & ~_ventricle(heart, along, side, heart.wall)
    out[outside] = PERICARDIUM * draw.uniform(0.5, 1.2)
    if heart.right_heart:  # a dark chamber on the septum's other side, which no label names
        right = ((along - 0.36 * heart.length) / (0.55 * heart.length)) ** 2 + (
            (side + heart.width + heart.wall + 0.085) / 0.085
        ) ** 2
        out[right < 1] = BLOOD
    muscle = MUSCLE * draw.uniform(0.75, 1.1) * (0.65 if hard else 1.0)
    blood = BLOOD * (draw.uniform(2.0, 3.5) if hard else draw.uniform(0.8, 1.6))
    wall = _ventricle(heart, along, side, heart.wall)
    out[wall] = (muscle * tissue)[wall]
    rim = _atrium(heart, along, side, 0.02)
    out[rim & ~wall] = 0.8 * muscle
    out[_atrium(heart, along, side, 0.0) & ~wall] = blood
    inside = _ventricle(heart, along, side, 0.0)
    out[inside] = (blood * tissue**0.5)[inside]
    leaflet = (np.abs(along - 0.02) < 0.012) & (np.abs(side) < 0.8 * heart.width) & (np.abs(side) > 0.15 * heart.width)
    out[leaflet] = VALVE * muscle
    near = draw.uniform(0.25, 0.5) * (2.2 if hard else 0.7)  # clutter: reverberation near the probe, over the apex
    return out + near * MUSCLE * np.exp(-((np.hypot(across, down) / draw.uniform(0.14, 0.2)) ** 2))


def _transmitted(draw: np.random.Generator, angle: np.ndarray, depth: np.ndarray, hard: bool) -> np.ndarray:
    """What attenuation and shadows leave of the amplitude."""
    left = np.exp(-draw.uniform(0.6, 1.2) * (1.5 if hard else 1.0) * depth)
    for _ in range(draw.integers(1, 4) if hard else draw.integers(0, 2)):
        middle, width = draw.uniform(-HALF_ANGLE, HALF_ANGLE), draw.uniform(0.06, 0.2)
        deep = draw.uniform(0.7, 0.97) if hard else draw.uniform(0.3, 0.6)
        below = 1 / (1 + np.exp(-(depth - draw.uniform(0.1, 0.35)) / 0.03))
        left = left * (1 - deep * below * np.exp(-(((angle - middle) / width) ** 4)))
    edge = np.clip((HALF_ANGLE - np.abs(angle)) / (0.25 * HALF_ANGLE), 0.25, 1)  # fewer elements see the sector's rim
    return left * edge


def _axes(heart: Anatomy, across: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along the ventricle's axis (0 at the annulus, growing towards the apex), and across."""
    x, y = across - heart.base[0], heart.base[1] - down
    along = y * np.cos(heart.tilt) + x * np.sin(heart.tilt)
    return along, x * np.cos(heart.tilt) - y * np.sin(heart.tilt)


def _ventricle(heart: Anatomy, along: np.ndarray, side: np.ndarray, beyond: float) -> np.ndarray:
    """Inside the outline moved outwards by `beyond`, above the annulus."""
    t = np.clip(along / (heart.length + beyond), 0, 1)
    waves = [1 + sum(a * np.sin((n + 1) * np.pi * t) for n, a in enumerate(row)) for row in heart.waves]
    half = (
        (heart.width + beyond)
        * (1 - t**heart.blunt) ** 0.5
        * np.where(side > 0, *waves)
        * (0.82 + 0.18 * np.sin(np.pi * t))
    )
    return (along >= 0) & (along <= heart.length + beyond) & (np.abs(side) <= half)


def _atrium(heart: Anatomy, along: np.ndarray, side: np.ndarray, beyond: float) -> np.ndarray:
    width, length = heart.atrium
    return (along < 0) & (
        (side / (width + beyond)) ** 2 + ((along + 0.42 * length) / (0.58 * length + beyond)) ** 2 <= 1
    )


def _cartesian(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of pixels (row: depth, column: across), in shares of the depth; the probe is at the top."""
    step = (np.arange(size) + 0.5) / size
    down, across = np.meshgrid(step, step - 0.5, indexing="ij")
    return 1.3 * across, down


def _scan_converted(grey: np.ndarray, size: int) -> np.ndarray:
    across, down = _cartesian(size)
    depth, angle = np.hypot(across, down), np.arctan2(across, down)
    rows = (depth - NEAR) / (FAR - NEAR) * (SAMPLES - 1)
    columns = (angle + HALF_ANGLE) / (2 * HALF_ANGLE) * (LINES - 1)
    coarse = max(SAMPLES / size / 2, 0.0)
    smooth = ndimage.gaussian_filter(grey, (0.5 * coarse, 0.25 * coarse))
    return np.where(sector(size), ndimage.map_coordinates(smooth, [rows, columns], order=1, mode="nearest"), 0).astype(
        np.float32
    )
