"""The PET experiments sample a denoiser written outside the library, in the place of the prior that comes with it."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.pet_conditional_sampling import get_config
from experiments._pet import Scans
from experiments._pet_samplers import dds
from experiments._pet_study import prepare
from medjax.diffusion.prior import volumes
from medjax.diffusion.sde import vp
from medjax.errors import ConfigError

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


def test_a_foreign_denoiser_takes_the_priors_place():
    with pytest.raises(ConfigError, match=r"about 2\.5 mm"):
        prepare(config())
    b, s = prepare(config(), Constant(1.0))
    square = jnp.zeros((SIDE, SIDE, 1)).at[8:16, 6:18].set(3.0)
    shape = b.template.counts.shape
    scan = replace(b.template, multiplicative=jnp.full(shape, 0.2), additive=jnp.ones(shape))
    sensitivity = scan.adjoint(jnp.ones(shape))
    counts = jax.random.poisson(jax.random.key(0), scan.expected(square)).astype(jnp.float32)
    unused = dict.fromkeys(Scans._fields, jnp.zeros(()))
    seen = {"counts": counts, "multiplicative": scan.multiplicative, "additive": scan.additive}
    case = Scans(**unused | seen | {"sensitivity": sensitivity})

    def images(value):
        run = jax.jit(partial(dds, b, s=s._replace(denoisers=(Constant(value),) * 3)))
        return [run(jax.random.key(1), case, anchor=jnp.asarray(0.0), updates=jnp.asarray(n)).image for n in (0.0, 3.0)]

    (prior, fitted), (doubled, _) = images(1.0), images(2.0)
    np.testing.assert_allclose(prior, prior.mean(), rtol=1e-5)  # without data, what the denoiser says everywhere
    np.testing.assert_allclose(doubled, 2 * prior, rtol=1e-5)
    assert fitted[8:16, 6:18].mean() > 1.3 * fitted[:5].mean()  # data steps from there show the square
    volume = volumes(s.denoisers, "averaged", s.multiple)(jnp.zeros((1, 2, 3, 4)), jnp.ones(1))
    np.testing.assert_array_equal(volume, jnp.ones((1, 2, 3, 4)))
