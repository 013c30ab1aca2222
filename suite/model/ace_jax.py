"""The linear ACE basis by ace-jax (MIT licence), for those who may not use python-ace: rows and calculators.

The basis is named by a file of python-ace, or made from the same keys (`suite.model.ace_file`), so that both compute
the same functions. ace-jax
evaluates radial functions and spherical harmonics of edges, pools them to A, and multiplies them; derivatives of edges
are its forward-mode ones, those of products come by the product rule. All of it is in double precision, inside
`jax.enable_x64`: the precision of other work with JAX in the same process stays as it is. ace-jax is imported when a
family is built, not before.

What is compiled depends on shapes alone. So atoms are taken in blocks of a fixed number, and neighbours are filled up
to a multiple of `SLOTS`: configurations of a cell share what is compiled, and no bit depends on what came before.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, NamedTuple

import numpy as np
import scipy.sparse
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import atomic_numbers
from pydantic import Field, field_validator, model_validator

from suite.model import ace_file
from suite.model.lammps_family import ImpossibleFamily, Settings
from suite.model.verlet import Kept
from suite.records import Count, NotNegative, Positive
from suite.trainers.needed import needed
from suite.world.calculators import NotFinite

PACKAGE, MODULE, EXTRA = "ace-jax", "ace_jax", "jax"
BLOCK = 32  # atoms whose rows are computed together; their derivatives by edge should stay in the cache
SLOTS = 8  # neighbours are filled up to multiples of it
CHUNK = 128  # atoms whose energy a calculator differentiates together


class AceJaxSettings(Settings):
    """ACE by ace-jax. `basis` is a file of python-ace, `potential.yaml` as the backend pyace leaves it, or a `.yace` of
    products of at most three neighbours: its functions are the basis, its coefficients are ignored, and no other key is
    needed. Without a file, `cutoff`, `channels`, `degrees`, `total_degree` and `angular_weight` mean what they mean in
    `[model]`, for products of at most three neighbours."""

    basis: str = ""
    cutoff: Positive
    channels: tuple[Count, ...] = ()
    degrees: tuple[Annotated[int, Field(strict=True, ge=0)], ...] = ()
    total_degree: tuple[NotNegative, ...] = ()
    angular_weight: Positive = 1.0

    @model_validator(mode="before")
    @classmethod
    def _with_cutoff(cls, table: Any) -> Any:
        """The file's cutoff, so that a resolved spec says it too."""
        if isinstance(table, Mapping) and isinstance(table.get("basis"), str) and table["basis"]:
            try:
                return {"cutoff": ace_file.read(Path(table["basis"])).cutoff, **table}
            except ace_file.BadBasisFile:  # told with the key `basis`; that the cutoff is missing would tell nothing
                return {"cutoff": 1.0, **table}
        return table

    @field_validator("basis")
    @classmethod
    def _readable(cls, value: str) -> str:
        if value:
            ace_file.read(Path(value))  # BadBasisFile is a ValueError, so that its sentence is told with the key
        return value

    def file(self, species: Sequence[str]) -> ace_file.BasisFile:
        """The functions; raises `BadBasisFile`."""
        if self.basis:
            return ace_file.read(Path(self.basis))
        return _of_keys(
            tuple(species), self.cutoff, self.channels, self.degrees, self.total_degree, self.angular_weight
        )

    def conflicts(self, species: Sequence[str]) -> Iterator[tuple[str, str]]:
        """See `Settings`."""
        try:
            elements = self.file(species).elements
        except ace_file.BadBasisFile as error:
            yield "basis" if self.basis else "channels", str(error)
            return
        if set(elements) != set(species):
            yield "basis", f"{self.basis} is a basis of {', '.join(elements)}, and the material is {', '.join(species)}"
        if self.basis:
            if abs(self.cutoff - self.file(species).cutoff) > 1e-9:
                yield "cutoff", f"the file {self.basis} has {self.file(species).cutoff:g} Å: remove the key"
            for key in ("channels", "degrees", "total_degree"):
                if getattr(self, key):
                    yield key, f"the file {self.basis} says which functions there are: remove the key"

    def functions(self, species: Sequence[str]) -> int:
        """See `Settings`."""
        try:
            return len(self.file(species).functions)
        except ace_file.BadBasisFile:  # told by `conflicts`
            return 0


_of_keys = lru_cache(maxsize=8)(ace_file.of_keys)


@dataclass(frozen=True)
class AceJaxSpec:
    """What a process needs to build the family again."""

    species: tuple[str, ...]
    settings: AceJaxSettings

    def build(self) -> AceJax:
        """The family; raises `ImpossibleFamily`, and `MissingPackage` without ace-jax."""
        return AceJax(self.species, self.settings)


