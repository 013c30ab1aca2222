"""Simulation and training cells: perfect crystal, predictor, and the bond stencil D.

Atoms are kept in lattice order (i1, i2, i3, site), so that operators of the perfect crystal are block circulant and
the fast Fourier transform inverts them exactly; see `Circulant`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import scipy.fft
from ase import Atoms
from ase.calculators.calculator import Calculator
from scipy.sparse import csr_array, diags_array
from scipy.spatial import Voronoi

from suite.world import dislocation as catalogue
from suite.world.crystal import Crystal, NoCrystal
from suite.world.dislocation import (
    CORE_CLEARANCE,
    Circuits,
    Dislocation,
    ImpossibleCell,
    Site,
    nearest_image,
    unit_sites,
)
from suite.world.elasticity import Stroh, periodic_displacement
from suite.world.partials import Partials, find_partials

RESPONSE = 1e-10  # of the largest: a smaller response of an atom to the displacement of another is rounding
BOND_CHUNK = 2**21  # bonds whose strain is held at once: a cell of millions of atoms has 14 per atom
Metric = Callable[[np.ndarray], np.ndarray]  # force (n, 3) -> displacement (n, 3)
Arrays = dict[str, tuple[tuple[str, ...], Any]]  # name -> dimensions and values, as `store.schema` names them


@dataclass(frozen=True)
class Cell(ABC):
    """A periodic cell of crystal with dislocations: what relaxations and norms need. Lengths in Å, axes of the frame.

    `reference` (n, 3) perfect positions x; `predictor` (n, 3) displacement of the elastic field; `vectors_perfect` and
    `vectors` (3, 3) rows, before and after the plastic strain; `repeats` (n1, n2, n3) of a unit of `unit_sites` sites;
    `cores` (m, 2) of straight lines or (m, 3) centres of loops, `burgers` (m, 3); `lattice_vectors` (3, 3) Bravais
    vectors of the crystal in the frame.
    """

    reference: np.ndarray
    predictor: np.ndarray
    vectors_perfect: np.ndarray
    vectors: np.ndarray
    numbers: np.ndarray
    sublattice: np.ndarray
    repeats: tuple[int, int, int]
    unit_sites: int
    cores: np.ndarray
    burgers: np.ndarray
    lattice_vectors: np.ndarray
    a0: float

    def __len__(self) -> int:
        return len(self.reference)

    def atoms(self, displacement: np.ndarray) -> Atoms:
        """ASE atoms at x + u in the strained cell, for a displacement u (n, 3)."""
        return Atoms(numbers=self.numbers, positions=self.reference + displacement, cell=self.vectors, pbc=True)

    @property
    @abstractmethod
    def bonds(self) -> np.ndarray:
        """Stencil D: ordered pairs (ℓ, m) of neighbours, (bonds, 2), each both ways."""

    @property
    @abstractmethod
    def core_distance(self) -> float:
        """L_D: the length over which the strain of a dislocation reaches, Å."""

    @property
    @abstractmethod
    def line_length(self) -> float:
        """How long one dislocation is, Å."""

    @property
    def straight_lines(self) -> int:
        """How many straight dislocations there are, each as far from the next as `core_distance` says."""
        return 0

    @abstractmethod
    def own_arrays(self, displacement: np.ndarray) -> Arrays:
        """What a run stores of a cell of this kind at the reference's equilibrium, `displacement` (n, 3)."""

    def own_model_arrays(self, displacement: np.ndarray) -> Arrays:
        """What a run stores of it at the model's equilibrium, `displacement` (n, 3)."""
        return {}

    @abstractmethod
    def judge(self, displacement: np.ndarray, allowed: float) -> tuple[str, np.ndarray]:
        """Are the dislocations still where they were put, to within `allowed` Å?

        "kept", "annihilated" or "moved", and how far each has moved, (m, 2), Å; NaN where one is missing.
        """

    def soft_fields(self, displacement: np.ndarray) -> list[np.ndarray]:
        """Guesses of the softest mode at a `displacement` (n, 3), each (n, 3); none where nothing is known of it."""
        return []

    @abstractmethod
    def metric(self, calculator: Calculator) -> Metric:
        """Inverse Hessian of the perfect crystal with `calculator`: the metric to relax this cell in."""

    def strain(self, displacement: np.ndarray) -> np.ndarray:
        """Dv: differences v(m) - v(ℓ) over all bonds, (bonds, 3); paper, A.1."""
        return displacement[self.bonds[:, 1]] - displacement[self.bonds[:, 0]]

    def strain_norm(self, displacement: np.ndarray) -> float:
        """‖Dv‖_ℓ2 over all atoms and their stencils, Å."""
        return float(np.linalg.norm(self.strain_per_atom(displacement)))

    def strain_per_atom(self, displacement: np.ndarray) -> np.ndarray:
        """|Dv(ℓ)| per atom, (n,), Å."""
        squares = np.zeros(len(self))
        for begin in range(0, len(self.bonds), BOND_CHUNK):
            here, there = self.bonds[begin : begin + BOND_CHUNK].T
            square = ((displacement[there] - displacement[here]) ** 2).sum(axis=1)
            squares += np.bincount(here, square, minlength=len(self))
        return np.sqrt(squares)

    @cached_property
    def laplacian(self) -> csr_array:
        """K = Σ DᵀD per Cartesian component, (n, n): vᵀKv = ‖Dv‖²."""
        i, j = self.bonds.T
        # bonds go both ways: each contributes 2 to the diagonal of ℓ and -2 to (ℓ, m)
        off = csr_array((np.full(len(i), -2.0), (i, j)), shape=(len(self), len(self)))
        return (off - diags_array(np.asarray(off.sum(axis=1)).ravel())).tocsr()


