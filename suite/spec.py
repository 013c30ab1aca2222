"""TOML specs as frozen records; every problem of a spec in one error, with file and line.

A spec declares a case; nothing in it is computed here. `load("w-screw", preset="quick", overrides=["training.size=8"])`
merges the preset and the overrides over the file, validates the result, and refuses impossible physics. The resolved
record (`Spec.to_toml`) reproduces a run. The records are those of `suite.records`.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from store.faults import BadInput
from suite.ladders import label, overrides_of, points_of, wrong_axis, wrong_ladders
from suite.records import DEFAULT_BACKEND, Material, Record, Solver, Spec, Sweep, sentence_of
from suite.toml import DEEPEST, TomlError, bare, did_you_mean, dump_toml, parse_toml, shortened, toml_value
from suite.world.calculators import UnusableReference
from suite.world.lammps_calculator import lammps_potential_file
from suite.world.modules import find_module, located, missing_files, remember_beside
from suite.world.reference import is_code, missing_kim, unknown_reference

__all__ = [
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
    "read_sweeps",
    "read_toml",
    "resolve",
    "shipped",
    "specs_folder",
    "toml_value",
]


Origin = dict[tuple[str, ...], str]  # where each key came from
Problem = tuple[str, str]  # key, sentence


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
    def presets(self) -> dict[str, dict[str, Any]]:
        """The tables of every preset, by its name."""
        return self.tables.get("preset", {})

    @property
    def folder(self) -> Path:
        """Where the file lies: modules and files that it names are looked for there too."""
        return self.path.absolute().parent


def specs_folder() -> Path:
    """Where the shipped specs lie: inside the installed package, or beside it in a checkout."""
    here = Path(__file__).parent
    return here / "specs" if (here / "specs").is_dir() else here.parent / "specs"


def shipped() -> dict[str, Path]:
    """Names and paths of the shipped specs."""
    return {path.stem: path for path in sorted(specs_folder().glob("*.toml"))}


def read(name: str | Path) -> SpecFile:
    """Read a shipped spec by name, or any file by path; raises `BadSpec` when it is absent or not TOML, and when its
    presets or sweeps are no tables."""
    path = Path(name)
    if path.suffix != ".toml" or not _exists(path):
        known = shipped()
        if str(name) in known:
            path = known[str(name)]
        elif path.suffix == ".toml":
            raise BadSpec([f"{path}: no such file; `dislobench list` names the specs that are shipped"])
        elif _exists(path) and path.is_dir():
            raise BadSpec([f"{path} is a folder; name a TOML file in it"])
        elif _exists(path):
            raise BadSpec([f"{path}: the name of a spec ends with .toml"])
        else:
            hint = did_you_mean(str(name), known)
            raise BadSpec([f"no spec {shortened(str(name))}; shipped: {', '.join(known)}{hint}"])
    file = SpecFile(path, *read_toml(path))
    if problems := list(_misshapen(file)):
        raise BadSpec(problems)
    return file


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """Text and tables of a TOML file; raises `BadSpec` with file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise BadSpec([f"{path}: cannot be read as UTF-8 text: {error}"]) from error
    try:
        return text, parse_toml(text)
    except TomlError as error:
        raise BadSpec([f"{path}:{error.line}: {error}"]) from error


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise BadSpec([f"{shortened(str(path))}: no file can have this name: {error.strerror}"]) from error


# of a preset or sweep: it is an option on the command line and a part of file names
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")


def _misshapen(file: SpecFile) -> Iterator[str]:
    """Presets and sweeps that are no tables of tables, and names that no file can have."""
    presets = file.tables.get("preset", {})
    groups: list[tuple[tuple[str, ...], Any]] = [(("preset",), presets), (("sweep",), file.tables.get("sweep", {}))]
    if isinstance(presets, dict):
        inner = ((name, preset) for name, preset in presets.items() if isinstance(preset, dict))
        groups += [(("preset", name, "sweep"), preset["sweep"]) for name, preset in inner if "sweep" in preset]
    for place, group in groups:
        key, kind = ".".join(place), place[-1]
        if not isinstance(group, dict):
            yield f"{_line(file, place)}: {key}: {shortened(group)} is no table: write [{key}.NAME]"
            continue
        for name, table in group.items():
            where = _line(file, (*place, name))
            if not isinstance(table, dict):
                yield f"{where}: {key}.{name}: {shortened(table)} is no table: write [{key}.NAME] and its keys below it"
            if not _NAME.fullmatch(name):
                yield (
                    f"{where}: {key}: {shortened(name)} cannot be the name of a {kind}: use up to 60 letters, digits, "
                    "underscores, dashes and periods, and begin with a letter or a digit"
                )


