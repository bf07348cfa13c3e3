"""Priors: files, shapes, training; and the shipped one, on heads it has not seen."""

from importlib.resources import files

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.diffusion.prior import SHIPPED, Prior, Settings, estimator, load_prior, make_trainer, save_prior, score
from medjax.diffusion.sde import tweedie
from medjax.errors import ConfigError, DataError

SMALL = Settings(widths=(8, 16), attention=(1,), size=16)


@pytest.fixture(scope="module")
def trained():
    """A few steps on one image, and the losses."""
    state, step = make_trainer(jax.random.key(0), SMALL, 0.7, 60, 3e-3)
    image = jnp.zeros((16, 16)).at[4:12, 5:11].set(1.0)
    batch = jnp.tile(image[None, ..., None], (8, 1, 1, 1)), jnp.arange(8) % 3
    compiled, losses = jax.jit(step), []
    for _ in range(60):
        state, info = compiled(jax.random.key(1), state, batch)
        losses.append(float(info.loss))
    return Prior(state.average, 0.7, SMALL), losses


def test_training_lowers_the_loss(trained):
    _, losses = trained
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def test_what_is_saved_comes_back(trained, tmp_path):
    prior, _ = trained
    save_prior(tmp_path / "p.npz", prior)
    back = load_prior(tmp_path / "p.npz")
    assert back.settings == prior.settings and back.spread == prior.spread
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), back.params, prior.params)
    x = jax.random.normal(jax.random.key(0), (2, 16, 24))
    np.testing.assert_allclose(score(back, x, 0.5), score(prior, x, 0.5), atol=0.03)


def test_other_sides_and_files_are_refused(trained, tmp_path):
    prior, _ = trained
    with pytest.raises(DataError, match="multiples of 2"):
        score(prior, jnp.zeros((1, 15, 16)), 0.5)
    (tmp_path / "no.npz").write_bytes(b"no prior")
    with pytest.raises(DataError, match="no score prior"):
        load_prior(tmp_path / "no.npz")
    with pytest.raises(FileNotFoundError):
        load_prior(tmp_path / "absent.npz")


def test_training_can_start_from_a_prior(trained):
    prior, _ = trained
    state, _ = make_trainer(jax.random.key(5), SMALL, 0.7, 10, start=prior.params)
    jax.tree.map(np.testing.assert_array_equal, state.params, prior.params)


def test_a_guided_prior_starts_from_an_unguided_one_and_learns_what_the_mr_tells(trained):
    """Blocks that lie anywhere, and an MR that shows where: at much noise only the MR can tell."""
    plain, _ = trained
    settings = SMALL._replace(guided=True)
    state, step = make_trainer(jax.random.key(5), settings, 0.5, 250, 5e-3, start=plain.params)
    x = jax.random.normal(jax.random.key(0), (2, 16, 16))
    first = Prior(state.params, 0.7, settings)
    np.testing.assert_allclose(score(first, x, 0.5, x), score(plain, x, 0.5), atol=1e-4)

    def blocks(seed: int, number: int) -> np.ndarray:
        corners = np.random.default_rng(seed).integers(0, 10, (number, 2))
        return np.stack([np.pad(np.ones((6, 6)), ((a, 10 - a), (b, 10 - b))) for a, b in corners])

    compiled = jax.jit(step)
    for n in range(250):
        images = jnp.asarray(blocks(n, 8), jnp.float32)
        batch = jnp.stack([images, 2 * images], axis=-1), jnp.full(8, 2)
        state, _ = compiled(jax.random.key(1), state, batch)
    prior = Prior(state.params, 0.5, settings)
    truth = jnp.asarray(blocks(10_000, 16), jnp.float32)
    gamma, nu = prior.sde.marginal(0.9)
    noisy = gamma * truth + nu * jax.random.normal(jax.random.key(2), truth.shape)

    def error(**guide) -> float:
        denoised = tweedie(prior.sde, noisy, score(prior, noisy, 0.9, **guide), jnp.asarray(0.9))
        return float(jnp.linalg.norm(denoised - truth) / jnp.linalg.norm(truth))

    assert error(guide=2 * truth) < 0.7 * error()
    volume = jnp.moveaxis(noisy, 0, 2)
    estimate, _ = estimator(prior, guide=jnp.moveaxis(2 * truth, 0, 2))(volume, jnp.asarray(0.9), jnp.asarray(0))
    slices = tweedie(prior.sde, noisy, score(prior, noisy, 0.9, 2 * truth), jnp.asarray(0.9))
    np.testing.assert_allclose(jnp.moveaxis(estimate.denoised, 2, 0), slices, atol=1e-4)
    with pytest.raises(ConfigError, match="without MR"):
        estimator(plain, guide=volume)


def test_the_shipped_prior_denoises_a_head_it_has_not_seen():
    """Tweedie's image is nearer to the truth than the noisy one scaled, by far, at every noise level."""
    pytest.importorskip("nilearn")
    from medjax.diffusion.score_matching import scaled
    from medjax.phantoms.heads import family
    from medjax.phantoms.mni import tissue_shares

    prior = load_prior()
    assert len(files("medjax.diffusion").joinpath(SHIPPED).read_bytes()) < 4e6
    volume = scaled(jnp.asarray(family(20_001, *tissue_shares(), prior.settings.voxel_mm, (96, 96, 96))))
    for axis in range(3):
        clean = jnp.moveaxis(volume, axis, 0)[46:50]
        for t, most in ((0.1, 0.12), (0.3, 0.3), (0.6, 0.55)):
            gamma, nu = prior.sde.marginal(t)
            x = gamma * clean + nu * jax.random.normal(jax.random.key(3), clean.shape)
            denoised = tweedie(prior.sde, x, score(prior, x, t, axis=axis), jnp.asarray(t))
            error = float(jnp.linalg.norm(denoised - clean) / jnp.linalg.norm(clean))
            noisy = float(jnp.linalg.norm(x / gamma - clean) / jnp.linalg.norm(clean))
            assert error < most and error < 0.6 * noisy, (axis, t, error, noisy)
