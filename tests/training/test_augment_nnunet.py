"""Augmentation: off is off; each part against SciPy or a closed form; image and labels together; how often."""

from functools import partial

import jax
import numpy as np
import pytest
from scipy import ndimage

from medjax.segmentation.topology import flat_axis
from medjax.training.augment_nnunet import (
    NO_AUGMENTATION,
    NnunetAugmentation,
    _change_intensities,
    _coordinates,
    adjust_contrast,
    augment_nnunet,
    augmentation_for_plan,
    gamma_correction,
    gaussian_blur,
    simulate_low_resolution,
    source_patch,
)

KEY = jax.random.key(0)
SPACE = (12, 11, 10)
augmented = jax.jit(augment_nnunet, static_argnums=3)
blurred = jax.jit(gaussian_blur)
low_resolved = jax.jit(simulate_low_resolution, static_argnums=2)
gamma_corrected = jax.jit(gamma_correction, static_argnums=2)


def example(space=SPACE, channels=2):
    labels = np.zeros(space, np.int32)
    labels[2:7, 3:8, 2:6] = 1
    labels[7:10, 3:6, 4:8] = 2
    image = np.stack([labels, 3 - labels], -1).astype(np.float32)[..., :channels]
    return image, labels


def varied(settings):
    return jax.jit(jax.vmap(partial(augment_nnunet, settings=settings), (0, None, None)))


def grayed(settings, number, image):
    """Grey values alone, by numbers of NumPy: without the warp and JAX's draws it compiles in no time."""
    uniform = np.random.default_rng(7).uniform(size=(number, 7, 3, 4)).astype(np.float32)
    return jax.jit(jax.vmap(partial(_change_intensities, s=settings), (0, 0, None)))(
        uniform, jax.random.split(KEY, number), image
    )


def noise(shape=SPACE):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("space", [(12, 10, 8), (13, 11, 9), (12, 11, 13)])
def test_off_is_off_and_cuts_the_middle(space):
    image, labels = example(space)
    same, named = augmented(KEY, image, labels, NO_AUGMENTATION)
    np.testing.assert_array_equal(same, image)
    np.testing.assert_array_equal(named, labels)
    patch = (8, 7, 6)
    same, named = augmented(KEY, image, labels, NO_AUGMENTATION._replace(patch=patch))
    low = [(side - 1) // 2 - (own - 1) // 2 for side, own in zip(space, patch, strict=True)]
    middle = tuple(slice(a, a + n) for a, n in zip(low, patch, strict=True))
    np.testing.assert_array_equal(same, image[middle])
    np.testing.assert_array_equal(named, labels[middle])


def test_mirroring_is_exact_and_of_the_axes_named():
    image, labels = example()
    moved = varied(NO_AUGMENTATION._replace(mirror=(0, 2)))(jax.random.split(KEY, 24), image, labels)
    images, named = map(np.asarray, moved)
    wanted = {(a, c): labels[::a, :, ::c] for a in (1, -1) for c in (1, -1)}
    seen = {which for one in named for which, other in wanted.items() if (one == other).all()}
    assert seen == set(wanted)
    np.testing.assert_array_equal(images[..., 0], named.astype(np.float32))


WARPED = NO_AUGMENTATION._replace(rotation=1.0, scaling=1.0)


@pytest.mark.parametrize("flat", [None, 1])
def test_the_warp_is_scipys_interpolation_of_a_rotation_and_one_scale(flat):
    image, labels = example()
    settings = WARPED._replace(flat_axis=flat, max_angle=1.0)
    spatial = jax.random.split(KEY, 3)[0]
    places = np.stack(jax.jit(partial(_coordinates, space=SPACE, s=settings))(spatial))
    moved, named = augmented(KEY, image, labels, settings)
    for channel in range(2):
        wanted = ndimage.map_coordinates(np.asarray(image[..., channel]), places, order=1, mode="grid-constant")
        np.testing.assert_allclose(moved[..., channel], wanted, atol=1e-5)
    np.testing.assert_array_equal(
        named, ndimage.map_coordinates(np.asarray(labels), places, order=0, mode="grid-constant")
    )
    columns = np.stack([places[:, 1, 0, 0], places[:, 0, 1, 0], places[:, 0, 0, 1]], 1) - places[:, :1, 0, 0]
    lengths = np.linalg.norm(columns, axis=0)
    scale = lengths[0]
    assert 0.7 <= scale <= 1.4 and abs(scale - 1) > 0.01
    np.testing.assert_allclose(lengths, [scale, scale if flat is None else 1.0, scale], rtol=1e-5)
    turn = columns / lengths
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-5)
    assert np.linalg.det(turn) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(places.reshape(3, -1).mean(1), (np.array(SPACE) - 1) / 2, atol=1e-4)
    assert (np.abs(turn - np.eye(3)) > 1e-3).sum() == (9 if flat is None else 4)


