"""Solution against solution: geometry and energy error, by full relaxation and by linear response.

geometry error  ‖Dȳ - Dȳ_ML‖_ℓ2(Λ_N), Å          energy error  |E(ȳ) - E_ML(ȳ_ML)|, eV
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase.calculators.calculator import Calculator

from suite.world.cell import Cell
from suite.world.relaxation import Relaxation, Status, relax


@dataclass(frozen=True)
class Comparison:
    """The model's equilibrium against the reference's; errors are None when the relaxation failed.

    `linear_displacement` (n, 3) Å is the first-order prediction H⁻¹ F_ML(ȳ) of ȳ_ML - ȳ.
    """

    relaxation: Relaxation
    geometry_error: float | None
    energy_error: float | None
    linear_geometry_error: float
    linear_energy_error: float
    model_energy_at_reference: float
    model_forces_at_reference: np.ndarray
    linear_displacement: np.ndarray


def compare(
    cell: Cell,
    equilibrium: Relaxation,
    reference_energy: float,
    inverse: Callable[[np.ndarray, float], np.ndarray],
    model: Calculator,
    model_energy_per_atom: float,
    tolerance: float,
    max_calls: int,
    progress: Callable[[int, float], None] | None = None,
) -> Comparison:
    """Relax `model` from the reference `equilibrium`, in the metric of the reference Hessian, and compare.

    `inverse` applies H⁻¹ to a force (n, 3), to a relative tolerance if it iterates. `reference_energy` and the model's
    energies are differences to the perfect crystal of each, eV. At ȳ the reference force is zero, so that to first
    order u_ML - u = H⁻¹ F_ML(ȳ) and E_ML(ȳ_ML) = E_ML(ȳ) - ½ F·H⁻¹F.
    """
    atoms = cell.atoms(equilibrium.displacement)
    atoms.calc = model
    # the reference is relaxed to a tolerance only: its residual force belongs to the linear response too
    forces = atoms.get_forces()
    energy = float(atoms.get_potential_energy()) - len(cell) * model_energy_per_atom
    shift = inverse(forces - equilibrium.forces, 1e-3)
    linear_energy = energy - 0.5 * float((forces * shift).sum())
    metric = lambda force: inverse(force, 1e-2)
    start = equilibrium.displacement
    relaxation = relax(cell, model, metric, start, tolerance, max_calls, scaled=False, progress=progress)
    geometry = energy_error = None
    if relaxation.status is Status.CONVERGED:
        geometry = cell.strain_norm(relaxation.displacement - equilibrium.displacement)
        model_energy = relaxation.energy - len(cell) * model_energy_per_atom
        energy_error = abs(reference_energy - model_energy)
    return Comparison(
        relaxation,
        geometry,
        energy_error,
        cell.strain_norm(shift),
        abs(linear_energy - reference_energy),
        energy,
        forces,
        shift,
    )
