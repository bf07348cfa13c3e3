"""Relevance propagation through Flax networks: frozen norms, residual sums, pooling; what has no rule is refused."""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import ConfigError
from medjax.iterate import static_partial
from medjax.models.layers import Conv, Dense, group_norm, instance_norm, pool
from medjax.models.model import from_flax
from medjax.models.unet import unet
from medjax.shortcuts.attribution import lrp_rules
from medjax.shortcuts.attribution.lrp import Composite, lrp, uniform

EXACT = uniform(lrp_rules.epsilon(1e-9))
EXACT = Composite(EXACT.convolution, EXACT.dense, epsilon=1e-9)


def total(x):
    return x.sum(axis=tuple(range(1, x.ndim - 1)))


def add(x, y):
    return x + y


class Net(nn.Module):
    """norm?, convolution, norm, act, pool, sum, dense."""

    norm: Callable[[], nn.Module] = group_norm(2)
    norm_first: bool = False
    act: Callable[[Any], Any] = nn.relu
    pool: Callable[[Any], Any] = pool
    average: Callable[[Any], Any] = total
    add: Callable[[Any, Any], Any] = add
    layerwise: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x):
        x = self.norm().copy(name="norm_first")(x) if self.norm_first else x
        x = Conv(4, (3, 3), name="conv")(x)
        x = self.pool(self.act(self.norm().copy(name="norm")(x)))
        x = nn.Dropout(0.5, deterministic=True)(self.add(x, Conv(4, (1, 1), name="branch")(x)))
        return Dense(3, name="head")(self.average(x))


X = jnp.asarray(np.random.default_rng(0).normal(size=(1, 6, 6, 2)), jnp.float32)


def drawn_params(model, seed=1):
    """Weights of all kinds, also of biases and scales."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0), X)
    return jax.tree.map(lambda one: jnp.asarray(rng.normal(size=one.shape) / len(one.shape), X.dtype), shapes)


def propagated(model, params, x, start, rules=EXACT):
    outputs, pullback = jax.vjp(lambda x: model.relevance(params, x, rules), x)
    return outputs, pullback(start * outputs)[0]


AXES = {nn.GroupNorm: (1, 2, 4), nn.InstanceNorm: (1, 2, 4), nn.LayerNorm: (3, 4)}  # of (batch, x, y, group, channel)


def constant_statistics(next_fun, args, kwargs, context):
    """A norm whose derivative is scale / sd, its statistics being constants."""
    layer = context.module
    if type(layer) not in AXES:
        return next_fun(*args, **kwargs)
    x = jax.lax.stop_gradient(args[0])
    groups = {nn.GroupNorm: 2, nn.InstanceNorm: x.shape[-1], nn.LayerNorm: 1}[type(layer)]
    grouped = x.reshape(*x.shape[:-1], groups, -1)
    sd = jnp.broadcast_to(jnp.sqrt(grouped.var(AXES[type(layer)], keepdims=True) + layer.epsilon), grouped.shape)
    slope = layer.variables["params"]["scale"].reshape(1, 1, 1, -1) / sd.reshape(x.shape)
    return next_fun(x) + slope * (args[0] - x)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("norm", [group_norm(2), instance_norm(), static_partial(nn.LayerNorm)])
def test_norms_are_affine_with_the_statistics_of_the_image(norm, norm_first, x64):
    """Of networks of ReLUs LRP-0 is input × gradient; here that of the network with its statistics as constants."""
    module = Net(norm=norm, norm_first=norm_first)
    model = from_flax(module)
    x, params = X.astype(float), jax.tree.map(lambda p: p.astype(float), drawn_params(model))

    def logit(x):
        with nn.intercept_methods(constant_statistics):
            return module.apply({"params": params}, x)[0, 1]

    outputs, found = jax.jit(lambda x: propagated(model, params, x, jnp.array([[0, 1, 0]])))(x)
    np.testing.assert_allclose(outputs, model.apply(params, x), atol=1e-6)
    np.testing.assert_allclose(found, x * jax.jit(jax.grad(logit))(x), atol=1e-5)


def test_a_sum_splits_in_proportion_and_a_branch_of_nothing_gets_nothing():
    """Of act(x) + branch(act(x)) with branch = 2 x, a third passes by the shortcut: no bias, so relevance is kept."""
    model = from_flax(Net(norm=static_partial(Nothing), average=total))
    params = {"branch": {"kernel": 2 * jnp.eye(4)[None, None], "bias": jnp.zeros(4)}}
    params = drawn_params(model) | params
    params["conv"]["bias"], params["head"]["bias"] = jnp.zeros(4), jnp.zeros(3)
    outputs, relevance = jax.jit(lambda x: propagated(model, params, x, jnp.array([[1, 0, 0]])))(X)
    np.testing.assert_allclose(relevance.sum(), outputs[0, 0], rtol=1e-4)


class Nothing(nn.Module):
    layerwise: ClassVar[bool] = True

    def __call__(self, x):
        return x


def test_a_unet_conserves_the_relevance_of_one_voxel_but_for_its_biases():
    model = unet(2, (4, 6), norm=static_partial(Nothing))
    params = drawn_params(model)
    params = jax.tree.map_with_path(lambda path, p: 0 * p if "bias" in str(path[-1]) else p, params)
    start = jnp.zeros((1, 6, 6, 2)).at[0, 2, 3, 1].set(1)
    outputs, relevance = jax.jit(lambda x: propagated(model, params, x, start))(X)
    np.testing.assert_allclose(relevance.sum(), outputs[0, 2, 3, 1], rtol=1e-3)
    assert (relevance[0, :, 5] == 0).sum() < relevance[0, :, 5].size  # beyond one block: through the coarse level


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.softmax(Dense(3, name="query")(x))


class Around(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Attention(name="attention")(Conv(4, (3, 3), name="conv")(x)).mean((1, 2))


class Batch(Net):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=True, name="bn")(Dense(3, name="head")(x))


def squared(x):
    return pool(x**2)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Around(), r"LRP has no rule for Attention \(attention\)"),
        (Batch(), r"LRP has no rule for BatchNorm \(bn\)"),
        (Net(act=nn.sigmoid), "LRP has no rule for sigmoid .act of Net.: expected 0 at 0"),
        (Net(pool=squared), r"LRP has no rule for squared .pool of Net.: expected f\(2 x\) = 2 f\(x\)"),
        (Net(add=jnp.multiply), "LRP has no rule for multiply .add of Net."),
        (
            Net(norm=static_partial(nn.LayerNorm, reduction_axes=(1, 2))),
            r"LRP has no rule for LayerNorm \(norm\) over other axes than its default ones",
        ),
    ],
)
def test_what_has_no_rule_is_refused_by_name(module, message):
    model = from_flax(module)
    shapes = {"conv": (3, 3, 2, 4), "branch": (1, 1, 4, 4), "query": (4, 3), "head": (2 if module.name else 4, 3)}
    params = {name: {"kernel": jnp.ones(shape), "bias": jnp.ones(shape[-1])} for name, shape in shapes.items()}
    params["head"] = {"kernel": jnp.ones((2 if isinstance(module, Batch) else 4, 3)), "bias": jnp.ones(3)}
    params |= {"norm": {"scale": jnp.ones(4), "bias": jnp.ones(4)}, "attention": {"query": params["query"]}}
    with pytest.raises(ConfigError, match=message) as error:
        jax.jit(jax.vmap(lrp(model, params, EXACT)))(X)
    assert "\n" not in str(error.value)
