"""What the 3-D projector takes beside its arguments: little, whatever the number of views."""

import jax
import jax.numpy as jnp
import pytest

from medjax.pet.grid import Grid
from medjax.pet.michelogram import michelogram
from medjax.pet.projector3d import backproject, project
from medjax.pet.scanner import Scanner, lors
from medjax.pet.system3d import build_system3d


@pytest.mark.optimized
@pytest.mark.parametrize("transpose", [False, True])
def test_temporary_memory_is_a_small_multiple_of_the_sinogram(transpose: bool):
    """Compiled only, not run: 5.5 million lines of response, 22 MB."""
    scanner = Scanner("cylinder", 320, 32, 120.0, 2.0, 128, 1.0)
    system = build_system3d(lors(scanner), michelogram(32, 1, 4), 2.0, Grid((128, 128, 63), (1.0, 1.0, 1.0)))
    shape = system.sinogram_shape if transpose else system.shape
    leaves, structure = jax.tree.flatten(system)
    apply = backproject if transpose else project
    lowered = jax.jit(lambda own, x: apply(jax.tree.unflatten(structure, own), x)).lower(leaves, jnp.zeros(shape))
    statistics = lowered.compile().memory_analysis()
    if statistics is None:
        pytest.skip("the backend does not tell")
    sinogram = 4 * 160 * 128 * 268
    assert statistics.temp_size_in_bytes < 3.5 * sinogram
