"""Lock of a folder, which the operating system releases when its process dies."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from medjax.errors import WorkdirError


@contextmanager
def lock_folder(path: Path, shared: bool = False, wait: bool = False) -> Generator[None, None, None]:
    """Lock a folder until the block or the process ends, by its file `.lock`; the number in it is for the message.

    Args:
        path: the folder, which exists.
        shared: several processes may hold the lock at once, if all of them share it.
        wait: wait for other processes, instead of an error.

    Raises:
        WorkdirError: another process holds it.
        OSError: the folder cannot be written.
    """
    descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        try:
            fcntl.flock(descriptor, kind)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode().strip()
            raise WorkdirError(
                f"{path} is in use by process {holder or '(unknown)'}; wait for it or choose another folder"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
