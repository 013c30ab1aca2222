"""What the pipeline needs of a family of models that is linear in its coefficients: rows, and a calculator.

An ACE basis is one (`suite.model.basis`), a sum of calculators another (`suite.model.linear`). `check_family` measures
that a family keeps its promises: whoever brings a new one should run it.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Protocol

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from store.faults import BadInput

AGREEMENT = 1e-8  # of the largest value: rows and calculator compute the same by different ways
STEP, SLOPES = 1e-4, 1e-5  # Å, and of the largest: forces against differences of energies


class LinearFamily(Protocol):
    """Functions φ_k of the positions of atoms; a model is E = Σ_k c_k φ_k + e per atom."""

    def __len__(self) -> int: ...

    @property
    def orders(self) -> np.ndarray:
        """Number of neighbours that each function multiplies, (functions,); 0 where that is not known."""
        ...

    def site_values(self, atoms: Atoms) -> np.ndarray:
        """The functions' values, (functions,): energies for unit coefficients, eV."""
        ...

    def energy_and_force_rows(self, atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
        """`site_values`, and forces (3n, functions) for unit coefficients, eV/Å."""
        ...

    def calculator(self, coefficients: np.ndarray, energy_per_atom: float = 0.0) -> Calculator:
        """ASE calculator (energy, forces) of the model with `coefficients` (functions,) and e = `energy_per_atom`."""
        ...

    def save(self, coefficients: np.ndarray, energy_per_atom: float, folder: Path) -> list[Path]:
        """Write the model into `folder`; the files written."""
        ...


class Recipe(Hashable, Protocol):
    """What a process needs to build a family again; equal recipes build equal families."""

    def build(self) -> LinearFamily:
        """The family; raises a `BadInput` when it cannot be built."""
        ...


def hash_of(*parts: object) -> int:
    """A hash of plain values, mappings among them: what a recipe with `arguments` hashes to."""
    return hash(json.dumps(parts, sort_keys=True, default=str))


class BrokenContract(BadInput, ValueError):
    """A family of models that does not do what the pipeline builds upon."""


def check_calculator(calculator: Calculator, atoms: Atoms, seed: int = 0) -> None:
    """Measure that `calculator` is a potential that the pipeline can judge, at a configuration of `atoms`.

    Energies and forces are finite; forces are the negative gradient of the energy; a translation costs nothing; two
    cells have twice the energy of one. Tolerances are those of the precision in which the energies are given. Raises
    `BrokenContract` with the first promise that is broken and by how much.
    """
    generator = np.random.default_rng(seed)
    n = len(atoms)

    def energy_of(configuration: Atoms) -> float:
        measured = configuration.copy()
        measured.calc = calculator
        return float(measured.get_potential_energy())

    measured = atoms.copy()
    measured.calc = calculator
    energy, forces = float(measured.get_potential_energy()), measured.get_forces()
    if forces.shape != (n, 3):
        raise BrokenContract(f"forces: shape {forces.shape} instead of {(n, 3)}")
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise BrokenContract("an energy or a force is not finite at a configuration of the training set")
    single = energy == float(np.float32(energy))  # 32 bits: no gradient of energies at a step of 1e-4 Å
    precision, step, slopes = (1e-6, 3e-2, 5e-2) if single else (1e-10, STEP, 1e-4)

    def agree(what: str, found: float, wanted: float, size: float, tolerance: float) -> None:
        if not abs(found - wanted) <= tolerance * size:
            raise BrokenContract(f"{what}: {found:.10g} and {wanted:.10g} eV")

    size = max(abs(energy), 1.0 * n)
    direction = generator.standard_normal((n, 3))
    moved = [atoms.copy() for _ in range(2)]
    for sign, each in zip((1, -1), moved, strict=True):
        each.positions += sign * step * direction
    slope = (energy_of(moved[0]) - energy_of(moved[1])) / (2 * step)
    work = float((forces * direction).sum())
    # rounding of the energies over the step counts besides the step itself
    largest = float(np.abs(forces * direction).sum()) + precision * size / step / slopes
    agree("the slope of the energy along a line, and the work of the forces", -slope, work, largest, slopes)
    shifted = atoms.copy()
    shifted.positions += 0.37
    agree("energy before and after a translation", energy_of(shifted), energy, size, max(100 * precision, 1e-8))
    doubled = energy_of(atoms.repeat((2, 1, 1)))
    agree("energy of two cells, and twice that of one", doubled, 2 * energy, 2 * size, max(100 * precision, 1e-8))


def check_family(family: LinearFamily, atoms: Atoms, seed: int = 0) -> None:
    """Measure that `family` keeps its contract at a configuration of `atoms`, with random coefficients.

    Shapes; energies and forces of the calculator are those of the rows; forces are the negative gradient of the energy;
    a translation costs nothing; two cells have twice the energy of one. Raises `BrokenContract` with the first promise
    that is broken and by how much.
    """
    count, n = len(family), len(atoms)
    generator = np.random.default_rng(seed)
    energies, forces = family.energy_and_force_rows(atoms)
    for name, found, wanted in (
        ("orders", family.orders.shape, (count,)),
        ("site_values", family.site_values(atoms).shape, (count,)),
        ("energies of energy_and_force_rows", energies.shape, (count,)),
        ("forces of energy_and_force_rows", forces.shape, (3 * n, count)),
    ):
        if found != wanted:
            raise BrokenContract(f"{name}: shape {found} instead of {wanted}")
    scale = np.maximum(np.abs(forces).max(axis=0), 1e-12)
    coefficients = generator.standard_normal(count) / scale
    constant = float(generator.standard_normal())
    calculator = family.calculator(coefficients, constant)

    def energy_at(displacement: np.ndarray) -> float:
        moved = atoms.copy()
        moved.positions += displacement
        moved.calc = calculator
        return float(moved.get_potential_energy())

    def agree(what: str, found: np.ndarray | float, wanted: np.ndarray | float, size: float, tolerance: float) -> None:
        error = float(np.abs(np.asarray(found) - np.asarray(wanted)).max())
        if not error <= tolerance * size:
            raise BrokenContract(f"{what}: they differ by {error:.1e}, and the largest value is {size:.1e}")

    terms = np.abs(coefficients * energies).sum() + n * abs(constant)
    agree(
        "site_values and the energies of energy_and_force_rows", family.site_values(atoms), energies, terms, AGREEMENT
    )
    at_rest = energy_at(np.zeros((n, 3)))
    agree("energy of the calculator and of the rows", at_rest, energies @ coefficients + n * constant, terms, AGREEMENT)
    measured = atoms.copy()
    measured.calc = calculator
    model_forces = measured.get_forces()
    largest = float(np.abs(forces * coefficients).sum(axis=1).max())
    agree("forces of the calculator and of the rows", model_forces.ravel(), forces @ coefficients, largest, AGREEMENT)
    direction = generator.standard_normal((n, 3))
    slope = (energy_at(STEP * direction) - energy_at(-STEP * direction)) / (2 * STEP)
    work = float((model_forces * direction).sum())
    size = float(np.abs(model_forces * direction).sum()) + 1e-16 / STEP * terms / SLOPES
    agree("forces and the slope of the energy", -slope, work, size, SLOPES)
    agree("energy before and after a translation", energy_at(np.full((n, 3), 0.37)), at_rest, terms, AGREEMENT)
    doubled = family.site_values(atoms.repeat((2, 1, 1)))
    agree(
        "values in two cells and twice those in one",
        doubled,
        2 * energies,
        2 * float(np.abs(energies).max()),
        AGREEMENT,
    )
