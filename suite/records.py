"""The tables of a spec as frozen records. What physics forbids is in `suite.refusals`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    create_model,
    model_validator,
)

from suite.observables import OBSERVABLES, RATIOS
from suite.toml import did_you_mean, dump_toml, shortened, toml_value

if TYPE_CHECKING:
    from suite.model.backends import Backend

# Strain step for fits of many-body functions. They are smooth, but energies are small differences of large terms, with
# coefficients of up to 1e6: at 1e-3 their rounding is 2 % of the third derivatives, at 4e-3 4e-4, and truncation 3e-5.
ACE_STEP = 4e-3
# Potentials with energies of 32 bits: rounding of 1e-7 of some eV is 60 GPa in C11 at 1e-3, 0.6 GPa at 1e-2.
SINGLE_STEP = 1e-2
# a rank-revealing fit that drops all directions, or a ridge that outweighs them, leaves a model without forces; it is
# at rest wherever it starts, and would pass for a perfect one
LARGEST_REGULARISATION = 1e-2
DEFAULT_BACKEND = "pyace"
ENGINE_KEYS = {"engine", "ranks", "command"}  # of [simulation]: who computes the forces, and not which ones
LONGEST_NAME = 100  # of a case: it names an experiment of MLflow and a folder
# Numbers are numbers: `strict` refuses true and "6" where 6 is meant, and takes 6 for 6.0
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Place = Annotated[Number, Field(ge=-100, le=100)]  # further away, rounding moves a core
Count = Annotated[int, Field(strict=True, ge=1)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]  # what every generator of random numbers takes
Switch = Annotated[bool, Field(strict=True)]
Constant = Literal["C11", "C12", "C44", "C111", "C112", "C123", "C144", "C155", "C456"]
StrainStep = Annotated[float, Field(strict=True, ge=1e-5, le=0.02)]
Regularisation = Annotated[Number, Field(gt=0, le=LARGEST_REGULARISATION)]


def _ordered(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] >= limits[1]:
        raise ValueError("a range is [lowest, highest]")
    return limits


class Record(BaseModel):
    """A table of a spec: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def sentence_of(item: Mapping[str, Any], path: tuple[str, ...], root: type[Record]) -> str:
    """What is wrong with the value at `path` of a record `root`, from pydantic's account of it."""
    kind, value = item["type"], item.get("input")
    record: Any = root
    for part in path[:-1]:
        field = record.model_fields.get(part) if hasattr(record, "model_fields") else None
        record = field.annotation if field is not None else None
    if kind == "extra_forbidden":
        known = list(record.model_fields) if hasattr(record, "model_fields") else []
        word = "table" if root is Spec and len(path) == 1 else "key"
        return f"unknown {word}{did_you_mean(path[-1], known)}; known: {', '.join(known)}"
    if kind == "missing":
        return "this table is missing; docs/spec.md lists its keys" if len(path) == 1 and root is Spec else "is missing"
    if kind == "bool_type":
        return f"{shortened(value)}: write true or false"
    if kind == "literal_error":
        options = re.findall(r"'([^']*)'", item["ctx"]["expected"])
        return f"{shortened(value)} is not one of {', '.join(options)}{did_you_mean(str(value), options)}"
    if kind == "value_error":
        return f"{shortened(value)}: {item['ctx']['error']}"
    if kind == "tuple_type":
        example = f", such as {toml_value([value])}" if isinstance(value, str | int | float) else ""
        return f"{shortened(value)}: write a list in brackets{example}"
    if kind in ("float_type", "int_type") and isinstance(value, str):
        number = "a number" if kind == "float_type" else "a whole number"
        return f"{shortened(value)}: write {number}, without quotes and without a unit"
    return f"{shortened(value)}: {item['msg'][0].lower()}{item['msg'][1:]}"


