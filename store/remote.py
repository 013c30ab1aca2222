"""Runs on a server of MLflow, or in a database that several machines share.

The workspace keeps fields, artifacts and the sealed record of every run as always. A server that does not answer at
the beginning of a command is an error at once. If it stops answering while a run computes, the run goes on: it ends in
the workspace, and what the server has missed is sent at the end of the run, by the next command, or by
`dislobench repair`.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit, urlunsplit

from store import through_client
from store.addresses import scheme_of, scrubbed, shown
from store.database import SCHEME, Guarded, quietly, sql_store
from store.faults import BadStore
from store.homes import DIED, inside, server_command
from store.listing import RunRecord, WorkspaceError, is_id
from store.naming import Grouping
from store.objects import bucket_of
from store.provenance import origin
from store.recording import DESCRIPTION, RECORD, Checked, Line, insert_runs, shown_tags
from store.seal import StoreError, read_json, writing
from store.sealed import PLACE
from store.through_client import MARK

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

_LOG = logging.getLogger("dislobench")

UNSENT = "unsent"
"""Folder of the workspace with a file for each run that its server does not have to its end yet."""
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
"""Defaults of MLflow's client that are ours: three retries take 12 seconds, enough for a server that is restarted."""
FIRST = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
"""The first request has no retries: a server that is not there is told at once."""
CONNECT = 10  # seconds to wait for a database
SENDERS = 4  # requests at a time
_ITS_OWN = {"RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_PARAMETER_VALUE", "INVALID_STATE"}
"""Answers of a server that works: it refuses this one request."""


class NoAnswer(WorkspaceError):
    """A server or a database does not answer, or refuses everything: which one, why, and the cure."""


