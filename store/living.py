"""Which runs are alive: a process holds a lock for each of its runs, and the kernel releases it when the process
dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

FOLDER = ".live"


def hold(workspace: Path, run_id: str) -> int:
    """Mark a run as alive until `release`, or until this process dies; return what `release` takes.

    Several processes may hold one run: two commands of one sweep do. Hold the lock of the workspace.
    """
    folder = workspace / FOLDER
    folder.mkdir(exist_ok=True)
    handle = os.open(folder / run_id, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.flock(handle, fcntl.LOCK_SH)
    return handle


def release(workspace: Path, run_id: str, handle: int) -> None:
    """End what `hold` began; the last holder removes the file. Hold the lock of the workspace."""
    try:
        _remove_if_unheld(workspace / FOLDER / run_id, handle)
    finally:
        os.close(handle)


def alive(workspace: Path, run_id: str) -> bool:
    """Whether a process works on the run; the lock file of a dead process is removed. Hold the lock of the
    workspace."""
    path = workspace / FOLDER / run_id
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _remove_if_unheld(path, handle)
    finally:
        os.close(handle)


def held(workspace: Path) -> list[str]:
    """Return the ids of the runs that have a lock file, alive or dead."""
    folder = workspace / FOLDER
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _remove_if_unheld(path: Path, handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    path.unlink(missing_ok=True)
    return True
