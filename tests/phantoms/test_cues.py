"""Planted cues: exact counts, where and how strong they are; chests have their sign where the cue is not."""

from functools import partial

import jax
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.phantoms import chests, cues

SPACES = ((12, 10), (8, 7, 6))


def images(space, number=6):
    return np.random.default_rng(0).uniform(size=(number, *space, 1)).astype(np.float32)


@pytest.mark.parametrize("fraction", [0.0, 0.005, 0.05, 0.3, 0.5, 1.0])
def test_a_fraction_of_each_class_is_anti_correlated(fraction):
    labels = np.repeat([0, 1], [200, 300])
    attribute = cues.draw_attribute(np.random.default_rng(0), labels, fraction)
    anti = [int((attribute[labels == one] != one).sum()) for one in (0, 1)]
    assert anti == [round(fraction * 200), round(fraction * 300)] and set(attribute) <= {0, 1}
    again = cues.draw_attribute(np.random.default_rng(1), labels, fraction)
    assert fraction in (0, 1) or (attribute != again).any()


@pytest.mark.parametrize("space", SPACES)
def test_a_mark_is_where_it_should_be_and_nowhere_else(space):
    before = images(space)
    center = [float(n // 3) for n in space]
    mark = partial(cues.add_mark, center=center, radius=1.5)
    attribute = np.array([0, 1, 0, 1, 1, 0])
    change = cues.plant(before, attribute, (partial(mark, height=-0.5), partial(mark, height=0.5))) - before
    distance = np.linalg.norm(np.stack(np.indices(space), -1) - center, axis=-1)
    for one, value in zip(change[..., 0], attribute, strict=True):
        np.testing.assert_allclose(one[distance <= 1], 0.5 * (1 if value else -1), atol=1e-6)
        assert np.abs(one[distance >= 2]).max() < 1e-6
    np.testing.assert_array_equal(cues.plant(before, attribute, (None, None)), before)


@pytest.mark.parametrize("space", SPACES)
def test_a_wave_is_everywhere_has_its_wavelength_and_no_place(space):
    """Its power is amplitude² / 2 in every quarter of the image; the phase is another in each image."""
    before, rng = 0 * images(space, 400), np.random.default_rng(0)
    after = cues.add_wave(before, rng, [1.0] * len(space), wavelength=4.0, amplitude=0.2)
    power = (after[..., 0] ** 2).mean(0)
    np.testing.assert_allclose(power, 0.02, rtol=0.25)
    np.testing.assert_allclose(after.mean(0), 0, atol=0.03)
    along = cues.add_wave(before[:1], np.random.default_rng(0), [1.0] + [0.0] * (len(space) - 1), 4.0, 0.2)[0]
    np.testing.assert_allclose(along[4:], along[:-4], atol=1e-6)  # repeats after 4 voxels
    np.testing.assert_allclose(along[2:], -along[:-2], atol=1e-6)
    np.testing.assert_allclose(along, along[:, :1] + 0 * along, atol=1e-6)


def test_contrast_and_blur_change_what_they_say():
    before = images((12, 10))
    after = cues.change_contrast(before, 1.3)
    np.testing.assert_allclose(after.mean((1, 2)), before.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(after.std((1, 2)), 1.3 * before.std((1, 2)), rtol=1e-5)
    blurred = cues.blur(before, 1.0)
    assert (blurred.std((1, 2)) < 0.6 * before.std((1, 2))).all() and blurred.shape == before.shape
    impulse = np.zeros((1, 9, 9, 2), np.float32)
    impulse[0, 4, 4, 0] = 1
    assert (cues.blur(impulse, 1.0)[..., 1] == 0).all()  # channels are not mixed


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cues.draw_attribute(np.random.default_rng(0), np.array([0, 2]), 0.1), r"labels \[0, 2\]; expected 0"),
        (lambda: cues.draw_attribute(np.random.default_rng(0), np.array([0, 1]), 1.5), "fraction 1.5 of anti-corr"),
        (lambda: cues.plant(images((4, 4)), np.array([0, 1, 0]), (None, None)), "3 attributes .* for 6 images"),
        (lambda: cues.plant(images((4, 4), 2), np.array([0, 3]), (None, None)), r"2 attributes \[0, 3\] for 2 images"),
        (
            lambda: cues.add_mark(images((4, 4)), (1.0, 5.0), 1.0, 1.0),
            r"center \(1.0, 5.0\) of the mark; expected a voxel",
        ),
        (lambda: cues.add_mark(images((4, 4)), (1.0, 1.0, 1.0), 1.0, 1.0), r"center \(1.0, 1.0, 1.0\) of the mark"),
        (
            lambda: cues.add_wave(images((4, 4)), np.random.default_rng(0), (0.0, 0.0), 4.0, 1.0),
            r"direction \(0.0, 0.0\)",
        ),
        (lambda: chests.draw(jax.random.key(0), np.array([0, 2]), (8, 8)), r"labels \[0, 2\]; expected 0 and 1"),
        (lambda: chests.draw(jax.random.key(0), np.array([0, 1]), (8,)), r"space \(8,\); expected two or three"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(DataError, match=message):
        call()


@pytest.mark.parametrize("space", [(24, 20), (16, 14, 12)])
def test_chests_differ_by_class_in_the_lungs_alone(space):
    """The same key draws the same chest with and without an opacity: the difference is the opacity."""
    number = 60
    without, having = (
        chests.draw(jax.random.key(0), np.full(number, one), space, contrast=0.3, noise=0.02).images[..., 0]
        for one in (0, 1)
    )
    difference = having - without
    assert np.isfinite(having).all() and having.min() > -0.2 and having.max() < 1.3
    assert (difference > -1e-6).all()
    np.testing.assert_allclose(difference.reshape(number, -1).max(1), 0.3, rtol=0.25)  # at its centre, between voxels
    right = np.array([one.sum() > 2 * other.sum() for one, other in zip(*np.split(difference, 2, axis=2), strict=True)])
    assert 0.25 < right.mean() < 0.75  # in either lung
    corner = tuple(slice(0, max(n // 8, 1)) for n in space)
    assert difference[(slice(None), *corner)].max() < 0.02  # and none where cues are put
    middle, mean = [n // 2 for n in space], without.mean(0)
    assert mean[tuple(middle)] > mean[(middle[0], space[1] // 4, *middle[2:])] + 0.2  # lungs beside the mediastinum
