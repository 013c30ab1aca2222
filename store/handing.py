"""Runs that are made without the database, and handed over to the one process that writes it.

    with handing.begin(workspace, "w-screw", "L=8", parameters, tags, parent) as run:   # anywhere
        fields.write(run.store, ...)
    handing.take_over(tracker, run.id)                                                  # in one process

Many workers that write one SQLite file, perhaps over a network, would wait for each other, or damage it. So a worker
writes all of a run into a folder of its own, `handed/ID`: its sealed store, its artifacts, its sealed record, and at
the very end a mark. Taking over moves these to their places, inserts the run, and removes the folder. It may be stopped
anywhere, and is done again from the beginning. What has no mark is not finished; it is removed when its worker is dead.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store import living
from store.entries import check_tags, flatten
from store.listing import RunRecord
from store.locking import locked
from store.recording import Line, Run, finished_run
from store.seal import StoreError, read_json, remove, write_json, writing

if TYPE_CHECKING:
    from store.runs import Tracker

FOLDER = "handed"
MARK = "handed.json"
_AGAIN = "delete its folder, and give the command again: the run is computed again"


class _Silent(Line):
    """The line of a run that no database knows yet: its record has all entries, and its datasets are kept here."""

    def __init__(self) -> None:
        self.datasets: list[list[Any]] = []

    def log(self, *_: Any, **__: Any) -> None: ...

    def dataset(self, *described: Any) -> None:
        self.datasets.append(list(described))

    def end(self, known: RunRecord) -> None: ...


class HandedRun(Run):
    """A run that no database knows yet. Its entries are in its record alone, its `store` is written beside them."""

    def __init__(self, record: RunRecord, workspace: Path, alive: int, collector: Mapping[str, str]) -> None:
        self._own = workspace / FOLDER / record.id
        self._silent = _Silent()
        super().__init__(self._silent, record, self._own / "run" / "artifacts", workspace, alive)
        self._collector = dict(collector)

    @property
    def store(self) -> Path:
        """Where the fields of this run are written."""
        return self._own / f"{self.id}.zarr"

    def _end(self, status: str) -> None:
        super()._end(status)
        write_json(
            self._own / MARK, {"record": self.record(), "datasets": self._silent.datasets, "collector": self._collector}
        )


def begin(
    workspace: Path,
    experiment: str,
    name: str,
    parameters: Mapping[str, Any],
    tags: Mapping[str, Any],
    parent: str | None = None,
    run_id: str = "",
    collector: Mapping[str, str] | None = None,
) -> HandedRun:
    """Begin a run as `Tracker.start` does, with files only. An earlier attempt with the same `run_id` is replaced.

    `parent` is the id of a run in the database. Whoever does not know it names a `collector`: tags of the run that
    will be the parent; until there is one the run waits.

    Raises ValueError or TypeError for names and values as `Tracker.start`, StoreError for a full disk.
    """
    key = run_id or uuid.uuid4().hex
    flat, checked = flatten(parameters), check_tags(tags)
    own = workspace / FOLDER / key
    with writing(own):
        remove(own)
        own.mkdir(parents=True)
    with locked(workspace):
        alive = living.hold(workspace, key)
    begun = datetime.now(UTC).isoformat(timespec="milliseconds")
    record = RunRecord(key, name, experiment, "RUNNING", begun, {}, {}, checked, parent)
    return HandedRun(record, workspace, alive, collector or {}).begun_with(flat)


# --- the process that writes the database -------------------------------------------------------------------------


def waiting(workspace: Path) -> list[dict[str, Any]]:
    """The records of the runs that were handed over and not taken over; damaged ones are left out."""
    return [mark["record"] for _, mark in _marks(workspace) if isinstance(mark, dict)]


def take_over(tracker: Tracker, run_id: str, alone: bool = False) -> bool:
    """Insert a run that was handed over into the database, with its store and its artifacts; return whether it was.

    A run whose parent is not there stays where it is; with `alone` it then gets no parent, unless it waits for a
    collector. Raises StoreError for a damaged mark, and what `Tracker.log_batch_of_runs` raises.
    """
    own = tracker.workspace / FOLDER / run_id
    if not (own / MARK).exists():
        return False
    with locked(own.parent):
        if not (own / MARK).exists():  # another process has taken it over meanwhile
            return False
        mark = _read(own / MARK)
        record = mark["record"]
        known, parent = _parent_of(tracker, record, mark["collector"])
        if not known and (mark["collector"] or not alone):
            return False
        _move(own / f"{run_id}.zarr", tracker.store_path(run_id))
        _move(own / "run", tracker.artifacts / record["experiment"] / run_id)
        if not tracker.home.read(run_id=run_id):
            run = finished_run(record, None, (own / MARK).stat().st_mtime)
            tracker.log_batch_of_runs(record["experiment"], parent, [run])
        for described in mark["datasets"]:
            Line(tracker.client(), run_id).dataset(*described)
        remove(own)
    tracker.ended(run_id)
    return True


def take_over_all(tracker: Tracker, alone: bool = False) -> list[str]:
    """`take_over` whatever waits, and remove what dead workers left; return a sentence for each."""
    told = []
    for path, mark in _marks(tracker.workspace):
        if isinstance(mark, StoreError):
            told.append(str(mark))
        elif take_over(tracker, path.parent.name, alone):
            name = mark["record"]["name"]
            told.append(f"run {name!r} ({path.parent.name[:8]}): taken over from the worker that computed it")
    return told + _clear(tracker.workspace)


def _marks(workspace: Path) -> Iterator[tuple[Path, dict[str, Any] | StoreError]]:
    """The marks of finished runs, and what is wrong with the damaged ones."""
    for path in sorted((workspace / FOLDER).glob(f"*/{MARK}")):
        try:
            yield path, _read(path)
        except StoreError as error:
            if path.exists():  # else another process has taken it over meanwhile
                yield path, error


def _read(path: Path) -> dict[str, Any]:
    """A mark; raises StoreError when it is damaged, or leads elsewhere."""
    mark = read_json(path, _AGAIN)
    record = mark["record"]
    if record["id"] != path.parent.name or Path(record["experiment"]).name != record["experiment"]:
        raise StoreError(path, f"is the mark of {record['experiment']}/{record['id']}", _AGAIN)
    return mark


def _parent_of(tracker: Tracker, record: Mapping[str, Any], collector: Mapping[str, str]) -> tuple[bool, str | None]:
    """Whether the parent that a run wants is there (or it wants none), and the id of the parent."""
    wanted = record["parent"]
    if wanted is not None:
        there = bool(tracker.home.read(run_id=wanted))
        return there, wanted if there else None
    for tag, value in collector.items():
        found = tracker.tagged(record["experiment"], tag, value)
        return bool(found), found[0].id if found else None
    return True, None


def _move(source: Path, target: Path) -> None:
    """Rename; a source that is not there has been moved before, or there never was one (of a run that failed)."""
    if not source.exists():
        return
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove(target)
        os.replace(source, target)


def _clear(workspace: Path) -> list[str]:
    """Remove the folders of runs whose workers died before the end."""
    told = []
    for own in sorted(path for path in (workspace / FOLDER).glob("*") if path.is_dir()):
        with locked(workspace):
            if (own / MARK).exists() or living.alive(workspace, own.name):
                continue
            remove(own)
        told.append(f"{own}: removed, its worker died before the run was finished")
    return told
