"""Cases on a plan's grid, and patches as a function of their number."""

from functools import partial

import jax
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.segmentation.patches import PreparedCase, patches, prepare, prepare_image
from medjax.segmentation.plan import Case, Plan
from medjax.segmentation.resample import IntensityProperties
from medjax.training.augment_nnunet import NO_AUGMENTATION, augment_nnunet

PLAN = Plan(
    spacing=(1.0, 1.0, 2.0), median_shape=(8, 8, 8), patch=(8, 8, 8), batch=2, widths=(4, 8), kernels=((3, 3, 3),) * 2,
    strides=((1, 1, 1), (2, 2, 2)), channels=("MR", "ct"), classes=3,
    intensities=(IntensityProperties(0.0, 1.0, -1.0, 1.0), IntensityProperties(10.0, 5.0, 0.0, 20.0)),
    batch_dice=False, use_mask_for_norm=False, flat_axis=None,
)  # fmt: skip


def case(spacing=(1.0, 1.0, 2.0)):
    image = np.zeros((10, 9, 8, 2), np.float32)
    image[2:8, 1:8, 2:7] = np.random.default_rng(0).normal(10, 30, (6, 7, 5, 2))
    labels = np.zeros((10, 9, 8), np.int32)
    labels[3:5, 3:6, 3:5], labels[6, 4, 5] = 1, 2
    return Case(image, labels, spacing)


def test_channels_are_scaled_by_their_names_after_the_crop():
    one = prepare(case(), PLAN)
    assert one.image.shape == (6, 7, 5, 2) and one.image.dtype == np.float32
    crop = case().image[2:8, 1:8, 2:7]
    np.testing.assert_allclose(one.image[..., 0], (crop[..., 0] - crop[..., 0].mean()) / crop[..., 0].std(), atol=1e-5)
    np.testing.assert_allclose(one.image[..., 1], (np.clip(crop[..., 1], 0, 20) - 10) / 5, atol=1e-5)
    np.testing.assert_array_equal(one.labels, case().labels[2:8, 1:8, 2:7])
    assert [len(class_locations) for class_locations in one.class_locations] == [12, 1]
    np.testing.assert_array_equal(one.class_locations[1], [[4, 3, 3]])


def test_the_grid_is_the_plans():
    one = prepare(case((2.0, 1.0, 1.0)), PLAN)
    assert one.image.shape == (12, 7, 2, 2) and one.labels.shape == (12, 7, 2)
    _, box = prepare_image(case().image, (1.0, 1.0, 2.0), PLAN)
    assert box == (slice(2, 8), slice(1, 8), slice(2, 7))


def numbered(sides):
    """Every voxel has a value of its own above 0."""
    labels = np.zeros(sides, np.int32)
    labels[2, 3, 1], labels[-1, -1, -1] = 1, 2
    image = np.arange(1, labels.size + 1, dtype=np.float32).reshape(*sides, 1)
    return PreparedCase(image, labels, (np.array([[2, 3, 1]]), np.array([[s - 1 for s in sides]])))


def test_patches_are_a_function_of_their_number():
    ready = [numbered((12, 11, 10)), numbered((9, 12, 12))]
    one, again = (patches(ready, (7, 6, 5), (5, 5, 5), 3, 4) for _ in range(2))
    for number in (0, 5, 3):
        for array, other in zip(one(number), again(number), strict=True):
            np.testing.assert_array_equal(array, other)
    images, labels = one(0)
    assert images.shape == (3, 7, 6, 5, 1) and labels.shape == (3, 7, 6, 5)
    assert not np.array_equal(images, patches(ready, (7, 6, 5), (5, 5, 5), 3, 5)(0)[0])
    assert not np.array_equal(images, one(1)[0])


