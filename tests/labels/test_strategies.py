"""What training goes on with after its labels were judged, against the same by hand; how well scores detect."""

import numpy as np

from medjax.labels.detection import auroc_curves, detection
from medjax.labels.strategies import (
    StrategyInputs,
    correction_quality,
    drop_corrupted,
    drop_flagged,
    refurbish_flagged,
    with_trusted_set,
)

CLEAN = np.zeros((6, 8, 8), np.int32)
CLEAN[:, 2:6, 2:6] = 1
GIVEN = CLEAN.copy()
GIVEN[:2, 5:] = 1  # two are too large
CORRUPTED = np.array([True, True, False, False, False, False])
SCORE = np.array([5.0, 1.0, 5.0, 1.0, 1.0, 1.0])  # sees one of them, and a right one


def inputs():
    return StrategyInputs(GIVEN, {"mine": SCORE}, CORRUPTED, lambda: np.eye(2, dtype=np.float32)[CLEAN])


def test_suspects_are_dropped_or_get_the_prediction():
    for strategy, flags in ((drop_flagged("mine"), SCORE > 3), (drop_corrupted, CORRUPTED)):
        correction = strategy(inputs())
        np.testing.assert_array_equal(correction.labels, GIVEN)
        np.testing.assert_array_equal(correction.weight, 1.0 - flags)
        assert correction.refurbished_by is None
    correction = refurbish_flagged("mine")(inputs())
    np.testing.assert_array_equal(correction.labels, np.where((SCORE > 3)[:, None, None], CLEAN, GIVEN))
    np.testing.assert_array_equal(correction.weight, 1.0)
    assert correction.refurbished_by == "mine" and correction.labels.dtype == np.int32
    own = refurbish_flagged("mine", threshold=lambda scores: scores < 3)(inputs())
    np.testing.assert_array_equal(own.flags, SCORE < 3)


def test_a_trusted_set_turns_a_ranking_round_and_only_then():
    """Where most labels are wrong the right ones are the outliers: checks of both ends of the ranking show it."""
    upside_down = inputs()._replace(corrupted=SCORE < 3)
    for strategy in (drop_flagged("mine"), refurbish_flagged("mine")):
        alone = strategy(upside_down)
        np.testing.assert_array_equal(alone.flags, SCORE > 3)
        turned = with_trusted_set(strategy, "mine", each_end=2)(upside_down)
        np.testing.assert_array_equal(turned.flags, SCORE < 3)
        kept = with_trusted_set(strategy, "mine", each_end=2)(inputs()._replace(corrupted=SCORE > 3))
        np.testing.assert_array_equal(kept.flags, SCORE > 3)
        nothing = with_trusted_set(strategy, "mine")(inputs()._replace(corrupted=np.ones(6, bool)))
        np.testing.assert_array_equal(nothing.flags, SCORE > 3)
    assert turned.refurbished_by == "mine_trusted" and alone.refurbished_by == "mine"


def test_what_a_repair_brought():
    before, after = correction_quality(refurbish_flagged("mine")(inputs()), inputs(), CLEAN)
    dice = 2 * 16 / (16 + GIVEN[0].sum())
    assert before["corrupted"] == dice and after["corrupted"] == (1 + dice) / 2 and after["falsely_flagged"] == 1
    assert after["recall"] == after["precision"] == 0.5
    assert set(after) - set(before) == {"recall", "precision"}


def test_detection_of_wrong_labels_and_of_hard_images():
    hard = np.array([False, False, True, False, False, False])
    found = detection({"mine": SCORE, "other": -SCORE}, CORRUPTED, hard)
    assert found["auroc_hard_images"] == {"mine": 1.0, "other": 0.0}  # it ranks the hard one highest of the right ones
    np.testing.assert_allclose(found["average_precision"]["mine"], (0.5 + 1 / 3) / 2, rtol=1e-6)
    curves = auroc_curves({"mine": np.stack([SCORE, -SCORE])}, CORRUPTED)
    np.testing.assert_allclose(curves["mine"], [5 / 8, 3 / 8])
