"""Surrogate maps: each step equals brainsmash's, and the variogram of the maps is the profile's, better than there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from scipy.optimize import nnls

from medjax.errors import ConfigError, DataError
from medjax.shortcuts.spatial_null import null_p
from medjax.shortcuts.surrogates import centroid_distances, fit, geometry, has_variogram, surrogate_maps, variogram

KEY = jax.random.key(0)

# fmt: off
# brainsmash 0.11.0, Base(x, D) of `problem()` with its defaults: lags 0, 12 and 24, the variogram at 6 of the 25 lags;
# of x reversed, for 10–90 % neighbours: regression's intercept, slope and error, and the fourth region smoothed.
LAGS = [0.109570842889991, 1.790653469181833, 3.471736095473675]
VARIOGRAM = [
    0.084252719589, 0.1991417410179, 0.514287628615, 0.647594058981, 0.8052147841338, 1.153758550706
]
INTERCEPTS = [
    -0.1257630849842, -0.04270345816904, -0.01662188710123, 0.006865245132035, 0.0814956474338, 0.110691575135,
    0.1116228810027, 0.05701625868919, -0.009779119078235
]
SLOPES = [
    13.26492601707, 29.5694186225, 70.19301745537, 107.3118143878, 129.9458659592, 138.781205424, 168.287779385,
    318.5108662283, 757.7563830204
]
ERRORS = [
    0.1703050257417, 0.1025261527942, 0.1625965482919, 0.1148947260158, 0.3185230270974, 0.2340900834912,
    0.2837650018852, 0.1916211865136, 0.4084901261899
]
SMOOTHED = [
    0.1996727279768, 0.396375156462, 0.2589530592551, 0.3185241396277, 0.3111937967329, 0.2529843205108,
    0.2617896523521, 0.2224497481262, 0.2177108201751
]
# the mean variogram of 4,000 maps at those 6 lags, and its standard deviation over maps
MEAN = [
    0.5469548626099, 0.6027176456054, 0.8142317329916, 1.035116641541, 1.235545384453, 1.50657196297
]
SPREAD = [
    0.4014589161892, 0.3966921333504, 0.4179573454911, 0.4084997617433, 0.3973486630706, 0.4021809584485
]
# fmt: on
SOME = [0, 5, 10, 15, 19, 24]


def problem():
    draw = np.random.default_rng(0)
    points = draw.uniform(0, 10, (100, 2))
    profile = np.sin(points[:, 0]) + np.cos(0.7 * points[:, 1] + 1) + 0.2 * draw.normal(size=100)
    return profile, np.linalg.norm(points[:, None] - points[None], axis=-1)


@pytest.mark.usefixtures("x64")
def test_each_step_is_that_of_brainsmash():
    profile, distances = problem()
    space = geometry(distances)
    target = variogram(jnp.asarray(profile)[:, None], space)[:, 0]
    fits = fit(jnp.asarray(profile[::-1, None]), target, space, nonnegative=False)
    np.testing.assert_allclose(space.lags[[0, 12, 24]], LAGS, rtol=1e-11)
    np.testing.assert_allclose(target[jnp.array(SOME)], VARIOGRAM, rtol=1e-11)
    np.testing.assert_allclose(fits.smoothed[:, 3, 0], SMOOTHED, rtol=1e-11)
    for ours, theirs in ((fits.intercept, INTERCEPTS), (fits.slope, SLOPES), (fits.error, ERRORS)):
        np.testing.assert_allclose(ours[:, 0], theirs, rtol=1e-9)


def test_published_maps_are_as_rough_as_brainsmashs_and_nonnegative_ones_as_the_profile():
    profile, distances = problem()
    space = geometry(distances)
    target = variogram(jnp.asarray(profile)[:, None], space)[:, 0]
    published, ours = (
        np.asarray(variogram(surrogate_maps(KEY, profile, space, 1000, nonnegative=each).T, space))
        for each in (False, True)
    )
    error = np.array(SPREAD) * np.sqrt(1 / 1000 + 1 / 4000)
    assert (abs(published.mean(1)[SOME] - MEAN) < 4 * error).all()
    np.testing.assert_allclose(published.std(1)[SOME], SPREAD, rtol=0.15)
    off = [np.linalg.norm(each.mean(1) - target) / np.linalg.norm(target) for each in (published, ours)]
    assert off[0] > 0.5 and off[1] < 0.25


def test_nonnegative_coefficients_are_those_of_least_squares():
    profile, distances = problem()
    space = geometry(distances)
    target = variogram(jnp.asarray(profile)[:, None], space)[:, 0]
    permuted = np.random.default_rng(1).permuted(np.broadcast_to(profile, (3, 100)), axis=1).T.astype(np.float32)
    fits = fit(jnp.asarray(permuted), target, space)
    for n, m in np.ndindex(9, 3):
        of_smoothed = variogram(fits.smoothed[n, :, m][:, None], space)[:, 0]
        (intercept, slope), norm = nnls(np.column_stack([np.ones(25), of_smoothed]), np.asarray(target))
        np.testing.assert_allclose(fits.intercept[n, m], intercept, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(fits.slope[n, m], slope, rtol=1e-3)
        np.testing.assert_allclose(fits.error[n, m], norm**2, rtol=1e-3)


def test_maps_do_not_depend_on_the_chunk_and_follow_the_unit():
    profile, distances = problem()
    maps = surrogate_maps(KEY, profile, distances, 10)
    np.testing.assert_allclose(surrogate_maps(KEY, profile, distances, 10, chunk=4), maps, atol=1e-4)
    np.testing.assert_allclose(surrogate_maps(KEY, 3 * profile + 50, distances, 10), 3 * maps, atol=1e-2)
    np.testing.assert_allclose(maps.mean(1), 0, atol=1e-5)


def test_surrogates_are_calibrated_on_smooth_fields():
    """5 % of 40 pairs are 2: more than 6 have a probability of 0.3 %; of permutations half would be."""
    noise = np.random.default_rng(4).normal(size=(2, 40, 27, 27))
    u, v = ndimage.gaussian_filter(noise, (0, 0, 1.5, 1.5))[..., 10:-10, 10:-10].reshape(2, 40, 49).astype(np.float32)
    space = geometry(centroid_distances(np.arange(49).reshape(7, 7), 49))
    p = [null_p(a, b, surrogate_maps(KEY, a, space, 199)) for a, b in zip(u, v, strict=True)]
    assert np.sum(np.array(p) <= 0.05) <= 6


def test_distances_are_between_centroids():
    labels = np.array([[0, 0, 1], [0, 0, -1], [2, 2, 1]])
    expected = np.zeros((3, 3))
    expected[0, 2], expected[1, 2] = 1.5, np.sqrt(1 + 2.25)
    expected[0, 1] = np.sqrt(0.25 + 2.25)
    np.testing.assert_allclose(np.triu(centroid_distances(labels, 3)), expected)
    stretched = centroid_distances(labels[:, :, None], 3, (2.0, 1.0, 5.0))
    assert stretched[0, 2] == 3
    with pytest.raises(DataError, match="labels: region 3 has no voxels"):
        centroid_distances(labels, 4)
    with pytest.raises(DataError, match="spacing: 3 numbers; expected 2"):
        centroid_distances(labels, 3, (1.0, 1.0, 1.0))


def test_a_constant_profile_has_no_surrogates():
    profile, distances = problem()
    assert np.isnan(surrogate_maps(KEY, np.ones(100), distances, 10)).all()
    profile[3] = np.nan
    assert np.isnan(surrogate_maps(KEY, profile, distances, 10)).all()


def test_what_is_refused():
    profile, distances = problem()
    for wrong in (distances + np.eye(100), np.triu(distances), np.full((100, 100), np.nan)):
        with pytest.raises(DataError, match="distances: expected finite ones, symmetric, with zeros on the diagonal"):
            surrogate_maps(KEY, profile, wrong, 10)
    with pytest.raises(DataError, match="distances: 5 regions; too few, or too equally spaced"):
        geometry(1 - np.eye(5))
    assert has_variogram(distances[:10, :10]) and not has_variogram(distances[:9, :9])
    with pytest.raises(DataError, match="5000 regions; expected 4096 or fewer"):
        centroid_distances(np.arange(5000), 5000)
    with pytest.raises(DataError, match="5000 regions; expected 4096 or fewer"):
        geometry(np.broadcast_to(0.0, (5000, 5000)))
    with pytest.raises(ConfigError, match="number, chunk, neighbors: 0, 50"):
        surrogate_maps(KEY, profile, distances, 0)
