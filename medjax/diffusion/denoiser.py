"""What a prior is to samplers: a denoiser, (x, t) → x0 = E[x(0) | x(t) = x], and the `Sde` that travels with it.

    x = γ(t) · x0 + ν(t) · n        x (batch, *space), one t for each image of the batch

Anything callable like this that has an attribute `sde` will do. These make one of what others have trained:

    from_score(score, sde)             score(x, t) = ∇ log p(x, t)
    from_epsilon(epsilon, sde)         epsilon(x, t) = E[n | x]
    from_edm(network, sde)             network(x / γ, ν / γ), a denoiser at noise level σ (Karras et al. 2022)
    from_model(model, params, sde)     a network of ours, preconditioned or not
    Denoiser(Partial(function), sde)   function(x, t) itself

Orientation, position and other images are bound beforehand; one that knows a condition takes it as third argument.
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
class Denoises(Protocol):
    """What samplers, guidance and `planes` ask of a denoiser."""

    @property
    def sde(self) -> Sde:
        """The diffusion whose noise is taken away."""
        ...

    def __call__(self, x: Images, t: Times, *condition: Array) -> Images:
        """E[x(0) | x(t) = x] of each image."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Denoiser:
    """`function(x, t)` and its diffusion, as a pytree: an argument of jit, and vmapped over what it holds."""

    function: Callable[..., Any]  # a pytree: a `Partial` of a module-level function, say
    sde: Sde

    def __call__(self, x: Images, t: Times, *condition: Array) -> Images:
        """E[x(0) | x(t) = x] of each image."""
        return self.function(x, t, *condition)


def as_pytree(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself if it is a pytree, else as a `Partial`: jit keeps what it compiled for this very function."""
    return Partial(function) if jax.tree_util.all_leaves([function]) else function


def as_denoiser(denoiser: Any) -> Any:
    """The denoiser, as a pytree.

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
    """E[x(0) | x(t) = x] of one image."""
    return denoiser(x[None], jnp.asarray(t, x.dtype)[None])[0]


def from_score(score: Callable[..., Any], sde: Sde) -> Denoiser:
    """(x + ν² s) / γ, Tweedie's formula, of score(x, t) = ∇ log p(x, t), batch first.

    Source: Efron, Journal of the American Statistical Association 106, 2011.
    """
    return Denoiser(Partial(_from_score, as_pytree(score), sde), sde)


def from_epsilon(epsilon: Callable[..., Any], sde: Sde) -> Denoiser:
    """(x − ν ε) / γ of epsilon(x, t) = E[n | x], batch first.

    Source: Ho, Jain & Abbeel, NeurIPS 2020.
    """
    return Denoiser(Partial(_from_epsilon, as_pytree(epsilon), sde), sde)


def from_edm(network: Callable[..., Any], sde: Sde) -> Denoiser:
    """network(x / γ, ν / γ): a denoiser of images with noise of standard deviation σ, batch first, σ one an image.

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
    """A network, called as model.apply(params, x, level, *inputs); `inputs` are batch first or have a batch of one.

    With a `sigma_data` (the standard deviation of training images) it is in EDM's preconditioning, and `level` is
    log(σ) / 4: see `preconditioned`. Without one it predicts x0 from x, and `level` is t. With `channel` images have no
    axis of channels, and the network needs one.
    """
    function = static_partial(_from_model, model, channel)
    return Denoiser(Partial(function, params, sde, inputs, sigma_data), sde)


def preconditioned(network: Callable[..., Any], sde: Sde, sigma_data: Scalar | float, x: Images, t: Times) -> Images:
    """E[x(0) | x] of a network whose input and target have variance 1 at every noise level.

    With y = x / γ, σ = ν / γ and images of standard deviation `sigma_data` = d:

        E[x(0) | x] = d² / (σ² + d²) · y + σ d / √(σ² + d²) · network(y / √(σ² + d²), log(σ) / 4)

    Source: Karras et al., NeurIPS 2022, table 1.
    """
    gamma, nu = marginals(sde, x, t)
    y, sigma = x / gamma, nu / gamma
    total = sigma**2 + sigma_data**2
    output = network(y / jnp.sqrt(total), jnp.log(sigma.reshape(-1)) / 4)
    return sigma_data**2 / total * y + sigma * sigma_data / jnp.sqrt(total) * output


def marginals(sde: Sde, x: Images, t: Times) -> tuple[Array, Array]:
    """γ and ν of each image, with axes of one that broadcast along its space."""
    gamma, nu = jax.vmap(sde.marginal)(t)
    shape = (-1, *(1,) * (x.ndim - 1))
    return gamma.reshape(shape), nu.reshape(shape)


def classifier_free(
    denoiser: Any, condition: Float[Array, "batch *space"], weight: float | Scalar, x: Images, t: Times
) -> Images:
    """(1 + w) D(x, t, condition) − w D(x, t, 0), of a network trained with dropped conditions: an MR image, say.

    Of scores it is the same combination, for x0 is affine in the score.

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

    x0 = network(x, t) if sigma_data is None else preconditioned(network, sde, sigma_data, x, t)
    return x0[..., 0] if channel else x0
