"""Left and right ventricle as a continuous shape of the position along the long axis and of the cardiac phase.

Cylindrical coordinates (radius, angle, w) about the long axis of the left ventricle (LV), mm; w runs from the base at
end-diastole (ED, w = 0) to the epicardial apex. With contraction s (0 at ED, 1 at end-systole, ES) the base lies at
b = s · shortening, and with t = (w − b) / (apex − b) in 0 … 1 both surfaces of the LV are

    radius(t, angle) = R · sqrt(1 − t^p) · (1 + Σ a_n cos(n angle + phase_n)),
    volume = π R² (apex − b) p / (p + 1) (1 + Σ a_n² / 2).

The volumes are prescribed and the radii R follow from them: cavity EDV − s · SV; epicardium that of cavity and wall,
whose volume is nearly conserved, so that the wall thickens. The right ventricle (RV) is a crescent on the septum,
between the epicardium and a free wall at D · g(t) · f(angle) from it; D follows from its volume (quadrature).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

DENSITY = 1.05  # of myocardium, g/ml
RV, MYOCARDIUM, LV = 1, 2, 3  # class numbers of ACDC; 0 is the background
HARMONICS = (2, 3, 4)


class Heart(NamedTuple):
    """One heart: volumes in ml, mass in g, lengths in mm, angles in radians."""

    lvedv: float  # end-diastolic volume of the LV
    lvesv: float
    rvedv: float
    rvesv: float
    lvm: float  # mass of the LV's myocardium
    length: float  # of the LV from base to epicardial apex at ED
    apical_wall: float  # thickness of the apex at ED
    shortening: float  # displacement of the base from ED to ES
    exponent: float  # bluntness p
    endocardium: Float[np.ndarray, "2 3"]  # harmonics: amplitudes and phases
    epicardium: Float[np.ndarray, "2 3"]
    bend: Float[np.ndarray, " 2"]  # displacement of the long axis half way to the apex
    compression: float  # fraction of the wall's volume lost at ES
    septum: float  # angle of the septum's middle
    opening: float  # half angle of the RV's crescent
    rv_length: float  # as a fraction of the LV's
    rv_skew: float  # asymmetry of the crescent
    systole: float  # duration of systole, as a fraction of the cardiac cycle
    atrial_kick: float  # fraction of the stroke volume that the atrium's contraction fills
    papillary: Float[np.ndarray, "2 3"]  # of two muscles: angle, radius, half length as a fraction of the LV's
    fat: float  # mean thickness of epicardial fat
    seed: int  # of what surrounds the heart


class Truth(NamedTuple):
    """Volumes (ml) at ED and ES and mass (g) of the continuous anatomy."""

    lvedv: float
    lvesv: float
    rvedv: float
    rvesv: float
    lvm: float


class Surfaces(NamedTuple):
    """Surfaces of one heart at one cardiac phase, mm."""

    heart: Heart
    base: float
    endocardial_apex: float
    endocardial_radius: float
    epicardial_radius: float
    rv_width: float


class Azimuth(NamedTuple):
    """Angles about the long axis, and the surfaces' harmonics there: radii relative to the mean."""

    angle: Float[np.ndarray, "*point"]
    endocardium: Float[np.ndarray, "*point"]
    epicardium: Float[np.ndarray, "*point"]


class Radii(NamedTuple):
    """Distances of the surfaces from the long axis, mm; a point nearer than `endocardium` lies in the LV."""

    endocardium: Float[np.ndarray, "*point"]
    epicardium: Float[np.ndarray, "*point"]
    right: Float[np.ndarray, "*point"]  # the RV's free wall


