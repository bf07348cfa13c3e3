"""Cost of a traced program (a jaxpr): loops, bytes that it moves, and bytes that are alive at once.

    closed = jax.jit(step).trace(*arguments).jaxpr
    moved, peak = bytes_and_peak(closed, turns=1)

A jaxpr is read in its order, with the programs within it: `scan` counts its body as often as it runs, a loop whose end
depends on data `turns` times, a `cond` its most expensive branch, and what depends on the platform its branch for CUDA.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

ALIASES = {"reshape", "squeeze", "expand_dims", "stop_gradient", "copy", "optimization_barrier", "sharding_constraint"}
FREE = {"broadcast_in_dim", "iota", "random_wrap", "random_unwrap", "random_seed", "random_fold_in"}  # computed anew
UNFUSED = (  # starts of the names of what XLA gives kernels of their own
    "dot_general", "conv_general", "reduce", "arg", "gather", "scatter", "sort", "top_k", "cum", "fft", "dynamic_",
    "concatenate", "rev", "select_and", "triangular", "cholesky", "eigh", "lu", "qr", "svd", "custom_call",
    "ragged_dot", "pure_callback",
)  # fmt: skip


class Inner(NamedTuple):
    """Program within an equation, and how often it runs."""

    closed: ClosedJaxpr
    turns: int


def size_of(value: Any) -> int:
    """Bytes of an array, abstract or not; a random key has those of its words."""
    value = getattr(value, "aval", value)
    if not hasattr(value, "shape"):
        return np.asarray(value).nbytes
    dtype = value.dtype
    if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        return int(np.prod(value.shape)) * 8  # two words of 32 bits, JAX's default
    return int(np.prod(value.shape)) * dtype.itemsize


def scan_flops(closed: ClosedJaxpr, flops: Callable[[ClosedJaxpr], float], turns: int) -> float:
    """FLOPs of all turns of all loops but the first, which `flops`, the count of one program, has already."""
    more = 0.0
    for equation in closed.jaxpr.eqns:
        each = []
        for inner in inner_programs(equation, turns):
            nested = scan_flops(inner.closed, flops, turns)
            again = (inner.turns - 1) * flops(inner.closed) if inner.turns > 1 else 0.0
            each.append(again + inner.turns * nested)
        more += (max if equation.primitive.name == "cond" else sum)(each) if each else 0.0
    return more


def inner_programs(equation: JaxprEqn, turns: int) -> list[Inner]:
    """Programs within an equation: the body of a loop, the branches of a `cond`, what a call calls."""
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        return [Inner(params["jaxpr"], int(params["length"]))]
    if name == "while":
        return [Inner(params["body_jaxpr"], turns)]
    if name == "cond":
        platforms = params.get("branches_platforms") or [None] * len(params["branches"])
        of_cuda = [named is None or "cuda" in named for named in platforms]
        return [Inner(_closed(one), 1) for one, there in zip(params["branches"], of_cuda, strict=True) if there]
    if name == "custom_linear_solve":
        return [Inner(_closed(params["jaxprs"].solve), 1)]
    if name.startswith(("scatter", "reduce", "select_and")):  # what combines two numbers
        return []
    own = [params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params]
    return [Inner(_closed(one), 1) for one in own[:1]]


def bytes_and_peak(closed: ClosedJaxpr, turns: int) -> tuple[float, int]:
    """Bytes that a program moves, and the most bytes of its values alive at once, without its arguments."""
    return _moved(closed.jaxpr, turns), _peak(closed.jaxpr, turns)


def _closed(program: Jaxpr | ClosedJaxpr) -> ClosedJaxpr:
    return program if isinstance(program, ClosedJaxpr) else ClosedJaxpr(program, ())


def _is_unfused(equation: JaxprEqn) -> bool:
    return equation.primitive.name.startswith(UNFUSED)


def _moved(jaxpr: Jaxpr, turns: int) -> float:
    """Bytes moved by the equations of a program, and by elementwise chains that end in its results."""
    total, stored, read = 0.0, {*jaxpr.invars, *jaxpr.constvars}, set[Var]()
    origin = dict[Var, Var]()  # of a reshaped value
    for equation in jaxpr.eqns:
        operands = [origin.get(var, var) for var in _variables(equation)]
        inside = [one.turns * _moved(one.closed.jaxpr, turns) for one in inner_programs(equation, turns)]
        if inside:
            total += (max if equation.primitive.name == "cond" else sum)(inside)
            stored.update(equation.outvars)
        elif equation.primitive.name in ALIASES and operands:
            origin[equation.outvars[0]] = operands[0]
        elif _is_unfused(equation):
            reduction = equation.primitive.name.startswith(("reduce", "arg"))
            for var in operands:  # an elementwise chain ends here, or is fused into a reduction
                fused = var not in stored and not reduction
                total += size_of(var) * (2 if fused else 1)
                stored.update([var] if fused else [])
            total += sum(size_of(var) for var in equation.outvars)
            stored.update(equation.outvars)
        elif equation.primitive.name not in FREE:
            new = {var for var in operands if var in stored} - read
            total += sum(size_of(var) for var in new)
            read |= new
    return total + sum(size_of(var) for var in jaxpr.outvars if isinstance(var, Literal) or var not in stored)


def _peak(jaxpr: Jaxpr, turns: int) -> int:
    """Most bytes of values of this program alive at once; its arguments are its caller's."""
    root = dict[Var, Var]()
    for equation in jaxpr.eqns:
        if equation.primitive.name in ALIASES and (operands := list(_variables(equation))):
            root[equation.outvars[0]] = root.get(operands[0], operands[0])
    last = dict[Var, int]()
    for number, equation in enumerate(jaxpr.eqns):
        last |= {root.get(var, var): number for var in _variables(equation)}
    last |= {root.get(var, var): len(jaxpr.eqns) for var in jaxpr.outvars if isinstance(var, Var)}
    alive, peak = dict[Var, int](), 0
    for number, equation in enumerate(jaxpr.eqns):
        fresh = {var: size_of(var) for var in equation.outvars if var not in root}
        if equation.primitive.name in FREE:
            fresh = dict.fromkeys(fresh, 0)
        inside = [_inside(equation, one, turns) for one in inner_programs(equation, turns)]
        peak = max(peak, sum(alive.values()) + max([sum(fresh.values()), *inside]))
        alive |= {var: size for var, size in fresh.items() if last.get(var, -1) > number}
        for var in {root.get(var, var) for var in _variables(equation)}:
            if last[var] == number:
                alive.pop(var, None)
    return peak


def _inside(equation: JaxprEqn, inner: Inner, turns: int) -> int:
    """Bytes alive within an equation: of a loop also what its turns stack, and what one takes from the stack."""
    peak = _peak(inner.closed.jaxpr, turns)
    if equation.primitive.name not in ("scan", "while"):
        return peak
    constants = equation.params.get("num_consts", equation.params.get("body_nconsts", 0))
    own = sum(size_of(var) for var in inner.closed.jaxpr.invars[constants:])
    return peak + own + sum(size_of(var) for var in equation.outvars)


def _variables(equation: JaxprEqn) -> Iterator[Var]:
    """Operands that are no literals."""
    return (var for var in equation.invars if not isinstance(var, Literal))
