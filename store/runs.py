"""Runs in MLflow: by default one sqlite database and one folder of artifacts per workspace.

    tracker = Tracker(workspace)
    with tracker.start("w-screw", "L=8", {"training": {"size": 8}}, {}) as run:
        run.metrics({"geometry_error": 0.01})
    tracker.history("w-screw")

MLflow takes seconds to import, so only what writes a run imports it; runs are read from the sqlite file
(`store.listing`), which needs no lock and no permission to write. Artifacts have
`mlflow-artifacts:` addresses, which hold no absolute path: a workspace can be moved or copied and
its artifacts still open in the UI that `Tracker.ui_command` starts. Runs may also be kept on a server; where they are
kept is the `Home` of the workspace (`store.homes`).
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store import living, views
from store.addresses import shown
from store.entries import FinishedRun, check_tags, flatten, split_metrics
from store.faults import BadStore
from store.homes import home_of
from store.lasting import Lasting
from store.leftovers import clear_leftovers
from store.listing import PARENT, RunRecord, WorkspaceError, is_id
from store.locking import locked
from store.naming import SLASH, Grouping, grouped, no_group, plain
from store.objects import bucket_of
from store.provenance import origin
from store.recording import DESCRIPTION, RECORD, Checked, Line, Run
from store.sealed import Believed, believe, believe_record, elsewhere
from store.through_client import record_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["FinishedRun", "Run", "RunNotFound", "RunRecord", "Tracker", "WorkspaceError"]

STATUSES = ("FINISHED", "FAILED", "KILLED")


class RunNotFound(BadStore, LookupError):
    """A reference matches no run of a workspace, or more than one; `close` lists similar names and ids."""

    def __init__(self, message: str, workspace: Path, close: Sequence[str] = (), empty: bool = False) -> None:
        self.close = tuple(close)
        hint = f" (did you mean {', '.join(close)}?)" if close else ""
        cure = f"`dislobench runs --workspace {shlex.quote(str(workspace))}` lists what is there"
        cure = "it holds no runs: name another folder with --workspace" if empty else cure
        super().__init__(f"{message} in {workspace}{hint}; {cure}")


class Tracker:
    """The runs of one workspace: `<workspace>/mlflow.db` or another home, and `<workspace>/artifacts/`.

    `address` is that of a server or database; None takes the one in the environment (MLFLOW_TRACKING_URI), and "" the
    workspace's own database whatever the environment says. Raises BadAddress for any other.

    Reading never creates a workspace, and writes nothing. Each process makes its own Tracker. `group` gives the group
    under which MLflow shows a metric; see `store.naming`.
    """

    def __init__(self, workspace: Path | str, group: Grouping = no_group, address: str | None = None) -> None:
        self.workspace = Path(workspace).absolute()
        self._group = group
        self.artifacts = self.workspace / "artifacts"
        self.database = self.workspace / "mlflow.db"
        self.fields = self.workspace / "fields"
        self.home = home_of(self.workspace, address, group)
        bucket = bucket_of(self.workspace)
        self.lasting = None if bucket is None else Lasting(self, bucket)
        """The bucket of the workspace, if it has one."""

    def prepare(self) -> None:
        """Create the workspace and its database unless they exist; any number of processes may.

        Raises WorkspaceError where `database.connect` does, and for a server that does not answer.
        """
        self.home.prepare()

    def start(
        self,
        experiment: str,
        name: str,
        parameters: Mapping[str, Any],
        tags: Mapping[str, Any],
        parent: str | None = None,
    ) -> Run:
        """Begin a run, as a child of the run with id `parent` if given.

        Raises, before a run exists: ValueError or TypeError for names and values as
        `Run.parameters` and `Run.tags` do, ValueError for a parent in another experiment,
        RunNotFound for an unknown one.
        """
        _check_run_name(name)
        flatten(parameters)
        checked = check_tags(tags)
        checked |= self._parent_tag(experiment, parent) | self.home.tags()
        self.prepare()
        client = self._client()
        number = self._experiment(experiment)
        with locked(self.workspace):  # otherwise the run could be taken for a dead one before its lock is held
            made = client.create_run(number, tags=checked | origin(), run_name=name)
            alive = living.hold(self.workspace, made.info.run_id)
        record = record_of(made, experiment)
        run = Run(self.home.line(record.id), record, self.home.folder(record), self.workspace, alive, self.ended)
        return run.begun_with(parameters)

    def log_batch_of_runs(self, experiment: str, parent: str | None, children: Sequence[FinishedRun]) -> list[str]:
        """Log finished runs, in order, as children of `parent`; return their ids.

        A database takes all or none; on a server that stops answering, some may be there, and those that were not
        written to their end are RUNNING. Raises as `start` does, before any run exists.
        """
        ready = [self._checked(child) for child in children]
        link = self._parent_tag(experiment, parent)
        number = self._experiment(experiment)
        return self.home.insert(number, experiment, ready, link)

    def restore(self, experiment: str, runs: Sequence[tuple[FinishedRun, str | None]]) -> list[str]:
        """Insert runs that have ids, each with the id of its parent, which may come later; return a sentence for each
        that has names or values which `Run.parameters` and `Run.tags` refuse, and is left out."""
        ready, wrong = [], []
        for given, parent in runs:
            try:
                run, parameters, metrics, tags = self._checked(given)
            except (ValueError, TypeError) as error:
                wrong.append(f"run {given.name!r} ({given.id[:8]}): {error}")
                continue
            ready.append((run, parameters, metrics, {**tags, **({} if parent is None else {PARENT: parent})}))
        self.home.insert(self._experiment(experiment), experiment, ready, {})
        return wrong

    def update(self, known: Mapping[str, Any]) -> None:
        """Bring a run up to date with its record (`Run.record`) of another machine, where it has gone on."""
        record = self._get(known["id"])
        described = {DESCRIPTION: known["description"]} if known.get("description") else {}
        line = Line(self._client(), record.id, self._group)
        line.log(
            {k: v for k, v in known["metrics"].items() if record.metrics.get(k) != v},
            {k: v for k, v in known["parameters"].items() if k not in record.parameters},
            {k: v for k, v in known["tags"].items() if record.tags.get(k) != v} | described,
        )
        line.end(replace(record, status=known["status"]))

    def _checked(self, run: FinishedRun) -> Checked:
        """A finished run with its entries as MLflow takes them; raises ValueError or TypeError."""
        _check_run_name(run.name)
        if run.status not in STATUSES:
            raise ValueError(f"run {run.name!r}: status {run.status!r} is not {STATUSES}")
        finite, nonfinite = split_metrics(run.metrics)
        tags = check_tags(run.tags) | nonfinite
        check_tags({"description": run.description})
        return run, flatten(run.parameters), grouped(finite, self._group), tags

    def resume(self, run_id: str) -> Run:
        """Continue a run that has ended, or that a killed process left RUNNING.

        Raises RunNotFound for an unknown id.
        """
        record = self._get(run_id)
        folder, line = self.home.folder(record), self.home.line(run_id)
        with locked(self.workspace):
            alive = living.hold(self.workspace, run_id)
        return Run(line, record, folder, self.workspace, alive, self.ended)

    def ended(self, run_id: str) -> None:
        """Send a run that has ended to the bucket of the workspace, where there is one."""
        if self.lasting is not None:
            self.lasting.ended(run_id)

    def close_dead(self) -> list[RunRecord]:
        """End the runs that are RUNNING although no process works on them, as KILLED; return them.

        A run is alive while a process holds its lock (`store.living`). A run that has ended in the workspace while its
        server did not answer is sent there, with the status it ended with.
        """
        unfinished = self.home.unfinished()
        if not unfinished and not living.held(self.workspace):
            return []
        if unfinished:
            self.home.prepare()  # it takes the lock of the workspace itself
        closed = []
        with locked(self.workspace):
            for record in self.home.unfinished() if unfinished else []:
                if not living.alive(self.workspace, record.id):
                    closed.append(self.home.close(record))
            for run_id in living.held(self.workspace):
                living.alive(self.workspace, run_id)  # removes the file of a dead one
        return closed

    def tidy(self) -> list[str]:
        """Close dead runs, remove incomplete files, and take over what workers have handed over; return a sentence for
        each. Living runs are left alone.

        Raises WorkspaceError or StoreError when the workspace cannot be written.
        """
        from store.handing import take_over_all

        closed = [f"run {r.name!r} ({r.id[:8]}): {self._how(r)}" for r in self.close_dead()]
        return closed + clear_leftovers(self.workspace) + take_over_all(self)

    def _how(self, closed: RunRecord) -> str:
        if closed.status == "KILLED":
            return "closed as KILLED, its process is gone"
        return f"sent to {self.home.where}, which did not answer when the run ended as {closed.status}"

    def catch_up(self) -> list[str]:
        """Send what a server has missed; return a sentence for each run."""
        return self.home.catch_up(self.alive)

    def set_aside(self) -> str:
        """Move a damaged database away; return a sentence, "" if it is sound. Raises BadStore while runs are alive."""
        return self.home.set_aside(self.alive, living.held(self.workspace))

    def alive(self, run_id: str) -> bool:
        """Whether a process of this workspace works on the run."""
        with locked(self.workspace):
            return living.alive(self.workspace, run_id)

    def discard(self, run_ids: Sequence[str]) -> None:
        """Delete runs as the UI does: they are no longer listed, and `mlflow gc` removes them."""
        for run_id in run_ids:
            self._client().delete_run(run_id)

    def start_or_resume(
        self, experiment: str, name: str, parameters: Mapping[str, Any], tags: Mapping[str, Any], known_by: str
    ) -> Run:
        """Continue the newest run of `experiment` that has the same value of the tag `known_by`, or start a new one.

        Raises as `start` does.
        """
        if found := self.tagged(experiment, known_by, tags[known_by]):
            return self.resume(found[0].id)
        if not self.home.read(limit=1):
            self.history()  # raises an error if the database was lost
        return self.start(experiment, name, parameters, tags)

    def children(self, parent: str) -> list[RunRecord]:
        """Return the children of the run with id `parent`, oldest first; raises RunNotFound for an unknown id."""
        self._get(parent)
        return sorted(self.home.read(parent=parent), key=lambda record: record.start)

    def find(self, reference: str) -> RunRecord:
        """Return the run with this id, else the newest of this name, else of this id prefix.

        A prefix has at least four characters. An exact name goes before a prefix, so that
        no random id ever hides a run called "beef". Raises RunNotFound, with close names or with
        the ids that share the prefix, and WorkspaceError where `history` does.
        """
        hexadecimal = re.fullmatch(r"[0-9a-f]{4,32}", reference) is not None
        if hexadecimal and len(reference) == 32:
            return self._get(reference)
        if named := self.home.read(name=reference, limit=1):
            return named[0]
        if hexadecimal:
            match self.home.read(prefix=reference, limit=5):
                case [only]:
                    return only
                case [*several] if several:
                    raise RunNotFound(
                        f"id prefix {reference!r} is not unique",
                        self.workspace,
                        [record.id for record in several],
                    )
        names = dict.fromkeys(record.name for record in self.history())
        close = difflib.get_close_matches(reference, names, n=3)
        raise RunNotFound(f"no run {reference!r}", self.workspace, close, empty=not names)

    def history(self, experiment: str | None = None) -> list[RunRecord]:
        """Return all runs, or those of one experiment, newest first; none is not an error.

        Raises WorkspaceError for a database that was lost or emptied while the stores of its runs are there.
        """
        found = self.home.read(experiment=experiment)
        if not found and (stores := self._stores()) and (said := self.home.lost(stores)) and not self.known_ids():
            raise WorkspaceError(said)
        return found

    def known_ids(self) -> set[str]:
        """Return the ids of all runs, those deleted in the UI too."""
        return self.home.known_ids()

    def lost(self) -> list[str]:
        """Return the ids of the runs that have a store but are missing in the database."""
        stores = self._stores()
        return sorted({*stores} - self.known_ids()) if stores else []

    def _stores(self) -> list[str]:
        """The ids of the runs that have a store in the workspace."""
        return [path.stem for path in self.fields.glob("*.zarr") if is_id(path.stem)]

    def tagged(self, experiment: str, tag: str, value: str) -> list[RunRecord]:
        """Return the runs of an experiment whose `tag` has this value, newest first."""
        return self.home.read(experiment=experiment, tagged=(tag, value))

    def artifacts_dir(self, run_id: str) -> Path:
        """Return the folder of the artifacts of a run; it exists once something is in it. What the bucket of the
        workspace has of them, and what is missing here or older, is fetched.

        Raises RunNotFound for an unknown id, WorkspaceError for a place outside the workspace, and what
        `Lasting.fetch_files` raises.
        """
        folder = self.home.folder(self._get(run_id))
        if self.lasting is not None:
            self.lasting.fetch_files(run_id, "artifacts/")
        return folder

    def fetch_study(self, experiment: str, key: str) -> None:
        """Fetch the folder of the study with this key from the bucket of the workspace, where another machine has sent
        it; a journal that has gone on here stays as it is. Raises what `Lasting.fetch_files` raises."""
        if self.lasting is not None:
            for record in self.tagged(experiment, "study", key):
                self.lasting.fetch_files(record.id, "studies/")

    def store_path(self, run_id: str) -> Path:
        """Return the path that the fields of a run have, whether they exist or not."""
        return self.fields / f"{run_id}.zarr"

    def store_of(self, run_id: str) -> Path:
        """Return the path of the fields of a run to read them, whether they exist or not. They are fetched from the
        bucket of the workspace where they are not here yet; raises what `Lasting.fetch_store` raises."""
        path = self.store_path(run_id)
        if self.lasting is not None and not path.exists():
            self.lasting.fetch_store(run_id, path)
        return path

    def believe(self, record: RunRecord) -> Believed:
        """Compare a run with its seal; see `store.sealed`. Raises WorkspaceError as `artifacts_dir`."""
        store, beside = self.store_path(record.id), self.home.folder(record).parent / RECORD
        if self.lasting is not None and not store.exists():
            mark = self.lasting.mark(record.id)
            if mark is not None and mark["fields"]:
                return believe_record(record, mark["record"])
        return elsewhere(record, store, beside, self.home.tags()) or believe(record, store, beside)

    def ui_command(self, port: int = 5000, host: str = "127.0.0.1") -> list[str]:
        """Return the argv of an MLflow server for these runs; none if they are on a server."""
        return self.home.ui_command(port, host)

    def ui_links(self, port: int = 5000, host: str = "127.0.0.1") -> dict[str, str]:
        """Return the address of the table of runs of each experiment that has runs, by name, the newest first.

        The UI's own front page speaks of language models.
        """
        address = self.home.ui_address(port, host)
        found = {
            e.name: f"{address}/#/experiments/{e.experiment_id}/runs?{views.query(views.TAG in e.tags)}"
            for e in self._client().search_experiments(max_results=50_000)
            if self.home.ours(e)
        }
        newest = dict.fromkeys(record.experiment for record in self.home.read())
        return {name: found[name] for name in newest if name in found}

    def share_view(self, experiment: str, state: Mapping[str, Any]) -> None:
        """Make `state` the view that the UI opens an experiment with; see `store.views`. One that a user has saved
        there is kept. Raises ValueError for a state that is too long."""
        client = self._client()
        found = client.get_experiment(self._experiment(experiment))
        wanted = {name: value for name, value in views.KIND.items() if name not in found.tags}
        if views.may_replace(found.tags.get(views.TAG)):
            wanted[views.TAG] = views.encoded(state)
        for name, value in wanted.items():
            client.set_experiment_tag(found.experiment_id, name, value)

    def metric_keys(self, experiment: str) -> dict[str, list[str]]:
        """Return the names in MLflow of each number of an experiment, those with a group first."""
        found: dict[str, list[str]] = {}
        for key in sorted(self.home.metric_keys(experiment), key=lambda key: SLASH not in key):
            found.setdefault(plain(key), []).append(key)
        return found

    def client(self) -> MlflowClient:
        """MLflow's client for this workspace, whose database is created if it is missing."""
        return self._client()

    def _client(self) -> MlflowClient:
        return self.home.client()

    def _experiment(self, name: str) -> str:
        """Return the id of the experiment `name`, which is created if it is missing."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}", name):
            raise ValueError(
                f"experiment {name!r}: it names a folder too; use up to 100 letters, digits, "
                "underscores, periods and dashes"
            )
        from mlflow.exceptions import MlflowException

        client = self._client()
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                return client.create_experiment(name, **self.home.new_experiment(name))
            except MlflowException:
                # Another process may have created it meanwhile.
                if (found := client.get_experiment_by_name(name)) is None:
                    raise
        if found.lifecycle_stage != "active":
            raise WorkspaceError(
                f"{self.home.where}: experiment {name!r} was deleted in the UI; restore it with "
                f"`MLFLOW_TRACKING_URI={shown(self.home.address)} mlflow experiments restore "
                f"-x {found.experiment_id}`, or use another name"
            )
        self.home.adopt(found)
        return found.experiment_id

    def _parent_tag(self, experiment: str, parent: str | None) -> dict[str, str]:
        """Return the tag that makes a run a child of `parent`, which must be of `experiment`."""
        if parent is None:
            return {}
        if (home := self._get(parent).experiment) != experiment:
            raise ValueError(
                f"parent {parent} is a run of {home!r}, its children cannot be of {experiment!r}: "
                "MLflow shows a child below its parent only within one experiment"
            )
        return {PARENT: parent}

    def _get(self, run_id: str) -> RunRecord:
        if found := self.home.read(run_id=run_id):
            return found[0]
        self.history()  # raises an error if the database was lost
        raise RunNotFound(f"no run with the id {run_id!r}", self.workspace)


def _check_run_name(name: str) -> None:
    if not name or name != name.strip() or len(name) > 200:
        raise ValueError(f"run name {name!r}: use 1 to 200 characters without outer spaces")
