"""Wrong labels: exactly as many as asked for, as wrong as asked for, in the direction that the kind says."""

import numpy as np
import pytest

from medjax.errors import ConfigError, DataError
from medjax.labels.errors import KINDS, corrupt, dilate
from medjax.metrics.overlap import mean_dice
from medjax.phantoms.echo import ATRIUM, LV, echo

LABELS = echo(0, 12, 64, hard=0.0).labels


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
def test_exactly_the_fraction_is_wrong_and_the_truth_is_kept(kind, fraction):
    found = corrupt(3, LABELS, kind, fraction, 0.75)
    assert found.corrupted.sum() == round(fraction * len(LABELS))
    np.testing.assert_array_equal(found.clean, LABELS)
    np.testing.assert_array_equal((found.labels != LABELS).any((1, 2)), found.corrupted)


@pytest.mark.parametrize(
    ("kind", "target"), [("random", 0.65), ("random", 0.85), ("systematic", 0.75), ("truncation", 0.85), ("shift", 0.7)]
)
def test_labels_are_as_wrong_as_asked_for(kind, target):
    found = corrupt(3, LABELS, kind, 1.0, target)
    dice = [mean_dice(one, true) for one, true in zip(found.labels, LABELS, strict=True)]
    assert np.mean(dice) == pytest.approx(target, abs=0.03)
    assert np.abs(np.array(dice) - target).max() < 0.12  # voxels are large beside an atrium


def test_a_systematic_error_always_has_one_sign_and_a_random_one_has_both():
    def change(kind, structure):
        found = corrupt(3, LABELS, kind, 1.0, 0.75)
        return np.sign((found.labels == structure).sum((1, 2)) - (structure == LABELS).sum((1, 2)))

    assert (change("systematic", LV) == 1).all() and (change("systematic", ATRIUM) == -1).all()
    assert set(change("random", LV)) >= {-1, 1}


def test_a_cut_takes_the_apex_and_nothing_else():
    found = corrupt(3, LABELS, "truncation", 1.0, 0.85)
    for wrong, true in zip(found.labels, LABELS, strict=True):
        gone = np.argwhere(wrong != true)
        assert (wrong[wrong != true] == 0).all() and not (true[wrong != true] == ATRIUM).any()
        assert gone[:, 0].mean() < np.argwhere(np.isin(true, (1, 2)))[:, 0].mean()  # the probe is at the top


def test_omission_and_swap_change_names_only():
    for wrong, true in zip(corrupt(1, LABELS, "omission", 1.0).labels, LABELS, strict=True):
        assert len(np.unique(wrong)) == len(np.unique(true)) - 1 and (wrong[wrong > 0] == true[wrong > 0]).all()
    for wrong, true in zip(corrupt(1, LABELS, "swap", 1.0).labels, LABELS, strict=True):
        assert (
            sorted(np.bincount(wrong.ravel())) == sorted(np.bincount(true.ravel()))
            and (wrong > 0).sum() == (true > 0).sum()
        )


def test_the_same_seed_is_the_same_and_more_is_more_of_it():
    few, many = (corrupt(5, LABELS, "random", fraction, 0.7) for fraction in (0.25, 0.5))
    assert (many.corrupted >= few.corrupted).all()
    np.testing.assert_array_equal(few.labels[few.corrupted], many.labels[few.corrupted])


def test_growing_is_by_the_radius_whatever_the_size_or_dimension():
    for radius, shape in ((8, (40, 40)), (16, (80, 80)), (6, (28, 28, 28))):
        places = np.indices(shape) - (np.array(shape) / 2 - 0.5).reshape(-1, *(1,) * len(shape))
        ball = (np.linalg.norm(places, axis=0) < radius).astype(np.int32)
        for by in (0.25, -0.25):
            ratio = (dilate(ball, 1, by).sum() / ball.sum()) ** (1 / len(shape))
            assert ratio == pytest.approx(1 + by, abs=0.07)


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="label error 'rnd'; expected one of random"):
        corrupt(0, LABELS, "rnd", 0.5)
    with pytest.raises(ConfigError, match="numbers from 0 to 1"):
        corrupt(0, LABELS, "random", 1.5)
    with pytest.raises(ConfigError, match="numbers from 0 to 1"):
        corrupt(0, LABELS, "random", 0.5, 1.0)
    with pytest.raises(DataError, match="'swap' leaves image"):
        corrupt(0, np.minimum(LABELS, 1), "swap", 0.5)
    with pytest.raises(DataError, match="image 0 has no structure"):
        corrupt(0, 0 * LABELS[:1], "random", 1.0)
