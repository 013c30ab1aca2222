"""Where the runs of a workspace are kept: in its own sqlite file, in another database, or on a server of MLflow.

    home = home_of(workspace)
    home.read(experiment="w-screw")

A home keeps the entries of runs. Their fields, artifacts and sealed records lie in the workspace in any case, so that
a home that is lost, or that did not answer, gets its runs again from there.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from store import journal, listing, through_client
from store.addresses import is_server, own_address, tracking_address
from store.database import SCHEME, connect, quiet, speaking
from store.faults import BadStore
from store.listing import RunRecord, UnknownTables, WorkspaceError
from store.locking import locked
from store.naming import Grouping, no_group
from store.recording import Checked, Line, insert_runs
from store.seal import writing

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

_LOG = logging.getLogger("dislobench")


class Home(Protocol):
    """What a workspace asks of the place where its runs are kept."""

    where: str
    """Its name in messages; it holds no password."""
    address: str
    """Its address for MLflow; it may hold a password."""
    keeps_ids: bool
    """Whether a finished run can be inserted under an id that it has already."""
    shared: bool
    """Whether other machines use it too, so that it has their runs."""
    options: tuple[str, ...]
    """Words of a command line that choose it."""

    def prepare(self) -> None:
        """Create it and the folders of the workspace, unless they exist."""
        ...

    def client(self) -> MlflowClient:
        """MLflow's client, with errors turned into faults."""
        ...

    def read(self, **conditions: Any) -> list[RunRecord]:
        """As `listing.read`."""
        ...

    def known_ids(self) -> set[str]:
        """The ids of all runs, those deleted in the UI too."""
        ...

    def metric_keys(self, experiment: str) -> list[str]:
        """As `listing.metric_keys`."""
        ...

    def lost(self, stores: Sequence[str]) -> str:
        """What to say when it has no run at all, although the workspace holds the `stores` of some; "" if nothing."""
        ...

    def new_experiment(self, name: str) -> dict[str, Any]:
        """Arguments of the client's `create_experiment`."""
        ...

    def ours(self, experiment: Experiment) -> bool:
        """Whether dislobench made an experiment."""
        ...

    def adopt(self, experiment: Experiment) -> None:
        """Use an experiment that is there; raises WorkspaceError if it holds the runs of another program."""
        ...

    def tags(self) -> dict[str, str]:
        """Tags that every new run gets."""
        ...

    def folder(self, record: RunRecord) -> Path:
        """The folder of a run's artifacts in the workspace; raises WorkspaceError for one that leads out of it."""
        ...

    def line(self, run_id: str) -> Line:
        """What a run of this process says to the home."""
        ...

    def insert(
        self, experiment_id: str, experiment: str, runs: Sequence[Checked], link: Mapping[str, str]
    ) -> list[str]:
        """Keep finished runs, whose metrics have their grouped names, with the tags `link`; returns their ids."""
        ...

    def unfinished(self) -> list[RunRecord]:
        """Runs of this workspace that have not ended here; a process may still work on them."""
        ...

    def close(self, record: RunRecord) -> RunRecord:
        """End an unfinished run whose process is gone."""
        ...

    def catch_up(self, alive: Callable[[str], bool]) -> list[str]:
        """Send what the home missed while it did not answer; returns a sentence for each run."""
        ...

    def set_aside(self, alive: Callable[[str], bool], held: Sequence[str]) -> str:
        """Move a damaged home away; returns a sentence, "" if it is sound. Raises BadStore while a run is `alive`."""
        ...

    def ui_command(self, port: int, host: str) -> list[str]:
        """The argv of a server that shows the runs; none if there is a server already."""
        ...

    def ui_variables(self) -> dict[str, str]:
        """Environment variables of that server."""
        ...

    def ui_address(self, port: int, host: str) -> str:
        """The address of the pages."""
        ...


def home_of(workspace: Path, given: str | None = None, group: Grouping = no_group) -> Home:
    """The home of a workspace: `given` address, else that of the environment, else its own sqlite file ("" too).
    `group` gives the group under which MLflow shows a metric."""
    address = None if given == "" else tracking_address(workspace, given)
    if address is None:
        return Embedded(workspace, group)
    from store.remote import Database, TrackingServer

    if is_server(address):
        return TrackingServer(workspace, address, group)
    return Database(workspace, address, group)


