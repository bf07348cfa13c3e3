"""SVRG: preconditioned stochastic variance-reduced gradient ascent, for a converged MAP image in few passes.

    x ← max(x + α D g, 0),   g = n (∇Φ_k(x) − ∇Φ_k(a)) + ∇Φ(a),   Φ_k = L_k − weight R / n,   Φ = Σ_k Φ_k

The gradients of all n subsets at an anchor image a are kept, and found anew every second pass: g is then the whole
gradient at a, plus what one subset says has changed since, so that its noise goes to 0 where x and a meet, and a
constant step converges. D = x̂ / (s + 1.5 · weight · x̂ · diag ∇²R(x̂)), x̂ a smooth image, joins EM's preconditioner with
the curvature of the penalty.

Source: Johnson & Zhang, NeurIPS 2013; Twyman et al., IEEE Transactions on Medical Imaging 42(1), 2023; steps and
preconditioner after the winner of the PETRIC challenge (Ehrhardt, Schramm & Kereta, 2025).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Scalar

from medjax.iterate import Algorithm
from medjax.penalty import Penalty, require
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, divide, require_subsets, select_subset
from medjax.pet.psf import Psf, blur

EPOCHS_AN_ANCHOR = 2  # passes over the subsets for which an anchor serves
EPOCHS_A_PRECONDITIONER = 3  # first passes at whose start the preconditioner is made anew
CURVATURE = 1.5  # factor of the penalty's curvature in the preconditioner
STEPS = ((10, 3.0), (100, 2.0), (200, 1.5), (300, 1.0))  # updates up to which a step length holds
LAST_STEP = 0.5
_FLOOR = 1e-3  # of the mean of x̂ below which D does not fall: a voxel can leave zero


class State(NamedTuple):
    """State of SVRG: image, number of updates, gradients of all subsets at the anchor image, preconditioner."""

    image: Float[Array, "x y z"]
    step: Int[Array, ""]
    gradients: Float[Array, "subset x y z"]
    preconditioner: Float[Array, "x y z"]


class Info(NamedTuple):
    """Deviance and relative change of an SVRG update."""

    deviance: Scalar  # deviance of the image that entered the step, on the step's subset
    change: Scalar  # ‖new − old‖ / ‖old‖


def svrg(
    stacked: Acquisition,
    penalty: Penalty,
    weight: float | Scalar,
    smoothing: Psf | None = None,
    step_size: float | Scalar = 1.0,
) -> Algorithm:
    """Preconditioned SVRG: maximises log-likelihood − weight · R(x), one subset a step.

    `init(image=None) → State`, `step(State) → State, Info`. Start from an iteration of OSEM.

    Args:
        stacked: ordered subsets of the data, from `ordered_subsets`; about 25 of them.
        penalty: penalty with a gradient and a curvature.
        weight: weight of the penalty.
        smoothing: blur of the image x̂ in the preconditioner, such as a Gaussian of 5 mm FWHM; None: none.
        step_size: factor of the step lengths 3 (10 updates), 2, 1.5, 1 (100 each), 0.5.

    Raises:
        ConfigError: the penalty has no gradient or no curvature.
        DataError: the acquisition has no subsets: expected the result of `ordered_subsets`.
    """
    require(penalty, "SVRG", "gradient", "curvature")
    require_subsets(stacked)
    return Algorithm(
        Partial(_init, stacked, penalty, weight, smoothing),
        Partial(_step, stacked, penalty, weight, smoothing, step_size),
    )


def objective(stacked: Acquisition, penalty: Penalty, weight: float | Scalar, image: Float[Array, "x y z"]) -> Scalar:
    """Objective log-likelihood − weight · R(x), less the log-likelihood of a perfect fit: −deviance − weight · R."""
    deviances = jax.lax.map(lambda part: part.deviance(part.expected(image)), stacked)
    return -jnp.sum(deviances) - weight * penalty.value(image)


def _init(
    stacked: Acquisition,
    penalty: Penalty,
    weight: float | Scalar,
    smoothing: Psf | None,
    image: Float[Array, "x y z"] | None = None,
) -> State:
    start = em.init(stacked).image if image is None else image
    gradients = jnp.zeros((stacked.counts.shape[0], *start.shape), start.dtype)  # the first step makes them
    return State(
        start, jnp.zeros((), jnp.int32), gradients, _preconditioner(stacked, penalty, weight, smoothing, start)
    )


def _step(
    stacked: Acquisition,
    penalty: Penalty,
    weight: float | Scalar,
    smoothing: Psf | None,
    step_size: float | Scalar,
    state: State,
) -> tuple[State, Info]:
    number = stacked.counts.shape[0]
    image = state.image
    subset = em.subset_order(number)[state.step % number]
    part = select_subset(stacked, subset)
    expected = part.expected(image)
    slope = weight / number * penalty.gradient(image)

    def gradient(part: Acquisition, expected: Array) -> Array:
        return part.adjoint(divide(part.counts, expected)) - part.sensitivity - slope

    gradients = jax.lax.cond(
        state.step % (EPOCHS_AN_ANCHOR * number) == 0,
        lambda: jax.lax.map(lambda one: gradient(one, one.expected(image)), stacked),
        lambda: state.gradients,
    )
    renew = (state.step % number == 0) & (state.step < EPOCHS_A_PRECONDITIONER * number)
    preconditioner = jax.lax.cond(
        renew,
        lambda: _preconditioner(stacked, penalty, weight, smoothing, image),
        lambda: state.preconditioner,
    )
    direction = number * (gradient(part, expected) - gradients[subset]) + gradients.sum(axis=0)
    length = jnp.asarray(LAST_STEP, image.dtype)
    for updates, size in reversed(STEPS):
        length = jnp.where(state.step < updates, size, length)
    new = jnp.maximum(image + step_size * length * preconditioner * direction, 0)
    change = jnp.linalg.norm(new - image) / jnp.maximum(jnp.linalg.norm(image), jnp.finfo(image.dtype).tiny)
    return State(new, state.step + 1, gradients, preconditioner), Info(part.deviance(expected), change)


def _preconditioner(
    stacked: Acquisition, penalty: Penalty, weight: float | Scalar, smoothing: Psf | None, image: Array
) -> Array:
    """x̂ / (s + 1.5 · weight · x̂ · diag ∇²R(x̂)), and 0 where no line of response passes."""
    smooth = blur(smoothing, image)
    smooth = smooth + _FLOOR * smooth.mean()
    sensitivity = stacked.sensitivity.sum(axis=0)
    curvature = CURVATURE * weight * penalty.curvature(smooth)  # pyrefly: ignore[missing-attribute] (`require` saw it)
    return jnp.where(sensitivity > 0, divide(smooth, sensitivity + curvature * smooth), 0)
