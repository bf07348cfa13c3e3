"""Simulated short-axis cine MRI of hearts whose volumes and mass are known, on three scanners, scanned twice.

    scan, rescan = scan_rescan(seed=0, number=3, protocol=PROTOCOLS["B"])
    scan.image, scan.labels                      # (x, y, slice, frame); RV 1, myocardium 2, LV 3
    rescan.truth.lvedv - scan.truth.lvedv        # the true physiological change, ml

The anatomy is continuous (`cine_anatomy`), so its truth is no voxel count. A scan has a slice plan of its own (offset
along the long axis, tilt), a position and rotation in the plane, respiratory shifts of the slices, thick slices with
gaps, the tissue contrast of its protocol, a bias field of the coils, bands, flow and Rician noise. Labels are the
anatomy at the slices' centres, what an ideal annotator draws. No patient.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from medjax.errors import ConfigError
from medjax.phantoms.cine_anatomy import (
    Heart,
    Surfaces,
    Truth,
    azimuth,
    center_line,
    radii,
    random_heart,
    surfaces,
    truth,
)
from medjax.phantoms.cine_body import Tissues, body_signal, random_body
from medjax.phantoms.cine_cycle import contraction
from medjax.phantoms.cine_image import Points, points, slice_labels, slice_signal

__all__ = ["PROTOCOLS", "CineScan", "Protocol", "changed_heart", "cine", "random_heart", "scan_rescan"]


class Protocol(NamedTuple):
    """A scanner and its cine protocol; lengths in mm, signals relative to blood's."""

    pixel_mm: float
    thickness_mm: float
    gap_mm: float
    frames: int  # a cardiac cycle
    pixels: int  # side of the square field of view
    tissues: Tissues
    noise: float  # standard deviation in each of the two channels
    bias: float  # of the coils: standard deviation of the logarithm
    blur_mm: float  # standard deviation of the point spread
    shift_mm: float  # respiratory shift of a slice in the plane: standard deviation
    tilt: float  # of the slices against the heart's short axis: standard deviation, radians
    bands: float  # greatest depth of off-resonance bands
    sub_slices: int = 5  # an odd number


PROTOCOLS = {
    "A": Protocol(1.5, 8.0, 2.0, 25, 128, Tissues(), 0.04, 0.15, 0.6, 1.0, 0.05, 0.15),
    "B": Protocol(1.8, 10.0, 0.0, 20, 108, Tissues(1.0, 0.38, 0.8, 0.12, 0.35, 0.55), 0.07, 0.28, 0.9, 1.5, 0.07, 0.35),
    "C": Protocol(1.25, 6.0, 4.0, 22, 144, Tissues(1.0, 0.43, 0.65, 0.1, 0.45, 0.65), 0.09, 0.25, 1.0, 2.0, 0.07, 0.25),
}


class CineScan(NamedTuple):
    """One scan: images and labels (RV 1, myocardium 2, LV 3 with its papillary muscles), and the heart's truth."""

    image: Float[np.ndarray, "x y z frame"]
    labels: Int[np.ndarray, "x y z frame"]
    spacing: tuple[float, float, float]  # mm; along z the distance of slice centres: thickness + gap
    thickness: float
    frames: tuple[int, ...]  # imaged, of the protocol's
    ed: int  # positions in the frame axis of the largest and the smallest LV
    es: int
    truth: Truth
    papillary: Bool[np.ndarray, "x y z frame"]


class _Plan(NamedTuple):
    """Where a scan's slices lie: heart coordinates are rotation @ (in-plane − centre, z) about the pivot."""

    centre: Float[np.ndarray, " 2"]
    turn: float
    rotation: Float[np.ndarray, "3 3"]
    z: Float[np.ndarray, " slice"]
    shifts: Float[np.ndarray, "slice 2"]


