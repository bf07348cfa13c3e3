"""Data-parallel training: the examples of a batch divided among the devices of a mesh, of one process or several.

    mesh = data_mesh()                                          all devices of all processes, axis `data`
    algorithm = data_parallel(trainer(loss, optimizer), mesh)   any training algorithm; the compiler adds collectives
    state = replicate(mesh, algorithm.init(params, key))
    for state, infos in iterate.loop(algorithm, state, steps, inputs=batches): …

The step stays as it was written for one device: sums over the batch (the mean loss, a batch's Dice, the groups of
GroupDRO) are over all devices, and random numbers are those of one device, so that results are equal up to rounding.
With several processes, `jax.distributed.initialize` comes first, and `inputs` gives every process the whole batch, of
which its devices take their part. `nnunet.train_fold`, `labels.audit`, `labels.population`, `population.loop`,
`fit.fit` and `study.train` take the mesh; commands that train have --devices.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial
from jaxtyping import PyTree

from medjax.errors import ConfigError, DataError, pluralize
from medjax.iterate import Algorithm, StaticPartial, static_partial

AXIS = "data"  # name of the mesh axis that examples are divided along


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Mesh of these devices, or of all devices of all processes, with the axis `data`."""
    chosen = jax.devices() if devices is None else list(devices)
    return jax.make_mesh((len(chosen),), (AXIS,), devices=chosen, axis_types=(AxisType.Auto,))


def mesh_for_batches(devices: int, batch: int) -> Mesh | None:
    """Mesh of the first so many devices (the option --devices), for batches of this size; None for one device.

    Raises:
        ConfigError: there are not so many, or the batch cannot be divided among them.
    """
    if devices == 1:
        return None
    if not 1 <= devices <= jax.device_count():
        seen = pluralize(jax.device_count(), "device")
        raise ConfigError(f"--devices {devices}; expected 1 to the number of devices: JAX sees {seen} here")
    if batch % devices:
        raise ConfigError(
            f"--devices {devices}: batches of {batch} examples; expected a number of devices that divides it"
        )
    return data_mesh(jax.devices()[:devices])


def replicate(mesh: Mesh, tree: PyTree) -> PyTree:
    """The arrays of a tree, equal in every process, copied to every device of the mesh."""

    def copied(leaf: Any) -> jax.Array:
        if jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key):
            words = copied(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, NamedSharding(mesh, PartitionSpec()), lambda part: host[part])

    return jax.tree.map(copied, tree)


def data_parallel(algorithm: Algorithm, mesh: Mesh, axis: int = 0) -> Algorithm:
    """The training algorithm with the batch of each step divided among the devices, along this axis of every array.

    States and Infos are copied to all devices.

    Raises:
        DataError: (at the first step) the number of examples is no multiple of the number of devices, or the mesh has
            no axis `data`.
    """
    if AXIS not in mesh.axis_names:
        raise DataError(f"mesh: axes {', '.join(map(str, mesh.axis_names))}; expected an axis {AXIS}")
    step = algorithm.step if isinstance(algorithm.step, Partial | StaticPartial) else Partial(algorithm.step)
    return Algorithm(algorithm.init, Partial(static_partial(_step, mesh, axis), step))


def on_mesh(mesh: Mesh | None, algorithm: Algorithm, state: PyTree) -> tuple[Algorithm, PyTree]:
    """Training algorithm and state on a mesh; without one as they are."""
    return (algorithm, state) if mesh is None else (data_parallel(algorithm, mesh), replicate(mesh, state))


def _step(mesh: Mesh, axis: int, step: Any, state: PyTree, *inputs: PyTree) -> tuple[PyTree, PyTree]:
    number = mesh.shape[AXIS]

    def divided(leaf: Any) -> Any:
        if leaf.shape[axis] % number:
            raise DataError(f"batch: {leaf.shape[axis]} examples on {number} devices; expected a multiple")
        spec = PartitionSpec(*(None,) * axis, AXIS)
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))

    def everywhere(tree: PyTree) -> PyTree:
        same = NamedSharding(mesh, PartitionSpec())
        return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, same), tree)

    return everywhere(step(everywhere(state), *jax.tree.map(divided, inputs)))
