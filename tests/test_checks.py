"""Checks of a command's options: random seeds that JAX would take for others are refused."""

import jax
import numpy as np
import pytest

from medjax.errors import ConfigError
from medjax.tools.checks import check_seed


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, np.int64(7)])
def test_seeds_that_are_distinct_pass(seed):
    check_seed(seed)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**40, 0.5, True, "1"])
def test_seeds_that_are_no_seeds_or_others_in_disguise_are_refused(seed):
    with pytest.raises(ConfigError, match=rf"^--seed {seed}; expected a whole number from 0 to 4294967295$"):
        check_seed(seed)


def test_jax_takes_a_seed_beyond_for_another():
    """Why they are refused; when this fails, more seeds may be allowed."""
    same = (jax.random.key_data(jax.random.key(seed)).tolist() for seed in (0, 2**40))
    assert len({tuple(one) for one in same}) == 1
