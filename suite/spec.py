"""TOML specs as frozen records; every problem of a spec in one error, with file and line.

A spec declares a case; nothing in it is computed here. `load("w-screw", preset="quick", overrides=["training.size=8"])`
merges the preset and the overrides over the file, validates the result, and refuses impossible physics. The resolved
record (`Spec.to_toml`) reproduces a run. The records are those of `suite.records`.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from store.faults import BadInput
from suite.records import OBSERVABLES, Material, Record, Solver, Spec, Sweep
from suite.toml import did_you_mean, dump_toml, toml_value

__all__ = [
    "OBSERVABLES",
    "BadSpec",
    "Material",
    "Record",
    "Solver",
    "Spec",
    "SpecFile",
    "Sweep",
    "dump_toml",
    "load",
    "load_sweeps",
    "locate",
    "read",
    "resolve",
    "shipped",
    "specs_folder",
    "toml_value",
]


class BadSpec(BadInput, ValueError):
    """Everything that is wrong with a spec, one line each: `file:line: key: problem`."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True)
class SpecFile:
    """A spec as written: path, text, and its tables before any preset."""

    path: Path
    text: str
    tables: dict[str, Any]

    @cached_property
    def lines(self) -> dict[tuple[str, ...], int]:
        """Line number of every table header and key."""
        return locate(self.text)

    @property
    def presets(self) -> dict[str, Any]:
        return self.tables.get("preset", {})


def specs_folder() -> Path:
    """Where the shipped specs lie: inside the installed package, or beside it in a checkout."""
    here = Path(__file__).parent
    return here / "specs" if (here / "specs").is_dir() else here.parent / "specs"


def shipped() -> dict[str, Path]:
    """Names and paths of the shipped specs."""
    return {path.stem: path for path in sorted(specs_folder().glob("*.toml"))}


