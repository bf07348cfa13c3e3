"""The registration network: its field, its file, and an unsupervised training that finds a shift."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from medjax import iterate
from medjax.errors import ConfigError, DataError
from medjax.models.model import Model
from medjax.models.registration_unet import registration_unet
from medjax.models.weights import save_weights
from medjax.registration import network
from medjax.registration.greedy import register
from medjax.registration.network_file import NetworkSettings, TrainedNetwork, built_in, example_inputs, load, save
from medjax.registration.network_training import UNCHANGED, augment, pair_indices, trainer, validation_loss
from medjax.registration.similarity import mean_squares

SMALL = NetworkSettings((8, 16), axes=2)


def blobs(seed: int, side: int = 32) -> np.ndarray:
    """A smooth image in the middle of air."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((side, side)), 2)
    r2 = sum((axis - side / 2) ** 2 for axis in np.indices(noise.shape))
    return ((1 + 4 * noise) * np.exp(-((r2 / (0.35 * side) ** 2) ** 2))).astype(np.float32)


def shifting_model(shift: tuple[float, ...]) -> Model:
    """A network that always says the same shift, in voxels of the half grid."""

    def apply(params, fixed, moving, key=None):
        half = (len(fixed), *(side // 2 for side in fixed.shape[1:]), len(shift))
        return jnp.broadcast_to(jnp.asarray(shift), half)

    return Model(lambda key, *inputs: {}, apply)


def test_fields_of_half_the_resolution_are_interpolated_between_voxel_centres():
    draw = np.random.default_rng(0)
    velocity = 1e-3 * ndimage.gaussian_filter(draw.standard_normal((2, 8, 6)), (0, 1, 1)).astype(np.float32)
    places = np.meshgrid((np.arange(16) - 0.5) / 2, (np.arange(12) - 0.5) / 2, indexing="ij")
    expected = [2 * ndimage.map_coordinates(one, places, order=1, mode="nearest") for one in velocity]
    # so small a velocity is its own exponential
    np.testing.assert_allclose(network.displacement(jnp.asarray(velocity)), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(20, 17), (12, 9, 10)])
def test_images_of_any_sides_and_rank_are_registered(shape):
    shift = (1.5, -0.5, 0.25)[: len(shape)]
    fixed, moving = jnp.asarray(np.random.default_rng(0).random((2, *shape)), jnp.float32)
    found = network.predict(shifting_model(shift), {}, fixed, moving)
    assert found.displacement.shape == found.inverse.shape == (len(shape), *shape)
    for axis, value in enumerate(shift):
        np.testing.assert_allclose(found.displacement[axis], 2 * value, rtol=1e-5)
        np.testing.assert_allclose(found.inverse[axis], -2 * value, rtol=1e-5)
    with pytest.raises(DataError, match="expected one grid"):
        network.predict(shifting_model(shift), {}, fixed, moving[1:])


def test_a_batch_of_pairs_is_registered_as_each_alone_and_starts_from_the_identity():
    model = built_in(SMALL)
    params = model.init(jax.random.key(0), *example_inputs(SMALL))
    fixed, moving = (jnp.stack([blobs(seed, 16) for seed in seeds]) for seeds in ((0, 1), (2, 3)))
    predict = partial(network.predict, model, params, multiple=SMALL.multiple)
    together = jax.jit(jax.vmap(predict))(fixed, moving)
    np.testing.assert_allclose(together.displacement[1], predict(fixed[1], moving[1]).displacement, atol=1e-4)
    assert np.abs(together.displacement).max() < 0.5
    with pytest.raises(DataError, match=r"images of \(18, 16\); expected multiples of 4"):
        model.apply(params, jnp.ones((1, 18, 16)), jnp.ones((1, 18, 16)))


def test_intensities_have_no_unit():
    image = blobs(0)
    expected = np.asarray(network.normalize(jnp.asarray(image)))
    np.testing.assert_allclose(network.normalize(jnp.asarray(-300 + 1000 * image)), expected, atol=1e-4)
    assert expected.min() == 0 and expected[image > image.mean()].mean() == pytest.approx(1, rel=1e-4)
    assert not np.any(network.normalize(jnp.full((4, 4), 7.0)))


def test_a_refinement_starts_from_the_prediction():
    fixed = blobs(0)
    moving = ndimage.shift(fixed, (3, 0), order=1, mode="nearest")
    images = jnp.asarray(fixed), jnp.asarray(moving)
    found = network.refine(shifting_model((1.5, 0.0)), {}, *images, iterations=(0, 0, 1), similarity=mean_squares)
    inside = fixed > 0.3
    assert np.abs(np.asarray(found.displacement)[0][inside] - 3).mean() < 0.3
    alone = register(*images, iterations=(0, 0, 1), similarity=mean_squares)
    assert np.abs(np.asarray(alone.displacement)[0][inside]).mean() < 1


def test_training_finds_a_shift():
    """Of unseen images: the moving one is the fixed one, 2 voxels further along the first axis."""
    model = built_in(SMALL)

    def pairs(seed: int, number: int = 4) -> tuple[np.ndarray, np.ndarray]:
        fixed = np.stack([blobs(1000 * seed + k) for k in range(number)])
        return fixed, np.roll(fixed, 2, axis=1)

    algorithm = trainer(model, 150, 3e-3, 0.01, similarity=mean_squares, augmentation=UNCHANGED)
    state = algorithm.init(model.init(jax.random.key(0), *example_inputs(SMALL)), jax.random.key(1))
    held_out = pairs(999)
    first = validation_loss(model, state.params, held_out, 0.01, mean_squares)
    state = iterate.last(iterate.loop(algorithm, state, 150, inputs=pairs, every=150), state)
    assert validation_loss(model, state.ema_params, held_out, 0.01, mean_squares) < 0.4 * first
    found = network.predict(
        model, state.ema_params, *(jnp.asarray(one[0]) for one in held_out), multiple=SMALL.multiple
    )
    inside = held_out[0][0] > 0.5
    assert np.median(np.asarray(found.displacement)[0][inside]) == pytest.approx(2, abs=0.4)
    assert np.median(np.abs(np.asarray(found.displacement)[1][inside])) < 0.4


def test_training_pairs():
    every = np.concatenate([pair_indices(number, 4, 8, 0) for number in range(40)], axis=1)
    assert (every[0] != every[1]).all() and len(np.unique(every, axis=1).T) == 12
    few = np.concatenate([pair_indices(number, 4, 8, 0, pairs=5) for number in range(40)], axis=1)
    assert len(np.unique(few, axis=1).T) == 5
    np.testing.assert_array_equal(pair_indices(3, 4, 8, 0), pair_indices(3, 4, 8, 0))
    with pytest.raises(DataError, match="pairs: 13 of 4 heads; expected two heads or more and at most 12 pairs"):
        pair_indices(0, 4, 8, 0, pairs=13)


def test_augmentation_moves_both_images_of_a_pair_alike():
    image = jnp.asarray(blobs(0))
    same = augment(jax.random.key(0), image, image, UNCHANGED)
    for one in same:
        np.testing.assert_allclose(one, network.normalize(image), atol=1e-5)
    fixed, moving = augment(jax.random.key(0), image, image, UNCHANGED._replace(affine=0.1, shift=2.0))
    np.testing.assert_array_equal(fixed, moving)
    assert np.abs(fixed - same[0]).max() > 0.1


def test_a_file_holds_a_network(tmp_path):
    model = built_in(SMALL)
    params = model.init(jax.random.key(0), *example_inputs(SMALL))
    save(tmp_path / "n.npz", TrainedNetwork(model, params, SMALL))
    back = load(tmp_path / "n.npz")
    assert back.settings == SMALL and back.model == model
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), back.params, params)
    with pytest.raises(ConfigError, match="not the registration_unet of its settings"):
        save(tmp_path / "other.npz", TrainedNetwork(registration_unet((4,)), params, SMALL))
    save_weights(tmp_path / "p.npz", {"a": jnp.ones(3)}, {"network": "score_unet"})
    (tmp_path / "text.npz").write_text("no")
    for name, message in {"p.npz": "not a registration network", "text.npz": "cannot be read as npz"}.items():
        with pytest.raises(DataError, match=message):
            load(tmp_path / name)
