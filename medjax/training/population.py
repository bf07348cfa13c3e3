"""A population: members that differ in seeds and traced numbers (learning rate, weights, strengths), trained at once.

    hyper = grid(rate=(1e-3, 3e-3), seed=range(4))               eight members, one compilation
    keys = jax.vmap(jax.random.key)(hyper["seed"])
    step = make_member_step(loss, lambda hyper: optax.adam(hyper["rate"]))
    state = init_population(keys, initialise, optimiser, hyper)
    state = fit_population(keys, step, state, hyper, batches, range(1000), report)

A strategy says how many devices work and how many members each of them vmaps at a time; the program is the same:

    loop    1 device,  1 member         fastest on one CPU: vmapped kernels make grouped convolutions, slow there
    vmap    1 device,  all members      for one accelerator
    shard   n devices, all members / n  for several accelerators; CPU devices take 1 member at a time
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, PyTree, Scalar

from medjax.errors import DataError
from medjax.training.old_state import Info, TrainState, init, make_train_step

Hyper = dict[str, Array]  # name → the member's number; in a population (member,) numbers
Strategy = Literal["loop", "vmap", "shard"]
MemberLoss = Callable[[PyTree, PyTree, PRNGKeyArray, Hyper], Scalar]
MemberStep = Callable[[Hyper, PRNGKeyArray, TrainState, PyTree], tuple[TrainState, Info]]
MEMBER, ALL = PartitionSpec("population"), PartitionSpec()


class Layout(NamedTuple):
    """What a strategy comes to: `devices` side by side, each with `width` members at a time."""

    devices: int
    width: int


class Values(NamedTuple):
    """What is reported: steps made, and each member's mean loss since the last report, NaN if it has stopped."""

    step: int
    loss: Float[np.ndarray, " member"]


def grid(**axes: Sequence[float | int]) -> Hyper:
    """Every combination of the values of each axis, as arrays (member,); the last axis varies fastest."""
    mesh = np.meshgrid(*axes.values(), indexing="ij")
    return {name: jnp.asarray(values.ravel()) for name, values in zip(axes, mesh, strict=True)}


def make_member_step(
    loss: MemberLoss, optimiser: Callable[[Hyper], optax.GradientTransformation], decay: float = 0.999
) -> MemberStep:
    """step(hyper, key, state, batch): `make_train_step` of loss(params, batch, key, hyper) and optimiser(hyper)."""

    def step(hyper: Hyper, key: PRNGKeyArray, state: TrainState, batch: PyTree) -> tuple[TrainState, Info]:
        def own(params: PyTree, batch: PyTree, key: PRNGKeyArray) -> Scalar:
            return loss(params, batch, key, hyper)

        return make_train_step(own, optimiser(hyper), decay)(key, state, batch)

    return step


def init_population(
    keys: Key[Array, " member"],
    initialise: Callable[[PRNGKeyArray], PyTree],
    optimiser: Callable[[Hyper], optax.GradientTransformation],
    hyper: Hyper,
) -> TrainState:
    """The members' states before the first step, every leaf with a first axis of members; initialise(key) → params."""
    return jax.jit(jax.vmap(lambda key, one: init(initialise(key), optimiser(one))))(keys, hyper)


