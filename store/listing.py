"""Runs read directly from MLflow's sqlite file: a listing takes a tenth of a second, no lock, and no write access.

Importing MLflow takes seconds and its client fetches runs one by one; it also wants to write, so that a read-only
workspace could not be read. Only this module knows MLflow's tables, and it checks that they have the expected columns.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from store.faults import BadStore
from store.naming import ungrouped

PARENT = "mlflow.parentRunId"
KIND, RUN = "kind", "run"
WAIT = 30.0  # seconds to wait for a process that is writing

TABLES = {
    "experiments": {"experiment_id", "name", "lifecycle_stage"},
    "runs": {"run_uuid", "name", "status", "start_time", "lifecycle_stage", "artifact_uri", "experiment_id"},
    "params": {"run_uuid", "key", "value"},
    "metrics": {"run_uuid", "key"},
    "latest_metrics": {"run_uuid", "key", "value", "is_nan"},
    "tags": {"run_uuid", "key", "value"},
}
"""Tables and columns of MLflow's database that are read."""

# SQLite cannot open these without writing: it must first replay the journal that a killed process left.
_NEEDS_WRITING = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_READONLY_ROLLBACK,
    sqlite3.SQLITE_READONLY_RECOVERY,
    sqlite3.SQLITE_READONLY_CANTINIT,
    sqlite3.SQLITE_READONLY_CANTLOCK,
}


class WorkspaceError(BadStore, RuntimeError):
    """The workspace cannot hold or open its database: the path, what is wrong, and the cure."""


class UnknownTables(WorkspaceError):
    """The tables of the database are not those this version knows how to read directly."""


@dataclass(frozen=True)
class RunRecord:
    """A run as it stands in the database; `start` is ISO 8601 UTC, MLflow's own tags are left out.

    A run whose process was killed stays RUNNING until `dislobench repair` or the next command that computes closes
    it. `place` is the address of its artifacts. `kind` is RUN for a case that was judged; a study, a trial, a sweep
    and a board have kinds of their own.
    """

    id: str
    name: str
    experiment: str
    status: str
    start: str
    parameters: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    parent: str | None
    place: str = ""

    @property
    def kind(self) -> str:
        return kind_of(self.tags)


def kind_of(tags: Mapping[str, str]) -> str:
    """Return the kind of a run with these tags; runs of older versions had none."""
    return tags.get(KIND, RUN)


