"""The 2-D configuration's plans are nnU-Net's; volumes keep their slices; older plans are 3-D."""

import json
from dataclasses import replace

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.segmentation.patches import prepare
from medjax.segmentation.plan import Case, Fingerprint, case_spacing, fingerprint, plan
from medjax.segmentation.plan_file import from_json, to_json
from medjax.segmentation.resample import IntensityProperties
from medjax.segmentation.sliding_window import tile_starts
from medjax.training.augment_nnunet import augmentation_for_plan, source_patch

GRAY = IntensityProperties(0.0, 1.0, -2.0, 2.0)


def prints(shape, spacing, cases=20):
    return Fingerprint((shape,) * cases, (spacing,) * cases, (1.0,) * cases, (GRAY,), ("MR",), 4)


# ExperimentPlanner.get_plans_for_configuration of nnunetv2 2.8.1 for the plane's spacing and median shape, 4 labels and
# so many voxels in all cases: patch, batch, widths of the levels from the fifth on, first strides and kernels.
@pytest.mark.parametrize(
    ("shape", "spacing", "cases", "gigabytes", "patch", "batch", "last", "stride", "kernel"),
    [
        ((237, 208, 18), (1.5625, 1.5625, 5.0), 300, 8.0, (256, 224), 56, (512, 512), (2, 2), (3, 3)),  # as ACDC
        ((128, 128, 128), (1.0, 1.0, 1.0), 400, 8.0, (128, 128), 198, (512, 512), (2, 2), (3, 3)),
        ((512, 512, 200), (0.8, 0.8, 2.5), 100, 8.0, (512, 512), 12, (512,) * 4, (2, 2), (3, 3)),
        ((512, 512, 200), (0.8, 0.8, 2.5), 100, 0.5, (320, 256), 2, (512,) * 3, (2, 2), (3, 3)),
        ((60, 200, 30), (3.0, 1.0, 9.0), 20, 8.0, (64, 224), 25, (512, 512), (1, 2), (1, 3)),
        ((80, 70, 10), (1.0, 1.0, 5.0), 40, 8.0, (80, 80), 18, (512,), (2, 2), (3, 3)),
        ((1200, 900, 1), (0.3, 0.3, 1.0), 200, 2.0, (768, 512), 2, (512,) * 4, (2, 2), (3, 3)),
    ],
)
def test_plans_are_those_of_nnunet(shape, spacing, cases, gigabytes, patch, batch, last, stride, kernel):
    p = plan(prints(shape, spacing, cases), memory_gb=gigabytes, configuration="2d")
    levels = 4 + len(last)
    assert (p.patch, p.batch, p.widths) == ((*patch, 1), batch, (32, 64, 128, 256, *last))
    assert p.strides == ((1, 1, 1), (*stride, 1), *((2, 2, 1),) * (levels - 2))
    assert p.kernels == ((*kernel, 1), *((3, 3, 1),) * (levels - 1))
    assert p.slice_axis == p.flat_axis == 2 and p.mirror == (0, 1) and p.batch_dice


@pytest.mark.parametrize(
    ("shape", "spacing", "axis"),
    [
        ((10, 256, 224), (10.0, 1.5625, 1.5625), 0),
        ((256, 1, 224), (1.0, 1.0, 1.0), 1),  # one slice
        ((64, 64, 64), (1.0, 1.0, 1.0), 2),  # nnU-Net reads (z, y, x) and takes the first of equals
        ((64, 64, 64), (1.0, 1.001, 1.0), 2),  # a tie but for rounding
    ],
)
def test_slices_are_across_the_largest_spacing(shape, spacing, axis):
    p = plan(prints(shape, spacing), configuration="2d", patch=(24, 20))
    plane = [k for k in range(3) if k != axis]
    assert p.slice_axis == axis and p.patch[axis] == 1 and [p.patch[k] for k in plane] == [24, 20]
    assert all(one[axis] == 1 for one in (*p.kernels, *p.strides)) and p.mirror == tuple(plane)


def test_patches_and_widths_can_be_chosen():
    found = prints((100, 96, 10), (1.5, 1.5, 8.0))
    for patch in ((80, 80), (80, 80, 1)):
        p = plan(found, configuration="2d", patch=patch, base_width=8, batch=12, mirror=(1, 2))
        assert p.patch == (80, 80, 1) and p.widths == (8, 16, 32, 64, 128) and p.batch == 12 and p.mirror == (1,)
    assert plan(found, configuration="2d", base_width=8, max_width=20).widths[-1] == 20
    for patch in ((80, 1, 80), (80, 80, 2), (80,), (1, 80, 80, 1)):
        with pytest.raises(DataError, match="1 along the slice axis z, or two numbers"):
            plan(found, configuration="2d", patch=patch)
    with pytest.raises(DataError, match=r"patch: \(80, 80\); expected three numbers of voxels$"):
        plan(found, patch=(80, 80))
    with pytest.raises(DataError, match="configuration: '2D'; expected 3d_fullres or 2d"):
        plan(found, configuration="2D")


