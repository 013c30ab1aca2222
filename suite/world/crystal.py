"""Perfect crystals: lattices, lattice constants, and the derivatives of the Cauchy-Born energy density.

W_cb(F) is the energy per volume of the *undeformed* crystal under the deformation gradient F, minimised over the
internal shifts of a multilattice (paper, A.6). Its second and third derivatives at F = I are linear and nonlinear
elasticity; their errors are eps_V1 and eps_V2 (paper, 3.12). Everything here works for any ASE calculator, and for
the functions of a basis, because it only needs values of W along straight lines of F.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, permutations, product
from typing import TYPE_CHECKING, Any

import numpy as np

from store.faults import FailedOutcome
from suite.execution import single_threaded

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

GPA = 160.21766208  # eV/Å^3 -> GPa
# Strain step. From 5e-4 to 2e-3 C moves by 1e-6 and C_ijk by 1e-5 for W_zhou04; the coarse table of NiAl_amb95 moves
# C123 by 4 %, and larger steps would cross the knots of W_eam4 next to its neighbour shells.
STEP = 1e-3


@dataclass(frozen=True)
class Lattice:
    """A cubic lattice: primitive vectors and basis in units of a0, and which species sits on each basis site."""

    vectors: tuple[tuple[float, float, float], ...]
    basis: tuple[tuple[float, float, float], ...]
    species: tuple[int, ...]

    @property
    def species_count(self) -> int:
        """How many species a crystal of this lattice has."""
        return max(self.species) + 1

    @property
    def centre(self) -> np.ndarray:
        """A centre of inversion of the crystal, (3,), a0: midway between two like sites of the basis, or on a site."""
        first, last = np.array(self.basis[0], dtype=float), np.array(self.basis[-1], dtype=float)
        return (first + last) / 2 if self.species[0] == self.species[-1] else first

    @property
    def nearest(self) -> float:
        """Distance of nearest neighbours, a0."""
        shifts = np.array(list(product((-1, 0, 1), repeat=3))) @ np.array(self.vectors)
        away = (shifts[:, None] + np.array(self.basis) - np.array(self.basis[0])).reshape(-1, 3)
        lengths = np.linalg.norm(away, axis=1)
        return float(lengths[lengths > 1e-9].min())


_BCC = ((-0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.5, 0.5, -0.5))
_FCC = ((0.0, 0.5, 0.5), (0.5, 0.0, 0.5), (0.5, 0.5, 0.0))
_SC = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
LATTICES: dict[str, Lattice] = {
    "bcc": Lattice(_BCC, ((0, 0, 0),), (0,)),
    "fcc": Lattice(_FCC, ((0, 0, 0),), (0,)),
    "diamond": Lattice(_FCC, ((0, 0, 0), (0.25, 0.25, 0.25)), (0, 0)),
    "B2": Lattice(_SC, ((0, 0, 0), (0.5, 0.5, 0.5)), (0, 1)),
}


@dataclass(frozen=True)
class Crystal:
    """A perfect crystal: lattice, chemical symbols in the order of the lattice's species, cubic constant a0 in Å."""

    lattice: Lattice
    species: tuple[str, ...]
    a0: float

    @property
    def vectors(self) -> np.ndarray:
        """Primitive vectors as rows, (3, 3), Å."""
        return self.a0 * np.array(self.lattice.vectors)

    @property
    def basis(self) -> np.ndarray:
        """Positions of the basis, (sites, 3), Å."""
        return self.a0 * np.array(self.lattice.basis, dtype=float)

    @property
    def numbers(self) -> np.ndarray:
        """Atomic numbers of the basis, (sites,)."""
        from ase.data import atomic_numbers

        return np.array([atomic_numbers[self.species[s]] for s in self.lattice.species])

    @property
    def volume(self) -> float:
        """Volume of the primitive cell, Å^3."""
        return float(abs(np.linalg.det(self.vectors)))

    def deformed(self, gradient: np.ndarray) -> Atoms:
        """Primitive cell under the deformation gradient F, (3, 3), without relaxing internal shifts."""
        from ase import Atoms

        return Atoms(numbers=self.numbers, positions=self.basis @ gradient.T, cell=self.vectors @ gradient.T, pbc=True)