def test_labels_stay_classes_and_go_with_the_image():
    image, labels = example()
    settings = NnunetAugmentation()._replace(rotation=1.0, scaling=1.0, noise=0.0, blur=0.0, brightness=0.0,
                                       contrast=0.0, low_resolution=0.0, gamma=0.0, inverted_gamma=0.0)  # fmt: skip
    keys = jax.random.split(KEY, 4)
    moved, named = varied(settings)(keys, image, labels)
    assert set(np.unique(named)) == {0, 1, 2} and named.dtype == labels.dtype
    moved, named = np.asarray(moved), np.asarray(named)
    sure = np.abs(moved[..., 0] - np.round(moved[..., 0])) < 1e-3
    assert sure.mean() > 0.4 and (np.asarray(named) != np.asarray(labels)).mean() > 0.01
    # 1 may also be a mixture of 0 and 2, by chance
    assert (np.rint(moved[..., 0])[sure] == np.asarray(named)[sure]).mean() > 0.999
    shares = np.eye(3, dtype=np.float32)[labels]
    soft = np.asarray(varied(settings)(keys, image, shares)[1])
    assert float(soft.min()) >= 0 and float(soft.sum(-1).max()) <= 1 + 1e-5
    assert (np.asarray(soft.argmax(-1)) == np.asarray(named)).mean() > 0.95


def test_beyond_the_source_is_background():
    """A field 1.4 times as wide as the source: its rim has grey value 0 and no class, its middle is as it was."""
    settings = NO_AUGMENTATION._replace(scaling=1.0, scales=(1.4, 1.4))
    ones = np.ones(SPACE, np.int32)
    image, named = map(np.asarray, augmented(KEY, ones[..., None].astype(np.float32), ones, settings))
    assert (named[4:8, 4:7, 4:6] == 1).all()
    np.testing.assert_allclose(image[4:8, 4:7, 4:6], 1, rtol=1e-6)
    for rim in (named[0], named[:, 0], named[..., 0], image[0], image[:, -1], image[:, :, -1]):
        assert not np.asarray(rim).any()


def test_blur_is_scipys():
    image = noise()
    sigmas = np.array([0.5, 1.0, 0.8], np.float32)
    wanted = ndimage.gaussian_filter(np.asarray(image), sigmas, mode="mirror", radius=3)
    np.testing.assert_allclose(blurred(image, sigmas), wanted, atol=1e-5)


@pytest.mark.parametrize("resolution", [0.5, 0.62, 1.0])
def test_coarse_voxels_are_the_nearest_and_interpolated_back(resolution):
    """Each axis by itself: NumPy's interpolation between the voxels nearest to the coarse centres."""
    image = np.asarray(noise())
    wanted = image
    for axis, side in enumerate(SPACE):
        kept = round(side * resolution)
        nearest = np.floor((np.arange(kept) + 0.5) * side / kept).astype(int)
        place = (np.arange(side) + 0.5) * kept / side - 0.5
        wanted = np.apply_along_axis(
            lambda v, p, n: np.interp(p, np.arange(len(n)), v[n]), axis, wanted, place, nearest
        )
    found = low_resolved(image, np.float32(resolution), (0, 1, 2))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    flat = low_resolved(image, np.float32(0.5), (0, 2))
    alone = low_resolved(image[:, 3:4], np.float32(0.5), (0, 2))
    np.testing.assert_array_equal(flat[:, 3], alone[:, 0])


def test_contrast_and_gamma_keep_what_they_should():
    image = noise()
    found = jax.jit(adjust_contrast)(image, np.float32(1.2))
    wanted = np.clip(image.mean() + 1.2 * (np.asarray(image) - image.mean()), image.min(), image.max())
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    for sign in (1.0, -1.0):
        curved = np.asarray(gamma_corrected(image, np.float32(1.5), sign))
        np.testing.assert_allclose([curved.mean(), curved.std()], [image.mean(), image.std()], atol=1e-5)
        x = sign * np.asarray(image)
        power = ((x - x.min()) / (x.max() - x.min())) ** 1.5
        np.testing.assert_allclose(np.corrcoef(sign * np.asarray(curved).ravel(), power.ravel())[0, 1], 1, atol=1e-6)
    np.testing.assert_allclose(gamma_corrected(image, np.float32(1.0), 1.0), image, atol=1e-5)
    assert np.isfinite(gamma_corrected(np.zeros(SPACE, np.float32), np.float32(0.7), 1.0)).all()


