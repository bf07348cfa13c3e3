"""Random uptake with lesions, in a head of two tissues: its tracers, its lesions, and images of it on a grid."""

import numpy as np
import pytest

from medjax.phantoms import uptake as module
from medjax.phantoms.heads import deformation
from medjax.phantoms.mni import Tissues
from medjax.phantoms.uptake import FAMILY, WITHOUT_LESIONS, Family, on_grid, random_activity, uptake

SIDE, VOXEL = 36, 4.0
AFFINE = np.diag([VOXEL, VOXEL, VOXEL, 1.0])
AFFINE[:3, 3] = np.array([0.0, -18.0, 10.0]) - VOXEL * (SIDE - 1) / 2
RADIUS = VOXEL * np.linalg.norm(np.indices((SIDE,) * 3) - (SIDE - 1) / 2, axis=0)
TISSUES = {name: np.zeros((SIDE,) * 3, np.float32) for name in Tissues._fields}
TISSUES["white"] = (RADIUS < 40).astype(np.float32)
TISSUES["gray"] = ((RADIUS >= 40) & (RADIUS < 60)).astype(np.float32)
GRAY, WHITE = TISSUES["gray"] > 0, TISSUES["white"] > 0
HEADS = range(48)


def activity(seed, **fractions):
    return uptake(seed, TISSUES, AFFINE, Family(**fractions))


@pytest.fixture(scope="module")
def pairs():
    """Heads of the family, and the same ones without lesions."""
    return [(uptake(seed, TISSUES, AFFINE), uptake(seed, TISSUES, AFFINE, WITHOUT_LESIONS)) for seed in HEADS]


def test_the_same_seed_is_the_same_head(pairs):
    np.testing.assert_array_equal(uptake(3, TISSUES, AFFINE), pairs[3][0])
    assert not np.array_equal(pairs[3][1], pairs[4][1])
    assert all(np.isfinite(head).all() and (head >= 0).all() and not head[RADIUS > 70].any() for head, _ in pairs)


def test_half_of_the_heads_have_lesions_and_nearly_a_third_the_other_tracer(pairs):
    with_lesions = [not np.array_equal(*pair) for pair in pairs]
    assert abs(np.mean(with_lesions) - FAMILY.lesions) < 3 * np.sqrt(0.25 / len(HEADS))
    other = [plain[GRAY].mean() < 2.2 for _, plain in pairs]
    assert abs(np.mean(other) - FAMILY.dpa714) < 3 * np.sqrt(0.21 / len(HEADS))


@pytest.mark.parametrize(("tracer", "fraction"), [("fdg", 0.0), ("dpa714", 1.0)])
def test_activities_of_a_tracer_are_within_its_ranges(tracer, fraction):
    low, high = module.ACTIVITY_RANGES[tracer]
    heads = [activity(seed, dpa714=fraction, lesions=0.0) for seed in range(20)]
    found = np.array([[head[WHITE].mean(), head[GRAY].mean()] for head in heads])
    assert (found > 0.9 * np.array([low.white, low.gray])).all()
    assert (found < 1.1 * np.array([high.white, high.gray])).all()
    assert np.ptp(found, axis=0).min() > 0.2


def test_uptake_varies_by_region_as_stated():
    """In a tissue of one activity the logarithm's deviation is 12 %, and neighbours are alike."""
    logs = [np.log(activity(seed, lesions=0.0)[WHITE]) for seed in range(12)]
    np.testing.assert_allclose(np.mean([one.std() for one in logs]), 0.12, atol=0.03)
    step = [np.diff(np.log(activity(seed, lesions=0.0)[15:21, 18, 18])) for seed in range(12)]
    assert np.std(step) < 0.04


def test_one_lesion_is_an_ellipsoid_of_the_stated_size_and_contrast(monkeypatch):
    monkeypatch.setattr(module, "LESIONS", (1, 1))
    hot = []
    for seed in range(40):
        plain, head = activity(seed, lesions=0.0), activity(seed, lesions=1.0)
        ratio = np.divide(head, plain, out=np.ones_like(head), where=plain > 0)
        core, where = (ratio.max(), np.argmax(ratio)) if ratio.max() > 1.01 else (ratio.min(), np.argmin(ratio))
        changed = np.abs(ratio - 1) > 1e-3
        assert ratio.min() >= 0.1 - 1e-3 and ratio.max() <= 5 + 1e-3
        assert np.sum(changed) * VOXEL**3 < 4 / 3 * np.pi * (1.25 * 10 + 2 + VOXEL) ** 3
        if core > 1.01:
            assert head.flat[where] <= 1.6 * plain.max() + 1e-3 or GRAY.flat[where]
        hot.append(core > 1)
    assert 0.45 < np.mean(hot) < 0.95


def test_an_undeformed_head_on_its_own_voxels_is_itself():
    head = activity(5).astype(np.float32)
    still = deformation(0, strength=0)
    same, mask = on_grid([head, TISSUES["gray"]], AFFINE, still, (VOXEL,) * 3, (SIDE,) * 3)
    np.testing.assert_allclose(same, head, atol=2e-3 * head.max())
    np.testing.assert_allclose(mask, TISSUES["gray"], atol=2e-3)
    (thick,) = on_grid([head], AFFINE, still, (VOXEL, VOXEL, 4 * VOXEL), (SIDE, SIDE, SIDE // 4))
    np.testing.assert_allclose(4 * thick.sum(), head.sum(), rtol=0.02)


def test_random_activity_is_the_uptake_in_a_random_head():
    image = random_activity(1, TISSUES, AFFINE, 6.0, (30, 30, 30))
    assert image.shape == (30, 30, 30) and image.dtype == np.float32 and image.min() >= 0
    np.testing.assert_array_equal(image, random_activity(1, TISSUES, AFFINE, 6.0, (30, 30, 30)))
    rigid = random_activity(1, TISSUES, AFFINE, 6.0, (30, 30, 30), Family(strengths=(0.0, 0.0)))
    assert not np.allclose(image, rigid, atol=0.1)
    np.testing.assert_allclose(image.sum(), rigid.sum(), rtol=0.6)
