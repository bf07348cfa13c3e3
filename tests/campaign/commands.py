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
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

ROOT = Path(__file__).parents[2]
SECONDS, BYTES = 20.0, 4 * 2**30  # what a command may take to refuse its input


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
        if len(lines) != 1 and not all(line.startswith("medjax: seed=") for line in lines[:-1]):  # a sweep's members
            return f"{len(lines)} lines: {' | '.join(lines)[:200]}"
        return ""


class Limits(NamedTuple):
    """Conditions that a command runs under."""

    seconds: float = SECONDS
    bytes: int = BYTES
    file_bytes: int | None = None  # the largest file that it can write, as on a full disk
    address_bytes: int | None = None  # of its address space, as on a machine of little memory
    kill_after: float | None = None  # seconds until it is killed
    unprivileged: bool = False  # bound by permissions, as the administrator is not


REFUSAL = Limits()


class Server:
    """A process that runs commands, one at a time."""

    def __init__(self, cache: Path | None = None) -> None:
        """`cache`: folder of the compilation cache, so that faults harm no other."""
        own = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        own |= {"XDG_CACHE_HOME": str(cache)} if cache else {}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.campaign.commands"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own, cwd=ROOT,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None):
        self.process.kill()
        self.process.communicate()

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
    pipes = [os.pipe() for _ in ("out", "err")]
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            _become(request, limits, [write for _, write in pipes])
        finally:
            os._exit(70)  # not reached: `_become` exits
    texts: list[bytes] = [b"", b""]
    readers = [threading.Thread(target=_drain, args=(texts, number, pipes[number][0])) for number in (0, 1)]
    for (_, write), reader in zip(pipes, readers, strict=True):
        os.close(write)
        reader.start()
    status, usage = _watched(child, limits, start)
    seconds = time.monotonic() - start
    for reader in readers:
        reader.join()
    out, err = (text.decode(errors="replace") for text in texts)
    code = os.waitstatus_to_exitcode(status)
    return Outcome(code, out, err, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def _drain(texts: list[bytes], number: int, pipe: int) -> None:
    """Read a pipe to its end; of much the beginning is kept."""
    with os.fdopen(pipe, "rb") as file:
        while part := file.read1(2**16):
            texts[number] = (texts[number] + part)[:200_000]


def _watched(child: int, limits: Limits, start: float) -> tuple[int, resource.struct_rusage]:
    until = start + min(limits.seconds, limits.kill_after if limits.kill_after is not None else float("inf"))
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            return status, usage
        if time.monotonic() > until or _resident(child) > limits.bytes:
            for kill in (os.killpg, os.kill):  # it may have no group of its own yet
                with contextlib.suppress(ProcessLookupError):
                    kill(child, signal.SIGKILL)
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
    os.chdir(request["folder"])
    for name, value in request["environment"].items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False, encoding=encoding)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, encoding=encoding, errors="backslashreplace")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))
    if limits.address_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (limits.address_bytes, limits.address_bytes))
    if limits.unprivileged:
        _obey_permissions()
    _run_as_process(request["arguments"])


def _obey_permissions() -> None:
    """Give up the administrator's capability to write what nobody may write (Linux)."""
    import ctypes

    libc, header, data = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, data)
    for number in (0, 1):  # effective and permitted: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
        data[number] &= ~0b1110
    libc.capset(header, data)


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
