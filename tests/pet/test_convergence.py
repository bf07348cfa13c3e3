"""PETRIC's errors and stopping rule against NumPy with boolean indices, and a walk along the updates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.pet.convergence import (
    ConvergenceErrors,
    Regions,
    Thresholds,
    check_regions,
    convergence_errors,
    meet_thresholds,
    pass_index,
)  # fmt: skip

SHAPE = (6, 5, 4)
RNG = np.random.default_rng(0)
WHOLE, BACKGROUND = RNG.random(SHAPE) < 0.8, RNG.random(SHAPE) < 0.3
VOIS = RNG.random((3, *SHAPE)) < 0.2
REGIONS = Regions(WHOLE, BACKGROUND, VOIS)


def test_errors_are_the_challenges(x64: None):
    reference, images = RNG.uniform(1, 3, SHAPE), RNG.uniform(1, 3, (4, *SHAPE))
    got = jax.vmap(convergence_errors, in_axes=(0, None, None))(jnp.asarray(images), REGIONS, jnp.asarray(reference))
    level = reference[BACKGROUND].mean()
    for k, image in enumerate(images):
        for mask, value in ((WHOLE, got.whole_object_rmse), (BACKGROUND, got.background_rmse)):
            want = np.sqrt(np.mean((image[mask] - reference[mask]) ** 2)) / level
            np.testing.assert_allclose(value[k], want, rtol=1e-12)
        means = [abs(image[mask].mean() - reference[mask].mean()) / level for mask in VOIS]
        np.testing.assert_allclose(got.voi_errors[k], means, rtol=1e-10)
    same = convergence_errors(jnp.asarray(reference), REGIONS, jnp.asarray(reference))
    assert max(float(np.max(one)) for one in same) == 0 and bool(meet_thresholds(same))


def errors_of(whole: np.ndarray, voi: np.ndarray | None = None) -> ConvergenceErrors:
    zeros = np.zeros_like(whole)
    return ConvergenceErrors(*(jnp.asarray(a) for a in (whole, zeros, np.stack([zeros if voi is None else voi], -1))))


@pytest.mark.parametrize("window", [1, 2, 3, 10])
def test_the_rule_is_met_where_all_stay_below(window: int):
    for seed in range(30):
        whole = np.random.default_rng(seed).choice([0.005, 0.02], 40, p=[0.8, 0.2])
        passed = whole <= 0.01
        starts = [k for k in range(40 - window + 1) if passed[k : k + window].all()]
        assert int(pass_index(errors_of(whole), window=window)) == (starts[0] if starts else -1)


def test_every_error_counts_and_nan_never_passes():
    below = np.full(12, 0.004)
    assert int(pass_index(errors_of(below, below))) == 0
    assert int(pass_index(errors_of(below, np.full(12, 0.006)))) == -1  # a VOI has half of the threshold
    assert int(pass_index(errors_of(below, np.full(12, 0.006)), Thresholds(voi_error=0.01))) == 0
    assert int(pass_index(errors_of(np.where(np.arange(12) == 3, np.nan, below)))) == -1
    assert int(pass_index(errors_of(below[:9]))) == -1  # fewer images than the window
    with pytest.raises(DataError, match="window: 0; expected 1 or more images"):
        pass_index(errors_of(below), window=0)


def test_bad_regions_are_refused():
    reference = jnp.ones(SHAPE)
    check_regions(REGIONS, reference)
    empty = np.zeros(SHAPE, bool)
    for regions, image, message in (
        (Regions(WHOLE, empty, VOIS), reference, "background: no voxel"),
        (Regions(WHOLE, BACKGROUND, np.stack([VOIS[0], empty])), reference, "VOI 2: no voxel"),
        (REGIONS, jnp.ones((6, 5, 3)), r"whole object: mask of shape \(6, 5, 4\); the reference image has \(6, 5, 3\)"),
        (REGIONS, 0 * reference, "reference image: mean 0 over the background"),
    ):
        with pytest.raises(DataError, match=message):
            check_regions(regions, image)