ALONE = {"noise": 0.1, "blur": 0.2, "brightness": 0.15, "contrast": 0.15, "low_resolution": 0.25, "gamma": 0.3,
         "inverted_gamma": 0.1}  # fmt: skip


def test_each_part_happens_as_often_as_nnunet_says():
    """Of 400 tiny images, within 4 standard deviations; blur and coarse voxels come to half of the channels."""
    image = np.random.default_rng(0).normal(size=(4, 4, 4, 2)).astype(np.float32)
    assert {name: getattr(NnunetAugmentation(), name) for name in ALONE} == ALONE
    for name, probability in ALONE.items():
        moved = grayed(NO_AUGMENTATION._replace(**{name: probability}), 400, image)
        changed = np.abs(np.asarray(moved) - image[None]).max(axis=(1, 2, 3)) > 1e-6
        share = 0.5 if name in ("blur", "low_resolution") else 1.0
        # a resolution that rounds to 4 voxels leaves what it was: 3.5 … 4 of 2 … 4
        share = share * 0.75 if name == "low_resolution" else share
        for channel in range(2):
            assert abs(changed[:, channel].mean() - probability * share) < 4 * np.sqrt(0.25 * 0.75 / 400), name
        together = (changed[:, 0] == changed[:, 1]).all()
        assert together == (name not in ("blur", "low_resolution")), name


def test_brightness_is_one_factor_a_channel_and_noise_has_its_deviation():
    image, _ = example()
    moved = grayed(NO_AUGMENTATION._replace(brightness=1.0), 64, image + 1)
    factors = np.asarray(moved) / (image + 1)[None]
    assert np.ptp(factors, axis=(1, 2, 3)).max() < 1e-5
    factors = factors[:, 0, 0, 0]
    assert factors.min() > 0.75 and factors.max() < 1.25 and 0.3 < (factors < 1).mean() < 0.7
    assert np.abs(factors[:, 0] - factors[:, 1]).max() > 0.1
    moved = grayed(NO_AUGMENTATION._replace(noise=1.0), 64, image)
    deviations = (np.asarray(moved) - image[None]).std(axis=(1, 2, 3))
    assert 0.04 < deviations.mean() < 0.06 and deviations.max() < 0.11


def test_source_patches_have_room_for_a_turn():
    """A cube of 64 turned by 30° is 64 (cos 30° + sin 30°) wide, over 0.85; a flat patch turns freely in its plane."""
    assert source_patch(augmentation_for_plan((64, 64, 64), None), (64, 64, 64)) == (102, 102, 102)
    flat = augmentation_for_plan((64, 48, 8), 2)
    assert flat.max_angle == np.pi and source_patch(flat, (64, 48, 8)) == (75, 75, 8)
    assert source_patch(NO_AUGMENTATION, (64, 48, 8)) == (64, 48, 8)


def test_one_slice_stays_in_its_plane():
    """A disk in one slice of cubic voxels keeps its area under any rotation; turned as thick, 5 % were left."""
    settings = augmentation_for_plan((32, 32, 1), flat_axis((1.0, 1.0, 1.0), (32, 32, 1)), ())
    settings = settings._replace(rotation=1.0, scaling=0.0)
    space = source_patch(settings, (32, 32, 1))
    assert space[2] == 1
    distance = np.hypot(*np.ogrid[tuple(slice(-(side - 1) / 2, side / 2) for side in space[:2])])
    disk = (distance < 14).astype(np.int32)[..., None]
    places = jax.jit(jax.vmap(partial(_coordinates, space=space, s=settings)))(jax.random.split(KEY, 12))
    turned = [ndimage.map_coordinates(disk, np.stack([axis[k] for axis in places]), order=0) for k in range(12)]
    np.testing.assert_allclose([one.sum() / disk.sum() for one in turned], 1, atol=0.03)


def test_a_plan_says_what_is_mirrored():
    assert augmentation_for_plan((8, 8, 8), None).mirror == (0, 1, 2)
    assert augmentation_for_plan((8, 8, 8), None, (1,)).mirror == (1,)
