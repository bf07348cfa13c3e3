"""Learning rates as functions of the step, where optax has none of that form."""

import optax
from jaxtyping import Scalar


def warmup_cosine(rate: float | Scalar, steps: int, end: float | Scalar = 0.0) -> optax.Schedule:
    """From 0 up to `rate` in a twentieth of the steps, then a cosine down to `end` at the last one."""
    return optax.warmup_cosine_decay_schedule(0.0, rate, max(steps // 20, 1), max(steps, 2), end)
