"""A run while it is being logged: checked entries go to MLflow, files into the folder of the run."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from store import living
from store.database import SCHEME, sql_store
from store.entries import FinishedRun, check_tags, flatten, jsonable, split_metrics
from store.faults import FailedOutcome
from store.listing import RunRecord
from store.locking import locked
from store.naming import Grouping, grouped, no_group
from store.provenance import origin
from store.seal import write_json, writing

if TYPE_CHECKING:
    from mlflow import MlflowClient

RECORD = "run.json"
DESCRIPTION = "mlflow.note.content"
MAX_ERROR = 2000  # characters of an exception's message kept in the tag `error`


class Run:
    """A run being logged; leaving its `with` block ends it.

    Normal exit: FINISHED. An Exception: the tags `status` (class name) and `error` (message), then
    FAILED; KeyboardInterrupt and SystemExit: the same tags, then KILLED; the exception propagates.
    A FailedOutcome (a result about the physics) also gets the tag `outcome`, unless the run has one. Without a `with`
    block a run stays RUNNING.

    The file `run.json` beside the artifacts holds the same entries as the database, with a checksum, so that a lost
    database can be rebuilt.
    """

    def __init__(
        self,
        line: Line,
        record: RunRecord,
        folder: Path,
        workspace: Path,
        alive: int,
        ended: Callable[[str], None] | None = None,
    ) -> None:
        self.id = record.id
        self._description = ""
        self._line = line
        self._folder = folder
        self._workspace = workspace
        self._known = record
        self._alive = alive  # see `store.living`
        self._ended = ended  # called with the id when the run has ended, unless it was stopped

    def begun_with(self, parameters: Mapping[str, Any]) -> Self:
        """Log the parameters and write the record for the first time. If that fails, the run ends with its fault."""
        try:
            self.parameters(parameters)
            self.keep_record()
        except BaseException as fault:
            self.__exit__(type(fault), fault, fault.__traceback__)
            raise
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if fault is None:
                self._end("FINISHED")
                return
            status = "FAILED" if isinstance(fault, Exception) else "KILLED"
            told = {"status": type(fault).__name__, "error": str(fault)[:MAX_ERROR]}
            if isinstance(fault, FailedOutcome) and "outcome" not in self._known.tags:
                told["outcome"] = type(fault).__name__.lower()
            try:
                self.tags(told)
                self._end(status)
            except Exception as second:
                # The first failure is the one to raise; a note says that it could not be recorded.
                fault.add_note(f"MLflow run {self.id} could not be marked {status}: {second}")
        finally:
            with locked(self._workspace):
                living.release(self._workspace, self.id, self._alive)
            if self._ended is not None and (kind is None or issubclass(kind, Exception)):
                self._ended(self.id)

    def _end(self, status: str) -> None:
        self._known = replace(self._known, status=status)
        self.keep_record()  # first: what a database cannot take now is sent from there
        self._line.end(self._known)

    def keep_record(self) -> None:
        """Write all entries of the run into its `run.json`; raises StoreError when the disk cannot be written."""
        path = self._folder.parent / RECORD
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self.record())

    def record(self, metrics: Mapping[str, Any] | None = None, tags: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the run as the database will hold it once `metrics` and `tags` are logged too, as plain JSON.

        Raises ValueError or TypeError as `Run.metrics` and `Run.tags` do.
        """
        finite, nonfinite = split_metrics(metrics or {})
        known = self._known
        return {
            "id": known.id,
            "name": known.name,
            "experiment": known.experiment,
            "status": known.status,
            "start": known.start,
            "parent": known.parent,
            "parameters": dict(known.parameters),
            "metrics": {**known.metrics, **finite},
            "tags": {**known.tags, **check_tags(tags or {}), **nonfinite},
            "description": self._description,
        }

    def metrics(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Log real numbers by their plain names in one call; inf and NaN become tags `nonfinite.<name>`.

        Raises ValueError for a name MLflow refuses or with a slash, TypeError for what is not a real number, both
        before anything is logged.
        """
        finite, nonfinite = split_metrics(values)
        self._line.log(metrics=finite, tags=nonfinite, step=step or 0)
        self._known.metrics.update(finite)
        self._known.tags.update(nonfinite)

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Log parameters, nested mappings flattened with dots.

        Raises ValueError or TypeError where `entries.flatten` does, and ValueError for a name this
        run holds with another value; then nothing is logged.
        """
        flat = flatten(values)
        for name, text in flat.items():
            if (before := self._known.parameters.get(name, text)) != text:
                raise ValueError(
                    f"parameter {name!r} of run {self.id} is {before!r}, it cannot become {text!r};"
                    " log what changes as a metric or a tag"
                )
        new = {name: text for name, text in flat.items() if name not in self._known.parameters}
        self._line.log(parameters=new)
        self._known.parameters.update(new)

    def tags(self, values: Mapping[str, Any]) -> None:
        """Set tags, replacing those of the same name; raises ValueError as `entries.check_tags`."""
        checked = check_tags(values)
        self._line.log(tags=checked)
        self._known.tags.update(checked)

    def describe(self, markdown: str) -> None:
        """Set the text that MLflow's UI shows above the numbers of the run; raises ValueError as
        `entries.check_tags`."""
        check_tags({"description": markdown})
        self._line.log(tags={DESCRIPTION: markdown})
        self._description = markdown

    def dataset(self, name: str, digest: str, context: str, source: str, profile: Mapping[str, Any]) -> None:
        """Tell which data the run has used, as MLflow's table of datasets shows it: `context` such as "training",
        `source` how to get it, `profile` what it is. The digest stands in the tag `dataset.CONTEXT` too, so that it
        survives a lost database. Raises ValueError as `entries.check_tags`."""
        self._line.dataset(name, digest, context, source, jsonable(profile))
        self.tags({f"dataset.{context}": digest})

    def artifact(self, path: Path | str, folder: str | None = None) -> Path:
        """Copy a file or a folder into the artifacts, below `folder`; return the copy.

        Raises FileNotFoundError for a missing `path`, ValueError if `folder` leads out of the run.
        """
        source = Path(path)
        target = self._place(f"{folder}/{source.name}" if folder else source.name)
        with writing(target):
            if source.is_dir():
                _copy_folder(source, target)
            else:
                shutil.copy2(source, target)
        return self._published(target)

    def text(self, name: str, text: str) -> Path:
        """Write `text` (UTF-8) to the artifact `name`, folders allowed; return its path."""
        target = self._place(name)
        with writing(target):
            target.write_text(text, encoding="utf-8")
        return self._published(target)

    def json(self, name: str, value: Any) -> Path:
        """Write `value` to the artifact `name` as strict JSON; return its path.

        inf and NaN become text. Raises TypeError for what JSON cannot hold.
        """
        return self.text(name, json.dumps(jsonable(value), indent=1, ensure_ascii=False) + "\n")

    def sealed_json(self, name: str, content: Mapping[str, Any]) -> Path:
        """Write `content` with its checksum to the artifact `name`, to be read by `seal.read_json`; return its path."""
        target = self._place(name)
        write_json(target, content)
        return self._published(target)

    def _published(self, target: Path) -> Path:
        """Give the artifact `target` to the store of artifacts of a server, where there is one."""
        self._line.publish(target, target.parent.relative_to(self._folder).as_posix())
        return target

    def _place(self, name: str) -> Path:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or PurePosixPath(name).is_absolute():
            raise ValueError(f"artifact name {name!r} leads out of the run; use a relative path")
        target = self._folder.joinpath(*parts)
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        return target


def _copy_folder(source: Path, target: Path) -> None:
    """Copy a folder like shutil.copytree, which would hide the error of a full disk in a text."""
    target.mkdir(exist_ok=True)
    for entry in source.iterdir():
        if entry.is_dir():
            _copy_folder(entry, target / entry.name)
        else:
            shutil.copy2(entry, target / entry.name)


class Line:
    """What a run says to its database through MLflow's client: each call is made at once, and errors are raised.
    `group` gives the group under which MLflow shows a metric."""

    def __init__(self, client: MlflowClient, run_id: str, group: Grouping = no_group) -> None:
        self._client, self._id, self._group = client, run_id, group

    def log(
        self,
        metrics: Mapping[str, float] | None = None,
        parameters: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        step: int = 0,
    ) -> None:
        """Write checked entries, metrics by their plain names, in one call; the client splits it into batches that
        MLflow accepts.

        Each kind of entry is a transaction of its own: parameters, metrics, tags.
        """
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        self._client.log_batch(
            self._id,
            [Metric(name, value, now, step) for name, value in grouped(metrics or {}, self._group).items()],
            [Param(name, text) for name, text in (parameters or {}).items()],
            [RunTag(name, text) for name, text in (tags or {}).items()],
            synchronous=True,
        )

    def dataset(self, name: str, digest: str, context: str, source: str, profile: Mapping[str, Any]) -> None:
        """Add a row to MLflow's table of datasets; see `Run.dataset`."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        told = Dataset(name, digest, "code", json.dumps({"command": source}), profile=json.dumps(profile))
        self._client.log_inputs(self._id, [DatasetInput(told, [InputTag("mlflow.data.context", context)])])

    def publish(self, path: Path, folder: str) -> None:
        """Copy an artifact, a file or a folder, to where `folder` (relative) says; nothing to do in a workspace."""

    def end(self, known: RunRecord) -> None:
        """End the run with the status of `known`, which has all its entries."""
        self._client.set_terminated(self._id, known.status)


Checked = tuple[FinishedRun, Mapping[str, str], Mapping[str, float], Mapping[str, str]]
"""A finished run with its checked parameters, metrics and tags."""


def shown_tags(run: FinishedRun) -> dict[str, str]:
    """The tags of name and description."""
    return {"mlflow.runName": run.name, **({DESCRIPTION: run.description} if run.description else {})}


def finished_run(record: Mapping[str, Any] | None, sealed: Mapping[str, Any] | None, end: float) -> FinishedRun:
    """A run from its `record` (`Run.record`), with the entries that its store has `sealed`; one of both may be None.
    `end` is in Unix seconds.

    The record says how the run ended; the store is written before that.
    """
    base = record or sealed
    assert base is not None
    status = "FINISHED" if record is None else record["status"]
    parts = [each for each in (record, sealed) if each is not None]
    return FinishedRun(
        base["name"],
        {name: value for each in parts for name, value in each["parameters"].items()},
        {name: value for each in parts for name, value in each["metrics"].items()},
        {name: value for each in parts for name, value in each["tags"].items()},
        status if status in ("FINISHED", "FAILED") else "KILLED",
        datetime.fromisoformat(base["start"]).timestamp(),
        end,
        base["id"],
        next((each["description"] for each in parts if each.get("description")), ""),  # older records have none
    )


def insert_runs(
    address: str, experiment_id: str, experiment: str, runs: Sequence[Checked], link: Mapping[str, str]
) -> list[str]:
    """Insert finished runs into the database at `address` in one transaction; return their ids.

    Goes through the tables of MLflow's SQL store, as its own client does, but once for all runs.
    """
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam, SqlRun, SqlTag
    from sqlalchemy import insert

    heads, parameters, metrics, labels = [], [], [], []
    made = origin()
    now = int(time.time() * 1000)
    for run, flat, finite, tags in runs:
        key = run.id or uuid.uuid4().hex
        begin = now if run.start is None else round(run.start * 1000)
        end = now if run.end is None else round(run.end * 1000)
        heads.append(
            {
                "run_uuid": key,
                "name": run.name,
                "experiment_id": int(experiment_id),
                "user_id": "unknown",
                "status": run.status,
                "start_time": begin,
                "end_time": end,
                "source_type": "UNKNOWN",
                "source_name": "",
                "entry_point_name": "",
                "source_version": "",
                "lifecycle_stage": "active",
                "artifact_uri": f"{SCHEME}{experiment}/{key}/artifacts",
            }
        )
        parameters += [{"run_uuid": key, "key": name, "value": text} for name, text in flat.items()]
        metrics += [
            {"run_uuid": key, "key": name, "value": value, "timestamp": end, "step": 0, "is_nan": False}
            for name, value in finite.items()
        ]
        labels += [
            {"run_uuid": key, "key": name, "value": text}
            for name, text in {**tags, **link, **made, **shown_tags(run)}.items()
        ]
    tables = ((SqlRun, heads), (SqlParam, parameters), (SqlMetric, metrics), (SqlLatestMetric, metrics))
    with sql_store(address).ManagedSessionMaker() as session:
        for table, entries in (*tables, (SqlTag, labels)):
            if entries:
                session.execute(insert(table), entries)
    return [str(head["run_uuid"]) for head in heads]
