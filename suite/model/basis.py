"""The linear ACE basis: energies, forces and elastic responses of every function, and calculators from coefficients.

The only module that touches pyace (distribution `python-ace`). pyace is imported when a basis is built, not before.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import chemical_symbols

from store.faults import BadInput
from suite.execution import map_pieces
from suite.model.ace_file import COMPILED, PLAIN
from suite.model.verlet import Kept
from suite.world.calculators import NotFinite

PIECEWISE = 20_000  # atoms; larger three-dimensional cells are evaluated in pieces, by several processes
PIECE = 6_000  # atoms of a piece; its environment takes some kilobytes per atom
MOST_RADIAL = 215  # with more, pyace's recursion of the Bessel functions leaves the whole numbers of 32 bits: NaN
MOST_ANGULAR = (0, 10, 6, 4, 3, 2, 2, 1, 1, 1, 1, 1)  # by order: pyace knows no products beyond, and leaves them out
HARMONICS, CALL = 8, 10  # what a group of functions costs, in functions; what a function costs, in visits (measured)
SPLINE_BIN = 1e-3  # Å; elastic derivatives lose a per cent with bins of 1e-2


class ImpossibleBasis(BadInput, ValueError):
    """Parameters that do not describe a basis; pyace itself would end the process."""


@dataclass(frozen=True)
class Environment:
    """Atoms with their neighbours within a cutoff, as pyace wants them: periodic images are listed after the atoms."""

    handle: Any
    owners: np.ndarray
    shifts: np.ndarray


@dataclass(frozen=True)
class Part:
    """Some functions of a basis, as a basis of its own; pyace's objects keep only pointers to each other.

    `columns` (species, functions) are the places of its functions among those that an element has in the whole basis.
    """

    calculator: Any
    evaluator: Any
    basis: Any
    columns: np.ndarray


def beyond_pyace(degrees: Sequence[int]) -> str | None:
    """Why there are no functions with these angular `degrees` by order, or None."""
    if len(degrees) > len(MOST_ANGULAR):
        return f"products of {len(degrees)} neighbours, and {len(MOST_ANGULAR)} are the most"
    for order, (degree, most) in enumerate(zip(degrees, MOST_ANGULAR, strict=False), start=1):
        if degree > most:
            return f"degree {degree} for products of {order} neighbours, and {most} is the most"
    return None


@dataclass(frozen=True)
class BasisSpec:
    """What a process needs to build the basis again: pyace objects do not cross processes."""

    species: tuple[str, ...]
    cutoff: float
    channels: tuple[int, ...]
    degrees: tuple[int, ...]
    radial: str = "SBessel"
    total_degree: tuple[float, ...] = ()
    angular_weight: float = 1.0

    def build(self) -> AceBasis:
        return AceBasis(
            self.species,
            self.cutoff,
            self.channels,
            self.degrees,
            self.radial,
            self.total_degree,
            self.angular_weight,
        )


class AceBasis:
    """Linear ACE basis of `species` with `cutoff` Å.

    `channels[k]` radial functions (at most) and angular degree `degrees[k]` for products of k + 1 neighbours. Where
    `total_degree` is given, a product of k + 2 neighbours with radial numbers n and angular momenta l stays only if
    Σ(n - 1) + `angular_weight` Σl <= `total_degree[k]`; pair functions all stay. In a basis of several elements each
    element owns its functions, equally many. Raises `ImpossibleBasis`.
    """

    def __init__(
        self,
        species: Sequence[str],
        cutoff: float,
        channels: Sequence[int],
        degrees: Sequence[int],
        radial: str = "SBessel",
        total_degree: Sequence[float] = (),
        angular_weight: float = 1.0,
    ) -> None:
        if not cutoff > 0:
            raise ImpossibleBasis(f"the cutoff must be positive, not {cutoff} Å")
        if len(channels) != len(degrees) or not channels:
            raise ImpossibleBasis(f"channels {list(channels)} and degrees {list(degrees)} must be equally long")
        if min(channels) < 1 or min(degrees) < 0 or degrees[0] != 0:
            raise ImpossibleBasis(
                f"channels {list(channels)} must be positive; degrees {list(degrees)} not negative, the first 0"
            )
        if (found := beyond_pyace(degrees)) is not None:
            raise ImpossibleBasis(f"degrees {list(degrees)}: {found}")
        if list(channels[1:]) != sorted(channels[1:], reverse=True) or max(channels) > channels[0]:
            raise ImpossibleBasis(f"channels {list(channels)} must not increase with the order")
        if channels[0] > MOST_RADIAL:
            raise ImpossibleBasis(f"channels {list(channels)}: {MOST_RADIAL} radial functions are the most")
        if total_degree and (len(total_degree) != len(channels) - 1 or min(total_degree) < 0):
            raise ImpossibleBasis(
                f"total_degree {list(total_degree)} must have an entry, not negative, for each of the "
                f"{len(channels) - 1} orders of channels {list(channels)} after the first"
            )
        if not angular_weight > 0:
            raise ImpossibleBasis(f"angular_weight must be positive, not {angular_weight}")
        from pyace import create_multispecies_basis_config
        from pyace.basis import ACEBBasisSet

        self.species, self.cutoff = tuple(sorted(species)), float(cutoff)
        self.parameters = {
            "channels": list(channels),
            "degrees": list(degrees),
            "radial": radial,
            "total_degree": list(total_degree),
            "angular_weight": angular_weight,
        }
        self._configuration = create_multispecies_basis_config(
            {
                "deltaSplineBins": SPLINE_BIN,
                "elements": list(self.species),
                "embeddings": {"ALL": {"npot": "FinnisSinclair", "fs_parameters": [1, 1], "ndensity": 1}},
                "bonds": {
                    "ALL": {
                        "radbase": radial,
                        "radparameters": [float(cutoff)],
                        "rcut": float(cutoff),
                        "dcut": 0.01,
                        "NameOfCutoffFunction": "cos",
                    }
                },
                "functions": {"ALL": {"nradmax_by_orders": list(channels), "lmax_by_orders": list(degrees)}},
            }
        )
        if total_degree:
            _select(self._configuration, total_degree, angular_weight)
        self._basis = ACEBBasisSet(self._configuration)
        counts = [len(one) + len(more) for one, more in zip(self._basis.basis_rank1, self._basis.basis, strict=True)]
        if len(set(counts)) > 1:
            raise ImpossibleBasis(
                f"elements have different numbers of functions, {dict(zip(self.species, counts, strict=True))}: "
                "pyace's force rows are wrong then"
            )
        self.functions_per_species = counts[0]

    def __len__(self) -> int:
        return self.functions_per_species * len(self.species)

    @cached_property
    def orders(self) -> np.ndarray:
        """Number of neighbours each function multiplies, (functions,)."""
        orders = []
        for one, more in zip(self._basis.basis_rank1, self._basis.basis, strict=True):
            orders += [f.rank for f in one] + [f.rank for f in more]
        return np.array(orders)

    @cached_property
    def _whole(self) -> Part:
        """All functions together."""
        return _part(self._basis, np.tile(np.arange(self.functions_per_species), (len(self.species), 1)))

    @cached_property
    def _parts(self) -> list[Part]:
        """The functions by their largest angular momentum, for gradients.

        For the gradient of every function pyace visits all radial numbers and angular momenta that its basis has,
        though only few of them occur in that function. In a small basis there are fewer to visit; the numbers are the
        same to the last bit.
        """
        from pyace.basis import ACEBBasisSet

        groups = _cheapest_groups(self._basis.basis)
        if len(groups) == 1:
            return [self._whole]
        place = [{_name(f): k for k, f in enumerate(functions)} for functions in _functions(self._basis)]
        parts = []
        for momenta in groups:
            some = ACEBBasisSet(_restricted(self._configuration, momenta))
            columns = [[place[s][_name(f)] for f in functions] for s, functions in enumerate(_functions(some))]
            parts.append(_part(some, np.array(columns)))
        for s in range(len(self.species)):
            found = np.sort(np.concatenate([part.columns[s] for part in parts]))
            if not np.array_equal(found, np.arange(self.functions_per_species)):
                raise ImpossibleBasis(f"pyace does not list the functions of {self.species[s]} once each: {found}")
        return parts

    def _types(self, numbers: np.ndarray) -> np.ndarray:
        place = {symbol: index for index, symbol in enumerate(self._basis.elements_name)}
        try:
            return np.array([place[chemical_symbols[z]] for z in numbers])
        except KeyError as error:
            raise ImpossibleBasis(f"the basis knows {self.species}, not {error}") from error

    def site_values(self, atoms: Atoms) -> np.ndarray:
        """Sum over atoms of every basis function, (functions,): their energies for unit coefficients, eV."""
        types = self._types(atoms.numbers)
        self._whole.calculator.compute(
            build_environment(atoms, self.cutoff, types).handle, compute_projections=True, compute_b_grad=False
        )
        return self._summed(self._whole, types).ravel()

    def energy_and_force_rows(self, atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
        """Energies (functions,) and forces (3n, functions) of the basis functions for unit coefficients."""
        types = self._types(atoms.numbers)
        environment = build_environment(atoms, self.cutoff, types)
        energies = np.empty((len(self.species), self.functions_per_species))
        forces = np.empty((len(atoms), 3, len(self)))
        for part in self._parts:
            part.calculator.compute(environment.handle, compute_projections=True, compute_b_grad=True)
            np.put_along_axis(energies, part.columns, self._summed(part, types), axis=1)
            with _uncollected():
                listed = part.calculator.forces_bfuncs  # [atom][function][axis]
                flat = chain.from_iterable(chain.from_iterable(listed))
                found = np.fromiter(flat, float, len(atoms) * part.columns.size * 3)
            flat_columns = part.columns + self.functions_per_species * np.arange(len(self.species))[:, None]
            forces[:, :, flat_columns.ravel()] = found.reshape(len(atoms), -1, 3).transpose(0, 2, 1)
        return energies.ravel(), forces.reshape(3 * len(atoms), len(self))

    def _summed(self, part: Part, types: np.ndarray) -> np.ndarray:
        """Sum over the atoms of each species of the functions of a `part` that has been computed, (species, k)."""
        projections = np.array(part.calculator.projections)[: len(types)]
        energies = np.zeros(part.columns.shape)
        np.add.at(energies, types, projections)
        return energies

    def calculator(self, coefficients: np.ndarray, energy_per_atom: float = 0.0, skin: float = 0.5) -> AceCalculator:
        """Fast ASE calculator of the model with these `coefficients`; see `AceCalculator`."""
        return AceCalculator(self, coefficients, energy_per_atom, skin)

    def with_coefficients(self, coefficients: np.ndarray) -> Any:
        """A pyace basis set of its own with these coefficients."""
        from pyace.basis import ACEBBasisSet

        if coefficients.shape != (len(self),):
            raise ImpossibleBasis(f"{len(self)} coefficients expected, got an array of shape {coefficients.shape}")
        fitted = ACEBBasisSet(self._configuration)
        fitted.basis_coeffs = coefficients.tolist()
        return fitted

    def save(self, coefficients: np.ndarray, energy_per_atom: float, folder: Path) -> list[Path]:
        """Write `potential.yaml` (pyace) and `potential.yace` (LAMMPS ML-PACE) into `folder`.

        Energies of an isolated atom exist in the second format only: the first reads without `energy_per_atom`.
        """
        fitted = self.with_coefficients(coefficients)
        folder.mkdir(parents=True, exist_ok=True)
        plain, compiled = folder / PLAIN, folder / COMPILED
        fitted.save(str(plain))
        plain.write_text(f"# add {energy_per_atom!r} eV per atom\n" + plain.read_text())
        fitted.to_ACECTildeBasisSet().save_yaml(str(compiled))
        zeros = ", ".join("0" for _ in self.species)
        text = compiled.read_text()
        if f"E0: [{zeros}]" not in text:
            raise ImpossibleBasis(f"pyace wrote {compiled} without the line 'E0: [{zeros}]' that this version has")
        energies = ", ".join(repr(float(energy_per_atom)) for _ in self.species)
        compiled.write_text(text.replace(f"E0: [{zeros}]", f"E0: [{energies}]", 1))
        return [plain, compiled]


@contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection in the `with` block: it would search millions of new lists of numbers again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _part(basis: Any, columns: np.ndarray) -> Part:
    from pyace.calculator import ACECalculator
    from pyace.evaluator import ACEBEvaluator

    evaluator = ACEBEvaluator(basis)
    return Part(ACECalculator(evaluator), evaluator, basis, columns)


def _functions(basis: Any) -> list[list[Any]]:
    """The functions of every element in the order of pyace's projections."""
    return [[*one, *more] for one, more in zip(basis.basis_rank1, basis.basis, strict=True)]


