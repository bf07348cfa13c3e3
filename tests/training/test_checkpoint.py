"""Checkpoints: a resumed run is the run, bit for bit; a killed writer leaves the last whole one."""

import signal
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax import iterate
from medjax.errors import WorkdirError
from medjax.training.checkpoint import restore, save
from medjax.training.early_stopping import BestState
from medjax.training.state import trainer

KEY = jax.random.key(3)


def loss(params, batch, key):
    return jnp.mean((params["w"] * batch - 3 + jax.random.normal(key, batch.shape)) ** 2)


def batches(number):
    return np.random.default_rng(number).normal(size=4).astype(np.float32)


def start(key=KEY):
    return trainer(loss, optax.adam(0.1)).init({"w": jnp.ones(4), "half": jnp.ones(3, jnp.bfloat16)}, key)


def trained(state, n):
    return iterate.last(iterate.loop(trainer(loss, optax.adam(0.1)), state, n, inputs=batches), state)


def test_ten_steps_are_five_and_five_after_a_restart(tmp_path):
    whole, half = trained(start(), 10), trained(start(), 5)
    best = BestState(half, 1 / 3)
    save(tmp_path / "c", 5, {"state": half, "best": best})
    other = start(jax.random.key(0))
    number, found = restore(tmp_path / "c", {"state": other, "best": BestState(other, 0.0)})
    assert (number, found["best"].loss) == (5, 1 / 3)
    assert found["state"].key == KEY and found["state"].key.dtype == KEY.dtype
    chex.assert_trees_all_equal(found["best"].state, half)
    chex.assert_trees_all_equal(trained(found["state"], 5), whole)


def test_the_last_ones_are_kept(tmp_path):
    for step in (1, 2, 3, 4):
        save(tmp_path, step, {"a": jnp.full(2, step)}, keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3", "4"]
    step, tree = restore(tmp_path, {"a": jnp.zeros(2, int)})
    assert (step, tree["a"].tolist()) == (4, [4, 4])
    with pytest.raises(WorkdirError, match="holds step 4, so step 4 cannot follow"):
        save(tmp_path, 4, {"a": jnp.zeros(2)})


def test_a_new_run_has_none_and_another_structure_is_refused(tmp_path):
    assert restore(tmp_path / "none", {"a": jnp.zeros(2)}) is None
    assert restore(tmp_path, {"a": jnp.zeros(2)}) is None
    save(tmp_path, 1, {"a": jnp.zeros(2)})
    for like in ({"a": jnp.zeros(3)}, {"b": jnp.zeros(2)}, {"a": jnp.zeros(2), "b": jnp.zeros(2)}):
        with pytest.raises(WorkdirError, match=r"1 is damaged or holds other arrays than this code expects: [^\n]*$"):
            restore(tmp_path, like)


CHILD = """
import os, signal, sys
from pathlib import Path
import jax.numpy as jnp
from medjax.training.checkpoint import save

folder, moment = Path(sys.argv[1]), sys.argv[2]
save(folder, 5, {"a": jnp.full(1000, 5.0)})

def kill(event, arguments):
    if event in ("open", "os.rename") and any(str(one).endswith(moment) for one in arguments[:2]):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
save(folder, 10, {"a": jnp.full(1000, 10.0)})
"""


@pytest.mark.parametrize("moment", ["/_METADATA", "/10"])  # before anything is whole; at the last rename
def test_a_writer_killed_at_any_moment_leaves_the_last_good_one(tmp_path, moment):
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", CHILD, tmp_path, moment], cwd=root, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert any(path.name.startswith("10.") for path in tmp_path.iterdir())  # it had begun
    step, tree = restore(tmp_path, {"a": jnp.zeros(1000)})
    assert step == 5
    np.testing.assert_array_equal(tree["a"], 5.0)
    save(tmp_path, 10, {"a": jnp.full(1000, 10.0)})
    assert restore(tmp_path, {"a": jnp.zeros(1000)})[0] == 10