@contextmanager
def answering(where: str) -> Iterator[None]:
    """Turn errors of a connection into `NoAnswer`. What a server that works says of one request is raised unchanged."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        if error.error_code in _ITS_OWN:
            raise
        raise no_answer(where, error) from None  # the original message may hold a password
    except (SQLAlchemyError, OSError, ImportError) as error:
        raise no_answer(where, error) from None


def no_answer(where: str, error: Exception, options: str = "--tracking-uri, MLFLOW_TRACKING_URI") -> NoAnswer:
    """The fault for an `error` of the server or database `where`, which was named by `options`."""
    told = " ".join(scrubbed(str(error)).split())
    if isinstance(error, ImportError):
        cure = "install the driver, for PostgreSQL: pip install 'dislobench[postgresql]'"
    elif re.search(r"\b40[13]\b|password|PERMISSION_DENIED|UNAUTHENTICATED|[Aa]uthenti", told):
        cure = (
            "give user and password in the environment (MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for a "
            "server, PGUSER and PGPASSWORD or ~/.pgpass for PostgreSQL)"
        )
    elif re.search(r"\b50\d\b", told):
        cure = "the log of the server says why: its database may have stopped"
    else:
        cure = f"start it, or correct the address ({options})"
    return NoAnswer(f"{where} does not answer: {_short(told)}; {cure}")


def _short(told: str) -> str:
    """The cause at the end of a long message of nested errors."""
    reason = re.search(
        r"\[Errno [^\]]*\] [^'\")]*|Name or service not known|timed out|[Cc]onnection refused|"
        r"too many \d+ error responses",
        told,
    )
    return reason[0] if reason else told if len(told) < 300 else told[:300] + "..."


class _Remote(ABC):
    """What a server and a database have in common: runs are read and written through MLflow's client."""

    keeps_ids = True
    shared = True

    def __init__(self, workspace: Path, address: str, group: Grouping) -> None:
        self.workspace = workspace
        self.group = group
        self.artifacts = workspace / "artifacts"
        self.address = address
        self.where = shown(address)
        self.options: tuple[str, ...] = ("--tracking-uri", self.where)
        self._opened: MlflowClient | None = None

    def prepare(self) -> None:
        self.client()
        with writing(self.artifacts):
            self.artifacts.mkdir(parents=True, exist_ok=True)

    def client(self) -> MlflowClient:
        """Raises `NoAnswer` if the first request has no answer."""
        if self._opened is None:
            with quietly():
                self._opened = cast("MlflowClient", Guarded(self._connected(), lambda: answering(self.where)))
        return self._opened

    @abstractmethod
    def _connected(self) -> MlflowClient:
        """Open the connection; raises `NoAnswer`."""

    def read(self, **conditions: Any) -> list[RunRecord]:
        return through_client.read(self.client(), marked=True, **conditions)

    def known_ids(self) -> set[str]:
        return through_client.known_ids(self.client())

    def metric_keys(self, experiment: str) -> list[str]:
        return through_client.metric_keys(self.client(), experiment)

    def lost(self, stores: Sequence[str]) -> str:
        return ""  # a server that is new to a workspace is no loss; `dislobench runs` tells of stores without a run

    def new_experiment(self, name: str) -> dict[str, Any]:
        return {"tags": {MARK: "runs"}}

    def ours(self, experiment: Experiment) -> bool:
        return MARK in experiment.tags

    def adopt(self, experiment: Experiment) -> None:
        """An empty experiment may have been made by hand, for a store of artifacts of its own."""
        if self.ours(experiment):
            return
        if self.client().search_runs([experiment.experiment_id], max_results=1):
            raise WorkspaceError(
                f"{self.where}: its experiment {experiment.name!r} holds runs of another program; rename that "
                f"experiment in the UI, or give the spec another case.name"
            )
        self.client().set_experiment_tag(experiment.experiment_id, MARK, "runs")

    def tags(self) -> dict[str, str]:
        bucket = bucket_of(self.workspace)
        return {PLACE: f"{socket.gethostname()}:{self.workspace}" if bucket is None else bucket.where}

    def folder(self, record: RunRecord) -> Path:
        parts = (record.experiment, record.id, "artifacts") if is_id(record.id) else ()
        return inside(self.artifacts, parts, f"{self.where}: run {record.id!r} of {record.experiment!r}")

    def line(self, run_id: str) -> Line:
        return _PatientLine(self, run_id)

    @abstractmethod
    def publish(self, run_id: str, path: Path, folder: str) -> None:
        """Copy an artifact to the store of artifacts."""

    # --- what the home has missed ---------------------------------------------------------------------------------

    def mark(self, run_id: str) -> Path:
        """The file that stands for a run which this home does not have to its end."""
        return self.workspace / UNSENT / run_id

    def unfinished(self) -> list[RunRecord]:
        folder = self.workspace / UNSENT
        if not folder.is_dir():
            return []
        ids = [path.name for path in folder.iterdir() if is_id(path.name) and path.read_text() == self.where]
        found = {key: self.read(run_id=key) for key in sorted(ids)}
        for key in (key for key, records in found.items() if not records):  # it was deleted there
            self.mark(key).unlink(missing_ok=True)
        return [record for records in found.values() for record in records]

    def close(self, record: RunRecord) -> RunRecord:
        """Send the rest of a run that has ended in the workspace; one that was killed is closed."""
        kept = self._kept(record)
        if kept is not None and kept["status"] != "RUNNING":
            self.send(record, kept)
            status = str(kept["status"])
        else:
            status = "KILLED"
            self.client().set_tag(record.id, "error", DIED)
            self.client().set_terminated(record.id, status)
        self.mark(record.id).unlink(missing_ok=True)
        return replace(record, status=status)

    def catch_up(self, alive: Callable[[str], bool]) -> list[str]:
        """Compare every sealed record of the workspace with the home, and send what is missing there."""
        told = []
        for record in self.read():
            kept = self._kept(record)
            if kept is None or kept["status"] == "RUNNING" or alive(record.id) or not _behind(record, kept):
                continue
            self.send(record, kept)
            self.mark(record.id).unlink(missing_ok=True)
            told.append(f"run {record.name!r} ({record.id[:8]}): sent to {self.where}, which had missed a part of it")
        return told

    def send(self, record: RunRecord, kept: Mapping[str, Any]) -> None:
        """Send the entries of the sealed record `kept` that `record` lacks, all artifacts, and the status."""
        line = Line(self.client(), record.id, self.group)
        described = {DESCRIPTION: kept["description"]} if kept.get("description") else {}
        line.log(
            {k: v for k, v in kept["metrics"].items() if k not in record.metrics},
            {k: v for k, v in kept["parameters"].items() if k not in record.parameters},
            {k: v for k, v in kept["tags"].items() if k not in record.tags} | described,
        )
        folder = self.folder(record)
        for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
            self.publish(record.id, entry, ".")
        line.end(replace(record, status=kept["status"]))

    def _kept(self, record: RunRecord) -> dict[str, Any] | None:
        """The sealed record of a run; None if this workspace does not hold one, or a damaged one."""
        try:
            return read_json(self.folder(record).parent / RECORD, "run its case again")
        except StoreError:
            return None

    def set_aside(self, alive: Callable[[str], bool], held: Sequence[str]) -> str:
        return ""  # its administrator looks after it

    def ui_address(self, port: int, host: str) -> str:
        return f"http://{host}:{port}"

    def ui_variables(self) -> dict[str, str]:
        return {}


