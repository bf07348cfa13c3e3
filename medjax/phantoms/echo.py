"""Simulated echocardiograms with perfect labels: apical two- and four-chamber views at end-diastole and end-systole.

    data = echo(seed, number=200, size=64, hard=0.2)

An image is made as a scanner makes one. Scatterers on a polar grid have the strength of the tissue they lie in; the
pulse blurs them (narrow axially, wide laterally, so speckle grows with depth), the envelope of the sum is
Rayleigh-distributed speckle; attenuation, shadows of ribs and lung, clutter near the probe and gain follow; then
logarithmic compression and conversion to a sector. A fraction of the images is *hard but correct*: low contrast,
shadows, clutter over the apex. Their labels are as true as the others'.

No patient: it serves to test methods whose truth must be known. Labels are CAMUS's: 1 left ventricle (LV), 2 its wall,
3 left atrium.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

CLASSES = ("background", "left ventricle", "myocardium", "left atrium")
LV, MYOCARDIUM, ATRIUM = 1, 2, 3  # class numbers
GROUPS = ("2CH ED", "2CH ES", "4CH ED", "4CH ES")
HALF_ANGLE, NEAR, FAR = (
    0.66,
    0.06,
    1.0,
)  # sector: half angle, radians; nearest and farthest depth, as fractions of the depth
BEAMS, SAMPLES = 96, 192  # polar grid: number of scan lines, samples of each
# Echo strength of blood, myocardium, atrial wall and other tissue, pericardium; amplitudes
BLOOD, MUSCLE, OTHER, PERICARDIUM, VALVE = 0.05, 0.55, 0.3, 1.4, 1.0


class Echo(NamedTuple):
    """Simulated echocardiograms in 0 … 1 and their labels; `hard`: poor quality; `group`: view and phase (`GROUPS`)."""

    images: Float[np.ndarray, "image side side 1"]
    labels: Int[np.ndarray, "image side side"]
    hard: Bool[np.ndarray, " image"]
    group: Int[np.ndarray, " image"]


class Heart(NamedTuple):
    """Shape of one heart in one view and phase; lengths as fractions of the depth, angles in radians."""

    base: tuple[float, float]  # middle of the mitral annulus: lateral, axial
    tilt: float  # tilt of the long axis
    length: float  # length from annulus to apex
    width: float  # half, of the ventricle at its widest
    wall: float  # thickness of the myocardium
    atrium: tuple[float, float]  # half width, length
    apex_exponent: float  # bluntness of the apex: an exponent
    waves: np.ndarray  # amplitudes of the outline's harmonics
    right_heart: bool  # the view has four chambers


def echo(seed: int, number: int, size: int = 64, hard: float = 0.2) -> Echo:
    """Simulated echocardiograms of `number` hearts, a fraction `hard` of them of poor quality."""
    rng = np.random.default_rng(seed)
    poor = rng.permutation(np.arange(number) < round(hard * number))
    group = rng.permutation(np.arange(number) % len(GROUPS))
    images, labels = list[np.ndarray](), list[np.ndarray]()
    for k in range(number):
        own = np.random.default_rng((seed, k))
        heart = random_heart(own, four_chambers=bool(group[k] >= 2), systole=bool(group[k] % 2))
        lateral, axial = _cartesian(size)
        labels.append(label_image(heart, lateral, axial))
        images.append(b_mode_image(own, heart, size, hard=bool(poor[k])))
    return Echo(np.stack(images)[..., None], np.stack(labels), poor, group)


def random_heart(rng: np.random.Generator, *, four_chambers: bool, systole: bool) -> Heart:
    """Random shape of a heart; in systole the ventricle is smaller, its wall thicker and the atrium larger."""
    squeeze = rng.uniform(0.62, 0.85) if systole else 1.0
    length = rng.uniform(0.40, 0.52) * squeeze**0.5
    return Heart(
        base=(rng.normal(0.02, 0.03), rng.uniform(0.58, 0.66) - (0.03 if systole else 0.0)),
        tilt=rng.normal(0, 0.12),
        length=length,
        width=rng.uniform(0.125, 0.175) * squeeze,
        wall=rng.uniform(0.045, 0.06) * (1.3 if systole else 1.0),
        atrium=(rng.uniform(0.10, 0.15), rng.uniform(0.18, 0.27) * (1.1 if systole else 1.0)),
        apex_exponent=rng.uniform(2.0, 3.0),
        waves=rng.normal(0, 0.03, (2, 3)),
        right_heart=four_chambers,
    )


def label_image(
    heart: Heart, lateral: Float[np.ndarray, "*space"], axial: Float[np.ndarray, "*space"]
) -> Int[np.ndarray, "*space"]:
    """Labels (class numbers) at points of the image plane, in fractions of the depth; also outside the sector."""
    along, side = _axes(heart, lateral, axial)
    endocardium = _ventricle(heart, along, side, 0.0)
    epicardium = _ventricle(heart, along, side, heart.wall)
    out = np.zeros(lateral.shape, np.int32)
    out[_atrium(heart, along, side, 0.0)] = ATRIUM
    out[epicardium] = MYOCARDIUM
    out[endocardium] = LV
    return out


def b_mode_image(rng: np.random.Generator, heart: Heart, size: int, *, hard: bool) -> Float[np.ndarray, "side side"]:
    """Simulated B-mode image of a heart, in 0 … 1."""
    angle, depth = np.meshgrid(
        np.linspace(-HALF_ANGLE, HALF_ANGLE, BEAMS), np.linspace(NEAR, FAR, SAMPLES), indexing="xy"
    )
    strength = _strength(rng, heart, depth * np.sin(angle), depth * np.cos(angle), hard)
    scatterers = strength * (rng.standard_normal(strength.shape) + 1j * rng.standard_normal(strength.shape))
    pulse = rng.uniform(1.4, 1.9) * (1.3 if hard else 1.0), rng.uniform(1.0, 1.5) * (1.5 if hard else 1.0)
    blurred = [ndimage.gaussian_filter(part, pulse, mode="nearest") for part in (scatterers.real, scatterers.imag)]
    envelope = np.hypot(*blurred) * _transmitted(rng, angle, depth, hard)
    envelope = envelope / np.quantile(envelope, 0.98) + rng.uniform(0.004, 0.008) * (3 if hard else 1)
    range_db = rng.uniform(38, 50)
    gray = np.clip(1 + 20 * np.log10(envelope * rng.uniform(0.7, 1.1)) / range_db, 0, 1)
    return _scan_converted(gray, size)


def sector_mask(size: int) -> Bool[np.ndarray, "{size} {size}"]:
    """Mask of the sector, where an image has data."""
    lateral, axial = _cartesian(size)
    depth, angle = np.hypot(lateral, axial), np.arctan2(lateral, axial)
    return (np.abs(angle) <= HALF_ANGLE) & (depth >= NEAR) & (depth <= FAR)


def _strength(rng: np.random.Generator, heart: Heart, lateral: np.ndarray, axial: np.ndarray, hard: bool) -> np.ndarray:
    """Echo strength of the tissue at each location."""
    along, side = _axes(heart, lateral, axial)
    uneven = ndimage.gaussian_filter(rng.standard_normal(lateral.shape), (12, 8))
    tissue = np.exp(0.35 * uneven / uneven.std())
    out = OTHER * tissue
    outside = _ventricle(heart, along, side, 1.25 * heart.wall) & ~_ventricle(heart, along, side, heart.wall)
    out[outside] = PERICARDIUM * rng.uniform(0.5, 1.2)
    if heart.right_heart:  # a dark chamber on the septum's other side, which no label names
        right = ((along - 0.36 * heart.length) / (0.55 * heart.length)) ** 2 + (
            (side + heart.width + heart.wall + 0.085) / 0.085
        ) ** 2
        out[right < 1] = BLOOD
    muscle = MUSCLE * rng.uniform(0.75, 1.1) * (0.65 if hard else 1.0)
    blood = BLOOD * (rng.uniform(2.0, 3.5) if hard else rng.uniform(0.8, 1.6))
    wall = _ventricle(heart, along, side, heart.wall)
    out[wall] = (muscle * tissue)[wall]
    rim = _atrium(heart, along, side, 0.02)
    out[rim & ~wall] = 0.8 * muscle
    out[_atrium(heart, along, side, 0.0) & ~wall] = blood
    inside = _ventricle(heart, along, side, 0.0)
    out[inside] = (blood * tissue**0.5)[inside]
    leaflet = (np.abs(along - 0.02) < 0.012) & (np.abs(side) < 0.8 * heart.width) & (np.abs(side) > 0.15 * heart.width)
    out[leaflet] = VALVE * muscle
    near = rng.uniform(0.25, 0.5) * (2.2 if hard else 0.7)  # clutter: reverberation near the probe, over the apex
    return out + near * MUSCLE * np.exp(-((np.hypot(lateral, axial) / rng.uniform(0.14, 0.2)) ** 2))


def _transmitted(rng: np.random.Generator, angle: np.ndarray, depth: np.ndarray, hard: bool) -> np.ndarray:
    """Fraction of the amplitude that attenuation and shadows transmit."""
    left = np.exp(-rng.uniform(0.6, 1.2) * (1.5 if hard else 1.0) * depth)
    for _ in range(rng.integers(1, 4) if hard else rng.integers(0, 2)):
        middle, width = rng.uniform(-HALF_ANGLE, HALF_ANGLE), rng.uniform(0.06, 0.2)
        deep = rng.uniform(0.7, 0.97) if hard else rng.uniform(0.3, 0.6)
        below = 1 / (1 + np.exp(-(depth - rng.uniform(0.1, 0.35)) / 0.03))
        left = left * (1 - deep * below * np.exp(-(((angle - middle) / width) ** 4)))
    edge = np.clip((HALF_ANGLE - np.abs(angle)) / (0.25 * HALF_ANGLE), 0.25, 1)  # fewer elements see the sector's rim
    return left * edge


def _axes(heart: Heart, lateral: np.ndarray, axial: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along the ventricle's axis (0 at the annulus, growing towards the apex), and across it."""
    x, y = lateral - heart.base[0], heart.base[1] - axial
    along = y * np.cos(heart.tilt) + x * np.sin(heart.tilt)
    return along, x * np.cos(heart.tilt) - y * np.sin(heart.tilt)