def random_heart(rng: np.random.Generator) -> Heart:
    """Random heart: EDV 90–220 ml, EF 35–70 %, in one third reduced; the RV's stroke volume is about the LV's."""
    lvedv = float(np.clip(145 * np.exp(rng.normal(0, 0.22)), 90, 220))
    ef = float(np.clip(rng.uniform(0.35, 0.55) if rng.random() < 1 / 3 else rng.normal(0.61, 0.045), 0.35, 0.70))
    length = 96 * (lvedv / 145) ** (1 / 3) * rng.uniform(0.94, 1.06)
    rv_excess = float(rng.uniform(0.95, 1.25))
    papillary = [[at + rng.normal(0, 0.12), rng.uniform(3.0, 5.0), rng.uniform(0.16, 0.24)] for at in (-0.75, 0.85)]
    septum = np.pi + rng.normal(0, 0.15)
    return Heart(
        lvedv=lvedv,
        lvesv=lvedv * (1 - ef),
        rvedv=lvedv * rv_excess,
        rvesv=lvedv * (rv_excess - ef * float(rng.uniform(0.95, 1.0))),
        lvm=lvedv * float(np.clip(rng.normal(0.75, 0.13), 0.5, 1.1)),
        length=length,
        apical_wall=rng.uniform(4.0, 6.0),
        shortening=rng.uniform(10, 14),
        exponent=rng.uniform(1.9, 2.8),
        endocardium=_harmonics(rng, 0.025),
        epicardium=_harmonics(rng, 0.012),
        bend=rng.normal(0, 2.5, 2),
        compression=rng.uniform(0, 0.05),
        septum=septum,
        opening=rng.uniform(1.25, 1.6),
        rv_length=rng.uniform(0.78, 0.92),
        rv_skew=rng.normal(0, 0.12),
        systole=rng.uniform(0.32, 0.38),
        atrial_kick=rng.uniform(0.12, 0.28),
        papillary=np.array(papillary) + np.array([septum - np.pi, 0, 0]),
        fat=rng.uniform(1.0, 4.5),
        seed=int(rng.integers(2**31)),
    )


def truth(heart: Heart) -> Truth:
    """Volumes and mass of a heart's continuous anatomy."""
    return Truth(heart.lvedv, heart.lvesv, heart.rvedv, heart.rvesv, heart.lvm)


def surfaces(heart: Heart, contraction: float) -> Surfaces:
    """Surfaces at a contraction s of 0 (ED) … 1 (ES), which enclose the prescribed volumes."""
    s = float(contraction)
    cavity = 1e3 * (heart.lvedv + s * (heart.lvesv - heart.lvedv))
    wall = 1e3 * heart.lvm / DENSITY * (1 - s * heart.compression)
    base = s * heart.shortening
    inner_apex = heart.length - heart.apical_wall * (1 + 0.5 * s)
    inner = _radius(heart, cavity, inner_apex - base, heart.endocardium)
    outer = _radius(heart, cavity + wall, heart.length - base, heart.epicardium)
    narrow = Surfaces(heart, base, inner_apex, inner, outer, 0.0)
    return narrow._replace(rv_width=_rv_width(narrow, 1e3 * (heart.rvedv + s * (heart.rvesv - heart.rvedv))))


def azimuth(heart: Heart, angle: Float[np.ndarray, "*point"]) -> Azimuth:
    """Azimuths about a heart's long axis with the harmonics there, which hold for every cardiac phase."""
    return Azimuth(angle, 1 + _wave(heart.endocardium, angle), 1 + _wave(heart.epicardium, angle))


def endocardial_radius(
    shape: Surfaces, relative: Float[np.ndarray, "*point"] | float, w: Float[np.ndarray, "*point"]
) -> Float[np.ndarray, "*point"]:
    """Distance of the endocardium from the long axis, mm, where its harmonics are `relative`."""
    t = _along(w, shape.base, shape.endocardial_apex)
    return shape.endocardial_radius * relative * np.sqrt(1 - t**shape.heart.exponent)


def radii(shape: Surfaces, at: Azimuth, w: Float[np.ndarray, "*point"]) -> Radii:
    """Distances of the surfaces from the long axis; above the base those of the base, below the apex 0."""
    t = _along(w, shape.base, shape.heart.length)
    epicardium = shape.epicardial_radius * at.epicardium * np.sqrt(1 - t**shape.heart.exponent)
    right = epicardium + shape.rv_width * _crescent(shape, at.angle, w)
    return Radii(endocardial_radius(shape, at.endocardium, w), epicardium, right)


