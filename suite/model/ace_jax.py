"""The linear ACE basis by ace-jax (MIT licence), for those who may not use python-ace: rows and calculators.

The basis is named by a file of python-ace (`suite.model.ace_file`), so that both compute the same functions. ace-jax
evaluates radial functions and spherical harmonics of edges, pools them to A, and multiplies them; derivatives of edges
are its forward-mode ones, those of products come by the product rule. All of it is in double precision, inside
`jax.enable_x64`: the precision of other work with JAX in the same process stays as it is. ace-jax is imported when a
family is built, not before.

What is compiled depends on shapes alone. So atoms are taken in blocks of a fixed number, and neighbours are filled up
to a multiple of `SLOTS`: configurations of a cell share what is compiled, and no bit depends on what came before.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import atomic_numbers
from pydantic import ValidationInfo, field_validator

from suite.model import ace_file
from suite.model.lammps_family import ImpossibleFamily, Settings
from suite.records import Positive
from suite.trainers.needed import needed
from suite.world.calculators import NotFinite

PACKAGE, MODULE, EXTRA = "ace-jax", "ace_jax", "jax"
BLOCK = 16  # atoms whose rows are computed together; their derivatives by edge should stay in the cache
SLOTS = 8  # neighbours are filled up to multiples of it
CHUNK = 2048  # atoms whose energy a calculator differentiates at once; memory grows with it


class AceJaxSettings(Settings):
    """ACE by ace-jax. `basis` is a file of python-ace, `potential.yaml` as the backend pyace leaves it, or a `.yace` of
    products of at most three neighbours: its functions are the basis, its coefficients are ignored. `cutoff` is that of
    the file, and need not be given."""

    basis: str
    cutoff: Positive | None = None  # type: ignore[assignment]

    @field_validator("basis")
    @classmethod
    def _named(cls, value: str) -> str:
        ace_file.read(Path(value))  # BadBasisFile is a ValueError, so that its sentence is told with the key
        return value

    @field_validator("cutoff", mode="after")
    @classmethod
    def _of_file(cls, value: float | None, info: ValidationInfo) -> float | None:
        if "basis" not in info.data:
            return value
        own = ace_file.read(Path(info.data["basis"])).cutoff
        if value is not None and abs(value - own) > 1e-9:
            raise ValueError(f"the basis in {info.data['basis']} has {own:g} Å: remove the key")
        return own

    def conflicts(self, species: Sequence[str]) -> Iterator[tuple[str, str]]:
        """See `Settings`."""
        elements = ace_file.read(Path(self.basis)).elements
        if set(elements) != set(species):
            yield "basis", f"{self.basis} is a basis of {', '.join(elements)}, and the material is {', '.join(species)}"

    def functions(self, species: Sequence[str]) -> int:
        """See `Settings`."""
        return len(ace_file.read(Path(self.basis)).functions)


@dataclass(frozen=True)
class AceJaxSpec:
    """What a process needs to build the family again."""

    species: tuple[str, ...]
    settings: AceJaxSettings

    def build(self) -> AceJax:
        """The family; raises `ImpossibleFamily`, and `MissingPackage` without ace-jax."""
        return AceJax(self.species, self.settings)


@dataclass(frozen=True)
class Neighbours:
    """Neighbours of every atom in a table: index (n, k), shift of its periodic image (n, k, 3) in Å, and which of the
    entries are any (n, k)."""

    index: np.ndarray
    shift: np.ndarray
    real: np.ndarray

    def vectors(self, positions: np.ndarray) -> np.ndarray:
        """From every atom to its neighbours, (n, k, 3) in Å."""
        return positions[self.index] + self.shift - positions[:, None]


def neighbours_of(atoms: Atoms, cutoff: float) -> Neighbours:
    """Neighbours within `cutoff` Å in a cell that is periodic in all directions, in time linear in their number."""
    import vesin

    n = len(atoms)
    listed = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=True)
    i, j, shift = listed.compute(points=atoms.positions, box=atoms.cell.array, periodic=True, quantities="ijS")
    order = np.argsort(i, kind="stable")
    i, j, shift = i[order].astype(np.int64), j[order].astype(np.int64), shift[order].astype(np.float64)
    counts = np.bincount(i, minlength=n)
    slots = max(-(-int(counts.max(initial=1)) // SLOTS), 1) * SLOTS
    slot = np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts)
    table = Neighbours(np.zeros((n, slots), np.int32), np.zeros((n, slots, 3)), np.zeros((n, slots), bool))
    table.index[i, slot], table.shift[i, slot], table.real[i, slot] = j, shift @ atoms.cell.array, True
    return table


class Products(NamedTuple):
    """The functions of one element as sums of products of A, with numbers of neighbours that differ taken apart.

    `pairs`: entry of A, element of the neighbour and factor of every pair function. `specs`: entries of A that are
    multiplied, one array (products, k) by number k of neighbours. `sums`: (function, product, factor) of the other
    functions. `slopes`: (function and entry of A, derivative of a product, factor), where `used` are the entries of A of
    one species that occur.
    """

    pairs: tuple[np.ndarray, np.ndarray, np.ndarray]
    specs: tuple[np.ndarray, ...]
    sums: tuple[np.ndarray, np.ndarray, np.ndarray]
    slopes: tuple[np.ndarray, np.ndarray, np.ndarray]
    used: np.ndarray
    count: int  # of all functions


class AceJax:
    """The linear family of the functions in a basis file; see `contract.LinearFamily`.

    Raises `ImpossibleFamily` for settings in conflict, `MissingPackage` where ace-jax is not installed.
    """

    def __init__(self, species: Sequence[str], settings: AceJaxSettings) -> None:
        conflicts = "; ".join(f"{key}: {sentence}" for key, sentence in settings.conflicts(species))
        if conflicts:
            raise ImpossibleFamily(conflicts)
        needed("", MODULE, PACKAGE, EXTRA, 'model.backend = "ace-jax"')
        self.recipe = AceJaxSpec(tuple(species), settings)
        self.file = ace_file.read(Path(settings.basis))
        self.species, self.cutoff = list(self.file.elements), self.file.cutoff
        self._model, self._terms = _loaded(self.file)

    def __len__(self) -> int:
        return len(self.file.functions)

    @cached_property
    def orders(self) -> np.ndarray:
        """Number of neighbours each function multiplies, (functions,)."""
        return np.array([function.rank for function in self.file.functions])

    def site_values(self, atoms: Atoms) -> np.ndarray:
        """Energies for unit coefficients, (functions,), eV."""
        return self._computed(atoms, None)

    def energy_and_force_rows(self, atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
        """`site_values`, and forces (3n, functions) for unit coefficients, eV/Å."""
        forces = np.zeros((len(atoms), 3, len(self)))
        return self._computed(atoms, forces), forces.reshape(3 * len(atoms), len(self))

    def calculator(self, coefficients: np.ndarray, energy_per_atom: float = 0.0, skin: float = 0.5) -> AceJaxCalculator:
        """Energy, forces, stress of the model; see `AceJaxCalculator`."""
        return AceJaxCalculator(self, coefficients, energy_per_atom, skin)

    def save(self, coefficients: np.ndarray, energy_per_atom: float, folder: Path) -> list[Path]:
        """Write `potential.yaml` (python-ace, and this family's `basis`) and `potential.yace` (ace-jax, LAMMPS)."""
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for name, text in ace_file.written(self.file, coefficients, energy_per_atom).items():
            files.append(folder / name)
            files[-1].write_text(text, encoding="ascii")
        return files

    # --- ace-jax ---

    def with_coefficients(self, coefficients: np.ndarray, energy_per_atom: float) -> Any:
        """ace-jax's model with these coefficients (functions,)."""
        if coefficients.shape != (len(self),):
            raise ImpossibleFamily(f"{len(self)} coefficients expected, got shape {coefficients.shape}")
        jax = _jax()
        with jax.enable_x64(True):
            unit = np.asarray(self._model.ctilde_complex)
            weighted = jax.numpy.asarray(unit * coefficients[self._terms][:, None])
            constant = jax.numpy.full(len(self.species), float(energy_per_atom), weighted.dtype)
            return replace(self._model, ctilde_complex=weighted, E0=constant)

    def types(self, atoms: Atoms) -> np.ndarray:
        """Index of every atom's element, (n,); raises `ImpossibleFamily` for elements that the basis does not know."""
        place = np.full(120, -1, np.int32)
        place[[atomic_numbers[symbol] for symbol in self.species]] = np.arange(len(self.species))
        types = place[atoms.numbers]
        if (types < 0).any():
            raise ImpossibleFamily(
                f"the basis knows {', '.join(self.species)}, not {atoms.symbols[int(np.argmin(types))]}"
            )
        return types

    @cached_property
    def _products(self) -> list[Products]:
        """By element, as arrays of JAX."""
        jax = _jax()
        with jax.enable_x64(True):
            return [
                jax.tree.map(
                    lambda x: x if isinstance(x, int) else jax.numpy.asarray(x),
                    _products(self.file, self._model, self._terms, element),
                )
                for element in range(len(self.species))
            ]

    def _computed(self, atoms: Atoms, forces: np.ndarray | None) -> np.ndarray:
        """Energies of the functions, and into `forces` (n, 3, functions), where given, their forces."""
        if not np.isfinite(atoms.positions).all():
            raise NotFinite("positions are not finite")
        types = self.types(atoms)
        listed = neighbours_of(atoms, self.cutoff)
        vectors = listed.vectors(atoms.positions)
        energies, first = np.zeros(len(self)), 0
        with _jax().enable_x64(True):
            compiled = _compiled()
            for element, products in enumerate(self._products):
                columns = slice(first, first + products.count)
                first += products.count
                own = np.flatnonzero(types == element)
                size = min(BLOCK, 1 << max(len(own) - 1, 0).bit_length())
                gathered = np.zeros((len(atoms), 3 * products.count)) if forces is not None else None
                for start in range(0, len(own), size):
                    block = own[start : start + size]
                    absent = size - len(block)
                    rows = np.concatenate([block, np.full(absent, block[0])])
                    real = listed.real[rows]
                    real[len(block) :] = False
                    index = listed.index[rows]
                    edges = (vectors[rows], types[index], real)
                    function = compiled.values if gathered is None else compiled.rows
                    values, slopes = function(self._model, products, np.int32(element), *edges)
                    energies[columns] += np.asarray(values)[: len(block)].sum(axis=0)
                    if gathered is not None:
                        _collect(gathered, np.asarray(slopes), rows, index, real)
                if forces is not None and gathered is not None:
                    forces[:, :, columns] = gathered.reshape(len(atoms), 3, -1)
        if not (np.isfinite(energies).all() and (forces is None or np.isfinite(forces).all())):
            raise NotFinite("the functions are not finite: atoms have met")
        return energies


def _collect(gathered: np.ndarray, slopes: np.ndarray, rows: np.ndarray, index: np.ndarray, real: np.ndarray) -> None:
    """Add what the edges of a block, with derivatives `slopes` (m, k, 3, f), pull at: the atom, and its neighbour."""
    m, k = index.shape
    edge = np.flatnonzero(real.ravel())
    ends = np.concatenate([np.repeat(rows, k)[edge], index.ravel()[edge]])
    signs = np.concatenate([np.ones(len(edge)), -np.ones(len(edge))])
    touched, place = np.unique(ends, return_inverse=True)
    pull = scipy.sparse.csr_matrix((signs, (place, np.tile(edge, 2))), shape=(len(touched), m * k))
    gathered[touched] += pull @ slopes.reshape(m * k, -1)


def _jax() -> Any:
    import jax

    return jax


def _loaded(file: ace_file.BasisFile) -> tuple[Any, np.ndarray]:
    """ace-jax's model with unit coefficients, and the function that each of its terms belongs to."""
    from ace_jax.eval.pace_model import load_yace

    with _jax().enable_x64(True), tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "basis.yace")
        path.write_text(ace_file.products(file, np.ones(len(file.functions)), 0.0, merged=False), encoding="ascii")
        model, _, spec = load_yace(path)
    terms = np.concatenate([np.full(count, k) for k, (_, _, _, count, _) in enumerate(spec.functions)])
    return model, terms


