"""A journal of JSON lines, such as that of a study: finds and repairs lines that are incomplete after a crash."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from store.seal import StoreError, sync, writing


@dataclass(frozen=True)
class Damage:
    """The first damaged line of a journal: its number from 1, where it begins (bytes), and whether it is the last."""

    line: int
    offset: int
    last: bool


def damage(path: Path) -> Damage | None:
    """Return the first line that is not a complete JSON object with a newline; None if there is none."""
    offset = 0
    with open(path, "rb") as handle:
        for number, line in enumerate(handle, 1):
            if not _whole(line):
                return Damage(number, offset, not handle.readline())
            offset += len(line)
    return None


def _whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def mend(path: Path) -> str:
    """Remove an incomplete last line of the journal at `path`; return a sentence about it, "" if there was none.

    The damaged file is kept beside it. No other process may write meanwhile. Raises StoreError, with the line and the
    cure, for a damaged line that is not the last one: later entries may depend on it.
    """
    found = damage(path) if path.exists() else None
    if found is None:
        return ""
    if not found.last:
        raise StoreError(
            path,
            f"line {found.line} is damaged",
            "put back a copy of the file, or let `dislobench repair` cut it before that line; it keeps a copy",
        )
    return cut(path, found)


def cut(path: Path, found: Damage) -> str:
    """Cut the journal at `path` before a damaged line, after a copy was made; return a sentence about it."""
    with writing(path):
        kept = aside(path)
        shutil.copy2(path, kept)
        lost = path.stat().st_size - found.offset
        os.truncate(path, found.offset)
        sync(path)
    what = "torn, and was dropped" if found.last else "damaged: it and all that followed were dropped"
    return f"{path}: line {found.line} was {what} ({lost} bytes); the file as it was is {kept.name}"


def aside(path: Path) -> Path:
    """Return a free name beside `path` for a damaged file: NAME.damaged-1, -2, ..."""
    number = 1
    while (kept := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return kept
