"""Denoisers: the prior of a sampler as (x, t) → x0 = E[x(0) | x(t) = x], with the `Sde` that travels with it.

    x = γ(t) · x0 + ν(t) · n        x (batch, *space), one t for each image of the batch

Any such callable with an attribute `sde` is a denoiser. Adapters for trained networks and scores:

    from_score(score, sde)             score(x, t) = ∇ log p(x, t)
    from_epsilon(epsilon, sde)         epsilon(x, t) = E[n | x]
    from_edm(network, sde)             network(x / γ, ν / γ), a denoiser at noise level σ (Karras et al. 2022)
    from_model(model, params, sde)     a medjax Model, in EDM preconditioning or not
    Denoiser(Partial(function), sde)   function(x, t) itself

Orientation, position and other images are bound beforehand; a conditional denoiser takes its condition as a third
argument.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree, Scalar

from medjax.diffusion.sde import Sde
from medjax.errors import ConfigError
from medjax.iterate import static_partial
from medjax.models.model import Network

Images = Float[Array, "batch *space"]
Times = Float[Array, " batch"]


@runtime_checkable
class DenoiserLike(Protocol):
    """Protocol of a denoiser, as samplers, guidance and `planes` take it: (x, t) → x0, and its `sde`."""

    @property
    def sde(self) -> Sde:
        """The diffusion whose noise is removed."""
        ...

    def __call__(self, x: Images, t: Times, *condition: Array) -> Images:
        """Posterior mean E[x(0) | x(t) = x] of each image."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Denoiser:
    """A denoiser `function(x, t)` → E[x(0) | x(t) = x] and its diffusion, as a pytree for jit and vmap."""

    function: Callable[..., Any]  # a pytree: a `Partial` of a module-level function, say
    sde: Sde

    def __call__(self, x: Images, t: Times, *condition: Array) -> Images:
        """Posterior mean E[x(0) | x(t) = x] of each image."""
        return self.function(x, t, *condition)


def as_pytree(function: Callable[..., Any]) -> Callable[..., Any]:
    """Function as a pytree: itself if it is one, else as a `Partial`, so that jit compiles it once."""
    return Partial(function) if jax.tree_util.all_leaves([function]) else function


def as_denoiser(denoiser: Any) -> Any:
    """Check that an object is a denoiser, and return it as a pytree.

    Raises:
        ConfigError: it cannot be called, or has no `sde`.
    """
    sde = getattr(denoiser, "sde", None)
    if not callable(denoiser) or sde is None:
        raise ConfigError(
            f"denoiser: {type(denoiser).__name__}; expected a callable (x, t) → x0 with an `sde`, as Denoiser(f, sde)"
        )
    return Denoiser(Partial(denoiser), sde) if jax.tree_util.all_leaves([denoiser]) else denoiser


def denoise(denoiser: Any, x: Float[Array, "*space"], t: Scalar | float) -> Float[Array, "*space"]:
    """Posterior mean E[x(0) | x(t) = x] of one image."""
    return denoiser(x[None], jnp.asarray(t, x.dtype)[None])[0]


def from_score(score: Callable[..., Any], sde: Sde) -> Denoiser:
    """Denoiser from a score(x, t) = ∇ log p(x, t), batch first, by Tweedie's formula (x + ν² s) / γ.

    Source: Efron, Journal of the American Statistical Association 106, 2011.
    """
    return Denoiser(Partial(_from_score, as_pytree(score), sde), sde)


def from_epsilon(epsilon: Callable[..., Any], sde: Sde) -> Denoiser:
    """Denoiser from a noise predictor epsilon(x, t) = E[n | x], batch first: (x − ν ε) / γ.

    Source: Ho, Jain & Abbeel, NeurIPS 2020.
    """
    return Denoiser(Partial(_from_epsilon, as_pytree(epsilon), sde), sde)


def from_edm(network: Callable[..., Any], sde: Sde) -> Denoiser:
    """Denoiser from an EDM one, network(x / γ, ν / γ), of images with noise of standard deviation σ, one σ an image.

    Source: Karras et al., NeurIPS 2022.
    """
    return Denoiser(Partial(_from_edm, as_pytree(network), sde), sde)


