"""Laterality: which labels name a side, left or right, and which structures only their side tells apart.

    lateral_labels(["background", "kidney_L", "kidney_R", "liver"])      ["kidney_L", "kidney_R"]
    left_right_axes(affine)                                             (0,) where the first voxel axis is left–right
    same_orientation(orientation(affine), "RAS", mirror=(1, 2))         False for LAS: sides lie the other way round
    moments = [label_moments(labels, image, classes), ...]              of each case
    mirror_images(moments)                                              [(1, 2, 0)]: 2 is 1 mirrored along x

A network that is trained on mirrored patches cannot tell left from right: mirroring along the left–right axis is off
where names ask for it. Mirror images without such names may be one structure for its users, so they are only reported.
"""

import re
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

# A word says a side by itself. A part of a name, such as the R of `kidneyR`, does so only beside its counterpart.
WORDS = (
    ("left", "right"), ("lt", "rt"), ("lft", "rgt"), ("sinister", "dexter"), ("sinistra", "dextra"),
    ("sinistrum", "dextrum"), ("links", "rechts"), ("linke", "rechte"), ("gauche", "droite"), ("gauche", "droit"),
    ("izquierdo", "derecho"), ("izquierda", "derecha"), ("sinistro", "destro"), ("sinistra", "destra"),
    ("esquerdo", "direito"), ("esquerda", "direita"),
)  # fmt: skip
ABBREVIATIONS = (
    ("l", "r"), ("lh", "rh"), ("os", "od"), ("sin", "dex"), ("sin", "dext"), ("sin", "dx"), ("sx", "dx"), ("li", "re"),
)  # fmt: skip
JOINED = r"left(?!over)|right"  # begins a word that says a side alone
OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "S": "I", "I": "S"}
OBLIQUE = 0.5  # cosine with the left–right direction from which on an axis is one of it
MIN_CASES = 3  # cases that have both structures
SIMILAR = 0.2  # largest mean logarithm of the ratio of two volumes, or of two extents, that counts as equal
SAME_INTENSITY = 0.25  # largest mean difference of intensity, in standard deviations of the image
ASIDE = 0.3  # largest part of a displacement across the mirror axis
CONSISTENT = 0.9  # fraction of cases in which the displacement has one sign


class LabelMoments(NamedTuple):
    """Volume, centre, extent and mean intensity of each foreground class of a case."""

    volume: Float[np.ndarray, " structure"]  # voxels; 0 where it is absent
    center: Float[np.ndarray, "structure 3"]  # voxels; NaN where it is absent, as the following
    extent: Float[np.ndarray, "structure 3"]  # standard deviation of the coordinates, voxels
    intensity: Float[np.ndarray, "structure channel"]  # in standard deviations of the image


def lateral_labels(names: Sequence[str]) -> list[str]:
    """Labels whose names say left or right, in their order: by a word, or by an abbreviation where both sides occur.

    Names are split at what is no letter or digit and where a capital begins, `KidneyL` say. What is joined counts
    where the name with the other side occurs: words (`nierelinks`, `niererechts`), and L or R at an end of a word of
    capitals (`LV`, `RV`). `L1` and `R1` are no sides: beside numbers alone, a letter may be a vertebra or a rib.
    """
    split = {name: _tokens(name) for name in names}
    folded = {name: [part.casefold() for part in parts] for name, parts in split.items()}
    known = {tuple(parts): name for name, parts in folded.items()}
    found = {name for name, parts in folded.items() if any(map(_is_side, parts))}
    for one, parts in split.items():
        for k, part in enumerate(parts):
            before, after = folded[one][:k], folded[one][k + 1 :]
            if len(part) == 1 and "".join(before + after).isdigit():
                continue
            for other in _other_sides(part):
                if counterpart := known.get((*before, other, *after)):
                    found |= {one, counterpart}
    return [name for name in names if name in found]


def left_right_axes(affine: Float[np.ndarray, "4 4"]) -> tuple[int, ...]:
    """Voxel axes that run from left to right by the affine, RAS+; of an oblique image several may."""
    matrix = np.asarray(affine, float)[:3, :3]
    cosines = np.abs(matrix[0]) / np.linalg.norm(matrix, axis=0)
    return tuple(int(axis) for axis in np.flatnonzero(cosines > OBLIQUE))