def center_line(heart: Heart, w: Float[np.ndarray, "*point"]) -> tuple[np.ndarray, np.ndarray]:
    """In-plane position of the bent long axis, mm; a shear, which leaves the volumes unchanged."""
    bow = 1 - (2 * np.clip(w / heart.length, -0.2, 1.2) - 1) ** 2
    u, v = heart.bend.tolist()
    return u * bow, v * bow


def tissue_labels(
    shape: Surfaces, u: Float[np.ndarray, "*point"], v: Float[np.ndarray, "*point"], w: Float[np.ndarray, "*point"]
) -> Int[np.ndarray, "*point"]:
    """Class numbers of points (u, v in the plane, w along the long axis; mm); the LV includes papillary muscles."""
    cu, cv = center_line(shape.heart, w)
    radius, angle = np.hypot(u - cu, v - cv), np.arctan2(v - cv, u - cu)
    return labels_of_radii(radii(shape, azimuth(shape.heart, angle), w), radius, w >= shape.base)


def labels_of_radii(
    surface: Radii, radius: Float[np.ndarray, "*point"], below_base: np.ndarray
) -> Int[np.ndarray, "*point"]:
    """Class numbers of points at a distance from the long axis, mm."""
    out = np.where(radius < surface.right, RV, 0)
    out = np.where(radius < surface.epicardium, MYOCARDIUM, out)
    out = np.where(radius < surface.endocardium, LV, out)
    return np.where(below_base, out, 0).astype(np.int32)


def _harmonics(rng: np.random.Generator, amplitude: float) -> np.ndarray:
    return np.stack([rng.normal(0, amplitude, 3) / np.array([1, 2, 3]), rng.uniform(0, 2 * np.pi, 3)])


def _wave(harmonics: np.ndarray, angle: np.ndarray) -> np.ndarray:
    return sum(
        (a * np.cos(n * angle + phase) for n, a, phase in zip(HARMONICS, *harmonics.tolist(), strict=True)), 0 * angle
    )


def _along(w: np.ndarray, base: float, apex: float) -> np.ndarray:
    return np.clip((w - base) / (apex - base), 0, 1)


def _radius(heart: Heart, volume: float, length: float, harmonics: np.ndarray) -> float:
    p = heart.exponent
    return float(np.sqrt(volume / (np.pi * length * p / (p + 1) * (1 + 0.5 * np.sum(harmonics[0] ** 2)))))


def _crescent(shape: Surfaces, angle: np.ndarray, w: np.ndarray) -> np.ndarray:
    """g(t) f(angle): width of the RV as a fraction of D."""
    heart = shape.heart
    t = _along(w, shape.base, shape.base + heart.rv_length * (heart.length - shape.base))
    offset = (angle - heart.septum + np.pi) % (2 * np.pi) - np.pi
    turn = np.clip(0.5 * np.pi * offset / (heart.opening * (1 - 0.3 * t**2)), -0.5 * np.pi, 0.5 * np.pi)
    return (1 - t**1.7) ** 0.75 * np.maximum(np.cos(turn), 0) ** 0.65 * (1 + heart.rv_skew * np.sin(turn))


def _rv_width(shape: Surfaces, volume: float) -> float:
    """D of volume = ∬ (r D h + D² h² / 2) dangle dw, with the epicardium's radius r and h = g f; mm."""
    heart = shape.heart
    nodes, weights = np.polynomial.legendre.leggauss(64)
    length = heart.rv_length * (heart.length - shape.base)
    w = shape.base + 0.5 * length * (nodes[:, None] + 1)
    angle = heart.septum + heart.opening * nodes[None, :]
    area = 0.5 * length * heart.opening * weights[:, None] * weights[None, :]
    w, angle = np.broadcast_arrays(w, angle)
    h, r = _crescent(shape, angle, w), radii(shape, azimuth(heart, angle), w).epicardium
    linear, square = np.sum(area * r * h), 0.5 * np.sum(area * h**2)
    return float((np.sqrt(linear**2 + 4 * square * volume) - linear) / (2 * square))
