"""Advisory locks: on a folder, so that its writers take turns, and on a name, so that work is done only once.

They use `flock`: the kernel releases a lock when its holder dies, so that a killed process never blocks others.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from store.seal import writing

LOCK_NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`; waits for as long as another holder lives.

    The empty lock file stays: deleting it would let two processes hold two locks of one name.
    A file is locked rather than the folder itself because NFS refuses locks on folders.

    Raises StoreError if the folder cannot be written, OSError if it does not exist or its file system has no locks.
    """
    with writing(folder):
        handle = open(folder / LOCK_NAME, "w")  # noqa: SIM115 - closed below
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def locked_file(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file `path`, made with its folder and removed afterwards; of one process, and not twice in it.

    `waiting` is called once when another holder has it; then this waits for as long as that holder lives. The guarded
    work may have been done meanwhile: check again inside the `with` block.

    Raises OSError if the file cannot be made, or its file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _acquired(path, waiting):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def clear_locks(folder: Path) -> None:
    """Remove the lock files in `folder` that nobody holds: killed processes left them."""
    for path in folder.glob("*"):
        with open(path, "a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if _is_at(handle, path):
                path.unlink()


def _acquired(path: Path, waiting: Callable[[], None] | None) -> IO[str]:
    """The open and locked file. It is checked to be still the file of this name, because a holder removes its file."""
    while True:
        handle = open(path, "w")  # noqa: SIM115
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is not None:
                    waiting()
                    waiting = None
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_at(handle, path):
                return handle
        except BaseException:
            handle.close()
            raise
        handle.close()


def _is_at(handle: IO[str], path: Path) -> bool:
    """Whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False
