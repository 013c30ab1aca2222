"""Potentials that differ from a reference only where the crystal is nearly perfect: the worst case of Theorem 3.1.

A potential that agrees with the reference at all strains of a small training cell, and is wrong below them, has no
error of energy or force to be seen there. What is left is the error of W_cb at F = I: of its second, third, or fourth
derivative. The theorem bounds the geometry errors that these make by log^½(L_D), 1/L and 1/L²; `w-sharp` measures them.
As a model of a spec: `calculator = "suite.model.perturbed:perturbed"` with the arguments of `perturbed`.
"""

from __future__ import annotations

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
    if order < 2 or not beyond > 0:
        raise ValueError(f"order {order} must be 2 or more, and beyond = {beyond} a0 positive")
    return PerturbedCalculator(build_reference(reference), species, order, screw_strain(beyond), amplitude)


def screw_strain(distance: float) -> float:
    """(Σ q²)^½ over the 14 bonds of an atom `distance` a0 from a ½⟨111⟩ screw, of an isotropic crystal.

    q = n·εn = b/(2πr) (n·t)(n·l) with the line l and t around it; Σ (n·t)² (n·l)² = 8/27 + 2/3 whatever the angle.
    """
    return float(np.sqrt(8 / 27 + 2 / 3) * NEAREST / (2 * np.pi * distance))


class PerturbedCalculator(Calculator):
    """ASE calculator (energy, forces) of `perturbed`; `threshold` is the strain where the springs have faded out."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, base: Calculator, species: str, order: int, threshold: float, amplitude: float) -> None:
        super().__init__()
        self.base, self.order, self.threshold, self.amplitude = base, order, threshold, amplitude
        self.a0 = equilibrium_crystal(LATTICES["bcc"], (species,), base).a0

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        self.base.calculate(self.atoms, ["energy", "forces"], all_changes)
        energy, forces = self.springs(self.atoms)
        self.results = {
            "energy": float(self.base.results["energy"]) + energy,
            "forces": self.base.results["forces"] + forces,
        }

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
        each = np.bincount(i, nearest * green**self.order, minlength=n)
        slope = nearest * active[i] * self.order * green ** (self.order - 1) + (each * fading)[i] * green
        pull = (slope / (rest * self.a0) ** 2)[:, None] * vectors  # dq/dr = r/rest²
        forces = np.column_stack(
            [np.bincount(i, column, minlength=n) - np.bincount(j, column, minlength=n) for column in pull.T]
        )
        return self.amplitude * float((each * active).sum()), self.amplitude * forces


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
