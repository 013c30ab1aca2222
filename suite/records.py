"""The tables of a spec as frozen records, and what they refuse because physics forbids it: what follows from the spec
alone, before anything is relaxed or fitted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from keyword import iskeyword
from math import comb
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, create_model, model_validator

from suite import plugins
from suite.observables import OBSERVABLES, RATIOS
from suite.toml import did_you_mean, dump_toml

# Strain step for ACE models. Fits are smooth, but their energies are small differences of large terms, with
# coefficients of up to 1e6: at 1e-3 their rounding is 2 % of the third derivatives, at 4e-3 4e-4, and truncation 3e-5.
ACE_STEP = 4e-3
# Potentials with energies of 32 bits: rounding of 1e-7 of some eV is 60 GPa in C11 at 1e-3, 0.6 GPa at 1e-2.
SINGLE_STEP = 1e-2
# a rank-revealing fit that drops all directions, or a ridge that outweighs them, leaves a model without forces; it is
# at rest wherever it starts, and would pass for a perfect one
LARGEST_REGULARISATION = 1e-2
LONGEST_NAME = 100  # of a case: it names an experiment of MLflow and a folder
MOST_FUNCTIONS = 20_000  # a fit has some hundreds
LONGEST_ARGUMENT = 5000  # characters of an argument of a model: it is a parameter of the run
# Numbers are numbers: `strict` refuses true and "6" where 6 is meant, and takes 6 for 6.0
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Place = Annotated[Number, Field(ge=-100, le=100)]  # further away, rounding moves a core
Count = Annotated[int, Field(strict=True, ge=1)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]  # what every generator of random numbers takes
Switch = Annotated[bool, Field(strict=True)]
BACKENDS = ("pyace", "linear", "calculator")
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


class Case(Record):
    """What the case is called, and where in the paper it stands."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=LONGEST_NAME)]
    title: str
    paper: str = ""


