"""A progress bar with rate and remaining time on stderr, nothing where stderr is no terminal; remarks on stdout."""

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar, overload

T = TypeVar("T")


@overload
def track(work: int, description: str) -> Iterator[int]:
    """The numbers 0 … work − 1 under a bar."""
    ...


@overload
def track(work: Iterable[T], description: str) -> Iterator[T]:
    """The items of `work` under a bar; its total is known where `work` has a length."""
    ...


def track(work: int | Iterable[T], description: str) -> Iterator[int] | Iterator[T]:
    """Iterate over `work` (or `range(work)`) under a bar named `description`; bars may be nested."""
    items: Iterable = range(work) if isinstance(work, int) else work
    if not sys.stderr.isatty():
        yield from items
        return
    with _bar() as progress:
        task = progress.add_task(description, total=len(items) if isinstance(items, Sized) else None)
        for item in items:
            yield item
            progress.advance(task)


def say(text: str) -> None:
    """A remark in the middle of long work: a line on stdout, at once."""
    print(text, flush=True)


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            if not speed:
                return Text("")
            return Text(f"{speed:.3g}/s" if speed >= 1 else f"{1 / speed:.3g} s each", style="progress.data.speed")

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), RateColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
