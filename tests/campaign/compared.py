"""Numbers of a command, as what it printed with --json, and whether two of them are equal bit for bit.

What differs between two good runs is left out: times, memory, ids, places, dates.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VOLATILE = {"run", "runs", "id", "start", "end", "seconds", "milliseconds", "megabytes", "created", "fields", "figures"}
VOLATILE |= {"folder", "computed", "versions", "parent", "sweep.json"}
PREFIXES = ("seconds", "megabytes", "machine.", "best_seconds", "training_")
Numbers = dict[str, Any]


def flat(value: Any, prefix: str = "") -> Numbers:
    """Nested mappings and lists as one level, "a.b.0"; without what is volatile."""
    if isinstance(value, Mapping):
        entries = [(str(key), inner) for key, inner in value.items() if not _volatile(str(key))]
    elif isinstance(value, list):
        entries = [(str(index), inner) for index, inner in enumerate(value)]
    else:
        return {prefix: value}
    found: Numbers = {}
    for key, inner in entries:
        found |= flat(inner, f"{prefix}.{key}" if prefix else key)
    return found


def without_repeats(found: Numbers) -> Numbers:
    """Numbers of runs but for those of a second run of a name (`NAME 2.KEY`) that has the numbers of the first: what is
    damaged has been computed again."""
    again: dict[str, Numbers] = {}
    for key, value in found.items():
        if match := re.match(r"(.* )2\.(.*)", key):
            again.setdefault(match[1], {})[match[2]] = value
    same = [
        name
        for name, numbers in again.items()
        if all(found.get(f"{name}1.{key}") == value or key == "note" for key, value in numbers.items())
    ]
    return {key: value for key, value in found.items() if not any(key.startswith(f"{name}2.") for name in same)}


def _volatile(key: str) -> bool:
    return key in VOLATILE or key.startswith(PREFIXES)


def differences(control: Mapping[str, Any], found: Mapping[str, Any], most: int = 3) -> list[str]:
    """Sentences about entries that are missing, new or not equal; `repr` tells every bit of a float."""
    told = []
    for key in [*control, *(key for key in found if key not in control)]:
        before, after = (repr(numbers[key]) if key in numbers else "nothing" for numbers in (control, found))
        if before != after:
            told.append(f"{key}: {after[:60]} instead of {before[:60]}")
    return told if len(told) <= most else [*told[:most], f"and {len(told) - most} more"]


def printed(text: str) -> Any:
    """The JSON object that a command printed, or None when it printed something else."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def of_run(told: Any) -> Numbers:
    """Status and numbers of `run --json`."""
    return flat({"status": told["status"], "numbers": told["numbers"]})


def of_sweep(told: Any) -> Numbers:
    """Points (by their values, seed and setting) and rates of `sweep --json`."""
    points = {
        (point["setting"], point["seed"], json.dumps(point["values"])): {
            key: point[key] for key in ("x", "numbers", "status", "limiting")
        }
        for sweep in told["sweeps"]
        for point in sweep["points"]
    }
    rates = {(rate["error"], rate["setting"]): rate for sweep in told["sweeps"] for rate in sweep["rates"]}
    return flat({"points": {str(k): v for k, v in points.items()}, "rates": {str(k): v for k, v in rates.items()}})


def of_tune(told: Any) -> Numbers:
    """Entries of `tune --json` by their weights, whatever the trial is called."""
    return flat(
        {
            weights_of(entry): {key: entry[key] for key in ("predicted", "relaxed", "status")}
            for entry in told["entries"]
        }
    )


def weights_of(entry: Mapping[str, Any]) -> str:
    """The weights of an entry of a study in words."""
    return " ".join(f"{key} {value!r}" for key, value in sorted(entry["weights"].items()))


def rivals_of(told: Any) -> Numbers:
    """Entries of `tune --json` that do not depend on which trials were drawn: all but the trials."""
    entries = {entry["name"]: entry for entry in told["entries"] if not entry["name"].startswith("trial")}
    return flat(
        {name: {key: e[key] for key in ("weights", "predicted", "relaxed", "status")} for name, e in entries.items()}
    )


def of_runs(told: Any) -> Numbers:
    """Status, numbers and outcome of every record of `runs --json`, by name and order."""
    found: Numbers = {}
    count: dict[str, int] = {}
    for record in reversed(told["runs"]):
        count[record["name"]] = number = count.get(record["name"], 0) + 1
        kept = {"status": record["status"], "metrics": record["metrics"], "outcome": record["tags"].get("outcome")}
        found |= flat(kept, f"{record['name']} {number}")
    return found


def of_show(told: Any) -> Numbers:
    """Attributes of a store as `show --json` prints them."""
    return flat({"name": told["name"], "attributes": told["attributes"]})


def of_report(folder: Path) -> Numbers:
    """Every cell of the CSV files of a report, by file, name of the row and column."""
    found: Numbers = {}
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
        count: dict[str, int] = {}
        for row in rows:
            name = row.get("name") or " ".join(str(row.get(key)) for key in ("sweep", "error", "setting"))
            count[name] = number = count.get(name, 0) + 1
            found |= flat(row, f"{path.name} {name} {number}")
    return found
