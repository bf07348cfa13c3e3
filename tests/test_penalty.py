"""Penalties against double loops over voxels, autodiff, and De Pierro's bound at random points."""

from collections.abc import Callable
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.bowsher import bowsher
from medjax.errors import ConfigError, DataError
from medjax.penalty import (
    Neighbors,
    Patch,
    Penalty,
    Quadratic,
    RelativeDifference,
    from_function,
    neighbors,
    patch_weights,
    require,
)  # fmt: skip

SHAPE, VOXEL = (4, 3, 2), (2.0, 3.0, 1.5)
quadratic = jax.jit(lambda pairs, x: Quadratic(pairs).value(x))
quadratic_gradient = jax.jit(lambda pairs, x: Quadratic(pairs).gradient(x))
GAMMA, EPSILON = 1.3, 0.05


def image(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 2, shape)


def pairs(
    shape: tuple[int, ...] = SHAPE, voxel: tuple[float, ...] = VOXEL
) -> list[tuple[tuple[int, ...], tuple[int, ...], float]]:
    """Every pair of voxels that touch, if only at a corner, once, and its share of 1 / distance around a voxel."""
    steps = product(*((-1, 0, 1) if n > 1 else (0,) for n in shape))
    total = sum(1 / np.linalg.norm(np.multiply(o, voxel)) for o in steps if np.any(o))
    found = []
    for a, b in product(np.ndindex(shape), repeat=2):
        if a < b and np.max(np.abs(np.subtract(a, b))) == 1:
            found.append((a, b, float(1 / np.linalg.norm(np.multiply(np.subtract(a, b), voxel)) / total)))
    return found