class Embedded:
    """The sqlite file of the workspace, `mlflow.db`, and its folder `artifacts`.

    Artifacts have `mlflow-artifacts:` addresses, which hold no absolute path. Runs are read from the file directly.
    """

    keeps_ids = True
    shared = False
    options: tuple[str, ...] = ()

    def __init__(self, workspace: Path, group: Grouping) -> None:
        self.workspace = workspace
        self._group = group
        self.artifacts = workspace / "artifacts"
        self.database = workspace / "mlflow.db"
        self.where = str(self.database)
        self.address = own_address(self.database)
        self._opened: MlflowClient | None = None

    def prepare(self) -> None:
        self.client()

    def client(self) -> MlflowClient:
        if self._opened is None:
            self._opened = connect(self.database)
            self.artifacts.mkdir(exist_ok=True)
        return self._opened

    def read(self, **conditions: Any) -> list[RunRecord]:
        """As `listing.read`; through MLflow's client, which takes seconds, if the tables are unknown."""
        try:
            return listing.read(self.database, **conditions)
        except UnknownTables as error:
            _LOG.warning("%s; reading through MLflow's client instead", error)
            return through_client.read(self.client(), **conditions)

    def known_ids(self) -> set[str]:
        return listing.known_ids(self.database)

    def metric_keys(self, experiment: str) -> list[str]:
        return listing.metric_keys(self.database, experiment)

    def lost(self, stores: Sequence[str]) -> str:
        return (
            f"{self.database}: {'holds no runs' if self.database.exists() else 'is missing'}, while "
            f"{self.workspace / 'fields'} holds the stores of {len(stores)}; "
            f"`dislobench repair --workspace {self.workspace}` rebuilds it from them; if a server keeps these runs, "
            "name it with --tracking-uri"
        )

    def new_experiment(self, name: str) -> dict[str, Any]:
        return {"artifact_location": SCHEME + name}

    def ours(self, experiment: Experiment) -> bool:
        return (experiment.artifact_location or "").startswith(SCHEME)

    def adopt(self, experiment: Experiment) -> None:
        pass  # nobody else writes here

    def tags(self) -> dict[str, str]:
        return {}

    def folder(self, record: RunRecord) -> Path:
        """A database made by a stranger must not lead out of the workspace."""
        parts = PurePosixPath(record.place.removeprefix(SCHEME)).parts
        if not record.place.startswith(SCHEME):
            parts = ()
        return inside(self.artifacts, parts, f"{self.where}: run {record.id} keeps its artifacts at {record.place}")

    def line(self, run_id: str) -> Line:
        return Line(self.client(), run_id, self._group)

    def insert(
        self, experiment_id: str, experiment: str, runs: Sequence[Checked], link: Mapping[str, str]
    ) -> list[str]:
        """One transaction with MLflow's own tables: through its client each run takes six commits, 30 ms or more."""
        with locked(self.workspace), speaking(self.database):
            return insert_runs(self.address, experiment_id, experiment, runs, link)

    def unfinished(self) -> list[RunRecord]:
        return self.read(status="RUNNING")

    def close(self, record: RunRecord) -> RunRecord:
        self.client().set_tag(record.id, "error", DIED)
        self.client().set_terminated(record.id, "KILLED")
        return replace(record, status="KILLED")

    def catch_up(self, alive: Callable[[str], bool]) -> list[str]:
        return []  # it takes every entry at once, or the run ends

    def set_aside(self, alive: Callable[[str], bool], held: Sequence[str]) -> str:
        """Move a database away that SQLite cannot read; an empty file is removed."""
        database = self.database
        if database.exists() and database.stat().st_size and not (wrong := listing.sound(database)):
            return ""
        if working := [key for key in held if alive(key)]:
            raise BadStore(
                f"{database} is lost or damaged, and processes still work on {len(working)} runs ({working[0][:8]}, "
                "...): end them first"
            )
        if not database.exists():
            return ""
        with locked(self.workspace), writing(database):
            if not database.stat().st_size:
                database.unlink()
                return f"{database}: removed, it was empty"
            kept = journal.aside(database)
            os.replace(database, kept)
            rest = database.with_name(database.name + "-journal")
            if rest.exists():
                os.replace(rest, kept.with_name(kept.name + "-journal"))
        return f"{database}: set aside as {kept.name} ({wrong})"

    def ui_command(self, port: int, host: str) -> list[str]:
        where = ("--backend-store-uri", self.address)
        return [*server_command(self.artifacts, port, host), *where]

    def ui_variables(self) -> dict[str, str]:
        return {}

    def ui_address(self, port: int, host: str) -> str:
        return f"http://{host}:{port}"


DIED = "its process died without closing it"


def inside(artifacts: Path, parts: Sequence[str], where: str) -> Path:
    """The folder `parts` below `artifacts`; raises WorkspaceError, which begins with `where`, if it leads out of it."""
    outside = WorkspaceError(
        f"{where}, outside the workspace; it was not made by dislobench: do not trust this workspace"
    )
    if not parts or ".." in parts or parts[0] == "/":
        raise outside
    folder = artifacts.joinpath(*parts)
    if not folder.resolve().is_relative_to(artifacts.resolve()):  # through a link
        raise outside
    return folder


def server_command(artifacts: Path, port: int, host: str) -> list[str]:
    """The argv of an MLflow server with one worker, which gives out the files of `artifacts`."""
    quiet()  # the server inherits the environment
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--artifacts-destination", artifacts.as_uri()),
        *("--host", host, "--port", str(port), "--workers", "1"),
    ]
