"""Equal to Captum on a small 3-D network, to 1e-6.

fixtures/captum.npz: image, weights (three decimals, NumPy's default_rng(0)) and maps of class 1, computed once in
float64 with Captum 0.9.0 and PyTorch 2.14.1: Saliency(abs=False); InputXGradient; IntegratedGradients(50 steps,
baseline 0.1); LayerGradCam at the last ReLU (relu_attributions), interpolated to the image ("trilinear");
Occlusion(window 3×2×2, strides 2×2×1, baseline 0.3). Convolutions 3³ of 2→3 channels and, with stride 2, 3→4, both
padded by 1 and followed by a ReLU; global average; dense.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.models.model import Model
from medjax.shortcuts.attribution.grad_cam import grad_cam
from medjax.shortcuts.attribution.gradient import gradient, input_times_gradient
from medjax.shortcuts.attribution.integrated_gradients import integrated_gradients
from medjax.shortcuts.attribution.occlusion import occlusion
from medjax.shortcuts.attribution.target import class_features, class_score
from tests.shortcuts.attribution.networks import head


def features(params, x, key=None):
    for number, stride in ((1, 1), (2, 2)):
        order = ("NXYZC", "XYZIO", "NXYZC")
        pad = [(1, 1)] * 3
        x = jax.lax.conv_general_dilated(x, params[f"w{number}"], (stride,) * 3, pad, dimension_numbers=order)
        x = jax.nn.relu(x + params[f"b{number}"].reshape(1, 1, 1, 1, -1))
    return x


NETWORK = Model(lambda key, x: {}, lambda params, x, key=None: head(params, features(params, x)), features, head)


@pytest.fixture
def captum(x64):
    with np.load(Path(__file__).parent / "fixtures" / "captum.npz") as file:
        return {name: jnp.asarray(values, float) for name, values in file.items()}


def test_equal(captum):
    x, score = captum["x"], class_score(NETWORK, captum, 1)
    np.testing.assert_allclose(NETWORK.apply(captum, x[None])[0], captum["logits"], rtol=1e-6)
    maps = {
        "gradient": gradient(score),
        "input_times_gradient": input_times_gradient(score),
        "integrated_gradients": integrated_gradients(score, 50, 0.1, chunk=10),
        "grad_cam": grad_cam(*class_features(NETWORK, captum, 1)),
        "occlusion": occlusion(score, (3, 2, 2), (2, 2, 1), 0.3, chunk=20),
    }
    for name, attribute in maps.items():
        np.testing.assert_allclose(attribute(x), captum[name], rtol=1e-6, atol=1e-6, err_msg=name)
        assert np.abs(captum[name]).max() > 0.01