class Table(NamedTuple):
    """Neighbours of every atom: places (n, k), vector to it (n, k, 3) in Å, and which of the entries are any (n, k)."""

    places: np.ndarray
    vectors: np.ndarray
    real: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """Pairs of neighbours i, j, sorted by i, and which periodic image of j it is: `shift` (pairs, 3), whole numbers
    of the vectors of the cell."""

    i: np.ndarray
    j: np.ndarray
    shift: np.ndarray

    @classmethod
    def within(cls, distance: float, atoms: Atoms) -> Pairs:
        """In a cell that is periodic in all directions; the time is linear in the number of pairs."""
        import vesin

        listed = vesin.NeighborList(cutoff=distance, full_list=True)
        i, j, shift = listed.compute(points=atoms.positions, box=atoms.cell.array, periodic=True, quantities="ijS")
        order = np.argsort(i, kind="stable")
        return cls(i[order].astype(np.int64), j[order].astype(np.int64), shift[order])

    def table(self, atoms: Atoms, cutoff: float) -> Table:
        """The neighbours within `cutoff` Å, their number filled up to a multiple of `SLOTS`."""
        positions = atoms.positions
        vectors = positions[self.j] + self.shift @ atoms.cell.array - positions[self.i]
        near = np.flatnonzero(np.einsum("ea,ea->e", vectors, vectors) < cutoff**2)
        i = self.i[near]
        counts = np.bincount(i, minlength=len(positions))
        shape = (len(positions), max(-(-int(counts.max()) // SLOTS), 1) * SLOTS)
        slot = np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts)
        # vectors that are none are as long as the cutoff: nothing is singular there
        table = Table(np.zeros(shape, np.int32), np.full((*shape, 3), cutoff), np.zeros(shape, bool))
        table.places[i, slot], table.vectors[i, slot], table.real[i, slot] = self.j[near], vectors[near], True
        return table


def blocks_of(members: np.ndarray, most: int) -> Iterator[tuple[np.ndarray, int]]:
    """Indices in blocks of equal size, `most` or a smaller power of two, and how many of each count: the last block is
    filled up with one of its own."""
    size = min(most, 1 << max(len(members) - 1, 0).bit_length())
    for start in range(0, len(members), size):
        block = members[start : start + size]
        yield np.concatenate([block, np.full(size - len(block), block[0])]), len(block)


class Products(NamedTuple):
    """The functions of one element as sums of products of A, with numbers of neighbours that differ taken apart.

    `pairs`: entry of A, element of the neighbour and factor of every pair function. `specs`: entries of A that are
    multiplied, one array (products, k) by number k of neighbours. `sums`: (function, product, factor) of the other
    functions. `slopes`: (function and entry of A, derivative of a product, factor), where `used` are the entries of A
    of one species that occur.
    """

    pairs: tuple[np.ndarray, np.ndarray, np.ndarray]
    specs: tuple[np.ndarray, ...]
    sums: tuple[np.ndarray, np.ndarray, np.ndarray]
    slopes: tuple[np.ndarray, np.ndarray, np.ndarray]
    used: np.ndarray
    functions: int  # how many


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
        self.file = settings.file(species)
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
        table = Pairs.within(self.cutoff, atoms).table(atoms, self.cutoff)
        energies, first = np.zeros(len(self)), 0
        with _jax().enable_x64(True):
            for element, products in enumerate(self._products):
                columns = slice(first, first + products.functions)
                first += products.functions
                gathered = np.zeros((len(atoms), 3 * products.functions)) if forces is not None else None
                function = _compiled().values if gathered is None else _compiled().rows
                for rows, count in blocks_of(np.flatnonzero(types == element), BLOCK):
                    index, real = table.places[rows], table.real[rows]
                    real[count:] = False
                    edges = (table.vectors[rows], types[index], real)
                    values, slopes = function(self._model, products, np.int32(element), *edges)
                    energies[columns] += np.asarray(values)[:count].sum(axis=0)
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
            more = summed(product_basis_t(a, specs), sums, products.functions - len(factor))
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
        used, many = moved[..., products.used], products.functions - len(factor)
        width = model.nz * used.shape[-1]
        slopes = summed(jnp.concatenate(others), products.slopes, many * width)  # (functions and entries, atoms)
        if model.nz > 1:
            own = [jnp.where(kinds[:, :, None, None] == k, used, 0.0) for k in range(model.nz)]
            used = jnp.concatenate(own, axis=-1)
        products_ = jnp.einsum("akxw,fwa->akxf", used, slopes.reshape(many, width, atoms))
        return found, jnp.concatenate([pairs, products_], axis=-1)

    @eqx.filter_jit
    def energy(model: Any, own: Any, vectors: Any, kinds: Any, real: Any) -> tuple[Any, Any]:
        """Energy of a block of atoms, and its derivatives by every edge, (atoms, neighbours, 3)."""
        centres = jnp.broadcast_to(own[:, None], kinds.shape)
        index = jnp.zeros(kinds.shape, jnp.int32)  # forces are put together elsewhere
        found = model.energy_forces_virial_dense(vectors, centres, kinds, index, real, own, return_edge_grad=True)
        return found[:2]

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
        self._kept: Kept[Pairs] = Kept(family.cutoff, skin)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self._family.recipe, *self._arguments)

    def _pairs(self, atoms: Atoms) -> Pairs:
        """Pairs within the cutoff and the skin."""
        if (pairs := self._kept.at(atoms)) is not None:
            return pairs
        return self._kept.keep(atoms, Pairs.within(self._kept.reach, atoms))

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
        n, types = len(self.atoms), self._family.types(self.atoms)
        table = self._pairs(self.atoms).table(self.atoms, self._family.cutoff)
        energies, forces, virial = [], np.zeros((n, 3)), np.zeros((3, 3))
        with _jax().enable_x64(True):
            for rows, count in blocks_of(np.arange(n), CHUNK):
                index, real, vectors = table.places[rows], table.real[rows], table.vectors[rows]
                real[count:] = False
                constant = (len(rows) - count) * self._arguments[1]  # of the atoms that fill up the block
                energy, slopes = _compiled().energy(self._model, types[rows], vectors, types[index], real)
                energies.append(float(energy) - constant)
                slopes = np.asarray(slopes)
                forces[rows[:count]] += slopes[:count].sum(axis=1)
                ends, pulls, along = index[real], slopes[real], vectors[real]
                for axis in range(3):
                    forces[:, axis] -= np.bincount(ends, pulls[:, axis], minlength=n)
                virial += along.T @ pulls
        energy = sum(energies)
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise NotFinite("the model cannot be evaluated: atoms have met")
        stress = (virial + virial.T) / (2 * self.atoms.get_volume())
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": forces,
            "stress": stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
        }
