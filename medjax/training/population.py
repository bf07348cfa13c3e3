"""Population training: one Algorithm under vmap, its members differing in traced settings (learning rate, seed, …).

    def make(settings):                                              module-level, or an iterate.static_partial
        return trainer(partial(loss, weight=settings["weight"]), optax.adam(settings["rate"]))

    settings = grid(rate=(1e-3, 3e-3), weight=(0.1, 1.0))            four members, one compilation
    state = init(make, settings, params, keys)                       make(settings).init(params, key) of each member
    for state, infos in loop(make, settings, state, 1000, inputs=batches): …

`algorithm(make, settings)` is the population as an Algorithm, for the drivers of `iterate`; `loop` is `iterate.loop` by
a strategy, which says how many devices work and how many members each of them vmaps at a time, its width:

    loop    1 device,  1 member         fastest on one CPU: vmapped kernels make grouped convolutions, slow there
    vmap    1 device,  all members      for one accelerator
    shard   n devices, all members / n  for several accelerators; CPU devices take 1 member at a time

The width may be given, or follows from the memory of an accelerator: `bytes_per_member`. Members may start at
different steps (`stack` makes a population of single states) and make different numbers of steps. `member_groups` of
`layout` tells which train in parallel: a study that trains group after group has its first members early.

A member whose Info is not finite stops there: it keeps its last good state, whose `step` says when, its Info is NaN
from then on, and the others go on; so does one that has made its steps. Devices are those of this process: with several
processes, each has members of its own.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Int, PyTree

from medjax import iterate
from medjax.errors import DataError
from medjax.iterate import Algorithm, static_partial
from medjax.training.layout import device_layout
from medjax.training.parallel import data_parallel, replicate

Make = Callable[[PyTree], Algorithm]  # settings of a member → its Algorithm
Inputs = Callable[[int], PyTree]
MEMBERS = "population"  # name of the mesh axis
MEMBER: Any = PartitionSpec(MEMBERS)  # first axis split over devices
ALL: Any = PartitionSpec()  # copied to every device


class State(NamedTuple):
    """State of a population: the members' states, stacked along a first axis; their first steps; and the steps since.

    A member at step `start + step` still trains; one at an earlier step has stopped.
    """

    members: PyTree  # states of the members
    start: Int[Array | np.ndarray, " member"]  # first step of each member
    step: Int[Array | np.ndarray, ""]  # steps made since


def grid(**axes: Sequence[float | int]) -> dict[str, Array]:
    """Grid of settings: every combination of the values of each axis, as arrays (member,); the last varies fastest."""
    mesh = np.meshgrid(*axes.values(), indexing="ij")
    return {name: jnp.asarray(values.ravel()) for name, values in zip(axes, mesh, strict=True)}


def bytes_per_member(make: Make, settings: PyTree, state: State, *inputs: PyTree) -> int | None:
    """Device memory of a member's training step in bytes, as the compiler estimates it; None where it does not.

    Settings and state are the population's, `inputs` of one member.
    """
    one = jax.tree.map(lambda leaf: leaf[0], settings)
    step = jax.jit(lambda settings, member, *given: make(settings).step(member, *given))
    used = step.lower(one, member(state.members, 0), *inputs).compile().memory_analysis()
    if used is None:
        return None
    return used.temp_size_in_bytes + used.argument_size_in_bytes + used.output_size_in_bytes


def init(make: Make, settings: PyTree, *arguments: PyTree) -> State:
    """Population before its first step: make(settings).init(*arguments) of each member.

    Settings and arguments have a first axis of members.
    """
    return _init(make, settings, *arguments)


def stack(states: Sequence[PyTree]) -> State:
    """Population of single training states, each at a step of its own."""
    members = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *states)
    return State(members, members.step, jnp.zeros((), jnp.int32))


def member(tree: PyTree, number: int) -> PyTree:
    """One member of a tree whose leaves have a first axis of members."""
    return jax.tree.map(lambda leaf: leaf[number], tree)


def algorithm(make: Make, settings: PyTree, shared: bool = True) -> Algorithm:
    """Population as an Algorithm, all members vmapped: init(*arguments) as `init`, step(State, *inputs).

    Inputs are the same for all members if `shared`, else they have a first axis of members. A jitted step is compiled
    once for equal `make`, settings being traced.
    """
    endless = jnp.full(len(jax.tree.leaves(settings)[0]), np.iinfo(np.int32).max)
    return Algorithm(
        Partial(static_partial(init, make), settings), Partial(static_partial(_step, make, shared), settings, endless)
    )


def loop(
    make: Make,
    settings: PyTree,
    state: State,
    n: int | Sequence[int],
    *,
    inputs: Inputs | Sequence[Inputs],
    every: int = 100,
    strategy: str | None = None,
    width: int | None = None,
    progress: Callable[[range], Iterable[int]] = iter,
    save: Callable[[State, int], Any] | None = None,
    mesh: Mesh | None = None,
) -> Iterator[tuple[State, PyTree]]:
    """Training loop of a population: states and Infos (step, member), NumPy, after each `every` steps and the last.

    Args:
        n: number of further steps, of all members or of each.
        inputs: inputs of a member's step k, a function of k for all members, or a sequence of one each.
        strategy, width: see the module; None: the backend's best. Results are equal up to rounding.
        progress: wraps the range of step numbers.
        save: called with state and number of steps before they are yielded, to save a checkpoint.
        mesh: devices among which the batch of one member after the other is divided (`parallel.data_mesh`), in place of
            a strategy.

    Raises:
        ConfigError: there is no such strategy or width.
        DataError: settings, state, steps and inputs are not of equally many members.
    """
    members = len(state.members.step)
    steps = np.broadcast_to(n, members) if np.ndim(n) == 0 else np.asarray(n)
    _check(members, settings, inputs, steps)
    devices, width = device_layout(members, strategy, width) if mesh is None else (1, 1)
    own = Mesh(np.array(jax.local_devices()[:devices]), (MEMBERS,)) if mesh is None else mesh
    chunks = _chunks(members, devices * width)
    start = np.asarray(state.start)
    until = jnp.asarray(start + int(state.step) + steps, jnp.int32)
    one = callable(inputs) and len(set(start.tolist())) == 1
    step = static_partial(_step, make, one) if mesh else static_partial(_sharded_step, make, own, one)
    divide = partial(data_parallel, mesh=mesh, axis=0 if one else 1) if mesh else _as_it_is
    loops = [
        iterate.loop(
            divide(Algorithm(init, Partial(step, _place(settings, chunk, own), _place(until, chunk, own)))),
            State(_place(state.members, chunk, own), _place(state.start, chunk, own), replicate(own, state.step)),
            int(steps.max()),
            inputs=_inputs_of(inputs, start[chunk], chunk, one),
            every=every,
            progress=progress if chunk is chunks[-1] else iter,
            check=_no_check,
            donate=True,
        )
        for chunk in chunks
    ]
    for chunk_states in zip(*loops, strict=True):
        states, infos = zip(*chunk_states, strict=True)
        made = np.asarray(states[0].step)
        now = State(_gather([one.members for one in states], members), start, made)
        if save is not None:
            save(now, int(made))
        yield now, jax.tree.map(lambda *each: np.concatenate(each, axis=1)[:, :members], *infos)


@partial(jax.jit, static_argnums=0)
def _init(make: Make, settings: PyTree, *arguments: PyTree) -> State:
    members = jax.vmap(lambda mine, *own: make(mine).init(*own))(settings, *arguments)
    return State(members, members.step, jnp.zeros((), jnp.int32))


def _step(
    make: Make, shared: bool, settings: PyTree, until: Array, state: State, *inputs: PyTree
) -> tuple[State, PyTree]:
    def guarded(settings: PyTree, until: Any, start: Any, member: PyTree, *inputs: PyTree) -> tuple[PyTree, PyTree]:
        new, info = make(settings).step(member, *inputs)
        good = (member.step == start + state.step) & (member.step < until) & _finite(info)
        kept = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, member)
        return kept, jax.tree.map(lambda x: jnp.where(good, x, jnp.nan) if _is_real(x) else x, info)

    axes = (0, 0, 0, 0, *(None if shared else 0 for _ in inputs))
    members, infos = jax.vmap(guarded, in_axes=axes)(settings, until, state.start, state.members, *inputs)
    return State(members, state.start, jnp.asarray(state.step + 1)), infos


def _sharded_step(
    make: Make, mesh: Mesh, shared: bool, settings: PyTree, until: Array, state: State, inputs: PyTree
) -> tuple[State, PyTree]:
    """`_step` with the members divided among the devices of the mesh, which need nothing of each other."""
    held = State(MEMBER, MEMBER, ALL)
    return jax.shard_map(
        static_partial(_step, make, shared),
        mesh=mesh,
        in_specs=(MEMBER, MEMBER, held, ALL if shared else MEMBER),
        out_specs=(held, MEMBER),
    )(settings, until, state, inputs)


def _is_real(values: Array) -> bool:
    return jnp.issubdtype(values.dtype, jnp.inexact)


def _finite(info: PyTree) -> Bool[Array, ""]:
    good = jnp.array(True)
    for values in filter(_is_real, jax.tree.leaves(info)):
        good &= jnp.all(jnp.isfinite(values))
    return good


def _no_check(state: PyTree, infos: PyTree, step: int) -> None:
    """No check: members that are not finite have stopped already."""


def _chunks(members: int, size: int) -> list[Int[np.ndarray, " size"]]:
    """Chunks of members that are stepped together; the last one is padded with the last member."""
    filled = np.arange(-(-members // size) * size).reshape(-1, size)
    return list(np.minimum(filled, members - 1))


def _as_it_is(algorithm: Algorithm) -> Algorithm:
    return algorithm


def _place(tree: PyTree, chunk: np.ndarray, mesh: Mesh) -> PyTree:
    """Members of a chunk, copied to their devices, or to all of a mesh without members."""
    members = jax.tree.map(lambda leaf: leaf[chunk], tree)
    if MEMBERS not in mesh.axis_names:
        return replicate(mesh, members)
    return jax.device_put(members, NamedSharding(mesh, MEMBER))


def _gather(parts: list[PyTree], members: int) -> PyTree:
    """All members on the host: joining them on the devices would take collectives, on which XLA:CPU can block."""

    def joined(*leaves: Any) -> Any:
        if jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
            data = np.concatenate([jax.device_get(jax.random.key_data(leaf)) for leaf in leaves])
            return jax.random.wrap_key_data(jnp.asarray(data[:members]), impl=jax.random.key_impl(leaves[0]))
        return np.concatenate(jax.device_get(leaves))[:members]

    return jax.tree.map(joined, *parts)


def _inputs_of(inputs: Inputs | Sequence[Inputs], start: np.ndarray, chunk: np.ndarray, one: bool) -> Inputs:
    """Inputs of a chunk by the population's step: the `one` input of all, or its members' inputs stacked."""
    if one and callable(inputs):
        return lambda number: inputs(int(start[0]) + number)
    own = [inputs if callable(inputs) else inputs[member] for member in chunk]

    def stacked(number: int) -> PyTree:
        given = [function(first + number) for function, first in zip(own, start.tolist(), strict=True)]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *given)

    return stacked


def _check(members: int, settings: PyTree, inputs: Any, steps: np.ndarray) -> None:
    named = jax.tree_util.tree_leaves_with_path(settings)
    found = {f"settings{jax.tree_util.keystr(path)}": len(values) for path, values in named} | {"n": len(steps)}
    found |= {} if callable(inputs) else {"inputs": len(inputs)}
    for name, count in found.items():
        if count != members:
            raise DataError(f"population: {name} has {count} members and state has {members}; expected equally many")
