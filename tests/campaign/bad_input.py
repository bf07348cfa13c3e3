"""Bad input, over all commands: damaged files and absurd options. Every one is refused in one line, or it is valid.

    for case in cases(inputs, seed=0): finding = attempt(server, case, inputs, folder)

A refusal is clean where the command exits with 2 and one line that names the file or option, nothing on the disk is new
or changed, and it took less than 20 s and 4 GB.
"""

import hashlib
import itertools
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.campaign import damages_arrays, damages_folders, damages_images, damages_text  # noqa: F401 (they add kinds)
from tests.campaign.commands import Limits, Outcome, Server
from tests.campaign.damage_kinds import KINDS, damages_of
from tests.campaign.inputs import COMMANDS, MADE, Command, write_inputs

HARMLESS_SHARE = 0.25  # of the damages that may leave an input valid, as such a command runs to its end
NUMBERS = ("0", "-1", "nan", "inf", "1e9", "1" + "0" * 30, "x", "", "9" * 5000, "0.5")
TEXTS = ("", "nonsense", "$\\foo$", "{0}", "a\nb", "9" * 5000, "0,0,0", "nan,nan,nan", "1e30,1,1")
PATHS = ("", "absent/new", ".", "$\\foo$", "x" * 300, "a_pipe")  # no device: an administrator could replace it
HUGE = "1" + "0" * 30
VALID = {  # values of an option that are in order, by its name
    "--seed": {"0"}, "--background": {"0", "0.5"}, "--post-filter-mm": {"0", "0.5"}, "--psf-mm": {"0", "0.5"},
    "--centre": {"0,0,0"}, "--trues": {"0.5"}, "--voxel-mm": {"0.5"}, "--mr": {"."}, "--experiments": {"."},
    "--tracer": set(TEXTS), "--rate": {"0.5"},
    "--alpha": {"0.5"}, "--level": {"0.5"}, "--memory-gb": {"0.5"}, "--snr": {"0.5"}, "--wrong": {"0.5"},
    "--labels": {"0,0,0"},  # nnU-Net evaluates the background too
    "--task": {"0"}, "--test": {"0"}, "--threshold": {"0", "0.5", "1e9", HUGE},  # of any score
    **{name: set(PATHS) for name in ("--output", "--workdir", "--truth-dir")},  # what is new is made
}  # fmt: skip


class Case(NamedTuple):
    """A bad input: a command with one input damaged, or with one option changed."""

    command: Command
    target: str  # file or folder that is damaged, or option
    kind: str  # of damage, or value of the option
    arguments: tuple[str, ...]
    seed: int = 0
    harmless: bool = False

    @property
    def title(self) -> str:
        shown = self.kind if len(self.kind) < 40 else f"{self.kind[:20]}… ({len(self.kind)})"
        return f"{self.command.name}: {self.target}: {shown!r}"


class Finding(NamedTuple):
    """What came of a case; `reason` is empty where the refusal was clean, or "valid" where the input may be valid."""

    title: str
    reason: str
    seed: int
    seconds: float
    peak_bytes: int
    message: str
    arguments: tuple[str, ...]


def make_inputs(folder: Path, server: Server) -> Path:
    """A folder of valid inputs, with what commands make of them; every command takes them."""
    folder.mkdir(parents=True)
    write_inputs(folder)
    for text in MADE:
        _succeed(server, text.split(), folder)
    for command in COMMANDS:
        shutil.copytree(folder, trial := folder.with_name(f"{folder.name}_trial"), symlinks=True)
        _succeed(server, command.arguments, trial)
        shutil.rmtree(trial)
    return folder


def _succeed(server: Server, arguments: Sequence[str], folder: Path) -> None:
    outcome = server.run(arguments, folder, Limits(seconds=900))
    if outcome.code:
        raise RuntimeError(f"medjax {' '.join(arguments)}: {outcome.err}")


def cases(inputs: Path, seed: int = 0) -> list[Case]:
    """All cases: damages of every input of every command, and values of every option."""
    return [*file_cases(inputs, seed), *option_cases()]


def file_cases(inputs: Path, seed: int) -> Iterator[Case]:
    """Damages of every input; of those that may be harmless a share is drawn."""
    for command in COMMANDS:
        for target in command.inputs:
            for kind in damages_of(inputs / target):
                name = f"{command.name} {target} {kind.name} {seed}"
                own = zlib.crc32(name.encode())
                harmless = kind.harmless or command.tolerant
                if not harmless or command.tolerant or np.random.default_rng(own).random() < HARMLESS_SHARE:
                    yield Case(command, target, kind.name, command.arguments, own, harmless)


