"""Stationary velocity fields: their exponentials are diffeomorphisms.

A velocity v, in voxels per unit time and component first, moves a point by dx/dt = v(x); its exponential is the
displacement after unit time. exponential(−v) is the inverse of exponential(v).
"""

import jax
from jaxtyping import Array, Float

from medjax.registration.warp import compose


def exponential(velocity: Float[Array, "dim *space"], steps: int = 7) -> Float[Array, "dim *space"]:
    """Displacement exp(v) − x by scaling and squaring: u ← v / 2^steps, then `steps` times u ← u(x) + u(x + u(x)).

    `steps` is static; v / 2^steps should be below half a voxel.

    Source: Arsigny et al., MICCAI 2006, algorithm 2.
    """

    def square(displacement: Array, _: None) -> tuple[Array, None]:
        return compose(displacement, displacement), None

    return jax.lax.scan(square, velocity / 2**steps, length=steps)[0]