def _ventricle(heart: Heart, along: np.ndarray, side: np.ndarray, beyond: float) -> np.ndarray:
    """Mask of the ventricle above the annulus, dilated by `beyond`."""
    t = np.clip(along / (heart.length + beyond), 0, 1)
    waves = [1 + sum(a * np.sin((n + 1) * np.pi * t) for n, a in enumerate(row)) for row in heart.waves]
    half = (
        (heart.width + beyond)
        * (1 - t**heart.apex_exponent) ** 0.5
        * np.where(side > 0, *waves)
        * (0.82 + 0.18 * np.sin(np.pi * t))
    )
    return (along >= 0) & (along <= heart.length + beyond) & (np.abs(side) <= half)


def _atrium(heart: Heart, along: np.ndarray, side: np.ndarray, beyond: float) -> np.ndarray:
    width, length = heart.atrium
    return (along < 0) & (
        (side / (width + beyond)) ** 2 + ((along + 0.42 * length) / (0.58 * length + beyond)) ** 2 <= 1
    )


def _cartesian(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Lateral and axial coordinates of pixels, as fractions of the depth; the probe is at the top."""
    step = (np.arange(size) + 0.5) / size
    axial, lateral = np.meshgrid(step, step - 0.5, indexing="ij")
    return 1.3 * lateral, axial


def _scan_converted(gray: np.ndarray, size: int) -> np.ndarray:
    lateral, axial = _cartesian(size)
    depth, angle = np.hypot(lateral, axial), np.arctan2(lateral, axial)
    rows = (depth - NEAR) / (FAR - NEAR) * (SAMPLES - 1)
    columns = (angle + HALF_ANGLE) / (2 * HALF_ANGLE) * (BEAMS - 1)
    coarse = max(SAMPLES / size / 2, 0.0)
    smooth = ndimage.gaussian_filter(gray, (0.5 * coarse, 0.25 * coarse))
    return np.where(
        sector_mask(size), ndimage.map_coordinates(smooth, [rows, columns], order=1, mode="nearest"), 0
    ).astype(np.float32)
