"""Learning rates as functions of the step, where optax has none of that form."""

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Scalar


def warmup_cosine(rate: float | Scalar, steps: int, end: float | Scalar = 0.0) -> optax.Schedule:
    """From 0 up to `rate` in a twentieth of the steps, then a cosine down to `end` at the last one.

    `rate` and `end` may be traced, which optax's own schedule refuses: it is used from 0 to 1 to 0.
    """
    warm = max(steps // 20, 1)
    unit = optax.warmup_cosine_decay_schedule(0.0, 1.0, warm, max(steps, 2))

    def schedule(count: Any) -> Any:
        low = jnp.where(count < warm, 0.0, end)
        return low + (rate - low) * unit(count)

    return schedule
