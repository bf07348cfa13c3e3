"""Plans against nnU-Net's rules worked by hand: isotropic, thick slices, tiny; the budget; JSON; bad input."""

import json

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.segmentation.plan import (
    Case,
    Fingerprint,
    fingerprint,
    plan,
    target_spacing,
)
from medjax.segmentation.plan_file import from_json, to_json
from medjax.segmentation.resample import IntensityProperties
from medjax.segmentation.topology import feature_maps, flat_axis

GREY = IntensityProperties(0.0, 1.0, -2.0, 2.0)


def prints(shape, spacing, cases=20, crop_fraction=1.0, channels=("MR",)):
    intensities = (GREY,) * len(channels)
    return Fingerprint((shape,) * cases, (spacing,) * cases, (crop_fraction,) * cases, intensities, channels, 3)


def test_isotropic_volumes_are_halved_alike_along_all_axes():
    """128³ at 8 GB: 128 → 4 is 5 halvings, 6 levels; nnU-Net's own network for BraTS, say."""
    p = plan(prints((128, 128, 128), (1.0, 1.0, 1.0), cases=400))
    assert p.patch == (128, 128, 128) and p.batch == 2
    assert p.widths == (32, 64, 128, 256, 320, 320)
    assert p.kernels == ((3, 3, 3),) * 6
    assert p.strides == ((1, 1, 1),) + ((2, 2, 2),) * 5
    assert p.spacing == (1.0, 1.0, 1.0) and p.flat_axis is None and not p.use_mask_for_norm


def test_thick_slices_are_halved_in_plane_first():
    """ACDC: 1.5625² × 10 mm, 10 slices. In-plane 2× until 6.25 mm, then all; here 10 slices allow one halving."""
    p = plan(prints((10, 256, 224), (10.0, 1.5625, 1.5625), cases=200))
    assert p.strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2))
    # mm across slices / least mm: 6.4, 3.2, 1.6 (→ 3 from here on)
    assert p.kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    assert p.patch == (10, 256, 224)
    assert p.flat_axis == 0
    turned = plan(prints((256, 224, 10), (1.5625, 1.5625, 10.0), cases=200))
    assert turned.strides == tuple((y, z, x) for x, y, z in p.strides)
    assert turned.kernels == tuple((y, z, x) for x, y, z in p.kernels)
    assert turned.patch == (256, 224, 10) and turned.flat_axis == 2 and turned.batch == p.batch


@pytest.mark.parametrize(
    ("side", "patch", "levels"),
    [(5, 5, 1), (7, 7, 1), (8, 8, 2), (12, 12, 2), (15, 16, 3), (16, 16, 3), (33, 40, 4)],
)
def test_tiny_volumes_have_few_levels(side, patch, levels):
    """8 voxels can be halved to 4; 15 → 8 → 4 makes 16; 33 → 17 → 9 → 5 makes 40."""
    p = plan(prints((side,) * 3, (2.0, 2.0, 2.0)))
    assert (p.patch, len(p.widths)) == ((patch,) * 3, levels)
    assert p.kernels[-1] == (3, 3, 3)


def test_a_single_axis_is_halved_from_12_voxels_on():
    assert len(plan(prints((11, 4, 4), (1.0, 1.0, 1.0))).strides) == 1
    assert plan(prints((12, 4, 4), (1.0, 1.0, 1.0))).strides == ((1, 1, 1), (2, 1, 1))


def test_feature_maps_are_counted_as_by_hand():
    """8³ and 4³ voxels, widths 2 and 4: two convolutions a level, a transposed one and 3 logits on the way up."""
    count = 2 * 2 * 512 + 2 * 4 * 64 + (2 + 1) * 2 * 512 + 3 * 512
    assert feature_maps((8, 8, 8), ((1, 1, 1), (2, 2, 2)), (2, 4), 3) == count


