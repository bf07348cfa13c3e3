"""nnU-Net's prediction and its summary: mirror axes of the plan, logits that are none, the mean Dice of a fold.

That predictions are right and where the images are is tested with the training, in `test_nnunet`.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.models.model import Model
from medjax.segmentation.nnunet_predict import case_dice, foreground_mean_dice, predict_case
from medjax.segmentation.plan import fingerprint, plan
from tests.segmentation.blobs import blobs

PLAN = plan(fingerprint([blobs(0)], 3), base_width=4, patch=(12, 12, 12), batch=2)


def linear(params, images, key=None):
    """Logits linear in the intensity and, so that a mirrored image has others, in the place along x."""
    place = jnp.linspace(0, 1, images.shape[1])[None, :, None, None, None]
    return (images + place) @ params["kernel"]


MODEL = Model(lambda key, images: {"kernel": jnp.zeros((1, 3))}, linear)


def test_the_mean_dice_of_a_fold_is_nnunets():
    """Nine cases have one structure, one of them a rare one, by hand: (0.9 + 0.08) / 2 = 0.49; of all values 0.82."""
    scores = np.array([[0.9, np.nan, np.nan]] * 8 + [[0.9, 0.08, np.nan]])
    assert foreground_mean_dice(scores) == pytest.approx(0.49)
    assert np.nanmean(scores) == pytest.approx(0.818)
    assert np.isnan(foreground_mean_dice(np.full((2, 2), np.nan)))
    empty, full = np.zeros((4, 4), np.int32), np.ones((4, 4), np.int32)
    np.testing.assert_array_equal(case_dice(full, empty, 3), [0, np.nan])  # in the prediction alone: it counts, with 0


def test_a_plan_that_does_not_mirror_is_not_predicted_mirrored():
    case, params = blobs(4), [{"kernel": jnp.array([[0.0, 1.0, -1.0]])}]
    unmirrored = replace(PLAN, mirror=())
    plain = predict_case(MODEL, params, case.image, case.spacing, PLAN, mirror=())
    found = predict_case(MODEL, params, case.image, case.spacing, unmirrored)
    np.testing.assert_array_equal(found.probabilities, plain.probabilities)
    assert np.abs(predict_case(MODEL, params, case.image, case.spacing, PLAN).probabilities - plain[1]).max() > 0.1
    with pytest.raises(DataError, match=r"mirror: \(0, 1\); expected some of the axes \(1, 2\), which"):
        predict_case(MODEL, params, case.image, case.spacing, replace(PLAN, mirror=(1, 2)), mirror=(0, 1))


def test_logits_that_are_not_finite_are_no_labels():
    """They were the background everywhere: the argmax of NaN is 0."""
    case = blobs(0)
    with pytest.raises(DataError, match="logits are not finite; expected a network with finite weights"):
        predict_case(MODEL, [{"kernel": jnp.full((1, 3), jnp.nan)}], case.image, case.spacing, PLAN, mirror=())
