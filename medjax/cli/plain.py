"""Help and usage errors as plain text: wrapped and never cut, without colours or boxes; an error is one line."""

# typing.override needs Python 3.12
# pyrefly: ignore-errors[missing-override-decorator]
import difflib
import os
import shlex
import sys
import traceback
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

from medjax.errors import ConfigError

ARGUMENTS = "medjax.arguments"  # key of the command line in a context's `meta`
MAX_WIDTH = 100  # columns of help in a wide terminal
USAGE_ERROR: Any = typer.BadParameter.__mro__[1]  # of the command-line library, which typer does not export
EXPECTED = {"valid integer": "a whole number", "valid number": "a number"}  # in the library's words: in ours
INTERNAL = ("typer", "click", "importlib", "runpy")  # packages whose frames say nothing to a user

if TYPE_CHECKING:
    from typer import Context
else:
    Context = typer.Context.__mro__[1]  # class of the contexts that commands get, for typer to see in a signature


class Command(TyperCommand):
    """A command whose usage names its arguments as its help does."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _Explained(ctx, args):
            return super().parse_args(ctx, args)


class Group(TyperGroup):
    """A group of commands that lists the whole first sentence of each, and suggests the one that was meant."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, _summary(command)) for name, command in commands if command and not command.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta.setdefault(ARGUMENTS, tuple(args))  # of the outermost group, shared by all below it
        with _Explained(ctx, args):
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None and args[0][:1] != "-":
            known = self.list_commands(ctx)
            ctx.fail(f"no command '{args[0]}'; expected {_listed(known)}{suggestion(args[0], known)}")
        return super().resolve_command(ctx, args)


class _Explained:
    """Context of parsing whose errors name the option, what was found, and what was expected or meant."""

    def __init__(self, ctx: Any, args: list[str]) -> None:
        self.ctx, self.args = ctx, list(args)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        name, param = type(error).__name__, getattr(error, "param", None)
        if name == "NoSuchOption":
            given = next((word for word in self.args if word.startswith(error.option_name)), error.option_name)
            error.possibilities = None
            error.message = f"no option {given.partition('=')[0]}{suggestion(given.partition('=')[0], self._options())}"
        elif name == "BadParameter" and param is not None:
            text = error.message.rstrip(".")
            expected = next((text for word, text in EXPECTED.items() if word in error.message), text)
            raise ConfigError(f"{self._found(param)}; expected {expected}") from error

    def _options(self) -> list[str]:
        """Visible options of the command."""
        shown = [one for one in self.ctx.command.get_params(self.ctx) if not getattr(one, "hidden", False)]
        return [text for one in shown for text in (*one.opts, *one.secondary_opts) if text.startswith("-")]

    def _found(self, param: Any) -> str:
        """An option and its value as they were typed."""
        for here, after in zip(self.args, [*self.args[1:], ""], strict=True):
            option, equals, value = here.partition("=")
            if option in param.opts:
                return f"{option} {value if equals else after}"
        return param.metavar or param.name


def suggestion(name: str, known: list[str]) -> str:
    """End of a message: the known name closest to `name`, or nothing."""
    bare = {one.lstrip("-"): one for one in known}
    close = difflib.get_close_matches(name.lstrip("-"), list(bare), n=1, cutoff=0.6)
    return f"; did you mean '{bare[close[0]]}'?" if close else ""


def make_plain(app: typer.Typer) -> typer.Typer:
    """A command's typer app with plain help, for all of its commands."""
    app.rich_markup_mode = None
    if not (isinstance(app.info.cls, type) and issubclass(app.info.cls, Group)):
        app.info.cls = Group
    for command in app.registered_commands:
        command.cls = Command if command.cls in (None, TyperCommand) else command.cls
    return app


def command_line(ctx: Context) -> str:
    """Command line of a command, as it was typed, quoted for a shell; empty where a part of it was called alone."""
    return shlex.join(["medjax", *ctx.meta[ARGUMENTS]]) if ctx.find_root().info_name == "medjax" else ""


def usage_line(error: Any) -> str:
    """A usage error as one line, with the command whose help explains it."""
    context = getattr(error, "ctx", None)
    message = " ".join(error.format_message().split()).rstrip(".")
    if context is None:
        return message
    sub = context.command_path.partition(" ")[2]
    return f"{sub + ': ' if sub else ''}{message} (see `{context.command_path} --help`)"


def print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an unexpected error to stderr, without the frames of libraries that only call commands and import files."""
    shown = traceback.TracebackException(kind, error, trace)
    folders = [f"{os.sep}{name}{os.sep}" for name in (*INTERNAL, f"medjax{os.sep}cli")]
    waiting: list[traceback.TracebackException | None] = [shown]
    while waiting:
        if (one := waiting.pop()) is not None:
            kept = [frame for frame in one.stack if not _is_internal(frame.filename, folders)]
            one.stack = traceback.StackSummary.from_list(kept or one.stack)
            waiting += [one.__cause__, one.__context__]
    print("".join(shown.format()), end="", file=sys.stderr)


def _is_internal(file: str, folders: list[str]) -> bool:
    frozen = any(file.startswith(f"<frozen {name}") for name in INTERNAL)
    return frozen or any(folder in file for folder in folders)


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else "".join(names)


def _summary(command: Any) -> str:
    """First paragraph of a command's help."""
    text = command.short_help or command.help or ""
    return " ".join(text.strip().partition("\n\n")[0].split())
