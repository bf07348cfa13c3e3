"""Files of classifiers, and attribution maps of them by a method's name; a user's own network; what is refused."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

from medjax import cli
from medjax.errors import ConfigError, DataError
from medjax.models.resnet import resnet
from medjax.running.parts import load_part
from medjax.shortcuts.attribution.methods import METHODS, build, importance, sign_of
from medjax.tools.attribution_maps import from_arrays
from medjax.tools.attribution_networks import network_maps
from medjax.tools.classifier_file import load_classifier, save_classifier

SETTINGS = {"classes": 2, "depth": 10, "widths": (4, 4, 4, 8), "strides": (1, 1, 2, 2, 1), "stem_pool": False}
SPACE, IMAGES = (10, 10), 24
IDS = [f"case_{number:02d}" for number in range(IMAGES)]
MINE = """
import jax.numpy as jnp
from medjax.models.model import Model

def init(key, x):
    return {"w": jnp.zeros((*x.shape[1:-1], 2))}

def apply(params, x, key=None):
    return (x * params["w"][None]).sum((1, 2))

net = Model(init, apply)
other = Model(init, lambda params, x, key=None: x)
"""


def weights(model, shape):
    like = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), np.float32))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda one: rng.normal(size=one.shape).astype(one.dtype), like)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with mine.py, a network of a user's, three files of its weights, and images.npz."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    rng = np.random.default_rng(0)
    np.savez("images.npz", images=rng.random((IMAGES, *SPACE)), ids=IDS)
    for name in ("ts", "ba", "sa"):
        save_classifier(Path(f"{name}.npz"), {"w": rng.normal(size=(*SPACE, 2))}, "mine.py:net")


def test_a_built_in_network_is_read_back_from_its_file_alone(tmp_path):
    model, file = resnet(**SETTINGS), tmp_path / "net.npz"
    params = weights(model, (*SPACE, 1))
    save_classifier(file, params, "resnet", SETTINGS)
    again, loaded = load_classifier(file, (*SPACE, 1))
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    with pytest.raises(DataError, match=r"net.npz: .*kernel"):
        load_classifier(file, (*SPACE, 3))
    with pytest.raises(ConfigError, match="width"):
        save_classifier(file, params, "resnet", SETTINGS | {"widths": "wide"})


def test_maps_are_of_the_arg_max_class_of_a_users_network(here):
    images = np.load("images.npz")["images"].astype(np.float32)
    source = from_arrays("images", images, IDS)
    part = load_part("mine.py:net", "--network")
    maps = network_maps(Path("ts.npz"), "input_times_gradient", source, IDS[3:5], part)
    w = np.load("ts.npz")["w"]
    for number in (3, 4):
        logits = (images[number, ..., None] * w).sum((0, 1))
        expected = images[number] * w[..., logits.argmax()]
        np.testing.assert_allclose(maps.read(IDS[number]).values, expected, atol=1e-6)
    noisy = network_maps(Path("ts.npz"), "smooth_grad", source, IDS[:2], part)  # a method that draws
    assert np.isfinite(noisy.read(IDS[0]).values).all()


def test_the_command_audits_networks(here):
    required = ["--ts", "ts.npz", "--ba", "ba.npz", "--sa", "sa.npz", "--regions", "grid:5x5", "--images", "images.npz"]

    def call(*arguments):
        return CliRunner().invoke(cli.app, ["shortcuts", "audit", *required, *arguments], prog_name="medjax")

    answer = call("--method", "gradient", "--network", "mine.py:net", "-o", "out")
    assert answer.exit_code == 0, answer.output
    assert "no evidence" in answer.stdout or "undecided" in answer.stdout
    for message, arguments in [
        ("keys settings, w; expected numpy.savez.* or weights, with --method", ()),
        ("ts.npz: network 'mine.py:net'; expected one of .* or --network FILE.py:NAME", ("--method", "gradient")),
        ("--method grad; expected grad_cam", ("--method", "grad", "--network", "mine.py:net")),
        ("needs a model with `features`", ("--method", "grad_cam", "--network", "mine.py:net")),
        ("LRP needs a model with `relevance`", ("--method", "lrp", "--network", "mine.py:net")),
        ("ts.npz: its network gives no logits", ("--method", "gradient", "--network", "mine.py:other")),
        (
            "ts.npz: keys settings, w; expected",
            ("--method", "gradient", "--network", "mine.py:net", "--images", "ts.npz"),
        ),
    ]:
        refused = call(*arguments)
        assert refused.exit_code == 2 and re.search(message, refused.stderr), refused.output
        assert refused.stderr.count("\n") == 1


def test_every_method_has_a_program():
    model = resnet(**SETTINGS)
    assert len({build(name, model) for name in METHODS for _ in range(2)}) == len(METHODS)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_a_resnet(tmp_path, method):
    model, file = resnet(**SETTINGS), tmp_path / "net.npz"
    save_classifier(file, weights(model, (*SPACE, 1)), "resnet", SETTINGS)
    source = from_arrays("images", np.random.default_rng(1).random((3, *SPACE)), IDS[:3])
    maps = network_maps(file, method, source, IDS[:3])
    assert maps.read(IDS[2]).values.shape == SPACE


def test_importance_is_the_magnitude_of_a_gradient_and_else_the_positive_part():
    maps = np.array([[-2.0, 1.0]])
    expected = {"gradient": [[2, 1]], "smooth_grad": [[2, 1]]}
    for name in METHODS:
        np.testing.assert_array_equal(importance(maps, sign_of(name)), expected.get(name, [[0, 1]]))
    np.testing.assert_array_equal(importance(maps, "signed"), maps)
