"""Faults of the machine: a full disk, folders that cannot be written, no home, a damaged cache, little memory.

A command meets them with one line and exit code 2, and leaves what was there as it was; or, where it does not need what
fails, it works as ever.
"""

import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.campaign.bad_input import snapshot
from tests.campaign.commands import Limits, Outcome, Server
from tests.campaign.inputs import COMMANDS, Command

ROOMY = Limits(seconds=900, bytes=2**50)


ALARM = r"(?i)warn|error|exception|\.(py|cc):\d"  # what a library says beside a command's own lines


class Fault(NamedTuple):
    """A fault of the machine, and whether the command must work in spite of it."""

    name: str
    limits: Limits = ROOMY
    environment: Callable[[Path, Path], dict[str, str | None]] = lambda folder, cache: {}
    prepare: Callable[[Path], None] = lambda folder: None
    works: bool | None = False  # None: it may work or refuse


def read_only(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)


def own_cache(folder: Path, cache: Path) -> dict[str, str | None]:
    """A compilation cache that may be harmed."""
    mine = folder.with_name(f"{folder.name}_cache")
    shutil.copytree(cache, mine)
    return {"XDG_CACHE_HOME": str(mine)}


def damaged_cache(folder: Path, cache: Path) -> dict[str, str | None]:
    """A compilation cache whose every file is rubbish."""
    mine = folder.with_name(f"{folder.name}_cache")
    shutil.copytree(cache, mine)
    for number, file in enumerate(mine.rglob("*")):
        if file.is_file():
            content = file.read_bytes()
            file.write_bytes((b"", content[: len(content) // 2], os.urandom(300))[number % 3])
    return {"XDG_CACHE_HOME": str(mine)}


def cache_is_a_file(folder: Path, cache: Path) -> dict[str, str | None]:
    mine = folder.with_name(f"{folder.name}_cache")
    mine.mkdir()
    (mine / "medjax").write_text("a file\n")
    return {"XDG_CACHE_HOME": str(mine)}


NO_HOME: dict[str, str | None] = {"HOME": None, "XDG_CACHE_HOME": None, "TMPDIR": "/nonexistent/tmp"}
FAULTS = [
    Fault("full disk", ROOMY._replace(file_bytes=20), own_cache),
    Fault("read-only folder", ROOMY._replace(unprivileged=True), prepare=read_only),
    Fault("no home, no folder for temporary files", environment=lambda folder, cache: NO_HOME, works=True),
    Fault(
        "a home that is not there",
        environment=lambda folder, cache: {"HOME": "/proc/1/x", "XDG_CACHE_HOME": None},
        works=True,
    ),
    Fault("damaged compilation cache", environment=damaged_cache, works=True),
    Fault("compilation cache is a file", environment=cache_is_a_file, works=True),
    Fault("a terminal without UTF-8", environment=lambda folder, cache: {"PYTHONIOENCODING": "ascii"}, works=True),
    Fault("little memory", ROOMY._replace(address_bytes=1200 * 2**20), works=None),  # `new` needs no JAX
    Fault("just enough memory", ROOMY._replace(address_bytes=2500 * 2**20), works=None),
]


class Meeting(NamedTuple):
    """What came of a command that met a fault."""

    title: str
    reason: str  # why it did not meet it well; empty: it did
    seconds: float


def commands() -> list[Command]:
    """One command of every name that writes."""
    first: dict[str, Command] = {}
    for command in COMMANDS:
        if not command.tolerant:
            first.setdefault(command.name, command)
    return [*first.values()]


def meet(server: Server, fault: Fault, command: Command, inputs: Path, cache: Path, folder: Path) -> Meeting:
    """Run a command under a fault, in a copy of the inputs."""
    shutil.copytree(inputs, folder, symlinks=True)
    folder.chmod(0o755)
    try:
        fault.prepare(folder)
        before = snapshot(folder)
        outcome = server.run(command.arguments, folder, fault.limits, fault.environment(folder, cache))
        return Meeting(
            f"{command.name}: {fault.name}", judge(fault, outcome, before, snapshot(folder)), outcome.seconds
        )
    finally:
        for path in (folder, *folder.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder.with_name(f"{folder.name}_cache"), ignore_errors=True)


def write_twice(server: Server, command: Command, inputs: Path, cache: Path, folder: Path) -> Meeting:
    """Two processes run one command in one folder at once: the second refuses, or both write the same whole files."""
    shutil.copytree(inputs, folder, symlinks=True)
    found: list[Outcome] = []
    try:
        with Server(cache) as other:
            threads = [
                threading.Thread(target=lambda one=one: found.append(one.run(command.arguments, folder, ROOMY)))
                for one in (server, other)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        refused = [one for one in found if one.code]
        parts = [name for name in snapshot(folder) if ".medjax-" in name]
        reason = f"left behind: {parts[0]}" if parts else ""
        if len(refused) == 2:
            reason = f"both refuse: {refused[0].err[-200:]}"
        elif refused and refused[0].reason:
            reason = refused[0].reason
        return Meeting(f"{command.name}: two writers", reason, max(one.seconds for one in found))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def judge(fault: Fault, outcome: Outcome, before: dict[str, str], after: dict[str, str]) -> str:
    if outcome.code == 0 and fault.works is not False:
        extra = [
            line for line in outcome.err.splitlines() if re.search(ALARM, line) and not line.startswith("medjax: ")
        ]
        return f"says: {extra[0][:200]}" if extra else ""
    if fault.works:
        return f"does not work: exit code {outcome.code}: {outcome.err[-300:]}"
    if outcome.reason:
        return outcome.reason
    changed = sorted(name for name in before if before[name] != after.get(name))
    return f"changed: {', '.join(changed[:3])}" if changed else ""
