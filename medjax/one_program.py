"""One program of a numeric function: called outside `jit`, its operations are compiled together, not one by one."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax

F = TypeVar("F", bound=Callable[..., Any])


def one_program(function: F, /) -> F:
    """Compiled function: one XLA program where it is called outside `jit`, and within another program as written.

    All arguments are traced, so they must be pytrees of arrays and numbers; None and static fields pass.
    """
    return cast("F", jax.jit(function, inline=True))  # with the types of the function itself
