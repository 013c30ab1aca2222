"""One advisory lock per folder, so that processes that write into it take turns."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from store.seal import writing

LOCK_NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` (POSIX `flock`); waits for as long as another holder lives.

    The kernel drops the lock when its holder dies, so a killed process never blocks the next.
    The empty lock file stays: deleting it would let two processes hold two locks of one name.
    A file is locked rather than the folder itself because NFS refuses locks on folders.

    Raises StoreError if the folder cannot be written, OSError if it does not exist or its file system has no locks.
    """
    with writing(folder):
        handle = open(folder / LOCK_NAME, "w")  # noqa: SIM115 - closed below
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