def load(name: str | Path, preset: str | None = None, overrides: Sequence[str] = ()) -> Spec:
    """The resolved record of spec `name` with a `preset` and `key=value` overrides; raises `BadSpec`.

    A module or a file that the spec names is looked for where Python or the current folder has it, and then in the
    folder of the spec; the record has the absolute path of a file that was found there. Nothing of it is executed.
    """
    file = read(name)
    merged, origin = resolve(file, preset, overrides)
    spec, found = _validated(merged, file.folder)
    if spec is None or found:
        raise BadSpec([f"{_place(tuple(key.split('.')), file, origin)}: {key}: {text}" for key, text in found])
    return spec


def from_text(text: str) -> Spec:
    """The record of a resolved spec, as `Spec.to_toml` wrote it and every run keeps it; raises `BadSpec`."""
    try:
        return Spec.model_validate(parse_toml(text))
    except ValidationError as error:
        raise BadSpec([f"spec of the run: {key}: {told}" for key, told in _problems(error)]) from error


def remember_code(spec: Spec) -> None:
    """Let this process find the modules that lie beside a spec that another process has read."""
    for name in spec.code:
        if spec.folder is not None and is_code(name) and unknown_reference(name) is None:
            remember_beside(name.partition(":")[0], spec.folder)


def _validated(tables: Mapping[str, Any], folder: Path) -> tuple[Spec | None, list[Problem]]:
    """The record of resolved tables of a spec in `folder`, and all that is wrong with them."""
    tables, absent = _with_named(tables, folder)
    try:
        return Spec.model_validate(tables).read_from(folder.absolute()), absent
    except ValidationError as error:
        return None, [*_problems(error), *_hidden(error, tables), *absent]


_NAMED = (
    ("material", "reference"),
    ("model", "calculator"),
    ("model", "trainer"),
)  # tables whose `arguments` go to what a key names


def _with_named(tables: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], list[Problem]]:
    """`tables` with paths of files as they were found, and the modules and files that are nowhere."""
    found, problems = dict(tables), []
    for table, key in _NAMED:
        content = tables.get(table)
        if not isinstance(content, Mapping) or (
            table == "model" and content.get("backend", DEFAULT_BACKEND) == "pyace"
        ):
            continue
        name, arguments = content.get(key), content.get("arguments", {})
        if isinstance(name, str) and (reason := missing_kim(name)):
            problems.append((f"{table}.{key}", reason))
        if isinstance(name, str) and is_code(name) and unknown_reference(name) is None:
            module = name.partition(":")[0]
            remember_beside(module, folder)
            if find_module(module, folder) is None:
                problems.append((f"{table}.{key}", _no_module(module, folder)))
        if isinstance(arguments, Mapping):
            placed = located(arguments, folder)
            found[table] = {**content, "arguments": placed} if "arguments" in content else content
            problems += [
                (f"{table}.arguments.{argument}", _no_file(file, folder))
                for argument, value in placed.items()
                for file in missing_files({argument: value})
            ]
    return found, list(dict.fromkeys(problems))  # two keys of the model share its arguments


def _no_module(module: str, folder: Path) -> str:
    """Where a module is not, and what to do."""
    top = module.partition(".")[0]
    hint = did_you_mean(top, [path.stem for path in folder.glob("*.py")])
    moved = f"; move it there from {Path.cwd()}" if Path(f"{top}.py").is_file() else ""
    cure = moved or f"{hint}; install it, or put {top}.py there"
    return f"no module {module!r} where Python looks, nor in {folder}, where the spec is{cure}"


def _no_file(name: str, folder: Path) -> str:
    """Where a file is not, and what to do: LAMMPS brings some potential files, which need only be copied."""
    try:
        cure = f"; LAMMPS brings one: cp {shlex.join([str(lammps_potential_file(name)), str(folder)])}"
    except UnusableReference:
        cure = ""
    return f"no file {shortened(name)} in the current folder or in {folder}{cure}"


