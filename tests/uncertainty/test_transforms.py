"""Transforms of test-time augmentation: what they undo or keep, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import ConfigError, DataError
from medjax.uncertainty.transforms import (
    IDENTITY,
    Transform,
    brightness,
    check_transform,
    compose,
    contrast,
    flips,
    gamma,
    noise,
    quarter_turns,
    rotation_and_shift,
)

KEYS = jax.random.split(jax.random.key(0), 40)
RNG = np.random.default_rng(0)
PLANES = RNG.normal(size=(2, 5, 5, 3)).astype(np.float32)
VOLUMES = RNG.normal(size=(2, 4, 3, 4, 1)).astype(np.float32)


def mapped(transform, images):
    """The images under forty maps, and brought back."""
    forward = jax.vmap(transform.forward, (0, None))(KEYS, images)
    return np.asarray(forward), np.asarray(jax.vmap(transform.inverse)(KEYS, forward))


@pytest.mark.parametrize(
    ("transform", "images", "different"),
    [
        (flips(), PLANES, 4),
        (flips((1,)), PLANES, 2),
        (flips((0, 1, 2)), VOLUMES, 8),
        (quarter_turns(), PLANES, 4),
        (quarter_turns((0, 2)), VOLUMES, 4),
        (compose(flips(), quarter_turns()), PLANES, 8),  # all symmetries of a square
        (compose(), PLANES, 1),
        (IDENTITY, PLANES, 1),
    ],
)
def test_symmetries_are_undone_exactly(transform, images, different):
    forward, back = mapped(transform, images)
    assert transform.aligned
    np.testing.assert_array_equal(back, np.broadcast_to(images, back.shape))
    assert len({one.tobytes() for one in forward}) == different


def test_quarter_turns_are_those_of_numpy():
    forward, _ = mapped(quarter_turns((0, 2)), VOLUMES)
    turned = {np.rot90(VOLUMES, k, (1, 3)).tobytes() for k in range(4)}
    assert {one.tobytes() for one in forward} == turned


@pytest.mark.parametrize(
    "transform", [flips(), rotation_and_shift(), gamma(), contrast(), brightness(), noise(), compose(flips(), noise())]
)
def test_every_image_has_the_same_map(transform):
    pair = PLANES[:1].repeat(2, axis=0)
    forward, _ = mapped(transform, pair)
    np.testing.assert_allclose(forward[:, 0], forward[:, 1], rtol=1e-5, atol=1e-6)
    assert len({one.tobytes() for one in forward}) > 3


def test_rotation_and_shift_are_those_of_a_known_image():
    """A linear image stays linear: its gradient is rotated, within the limits."""
    x, y = np.meshgrid(np.arange(33.0) - 16, np.arange(25.0) - 12, indexing="ij")
    image = (2 * x + 3 * y).astype(np.float32)[None, ..., None]
    forward, _ = mapped(rotation_and_shift(20.0, 1.5), image)
    inside = forward[:, 0, 8:25, 8:17, 0].reshape(40, -1)
    design = np.stack([x[8:25, 8:17].ravel(), y[8:25, 8:17].ravel(), np.ones(17 * 9)], axis=1)
    (a, b, c), *_ = np.linalg.lstsq(design, inside.T, rcond=None)
    np.testing.assert_allclose(design @ [a, b, c], inside.T, atol=1e-3)
    np.testing.assert_allclose(a**2 + b**2, 13, rtol=1e-4)  # a rotation: no scaling, no shear
    angle = np.degrees(np.arctan2(b, a) - np.arctan2(3, 2))
    assert np.abs(angle).max() < 20 and np.ptp(angle) > 10
    assert np.abs(c).max() < 1.5 * 5 and np.ptp(c) > 1


@pytest.mark.parametrize(
    ("space", "plane"), [((48, 48), (0, 1)), ((48, 40), (0, 1)), ((6, 48, 40), (1, 2)), ((40, 6, 40), (2, 0))]
)
def test_rotation_keeps_volumes(space, plane):
    transform = rotation_and_shift(15.0, 3.0, plane)
    grids = np.meshgrid(*[np.linspace(-1, 1, side) for side in space], indexing="ij")
    ellipsoid = (sum((g / s) ** 2 for g, s in zip(grids, (0.5, 0.6, 0.55), strict=False)) < 1).astype(np.float32)
    forward, _ = mapped(transform, ellipsoid[None, ..., None])
    volumes = (forward > 0.5).sum(axis=tuple(range(1, forward.ndim)))
    np.testing.assert_allclose(volumes, ellipsoid.sum(), rtol=0.03)
    assert not transform.aligned


def test_intensities_are_as_in_the_equations():
    a, b = (bound(PLANES, axis=(1, 2), keepdims=True) for bound in (np.min, np.max))
    mean, sd = (f(PLANES, axis=(1, 2), keepdims=True) for f in (np.mean, np.std))
    powered, _ = mapped(gamma(0.5), PLANES)
    unit = (PLANES - a) / (b - a)
    exponents = np.log(((powered - a) / (b - a))[:, 0, 2, 2, 0]) / np.log(unit[0, 2, 2, 0])
    expected = a + (b - a) * unit ** exponents.reshape(-1, 1, 1, 1, 1)
    np.testing.assert_allclose(powered, expected, atol=2e-4)
    assert np.abs(np.log(exponents)).max() < 0.5 < np.ptp(np.log(exponents)) * 2
    for transform, change in ((contrast(0.3), PLANES - mean), (brightness(0.3), sd + 0 * PLANES)):
        factors = (mapped(transform, PLANES)[0] - PLANES) / change
        np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1, :1, :1, :1], factors.shape), atol=1e-3)
    rough = (mapped(noise(0.2), np.broadcast_to(PLANES, PLANES.shape))[0] - PLANES) / sd
    assert abs(rough.std() - 0.2) < 0.01 and abs(rough.mean()) < 0.02


@pytest.mark.parametrize("transform", [gamma(), contrast(), brightness(), noise()])
def test_an_image_of_one_value_stays(transform):
    flat = np.full((1, 4, 4, 1), 3.0, np.float32)
    np.testing.assert_allclose(mapped(transform, flat)[0], np.broadcast_to(flat, (40, 1, 4, 4, 1)), rtol=1e-6)


def scale_up(key, images):
    """Zoom by 1.1 about the center."""
    shape, middle = images.shape, jnp.array([(side - 1) / 2 for side in images.shape[1:3]])
    return jax.image.scale_and_translate(
        images, shape, (1, 2), jnp.full(2, 1.1), middle * (1 - 1.1), method="linear", antialias=False
    )


def keep(key, logits):
    return logits


@pytest.mark.parametrize(
    ("transform", "shape"),
    [
        (compose(flips(), quarter_turns(), gamma(), contrast(), brightness(), noise()), (16, 16, 2)),
        (rotation_and_shift(), (24, 24, 8, 1)),
        (flips(), (2, 2, 1)),  # too small to see anything
        (flips(), (3, 3, 1)),
        (compose(rotation_and_shift(15, 4), noise(0.2)), (80, 80, 1)),
    ],
)
def test_transforms_offered_pass_the_check(transform, shape):
    check_transform(transform, shape)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (Transform(scale_up, keep, aligned=False), "changes the volume of an ellipsoid by 2[0-4] %"),
        (Transform(flips().forward, keep), "leaves .* of an ellipsoid's voxels elsewhere"),
        (compose(quarter_turns(), Transform(scale_up, keep, aligned=False)), "changes the volume"),
    ],
)
def test_scaling_and_wrong_inverses_are_refused(transform, message):
    with pytest.raises(DataError, match=message):
        check_transform(transform, (80, 80, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: flips(()), "axes of flips"),
        (lambda: flips((0, 0)), "axes of flips"),
        (lambda: quarter_turns((0,)), "plane of quarter_turns"),
        (lambda: rotation_and_shift(plane=(1, 1)), "plane of rotation_and_shift"),
        (lambda: rotation_and_shift(-1.0), "degrees, voxels: -1, 2"),
        (lambda: gamma(float("nan")), "strength of gamma: nan"),
    ],
)
def test_refuses_settings(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (quarter_turns(), "4 × 3 voxels in the plane of axes"),
        (flips((3,)), r"flips: axes \(3,\); images of shape \(2, 4, 3, 4, 1\) have 3 axes of space"),
    ],
)
def test_refuses_images_it_cannot_map(transform, message):
    with pytest.raises(DataError, match=message):
        transform.forward(KEYS[0], VOLUMES)
