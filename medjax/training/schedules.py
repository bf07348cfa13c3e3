"""Learning-rate schedules that optax lacks."""

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Scalar


def warmup_stable_decay(rate: float | Scalar, steps: int, decay: float = 0.25) -> optax.Schedule:
    """Learning-rate schedule: linear warm-up from 0 in a fiftieth of the steps, `rate`, then linearly to 0.

    The decay takes the last fraction `decay` of the steps. A training that goes on from weights of the stable part, or
    from decayed ones, loses little: unlike a cosine it need not know its end beforehand. `rate` may be traced.

    Source: warm-up, stable, decay of Hu et al., MiniCPM, 2024.
    """
    warm, last = max(steps // 50, 1), max(int(decay * steps), 1)

    def schedule(count: Any) -> Any:
        return rate * jnp.clip(jnp.minimum(count / warm, (steps - count) / last), 0.0, 1.0)

    return schedule


def warmup_cosine(rate: float | Scalar, steps: int, end: float | Scalar = 0.0) -> optax.Schedule:
    """Learning-rate schedule: linear warm-up from 0 to `rate` in a twentieth of the steps, then a cosine down to `end`.

    `rate` and `end` may be traced, which optax's own schedule refuses.
    """
    warm = max(steps // 20, 1)
    unit = optax.warmup_cosine_decay_schedule(0.0, 1.0, warm, max(steps, 2))

    def schedule(count: Any) -> Any:
        low = jnp.where(count < warm, 0.0, end)
        return low + (rate - low) * unit(count)

    return schedule