def option_cases() -> Iterator[Case]:
    """Values of every option of every command, by its type."""
    first: dict[str, Command] = {}
    for command in COMMANDS:
        first.setdefault(command.name, command)
    for command in first.values():
        for option in options(command.name.split()):
            for value in values_of(option):
                arguments = with_option(command.arguments, option.opts, value)
                harmless = value in VALID.get(option.opts[-1], ())
                yield Case(command, option.opts[-1], value, arguments, harmless=harmless)


def options(words: Sequence[str]) -> list[Any]:
    """The options of a command that take a value, as typer knows them."""
    import typer

    from medjax.cli import _load_tool, app

    found = typer.main.get_command(app)
    for word in words:
        found = found.commands[word] if word in found.commands else _load_tool(word)
    while hasattr(found, "commands") and len(found.commands) == 1:
        (found,) = found.commands.values()
    return [one for one in found.params if one.opts[0].startswith("-") and not one.is_flag and "-h" not in one.opts]


def values_of(option: Any) -> tuple[str, ...]:
    kind = str(option.type_descriptor.annotation)
    if "int" in kind or "float" in kind:
        return NUMBERS
    return PATHS if "Path" in kind else TEXTS


def with_option(arguments: tuple[str, ...], names: Sequence[str], value: str) -> tuple[str, ...]:
    """The arguments with an option's value, in the place of the one that is there."""
    for name in names:
        if name in arguments:
            place = arguments.index(name)
            return (*arguments[: place + 1], value, *arguments[place + 2 :])
    return (*arguments, names[-1], value)


def attempt(server: Server, case: Case, inputs: Path, folder: Path) -> Finding:
    """Try a case in a folder of its own, a copy of the inputs."""
    shutil.copytree(inputs, folder, symlinks=True)
    try:
        os.mkfifo(folder / "a_pipe")
        if case.seed:
            kind = next(one for one in KINDS if one.name == case.kind)
            kind.damage(folder / case.target, np.random.default_rng(case.seed))
        before = snapshot(folder)
        outcome = server.run(case.arguments, folder)
        reason = judge(case, outcome, before, snapshot(folder))
        return Finding(
            case.title, reason, case.seed, outcome.seconds, outcome.peak_bytes, outcome.err[-2000:], case.arguments
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def judge(case: Case, outcome: Outcome, before: dict[str, str], after: dict[str, str]) -> str:
    """Reason why a refusal is not clean; "valid" where the input may be valid and the command did its work."""
    reason = outcome.reason
    if case.harmless and (outcome.code in (0, -9) and "Traceback" not in outcome.err and "memory" not in reason):
        return "valid"
    own = Path(case.target).suffix == ".py" and outcome.err.strip().rpartition("\n")[2].startswith("medjax: ")
    if reason and not (own and "lines: " in reason):  # of a user's code that is damaged there are frames as well
        return reason
    if changed := sorted(name for name in before | after if before.get(name) != after.get(name)):
        return f"left behind: {', '.join(changed[:3])}"
    if not names_cause(case, outcome.err):
        return "does not name the cause"
    return ""


def names_cause(case: Case, message: str) -> bool:
    """Whether a message names the file (or one in the folder, or that which points to it) or the option."""
    if case.seed:
        words = {Path(case.target).name, Path(case.target).stem.split(".")[0], *case.command.inputs}
        folders = {part for word in case.command.inputs for part in Path(word).parts}
        return any(word in message for word in words | folders)
    short = " ".join((case.kind if len(case.kind) < 40 else case.kind[:20]).split())
    typed = [option for option, value in itertools.pairwise(case.arguments) if value == case.kind]  # -o of --output
    if any(option in message for option in typed):
        return True
    return case.target in message or case.target.strip("-") in message or (bool(short) and short in message)


def snapshot(folder: Path) -> dict[str, str]:
    """What is in a folder: kind and content of everything, but for locks."""
    found = dict[str, str]()
    for root, folders, files in os.walk(folder):
        for name in {*folders, *files} - {".lock"}:  # it holds the number of the process that came last
            path = Path(root) / name
            relative = str(path.relative_to(folder))
            if path.is_symlink():
                found[relative] = f"link {path.readlink()}"
            elif path.is_file():
                found[relative] = hashlib.blake2b(path.read_bytes()).hexdigest()
            else:
                found[relative] = "folder" if path.is_dir() else "special"
    return found
