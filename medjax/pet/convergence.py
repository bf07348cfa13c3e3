"""Convergence to a reference image, as the PETRIC challenge measures it, and its stopping rule.

    RMSE of the whole object, of the background:  √mean (x − x*)² / B       below 0.01
    absolute error of the mean of each VOI:       |mean x − mean x*| / B    below 0.005

over the voxels of each region; x* is the reference, an image that has converged, and B the mean of x* over the
background. The rule is met by the first update from which on all of them stay below for 10 updates.

    errors = convergence_errors(image, regions, reference)        of one image, or under vmap of many
    pass_index(stacked_errors)                               number of the update, or -1

Source: the PETRIC challenge (Positron Emission Tomography Rapid Image Reconstruction Challenge), 2024.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Scalar

from medjax.errors import DataError

WINDOW = 10  # updates for which the thresholds hold


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Regions:
    """Masks of the whole object, of the background (a uniform part of the object) and of volumes of interest (VOIs)."""

    whole_object: Bool[Array | np.ndarray, "x y z"]
    background: Bool[Array | np.ndarray, "x y z"]
    vois: Bool[Array | np.ndarray, "voi x y z"]


class ConvergenceErrors(NamedTuple):
    """Errors relative to the reference's mean over the background; of several images, with a leading axis."""

    whole_object_rmse: Float[Array, "*image"]
    background_rmse: Float[Array, "*image"]
    voi_errors: Float[Array, "*image voi"]  # absolute errors of the means


class Thresholds(NamedTuple):
    """Thresholds of the errors; defaults are PETRIC's."""

    whole_object_rmse: float | Scalar = 0.01
    background_rmse: float | Scalar = 0.01
    voi_error: float | Scalar = 0.005


PETRIC = Thresholds()


def check_regions(regions: Regions, reference: Float[Array, "x y z"]) -> None:
    """Check that no region is empty, and that the reference is above 0 in the background.

    Raises:
        DataError: a region is empty or of another shape, or the background of the reference is not above 0.
    """
    vois = {f"VOI {k + 1}": mask for k, mask in enumerate(np.asarray(regions.vois))}
    masks = {"whole object": regions.whole_object, "background": regions.background, **vois}
    for name, mask in masks.items():
        if mask.shape != reference.shape:
            raise DataError(f"{name}: mask of shape {mask.shape}; the reference image has {reference.shape}")
        if not np.any(mask):
            raise DataError(f"{name}: no voxel; expected a mask with at least one")
    level = float(np.mean(np.asarray(reference)[np.asarray(regions.background)]))
    if not level > 0:
        raise DataError(f"reference image: mean {level:g} over the background; expected more than 0")


def convergence_errors(
    image: Float[Array, "x y z"], regions: Regions, reference: Float[Array, "x y z"]
) -> ConvergenceErrors:
    """Errors of an image against a reference image: see this module."""
    level = _mean(reference, regions.background)
    square = (image - reference) ** 2
    vois = jax.vmap(lambda mask: _mean(image, mask) - _mean(reference, mask))(jnp.asarray(regions.vois))
    return ConvergenceErrors(
        jnp.sqrt(_mean(square, regions.whole_object)) / level,
        jnp.sqrt(_mean(square, regions.background)) / level,
        jnp.abs(vois) / level,
    )


def meet_thresholds(errors: ConvergenceErrors, thresholds: Thresholds = PETRIC) -> Bool[Array, "*image"]:
    """Whether all errors of each image are at or below their thresholds; a NaN is not."""
    return (
        (errors.whole_object_rmse <= thresholds.whole_object_rmse)
        & (errors.background_rmse <= thresholds.background_rmse)
        & jnp.all(errors.voi_errors <= thresholds.voi_error, axis=-1)
    )


def pass_index(errors: ConvergenceErrors, thresholds: Thresholds = PETRIC, window: int = WINDOW) -> Int[Array, ""]:
    """Index of the first image from which on `window` images in a row have converged; −1 if there is none.

    Args:
        errors: errors of the images, one after the other, along the leading axis.
        thresholds: thresholds of the errors.
        window: number of images in a row; 1: the first that is below.

    Raises:
        DataError: the window is below 1.
    """
    if window < 1:
        raise DataError(f"window: {window}; expected 1 or more images")
    passed = meet_thresholds(errors, thresholds).astype(jnp.int32)
    if passed.shape[0] < window:
        return jnp.asarray(-1)
    sums = jnp.cumsum(jnp.concatenate([jnp.zeros(1, jnp.int32), passed]))
    held = sums[window:] - sums[:-window] == window
    return jnp.where(jnp.any(held), jnp.argmax(held), -1)


def _mean(values: Array, mask: Array | np.ndarray) -> Scalar:
    return jnp.sum(jnp.where(mask, values, 0)) / jnp.sum(mask)
