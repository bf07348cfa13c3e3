"""What every projector must pass: the transpose is the transpose."""

import jax
import jax.numpy as jnp
import numpy as np

from medjax.pet.projector import backproject, project
from medjax.pet.system import System


def random_pair(system: System, slices: int, seed: int = 0, dtype=np.float32) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    shape = (*system.row_index.shape, slices)
    image, sinogram = rng.normal(size=(*system.shape, slices)), rng.normal(size=shape)
    return jnp.asarray(image.astype(dtype)), jnp.asarray(sinogram.astype(dtype))


def adjoint_gap(system: System, image: jax.Array, sinogram: jax.Array, forward=project, transpose=backproject) -> float:
    """`dot_gap` of a projector and its transpose, both compiled."""
    return dot_gap(jax.jit(forward)(system, image), sinogram, image, jax.jit(transpose)(system, sinogram))


def dot_gap(there: jax.Array, sinogram: jax.Array, image: jax.Array, back: jax.Array) -> float:
    """|⟨Ax, y⟩ − ⟨x, Aᵀy⟩| / (‖Ax‖ ‖y‖), summed in float64."""
    there, y, x, back = (np.asarray(a, np.float64) for a in (there, sinogram, image, back))
    return abs((there * y).sum() - (x * back).sum()) / max(np.linalg.norm(there) * np.linalg.norm(y), 1e-30)
