"""The PET experiments sample a denoiser written outside the library, in the place of the prior that comes with it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.pet_conditional_sampling import get_config
from experiments.pet.comparison import StudyInputs, study_inputs
from experiments.pet.samplers import methods
from experiments.pet.scans import Scan
from medjax.diffusion.prior import volume_denoiser
from medjax.diffusion.sde import vp
from medjax.errors import ConfigError
from medjax.running.workdir import WorkDir

SIDE = 24


class Constant:
    """A prior that is sure of one value, of no class of the library."""

    sde = vp()

    def __init__(self, value):
        self.value = value

    def __call__(self, x, t):
        return jnp.full_like(x, self.value)


def config():
    c = get_config("tiny")
    c.grid.size, c.grid.voxel_mm = SIDE, 10.0
    return c


def inputs(tmp_path, denoiser=None) -> StudyInputs:
    [one] = study_inputs([config()], [WorkDir(tmp_path)], denoiser)
    return one


def test_a_foreign_denoiser_takes_the_priors_place(tmp_path):
    with pytest.raises(ConfigError, match=r"about 2\.5 mm"):
        inputs(tmp_path)
    one = inputs(tmp_path, Constant(1.0))
    square, shape = jnp.zeros((SIDE, SIDE, 1)).at[8:16, 6:18].set(3.0), one.setup.template.counts.shape
    empty = replace(one.setup.template, multiplicative=jnp.full(shape, 0.2), additive=jnp.ones(shape))
    counts = jax.random.poisson(jax.random.key(0), empty.expected(square)).astype(jnp.float32)
    scan = Scan(replace(empty, counts=counts, sensitivity=empty.adjoint(jnp.ones(shape))), one.setup.grid, None)

    def images(value):
        dds = methods(one.prior._replace(denoisers=(Constant(value),) * 3))["dds"]
        run = jax.jit(
            lambda updates: dds(jax.random.key(1), scan, proximal_weight=jnp.asarray(0.0), updates=updates).image
        )
        return [run(jnp.asarray(updates)) for updates in (0.0, 3.0)]

    (prior, fitted), (doubled, _) = images(1.0), images(2.0)
    np.testing.assert_allclose(prior, prior.mean(), rtol=1e-5)  # without data, what the denoiser says everywhere
    np.testing.assert_allclose(doubled, 2 * prior, rtol=1e-5)
    assert fitted[8:16, 6:18].mean() > 1.3 * fitted[:5].mean()  # data steps from there show the square
    volume = volume_denoiser(one.prior.denoisers, "averaged", one.prior.multiple)(jnp.zeros((1, 2, 3, 4)), jnp.ones(1))
    np.testing.assert_array_equal(volume, jnp.ones((1, 2, 3, 4)))
