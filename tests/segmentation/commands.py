"""`medjax segment` as a test calls it: any result, one that succeeds, or one that is refused in one line."""

from typer.testing import CliRunner

from medjax.cli import app


def command(*arguments):
    return CliRunner().invoke(app, ["segment", *map(str, arguments)])


def done(*arguments):
    result = command(*arguments)
    assert result.exit_code == 0, result.output + result.stderr
    return result


def refused(message, *arguments):
    result = command(*arguments)
    assert result.exit_code == 2 and message in result.stderr, result.output + result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
