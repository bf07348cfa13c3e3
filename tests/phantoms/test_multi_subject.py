"""Multi-subject cohorts: known fields, what no warp removes, contrast and repeatability; anatomies from files."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from medjax.errors import DataError
from medjax.io.nifti import grid_affine, write_nifti
from medjax.phantoms.head_anatomies import CENTER_MM, mni152, read_anatomy
from medjax.phantoms.heads import sample, source_voxels
from medjax.phantoms.multi_subject import (
    diffeomorphism,
    multi_subject,
    on_grid,
    subject,
    tissue_labels,
    true_displacement,
)
from medjax.phantoms.tissue_variation import Variation, shift_boundary, vary_tissues

SHAPE, VOXEL = (44, 52, 40), 4.0


@pytest.fixture(scope="module")
def anatomy():
    pytest.importorskip("nilearn")
    return mni152(3.0)


@pytest.fixture(scope="module")
def heads(anatomy):
    return list(multi_subject(0, 2, [anatomy]))


def test_subjects_differ_and_are_repeated(anatomy, heads):
    first, second = (on_grid(head, VOXEL, SHAPE) for head in heads)
    assert np.corrcoef(first.t1.ravel(), second.t1.ravel())[0, 1] < 0.97
    [again] = multi_subject(0, 1, [anatomy], first=1)
    np.testing.assert_array_equal(on_grid(again, VOXEL, SHAPE).activity, second.activity)
    gray, white = (first.activity[tissue_labels(first) == label].mean() for label in (2, 3))
    assert gray > 1.5 * white > 0
    values = [first.t1[tissue_labels(first) == label].mean() for label in (1, 2, 3)]
    assert all(low < high for low, high in pairwise(values))


def test_deformations_do_not_fold():
    change = diffeomorphism(3, strength=1.5)
    source = source_voxels(change, SHAPE, grid_affine(SHAPE, VOXEL, CENTER_MM), np.eye(4))
    gradient = np.stack([np.stack(np.gradient(one, VOXEL)) for one in source])
    assert np.linalg.det(np.moveaxis(gradient, (0, 1), (-2, -1))).min() > 0


def test_the_true_field_takes_one_subject_to_the_other(anatomy, heads):
    fixed, moving = heads
    field = true_displacement(fixed, moving, SHAPE, VOXEL)
    affine = grid_affine(SHAPE, VOXEL, CENTER_MM)
    own = source_voxels(fixed.change, SHAPE, affine, anatomy.affine)
    theirs = source_voxels(moving.change, SHAPE, affine, anatomy.affine)
    inside = np.s_[8:-8, 8:-8, 8:-8]
    moved = np.stack([ndimage.map_coordinates(one, np.indices(SHAPE) + field, order=1) for one in theirs])
    assert np.percentile(np.abs(moved - own)[:, *inside], 99) < 0.1  # voxels of 3 mm; interpolated on 4 mm
    one, other = (on_grid(head, VOXEL, SHAPE).white for head in heads)
    warped = sample(other, np.indices(SHAPE) + field, np.zeros(3))
    before, after = (float(np.corrcoef(one.ravel(), image.ravel())[0, 1]) for image in (other, warped))
    assert before < 0.85 < after


def test_what_no_warp_removes(anatomy):
    tissues, affine = anatomy.tissues, anatomy.affine
    sums = sum(tissues.values())
    plain = vary_tissues(tissues, affine, Variation())
    np.testing.assert_allclose(plain["gray"], tissues["gray"], atol=1e-6)
    thick, wide, large = (
        vary_tissues(tissues, affine, Variation(*one)) for one in ((0.6, 0.0, 0.0), (0.0, 0.9, 0.0), (0.0, 0.0, 2.5))
    )
    for varied in (thick, wide, large):
        np.testing.assert_allclose(sum(varied.values()), sums, atol=1e-5)
        assert min(float(image.min()) for image in varied.values()) > -1e-6
    volume = {name: float(image.sum()) for name, image in tissues.items()}
    assert thick["gray"].sum() > 1.05 * volume["gray"] and thick["fluid"].sum() == pytest.approx(volume["fluid"])
    assert wide["fluid"].sum() > 1.1 * volume["fluid"] and wide["gray"].sum() < 0.97 * volume["gray"]
    middle = tuple(slice(side // 2 - 12, side // 2 + 12) for side in sums.shape)
    assert large["fluid"][middle].sum() > 1.2 * tissues["fluid"][middle].sum()
    corner = (slice(0, 12),) * 3
    np.testing.assert_allclose(large["fluid"][corner], tissues["fluid"][corner], atol=1e-6)


def test_boundaries_move_by_voxels():
    step = np.zeros((20, 5, 5), np.float32)
    step[:10] = 1
    for voxels in (-2.0, -0.5, 0.0, 0.25, 1.5):
        np.testing.assert_allclose(shift_boundary(step, voxels).sum(axis=0), 10 + voxels, atol=1e-5)


def test_other_anatomies_are_read(tmp_path, anatomy):
    labels = np.select([anatomy.tissues["white"] > 0.5, anatomy.tissues["gray"] > 0.4], [2.0, 3.0], 0)
    t1 = np.select([labels == 2, labels == 3], [110.0, 70.0], 0).astype(np.float32)
    t1[(anatomy.tissues["fluid"] > 0.5) & (ndimage.binary_fill_holes(labels > 0))] = 25
    folder = tmp_path / "other"
    folder.mkdir()
    write_nifti(folder / "t1.nii.gz", t1, np.diag([-1.0, 1.0, 1.0, 1.0]) @ anatomy.affine)
    write_nifti(folder / "labels.nii.gz", labels.astype(np.float32), np.diag([-1.0, 1.0, 1.0, 1.0]) @ anatomy.affine)
    other, alone = read_anatomy(folder, 3.0), read_anatomy(folder / "t1.nii.gz", 3.0)
    for found in (other, alone):
        assert found.tissues["white"].sum() == pytest.approx((labels == 2).sum(), rel=0.1)
        assert found.t1_values.white > found.t1_values.gray > found.t1_values.fluid
        head = subject(np.random.default_rng(0), found, "dpa714", variation=Variation())
        assert np.isfinite(on_grid(head, VOXEL, SHAPE).activity).all()
    with pytest.raises(DataError, match="expected one anatomy"):
        true_displacement(head, subject(np.random.default_rng(0), anatomy), SHAPE, VOXEL)
    with pytest.raises(DataError, match="0 anatomies"):
        next(multi_subject(0, 1, []))
    (tmp_path / "empty").mkdir()
    write_nifti(tmp_path / "empty.nii.gz", np.zeros((9, 9, 9), np.float32), np.eye(4))
    with pytest.raises(DataError, match="skull-stripped"):
        read_anatomy(tmp_path / "empty.nii.gz")
