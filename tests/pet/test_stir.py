"""Against STIR's own answers, from its reconstruction test pack."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from medjax.pet.grid import Grid
from medjax.pet.michelogram import michelogram
from medjax.pet.projector3d import backproject
from medjax.pet.system3d import build_system3d

RADIUS_MM, BIN_MM, RING_MM = 387.0, 3.1088, 6.75  # of the PRT-1, with the depth of interaction


def _arc_corrected(views: int, bins: int, rays: int) -> np.ndarray:
    """End points on the ring of lines at equal distances, `rays` across each bin."""
    theta = (np.pi * np.arange(views) / views)[:, None]
    shift = (np.arange(rays) - (rays - 1) / 2) / rays
    s = ((np.arange(bins) - bins // 2)[:, None] + shift).reshape(1, -1) * BIN_MM
    along = np.sqrt(RADIUS_MM**2 - s**2)
    return np.stack(
        [
            np.stack([s * np.cos(theta) - g * along * np.sin(theta), s * np.sin(theta) + g * along * np.cos(theta)], -1)
            for g in (-1, 1)
        ],
        axis=-2,
    )


def test_sensitivity_image_is_stirs(test_data: Path):
    """Segments −3 … 3 of 16 rings, end planes of segment 0 left out, two rays across and along each bin as in STIR.

    STIR traces its rays through voxels as boxes (Siddon), medjax interpolates (Joseph). That shows in the four planes
    at either end of the scanner, where few rays pass, and around the axis, which the two rays of a bin never meet.
    """
    stir = np.fromfile(test_data / "pet_stir" / "RPTsens_seg3_PM.v", "<f4").reshape(31, 60, 60).transpose(2, 1, 0)
    voxel = BIN_MM / 0.7
    system = build_system3d(
        _arc_corrected(96, 128, 2), michelogram(16, 1, 3), RING_MM, Grid((61, 61, 31), (voxel, voxel, RING_MM / 2))
    )
    seen = np.ones(system.sinogram_shape, np.float32)
    seen[:, :, [0, 15]] = 0
    one_ray = np.asarray(backproject(system, jnp.asarray(seen)))[:60, :60]  # STIR's middle is voxel 30 of 60
    padded = np.pad(one_ray, ((0, 0), (0, 0), (1, 1)))
    ours = (padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]) / 4  # rays half a plane up and down
    middle = np.hypot(*np.meshgrid(np.arange(60) - 30, np.arange(60) - 30)) < 28  # STIR cuts a cylinder out of its grid
    compared = (stir > 0.1 * stir.max()) & middle[..., None]
    ours = ours * np.vdot(ours[compared], stir[compared]) / np.vdot(ours[compared], ours[compared])
    error = np.where(compared, ours / np.where(compared, stir, 1) - 1, 0)
    inner = np.abs(error[..., 4:-4])
    assert np.percentile(inner[compared[..., 4:-4]], 99) < 0.02 and inner.max() < 0.03
    planes = error.sum(axis=(0, 1)) / compared.sum(axis=(0, 1))
    assert np.abs(planes[1:-1]).max() < 0.05
