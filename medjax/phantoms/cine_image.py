"""Signal of one short-axis slice of a heart in a bSSFP cine, with partial volume in the plane and through it.

A pixel is covered by a tissue as far as the surface's distance along the radius says (an edge one pixel wide), and the
slice is the mean of sub-slices over its thickness. Papillary muscles and trabeculae are dark in the blood pool; their
label is that of the LV.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from medjax.phantoms.cine_anatomy import (
    LV,
    Azimuth,
    Heart,
    Radii,
    Surfaces,
    azimuth,
    center_line,
    endocardial_radius,
    labels_of_radii,
    radii,
)
from medjax.phantoms.cine_body import Tissues

ATRIAL_WALL, RV_WALL, PERICARDIUM = 2.0, 2.5, 1.2  # mm


class Points(NamedTuple):
    """Points of the sub-slices of one slice near the heart: cylindrical coordinates (mm, radians)."""

    radius: Float[np.ndarray, "*sub point"]
    azimuth: Azimuth
    w: Float[np.ndarray, "*sub point"]


def points(heart: Heart, u: np.ndarray, v: np.ndarray, w: np.ndarray) -> Points:
    """Cylindrical coordinates of points (u, v, w) in mm."""
    cu, cv = center_line(heart, w)
    return Points(np.hypot(u - cu, v - cv), azimuth(heart, np.arctan2(v - cv, u - cu)), w)


def slice_signal(
    shape: Surfaces, at: Points, tissues: Tissues, surroundings: Float[np.ndarray, " point"], pixel: float
) -> Float[np.ndarray, " point"]:
    """Signal of points of a slice, mean over its sub-slices; `pixel` is the width of an edge, mm."""
    surface = radii(shape, at.azimuth, at.w)
    below = _coverage(at.w - shape.base, pixel)
    right = surface.right - surface.epicardium
    inside = at.w < shape.heart.length
    wall = surface.right + RV_WALL * np.clip(right / 3, 0, 1)
    fat = _fat(shape.heart, surface, wall, at.azimuth.angle)
    signal = np.broadcast_to(surroundings, at.radius.shape)
    signal = _over(signal, 1.3 * tissues.lung, at.radius - np.where(inside, fat + PERICARDIUM, -9), pixel)
    signal = _over(signal, tissues.fat, at.radius - np.where(inside, fat, -9), pixel)
    heart = _over(signal, tissues.myocardium, at.radius - wall, pixel)
    heart = _over(heart, 0.96 * tissues.blood, at.radius - surface.right, pixel)
    atria = _over(heart, tissues.fat, at.radius - surface.epicardium, pixel)
    heart = _over(heart, tissues.myocardium, at.radius - surface.epicardium, pixel)
    heart = _over(heart, _blood_pool(shape, at, surface, tissues, pixel), at.radius - surface.endocardium, pixel)
    atrium = surface.endocardium + 0.45 * (surface.epicardium - surface.endocardium)
    atria = _over(atria, tissues.myocardium, at.radius - atrium - ATRIAL_WALL, pixel)
    atria = _over(atria, 0.95 * tissues.blood, at.radius - atrium, pixel)
    return np.mean(atria + below * (heart - atria), axis=0)


def slice_labels(shape: Surfaces, at: Points) -> tuple[Int[np.ndarray, " point"], Bool[np.ndarray, " point"]]:
    """Class numbers at the slice's centre (its middle sub-slice), and a mask of the papillary muscles."""
    half = len(at.w) // 2
    middle = Points(at.radius[half], Azimuth(*(part[half] for part in at.azimuth)), at.w[half])
    labels = labels_of_radii(radii(shape, middle.azimuth, middle.w), middle.radius, middle.w >= shape.base)
    return labels, (papillary_distance(shape, middle) < 0) & (labels == LV)


def papillary_distance(shape: Surfaces, at: Points) -> Float[np.ndarray, "*point"]:
    """Distance from the nearest papillary muscle's surface, negative inside, mm."""
    t = np.clip((at.w - shape.base) / (shape.endocardial_apex - shape.base), 0, 1)
    thick = (shape.epicardial_radius - shape.endocardial_radius) / 8.0
    out = np.full_like(at.w, np.inf)
    for angle, radius, half in shape.heart.papillary.tolist():
        bell = np.sqrt(np.clip(1 - ((t - 0.55) / (1.4 * half)) ** 2, 0, 1))
        relative = float(azimuth(shape.heart, np.array([angle])).endocardium[0])
        centre = np.maximum(endocardial_radius(shape, relative, at.w) - 0.9 * radius * thick, 0)
        along = at.radius * np.cos(at.azimuth.angle - angle) - centre
        across = at.radius * np.sin(at.azimuth.angle - angle)
        distance = np.hypot(along / 1.25, across) - radius * thick**0.5 * bell
        out = np.minimum(out, np.where(bell > 0, distance, np.inf))
    return out


def _blood_pool(shape: Surfaces, at: Points, surface: Radii, tissues: Tissues, pixel: float) -> np.ndarray:
    """Blood with papillary muscles, and trabeculae that darken a rim which is wider towards the apex."""
    t = np.clip(at.w / shape.heart.length, 0, 1)
    depth = surface.endocardium - at.radius
    phase = shape.heart.seed % 628 / 100
    strands = 0.5 + 0.5 * np.sin(13 * at.azimuth.angle + phase + 0.25 * at.w) * np.sin(
        7 * at.azimuth.angle - phase + 0.11 * at.w
    )
    rim = (0.25 + 0.5 * t) * strands * np.clip(1 - depth / (1.5 + 3.0 * t), 0, 1)
    blood = tissues.blood + rim * (tissues.myocardium - tissues.blood)
    return _over(blood, 1.1 * tissues.myocardium, papillary_distance(shape, at), pixel)


def _fat(heart: Heart, surface: Radii, wall: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Radius of the epicardial fat, thickest in the grooves between the ventricles."""
    groove = np.exp(-(((np.abs((angle - heart.septum + np.pi) % (2 * np.pi) - np.pi) - heart.opening) / 0.22) ** 2))
    uneven = 0.6 + 0.4 * np.sin(2 * angle + heart.seed % 7)
    return wall + heart.fat * (uneven + 1.6 * groove)


def _over(signal: np.ndarray, inner: np.ndarray | float, distance: np.ndarray, pixel: float) -> np.ndarray:
    """`inner` where the distance from a surface is negative, with an edge one pixel wide."""
    return signal + (inner - signal) * _coverage(-distance, pixel)


def _coverage(inside: np.ndarray, pixel: float) -> np.ndarray:
    return np.clip(0.5 + inside / pixel, 0, 1)
