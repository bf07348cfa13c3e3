"""Objects that leave the transverse grid are noticed from their counts, and those inside it are not."""

import numpy as np
import pytest

from medjax.pet.grid import Grid
from medjax.pet.scanner import Scanner, lors
from medjax.pet.truncation import truncation
from tests.pet.oracle import ellipse_integrals

RING = Scanner("ring", 252, 1, 300.0, 4.0, 160, 4.0)
BODY = ((0.0, 0.0, 0.8, 1.0, 0.0, 1.0),)  # 160 × 200 mm, of a half side of 100 mm


@pytest.mark.parametrize("total", [3e4, 1e6])
@pytest.mark.parametrize(("size_mm", "leaves"), [(120, True), (200, False), (256, False)])
def test_a_body_that_leaves_the_grid_is_noticed(total: float, size_mm: int, leaves: bool):
    trues = ellipse_integrals(lors(RING), 100.0, BODY)[..., None]
    trues = trues * total / trues.sum()
    background = np.full_like(trues, 0.5 * total / trues.size)
    counts = np.random.default_rng(0).poisson(trues + background).astype(float)
    grid = Grid((size_mm // 4, size_mm // 4, 1), (4.0, 4.0, 4.0))
    found = truncation(lors(RING), grid, counts, background)
    assert found.significant == leaves


def test_counts_of_the_lines_that_miss_are_the_fraction():
    """Parallel lines over a square: those farther than half a voxel from it miss it."""
    s = np.arange(-50.0, 51.0, 5.0)
    ends = np.stack([np.stack([s, np.full_like(s, e)], axis=-1) for e in (-200.0, 200.0)], axis=-2)[None]
    counts = np.ones((1, len(s), 2))
    found = truncation(ends, Grid((10, 10, 2), (6.0, 6.0, 6.0)), counts, 0.5 * counts)
    assert found.fraction == pytest.approx(np.mean(np.abs(s) > 33)) and found.standard_deviations == pytest.approx(
        np.sum(np.abs(s) > 33) / np.sqrt(2 * np.sum(np.abs(s) > 33))
    )
    assert truncation(ends, Grid((10, 10, 2), (6.0, 6.0, 6.0)), counts, counts) == (0, 0)
