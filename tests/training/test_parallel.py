"""Batches divided among devices: as one device, what cannot be divided, and the comparison of devices and processes."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.iterate import Algorithm
from medjax.training import parallel

ROOT = Path(__file__).parents[2]


def run(*command: str, flags: str = "") -> str:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}"}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_training_on_four_devices_is_that_on_one():
    said = run("-m", "tests.training.data_parallel", flags="--xla_force_host_platform_device_count=4")
    assert "4 devices: the same" in said


@pytest.mark.slow  # ten compilations of a training step
def test_what_commands_train_on_two_devices_is_what_they_train_on_one(tmp_path):
    flags = "--xla_force_host_platform_device_count=2"
    assert run("-m", "tests.training.trainings_on_devices", str(tmp_path), flags=flags).count(": the same") == 6


@pytest.mark.slow  # nine compilations of a training step; tests/pet/test_sharded_projection.py has two processes
def test_eight_devices_and_two_processes_are_one_device_and_a_checkpoint_of_two_is_read_by_one():
    said = run("scripts/compare_devices.py")
    assert said.count("training") == said.count("reconstruction") == 3
    assert "read by one: equal bit for bit" in said


def test_a_mesh_of_other_axes_is_refused():
    algorithm = Algorithm(lambda: jnp.zeros(()), lambda state, batch: (state + jnp.sum(batch), state))
    views = jax.make_mesh((1,), ("view",), axis_types=(jax.sharding.AxisType.Auto,))
    with pytest.raises(DataError, match="axes view; expected an axis data"):
        parallel.data_parallel(algorithm, views)


def test_what_is_replicated_keeps_its_values_and_keys():
    mesh = parallel.data_mesh()
    tree = {"key": jax.random.key(3), "step": jnp.int32(5), "values": np.arange(4.0, dtype=np.float32)}
    copied = parallel.replicate(mesh, tree)
    assert jnp.array_equal(jax.random.key_data(copied["key"]), jax.random.key_data(tree["key"]))
    assert int(copied["step"]) == 5
    assert np.array_equal(copied["values"], tree["values"])
    algorithm = Algorithm(lambda: 0, lambda state, batch: (state, batch))
    assert parallel.on_mesh(None, algorithm, tree) == (algorithm, tree)
