"""A 2-D network of volumes: slices do not mix, in convolutions, a training step or prediction; it learns from files."""

import json
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.io.nifti import read_nifti
from medjax.io.nnunet_raw import Scan, write_dataset
from medjax.models.layers import conv3d
from medjax.models.plain_unet import plain_unet
from medjax.segmentation import nnunet
from medjax.segmentation.nnunet_predict import case_dice, predict_case
from medjax.segmentation.plan import Case, fingerprint, plan
from medjax.training.augment_nnunet import NO_AUGMENTATION
from medjax.training.losses import deep_supervision, dice_cross_entropy
from tests.segmentation.commands import done, refused


def disks(seed, slices=6, distance=8.0, side=16):
    """A bright and a dark disk in every slice but the first, which is empty."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 2, indexing="ij"), -1)
    labels = np.zeros((side, side, slices), np.int32)
    for k in range(1, slices):
        for kind, low in ((1, 3), (2, 9)):
            labels[((grid - rng.uniform(low, low + 4, 2)) ** 2).sum(-1) < 3.5**2, k] = kind
    image = np.array([0.0, 2.0, -2.0])[labels] + 0.4 * rng.normal(size=labels.shape)
    return Case(image.astype(np.float32)[..., None], labels, (1.0, 1.0, distance))


CASES = [disks(seed, 5 + seed, 6.0 + seed) for seed in range(4)]
PLAN = plan(fingerprint(CASES, 3), configuration="2d", base_width=4, patch=(16, 16), batch=3)
NET = plain_unet(PLAN.classes, PLAN.widths, PLAN.kernels, PLAN.strides)


@pytest.fixture(scope="module")
def params():
    """Drawn by NumPy, which takes no compilation."""
    shapes = jax.eval_shape(NET.init, jax.random.key(0), jnp.zeros((1, *PLAN.patch, 1)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32), shapes)


@pytest.mark.parametrize(("axis", "strides"), [(2, (2, 2, 1)), (0, (1, 1, 2)), (1, (1, 1, 1))])
def test_a_convolution_of_slices_is_one_in_two_dimensions(axis, strides):
    """Also backwards, and also in the program: no convolution of three axes is left, and one in all."""
    rng = np.random.default_rng(axis)
    space, sides = ([1 if k == axis else n for k in range(3)] for n in (6, 3))
    x = jnp.asarray(rng.normal(size=(2, *space, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(*sides, 3, 4)), jnp.float32)
    values = {}
    for form in ("auto", "native"):
        apply = jax.jit(partial(conv3d, strides=strides, form=form))
        both = jax.jit(jax.vjp(apply, x, kernel)[1])
        values[form] = (apply(x, kernel), *both(jnp.cos(apply(x, kernel))))
    chex.assert_trees_all_close(values["auto"], values["native"], atol=1e-4)
    text = jax.jit(partial(conv3d, strides=strides)).lower(x, kernel).as_text()
    assert text.count("stablehlo.convolution") == 1 and "[b, 0, 1, f]" in text and "stablehlo.case" not in text


def test_a_training_step_is_that_of_the_slices_one_by_one(params):
    """Loss and gradients of a batch of slices, against the network's logits slice by slice: nothing mixes them."""
    rng = np.random.default_rng(1)
    images = jnp.asarray(rng.normal(size=(3, 16, 16, 1, 1)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 3, (3, 16, 16, 1)))
    settings = nnunet.StepSettings(1, 1, NO_AUGMENTATION._replace(patch=PLAN.patch), PLAN.batch_dice)
    method = nnunet.trainer(NET, settings, 0.1)
    fold = nnunet.init(NET, PLAN, 0, params)
    state, info = jax.jit(method.step)(fold.state, (images, labels))

    def one_by_one(params):
        levels = jax.lax.map(lambda one: tuple(level[0] for level in NET.apply(params, one[None])), images)
        loss = partial(dice_cross_entropy, smooth=1e-5, batch=True)
        return jnp.mean(deep_supervision(levels, labels, PLAN.strides[: len(levels)], loss))

    def moved(params):
        value, gradient = jax.value_and_grad(one_by_one)(params)
        updates, _ = nnunet._optimizer(lambda step: 0.1).update(gradient, fold.state.opt_state, params)
        return value, jax.tree.map(jnp.add, params, updates)

    value, expected = jax.jit(moved)(params)
    assert float(info.loss) == pytest.approx(float(value), rel=1e-4)
    chex.assert_trees_all_close(state.params, expected, atol=1e-4)


