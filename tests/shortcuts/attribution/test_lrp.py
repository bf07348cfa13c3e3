"""LRP of classifiers: parity with Zennit, conservation, input × gradient, targets, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import ConfigError, DataError
from medjax.iterate import static_partial
from medjax.models.batch_norm import freeze_batch_norm, frozen_batch_norm
from medjax.models.classifier import Classifier
from medjax.models.layers import add, convolution, group_norm, max_pool
from medjax.models.model import Model, from_flax
from medjax.models.resnet import ResidualBlock, resnet
from medjax.models.swin import swin
from medjax.shortcuts.attribution import lrp_rules as rules
from medjax.shortcuts.attribution.batches import attribution_maps, from_model
from medjax.shortcuts.attribution.lrp import (
    Composite,
    conservation,
    epsilon_gamma_flat,
    epsilon_plus_flat,
    lrp,
    uniform,
)

ZENNIT = Path(__file__).parent / "fixtures" / "lrp_zennit.npz"


class NoNorm(nn.Module):
    layerwise: ClassVar[bool] = True

    def __call__(self, x):
        return x


class Encoder(nn.Module):
    """Stem with maximum pooling, and a residual block with a strided shortcut: of two or three spatial axes."""

    norm: Callable[[], nn.Module]
    widths: tuple[int, int] = (4, 6)
    act: Callable[[Any], Any] = nn.relu
    add: Callable[[Any, Any], Any] = add
    pool: Callable[[Any], Any] = max_pool
    layerwise: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x):
        x = convolution(x.ndim - 2, self.widths[0], 3, name="stem")(x)
        x = self.pool(self.act(self.norm().copy(name="stem_norm")(x)))
        return ResidualBlock(self.widths[1], 2, False, self.norm, self.act, self.add, name="block")(x)


def small(norm, widths=(4, 6)):
    return from_flax(Classifier(2, Encoder(norm, widths, name="features")))


def wave(shape, phase, scale):
    """Weights that need no file."""
    return scale * np.cos(0.9 * np.arange(np.prod(shape)) ** 1.1 + phase).reshape(shape)


def kernel(side, axes, inputs, outputs, phase):
    return {"kernel": wave((side,) * axes + (inputs, outputs), phase, 1.4 * (2 / (side**axes * inputs)) ** 0.5)}


def batch_norm(channels, phase):
    norm = {"scale": 1 + wave((channels,), phase + 1, 0.3), "bias": wave((channels,), phase + 2, 0.2)}
    statistics = {"mean": wave((channels,), phase + 3, 0.1), "var": 1 + wave((channels,), phase + 4, 0.4)}
    return freeze_batch_norm(norm, statistics, epsilon=0.0)


def weights(axes, normed, bias=0.1):
    block = {
        "conv_0": kernel(3, axes, 4, 6, 10.0),
        "conv_1": kernel(3, axes, 6, 6, 20.0),
        "conv_shortcut": kernel(1, axes, 4, 6, 30.0),
    }
    features = {"stem": kernel(3, axes, 1, 4, 0.0), "block": block}
    if normed:
        features["stem_norm"] = batch_norm(4, 0.0)
        block |= {f"norm_{name}": batch_norm(6, phase) for name, phase in (("0", 10), ("1", 20), ("shortcut", 30))}
    head = {"kernel": wave((6, 2), 40.0, 0.8), "bias": wave((2,), 50.0, bias)}
    return jax.tree.map(jnp.asarray, {"features": features, "head": head})


def image(axes):
    return jnp.asarray(wave((6,) * axes + (1,), 60.0, 1.0))


COMPOSITES = {
    "epsilon_plus_flat": epsilon_plus_flat(),
    "gamma": uniform(rules.gamma(0.25)),
    "alpha_beta": Composite(rules.alpha_beta(2.0, 1.0), rules.alpha_beta(2.0, 1.0), rules.w_square()),
    "epsilon": Composite(rules.epsilon(1e-2), rules.epsilon(1e-2), rules.z_box(-1.0, 1.0)),
}


@pytest.mark.parametrize("name", COMPOSITES)
def test_maps_of_a_volume_are_zennits(name, x64):
    """Zennit 0.5.1 with torch 2.14.1: the same network with BatchNorm3d, a Sum layer, and `SequentialMergeBatchNorm`.

    Each composite with Zennit's own rules (WSquare without bias), relevance of the outputs (0, logit 1).
    """
    with np.load(ZENNIT) as file:
        expected, logits = file[name], file["logits"]
    model, params, x = small(frozen_batch_norm()), weights(3, normed=True), image(3)
    np.testing.assert_allclose(model.apply(params, x[None])[0], logits, atol=1e-12)
    np.testing.assert_allclose(jax.jit(lrp(model, params, COMPOSITES[name], 1))(x)[..., 0], expected, atol=1e-12)


RULES = {
    "epsilon": uniform(rules.epsilon()),
    "gamma": epsilon_gamma_flat(),
    "alpha_beta": Composite(rules.alpha_beta(2.0, 1.0), rules.epsilon(), rules.w_square()),
    "z_plus": epsilon_plus_flat(),
    "z_box": Composite(rules.z_plus(), rules.epsilon(), rules.z_box(-1.0, 1.0)),
}


def drawn(model, axes, side):
    """An image, and weights without biases."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(side,) * axes + (1,)))
    shapes = jax.eval_shape(model.init, jax.random.key(0), x[None].astype(jnp.float32))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda one: jnp.asarray(rng.normal(size=one.shape) / one.size**0.3, x.dtype), shapes)
    params["head"]["bias"] = jnp.zeros(2)
    return x, params


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("name", RULES)
def test_relevance_is_conserved_without_biases(name, axes, x64):
    """So many channels that every output has contributions of both signs."""
    model = small(static_partial(NoNorm), (24, 24))
    x, params = drawn(model, axes, 6)
    np.testing.assert_allclose(jax.jit(conservation(model, params, RULES[name], 0))(x), 1, atol=2e-4)