@pytest.mark.parametrize("gigabytes", [0.5, 1.0, 2.0, 4.0, 11.0])
def test_the_patch_shrinks_to_the_budget(gigabytes):
    p = plan(prints((512, 512, 200), (0.8, 0.8, 2.5), cases=100), memory_gb=gigabytes)
    budget = 5.6e8 * gigabytes / 8
    cost = feature_maps(p.patch, p.strides, p.widths, 3)
    assert budget / 2 < cost <= budget and p.batch == 2
    multiple = np.prod(p.strides, axis=0)
    assert not (np.array(p.patch) % multiple).any() and (np.array(p.patch) // multiple >= 4).all()


@pytest.mark.parametrize(
    ("shape", "spacing", "patch", "strides", "first"),
    [
        ((138, 170, 138), (1.0, 1.0, 1.0), (128, 128, 128), ((2, 2, 2),) * 5, (3, 3, 3)),  # BraTS
        (
            (18, 237, 208), (5.0, 1.5625, 1.5625), (20, 256, 224),
            ((1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2)), (1, 3, 3),
        ),  # ACDC
    ],
)  # fmt: skip
def test_what_nnunet_plans_for_public_data_sets(shape, spacing, patch, strides, first):
    p = plan(prints(shape, spacing, cases=300))
    assert p.patch == patch and p.strides[1:] == strides and p.kernels[0] == first and set(p.kernels[1:]) == {(3, 3, 3)}


def test_no_size_between_is_skipped():
    """From 128 with 5 halvings the next is 112 with 4, not 96: nnU-Net's planner says why."""
    assert plan(prints((256, 256, 256), (1.0, 1.0, 1.0), 50), memory_gb=6.0).patch == (128, 128, 112)


def test_dice_is_of_batches_where_a_patch_sees_less_than_a_quarter():
    assert not plan(prints((128, 128, 128), (1.0, 1.0, 1.0))).batch_dice
    assert plan(prints((512, 512, 200), (0.8, 0.8, 2.5))).batch_dice


def test_batches_hold_five_percent_of_the_voxels_or_two_patches():
    """16³ patches of cases of 16³: 5 % of 200 cases are 10 patches, of 20 cases 1, which makes 2."""
    sizes = {cases: plan(prints((16, 16, 16), (1.0, 1.0, 1.0), cases)).batch for cases in (20, 200)}
    assert sizes == {20: 2, 200: 10}
    little = plan(prints((16, 16, 16), (1.0, 1.0, 1.0), 200), memory_gb=0.02)
    assert little.batch == round(2 * 1.4e6 / feature_maps((16,) * 3, little.strides, (32, 64, 128), 3)) == 3


def test_width_patch_and_batch_can_be_given():
    p = plan(prints((64, 64, 64), (1.0, 1.0, 1.0)), base_width=4, max_width=10, patch=(15, 16, 9), batch=3)
    assert p.widths == (4, 8, 10) and p.patch == (16, 16, 10) and p.batch == 3
    assert plan(prints((64, 64, 64), (1.0, 1.0, 1.0)), memory_gb=0.01, base_width=4).patch < (64, 64, 64)


def test_target_spacing_is_the_median_or_the_tenth_percentile_of_a_coarse_axis():
    spacings = tuple((1.0, 1.0, float(z)) for z in range(2, 13))
    few = Fingerprint(((100, 100, 20),) * 11, spacings, (1.0,) * 11, (GREY,), ("MR",), 2)
    assert target_spacing(few) == (1.0, 1.0, 3.0)  # median 7, 10th percentile 3
    many = Fingerprint(((100, 100, 40),) * 11, spacings, (1.0,) * 11, (GREY,), ("MR",), 2)
    assert target_spacing(many) == (1.0, 1.0, 7.0)  # 40 slices are not 3 times fewer
    fine = tuple((1.0, 1.0, z) for z in (0.5, 0.5, 0.5, 4.0, 4.0, 4.0, 4.0))
    finer = Fingerprint(((100, 100, 20),) * 7, fine, (1.0,) * 7, (GREY,), ("MR",), 2)
    assert target_spacing(finer) == (1.0, 1.0, 1.0 + 1e-5)


def case(shape=(12, 10, 8), spacing=(1.0, 1.0, 3.0), channels=2):
    image = np.zeros((*shape, channels), np.float32)
    image[2:-2, 1:-1] = 1.0
    labels = np.zeros(shape, np.int32)
    labels[4:6, 4:6, 2:6] = 1
    image[labels == 1] = [5.0, 7.0][:channels]
    return Case(image, labels, spacing)


def test_the_fingerprint_of_arrays():
    found = fingerprint([case(), case(spacing=(2.0, 2.0, 3.0))], 2, ("MR", "CT"))
    assert found.shapes == ((8, 8, 8),) * 2 and found.spacings == ((1.0, 1.0, 3.0), (2.0, 2.0, 3.0))
    assert found.crop_fractions == pytest.approx((8 * 8 / 120,) * 2)
    assert [gray.mean for gray in found.intensities] == [5.0, 7.0] and found.intensities[0].std == 0
    assert plan(found).use_mask_for_norm and plan(found).spacing == (1.5, 1.5, 3.0)
    assert plan(found).channels == ("MR", "CT")


def test_json_both_ways():
    p = plan(fingerprint([case()], 2))
    assert from_json(to_json(p)) == p and hash(from_json(to_json(p))) == hash(p)
    assert from_json(to_json(p).replace("{", '{"network": {"name": "unet"},', 1)) == p  # what others add is left alone
    for text in ("{}", "[1]", "no", to_json(p).replace("patch", "path")):
        with pytest.raises(DataError, match="expected the JSON of a plan"):
            from_json(text)


def test_bad_cases_and_budgets_are_named():
    good = case()
    wrong = {
        "labels from 0 to 2; expected 0 to 1": good._replace(labels=2 * good.labels),
        "NaN": good._replace(image=good.image * np.float32(np.nan)),
        "spacing": good._replace(spacing=(1.0, 0.0, 1.0)),
        r"labels \(12, 10, 7\); expected \(x, y, z, 2\)": good._replace(labels=good.labels[..., :7]),
        r"expected \(x, y, z, 2\)": case(channels=1),
    }
    for message, one in wrong.items():
        with pytest.raises(DataError, match=message):
            fingerprint([good, one], 2)
    with pytest.raises(DataError, match="expected at least one"):
        fingerprint([], 2)
    empty = good._replace(image=0 * good.image)
    for names, start in (((), "case 1"), (("a.nii", "b.nii"), "b.nii")):
        with pytest.raises(DataError, match=f"^{start}: every voxel is 0"):
            fingerprint([good, empty], 2, names=names)
    with pytest.raises(DataError, match="no label is above 0"):
        fingerprint([good._replace(labels=0 * good.labels)], 2)
    with pytest.raises(DataError, match="expected above 0"):
        plan(prints((16, 16, 16), (1.0, 1.0, 1.0)), base_width=0)
    for gigabytes in (np.inf, np.nan, -1.0):
        with pytest.raises(DataError, match="expected above 0 and finite"):
            plan(prints((16, 16, 16), (1.0, 1.0, 1.0)), memory_gb=gigabytes)
    assert plan(prints((16, 16, 16), (1.0, 1.0, 1.0)), memory_gb=1e308).batch == 2
    with pytest.raises(DataError, match="no patch fits 1e-09 GB"):
        plan(prints((16, 16, 16), (1.0, 1.0, 1.0)), memory_gb=1e-9)


@pytest.mark.parametrize(
    ("shape", "spacing", "axis"),
    [
        ((64, 64, 1), (1.0, 1.0, 1.0), 2),  # 2-D data: spacings tie, and one axis has a single voxel
        ((64, 1, 64), (1.0, 1.0, 1.0), 1),
        ((1, 64, 64), (1.0, 1.0, 1.0), 0),
        ((64, 64, 1), (1.0, 1.0, 0.5), 2),  # a slice of any thickness is one slice
        ((128, 128, 16), (1.0, 1.0, 1.0), 2),  # a thin slab of cubic voxels
        ((128, 16, 128), (1.0, 1.002, 1.001), 1),  # a tie but for rounding
        ((18, 237, 208), (5.0, 1.5625, 1.5625), 0),
        ((64, 64, 64), (1.0, 1.0, 1.0), None),
        ((64, 48, 32), (1.0, 1.0, 1.0), None),
        ((16, 128, 128), (1.0, 1.0, 2.0), None),  # thick along z, which has many voxels: nnU-Net's rule
    ],
)
def test_the_flat_axis_is_the_thin_one_where_spacings_tie(shape, spacing, axis):
    assert flat_axis(spacing, shape) == axis


def test_the_plan_keeps_its_mirror_axes_and_older_plans_mirrored_all():
    p = plan(prints((16, 16, 16), (1.0, 1.0, 1.0)), mirror=(0, 2))
    assert p.mirror == (0, 2) and from_json(to_json(p)) == p
    assert plan(prints((16, 16, 16), (1.0, 1.0, 1.0))).mirror == (0, 1, 2)
    former = json.loads(to_json(p))
    del former["mirror"]
    assert from_json(json.dumps(former)).mirror == (0, 1, 2)
