"""Levenberg–Marquardt with bounds, for a curve in every voxel: very many very small problems at once.

    fit = levenberg_marquardt(model, initial, measured, lower, upper)        model(parameters) → predictions

Voxels lie along the last axis of everything, so each arithmetic operation runs over all of them; the normal equations
of a voxel, four by four say, are solved by an unrolled Cholesky decomposition. Any model of a few parameters will do:

    def t2_decay(p):  # (2, voxel) → (echo, voxel)
        return p[:1] * jnp.exp(-echo_times[:, None] / p[1:])

What is minimised is a sum of squares, or the likelihood of any `Noise` that a least-squares problem can stand in for.

Source: Moré, Numerical Analysis, Lecture Notes in Mathematics 630, 1978; bounds by projection and an active set.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from medjax.ivim.noise import GAUSSIAN, Noise

Model = Callable[[Float[Array, "parameter voxel"]], Float[Array, "measurement voxel"]]
Weights = Float[Array, "measurement voxel"] | Float[Array, "measurement 1"]
INITIAL_DAMPING, MIN_DAMPING, MAX_DAMPING = 1e-2, 1e-7, 1e7  # Marquardt's λ
DAMPING_DECREASE, DAMPING_INCREASE = 0.2, 4.0  # factors of λ after a step that lowered the cost, and one that did not


class LmResult(NamedTuple):
    """Fitted parameters of each voxel, their cost, and the number of accepted steps."""

    parameters: Float[Array, "parameter voxel"]
    cost: Float[Array, " voxel"]  # Σ w loss(y, m): Σ w (y − m)² for Gaussian noise
    accepted: Int[Array, " voxel"]  # steps that lowered the cost


class _State(NamedTuple):
    parameters: Array
    cost: Array
    damping: Array
    accepted: Array


def levenberg_marquardt(
    model: Model,
    initial: Float[Array, "parameter voxel"],
    measured: Float[Array, "measurement voxel"],
    lower: Float[Array, "parameter #voxel"],
    upper: Float[Array, "parameter #voxel"],
    weights: Weights | None = None,
    steps: int | Int[Array, ""] = 12,
    noise: Noise = GAUSSIAN,
) -> LmResult:
    """Minimise Σ_k w_k loss(y_k, m_k(p)) over lower ≤ p ≤ upper in each voxel, by Levenberg–Marquardt.

    A step solves (JᵀWJ + λ diag JᵀWJ) δ = JᵀW (target − m) for the parameters that no bound holds back, goes to
    clip(p + δ) and is taken where the cost falls; λ is each voxel's own. The cost never rises and bounds always hold.

    Args:
        model: parameters (parameter, voxel) → predictions (measurement, voxel).
        initial: initial parameters.
        lower: lower bounds.
        upper: upper bounds.
        weights: weights of the measurements; default 1.
        steps: number of iterations, all of which are made.
        noise: likelihood of a measurement.
    """
    w = jnp.ones_like(measured) if weights is None else jnp.broadcast_to(weights, measured.shape)

    def cost_of(p: Array) -> Array:
        return jnp.sum(w * noise.loss(measured, model(p)), axis=0)

    def step(_: Array, state: _State) -> _State:
        p = state.parameters
        prediction, derivatives = jacobian(model, p)
        target, weight = noise.surrogate(measured, prediction)
        u = w * weight
        gradient = jnp.stack([jnp.sum(u * j * (target - prediction), axis=0) for j in derivatives])
        held = ((p <= lower) & (gradient < 0)) | ((p >= upper) & (gradient > 0))
        normal = [[jnp.sum(u * a * b, axis=0) for b in derivatives[: i + 1]] for i, a in enumerate(derivatives)]
        delta = solve(_damped(normal, held, state.damping), jnp.where(held, 0, gradient))
        trial = jnp.clip(p + delta, lower, upper)
        cost = cost_of(trial)
        better = cost < state.cost
        damping = jnp.clip(
            state.damping * jnp.where(better, DAMPING_DECREASE, DAMPING_INCREASE), MIN_DAMPING, MAX_DAMPING
        )
        return _State(
            jnp.where(better[None], trial, p), jnp.where(better, cost, state.cost), damping, state.accepted + better
        )

    first = jnp.clip(initial, lower, upper)
    voxels = measured.shape[1]
    state = _State(first, cost_of(first), jnp.full(voxels, INITIAL_DAMPING, first.dtype), jnp.zeros(voxels, jnp.int32))
    end = jax.lax.fori_loop(0, steps, step, state)
    return LmResult(end.parameters, end.cost, end.accepted)


def jacobian(model: Model, p: Float[Array, "parameter voxel"]) -> tuple[Array, list[Array]]:
    """Predictions and Jacobian: derivatives with respect to each parameter, in forward mode, for parameters are few."""
    prediction, push = jax.linearize(model, p)
    rows = [jnp.zeros_like(p).at[k].set(1.0) for k in range(len(p))]
    return prediction, [push(row) for row in rows]


def _damped(normal: list[list[Array]], held: Array, damping: Array) -> list[list[Array]]:
    """With (1 + λ) on the diagonal; rows and columns of what is held become those of the identity."""
    out = []
    for i, row in enumerate(normal):
        largest = jnp.maximum(row[i], 1e-20)
        out.append([jnp.where(held[i] | held[j], 0.0, value) for j, value in enumerate(row[:i])])
        out[-1].append(jnp.where(held[i], 1.0, largest * (1 + damping) + 1e-20))
    return out


def solve(matrix: list[list[Array]], rhs: Float[Array, "parameter voxel"]) -> Float[Array, "parameter voxel"]:
    """Solution x of A x = b for each voxel's positive-definite A, rows of its lower triangle, by unrolled Cholesky."""
    factor = cholesky(matrix)
    x: list[Array] = []
    for i, row in enumerate(factor):
        x.append((rhs[i] - sum((row[j] * x[j] for j in range(i)), jnp.zeros_like(rhs[i]))) / row[i])
    for i in reversed(range(len(x))):
        later = sum((factor[j][i] * x[j] for j in range(i + 1, len(x))), jnp.zeros_like(rhs[i]))
        x[i] = (x[i] - later) / factor[i][i]
    return jnp.stack(x)


def cholesky(matrix: list[list[Array]]) -> list[list[Array]]:
    """Cholesky factor L of A = L Lᵀ, as rows of its lower triangle; pivots are kept above 0 where A is not definite."""
    factor: list[list[Array]] = []
    for i, row in enumerate(matrix):
        new: list[Array] = []
        for j in range(i + 1):
            left = row[j] - sum(
                (new[k] * (factor[j][k] if j < i else new[k]) for k in range(j)), jnp.zeros_like(row[j])
            )
            tiny = 1e-7 * jnp.maximum(jnp.abs(row[i]), 1e-20)
            new.append(jnp.sqrt(jnp.maximum(left, tiny)) if j == i else left / factor[j][j])
        factor.append(new)
    return factor
