"""Scenes: counts as in the published manifests; outlines and textures measured; only the texture tells the scene."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.phantoms import scenes

KEY = jax.random.key(0)
KINDS = jnp.asarray(np.repeat(np.arange(3, dtype=np.int32), 4))
draw = jax.jit(scenes.draw, static_argnums=2)
lobes = jax.jit(scenes.lobes, static_argnums=(2, 3, 4))


@functools.cache
def drawn(side=24, seed=0):
    made = draw(jax.random.key(seed), np.arange(80, dtype=np.int32) % 4, side)
    return jax.tree.map(np.asarray, made)


@functools.cache
def outlines():
    return np.asarray(lobes(KEY, KINDS, 96, 0.42, 0.42))


@pytest.mark.parametrize(
    ("count", "correlation", "wanted"),
    [
        (1668, 0.95, [792, 42, 42, 792]),
        (2460, 0.5, [615] * 4),
        (800, 0.99, [396, 4, 4, 396]),
        (40, 1.0, [19, 1, 1, 19]),
    ],
)
def test_counts_are_exact(count, correlation, wanted):
    np.testing.assert_array_equal(np.bincount(scenes.groups(count, correlation)), wanted)


def test_counts_of_more_classes():
    np.testing.assert_array_equal(np.bincount(scenes.groups(30, 0.8, 3)), [8, 2, 2, 8, 8, 2])


@pytest.mark.parametrize(("count", "correlation"), [(3, 0.5), (100, 1.5), (100, -0.1)])
def test_impossible_counts_are_refused(count, correlation):
    with pytest.raises(DataError, match=r"expected ≥ 2 a class, 0 … 1"):
        scenes.groups(count, correlation)


def test_a_shape_has_its_lobes():
    """The radius at which each direction leaves the shape has one harmonic, as strong as its amplitude."""
    for silhouette, kind in zip(outlines(), np.asarray(KINDS), strict=True):
        places = np.argwhere(silhouette > 0.5)
        middle = np.average(np.argwhere(silhouette >= 0), axis=0, weights=silhouette.ravel())
        offset = places - middle
        sector = np.floor((np.arctan2(*offset.T) + np.pi) / (2 * np.pi) * 60).astype(int) % 60
        radius = np.array([np.hypot(*offset[sector == one].T).max() for one in range(60)])
        spectrum = np.abs(np.fft.rfft(radius)) / radius.size
        assert spectrum[1:].argmax() + 1 == kind + 3
        assert 2 * spectrum[kind + 3] / spectrum[0] == pytest.approx(0.42, abs=0.06)


def test_a_shape_has_its_area():
    """π R² (1 + a² / 2) for a radius R (1 + a cos k θ), R from a quarter to a third of the side."""
    area = outlines().sum((1, 2)) / (np.pi * 96**2 * (1 + 0.42**2 / 2))
    assert (area > 0.25**2 * 0.98).all() and (area < 0.33**2 * 1.02).all()
    assert area.max() > area.min() * 1.2
    assert outlines().min() == 0 and outlines().max() == 1


def test_less_amplitude_makes_shapes_more_alike():
    def difference(amplitude):
        one, other = (np.asarray(lobes(KEY, np.full(6, k, np.int32), 48, amplitude, amplitude)) for k in (0, 1))
        return float(np.abs(one - other).mean())

    assert difference(0.0) == 0 and 0 < difference(0.1) < difference(0.4)


def test_textures_have_their_wavelengths():
    side, scene = 72, np.arange(40) % 2
    noise = np.asarray(jax.jit(scenes.textures, static_argnums=2)(KEY, scene, side))
    np.testing.assert_allclose(noise.mean((1, 2)), 0, atol=1e-5)
    assert noise.var() == pytest.approx(1, abs=0.05)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    for one, wavelength in ((0, scenes.FINE), (1, scenes.COARSE)):
        power = (np.abs(np.fft.fft2(noise[scene == one])) ** 2).mean(0)
        assert (power * frequency).sum() / power.sum() == pytest.approx(1 / wavelength, rel=0.1)


def test_labels_name_the_class_of_the_group():
    made = drawn()
    assert made.image.shape == (80, 24, 24, 1) and made.label.shape == (80, 24, 24)
    for label, group in zip(made.label, made.group, strict=True):
        assert set(np.unique(label)) == {0, 1 + group // 2}


def test_the_shape_is_bright_and_its_surroundings_are_the_scene():
    made, inside = drawn(), drawn().label > 0
    image = made.image[..., 0]
    assert image[inside].mean() == pytest.approx(1.5, abs=0.1)
    assert image[~inside].mean() == pytest.approx(0, abs=0.1)
    rough = np.abs(np.diff(image, axis=1))  # neighbours differ more in the fine texture
    outside = ~inside[:, 1:] & ~inside[:, :-1]
    roughness = np.array([r[o].mean() for r, o in zip(rough, outside, strict=True)])
    fine = made.group % 2 == 0
    middle = (roughness[fine].mean() + roughness[~fine].mean()) / 2
    assert ((roughness > middle) == fine).mean() > 0.9
    for scene in (0, 1):  # and say nothing of the class
        of_class = [roughness[made.group == 2 * kind + scene].mean() for kind in (0, 1)]
        assert abs(of_class[0] - of_class[1]) < 0.1 * roughness[made.group % 2 == scene].mean()


def test_the_key_decides():
    np.testing.assert_array_equal(drawn().image, drawn.__wrapped__().image)
    assert (drawn().image != drawn(seed=1).image).any()


def test_digits_of_the_test_are_not_those_of_training():
    pytest.importorskip("sklearn")
    shown, held = (jax.jit(scenes.digits((3, 8), which), static_argnums=2) for which in (False, True))
    kinds = np.repeat(np.arange(2, dtype=np.int32), 40)
    pictures = np.asarray(shown(KEY, kinds, 24)), np.asarray(held(KEY, kinds, 24))
    assert all(picture.shape == (80, 24, 24) and picture.min() == 0 and picture.max() == 1 for picture in pictures)
    for picture in pictures:
        assert picture[40:].sum((1, 2)).mean() > picture[:40].sum((1, 2)).mean()  # an 8 has more ink than a 3
    assert not {cropped(one).tobytes() for one in pictures[0]} & {cropped(one).tobytes() for one in pictures[1]}


def cropped(picture):
    rows, columns = np.flatnonzero(picture.any(1)), np.flatnonzero(picture.any(0))
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def test_splits_share_validation_and_test_and_tie_training_images_only():
    sizes = {"train": 40, "validation": 40, "test": 40, "side": 16}  # equal: one compilation
    one, two = (scenes.draw_splits(KEY, 0.9, run, **sizes) for run in (0, 1))
    np.testing.assert_array_equal(np.bincount(one.train.group), [18, 2, 2, 18])
    for part in (one.validation, one.test):
        np.testing.assert_array_equal(np.bincount(part.group), [10, 10, 10, 10])
    np.testing.assert_array_equal(one.test.image, two.test.image)
    np.testing.assert_array_equal(one.validation.image, two.validation.image)
    assert (one.train.image != two.train.image).any() and (one.test.image != one.validation.image).any()
    again = scenes.draw(jax.random.fold_in(KEY, 101), jnp.asarray(two.train.group), 16)
    np.testing.assert_array_equal(two.train.image, again.image)


def test_other_shapes_are_refused():
    with pytest.raises(DataError, match="shapes 'letters'; expected lobes or digits"):
        scenes.draw_splits(KEY, 0.9, train=8, validation=8, test=8, side=8, kind="letters")
