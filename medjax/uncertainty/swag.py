"""SWAG: a Gaussian of a network's parameters from those that its training passes through, and draws of it.

    state = init(params, rank=20)
    for trained, _ in iterate.loop(algorithm, trained, 2000, inputs=batches, every=100):
        state = update(state, trained.params)                 late in training, at a constant learning rate
    counts = samples(swag, key, model, posterior(state), images, 20)

With the mean θ̄ and variance σ² of the n parameters collected, and the K last deviations from the running mean as the
columns of D, draws are normal with mean θ̄ and covariance ½ (diag σ² + D Dᵀ / (K − 1)).

All are pure functions of pytrees: `jax.vmap(update)` collects for each member of a population. Networks of medjax have
no batch statistics, so none have to be estimated anew for a draw.

Source: Maddox et al., NeurIPS 2019.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from medjax.errors import ConfigError, DataError
from medjax.models.model import Network
from medjax.uncertainty.predictive import Images, Logits, Number, method, network_logits


class Swag(NamedTuple):
    """Moments of the parameters collected so far."""

    mean: PyTree  # mean
    squares: PyTree  # sum of squared deviations from the mean
    deviations: PyTree  # (column, …): last deviations from the running mean, cyclic
    count: Int[Array, ""]  # number of parameters collected


class Posterior(NamedTuple):
    """Normal distribution of parameters with covariance diag(sd²) + Σ_c factor_c factor_cᵀ."""

    mean: PyTree
    sd: PyTree
    factor: PyTree  # (column, …)


def init(params: PyTree, rank: int = 20) -> Swag:
    """Moments before any parameters, of the shapes of `params`; `rank` columns of deviations are kept.

    Raises:
        ConfigError: a rank below 2.
    """
    if rank < 2:
        raise ConfigError(f"rank: {rank}; expected 2 or more columns of deviations")
    zeros = jax.tree.map(jnp.zeros_like, params)
    columns = jax.tree.map(lambda leaf: jnp.zeros((rank, *jnp.shape(leaf)), leaf.dtype), zeros)
    return Swag(zeros, zeros, columns, jnp.zeros((), jnp.int32))


@jax.jit
def update(state: Swag, params: PyTree) -> Swag:
    """Moments with one more set of parameters, by Welford's update; the oldest column of deviations goes."""
    count = state.count + 1
    mean = jax.tree.map(lambda mean, new: mean + (new - mean) / count, state.mean, params)
    squares = jax.tree.map(
        lambda squares, old, mean, new: squares + (new - old) * (new - mean), state.squares, state.mean, mean, params
    )
    column = state.count % len(jax.tree.leaves(state.deviations)[0])
    deviations = jax.tree.map(lambda all, new, mean: all.at[column].set(new - mean), state.deviations, params, mean)
    return Swag(mean, squares, deviations, count)


def posterior(state: Swag, scale: float | int = 0.5) -> Posterior:
    """Posterior N(θ̄, scale · (diag σ² + D Dᵀ / (K − 1))), K the columns filled; `scale` is ½ as published.

    Raises:
        DataError: fewer than two sets of parameters collected, some that are not finite, or a negative scale.
    """
    count = np.asarray(state.count)
    if count.ndim or count < 2:
        raise DataError(f"state: {count} sets of parameters collected; expected 2 or more, of one network")
    if not scale >= 0:
        raise DataError(f"scale: {scale:g}; expected 0 or more")
    if not all(np.isfinite(leaf).all() for leaf in jax.device_get(jax.tree.leaves((state.mean, state.squares)))):
        raise DataError("state: parameters that are not finite were collected; expected finite ones")
    filled = min(int(count), len(jax.tree.leaves(state.deviations)[0]))
    sd = jax.tree.map(lambda squares: jnp.sqrt(scale * squares / count), state.squares)
    factor = jax.tree.map(lambda columns: columns * jnp.sqrt(scale / (filled - 1)), state.deviations)
    return Posterior(state.mean, sd, factor)


def sample_params(key: PRNGKeyArray, posterior: Posterior) -> PyTree:
    """Parameters drawn from a posterior: θ̄ + sd ε + Σ_c factor_c z_c, ε and z standard normal."""
    diagonal, low_rank = jax.random.split(key)
    flat, unravel = ravel_pytree(posterior.mean)
    noise = unravel(jax.random.normal(diagonal, (flat.size,), flat.dtype))
    z = jax.random.normal(low_rank, (len(jax.tree.leaves(posterior.factor)[0]),))

    def shifted(mean: Array, sd: Array, noise: Array, factor: Array) -> Array:
        return mean + sd * noise + jnp.tensordot(z, factor, 1, precision=jax.lax.Precision.HIGHEST)

    return jax.tree.map(shifted, posterior.mean, posterior.sd, noise, posterior.factor)


def _check_posterior(model: Network, params: PyTree, images: Images, n: int) -> None:
    if not isinstance(params, Posterior):
        raise DataError(f"params: {type(params).__name__}; expected a swag.posterior to draw parameters from")


@method("{n} draws of SWAG", _check_posterior, distinct=True)
def swag(key: PRNGKeyArray, model: Network, params: Posterior, images: Images, k: Number) -> Logits:
    """SWAG: sample k is the network of parameters drawn from the `posterior` with fold_in(key, k)."""
    return network_logits(model, sample_params(jax.random.fold_in(key, k), params), images)
