"""Optuna's journal with one write for all entries of a trial. Imports Optuna: only what runs a study imports this.

    with locked(folder), journal.together():
        study.tell(last, values)
        trial = study.ask()

Optuna appends one entry for every parameter, attribute and state. Each entry takes a lock, a flush to the disk, and a
read of what other processes wrote; a trial has eight entries or more. Here the entries take effect in memory at once,
and all of them are appended to the file in one write at the end.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import get_lock_file
from optuna.storages.journal._storage import JournalOperation

from store.seal import StoreError, writing

FLUSH = 1.0  # least seconds between two flushes to the disk: only a power cut can lose the entries since the last one
NUMBERED = (JournalOperation.CREATE_STUDY, JournalOperation.DELETE_STUDY, JournalOperation.CREATE_TRIAL)


class Backend(JournalFileBackend):
    """The journal's file. If a write fails, the incomplete entry is removed before another process can append."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path
        self._flushed = 0.0

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold both locks of the file: our own, which the kernel releases when its holder dies, and Optuna's."""
        with writing(self.path), open(self.path, "rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with get_lock_file(self._lock):
                yield

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with self.alone():
            self._append("".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs))

    def append_lines(self, lines: list[str], number: int) -> None:
        """Append `lines`; the first one becomes entry `number` of the file. The caller holds the locks (`alone`) and
        has read all earlier entries."""
        start = self._log_number_offset[number]
        self._append("".join(line + "\n" for line in lines))
        # remember where the next entry begins, so that reading need not count lines from the start of the file
        self._log_number_offset[number + len(lines)] = start + sum(len(line.encode()) + 1 for line in lines)

    def flush(self) -> None:
        """Flush everything that was appended to the disk."""
        with writing(self.path), open(self.path, "rb") as handle:
            os.fsync(handle.fileno())

    def _append(self, text: str) -> None:
        size = self.path.stat().st_size
        try:
            with open(self.path, "ab") as handle:
                handle.write(text.encode())
                handle.flush()
                if time.monotonic() - self._flushed > FLUSH:
                    os.fsync(handle.fileno())
                    self._flushed = time.monotonic()
        except OSError:
            os.truncate(self.path, size)
            raise


class Journal(JournalStorage):
    """Optuna's storage in the file of `backend`; several entries can be written in one go with `together`."""

    _held: list[str] | None = None

    def __init__(self, backend: Backend) -> None:
        self._file = backend
        super().__init__(backend)

    def flush(self) -> None:
        """Flush all entries to the disk: after that not even a power cut loses one."""
        self._file.flush()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Collect the entries that are made inside the `with` block and append them in one write at its end, also after
        an exception. They take effect in this process at once; entries of other processes are read only at the end.

        Trials are numbered in the order of the file, so the caller must hold a lock that keeps other processes from
        creating trials meanwhile. Raises StoreError if a program without that lock created one (nothing is written
        then), or if the disk cannot be written.
        """
        with self._thread_lock:
            self._sync_with_backend()
            before = self._replay_result.log_number_read
            self._held = []
        try:
            yield
        finally:
            lines, self._held = self._held, None
            if lines:
                with self._thread_lock:
                    self._write(lines, before)

    def _write(self, lines: list[str], before: int) -> None:
        with self._file.alone():
            others = list(self._file.read_logs(before))
            if _numbered(others) and _numbered([json.loads(line) for line in lines]):
                raise StoreError(
                    self._file.path,
                    "another program made a trial while the study was running",
                    "leave it alone while it runs, and give the same command again: what was finished is kept",
                )
            self._replay_result.apply_logs(others)
            self._file.append_lines(lines, before + len(others))

    def _write_log(self, op_code: int, extra_fields: dict[str, Any]) -> None:
        if self._held is None:
            super()._write_log(op_code, extra_fields)
            return
        entry = {"op_code": op_code, "worker_id": self._replay_result.worker_id, **extra_fields}
        line = json.dumps(entry, separators=(",", ":"))
        self._held.append(line)
        self._replay_result.apply_logs([json.loads(line)])  # the same values that a reader of the file will get

    def _sync_with_backend(self) -> None:
        if self._held is None:
            super()._sync_with_backend()


def _numbered(entries: list[dict[str, Any]]) -> bool:
    return any(entry["op_code"] in NUMBERED for entry in entries)