def test_older_plans_are_3d():
    p = plan(prints((100, 96, 10), (1.5, 1.5, 8.0)), configuration="2d")
    assert from_json(to_json(p)) == p
    volumes = json.loads(to_json(plan(prints((100, 96, 10), (1.5, 1.5, 8.0)))))
    del volumes["slice_axis"]
    older = from_json(json.dumps(volumes))
    assert older.slice_axis is None and case_spacing(older, (1.0, 2.0, 3.0)) == older.spacing


def ramps(slices, distance, in_plane=1.0):
    """Slices of a gray value each, and labels that say their number."""
    image = np.broadcast_to(np.arange(1, slices + 1, dtype=np.float32), (12, 10, slices)).copy()
    image[6:, 5:] += 0.1
    labels = np.broadcast_to(np.arange(slices, dtype=np.int32) % 3, (12, 10, slices))
    return Case(image[..., None], labels.copy(), (in_plane, in_plane, distance))


def test_each_case_keeps_its_slices():
    """Slice distances of 4 to 10 mm, and slices across x: nothing is interpolated between slices, in-plane it is."""
    cases = [ramps(7, 8.0), ramps(5, 10.0), ramps(12, 4.0), ramps(6, 8.0, 1.5)]
    p = plan(fingerprint(cases, 3, ("MR",)), configuration="2d", patch=(8, 8))
    for case in cases[:3]:
        ready = prepare(case, p)
        assert ready.image.shape[:3] == case.labels.shape and case_spacing(p, case.spacing) == case.spacing
        np.testing.assert_array_equal(ready.labels, case.labels)
    finer = prepare(cases[3], p)
    assert finer.labels.shape == (18, 15, 6) and case_spacing(p, cases[3].spacing) == (1.0, 1.0, 8.0)
    assert (finer.labels == np.arange(6) % 3).all()
    own = cases[3].image[..., 0]
    for k in range(6):
        corner = (own[0, 0, k] - own.mean()) / own.std()
        np.testing.assert_allclose(finer.image[:6, :4, k, 0], corner, atol=0.01)
    turned = [Case(case.image.T[0].copy()[..., None], case.labels.T.copy(), case.spacing[::-1]) for case in cases]
    across = plan(fingerprint(turned, 3, ("MR",)), configuration="2d", patch=(8, 8))
    np.testing.assert_allclose(prepare(turned[3], across).image[..., 0].T, finer.image[..., 0], atol=1e-5)
    volumes = replace(p, slice_axis=None)
    assert prepare(cases[1], volumes).image.shape[2] == round(5 * 10 / p.spacing[2]) != 5


def test_the_augmentation_is_nnunets_for_slices():
    """Within the plane: any angle, but 15° for a patch over 1.5 times longer than wide; the source is one slice too."""
    square, long = augmentation_for_plan((80, 60, 1), 2, (0, 1)), augmentation_for_plan((80, 48, 1), 2, (0, 1))
    assert square.max_angle == np.pi and long.max_angle == pytest.approx(np.pi / 12)
    assert augmentation_for_plan((80, 48, 4), 2).max_angle == np.pi  # a 3-D patch
    # get_patch_size of nnunetv2 2.8.1 for ((80, 80), 180°) and ((80, 60), 180°); for ((96, 48), 15°) it has 56 instead
    # of (96 sin 15° + 48 cos 15°) / 0.85 = 83, and corners of the patch turn in from outside
    assert source_patch(augmentation_for_plan((80, 80, 1), 2), (80, 80, 1)) == (94, 94, 1)
    assert source_patch(square, (80, 60, 1)) == (94, 94, 1)
    assert source_patch(augmentation_for_plan((96, 48, 1), 2), (96, 48, 1)) == (123, 83, 1)


def test_tiles_of_one_slice_are_all_slices():
    np.testing.assert_array_equal(tile_starts((8, 5), (8, 1)), [[0, k] for k in range(5)])
    np.testing.assert_array_equal(tile_starts((5,), (2,), 0.1), [[0], [1], [2], [3]])
