"""Targets, steps that reach them, and the rules at the limits."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.diffusion import guidance, likelihood_schedule, sampler
from medjax.pet import em

from .conftest import BLOB, sample

SHAPE = (16, 16, 1)


def goal(scan, iterations=15.0, steps=12):
    return likelihood_schedule.targets(scan, em.init(scan).image, iterations, steps, 40)


def sampled(scan, prior, deviances, scale=30.0, **options):
    guided = likelihood_schedule.likelihood_schedule(prior, scan, deviances, scale, **options)
    return drawn(guided, sampler.uniform_times(len(deviances), 1.0, 0.01))


@jax.jit
def drawn(guided, times):
    return sample(jax.random.key(0), guided, times, SHAPE, sampler.ddim(1.0))


def test_targets_are_the_deviances_of_mlem(scan):
    path = goal(scan).mlem_deviance
    image = em.init(scan).image
    for number in range(16):
        expected = scan.expected(image)
        np.testing.assert_allclose(path[number], scan.deviance(expected), rtol=1e-5)
        image = scan.update(image, expected)


def test_targets_never_rise_and_end_at_the_iterations_asked_for(scan):
    found = goal(scan)
    assert (jnp.diff(found.deviance) <= 0).all() and (jnp.diff(found.mlem_deviance) <= 0).all()
    assert found.deviance[0] == found.mlem_deviance[0] and found.deviance[-1] == found.mlem_deviance[15]
    np.testing.assert_allclose(
        goal(scan, 2.5).deviance[-1], (found.mlem_deviance[2] + found.mlem_deviance[3]) / 2, rtol=1e-6
    )


def test_every_step_that_updates_reaches_its_target(scan, prior):
    deviances = goal(scan).deviance
    _, info = sampled(scan, prior, deviances)
    reached = jnp.abs(info.deviance - info.target) / (deviances[0] - deviances[-1])
    assert info.reached_target.any()
    assert (reached[np.asarray(info.reached_target)] <= 1e-3).all()
    assert (info.deviance <= info.target + 1e-3 * (deviances[0] - deviances[-1])).all()
    np.testing.assert_array_equal(info.projector_calls, 1 + 2 * info.updates)


def test_an_image_that_fits_is_left_alone(scan, prior):
    easy = jnp.full(5, 1e9)
    state, info = sampled(scan, prior, easy)
    assert (info.updates == 0).all() and not info.reached_target.any()

    def plain(x, t, index):
        estimate, _ = guidance.prior_only(prior)(x, t, index)
        return estimate._replace(x0=jnp.maximum(estimate.x0, likelihood_schedule.FLOOR)), ()

    times = sampler.uniform_times(5, 1.0, 0.01)
    alone, _ = sample(jax.random.key(0), plain, times, SHAPE, sampler.ddim(1.0))
    np.testing.assert_allclose(state.x0, alone.x0, atol=1e-4)


def test_a_target_out_of_reach_stops_at_the_limit(scan, prior):
    state, info = sampled(scan, prior, jnp.full(4, 1.0), max_updates=3)
    assert (info.updates == 3).all() and not info.reached_target.any()
    assert jnp.isfinite(state.x0).all()


def test_the_image_follows_the_data(scan, prior):
    state, _ = sampled(scan, prior, goal(scan).deviance)
    truth = 30.0 * BLOB
    error = np.linalg.norm(30 * state.x0 - truth) / np.linalg.norm(truth)
    prior_only = sampled(scan, prior, jnp.full(12, 1e9))[0]
    assert error < 0.95 * np.linalg.norm(30 * prior_only.x0 - truth) / np.linalg.norm(truth)


def test_other_iterations_cost_no_second_compilation(scan, prior):
    calls = []

    @jax.jit
    def run(iterations):
        calls.append(1)
        return sampled(scan, prior, goal(scan, iterations).deviance)[0].x0

    run(jnp.asarray(5.0)), run(jnp.asarray(12.0))
    assert len(calls) == 1


def test_the_proximal_variant_is_held_by_its_anchor(scan, prior):
    """With a huge weight updates change nothing: the target is out of reach and the denoised image stays."""
    deviances = goal(scan).deviance
    held, info = sampled(scan, prior, deviances, proximal_weight=1e6, max_updates=4)
    plain, _ = sampled(scan, prior, jnp.full(12, 1e9))
    np.testing.assert_allclose(held.x0, plain.x0, atol=2e-3)
    assert not info.reached_target.any()


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_zero_counts_leave_nothing_to_reach(scan, prior, level):
    silent = replace(scan, counts=level * 0 * scan.counts)
    state, _ = sampled(silent, prior, goal(silent).deviance)
    assert jnp.isfinite(state.x0).all()


def test_discrepancy_principle_is_where_the_path_falls_to_a_deviance():
    path = jnp.asarray([100.0, 50.0, 30.0, 25.0])
    for deviance, iterate in ((200.0, 0.0), (75.0, 0.5), (50.0, 1.0), (40.0, 1.5), (25.0, 3.0), (1.0, 3.0)):
        np.testing.assert_allclose(likelihood_schedule.discrepancy_principle(path, deviance), iterate, atol=1e-6)
