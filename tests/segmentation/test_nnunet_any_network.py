"""nnU-Net's training and prediction by a network written here, of which medjax knows two functions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.iterate import static_partial
from medjax.models.model import Model, finest_logits
from medjax.models.plain_unet import plain_unet
from medjax.segmentation.nnunet import init, train_fold
from medjax.segmentation.nnunet_predict import case_dice, predict_case
from medjax.segmentation.patches import prepare
from medjax.segmentation.plan import fingerprint, plan
from medjax.training.augment_nnunet import NO_AUGMENTATION
from tests.segmentation.blobs import blobs

CASES = [blobs(seed) for seed in range(3)]
PLAN = plan(fingerprint(CASES, 3), base_width=4, patch=(12, 12, 12), batch=2)
traced: list[int] = []


def draw(width, classes, key, images):
    shapes = {"first": (3, 3, 3, images.shape[-1], width), "second": (3, 3, 3, width, classes)}
    keys = dict(zip(shapes, jax.random.split(key), strict=True))
    return {name: 0.2 * jax.random.normal(keys[name], shape) for name, shape in shapes.items()}


def convolve(x, kernel, stride=1):
    numbers = ("NXYZC", "XYZIO", "NXYZC")
    return jax.lax.conv_general_dilated(x, kernel, (stride,) * 3, "SAME", dimension_numbers=numbers)


def two_convolutions(params, images, key=None):
    traced.append(1)
    return convolve(jax.nn.relu(convolve(images, params["first"])), params["second"])


def two_levels(params, images, key=None):
    features = jax.nn.relu(convolve(images, params["first"]))
    return convolve(features, params["second"]), convolve(features, params["second"], 2)


def network(apply=two_convolutions, classes=3):
    """Made anew at each call; equal to another one made so."""
    return Model(static_partial(draw, 6, classes), apply)


def trained(model, rate=0.1):
    ready, losses = [prepare(case, PLAN) for case in CASES], []
    fold = train_fold(
        model, ready[:2], ready[2:], PLAN, epochs=2, iterations=40, rate=rate, augmentation=NO_AUGMENTATION,
        report=lambda fold, values: losses.append(values["loss"]),
    )  # fmt: skip
    return fold, losses


@pytest.mark.parametrize("apply", [two_convolutions, two_levels])
def test_it_learns_with_one_level_of_logits_or_several(apply):
    fold, losses = trained(network(apply))
    assert losses[1] < 0.7 * losses[0]
    prediction = predict_case(network(apply), [fold.state.params], CASES[2].image, CASES[2].spacing, PLAN, mirror=())
    assert (case_dice(prediction.labels, CASES[2].labels, 3) > 0.7).all()
    plain = predict_case(network(), [fold.state.params], CASES[2].image, CASES[2].spacing, PLAN, mirror=())
    np.testing.assert_allclose(prediction.probabilities, plain.probabilities, atol=1e-6)


def test_equal_networks_and_settings_compile_once():
    trained(network())
    traced.clear()
    _, losses = trained(network(), rate=0.05)
    assert len(traced) == 1  # for the shape of its logits; steps and pseudo-Dice are compiled already
    assert losses[0] != trained(network())[1][0]  # the rate is traced


def test_prediction_does_not_compute_coarse_logits():
    image = jnp.zeros((1, 8, 8, 8, 1))

    def floating_point_operations(model, params):
        return jax.jit(partial(finest_logits, model)).lower(params, image).compile().cost_analysis()["flops"]

    shapes = jax.eval_shape(network().init, jax.random.key(0), image)
    one, two = (floating_point_operations(network(apply), shapes) for apply in (two_convolutions, two_levels))
    assert one == two > 0
    widths, strides, kernels = (2, 2, 2), ((1, 1, 1), (2, 2, 2), (2, 2, 2)), ((3, 3, 3),) * 3
    deep, plain = (plain_unet(3, widths, kernels, strides, deep=deep) for deep in (True, False))
    shapes = jax.eval_shape(deep.init, jax.random.key(0), image)
    assert floating_point_operations(deep, shapes) == floating_point_operations(plain, shapes)


def test_a_network_of_other_classes_is_refused():
    with pytest.raises(DataError, match=r"the network gives \(1, 12, 12, 12, 4\) for an image of .*; expected \(1, 12"):
        trained(network(classes=4))
    assert init(network(), PLAN, 0).state.params["second"].shape[-1] == 3