@dataclass(frozen=True)
class StraightCell(Cell):
    """A quasi-two-dimensional cell, one line period thick: straight dislocations along e3 at `cores` (m, 2).

    Atoms are all those of the perfect crystal, in lattice order. `fault` (3,) is the fault vector of cores that split,
    in the frame, Å, or None.
    """

    fault: np.ndarray | None = None

    def perfect_atoms(self) -> Atoms:
        """The perfect crystal in the cell before the tilt."""
        return Atoms(numbers=self.numbers, positions=self.reference, cell=self.vectors_perfect, pbc=True)

    @property
    def core_distance(self) -> float:
        """L_D: the smallest distance between two cores, periodic images included, Å."""
        size = np.diag(self.vectors_perfect)[:2]
        images = np.array(list(product((-1, 0, 1), repeat=2))) * size
        away = (self.cores[:, None, None] - self.cores[None, :, None] + images).reshape(-1, 2)
        lengths = np.linalg.norm(away, axis=1)
        return float(lengths[lengths > 1e-9].min())

    @property
    def line_length(self) -> float:
        """The period along the line, Å."""
        return float(self.vectors_perfect[2, 2])

    @property
    def straight_lines(self) -> int:
        return len(self.cores)

    def own_arrays(self, displacement: np.ndarray) -> Arrays:
        """As `Cell.own_arrays`: the stencil, and the cores where they were put and where they are."""
        found = catalogue.find_cores(self.circuits, displacement, 1.5 * self.a0)
        return {
            "bonds": (("bond", "end"), self.bonds.astype(np.int64)),
            "core_position": (("core", "plane"), self.cores),
            "core_found": (("core", "plane"), np.array([core.position for core in found]).reshape(-1, 2)),
        }

    @property
    def circuits(self) -> Circuits:
        """Elementary Burgers circuits of the first sublattice."""
        return self.sublattice_circuits[0]

    @cached_property
    def sublattice_circuits(self) -> tuple[Circuits, ...]:
        """Elementary Burgers circuits of every sublattice, whose sites form a Bravais lattice each."""
        size, tilt = np.diag(self.vectors_perfect)[:2], self.vectors[1] - self.vectors_perfect[1]
        found = []
        for sublattice in range(int(self.sublattice.max()) + 1):
            chosen = np.flatnonzero(self.sublattice == sublattice)
            circuits = catalogue.elementary_circuits(self.reference[chosen], size, self.lattice_vectors, tilt)
            found.append(replace(circuits, triangles=chosen[circuits.triangles]))
        return tuple(found)

    @property
    def bonds(self) -> np.ndarray:
        """Voronoi neighbours in the perfect crystal (paper, A.2)."""
        return self._stencil[0]

    @property
    def bond_square(self) -> float:
        """Σ|ρ|² over the stencil of an atom, averaged over atoms, Å^2."""
        return float((self._stencil[1] ** 2).sum()) / len(self)

    @cached_property
    def _stencil(self) -> tuple[np.ndarray, np.ndarray]:
        return _voronoi_bonds(self)

    def judge(self, displacement: np.ndarray, allowed: float) -> tuple[str, np.ndarray]:
        """As `Cell.judge`, by the circuits of every sublattice: the worst verdict, and mean shifts where all agree.

        A dislocation that has split is where the middle between its partials is. It is kept when it lies on its glide
        plane and the place where it was put lies between them, or within `allowed` of the middle; when it should split
        and has not, or not on its glide plane, it has "moved".
        """
        verdict, shifts = self._judge_circuits(displacement)
        if verdict != "kept":
            return verdict, shifts
        reach = np.full(len(self.cores), allowed)
        partials = self.partials(displacement)
        if partials is not None:
            if np.isnan(partials.positions).any():
                return "moved", shifts
            shifts = nearest_image(partials.centre - self.cores, np.diag(self.vectors_perfect)[:2])
            shifts[:, 1] = 0.0  # the height of a core site is not that of the middle of its glide plane
            reach = np.maximum(allowed, partials.separation / 2)
        return ("moved" if (np.linalg.norm(shifts, axis=1) > reach).any() else "kept"), shifts

    def _judge_circuits(self, displacement: np.ndarray) -> tuple[str, np.ndarray]:
        size = np.diag(self.vectors_perfect)[:2]
        verdicts = []
        for circuits in self.sublattice_circuits:
            found = catalogue.find_cores(circuits, displacement, 1.5 * self.a0)
            verdicts.append(catalogue.match_cores(found, self.cores, self.burgers, size))
        worst = max(verdicts, key=lambda entry: ("kept", "moved", "annihilated").index(entry[0]))
        if worst[0] != "kept":
            return worst
        return "kept", np.mean([shifts for _, shifts in verdicts], axis=0)

    def partials(self, displacement: np.ndarray) -> Partials | None:
        """Shockley partials under a displacement (n, 3), or None for dislocations that do not split."""
        return None if self.fault is None else find_partials(self, displacement)

    def metric(self, calculator: Calculator) -> Metric:
        return crystal_metric(self, calculator).solve

    def laplacian_power(self, power: float) -> Circulant:
        """K^power as a circulant operator: with -½ the norm of a force becomes its dual norm, with ½ that of a
        displacement its strain norm."""
        columns = self.laplacian[:, : self.unit_sites].toarray()
        generator = columns.T.reshape(self.unit_sites, 1, *self.repeats, self.unit_sites, 1)
        return Circulant(generator, power)

    @cached_property
    def laplacian_circulant(self) -> Circulant:
        """K⁺, so that dual norms cost one Fourier transform."""
        return self.laplacian_power(-1.0)

    def solve_laplacian(self, field: np.ndarray) -> np.ndarray:
        """K⁺ applied to each Cartesian component of a field (n, 3)."""
        return np.column_stack(
            [self.laplacian_circulant.solve(field[:, k : k + 1] - field[:, k].mean()) for k in range(3)]
        )

    def dual_norm(self, force: np.ndarray) -> float:
        """‖f‖_{U*} = (fᵀ K⁺ f)^½ of a force field (n, 3), eV/Å: the exact norm of paper (3.10)."""
        return float(np.sqrt(max(0.0, (force * self.solve_laplacian(force)).sum())))


