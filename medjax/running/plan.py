"""Plan of a run: what each of its stages needs, counted before anything starts and without allocating anything.

    medjax run label_flips:paper --plan

An experiment that can be planned has `plan(config) -> list[Stage]`; a Stage is one step (of training, or the
reconstruction of a few scans) as a function of abstract arguments, and the number of them. Its cost is counted in the
program that JAX traces:

    FLOPs        XLA's count of the step lowered for CUDA. XLA counts the body of a loop once, so a `scan` adds the
                 cost of its body for every further turn; a loop whose end depends on data takes `Stage.turns`.
    bytes        what operations that XLA does not fuse (products, convolutions, reductions, gathers) read and write,
                 and elementwise chains where they begin and end.
    activations  the most that is alive at once in the order of the program: residuals of the gradient as JAX saves
                 them, and those alone where the network recomputes others (`jax.checkpoint`), which the memory
                 analysis of a CPU program does not show.
"""

from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from medjax.errors import ConfigError
from medjax.report.html import Table
from medjax.report.terminal import print_table
from medjax.running.checkout import announce_run, experiment_file, find_root
from medjax.running.config import load_config
from medjax.running.modules import load_module
from medjax.running.parts import load_parts
from medjax.running.program_cost import bytes_and_peak, scan_flops, size_of

PEAK_FLOPS, FLOPS_FRACTION = 67e12, 0.4  # of one H100 (SXM): float32 without tensor cores, per second
PEAK_BYTES, BYTES_FRACTION = 3.35e12, 0.6  # of its memory, per second
PyTree = Any


class Stage(NamedTuple):
    """Stage of a run: a step as a function of abstract arguments, and the number of such steps."""

    name: str
    step: Callable[..., Any]
    arguments: tuple[PyTree, ...]  # of jax.ShapeDtypeStruct, as `jax.eval_shape` gives them, or arrays
    number: int  # of steps
    turns: int = 1  # of each loop whose end depends on data


class StageCost(NamedTuple):
    """Cost of a stage: of one step, and memory in bytes."""

    name: str
    number: int  # of steps
    flops: float  # of one step
    bytes: float  # of one step
    parameters: int  # bytes of parameters and their moving average
    optimizer: int  # bytes of the optimizer's state
    data: int  # bytes of the other arguments, and of the constants of the program
    activations: int  # bytes alive at once

    @property
    def memory(self) -> int:
        """Bytes of everything that one step holds."""
        return self.parameters + self.optimizer + self.data + self.activations

    @property
    def hours(self) -> float:
        """Hours on one H100 by the slower of arithmetic and memory (roofline), at fractions of their peaks."""
        step = max(self.flops / (PEAK_FLOPS * FLOPS_FRACTION), self.bytes / (PEAK_BYTES * BYTES_FRACTION))
        return self.number * step / 3600


def plan_experiment(
    name: str,
    preset: str = "small",
    overrides: Sequence[str] = (),
    root: Path | None = None,
    config_file: Path | None = None,
    parts: Sequence[str] = (),
) -> list[StageCost]:
    """Print what a run needs, stage by stage, without starting it; arguments as of `run_experiment`.

    Raises:
        MedjaxError: no such experiment, preset, key or part, or the experiment cannot be planned.
    """
    root = find_root(root, name)
    config = load_config(config_file or root / "configs" / f"{name}.py", preset, overrides)
    loaded = load_parts(parts)
    announce_run(root, name, config_file)
    module = load_module(experiment_file(root, name), f"experiments.{name}")
    if not hasattr(module, "plan"):
        raise ConfigError(f"{name} cannot be planned: it has no plan(config) -> list of stages; run it without --plan")
    known = list(signature(module.plan).parameters)[1:]
    for part in loaded:
        if part not in known:
            raise ConfigError(f"--plan of {name} does not take --part {part}; expected {' or '.join(known) or 'none'}")
    stages = module.plan(config, **{keyword: part.value for keyword, part in loaded.items()})
    costs = [cost_of(stage) for stage in stages]
    print_table(cost_table(costs))
    print(f"\n{assumptions(costs)}")
    return costs