def test_prediction_is_that_of_each_slice(params):
    """Whatever lies in the others, how far they are apart, and how many are predicted at once."""
    case = CASES[3]
    whole = predict_case(NET, [params], case.image, case.spacing, PLAN, mirror=())
    other = case.image.copy()
    other[..., 4:, 0] = np.roll(other[..., 4:, 0], 5, axis=0)  # the same gray values, so the same z-scores
    changed = predict_case(NET, [params], other, (1.0, 1.0, 3.0), PLAN, mirror=(), batch=1)
    np.testing.assert_allclose(changed.probabilities[:, :, :4], whole.probabilities[:, :, :4], atol=1e-4)
    assert np.abs(changed.probabilities[:, :, 4:] - whole.probabilities[:, :, 4:]).max() > 0.05
    scaled = (case.image[:, :, 2:3] - case.image.mean()) / case.image.std()
    alone = jax.nn.softmax(NET.apply(params, jnp.asarray(scaled[None]))[0][0, :, :, 0])
    np.testing.assert_allclose(whole.probabilities[:, :, 2], alone, atol=1e-3)


AFFINE = np.diag([1.0, 1.0, 8.0, 1.0])
TRAIN = (
    "-c", "2d", "--base-width", "4", "--patch", "16,16,1", "--epochs", "1", "--iterations", "60", "--rate", "0.05",
)  # fmt: skip


def scan(seed, slices):
    case = disks(seed, slices)
    return Scan(f"case_{seed}", case.image, case.labels, case.spacing, AFFINE)


def test_training_and_prediction_by_command(tmp_path):
    """Cases of several numbers of slices; the folder says what it is, and another configuration is another model."""
    scans = [scan(seed, 4 + seed) for seed in range(6)]
    write_dataset(tmp_path / "data", scans, ("MR",), ("background", "bright", "dark"), test=[scan(8, 7)])
    train = ("train", tmp_path / "data", "-o", tmp_path / "model", "--fold", "0")
    said = done(*train, *TRAIN)
    assert "patches of 16 × 16 × 1 voxels of 1 × 1 × 8 mm" in said.stdout and "mirrored along x,y" in said.stdout
    written = json.loads((tmp_path / "model" / "plan.json").read_text())
    assert written["slice_axis"] == 2 and written["kernels"] == [[3, 3, 1]] * 3
    assert json.loads((tmp_path / "model" / "dataset.json").read_text())["settings"]["configuration"] == "2d"
    refused("its configuration is 2d, here 3d_fullres; expected one, or another folder", *train, *TRAIN[2:])
    refused("--patch 16; expected two or three whole numbers of voxels, as in --patch 80,80", *train, *TRAIN[:4],
            "--patch", "16")  # fmt: skip
    refused("configuration: '3d'; expected 3d_fullres or 2d", *train, "-c", "3d")
    done("predict", tmp_path / "model", tmp_path / "data" / "imagesTs", "-o", tmp_path / "said")
    found = read_nifti(tmp_path / "said" / "case_8.nii.gz").array.astype(np.int32)
    truth = disks(8, 7).labels
    guess = np.array([(truth == kind).mean() for kind in (1, 2)])
    assert found.shape == (16, 16, 7) and (case_dice(found, truth, 3) > 0.4 + 2 * guess / (1 + guess)).all()