class Circulant:
    """A linear operator of the perfect crystal, inverted exactly by the fast Fourier transform.

    `generator` (sites, d, n1, n2, n3, sites, d): the response of every atom to a unit displacement of each site of the
    first unit in each of d directions. Translations, which the operator does not see, are left at zero mean. Another
    `power` than the inverse may be asked for.
    """

    def __init__(self, generator: np.ndarray, power: float = -1.0) -> None:
        self.sites, self.components = generator.shape[:2]
        self.repeats = generator.shape[2:5]
        spectrum = scipy.fft.rfftn(generator, axes=(2, 3, 4), workers=-1)
        size = self.sites * self.components
        blocks = np.moveaxis(spectrum.reshape(size, *spectrum.shape[2:5], size), 0, -1)
        blocks = (blocks + np.conj(np.swapaxes(blocks, -1, -2))) / 2
        zero = blocks[0, 0, 0].real.copy()
        blocks[0, 0, 0] = np.eye(size)
        if power == -1.0:
            self.lowest = float(np.linalg.eigvalsh(blocks).min())
            self.inverse = np.linalg.inv(blocks)
        else:
            self.inverse, self.lowest = _matrix_power(blocks, power)
        values, vectors = np.linalg.eigh(zero)  # optical modes of a multilattice; its acoustic ones are translations
        seen = values > 1e-6 * max(float(values[-1]), 1e-300)
        self.inverse[0, 0, 0] = (vectors[:, seen] * values[seen] ** power) @ vectors[:, seen].T

    def solve(self, force: np.ndarray) -> np.ndarray:
        """Displacement (n, d) with zero mean whose force under the operator is `force` (n, d)."""
        return self.solve_columns(force[..., None])[..., 0]

    def solve_columns(self, fields: np.ndarray) -> np.ndarray:
        """`solve` for each column of fields (n, d, m)."""
        shape = (*self.repeats, self.sites * self.components, fields.shape[-1])
        transformed = scipy.fft.rfftn(fields.reshape(shape), axes=(0, 1, 2), workers=-1)
        solved = self.inverse @ transformed
        return scipy.fft.irfftn(solved, s=self.repeats, axes=(0, 1, 2), workers=-1).reshape(fields.shape)


