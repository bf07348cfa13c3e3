"""Networks made again from a file's settings; features and heads; what a Model is where it has no such split."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import ConfigError
from medjax.models import Model, build, from_flax, require
from medjax.models.networks import NETWORKS, settings_of
from medjax.models.plain_unet import plain_unet
from medjax.models.residual import residual_cnn
from medjax.models.resnet import resnet
from medjax.models.score_unet import score_unet
from medjax.models.swin import swin
from medjax.models.unet import UNet, UNetFeatures, group_norm, unet

KEY = jax.random.key(0)
PLAN = {
    "classes": 2,
    "widths": (4, 6),
    "kernels": ((1, 3, 3), (3, 3, 3)),
    "strides": ((1, 1, 1), (1, 2, 2)),
    "convolutions": 1,
}


@pytest.mark.parametrize(
    ("name", "settings", "model"),
    [
        ("unet", {"classes": 3, "widths": (8, 16), "deep": True, "dropout": 0}, unet(3, (8, 16), deep=True)),
        ("plain_unet", PLAN, plain_unet(**PLAN)),
        ("score_unet", {"widths": (8, 16), "attention": (), "heads": 2}, score_unet((8, 16), 1, (), 2)),
        ("residual_cnn", {}, residual_cnn()),
        ("swin", {"classes": 2, "width": 12, "merge_order": "legacy"}, swin(2, width=12, merge_order="legacy")),
        ("resnet", {"classes": 2, "strides": [1, 1, 2, 2, 1]}, resnet(2, strides=(1, 1, 2, 2, 1))),
    ],
)
def test_a_network_is_made_again_from_what_a_file_says(name, settings, model):
    again = build(name, json.loads(json.dumps(settings)))
    assert again == model and hash(again) == hash(model) and isinstance(again, Model)
    assert set(NETWORKS) == {
        "unet",
        "plain_unet",
        "score_unet",
        "registration_unet",
        "residual_cnn",
        "resnet",
        "swin",
        "vgg",
    }


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("u_net", {}, r"network: 'u_net'; did you mean unet\?"),
        (
            "inception",
            {},
            "network: 'inception'; expected one of unet, plain_unet, score_unet, registration_unet, residual_cnn, "
            "resnet, swin, vgg",
        ),
        ("unet", {"classes": 2, "width": [8]}, r"network unet: no setting 'width'; did you mean widths\?"),
        ("unet", {"classes": 2, "norm": "group"}, "no setting 'norm'; expected one of classes, widths, deep, dropout"),
        ("unet", {"widths": [8]}, "network unet: no classes; expected a value"),
        ("unet", {"classes": "2"}, "network unet: classes '2'; expected int"),
        ("unet", {"classes": 2, "widths": 8}, r"network unet: widths 8; expected a list of int"),
        ("unet", {"classes": 2, "widths": ["a"]}, r"network unet: widths \['a'\]; expected a list of int"),
        ("unet", {"classes": 2, "widths": []}, r"network unet: widths \[\]; expected one value or more"),
        ("unet", {"classes": 2, "widths": [8, 0]}, r"network unet: widths \[8, 0\]; expected 1 or more"),
        ("unet", {"classes": True}, "network unet: classes True; expected int"),
        ("unet", {"classes": -1}, "network unet: classes -1; expected 1 or more"),
        ("unet", {"classes": 2, "deep": 1}, "network unet: deep 1; expected bool"),
        ("unet", {"classes": 2, "dropout": 1}, "network unet: dropout 1; expected 0 or more, less than 1"),
        ("score_unet", {"widths": [8], "attention": [-1]}, r"attention \[-1\]; expected 0 or more"),
        ("plain_unet", {**PLAN, "kernels": [[3, 3]] * 2}, "expected a list of a list of 3 int"),
    ],
)
def test_unknown_names_and_settings_are_refused(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        build(name, settings)


def test_lists_are_as_good_as_tuples():
    assert unet(3, [8, 16]) == unet(3, (8, 16)) and hash(unet(3, [8, 16])) == hash(unet(3, (8, 16)))
    assert score_unet([8, 16], attention=[1]) == score_unet((8, 16), attention=(1,))
    lists = {key: list(value) if isinstance(value, tuple) else value for key, value in PLAN.items()}
    assert hash(plain_unet(**lists)) == hash(plain_unet(**PLAN))


MODELS = {
    "unet": (unet(3, (4, 8), group_norm(4)), (1, 8, 8, 1)),
    "unet, deep": (unet(3, (4, 8, 8), group_norm(4), deep=True), (1, 8, 8, 1)),
    "plain_unet": (plain_unet(**PLAN), (1, 2, 4, 4, 1)),
    "plain_unet, finest": (plain_unet(**PLAN, deep=False), (1, 2, 4, 4, 1)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_head_of_the_features_is_the_output(name):
    model, shape = MODELS[name]
    x = jax.random.normal(KEY, shape)
    params = model.init(KEY, x)

    @jax.jit
    def both(params, x):
        features = model.features(params, x)
        return features, model.head(params, features), model.apply(params, x)

    features, output, expected = both(params, x)
    assert features[0].shape == (*shape[:-1], 4)
    jax.tree.map(np.testing.assert_array_equal, output, expected)


def test_parameters_are_named_after_features_and_heads():
    for model, shape in MODELS.values():
        assert {key.split("_")[0] for key in jax.eval_shape(model.init, KEY, jnp.ones(shape))} == {"features", "head"}
    own = from_flax(UNet(2, UNetFeatures((4, 4), group_norm(4))))
    assert set(jax.eval_shape(own.init, KEY, jnp.ones((1, 4, 4, 1)))) == {"decoder", "head_0"}


def test_networks_without_a_split_say_so():
    for model in (score_unet((8, 16)), residual_cnn()):
        with pytest.raises(ConfigError, match="Grad-CAM needs a model with `features`; this one has none"):
            require(model, "features", "Grad-CAM")


@pytest.mark.parametrize(("make", "shape"), [(unet, (2, 8, 8, 1)), (plain_unet, (2, 2, 4, 4, 1))])
def test_dropout_is_on_with_a_key_and_changes_neither_parameters_nor_output_without(make, shape):
    settings = PLAN if make is plain_unet else {"classes": 2, "widths": (4, 4), "norm": group_norm(2)}
    plain, dropped = make(**settings), make(**settings, dropout=0.5)
    x = jax.random.normal(KEY, shape)
    params = plain.init(KEY, x)
    assert jax.tree.structure(params) == jax.tree.structure(jax.eval_shape(dropped.init, KEY, x))
    out = jax.jit(lambda model, key: jax.tree.leaves(model.apply(params, x, key=key))[0])
    np.testing.assert_array_equal(out(dropped, None), out(plain, None))
    np.testing.assert_array_equal(out(plain, KEY), out(plain, None))
    first, again, other = (out(dropped, jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3 and np.abs(first - out(dropped, None)).max() > 1e-3


def test_init_draws_weights_and_runs_no_network():
    for model, shape in MODELS.values():
        program = jax.jit(model.init).lower(KEY, jnp.ones(shape)).as_text()
        assert "convolution" not in program and "erf_inv" in program


def test_every_setting_is_kept_with_its_default():
    values = {"classes": 4, "widths": [8, 16], "patch": (12, 12)}
    kept = settings_of("unet", values)
    assert kept == {"classes": 4, "widths": [8, 16], "deep": False, "dropout": 0.0}
    assert build("unet", kept) == unet(4, (8, 16))
    assert settings_of("plain_unet", values).keys() == {"classes", "widths", "deep", "form", "convolutions", "dropout"}
    with pytest.raises(ConfigError, match="did you mean unet"):
        settings_of("unett", values)
