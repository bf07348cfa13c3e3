"""Drivers of predictive methods: equal by all strategies, memory that does not grow with n, running sums, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import ConfigError, DataError
from medjax.models.layers import group_norm
from medjax.models.model import Model
from medjax.models.unet import unet
from medjax.uncertainty import predictive, sampling
from medjax.uncertainty.predictive import deep_ensemble, monte_carlo_dropout
from medjax.uncertainty.sampling import STRATEGIES, class_counts, fold_samples, mean_probabilities, samples
from medjax.uncertainty.transforms import flips, rotation_and_shift
from tests.uncertainty.closed_form import LINEAR, WITHOUT_DROPOUT, init, linear, stacked

KEY = jax.random.key(5)
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2, 8, 8, 2)).astype(np.float32)
ONE = {"weight": jnp.ones(2), "bias": jnp.zeros(1)}
NETWORK = unet(3, (4, 4), norm=group_norm(2), dropout=0.3)


@pytest.fixture(scope="module")
def members():
    shapes = jax.eval_shape(NETWORK.init, KEY, IMAGES)
    return jax.tree.map(lambda leaf: RNG.normal(size=(3, *leaf.shape)).astype(np.float32), shapes)


def test_classes_are_counted():
    logits = RNG.normal(size=(4, 5, 6, 7, 3)).astype(np.float32)
    labels = logits.argmax(-1)
    expected = [[(labels[image] == kind).sum() for kind in range(3)] for image in range(4)]
    np.testing.assert_array_equal(class_counts(logits), expected)
    assert class_counts(jnp.zeros((1, 2, 2, 3))).tolist() == [[4, 0, 0]]  # of equal logits the first


@pytest.mark.parametrize("method", [deep_ensemble, monte_carlo_dropout])
def test_strategies_agree_and_samples_do_not_depend_on_n(members, method):
    params = members if method is deep_ensemble else jax.tree.map(lambda leaf: leaf[0], members)
    loop, by_map, by_vmap = (
        samples(method, KEY, NETWORK, params, IMAGES, 3, measure=jax.nn.softmax, strategy=one) for one in STRATEGIES
    )
    np.testing.assert_allclose(by_map, loop, atol=1e-6)
    np.testing.assert_allclose(by_vmap, loop, atol=1e-4)
    fewer = samples(method, KEY, NETWORK, params, IMAGES, 2, measure=jax.nn.softmax, strategy="loop")
    np.testing.assert_array_equal(fewer, loop[:2])
    assert np.abs(loop[0] - loop[1]).max() > 0.01


@pytest.mark.parametrize("n", [1, 7, 8, 9, 20])
def test_rows_of_vmap_hold_every_sample_once(n):
    found = samples(deep_ensemble, KEY, LINEAR, stacked(range(20), 2), IMAGES, n, measure=np.max, strategy="loop")
    by_vmap = samples(deep_ensemble, KEY, LINEAR, stacked(range(20), 2), IMAGES, n, measure=jnp.max, strategy="vmap")
    np.testing.assert_allclose(by_vmap, found, rtol=1e-6)
    np.testing.assert_allclose(found, IMAGES.sum(-1).max() + np.arange(n), rtol=1e-6)


@pytest.mark.parametrize("strategy", ["map", "vmap"])
def test_memory_grows_by_the_measures_alone(strategy):
    images = np.zeros((4, 32, 32, 2), np.float32)

    def program(n):
        numbers = sampling._numbers(n, strategy)
        return sampling._samples.lower(monte_carlo_dropout, LINEAR, class_counts, KEY, ONE, images, numbers)

    few, many = (program(n).compile().memory_analysis() for n in (8, 64))
    one = 4 * 32 * 32 * 2 * 4  # bytes of a sample's logits
    assert many.temp_size_in_bytes - few.temp_size_in_bytes < one
    assert many.output_size_in_bytes < one


@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_programs_lower_for_every_platform(shape):
    numbers = np.arange(4, dtype=np.int32).reshape(shape)
    method = predictive.test_time_augmentation(rotation_and_shift())
    program = jax.export.export(sampling._samples, platforms=("cpu", "cuda", "tpu"))
    assert program(method, LINEAR, class_counts, KEY, ONE, IMAGES, numbers).platforms == ("cpu", "cuda", "tpu")


def test_equal_calls_are_compiled_once():
    traced = []

    def apply(params, images, key=None):
        traced.append(images.shape)
        return linear(params, images, key)

    model, five = Model(init, apply), stacked(range(5), 2)
    for seed, n in ((0, 3), (1, 3), (2, 5)):
        samples(deep_ensemble, jax.random.key(seed), model, five, IMAGES + seed, n, strategy="loop")
    assert len(traced) == 1
    for seed in (0, 1):
        samples(deep_ensemble, jax.random.key(seed), model, five, IMAGES + seed, 3, strategy="map")
    assert len(traced) == 2


@pytest.mark.parametrize("strategy", ["loop", "map"])
def test_running_sums_are_those_of_all_samples(strategy):
    probabilities = samples(deep_ensemble, KEY, LINEAR, stacked([0, 1, 2], 2), IMAGES, 3, measure=jax.nn.softmax)
    mean = mean_probabilities(deep_ensemble, KEY, LINEAR, stacked([0, 1, 2], 2), IMAGES, 3, strategy=strategy)
    np.testing.assert_allclose(mean, probabilities.mean(0), atol=1e-6)
    largest = fold_samples(
        deep_ensemble, KEY, LINEAR, stacked([0, 1, 2], 2), IMAGES, 3,
        update=larger, state=jnp.float32(-jnp.inf), strategy=strategy,
    )  # fmt: skip
    np.testing.assert_allclose(largest, IMAGES.sum(-1).max() + 2, rtol=1e-6)


def larger(state, logits):
    return jnp.maximum(state, logits.max())


def test_a_function_of_the_host_may_measure():
    found = samples(deep_ensemble, KEY, LINEAR, stacked([0, 1], 2), IMAGES, 2, measure=lambda x: float(np.max(x)))
    np.testing.assert_allclose(found, IMAGES.sum(-1).max() + np.arange(2), rtol=1e-6)


def test_voxels_of_a_map_that_is_not_undone_are_not_averaged():
    method = predictive.test_time_augmentation(rotation_and_shift())
    with pytest.raises(DataError, match="expected an aligned one"):
        mean_probabilities(method, KEY, LINEAR, ONE, IMAGES, 2)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_refuses_samples_that_are_not_finite(strategy):
    """An arg-max would take NaN for the largest logit."""
    params = stacked([0, np.nan, 1], 2)
    with pytest.raises(DataError, match="sample 1: logits are not finite"):
        samples(deep_ensemble, KEY, LINEAR, params, IMAGES, 3, strategy=strategy)
    if strategy != "vmap":
        with pytest.raises(DataError, match="sample 1: logits are not finite"):
            mean_probabilities(deep_ensemble, KEY, LINEAR, params, IMAGES, 3, strategy=strategy)
    images = np.where(np.arange(2).reshape(2, 1, 1, 1) == 1, np.nan, IMAGES).astype(np.float32)
    with pytest.raises(DataError, match="sample 0"):
        samples(predictive.test_time_augmentation(flips()), KEY, LINEAR, ONE, images, 3, strategy=strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_refuses_a_network_without_dropout(strategy):
    with pytest.raises(DataError, match=r"all 3 have equal logits; expected .* a network with dropout"):
        samples(monte_carlo_dropout, KEY, WITHOUT_DROPOUT, ONE, IMAGES, 3, strategy=strategy)
    if strategy != "vmap":
        with pytest.raises(DataError, match="all 3 have equal logits"):
            mean_probabilities(monte_carlo_dropout, KEY, WITHOUT_DROPOUT, ONE, IMAGES, 3, strategy=strategy)


class Unhashable:
    __hash__ = None

    def __call__(self, *arguments, key=None):
        return arguments[-1]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n": 0}, DataError, "n: 0; expected 1"),
        ({"strategy": "scan"}, ConfigError, "'scan'; expected one of loop, map, vmap"),
        ({"images": IMAGES[:0]}, DataError, r"images: shape \(0, 8, 8, 2\)"),
        ({"model": Model(init, Unhashable())}, ConfigError, "model: Model is not hashable"),
        ({"measure": Unhashable(), "strategy": "map"}, ConfigError, "measure or update: Unhashable is not hashable"),
        ({"params": {"weight": jnp.ones((3, 4)), "bias": jnp.zeros(1)}}, DataError, "does not take these parameters"),
    ],
)
def test_refuses_in_one_line(change, error, message):
    asked = {"model": LINEAR, "params": ONE, "images": IMAGES, "n": 2, "measure": class_counts, "strategy": None}
    asked |= change
    with pytest.raises(error, match=message) as refusal:
        measure, strategy = asked.pop("measure"), asked.pop("strategy")
        samples(monte_carlo_dropout, KEY, *asked.values(), measure=measure, strategy=strategy)
    assert "\n" not in str(refusal.value)


def test_a_running_sum_is_not_vmapped():
    with pytest.raises(ConfigError, match="'vmap'; expected one of loop, map"):
        mean_probabilities(deep_ensemble, KEY, LINEAR, stacked([0, 1], 2), IMAGES, 2, strategy="vmap")