def _name(function: Any) -> tuple[tuple[int, ...], ...]:
    """What tells one function of an element from the others."""
    return tuple(function.mus), tuple(function.ns), tuple(function.ls), tuple(function.LS)


def _cheapest_groups(products: Sequence[Sequence[Any]]) -> list[range]:
    """Ranges of angular momenta that make gradients cheapest, for the `products` of every element.

    A function of a group costs a visit to every radial number and angular momentum of the group, and every group costs
    the radial functions and spherical harmonics again. Pair functions are in the first group.
    """
    largest = [max(f.ls) for functions in products for f in functions]
    radial = [max(f.ns) for functions in products for f in functions]
    top = max(largest, default=0)
    count = np.bincount(largest, minlength=top + 1)
    widest = np.zeros(top + 1, dtype=int)
    np.maximum.at(widest, largest, radial)

    def cost(first: int, end: int) -> float:
        visits = int(widest[first:end].max()) * end * (end + 1) // 2
        return float((count[first:end].sum() + HARMONICS) * (visits + CALL))

    best: list[tuple[float, list[range]]] = [(0.0, [])]
    for end in range(1, top + 2):
        ways = [(best[first][0] + cost(first, end), first) for first in range(end)]
        value, first = min(ways)
        best.append((value, [*best[first][1], range(first, end)]))
    return best[-1][1]


