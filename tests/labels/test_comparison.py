"""Strategies compared: populations find what a loop by hand finds, killed or not; a member that diverges ends alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.labels import audit, comparison, population, scores
from medjax.labels.comparison import Cell, Comparison, compare
from medjax.labels.dynamics import TrainingSettings
from medjax.labels.errors import corrupt
from medjax.labels.refurbish import predict_proba, refurbish
from medjax.labels.strategies import drop_corrupted, drop_flagged, refurbish_flagged
from medjax.labels.thresholds import otsu
from medjax.metrics.detection import auroc
from medjax.metrics.summary import flatten_metrics
from medjax.phantoms.echo import echo
from medjax.running.workdir import open_workdir
from tests.labels.two_layers import TWO_LAYERS

SETTINGS = TrainingSettings(4, batch=8, steps=24, probe_every=8, latest_judgement=16)
SOME = {name: scores.built_in()[name] for name in ("dice_mean", "loss")}
STRATEGIES = {"drop": drop_flagged("loss"), "repair": refurbish_flagged("dice_mean"), "oracle": drop_corrupted}
CASES = [("random", 0), ("swap", 0), ("random", 1), ("swap", 1)]


def case(work, kind, seed, rate=5e-2, strategies=tuple(STRATEGIES)):
    train, test = echo(seed, 12, 16, hard=0.25), echo(100 + seed, 4, 16)
    wrong = partial(corrupt, seed, train.labels, kind, 0.25)
    name = f"{kind}_{seed}"
    return Cell(
        work, name, seed, rate, train.images, train.labels, wrong, train.hard, test.images, test.labels, strategies
    )


def run(folder, cases=CASES, rates=(5e-2,) * 4, strategy=None, width=None):
    with open_workdir(folder, {}) as work:
        made = [case(work, *key, rate=rate) for key, rate in zip(cases, rates, strict=True)]
        return compare(made, TWO_LAYERS, SETTINGS, SOME, STRATEGIES, strategy=strategy, width=width)


@pytest.fixture(scope="module")
def by_hand():
    """Metrics of each case, one training after the other."""
    found = []
    for one in (case(None, *key) for key in CASES):
        wrong, s = one.corrupt(), SETTINGS._replace(learning_rate=one.learning_rate)
        snapshots = [
            (jax.tree.map(jnp.array, x.state), scores.evaluate(SOME, x.states, wrong.labels), x.memorization)
            for x in audit.training_dynamics(one.seed, TWO_LAYERS, one.images, wrong.labels, s, SOME)
        ]
        state, judgement, _ = next(x for x in snapshots if x[2])

        def ended(labels, weight, one=one, state=state, s=s):
            end = audit.continue_training(one.seed, TWO_LAYERS, state, one.images, labels, weight, s)
            return audit.segmentation_dice(TWO_LAYERS, end, one.test_images, one.test_labels)

        ones = np.ones(12, np.float32)
        teacher = predict_proba(TWO_LAYERS, state.ema_params, one.images)
        flags = otsu(judgement["dice_mean"])
        repaired = refurbish(wrong.labels, flags, teacher).labels.argmax(-1).astype(np.int32)
        found.append(
            {
                "dice/plain": audit.segmentation_dice(TWO_LAYERS, snapshots[-1][0], one.test_images, one.test_labels),
                "dice/drop": ended(wrong.labels, np.where(otsu(judgement["loss"]), 0, ones).astype(np.float32)),
                "dice/repair": ended(repaired, ones),
                "dice/oracle": ended(wrong.labels, np.where(wrong.corrupted, 0, ones).astype(np.float32)),
                "auroc/loss": float(auroc(snapshots[-1][1]["loss"], wrong.corrupted)),
                "auroc_at_memorization/loss": float(auroc(judgement["loss"], wrong.corrupted)),
                "memorization_epoch": int(state.step) * 8 / 12,
                "labels_recall/repair": (flags & wrong.corrupted).sum() / 3,
            }
        )
    return found


def agree(found, wanted, tolerance):
    for one, other in zip(found, wanted, strict=True):
        assert isinstance(one, Comparison) and len(one.curves["loss"]) == 3
        metrics = flatten_metrics(one.metrics)
        np.testing.assert_allclose([metrics[name] for name in other], list(other.values()), rtol=tolerance)


@pytest.mark.parametrize(("strategy", "width", "tolerance"), [("loop", None, 1e-5), ("vmap", 2, 1e-3)])
def test_populations_find_what_a_loop_by_hand_finds(strategy, width, tolerance, tmp_path, by_hand):
    found = run(tmp_path, strategy=strategy, width=width)
    agree(found, by_hand, tolerance)
    names = {name.partition("/")[0] for name in flatten_metrics(found[0].metrics)}
    assert {"average_precision", "auroc_hard_images", "labels_all", "labels_flagged", "labels_precision"} <= names
    assert "labels_corrupted/uncorrected_dice_mean" in flatten_metrics(found[0].metrics)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 4 + 3 * 4  # stages only: no checkpoint is left
    assert run(tmp_path, strategy=strategy, width=width)[3].metrics["dice"] == found[3].metrics["dice"]  # all kept


def test_a_killed_comparison_goes_on(tmp_path, by_hand, monkeypatch):
    """Killed in the second part of the plain runs, then in that of the continued ones, then not."""
    monkeypatch.setattr(population, "observe", partial(population.observe, seconds=0))
    whole, asked = audit.segmentation_dice, []

    def killed(*arguments):
        asked.append(0)
        if len(asked) in (10, 22):
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(comparison, "segmentation_dice", killed)
    for kept in (2, 4 + 7):  # part of the second pair of plain runs is not made again
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, strategy="vmap", width=2)
        stages = [file for file in (tmp_path / "checkpoints").glob("*.npz") if "training" not in file.name]
        assert len(stages) == kept
    agree(run(tmp_path, strategy="vmap", width=2), by_hand, 1e-3)


def test_a_case_that_diverges_ends_alone_and_is_tried_again(tmp_path, by_hand):
    found = run(tmp_path, rates=(5e-2, float("nan"), 5e-2, 5e-2), strategy="vmap", width=2)
    assert isinstance(found[1], DataError) and "not finite after step 1" in str(found[1])
    agree([found[0], *found[2:]], [by_hand[0], *by_hand[2:]], 1e-3)
    agree(run(tmp_path, strategy="vmap", width=2), by_hand, 1e-3)
