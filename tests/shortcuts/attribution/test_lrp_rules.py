"""Rules of relevance propagation: closed forms for one dense layer, limits, conservation, settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import ConfigError
from medjax.shortcuts.attribution import lrp_rules as rules

S = 1e-6


def product(kernel, x):
    return jnp.matmul(x, kernel)


def stable(z):
    return z + (-S if z < 0 else S)


def by_contributions(x, w, bias, relevance, contributions):
    """Relevance of x by the definition, one output after the other; `contributions(z, b)` → of inputs, of the bias."""
    total = np.zeros_like(x)
    for j in range(w.shape[1]):
        inputs, own = contributions(x, w[:, j], bias[j])
        total += inputs / stable(inputs.sum() + own) * relevance[j]
    return total


def gamma_contributions(gamma):
    def contributions(x, w, b):
        z = x * w
        if z.sum() + b > 0:
            return z + gamma * np.maximum(z, 0), b + gamma * max(b, 0)
        return z + gamma * np.minimum(z, 0), b + gamma * min(b, 0)

    return contributions


def positive(x, w, b):
    return np.maximum(x * w, 0), max(b, 0)


def negative(x, w, b):
    return np.minimum(x * w, 0), min(b, 0)


DEFINITIONS = {
    "epsilon": (rules.epsilon(S), [(1, lambda x, w, b: (x * w, b))]),
    "gamma": (rules.gamma(0.3), [(1, gamma_contributions(0.3))]),
    "alpha2_beta1": (rules.alpha_beta(2.0, 1.0), [(2, positive), (-1, negative)]),
    "alpha1_beta0": (rules.alpha_beta(), [(1, positive)]),
    "z_plus": (rules.z_plus(), [(1, positive)]),
    "flat": (rules.flat(), [(1, lambda x, w, b: (np.ones_like(x), 0))]),
    "w_square": (rules.w_square(), [(1, lambda x, w, b: (w**2, 0))]),
    "z_box": (rules.z_box(-3.0, 4.0), [(1, lambda x, w, b: (x * w + 3 * np.maximum(w, 0) - 4 * np.minimum(w, 0), 0))]),
}


def layer(seed=0, bias=1.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=20), rng.normal(size=(20, 5)), bias * rng.normal(size=5), rng.normal(size=5)


def relevance_of(rule, x, w, bias, relevance):
    return np.asarray(rule(product, *map(jnp.asarray, (w, bias[None], x[None], relevance[None]))))[0]


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_dense_layer_follows_the_definition(name, x64):
    rule, parts = DEFINITIONS[name]
    x, w, bias, relevance = layer()
    expected = sum(weight * by_contributions(x, w, bias, relevance, one) for weight, one in parts)
    np.testing.assert_allclose(relevance_of(rule, x, w, bias, relevance), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_relevance_is_conserved_without_biases(name, x64):
    x, w, bias, relevance = layer(1, bias=0.0)
    found = relevance_of(DEFINITIONS[name][0], x, w, bias, relevance)
    np.testing.assert_allclose(found.sum(), relevance.sum(), rtol=1e-4)


def test_small_gamma_is_epsilon_and_large_gamma_is_z_plus_where_outputs_are_positive(x64):
    x, w, bias, relevance = layer(2)
    some = np.where(x @ w + bias > 0, relevance, 0)
    assert (some != 0).any()
    assert (some == 0).any()
    np.testing.assert_allclose(
        relevance_of(rules.gamma(0.0), x, w, bias, relevance),
        relevance_of(rules.epsilon(), x, w, bias, relevance),
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        relevance_of(rules.gamma(1e9, 1e-15), x, w, bias, some),
        relevance_of(rules.z_plus(1e-15), x, w, bias, some),
        atol=1e-8,
    )


def test_gamma_of_positive_inputs_and_outputs_raises_positive_weights(x64):
    x, w, bias, relevance = layer(3)
    x, some = np.abs(x), np.where(np.abs(x) @ w + bias > 0, relevance, 0)
    raised, raised_bias = w + 0.5 * np.maximum(w, 0), bias + 0.5 * np.maximum(bias, 0)
    expected = x * (raised @ (some / (x @ raised + raised_bias + S)))
    np.testing.assert_allclose(relevance_of(rules.gamma(0.5), x, w, bias, some), expected, rtol=1e-10)


def test_an_output_of_zero_is_positive(x64):
    zero = relevance_of(rules.epsilon(0.5), np.array([1.0, 1.0]), np.array([[1.0], [-1.0]]), np.zeros(1), np.ones(1))
    np.testing.assert_allclose(zero, [2.0, -2.0])


def test_settings_may_be_traced_and_equal_rules_are_equal():
    x, w, bias, relevance = layer(4)
    arrays = [jnp.asarray(one, jnp.float32) for one in (w, bias[None], x[None], relevance[None])]
    found = jax.vmap(lambda gamma: rules.gamma(gamma)(product, *arrays)[0])(jnp.array([0.0, 0.5]))
    np.testing.assert_allclose(found[1], relevance_of(rules.gamma(0.5), x, w, bias, relevance), rtol=1e-3)
    assert rules.gamma(0.5) == rules.gamma(0.5)
    assert hash(rules.gamma(0.5)) == hash(rules.gamma(0.5))
    assert rules.gamma(0.5) != rules.gamma(0.4)
    assert jax.tree.leaves(rules.alpha_beta(2.0, 1.0)) == [2.0, 1.0, 1e-6]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda: rules.epsilon(0.0), "epsilon: 0.0; expected more than 0"),
        (lambda: rules.gamma(-1.0), "gamma: -1.0; expected 0 or more"),
        (lambda: rules.alpha_beta(2.0, 0.5), "alpha, beta: 2.0, 0.5; expected alpha - beta = 1"),
        (lambda: rules.alpha_beta(0.5, -0.5), "beta: -0.5; expected 0 or more"),
        (lambda: rules.z_plus(0.0), "stabilizer: 0.0; expected more than 0"),
    ],
)
def test_settings_out_of_range_are_refused(rule, message):
    with pytest.raises(ConfigError, match=message):
        rule()