def read(name: str | Path) -> SpecFile:
    """Read a shipped spec by name, or any file by path; raises `BadSpec` when it is absent or not TOML."""
    path = Path(name)
    if path.suffix != ".toml" or not path.exists():
        known = shipped()
        if str(name) in known:
            path = known[str(name)]
        elif path.suffix == ".toml":
            raise BadSpec([f"{path}: no such file"])
        else:
            raise BadSpec([f"no spec {str(name)!r}; shipped: {', '.join(known)}{did_you_mean(str(name), known)}"])
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise BadSpec([f"{path}: cannot be read as UTF-8 text: {error}"]) from error
    try:
        return SpecFile(path, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        match = re.search(r"line (\d+)", str(error))
        line = match.group(1) if match else "1"
        raise BadSpec([f"{path}:{line}: not TOML: {error}"]) from error


def load(name: str | Path, preset: str | None = None, overrides: Sequence[str] = ()) -> Spec:
    """The resolved record of spec `name` with a `preset` and `key=value` overrides; raises `BadSpec`."""
    file = read(name)
    merged, origin = resolve(file, preset, overrides)
    try:
        return Spec.model_validate(merged).read_from(file.path.absolute().parent)
    except ValidationError as error:
        found = _problems(error) + _hidden(error, merged)
        lines = [f"{_place(tuple(key.split('.')), file, origin)}: {key}: {text}" for key, text in found]
        raise BadSpec(lines) from error


Origin = dict[tuple[str, ...], str]


def load_sweeps(name: str | Path, preset: str | None = None, overrides: Sequence[str] = ()) -> dict[str, Sweep]:
    """The sweeps of spec `name`, by name; raises `BadSpec`, also for a ladder over a key that a spec does not have."""
    file = read(name)
    tables = _merge(file.tables.get("sweep", {}), (file.presets.get(preset, {}) if preset else {}).get("sweep", {}))
    if not tables:
        raise BadSpec([f"{file.path}: it has no [sweep.NAME]; docs/sweeps.md shows one"])
    found, problems = {}, []
    for key, table in tables.items():
        place = f"{file.path}:{file.lines.get(('sweep', key), 1)}"
        try:
            found[key] = Sweep.model_validate(table)
        except ValidationError as error:
            for item in error.errors():
                path = ".".join(map(str, item["loc"]))
                hint = did_you_mean(path, Sweep.model_fields) if item["type"] == "extra_forbidden" else ""
                problems.append(f"{place}: sweep.{key}.{path}: {item['msg'][0].lower()}{item['msg'][1:]}{hint}")
            continue
        sweep = found[key]
        for ladder in [*sweep.ladders, *sweep.set]:
            table_name, _, field_name = ladder.partition(".")
            record = Spec.model_fields.get(table_name)
            known = getattr(record.annotation, "model_fields", {}) if record else {}
            if field_name.partition(".")[0] not in known:
                every = [f"{t}.{k}" for t, f in Spec.model_fields.items() for k in f.annotation.model_fields]  # type: ignore[union-attr]
                problems.append(f"{place}: sweep.{key}: no key {ladder!r} in a spec{did_you_mean(ladder, every)}")
        if sweep.zip and len({len(values) for values in sweep.ladders.values()}) > 1:
            problems.append(f"{place}: sweep.{key}.ladders: with zip all ladders must be equally long")
    if problems:
        raise BadSpec(problems)
    return found


def resolve(file: SpecFile, preset: str | None, overrides: Sequence[str]) -> tuple[dict[str, Any], Origin]:
    """Merge preset and overrides over the file's tables; also tell where each key came from."""
    tables = {k: v for k, v in file.tables.items() if k not in ("preset", "sweep")}
    origin: Origin = {key: f"{file.path}:{line}" for key, line in file.lines.items()}
    problems = []
    if not isinstance(file.presets, dict) or (preset and preset not in file.presets):
        known = list(file.presets)
        hint = did_you_mean(str(preset), known)
        problems.append(f"{file.path}: no preset {preset!r}; it has {', '.join(known) or 'none'}{hint}")
    elif preset:
        tables = _merge(tables, {k: v for k, v in file.presets[preset].items() if k != "sweep"})
        for key, line in file.lines.items():
            if key[:2] == ("preset", preset):
                origin[key[2:]] = f"{file.path}:{line}"
    for override in overrides:
        name, equals, text = override.partition("=")
        path = tuple(part.strip() for part in name.split("."))
        if not equals or not all(path) or len(path) < 2:
            problems.append(f"--set {override}: write --set table.key=value")
            continue
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()  # a bare word is a string
        nested: Any = value
        for part in reversed(path):
            nested = {part: nested}
        tables = _merge(tables, nested)
        origin[path] = f"--set {override}"
        origin.setdefault(path[:1], origin[path])
    if problems:
        raise BadSpec(problems)
    return tables, origin


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


_HEADER = re.compile(r"^\s*\[\s*([A-Za-z0-9_.\-\" ]+?)\s*\]\s*(#.*)?$")
_KEY = re.compile(r"^\s*([A-Za-z0-9_.\-]+)\s*=")


def locate(text: str) -> dict[tuple[str, ...], int]:
    """Line numbers of tables and keys in TOML `text` (bare and dotted keys; multi-line values are skipped over)."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    depth = 0
    for number, line in enumerate(text.splitlines(), start=1):
        bare = re.sub(r'"(\\.|[^"\\])*"|\'[^\']*\'', '""', line).split("#")[0]
        if depth == 0:
            if header := _HEADER.match(line):
                table = tuple(part.strip(' "') for part in header.group(1).split("."))
                for length in range(1, len(table) + 1):
                    lines.setdefault(table[:length], number)
                continue
            if assignment := _KEY.match(line):
                lines[(*table, *assignment.group(1).split("."))] = number
        depth += bare.count("[") + bare.count("{") - bare.count("]") - bare.count("}")
    return lines


Problem = tuple[str, str]  # key, sentence


def _problems(error: ValidationError) -> list[Problem]:
    problems: list[Problem] = []
    for item in error.errors():
        path = tuple(str(part) for part in item["loc"])
        if item["type"] == "value_error" and not path:
            problems += [(key, text) for key, text in json.loads(str(item["ctx"]["error"]))]
        else:
            problems.append((".".join(path), _sentence(item, path)))
    return problems


def _hidden(error: ValidationError, merged: Mapping[str, Any]) -> list[Problem]:
    """Physics that is impossible beside the keys that `error` names: a typo must not hide it."""
    pruned = {k: dict(v) if isinstance(v, Mapping) else v for k, v in merged.items() if k in Spec.model_fields}
    for table, key, *_ in (item["loc"] for item in error.errors() if len(item["loc"]) > 1):
        if isinstance(pruned.get(str(table)), dict):
            pruned[str(table)].pop(key, None)
    try:
        Spec.model_validate(pruned)
    except ValidationError as rest:
        if all(item["type"] == "value_error" and not item["loc"] for item in rest.errors()):
            named = {".".join(key.split(".")[:2]) for key, _ in _problems(error)}
            return [(key, text) for key, text in _problems(rest) if key not in named]
    return []


def _place(path: tuple[str, ...], file: SpecFile, origin: Origin) -> str:
    for length in range(len(path), 0, -1):
        if path[:length] in origin:
            return origin[path[:length]]
    return str(file.path)


def _sentence(item: Mapping[str, Any], path: tuple[str, ...]) -> str:
    kind, value = item["type"], item.get("input")
    record: Any = Spec
    for part in path[:-1]:
        field = record.model_fields.get(part) if hasattr(record, "model_fields") else None
        record = field.annotation if field is not None else None
    if kind == "extra_forbidden":
        known = list(record.model_fields) if hasattr(record, "model_fields") else []
        word = "table" if len(path) == 1 else "key"
        return f"unknown {word}{did_you_mean(path[-1], known)}; known: {', '.join(known)}"
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        options = re.findall(r"'([^']*)'", item["ctx"]["expected"])
        return f"{value!r} is not one of {', '.join(options)}{did_you_mean(str(value), options)}"
    return f"{value!r}: {item['msg'][0].lower()}{item['msg'][1:]}"