def _behind(record: RunRecord, kept: Mapping[str, Any]) -> bool:
    """Whether a home lacks an entry of a run, or its end. Entries that differ are told by `store.sealed`."""
    lacks = (
        kept["metrics"].keys() - record.metrics.keys()
        or kept["parameters"].keys() - record.parameters.keys()
        or kept["tags"].keys() - record.tags.keys()
    )
    return bool(lacks) or record.status == "RUNNING"


class _PatientLine(Line):
    """A line to a home that may stop answering: then the run goes on, and everything is said again at its end."""

    def __init__(self, home: _Remote, run_id: str) -> None:
        super().__init__(home.client(), run_id, home.group)
        self._home = home
        self._missed: list[Callable[[], None]] = []
        mark = home.mark(run_id)
        with writing(mark):
            mark.parent.mkdir(exist_ok=True)
            mark.write_text(home.where)

    def log(
        self,
        metrics: Mapping[str, float] | None = None,
        parameters: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        step: int = 0,
    ) -> None:
        self._say(lambda: super(_PatientLine, self).log(metrics, parameters, tags, step))

    def dataset(self, name: str, digest: str, context: str, source: str, profile: Mapping[str, Any]) -> None:
        self._say(lambda: super(_PatientLine, self).dataset(name, digest, context, source, profile))

    def publish(self, path: Path, folder: str) -> None:
        self._say(lambda: self._home.publish(self._id, path, folder))

    def end(self, known: RunRecord) -> None:
        """Raises `NoAnswer` when the home does not take the rest of the run."""
        try:
            while self._missed:
                self._missed[0]()
                del self._missed[0]
            super().end(known)
        except NoAnswer as error:
            raise NoAnswer(
                f"{error}. Nothing is lost: run {known.name!r} ({self._id[:8]}) has ended as {known.status} in "
                f"{self._home.workspace}; when the server answers again, the next command or `dislobench repair "
                f"--workspace {self._home.workspace} {' '.join(self._home.options)}` sends it"
            ) from None
        self._home.mark(self._id).unlink(missing_ok=True)

    def _say(self, action: Callable[[], None]) -> None:
        if not self._missed:
            try:
                return action()
            except NoAnswer as error:
                _LOG.warning("%s. The run goes on, and is sent at its end", error)
        self._missed.append(action)
        return None


