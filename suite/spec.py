"""TOML specs as frozen records; every problem of a spec in one error, with file and line.

A spec declares a case; nothing in it is computed here. `load("w-screw", preset="quick", overrides=["training.size=8"])`
merges the preset and the overrides over the file, validates the result, and refuses impossible physics. The resolved
record (`Spec.to_toml`) reproduces a run.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

OBSERVABLES = ("energy", "force", "stress", "virial1", "virial2")
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


def _ordered(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] >= limits[1]:
        raise ValueError("a range is [lowest, highest]")
    return limits


class Record(BaseModel):
    """A table of a spec: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Case(Record):
    """What the case is called, and where in the paper it stands."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str
    paper: str = ""


class Material(Record):
    """Lattice, chemical symbols, and the reference potential (see `suite.world.reference`).

    `strain_step` is the step of the finite differences for its elastic response: as large as the smoothness of the
    potential allows.
    """

    lattice: Literal["bcc", "fcc", "diamond", "B2"]
    species: Annotated[tuple[str, ...], Field(min_length=1)]
    reference: str
    arguments: dict[str, Any] = {}
    strain_step: Annotated[float, Field(ge=1e-5, le=0.02)] = 1e-3


class DislocationSpec(Record):
    """Kind and arrangement of the dislocations, and the core site: a name, or explicit sites for +b and -b.

    A loop has a `diameter` in a0, which is its L_D, instead of an arrangement and a core site; its variant is "vacancy"
    or "interstitial".
    """

    kind: Literal["screw", "edge", "mixed", "loop"]
    variant: str = ""
    arrangement: Literal["quadrupole", "walls", "dipole"] = "quadrupole"
    core: str = "easy"
    sites: tuple[tuple[float, float], tuple[float, float]] | None = None
    diameter: Positive | None = None


class Simulation(Record):
    """The large cell: width N in units of a0, and how its equilibria are found."""

    size: Positive
    force_tolerance: Positive = 1e-4  # eV/Å; pyace's radial splines are too rough for less
    max_steps: Count = 300
    perturbation: NotNegative = 0.01  # Å; breaks symmetry, so that no relaxation ends on a saddle
    seed: int = 0


class Training(Record):
    """The small cell: half width L in units of a0, rattled configurations and their amplitudes in Å."""

    size: Positive
    configurations: Count = 100
    test: Count = 50  # matching conditions are measured on it: it cannot be empty
    amplitudes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.1, 0.5)
    equilibrium: bool = True
    seed: int = 0


class Model(Record):
    """The basis: `channels[k]` radial functions and degree `degrees[k]` for products of k + 1 neighbours."""

    backend: Literal["pyace"] = "pyace"
    cutoff: Positive
    radial: Literal["SBessel"] = "SBessel"
    channels: Annotated[tuple[Count, ...], Field(min_length=1)]
    degrees: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


class Observables(Record):
    """What the loss sees. "No elasticity": energy and force; "CLE": and virial1; "CLE+nonlinear": and virial2.

    `shift` adds so many GPa to the constants that virial1 asks for: with a heavy weight, a controlled eps_V1.
    """

    energy: bool = True
    force: bool = True
    stress: bool = False
    virial1: bool = True
    virial2: bool = True
    shift: dict[Literal["C11", "C12", "C44"], Annotated[float, Field(allow_inf_nan=False)]] = {}

    @property
    def label(self) -> str:
        return "+".join(name for name in OBSERVABLES if getattr(self, name))


class Weights(Record):
    """Factors of the *squared* residuals, and whether a block counts as a sum (paper, 4.16) or as a mean square."""

    energy: NotNegative = 50.0
    force: NotNegative = 10.0
    stress: NotNegative = 10.0
    virial1: NotNegative = 10.0
    virial2: NotNegative = 1.0
    normalisation: Literal["paper", "mean"] = "paper"
    amplitudes: dict[str, NotNegative] = {}  # further factors, such as "0.5" = 0.1, for configurations of an amplitude


class Solver(Record):
    """How the least-squares problem is solved; `scale` divides every column by its norm first."""

    kind: Literal["ard", "bayesian_ridge", "ridge", "rrqr"] = "rrqr"
    alpha: NotNegative = 1e-10  # ridge: relative to the largest squared singular value
    tolerance: Positive = 1e-10  # rrqr: relative size of a negligible diagonal of R
    max_iterations: Count = 300
    threshold: Positive = 1e4  # ard: precision beyond which a function is pruned, relative to noise
    scale: bool = True


class Matching(Record):
    """Optional, costly matching conditions."""

    hessian: bool = False


Objective = Literal["balance", "calibrated", "bound_geometry", "bound_energy", "geometry", "energy"]
Range = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]


class Tune(Record):
    """What `dislobench tune` may change and what it minimises; see `suite.study.tune`.

    Ranges are log-uniform, of the weight of an observable over that of the forces, which is fixed. `amplitudes` is the
    range of the further factor of every amplitude but the smallest, `alpha` and `threshold` are those of the solver;
    `channels` are bases to choose among. Objectives: `balance` and `calibrated` are spreads of the two balances,
    `geometry` and `energy` the errors by linear response. `limits` are upper bounds of objectives (constraints).
    """

    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)] = ("balance", "geometry")
    limits: dict[Objective, Positive] = {}
    energy: Range | None = (1e-3, 1e4)
    stress: Range | None = (1e-3, 1e5)
    virial1: Range | None = (1e-3, 1e5)
    virial2: Range | None = (1e-5, 1e3)
    amplitudes: Range | None = None
    alpha: Range | None = None
    threshold: Range | None = None
    channels: tuple[tuple[Count, ...], ...] = ()
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    seed: int = 0
    trials: Count = 200
    verify: Annotated[int, Field(ge=1)] = 8


class Sweep(Record):
    """A ladder of runs; see `suite.study.sweep`. Several of them are `[sweep.NAME]`.

    `ladders` gives values to keys of the spec, such as `"training.size" = [6, 8, 10]`; all combinations, or with
    `zip` the first values together, the second ones, ... `seeds` are those of the training set; `ablation` runs
    each point with no elasticity, CLE, and CLE+nonlinear. `against` is the axis of figures and slopes: "L", "N", or
    a number of the runs such as "rmse_F". `expect` overrides the slopes of the theory, `set` keys of the spec for
    all points.
    """

    ladders: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]]
    zip: bool = False
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    ablation: bool = True
    against: str = "L"
    expect: dict[Literal["geometry_error", "energy_error"], float] = {}
    set: dict[str, Any] = {}


class Spec(Record):
    """One case, resolved: what `suite.pipeline` needs and nothing else."""

    case: Case
    material: Material
    dislocation: DislocationSpec
    simulation: Simulation
    training: Training
    model: Model
    observables: Observables = Observables()
    weights: Weights = Weights()
    solver: Solver = Solver()
    matching: Matching = Matching()
    tune: Tune = Tune()

    @model_validator(mode="after")
    def _physics(self) -> Spec:
        problems = _impossible(self)
        if problems:
            raise ValueError(json.dumps(problems))
        return self

    def weight(self, observable: str) -> float:
        """Weight of an observable, zero when it is switched off."""
        return getattr(self.weights, observable) if getattr(self.observables, observable) else 0.0

    def table(self, *names: str) -> dict[str, Any]:
        """Plain values of the named tables: what a stage's content key hashes."""
        return {name: getattr(self, name).model_dump() for name in names}  # mode "json" would lose infinities

    def to_toml(self) -> str:
        """The resolved spec as TOML; loading it again gives an equal record."""
        return dump_toml(self.model_dump(exclude_none=True))


