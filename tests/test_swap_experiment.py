"""Swap a part: an experiment of one's own in a few lines, and in it a network of one's own, by the same two commands.

A page to copy from: `medjax run` and `medjax sweep` give it a work directory, overrides, resume, one population for
members that differ in TRACED keys, a table, and an identity that a part's file belongs to.
"""

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medjax import cli

CONFIG = """
from ml_collections import ConfigDict

def get_config(preset):
    return ConfigDict({"seed": 0, "rate": 0.03, "steps": 60})
"""
EXPERIMENT = '''
"""How well does a network learn a sine? Its learning rate and its seed are swept as one population."""
import jax, jax.numpy as jnp, optax
from medjax.iterate import static_partial
from medjax.report.html import Report
from medjax.running.experiment import Result
from medjax.training import fit, population as together, state

TRACED, X = ("rate", "seed"), jnp.linspace(-1, 1, 32)[:, None]

def loss(network, params, batch=None, key=None):
    return jnp.mean((network.apply(params, X) - jnp.sin(3 * X)) ** 2)

def make(network, settings):
    return state.trainer(lambda *arguments: loss(network, *arguments), optax.adam(settings["rate"]))

def population(configs, works, network):
    print(len(configs), "members")
    rates, keys = {"rate": jnp.array([c.rate for c in configs])}, jnp.stack([jax.random.key(c.seed) for c in configs])
    first = together.init(static_partial(make, network), rates, jax.vmap(lambda key: network.init(key, X))(keys), keys)
    done = fit.fit(static_partial(make, network), rates, first, configs[0].steps, inputs=lambda step: None)
    losses = jax.vmap(lambda params: loss(network, params))(done.params)
    return [Result({"loss": float(one)}, Report("A sine")) for one in losses]

def run(config, work, network):
    return population([config], [work], network)[0]
'''
NETWORK = """
import jax, jax.numpy as jnp
from medjax.models.model import Model

def init(key, x):
    weights = jax.random.normal(key, (x.shape[-1], 16))
    return {"in": weights, "bias": jnp.linspace(-1, 1, 16)[None], "out": jnp.zeros((16, 1))}

def apply(params, x, key=None):
    return jnp.tanh(x @ params["in"] + params["bias"]) @ params["out"]

net = Model(init, apply)
"""


@pytest.fixture
def root(make_checkout) -> Path:
    root = make_checkout(CONFIG, EXPERIMENT)
    (root / "mine.py").write_text(NETWORK)
    return root


def medjax(*arguments: str):
    return CliRunner().invoke(cli.app, [*arguments, "--part=network=mine.py:net"], prog_name="medjax")


def test_an_experiment_with_a_network_of_ones_own(root):
    done = medjax("run", "toy", "--workdir=alone", "--config.seed=1")
    assert done.exit_code == 0 and "1 members" in done.stdout, done.stderr
    alone = json.loads((root / "alone" / "metrics.json").read_text())["loss"]
    done = medjax("sweep", "toy", "--over=rate=0.03,0.003", "--over=seed=0..1", "--workdir=all")
    assert done.exit_code == 0 and "4 members" in done.stdout, done.stderr
    with (root / "all" / "sweep.csv").open(newline="") as file:
        losses = {(row["rate"], row["seed"]): float(row["loss"]) for row in csv.DictReader(file)}
    assert losses["0.03", "1"] == pytest.approx(alone, rel=1e-3)
    assert losses["0.03", "0"] < 0.05 < losses["0.003", "0"]  # it learns, and the rate is what was swept


def test_a_changed_file_is_another_run(root):
    assert medjax("run", "toy").exit_code == 0 and "finished already" in medjax("run", "toy").stdout
    (root / "mine.py").write_text(NETWORK.replace("tanh", "sin"))
    assert "finished already" not in medjax("run", "toy").stdout  # a directory of its own: runs/toy-small-HASH
    assert len(list((root / "runs").iterdir())) == 2
    assert medjax("run", "toy", "--workdir=here").exit_code == 0
    (root / "mine.py").write_text(NETWORK)
    done = medjax("run", "toy", "--workdir=here")
    assert done.exit_code == 2 and "here belongs to another config: parts.network.sha256 is" in done.stderr
    assert "since its file was edited; choose another folder" in done.stderr
