"""SmoothGrad and VarGrad: mean and variance of a map over noisy copies of the image.

    x_n = x + σ ε_n,  ε_n ~ N(0, 1),  σ = noise · (max x − min x)
    SmoothGrad    mean of ∇f(x_n)
    VarGrad       variance of ∇f(x_n), by 1/N

Any other method, `x → map`, may stand for the gradient. Sample n has the key `fold_in(key, n)`.

Source: Smilkov, Thorat, Kim, Viégas & Wattenberg, SmoothGrad, arXiv 1706.03825, 2017; VarGrad: Adebayo, Gilmer,
Goodfellow & Kim, Local explanation methods for deep neural networks lack sensitivity to parameter values, ICLR
workshop 2018.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, Scalar

from medjax.errors import DataError
from medjax.shortcuts.attribution.gradient import gradient
from medjax.shortcuts.attribution.samples import sum_over
from medjax.shortcuts.attribution.target import AnyArray, Attribution, Image, Score, at_image

Method = Callable[[Score], Attribution]


def smooth_grad(
    key: PRNGKeyArray,
    score: Score,
    samples: int = 50,
    noise: float | Scalar = 0.15,
    chunk: int = 1,
    method: Method = gradient,
) -> Attribution:
    """SmoothGrad, the mean map of noisy images: x → map of the method's shape.

    Args:
        key: random key.
        score: f(x) of one image.
        samples: noisy images.
        noise: standard deviation of the noise as a fraction of the image's range, max − min.
        chunk: maps computed at a time; memory grows with it, and not with `samples`.
        method: score → (x → map).

    Raises:
        DataError: `noise` is negative; (when called) `samples` or `chunk` is below 1.
    """
    _check_noise(noise)

    def attribute(x: Image) -> Image:
        x = jnp.asarray(x)
        own = method(at_image(score, x))
        zero = jnp.zeros(jax.eval_shape(own, x).shape, x.dtype)
        return sum_over(lambda n: own(_noisy(key, x, noise, n)), samples, chunk, zero) / samples

    return attribute


def var_grad(
    key: PRNGKeyArray,
    score: Score,
    samples: int = 50,
    noise: float | Scalar = 0.15,
    chunk: int = 1,
    method: Method = gradient,
) -> Attribution:
    """VarGrad, the variance of the maps of noisy images: x → map of the method's shape. Arguments as `smooth_grad`.

    Raises:
        DataError: `noise` is negative; (when called) `samples` or `chunk` is below 1.
    """
    _check_noise(noise)

    def attribute(x: Image) -> Image:
        x = jnp.asarray(x)
        own = method(at_image(score, x))
        middle = own(x)

        def deviation(n: Array) -> tuple[AnyArray, AnyArray]:
            # From the map of the image itself: sums of squares about 0 would lose a small variance in float32.
            away = own(_noisy(key, x, noise, n)) - middle
            return away, away**2

        total, squares = sum_over(deviation, samples, chunk, (jnp.zeros_like(middle), jnp.zeros_like(middle)))
        return jnp.maximum(squares / samples - (total / samples) ** 2, 0)

    return attribute


def noise_like(key: PRNGKeyArray, x: Image, noise: float | Scalar) -> Array:
    """Gaussian noise of the image's shape, of a standard deviation that is a fraction of its range, max − min."""
    drawn = jax.random.normal(key, (x.size,), x.dtype).reshape(x.shape)
    return noise * (jnp.max(x) - jnp.min(x)) * drawn


def _noisy(key: Array, x: Array, noise: float | Scalar, n: Array) -> Array:
    return x + noise_like(jax.random.fold_in(key, n), x, noise)


def _check_noise(noise: float | Scalar) -> None:
    if not isinstance(noise, jax.core.Tracer) and not noise >= 0:
        raise DataError(f"noise: {noise}; expected a fraction of the image's range, 0 or more")