class TrackingServer(_Remote):
    """A server of MLflow. Its artifacts are copies of those in the workspace."""

    keeps_ids = False

    def __init__(self, workspace: Path, address: str, group: Grouping) -> None:
        super().__init__(workspace, address.rstrip("/"), group)

    def _connected(self) -> MlflowClient:
        bare = _without_user(self.address)
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        from mlflow import MlflowClient

        client = MlflowClient(bare, registry_uri=bare)
        with _set(FIRST), answering(self.where):
            client.search_experiments(max_results=1)
        return client

    def publish(self, run_id: str, path: Path, folder: str) -> None:
        """Raises `NoAnswer` for whatever goes wrong: each kind of artifact store has errors of its own."""
        below = None if folder == "." else folder
        try:
            if path.is_dir():
                self.client().log_artifacts(run_id, str(path), f"{folder}/{path.name}" if below else path.name)
            else:
                self.client().log_artifact(run_id, str(path), below)
        except NoAnswer:
            raise
        except Exception as error:
            raise NoAnswer(
                f"{self.where}: its store of artifacts does not take {path.name}: "
                f"{' '.join(scrubbed(str(error)).split())[:300]}; start the server with --artifacts-destination"
            ) from None

    def insert(
        self, experiment_id: str, experiment: str, runs: Sequence[Checked], link: Mapping[str, str]
    ) -> list[str]:
        """Three requests for each run, a few runs at a time: if the server stops answering, some are there and some
        are not. A run that is RUNNING was not written to its end."""
        client, made_by = self.client(), origin()

        def one(entry: Checked) -> str:
            run, parameters, metrics, tags = entry
            begin = None if run.start is None else round(run.start * 1000)
            end = None if run.end is None else round(run.end * 1000)
            if run.id:
                raise BadStore(
                    f"{self.where} gives every run an id of its own, and run {run.name!r} has one ({run.id[:8]}), "
                    "which is that of its store: give --tracking-uri the address of the server's database"
                )
            every = {**tags, **link, **self.tags(), **made_by, **shown_tags(run)}
            made = client.create_run(experiment_id, begin, every, run.name)
            Line(client, made.info.run_id).log(metrics, parameters)
            client.set_terminated(made.info.run_id, run.status, end)
            return str(made.info.run_id)

        with ThreadPoolExecutor(SENDERS) as senders:
            return list(senders.map(one, runs))

    def ui_command(self, port: int, host: str) -> list[str]:
        return []

    def ui_address(self, port: int, host: str) -> str:
        return self.where


class Database(_Remote):
    """A database that MLflow writes without a server. Artifacts lie in the workspace only."""

    def _connected(self) -> MlflowClient:
        from mlflow import MlflowClient

        with answering(self.where):
            _try(self.address)
            sql_store(self.address)  # makes the tables, and knows where artifacts are
            return MlflowClient(self.address, registry_uri=self.address)

    def new_experiment(self, name: str) -> dict[str, Any]:
        return {**super().new_experiment(name), "artifact_location": SCHEME + name}

    def publish(self, run_id: str, path: Path, folder: str) -> None:
        pass  # the workspace has it

    def insert(
        self, experiment_id: str, experiment: str, runs: Sequence[Checked], link: Mapping[str, str]
    ) -> list[str]:
        with answering(self.where):
            return insert_runs(self.address, experiment_id, experiment, runs, {**link, **self.tags()})

    def ui_command(self, port: int, host: str) -> list[str]:
        return server_command(self.artifacts, port, host)

    def ui_variables(self) -> dict[str, str]:
        # everybody on the machine can read the argv of a process, and the address may hold a password
        return {"MLFLOW_BACKEND_STORE_URI": self.address}


def _try(address: str) -> None:
    """Connect once: MLflow would try for 100 seconds to reach a database that is not there."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    waits = {"connect_timeout": CONNECT} if scheme_of(address) in ("postgresql", "mysql") else {}
    with create_engine(address, poolclass=NullPool, connect_args=waits).connect():
        pass


def _without_user(address: str) -> str:
    """The address without user and password, which MLflow's client then finds in the environment: its messages hold
    the address."""
    parts = urlsplit(address)
    if parts.username:
        os.environ.setdefault("MLFLOW_TRACKING_USERNAME", unquote(parts.username))
    if parts.password:
        os.environ.setdefault("MLFLOW_TRACKING_PASSWORD", unquote(parts.password))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


@contextmanager
def _set(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the `with` block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
