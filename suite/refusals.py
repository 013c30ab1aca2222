"""What a spec says and physics forbids: key and sentence of each problem, before anything is computed."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from keyword import iskeyword
from math import comb
from typing import TYPE_CHECKING, Any

from suite import plugins
from suite.model.backends import BACKENDS, EVERY, backend_of, settings_of
from suite.observables import OBSERVABLES
from suite.toml import did_you_mean
from suite.trainers import TRAINERS
from suite.world.catalogue import CATALOGUE
from suite.world.crystal import LATTICES
from suite.world.dislocation import LOOPS, dislocations, known_entries
from suite.world.launch import COMMAND, RANKS
from suite.world.reference import unknown_reference

if TYPE_CHECKING:
    from suite.records import Material, Spec

MOST_FUNCTIONS = 20_000  # a fit has some hundreds
LONGEST_ARGUMENT = 5000  # characters of an argument of a model: it is a parameter of the run
SOLVERS_OF = {"alpha": "ridge", "threshold": "ard"}  # a parameter that a study may search, and whose it is
Refuse = Callable[[str, str], None]


def problems_of(spec: Spec) -> list[tuple[str, str]]:
    """Everything that is wrong with `spec`: keys and sentences."""
    problems: list[tuple[str, str]] = []

    def refuse(key: str, sentence: str) -> None:
        problems.append((key, sentence))

    for subject in (_material, _backend, _dislocation, _sizes, _engine, _model, _amplitudes, _weights):
        subject(spec, refuse)
    return problems


def _material(spec: Spec, refuse: Refuse) -> None:
    """Reference and species."""
    material = spec.material
    if reason := unknown_reference(material.reference):
        refuse("material.reference", reason)
    wanted = LATTICES[material.lattice].species_count
    if len(material.species) != wanted:
        refuse("material.species", f"{material.lattice} has {wanted} species, not {len(material.species)}")
    if unknown := [s for s in material.species if s not in _symbols()]:
        refuse("material.species", f"{unknown[0]!r} is not a chemical symbol")
    elif len(material.species) == wanted and (foreign := _foreign(spec, material.reference)):
        refuse("material.species", foreign)
    _arguments("material", material.reference, material.arguments, refuse)


def _foreign(spec: Spec, name: str) -> str:
    """Why the entry `name` of the catalogue cannot describe the material, or nothing."""
    entry, species = CATALOGUE.get(name), spec.material.species
    if entry is None or set(species) <= set(entry.species):
        return ""
    others = [other for other, each in CATALOGUE.items() if set(species) <= set(each.species)]
    cure = f"; for {'-'.join(species)} there are {', '.join(others)}" if others else ""
    return f"{name!r} is a potential of {'-'.join(entry.species)}, not of {'-'.join(species)}{cure}"


def remarks_on(spec: Spec) -> list[str]:
    """What is possible and perhaps not meant: a potential of the catalogue in a lattice that is not its lowest."""
    found, lattice = [], spec.material.lattice
    named = {"material.reference": spec.material.reference, "model.calculator": spec.model.calculator}
    for key, name in named.items():
        entry = CATALOGUE.get(name)
        if entry is None or entry.measured is None or set(entry.species) != set(spec.material.species):
            continue
        energies, lowest = entry.measured.energies, entry.measured.lowest
        if lattice not in energies:
            found.append(
                f"{key}: {name} has no stable {lattice} crystal that was measured; it is meant for {entry.lattice}"
            )
        elif lattice != lowest:
            higher = energies[lattice] - energies[lowest]
            found.append(
                f"{key}: {lattice} is not the ground state of {name}: {lowest} lies {higher:.3g} eV per atom lower"
            )
        elif lattice != entry.lattice:
            found.append(f"{key}: {name} is meant for {entry.lattice}, not for {lattice}")
    return found


def _backend(spec: Spec, refuse: Refuse) -> None:
    """The family of models, and keys that belong to another one."""
    model = spec.model
    brought = plugins.installed(plugins.BACKENDS)
    if model.backend not in (*BACKENDS, *brought):
        trained = (
            f' (did you mean "trainer", with model.trainer = "{model.backend}"?)' if model.backend in TRAINERS else ""
        )
        hint = trained or did_you_mean(model.backend, [*BACKENDS, *brought])
        refuse("model.backend", f"{model.backend!r} is not one of {', '.join([*BACKENDS, *brought])}{hint}")
        return
    _unread(spec, refuse)
    if model.backend != "pyace":
        _arguments("model", model.source, model.arguments, refuse)
        if foreign := _foreign(spec, model.calculator):
            refuse("model.calculator", foreign)
    for key, sentence in settings_of(model, spec.material.species)[1]:
        refuse(f"model.arguments.{key}", sentence)


def _unread(spec: Spec, refuse: Refuse) -> None:
    """Keys of `[model]` that its backend does not read."""
    model, backend = spec.model, backend_of(spec.model.backend)
    assert backend is not None
    for key, field in type(model).model_fields.items():
        if key in (*EVERY, *backend.keys) or getattr(model, key) == field.default:
            continue
        if model.backend == "pyace":
            others = [repr(name) for name, other in BACKENDS.items() if key in other.keys]
            told = f"an ACE model has none: it belongs to model.backend = {', '.join(others[:-1])} or {others[-1]}"
        else:
            own = " and ".join(f"model.{name}" for name in backend.keys)
            told = f"the backend {model.backend!r} has none; its settings are {own}"
        refuse(f"model.{key}", told)


def _dislocation(spec: Spec, refuse: Refuse) -> None:
    """What the catalogue does not have, and places where no core can be."""
    material, dislocation = spec.material, spec.dislocation
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
            if getattr(dislocation, key) != type(dislocation).model_fields[key].default:
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


def _sizes(spec: Spec, refuse: Refuse) -> None:
    """L <= L_D."""
    dislocation, loop = spec.dislocation, spec.dislocation.kind == "loop"
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


def _engine(spec: Spec, refuse: Refuse) -> None:
    """LAMMPS under MPI that cannot be started; keys that nobody reads without it."""
    settings = spec.simulation
    if settings.engine == "embedded":
        for key in ("ranks", "command"):
            if getattr(settings, key):
                refuse(f"simulation.{key}", 'has no effect without simulation.engine = "lammps-mpi": leave it out')
        return
    if settings.ranks is None:
        refuse("simulation.ranks", "is missing: on how many processes shall LAMMPS run?")
    if settings.command:
        try:
            words = shlex.split(settings.command)
        except ValueError as error:
            refuse("simulation.command", f"is no command line: {error}")
        else:
            if not words or not any(RANKS in word for word in words[1:]):
                refuse(
                    "simulation.command",
                    f"{settings.command!r}: {RANKS} must stand for the number of processes, as in {COMMAND!r}",
                )


def _model(spec: Spec, refuse: Refuse) -> None:
    """What the chosen family needs."""
    model = spec.model
    backend = backend_of(model.backend)
    if backend is None:
        return  # `_backend` says so
    if model.backend == "pyace":
        _bases(spec, refuse)
    elif found := backend.wrong(model):  # what a package's backend needs, it says itself when it is built
        refuse(*found)
    elif settings := settings_of(model, spec.material.species)[0]:
        _reach(spec, "model.arguments.cutoff", settings.cutoff, refuse)
        if (count := settings.functions(spec.material.species)) > MOST_FUNCTIONS:
            refuse("model.arguments", f"they make {count} functions, and {MOST_FUNCTIONS} are the most")
    if model.backend != "pyace" and spec.tune.channels:
        refuse("tune.channels", "only an ACE model has channels")


def _amplitudes(spec: Spec, refuse: Refuse) -> None:
    """Displacements at which atoms would meet, and names of amplitudes."""
    bond = _approximate_bond(spec.material)
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


def _weights(spec: Spec, refuse: Refuse) -> None:
    """A loss that determines no model, and ranges of a study that change nothing."""
    for name, solver_kind in SOLVERS_OF.items():
        if getattr(spec.tune, name) is not None and spec.solver.kind != solver_kind:
            refuse(f"tune.{name}", f"solver.kind is {spec.solver.kind!r}, and only {solver_kind!r} has {name}")
    if not any(spec.weight(name) > 0 for name in OBSERVABLES):
        refuse("weights", "no observable has a positive weight: there is nothing to fit")
    elif not any(spec.weight(name) > 0 for name in ("energy", "force")):
        refuse("observables", "neither energies nor forces are fitted: elastic constants alone determine no model")


def _arguments(table: str, name: str, arguments: dict[str, Any], refuse: Refuse) -> None:
    """Arguments that no function can be called with, or that no content key and no parameter of a run can hold."""
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


def _bases(spec: Spec, refuse: Refuse) -> None:
    """What no ACE basis can be, and training cells that are too small for it."""
    from suite.model.basis import MOST_RADIAL, beyond_pyace

    model = spec.model
    missing = [name for name in ("cutoff", "channels", "degrees") if not getattr(model, name)]
    for name in missing:
        refuse(f"model.{name}", "is missing: an ACE basis needs it")
    if model.cutoff is not None:
        _reach(spec, "model.cutoff", model.cutoff, refuse)
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


def _reach(spec: Spec, key: str, cutoff: float, refuse: Refuse) -> None:
    """Training cells that are too small for a cutoff, and cutoffs within which no atom has a neighbour."""
    # the edge dipole that goes with a loop has a cell half as high as it is wide
    width = (1 if spec.dislocation.kind == "loop" else 2) * spec.training.size * _approximate_constant(spec.material)
    if width < 2 * cutoff:
        refuse(
            "training.size",
            f"the training cell is {width:.1f} Å wide, less than twice the cutoff ({2 * cutoff:g} Å): "
            "atoms would see their own images",
        )
    if cutoff < 0.75 * _approximate_bond(spec.material):
        refuse(key, f"{cutoff:g} Å is shorter than a bond: no atom would have a neighbour")


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
    return _approximate_bond(material) / LATTICES[material.lattice].nearest * 0.9