class NoCrystal(FailedOutcome, RuntimeError):
    """The calculator has no crystal of the wanted lattice, or one that is not stable."""


def equilibrium_crystal(lattice: Lattice, species: tuple[str, ...], calculator: Calculator) -> Crystal:
    """The crystal at the lattice constant where the energy of `calculator` is least (relative precision 1e-9).

    Scans the cubic constant around the sum of covalent radii, then finds the zero of a fourth-order difference of
    the energy. Raises `NoCrystal` when the scan has no inner minimum.
    """

    from ase.data import covalent_radii
    from scipy.optimize import brentq

    def energy(a0: float) -> float:
        atoms = Crystal(lattice, species, a0).deformed(np.eye(3))
        atoms.calc = calculator
        try:
            return float(atoms.get_potential_energy())
        except (NotImplementedError, ValueError, KeyError, RuntimeError) as error:
            raise NoCrystal(f"the reference cannot be evaluated for {'-'.join(species)}: {error}") from error

    unit = Crystal(lattice, species, 1.0)
    shell = _nearest_distance(unit)
    radii = [covalent_radii[z] for z in unit.numbers]
    guess = (radii[0] + radii[-1]) / shell
    scan = guess * np.linspace(0.75, 1.35, 61)
    energies = np.array([energy(a) for a in scan])
    inner = [i for i in range(1, 60) if energies[i] < min(energies[i - 1], energies[i + 1])]
    if not inner:
        raise NoCrystal(
            f"no energy minimum of {'-'.join(species)} for a0 in [{scan[0]:.2f}, {scan[-1]:.2f}] Å: "
            "the reference potential does not describe this crystal"
        )
    best = min(inner, key=lambda i: energies[i])
    h = 1e-3 * scan[best]

    def slope(a0: float) -> float:
        return 8 * (energy(a0 + h) - energy(a0 - h)) - (energy(a0 + 2 * h) - energy(a0 - 2 * h))

    try:
        a0 = brentq(slope, scan[best - 1], scan[best + 1], xtol=1e-11, rtol=1e-10)
    except ValueError as error:  # no change of sign: the energy jumps there
        raise NoCrystal(
            f"the energy of {'-'.join(species)} is not smooth where it is least, near a0 = {scan[best]:.2f} Å: the "
            "reference potential does not describe this crystal"
        ) from error
    return Crystal(lattice, species, float(a0))


def energy_per_atom(crystal: Crystal, calculator: Calculator) -> float:
    """Energy per atom, eV, of `calculator` in the perfect crystal."""
    atoms = crystal.deformed(np.eye(3))
    atoms.calc = calculator
    return float(atoms.get_potential_energy()) / len(atoms)


def _nearest_distance(crystal: Crystal) -> float:
    shifts = np.array(list(product((-1, 0, 1), repeat=3))) @ crystal.vectors
    between = (crystal.basis[None, :, None] - crystal.basis[:, None, None] + shifts[None, None, :]).reshape(-1, 3)
    lengths = np.linalg.norm(between, axis=1)
    return float(lengths[lengths > 1e-9].min())


# --- derivatives of the Cauchy-Born energy density -------------------------------------------------------------


@dataclass(frozen=True)
class Response:
    """Derivatives of W_cb at F = I with respect to F: orders 1, 2, 3 of shapes (3,)*2, (3,)*4, (3,)*6, eV/Å^3.

    `coarse` are the same with a strain step of twice the size, where they were measured. Rounding and truncation both
    differ between the steps, so that the difference tells how far the derivatives can be trusted.
    """

    d1: np.ndarray
    d2: np.ndarray
    d3: np.ndarray
    coarse: Response | None = None

    def __sub__(self, other: Response) -> Response:
        coarse = None if self.coarse is None or other.coarse is None else self.coarse - other.coarse
        return Response(self.d1 - other.d1, self.d2 - other.d2, self.d3 - other.d3, coarse)

    @property
    def noise(self) -> tuple[float, float, float]:
        """Frobenius norms of the differences to `coarse`, eV/Å^3, by order. Raises `ValueError` when it is missing."""
        if self.coarse is None:
            raise ValueError("the response was measured with one strain step only")
        pairs = zip((self.d1, self.d2, self.d3), (self.coarse.d1, self.coarse.d2, self.coarse.d3), strict=True)
        first, second, third = (float(np.linalg.norm(fine - coarse)) for fine, coarse in pairs)
        return first, second, third