def cost_of(stage: Stage) -> StageCost:
    """Cost of a stage, counted in the program of one step; nothing is compiled, allocated or run."""
    traced = jax.jit(stage.step).trace(*stage.arguments)
    closed: ClosedJaxpr = traced.jaxpr
    moved, peak = bytes_and_peak(closed, stage.turns)
    parameters, optimizer, data = _argument_sizes(stage.arguments)
    constants = sum(size_of(constant) for constant in closed.consts)
    flops = program_flops(closed) + scan_flops(closed, program_flops, stage.turns)
    return StageCost(stage.name, stage.number, flops, moved, parameters, optimizer, data + constants, peak)


def program_flops(closed: ClosedJaxpr) -> float:
    """XLA's FLOPs of a program lowered for CUDA; the body of a loop counts once, as XLA counts it."""
    lowered = jax.jit(jaxpr_as_fun(closed)).trace(*closed.in_avals).lower(lowering_platforms=("cuda",))
    return float((lowered.cost_analysis() or {}).get("flops", 0.0))


def training_stage(
    name: str, algorithm: Any, init: Callable[..., PyTree], examples: PyTree, batch: PyTree, number: int
) -> Stage:
    """Stage of `number` training steps of an Algorithm.

    Args:
        name: name of the stage.
        algorithm: training algorithm, init(params, key) and step(state, batch).
        init: (key, *examples) → parameters.
        examples: abstract inputs of the network.
        batch: abstract batch of a step.
        number: number of steps.
    """
    key = abstract(jax.random.key, 0)
    state = abstract(algorithm.init, abstract(init, key, *examples), key)
    return Stage(name, algorithm.step, (state, batch), number)


def abstract(function: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
    """Shapes and types of what a function returns; arguments may be abstract."""
    return jax.eval_shape(function, *arguments)


def array(*shape: int, dtype: Any = jnp.float32) -> Any:
    """An abstract array."""
    return jax.ShapeDtypeStruct(shape, dtype)


def cost_table(costs: Sequence[StageCost]) -> Table:
    """Table of the stages: numbers of steps, what one needs, and hours."""
    header = ("stage", "steps", "GFLOP/step", "GB/step", "parameters MB", "optimizer MB", "activations MB", "memory MB")
    rows = [
        [
            one.name, one.number, _short(one.flops / 1e9), _short(one.bytes / 1e9), _short(one.parameters / 1e6),
            _short(one.optimizer / 1e6), _short(one.activations / 1e6), _short(one.memory / 1e6), _short(one.hours),
        ]
        for one in costs
    ]  # fmt: skip
    return Table((*header, "H100 hours"), rows)


def assumptions(costs: Sequence[StageCost]) -> str:
    """Totals of a plan, and what its hours assume."""
    flops, moved = sum(one.number * one.flops for one in costs), sum(one.number * one.bytes for one in costs)
    return (
        f"In all {flops:.3g} FLOPs, {moved:.3g} bytes, {sum(one.hours for one in costs):.3g} hours on one H100; the "
        f"largest stage needs {max((one.memory for one in costs), default=0) / 2**30:.2g} GiB.\n"
        f"Hours: {FLOPS_FRACTION:.0%} of {PEAK_FLOPS / 1e12:g} TFLOP/s (float32, no tensor cores) or "
        f"{BYTES_FRACTION:.0%} of {PEAK_BYTES / 1e12:g} TB/s, whichever is slower; networks one at a "
        "time, without reading or drawing data, evaluation on the processor, or compilation. Nothing has been started."
    )


def _argument_sizes(arguments: tuple[PyTree, ...]) -> tuple[int, int, int]:
    """Bytes of parameters, optimizer state and other data: a training state has `params` and `opt_state`."""
    parameters = optimizer = data = 0
    for one in jax.tree.leaves(arguments, is_leaf=lambda tree: hasattr(tree, "opt_state")):
        if not hasattr(one, "opt_state"):
            data += size_of(one)
            continue
        optimizer += _total(one.opt_state)
        parameters += _total((one.params, getattr(one, "ema_params", ())))
    return parameters, optimizer, data


def _total(tree: PyTree) -> int:
    return sum(size_of(leaf) for leaf in jax.tree.leaves(tree))


def _short(value: float) -> str:
    """Three significant digits, thousands separated."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
