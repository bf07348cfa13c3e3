"""Each conditioned step against its formula; posteriors against the closed form; odd data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.diffusion import guidance, likelihood_schedule, sampler
from medjax.diffusion.denoiser import denoise
from medjax.diffusion.score_matching import intensity_scale
from medjax.diffusion.sde import vp
from medjax.errors import ConfigError
from medjax.likelihood import Gaussian

from .conftest import BLOB, gaussian_denoiser, pet_scan, sample

SDE = vp()
X, T, INDEX = jnp.linspace(-1, 2, 8), jnp.asarray(0.4), jnp.zeros((), int)
PLAIN = gaussian_denoiser(1.0, 0.5)
LIKELIHOOD = Gaussian(jnp.linspace(0, 2, 8), 0.5, curvature=2.0)


def test_naive_adds_the_gradient_to_the_score():
    estimate, _ = jax.jit(lambda guided: guided(X, T, INDEX))(guidance.naive(PLAIN, LIKELIHOOD, 0.7))
    before, _ = guidance.prior_only(PLAIN)(X, T, INDEX)
    nu = SDE.marginal(T)[1]
    pull = 0.7 * 0.6 * (LIKELIHOOD.data - jnp.maximum(X, 0)) / 0.25 * (X > 0)
    np.testing.assert_allclose(estimate.noise, before.noise - nu * pull, rtol=1e-5, atol=1e-6)


def test_dps_differentiates_through_the_denoiser():
    shift = guidance.dps(PLAIN, LIKELIHOOD, 1.0, nonnegative=False)(X, T, INDEX)[0].shift

    @jax.jit
    def log_deviance(x):
        return jnp.log(LIKELIHOOD.deviance(denoise(PLAIN, x, T)))

    step = 1e-2
    for k in range(8):
        moved = jnp.asarray(step * np.eye(8, dtype=np.float32)[k])
        slope = (np.asarray(log_deviance(X + moved)) - np.asarray(log_deviance(X - moved))) / (2 * step)
        np.testing.assert_allclose(np.asarray(shift)[k], -slope, atol=2e-3)


@jax.tree_util.register_static
class Quadratic:
    """½ ‖x‖²."""

    def value(self, image):
        return jnp.sum(image**2) / 2

    def gradient(self, image):
        return image


def test_dds_steps_are_preconditioned_ascents():
    penalty = {"penalty": Quadratic(), "penalty_weight": 0.8}
    made = guidance.dds(PLAIN, LIKELIHOOD, 3.0, updates=2, nonnegative=False, **penalty)(X, T, INDEX)[0]
    z0 = z = denoise(PLAIN, X, T)
    for _ in range(2):
        z = z + 0.25 / 2 * ((LIKELIHOOD.data - z) / 0.25 - 3.0 * (z - z0) - 0.8 * z)
    np.testing.assert_allclose(made.x0, z, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(made.noise, guidance.prior_only(PLAIN)(X, T, INDEX)[0].noise)


def test_dds_delta_steps_are_plain_gradients():
    scale, delta = 2.0, 0.01
    penalty = {"penalty": Quadratic(), "penalty_weight": 0.8}
    made, info = guidance.dds_delta(PLAIN, LIKELIHOOD, delta, 0.5, scale, updates=3, **penalty)(X, T, INDEX)
    x0 = x = denoise(PLAIN, X, T)
    for _ in range(3):
        ascent = scale * jnp.sign(x) * (LIKELIHOOD.data - scale * jnp.abs(x)) / 0.25
        x = x + delta * (ascent - 2 * 0.5 * (x - x0) - 0.8 * x)
    np.testing.assert_allclose(made.x0, x, rtol=1e-5, atol=1e-6)
    assert info.projector_calls == 6


def test_subsets_go_on_in_order_from_step_to_step():
    asked = []

    def part(number):
        jax.debug.callback(lambda n: asked.append(int(n)), number)
        return LIKELIHOOD

    for index in (0, 1):
        guidance.dds(PLAIN, part, 0.0, updates=3)(X, T, jnp.asarray(index))
    jax.effects_barrier()
    assert sorted(asked) == [0, 1, 2, 3, 4, 5]


def test_ordered_subsets_are_taken_in_their_order():
    stacked = jnp.asarray([[1.0], [2.0], [5.0]])
    subset = guidance.cycle_subsets(lambda data, k: Gaussian(data[k], 1.0), stacked, jnp.asarray([2, 0, 1]))
    assert [float(subset(jnp.asarray(n)).data[0]) for n in range(5)] == [5, 1, 2, 5, 1]
    estimate, info = guidance.dds(PLAIN, subset, 0.0, updates=6)(X[:1], T, INDEX)
    assert info.projector_calls == 4 and estimate.x0[0] == 2  # each update goes all the way to its datum


def test_anchor_and_penalty_are_divided_among_ordered_subsets():
    """Three subsets of one datum each, written out; δ of DDS-δ likewise."""
    stacked, order = jnp.asarray([[1.0], [2.0], [5.0]]), [2, 0, 1]
    subset = guidance.cycle_subsets(lambda data, k: Gaussian(data[k], 1.0), stacked, jnp.asarray(order))
    penalty = {"penalty": Quadratic(), "penalty_weight": 0.6}
    made = guidance.dds(PLAIN, subset, 0.9, updates=4, nonnegative=False, **penalty)(X[:1], T, INDEX)[0]
    z0 = z = denoise(PLAIN, X[:1], T)
    for n in range(4):
        z = z + (stacked[order[n % 3]] - z) - (0.9 * (z - z0) + 0.6 * z) / 3
    np.testing.assert_allclose(made.x0, z, rtol=1e-5)
    made, info = guidance.dds_delta(PLAIN, subset, 0.1, 0.9, updates=4, **penalty)(X[:1], T, INDEX)
    x = z0
    for n in range(4):
        ascent = jnp.sign(x) * (stacked[order[n % 3]] - jnp.abs(x))
        x = x + 0.1 * (ascent - (2 * 0.9 * (x - z0) + 0.6 * x) / 3)
    np.testing.assert_allclose(made.x0, x, rtol=1e-5)
    np.testing.assert_allclose(info.projector_calls, 8 / 3, rtol=1e-6)


class Called:
    """A likelihood that can be called too, and, as it is here, no pytree."""

    def expected(self, image):
        return image

    def deviance(self, expected):
        return jnp.sum((expected - 1) ** 2) / 2

    def gradient(self, image):
        return 1 - image

    def __call__(self, number):
        raise AssertionError("it is no function of the update's number")


def test_a_likelihood_that_can_be_called_is_one():
    called = jax.tree_util.register_static(type("Static", (Called,), {}))()
    made = guidance.dds(PLAIN, called, 0.0, updates=1)(jnp.linspace(0.5, 2, 8), T, INDEX)[0]
    np.testing.assert_allclose(made.x0, 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("message", "make"),
    [
        ("naive guidance needs a likelihood that is a pytree; Called", lambda: guidance.naive(PLAIN, Called(), 1.0)),
        ("DPS needs a likelihood that is a pytree; Called", lambda: guidance.dps(PLAIN, Called(), 1.0)),
        ("DDS needs a likelihood that is a pytree; Called", lambda: guidance.dds(PLAIN, Called(), 1.0)),
        ("DDS-δ needs a likelihood that is a pytree; Called", lambda: guidance.dds_delta(PLAIN, Called(), 1.0)),
        (
            "a likelihood schedule needs a likelihood that is a pytree",
            lambda: likelihood_schedule.likelihood_schedule(PLAIN, Called(), X),
        ),
        (
            "DDS needs a penalty with gradient; int has no gradient",
            lambda: guidance.dds(PLAIN, LIKELIHOOD, 1.0, penalty=3),
        ),
        (
            "DDS-δ needs a penalty with gradient; int has no gradient",
            lambda: guidance.dds_delta(PLAIN, LIKELIHOOD, 1.0, penalty=3),
        ),
    ],
)
def test_what_lacks_a_method_or_is_no_pytree_is_refused(message, make):
    with pytest.raises(ConfigError, match=message) as said:
        make()
    assert "\n" not in str(said.value)


def test_a_guided_denoiser_is_a_pytree_compiled_once_and_vmapped_over_its_weight():
    traced = []

    @jax.jit
    def shift(guided):
        traced.append(1)
        return guided(X, T, INDEX)[0].shift

    one, three = (shift(guidance.dps(PLAIN, LIKELIHOOD, weight)) for weight in (1.0, 3.0))
    assert len(traced) == 1
    np.testing.assert_allclose(3 * one, three, rtol=1e-5)
    many = jax.jit(jax.vmap(lambda weight: guidance.dps(PLAIN, LIKELIHOOD, weight)(X, T, INDEX)[0].shift))(
        jnp.arange(4.0)
    )
    np.testing.assert_allclose(np.asarray(many)[3], three, rtol=1e-4, atol=1e-6)


def test_a_denoiser_and_a_likelihood_written_elsewhere_are_taken():
    class Halved:
        sde = SDE

        def __call__(self, x, t):
            return x / 2

    @jax.tree_util.register_static
    class Plain:
        def expected(self, image):
            return image

        def deviance(self, expected):
            return jnp.sum((expected - 1) ** 2) / 2

        def gradient(self, image):
            return 1 - image

    for guided in (guidance.naive(Halved(), Plain(), 0.1), guidance.dps(Halved(), Plain(), 1.0)):
        assert jnp.isfinite(jax.jit(lambda g: g(X, T, INDEX)[0].noise)(guided)).all()
    for guided in (guidance.dds(Halved(), Plain(), 0.0, updates=1), guidance.dds_delta(Halved(), Plain(), 1.0, 0.0)):
        np.testing.assert_allclose(guided(jnp.linspace(0.5, 2, 8), T, INDEX)[0].x0, 1.0, rtol=1e-5)
    deviances = jnp.asarray([0.01])
    reached, info = likelihood_schedule.likelihood_schedule(Halved(), Plain(), deviances)(X, T, INDEX)
    np.testing.assert_allclose(Plain().deviance(reached.x0), 0.01, rtol=1e-3)
    assert info.reached_target


def posterior(make, solver, steps):
    """Distance of the samples' mean from the posterior's, and their deviation; prior N(1, ½²), noise ½."""
    voxels, key = 64, jax.random.key(0)
    data = 1 + 0.7 * jax.random.normal(key, (voxels,))
    guided = make(PLAIN, Gaussian(data, 0.5, curvature=2.0))
    times = sampler.uniform_times(steps)

    def one(key):
        image = 1 + 0.5 * jax.random.normal(jax.random.fold_in(key, 9), (voxels,))
        return sample(key, guided, times, (voxels,), solver, image)[0].x0

    samples = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 400))
    return float(jnp.sqrt(jnp.mean((samples.mean(axis=0) - (1 + data) / 2) ** 2))), float(samples.std(axis=0).mean())


def test_biased_samplers_are_as_biased_as_the_documents_say():
    """The posterior has deviation 0.354; scripts/gaussian_posterior.py has the whole table."""
    ancestral = sampler.ddim(1.0)
    distance, deviation = posterior(lambda e, k: guidance.naive(e, k, 0.5), sampler.euler_maruyama, 300)
    assert distance < 0.12 and 0.3 < deviation < 0.42
    distance, deviation = posterior(lambda e, k: guidance.dps(e, k, 1.0, nonnegative=False), ancestral, 150)
    assert distance < 0.4 and 0.2 < deviation < 0.5
    distance, deviation = posterior(lambda e, k: guidance.dds(e, k, 2.0, updates=4, nonnegative=False), ancestral, 50)
    assert distance > 0.3 and deviation < 0.1  # it ends at the data: nothing holds it back at late steps


METHODS = {
    "naive": lambda e, k, c: guidance.naive(e, k, 1e-3, c),
    "dps": lambda e, k, c: guidance.dps(e, k, 1.0, c),
    "dds": lambda e, k, c: guidance.dds(e, guidance.full_data(k), 0.01, c),
    "dds_delta": lambda e, k, c: guidance.dds_delta(e, guidance.full_data(k), 1e-4, 1.0, c),
    "likelihood_schedule": lambda e, k, c: likelihood_schedule.likelihood_schedule(
        e, k, likelihood_schedule.targets(k, jnp.ones((16, 16, 1)), 10.0, 8, 20).deviance, c
    ),
}
ODD = {
    "zero counts": lambda: pet_scan(level=0.0, background=0.0),
    "all background": lambda: pet_scan(level=0.0, background=3.0),
    "few counts": lambda: pet_scan(level=0.05, background=0.01),
}


@jax.jit
def sampled(guided, image):
    times = sampler.uniform_times(8, 1.0, 0.01)
    return sample(jax.random.key(0), guided, times, (16, 16, 1), sampler.ddim(1.0), image)


@pytest.mark.parametrize("data", ODD)
@pytest.mark.parametrize("method", METHODS)
def test_odd_data_give_finite_images(method, data, prior):
    likelihood = ODD[data]()
    scale = jnp.maximum(intensity_scale(likelihood.update(jnp.ones((16, 16, 1)))), 1e-6)
    guided = METHODS[method](prior, likelihood, scale)
    state, _ = sampled(guided, jnp.zeros((16, 16, 1)))
    assert jnp.isfinite(state.x0).all()


@pytest.mark.parametrize("method", METHODS)
def test_data_move_the_image_towards_themselves(method, prior, scan):
    scale = jnp.asarray(30.0)

    def deviance(guided):
        state, _ = sampled(guided, jnp.asarray(BLOB))
        return scan.deviance(scan.expected(jnp.maximum(scale * state.x0, 0)))

    assert deviance(METHODS[method](prior, scan, scale)) < deviance(guidance.prior_only(prior))