def load_sweeps(
    name: str | Path, preset: str | None = None, overrides: Sequence[str] = (), only: Collection[str] = ()
) -> dict[str, Sweep]:
    """The sweeps of spec `name`, by name; raises `BadSpec` as `read_sweeps` does, and for a point that no run could be.

    The points of all sweeps are resolved, or with `only` those of these.
    """
    file = read(name)
    sweeps = read_sweeps(name, preset)
    tables, _ = resolve(file, preset, overrides)
    problems = []
    for key, sweep in sweeps.items():
        if not only or key in only:
            problems += _places(file, preset, key, _points(sweep, tables, file))
    if problems:
        raise BadSpec(problems)
    return sweeps


def read_sweeps(name: str | Path, preset: str | None = None) -> dict[str, Sweep]:
    """The sweeps of spec `name` as they are written, by name; raises `BadSpec`, also for a ladder over a key that a
    spec does not have, and for values that come twice. Points are not resolved."""
    file = read(name)
    tables = _merge(file.tables.get("sweep", {}), file.presets.get(preset or "", {}).get("sweep", {}))
    if not tables:
        raise BadSpec([f"{file.path}: it has no [sweep.NAME]; docs/sweeps.md shows one"])
    found, problems = {}, []
    for key, table in tables.items():
        try:
            found[key] = Sweep.model_validate(table)
        except ValidationError as error:
            for item in error.errors():
                path = ".".join(map(str, item["loc"]))
                hint = did_you_mean(path, Sweep.model_fields) if item["type"] == "extra_forbidden" else ""
                problems += _places(file, preset, key, [(path, f"{item['msg'][0].lower()}{item['msg'][1:]}{hint}")])
            continue
        problems += _places(file, preset, key, wrong_ladders(found[key]))
    if problems:
        raise BadSpec(problems)
    return found


def _places(file: SpecFile, preset: str | None, name: str, problems: Iterable[Problem]) -> list[str]:
    """Problems of sweep `name` with file and line: in the preset where that changes the sweep."""
    changed = ("preset", preset or "", "sweep", name)
    table = changed if any(key[: len(changed)] == changed for key in file.lines) else ("sweep", name)
    return [f"{_line(file, (*table, *key.split('.')))}: sweep.{name}.{key}: {text}" for key, text in problems]


def _points(sweep: Sweep, tables: Mapping[str, Any], file: SpecFile) -> list[Problem]:
    """What is wrong with the points of a sweep over the resolved `tables` of a spec; each reason once."""
    found: dict[Problem, str] = {}  # reason -> the first point that has it
    runs: dict[str, str] = {}  # content of a run -> its point
    specs: list[Spec] = []
    again: dict[str, None] = {}
    for values, seed, setting in points_of(sweep):
        if seed != sweep.seeds[0]:
            continue  # what is wrong with a point, is so with every seed: points are many
        point: dict[str, Any] = {}
        for key, value in overrides_of(sweep, values, seed, setting).items():
            point = _merge(point, _nested(key.split("."), value))
        spec, problems = _validated(_layered(tables, point), file.folder)
        for problem in problems:
            found.setdefault(problem, label(values))
        if spec is None or problems:
            continue
        specs.append(spec)
        content = json.dumps(spec.content(), sort_keys=True)
        if content in runs:
            again[f"{runs[content]}; {label(values)}"] = None
        runs[content] = label(values)
    wrong = [("ladders", f"at {point}: {key}: {text}") for (key, text), point in found.items()]
    wrong += [("ladders", f"one run would be several points: {points}") for points in again]
    if sweep.ablation and specs and not specs[0].model.fitted:
        wrong.append(("ablation", "nothing is fitted, so that observables change nothing: write ablation = false"))
    reason = wrong_axis(sweep, specs)
    return wrong if reason is None else [*wrong, ("against", reason)]


def resolve(file: SpecFile, preset: str | None, overrides: Sequence[str]) -> tuple[dict[str, Any], Origin]:
    """Merge preset and overrides over the file's tables; also tell where each key came from.

    What is written for another `model.backend` than the one that is chosen in the end is left out; see `_layered`.
    """
    tables = {k: v for k, v in file.tables.items() if k not in ("preset", "sweep")}
    origin: Origin = {key: f"{file.path}:{line}" for key, line in file.lines.items()}
    problems = []
    over: dict[str, Any] = {}
    last: dict[str, Any] = {}
    if preset is not None and preset not in file.presets:
        known = list(file.presets)
        hint = did_you_mean(preset, known)
        problems.append(f"{file.path}: no preset {shortened(preset)}; it has {', '.join(known) or 'none'}{hint}")
    elif preset is not None:
        over = {k: v for k, v in file.presets[preset].items() if k != "sweep"}
        for key, line in file.lines.items():
            if key[:2] == ("preset", preset):
                origin[key[2:]] = f"{file.path}:{line}"
    for override in overrides:
        name, equals, text = override.partition("=")
        path = tuple(part.strip() for part in name.split("."))
        if not equals or not all(path) or not 2 <= len(path) <= DEEPEST or "\n" in text:
            problems.append(f"--set {override}: write --set table.key=value")
            continue
        try:
            value = parse_toml(f"value = {text}")["value"]
        except TomlError as error:
            if not isinstance(error.__cause__, tomllib.TOMLDecodeError):
                problems.append(f"--set {name}: {error}")
                continue
            value = text.strip()  # a bare word is a string
        last = _merge(last, _nested(path, value))
        origin[path] = f"--set {override}"
        origin.setdefault(path[:1], origin[path])
    if problems:
        raise BadSpec(problems)
    return _layered(tables, over, last), origin


