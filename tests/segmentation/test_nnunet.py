"""nnU-Net's training learns, goes on bit for bit and stops at NaN; predictions are on the image's own grid."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError, WorkdirError
from medjax.models.model import Model
from medjax.models.plain_unet import plain_unet
from medjax.segmentation.nnunet import (
    _next_fold,
    _optimizer,
    folds,
    init,
    train_fold,
    train_folds,
    train_resumable_fold,
)
from medjax.segmentation.nnunet_predict import case_dice, determine_postprocessing, predict_case
from medjax.segmentation.patches import prepare
from medjax.segmentation.plan import fingerprint, plan
from medjax.training.augment_nnunet import NO_AUGMENTATION
from tests.segmentation.blobs import blobs

CASES = [blobs(seed) for seed in range(6)]
PLAN = plan(fingerprint(CASES, 3), base_width=4, patch=(12, 12, 12), batch=2)
EPOCHS, ITERATIONS = 4, 40


def network():
    return plain_unet(PLAN.classes, PLAN.widths, PLAN.kernels, PLAN.strides)


def first():
    """Parameters drawn by NumPy: initialising a network takes longer to compile than all else here."""
    shapes = jax.eval_shape(network().init, jax.random.key(0), jnp.zeros((1, 12, 12, 12, 1)))
    rng = np.random.default_rng(0)

    def drawn(path, leaf):
        name = jax.tree_util.keystr(path)
        if "kernel" not in name:
            return jnp.ones(leaf.shape) if "scale" in name else jnp.zeros(leaf.shape)
        return jnp.asarray(rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1])), jnp.float32)

    return init(network(), PLAN, 0, jax.tree_util.tree_map_with_path(drawn, shapes))


def copied(fold):
    """The next step reuses the memory of what is reported."""
    return jax.tree.map(jnp.array, fold)


def trained(state, report=lambda fold, values: None):
    ready = [prepare(case, PLAN) for case in CASES]
    settings = {"epochs": EPOCHS, "iterations": ITERATIONS, "rate": 0.1, "augmentation": NO_AUGMENTATION}
    return train_fold(network(), ready[:4], ready[4:], PLAN, state=state, report=report, **settings)


@pytest.fixture(scope="module")
def run():
    reports = []
    last = trained(first(), lambda fold, values: reports.append((copied(fold), values)))
    return last, reports


def test_it_learns_far_beyond_a_constant_guess(run):
    fold, reports = run
    assert [values["epoch"] for _, values in reports] == [1, 2, 3, 4]
    assert [values["step"] for _, values in reports] == [40, 80, 120, 160]
    assert reports[-1][1]["loss"] < 0.6 * reports[0][1]["loss"]
    for case in CASES[4:]:
        predicted = predict_case(network(), [fold.state.params], case.image, case.spacing, PLAN, mirror=())
        # all of one class: Dice 2 f / (1 + f) of its fraction f
        fraction = np.array([(case.labels == kind).mean() for kind in (1, 2)])
        assert (case_dice(predicted.labels, case.labels, 3) > 0.5 + 2 * fraction / (1 + fraction)).all()
        assert predicted.probabilities.shape == (16, 16, 16, 3)
        np.testing.assert_allclose(predicted.probabilities.sum(-1), 1, atol=1e-5)
        np.testing.assert_array_equal(predicted.labels, predicted.probabilities.argmax(-1))


def test_a_killed_run_goes_on_bit_for_bit(run):
    whole, reports = run
    more = []
    again = trained(reports[1][0], lambda fold, values: more.append(values))
    chex.assert_trees_all_equal(again, whole)
    assert more == [values for _, values in reports[2:]]
    done = trained(copied(whole))
    chex.assert_trees_all_equal(done, whole)


# a network that compiles at once: logits are linear in each voxel


def linear_init(key, images):
    return {"kernel": jnp.zeros((images.shape[-1], 3))}


def linear(params, images, key=None):
    return images @ params["kernel"]


def trained_in(folder, epochs=5, fails=0, **more):
    ready, model = [prepare(case, PLAN) for case in CASES[:3]], Model(linear_init, linear)
    seen = []

    def report(fold, values):
        seen.append(values["epoch"])
        if values["epoch"] == fails:
            raise KeyboardInterrupt

    try:
        return seen, train_resumable_fold(
            folder, model, ready[:2], ready[2:], PLAN, epochs=epochs, iterations=5, rate=0.1,
            augmentation=NO_AUGMENTATION, report=report, **more,
        )  # fmt: skip
    except KeyboardInterrupt:
        return seen, None


def test_a_fold_in_a_folder_goes_on_from_its_last_checkpoint(tmp_path):
    _, whole = trained_in(tmp_path / "whole", save_every=2)
    assert trained_in(tmp_path / "killed", fails=4, save_every=2) == ([1, 2, 3, 4], None)
    steps = []
    seen, again = trained_in(tmp_path / "killed", save_every=2, resume=steps.append)
    assert (seen, steps) == ([3, 4, 5], [10])  # epoch 4 was being reported, and was not kept
    chex.assert_trees_all_equal(again, whole)
    assert trained_in(tmp_path / "killed")[0] == []


def test_folds_are_trained_each_in_its_folder(tmp_path):
    model, settings = (
        Model(linear_init, linear),
        {"epochs": 1, "iterations": 5, "rate": 0.1, "augmentation": NO_AUGMENTATION},
    )
    numbers = []

    def progress(steps, fold):
        numbers.append((fold, len(steps)))
        return steps

    params = train_folds(model, CASES, PLAN, tmp_path, seed=3, number=2, progress=progress, **settings)
    assert numbers == [(0, 5), (1, 5)] and {path.name for path in tmp_path.iterdir()} == {"fold_0", "fold_1"}
    ready, (training, validation) = [prepare(case, PLAN) for case in CASES], folds(6, 3)[1]
    alone = train_fold(model, *([ready[i] for i in part] for part in (training, validation)), PLAN, seed=16, **settings)
    chex.assert_trees_all_equal(params[1], alone.state.params)
    chex.assert_trees_all_equal(train_folds(model, CASES, PLAN, tmp_path, seed=3, number=2, **settings), params)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    trained_in(tmp_path, epochs=1)
    with pytest.raises(WorkdirError, match="holds other arrays"):
        train_resumable_fold(tmp_path, Model(lambda key, images: {"one": jnp.zeros(3)}, linear), [], [], PLAN)


def test_the_best_is_that_of_the_average_pseudo_dice(run):
    fold, reports = run
    average = np.nan
    for kept, values in reports:
        dice = values["pseudo_dice"]
        average = dice if np.isnan(average) else 0.9 * average + 0.1 * dice
        assert values["ema"] == pytest.approx(average, abs=1e-6) and float(kept.ema) == values["ema"]
    assert float(fold.best_ema) == max(values["ema"] for _, values in reports)
    best = int(np.argmax([values["ema"] for _, values in reports]))
    chex.assert_trees_all_equal(fold.best, reports[best][0].state.params)


def test_what_is_not_better_is_not_best():
    fold = first()
    other = fold.state._replace(params=jax.tree.map(lambda leaf: leaf + 1, fold.state.params))
    one = _next_fold(fold, fold.state, 0.5)
    assert (float(one.ema), float(one.best_ema)) == (0.5, 0.5)
    worse = _next_fold(one, other, 0.4)
    assert float(worse.ema) == pytest.approx(0.49) and float(worse.best_ema) == 0.5
    chex.assert_trees_all_equal(worse.best, fold.state.params)
    unknown = _next_fold(worse, other, float("nan"))
    assert float(unknown.ema) == float(worse.ema)
    better = _next_fold(unknown, other, 1.0)
    assert float(better.best_ema) == pytest.approx(0.541)
    chex.assert_trees_all_equal(better.best, other.params)


def test_a_loss_that_is_not_finite_stops_with_its_step():
    fold = first()
    broken = fold._replace(state=fold.state._replace(params=jax.tree.map(lambda x: x * jnp.nan, fold.state.params)))
    with pytest.raises(DataError, match="loss is not finite by step 40"):
        trained(broken)


def test_the_optimizer_is_pytorchs_nesterov_with_decay_after_the_clip():
    """b ← 0.99 b + g, p ← p − r (g + 0.99 b), with g clipped to a norm of 12 and then + 3e-5 p."""
    tool = _optimizer(lambda count: 0.1)
    params, buffer = np.array([1.0, -2.0]), np.zeros(2)
    moved = jnp.asarray(params, jnp.float32)
    state = tool.init(moved)
    for gradient in (np.array([3.0, 4.0]), np.array([30.0, 40.0])):
        updates, state = tool.update(jnp.asarray(gradient, jnp.float32), state, moved)
        moved = moved + updates
        g = gradient * min(1, 12 / np.linalg.norm(gradient)) + 3e-5 * params
        buffer = 0.99 * buffer + g
        params = params - 0.1 * (g + 0.99 * buffer)
        np.testing.assert_allclose(moved, params, rtol=1e-5)


def test_folds_share_the_cases_out():
    parts = folds(12, seed=3)
    assert sorted(len(validation) for _, validation in parts) == [2, 2, 2, 3, 3]
    np.testing.assert_array_equal(np.sort(np.concatenate([one for _, one in parts])), np.arange(12))
    for training, validation in parts:
        np.testing.assert_array_equal(np.sort(np.concatenate([training, validation])), np.arange(12))
    assert str(folds(12, seed=3)) == str(parts) != str(folds(12, seed=4))
    with pytest.raises(DataError, match="5 of 4 cases"):
        folds(4)


def test_prediction_comes_back_on_the_images_own_grid(run):
    """Half the slices, an empty border: labels where they belong, background around; two folds are averaged."""
    params = run[0].state.params
    case = CASES[4]
    wide = np.zeros((20, 16, 16, 1), np.float32)
    wide[3:19] = case.image
    predicted = predict_case(network(), [params], wide[:, :, ::2], (1.0, 1.0, 2.0), PLAN, mirror=())
    assert predicted.labels.shape == (20, 16, 8) and predicted.labels.dtype == np.int32
    assert not predicted.labels[:3].any() and (predicted.probabilities[:3, ..., 0] == 1).all()
    assert (case_dice(predicted.labels[3:19], case.labels[:, :, ::2], 3) > 0.5).all()
    one, two = (
        np.asarray(predict_case(network(), which, case.image, case.spacing, PLAN, mirror=()).probabilities)
        for which in ([params], [params, jax.tree.map(lambda x: 0 * x, params)])
    )
    logits = np.log(one) / 2  # the other network says 0 of everything
    np.testing.assert_allclose(two, np.exp(logits) / np.exp(logits).sum(-1, keepdims=True), atol=1e-3)


def specks():
    truth = np.zeros((12, 12, 12), np.int32)
    truth[1:5, 1:5, 1:5], truth[7:11, 7:11, 7:11] = 1, 2
    truth[1:5, 7:11, 1:5] = 2
    predicted = truth.copy()
    predicted[10, 1, 1] = 1
    return predicted, truth


def test_only_what_helps_is_postprocessing(run):
    predicted, truth = specks()
    assert determine_postprocessing([predicted, truth], [truth, truth], 3) == {1: 1}
    assert determine_postprocessing([predicted], [truth], 3, count=2) == {
        1: 2
    }  # two pieces of 2 are right, a speck is none of them
    assert determine_postprocessing([truth], [truth], 3) == {}
    absent = np.where(predicted == 1, 0, predicted)
    assert determine_postprocessing([absent], [np.where(truth == 1, 0, truth)], 3) == {}
    case = CASES[4]
    whole = predict_case(network(), [run[0].state.params], case.image, case.spacing, PLAN, mirror=(), keep={1: 1, 2: 1})
    from scipy import ndimage

    assert all(ndimage.label(whole.labels == kind, np.ones((3, 3, 3)))[1] == 1 for kind in (1, 2))


def test_parameters_that_are_not_finite_are_never_kept(tmp_path):
    """The loss need not show it, as that of a step is from before it: no checkpoint, no report."""
    seen, ready = [], [prepare(case, PLAN) for case in CASES[:2]]

    def init_with_infinity(key, images):
        return {**linear_init(key, images), "unused": jnp.full(3, jnp.inf)}

    with pytest.raises(DataError, match="a parameter is not finite by step 1; try a smaller learning rate"):
        train_resumable_fold(
            tmp_path, Model(init_with_infinity, linear), ready, ready, PLAN, epochs=1, iterations=1, rate=0.1,
            augmentation=NO_AUGMENTATION, report=lambda fold, values: seen.append(values),
        )  # fmt: skip
    assert not seen and not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_epochs_and_iterations_are_checked():
    with pytest.raises(DataError, match="0 epochs of 5 iterations"):
        train_fold(network(), [], [], PLAN, epochs=0, iterations=5)
