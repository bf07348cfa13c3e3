"""Learning-rate schedules that optax lacks."""

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Scalar


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