@pytest.mark.parametrize("axes", [2, 3])
def test_relevance_is_conserved_by_resnets(axes, x64):
    model = resnet(2, 10, (16, 16, 16, 16), (1, 1, 2, 1, 1), norm=static_partial(NoNorm))
    x, params = drawn(model, axes, 8)
    np.testing.assert_allclose(jax.jit(conservation(model, params, epsilon_plus_flat()))(x), 1, atol=1e-3)


def test_without_biases_lrp_0_is_input_times_gradient_and_is_so_for_every_class(x64):
    model, params, x = small(static_partial(NoNorm)), weights(2, normed=False, bias=0.0), image(2)
    exact = Composite(rules.epsilon(1e-12), rules.epsilon(1e-12), epsilon=1e-12)
    both = jax.jit(lambda x, target: (lrp(model, params, exact, target)(x), model.apply(params, x[None])[0]))
    gradients = jax.jit(jax.jacrev(lambda x: model.apply(params, x[None])[0]))(x)
    logits = both(x, 0)[1]
    for target in (0, 1):
        np.testing.assert_allclose(both(x, target)[0], x * gradients[target], atol=1e-8)
    assert np.isnan(both(x, 2)[0]).all()
    own = jax.jit(lrp(model, params, exact))(x)
    np.testing.assert_allclose(own, x * gradients[jnp.argmax(logits)], atol=1e-8)
    assert logits.max() < 0  # also of a class whose logit is negative


def test_norms_take_their_part_and_the_ratio_tells_it():
    model, x = small(group_norm(2)), image(2).astype(jnp.float32)
    params = weights(2, normed=True)
    composite = epsilon_plus_flat()

    @jax.jit
    def results(images):
        ratios = jax.vmap(conservation(model, params, composite, 1))(images)
        return ratios, jax.vmap(lrp(model, params, composite, 1))(images), model.apply(params, images)

    ratios, maps, logits = results(jnp.stack([x, -x]))
    np.testing.assert_allclose(ratios, maps.sum((1, 2, 3)) / logits[:, 1], rtol=1e-4)
    assert (abs(ratios - 1) > 0.01).all()
    np.testing.assert_allclose(maps[1], jax.jit(lrp(model, params, composite, 1))(-x), atol=1e-6)


def test_maps_of_many_images_are_made_by_one_program():
    model, params = small(static_partial(NoNorm)), weights(2, normed=False)
    images = np.stack([image(2), -image(2), 2 * image(2)]).astype(np.float32)
    maps = attribution_maps(from_model(lrp, model, target=1, composite=epsilon_plus_flat()), params, images, batch=2)
    expected = jax.jit(lrp(model, params, epsilon_plus_flat(), 1))(images[2])
    np.testing.assert_allclose(maps[2], expected[..., 0], atol=1e-6)


def test_settings_may_be_traced_and_equal_composites_are_equal():
    model, params, x = small(static_partial(NoNorm)), weights(2, normed=False), image(2).astype(jnp.float32)
    sweep = jax.jit(jax.vmap(lambda gamma: lrp(model, params, epsilon_gamma_flat(gamma), 0)(x)))
    maps = sweep(jnp.array([0.1, 1.0]))
    assert not np.allclose(maps[0], maps[1], rtol=0.1)
    assert hash(epsilon_gamma_flat(0.1)) == hash(epsilon_gamma_flat(0.1))
    assert epsilon_gamma_flat(0.1) == epsilon_gamma_flat(0.1) != epsilon_gamma_flat(0.2)


def test_bad_input_is_refused_in_one_line():
    x = image(2).astype(jnp.float32)
    model, params = small(static_partial(NoNorm)), weights(2, normed=False)
    foreign = Model(model.init, model.apply)
    with pytest.raises(ConfigError, match="LRP needs a model with `relevance`; this one has none"):
        lrp(foreign, params, epsilon_plus_flat())
    with pytest.raises(DataError, match="target: class 2; the network has classes 0 … 1"):
        lrp(model, params, epsilon_plus_flat(), 2)(x)
    maps = from_flax(Encoder(static_partial(NoNorm)))
    with pytest.raises(DataError, match=r"gives \(1, 2, 2, 6\) for one image; LRP expects logits"):
        lrp(maps, params["features"], epsilon_plus_flat())(x)


@pytest.mark.parametrize(("version", "layer"), [(1, r"WindowAttention \(features/\S+\)"), (2, r"\w+Block \(features")])
def test_lrp_of_a_swin_is_refused_and_names_a_layer(version, layer):
    model = swin(2, width=6, depths=(1, 1), heads=(1, 2), window=2, version=version, remat=version == 2)
    x = jnp.zeros((8, 8, 8, 1))
    shapes = jax.eval_shape(model.init, jax.random.key(0), x[None])
    with pytest.raises(ConfigError, match=f"LRP has no rule for {layer}"):
        jax.eval_shape(lambda params: lrp(model, params, epsilon_plus_flat())(x), shapes)