def _impossible(spec: Spec) -> list[tuple[str, str]]:
    """Physics that cannot be: (key, sentence). Only what follows from the spec alone, without computing."""
    from suite.world.dislocation import CATALOGUE, LOOPS, known_entries
    from suite.world.reference import unknown_reference

    problems: list[tuple[str, str]] = []

    def refuse(key: str, sentence: str) -> None:
        problems.append((key, sentence))

    material, dislocation, model = spec.material, spec.dislocation, spec.model
    if reason := unknown_reference(material.reference):
        refuse("material.reference", reason)
    wanted = {"bcc": 1, "fcc": 1, "diamond": 1, "B2": 2}[material.lattice]
    if len(material.species) != wanted:
        refuse("material.species", f"{material.lattice} has {wanted} species, not {len(material.species)}")
    if unknown := [s for s in material.species if s not in _symbols()]:
        refuse("material.species", f"{unknown[0]!r} is not a chemical symbol")

    loop = dislocation.kind == "loop"
    entry = CATALOGUE.get((material.lattice, dislocation.kind, dislocation.variant))
    if loop and (material.lattice, dislocation.variant) in LOOPS:
        if dislocation.diameter is None:
            refuse("dislocation.diameter", "is missing: a loop needs its diameter in a0")
        elif not 2 <= dislocation.diameter <= round(spec.simulation.size) / 2:
            refuse(
                "dislocation.diameter",
                f"a loop of diameter {dislocation.diameter:g} a0 does not fit: it must be at least 2 a0 and at most "
                f"half the simulation cell, N/2 = {round(spec.simulation.size) / 2:g} a0",
            )
        if dislocation.sites is not None:
            refuse("dislocation.sites", "a loop has no core sites")
    elif entry is None:
        wanted_kind = f"{dislocation.kind} {dislocation.variant}".strip()
        refuse("dislocation.kind", f"no {wanted_kind} dislocation in {material.lattice}; known: {known_entries()}")
    elif dislocation.sites is None and dislocation.core not in entry.sites:
        hint = _did_you_mean(dislocation.core, entry.sites)
        refuse("dislocation.core", f"{dislocation.core!r} is not one of {', '.join(entry.sites)}{hint}")
    elif reason := entry.core_on_atom(material.lattice, dislocation.sites or entry.sites[dislocation.core]):
        refuse("dislocation.sites" if dislocation.sites else "dislocation.core", reason)

    if not loop and dislocation.diameter is not None:
        refuse("dislocation.diameter", "only loops have a diameter")

    size = spec.training.size
    if loop and dislocation.diameter is not None and size > dislocation.diameter:
        refuse(
            "training.size",
            f"L = {size:g} a0 exceeds the diameter of the loop, L_D = {dislocation.diameter:g} a0: the theory needs "
            "L <= L_D",
        )
    elif not loop and size > spec.simulation.size / 2:
        refuse(
            "training.size",
            f"L = {size:g} a0 exceeds the distance of the dislocations in the simulation cell, "
            f"L_D = N/2 = {spec.simulation.size / 2:g} a0: the theory needs L <= L_D",
        )
    width = (1 if loop else 2) * size * _approximate_constant(material)  # the edge dipole's cell is half as high
    if width < 2 * model.cutoff:
        refuse(
            "training.size",
            f"the training cell is {width:.1f} Å wide, less than twice the cutoff ({2 * model.cutoff:g} Å): "
            "atoms would see their own images",
        )

    if model.cutoff < 0.75 * _approximate_bond(material):
        refuse(
            "model.cutoff",
            f"{model.cutoff:g} Å is shorter than a bond: no atom would have a neighbour",
        )
    if len(model.channels) != len(model.degrees):
        refuse("model.degrees", f"{len(model.degrees)} degrees for {len(model.channels)} orders of model.channels")
    if model.degrees[0] != 0:
        refuse("model.degrees", "pair functions have no angles: the first degree must be 0")
    if list(model.channels) != sorted(model.channels, reverse=True):
        refuse("model.channels", "radial channels must not increase with the order")

    known = [f"{a:g}" for a in (0.0, *spec.training.amplitudes)]
    for name in spec.weights.amplitudes:
        if name not in known:
            refuse("weights.amplitudes", f"{name!r} is not an amplitude of the training set: {', '.join(known)}")
    for name in ("alpha", "threshold"):
        solver_kind = {"alpha": "ridge", "threshold": "ard"}[name]
        if getattr(spec.tune, name) is not None and spec.solver.kind != solver_kind:
            refuse(f"tune.{name}", f"solver.kind is {spec.solver.kind!r}, and only {solver_kind!r} has {name}")
    for channels in spec.tune.channels:
        if len(channels) != len(model.degrees) or list(channels) != sorted(channels, reverse=True):
            refuse("tune.channels", f"{list(channels)} does not fit model.degrees {list(model.degrees)}")

    if not any(spec.weight(name) > 0 for name in OBSERVABLES):
        refuse("weights", "no observable has a positive weight: there is nothing to fit")
    elif not any(spec.weight(name) > 0 for name in ("energy", "force")):
        refuse("observables", "neither energies nor forces are fitted: elastic constants alone determine no model")
    return problems


