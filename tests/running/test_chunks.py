"""Cases in chunks of one size: the same as all at once, by one compiled program."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.running.chunks import map_in_chunks


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_chunks_are_the_whole(count):
    sizes = []

    def function(x: jax.Array, tree: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        sizes.append(len(x))
        return x.sum(axis=1) + tree["shift"], tree["shift"] > 2

    x, shift = np.random.default_rng(0).normal(size=(count, 5)).astype(np.float32), np.arange(count)
    total, large = map_in_chunks(function, 3)(x, {"shift": shift})
    np.testing.assert_allclose(total, x.sum(axis=1) + shift, rtol=1e-6)
    np.testing.assert_array_equal(large, shift > 2)
    assert sizes == [3] * -(-count // 3)


def test_one_program_and_keys():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def draw(keys: jax.Array) -> jax.Array:
        return jax.vmap(jax.random.normal)(keys)

    keys = jax.random.split(jax.random.key(0), 5)
    one_by_one = [jax.random.normal(key) for key in keys]
    np.testing.assert_allclose(map_in_chunks(draw, 2)(keys), jnp.stack(one_by_one), rtol=1e-6)


def test_bad_input():
    with pytest.raises(DataError, match="chunks of 0"):
        map_in_chunks(lambda x: x, 0)
    for cases in ((np.ones(3), np.ones(2)), (np.ones(0),)):
        with pytest.raises(DataError, match="expected one number"):
            map_in_chunks(lambda *x: x, 2)(*cases)
