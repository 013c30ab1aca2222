"""Addresses of servers and databases: which ones can hold runs, and how they are shown without passwords."""

from __future__ import annotations

import os
import re
from pathlib import Path

from store.faults import BadInput

TRACKING = "MLFLOW_TRACKING_URI"
"""Environment variable with the address of MLflow's server or database."""
SECRETS = (
    *("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD"),
    *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY", "GOOGLE_SERVICE_ACCOUNT_KEY"),
)
"""Environment variables whose values are never shown."""

SERVERS = ("http", "https")
DATABASES = ("postgresql", "mysql", "mssql", "sqlite")
"""Engines that both MLflow and Optuna take; a driver may follow, as in postgresql+psycopg."""


class BadAddress(BadInput, ValueError):
    """An address that names neither a server nor a database."""


def scheme_of(address: str) -> str:
    """The part before "://", without the driver of a database, in small letters; "" if there is none."""
    found = re.match(r"([A-Za-z][A-Za-z0-9.\-]*)(\+[A-Za-z0-9_]+)?://", address)
    return found[1].lower() if found else ""


def is_server(address: str) -> bool:
    """Whether `address` is that of a server of MLflow."""
    return scheme_of(address) in SERVERS


def check_tracking(address: str) -> str:
    """Return an address where MLflow can keep runs; raises BadAddress for any other."""
    if scheme_of(address) not in (*SERVERS, *DATABASES):
        raise BadAddress(
            f"{shown(address)!r} is no address of a tracking server (http://HOST:PORT, https://...) or of a database "
            f"({'://..., '.join(DATABASES)}://...); leave it out to keep the runs in the workspace"
        )
    return address


def check_database(address: str) -> str:
    """Return the address of a database; raises BadAddress for any other."""
    if scheme_of(address) not in DATABASES:
        raise BadAddress(
            f"{shown(address)!r} is no address of a database ({'://..., '.join(DATABASES)}://...); leave it out to "
            "keep the trials in the workspace"
        )
    return address


def tracking_address(workspace: Path, given: str | None = None) -> str | None:
    """Where the runs of `workspace` go: `given`, else what the environment names; None for the workspace's own
    database. A `given` address is checked (BadAddress); one in the environment that cannot hold runs is left out:
    see `ignored_tracking`."""
    address = check_tracking(given) if given else os.environ.get(TRACKING, "").strip()
    if scheme_of(address) not in (*SERVERS, *DATABASES) or address == own_address(workspace / "mlflow.db"):
        return None
    return address


def ignored_tracking(workspace: Path) -> str:
    """A sentence about an address in the environment that is not used; "" if there is none."""
    named = os.environ.get(TRACKING, "").strip()
    if not named or scheme_of(named) in (*SERVERS, *DATABASES):
        return ""
    return (
        f"{TRACKING} is {shown(named)!r}, which is neither a server (http, https) nor a database: it is not used, and "
        f"the runs go to {workspace}/mlflow.db; unset it, or name a server or a database"
    )


def own_address(database: Path) -> str:
    """The address under which MLflow opens the sqlite file `database`."""
    return f"sqlite:///{database}"


def shown(address: str) -> str:
    """An address without user, password and options: what messages may hold."""
    return re.sub(r"://[^/\s]*@", "://", address).partition("?")[0]


def scrubbed(text: str) -> str:
    """A message of another program without passwords: neither those in addresses nor those of the environment."""
    text = re.sub(r"://[^/\s]*@", "://", text)
    for name in SECRETS:
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    return text
