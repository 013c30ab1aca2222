"""Repair of a workspace: a lost database is rebuilt from sealed stores and records, and files that killed processes
left are removed.

    for sentence in repair(workspace).done: ...

A second repair finds nothing to do. A damaged file is renamed, never deleted. Runs of processes that are still alive
are left alone.
"""

from __future__ import annotations

import filecmp
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from store import journal, listing
from store.faults import BadStore
from store.handing import take_over_all
from store.recording import RECORD, finished_run
from store.runs import FinishedRun, RunNotFound, Tracker
from store.seal import StoreError, attributes, read_json, remove
from suite.judge.numbers import group_of
from suite.progress import Progress, silent
from suite.spec import BadSpec, Spec, load
from suite.study.described import parameters, run_name, version_tags
from suite.study.keeping import JOURNAL
from suite.study.mirror import mirror
from suite.study.sampling import StudyInUse, key_of, only_one


@dataclass
class Repaired:
    """What was done and what could not be done, one sentence for each item."""

    done: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Lost:
    """A run that is missing in the database, as its sealed files describe it."""

    run: FinishedRun
    experiment: str
    parent: str | None


def repair(workspace: Path, progress: Progress = silent) -> Repaired:
    """Repair what can be repaired in `workspace`.

    Raises BadStore if there is no such folder, if it cannot be written, if processes work in a workspace whose
    database must be rebuilt, or if the server that keeps the runs does not answer.
    """
    workspace = workspace.absolute()
    if not workspace.is_dir():
        raise BadStore(f"{workspace}: no such workspace; name another with --workspace")
    tracker, found = Tracker(workspace, group_of), Repaired()
    progress("leftovers", 0.0, "of dead processes")
    if told := tracker.set_aside():
        found.done.append(told)
    found.done += tracker.tidy()
    found.done += tracker.catch_up()
    progress("runs", 0.0, "from stores and records")
    _restore(tracker, found)
    found.done += take_over_all(tracker, alone=True)  # their parents may be among the restored
    progress("studies", 0.0, "journals and trials")
    for path in sorted((workspace / "studies").glob(f"*/{JOURNAL}")):
        _mend_study(tracker, path, found)
    if tracker.lasting is not None:
        progress("bucket", 0.0, "runs that it does not have")
        for done, left in (tracker.lasting.send(), tracker.lasting.mend()):
            found.done += done
            found.left += left
    return found


# --- the database -------------------------------------------------------------------------------------------------


def _restore(tracker: Tracker, found: Repaired) -> None:
    """Insert every run that has a sealed file but is missing in the database."""
    known = tracker.known_ids()
    lost = {each.run.id: each for each in _lost(tracker, known, found) if not tracker.alive(each.run.id)}
    if not lost:
        return
    if not tracker.home.keeps_ids:
        found.left.append(
            f"{len(lost)} runs of this workspace are not on {tracker.home.where}, which gives every new run an id of "
            "its own, so that they would not find their stores: give --tracking-uri the address of its database"
        )
        return
    parents = {each.parent for each in lost.values() if each.parent}
    for missing in sorted(parents - known - lost.keys()):
        children = [key for key, each in lost.items() if each.parent == missing]
        found.left.append(
            f"the sweep or study {missing[:8]} of {len(children)} runs: nothing is left of it; they have no parent now"
        )
        lost.update({key: replace(lost[key], parent=None) for key in children})
    count = attached = 0
    for each in sorted(lost.values(), key=lambda each: each.parent is not None):  # a parent before its children
        try:
            _insert(tracker, each, found)
        except (ValueError, TypeError) as error:  # names that were never ours
            found.left.append(f"run {each.run.name!r} ({each.run.id[:8]}): {error}")
            continue
        count += 1
        attached += tracker.artifacts_dir(each.run.id).is_dir()
    found.done.append(f"{tracker.home.where}: {count} runs restored, {attached} of them with their artifacts")


def _insert(tracker: Tracker, each: _Lost, found: Repaired) -> None:
    try:
        tracker.log_batch_of_runs(each.experiment, each.parent, [each.run])
    except RunNotFound:  # deleted in the UI
        found.left.append(f"run {each.run.name!r} ({each.run.id[:8]}): its parent was deleted; it has no parent now")
        tracker.log_batch_of_runs(each.experiment, None, [each.run])


# --- what sealed files tell ---------------------------------------------------------------------------------------


def _lost(tracker: Tracker, known: set[str], found: Repaired) -> Iterator[_Lost]:
    """Runs that are missing in the database, found by `run.json` and the store, by the store alone, or by
    `sweep.json`."""
    beside = {path.parent.name: path for path in tracker.artifacts.glob(f"*/*/{RECORD}")}
    stores = {path.stem: path for path in tracker.fields.glob("*.zarr")}
    for key in sorted((beside.keys() | stores.keys()) - known):
        if not listing.is_id(key):
            continue
        wrong: list[str] = []
        record, sealed = _read_record(beside.get(key), key, wrong), _read_store(stores.get(key), key, wrong)
        if sealed is not None and (record is not None or "record" in sealed):
            yield _of_records(record, sealed.get("record"), (beside.get(key) or stores[key]).stat().st_mtime)
        elif sealed is not None:
            yield _of_old_store(key, sealed, stores[key])
        elif record is not None and (record["status"] != "FINISHED" or listing.kind_of(record["tags"]) != listing.RUN):
            yield _of_records(record, None, beside[key].stat().st_mtime)
        elif record is not None:
            found.left += [f"{each}; its run is restored without fields" for each in wrong]
            yield _of_records(record, None, beside[key].stat().st_mtime)
        else:
            found.left += wrong
    for path in sorted(tracker.artifacts.glob("*/*/artifacts/sweep.json")):
        key = path.parent.parent.name
        if listing.is_id(key) and key not in known and key not in beside:
            yield from _of_old_sweep(key, path, found)


