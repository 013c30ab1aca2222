"""What lasts of a workspace whose lasting place is a bucket: it is sent when a run ends, and fetched when it is read.

    lasting = Tracker(folder_of("s3://bucket/prefix")).lasting
    lasting.begin()                         # runs of other machines come into the database
    ...                                     # each run is sent when it ends
    lasting.send()                          # what could not be sent before

In the bucket, below the prefix of the workspace:

    fields/RUN.zarr/...                     the store of a run; its manifest is sent after all other files
    artifacts/CASE/RUN/...                  its artifacts, and the trials of a study
    studies/FOLDER/...                      the journal and the reports of a study
    marks/RUN.N.DIGEST.json                 sent last: the record of the run, and its files with their checksums

No object is ever changed, so that no lock is needed. A run that goes on after its end, such as that of a sweep, gets
a new mark with the next number; files that are new there have their checksum in their names. Of two marks with one
number, which two machines made at the same time, all machines take the same one.

A mark that was sent or fetched lies in the folder `marks` of the workspace too. A run has been sent if its `run.json`
has the same time as its newest mark.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from store import handing
from store.entries import FinishedRun
from store.faults import BadStore
from store.listing import RunRecord, is_id
from store.locking import locked, locked_file
from store.marks import MARKS, Name, by_run, checked, newest, place_of, study_folder
from store.objects import Bucket, BucketError, Traffic, for_each
from store.recording import RECORD, finished_run
from store.seal import (
    MANIFEST,
    StoreError,
    digest_of,
    manifest_files,
    read_json,
    recover,
    remove,
    sealed,
    sibling,
    verify,
    write_json,
    writing,
)

if TYPE_CHECKING:
    from store.runs import Tracker

_LOG = logging.getLogger("dislobench")

TRIALS = "trials.json"
REST = 60.0  # seconds in which no run is sent after one that could not be sent
_CURE = (
    "delete this object, and let `dislobench repair` send it again from a machine that has the run in its local folder"
)


class Unsent(BadStore):
    """Runs that the bucket does not have at the end of a command."""


class _Ended(NamedTuple):
    """A run that has ended here, and where its parts lie."""

    record: Path
    artifacts: Path
    store: Path
    collector: Mapping[str, str]

    @property
    def id(self) -> str:
        return self.store.stem


class _Part(NamedTuple):
    """An object of a run: its key in the bucket, the file that it was made from, and the checksum and size of both."""

    key: str
    file: Path
    sha256: str
    size: int

    def here(self) -> bool:
        """Whether the file is here as it was sent."""
        return self.file.exists() and digest_of(self.file) == (self.sha256, self.size)


class Lasting:
    """The bucket of a workspace, for its tracker. Its methods raise BucketError when the bucket does not answer."""

    def __init__(self, tracker: Tracker, bucket: Bucket) -> None:
        self.bucket = bucket
        self._tracker, self._workspace = tracker, tracker.workspace
        self._folder = self._workspace / MARKS
        self._quiet_until = 0.0
        self._read: dict[str, list[Name]] = {}
        self._read_at = -1  # time of the folder of marks when it was read

    # --- at the beginning and at the end of a command -------------------------------------------------------------

    def begin(self) -> list[str]:
        """Bring the runs that the bucket has into this workspace, without their fields and artifacts; return a sentence
        about it, and for each mark that is damaged and left out. Raises at once if the bucket does not answer."""
        self.bucket.traffic = Traffic()
        there = newest(by_run(self.bucket.listed(MARKS, patient=False)))
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        with locked_file(self._workspace / "locks" / "fetching"):  # or two commands would insert a run twice
            here = self._newest()
            new = [name for run, name in there.items() if run not in here or name > here[run]]
            found = dict(zip(new, for_each(self._fetched, new), strict=True))
            self._read_at = -1
            wrong = [str(mark) for mark in found.values() if isinstance(mark, StoreError)]
            whole = {name: mark for name, mark in found.items() if not isinstance(mark, StoreError)}
            changed = [mark for name, mark in whole.items() if self._adopt(mark, name, here)]
            added = self._into_database(changed, wrong)
        if any((self._workspace / handing.FOLDER).glob("*")):
            handing.take_over_all(self._tracker)
        told = f"{self.bucket.where}: its local folder is {self._workspace}"
        came = f"; {added} {'run' if added == 1 else 'runs'} came from the bucket" if added else ""
        return [told + came, *wrong]

    def send(self) -> tuple[list[str], list[str]]:
        """Send all runs that have ended here and that the bucket does not have; return a sentence for each that was
        sent, and for each that is damaged here. Raises Unsent when the bucket does not take them."""
        done, wrong = [], []
        for ended in self._unsent():
            try:
                self._send(ended)
                done.append(f"run {ended.id[:8]}: sent to {self.bucket.where}")
            except BucketError as error:
                raise Unsent(f"{error}. {self._waiting()}") from None
            except BadStore as error:
                wrong.append(f"run {ended.id[:8]} is not sent to {self.bucket.where}: {error}")
        return done, wrong

    def ended(self, run_id: str) -> None:
        """Send a run that has just ended. If that fails it is told, and the run is sent later."""
        if time.monotonic() < self._quiet_until:
            return
        try:
            for ended in self._unsent(run_id):
                self._send(ended)
        except BadStore as error:
            self._quiet_until = time.monotonic() + REST
            _LOG.warning("%s. The run is kept in %s, and is sent later", error, self._workspace)

    def _waiting(self) -> str:
        left = sum(1 for _ in self._unsent())
        return (
            f"Nothing is lost: {left} runs wait in {self._workspace}; the next command with this workspace sends "
            f"them, or `dislobench repair --workspace {self.bucket.where}`"
        )

    # --- reading --------------------------------------------------------------------------------------------------

    def mark(self, run_id: str) -> dict[str, Any] | None:
        """The newest mark of a run in this workspace; None if the bucket is not known to have the run."""
        if not (names := self._here().get(run_id)):
            return None
        return read_json(self._folder / str(names[-1]), "delete this file: it is fetched again")

    def fetch_store(self, run_id: str, path: Path) -> None:
        """Write the store of a run to `path`, if the bucket has it. Raises StoreError for one that is incomplete or was
        changed there; then nothing is written."""
        mark = self.mark(run_id)
        if mark is None or not mark["fields"]:
            return
        below = f"fields/{run_id}.zarr"
        raw = self._whole(f"{below}/{MANIFEST}", mark["fields"])
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent):
            if path.exists():  # another process has fetched it meanwhile
                return
            recover(path)
            new = sibling(path, "new")
            try:
                entries = self._listed(below, raw)
                for_each(lambda name: self._download(f"{below}/{name}", new / name, entries[name]), entries)
                (new / MANIFEST).write_bytes(raw)
                os.rename(new, path)
            finally:
                remove(new)

    def _listed(self, below: str, raw: bytes) -> dict[str, dict[str, Any]]:
        try:
            return manifest_files(raw)
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(f"{below}/{MANIFEST}", str(error)) from None

    def fetch_files(self, run_id: str, below: str) -> None:
        """Write the files of a run that lie below this folder of the workspace, if the bucket has them. A file that is
        here already, and was changed here since it was sent or fetched, stays as it is."""
        mark = self.mark(run_id)
        if mark is None:
            return
        before = [read_json(self._folder / str(name), _CURE)["files"] for name in self._here()[run_id]]
        wanted = []
        for path, entry in mark["files"].items():
            place = self._workspace / path
            known = {files[path]["sha256"] for files in before if path in files}
            if path.startswith(below) and (not place.exists() or digest_of(place)[0] in known - {entry["sha256"]}):
                wanted.append(path)
        for_each(lambda path: self._fetch_file(path, mark["files"][path]), wanted)

    def fetch_all(self, below: str) -> None:
        """`fetch_files` of every run that the bucket is known to have."""
        for run in self._newest():
            self.fetch_files(run, below)

    def _fetch_file(self, path: str, entry: Mapping[str, Any]) -> None:
        place = self._workspace / path
        partial = place.with_name(f".{place.name}.{os.getpid()}.new")
        try:
            self._download(entry.get("key", path), partial, entry)
            os.replace(partial, place)
        finally:
            remove(partial)

    def _download(self, key: str, path: Path, entry: Mapping[str, Any]) -> None:
        """Raises StoreError for an object that is missing or not the one that was sent."""
        try:
            digest, size = self.bucket.download(key, path)
        except FileNotFoundError:
            raise self._damaged(key, "missing") from None
        if (digest, size) != (entry["sha256"], entry["size"]):
            raise self._damaged(key, "was changed since it was sent: checksum mismatch")

    def _whole(self, key: str, digest: str) -> bytes:
        """A small object with this checksum; raises StoreError for any other."""
        try:
            raw = self.bucket.get(key)
        except FileNotFoundError:
            raise self._damaged(key, "missing") from None
        if digest_of(raw)[0] != digest:
            raise self._damaged(key, "was changed since it was sent: checksum mismatch")
        return raw

    def _damaged(self, key: str, wrong: str) -> StoreError:
        cure = f"{_CURE}, or run its case again"
        return StoreError(f"{self.bucket.where}/{key}", wrong, cure)

    # --- runs of other machines -----------------------------------------------------------------------------------

    def _here(self) -> dict[str, list[Name]]:
        """The marks in this workspace, those of each run from the oldest to the newest."""
        try:
            when = self._folder.stat().st_mtime_ns
        except FileNotFoundError:
            return {}
        if when != self._read_at:
            self._read_at, self._read = when, by_run(os.listdir(self._folder))
        return self._read

    def _newest(self) -> dict[str, Name]:
        return newest(self._here())

    def _fetched(self, name: Name) -> dict[str, Any] | StoreError:
        """A mark from the bucket, kept in this workspace as it is; what is wrong with one that is damaged, or leads
        elsewhere."""
        place = self._folder / str(name)
        partial = place.with_name(f".{name}.{os.getpid()}.new")
        try:
            self.bucket.download(f"{MARKS}/{name}", partial)
            mark = checked(read_json(partial, _CURE), name, _CURE)
            os.replace(partial, place)
        except StoreError as error:
            return StoreError(f"{self.bucket.where}/{MARKS}/{name}", error.wrong, error.cure)
        finally:
            remove(partial)
        return mark

    def _adopt(self, mark: Mapping[str, Any], name: Name, here: Mapping[str, Name]) -> bool:
        """Write the record of a run of another machine; whether it was written. One that has gone on here too, and was
        not sent, stays as it is."""
        record, run = mark["record"], name.run
        place = self._workspace / "artifacts" / record["experiment"] / run
        if run not in here and mark["collector"]:
            place = self._workspace / handing.FOLDER / run / "run"
        path = place / RECORD
        if path.exists() and (run not in here or not _same_time(path, self._folder / str(here[run]))):
            return False
        with writing(place):
            place.mkdir(parents=True, exist_ok=True)
        write_json(path, record)
        _set_time(self._folder / str(name), path)
        if place.parent.name == run:
            write_json(place.parent / handing.MARK, _handed(mark))
        return True

    def _into_database(self, changed: Iterable[Mapping[str, Any]], wrong: list[str]) -> int:
        """Insert the runs that the database does not have, and bring those up to date that have gone on elsewhere;
        returns how many were inserted. A database that other machines share has them already. A sentence about each
        run that cannot be inserted goes to `wrong`."""
        tracker = self._tracker
        if tracker.home.shared:
            return 0
        known = tracker.known_ids()
        waiting = {path.name for path in (self._workspace / handing.FOLDER).glob("*")}
        missing = [self.mark(run) for run in self._newest().keys() - known - waiting]
        marks = [mark for mark in missing if mark is not None]
        again = [mark for mark in changed if mark["record"]["id"] in known]
        runs: dict[str, list[tuple[FinishedRun, str | None]]] = {}
        for mark in marks:
            entry = (finished_run(mark["record"], None, mark["end"]), mark["record"]["parent"])
            runs.setdefault(mark["record"]["experiment"], []).append(entry)
        for study in [*marks, *again]:
            try:
                trials = [each for each in self._trials(study) if each["id"] not in known]
            except StoreError as error:
                wrong.append(str(error))
                continue
            entries = [(finished_run(each, None, _begin(each)), study["record"]["id"]) for each in trials]
            runs.setdefault(study["record"]["experiment"], []).extend(entries)
        refused = [sentence for experiment, found in runs.items() for sentence in tracker.restore(experiment, found)]
        wrong += refused
        for each in again:
            tracker.update(each["record"])
        return sum(map(len, runs.values())) - len(refused)

    def _trials(self, mark: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The records of the trials of a study."""
        path = f"{place_of(mark['record'])}/{TRIALS}"
        if path not in mark["files"]:
            return []
        self.fetch_files(mark["record"]["id"], path)
        trials = read_json(self._workspace / path, "delete it: it is fetched again")["trials"]
        return [each for each in trials if is_id(each["id"])]

    # --- sending --------------------------------------------------------------------------------------------------

    def _unsent(self, run_id: str = "*") -> Iterator[_Ended]:
        """Runs that have ended here and whose newest mark is older. Runs of shards wait for the command that collects
        them, on whatever machine; those of a cluster are taken over by the command that made them."""
        sent = self._newest()
        for path in sorted(self._workspace.glob(f"artifacts/*/{run_id}/{RECORD}")):
            run = path.parent.name
            if not is_id(run) or (run in sent and _same_time(path, self._folder / str(sent[run]))):
                continue
            if _status(path) == "RUNNING":
                continue
            yield _Ended(path, path.parent / "artifacts", self._tracker.store_path(run), {})
        for path in sorted(self._workspace.glob(f"{handing.FOLDER}/{run_id}/{handing.MARK}")):
            collector = read_json(path, "delete its folder")["collector"]
            own = path.parent
            if collector and own.name not in sent:
                yield _Ended(own / "run" / RECORD, own / "run" / "artifacts", own / f"{own.name}.zarr", collector)

    def _send(self, ended: _Ended) -> None:
        """Send a run that has ended: its store, its other files, and its mark at the end."""
        with locked_file(self._workspace / "locks" / "sending"):
            when = ended.record.stat()
            record = read_json(ended.record, "`dislobench repair` tells what can be done")
            run = record["id"]
            if run != ended.id:
                raise StoreError(ended.record, f"the record of another run, {run}", "put its own record back")
            name, before = self._newest().get(run), self.mark(run) or {"fields": "", "files": {}}
            if name is not None and _same_time(ended.record, self._folder / str(name)):
                return  # another process has sent it meanwhile
            mark = {
                "record": record,
                "end": when.st_mtime,
                "fields": self._send_store(run, ended.store) or before["fields"],
                "files": {**before["files"], **self._send_files(ended, record, before["files"])},
                "collector": dict(ended.collector),
            }
            raw = json.dumps(sealed(mark), indent=1, ensure_ascii=False).encode()
            number = 1 if name is None else name.number + 1
            new = Name(number, digest_of(raw)[0][:12], run)
            self.bucket.put(f"{MARKS}/{new}", raw)
            with writing(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                (self._folder / str(new)).write_bytes(raw)
                os.utime(self._folder / str(new), ns=(when.st_atime_ns, when.st_mtime_ns))
            self._read_at = -1

    def _send_store(self, run: str, store: Path) -> str:
        """Send a store, its manifest last; returns the checksum of the manifest, "" where there is no store."""
        if not store.exists():
            return ""
        verify(store)
        raw = (store / MANIFEST).read_bytes()
        below = f"fields/{run}.zarr"
        if self._there(f"{below}/{MANIFEST}") != raw:  # else it was sent whole, and its mark was not
            for_each(lambda file: self.bucket.put(f"{below}/{file}", store / file), manifest_files(raw))
            self.bucket.put(f"{below}/{MANIFEST}", raw)
        return digest_of(raw)[0]

    def _there(self, key: str) -> bytes | None:
        try:
            return self.bucket.get(key)
        except FileNotFoundError:
            return None

    def _send_files(
        self, ended: _Ended, record: Mapping[str, Any], before: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, dict[str, Any]]:
        """Send the files beside the store that are new or were changed since the mark `before`; returns their
        entries."""

        def send(named: tuple[str, Path]) -> tuple[str, dict[str, Any]]:
            path, file = named
            raw = file.read_bytes()
            digest, size = digest_of(raw)
            entry: dict[str, Any] = {"sha256": digest, "size": size}
            if path in before:
                if before[path]["sha256"] == digest:
                    return path, dict(before[path])
                entry["key"] = f"{path}.{digest[:12]}"
            self.bucket.put(entry.get("key", path), raw)
            return path, entry

        return dict(for_each(send, [*self._files(ended, record)]))

    def mend(self) -> tuple[list[str], list[str]]:
        """Send again what the bucket has lost of the runs that it had; return a sentence for each run of which this was
        possible, and for each of which it was not, because its files are not here either."""
        there = self.bucket.listed()
        done, left = [], []
        for run, name in self._newest().items():
            lost = [part for part in self._parts(run, name) if there.get(part.key) != part.size]
            good = [part for part in lost if part.here()]
            for part in good:  # in their order: the mark last
                self.bucket.put(part.key, part.file)
            if good:
                done.append(f"run {run[:8]}: {len(good)} objects that {self.bucket.where} had lost, sent again")
            if missing := [part.key for part in lost if part not in good]:
                left.append(
                    f"run {run[:8]}: {self.bucket.where} has lost {', '.join(missing[:3])}, not whole here either"
                )
        return done, left

    def _parts(self, run: str, name: Name) -> Iterator[_Part]:
        """The objects of a run, in the order in which they are written; those of its fields are known where the fields
        are here."""
        mark, store = self.mark(run), self._tracker.store_path(run)
        assert mark is not None
        below = f"fields/{run}.zarr"
        if (store / MANIFEST).exists():
            raw = (store / MANIFEST).read_bytes()
            if digest_of(raw)[0] == mark["fields"]:
                for path, entry in manifest_files(raw).items():
                    yield _Part(f"{below}/{path}", store / path, entry["sha256"], entry["size"])
                yield _Part(f"{below}/{MANIFEST}", store / MANIFEST, *digest_of(raw))
        for path, entry in mark["files"].items():
            yield _Part(entry.get("key", path), self._workspace / path, entry["sha256"], entry["size"])
        own = self._folder / str(name)
        yield _Part(f"{MARKS}/{name}", own, *digest_of(own))

    def _files(self, ended: _Ended, record: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
        """Paths in the workspace, and the files that are to have them: artifacts, and of a study its folder and its
        trials."""
        below = place_of(record)
        for file in _visible(ended.artifacts):
            yield f"{below}/artifacts/{file.relative_to(ended.artifacts).as_posix()}", file
        if record["tags"].get("kind") != "study":
            return
        if name := study_folder(record):
            folder = self._workspace / "studies" / name
            for file in _visible(folder):
                yield f"studies/{name}/{file.relative_to(folder).as_posix()}", file
        if not self._tracker.home.shared:
            children = [_plain(each) for each in self._tracker.children(record["id"]) if each.kind == "trial"]
            write_json(ended.record.with_name(TRIALS), {"trials": children})
            yield f"{below}/{TRIALS}", ended.record.with_name(TRIALS)


def _handed(mark: Mapping[str, Any]) -> dict[str, Any]:
    """A run of a shard as `store.handing` keeps it until it is collected."""
    return {"record": mark["record"], "datasets": [], "collector": mark["collector"]}


def _visible(folder: Path) -> Iterator[Path]:
    """The files below a folder; hidden and incomplete ones are left out."""
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.is_file() and not hidden and file.suffix != ".new":
            yield file


def _plain(record: RunRecord) -> dict[str, Any]:
    return {key: value for key, value in asdict(record).items() if key != "place"}


def _begin(record: Mapping[str, Any]) -> float:
    """When a run began, in Unix seconds."""
    return datetime.fromisoformat(record["start"]).timestamp()


def _status(path: Path) -> str:
    """How a run has ended; "" if its record is damaged, which is told when it is sent."""
    try:
        return str(json.loads(path.read_bytes())["status"])
    except (ValueError, KeyError, TypeError):
        return ""


def _same_time(first: Path, second: Path) -> bool:
    return first.stat().st_mtime_ns == second.stat().st_mtime_ns


def _set_time(path: Path, other: Path) -> None:
    """Give a file the time of another one."""
    when = other.stat()
    os.utime(path, ns=(when.st_atime_ns, when.st_mtime_ns))
