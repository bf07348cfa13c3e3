"""Bias and standard deviation against closed forms of a linear estimator, and a Python loop."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from medjax import iterate
from medjax.errors import DataError
from medjax.iterate import Algorithm
from medjax.penalty import Quadratic, neighbors
from medjax.pet import em
from medjax.pet.acquisition import Acquisition
from medjax.pet.bias_variance import Method, _moments, bias_variance, from_algorithm
from medjax.pet.simulate import _poisson
from medjax.tools.pet_bias_variance import bias_variance_study
from tests.pet.test_em import GRID, phantom, scan

SHAPE = (12, 10, 1)
KEY = jax.random.key(3)


def scaled(counts: jax.Array, setting: jax.Array) -> jax.Array:
    """A linear estimator with two points: counts times the setting, and twice that."""
    return jnp.stack([setting * counts, 2 * setting * counts])


def linear(settings: tuple[float, ...] = (0.5, 1.5)) -> Method:
    return Method(scaled, settings, (1.0, 2.0))


def test_a_linear_estimator_has_its_closed_form(x64: None):
    """bias = c λ − truth, sd = c √λ of a voxel, c √Σλ / m of a region's mean; 95 % of the intervals hold them."""
    rng = np.random.default_rng(0)
    expected, truth = rng.uniform(5, 60, SHAPE), rng.uniform(5, 60, SHAPE)
    single = {f"{at}": np.arange(120).reshape(SHAPE) == at for at in range(120)}
    half = np.arange(120).reshape(SHAPE) < 60
    number = 300
    study = bias_variance(KEY, expected, truth, {"scaled": linear()}, single | {"half": half}, realizations=number)
    found = study["scaled"]
    for s, setting in enumerate(found.settings):
        for p, times in enumerate((1, 2)):
            c = setting * times
            sd = c * np.sqrt(expected)
            np.testing.assert_allclose(found.bias_image[s, p], c * expected - truth, atol=4.5 * sd.max() / number**0.5)
            np.testing.assert_allclose(found.sd_image[s, p], sd, rtol=4.5 / np.sqrt(2 * number))
            np.testing.assert_allclose(found.bias[s, p, :-1], found.bias_image[s, p].ravel(), rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(found.sd[s, p, :-1], found.sd_image[s, p].ravel(), rtol=1e-9)
            region_sd = c * np.sqrt(expected[half].sum()) / 60
            assert found.sd[s, p, -1] == pytest.approx(region_sd, rel=4 / np.sqrt(2 * number))
            bias = c * expected[half].mean() - truth[half].mean()
            assert found.bias[s, p, -1] == pytest.approx(bias, abs=4 * region_sd / number**0.5)
            np.testing.assert_allclose(found.voxel_sd[s, p, -1], np.sqrt(np.mean(found.sd_image[s, p][half] ** 2)))
            for want, (low, high) in (
                ((c * expected - truth).ravel(), found.bias_interval[:, s, p, :-1]),
                (sd.ravel(), found.sd_interval[:, s, p, :-1]),
            ):
                assert 0.88 <= np.mean((low <= want) & (want <= high)) <= 0.995
    assert np.all(np.diff(found.bias_interval, axis=0) > 0)


def map_em(acquisition: Acquisition, beta: jax.Array) -> tuple[Algorithm, em.State]:
    penalty = Quadratic(neighbors(GRID.shape, GRID.voxel_mm))
    return em.map_em(acquisition, penalty, beta), em.init(acquisition)


def test_it_is_a_python_loop_whatever_the_chunk(x64: None):
    stacked = scan(3, background=1.0)
    truth = jnp.asarray(phantom(), float)
    expected = jnp.maximum(stacked.counts, 0.5)
    betas = (0.1, 3.0)
    method = from_algorithm(stacked, map_em, 2, betas, iterations=2)
    assert method.points == [2.0, 4.0]
    hot = {"hot": np.asarray(truth > truth.mean())}
    study, again, other = (
        bias_variance(KEY, expected, truth, {"MAP-EM": method}, hot, realizations=5, chunk=chunk, resamples=40)[
            "MAP-EM"
        ]
        for chunk in (2, 2, 5)
    )
    for one, two, three in zip(study, again, other, strict=True):
        np.testing.assert_array_equal(one, two)  # the same seed, the same result
        np.testing.assert_allclose(one, three, rtol=1e-8, atol=1e-10)
    noise = jax.random.split(KEY)[0]
    step = jax.jit(lambda data, beta, state: iterate.repeat(map_em(data, beta)[0], state, 6))
    for s, beta in enumerate(betas):
        images = []
        for i in range(5):
            data = Acquisition(
                _poisson(jax.random.fold_in(noise, i), expected),
                stacked.multiplicative,
                stacked.additive,
                stacked.sensitivity,
                stacked.system,
                stacked.psf,
                stacked.project,
                stacked.backproject,
            )
            state = step(data, jnp.asarray(beta), em.init(data))
            images.append(np.asarray(step(data, jnp.asarray(beta), state).image))
        images = np.stack(images)
        np.testing.assert_allclose(study.bias_image[s, 1], images.mean(0) - truth, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(study.sd_image[s, 1], images.std(0, ddof=1), rtol=1e-7, atol=1e-10)
        means = images[:, hot["hot"]].mean(1)
        np.testing.assert_allclose(study.sd[s, 1, 0], means.std(ddof=1), rtol=1e-8)


def test_memory_is_bounded_by_the_chunk():
    def memory(realizations: int, chunk: int) -> int:
        expected, regions = jnp.ones((40, 40, 1)), jnp.ones((1, 40, 40, 1)) / 1600
        arguments = (KEY, expected, expected, Partial(scaled), jnp.ones(2), regions)
        return _moments.lower(*arguments, realizations, chunk).compile().memory_analysis().temp_size_in_bytes

    few, many, wide = memory(32, 4), memory(512, 4), memory(512, 64)
    assert many < 1.2 * few and wide > 4 * many


def test_the_tool_writes_a_table_and_a_figure(tmp_path, x64: None):
    truth = np.full(SHAPE, 20.0)
    regions = {"left": np.arange(120).reshape(SHAPE) < 60, "all": np.ones(SHAPE, bool)}
    methods = {"scaled": linear(), "one point": Method(lambda y, c: (c * y)[None], (0.8, 1.0, 1.2))}
    study = bias_variance_study(truth, truth, methods, regions, tmp_path / "study", realizations=20, resamples=50)
    with (tmp_path / "study" / "bias_variance.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 2 * 2 * 2 + 3 * 2
    row = next(
        row for row in table if row["method"] == "one point" and row["setting"] == "1.2" and row["region"] == "all"
    )
    assert float(row["bias"]) == study["one point"].bias[2, 0, 1] and float(row["true_mean"]) == 20
    assert float(row["bias_low"]) < float(row["bias"]) < float(row["bias_high"])
    assert (tmp_path / "study" / "bias_variance.png").read_bytes()[:4] == b"\x89PNG"


def test_bad_input_is_refused():
    truth = np.full(SHAPE, 20.0, np.float32)
    good = {"scaled": linear()}
    empty = {"nothing": np.zeros(SHAPE, bool)}
    for methods, regions, settings, message in (
        ({}, None, {}, "methods: none; expected at least one"),
        (good, None, {"realizations": 1}, "realizations: 1; expected 2 or more"),
        (good, None, {"chunk": 0}, "chunk: 0; expected 1 or more"),
        (good, None, {"level": 1.0}, "level: 1; expected between 0 and 1"),
        (good, empty, {}, "region nothing: no voxel"),
        (
            {"one": Method(scaled, (1.0,))},
            None,
            {},
            r"one: images of shape \(2, 12, 10, 1\); expected \(1, 12, 10, 1\)",
        ),
    ):
        with pytest.raises(DataError, match=message):
            bias_variance(KEY, truth, truth, methods, regions, **settings)
    with pytest.raises(DataError, match="expected counts: 120 of 120 values"):
        bias_variance(KEY, -truth, truth, good)
    with pytest.raises(DataError, match="region dark: true mean 0; expected more than 0"):
        bias_variance_study(truth, 0 * truth, good, {"dark": np.ones(SHAPE, bool)})
