"""CutMix: what may change and what may not, how large the rectangle is, where the donor comes from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.phantoms.scenes import Scenes
from medjax.shortcuts.cutmix import background_cutmix, cutmix_batches, donors
from medjax.training.batches import from_arrays

KEY = jax.random.key(0)


def pair(images=64, space=(20, 30), channels=2, seed=0):
    """Images of negative numbers, donors of positive ones, with foreground in different places."""
    rng = np.random.default_rng(seed)
    image, donor = -1 - rng.random((images, *space, channels)), 1 + rng.random((images, *space, channels))
    label, donor_label = rng.integers(3, size=(2, images, *space)) * (rng.random((2, images, *space)) < 0.3)
    return tuple(map(jnp.asarray, (np.float32(image), np.int32(label), np.float32(donor), np.int32(donor_label))))


def mixed(*arrays, key=KEY, **settings):
    return np.asarray(jax.jit(background_cutmix)(key, *arrays, **settings))


@pytest.mark.parametrize("space", [(20, 30), (8, 10, 12)])
def test_only_what_is_background_in_both_changes(space):
    image, label, donor, donor_label = pair(space=space)
    found = mixed(image, label, donor, donor_label, probability=1.0)
    changed = (found > 0).any(-1)
    np.testing.assert_array_equal(found, np.where(changed[..., None], donor, image))
    assert changed.any() and not (changed & ((label > 0) | (donor_label > 0))).any()


def test_what_changes_is_a_rectangle_of_the_stated_sizes():
    image, _, donor, _ = pair(images=3000)
    nothing = jnp.zeros(image.shape[:-1], jnp.int32)
    changed = mixed(image, nothing, donor, nothing, probability=1.0)[..., 0] > 0
    rows, columns = changed.any(2), changed.any(1)
    np.testing.assert_array_equal(changed, rows[:, :, None] & columns[:, None, :])
    for along, side in ((rows, 20), (columns, 30)):
        length = along.sum(1)
        first, last = along.argmax(1), side - 1 - along[:, ::-1].argmax(1)
        np.testing.assert_array_equal(last - first + 1, length)  # no gaps
        assert length.min() == int(0.1 * side) and length.max() == int(0.4 * side) - 1  # u < 0.4
        lengths = np.floor(np.random.default_rng(0).uniform(0.1, 0.4, 100_000) * side)
        assert length.mean() == pytest.approx(lengths.mean(), abs=0.15)
        assert first.min() == 0 and last.max() == side - 1
        assert (first + last).mean() == pytest.approx(side - 1, abs=0.5)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_a_share_of_the_images_is_mixed(probability):
    image, _, donor, _ = pair(images=2000, space=(10, 10))
    nothing = jnp.zeros(image.shape[:-1], jnp.int32)
    changed = (mixed(image, nothing, donor, nothing, probability=probability) > 0).any((1, 2, 3))
    assert changed.mean() == pytest.approx(probability, abs=0.04)


def test_the_key_decides():
    arrays = pair(images=4)
    np.testing.assert_array_equal(mixed(*arrays), mixed(*arrays))
    assert (mixed(*arrays) != mixed(*arrays, key=jax.random.key(1))).any()


def test_a_donor_shows_the_same_class_in_the_other_scene():
    pool = np.random.default_rng(0).integers(4, size=50)
    group = np.random.default_rng(1).integers(4, size=2000)
    chosen = pool[donors(KEY, group, pool)]
    np.testing.assert_array_equal(chosen // 2, group // 2)
    np.testing.assert_array_equal(chosen % 2, 1 - group % 2)
    assert set(donors(KEY, group, pool).tolist()) == set(range(50))


def test_there_must_be_a_donor():
    with pytest.raises(DataError, match=r"no example of group \[3\]"):
        donors(KEY, np.array([0, 2]), np.array([0, 1, 2]))


def test_batches_are_mixed_with_donors_of_the_other_scene_as_if_by_hand():
    image, label, *_ = pair(images=16, space=(12, 12))
    pool = Scenes(np.asarray(image), np.asarray(label), np.arange(16, dtype=np.int32) % 4)
    batches = from_arrays(pool, 8, 0)
    mixed_of = cutmix_batches(KEY, batches, pool, probability=1.0, min_fraction=0.5, max_fraction=0.9)
    for number in (0, 3):
        plain, now = batches(number), jax.random.fold_in(KEY, number)
        chosen = donors(jax.random.fold_in(now, 0), plain.group, pool.group)
        np.testing.assert_array_equal(pool.group[chosen], plain.group ^ 1)
        wanted = mixed(
            plain.image, plain.label, pool.image[chosen], pool.label[chosen], key=jax.random.fold_in(now, 1),
            probability=1.0, min_fraction=0.5, max_fraction=0.9,
        )  # fmt: skip
        found = mixed_of(number)
        np.testing.assert_array_equal(found.image, wanted)
        np.testing.assert_array_equal(found.label, plain.label)
        assert (np.asarray(found.image) != plain.image).any()
