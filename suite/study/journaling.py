"""Optuna's journal with one write for all entries of a trial. Imports Optuna: only what runs a study imports this.

    with locked(folder), journal.together():
        study.tell(last, values)
        trial = study.ask()

Optuna appends an entry for every parameter, attribute and state, each with a lock, a flush to the disk, and a look at
what others wrote: eight and more a trial. Here they are applied in memory as they come, and appended at the end.
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

FLUSH = 1.0  # least seconds between two flushes to the disk: a power cut may take what came after, a kill takes nothing
NUMBERED = (JournalOperation.CREATE_STUDY, JournalOperation.DELETE_STUDY, JournalOperation.CREATE_TRIAL)


class Backend(JournalFileBackend):
    """The journal's file. Cuts off what a failed write left, under the same lock, before another process appends."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path
        self._flushed = 0.0

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold both locks of the file: ours, which the kernel drops when its holder dies, and that of Optuna."""
        with writing(self.path), open(self.path, "rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with get_lock_file(self._lock):
                yield

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with self.alone():
            self._append("".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs))

    def append_lines(self, lines: list[str], number: int) -> None:
        """Append `lines`, entries `number` and the following ones of the file; the caller is `alone`, and has read all
        before them."""
        start = self._log_number_offset[number]
        self._append("".join(line + "\n" for line in lines))
        # where to read on, so that nobody counts the lines from the beginning
        self._log_number_offset[number + len(lines)] = start + sum(len(line.encode()) + 1 for line in lines)

    def flush(self) -> None:
        """Have the disk keep all that was appended."""
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
    """Optuna's storage in the file of `backend`, whose entries can be written `together`."""

    _held: list[str] | None = None

    def __init__(self, backend: Backend) -> None:
        self._file = backend
        super().__init__(backend)

    def flush(self) -> None:
        """Have the disk keep all entries: after it even a power cut takes none."""
        self._file.flush()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Entries that are made inside take effect at once and are appended in one write at the end, also after an
        exception. What others write meanwhile is not seen before.

        Trials are numbered in the order of the file: who makes trials inside keeps others from it by a lock. Raises
        StoreError when a program without that lock made one meanwhile (nothing is written then), or the disk refuses.
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
        self._replay_result.apply_logs([json.loads(line)])  # what a reader of the file will have

    def _sync_with_backend(self) -> None:
        if self._held is None:
            super()._sync_with_backend()


def _numbered(entries: list[dict[str, Any]]) -> bool:
    return any(entry["op_code"] in NUMBERED for entry in entries)
