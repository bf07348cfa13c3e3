"""How concentrated maps are: Gini index (sparseness) and entropy of the absolute map.

    p_i = |map_i| / Σ |map|, sorted upwards, i = 1 … n
    Gini       1 − 2 Σ p_i (n − i + ½) / n                0 for a constant map, 1 − 1/n for one voxel
    entropy    − Σ p_i ln p_i                             ln n for a constant map, 0 for one voxel

A map of zeros has neither: NaN, as for a map with NaN.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

AnyArray = Array | np.ndarray


@partial(jax.jit, inline=True)
def gini(maps: Float[AnyArray, "image *space"]) -> Float[Array, "image"]:
    """Gini index of each map's absolute values, 0 (spread out) … 1 (one voxel): its sparseness.

    Source: Hurley & Rickard, IEEE Trans. Information Theory 55(10), 2009; for attribution Chalasani et al., ICML 2020.
    """
    p = jnp.sort(_fractions(maps), axis=1)
    voxels = p.shape[1]
    weights = (voxels - jnp.arange(1, voxels + 1) + 0.5) / voxels
    return 1 - 2 * jnp.sum(p * weights[None].astype(p.dtype), axis=1)


@partial(jax.jit, inline=True)
def entropy(maps: Float[AnyArray, "image *space"]) -> Float[Array, "image"]:
    """Entropy of each map's absolute values, nats: its complexity.

    Source: Bhatt, Weller & Moura, IJCAI 2020.
    """
    p = _fractions(maps)
    return -jnp.sum(p * jnp.log(jnp.where(p > 0, p, 1)), axis=1)


def _fractions(maps: AnyArray) -> Array:
    values = jnp.abs(jnp.asarray(maps).reshape(len(maps), -1))
    return values / jnp.sum(values, axis=1, keepdims=True)