class Case(Record):
    """What the case is called, and where in the paper it stands."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=LONGEST_NAME)]
    title: str
    paper: str = ""


class Material(Record):
    """Lattice, chemical symbols, and the reference potential (see `suite.world.reference`).

    A `reference`, or a model's `calculator`, of the form `module:callable` is code: run, plan, tune, scan, export,
    data, sweep, verify and leaderboard execute it, and refuse it with `--safe`; check does not execute it. Its module
    is looked for where Python looks, then in the folder of the spec; files that `arguments` name, in the current
    folder, then in that of the spec.

    `strain_step` is the step of the finite differences for its elastic response: as large as the smoothness of the
    potential allows.
    """

    lattice: Literal["bcc", "fcc", "diamond", "B2"]
    species: Annotated[tuple[str, ...], Field(min_length=1)]
    reference: str
    arguments: dict[str, Any] = {}
    strain_step: StrainStep = 1e-3


class DislocationSpec(Record):
    """Kind and arrangement of the dislocations, and the core site: a name, or explicit sites for +b and -b.

    A loop has a `diameter` in a0, which is its L_D, instead of an arrangement and a core site; its variant is "vacancy"
    or "interstitial".
    """

    kind: Literal["screw", "edge", "mixed", "loop"]
    variant: str = ""
    arrangement: Literal["quadrupole", "walls", "dipole"] = "quadrupole"
    core: str = "easy"
    sites: tuple[tuple[Place, Place], tuple[Place, Place]] | None = None
    diameter: Positive | None = None


class Simulation(Record):
    """The large cell: width N in units of a0, and how its equilibria are found.

    With `engine = "lammps-mpi"` LAMMPS computes forces in this cell on `ranks` processes of MPI, for references that
    LAMMPS evaluates. `command` starts it, with {ranks} in the place of their number (default: "mpirun -n {ranks} lmp");
    it is code, which `--safe` refuses. The equilibria are the same to rounding: these three keys are no part of what
    the cache and the points of sweeps are found by. docs/cluster.md tells more.
    """

    size: Positive
    force_tolerance: Positive = 1e-4  # eV/Å; pyace's radial splines are too rough for less
    max_steps: Count = 300
    perturbation: NotNegative = 0.01  # Å; breaks symmetry, so that no relaxation ends on a saddle
    seed: Seed = 0
    engine: Literal["embedded", "lammps-mpi"] = "embedded"
    ranks: Count | None = None
    command: str = ""


class Training(Record):
    """The small cell: half width L in units of a0, rattled configurations and their amplitudes in Å."""

    size: Positive
    configurations: Count = 100
    test: Count = 50  # matching conditions are measured on it: it cannot be empty
    amplitudes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.1, 0.5)
    equilibrium: Switch = True
    seed: Seed = 0


class Model(Record):
    """The potential to judge: an ACE model to be fitted, or with `backend = "snap"` or `"pod"` a model of LAMMPS, with
    `backend = "ace-jax"` an ACE model of another engine, with `backend = "calculator"` one that is given, or with
    `backend = "linear"` a sum of calculators whose coefficients are fitted.

    An ACE basis has `channels[k]` radial functions and degree `degrees[k]` for products of k + 1 neighbours. With
    `total_degree` it holds all pair functions, but only those products of k + 2 neighbours for which
    Σ(n - 1) + w Σl <= `total_degree[k]`: n = 1, 2, ... are their radial numbers, l their angular momenta, and w is
    `angular_weight`. A given `calculator` is named as a reference is, with its `arguments`; nothing is fitted then. For
    a linear model `calculator` names a function, "module:function", that returns a list of calculators. Installed
    packages may bring other backends (`suite.plugins`), which get `arguments`.
    A key that the backend does not read is refused. Where a preset or an override changes `backend`, the keys of this
    table that were written for another backend are left out, and so is `tune.channels`; docs/families.md shows it.
    `strain_step` is the step of the finite differences for the elastic response (default: 4e-3 for ACE, SNAP and POD,
    1e-3 for calculators, 1e-2 for one whose energies have only 32 bits).
    With `backend = "trainer"` another trainer fits the potential: `trainer` is one that comes with dislobench (gap,
    mace), a function, or a command line; see `suite.model.trained`. It gets the training set of the case, and
    `arguments`; weights are in the data, and are the trainer's own affair.
    """

    backend: str = DEFAULT_BACKEND
    trainer: str = ""
    cutoff: Positive | None = None
    radial: Literal["SBessel"] = "SBessel"
    channels: tuple[Count, ...] = ()
    degrees: tuple[Annotated[int, Field(strict=True, ge=0)], ...] = ()
    total_degree: tuple[NotNegative, ...] = ()
    angular_weight: Positive = 1.0
    calculator: str = ""
    arguments: dict[str, Any] = {}
    strain_step: StrainStep | None = None

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, table: Any) -> Any:
        """With every setting of a backend that has a record of them: a resolved spec says what later defaults may
        not. Wrong settings stay as they are, and `suite.refusals` tells of them."""
        if not isinstance(table, Mapping) or not isinstance(table.get("arguments", {}), Mapping):
            return table
        from suite.model.backends import BACKENDS  # it knows the families, which take time to import

        backend = BACKENDS.get(str(table.get("backend", DEFAULT_BACKEND)))
        if backend is None or backend.settings is None:
            return table
        try:
            settings = backend.settings.model_validate(table.get("arguments", {}))
        except ValidationError:
            return table
        return {**table, "arguments": settings.model_dump()}

    @property
    def family(self) -> Backend:
        """What its backend is and does; raises KeyError for one that nobody has."""
        from suite.model.backends import backend_of

        found = backend_of(self.backend)
        if found is None:
            raise KeyError(self.backend)
        return found

    @property
    def fitted(self) -> bool:
        """Are there coefficients to be fitted here?"""
        return self.family.fits

    @property
    def trains(self) -> bool:
        """Does it need training data?"""
        return self.family.trains

    @property
    def source(self) -> str:
        """Name of what the model is made of: a calculator, a function, a trainer, a package's backend; empty for an ACE
        model."""
        return self.family.source(self)

    @property
    def step(self) -> float:
        """Strain step for the derivatives of W_cb."""
        return self.strain_step or self.family.step


def _table(name: str, **fields: tuple[Any, Any]) -> Any:
    """A record with a key for each observable: types and defaults by name. Its subclass adds the keys of its own."""
    return create_model(name, __base__=Record, **fields)  # type: ignore[call-overload]


class Observables(_table("Switches", **{entry.name: (Switch, entry.on) for entry in OBSERVABLES.values()})):  # type: ignore[misc]
    """What the loss sees. "No elasticity": energy and force; "CLE": and virial1; "CLE+nonlinear": and virial2.

    `shift` adds an offset in GPa to the elastic constants that virial1 and virial2 are fitted to. With a heavy weight
    the fit is then wrong by a known eps_V1 or eps_V2.
    """

    shift: dict[Constant, Number] = {}  # noqa: RUF012

    @property
    def label(self) -> str:
        return "+".join(name for name in OBSERVABLES if getattr(self, name))


class Weights(_table("Factors", **{entry.name: (NotNegative, entry.weight) for entry in OBSERVABLES.values()})):  # type: ignore[misc]
    """Factors of the *squared* residuals, and whether a block counts as a sum (paper, 4.16) or as a mean square."""

    normalisation: Literal["paper", "mean"] = "paper"
    amplitudes: dict[str, NotNegative] = {}  # noqa: RUF012 - further factors, such as "0.5" = 0.1, for configurations of an amplitude


class Solver(Record):
    """How the least-squares problem is solved; `scale` divides every column by its norm first."""

    kind: Literal["ard", "bayesian_ridge", "ridge", "rrqr"] = "rrqr"
    # ridge: relative to the largest squared singular value
    alpha: Annotated[NotNegative, Field(le=LARGEST_REGULARISATION)] = 1e-10
    tolerance: Regularisation = 1e-10  # rrqr: relative size of a negligible diagonal of R
    max_iterations: Count = 300
    threshold: Positive = 1e4  # ard: precision beyond which a function is pruned, relative to noise
    scale: Switch = True


class Matching(Record):
    """Optional, costly matching conditions. `hessian` measures eps_H; `neighbourhood`, a radius in Å, the largest
    errors of energy and force within this distance ‖D(v - ȳ_L)‖ of the relaxed training cell, by projected ascent."""

    hessian: Switch = False
    neighbourhood: Positive | None = None


Objective = Literal[
    "balance",
    "calibrated",
    "corrected",
    "bound_geometry",
    "bound_energy",
    "bound_geometry_corrected",
    "bound_energy_corrected",
    "felt",
    "energy_factor",
    "geometry",
    "energy",
]
Range = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]
AlphaRange = Annotated[tuple[Regularisation, Regularisation], AfterValidator(_ordered)]


class Tune(_table("Ratios", **{name: (Range | None, OBSERVABLES[name].ratio) for name in RATIOS})):  # type: ignore[misc]
    """What `dislobench tune` may change and what it minimises; see `suite.study.tune`.

    Ranges are log-uniform, of the weight of an observable over that of the forces, which is fixed. `amplitudes` is the
    range of the further factor of every amplitude but the smallest, `alpha` and `threshold` are those of the solver;
    `channels` are bases to choose among. Objectives: `balance` is the spread of the balance that the key `balance`
    names, the paper's (literal), the same as energies (calibrated), or the one that follows from the corrected bound of
    the energy error (corrected); `calibrated` and `corrected` are those whatever the key says; `bound_...` are the
    bounds with C = 1, `felt` is what the dislocation feels of eps_V1, `energy_factor` is eps_K, `geometry` and `energy`
    are the errors by linear response. `limits` are upper bounds of objectives (constraints).
    """

    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)] = ("balance", "geometry", "energy")
    balance: Literal["literal", "calibrated", "corrected"] = "literal"
    limits: dict[Objective, Positive] = {}  # noqa: RUF012
    amplitudes: Range | None = None
    alpha: AlphaRange | None = None
    threshold: Range | None = None
    channels: tuple[tuple[Count, ...], ...] = ()
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    seed: Seed = 0
    trials: Count = 200
    verify: Count = 8


class Sweep(Record):
    """A ladder of runs; see `suite.study.sweep`. Several of them are `[sweep.NAME]`.

    `ladders` gives values to keys of the spec, such as `"training.size" = [6, 8, 10]`; all combinations, or with
    `zip` the first values together, the second ones, ... `seeds` are those of the training set; `ablation` runs
    each point with no elasticity, CLE, and CLE+nonlinear. A run is one point: values and seeds that come twice, and
    keys that two of these set, are refused. `against` is the axis of figures and slopes: "L", "N", "log_L_D", or a
    number of the runs such as "rmse_F". `curves` names a ladder whose values are curves of their own, each with its
    own slope, where there is no ablation. `variants` are curves too, by name, each with keys of the spec that it sets,
    such as `"V1 10" = { "weights.virial1" = 10 }`. `expect` overrides the slopes of the theory, `set` keys of the spec
    for all points. With `law` "logarithm" no power is fitted: the signed energy difference and the squared geometry
    error are regressed on log_L_D, and their slopes compared with those that the elastic constants of each model
    predict.
    """

    ladders: Annotated[dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]], Field(min_length=1)]
    zip: Switch = False
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    ablation: Switch = True
    against: str = "L"
    curves: str = ""
    variants: dict[str, dict[str, Any]] = {}
    law: Literal["power", "logarithm"] = "power"
    expect: dict[Literal["geometry_error", "energy_error"], Number] = {}
    set: dict[str, Any] = {}


class Origin:
    """The folder of the file that a record was read from. No part of what the record says: all origins are equal."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin)

    __hash__ = None  # type: ignore[assignment]