def scan_rescan(
    seed: int, number: int, protocol: Protocol, frames: Literal["ed_es"] | None = "ed_es", change: float | int = 1.0
) -> tuple[CineScan, CineScan]:
    """Scan and rescan of subject `number`: the same heart with new noise, position and slice plan.

    Between them the heart changes by `change` times a random physiological change (EDV 3 %, EF 1.5 points, mass 1 %;
    standard deviations); 0 is no change. One seed and number are one heart, whatever `change` and protocol.
    """
    heart = random_heart(np.random.default_rng((seed, number, 0)))
    later = changed_heart(np.random.default_rng((seed, number, 1)), heart, change)
    first, second = (np.random.default_rng((seed, number, stream)) for stream in (2, 3))
    return cine(first, heart, protocol, frames), cine(second, later, protocol, frames)


def changed_heart(rng: np.random.Generator, heart: Heart, change: float | int = 1.0) -> Heart:
    """The heart at another time: volumes and mass differ by `change` times a random physiological change."""
    load, function, mass, right = (rng.normal(0, (0.03, 0.015, 0.01, 0.015)) * change).tolist()
    lvedv = heart.lvedv * (1 + load)
    ef = float(np.clip(1 - heart.lvesv / heart.lvedv + function, 0.2, 0.8))
    rvedv = heart.rvedv * (1 + load + right)
    stroke = (lvedv * ef) * (heart.rvedv - heart.rvesv) / (heart.lvedv - heart.lvesv)
    if not change:
        return heart
    return heart._replace(
        lvedv=lvedv, lvesv=lvedv * (1 - ef), rvedv=rvedv, rvesv=rvedv - stroke, lvm=heart.lvm * (1 + mass)
    )


def cine(
    rng: np.random.Generator,
    heart: Heart,
    protocol: Protocol,
    frames: Literal["ed_es"] | tuple[int, ...] | list[int] | None = None,
) -> CineScan:
    """One scan of a heart: all frames of the protocol, only those at end-diastole and end-systole, or those named.

    Raises:
        ConfigError: a frame is not one of the protocol's, or the number of sub-slices is even.
    """
    cycle = contraction(heart, np.arange(protocol.frames) / protocol.frames)
    chosen = _chosen(frames, cycle)
    if protocol.sub_slices % 2 == 0:
        raise ConfigError(f"sub_slices: {protocol.sub_slices}; expected an odd number")
    plan = _slice_plan(rng, heart, protocol)
    tissues = _jittered(rng, protocol.tissues)
    body = random_body(heart.seed, 0.37 * heart.length)
    ed_surfaces = surfaces(heart, 0.0)
    shapes = [surfaces(heart, cycle[frame]) for frame in chosen]
    side, pixel = protocol.pixels, protocol.pixel_mm
    image = np.zeros((side, side, len(plan.z), len(chosen)), np.float32)
    labels = np.zeros(image.shape, np.int32)
    papillary = np.zeros(image.shape, bool)
    for k, z in enumerate(plan.z):
        x, y = _in_plane(protocol, plan, k)
        still = body_signal(body, tissues, x, y, z, pixel)
        image[:, :, k, :] = still[..., None]
        near = _near_heart(ed_surfaces, x, y, z)
        offsets = protocol.thickness_mm * ((np.arange(protocol.sub_slices) + 0.5) / protocol.sub_slices - 0.5)
        at = _heart_points(heart, plan, x[near], y[near], z + offsets)
        for n, shape in enumerate(shapes):
            image[near, k, n] = slice_signal(shape, at, tissues, still[near], pixel)
            labels[near, k, n], papillary[near, k, n] = slice_labels(shape, at)
    spacing = (pixel, pixel, protocol.thickness_mm + protocol.gap_mm)
    image = _scanner(rng, image, protocol)
    chosen_cycle = cycle[chosen]
    ed, es = int(np.argmin(chosen_cycle)), int(np.argmax(chosen_cycle))
    return CineScan(image, labels, spacing, protocol.thickness_mm, tuple(chosen), ed, es, truth(heart), papillary)


def _chosen(frames: Literal["ed_es"] | tuple[int, ...] | list[int] | None, cycle: np.ndarray) -> list[int]:
    if frames is None:
        return list(range(len(cycle)))
    if frames == "ed_es":
        return [0, int(np.argmax(cycle))]
    unknown = [frame for frame in frames if frame not in range(len(cycle))]
    if unknown or not frames:
        raise ConfigError(f"frames: {frames}; expected numbers of 0 … {len(cycle) - 1}")
    return [int(frame) for frame in frames]


