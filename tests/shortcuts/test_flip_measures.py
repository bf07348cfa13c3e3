"""Measures of one network against counts by hand, scikit-learn's AUROC, and cases in which nothing is defined."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.metrics import f1_score, roc_auc_score

from medjax.errors import DataError
from medjax.shortcuts import flips
from medjax.shortcuts.flip_measures import Assessment, assess, is_common, measures

GROUP = np.repeat(np.arange(4), 6)


def predicted(seed=0):
    """Logits of 24 images of four groups, and their truth; in group 1 half of the objects get the other name."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(2, size=(24, 6, 6)) * (1 + GROUP // 2)[:, None, None]
    named = np.where((GROUP == 1)[:, None, None] & (np.arange(24) % 2 == 0)[:, None, None], 2 * truth, truth)
    named = np.where(rng.random(truth.shape) < 0.2, 0, named)
    return (3 * np.eye(3)[named] + rng.normal(scale=0.5, size=(*truth.shape, 3))).astype(np.float32), truth


def test_what_is_kept_of_an_image_is_counted_by_hand():
    logits, truth = predicted()
    kept, p = assess(jnp.asarray(logits), truth), softmax(logits.astype(np.float64), axis=-1)
    named = p.argmax(-1)
    wanted = [
        [[np.sum((t == a) & (n == b)) for b in range(3)] for a in range(3)] for t, n in zip(truth, named, strict=True)
    ]
    np.testing.assert_array_equal(kept.confusion, wanted)
    for values, found in (
        (entropy(p[..., 1:], axis=-1, base=2), kept.flip_risk),
        (entropy(p, axis=-1, base=3), kept.entropy),
        (1 - p.max(-1), kept.least_confidence),
    ):
        np.testing.assert_allclose(found, [v[n > 0].mean() for v, n in zip(values, named, strict=True)], rtol=1e-4)


def test_measures_are_those_of_the_definitions():
    logits, truth = predicted()
    kept, named = assess(jnp.asarray(logits), truth), logits.argmax(-1)
    flip = np.array([((n > 0) & (t > 0) & (n != t)).sum() / (t > 0).sum() for n, t in zip(named, truth, strict=True)])
    miss = np.array([((n == 0) & (t > 0)).sum() / (t > 0).sum() for n, t in zip(named, truth, strict=True)])
    found = measures(kept, GROUP)
    wanted = {
        "flip": flip.mean(),
        "miss": miss.mean(),
        "flip_common": flip[(GROUP == 0) | (GROUP == 3)].mean(),
        "flip_rare": flip[(GROUP == 1) | (GROUP == 2)].mean(),
        "flip_group/1": flip[GROUP == 1].mean(),
        "miss_group/3": miss[GROUP == 3].mean(),
        "dice_group/2": f1_score((truth[GROUP == 2] == 2).ravel(), (named[GROUP == 2] == 2).ravel()),
        "flip_global": ((named > 0) & (truth > 0) & (named != truth)).sum() / (truth > 0).sum(),
        "flip_risk_auroc/0.1": roc_auc_score(flip > 0.1, kept.flip_risk),
        "least_confidence_auroc/0.5": roc_auc_score(flip > 0.5, kept.least_confidence),
        "flip_prone/0.5": np.mean(flip > 0.5),
        "entropy_top_decile_fraction": flips.deciles(np.asarray(kept.entropy), flip).top_decile_fraction,
    }  # fmt: skip
    assert 0.1 < wanted["flip_rare"] < 0.5 and wanted["flip_common"] < 0.1
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name
    assert len(found) == 7 + 3 * 4 + 3 * 3 + 2 and all(isinstance(value, float) for value in found.values())


def test_common_groups_of_two_and_of_three_classes():
    assert is_common(np.arange(4)).tolist() == [True, False, False, True]
    assert is_common(np.arange(6)).tolist() == [True, False, False, True, True, False]


def test_what_is_not_defined_is_nan():
    """No flips: no AUROC. No predicted foreground: no risk. An absent group: nothing of it. Nine images: no decile."""
    logits, truth = predicted()
    kept = assess(jnp.asarray(10 * np.eye(3)[truth], jnp.float32), truth)
    found = measures(kept, GROUP)
    assert (
        found["flip"] == 0 and np.isnan(found["flip_risk_auroc/0.1"]) and np.isnan(found["entropy_top_decile_fraction"])
    )
    some = Assessment(*(np.asarray(part)[:9] for part in assess(jnp.asarray(logits), truth)))
    found = measures(some, GROUP[:9])
    assert np.isnan([found["flip_group/3"], found["dice_group/3"], found["flip_risk_top_decile_fraction"]]).all()
    nothing = assess(jnp.zeros((24, 6, 6, 3)).at[..., 0].set(5.0), truth)
    found = measures(nothing, GROUP)
    assert found["miss"] == 1 and np.isnan(found["flip_risk_auroc/0.1"])


def test_groups_that_are_none():
    kept = assess(jnp.asarray(predicted()[0]), predicted()[1])
    with pytest.raises(DataError, match="expected 0 to 3 of 24"):
        measures(kept, np.full(24, 4))
    with pytest.raises(DataError, match="of 23 images; expected 0 to 3 of 24"):
        measures(kept, GROUP[:23])
