"""Marks: what the bucket of a workspace holds of each run, beside its files; see `store.lasting`.

A mark is sealed JSON: the `record` of the run (`Run.record`), its `end` in Unix seconds, the checksum of the manifest
of its `fields` ("" if it has none), and its other `files`: their paths in the workspace, checksums and sizes, and the
key of the object where it is not the path. `collector` is that of a run of a shard (`store.handing`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from store.seal import StoreError, leads_out

MARKS = "marks"
"""Folder of the marks, in the bucket and in the workspace."""
_NAME = re.compile(r"(?P<run>[0-9a-f]{32})\.(?P<number>\d{1,6})\.(?P<digest>[0-9a-f]{12})\.json")


class Name(NamedTuple):
    """The name of a mark; the largest one of a run is the newest."""

    number: int
    digest: str
    run: str

    @classmethod
    def of(cls, text: str) -> Name | None:
        found = _NAME.fullmatch(text)
        return found and cls(int(found["number"]), found["digest"], found["run"])

    def __str__(self) -> str:
        return f"{self.run}.{self.number}.{self.digest}.json"


def by_run(names: Iterable[str]) -> dict[str, list[Name]]:
    """The marks of each run, from the oldest to the newest; other names are left out."""
    found: dict[str, list[Name]] = {}
    for name in sorted(filter(None, map(Name.of, names))):
        found.setdefault(name.run, []).append(name)
    return found


def newest(names: Mapping[str, list[Name]]) -> dict[str, Name]:
    """The newest mark of each run."""
    return {run: each[-1] for run, each in names.items()}


def place_of(record: Mapping[str, Any]) -> str:
    """The folder of a run's record and artifacts in the workspace."""
    return f"artifacts/{record['experiment']}/{record['id']}"


def checked(mark: dict[str, Any], name: Name, cure: str) -> dict[str, Any]:
    """The content of the mark `name`. Raises StoreError, with `cure`, if it is that of another run, or if its paths
    lead out of the places of the run: whoever can write into the bucket can make a mark."""
    try:
        record = mark["record"]
        keys = [*mark["files"], *(entry.get("key", "") for entry in mark["files"].values())]
        good = (
            record["id"] == name.run
            and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}", record["experiment"]) is not None
            and all(_inside(key, record) for key in filter(None, keys))
            and {"fields", "end", "collector"} <= mark.keys()
        )
    except (KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise StoreError(str(name), "is not the mark of this run", cure)
    return mark


def _inside(path: str, record: Mapping[str, Any]) -> bool:
    """Whether a path belongs to a run: it lies in the folder of the run, or in that of its study."""
    folders = [f"{place_of(record)}/", *([f"studies/{name}/"] if (name := study_folder(record)) else [])]
    return not leads_out(path) and path.startswith(tuple(folders))


def study_folder(record: Mapping[str, Any]) -> str:
    """The name of the folder of a study, from the record of its run; "" for a run of another kind."""
    return Path(record["tags"].get("folder", "")).name if record["tags"].get("kind") == "study" else ""
