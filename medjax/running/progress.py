"""Progress bars with rate and remaining time on stderr, if it is a terminal, and messages on stdout."""

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar, overload

T = TypeVar("T")


@overload
def track(work: int, description: str) -> Iterator[int]:
    """Iterate over 0 … work − 1 under a progress bar."""
    ...


@overload
def track(work: Iterable[T], description: str) -> Iterator[T]:
    """Iterate over items under a progress bar; its total is known where `work` has a length."""
    ...


def track(work: int | Iterable[T], description: str) -> Iterator[int] | Iterator[T]:
    """Iterate over `work` (or `range(work)`) under a progress bar named `description`; bars may be nested."""
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
    """Print a message on stdout at once, during long work."""
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
