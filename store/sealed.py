"""Numbers of a run compared with their seal: entries of the database are trusted only if a sealed file agrees.

The seal of a finished run is its field store, whose attributes hold the whole record; without a readable store it is
`run.json` beside its artifacts. If both differ, the sealed numbers are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from store.listing import RUN, RunRecord
from store.seal import StoreError, attributes, read_json

COST = ("seconds_", "megabytes_")  # may be logged after the seal, because the cost of writing it is known only then


PLACE = "workspace"
"""Tag of a run that is kept on a server: the machine and the workspace that hold its fields."""


@dataclass(frozen=True)
class Believed:
    """A run with the numbers that can be trusted; `note` says what is wrong with it, "" if nothing is.

    `sealed` is true if the run has an undamaged store and the database agrees with it.
    """

    record: RunRecord
    sealed: bool
    note: str


def elsewhere(record: RunRecord, store: Path, beside: Path, here: Mapping[str, str]) -> Believed | None:
    """What to say of a run that another machine or workspace has made, for a home that several of them use; None if
    its files are here. `here` are the tags that runs of this workspace have."""
    place = record.tags.get(PLACE)
    made_here = place is None or place == here.get(PLACE) or store.exists() or beside.exists()
    if made_here or record.status != "FINISHED" or record.kind != RUN:
        return None
    return Believed(record, False, f"its fields are in {place}, so that nothing here vouches for its numbers")


def believe(record: RunRecord, store: Path, beside: Path) -> Believed:
    """Compare a run with the attributes of its `store`, or with the sealed record `beside` its artifacts.

    Trials, sweeps and studies have no store of their own, and unfinished runs have no numbers: these are returned
    unchanged.
    """
    if record.status != "FINISHED" or record.kind != RUN:
        return Believed(record, False, "")
    try:
        found = _of_store(record, store)
    except StoreError as error:
        wrong = "its store is missing" if not store.exists() else f"damaged store: {error}"
        try:
            kept = read_json(beside, "run its case again")
        except StoreError:
            return Believed(replace(record, metrics={}), False, f"{wrong}; nothing vouches for its numbers")
        if kept.get("id") != record.id:
            return Believed(replace(record, metrics={}), False, f"{wrong}; {beside} is that of another run")
        found = _compared(record, kept, "sealed run.json")
        return replace(found, sealed=False, note="; ".join(filter(None, [wrong, found.note])))
    return found


def believe_record(record: RunRecord, kept: Mapping[str, Any]) -> Believed:
    """Compare a run with its sealed record `kept` in a bucket that has its store too."""
    if record.status != "FINISHED" or record.kind != RUN:
        return Believed(record, False, "")
    return _compared(record, kept, "sealed record in the bucket")


def _of_store(record: RunRecord, store: Path) -> Believed:
    """Raises StoreError for a store that is missing, is damaged, or belongs to another run."""
    found = attributes(store)
    if found.get("run") != record.id:
        raise StoreError(store, f"this is the store of run {found.get('run')}", "run its case again")
    if "record" in found:
        return _compared(record, found["record"], "sealed store")
    # Stores of an older version hold only numbers, so that other entries are taken from the database.
    numbers = {**found["reference"], **found["numbers"]}
    kept = {
        "parameters": record.parameters,
        "metrics": {**record.metrics, **{name: float(value) for name, value in numbers.items()}},
        "tags": {"outcome": found["status"], "limiting_term": found["limiting_term"]},
    }
    return _compared(record, kept, "sealed store")


def _compared(record: RunRecord, kept: Mapping[str, Any], what: str) -> Believed:
    """The record with the entries that were `kept`; tags that were added later, for instance in the UI, are kept
    too."""
    cost = {k: v for k, v in record.metrics.items() if k.startswith(COST) and k not in kept["metrics"]}
    metrics = {**kept["metrics"], **cost}
    right = replace(record, metrics=metrics, parameters=kept["parameters"], tags={**record.tags, **kept["tags"]})
    differ = [
        name
        for before, after in (
            (record.metrics, right.metrics),
            (record.parameters, right.parameters),
            (record.tags, right.tags),
        )
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    if not differ:
        return Believed(right, True, "")
    more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
    kind = "numbers differ" if {*differ} & {*record.metrics, *metrics} else "entries differ"
    return Believed(right, False, f"{kind} from the {what}: {', '.join(differ[:3])}{more}")
