"""Errors of the solution: geometry and energy error, by full relaxation and by linear response.

geometry error  ‖Dȳ - Dȳ_ML‖_ℓ2(Λ_N), Å          energy error  |E(ȳ) - E_ML(ȳ_ML)|, eV
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from ase.calculators.calculator import Calculator

from suite.world.cell import Cell
from suite.world.curvature import Curvature
from suite.world.glide import Glide, Holding
from suite.world.hessian import HessianProducts
from suite.world.relaxation import Relaxation, Status, relax_with

FAR = 0.1  # Å; if no atom of the model's equilibrium is further than this from ȳ, its curvature at ȳ is used
RESOLVED = 0.01  # Å; a smaller uncertainty of the geometry error is always acceptable
FLAT = 1e-4  # as a share of the reference's c0: smaller curvatures are rounding of force differences


@dataclass(frozen=True)
class Comparison:
    """Comparison of the model's equilibrium with the reference's; errors are None when the relaxation failed.

    `energy_difference` is E_ML(ȳ_ML) - E(ȳ), eV, each relative to its own perfect crystal. `linear_displacement` (n, 3)
    Å is the first-order prediction H⁻¹ F_ML(ȳ) of ȳ_ML - ȳ. `stability` is the model's own c0 (eV/Å^2) at ȳ_ML, or
    at ȳ if there is no ȳ_ML; in three-dimensional cells it is an upper bound. `resolution` (Å) is the uncertainty of
    the geometry error from the tolerance of the forces; None when the relaxation failed.
    `glide_force` (eV/Å) is the model's force along a neutral glide mode g at the end of its relaxation, as a share of
    the dual norm (`glide.Glide.along`), and `glide_curvature` is gᵀH_ML g there (eV/Å^2); None without such a mode.
    """

    relaxation: Relaxation
    geometry_error: float | None
    energy_difference: float | None
    stability: float
    resolution: float | None
    linear_geometry_error: float
    linear_energy_error: float
    model_energy_at_reference: float
    model_forces_at_reference: np.ndarray
    linear_displacement: np.ndarray
    glide_force: float | None = None
    glide_curvature: float | None = None

    @property
    def energy_error(self) -> float | None:
        """|E(ȳ) - E_ML(ȳ_ML)|, eV."""
        return None if self.energy_difference is None else abs(self.energy_difference)


@dataclass(frozen=True)
class Ground:
    """What a model is compared with: the reference's `equilibrium` in a `cell`, its `energy` relative to the perfect
    crystal (eV), and its second derivatives there."""

    cell: Cell
    equilibrium: Relaxation
    energy: float
    curvature: Curvature


def compare(
    ground: Ground,
    model: Calculator,
    model_energy_per_atom: float,
    tolerance: float,
    max_calls: int,
    progress: Callable[[int, float], None] | None = None,
    engine: Calculator | None = None,
) -> Comparison:
    """Relax `model` from the equilibrium of the reference, in the metric of its Hessian, and compare.

    The model's energies too are relative to its perfect crystal, of `model_energy_per_atom`, eV. At ȳ the reference
    force is zero, so that to first order u_ML - u = H⁻¹ F_ML(ȳ) and E_ML(ȳ_ML) = E_ML(ȳ) - ½ F·H⁻¹F.

    If the reference has a neutral glide mode, model and linear response are restricted to its complement: forces along
    the mode count neither for convergence nor for stability, and are reported as `glide_force`.

    The forces of the relaxation and of the model's softest mode are those of `engine`, another program with the same
    potential (default: those of `model`).

    A model whose forces are below the tolerance has an equilibrium only if it is stable there: see `_verdict`.
    """
    cell, equilibrium, curvature = ground.cell, ground.equilibrium, ground.curvature
    inverse, glide, free = curvature.inverse, curvature.glide, model
    if glide is not None:
        model, engine = Holding(free, glide), None if engine is None else Holding(engine, glide)
    atoms = cell.atoms(equilibrium.displacement)
    atoms.calc = model
    # the reference is relaxed to a tolerance only, so that its residual force is part of the linear response
    forces = atoms.get_forces()
    energy = float(atoms.get_potential_energy()) - len(cell) * model_energy_per_atom
    shift = inverse(forces - equilibrium.forces, 1e-3)
    linear_energy = energy - 0.5 * float((forces * shift).sum())
    metric = lambda force: inverse(force, 1e-2)
    start = equilibrium.displacement
    relaxation = relax_with(engine, cell, model, metric, start, tolerance, max_calls, scaled=False, progress=progress)
    converged = relaxation.status is Status.CONVERGED
    stability, mode = _stability(
        cell, engine or model, relaxation.displacement if converged else start, curvature, curvature.mode
    )
    geometry = difference = resolution = None
    if converged:
        moved = relaxation.displacement - equilibrium.displacement
        geometry = cell.strain_norm(moved)
        model_energy = relaxation.energy - len(cell) * model_energy_per_atom
        difference = model_energy - ground.energy
        resolution = _resolution(relaxation.forces, stability, curvature)
        left = (
            np.abs(moved).max() > FAR
            and _stability(cell, engine or model, start, curvature, mode)[0] < -FLAT * curvature.c0
        )
        status = _verdict(stability, geometry, resolution, curvature.c0, left)
        relaxation = replace(relaxation, status=status)
        if status not in (Status.CONVERGED, Status.UNSTABLE):
            geometry = difference = None
    return Comparison(
        relaxation,
        geometry,
        difference,
        stability,
        resolution,
        cell.strain_norm(shift),
        abs(linear_energy - ground.energy),
        energy,
        forces,
        shift,
        *(() if glide is None else _along(cell, free, relaxation.displacement, curvature, glide)),
    )


def _along(
    cell: Cell, model: Calculator, displacement: np.ndarray, curvature: Curvature, glide: Glide
) -> tuple[float, float]:
    """Size of the model's force along a neutral mode at `displacement` (n, 3), eV/Å, and its curvature, eV/Å^2."""
    atoms = cell.atoms(displacement)
    atoms.calc = model
    force = abs(glide.along(atoms.get_forces()))
    products = HessianProducts(cell, model, displacement, curvature.preconditioner)
    return force, glide.along(products.product(glide.mode))