def damaged(database: Path, error: Exception) -> WorkspaceError:
    """Return the fault that describes SQLite's `error` for a database."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return WorkspaceError(
            f"{database}: another process has been writing for {WAIT:.0f} s; try again when it is done"
        )
    return WorkspaceError(
        f"{database}: {error}; `dislobench repair --workspace {database.parent}` sets the file aside and rebuilds the "
        "database from the stores of the runs"
    )


def read(
    database: Path,
    *,
    experiment: str | None = None,
    run_id: str | None = None,
    prefix: str | None = None,
    name: str | None = None,
    parent: str | None = None,
    status: str | None = None,
    tagged: tuple[str, str] | None = None,
    limit: int | None = None,
) -> list[RunRecord]:
    """Return the runs that satisfy all given conditions, newest first, in the order of MLflow's client.

    `prefix` is the beginning of an id, `tagged` a tag and its value. Runs and experiments that were deleted in the UI
    are left out. A database that does not exist or has no tables has no runs.

    Raises WorkspaceError for a file that is no database, UnknownTables for other tables.
    """
    if not database.exists():
        return []
    conditions = ["r.lifecycle_stage = 'active'", "e.lifecycle_stage = 'active'"]
    values: list[str] = []
    for column, value in (("e.name", experiment), ("r.run_uuid", run_id), ("r.name", name), ("r.status", status)):
        if value is not None:
            conditions.append(f"{column} = ?")
            values.append(value)
    if prefix is not None:
        conditions.append("substr(r.run_uuid, 1, CAST(? AS INTEGER)) = ?")
        values += [str(len(prefix)), prefix]
    for tag in ((PARENT, parent) if parent is not None else None, tagged):
        if tag is not None:
            conditions.append("r.run_uuid IN (SELECT run_uuid FROM tags WHERE key = ? AND value = ?)")
            values += tag
    chosen = "FROM runs r JOIN experiments e ON e.experiment_id = r.experiment_id WHERE " + " AND ".join(conditions)
    order = "ORDER BY r.start_time DESC, r.run_uuid"
    if limit is not None:
        order += f" LIMIT {limit:d}"
    with _opened(database) as connection:
        if not _known(database, connection):
            return []
        _complete(connection)
        columns = "r.run_uuid, r.name, e.name, r.status, r.start_time, r.artifact_uri"
        heads = connection.execute(f"SELECT {columns} {chosen} {order}", values).fetchall()
        # All at once where all are wanted; otherwise those of the chosen runs.
        inside = f"WHERE run_uuid IN (SELECT r.run_uuid {chosen} {order})" if values or limit else ""
        records = {head[0]: _record(database, head) for head in heads}
        for key, label, value in connection.execute(f"SELECT run_uuid, key, value FROM params {inside}", values):
            if key in records:
                records[key].parameters[label] = value
        query = f"SELECT run_uuid, key, value, is_nan FROM latest_metrics {inside}"
        metrics: dict[str, list[tuple[str, float]]] = {}
        for key, label, value, is_nan in connection.execute(query, values):
            metrics.setdefault(key, []).append((label, float("nan") if is_nan else value))
        for key, found in metrics.items():
            if key in records:
                records[key].metrics.update(ungrouped(found))
        for key, label, value in connection.execute(f"SELECT run_uuid, key, value FROM tags {inside}", values):
            if key in records:
                records[key].tags[label] = value
    return [_without_mlflow(record) for record in records.values()]


def _complete(connection: sqlite3.Connection) -> None:
    """Raise DatabaseError when all tags are gone, or numbers were logged that the table of last values does not have.

    Only sweeps, studies and trials are checked here. Numbers of all other runs (of the kind RUN) are also in their
    sealed stores, and are compared with these one by one.
    """
    runs, tags, logged, kept = (
        connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("runs", "tags", "metrics", "latest_metrics")
    )
    if runs and not tags:  # MLflow gives every run some tags
        raise sqlite3.DatabaseError("the tags of all runs are missing")
    if logged == kept:
        return
    missing = connection.execute(
        "SELECT count(*) FROM (SELECT DISTINCT run_uuid, key FROM metrics WHERE run_uuid IN "
        "(SELECT run_uuid FROM tags WHERE key = ? AND value != ?) EXCEPT SELECT run_uuid, key FROM latest_metrics)",
        (KIND, RUN),
    ).fetchone()[0]
    if missing:
        raise sqlite3.DatabaseError(f"{missing} numbers of sweeps and studies are missing")


def metric_keys(database: Path, experiment: str) -> list[str]:
    """Return the names that the metrics of an experiment have in MLflow, each once; raises as `read`."""
    if not database.exists():
        return []
    query = (
        "SELECT DISTINCT m.key FROM latest_metrics m JOIN runs r ON r.run_uuid = m.run_uuid JOIN experiments e "
        "ON e.experiment_id = r.experiment_id WHERE e.name = ? AND r.lifecycle_stage = 'active' ORDER BY m.key"
    )
    with _opened(database) as connection:
        return [key for (key,) in connection.execute(query, (experiment,))] if _known(database, connection) else []


def known_ids(database: Path) -> set[str]:
    """Return the ids of all runs of the database, those deleted in the UI too; raises as `read`."""
    if not database.exists():
        return set()
    with _opened(database) as connection:
        if not _known(database, connection):
            return set()
        return {key for (key,) in connection.execute("SELECT run_uuid FROM runs")}


def sound(database: Path) -> str:
    """Return what is wrong with the file according to SQLite, "" if nothing is; raises WorkspaceError if unreadable."""
    try:
        with _opened(database) as connection:
            found = [line for (line,) in connection.execute("PRAGMA quick_check(1)")]
            if _known(database, connection):
                _complete(connection)
            return "" if found == ["ok"] else found[0]
    except UnknownTables:
        return ""
    except WorkspaceError as error:
        if isinstance(error.__cause__, sqlite3.DatabaseError):
            return str(error.__cause__)
        raise


@contextmanager
def _opened(database: Path) -> Iterator[sqlite3.Connection]:
    """One consistent view of the database; raises WorkspaceError for errors of SQLite."""
    with ExitStack() as stack:
        try:
            try:
                connection = stack.enter_context(_connected(database, "ro"))
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode not in _NEEDS_WRITING:
                    raise
                connection = stack.enter_context(_connected(_copied(database, stack), "rw"))
            yield connection
        except sqlite3.Error as error:
            raise damaged(database, error) from error
        except OSError as error:
            raise WorkspaceError(f"{database}: cannot be read: {error}; ask its owner for permission") from error


def _copied(database: Path, stack: ExitStack) -> Path:
    """A copy of the database and its journal, where SQLite can replay the journal that a killed process left."""
    folder = Path(stack.enter_context(TemporaryDirectory()))
    for suffix in ("", "-journal", "-wal"):
        if (part := database.with_name(database.name + suffix)).exists():
            shutil.copyfile(part, folder / part.name)
    return folder / database.name


@contextmanager
def _connected(database: Path, mode: str) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"file:{quote(str(database))}?mode={mode}", uri=True, timeout=WAIT)
    try:
        connection.execute("BEGIN")  # all queries see the same state, even if a process writes in between
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        yield connection
    finally:
        connection.close()


def _known(database: Path, connection: sqlite3.Connection) -> bool:
    """Whether the tables exist; an empty file has none. Raises DatabaseError when some are missing, UnknownTables for
    tables other than MLflow's."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        return False
    missing = [table for table in TABLES if table not in tables]
    if missing and len(missing) < len(TABLES):
        raise sqlite3.DatabaseError(f"the table {missing[0]} is missing")
    for table, columns in TABLES.items():
        found = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        if missing := sorted(columns - found):
            raise UnknownTables(
                f"{database}: the table {table} has no column {', '.join(missing)}: a database of another version of "
                "MLflow, or of another program; read it with that version"
            )
    return True


def is_id(text: str) -> bool:
    """Whether `text` is an id as MLflow makes them; it becomes part of paths."""
    return re.fullmatch("[0-9a-f]{32}", text) is not None


def _record(database: Path, head: Sequence[str]) -> RunRecord:
    key, name, experiment, status, start, place = head
    if not is_id(key):
        raise WorkspaceError(f"{database}: a run has the id {key!r}; it was not made by dislobench: delete that run")
    began = datetime.fromtimestamp(int(start) / 1000, UTC).isoformat(timespec="milliseconds")
    return RunRecord(key, name, experiment, status, began, {}, {}, {}, None, place)


def _without_mlflow(record: RunRecord) -> RunRecord:
    own = {name: text for name, text in record.tags.items() if not name.startswith("mlflow.")}
    return replace(record, tags=own, parent=record.tags.get(PARENT))