def _symbols() -> set[str]:
    from ase.data import chemical_symbols

    return set(chemical_symbols[1:])


def _approximate_bond(material: Material) -> float:
    """Sum of covalent radii, Å: the length of a bond within a sixth."""
    from ase.data import atomic_numbers, covalent_radii

    known = [covalent_radii[atomic_numbers[s]] for s in material.species if s in atomic_numbers]
    return float(known[0] + known[-1]) if known else 2.6


def _approximate_constant(material: Material) -> float:
    """Cubic constant, Å, within a sixth: enough to refuse a cell that is far too small."""
    shell = {"bcc": 0.866, "fcc": 0.7071, "diamond": 0.433, "B2": 0.866}[material.lattice]
    return _approximate_bond(material) / shell * 0.9


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


# --- reading ------------------------------------------------------------------------------------------------------


class BadSpec(ValueError):
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
            raise BadSpec([f"no spec {str(name)!r}; shipped: {', '.join(known)}{_did_you_mean(str(name), known)}"])
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
        return Spec.model_validate(merged)
    except ValidationError as error:
        raise BadSpec(_explain(error, file, origin) + _explain_rest(error, merged, file, origin)) from error


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
                hint = _did_you_mean(path, Sweep.model_fields) if item["type"] == "extra_forbidden" else ""
                problems.append(f"{place}: sweep.{key}.{path}: {item['msg'][0].lower()}{item['msg'][1:]}{hint}")
            continue
        sweep = found[key]
        for ladder in [*sweep.ladders, *sweep.set]:
            table_name, _, field_name = ladder.partition(".")
            record = Spec.model_fields.get(table_name)
            known = getattr(record.annotation, "model_fields", {}) if record else {}
            if field_name.partition(".")[0] not in known:
                every = [f"{t}.{k}" for t, f in Spec.model_fields.items() for k in f.annotation.model_fields]  # type: ignore[union-attr]
                problems.append(f"{place}: sweep.{key}: no key {ladder!r} in a spec{_did_you_mean(ladder, every)}")
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
        hint = _did_you_mean(str(preset), known)
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