def _layered(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of `layers`, later ones over earlier ones: a file, its preset, overrides.

    Keys of `[model]`, and `tune.channels`, count only in those layers that are written for the backend that is chosen
    in the end: the last one that was named up to there. A cutoff of an ACE basis says nothing of a SNAP model.
    """
    chosen = [DEFAULT_BACKEND]
    for layer in layers:
        model = layer.get("model")
        chosen.append(model.get("backend", chosen[-1]) if isinstance(model, Mapping) else chosen[-1])
    merged: dict[str, Any] = {}
    for layer, backend in zip(layers, chosen[1:], strict=True):
        kept = dict(layer)
        if backend != chosen[-1]:
            kept.pop("model", None)
            if isinstance(kept.get("tune"), Mapping):
                kept["tune"] = {key: value for key, value in kept["tune"].items() if key != "channels"}
        merged = _merge(merged, kept)
    return merged


def _nested(path: Sequence[str], value: Any) -> dict[str, Any]:
    """Tables that hold nothing but `value` at `path`."""
    for part in reversed(path[1:]):
        value = {part: value}
    return {path[0]: value}


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


_HEADER = re.compile(r"^\s*\[\s*((?:[A-Za-z0-9_.\- ]|\"[^\"]*\")+?)\s*\]\s*(#.*)?$")
_KEY = re.compile(r"^\s*((?:[A-Za-z0-9_.\-]|\"[^\"]*\")+)\s*=")
_PART = re.compile(r"\"([^\"]*)\"|([^.\"]+)")


def locate(text: str) -> dict[tuple[str, ...], int]:
    """Line numbers of tables and keys in TOML `text` (bare, quoted and dotted; multi-line values are skipped over)."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    depth = 0
    for number, line in enumerate(text.splitlines(), start=1):
        rest = bare(line)
        if depth == 0:
            if header := _HEADER.match(line):
                table = _parts(header.group(1))
                for length in range(1, len(table) + 1):
                    lines.setdefault(table[:length], number)
                continue
            if assignment := _KEY.match(line):
                lines[(*table, *_parts(assignment.group(1)))] = number
        depth += rest.count("[") + rest.count("{") - rest.count("]") - rest.count("}")
    return lines


def _parts(key: str) -> tuple[str, ...]:
    """The parts of a dotted key, with or without quotes."""
    return tuple((quoted or word.strip()) for quoted, word in _PART.findall(key))


def _problems(error: ValidationError) -> list[Problem]:
    problems: list[Problem] = []
    items = error.errors()
    for item in items:
        path = tuple(str(part) for part in item["loc"])
        if item["type"] == "too_short" and any(
            other["loc"][: len(path)] == item["loc"] != other["loc"] for other in items
        ):
            continue  # pydantic counts the good values only, and the others have been named
        if item["type"] == "value_error" and not path:
            problems += item["ctx"]["error"].problems
        else:
            problems.append((".".join(path), sentence_of(item, path, Spec)))
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
            return [(key, text) for key, text in _problems(rest) if ".".join(key.split(".")[:2]) not in named]
    return []


def _place(path: tuple[str, ...], file: SpecFile, origin: Origin) -> str:
    for length in range(len(path), 0, -1):
        if path[:length] in origin:
            return origin[path[:length]]
    return str(file.path)


def _line(file: SpecFile, path: tuple[str, ...]) -> str:
    """`file:line` of the longest beginning of `path` that the file has."""
    lengths = range(len(path), 0, -1)
    return f"{file.path}:{next((file.lines[path[:n]] for n in lengths if path[:n] in file.lines), 1)}"
