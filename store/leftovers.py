"""Files that killed processes left in a workspace: incomplete stores, renamed stores, incomplete databases."""

from __future__ import annotations

import re
from pathlib import Path

from store.living import alive
from store.locking import clear_locks, locked
from store.seal import recover, remove

_HALF = re.compile(r"\.(?P<name>.+)\.(new|old)")


def clear_leftovers(workspace: Path) -> list[str]:
    """Remove such files, and restore a store whose replacement was interrupted; return a sentence for each.

    Writers into a folder hold its lock: incomplete files that are found under the lock belong to no living process.
    """
    told = []
    for folder in (workspace / "fields", workspace / "cache"):
        names = {found["name"] for path in _hidden(folder) if (found := _HALF.fullmatch(path.name))}
        if not names:
            continue
        with locked(folder):
            for name in sorted(names):
                store = folder / name
                before = store.exists()
                if recover(store):
                    restored = store.exists() and not before
                    what = "brought back" if restored else "removed what a killed write left beside it"
                    told.append(f"{store}: {what}")
    half = [workspace / f"mlflow.db.new{suffix}" for suffix in ("", "-journal")]
    if any(path.exists() for path in half):
        with locked(workspace):
            for path in half:
                if path.exists():
                    remove(path)
                    told.append(f"{path}: removed, a database that was not built to its end")
    clear_locks(workspace / "locks")
    return told + _half_records(workspace)


def _half_records(workspace: Path) -> list[str]:
    """Records of runs that are incomplete."""
    told = []
    with_half = [*(workspace / "artifacts").glob("*/*/.run.json.*.new")]
    if with_half:
        with locked(workspace):
            for path in with_half:
                if not alive(workspace, path.parent.name):
                    remove(path)
                    told.append(f"{path}: removed, it was not written to its end")
    return told


def _hidden(folder: Path) -> list[Path]:
    return list(folder.glob(".*")) if folder.is_dir() else []
