"""Iterative algorithms (init, step), and the drivers that run them: scan, repeat, loop.

    step(algorithm, state)         one step, jitted: the program that `loop` runs, to the bit
    scan(algorithm, state, n)      n steps by `lax.scan`, Info stacked; n is static
    repeat(algorithm, state, n)    n steps without Info; n may be traced
    loop(algorithm, state, n)      a generator on the host: inputs read from disk, progress, finite checks, checkpoints

    init(…)               → State             what the next step needs; `state.step` counts the steps made
    step(State, *inputs)  → State, Info       Info is what a reader wants to see

A State is all that a method needs to continue: from a saved one it resumes. A random method keeps its key in the State
and draws step n with `fold_in(key, n)`, so that a resumed run is the run that was not interrupted.

Where a method's data are arrays, init and step are `jax.tree_util.Partial`s of module-level functions. The pair is then
a pytree: it can be an argument of `jit`, and a sweep over a hyper-parameter is one line,

    jax.vmap(lambda beta: scan(em.map_em(stacked, penalty, beta), state, n))(betas)

On a CPU the gradient of a convolution runs many times slower inside `scan` and `repeat` than in `loop`. `jax.jit` of
`algorithm.step` itself makes its data constants of the program: the same numbers, to rounding.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Int, PyTree

from medjax.errors import DataError


class Algorithm(NamedTuple):
    """An iterative algorithm: two pure functions, init and step."""

    init: Callable[..., Any]
    step: Callable[..., tuple[Any, Any]]


@jax.tree_util.register_static
@dataclass(frozen=True)
class StaticPartial:
    """A `functools.partial` of hashable arguments that equals another one built equally.

    `jit` reuses what it compiled for an equal one, so a step made of a network and settings is compiled once.
    """

    function: Callable[..., Any]
    arguments: tuple[Hashable, ...] = ()
    keywords: tuple[tuple[str, Hashable], ...] = ()

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """function(*self.arguments, *arguments, …)."""
        return self.function(*self.arguments, *arguments, **dict(self.keywords), **keywords)


def static_partial(function: Callable[..., Any], *arguments: Hashable, **keywords: Hashable) -> StaticPartial:
    """Bind hashable arguments to a function: see `StaticPartial`."""
    return StaticPartial(function, arguments, tuple(sorted(keywords.items())))


def step(algorithm: Algorithm, state: PyTree, *inputs: PyTree) -> tuple[PyTree, PyTree]:
    """One jitted step, (State, Info); equal steps are compiled once, and their data are arguments of the program."""
    return _jitted(_as_pytree(algorithm.step), state, *inputs)


def scan(algorithm: Algorithm, state: PyTree, n: int, inputs: PyTree = None) -> tuple[PyTree, PyTree]:
    """Run `n` steps by `lax.scan`: the last State, and the Info of each step, stacked.

    `inputs`, if there are any, have a leading axis of `n`: step k gets the k-th of them.
    """

    def body(state: PyTree, own: PyTree) -> tuple[PyTree, PyTree]:
        return algorithm.step(state, *(() if inputs is None else (own,)))

    return jax.lax.scan(body, state, inputs, length=n)


def repeat(algorithm: Algorithm, state: PyTree, n: int | Int[Array, ""]) -> PyTree:
    """Run `n` steps: the last State; `n` may be traced, so that it can be tuned without compiling anew."""
    return jax.lax.fori_loop(0, n, lambda _, state: algorithm.step(state)[0], state)


def require_finite(state: PyTree, info: PyTree, step: int) -> None:
    """Check that a State is finite and that an Info has no NaN.

    Raises:
        DataError: it is not; the message has the name of the value and the step.
    """
    bad = [
        *_names_of(state, jax.device_get(_finite(state))),
        *_names_of(info, [not _holds_nan(x) for x in _leaves(info)]),
    ]
    if bad:
        raise DataError(f"{', '.join(bad[:3])} not finite by step {step}")


def loop(
    algorithm: Algorithm,
    state: PyTree,
    n: int,
    *,
    inputs: Callable[[int], PyTree] | None = None,
    every: int = 1,
    progress: Callable[[range], Iterable[int]] = iter,
    check: Callable[[PyTree, PyTree, int], None] = require_finite,
    save: Callable[[PyTree, int], Any] | None = None,
    donate: bool = False,
) -> Iterator[tuple[PyTree, PyTree]]:
    """Run `n` steps on the host: yields the State and stacked Infos (NumPy) each `every` steps and after the last.

    Args:
        inputs: number of a step → its inputs; numbers continue from `state.step`.
        progress: wraps the range of step numbers, such as `running.progress.track`.
        check: is called with state, Infos and the number of steps made before they are yielded, and raises.
        save: is called with the state and the number of steps made after that, to keep a checkpoint.
        donate: a step reuses the memory of the state before it: a yielded state is invalid after the next step.
            Copy what you keep of it.

    Raises:
        DataError: `every` is below 1, or `check` fails: the state that was yielded or saved last is then good.
    """
    if every < 1:
        raise DataError(f"every: {every}; expected 1 or more steps")
    first = int(state.step)
    step = _as_pytree(algorithm.step)
    run = _donating if donate else _jitted
    if donate:
        state = jax.tree.map(jnp.array, state)
    infos: list[PyTree] = []
    for number in progress(range(first, first + n)):
        state, info = run(step, state, *(() if inputs is None else (inputs(number),)))
        infos.append(info)
        made = number + 1
        if made % every == 0 or made == first + n:
            rows = jax.tree.map(lambda *each: np.stack(each), *jax.device_get(infos))
            infos.clear()
            check(state, rows, made)
            if save is not None:
                save(state, made)
            yield state, rows


def last(states: Iterable[tuple[PyTree, PyTree]], state: PyTree) -> PyTree:
    """Last State that a `loop` yields; `state` if it makes no step."""
    for reached, _ in states:
        state = reached
    return state


def _as_pytree(function: Callable[..., Any]) -> Callable[..., Any]:
    return function if isinstance(function, Partial | StaticPartial) else Partial(function)


def _call(step: Callable[..., Any], state: PyTree, *inputs: PyTree) -> tuple[PyTree, PyTree]:
    return step(state, *inputs)


_jitted = jax.jit(_call)
_donating = jax.jit(_call, donate_argnums=1)


def _leaves(tree: PyTree) -> list[Any]:
    return jax.tree.leaves(tree)


@jax.jit
def _finite(tree: PyTree) -> list[Any]:
    """Whether each leaf is; keys and whole numbers are."""
    return [
        jnp.all(jnp.isfinite(x)) if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.array(True) for x in _leaves(tree)
    ]


def _holds_nan(values: Any) -> bool:
    return np.issubdtype(values.dtype, np.inexact) and bool(np.isnan(values).any())


def _names_of(tree: PyTree, good: Iterable[Any]) -> list[str]:
    """Names of the leaves that are not good."""
    named = jax.tree_util.tree_leaves_with_path(tree)
    return [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for (path, _), fine in zip(named, good, strict=True)
        if not fine
    ]