def _explain(error: ValidationError, file: SpecFile, origin: Origin) -> list[str]:
    problems: list[tuple[str, str]] = []
    for item in error.errors():
        path = tuple(str(part) for part in item["loc"])
        if item["type"] == "value_error" and not path:
            physics = json.loads(str(item["ctx"]["error"]))
            problems += [(key, text) for key, text in physics]
            continue
        problems.append((".".join(path), _sentence(item, path)))
    return [f"{_place(tuple(key.split('.')), file, origin)}: {key}: {text}" for key, text in problems]


def _explain_rest(error: ValidationError, merged: Mapping[str, Any], file: SpecFile, origin: Origin) -> list[str]:
    """Physics that is impossible beside the keys that `error` names: a typo must not hide it."""
    wrong = [tuple(item["loc"]) for item in error.errors() if len(item["loc"]) > 1]
    pruned = {k: dict(v) if isinstance(v, Mapping) else v for k, v in merged.items() if k in Spec.model_fields}
    for table, key, *_ in wrong:
        if isinstance(pruned.get(str(table)), dict):
            pruned[str(table)].pop(key, None)
    try:
        Spec.model_validate(pruned)
    except ValidationError as rest:
        if all(item["type"] == "value_error" and not item["loc"] for item in rest.errors()):
            said = set(_explain(error, file, origin))
            return [line for line in _explain(rest, file, origin) if line not in said]
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
        return f"unknown {word}{_did_you_mean(path[-1], known)}; known: {', '.join(known)}"
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        options = re.findall(r"'([^']*)'", item["ctx"]["expected"])
        return f"{value!r} is not one of {', '.join(options)}{_did_you_mean(str(value), options)}"
    return f"{value!r}: {item['msg'][0].lower()}{item['msg'][1:]}"


def dump_toml(tables: Mapping[str, Any], prefix: str = "") -> str:
    """Write nested mappings of numbers, strings, booleans and lists as TOML."""
    plain = [f"{_toml_key(k)} = {toml_value(v)}" for k, v in tables.items() if not isinstance(v, Mapping)]
    text = "\n".join(plain) + ("\n" if plain else "")
    for key, value in tables.items():
        if isinstance(value, Mapping):
            name = f"{prefix}{_toml_key(key)}"
            body = dump_toml(value, f"{name}.")
            text += f"\n[{name}]\n{body}" if body or not value else f"\n[{name}]\n"
    return text


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_value(key)


def toml_value(value: Any) -> str:
    """A plain value as TOML; raises `TypeError` for what TOML cannot hold."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON and TOML escape alike but for characters beyond 16 bits and the delete character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml_key(k)} = {toml_value(v)}" for k, v in value.items()) + "}"
    raise TypeError(f"{value!r} cannot be written as TOML")