def test_patches_are_pieces_of_the_volume_with_nothing_beyond_it():
    volume = numbered((12, 11, 10))
    batches = patches([volume], (7, 7, 7), (5, 5, 5), 2, 0)
    lows = list[np.ndarray]()
    for number in range(60):
        for image, labels in zip(*batches(number), strict=True):
            inside = np.argwhere(image[..., 0] > 0)
            first = inside[0]
            place = np.array(np.unravel_index(int(image[(*first, 0)]) - 1, (12, 11, 10)))
            lows.append(place - first)
            for voxel in inside[::17]:
                where = tuple(voxel + lows[-1])
                assert image[(*voxel, 0)] == volume.image[(*where, 0)] and labels[tuple(voxel)] == volume.labels[where]
    # the middle 5 of 7 voxels stay inside
    assert np.min(lows, 0).tolist() == [-1, -1, -1] and np.max(lows, 0).tolist() == [6, 5, 4]


@pytest.mark.parametrize(("side", "source", "patch"), [(12, 13, 8), (12, 11, 8), (12, 10, 7), (8, 9, 8), (5, 11, 8)])
def test_what_augmentation_cuts_lies_in_the_volume_for_odd_differences_too(side, source, patch):
    """Without a warp: the patch starts from voxel 0 to the last that it fits; a smaller volume lies in it whole."""
    volume = numbered((side,) * 3)
    batches = patches([volume], (source,) * 3, (patch,) * 3, 4, 0)
    cut = jax.jit(jax.vmap(partial(augment_nnunet, settings=NO_AUGMENTATION._replace(patch=(patch,) * 3))))
    keys = jax.random.split(jax.random.key(0), 4)
    firsts = list[int]()
    for number in range(8):
        for piece in np.asarray(cut(keys, *batches(number))[0])[..., 0]:
            inside = np.argwhere(piece > 0)
            first = np.unravel_index(round(float(piece[tuple(inside[0])])) - 1, (side,) * 3)
            firsts += (np.array(first) - inside[0]).tolist()
            assert len(inside) == min(side, patch) ** 3
    least, most = (0, side - patch) if side >= patch else (-((patch - side) // 2),) * 2
    assert (min(firsts), max(firsts)) == (least, most)


def test_a_third_of_a_batch_is_centred_on_a_structure_each_as_often():
    volume = numbered((40, 40, 40))
    batches = patches([volume], (9, 9, 9), (9, 9, 9), 3, 0)
    seen = np.array([[labels.max() for labels in batches(number)[1]] for number in range(60)])
    assert (seen[:, 2] > 0).all() and (seen[:, :2] > 0).mean() < 0.3
    assert 15 < (seen[:, 2] == 1).sum() < 45
    two = patches([volume], (9, 9, 9), (9, 9, 9), 2, 0)
    assert all(two(number)[1][1].max() > 0 for number in range(10))  # nnU-Net: one of two


def test_a_structure_is_in_the_middle_where_there_is_room():
    volume = numbered((40, 40, 40))._replace(class_locations=(np.array([[20, 18, 22]]),))
    images, _ = patches([volume], (9, 8, 7), (9, 8, 7), 2, 0)(0)
    assert images[1, 4, 4, 3, 0] == volume.image[20, 18, 22, 0]


def test_a_volume_smaller_than_the_patch_lies_in_its_middle():
    images, _ = patches([numbered((4, 4, 4))], (8, 8, 9), (8, 8, 9), 1, 0, 0.0)(0)
    assert (images > 0).sum() == 64 and (images[0, 2:6, 2:6, 2:7, 0] > 0).sum() == 64


def test_what_does_not_fit_the_plan_is_named():
    good = case()
    for message, wrong in {
        "labels: shape": good._replace(labels=good.labels[1:]),
        "labels: from 0 to 4; expected 0 to 2": good._replace(labels=2 * good.labels),
        "image: 1 channels; expected 2": good._replace(image=good.image[..., :1]),
        "NaN or infinite": good._replace(
            image=np.where(good.image == good.image.max(), np.float32(np.inf), good.image)
        ),
        "every voxel is 0": good._replace(image=0 * good.image),
    }.items():
        with pytest.raises(DataError, match=message):
            prepare(wrong, PLAN)
    with pytest.raises(DataError, match="none to train on"):
        patches([], (8, 8, 8), (8, 8, 8), 2, 0)
