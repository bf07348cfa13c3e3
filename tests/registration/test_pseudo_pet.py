"""Pseudo-PET: what carrying keeps, subsets and weights, and noise that falls as 1 / |S|."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.registration import pseudo_pet

KEY = jax.random.key(3)


def bump_field(strength: float, side: int = 24) -> np.ndarray:
    """A smooth displacement that is 0 at the edges."""
    x = np.linspace(0, np.pi, side)
    window = (np.sin(x) ** 2)[:, None] * (np.sin(x) ** 2)
    return strength * np.stack([window * np.sin(2 * x)[:, None], -0.7 * window]).astype(np.float32)


def test_variance_of_the_mean_falls_as_one_over_the_size() -> None:
    noise = np.random.default_rng(0).standard_normal((12, 20_000)).astype(np.float32)
    for size in (1, 4, 8, 12):
        means = pseudo_pet.subset_means(KEY, noise, size, 16)
        np.testing.assert_allclose(np.var(means, axis=1) * size, 1, rtol=0.06)


def test_subsets_are_without_replacement_and_random() -> None:
    members = np.asarray(pseudo_pet.subsets(KEY, 12, 4, 400))
    assert all(len(set(row)) == 4 for row in members.tolist())
    np.testing.assert_allclose(np.bincount(members.ravel(), minlength=12) / 400, 4 / 12, atol=0.1)
    weights = np.asarray(pseudo_pet.subset_weights(KEY, 12, 4, 400))
    assert ((weights > 0).sum(axis=1) == 4).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    images = np.arange(12.0, dtype=np.float32)[:, None]
    np.testing.assert_allclose(pseudo_pet.subset_means(KEY, images, 4, 400)[:, 0], members.mean(axis=1), rtol=1e-5)


def test_dirichlet_weights_are_convex_and_concentrated() -> None:
    weights = np.asarray(pseudo_pet.dirichlet_weights(KEY, 6, 500, 2.0))
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    # Var a = m (1 − m) / (n c + 1), m = 1 / n
    np.testing.assert_allclose(weights.var(axis=0), 1 / 6 * 5 / 6 / 13, rtol=0.3)
    assert pseudo_pet.dirichlet_means(KEY, np.ones((6, 3, 2), np.float32), 5).shape == (5, 3, 2)


def test_carrying_keeps_intensity_or_mass() -> None:
    field = bump_field(3.0)
    constant = np.full((24, 24), 2.0, np.float32)
    np.testing.assert_allclose(pseudo_pet.carry([constant], [field])[0], constant, rtol=1e-6)
    i, j = np.indices((24, 24))
    blob = np.exp(-((i - 11) ** 2 + (j - 12) ** 2) / 18).astype(np.float32)
    [kept], [changed] = pseudo_pet.carry([blob], [field], modulate=True), pseudo_pet.carry([blob], [field])
    assert abs(float(kept.sum() / blob.sum()) - 1) < 5e-3 < abs(float(changed.sum() / blob.sum()) - 1)
    shift = np.zeros((2, 24, 24), np.float32)
    shift[0] = 3
    np.testing.assert_allclose(pseudo_pet.carry(blob[None], shift[None])[0, :-4], blob[3:-1], rtol=1e-6)
    assert not np.any(pseudo_pet.carry(blob[None], 9 * shift[None])[0])


def test_uptake_is_relative_to_the_brain() -> None:
    pets = np.random.default_rng(1).uniform(1, 2, (3, 8, 8)).astype(np.float32) * np.float32([1, 5, 9])[:, None, None]
    mask = np.zeros((8, 8), bool)
    mask[2:6, 3:7] = True
    for given in (mask, np.stack([mask] * 3)):
        normal = pseudo_pet.normalize_uptake(jnp.asarray(pets), given)
        np.testing.assert_allclose(np.asarray(normal)[:, mask].mean(axis=1), 1, rtol=1e-5)


def test_bad_input() -> None:
    pets = np.ones((3, 4, 4), np.float32)
    with pytest.raises(DataError, match="subsets of 4 out of 3"):
        pseudo_pet.subset_means(KEY, pets, 4, 2)
    with pytest.raises(DataError, match="3 images and 1 fields"):
        pseudo_pet.carry(pets, np.zeros((1, 2, 4, 4), np.float32))
    with pytest.raises(DataError, match="concentration: 0"):
        pseudo_pet.dirichlet_means(KEY, pets, 2, 0.0)
    with pytest.raises(DataError, match="above 0"):
        pseudo_pet.normalize_uptake(jnp.zeros((1, 4, 4)), np.ones((4, 4), bool))
