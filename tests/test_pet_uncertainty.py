"""Coverage, recalibration and paired comparison of the PET experiments, on draws whose calibration is known."""

import numpy as np
import pytest

from experiments.pet import uncertainty
from experiments.pet.scans import Draws, Scans
from experiments.pet.uncertainty import SampledSet

SIDE, SAMPLES, LEVELS = 24, 40, (2.5, 10.0)
SPREAD = {"dds": 0.5, "split_gibbs": 1.0}  # of the draws, relative to that of the truth


@pytest.fixture(scope="module")
def cases() -> Scans:
    """Two scans a level of one value a voxel with noise; a quarter of the second scan of each is a lesion."""
    draw = np.random.default_rng(0)
    number = 2 * len(LEVELS)
    truth = 10 + draw.standard_normal((number, SIDE, SIDE, 1)).astype(np.float32)
    lesions = np.zeros(truth.shape, bool)
    lesions[1::2, :6] = True
    unused = [np.zeros((number, 1), np.float32)] * 5
    level = np.repeat(np.float32(LEVELS), 2)
    mask = np.ones(truth.shape, bool)
    return Scans(*unused, truth, mask, mask, lesions, mask, level)


@pytest.fixture(scope="module")
def draws(cases) -> dict[str, Draws]:
    """Samples around 10, as the truth is, or half as wide."""
    draw, calls = np.random.default_rng(1), np.ones(cases.number)
    out = {}
    for name, width in SPREAD.items():
        images = 10 + width * draw.standard_normal((cases.number, SAMPLES, SIDE, SIDE, 1)).astype(np.float32)
        out[name] = Draws(images, images.mean(axis=1), SAMPLES * calls, calls)
    return out


def test_coverage_is_the_level_of_calibrated_draws_and_less_of_narrow_ones(cases, draws):
    factors = uncertainty.recalibration_factors(cases, draws, LEVELS)
    assert factors["split_gibbs"][2.5] == pytest.approx(1.0, abs=0.05) and factors["dds"][10.0] == pytest.approx(
        2, abs=0.1
    )
    sets = [SampledSet("all", cases, draws), SampledSet("lesions", cases, draws, "lesions")]
    metrics, table = uncertainty.coverage_of_sets(sets, factors)
    for name in ("all", "lesions"):
        for level in uncertainty.CREDIBLE_LEVELS:
            key = f"{name}/{{}}/10/{level:g}"
            assert metrics["coverage/" + key.format("split_gibbs")] == pytest.approx(level, abs=0.06)
            assert metrics["coverage_recalibrated/" + key.format("dds")] == pytest.approx(level, abs=0.06)
        assert metrics[f"coverage/{name}/dds/10/0.9"] < 0.7
    widths = [metrics[f"sharpness/all/{method}/2.5"] for method in SPREAD]
    assert widths[1] == pytest.approx(2 * 1.2816 / 10, rel=0.1) and widths[0] == pytest.approx(widths[1] / 2, rel=0.1)
    assert len(table.rows) == 2 * 2 * 2


def test_a_region_without_voxels_has_no_coverage(cases, draws):
    empty = cases._replace(lesions=np.zeros_like(cases.lesions))
    factors = {name: dict.fromkeys(LEVELS, 1.0) for name in draws}
    metrics, _ = uncertainty.coverage_of_sets([SampledSet("none", empty, draws, "lesions")], factors)
    assert np.isnan(metrics["coverage/none/split_gibbs/2.5/0.5"]) and np.isnan(metrics["nrmse_of_mean/none/dds/10"])


def test_chains_that_agree_have_converged(cases):
    draw, mask = np.random.default_rng(2), cases.mask[0]
    mixed = draw.standard_normal((4, 16, *mask.shape))
    apart = mixed + 3 * np.arange(4).reshape(-1, 1, 1, 1, 1)
    found, stuck = (uncertainty.convergence(images, mask) for images in (mixed, apart))
    assert found["rhat_median"] < 1.1 < 1.5 < stuck["rhat_median"]
    assert found["effective_fraction"] > 0.5 > 0.2 > stuck["effective_fraction"]
