"""Fits of transverse relaxation (T2), alone and jointly with diffusion (T2-IVIM), by Levenberg–Marquardt.

    T2:       S(TE) = S0 exp(−TE / T2)
    T2-IVIM:  S(b, TE) = S0 [(1 − f) exp(−b D − TE / T2) + f exp(−b D* − TE / T2*)]

With several echo times the perfusion fraction is no longer weighted by blood's longer relaxation time, which makes the
f of a plain IVIM fit too large. Source of the joint model: Jerome et al., Physics in Medicine and Biology 61(24), 2016.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax.ivim.levenberg_marquardt import LmResult, levenberg_marquardt
from medjax.ivim.signal import UM2_PER_MS


class T2Ivim(NamedTuple):
    """Maps of a joint T2-IVIM fit; D and absolute D* in mm²/s, relaxation times in ms."""

    s0: Float[Array, " voxel"]
    f: Float[Array, " voxel"]
    d: Float[Array, " voxel"]
    d_star: Float[Array, " voxel"]
    t2: Float[Array, " voxel"]
    t2_blood: Float[Array, " voxel"]  # T2* of the blood


def t2(
    signals: Float[Array, "echo voxel"], echo_ms: Float[Array, " echo"], steps: int = 20
) -> tuple[Float[Array, " voxel"], Float[Array, " voxel"]]:
    """S0 and T2 (ms) of each voxel by least squares, 1 ≤ T2 ≤ 5000 ms; `steps` are iterations."""
    scale = jnp.maximum(jnp.max(signals, axis=0), 1e-20)

    def decay(p: Array) -> Array:
        return p[:1] * jnp.exp(-echo_ms[:, None] / p[1:])

    start = jnp.stack([jnp.ones_like(scale), jnp.full_like(scale, 80.0)])
    low, top = jnp.array([[0.0], [1.0]]), jnp.array([[jnp.inf], [5000.0]])
    s0, time = levenberg_marquardt(decay, start, signals / scale[None], low, top, steps=steps).parameters
    return s0 * scale, time


def t2_ivim(
    signals: Float[Array, "measurement voxel"],
    bvalues: Float[Array, " measurement"],
    echo_ms: Float[Array, " measurement"],
    steps: int = 40,
) -> T2Ivim:
    """Joint T2-IVIM fit of each voxel, the best of several starts.

    Bounds: f ≤ 1, D ≤ 6e-3, 3e-3 ≤ D* ≤ 0.5 mm²/s and 10 ≤ T2 ≤ 2000 ms. `steps` are iterations.
    """
    scale = jnp.maximum(jnp.max(signals, axis=0), 1e-20)
    b, echo = (bvalues * UM2_PER_MS)[:, None], echo_ms[:, None]

    def model(p: Array) -> Array:
        s0, f, d, fast, slow_time, fast_time = p[:, None]
        return s0 * ((1 - f) * jnp.exp(-b * d - echo / slow_time) + f * jnp.exp(-b * fast - echo / fast_time))

    low, top = (jnp.array(values)[:, None] for values in ([0, 0, 0.1, 3, 10, 10], [jnp.inf, 1, 6, 500, 2000, 2000.0]))
    starts = jnp.array([(2.0, f, 1.5, fast, 80.0, 150.0) for f in (0.1, 0.4) for fast in (12.0, 50.0)])

    def one(start: Array) -> LmResult:
        everywhere = jnp.broadcast_to(start[:, None], (6, len(scale)))
        return levenberg_marquardt(model, everywhere, signals / scale[None], low, top, steps=steps)

    tried = jax.lax.map(one, starts)
    best = jnp.argmin(tried.cost, axis=0)
    s0, f, d, fast, slow_time, fast_time = jnp.take_along_axis(tried.parameters, best[None, None], axis=0)[0]
    return T2Ivim(s0 * scale, f, d * UM2_PER_MS, fast * UM2_PER_MS, slow_time, fast_time)
