"""Optuna's journal with one write for all entries of a trial. Imports Optuna: only what runs a study imports this.

    with locked(folder), journal.together():
        study.tell(last, values)
        trial = study.ask()

Optuna appends one entry for every parameter, attribute and state. Each entry takes a lock, a flush to the disk, and a
read of what other processes wrote; a trial has eight entries or more. Here the entries take effect in memory at once,
and all of them are appended to the file in one write at the end.
"""

from __future__ import annotations

import copy
import fcntl
import json
import os
import time
from collections import defaultdict
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import get_lock_file
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import FrozenTrial, TrialState

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


@dataclass
class _Tally:
    """What is known of a study after its first `seen` trials: the ids of those that have not ended, and how many are
    complete. A trial that has ended stays as it is."""

    seen: int = 0
    unfinished: list[int] = field(default_factory=list)
    complete: int = 0


class Journal(JournalStorage):
    """Optuna's storage in the file of `backend`; several entries can be written in one go with `together`.

    Optuna looks at all trials whenever it begins one, to find those that wait: here only at those that have not ended,
    so that a trial of a long study costs as much as one of a short study.
    """

    _held: list[str] | None = None

    def __init__(self, backend: Backend) -> None:
        self._file = backend
        self._tallies: dict[int, _Tally] = defaultdict(_Tally)
        super().__init__(backend)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if states is None or any(state in states for state in TrialState if state.is_finished()):
            return super().get_all_trials(study_id, deepcopy, states)
        with self._thread_lock:
            self._sync_with_backend()
            found = [self._replay_result.get_trial(number) for number in self._tally(study_id).unfinished]
            found = [trial for trial in found if trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def begun(self, study_id: int) -> int:
        """How many trials of a study are complete or running."""
        with self._thread_lock:
            self._sync_with_backend()
            tally = self._tally(study_id)
            states = [self._replay_result.get_trial(number).state for number in tally.unfinished]
            return tally.complete + states.count(TrialState.RUNNING)

    def _tally(self, study_id: int) -> _Tally:
        """The tally of a study, brought up to date."""
        tally, numbers = self._tallies[study_id], self._replay_result._study_id_to_trial_ids[study_id]
        before, tally.unfinished = [*tally.unfinished, *numbers[tally.seen :]], []
        tally.seen = len(numbers)
        for number in before:
            state = self._replay_result.get_trial(number).state
            if not state.is_finished():
                tally.unfinished.append(number)
            tally.complete += state is TrialState.COMPLETE
        return tally

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
