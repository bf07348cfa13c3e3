"""One run of the command line in a process of its own: its exit code, output, seconds and memory.

A server has imported what commands import and forks for every one of them, so that thousands take minutes; it has no
thread and no device of JAX yet when it forks.

    with Server() as server:
        outcome = server.run(["ivim", "fit", "dwi.nii.gz"], folder)
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

ROOT = Path(__file__).parents[2]
SECONDS, BYTES = 20.0, 4 * 2**30  # what a command may take to refuse its input
NOBODY = 65534  # user without rights


class Outcome(NamedTuple):
    """Outcome of a command."""

    code: int  # exit code; −9: killed, as it took too long or too much
    out: str
    err: str
    seconds: float  # of wall time
    cpu_seconds: float
    peak_bytes: int  # of resident memory

    @property
    def reason(self) -> str:
        """What keeps the refusal of bad input from being clean; empty: nothing."""
        lines = self.err.strip().splitlines()
        if "Traceback" in self.err:
            return f"traceback: {lines[-1][:160]}"
        if self.peak_bytes > BYTES:
            return f"memory: {self.peak_bytes / 2**30:.1f} GiB"
        if self.code == -9:
            return f"hang: {self.seconds:.0f} s"
        if self.code == 0:
            return "accepted"
        if self.code != 2:
            return f"exit code {self.code}: {lines[-1][:160] if lines else ''}"
        if len(lines) != 1:
            return f"{len(lines)} lines: {' | '.join(lines)[:200]}"
        return ""


class Limits(NamedTuple):
    """Conditions that a command runs under."""

    seconds: float = SECONDS
    bytes: int = BYTES
    file_bytes: int | None = None  # the largest file that it can write, as on a full disk
    address_bytes: int | None = None  # of its address space, as on a machine of little memory
    kill_after: float | None = None  # seconds until it is killed
    unprivileged: bool = False  # as a user without rights, where this process may choose


REFUSAL = Limits()


class Server:
    """A process that runs commands, one at a time."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        own = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **(environment or {})}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.campaign.commands"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own, cwd=ROOT,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None):
        self.process.kill()
        self.process.wait()

    def run(
        self,
        arguments: Sequence[str],
        folder: Path,
        limits: Limits = REFUSAL,
        environment: Mapping[str, str | None] | None = None,
    ) -> Outcome:
        """Run `medjax ARGUMENTS` in a folder; a variable of the environment that is None is taken away."""
        request = {"arguments": [*arguments], "folder": str(folder), "limits": limits, "environment": environment or {}}
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the server of the campaign died")
        return Outcome(*json.loads(line))


def _serve() -> None:
    """Read requests, a line each, and write their outcomes."""
    import importlib
    import pkgutil

    import medjax

    for module in pkgutil.walk_packages(medjax.__path__, "medjax."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps(_forked(request, Limits(*request["limits"]))) + "\n")
        answers.flush()


def _forked(request: dict[str, Any], limits: Limits) -> Outcome:
    files = [os.memfd_create(name) for name in ("out", "err")]
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            _become(request, limits, files)
        finally:
            os._exit(70)  # not reached: `_become` exits
    status, usage = _watched(child, limits, start)
    seconds = time.monotonic() - start
    texts = list[str]()
    for file in files:
        with os.fdopen(file, "rb") as content:
            content.seek(0)
            texts.append(content.read(100_000).decode(errors="replace"))
    code = os.waitstatus_to_exitcode(status)
    return Outcome(code, *texts, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def _watched(child: int, limits: Limits, start: float) -> tuple[int, resource.struct_rusage]:
    until = start + min(limits.seconds, limits.kill_after if limits.kill_after is not None else float("inf"))
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            return status, usage
        if time.monotonic() > until or _resident(child) > limits.bytes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            return status, usage
        time.sleep(0.01)


def _resident(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _become(request: dict[str, Any], limits: Limits, files: list[int]) -> None:
    """Turn this process into the command."""
    os.setpgid(0, 0)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in zip((null, *files), (0, 1, 2), strict=True):
        os.dup2(source, target)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    os.chdir(request["folder"])
    for name, value in request["environment"].items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))
    if limits.address_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (limits.address_bytes, limits.address_bytes))
    if limits.unprivileged and os.getuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    _run_as_process(request["arguments"])


def _run_as_process(arguments: list[str]) -> None:
    """The command and what Python does at the end of a process, with its exit code."""
    import traceback

    from medjax.cli import main

    code: Any = 0
    try:
        main(arguments)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    _serve()