def _slice_plan(rng: np.random.Generator, heart: Heart, protocol: Protocol) -> _Plan:
    """Slices from above the base to beyond the apex, with a random offset, tilt, position and respiratory shifts."""
    distance = protocol.thickness_mm + protocol.gap_mm
    z = np.arange(-rng.uniform(0.2, 1.2) * distance, heart.length + 0.3 * distance, distance)
    turn = rng.normal(0, 0.12)
    a, b = rng.normal(0, protocol.tilt, 2)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    centre = np.array([18.0, 2.0]) + rng.normal(0, 5.0, 2)
    shifts = rng.normal(0, protocol.shift_mm, (len(z), 2))
    return _Plan(centre, turn, about_x @ about_y, z, shifts)


def _in_plane(protocol: Protocol, plan: _Plan, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of pixels relative to the heart, mm, in the patient's axes."""
    axis = (np.arange(protocol.pixels) - 0.5 * (protocol.pixels - 1)) * protocol.pixel_mm
    x, y = np.meshgrid(*(axis - c - s for c, s in zip(plan.centre, plan.shifts[k], strict=True)), indexing="ij")
    return x * np.cos(plan.turn) + y * np.sin(plan.turn), y * np.cos(plan.turn) - x * np.sin(plan.turn)


def _near_heart(ed: Surfaces, x: np.ndarray, y: np.ndarray, z: float) -> Bool[np.ndarray, "x y"]:
    """Mask of pixels whose signal may be the heart's, for the largest heart and with room for the slice's tilt."""
    cu, cv = center_line(ed.heart, np.full_like(x, z))
    outer = radii(ed, azimuth(ed.heart, np.arctan2(y - cv, x - cu)), np.full_like(x, z - 15)).right
    return np.hypot(x - cu, y - cv) < outer + 20


def _heart_points(heart: Heart, plan: _Plan, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Points:
    pivot = 0.5 * heart.length
    x, y, z = np.broadcast_arrays(x[None], y[None], z[:, None] - pivot)
    u, v, w = (row[0] * x + row[1] * y + row[2] * z for row in plan.rotation)
    return points(heart, *(axis.astype(np.float32) for axis in (u, v, w + pivot)))


def _jittered(rng: np.random.Generator, tissues: Tissues) -> Tissues:
    return Tissues(tissues.blood, *(value * float(np.exp(rng.normal(0, 0.08))) for value in tissues[1:]))


def _scanner(rng: np.random.Generator, image: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Point spread, flow, bands, coils and Rician noise; a scan's arbitrary units."""
    side, slices, frames = image.shape[0], image.shape[2], image.shape[3]
    axis = np.linspace(-1, 1, side)
    x, y = axis[:, None, None, None], axis[None, :, None, None]
    sigma = protocol.blur_mm / protocol.pixel_mm
    image = ndimage.gaussian_filter(image, (sigma, sigma, 0, 0), mode="nearest")
    slope, bend = rng.normal(0, protocol.bias, 2), rng.normal(0, 0.5 * protocol.bias, 3)
    coil = slope[0] * x + (slope[1] - protocol.bias) * y + bend[0] * x**2 + bend[1] * y**2 + bend[2] * x * y
    angle, place = rng.uniform(0, np.pi), rng.uniform(0.45, 0.9) * rng.choice([-1, 1])
    line = x * np.cos(angle) + y * np.sin(angle) + 0.15 * np.sin(3 * x - 2 * y) - place
    band = 1 - rng.uniform(0, protocol.bands) * np.exp(-((line / 0.07) ** 2))
    flow = 1 + 0.03 * rng.standard_normal((1, 1, slices, frames))
    image = image * np.exp(coil) * band * flow
    real, imaginary = protocol.noise * rng.standard_normal((2, *image.shape), dtype=np.float32)
    return (rng.uniform(150, 400) * np.hypot(image + real, imaginary)).astype(np.float32)