def _restricted(configuration: Any, momenta: range) -> Any:
    """A pyace configuration of the products whose largest angular momentum is in `momenta`; pair functions count as 0.

    Radial functions are those of the whole configuration, as far as they are needed.
    """
    from pyace.basis import BBasisConfiguration

    blocks = [block.copy() for block in configuration.funcspecs_blocks]
    for block in blocks:
        block.funcspecs = [function for function in block.funcspecs if max(function.ls) in momenta]
    kept = [function for block in blocks for function in block.funcspecs]
    base = max(max(function.ns) for function in kept)
    radial = max((max(function.ns) for function in kept if len(function.ns) > 1), default=0)
    for block in blocks:
        radial_coefficients = np.array(block.radcoefficients)[:radial, : momenta.stop, :base]
        block.radcoefficients = radial_coefficients.tolist()
        block.nradbaseij, block.nradmaxi, block.lmaxi = base, radial, momenta.stop - 1
    some = BBasisConfiguration()
    some.deltaSplineBins, some.funcspecs_blocks = configuration.deltaSplineBins, blocks
    return some


def build_environment(atoms: Atoms, cutoff: float, types: np.ndarray) -> Environment:
    """Neighbours of every atom within `cutoff`, in time linear in the number of atoms."""
    import vesin
    from pyace.catomicenvironment import ACEAtomicEnvironment

    n = len(atoms)
    neighbours = vesin.NeighborList(cutoff=cutoff, full_list=True)
    i, j, shift = neighbours.compute(points=atoms.positions, box=atoms.cell.array, periodic=True, quantities="ijS")
    order = np.argsort(i, kind="stable")
    i, j, shift = i[order].astype(np.int64), j[order].astype(np.int64), shift[order].astype(np.int64)
    outside = (shift != 0).any(axis=1)
    span = 2 * int(np.abs(shift).max(initial=0)) + 1
    code = ((shift[:, 0] * span + shift[:, 1]) * span + shift[:, 2]) * n + j
    _, first, ghost = np.unique(code[outside], return_index=True, return_inverse=True)
    index = j.copy()
    index[outside] = n + ghost
    owners = np.concatenate([np.arange(n), j[outside][first]])
    shifts = np.vstack([np.zeros((n, 3), dtype=np.int64), shift[outside][first]])
    handle = ACEAtomicEnvironment()
    handle.x = atoms.positions[owners] + shifts @ atoms.cell.array
    handle.species_type = types[owners].tolist()
    starts = np.concatenate([[0], np.cumsum(np.bincount(i, minlength=n))])
    flat = index.tolist()
    handle.neighbour_list = [flat[a:b] for a, b in pairwise(starts)]
    handle.origins = owners.tolist()
    return Environment(handle, owners, shifts)


