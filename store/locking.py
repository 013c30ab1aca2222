"""One advisory lock per folder, so that processes that write into it take turns."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` (POSIX `flock`); waits for as long as another holder lives.

    The kernel drops the lock when its holder dies, so a killed process never blocks the next.
    The empty lock file stays: deleting it would let two processes hold two locks of one name.
    A file is locked rather than the folder itself because NFS refuses locks on folders.

    Raises OSError if the folder does not exist, is not writable, or its file system has no locks.
    """
    with open(folder / LOCK_NAME, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