def _stability(
    cell: Cell, model: Calculator, displacement: np.ndarray, curvature: Curvature, guess: np.ndarray
) -> tuple[float, np.ndarray]:
    """The model's c0 (eV/Å^2) at `displacement` (n, 3) and its mode, from the `guess` (n, 3) of it.

    In three-dimensional cells it is an upper bound, which proves an instability if it is negative.
    """
    return curvature.near(HessianProducts(cell, model, displacement, curvature.preconditioner), guess)


def _resolution(forces: np.ndarray, stability: float, curvature: Curvature) -> float:
    """Largest distance ‖D·‖ (Å) from its equilibrium of a model with residual `forces` (n, 3) and c0 = `stability`.

    For v = H_ML⁻¹ f, c0_ML ‖Dv‖² <= v·H_ML v = f·H_ML⁻¹ f, and H_ML⁻¹ <= H⁻¹ c0 / c0_ML for a model that is softer
    than the reference by one factor in all directions. Infinite for a model without curvature. Scaling a model
    down, forces and curvature alike, does not change it.
    """
    if stability <= 0:
        return float("inf")
    work = float((forces * curvature.inverse(forces, 1e-2)).sum()) if forces.any() else 0.0
    return float(np.sqrt(max(work, 0.0) * curvature.c0)) / stability


def _verdict(stability: float, geometry: float, resolution: float, c0: float, left: bool) -> Status:
    """The status of a relaxation whose forces are below the tolerance; `left`: the model is unstable at ȳ and moved
    away."""
    if stability < -FLAT * c0:
        return Status.SADDLE
    if resolution > max(geometry, RESOLVED):
        return Status.UNRESOLVED
    return Status.UNSTABLE if left else Status.CONVERGED
