"""The MLflow database of a workspace: opened without noise, created without races."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from store.addresses import own_address
from store.listing import WorkspaceError, damaged
from store.locking import locked
from store.seal import writing

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

SCHEME = "mlflow-artifacts:/"
"""Start of every artifact address; what follows is relative to `<workspace>/artifacts`."""


def connect(database: Path) -> MlflowClient:
    """Return a client for `database`, created with its folder unless it exists.

    It is built under another name and renamed, so that a killed process leaves no incomplete database.
    Raises WorkspaceError for a path MLflow cannot address, for a file that is no database, and for
    a database of another MLflow version.
    """
    if found := re.search("[%?#]", str(database)):
        raise WorkspaceError(
            f"{database}: {found[0]!r} in the path would be read as part of a database address; choose another folder"
        )
    with writing(database.parent):
        database.parent.mkdir(parents=True, exist_ok=True)
    with quietly():
        return _open(database)


@contextmanager
def quietly() -> Iterator[None]:
    """Import MLflow and make its first query here: without noise.

    Deprecation warnings of MLflow's own dependencies appear then, and would be errors for users who turn warnings into
    errors.
    """
    quiet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
    quiet()  # importing MLflow resets the level of its loggers


def _open(database: Path) -> MlflowClient:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    # Opening a database may migrate it, so that needs the lock as much as creating it.
    with locked(database.parent):
        if database.exists():
            _check(database)
        else:
            _create(database)
        try:
            with speaking(database):
                client = MlflowClient(own_address(database), registry_uri=own_address(database))
                # MLflow keeps one pool of connections for an address; the file may have been replaced since.
                sql_store(own_address(database)).engine.dispose()
            return cast(MlflowClient, Guarded(client, lambda: speaking(database)))
        except MlflowException as fault:
            raise WorkspaceError(
                f"{database}: {fault.message}; this database was made by another version of "
                f"MLflow: copy it, then run `mlflow db upgrade {own_address(database)}`"
            ) from fault


def quiet() -> None:
    """Silence MLflow: no telemetry, no progress of migrations, no hints about git.

    Variables that the user has set stay as they are.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(os.environ["MLFLOW_LOGGING_LEVEL"].upper())
    # MLflow would print a traceback of every error that it raises; `speaking` explains errors.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def _check(path: Path) -> None:
    # MLflow would try for 100 seconds to open a database that cannot be opened.
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as fault:
        raise damaged(path, fault) from fault


def sql_store(address: str) -> SqlAlchemyStore:
    """MLflow's store of the database at `address`, created if missing. It shares its connections with clients of the
    same address."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    return SqlAlchemyStore(address, SCHEME)


def _create(path: Path) -> None:
    new = path.with_name(path.name + ".new")
    half = (new, path.with_name(new.name + "-journal"))
    for left in half:
        left.unlink(missing_ok=True)
    try:
        with speaking(path):
            _make_tables(new)
    except WorkspaceError:
        for left in half:
            left.unlink(missing_ok=True)
        raise
    os.replace(new, path)


def _make_tables(path: Path) -> None:
    """Write an empty database with the tables that this version of MLflow wants."""
    sql_store(own_address(path)).engine.dispose()


class Guarded:
    """MLflow's client; each of its calls is made inside `guard`, which turns errors into faults."""

    def __init__(self, client: MlflowClient, guard: Callable[[], AbstractContextManager[None]]) -> None:
        self._client = client
        self._guard = guard

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return self._guarded(found) if callable(found) else found

    def _guarded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*arguments: Any, **named: Any) -> Any:
            with self._guard():
                return method(*arguments, **named)

        return call


_DAMAGED = "is damaged; `dislobench repair` rebuilds it from the stores of the runs"
# message of SQLite -> what it means, and the cure
_REFUSALS = {
    "database or disk is full": (
        "cannot be written: the disk is full; free some space and give the same command again: what was finished is "
        "kept"
    ),
    "disk I/O error": (
        "cannot be written: disk I/O error; free some space, raise the limit on the size of files (`ulimit -f`), or "
        "look after the disk, and give the same command again: what was finished is kept"
    ),
    "readonly database": "can be read only; copy the workspace, or name another with --workspace",
    "unable to open database file": (
        "cannot be opened for writing; free some space, or name another workspace with --workspace"
    ),
    "malformed": _DAMAGED,
    "no such table": _DAMAGED,
    "no such column": _DAMAGED,
    "file is not a database": _DAMAGED,
}


@contextmanager
def speaking(database: Path) -> Iterator[None]:
    """Turn errors of SQLite inside MLflow into a WorkspaceError that names the file and the cure."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        for said, meaning in _REFUSALS.items():
            if said in str(error):
                raise WorkspaceError(f"{database}: {meaning}") from error
        raise