def _select(configuration: Any, total_degree: Sequence[float], angular_weight: float) -> None:
    """Keep the pair functions and the products of low total degree in every block of a pyace configuration."""

    def stays(function: Any) -> bool:
        n, momenta = function.ns, function.ls
        if len(n) == 1:
            return True
        degree = sum(n) - len(n) + angular_weight * sum(momenta)
        return bool(degree <= total_degree[len(n) - 2] + 1e-9)  # weights such as 0.1 are not exact

    blocks = configuration.funcspecs_blocks  # a copy: it has to be put back
    for block in blocks:
        block.funcspecs = [function for function in block.funcspecs if stays(function)]
    configuration.funcspecs_blocks = blocks


def cut_into_pieces(
    positions: np.ndarray, cell: np.ndarray, cutoff: float, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Cut a periodic cell into blocks of about `size` atoms, each with the atoms around it.

    Yields, for each block, the indices (m,) of its atoms and of all atoms within `cutoff` of them, periodic images
    included, their positions (m, 3), and how many of them (the first ones) are the block's own. The cell must be at
    least 3 `cutoff` wide in every direction.
    """
    fractional = np.linalg.solve(cell.T, positions.T).T
    images = np.floor(fractional)
    fractional -= images
    widths = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    bins = np.floor(widths / cutoff).astype(int)
    place = np.minimum((fractional * bins).astype(int), bins - 1)
    number = np.ravel_multi_index(tuple(place.T), tuple(bins))
    order = np.argsort(number, kind="stable")
    starts = np.searchsorted(number[order], np.arange(int(np.prod(bins)) + 1))
    side = (size * abs(np.linalg.det(cell)) / len(positions)) ** (1 / 3)
    parts = [np.array_split(np.arange(b), max(1, round(w / side))) for b, w in zip(bins, widths, strict=True)]
    for block in product(*parts):
        own = [np.arange(part[0] - 1, part[-1] + 2) for part in block]
        grid = np.stack(np.meshgrid(*own, indexing="ij"), axis=-1).reshape(-1, 3)
        lowest, highest = (np.array([part[end] for part in block]) for end in (0, -1))
        inner = ((grid >= lowest) & (grid <= highest)).all(axis=1)
        grid = np.concatenate([grid[inner], grid[~inner]])
        shift = grid // bins
        flat = np.ravel_multi_index(tuple((grid - shift * bins).T), tuple(bins))
        counts = starts[flat + 1] - starts[flat]
        first = np.cumsum(counts) - counts
        index = order[np.arange(counts.sum()) - np.repeat(first - starts[flat], counts)]
        around = positions[index] + (np.repeat(shift, counts, axis=0) - images[index]) @ cell
        yield index, around, int(counts[: inner.sum()].sum())


_engines: dict[str, AceCalculator] = {}  # of a worker: the last model that it evaluated


def _evaluate_piece(
    name: str, recipe: tuple[Any, ...], coefficients: np.ndarray, positions: np.ndarray, types: np.ndarray, own: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energies (own,), forces (m, 3) on all atoms of a piece, virial (6,) in pyace's order."""
    if name not in _engines:
        _engines.clear()
        _engines[name] = AceCalculator(AceBasis(*recipe), coefficients, 0.0, 0.0)
    return _engines[name].evaluate_open(positions, types, own)


class AceCalculator(Calculator):
    """ASE calculator of a fitted linear ACE model: recursive C-tilde evaluator, neighbour list kept with a Verlet skin.

    Energies in eV (each atom carries `energy_per_atom`), forces in eV/Å, stress in eV/Å^3. The neighbour list is
    rebuilt when an atom has moved by more than half the `skin` (Å) or the cell has changed. Cells of more than
    `PIECEWISE` atoms that are wide in every direction are evaluated in pieces, by several processes: memory stays
    bounded.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]  # noqa: RUF012

    def __init__(self, basis: AceBasis, coefficients: np.ndarray, energy_per_atom: float, skin: float) -> None:
        super().__init__()
        from pyace.calculator import ACECalculator
        from pyace.evaluator import ACERecursiveEvaluator

        self._basis, self._energy_per_atom = basis, energy_per_atom
        self._coefficients = coefficients
        # each of these keeps only a pointer to the one before it
        self._compiled = basis.with_coefficients(coefficients).to_ACECTildeBasisSet()
        self._evaluator = ACERecursiveEvaluator(self._compiled)
        self._evaluator.set_recursive(True)
        self._engine = ACECalculator(self._evaluator)
        self._kept: Kept[Environment] = Kept(basis.cutoff, skin)

    def _environment(self, atoms: Atoms) -> Environment:
        if (environment := self._kept.at(atoms)) is not None:
            environment.handle.x = atoms.positions[environment.owners] + environment.shifts @ atoms.cell.array
            return environment
        types = self._basis._types(atoms.numbers)
        return self._kept.keep(atoms, build_environment(atoms, self._kept.reach, types))

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        n = len(self.atoms)
        if not np.isfinite(self.atoms.positions).all():
            raise NotFinite("positions are not finite")
        widths = 1 / np.linalg.norm(np.linalg.inv(self.atoms.cell.array), axis=0)
        if n >= PIECEWISE and widths.min() >= 3 * self._basis.cutoff:
            self._calculate_in_pieces(self.atoms)
            return
        environment = self._environment(self.atoms)
        try:
            self._engine.compute(environment.handle, compute_projections=False)
        except (ValueError, RuntimeError) as error:  # "Encountered very small distance"
            raise NotFinite(f"the model cannot be evaluated: {error}") from error
        energies = np.array(self._engine.energies)[:n] + self._energy_per_atom
        virial = np.array(self._engine.virial)[[0, 1, 2, 5, 4, 3]]  # pyace: xx yy zz xy xz yz
        energy = float(energies.sum())
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": energies,
            "forces": np.array(self._engine.forces)[:n],
            "stress": virial / self.atoms.get_volume(),
        }

    def evaluate_open(
        self, positions: np.ndarray, types: np.ndarray, own: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Energies (own,), forces (m, 3) and pyace's virial (6,) of the first `own` of `positions` (m, 3).

        Nothing is periodic. Raises `NotFinite` when atoms are too close.
        """
        import vesin
        from pyace.catomicenvironment import ACEAtomicEnvironment

        listed = vesin.NeighborList(cutoff=self._basis.cutoff, full_list=True)
        i, j = listed.compute(points=positions, box=np.zeros((3, 3)), periodic=False, quantities="ij")
        kept = i < own
        i, j = i[kept].astype(np.int64), j[kept].astype(np.int64)
        flat = j[np.argsort(i, kind="stable")].tolist()
        starts = np.concatenate([[0], np.cumsum(np.bincount(i, minlength=own))])
        handle = ACEAtomicEnvironment()
        handle.x = positions
        handle.species_type = types.tolist()
        # atoms of the surroundings count as real ones without neighbours: forces on images would be folded away
        handle.neighbour_list = [flat[a:b] for a, b in pairwise(starts)] + [[]] * (len(positions) - own)
        handle.origins = list(range(len(positions)))
        try:
            self._engine.compute(handle, compute_projections=False)
        except (ValueError, RuntimeError) as error:  # "Encountered very small distance"
            raise NotFinite(f"the model cannot be evaluated: {error}") from error
        forces = np.array(self._engine.forces)
        return np.array(self._engine.energies)[:own], forces, np.array(self._engine.virial)

    def _calculate_in_pieces(self, atoms: Atoms) -> None:
        types, cell = self._basis._types(atoms.numbers), atoms.cell.array
        basis = self._basis
        recipe = (basis.species, basis.cutoff, *basis.parameters.values())
        name = hashlib.sha256(repr(recipe).encode() + self._coefficients.tobytes()).hexdigest()
        pieces = list(cut_into_pieces(atoms.positions, cell, basis.cutoff, PIECE))
        jobs = [(name, recipe, self._coefficients, positions, types[index], own) for index, positions, own in pieces]
        energies, forces, virial = np.zeros(len(atoms)), np.zeros((len(atoms), 3)), np.zeros(6)
        results = map_pieces(_evaluate_piece, jobs)
        for (index, _, own), (each, force, part) in zip(pieces, results, strict=True):
            energies[index[:own]] = each
            for axis in range(3):  # a halo may hold two images of an atom
                forces[:, axis] += np.bincount(index, force[:, axis], minlength=len(atoms))
            virial += part
        energies += self._energy_per_atom
        energy = float(energies.sum())
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": energies,
            "forces": forces,
            "stress": virial[[0, 1, 2, 5, 4, 3]] / atoms.get_volume(),
        }
