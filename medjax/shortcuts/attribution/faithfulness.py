"""Faithfulness of a map to its score: infidelity, max-sensitivity and the gap of completeness.

Each is `measure(score, …) → ((x, map) → number)`, or of a method alone, and composes with `jax.vmap` or
`batches.map_images`. Random ones take a key; sample n has `fold_in(key, n)`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from medjax.errors import DataError
from medjax.shortcuts.attribution.baseline import Baseline, baseline_image
from medjax.shortcuts.attribution.samples import values_over
from medjax.shortcuts.attribution.smoothgrad import noise_like
from medjax.shortcuts.attribution.target import AnyArray, Attribution, Image, Score, at_image

Measure = Callable[[Image, Float[AnyArray, "..."]], Scalar]
NOISE = partial(noise_like, noise=0.1)


class Completeness(NamedTuple):
    """What a map adds up to beyond what it explains."""

    gap: Scalar  # Σ map − (f(x) − f(b))
    relative: Scalar  # |gap| / |f(x) − f(b)|; NaN where that is 0


def infidelity(
    key: PRNGKeyArray,
    score: Score,
    perturbation: Callable[[PRNGKeyArray, Array], Array] = NOISE,
    samples: int = 100,
    normalize: bool = False,
    chunk: int = 1,
) -> Measure:
    """Infidelity E_I[(Iᵀ map − (f(x) − f(x − I)))²] of a map under random perturbations I: (x, map) → number.

    Args:
        key: random key.
        score: f(x) of one image.
        perturbation: (key, x) → I, of x's shape; by default Gaussian noise of 0.1 of the image's range.
        samples: perturbations.
        normalize: multiply the map by the factor that makes its infidelity least; for methods whose maps have no
            scale of their own, such as Grad-CAM. NaN for a map of zeros.
        chunk: images evaluated at a time.

    Raises:
        DataError: (when called) shapes differ, or `samples` or `chunk` is below 1.

    Source: Yeh, Hsieh, Suggala, Inouye & Ravikumar, NeurIPS 2019, definition 2.1.
    """

    def measure(x: Image, values: Float[AnyArray, "..."]) -> Scalar:
        x, own = jnp.asarray(x), at_image(score, x)
        weights, before = _with_channels(values, x), own(x)

        def pair(n: Array) -> tuple[Scalar, Scalar]:
            change = perturbation(jax.random.fold_in(key, n), x)
            if change.shape != x.shape:
                raise DataError(f"perturbation: shape {change.shape}; expected the image's {x.shape}")
            return jnp.sum(change * weights), before - own(x - change)

        explained, fall = values_over(pair, samples, chunk)
        scale = jnp.sum(explained * fall) / jnp.sum(explained**2) if normalize else 1
        return jnp.mean((scale * explained - fall) ** 2)

    return measure


def max_sensitivity(
    key: PRNGKeyArray, attribute: Attribution, radius: float | Scalar = 0.02, samples: int = 10, chunk: int = 1
) -> Callable[[Image], Scalar]:
    """Max-sensitivity max ‖map(x + δ) − map(x)‖ / ‖map(x)‖ over random δ: x → number; NaN for a map of zeros.

    A score of no fixed class may change its class with δ: name the class, where that is not meant.

    Args:
        key: random key.
        attribute: x → map.
        radius: of the cube in which δ is uniform, as a fraction of the image's range.
        samples: δ tried; more of them find a larger maximum.
        chunk: maps computed at a time.

    Raises:
        DataError: `radius` is negative; (when called) `samples` or `chunk` is below 1.

    Source: Yeh et al., NeurIPS 2019, definition 3.1, divided by the norm of the map as in their code.
    """
    if not isinstance(radius, jax.core.Tracer) and not radius >= 0:
        raise DataError(f"radius: {radius}; expected a fraction of the image's range, 0 or more")

    def measure(x: Image) -> Scalar:
        x = jnp.asarray(x)
        before, reach = attribute(x), radius * (jnp.max(x) - jnp.min(x))

        def change(n: Array) -> Scalar:
            drawn = jax.random.uniform(jax.random.fold_in(key, n), (x.size,), x.dtype, -1, 1)
            return _norm(attribute(x + reach * drawn.reshape(x.shape)) - before)

        return jnp.max(values_over(change, samples, chunk)) / _norm(before)

    return measure


def completeness_gap(score: Score, baseline: Baseline = 0.0) -> Callable[[Image, Float[AnyArray, "..."]], Completeness]:
    """Gap of completeness Σ map − (f(x) − f(b)), 0 for a complete method: (x, map) → Completeness.

    Raises:
        DataError: (when called) shapes differ.

    Source: Sundararajan, Taly & Yan, ICML 2017, axiom of completeness.
    """

    def measure(x: Image, values: Float[AnyArray, "..."]) -> Completeness:
        x, own = jnp.asarray(x), at_image(score, x)
        _with_channels(values, x)
        explained = own(x) - own(baseline_image(baseline, x))
        gap = jnp.sum(jnp.asarray(values)) - explained
        return Completeness(gap, jnp.where(explained == 0, jnp.nan, jnp.abs(gap / explained)))

    return measure


def _with_channels(values: Float[AnyArray, "..."], x: Array) -> Array:
    """A map that broadcasts to the image's channels."""
    if values.shape not in (x.shape[:-1], x.shape, (*x.shape[:-1], 1)):
        raise DataError(f"map: shape {values.shape}; expected {x.shape} as the image, or {x.shape[:-1]}")
    values = jnp.asarray(values)
    return values[..., None] if values.ndim == x.ndim - 1 else values


def _norm(values: AnyArray) -> Scalar:
    return jnp.linalg.norm(jnp.ravel(values))
