"""Potentials that differ from a reference only where the crystal is nearly perfect: the worst case of Theorem 3.1.

A potential that agrees with the reference at all strains of a small training cell, and is wrong below them, has no
error of energy or force to be seen there. What is left is the error of W_cb at F = I: of its second, third, or fourth
derivative. The theorem bounds the geometry errors that these make by log^½(L_D), 1/L and 1/L²; `w-sharp` measures them.
As a model of a spec: `calculator = "suite.model.perturbed:perturbed"` with the arguments of `perturbed`.

The same springs make the theorem's three settings visible in a fit, `w-springs`: a reference that has springs of
several orders (`sprung`), and a model whose coefficients of them are free (`springs`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from suite.world.crystal import LATTICES, equilibrium_crystal
from suite.world.reference import build_reference

# bcc, in units of a0: eight neighbours at 0.866 and six at 1, the next at 1.414
NEAREST, BETWEEN, BEYOND, NEIGHBOURS = np.sqrt(3) / 2, 0.93, 1.2, 14


def perturbed(reference: str, species: str, order: int, beyond: float, amplitude: float) -> Calculator:
    """The bcc `reference` with springs between nearest neighbours that act where the strain is small.

    Every atom adds `amplitude` χ Σ q^`order` (eV) over its eight nearest neighbours, with q the Green strain of a bond.
    χ falls from 1 for perfect surroundings to 0 where its 14 bonds are strained as by a screw `beyond` a0 away (see
    `screw_strain`). Derivatives of W_cb at F = I of a lower order than `order` are those of the reference.
    Raises `ValueError` on an order below 2 or a distance that is not positive.
    """
    return sprung(reference, species, [order], beyond, [amplitude])


def sprung(
    reference: str, species: str, orders: Sequence[int], beyond: float, amplitudes: Sequence[float]
) -> PerturbedCalculator:
    """As `perturbed`, with springs of several `orders` at once, each with its amplitude (eV)."""
    _refuse(orders, beyond)
    terms = dict(zip(orders, amplitudes, strict=True))
    base = build_reference(reference)
    return PerturbedCalculator(base, _bcc(base, species), terms, screw_strain(beyond))


def springs(reference: str, species: str, orders: Sequence[int], beyond: float) -> list[Calculator]:
    """The bcc `reference`, and for each of the `orders` springs of 1 eV that act `beyond` so many a0 from a screw.

    Functions of a linear model (`suite.model.linear`). Raises as `perturbed` does.
    """
    _refuse(orders, beyond)
    base = build_reference(reference)
    a0, threshold = _bcc(base, species), screw_strain(beyond)
    return [base, *(PerturbedCalculator(None, a0, {order: 1.0}, threshold) for order in orders)]


def _refuse(orders: Sequence[int], beyond: float) -> None:
    for order in orders:
        if order < 2 or not beyond > 0:
            raise ValueError(f"order {order} must be 2 or more, and beyond = {beyond} a0 positive")


def _bcc(base: Calculator, species: str) -> float:
    return equilibrium_crystal(LATTICES["bcc"], (species,), base).a0


def screw_strain(distance: float) -> float:
    """(Σ q²)^½ over the 14 bonds of an atom `distance` a0 from a ½⟨111⟩ screw, of an isotropic crystal.

    q = n·εn = b/(2πr) (n·t)(n·l) with the line l and t around it; Σ (n·t)² (n·l)² = 8/27 + 2/3 whatever the angle.
    """
    return float(np.sqrt(8 / 27 + 2 / 3) * NEAREST / (2 * np.pi * distance))


class PerturbedCalculator(Calculator):
    """ASE calculator (energy, forces) of a `base` (or of nothing) with springs: an amplitude (eV) for each order.

    `a0` is the lattice constant (Å) where they are relaxed, `threshold` the strain where they have faded out.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, base: Calculator | None, a0: float, terms: Mapping[int, float], threshold: float) -> None:
        super().__init__()
        self.base, self.a0, self.terms, self.threshold = base, a0, dict(terms), threshold

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        energy, forces = self.springs(self.atoms)
        if self.base is not None:
            self.base.calculate(self.atoms, ["energy", "forces"], all_changes)
            energy, forces = energy + float(self.base.results["energy"]), forces + self.base.results["forces"]
        self.results = {"energy": energy, "forces": forces}

    def springs(self, atoms: Atoms) -> tuple[float, np.ndarray]:
        """Energy (eV) and forces (n, 3) of the perturbation."""
        import vesin

        n = len(atoms)
        listed = vesin.NeighborList(cutoff=BEYOND * self.a0, full_list=True)
        i, j, vectors = listed.compute(points=atoms.positions, box=atoms.cell.array, periodic=True, quantities="ijD")
        length = np.linalg.norm(vectors, axis=1) / self.a0
        nearest = length < BETWEEN
        rest = np.where(nearest, NEAREST, 1.0)
        green = ((length / rest) ** 2 - 1) / 2
        strained = np.bincount(i, green**2, minlength=n) / self.threshold**2
        # an atom that loses or gains a neighbour has bonds strained by far more than any threshold: nothing jumps
        whole = np.bincount(i, minlength=n) == NEIGHBOURS
        left = np.where(whole, 1 - np.minimum(strained, 1.0) ** 2, 0.0)
        active = left**3
        fading = -12 * left**2 * strained / self.threshold**2  # d active / dq = fading q
        stored = sum(amplitude * green**order for order, amplitude in self.terms.items())
        tension = sum(amplitude * order * green ** (order - 1) for order, amplitude in self.terms.items())
        each = np.bincount(i, nearest * stored, minlength=n)
        slope = nearest * active[i] * tension + (each * fading)[i] * green
        pull = (slope / (rest * self.a0) ** 2)[:, None] * vectors  # dq/dr = r/rest²
        forces = np.column_stack(
            [np.bincount(i, column, minlength=n) - np.bincount(j, column, minlength=n) for column in pull.T]
        )
        return float((each * active).sum()), forces


def scaled(reference: str, factor: float, arguments: dict[str, Any] | None = None) -> Calculator:
    """`factor` times the energy of `reference` (built with its `arguments`): the counterexample to (3.14).

    See docs/theory.md. It has the equilibria of the reference, and an energy error of (factor - 1) E(ȳ).
    Raises `ValueError` on a factor that is not positive.
    """
    if not factor > 0:
        raise ValueError(f"factor {factor} must be positive: dislocations have no equilibrium otherwise")
    return ScaledCalculator(build_reference(reference, arguments or {}), factor)


class ScaledCalculator(Calculator):
    """ASE calculator (energy, forces): `factor` times those of `base`."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, base: Calculator, factor: float) -> None:
        super().__init__()
        self.base, self.factor = base, factor

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        self.base.calculate(self.atoms, ["energy", "forces"], all_changes)
        self.results = {name: self.factor * self.base.results[name] for name in self.implemented_properties}
