"""Progress on stderr with rate and remaining time, bars on a terminal, else a line now and then; messages on stdout."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar, overload

T = TypeVar("T")
REPORT_SECONDS = 30.0


@overload
def track(work: int, description: str) -> Iterator[int]:
    """Iterate over 0 … work − 1 under a progress bar."""
    ...


@overload
def track(work: Iterable[T], description: str) -> Iterator[T]:
    """Iterate over items under a progress bar; its total is known where `work` has a length."""
    ...


def track(work: int | Iterable[T], description: str) -> Iterator[int] | Iterator[T]:
    """Iterate over `work` (or `range(work)`) under a progress bar named `description`; bars may be nested.

    Where stderr is no terminal, a line says how far it is, every `REPORT_SECONDS`.
    """
    items: Iterable = range(work) if isinstance(work, int) else work
    total = len(items) if isinstance(items, Sized) else None
    if not sys.stderr.isatty():
        yield from _lines(items, total, description)
        return
    with _bar() as progress:
        task = progress.add_task(description, total=total)
        for item in items:
            yield item
            progress.advance(task)


def say(text: str) -> None:
    """Print a message on stdout at once, during long work."""
    print(text, flush=True)


def report_stage(name: str, seconds: float) -> None:
    """Say on stderr that a stage that took long is finished, where it is no terminal."""
    if seconds >= REPORT_SECONDS and not sys.stderr.isatty():
        print(f"{name}: finished in {_duration(seconds)}", file=sys.stderr, flush=True)


def _lines(items: Iterable[T], total: int | None, description: str) -> Iterator[T]:
    """Items, and lines on stderr; the rate is that of all but the first, which may have been compiled."""
    last, second = time.monotonic(), 0.0
    for number, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        second = now if number == 1 else second
        if now - last >= REPORT_SECONDS:
            last, of = now, "" if total is None else f" of {total}"
            each = (now - second) / (number - 1) if number > 1 else None
            rate = "" if each is None else f", {each:.3g} s each"
            left = "" if each is None or total is None else f", {_duration((total - number) * each)} left"
            print(f"{description}: {number}{of}{rate}{left}", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


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