class Material(Record):
    """Lattice, chemical symbols, and the reference potential (see `suite.world.reference`).

    A `reference`, or a model's `calculator`, of the form `module:callable` is code: run, plan, tune, scan, export,
    sweep and verify execute it, and refuse it with `--safe`; check does not execute it. Its module is looked for where
    Python looks, then in the folder of the spec; files that `arguments` name, in the current folder, then in that of
    the spec.

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
    """The large cell: width N in units of a0, and how its equilibria are found."""

    size: Positive
    force_tolerance: Positive = 1e-4  # eV/Å; pyace's radial splines are too rough for less
    max_steps: Count = 300
    perturbation: NotNegative = 0.01  # Å; breaks symmetry, so that no relaxation ends on a saddle
    seed: Seed = 0


class Training(Record):
    """The small cell: half width L in units of a0, rattled configurations and their amplitudes in Å."""

    size: Positive
    configurations: Count = 100
    test: Count = 50  # matching conditions are measured on it: it cannot be empty
    amplitudes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.1, 0.5)
    equilibrium: Switch = True
    seed: Seed = 0


class Model(Record):
    """The potential to judge: an ACE model to be fitted, or with `backend = "calculator"` one that is given, or with
    `backend = "linear"` a sum of calculators whose coefficients are fitted.

    An ACE basis has `channels[k]` radial functions and degree `degrees[k]` for products of k + 1 neighbours. With
    `total_degree` it holds all pair functions, but only those products of k + 2 neighbours for which
    Σ(n - 1) + w Σl <= `total_degree[k]`: n = 1, 2, ... are their radial numbers, l their angular momenta, and w is
    `angular_weight`. A given `calculator` is named as a reference is, with its `arguments`; nothing is fitted then. For
    a linear model `calculator` names a function, "module:function", that returns a list of calculators. Installed
    packages may bring other backends (`suite.plugins`), which get `arguments`.
    `strain_step` is the step of the finite differences for the elastic response (default: 4e-3 for ACE, 1e-3 for
    calculators, 1e-2 for one whose energies have only 32 bits).
    """

    backend: str = "pyace"
    cutoff: Positive | None = None
    radial: Literal["SBessel"] = "SBessel"
    channels: tuple[Count, ...] = ()
    degrees: tuple[Annotated[int, Field(strict=True, ge=0)], ...] = ()
    total_degree: tuple[NotNegative, ...] = ()
    angular_weight: Positive = 1.0
    calculator: str = ""
    arguments: dict[str, Any] = {}
    strain_step: StrainStep | None = None

    @property
    def fitted(self) -> bool:
        """Are there coefficients to be fitted?"""
        return self.backend != "calculator"

    @property
    def named(self) -> bool:
        """Does `calculator` name what the model is made of?"""
        return self.backend in ("linear", "calculator")

    @property
    def source(self) -> str:
        """Name of what the model is made of: a calculator, a function, a package's backend; empty for an ACE model."""
        return "" if self.backend == "pyace" else self.calculator or self.backend

    @property
    def step(self) -> float:
        """Strain step for the derivatives of W_cb."""
        return self.strain_step or (ACE_STEP if self.backend == "pyace" else 1e-3)


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
        problems = _impossible(self)
        if problems:
            raise ValueError(json.dumps(problems))
        return self

    @property
    def judged(self) -> str:
        """What is judged, in a word: the observables of a fit, or a given potential."""
        return self.observables.label if self.model.fitted else self.model.calculator

    @property
    def code(self) -> list[str]:
        """Dotted paths that the spec names: code that runs as soon as a potential is built."""
        from suite.world.reference import is_code

        named = [self.material.reference, *([self.model.calculator] if self.model.named else [])]
        return [name for name in named if is_code(name)]

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
    from suite.world.crystal import LATTICES
    from suite.world.dislocation import LOOPS, dislocations, known_entries
    from suite.world.reference import is_code, unknown_reference

    problems: list[tuple[str, str]] = []

    def refuse(key: str, sentence: str) -> None:
        problems.append((key, sentence))

    material, dislocation, model = spec.material, spec.dislocation, spec.model
    if reason := unknown_reference(material.reference):
        refuse("material.reference", reason)
    wanted = LATTICES[material.lattice].species_count
    if len(material.species) != wanted:
        refuse("material.species", f"{material.lattice} has {wanted} species, not {len(material.species)}")
    if unknown := [s for s in material.species if s not in _symbols()]:
        refuse("material.species", f"{unknown[0]!r} is not a chemical symbol")

    _refuse_arguments("material", material.reference, material.arguments, refuse)
    brought = plugins.installed(plugins.BACKENDS)
    if model.backend not in (*BACKENDS, *brought):
        hint = did_you_mean(model.backend, [*BACKENDS, *brought])
        refuse("model.backend", f"{model.backend!r} is not one of {', '.join([*BACKENDS, *brought])}{hint}")
    elif model.named or model.backend in brought:
        _refuse_arguments("model", model.source, model.arguments, refuse)
        if model.calculator and model.backend in brought:
            refuse("model.calculator", f"the backend {model.backend!r} has none; its settings are model.arguments")
    else:
        for key in ("calculator", "arguments"):
            if getattr(model, key):
                refuse(f"model.{key}", "an ACE model has none: it belongs to model.backend = 'calculator' or 'linear'")

    loop = dislocation.kind == "loop"
    entry = dislocations().get((material.lattice, dislocation.kind, dislocation.variant))
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
        for key in ("core", "arrangement"):
            if getattr(dislocation, key) != DislocationSpec.model_fields[key].default:
                refuse(f"dislocation.{key}", f"{getattr(dislocation, key)!r}: a loop has no {key}: remove the key")
    elif entry is None:
        wanted_kind = f"{dislocation.kind} {dislocation.variant}".strip()
        refuse("dislocation.kind", f"no {wanted_kind} dislocation in {material.lattice}; known: {known_entries()}")
    elif dislocation.sites is None and dislocation.core not in entry.sites:
        hint = did_you_mean(dislocation.core, entry.sites)
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
    if model.backend == "pyace":
        _refuse_bases(spec, refuse)
    elif not model.named:
        pass  # what a package's backend needs, it says itself when it is built
    elif model.backend == "linear" and not is_code(model.calculator):
        refuse("model.calculator", "a linear model needs a function, 'module:function', that returns its calculators")
    elif reason := unknown_reference(model.calculator):
        refuse("model.calculator", reason if model.calculator else "is missing: which potential is to be judged?")
    if model.backend != "pyace" and spec.tune.channels:
        refuse("tune.channels", "only an ACE model has channels")

    bond = _approximate_bond(material)
    for key, lengths in (
        ("training.amplitudes", spec.training.amplitudes),
        ("simulation.perturbation", (spec.simulation.perturbation,)),
    ):
        if max(lengths) >= bond:
            refuse(key, f"{max(lengths):g} Å: neighbours are about {bond:.1f} Å apart, and atoms would meet")
    names = [f"{a:g}" for a in spec.training.amplitudes]
    known = ["0", *names]
    if shared := [name for name in names if known.count(name) > 1]:
        refuse(
            "training.amplitudes",
            f"two of them are called {shared[0]} Å in six digits, and numbers of runs have that name: remove one",
        )
    for name in spec.weights.amplitudes:
        if name not in known:
            refuse("weights.amplitudes", f"{name!r} is not an amplitude of the training set: {', '.join(known)}")
    for name in ("alpha", "threshold"):
        solver_kind = {"alpha": "ridge", "threshold": "ard"}[name]
        if getattr(spec.tune, name) is not None and spec.solver.kind != solver_kind:
            refuse(f"tune.{name}", f"solver.kind is {spec.solver.kind!r}, and only {solver_kind!r} has {name}")
    if not any(spec.weight(name) > 0 for name in OBSERVABLES):
        refuse("weights", "no observable has a positive weight: there is nothing to fit")
    elif not any(spec.weight(name) > 0 for name in ("energy", "force")):
        refuse("observables", "neither energies nor forces are fitted: elastic constants alone determine no model")
    return problems