def orientation(affine: Float[np.ndarray, "4 4"]) -> str:
    """Directions in which the voxel axes run, such as RAS: to the right, anterior, superior; the nearest ones."""
    from nibabel.orientations import aff2axcodes

    return "".join(map(str, aff2axcodes(affine)))


def same_orientation(one: str, other: str, mirror: Sequence[int]) -> bool:
    """Whether images of two orientations look alike to a network that was trained with these mirror axes."""
    return all(
        first == second or (OPPOSITE[first] == second and axis in mirror)
        for axis, (first, second) in enumerate(zip(one, other, strict=True))
    )


def label_moments(
    labels: Int[np.ndarray, "x y z"], image: Float[np.ndarray, "x y z channel"], classes: int
) -> LabelMoments:
    """Moments of each foreground class of a case, for `mirror_images`."""
    scale = np.maximum(image.reshape(-1, image.shape[-1]).std(axis=0), 1e-8)
    boxes = ndimage.find_objects(labels, classes - 1)
    rows = [_moments(labels, image, kind, box, scale) for kind, box in enumerate(boxes, start=1)]
    return LabelMoments(*(np.array(column, float) for column in zip(*rows, strict=True)))


def mirror_images(cases: Sequence[LabelMoments]) -> list[tuple[int, int, int]]:
    """Pairs of classes that are mirror images of each other, and the voxel axis along which: (class, class, axis).

    In the mean of the cases that have both, volumes, extents and intensities are equal, and the centres are displaced
    along one axis, nearly always in one direction: what tells them apart is the side, which mirroring takes away.
    """
    found = list[tuple[int, int, int]]()
    structures = len(cases[0].volume) if cases else 0
    for one, other in combinations(range(structures), 2):
        both = [case for case in cases if min(case.volume[one], case.volume[other]) > 0]
        if len(both) < MIN_CASES or not _alike(both, one, other):
            continue
        displacement = np.array([case.center[one] - case.center[other] for case in both])
        mean = displacement.mean(axis=0)
        axis = int(np.abs(mean).argmax())
        aside = np.delete(np.abs(mean), axis).max()
        if aside <= ASIDE * abs(mean[axis]) and np.mean(displacement[:, axis] * mean[axis] > 0) >= CONSISTENT:
            found.append((one + 1, other + 1, axis))
    return found


def _tokens(name: str) -> list[str]:
    """Words of a name; `leftKidney2` and `left-Kidney_2` have the same."""
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+", name)


def _is_side(part: str) -> bool:
    """Whether a word in small letters says a side by itself."""
    return any(part in pair for pair in WORDS) or re.match(JOINED, part) is not None


def _other_sides(part: str) -> set[str]:
    """What a word of a left structure's name may be in its counterpart's, in small letters."""
    folded = part.casefold()
    out = {right for left, right in ABBREVIATIONS if folded == left}
    out |= {folded.replace(left, right) for left, right in WORDS if len(left) > 2 and left in folded}
    if part.isupper() and len(part) > 1:
        out |= {f"r{folded[1:]}"} if folded[0] == "l" else set()
        out |= {f"{folded[:-1]}r"} if folded[-1] == "l" and len(part) > 2 else set()
    return out


def _moments(
    labels: np.ndarray, image: np.ndarray, kind: int, box: tuple[slice, ...] | None, scale: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    if box is None:
        return 0.0, np.full(3, np.nan), np.full(3, np.nan), np.full(image.shape[-1], np.nan)
    where = np.nonzero(labels[box] == kind)
    points = np.array(where) + np.array([[side.start] for side in box])
    return float(len(where[0])), points.mean(axis=1), points.std(axis=1), image[box][where].mean(axis=0) / scale


def _alike(cases: Sequence[LabelMoments], one: int, other: int) -> bool:
    """Whether two structures are equal in volume, extent and intensity, in the mean of the cases."""
    volume, extent, intensity = (
        np.array([(getattr(case, name)[one], getattr(case, name)[other]) for case in cases])
        for name in ("volume", "extent", "intensity")
    )
    ratios = np.log((extent + 0.5) / (extent[:, ::-1] + 0.5))[:, 0].mean(axis=0)  # half a voxel: one slice has extent 0
    return bool(
        abs(np.log(volume[:, 0] / volume[:, 1]).mean()) < SIMILAR
        and (np.abs(ratios) < SIMILAR).all()
        and (np.abs((intensity[:, 0] - intensity[:, 1]).mean(axis=0)) < SAME_INTENSITY).all()
    )