def _products(file: ace_file.BasisFile, model: Any, terms: np.ndarray, element: int) -> Products:
    """The functions of `element` by ace-jax's own expansion into products of real A."""
    rows, columns = np.asarray(model.T_rows), np.asarray(model.T_cols)
    factors = np.asarray(model.T_vals) * np.asarray(model.ctilde_complex)[columns, 0]
    kinds = len(file.elements)
    own = rows % kinds == element
    functions = [k for k, function in enumerate(file.functions) if function.centre == element]
    shape = (len(file.functions), model.n_aa)
    table = scipy.sparse.coo_matrix((factors[own], (terms[columns[own]], rows[own] // kinds)), shape=shape)
    table = table.tocsr()[functions].tocoo()  # duplicates are added up
    ranks = np.array([file.functions[k].rank for k in functions])
    pair_count, local = int((ranks == 1).sum()), model.n_a_local
    specs = [np.asarray(spec) for spec in model.aa_specs]
    starts = np.cumsum([0, *(len(spec) for spec in specs)])
    order = np.searchsorted(starts, table.col, side="right")  # number of neighbours
    single = order == 1
    pairs = np.zeros(pair_count, np.int64), np.zeros(pair_count, np.int64), np.zeros(pair_count)
    entries = specs[0][table.col[single], 0] if single.any() else np.zeros(0, np.int64)
    for where, values in zip(pairs, (entries % local, entries // local, table.data[single]), strict=True):
        where[table.row[single]] = values
    chosen, sums, slopes, products, derivatives = [], [], [], 0, 0
    for k in range(2, len(specs) + 1):
        at = np.flatnonzero(order == k)
        kept, place = np.unique(table.col[at] - starts[k - 1], return_inverse=True)
        spec = specs[k - 1][kept].reshape(-1, k)
        row, factor = table.row[at] - pair_count, table.data[at]
        sums.append((row, place + products, factor))
        for slot in range(k):
            slopes.append((row, spec[place, slot], place + derivatives + slot * len(kept), factor))
        chosen.append(spec.astype(np.int32))
        products, derivatives = products + len(kept), derivatives + k * len(kept)
    used = np.unique(np.concatenate([spec.ravel() % local for spec in chosen] or [np.zeros(0, np.int64)]))
    if not sums:
        empty = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        return Products(pairs, (), empty, empty, used, len(functions))
    row, column, factor = (np.concatenate(part) for part in zip(*sums, strict=True))
    sorted_ = np.argsort(row, kind="stable")
    both = row[sorted_], column[sorted_], factor[sorted_]
    row, entry, derivative, factor = (np.concatenate(part) for part in zip(*slopes, strict=True))
    place = np.searchsorted(used, entry % local) + len(used) * (entry // local)
    flat = row * (kinds * len(used)) + place
    sorted_ = np.argsort(flat, kind="stable")
    slope = flat[sorted_], derivative[sorted_], factor[sorted_]
    return Products(pairs, tuple(chosen), both, slope, used, len(functions))


@cache
def _compiled() -> SimpleNamespace:
    """What JAX compiles, once for each set of shapes: models and tables of products are arguments."""
    import equinox as eqx
    import jax
    from ace_jax.eval.edge_model import product_basis_t

    jnp = jax.numpy

    def of_edges(model: Any, element: Any, vectors: Any, kinds: Any, real: Any) -> Any:
        """What every edge adds to A, (edges, entries of A of one species)."""
        radial, harmonics = model.edge_basis_factors(vectors, jnp.full(kinds.shape, element), kinds, real)
        weights = model.pool_first_weights()[element]
        mixed = radial @ weights[0].T
        for k in range(1, model.nz):
            mixed = jnp.where((kinds == k)[:, None], radial @ weights[k].T, mixed)
        return mixed * harmonics[:, model.aspec_y]

    def pooled(model: Any, each: Any, kinds: Any) -> Any:
        """A (species and entries, atoms) from `each` (atoms, neighbours, entries)."""
        by_kind = [jnp.where((kinds == k)[..., None], each, 0.0).sum(axis=1) for k in range(model.nz)]
        return jnp.concatenate(by_kind, axis=1).T

    def summed(found: Any, table: tuple[Any, Any, Any], count: int) -> Any:
        """Rows (count, atoms) of sums of rows of `found`."""
        row, column, factor = table
        terms = found[column] * factor[:, None]
        return jax.ops.segment_sum(terms, row, num_segments=count, indices_are_sorted=True)

    def flat(vectors: Any, kinds: Any, real: Any) -> tuple[Any, Any, Any]:
        return vectors.reshape(-1, 3), kinds.reshape(-1), real.reshape(-1)

    def values_of(model: Any, products: Any, each: Any, kinds: Any) -> tuple[Any, Any]:
        """Values (atoms, functions), and A."""
        (entry, kind, factor), specs, sums = products.pairs, products.specs, products.sums
        a = pooled(model, each.reshape(*kinds.shape, -1), kinds)
        found = a[kind * model.n_a_local + entry] * factor[:, None]
        if specs:
            more = summed(product_basis_t(a, specs), sums, products.count - len(factor))
            found = jnp.concatenate([found, more])
        return found.T, a

    @eqx.filter_jit
    def values(model: Any, products: Any, element: Any, vectors: Any, kinds: Any, real: Any) -> tuple[Any, None]:
        return values_of(model, products, of_edges(model, element, *flat(vectors, kinds, real)), kinds)[0], None

    @eqx.filter_jit
    def rows(model: Any, products: Any, element: Any, vectors: Any, kinds: Any, real: Any) -> tuple[Any, Any]:
        """Values (atoms, functions), and their derivatives by every edge, (atoms, neighbours, 3, functions)."""
        edges = flat(vectors, kinds, real)
        each, push = jax.linearize(lambda r: of_edges(model, element, r, *edges[1:]), edges[0])
        axes = jnp.eye(3)[:, None] + jnp.zeros_like(edges[0])
        moved = jax.vmap(push)(axes)  # (3, edges, entries)
        found, a = values_of(model, products, each, kinds)
        atoms, slots = kinds.shape
        moved = moved.transpose(1, 0, 2).reshape(atoms, slots, 3, -1)
        entry, kind, factor = products.pairs
        pairs = moved[..., entry] * factor
        if model.nz > 1:
            pairs = jnp.where(kinds[:, :, None, None] == kind, pairs, 0.0)
        if not products.specs:
            return found, pairs
        # the product rule: for every factor of a product, the others
        others = [
            jnp.prod(a[jnp.delete(spec, slot, axis=1, assume_unique_indices=True).T], axis=0)
            for spec in products.specs
            for slot in range(spec.shape[1])
        ]
        used, many = moved[..., products.used], products.count - len(factor)
        width = model.nz * used.shape[-1]
        slopes = summed(jnp.concatenate(others), products.slopes, many * width)  # (functions and entries, atoms)
        if model.nz > 1:
            own = [jnp.where(kinds[:, :, None, None] == k, used, 0.0) for k in range(model.nz)]
            used = jnp.concatenate(own, axis=-1)
        products_ = jnp.einsum("akxw,fwa->akxf", used, slopes.reshape(many, width, atoms))
        return found, jnp.concatenate([pairs, products_], axis=-1)

    @eqx.filter_jit
    def energy(
        model: Any, positions: Any, index: Any, shift: Any, real: Any, types: Any, chunk: int
    ) -> tuple[Any, Any, Any]:
        """Energy, forces (n, 3), and -dE/d(strain) (3, 3)."""
        vectors = jnp.where(real[..., None], positions[index] + shift - positions[:, None], jnp.ones(3))
        own = jnp.broadcast_to(types[:, None], index.shape)
        return model.energy_forces_virial_dense(vectors, own, types[index], index, real, types, chunk)

    return SimpleNamespace(values=values, rows=rows, energy=energy)


def _rebuilt(recipe: AceJaxSpec, *arguments: Any) -> AceJaxCalculator:
    return recipe.build().calculator(*arguments)


class AceJaxCalculator(Calculator):
    """ASE calculator of a model of the `family`, by ace-jax; neighbours are kept with a Verlet `skin` (Å).

    Energies in eV (each atom carries `energy_per_atom`), forces in eV/Å, stress in eV/Å^3. Cells are periodic in all
    directions. Another process builds the family again from its recipe.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, family: AceJax, coefficients: np.ndarray, energy_per_atom: float, skin: float) -> None:
        super().__init__()
        self._family, self._arguments = family, (np.array(coefficients), energy_per_atom, skin)
        self._model = family.with_coefficients(*self._arguments[:2])
        self._listed: tuple[np.ndarray, np.ndarray, bytes, Neighbours, tuple[Any, ...]] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self._family.recipe, *self._arguments)

    def _edges(self, atoms: Atoms) -> tuple[Any, ...]:
        """Index, shift, which are real, and types: as long as no atom has moved by half the skin, those of before."""
        skin = self._arguments[2]
        if self._listed is not None:
            positions, cell, numbers, _, edges = self._listed
            same = numbers == atoms.numbers.tobytes() and np.array_equal(cell, atoms.cell.array)
            if same and ((atoms.positions - positions) ** 2).sum(axis=1).max() < (skin / 2) ** 2:
                return edges
        listed = neighbours_of(atoms, self._family.cutoff + skin)
        types = self._family.types(atoms)
        edges = tuple(_jax().numpy.asarray(x) for x in (listed.index, listed.shift, listed.real, types))
        self._listed = atoms.positions.copy(), atoms.cell.array.copy(), atoms.numbers.tobytes(), listed, edges
        return edges

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        if not np.isfinite(self.atoms.positions).all():
            raise NotFinite("positions are not finite")
        with _jax().enable_x64(True):
            found = _compiled().energy(self._model, self.atoms.positions, *self._edges(self.atoms), CHUNK)
            energy, forces, virial = (np.asarray(x) for x in found)
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise NotFinite("the model cannot be evaluated: atoms have met")
        stress = -virial / self.atoms.get_volume()
        self.results = {
            "energy": float(energy),
            "free_energy": float(energy),
            "forces": forces.copy(),
            "stress": stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
        }