def _matrix_power(blocks: np.ndarray, power: float) -> tuple[np.ndarray, float]:
    """Power of hermitian positive matrices (..., k, k), and the lowest eigenvalue of them all."""
    values, vectors = np.linalg.eigh(blocks)
    scaled = vectors * np.maximum(values, 1e-300)[..., None, :] ** power
    return scaled @ np.conj(np.swapaxes(vectors, -1, -2)), float(values.min())


def crystal_metric(cell: StraightCell, calculator: Calculator, step: float = 1e-3) -> Circulant:
    """Hessian of the perfect crystal in this cell, as a circulant operator: the metric of every relaxation.

    Central differences of the forces for each site of one unit, in as small a cell as holds all that they act on.
    Raises `NoCrystal` when it is not positive: the perfect crystal is then unstable with this potential.
    """
    repeats = _enclosing(cell, calculator, step)
    atoms = cell.perfect_atoms() if repeats == cell.repeats else perfect_units(cell, repeats)
    return circulant_hessian(atoms, repeats, cell, calculator, step)


def circulant_hessian(
    atoms: Atoms, enclosing: tuple[int, int, int], cell: Cell, calculator: Calculator, step: float = 1e-3
) -> Circulant:
    """Hessian of the perfect crystal in the shape of `cell`, by the forces in `atoms`: its perfect crystal, as many
    units as `enclosing` says, which hold all that a displaced atom acts on.

    Raises `NoCrystal` when it is not positive.
    """
    atoms.calc = calculator
    found = np.array([[_response(atoms, s, axis, step) for axis in np.eye(3)] for s in range(cell.unit_sites)])
    found = found.reshape(cell.unit_sites, 3, *enclosing, cell.unit_sites, 3)
    generator = np.zeros((cell.unit_sites, 3, *cell.repeats, cell.unit_sites, 3))
    # the second half of the units of a small cell lies before the displaced one, not behind it
    places = [((np.arange(m) + m // 2) % m - m // 2) % n for m, n in zip(enclosing, cell.repeats, strict=True)]
    i, j, k = np.ix_(*places)
    generator[:, :, i, j, k] = found
    metric = Circulant(generator)
    if metric.lowest <= 0:
        raise NoCrystal(
            f"the perfect crystal is unstable with this potential: its Hessian has the eigenvalue "
            f"{metric.lowest:.2e} eV/Å^2; choose another reference, or another lattice for it"
        )
    return metric


def _response(atoms: Atoms, site: int, direction: np.ndarray, step: float) -> np.ndarray:
    """-∂f/∂u of all atoms for a displacement of one along `direction`, (n, 3), eV/Å^2."""
    home, forces = atoms.positions[site].copy(), []
    for sign in (1, -1):
        atoms.positions[site] = home + sign * step * direction
        forces.append(atoms.get_forces())
    atoms.positions[site] = home
    return (forces[1] - forces[0]) / (2 * step)


def _enclosing(cell: StraightCell, calculator: Calculator, step: float) -> tuple[int, int, int]:
    """Repeats of a perfect cell that holds the response to one displaced atom, or those of `cell`.

    Measured in the whole cell at an atom of each sublattice, along no symmetric direction; a unit more for the other
    atoms and directions.
    """
    atoms, size = cell.perfect_atoms(), np.diag(cell.vectors_perfect)
    atoms.calc = calculator
    reach = np.zeros(3)
    for site in np.unique(cell.sublattice[: cell.unit_sites], return_index=True)[1]:
        response = np.abs(_response(atoms, int(site), np.array([0.48, 0.6, 0.64]), step)).max(axis=1)
        away = cell.reference - cell.reference[site]
        away = np.abs(away - size * np.rint(away / size))
        reach = np.maximum(reach, away[response > RESPONSE * response.max()].max(axis=0))
    n1, n2, n3 = cell.repeats
    m1, m2 = (min(n, int(2 * r * n / s) + 2) for n, r, s in zip((n1, n2), reach[:2], size[:2], strict=True))
    return (m1, m2, n3) if 2 * m1 * m2 <= n1 * n2 else (n1, n2, n3)


def perfect_units(cell: Cell, repeats: tuple[int, int, int]) -> Atoms:
    """Another number of units of the perfect crystal in `cell`, whose first unit is whole."""
    period = np.diag(cell.vectors_perfect) / cell.repeats
    grid = np.array(list(product(*(range(n) for n in repeats)))) * period
    positions = (grid[:, None] + cell.reference[: cell.unit_sites]).reshape(-1, 3)
    numbers = np.tile(cell.numbers[: cell.unit_sites], len(grid))
    return Atoms(numbers=numbers, positions=positions, cell=np.diag(period * repeats), pbc=True)


def build_cell(
    crystal: Crystal,
    dislocation: Dislocation,
    solution: Stroh,
    arrangement: str,
    repeats: tuple[int, int, int],
    sites: tuple[Site, Site],
) -> StraightCell:
    """Cell of `repeats` units with the dislocations of `arrangement` at core `sites`; see `build_cell_at`."""
    positions, signs = catalogue.arrange(arrangement, repeats[:2], sites)
    return build_cell_at(crystal, dislocation, solution, repeats, positions, signs)


def build_cell_at(
    crystal: Crystal,
    dislocation: Dislocation,
    solution: Stroh,
    repeats: tuple[int, int, int],
    positions: np.ndarray,
    signs: np.ndarray,
) -> StraightCell:
    """Cell of `repeats` units with cores at `positions` (m, 2; in units), displaced by the elastic field.

    Raises `ImpossibleCell` when a core lies on an atomic column or two cores coincide.
    """
    unit, basis_index = unit_sites(crystal, dislocation)
    lengths = dislocation.lengths * crystal.a0
    grid = np.array(list(product(*(range(n) for n in repeats)))) * lengths
    reference = (grid[:, None] + unit[None]).reshape(-1, 3)
    size = lengths * repeats
    cores = positions * lengths[:2]
    burgers = signs[:, None] * dislocation.burgers_frame * crystal.a0
    if len(np.unique(np.round(cores / size[:2] % 1.0, 6) % 1.0, axis=0)) < len(cores):
        raise ImpossibleCell(f"two cores coincide in {repeats[0]} x {repeats[1]} repeats")
    for core in cores:
        away = reference[:, :2] - core
        nearest = float(np.linalg.norm(nearest_image(away, size[:2]), axis=1).min())
        if nearest < CORE_CLEARANCE * crystal.a0:
            raise ImpossibleCell(
                f"a core at {core.round(3)} Å lies {nearest:.3f} Å from an atomic column: atoms would coincide; "
                "choose another core site"
            )
    cuts = cores.copy()
    in_row = np.abs(reference[:, 1] - cores[:, 1:]).min(axis=1) < 1e-6 * crystal.a0
    cuts[in_row, 1] -= 1e-6 * crystal.a0  # the cut runs below the row, whatever the rounding of its atoms' heights
    displacement, tilt = periodic_displacement(
        solution, reference[:, :2], cuts, burgers, (float(size[0]), float(size[1]))
    )
    vectors = np.diag(size)
    tilted = vectors.copy()
    tilted[1] += tilt
    return StraightCell(
        reference=reference,
        predictor=displacement,
        vectors_perfect=vectors,
        vectors=tilted,
        numbers=np.tile(crystal.numbers[basis_index], len(grid)),
        sublattice=np.tile(basis_index, len(grid)),
        repeats=repeats,
        unit_sites=len(unit),
        cores=cores,
        burgers=burgers,
        lattice_vectors=crystal.vectors @ dislocation.frame.T,
        a0=crystal.a0,
        fault=None if dislocation.fault_frame is None else dislocation.fault_frame * crystal.a0,
    )


def _voronoi_bonds(cell: StraightCell) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours that share a vertex of a Voronoi cell (paper, A.2): pairs (bonds, 2) and vectors (bonds, 3), Å."""
    unit = cell.reference[: cell.unit_sites]
    period = np.diag(cell.vectors_perfect) / cell.repeats
    reach = 2.5 * cell.a0
    span = [range(-int(np.ceil(reach / p)) - 1, int(np.ceil(reach / p)) + 2) for p in period]
    shifts = np.array(list(product(*span)))
    cloud = (unit[None] + (shifts * period)[:, None]).reshape(-1, 3)
    owner = [(tuple(shift), site) for shift in shifts for site in range(cell.unit_sites)]
    near_unit = (np.abs(cloud[:, None] - unit[None]).max(axis=2) < reach).any(axis=1)
    chosen = np.flatnonzero(near_unit)
    points = cloud[chosen]
    diagram = Voronoi(points)
    pairs = []
    for site in range(cell.unit_sites):
        home = int(np.flatnonzero(np.linalg.norm(points - unit[site], axis=1) < 1e-9)[0])
        corners = diagram.vertices[[v for v in diagram.regions[diagram.point_region[home]] if v >= 0]]
        touching = set()
        for corner in corners:
            distance = np.linalg.norm(points - corner, axis=1)
            touching |= set(np.flatnonzero(distance < distance[home] + 1e-6 * cell.a0))
        pairs += [(site, *owner[chosen[m]]) for m in touching - {home}]
    index = np.arange(len(cell)).reshape(*cell.repeats, cell.unit_sites)
    bonds, vectors = [], []
    for site, shift, other in pairs:
        there = np.roll(index[..., other], [-s for s in shift], axis=(0, 1, 2))
        bonds.append(np.stack([index[..., site].ravel(), there.ravel()], axis=1))
        vector = unit[other] + np.array(shift) * period - unit[site]
        vectors.append(np.broadcast_to(vector, (len(bonds[-1]), 3)))
    return np.concatenate(bonds), np.concatenate(vectors)
