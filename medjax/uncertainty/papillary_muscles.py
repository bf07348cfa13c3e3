"""Papillary muscles and trabeculae of the left ventricle: counted as cavity or as myocardium.

labels = assign_papillary(labels, ACDC, "cavity")                larger volumes, smaller mass
labels = assign_papillary(labels, ACDC, "myocardium", image)     smaller volumes, larger mass

Conventions differ, and the same heart has another EDV, ESV, EF and mass under each. Label maps of a data set follow one
of them (ACDC and M&Ms: cavity); without an image, muscles that they count as cavity cannot be told from blood.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, Real

from medjax.errors import DataError
from medjax.uncertainty.biomarkers import LabelCodes

Assignment = Literal["cavity", "myocardium"]
TOLERANCE = 1e-9  # voxels by which a centre may lie outside of the hull


def papillary_muscles(
    labels: Int[np.ndarray, "x y z"], codes: LabelCodes, image: Real[np.ndarray, "..."] | None = None
) -> Bool[np.ndarray, "x y z"]:
    """Voxels inside the endocardium that are not blood: in the convex hull of a slice's cavity and no cavity.

    With an image in which blood is brighter than myocardium (bSSFP), also voxels of the cavity that are darker than
    halfway between the medians of cavity and myocardium in the slice; the cavity's outermost voxels stay, being
    partly myocardium for another reason.

    The hull of voxel centres adds nothing to a convex cavity, and to others what is concave: then a little of the
    wall is taken for papillary muscle. Voxels of the right ventricle are none.

    Raises:
        DataError: the image has another shape.
    """
    from scipy import ndimage

    if image is not None and image.shape != labels.shape:
        raise DataError(f"image: shape {image.shape}; expected that of the labels, {labels.shape}")
    cavity, wall = labels == codes.lv, labels == codes.myocardium
    hull = np.stack([_convex_hull(cavity[..., z]) for z in range(labels.shape[2])], axis=-1)
    found = hull & ~cavity & (labels != codes.rv)
    if image is None:
        return found
    inner = ndimage.binary_erosion(hull, np.ones((3, 3, 1), bool))
    for z in np.flatnonzero(cavity.any(axis=(0, 1)) & wall.any(axis=(0, 1))):
        blood, muscle = (np.median(image[..., z][mask[..., z]]) for mask in (cavity, wall))
        found[..., z] |= cavity[..., z] & inner[..., z] & (image[..., z] < (blood + muscle) / 2)
    return found


def assign_papillary(
    labels: Int[np.ndarray, "x y z"],
    codes: LabelCodes,
    to: Assignment,
    image: Real[np.ndarray, "..."] | None = None,
) -> Int[np.ndarray, "x y z"]:
    """Labels in which `papillary_muscles` are cavity, or myocardium.

    Raises:
        DataError: as `papillary_muscles`.
    """
    return np.where(papillary_muscles(labels, codes, image), codes.lv if to == "cavity" else codes.myocardium, labels)


def _convex_hull(mask: Bool[np.ndarray, "x y"]) -> Bool[np.ndarray, "x y"]:
    """Pixels whose centres lie in the convex hull of the mask's pixel centres."""
    from scipy.spatial import ConvexHull, QhullError

    points = np.argwhere(mask)
    if len(points) < 3:
        return mask
    try:
        planes = ConvexHull(points).equations
    except QhullError:  # on one line
        return mask
    low, high = points.min(axis=0), points.max(axis=0) + 1
    grid = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1)
    hull = np.zeros_like(mask)
    inside = np.all(np.matmul(grid, planes[:, :2].T) + planes[:, 2] <= TOLERANCE, axis=-1)
    hull[low[0] : high[0], low[1] : high[1]] = inside
    return hull
