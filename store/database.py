"""The MLflow database of a workspace: opened without noise, created without races."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from store.faults import BadStore
from store.locking import locked

if TYPE_CHECKING:
    from mlflow import MlflowClient

SCHEME = "mlflow-artifacts:/"
"""Start of every artifact address; what follows is relative to `<workspace>/artifacts`."""


class WorkspaceError(BadStore, RuntimeError):
    """The workspace cannot hold or open its database: the path, what is wrong, and the cure."""


def address(database: Path) -> str:
    """Return the address under which MLflow opens `database`."""
    return f"sqlite:///{database}"


def connect(database: Path) -> MlflowClient:
    """Return a client for `database`, created with its folder unless it exists.

    It is built under another name and renamed, so that a killed process leaves no half of one.
    Raises WorkspaceError for a path MLflow cannot address, for a file that is no database, and for
    a database of another MLflow version.
    """
    if found := re.search("[%?#]", str(database)):
        raise WorkspaceError(
            f"{database}: {found[0]!r} in the path would be read as part of a database address; choose another folder"
        )
    database.parent.mkdir(parents=True, exist_ok=True)
    quiet()
    with warnings.catch_warnings():
        # Deprecations among MLflow's own dependencies appear on its import and its first query,
        # and would stop whoever turns warnings into errors.
        warnings.simplefilter("ignore", DeprecationWarning)
        client = _open(database)
    quiet()  # importing MLflow sets the level of its loggers anew
    return client


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
            return MlflowClient(address(database), registry_uri=address(database))
        except MlflowException as fault:
            raise WorkspaceError(
                f"{database}: {fault.message}; this database was made by another version of "
                f"MLflow: copy it, then run `mlflow db upgrade {address(database)}`"
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


def _check(path: Path) -> None:
    # MLflow would try for 100 seconds to open what cannot be opened.
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as fault:
        raise WorkspaceError(f"{path}: {fault}; move the file away, or choose another workspace") from fault


def _create(path: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    new = path.with_name(path.name + ".new")
    for left in (new, path.with_name(new.name + "-journal")):
        left.unlink(missing_ok=True)
    SqlAlchemyStore(address(new), SCHEME).engine.dispose()
    os.replace(new, path)
