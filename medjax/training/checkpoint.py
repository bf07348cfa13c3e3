"""Checkpoints of a training by orbax: any pytree of arrays, under the number of its step.

    save(folder, step, {"state": state, "best": best})      after so many steps
    step, tree = restore(folder, like) or (0, like)         when the same run starts again

A checkpoint is written under a temporary name and renamed when it is whole: a killed run finds its last whole one.
"""

import gc
import logging
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxtyping import PyTree

from medjax.errors import WorkdirError, type_and_message


def save(folder: Path, step: int, tree: PyTree, keep: int = 2) -> None:
    """Save `tree` (arrays, numbers, typed PRNG keys) as the checkpoint of `step` in `folder`; the last `keep` stay.

    Raises:
        WorkdirError: the folder holds a checkpoint of this step or a later one, so another run wrote there.
    """
    import orbax.checkpoint as ocp

    with _manager(folder, keep) as manager:
        latest = manager.latest_step()
        if latest is not None and latest >= step:
            raise WorkdirError(f"{folder} holds step {latest}, so step {step} cannot follow; delete it or resume it")
        manager.save(step, args=ocp.args.StandardSave(tree))


def restore(folder: Path, like: PyTree) -> tuple[int, PyTree] | None:
    """Step and tree of the last complete checkpoint in `folder`, bit for bit; None if there is none.

    `like` is a tree of that structure, its leaves arrays (their devices and shardings are used) or numbers.

    Raises:
        WorkdirError: the checkpoint is damaged, or has another structure or other shapes than `like`.
    """
    if not folder.is_dir():
        return None
    import orbax.checkpoint as ocp

    step = None
    with _quiet():
        try:
            with _manager(folder, None) as manager:
                step = manager.latest_step()
                return None if step is None else (step, manager.restore(step, args=ocp.args.StandardRestore(like)))
        except Exception as error:  # whatever orbax and its libraries raise
            reason = " ".join(type_and_message(error).split())[:200]
        gc.collect()  # what was left half done complains while it is not heard
    raise WorkdirError(
        f"{folder if step is None else folder / str(step)} is damaged or holds other arrays than this code expects: "
        f"{reason}; delete it to go on from the checkpoint before, or from the start"
    )


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Context in which orbax and its libraries print nothing beside an error that they raise."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels, hook = [one.level for one in loggers], sys.unraisablehook
    try:
        for one in loggers:
            one.setLevel(logging.CRITICAL + 1)
        sys.unraisablehook = lambda _: None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.unraisablehook = hook
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


def _manager(folder: Path, keep: int | None) -> Any:
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
    return ocp.CheckpointManager(folder.resolve(), options=options)
