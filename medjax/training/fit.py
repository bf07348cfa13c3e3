"""Training of a population to its end, with early stopping, checkpoints and a report of every member.

    for part in member_groups(len(seeds), strategy, width):             members that train in parallel
        state = init(make, member(settings, part), params, keys)             of those members
        done = fit(make, member(settings, part), state, 1000, inputs=…, every=100, checkpoints=folder)
        done.params, done.diverged                                           a first axis of members

With `validate` each member keeps the parameters of its lowest validation loss and stops `patience` steps after them,
as `early_stopping` does for one training. A run that was stopped resumes from `checkpoints`, with the same numbers.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int, PyTree

from medjax.training import population
from medjax.training.checkpoint import restore, save
from medjax.training.population import Inputs, Make, State

CHECKPOINT_SECONDS = 60.0  # between checkpoints, so that saving takes a negligible part of the time
Report = Callable[..., Any]  # (member, step, infos, **values)
Validate = Callable[[PyTree, int], float | Mapping[str, float]]


class FitResult(NamedTuple):
    """Trained population; every leaf but those of `state.step` has a first axis of members."""

    state: State  # training state after each member's last step
    params: PyTree  # the best ones with `validate`, else the last
    losses: Float[np.ndarray, " member"]  # lowest validation loss; NaN without `validate`
    diverged: Bool[np.ndarray, " member"]  # a loss was not finite


def fit(
    make: Make,
    settings: PyTree,
    state: State,
    n: int | Sequence[int],
    *,
    inputs: Inputs | Sequence[Inputs],
    every: int = 100,
    strategy: str | None = None,
    width: int | None = None,
    validate: Validate | None = None,
    patience: int | None = None,
    checkpoints: Path | None = None,
    seconds: float = CHECKPOINT_SECONDS,
    report: Report = lambda member, step, infos, **values: None,
    begin: Callable[[Int[np.ndarray, " member"]], Any] = lambda steps: None,
    progress: Callable[[range], Iterable[int]] = iter,
    mesh: Mesh | None = None,
) -> FitResult:
    """Trained population after `n` steps, of all members or of each; other arguments as those of `population.loop`.

    Args:
        state: state before the first step, TrainStates as members; a checkpoint in `checkpoints` takes its place.
        validate: (params, number of the member) → validation loss, or values to report with it as `validation`;
            called every `every` steps.
        patience: steps without a lower validation loss after which a member stops; None: it does not.
        checkpoints: a folder for these members alone, where a checkpoint is kept every `seconds`.
        report: is called for every member that goes on, every `every` steps, with its number, its step, its Infos
            (step,), and what `validate` gives, where there is one.
        begin: is called once with the members' steps before the first step of this process, so that what a killed run
            reported after its last checkpoint can be dropped.

    Raises:
        DataError, ConfigError, WorkdirError: as `population.loop` and `checkpoint.restore`.
    """
    members = len(state.members.step)
    steps = np.array(np.broadcast_to(n, members))
    run = _Run(state, state.members.params, np.full(members, np.inf), _steps(state), np.zeros(members, bool))
    first = _steps(state)
    if checkpoints is not None and (kept := restore(checkpoints, run)) is not None:
        run = _Run(*kept[1])
    begin(_steps(run.state))
    saved, now = time.monotonic(), np.asarray(run.state.start) + int(run.state.step)
    left = np.maximum(first + steps - now, 0)  # of one that has stopped: what it would have had beside the others
    going = _going(run, first + steps, patience)
    if not going.any():
        return _fitted(run, first + steps, validate, patience)
    for now, infos in population.loop(
        make, settings, run.state, left.tolist(), inputs=inputs, every=every, strategy=strategy, width=width,
        progress=progress, mesh=mesh,
    ):  # fmt: skip
        before, run = run, run._replace(state=now)
        for member in np.flatnonzero(going & (_steps(now) > _steps(before.state))):
            run = _record(run, int(member), _steps(before.state), infos, validate, report)
        going = _going(run, first + steps, patience)
        if checkpoints is not None and time.monotonic() - saved >= seconds:
            save(checkpoints, int(now.step), run, keep=1)
            saved = time.monotonic()
        if not going.any():
            break
    return _fitted(run, first + steps, validate, patience)


class _Run(NamedTuple):
    """Checkpointed state of a population."""

    state: State
    best: PyTree  # parameters
    losses: Float[np.ndarray, " member"]
    best_step: Int[np.ndarray, " member"]
    failed: Bool[np.ndarray, " member"]  # whether its validation loss was not finite


def _steps(state: State) -> np.ndarray:
    return np.array(state.members.step)


def _going(run: _Run, until: np.ndarray, patience: int | None) -> np.ndarray:
    """Members that still train: not diverged, not at their end, and within their patience."""
    own = _steps(run.state)
    alive = (own == np.asarray(run.state.start) + int(run.state.step)) & (own < until) & ~run.failed
    return alive if patience is None else alive & (own - run.best_step < patience)


def _record(
    run: _Run, number: int, before: np.ndarray, infos: PyTree, validate: Validate | None, report: Report
) -> _Run:
    """Run after a member was validated and reported."""
    step = int(run.state.members.step[number])
    own = jax.tree.map(lambda values: values[: step - before[number], number], infos)
    if validate is None:
        report(number, step, own)
        return run
    params = population.member(run.state.members.params, number)
    found = validate(params, number)
    values = dict(found) if isinstance(found, Mapping) else {"validation": float(found)}
    loss = values["validation"]
    report(number, step, own, **values)
    if not np.isfinite(loss):
        return run._replace(failed=_with(run.failed, number, True))
    if not loss < run.losses[number]:
        return run
    best = jax.tree.map(lambda every, one: _with(every, number, one), run.best, params)
    return run._replace(best=best, losses=_with(run.losses, number, loss), best_step=_with(run.best_step, number, step))


def _with(values: Any, number: int, value: Any) -> np.ndarray:
    changed = np.array(values)
    changed[number] = value
    return changed


def _fitted(run: _Run, until: np.ndarray, validate: Validate | None, patience: int | None) -> FitResult:
    own = _steps(run.state)
    behind = own < np.minimum(np.asarray(run.state.start) + int(run.state.step), until)
    if patience is not None:  # a member that had stopped was stepped on beside the others: that is nobody's matter
        behind &= own - run.best_step < patience
    params = run.state.members.params if validate is None else run.best
    losses = np.full(len(own), np.nan) if validate is None else np.asarray(run.losses)
    return FitResult(run.state, params, losses, behind | np.asarray(run.failed))