def _refuse_arguments(table: str, name: str, arguments: dict[str, Any], refuse: Callable[[str, str], None]) -> None:
    """Arguments that no function can be called with, or that no content key and no parameter of a run can hold."""
    from suite.world.reference import CATALOGUE

    for argument, value in arguments.items():
        key = f"{table}.arguments.{argument}"
        if name in CATALOGUE:
            refuse(key, f"{name} of the catalogue takes no arguments")
        if not (argument.isidentifier() and argument.isascii()) or iskeyword(argument):
            refuse(key, f"{argument!r} cannot name an argument: use letters, digits and underscores, no word of Python")
        for item in _leaves(value):
            if not isinstance(item, str | int | float):
                refuse(key, f"{argument} = {item}: a {type(item).__name__} is no argument: write it as text, in quotes")
            elif item != item:
                refuse(key, f"{argument} = {item}: it is not a number, not even equal to itself")
        if len(str(value)) > LONGEST_ARGUMENT:
            refuse(
                key,
                f"{argument} has {len(str(value))} characters, and a run keeps {LONGEST_ARGUMENT}: put it in a file",
            )


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item)
    else:
        yield value


def _refuse_bases(spec: Spec, refuse: Callable[[str, str], None]) -> None:
    """What no ACE basis can be, and training cells that are too small for it."""
    from suite.model.basis import MOST_RADIAL, beyond_pyace

    model, size = spec.model, spec.training.size
    missing = [name for name in ("cutoff", "channels", "degrees") if not getattr(model, name)]
    for name in missing:
        refuse(f"model.{name}", "is missing: an ACE basis needs it")
    if model.cutoff is not None:
        # the edge dipole that goes with a loop has a cell half as high as it is wide
        width = (1 if spec.dislocation.kind == "loop" else 2) * size * _approximate_constant(spec.material)
        if width < 2 * model.cutoff:
            refuse(
                "training.size",
                f"the training cell is {width:.1f} Å wide, less than twice the cutoff ({2 * model.cutoff:g} Å): "
                "atoms would see their own images",
            )
        if model.cutoff < 0.75 * _approximate_bond(spec.material):
            refuse("model.cutoff", f"{model.cutoff:g} Å is shorter than a bond: no atom would have a neighbour")
    if missing:
        return
    if len(model.channels) != len(model.degrees):
        refuse("model.degrees", f"{len(model.degrees)} degrees for {len(model.channels)} orders of model.channels")
    if model.degrees[0] != 0:
        refuse("model.degrees", "pair functions have no angles: the first degree must be 0")
    elif (found := beyond_pyace(model.degrees)) is not None:
        refuse("model.degrees", found)
    if list(model.channels) != sorted(model.channels, reverse=True):
        refuse("model.channels", "radial channels must not increase with the order")
    if model.channels[0] > MOST_RADIAL:
        refuse("model.channels", f"{model.channels[0]} radial functions, and {MOST_RADIAL} are the most")
    if (least := _fewest_functions(model.channels, model.degrees)) > MOST_FUNCTIONS:
        refuse("model.channels", f"they make {min(least, 10**12)} functions or more, and {MOST_FUNCTIONS} are the most")
    products = len(model.channels) - 1
    if model.total_degree and len(model.total_degree) != products:
        refuse(
            "model.total_degree",
            f"{len(model.total_degree)} limits for {products} orders of products: model.channels without its first "
            "entry, the pair functions, which all stay",
        )
    if model.angular_weight != 1 and not model.total_degree:
        refuse("model.angular_weight", "has no effect without model.total_degree; leave it out or at 1")
    for channels in spec.tune.channels:
        if len(channels) != len(model.degrees) or list(channels) != sorted(channels, reverse=True):
            refuse("tune.channels", f"{list(channels)} does not fit model.degrees {list(model.degrees)}")
        elif channels[0] > MOST_RADIAL:
            refuse("tune.channels", f"{list(channels)} has more than {MOST_RADIAL} radial functions")
        elif _fewest_functions(channels, model.degrees) > MOST_FUNCTIONS:
            refuse("tune.channels", f"{list(channels)} makes more than {MOST_FUNCTIONS} functions")


def _fewest_functions(channels: tuple[int, ...], degrees: tuple[int, ...]) -> int:
    """A lower bound of the number of functions of one element: products of k radial functions, in any order, times the
    angular momenta that a product of two or more can have."""
    orders = enumerate(zip(channels, degrees, strict=False), start=1)
    return sum(comb(n + k - 1, k) * (degree + 1 if k > 1 else 1) for k, (n, degree) in orders)


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
    from suite.world.crystal import LATTICES

    return _approximate_bond(material) / LATTICES[material.lattice].nearest * 0.9
