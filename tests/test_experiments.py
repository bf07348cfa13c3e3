"""Every experiment's tiny preset runs from end to end, and says the same twice; a user's own operator plugs in."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import iterate
from medjax.pet import em
from medjax.pet.acquisition import Acquisition
from tests.tiny_runs import NAMES, check_tiny_run, parameters


@pytest.mark.parametrize("name", parameters([name for name in NAMES if not name.startswith("pet_")]))
def test_tiny_runs_and_repeats(name: str, tiny_runs: Path, tmp_path: Path):
    check_tiny_run(name, tiny_runs, tmp_path)


def test_an_operator_from_outside_plugs_in():
    """EM needs of an acquisition only `project` and `backproject`: here products with a matrix, the system."""
    matrix = jnp.asarray(np.abs(np.random.default_rng(0).normal(size=(6, 5))), jnp.float32)

    def project(system: jax.Array, image: jax.Array) -> jax.Array:
        return jnp.einsum("bx,xyz->byz", system, image)

    def backproject(system: jax.Array, sinogram: jax.Array) -> jax.Array:
        return jnp.einsum("bx,byz->xyz", system, sinogram)

    truth = jnp.ones((5, 3, 2)).at[2].set(4.0)
    counts = project(matrix, truth)
    ones = jnp.ones_like(counts)
    scan = Acquisition(counts, ones, 0 * ones, backproject(matrix, ones), matrix, None, project, backproject)
    stacked = jax.tree.map(lambda a: a[None], scan)
    state, info = iterate.scan(em.osem(stacked), em.init(stacked), 400)
    assert info.deviance[-1] < 1e-3 * info.deviance[0]
    np.testing.assert_allclose(state.image, truth, rtol=0.2)