def _read_record(path: Path | None, key: str, wrong: list[str]) -> dict[str, Any] | None:
    try:
        record = None if path is None else read_json(path, "its run cannot be restored from it")
    except StoreError as error:
        wrong.append(str(error))
        return None
    if record is not None and record.get("id") != key:
        wrong.append(f"{path}: the record of another run, {record.get('id')}")
        return None
    return record


def _read_store(path: Path | None, key: str, wrong: list[str]) -> dict[str, Any] | None:
    try:
        found = None if path is None else attributes(path)
    except StoreError as error:
        wrong.append(str(error))
        return None
    if found is not None and found.get("run") != key:
        wrong.append(f"{path}: the store of another run, {found.get('run')}")
        return None
    return found


def _of_records(record: Mapping[str, Any] | None, sealed: Mapping[str, Any] | None, end: float) -> _Lost:
    """A run from the record beside its artifacts, with the entries of its store where it has one."""
    base = record or sealed
    assert base is not None
    run = finished_run(record, sealed, end)
    return _Lost(run, base["experiment"], base["parent"])


def _of_old_store(key: str, found: Mapping[str, Any], path: Path) -> _Lost:
    """A run from the store of an older version, which holds its spec and its numbers only."""
    spec = _spec_of(found["spec"])
    case = found["case"]
    name, settings = (f"{case} {key[:8]}", {"case": case}) if spec is None else (run_name(spec), parameters(spec))
    numbers = {name: float(value) for name, value in {**found["reference"], **found["numbers"]}.items()}
    tags = {"kind": listing.RUN, "outcome": found["status"], "limiting_term": found["limiting_term"]}
    tags |= version_tags(found["versions"])
    begun = datetime.fromisoformat(found["created"]).timestamp()
    run = FinishedRun(name, settings, numbers, tags, "FINISHED", begun, path.stat().st_mtime, key)
    return _Lost(run, case, None)


def _spec_of(text: str) -> Spec | None:
    with TemporaryDirectory() as scratch:
        path = Path(scratch, "spec.toml")
        path.write_text(text, encoding="utf-8")
        try:
            return load(path)
        except BadSpec:  # of a version with other keys
            return None


def _of_old_sweep(key: str, path: Path, found: Repaired) -> Iterator[_Lost]:
    """A sweep of an older version, from its `sweep.json`. That file has no seal, so that only the name is used."""
    try:
        content = read_json(path, "give the sweep again")
        name = str(content["name"])
    except (StoreError, KeyError) as error:
        name = path.parent.parent.name[:8]
        found.left.append(f"{error}: its rates are not shown, and its points stand alone")
    experiment = path.parent.parent.parent.name
    tags = {"kind": "sweep"}
    when = path.stat().st_mtime
    run = FinishedRun(f"sweep {name}", {"case": experiment, "sweep": name}, {}, tags, "FINISHED", when, when, key)
    yield _Lost(run, experiment, None)


# --- studies ------------------------------------------------------------------------------------------------------


def _mend_study(tracker: Tracker, path: Path, found: Repaired) -> None:
    """Cut a damaged journal, and add the study and the trials that are missing in the database."""
    folder = path.parent
    try:
        with only_one(folder):
            for partial in folder.glob("*.new"):
                remove(partial)
                found.done.append(f"{partial}: removed, it was not written to its end")
            if (damage := journal.damage(path)) is not None:
                found.done.append(journal.cut(path, damage))
            _mirror_study(tracker, path, found)
    except (StudyInUse, StoreError) as error:
        found.left.append(str(error))


def _mirror_study(tracker: Tracker, path: Path, found: Repaired) -> None:
    import optuna

    from suite.study.trials import open_journal

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = open_journal(path)
    for summary in optuna.get_all_study_summaries(storage):
        study, key = optuna.load_study(study_name=summary.study_name, storage=storage), key_of(summary.study_name)
        case = path.parent.name.rpartition("-")[0]
        made = tracker.home.read(experiment=case)
        parent = next((r.id for r in made if r.tags.get("study") == key), None)
        if parent is None:
            parent = _new_study(tracker, case, key, path)
            found.done.append(f"{path.parent}: its study is in the database again")
        if count := mirror(tracker, case, parent, study):
            found.done.append(f"{path.parent}: {count} trials are in the database again")


def _new_study(tracker: Tracker, case: str, key: str, path: Path) -> str:
    """A new run for a study that has none; the artifacts of the lost run are recognised by their report."""
    known, report = tracker.known_ids(), path.with_name("report.md")
    same = [
        each.parent.parent.name
        for each in tracker.artifacts.glob(f"{case}/*/artifacts/report.md")
        if report.exists() and filecmp.cmp(each, report, shallow=False)
    ]
    free = [each for each in same if listing.is_id(each) and each not in known]
    run_id = free[0] if free and tracker.home.keeps_ids else ""
    tags = {"study": key, "kind": "study", "folder": path.parent.name}
    begun, end = path.stat().st_ctime, path.stat().st_mtime
    run = FinishedRun(f"study {case} {key[:8]}", {"case": case}, {}, tags, "FINISHED", min(begun, end), end, run_id)
    return tracker.log_batch_of_runs(case, None, [run])[0]