def layout(members: int, strategy: Strategy | None = None) -> Layout:
    """Devices and members a device at a time, for `strategy` or else the backend's default."""
    devices, cpu = len(jax.devices()), jax.default_backend() == "cpu"
    match strategy or ("shard" if devices > 1 else "loop" if cpu else "vmap"):
        case "loop":
            return Layout(1, 1)
        case "vmap":
            return Layout(1, members)
        case _:
            devices = min(devices, members)
            return Layout(devices, 1 if cpu else -(-members // devices))


def fit_population(
    keys: Key[Array, " member"],
    step: MemberStep,
    state: TrainState,
    hyper: Hyper,
    batches: Callable[[int], PyTree] | Sequence[Callable[[int], PyTree]],
    steps: Iterable[int],
    report: Callable[[TrainState, Values], Any],
    every: int = 100,
    strategy: Strategy | None = None,
) -> TrainState:
    """Train every member through `steps`; `batches` is for all members, or a sequence of one a member.

    A member whose loss or gradient is not finite stops there: it keeps its last good state, whose `step` says when, and
    the others go on. States are reported and returned as NumPy arrays, first axis the member; to resume, pass the one
    reported last and the steps that are left.

    Raises:
        DataError: keys, hyper, state and batches are not of equally many members.
    """
    _check(len(keys), hyper, state, batches)
    devices, width = layout(len(keys), strategy)
    mesh = Mesh(np.array(jax.devices()[:devices]), ("population",))
    chunks = _chunks(len(keys), devices * width)
    compiled = _compiled(step, mesh, shared=callable(batches))
    fixed, states = _dealt((hyper, keys), chunks, mesh), _dealt(state, chunks, mesh)
    losses: list[list[Array]] = []
    number = -1

    def told() -> TrainState:
        now = _gathered(states, len(keys))
        mean = np.mean([np.concatenate(one) for one in jax.device_get(losses)], axis=0)[: len(keys)]
        report(now, Values(number + 1, mean))
        losses.clear()
        return now

    for number in steps:
        given = _batch(batches, number, chunks)
        losses.append([])
        for i, batch in enumerate(given):
            states[i], info = compiled(*fixed[i], states[i], number, batch)
            losses[-1].append(info.loss)
        if (number + 1) % every == 0:
            told()
    return told() if losses else _gathered(states, len(keys))


def _compiled(step: MemberStep, mesh: Mesh, shared: bool) -> Callable[..., tuple[TrainState, Info]]:
    def guarded(
        hyper: Hyper, key: PRNGKeyArray, state: TrainState, number: Int[Array, ""], batch: PyTree
    ) -> tuple[TrainState, Info]:
        new, info = step(hyper, key, state, batch)
        good = (state.step == number) & jnp.isfinite(info.loss) & jnp.isfinite(info.gradient_norm)
        kept = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, state)
        return kept, info._replace(loss=jnp.where(good, info.loss, jnp.nan))

    members = jax.vmap(guarded, in_axes=(0, 0, 0, None, None if shared else 0))
    specs = (MEMBER, MEMBER, MEMBER, ALL, ALL if shared else MEMBER)
    program = jax.shard_map(members, mesh=mesh, in_specs=specs, out_specs=MEMBER)
    return jax.jit(program, donate_argnums=2)


def _chunks(members: int, size: int) -> list[Int[np.ndarray, " size"]]:
    """Which members are stepped together; the last chunk is filled up with the last member."""
    filled = np.arange(-(-members // size) * size).reshape(-1, size)
    return list(np.minimum(filled, members - 1))


def _dealt(tree: PyTree, chunks: list[np.ndarray], mesh: Mesh) -> list[PyTree]:
    """Copies of the members of each chunk, placed where they are stepped."""
    place = NamedSharding(mesh, MEMBER)
    return [jax.device_put(jax.tree.map(lambda leaf, chunk=chunk: leaf[chunk], tree), place) for chunk in chunks]


def _gathered(parts: list[PyTree], members: int) -> PyTree:
    """All members on the host: joining them on the devices would take collectives, on which XLA:CPU can block."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:members], *jax.device_get(parts))


def _batch(
    batches: Callable[[int], PyTree] | Sequence[Callable[[int], PyTree]], number: int, chunks: list[np.ndarray]
) -> list[PyTree]:
    """What each chunk is given: the one batch of all, or its members' batches stacked."""
    if callable(batches):
        return [batches(number)] * len(chunks)
    own = [one(number) for one in batches]
    return [jax.tree.map(lambda *leaves: np.stack(leaves), *(own[member] for member in chunk)) for chunk in chunks]


def _check(members: int, hyper: Hyper, state: TrainState, batches: Any) -> None:
    found = {f"hyper['{name}']": len(values) for name, values in hyper.items()} | {"state": len(state.step)}
    found |= {} if callable(batches) else {"batches": len(batches)}
    for name, count in found.items():
        if count != members:
            raise DataError(f"population: {name} has {count} members and keys has {members}; expected equally many")