def weight_of(found: Neighbors, a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """What the arrays hold for the pair a, b."""
    offset = tuple(int(i) for i in np.subtract(b, a))
    if offset not in found.offsets:
        a, offset = b, tuple(-i for i in offset)
    return float(np.asarray(found.weights)[(found.offsets.index(offset), *a)])


@pytest.fixture(scope="module")
def plain() -> Neighbors:
    with jax.enable_x64(True):
        return neighbors(SHAPE, VOXEL)


# ── pairs ──


@pytest.mark.parametrize("shape", [SHAPE, (6, 5, 1), (3, 3, 3)])
def test_neighbours_are_all_pairs_once(shape: tuple[int, int, int]):
    found = neighbors(shape, VOXEL)
    assert len(found.offsets) == (3 ** sum(n > 1 for n in shape) - 1) // 2
    wanted = pairs(shape)
    for a, b, weight in wanted:
        assert weight_of(found, a, b) == pytest.approx(weight, rel=1e-6)
    assert int(np.sum(np.asarray(found.weights) > 0)) == len(wanted)


def test_a_pair_along_an_axis_weighs_by_its_length_and_all_weights_are_one():
    found = neighbors((3, 3, 3), (2.0, 3.0, 1.5))
    along = [float(found.weights[found.offsets.index(o), 0, 0, 0]) for o in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    np.testing.assert_allclose(np.divide(along, along[0]), [1, 2 / 3, 2 / 1.5], rtol=1e-6)
    assert sum(weight_of(found, (1, 1, 1), b) for b in np.ndindex(3, 3, 3) if b != (1, 1, 1)) == pytest.approx(1)


# ── values and derivatives ──


def test_quadratic_is_the_double_loop(plain: Neighbors, x64: None):
    x = image()
    want = sum(w * (x[a] - x[b]) ** 2 / 2 for a, b, w in pairs())
    np.testing.assert_allclose(quadratic(plain, jnp.asarray(x)), want, rtol=1e-12)
    gradient = np.zeros(SHAPE)
    for a, b, w in pairs():
        gradient[a] += w * (x[a] - x[b])
        gradient[b] += w * (x[b] - x[a])
    np.testing.assert_allclose(quadratic_gradient(plain, jnp.asarray(x)), gradient, rtol=1e-10, atol=1e-13)

    autodiff = jax.jit(jax.grad(quadratic, argnums=1))(plain, jnp.asarray(x))
    np.testing.assert_allclose(autodiff, gradient, rtol=1e-10, atol=1e-13)


def test_relative_difference_is_the_double_loop(plain: Neighbors, x64: None):
    x = image()
    want = sum(w * (x[a] - x[b]) ** 2 / (x[a] + x[b] + GAMMA * abs(x[a] - x[b]) + EPSILON) for a, b, w in pairs())
    np.testing.assert_allclose(RelativeDifference(plain, GAMMA, EPSILON).value(jnp.asarray(x)), want, rtol=1e-12)
    twice = RelativeDifference(plain).value(jnp.asarray(2 * x))
    np.testing.assert_allclose(twice, 2 * RelativeDifference(plain).value(jnp.asarray(x)), rtol=1e-7)


def test_derivatives_of_the_relative_difference_are_autodiffs(plain: Neighbors, x64: None):
    @jax.jit
    def relative_difference(x: jax.Array) -> tuple[jax.Array, ...]:
        rdp = RelativeDifference(plain, GAMMA, EPSILON)
        hessian = jax.jacfwd(rdp.gradient)(x).reshape(x.size, x.size)
        return rdp.gradient(x), jax.grad(rdp.value)(x), rdp.curvature(x), hessian

    for seed in range(3):
        x = jnp.asarray(image(seed))
        slope, gradient, bend, hessian = relative_difference(x)
        np.testing.assert_allclose(slope, gradient, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(np.ravel(bend), np.diag(hessian), rtol=1e-10)
        assert np.linalg.eigvalsh(hessian).min() > -1e-10  # convex


def test_empty_and_flat_images_have_finite_derivatives():
    found = neighbors(SHAPE, VOXEL)
    rdp = RelativeDifference(found)
    autodiff, gradient_of, curvature_of = map(jax.jit, (jax.value_and_grad(rdp.value), rdp.gradient, rdp.curvature))
    dot = np.zeros(SHAPE, np.float32)
    dot[1, 1, 1] = 1.0
    for flat in (jnp.zeros(SHAPE), jnp.ones(SHAPE), jnp.asarray(dot)):
        (value, slope), gradient, curvature = (of(flat) for of in (autodiff, gradient_of, curvature_of))
        assert np.isfinite(value) and np.all(np.isfinite(gradient)) and np.all(np.isfinite(slope))
        assert np.all(np.isfinite(curvature)) and np.all(curvature >= 0)
        np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-6)
    assert rdp.value(jnp.ones(SHAPE)) == quadratic(found, jnp.ones(SHAPE)) == 0


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_rdp_without_epsilon_is_zero_at_zeros(plain: Neighbors, gamma: float, x64: None):
    """The limit of a small ε, in value; two zeros pull neither way."""
    x = jnp.asarray(image()).at[:2].set(0.0)
    sharp, soft = RelativeDifference(plain, gamma, 0.0), RelativeDifference(plain, gamma, 1e-12)
    for method in ("value", "gradient"):
        np.testing.assert_allclose(getattr(sharp, method)(x), getattr(soft, method)(x), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(jax.grad(sharp.value)(x), sharp.gradient(x), rtol=1e-9, atol=1e-12)
    assert np.all(np.isfinite(sharp.curvature(x))) and np.all(np.asarray(sharp.curvature(x)) >= 0)
    for method in ("value", "gradient", "curvature"):
        assert np.all(np.asarray(getattr(sharp, method)(jnp.zeros(SHAPE))) == 0)
    tiny = RelativeDifference(plain, gamma, 1e-20)  # whose cube float32 has not
    assert np.all(np.isfinite(tiny.curvature(jnp.zeros(SHAPE, jnp.float32))))


@pytest.mark.parametrize("guided", [False, True])
def test_the_surrogate_touches_and_lies_above(plain: Neighbors, guided: bool, x64: None):
    found = bowsher(plain, jnp.asarray(image(7)), 5) if guided else plain
    at = jnp.asarray(image())
    anchor, curvature = Quadratic(found).surrogate(at)
    constant = quadratic(found, at) - jnp.sum(curvature * (at - anchor) ** 2) / 2
    for seed in range(1, 30):
        x = jnp.asarray(image(seed) * 3 - 1 if seed % 2 else at + 0.01 * image(seed))
        above = constant + jnp.sum(curvature * (x - anchor) ** 2) / 2 - quadratic(found, x)
        assert above > 0
    np.testing.assert_allclose(curvature * (at - anchor), quadratic_gradient(found, at), rtol=1e-10, atol=1e-12)


def test_a_voxel_without_neighbours_is_its_own_anchor(plain: Neighbors, x64: None):
    alone = Neighbors(plain.weights * 0, plain.offsets)
    anchor, curvature = Quadratic(alone).surrogate(jnp.asarray(image()))
    np.testing.assert_array_equal(anchor, image())
    assert np.all(curvature == 0)


# ── Bowsher ──


@pytest.mark.parametrize(("shape", "similar"), [(SHAPE, 1), (SHAPE, 4), (SHAPE, 20), ((6, 5, 1), 3)])
def test_bowsher_is_the_double_loop(shape: tuple[int, int, int], similar: int, x64: None):
    guide = image(3, shape)
    wanted = pairs(shape)
    chosen: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for j in np.ndindex(shape):
        around = [b if a == j else a for a, b, _ in wanted if j in (a, b)]
        chosen[j] = sorted(around, key=lambda k, j=j: abs(guide[j] - guide[k]))[:similar]
    found = bowsher(neighbors(shape, VOXEL), jnp.asarray(guide), similar)
    for a, b, weight in wanted:
        assert weight_of(found, a, b) == pytest.approx(weight * ((b in chosen[a]) + (a in chosen[b])) / 2, rel=1e-12)
    assert float(np.sum(np.asarray(found.weights) > 0)) == len(
        {frozenset((j, k)) for j, near in chosen.items() for k in near}
    )


def test_all_neighbours_similar_is_the_plain_penalty(plain: Neighbors, x64: None):
    np.testing.assert_allclose(bowsher(plain, jnp.asarray(image()), 26).weights, plain.weights, rtol=1e-12)


def test_no_weight_crosses_a_sharp_edge():
    shape = (6, 5, 1)
    guide = jnp.asarray(np.arange(6)[:, None, None] >= 3, jnp.float32) + jnp.zeros(shape)
    plain = neighbors(shape, VOXEL)
    found = bowsher(plain, guide, 3)  # a voxel in a corner beside the edge has three neighbours of its own kind
    crossing = {(a, b): (a[0] < 3) != (b[0] < 3) for a, b, _ in pairs(shape)}
    across = [weight_of(found, *pair) for pair, crosses in crossing.items() if crosses]
    within = [weight_of(found, *pair) for pair, crosses in crossing.items() if not crosses]
    assert max(across) == 0 and min(within) > 0
    image = guide * 5.0
    assert quadratic(found, image) == 0 and quadratic(plain, image) > 0


@pytest.mark.parametrize("change", [lambda mr: mr * 1e-6, lambda mr: 3 * mr, lambda mr: 7e4 * mr, "noise"])
def test_ties_do_not_hang_on_the_unit_or_on_rounding(change: Callable[[np.ndarray], np.ndarray] | str):
    """Equal steps of grey, which float32 makes unequal in their last digits."""
    rng, shape = np.random.default_rng(0), (7, 6, 3)
    mr = rng.integers(0, 5, shape).astype(np.float32) / 10
    other = mr + 1e-7 * rng.normal(size=shape) if isinstance(change, str) else change(mr)
    plain = neighbors(shape, VOXEL)
    one, two = (np.asarray(bowsher(plain, jnp.asarray(x, jnp.float32), 7).weights) for x in (mr, other))
    np.testing.assert_allclose(one, two, atol=1e-6)
    exact = np.asarray(bowsher(plain, jnp.asarray(10 * mr), 7).weights)  # whole numbers: ties are exact
    np.testing.assert_allclose(one, exact, atol=1e-6)


@pytest.mark.parametrize("similar", [2, 4, 7])
def test_a_flat_guide_smooths_alike_in_all_directions(similar: int):
    share = similar / 26  # of the middle voxel; its neighbours at the border have fewer to choose from
    plain = neighbors((3, 3, 3), VOXEL)
    weights = np.asarray(bowsher(plain, jnp.ones((3, 3, 3)), similar).weights / plain.weights)
    faces = [plain.offsets.index(offset) for offset in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    np.testing.assert_allclose(weights[faces, 1, 1, 1], (share + min(similar / 17, 1)) / 2, rtol=1e-5)


def test_bad_guides_are_refused(plain: Neighbors):
    guide = jnp.asarray(image(), jnp.float32)
    for bad, similar, message in (
        (guide[:-1], 4, r"shape \(3, 3, 2\); expected \(4, 3, 2\)"),
        (guide.at[1, 1, 1].set(jnp.nan), 4, "not finite"),
        (guide, 0, "similar: 0; expected 1 to 26"),
        (guide, 27, "similar: 27; expected 1 to 26"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            bowsher(plain, bad, similar)
        assert "\n" not in str(caught.value)


def test_penalties_jit_and_vmap(plain: Neighbors, x64: None):
    images = jnp.asarray(image(0, (3, *SHAPE)))
    for kind in (Quadratic(plain), RelativeDifference(plain), Patch(plain, 0.3)):
        for name in ("value", "gradient"):
            got = jax.jit(jax.vmap(lambda kind, x, name=name: getattr(kind, name)(x), in_axes=(None, 0)))(kind, images)
            alone = jnp.stack([getattr(kind, name)(one) for one in images])
            np.testing.assert_allclose(got, alone, rtol=1e-10, atol=1e-12)


def test_curvature_of_the_quadratic_is_its_hessians_diagonal(plain: Neighbors, x64: None):
    hessian = np.reshape(jax.jit(jax.hessian(Quadratic(plain).value))(jnp.asarray(image())), (24, 24))
    np.testing.assert_allclose(np.ravel(Quadratic(plain).curvature(jnp.asarray(image()))), np.diag(hessian), rtol=1e-10)


def test_any_function_is_a_penalty_and_what_it_lacks_is_named(plain: Neighbors, x64: None):
    ridge = from_function(lambda x: jnp.sum(x**2) / 2)
    assert isinstance(ridge, Penalty)
    x = jnp.asarray(image())
    np.testing.assert_allclose(ridge.gradient(x), x)
    require(ridge, "BSREM", "gradient")
    with pytest.raises(ConfigError, match="MAP-EM needs a penalty with surrogate; FunctionPenalty has no surrogate"):
        require(ridge, "MAP-EM", "surrogate")
    require(Quadratic(plain), "MAP-EM", "surrogate")


def test_patch_weights_touch_the_patch_penalty():
    """The gradient of the quadratic with these weights is that of Σ w ψ(t), by automatic differentiation."""
    shape, delta = (9, 8, 1), 0.3
    pairs = neighbors(shape, (2.0, 2.0, 2.0))
    image = jnp.asarray(np.random.default_rng(0).uniform(size=shape), jnp.float32)

    def patch_mean(a):
        for axis in (0, 1):
            padded = jnp.pad(a, [(1, 1) if k == axis else (0, 0) for k in range(3)])
            n = a.shape[axis]
            a = sum(jax.lax.slice_in_dim(padded, k, k + n, axis=axis) for k in range(3)) / 3
        return a

    @jax.jit
    @jax.grad
    def slope_written_out(x):
        total = 0.0
        for weight, (i, j, _) in zip(pairs.weights, pairs.offsets, strict=True):
            moved = jnp.roll(x, (-i, -j), (0, 1))
            square = patch_mean(jnp.where(weight > 0, (x - moved) ** 2, 0))
            t = jnp.sqrt(square + 1e-12)
            total += jnp.max(weight) * jnp.sum(delta**2 * (t / delta - jnp.log1p(t / delta)))
        return total

    touched = np.asarray(quadratic_gradient(patch_weights(pairs, image, delta), image))
    inside = (slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(touched[inside], np.asarray(slope_written_out(image))[inside], rtol=2e-3, atol=1e-5)
    patch = Patch(pairs, delta)
    np.testing.assert_allclose(patch.gradient(image), touched, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        np.asarray(jax.jit(jax.grad(patch.value))(image))[inside], touched[inside], rtol=2e-3, atol=1e-5
    )
    anchor, curvature = patch.surrogate(image)
    np.testing.assert_allclose(curvature * (image - anchor), touched, rtol=1e-3, atol=1e-5)
