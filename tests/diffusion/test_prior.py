"""Priors: files, shapes, training; and the shipped one, on heads it has not seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import iterate
from medjax.diffusion.denoiser import denoise
from medjax.diffusion.prior import Prior, PriorSettings, denoiser, slice_denoiser
from medjax.diffusion.prior_file import example_inputs, load_prior, save_prior
from medjax.diffusion.prior_training import initial_params, trainer, training_slices
from medjax.diffusion.sde import vp
from medjax.errors import ConfigError, DataError
from medjax.models.model import Model
from medjax.models.score_unet import score_unet
from medjax.models.weights import load_weights, save_weights
from medjax.tools.pet_prior import default_network

SMALL = PriorSettings(widths=(8, 16), attention=(1,), patch=1, size=16)
HALF = jnp.full(2, 0.5)


def training(key, settings, sigma_data, steps, rate, start=None):
    """The Algorithm, and its first state."""
    model = default_network(settings)
    algorithm = trainer(model, settings, sigma_data, steps, rate)
    return algorithm, algorithm.init(initial_params(model, key, example_inputs(settings), start), jax.random.key(1))


def prior_of(params, sigma_data, settings):
    return Prior(params, sigma_data, vp(), default_network(settings), settings)


@pytest.fixture(scope="module")
def trained():
    """A few steps on one image, and the losses."""
    algorithm, state = training(jax.random.key(0), SMALL, 0.7, 60, 3e-3)
    image = jnp.zeros((16, 16)).at[4:12, 5:11].set(1.0)
    batch = jnp.tile(image[None, ..., None], (8, 1, 1, 1)), jnp.arange(8) % 3
    ((state, infos),) = iterate.loop(algorithm, state, 60, inputs=lambda n: batch, every=60, donate=True)
    return prior_of(state.ema_params, 0.7, SMALL), infos.loss


def test_training_lowers_the_loss(trained):
    _, losses = trained
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def test_what_is_saved_comes_back(trained, tmp_path):
    prior, _ = trained
    save_prior(tmp_path / "p.npz", prior)
    back = load_prior(tmp_path / "p.npz")
    assert back.settings == prior.settings and back.sigma_data == prior.sigma_data and back.model == prior.model
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), back.params, prior.params)
    x = jax.random.normal(jax.random.key(0), (2, 16, 24))
    np.testing.assert_allclose(slice_denoiser(back)(x, HALF), slice_denoiser(prior)(x, HALF), atol=0.01)


def test_other_sides_and_files_are_refused(trained, tmp_path):
    prior, _ = trained
    with pytest.raises(DataError, match="multiples of 2"):
        slice_denoiser(prior)(jnp.zeros((1, 15, 16)), HALF[:1])
    (tmp_path / "no.npz").write_bytes(b"no prior")
    with pytest.raises(DataError, match="not a score prior"):
        load_prior(tmp_path / "no.npz")
    with pytest.raises(DataError, match="no such file"):
        load_prior(tmp_path / "absent.npz")
    save_prior(tmp_path / "p.npz", prior_of(prior.params, 0.7, SMALL._replace(widths=(8, 32))))
    with pytest.raises(DataError, match=r"shape .*; expected"):
        load_prior(tmp_path / "p.npz")
    with pytest.raises(ConfigError, match="mode diagonal"):
        denoiser(prior, "diagonal")


def bias_init(key, x, level, orientation):
    return {"bias": jnp.zeros((1, 1, 1, 1))}


def bias_apply(params, x, level, orientation, key=None):
    return x + params["bias"]


def test_training_slices_are_those_that_emit():
    volume = np.zeros((8, 8, 8, 2), np.float32)
    volume[2:5, 1:7, 3:5, 0] = 1 + np.arange(6)[:, None]
    volume[..., 1] = 7  # an MR image does not count
    found = training_slices([volume, volume])
    np.testing.assert_array_equal(found["axes"], 2 * ([0] * 3 + [1] * 6 + [2] * 2))
    np.testing.assert_array_equal(found["slices"][3], volume[:, 1])
    np.testing.assert_array_equal(training_slices([volume], (2,))["slices"], volume[:, :, 3:5].transpose(2, 0, 1, 3))
    with pytest.raises(DataError, match="no slice has emission"):
        training_slices([0 * volume])


def test_rate_width_of_data_and_decay_are_traced():
    """Another learning rate is no other program, and a sweep over it is one: as many trainings by hand."""
    batch, traces = (jnp.ones((2, 16, 16, 1)), jnp.arange(2)), []

    def algorithm(r):
        return trainer(Model(bias_init, bias_apply), SMALL, 0.7 * r, 3, 1e-2 * r, 0.5 * r)

    @jax.jit
    def step(algorithm, state):
        traces.append(1)
        return algorithm.step(state, batch)

    def trained(r):
        state = algorithm(r).init({"bias": jnp.zeros((1, 1, 1, 1))}, jax.random.key(1))
        for _ in range(3):
            state, info = step(algorithm(r), state)
        return state.params["bias"], state.ema_params["bias"], info.loss

    hand = [trained(r) for r in (1.0, 0.1)]
    assert len(traces) == 1
    many = jax.vmap(trained)(jnp.asarray([1.0, 0.1]))
    for number, one in enumerate(hand):
        for own, swept in zip(one, many, strict=True):
            np.testing.assert_allclose(swept[number], own, rtol=1e-4)
    assert abs(hand[0][0]) > 5 * abs(hand[1][0]) > 0 and hand[0][2] != hand[1][2]


def test_a_foreign_network_is_saved_under_its_name_and_given_again(tmp_path, trained):
    model, file = Model(bias_init, bias_apply), tmp_path / "p.npz"
    prior = Prior({"bias": jnp.full((1, 1, 1, 1), 0.5)}, 0.7, vp(), model, SMALL)
    with pytest.raises(ConfigError, match="not the score_unet of its settings; expected another name"):
        save_prior(file, prior)
    assert not file.exists()
    save_prior(file, prior, network="bias")
    with pytest.raises(ConfigError, match=r"p\.npz: its network is 'bias', not one of medjax; pass it: load_prior"):
        load_prior(file)
    with pytest.raises(DataError, match="weights bias are none of this network"):
        load_prior(file, default_network(SMALL))
    back, x = load_prior(file, model), jnp.ones((2, 16, 16))
    assert back.model == model and back.settings == SMALL
    np.testing.assert_array_equal(slice_denoiser(back)(x, HALF), slice_denoiser(prior)(x, HALF))
    save_prior(file, trained[0])
    params, header = load_weights(file)
    assert header.pop("network") == "score_unet"
    old = {name: value for name, value in header.items() if name not in ("patch", "tracers", "kind")}
    save_weights(tmp_path / "old.npz", params, old)
    read = load_prior(tmp_path / "old.npz")
    assert read.model == score_unet((8, 16), 1, (1,)) and read.settings == SMALL


def test_training_can_start_from_a_prior(trained):
    prior, _ = trained
    _, state = training(jax.random.key(5), SMALL, 0.7, 10, 1e-3, start=prior.params)
    jax.tree.map(np.testing.assert_array_equal, state.params, prior.params)


def test_a_prior_of_another_width_is_refused_as_a_start(trained):
    prior, _ = trained
    wider = default_network(SMALL._replace(widths=(16, 16)))
    with pytest.raises(DataError, match=r"prior to start from: an array of shape .*fewer input channels"):
        initial_params(wider, jax.random.key(0), example_inputs(SMALL), prior.params, SMALL.patch)


def test_an_mr_guided_prior_of_blocks_starts_as_the_prior_that_it_starts_from():
    """Blocks of voxels interleave the channels of PET and MR."""
    settings = SMALL._replace(patch=2)
    guided, model, draw = settings._replace(mr_guided=True), default_network(settings), np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *example_inputs(settings))
    params = jax.tree.map(lambda leaf: jnp.asarray(0.3 * draw.standard_normal(leaf.shape), jnp.float32), shapes)
    more = initial_params(model, jax.random.key(1), example_inputs(guided), params, settings.patch)
    x, mr = jnp.asarray(draw.standard_normal((2, 2, 16, 16)), jnp.float32)
    expected = slice_denoiser(prior_of(params, 0.7, settings))(x, HALF)
    np.testing.assert_allclose(slice_denoiser(prior_of(more, 0.7, guided))(x, HALF, mr), expected, atol=1e-5)


def test_an_mr_guided_prior_starts_from_another_and_learns_what_the_mr_tells(trained):
    """Blocks that lie anywhere, and an MR that shows where: at much noise only the MR can tell."""
    plain, _ = trained
    settings = SMALL._replace(mr_guided=True)
    algorithm, state = training(jax.random.key(5), settings, 0.5, 250, 5e-3, start=plain.params)
    x = jax.random.normal(jax.random.key(0), (2, 16, 16))
    first = prior_of(state.params, 0.7, settings)
    np.testing.assert_allclose(slice_denoiser(first)(x, HALF, x), slice_denoiser(plain)(x, HALF), atol=1e-4)

    def blocks(seed: int, number: int) -> np.ndarray:
        corners = np.random.default_rng(seed).integers(0, 10, (number, 2))
        return np.stack([np.pad(np.ones((6, 6)), ((a, 10 - a), (b, 10 - b))) for a, b in corners])

    def batches(number: int):
        images = jnp.asarray(blocks(number, 8), jnp.float32)
        return jnp.stack([images, 2 * images], axis=-1), jnp.full(8, 2)

    state = iterate.last(iterate.loop(algorithm, state, 250, inputs=batches, every=250), state)
    prior = prior_of(state.ema_params, 0.5, settings)
    truth, t = jnp.asarray(blocks(10_000, 16), jnp.float32), jnp.full(16, 0.9)
    gamma, nu = prior.sde.marginal(0.9)
    noisy = gamma * truth + nu * jax.random.normal(jax.random.key(2), truth.shape)

    def error(*mr) -> float:
        return float(jnp.linalg.norm(slice_denoiser(prior)(noisy, t, *mr) - truth) / jnp.linalg.norm(truth))

    assert error(2 * truth) < 0.7 * error()
    volume, mr = jnp.moveaxis(noisy, 0, 2), jnp.moveaxis(2 * truth, 0, 2)
    x0 = denoise(denoiser(prior, mr=mr), volume, 0.9)
    np.testing.assert_allclose(jnp.moveaxis(x0, 2, 0), slice_denoiser(prior)(noisy, t, 2 * truth), atol=1e-4)
    with pytest.raises(ConfigError, match="without MR"):
        denoiser(plain, mr=volume)


def test_the_shipped_prior_denoises_a_head_it_has_not_seen():
    """Tweedie's image is nearer to the truth than the noisy one scaled, by far, at every noise level."""
    pytest.importorskip("nilearn")
    from medjax.diffusion.score_matching import normalize_intensity
    from medjax.phantoms.mni import tissue_fractions
    from medjax.phantoms.uptake import random_activity

    prior = load_prior()
    head = random_activity(20_001, *tissue_fractions(), prior.settings.voxel_mm, (96, 96, 96))
    volume, run = normalize_intensity(jnp.asarray(head)), jax.jit(lambda denoiser, x, t: denoiser(x, t))
    for axis in range(3):
        clean = jnp.moveaxis(volume, axis, 0)[46:50]
        for t, limit in ((0.1, 0.12), (0.3, 0.3), (0.6, 0.55)):
            gamma, nu = prior.sde.marginal(t)
            x = gamma * clean + nu * jax.random.normal(jax.random.key(3), clean.shape)
            denoised = run(slice_denoiser(prior, axis), x, jnp.full(4, t))
            error = float(jnp.linalg.norm(denoised - clean) / jnp.linalg.norm(clean))
            noisy = float(jnp.linalg.norm(x / gamma - clean) / jnp.linalg.norm(clean))
            assert error < limit and error < 0.6 * noisy, (axis, t, error, noisy)
