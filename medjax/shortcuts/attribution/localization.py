"""Maps against a mask of where the evidence is known to be: relevance mass, and the pointing game.

Masks are boolean, of the maps' shape, or one for all images. For a tolerance, dilate the mask
(`metrics.regions.dilate`).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax.errors import DataError

AnyArray = Array | np.ndarray


def relevance_mass(maps: Float[AnyArray, "image *space"], masks: AnyArray) -> Float[Array, "image"]:
    """Relevance mass: the fraction of each map's positive values, by their sum, that lies in the mask.

    NaN for a map with nothing positive. By chance it is the fraction of voxels in the mask.

    Raises:
        DataError: shapes differ, a mask is not boolean, or has no voxel (under jit: NaN).

    Source: Arras, Osman & Samek, CLEVR-XAI, Information Fusion 81, 2022 (relevance mass accuracy).
    """
    values, inside = _flat(maps, masks)
    positive = jnp.where(jnp.isnan(values), jnp.nan, jnp.maximum(values, 0))
    mass = jnp.sum(jnp.where(inside, positive, 0), axis=1) / jnp.sum(positive, axis=1)
    return jnp.where(inside.any(1), mass, jnp.nan)


def pointing_game(maps: Float[AnyArray, "image *space"], masks: AnyArray) -> Float[Array, "image"]:
    """Pointing game: 1 where the highest voxel of a map lies in the mask, else 0; of tied ones, the fraction that does.

    Its mean over images is the accuracy. NaN for a map that is equal everywhere or has NaN.

    Raises:
        DataError: shapes differ, a mask is not boolean, or has no voxel (under jit: NaN).

    Source: Zhang, Bargal, Lin, Brandt, Shen & Sclaroff, IJCV 126, 2018 (there with a tolerance of 15 pixels).
    """
    values, inside = _flat(maps, masks)
    top, bottom = (each(values, axis=1, keepdims=True) for each in (jnp.max, jnp.min))
    highest = values == top
    hits = jnp.sum(highest & inside, axis=1) / jnp.sum(highest, axis=1)
    return jnp.where(inside.any(1) & (top > bottom)[:, 0], hits, jnp.nan)


def _flat(maps: AnyArray, masks: AnyArray) -> tuple[Array, Array]:
    """Maps and masks as (image, voxel)."""
    if masks.shape not in (maps.shape, maps.shape[1:]):
        raise DataError(f"masks: shape {masks.shape}; expected {maps.shape} as the maps, or {maps.shape[1:]} for all")
    if masks.dtype != bool:
        raise DataError(f"masks: an array of {masks.dtype}; expected a boolean one, such as labels == 1")
    inside = jnp.broadcast_to(jnp.asarray(masks).reshape(-1, maps[0].size), (len(maps), maps[0].size))
    if not isinstance(inside, jax.core.Tracer) and not (occupied := np.asarray(inside.any(1))).all():
        raise DataError(f"masks: that of image {int(np.argmin(occupied))} has no voxel; expected at least one")
    return jnp.asarray(maps).reshape(len(maps), -1), inside