@cache
def _directions() -> np.ndarray:
    """165 directions in the nine-dimensional space of F that determine every cubic form: (165, 9)."""
    unit = np.eye(9)
    rows = [*unit]
    for i, j in combinations(range(9), 2):
        rows += [unit[i] + unit[j], unit[i] - unit[j]]
    rows += [unit[i] + unit[j] + unit[k] for i, j, k in combinations(range(9), 3)]
    return np.array(rows)


@cache
@single_threaded  # kept for all later runs of this process, whose numbers must not depend on who asked first
def _polarisation() -> tuple[np.ndarray, ...]:
    """Pseudo-inverses from directional derivatives to components, and the component index of each full tensor."""
    directions = _directions()
    inverses = []
    for order in (1, 2, 3):
        monomials = [m for m in product(range(9), repeat=order) if list(m) == sorted(m)]
        design = np.array([[len(set(permutations(m))) * np.prod(d[list(m)]) for m in monomials] for d in directions])
        place = {m: i for i, m in enumerate(monomials)}
        index = np.array([place[tuple(sorted(m))] for m in product(range(9), repeat=order)])
        inverses.append(np.linalg.pinv(design)[index])
    return tuple(inverses)


FINE = (-3, -2, -1, 1, 2, 3)  # multiples of the strain step along each direction: seven-point differences
COARSE = tuple(2 * multiple for multiple in FINE)


@dataclass(frozen=True)
class StrainPath:
    """Deformed primitive cells whose energies determine the derivatives of W_cb, the undeformed one first, then those
    at `multiples` of `step` along each of 165 directions of F."""

    cells: list[Atoms]
    step: float
    multiples: tuple[int, ...] = FINE

    def at(self, values: np.ndarray, multiples: tuple[int, ...]) -> np.ndarray:
        """Of `values` (cells, ...) along the path, those of the undeformed cell and at the given multiples."""
        lines = values[1:].reshape(-1, len(self.multiples), *values.shape[1:])
        chosen = lines[:, [self.multiples.index(multiple) for multiple in multiples]]
        return np.concatenate([values[:1], chosen.reshape(-1, *values.shape[1:])])

    @property
    def undeformed(self) -> Atoms:
        return self.cells[0]


def strain_path(
    crystal: Crystal, calculator: Calculator | None = None, step: float = STEP, coarse: bool = False
) -> StrainPath:
    """The 991 deformed primitive cells whose energies determine the derivatives of W_cb; 660 more with `coarse`, which
    determine them with twice the step too.

    With a `calculator`, the internal shifts of a multilattice are relaxed at every F, so that the path belongs to
    that potential; a model is then evaluated on the reference's path (right to first order in the model error).
    """
    cells = [crystal.deformed(np.eye(3))]
    multiples = tuple(sorted({*FINE, *COARSE})) if coarse else FINE
    for direction in _directions().reshape(-1, 3, 3):
        cells += [crystal.deformed(np.eye(3) + k * step * direction) for k in multiples]
    if calculator is not None and len(crystal.basis) > 1:
        relax_shifts(crystal, calculator, cells)
    return StrainPath(cells, step, multiples)


@contextmanager
def _unseen(atoms: Atoms, calculator: Calculator) -> Iterator[None]:
    """`atoms` with a `calculator` that does not compare them with those of its last call: they are others, and in
    primitive cells that would take a third of the time."""
    if hasattr(calculator, "reset"):
        calculator.reset()
    atoms.calc = calculator
    yield
    atoms.calc = None


