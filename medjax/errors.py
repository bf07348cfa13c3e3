"""Errors that a user can correct: one line each; the command line prints them without a traceback and exits with 2."""


class MedjaxError(ValueError):
    """Bad input. The message is one line: which file or argument, what was found in it and what was expected."""


class DataError(MedjaxError):
    """A file or an array that cannot be used: missing, unreadable, of the wrong shape, or with impossible values."""


class ConfigError(MedjaxError):
    """An unknown or mistyped setting. The message names the setting and the nearest one that exists."""


class WorkdirError(MedjaxError):
    """A work directory that cannot be used now: another run holds it, or it belongs to another configuration."""


def type_and_message(error: Exception) -> str:
    """Type and first line of an error, such as `KeyError: 'width'`, for a message of one line."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])


def one_line(error: Exception) -> str:
    """Message of an error as one line; that of an operating system's error names its file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def pluralize(number: int, thing: str) -> str:
    """Number and noun, in the plural where needed: `1 plane`, `2 planes`."""
    return f"{number} {thing}{'s' * (number != 1)}"
