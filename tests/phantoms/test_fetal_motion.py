"""How a simulated fetus moves between frames, against transformations applied by hand and SciPy's interpolation."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from medjax.phantoms.fetal_anatomy import smooth_field
from medjax.phantoms.fetal_motion import FrameMotion, frames, voxel_means
from medjax.phantoms.fetal_motion import _interpolated as interpolated


def test_averaging_over_voxels_keeps_the_mean():
    fine = np.random.default_rng(0).random((8, 6, 10), np.float32)
    coarse = voxel_means(fine)
    assert coarse.shape == (4, 3, 5) and coarse[1, 2, 3] == pytest.approx(fine[2:4, 4:6, 6:8].mean())
    assert coarse.mean() == pytest.approx(fine.mean(), rel=1e-6)


def test_smooth_fields_have_unit_variance_at_every_place():
    fields = np.stack([smooth_field(np.random.default_rng(k), (9, 8, 7), (2.0, 2.0, 3.0), 6.0) for k in range(800)])
    np.testing.assert_allclose(fields.std(axis=0), 1, atol=0.12)
    assert abs(fields.mean()) < 0.05
    along = [np.mean(fields[:, :-i] * fields[:, i:]) for i in (3, 6)]  # 6 and 12 mm, one and two widths
    np.testing.assert_allclose(along, [1191 / 2416, 120 / 2416], atol=0.03)  # of cubic B-splines


def one_frame(shift=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0), center=(0.0, 0.0, 0.0)):
    """An ellipsoid, and how its middle and its second moments in mm change."""
    axes = np.ix_(*((np.arange(n) - (n - 1) / 2) * step for n, step in zip((60, 60, 40), (1, 1, 1.5), strict=True)))
    places = [np.array(shift), np.array([4.0, -3.0, 2.0])]
    body = sum(((x - c) / r) ** 2 for x, c, r in zip(axes, places[1], (12, 7, 5), strict=True))
    mask = (1 / (1 + np.exp(8 * (np.sqrt(body) - 1)))).astype(np.float32)
    moved = FrameMotion(*(np.array([np.zeros(3), each]) for each in (shift, turn)), *np.zeros((2, 2), bool))
    scene = (np.ones_like(mask), np.zeros_like(mask))
    shade = np.ones_like(mask)
    out = frames(np.random.default_rng(0), moved, lambda k: scene, mask, shade, (1, 1, 1.5), np.array(center), 0.0)
    grid = np.stack(
        np.meshgrid(
            *((np.arange(n) - (n - 1) / 2) * s for n, s in zip(out.shape[1:], (2, 2, 3), strict=True)), indexing="ij"
        ),
        -1,
    )
    middles = [(frame[..., None] * grid).sum((0, 1, 2)) / frame.sum() for frame in out]
    spreads = [
        np.einsum("xyz,xyzi,xyzj->ij", frame, grid - m, grid - m) / frame.sum()
        for frame, m in zip(out, middles, strict=True)
    ]
    return middles, spreads


def test_a_shift_and_a_turn_move_the_fetus_as_they_say():
    middles, _ = one_frame(shift=(3.0, -2.5, 4.0))
    np.testing.assert_allclose(middles[1] - middles[0], [3, -2.5, 4], atol=0.02)
    turn, center = np.array([0.3, -0.4, 0.5]), np.array([1.0, 2.0, -3.0])
    middles, spreads = one_frame(turn=turn, center=center)
    matrix = Rotation.from_rotvec(turn).as_matrix()
    np.testing.assert_allclose(middles[1] - center, matrix @ (middles[0] - center), atol=0.05)
    np.testing.assert_allclose(spreads[1], matrix @ spreads[0] @ matrix.T, atol=0.6)


def test_parts_move_against_each_other_by_the_size_asked_for():
    """Of a ramp, what moves is seen as the displacement along it."""
    x = np.broadcast_to((np.arange(60, dtype=np.float32) - 29.5)[:, None, None], (60, 50, 40))
    moved, still = FrameMotion(*np.zeros((2, 40, 3)), *np.zeros((2, 40), bool)), np.ones_like(x)
    spacing = (1.0, 2.0, 2.0)
    out = frames(np.random.default_rng(0), moved, lambda k: (still, 0 * x), x, still, spacing, np.zeros(3), 1.5)
    away = (out[1:] - out[0])[:, 4:-4]
    assert away.std() == pytest.approx(1.5, rel=0.1) and abs(away.mean()) < 0.2
    assert np.diff(away, axis=2).std() < 0.5  # neighbours 4 mm apart move alike


def test_interpolation_is_scipys():
    draw = np.random.default_rng(0)
    one, other = draw.random((2, 7, 6, 5), np.float32)
    places = draw.uniform(-2, 8, (3, 9, 8, 4)).astype(np.float32)
    for found, image in zip(interpolated(one, other, places), (one, other), strict=True):
        expected = ndimage.map_coordinates(image, places, order=1, mode="nearest")
        np.testing.assert_allclose(found, expected, atol=2e-6)
