"""One warp for image and label; a part that is off changes nothing; SciPy's interpolation at the same places."""

from functools import partial

import jax
import numpy as np
import pytest
from scipy import ndimage

from medjax.training import augment as augmentation
from medjax.training.augment import Augmentation, _coordinates

NO_AUGMENTATION = Augmentation(*[0.0] * 7)
augment = jax.jit(augmentation.augment, static_argnames="settings")
GREYS = NO_AUGMENTATION._replace(gain=0.3, gamma=0.3, noise=0.1)


def example(space):
    label = np.zeros(space, np.int32)
    label[tuple(slice(side // 4, side // 2) for side in space)] = 1
    label[tuple(slice(side // 2, 3 * side // 4) for side in space)] = 2
    return label.astype(np.float32)[..., None] / 2, label


@pytest.mark.parametrize("space", [(24, 30), (12, 14, 10)])
def test_image_and_label_go_together(space):
    image, label = example(space)
    settings = Augmentation()._replace(gain=0.0, gamma=0.0, noise=0.0)
    moved, named = map(np.asarray, augment(jax.random.key(3), image, label, settings=settings))
    inside = np.abs(moved[..., 0] - np.round(2 * moved[..., 0]) / 2) < 1e-3
    assert inside.mean() > 0.5 and (np.asarray(named) != np.asarray(label)).mean() > 0.01
    np.testing.assert_allclose(moved[..., 0][inside], named[inside] / 2, atol=1e-3)


def test_places_are_interpolated_as_scipy_does():
    image, label = example((24, 30))
    settings = Augmentation()._replace(gain=0.0, gamma=0.0, noise=0.0)
    key = jax.random.key(5)
    spatial = jax.random.split(key)[0]
    places = np.asarray(jax.jit(_coordinates, static_argnums=(1, 2))(spatial, (24, 30), settings))
    moved, _ = augment(key, image, label, settings=settings)
    np.testing.assert_allclose(
        moved[..., 0], ndimage.map_coordinates(np.asarray(image[..., 0]), places, order=1, mode="nearest"), atol=1e-5
    )


def test_soft_labels_are_interpolated_and_sum_to_one():
    image, label = example((24, 30))
    shares = np.asarray(
        augment(jax.random.key(3), image, np.eye(3, dtype=np.float32)[label], settings=Augmentation())[1]
    )
    _, named = augment(jax.random.key(3), image, label, settings=Augmentation())
    named = np.asarray(named)
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-5)
    assert (shares.argmax(-1) == named).mean() > 0.97


def test_off_is_off_and_greys_leave_the_label():
    image, label = example((24, 30))
    same, named = augment(jax.random.key(0), image, label, settings=NO_AUGMENTATION)
    np.testing.assert_allclose(same, image, atol=2e-5)
    np.testing.assert_array_equal(named, label)
    gray, named = augment(jax.random.key(0), image, label, settings=GREYS)
    np.testing.assert_array_equal(named, label)
    assert np.abs(np.asarray(gray) - image).mean() > 0.02


def test_only_the_axes_named_are_mirrored():
    image, label = example((24, 30))
    settings = NO_AUGMENTATION._replace(mirror=(1,))
    _, named = jax.jit(jax.vmap(partial(augment, settings=settings), (0, None, None)))(
        jax.random.split(jax.random.key(0), 16), image, label
    )
    kinds = {bool((one == label).all()): bool((one == label[:, ::-1]).all()) for one in np.asarray(named)}
    assert kinds == {True: False, False: True}
