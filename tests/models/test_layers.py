"""What networks share: weights that start as JAX's own do, norms that equal each other, dropout of channels."""

import ast
from pathlib import Path

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.models import layers
from medjax.models.layers import FanIn, drop_channels, group_norm, instance_norm
from medjax.models.plain_unet import CONVOLUTION, HE, TRANSPOSED
from medjax.models.unet import unet

KEY = jax.random.key(5)
ROOM = Path(layers.__file__).parent


@pytest.mark.parametrize("shape", [(7, 5), (3, 3, 5, 6), (1, 3, 3, 4, 6)])
@pytest.mark.parametrize(
    ("initializer", "jaxs"),
    [
        (layers.LECUN, nn.initializers.lecun_normal()),
        (CONVOLUTION, nn.initializers.variance_scaling(HE, "fan_in", "normal")),
        (TRANSPOSED, nn.initializers.variance_scaling(HE, "fan_in", "normal", in_axis=-1, out_axis=-2)),
    ],
)
def test_weights_start_as_jaxs_initializers_draw_them_bit_for_bit(initializer, jaxs, shape):
    np.testing.assert_array_equal(
        jax.jit(initializer, static_argnums=1)(KEY, shape), jax.jit(jaxs, static_argnums=1)(KEY, shape)
    )


@pytest.mark.parametrize(
    ("ours", "flaxs", "channels"),
    [(layers.Conv(4, (3, 3)), nn.Conv(4, (3, 3)), (1, 8, 8, 3)), (layers.Dense(4), nn.Dense(4), (1, 3))],
)
def test_layers_are_flaxs_with_its_names_and_numbers(ours, flaxs, channels):
    x = jnp.ones(channels)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(ours.init)(KEY, x), jax.jit(flaxs.init)(KEY, x))


def test_the_deviation_is_that_of_the_fan_in():
    drawn = FanIn(2.0, truncated=False)(KEY, (5, 4, 50, 20))
    np.testing.assert_allclose(jnp.std(drawn), np.sqrt(2 / 1000), rtol=0.02)


def test_norms_made_equally_are_equal_and_compile_once():
    assert group_norm(4) == group_norm(4) and hash(group_norm(4)) == hash(group_norm(4))
    assert group_norm(4) != group_norm(2) and instance_norm() == instance_norm() != instance_norm(1e-3)
    assert group_norm(4)().num_groups == 4 and instance_norm()().epsilon == 1e-5

    @jax.jit
    @chex.assert_max_traces(n=1)
    def apply(model, params, x):
        return model.apply(params, x)

    x = jnp.ones((1, 8, 8, 1))
    first, second = (unet(2, (4, 4), group_norm(4), dropout=0.1) for _ in range(2))
    params = first.init(KEY, x)
    np.testing.assert_array_equal(apply(first, params, x), apply(second, params, x))


class Dropped(nn.Module):
    @nn.compact
    def __call__(self, x):
        return drop_channels(self, x, 0.25)


def test_dropout_takes_whole_channels_of_an_example_and_keeps_the_mean():
    x = jnp.ones((40, 2, 3, 50))
    y = np.asarray(Dropped().apply({}, x, rngs={"dropout": KEY}))
    assert (y == y[:, :1, :1]).all() and {0.0, np.float32(4 / 3)} == set(y.ravel())
    assert len(np.unique(y[:, 0, 0], axis=0)) == 40
    np.testing.assert_allclose(y.mean(), 1, atol=4 * np.sqrt(1 / 3 / 2000))
    assert Dropped().apply({}, x) is x


# ── a rule of the house ──


def draws_of_several_axes(source: str, name: str) -> list[str]:
    """Random draws whose shape is not flat, `(size,)`: XLA compiles them slowly. Draw flat and reshape."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {f"jax.random.{one}" for one in SHAPE_AT}:
            at = SHAPE_AT[ast.unparse(node.func).split(".")[-1]]
            given = [word.value for word in node.keywords if word.arg == "shape"] + node.args[at : at + 1]
            if any(not isinstance(shape, ast.Tuple) or len(shape.elts) > 1 or is_starred(shape) for shape in given):
                found.append(f"{name}:{node.lineno}: a draw of several axes; draw (size,) and reshape")
        initializer = isinstance(node, ast.Attribute) and ast.unparse(node).startswith("nn.initializers.")
        if initializer and node.attr not in ("zeros", "ones", "constant"):
            found.append(f"{name}:{node.lineno}: Flax's {node.attr}; use layers.FanIn")
        if ast.unparse(node) in ("nn.Conv", "nn.Dense") and not name.endswith("layers.py"):
            found.append(f"{name}:{node.lineno}: {ast.unparse(node)} starts with a draw of several axes; use layers'")
    return found


SHAPE_AT = {"normal": 1, "uniform": 1, "truncated_normal": 3}  # where a call has its shape


def is_starred(shape: ast.Tuple) -> bool:
    return any(isinstance(one, ast.Starred) for one in shape.elts)


def test_weights_are_drawn_flat():
    found = [line for file in sorted(ROOM.glob("*.py")) for line in draws_of_several_axes(file.read_text(), file.name)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "jax.random.normal(key, (3, size))",
        "jax.random.normal(key, shape)",
        "jax.random.normal(key, (*shape,))",
        "jax.random.uniform(key, shape=(2, 3))",
        "jax.random.truncated_normal(key, -2, 2, x.shape)",
        "nn.initializers.lecun_normal()",
        "nn.Dense(4)(x)",
    ],
)
def test_draws_of_several_axes_are_seen(source):
    assert len(draws_of_several_axes(source, "unet.py")) == 1


@pytest.mark.parametrize(
    "source", ["jax.random.normal(key, (size,))", "jax.random.normal(key)", "nn.initializers.zeros", "Dense(4)(x)"]
)
def test_flat_draws_pass(source):
    assert draws_of_several_axes(source, "unet.py") == []
