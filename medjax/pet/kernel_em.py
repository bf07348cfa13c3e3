"""Kernel EM: an image x = K α whose coefficients α are found by EM, K smoothing among anatomically similar voxels.

    α ← α / Kᵀ Aᵀ1 · Kᵀ Aᵀ(y / (A K α + b)),   K_jk ∝ exp(−|f_j − f_k|² / 2σ²) for the similar neighbours k of j, rows 1

f is an anatomical (MR) image in units of its own standard deviation. There is no penalty and nothing to tune but K.

Source: Wang & Qi, IEEE Transactions on Medical Imaging 34(1), 2015; Hutchcroft et al., Physics in Medicine and Biology
61(18), 2016, for a kernel of MR.
"""

from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Scalar

from medjax.errors import DataError
from medjax.iterate import Algorithm
from medjax.one_program import one_program
from medjax.penalty import shift
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, divide, require_subsets, select_subset


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Kernel:
    """Kernel matrix K: of voxel j, weight `weights[o]` for voxel j + `offsets[o]`; the weights of a voxel sum to 1."""

    weights: Float[Array, "offset x y z"]
    offsets: tuple[tuple[int, int, int], ...] = field(metadata={"static": True})


class State(NamedTuple):
    """State of kernel EM: coefficients, image K α and number of updates."""

    coefficients: Float[Array, "x y z"]
    image: Float[Array, "x y z"]
    step: Int[Array, ""]


def mr_kernel(guide: Float[Array, "x y z"], similar: int = 40, reach: int = 2, sd: float | Scalar = 1.0) -> Kernel:
    """Kernel of an anatomical image: for each voxel its `similar` nearest in value among those at most `reach` away.

    Args:
        guide: anatomical (MR) image on the grid of the PET image.
        similar: number of voxels with a weight, the voxel itself among them.
        reach: largest distance of a neighbour along each axis, in voxels.
        sd: σ of the Gaussian, in standard deviations of the guide image.

    Raises:
        DataError: the image is not finite, or the numbers are not ones that a neighbourhood has.
    """
    ranges = [range(-reach, reach + 1) if side > 1 else range(1) for side in guide.shape]
    offsets = tuple((i, j, k) for i, j, k in product(*ranges))
    if not np.all(np.isfinite(guide)):
        raise DataError("guide image: holds values that are not finite")
    if reach < 1 or not 1 <= similar <= len(offsets):
        raise DataError(f"kernel: {similar} similar voxels at most {reach} away; expected 1 to {len(offsets)}")
    return Kernel(_weights(guide, sd, offsets, similar), offsets)


@partial(jax.jit, static_argnums=(2, 3))
def _weights(guide: Array, sd: float | Scalar, offsets: tuple[tuple[int, int, int], ...], similar: int) -> Array:
    feature = guide / jnp.maximum(jnp.std(guide), jnp.finfo(guide.dtype).tiny)
    inside = jnp.stack([shift(jnp.ones(guide.shape, bool), o) for o in offsets])
    distance = jnp.abs(jnp.stack([shift(feature, o) for o in offsets]) - feature[None])
    distance = jnp.where(inside, distance, jnp.inf)
    apart = jnp.asarray(np.linalg.norm(offsets, axis=1), guide.dtype)[:, None, None, None]  # ties: the nearer one
    rank = jnp.argsort(jnp.argsort(distance + 1e-6 * apart, axis=0), axis=0)
    weights = jnp.where(inside & (rank < similar), jnp.exp(-(distance**2) / (2 * sd**2)), 0)
    return weights / weights.sum(axis=0, keepdims=True)


@one_program
def smooth(kernel: Kernel, coefficients: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
    """Image K α."""
    terms = [w * shift(coefficients, o) for w, o in zip(kernel.weights, kernel.offsets, strict=True)]
    return sum(terms[1:], terms[0])


@one_program
def transpose(kernel: Kernel, image: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
    """Kᵀ of an image."""
    terms = [shift(w * image, (-o[0], -o[1], -o[2])) for w, o in zip(kernel.weights, kernel.offsets, strict=True)]
    return sum(terms[1:], terms[0])


def kernel_em(stacked: Acquisition, kernel: Kernel) -> Algorithm:
    """Kernel EM in ordered subsets: `init(coefficients=None) → State`, `step(State) → State, Info`.

    `state.image` is K α.

    Raises:
        DataError: the acquisition has no subsets (1 for all data), or the kernel is not of the image's shape.
    """
    require_subsets(stacked)
    if kernel.weights.shape[1:] != stacked.sensitivity.shape[1:]:
        raise DataError(f"kernel: of {kernel.weights.shape[1:]} voxels; the image has {stacked.sensitivity.shape[1:]}")
    return Algorithm(Partial(_init, stacked, kernel), Partial(_step, stacked, kernel))


def _init(stacked: Acquisition, kernel: Kernel, coefficients: Float[Array, "x y z"] | None = None) -> State:
    start = em.init(stacked).image if coefficients is None else coefficients
    return State(start, smooth(kernel, start), jnp.zeros((), jnp.int32))


def _step(stacked: Acquisition, kernel: Kernel, state: State) -> tuple[State, em.Info]:
    number = stacked.sensitivity.shape[0]
    part = select_subset(stacked, em.subset_order(number)[state.step % number])
    expected = part.expected(state.image)
    ratio = transpose(kernel, part.adjoint(divide(part.counts, expected)))
    coefficients = divide(state.coefficients, transpose(kernel, part.sensitivity)) * ratio
    image, deviance = smooth(kernel, coefficients), part.deviance(expected)
    return State(coefficients, image, state.step + 1), em.Info(deviance, -deviance)
