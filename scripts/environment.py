"""Make ``.venv/<minor>`` of this checkout and print the folder of its commands; started by ``scripts/setup``.

Safe to kill at any moment and to start twice at once: a stamp is written last, work without a stamp is thrown away, and
a lock (one an environment), which the operating system releases at death, lets a second set-up wait for the first.

``MEDJAX_ACCELERATOR`` (cuda12, cuda13 or tpu) makes ``.venv/<minor>-<accelerator>`` beside it, with JAX's extra of that
name at the locked version of JAX.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
ACCELERATORS = ("cuda12", "cuda13", "tpu")  # extras of jax and of medjax
ACCELERATOR = os.environ.get("MEDJAX_ACCELERATOR", "")  # empty: the CPU
NAME = f"{MINOR}-{ACCELERATOR}" if ACCELERATOR else MINOR
ENVIRONMENT = ROOT / ".venv" / NAME
STAMP = ENVIRONMENT / "medjax-stamp"
LOG = ENVIRONMENT.with_name(f"{NAME}.log")
LOCKED = ROOT / f"requirements-{MINOR}.lock"
OFFLINE = re.compile(r"(NewConnection|NameResolution|ConnectTimeout|ReadTimeout|Proxy)Error|name resolution")


def say(line: str) -> None:
    """One line to stderr; stdout is for the result."""
    print(f"setup: {line}", file=sys.stderr, flush=True)


def wanted() -> list[str]:
    """Digests that the environment must have been made from: [where it is and its packages, medjax's own metadata]."""
    project = (ROOT / "pyproject.toml").read_bytes()
    packages = LOCKED.read_bytes() if LOCKED.exists() else project
    return [hashlib.sha256(part).hexdigest() for part in (bytes(ENVIRONMENT) + b"\n" + packages, project)]


def packages(locked: Path | None, accelerator: str) -> list[str]:
    """What pip is asked for, before medjax itself where versions are locked."""
    if locked:
        return ["--requirement", str(locked), *([f"jax[{accelerator}]"] if accelerator else [])]
    return ["--editable", f".[{','.join(['data', 'dev', 'docs', 'petsird', *([accelerator] if accelerator else [])])}]"]


def made_from() -> list[str]:
    """Digests that the environment was made from; empty when it was never finished or its Python is gone."""
    finished = STAMP.exists() and (ENVIRONMENT / "bin" / "python").exists()
    return STAMP.read_text().split() if finished else []


def call(lock: int, *command: str | Path) -> None:
    """Run a command, its output in the log. It inherits the lock, so that the lock outlives this process if it does."""
    with LOG.open("ab") as log:
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[lock])
    if done.returncode == 0:
        return
    lines = LOG.read_text(errors="replace").splitlines()
    if any(OFFLINE.search(line) for line in lines):
        say("the package index cannot be reached; try again with a network")
    else:
        say(f"failed; the end of {LOG.relative_to(ROOT)}:")
        print(*lines[-15:], sep="\n", file=sys.stderr)
    raise SystemExit(1)


def make(lock: int) -> None:
    """Bring the environment from what is there to what is wanted. New metadata of medjax alone takes a few seconds."""
    stamp = wanted()
    reusable = made_from()[:1] == stamp[:1]
    STAMP.unlink(missing_ok=True)
    LOG.write_bytes(b"")
    python = ENVIRONMENT / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check")
    if not reusable:
        device = f" for {ACCELERATOR}" if ACCELERATOR else ""
        say(f"Setting up Python {MINOR}{device} in {ENVIRONMENT.relative_to(ROOT)} (once, about two minutes)…")
        if not LOCKED.exists():
            say(f"no {LOCKED.name}: the newest versions that pyproject.toml allows")
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        # The base Python, not an environment that may be active: it could be the very one that was just removed.
        call(lock, getattr(sys, "_base_executable", sys.executable), "-m", "venv", ENVIRONMENT)
        call(lock, *pip, *packages(LOCKED if LOCKED.exists() else None, ACCELERATOR))
    call(lock, *pip, "--no-deps", "--no-build-isolation", "--editable", ".")
    new = STAMP.with_suffix(".new")
    new.write_text("\n".join(stamp) + "\n")
    new.replace(STAMP)


def main() -> None:
    """Return at once when the stamp says so; else wait for the lock and make the environment."""
    if ACCELERATOR and ACCELERATOR not in ACCELERATORS:
        say(f"MEDJAX_ACCELERATOR={ACCELERATOR}; expected {', '.join(ACCELERATORS)}, or none for the CPU")
        raise SystemExit(2)
    if made_from() != wanted():
        try:
            import ensurepip  # noqa: F401
            import venv  # noqa: F401
        except ImportError:
            say(f"Python {MINOR} cannot make virtual environments (Debian, Ubuntu: install python{MINOR}-venv)")
            raise SystemExit(2) from None
        ENVIRONMENT.parent.mkdir(exist_ok=True)
        with ENVIRONMENT.with_name(f"{NAME}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another set-up is at work; waiting for it…")
                fcntl.flock(lock, fcntl.LOCK_EX)
            start = time.monotonic()
            if made_from() != wanted():
                make(lock.fileno())
                say(f"done in {time.monotonic() - start:.0f} s")
    print(ENVIRONMENT / "bin")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        say("interrupted; the next start repairs it")
        raise SystemExit(130) from None