def from_model(
    model: Network,
    params: PyTree,
    sde: Sde,
    *inputs: Array,
    sigma_data: Scalar | float | None = None,
    channel: bool = False,
) -> Denoiser:
    """Denoiser from a Model, called as model.apply(params, x, level, *inputs).

    Args:
        inputs: further inputs, such as a one-hot orientation, batch first or with a batch of one.
        sigma_data: standard deviation of training images, for EDM's preconditioning, where `level` is log(σ) / 4 (see
            `edm_denoise`); None: the network predicts x0 from x, and `level` is t.
        channel: whether to add an axis of channels, which the images lack and the network needs.
    """
    function = static_partial(_from_model, model, channel)
    return Denoiser(Partial(function, params, sde, inputs, sigma_data), sde)


def edm_denoise(network: Callable[..., Any], sde: Sde, sigma_data: Scalar | float, x: Images, t: Times) -> Images:
    """Posterior mean E[x(0) | x] in EDM's preconditioning: the network's input and target have variance 1 at all t.

    With y = x / γ and σ = ν / γ:

        E[x(0) | x] = d² / (σ² + d²) · y + σ d / √(σ² + d²) · network(y / √(σ² + d²), log(σ) / 4)

    Args:
        network: function (scaled images, noise level (batch,)) → images.
        sde: forward diffusion.
        sigma_data: standard deviation d of the training images.
        x: noisy images x(t).
        t: time of each image.

    Source: Karras et al., NeurIPS 2022, table 1.
    """
    gamma, nu = marginals(sde, x, t)
    y, sigma = x / gamma, nu / gamma
    total = sigma**2 + sigma_data**2
    output = network(y / jnp.sqrt(total), jnp.log(sigma.reshape(-1)) / 4)
    return sigma_data**2 / total * y + sigma * sigma_data / jnp.sqrt(total) * output


def marginals(sde: Sde, x: Images, t: Times) -> tuple[Array, Array]:
    """γ and ν of the marginals at each image's time, with axes of one that broadcast along its space."""
    gamma, nu = jax.vmap(sde.marginal)(t)
    shape = (-1, *(1,) * (x.ndim - 1))
    return gamma.reshape(shape), nu.reshape(shape)


def classifier_free_guidance(
    denoiser: Any, condition: Float[Array, "batch *space"], weight: float | Scalar, x: Images, t: Times
) -> Images:
    """Classifier-free guidance, (1 + w) D(x, t, condition) − w D(x, t, 0).

    D was trained with dropped conditions, such as MR images. Of scores it is the same combination, for x0 is affine in
    the score.

    Args:
        denoiser: conditional denoiser D(x, t, condition) → x0.
        condition: images that condition it.
        weight: guidance weight w; 0: the conditional denoiser alone.
        x: noisy images x(t).
        t: time of each image.

    Source: Ho & Salimans, 2022; for PET Singh et al., MELBA 2024:001, who drop 10 % and take w = 0.25 to 1.
    """
    return (1 + weight) * denoiser(x, t, condition) - weight * denoiser(x, t, jnp.zeros_like(condition))


def _from_score(score: Callable[..., Any], sde: Sde, x: Images, t: Times, *condition: Array) -> Images:
    gamma, nu = marginals(sde, x, t)
    return (x + nu**2 * score(x, t, *condition)) / gamma


def _from_epsilon(epsilon: Callable[..., Any], sde: Sde, x: Images, t: Times, *condition: Array) -> Images:
    gamma, nu = marginals(sde, x, t)
    return (x - nu * epsilon(x, t, *condition)) / gamma


def _from_edm(network: Callable[..., Any], sde: Sde, x: Images, t: Times, *condition: Array) -> Images:
    gamma, nu = marginals(sde, x, t)
    return network(x / gamma, (nu / gamma).reshape(-1), *condition)


def _from_model(
    model: Network,
    channel: bool,
    params: PyTree,
    sde: Sde,
    inputs: tuple[Array, ...],
    sigma_data: Scalar | float | None,
    x: Images,
    t: Times,
) -> Images:
    bound = [jnp.broadcast_to(one, (len(x), *one.shape[1:])) for one in inputs]
    x = x[..., None] if channel else x

    def network(y: Array, level: Array) -> Array:
        return model.apply(params, y, level, *bound)

    x0 = network(x, t) if sigma_data is None else edm_denoise(network, sde, sigma_data, x, t)
    return x0[..., 0] if channel else x0