def relax_shifts(crystal: Crystal, calculator: Calculator, path: list[Atoms], tolerance: float = 1e-9) -> None:
    """Relax the internal shifts of the cells of `path` in place, to forces of `tolerance` eV/Å.

    Newton with the internal Hessian of the undeformed crystal; only sites 1, 2, ... move, site 0 holds the crystal.
    Raises `NoCrystal` when the sublattices can be shifted without force, or do not come to rest.
    """
    sites = len(crystal.basis)
    h = 1e-3

    def forces(atoms: Atoms) -> np.ndarray:
        with _unseen(atoms, calculator):
            return atoms.get_forces()[1:].ravel()

    hessian = np.empty((3 * (sites - 1),) * 2)
    for column in range(len(hessian)):
        plus, minus = crystal.deformed(np.eye(3)), crystal.deformed(np.eye(3))
        plus.positions[1 + column // 3, column % 3] += h
        minus.positions[1 + column // 3, column % 3] -= h
        hessian[:, column] = (forces(minus) - forces(plus)) / (2 * h)
    if not np.linalg.cond(hessian) < 1e12:
        raise NoCrystal(
            f"the sublattices of {'-'.join(crystal.species)} can be shifted against each other without any force: the "
            "potential does not hold the crystal. A fit needs a cutoff beyond the nearest neighbours"
        )
    for atoms in path:
        largest = np.inf
        for _ in range(50):
            f = forces(atoms)
            before, largest = largest, float(np.abs(f).max())
            if largest < tolerance or 1e-6 > largest > before / 2:  # as good as the rounding of the forces
                break
            atoms.positions[1:] += np.linalg.solve(hessian, f).reshape(-1, 3)
        else:
            raise NoCrystal(
                f"the internal shift of {'-'.join(crystal.species)} does not relax under a strain of a few per cent "
                f"(force {largest:.1e} eV/Å left): the crystal is not stable with this potential"
            )


def path_derivatives(values: np.ndarray, step: float) -> tuple[np.ndarray, ...]:
    """First, second and third derivatives at F = I from values along `strain_path`.

    `values` has shape (991, ...); the results have shapes (9, ...), (81, ...), (729, ...). Seven-point central
    differences along 165 directions (errors of order step^6, step^6, step^4), then polarisation.
    """
    centre, lines = values[0], values[1:].reshape(165, 6, *values.shape[1:])
    m3, m2, m1, p1, p2, p3 = np.moveaxis(lines, 1, 0)
    first = (45 * (p1 - m1) - 9 * (p2 - m2) + (p3 - m3)) / (60 * step)
    second = (270 * (p1 + m1) - 27 * (p2 + m2) + 2 * (p3 + m3) - 490 * centre) / (180 * step**2)
    third = (-13 * (p1 - m1) + 8 * (p2 - m2) - (p3 - m3)) / (8 * step**3)
    inverse1, inverse2, inverse3 = _polarisation()
    return (
        np.tensordot(inverse1, first, 1),
        np.tensordot(inverse2, second, 1),
        np.tensordot(inverse3, third, 1),
    )


def response(crystal: Crystal, calculator: Calculator, path: StrainPath | None = None) -> Response:
    """Derivatives of W_cb of `calculator` at F = I; along `path` if given, else along its own relaxed path.

    With a path that was made with `coarse`, the derivatives by twice the step stand beside them.
    """
    path = strain_path(crystal, calculator) if path is None else path
    energies = []
    for atoms in path.cells:
        with _unseen(atoms, calculator):
            energies.append(atoms.get_potential_energy())
    densities = np.array(energies) / crystal.volume
    found = _response(path.at(densities, FINE), path.step)
    if COARSE[0] not in path.multiples:
        return found
    return replace(found, coarse=_response(path.at(densities, COARSE), 2 * path.step))


def _response(densities: np.ndarray, step: float) -> Response:
    d1, d2, d3 = path_derivatives(densities, step)
    return Response(d1.reshape((3,) * 2), d2.reshape((3,) * 4), d3.reshape((3,) * 6))


def single_precision(crystal: Crystal, calculator: Calculator) -> bool:
    """Whether energies of `calculator` are numbers of 32 bits: those of some strained cells, or their shares per atom,
    all are. A potential with 64 bits gives such a number once in 2^29 cells."""
    energies = []
    for stretch in np.linspace(0.99, 1.01, 5):
        atoms = crystal.deformed(np.diag([stretch, 1.0, 1 / stretch]))
        atoms.calc = calculator
        energies.append(float(atoms.get_potential_energy()))
    sizes = (1, len(crystal.basis))
    return any(all(float(np.float32(e / n)) == e / n for e in energies) for n in sizes)


VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def elastic_tensor(response: Response) -> np.ndarray:
    """Second derivatives of W_cb with respect to the symmetric strain, (3, 3, 3, 3), eV/Å^3."""
    c = response.d2
    c = (c + c.transpose(1, 0, 2, 3)) / 2
    return (c + c.transpose(0, 1, 3, 2)) / 2


def stress_strain_coefficients(d1: np.ndarray, d2: np.ndarray) -> np.ndarray:
    """Derivative of the Cauchy stress by F, from ∂W = sI and ∂²W at F = I: ∂²W - s ∂²det F, shape of `d2`, eV/Å^3.

    The stress-strain (Birch) coefficients of a crystal under the hydrostatic stress s = tr(∂W)/3 (Wallace,
    Thermodynamics of Crystals, 1972): σ = ∂W Fᵀ/det F gives dσ = (∂²W - s ∂²det F) dF. s·det F has none: it holds the
    pressure, and forces in a periodic cell of fixed volume do not know it. At s = 0 they are the elastic constants.
    `d1` (9 entries) and `d2` (81), or as many columns of both, (9, m) and (81, m).
    """
    identity = np.eye(3)
    determinant = np.einsum("ij,kl->ijkl", identity, identity) - np.einsum("il,jk->ijkl", identity, identity)
    hydrostatic = np.tensordot(identity.ravel(), d1.reshape(9, -1), 1) / 3
    return d2 - np.multiply.outer(determinant.ravel(), hydrostatic).reshape(d2.shape)


def third_without_pressure(d1: np.ndarray, d3: np.ndarray) -> np.ndarray:
    """Third derivative at F = I of W - s det F, s = tr(∂W)/3: what `stress_strain_coefficients` are to the second.

    `d1` (9 entries) and `d3` (729), or as many columns of both, (9, m) and (729, m); shape of `d3`, eV/Å^3.
    """
    hydrostatic = np.tensordot(np.eye(3).ravel(), d1.reshape(9, -1), 1) / 3
    return d3 - np.multiply.outer(null_forms()[1].ravel(), hydrostatic).reshape(d3.shape)


def cubic_tensor(constants: Mapping[Any, float]) -> np.ndarray:
    """Elastic tensor (3, 3, 3, 3), eV/Å^3, of cubic constants C11, C12, C44 in GPa (0 where one is absent)."""
    c11, c12, c44 = (constants.get(name, 0.0) / GPA for name in ("C11", "C12", "C44"))
    delta = np.eye(3)
    pairs = np.einsum("ik,jl->ijkl", delta, delta) + np.einsum("il,jk->ijkl", delta, delta)
    tensor = c12 * np.einsum("ij,kl->ijkl", delta, delta) + c44 * pairs
    for axis in range(3):
        tensor[axis, axis, axis, axis] += c11 - c12 - 2 * c44
    return tensor


# Voigt indices of the third-order constants of cubic crystals (Brugger 1964)
THIRD_ORDER = {
    "C111": ((1, 1, 1), (2, 2, 2), (3, 3, 3)),
    "C112": ((1, 1, 2), (1, 1, 3), (2, 2, 1), (2, 2, 3), (3, 3, 1), (3, 3, 2)),
    "C123": ((1, 2, 3),),
    "C144": ((1, 4, 4), (2, 5, 5), (3, 6, 6)),
    "C155": ((1, 5, 5), (1, 6, 6), (2, 4, 4), (2, 6, 6), (3, 4, 4), (3, 5, 5)),
    "C456": ((4, 5, 6),),
}


def cubic_third_order(constants: Mapping[Any, float]) -> np.ndarray:
    """What an offset in GPa of the third-order constants (`THIRD_ORDER`; 0 for those that are absent) adds to ∂³W,
    (3,)*6, eV/Å^3.

    At fixed second-order constants it is the same with respect to the Green strain and to F.
    """
    tensor = np.zeros((3,) * 6)
    for name, places in THIRD_ORDER.items():
        for place in (order for triple in places for order in set(permutations(triple))):
            for pairs in product(*({VOIGT[v - 1], VOIGT[v - 1][::-1]} for v in place)):
                tensor[tuple(index for pair in pairs for index in pair)] = constants.get(name, 0.0) / GPA
    return tensor


def green_third_order(response: Response) -> np.ndarray:
    """Third derivatives with respect to the Green strain E = (FᵀF - I)/2, (3,)*6, eV/Å^3.

    With F = I + ε symmetric, E = ε + ε²/2, so that C3(ε, ε, ε) = W'''(ε, ε, ε) - 3 C(ε, ε²) at zero stress.
    """
    c2 = elastic_tensor(response)
    d3 = response.d3
    for axes in ((1, 0, 2, 3, 4, 5), (0, 1, 3, 2, 4, 5), (0, 1, 2, 3, 5, 4)):
        d3 = (d3 + d3.transpose(axes)) / 2
    # C_ijkl ε_ij (ε ε)_kl as a trilinear form in three strains, made symmetric
    delta = np.eye(3)
    form = np.einsum("ijkn,lm->ijklmn", c2, delta)
    for axes in ((1, 0, 2, 3, 4, 5), (0, 1, 3, 2, 4, 5), (0, 1, 2, 3, 5, 4)):
        form = (form + form.transpose(axes)) / 2
    pairs = ((0, 1), (2, 3), (4, 5))
    form = sum(form.transpose([axis for p in order for axis in pairs[p]]) for order in permutations(range(3)))
    return d3 - form / 2


def constants(response: Response) -> dict[str, float]:
    """Second-order and (Green strain) third-order elastic constants of a cubic crystal, GPa, and the pressure."""
    c2, c3 = elastic_tensor(response), green_third_order(response)

    def second(i: int, j: int) -> float:
        return float(c2[VOIGT[i - 1] + VOIGT[j - 1]] * GPA)

    def third(i: int, j: int, k: int) -> float:
        return float(c3[VOIGT[i - 1] + VOIGT[j - 1] + VOIGT[k - 1]] * GPA)

    result = {f"C{i}{j}": second(i, j) for i, j in ((1, 1), (1, 2), (4, 4))}
    for i, j, k in ((1, 1, 1), (1, 1, 2), (1, 2, 3), (1, 4, 4), (1, 5, 5), (4, 5, 6)):
        result[f"C{i}{j}{k}"] = third(i, j, k)
    result["pressure"] = float(-np.trace(response.d1) / 3 * GPA)
    return result


# --- what a dislocation in a fixed periodic cell cannot feel ----------------------------------------------------


def _levi_civita() -> np.ndarray:
    symbol = np.zeros((3, 3, 3))
    for p in permutations(range(3)):
        symbol[p] = np.linalg.det(np.eye(3)[list(p)])
    return symbol


@cache
def null_forms() -> tuple[np.ndarray, np.ndarray]:
    """Second and third derivatives at I of the null Lagrangians: columns in R^81 (rank 9) and R^729.

    Null quadratic forms are spanned by the 2 x 2 minors of F, T_ijkl = ε_mik ε_njl; the only null cubic form is det F.
    """
    symbol = _levi_civita()
    quadratic = np.einsum("mik,njl->mnijkl", symbol, symbol).reshape(9, 81).T
    determinant = np.zeros((3,) * 6)
    for p in permutations(range(3)):
        for q in permutations(range(3)):
            determinant[p[0], q[0], p[1], q[1], p[2], q[2]] = symbol[p] * symbol[q]
    return quadratic, determinant.reshape(729, 1)


def without_null_part(tensor: np.ndarray) -> np.ndarray:
    """Component of a second (81 entries) or third (729) derivative that is orthogonal to the null Lagrangians."""
    null = null_forms()[0 if tensor.size == 81 else 1]
    flat = tensor.ravel()
    return (flat - null @ np.linalg.lstsq(null, flat, rcond=None)[0]).reshape(tensor.shape)
