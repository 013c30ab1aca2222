"""Elastic targets as data: strained unit cells with energies and stresses, for trainers that know no elastic constants.

Families that are fitted here have rows for the second and third derivatives of the energy density at the perfect
crystal. Other trainers learn them from energies and stresses at small homogeneous strains: the slope of the stress
determines the second derivatives, its curvature the third ones.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from suite.data.frames import Frame
from suite.world.crystal import Crystal, relax_shifts

STRAINS = (-0.02, -0.01, -0.005, 0.005, 0.01, 0.02)
PERTURBATION = 1e-4  # of the cell, for stresses by central differences of fourth order


def strain_directions() -> np.ndarray:
    """21 symmetric strains, (21, 3, 3): six of unit size in Voigt's order, and the sums of two of them.

    The stress at ±η along these lines determines all second and third derivatives: C_ijk is the part of the stress
    component k that goes with the product of the strains i and j.
    """
    unit = np.zeros((6, 3, 3))
    for index, (i, j) in enumerate(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))):
        unit[index, i, j] = unit[index, j, i] = 1.0 if i == j else 0.5
    return np.array([*unit, *(unit[i] + unit[j] for i, j in combinations(range(6), 2))])


def strained_frames(crystal: Crystal, calculator: Calculator) -> list[Frame]:
    """The perfect unit cell and 126 strained ones, internal shifts relaxed, labelled by `calculator`.

    `about` of each frame has the deformation gradient F = 1 + η ε (3, 3) and the strain η. Raises `NoCrystal` when the
    crystal does not hold under these strains.
    """
    gradients = [np.eye(3)]
    sizes = [0.0]
    for direction in strain_directions():
        gradients += [np.eye(3) + size * direction for size in STRAINS]
        sizes += STRAINS
    cells = [crystal.deformed(gradient) for gradient in gradients]
    if len(crystal.basis) > 1:
        relax_shifts(crystal, calculator, cells)
    return [
        Frame(
            atoms,
            *_labels(atoms, calculator),
            about={"config_type": "strained", "strain": size, "deformation_gradient": gradient},
        )
        for atoms, size, gradient in zip(cells, sizes, gradients, strict=True)
    ]


def _labels(atoms: Atoms, calculator: Calculator) -> tuple[float, np.ndarray, np.ndarray]:
    measured = atoms.copy()
    measured.calc = calculator
    return float(measured.get_potential_energy()), measured.get_forces(), stress_of(atoms, calculator)


def stress_of(atoms: Atoms, calculator: Calculator) -> np.ndarray:
    """Cauchy stress (3, 3) eV/Å³: the calculator's own, or by differences of energies where it has none."""
    measured = atoms.copy()
    measured.calc = calculator
    if "stress" in calculator.implemented_properties:
        return measured.get_stress(voigt=False)
    stress, volume = np.empty((3, 3)), atoms.get_volume()
    for i in range(3):
        for j in range(i, 3):
            strain = np.zeros((3, 3))
            strain[i, j] += 0.5
            strain[j, i] += 0.5

            def energy(size: float, strain: np.ndarray = strain) -> float:
                moved = atoms.copy()
                moved.set_cell(atoms.cell.array @ (np.eye(3) + size * strain).T, scale_atoms=True)
                moved.calc = calculator
                return float(moved.get_potential_energy())

            h = PERTURBATION
            slope = (8 * (energy(h) - energy(-h)) - (energy(2 * h) - energy(-2 * h))) / (12 * h)
            stress[i, j] = stress[j, i] = slope / volume
    return stress