class Impossible(ValueError):
    """A spec that physics forbids; `problems` are keys and sentences."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{key}: {sentence}" for key, sentence in problems))
        self.problems = problems


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
    _origin: Origin = PrivateAttr(default_factory=Origin)

    @property
    def folder(self) -> Path | None:
        """Folder of the file that the spec was read from; None for one that was made in Python."""
        return self._origin.folder

    def read_from(self, folder: Path) -> Spec:
        """The same spec, with the folder of its file."""
        self._origin.folder = folder
        return self

    @model_validator(mode="after")
    def _physics(self) -> Spec:
        from suite.refusals import problems_of  # it knows the catalogues, which take time to import

        problems = problems_of(self)
        if problems:
            raise Impossible(problems)
        return self

    @property
    def judged(self) -> str:
        """What is judged, in a word: the observables of a fit, or a given potential."""
        return self.observables.label if self.model.fitted else self.model.source

    @property
    def code(self) -> list[str]:
        """Dotted paths and command lines that the spec names: code that runs as soon as a potential is built."""
        from suite.world.reference import is_code

        named = [self.material.reference] if is_code(self.material.reference) else []
        # a command line is no dotted path, and code all the same
        given = [name for name in self.model.family.code(self.model) if is_code(name) or name == self.model.trainer]
        return [*named, *given, *([self.simulation.command] if self.simulation.command else [])]

    def weight(self, observable: str) -> float:
        """Weight of an observable, zero when it is switched off."""
        return getattr(self.weights, observable) if getattr(self.observables, observable) else 0.0

    def table(self, *names: str) -> dict[str, Any]:
        """Plain values of the named tables: what a stage's content key hashes."""
        return {name: getattr(self, name).model_dump() for name in names}  # mode "json" would lose infinities

    def content(self) -> dict[str, Any]:
        """Plain values of everything that the numbers of a run depend on."""
        return self.model_dump(exclude={"case": True, "tune": True, "simulation": ENGINE_KEYS})

    def to_toml(self) -> str:
        """The resolved spec as TOML; loading it again gives an equal record."""
        return dump_toml(self.model_dump(exclude_none=True))
