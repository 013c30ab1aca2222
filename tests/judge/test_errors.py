"""Geometry and energy error: zero for the reference, and first-order agreement of linear response and relaxation."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from ase.calculators.calculator import Calculator
from materials import Sprung

from suite.judge.errors import Comparison, Ground, compare
from suite.results import World
from suite.world.curvature import Curvature
from suite.world.hessian import Factor, hessian, stability_constant
from suite.world.relaxation import Status, relax

TOLERANCE = 1e-9


@dataclass(frozen=True)
class Exact(Ground):
    """An equilibrium found to the last digits, so that small differences mean something."""

    energy_per_atom: float

    def against(self, model: Calculator, tolerance: float = TOLERANCE, max_calls: int = 300) -> Comparison:
        return compare(self, model, self.energy_per_atom, tolerance, max_calls)


@pytest.fixture(scope="module")
def ground(world: World, zhou: Calculator) -> Exact:
    cell, rough = world.training[0], world.trained[0].equilibrium
    matrix = hessian(cell, zhou, rough.displacement)
    factor = Factor(matrix)
    curvature = Curvature(lambda f, tolerance: factor.solve(f), factor.solve, *stability_constant(cell, matrix, factor))
    exact = relax(cell, zhou, factor.solve, rough.displacement, tolerance=TOLERANCE)
    assert exact.status is Status.CONVERGED
    energy = exact.energy - len(cell) * world.energy_per_atom
    return Exact(cell, exact, energy, curvature, world.energy_per_atom)


def displaced_home(ground: Exact) -> np.ndarray:
    """Where weak springs pull: the equilibrium shifted by a smooth wave of 0.3 Å."""
    x, size = ground.cell.reference, np.diag(ground.cell.vectors_perfect)
    wave = np.sin(2 * np.pi * (x[:, :1] / size[0] + x[:, 1:2] / size[1])) * [0.1, 0.2, 0.3]
    return x + ground.equilibrium.displacement + wave


def test_the_reference_has_no_errors(ground: Exact, zhou: Calculator) -> None:
    found = ground.against(zhou)
    assert found.relaxation.status is Status.CONVERGED
    assert found.relaxation.calls == 1
    for error in (found.geometry_error, found.energy_error, found.linear_geometry_error, found.linear_energy_error):
        assert error == pytest.approx(0, abs=1e-7)


def test_each_potential_subtracts_its_own_perfect_crystal(ground: Exact, zhou: Calculator) -> None:
    """A model with 1 eV more on every atom is the same model."""

    class Shifted(Sprung):
        def calculate(self, *arguments, **named) -> None:  # type: ignore[no-untyped-def]
            super().calculate(*arguments, **named)
            self.results["energy"] += float(len(self.home))

    model = Shifted(zhou, displaced_home(ground), 0.0)
    found = replace(ground, energy_per_atom=ground.energy_per_atom + 1.0).against(model)
    assert found.energy_error == pytest.approx(0, abs=1e-7)
    wrong = ground.against(model)
    assert wrong.energy_difference == pytest.approx(len(ground.cell), rel=1e-6)
    cheap = replace(ground, energy_per_atom=ground.energy_per_atom + 2.0).against(model)
    assert cheap.energy_difference == pytest.approx(-len(ground.cell), rel=1e-6), "a model that costs too little"
    assert cheap.energy_error == pytest.approx(len(ground.cell), rel=1e-6)


def test_linear_response_is_right_to_first_order(ground: Exact, zhou: Calculator) -> None:
    """Springs of stiffness ε: errors are ∝ ε, and full relaxation differs from linear response by O(ε²)."""
    home = displaced_home(ground)
    stiffness = np.array([2e-3, 4e-3, 8e-3, 16e-3])
    found = [ground.against(Sprung(zhou, home, e), tolerance=1e-8) for e in stiffness]
    assert all(c.relaxation.status is Status.CONVERGED for c in found)
    full = np.array([c.geometry_error for c in found])
    linear = np.array([c.linear_geometry_error for c in found])
    difference = np.array(
        [
            ground.cell.strain_norm(c.relaxation.displacement - ground.equilibrium.displacement - c.linear_displacement)
            for c in found
        ]
    )

    def slope(values: np.ndarray) -> float:
        return float(np.polyfit(np.log(stiffness), np.log(values), 1)[0])

    assert linear.min() > 1e-3
    assert slope(linear) == pytest.approx(1, abs=1e-6)
    assert slope(full) == pytest.approx(1, abs=0.1)
    assert slope(difference) == pytest.approx(2, abs=0.2)
    assert difference[0] < 0.1 * linear[0]
    energies = np.array([[c.energy_error, c.linear_energy_error] for c in found], dtype=float)
    assert slope(energies[:, 0]) == pytest.approx(1, abs=0.1)
    assert slope(np.abs(energies[:, 0] - energies[:, 1])) == pytest.approx(3, abs=0.4)


def test_linear_displacement_solves_the_linear_problem(ground: Exact, zhou: Calculator) -> None:
    found = ground.against(Sprung(zhou, displaced_home(ground), 0.01))
    forces = found.model_forces_at_reference - ground.equilibrium.forces
    expected = ground.curvature.preconditioner(forces)
    np.testing.assert_allclose(found.linear_displacement, expected, atol=1e-12)
    assert found.linear_geometry_error == pytest.approx(ground.cell.strain_norm(expected), rel=1e-12)
    energy = found.model_energy_at_reference - 0.5 * float((found.model_forces_at_reference * expected).sum())
    assert found.linear_energy_error == pytest.approx(abs(energy - ground.energy), abs=1e-10)
    # the second-order gain is positive: the model relaxes downhill
    assert energy < found.model_energy_at_reference


def test_geometry_error_is_the_strain_norm_of_the_difference(ground: Exact, zhou: Calculator) -> None:
    found = ground.against(Sprung(zhou, displaced_home(ground), 0.05))
    difference = found.relaxation.displacement - ground.equilibrium.displacement
    bonds = ground.cell.bonds
    by_hand = np.sqrt(((difference[bonds[:, 1]] - difference[bonds[:, 0]]) ** 2).sum())
    assert found.geometry_error == pytest.approx(by_hand, rel=1e-12)
    model_energy = found.relaxation.energy - len(ground.cell) * ground.energy_per_atom
    assert found.energy_difference == pytest.approx(model_energy - ground.energy, rel=1e-12)
    assert found.energy_difference > 1e-3, "springs cost energy"
    assert found.energy_error == found.energy_difference


def test_a_failed_relaxation_has_no_errors_but_a_linear_estimate(ground: Exact, zhou: Calculator) -> None:
    found = ground.against(Sprung(zhou, displaced_home(ground), 0.05), max_calls=2)
    assert found.relaxation.status is Status.MAX_STEPS
    assert found.geometry_error is None
    assert found.energy_error is None
    assert found.energy_difference is None
    assert found.linear_geometry_error > 0


# --- is there an equilibrium at all? ------------------------------------------------------------------------------


class Scaled(Calculator):
    """A calculator times a factor: forces and curvature shrink alike."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, base: Calculator, factor: float) -> None:
        super().__init__()
        self.base, self.factor = base, factor

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = None) -> None:
        super().calculate(atoms, properties, system_changes or [])
        self.base.calculate(atoms)
        self.results = {name: self.factor * self.base.results[name] for name in ("energy", "forces")}


def test_the_stability_of_a_model_is_its_own(ground: Exact, zhou: Calculator) -> None:
    assert ground.against(zhou).stability == pytest.approx(ground.curvature.c0, rel=1e-2)
    stiffer = ground.against(Scaled(zhou, 1.5))
    assert stiffer.stability == pytest.approx(1.5 * ground.curvature.c0, rel=1e-2)
    assert stiffer.relaxation.status is Status.CONVERGED


@pytest.mark.parametrize("factor", [0.0, 1e-9, 1e-5])
def test_a_model_without_forces_has_no_equilibrium(ground: Exact, zhou: Calculator, factor: float) -> None:
    """Its forces are below the tolerance at the first call; its geometry error of 0 would be the best of all."""
    off = Sprung(zhou, displaced_home(ground), 0.05)  # an error of geometry that it would have with its forces
    found = ground.against(Scaled(off, factor), tolerance=1e-4)
    assert found.relaxation.calls == 1
    assert found.relaxation.status is Status.UNRESOLVED
    assert found.geometry_error is None
    assert "solver.tolerance" in found.relaxation.status.remedy


def test_the_resolution_bounds_what_the_tolerance_leaves(ground: Exact, zhou: Calculator) -> None:
    model = Sprung(zhou, displaced_home(ground), 0.02)
    exact = ground.against(model)
    for tolerance in (1e-3, 1e-4, 1e-5):
        rough = ground.against(model, tolerance=tolerance)
        left = ground.cell.strain_norm(rough.relaxation.displacement - exact.relaxation.displacement)
        assert rough.resolution is not None
        assert left <= 1.1 * rough.resolution
        assert rough.resolution < 1e3 * tolerance


def test_a_model_on_a_saddle_is_no_result(ground: Exact, zhou: Calculator) -> None:
    """Springs that push from the equilibrium: forces vanish there, and every step away gains energy."""
    home = ground.cell.reference + ground.equilibrium.displacement
    found = ground.against(Sprung(zhou, home, -1.0), tolerance=1e-6)
    assert found.relaxation.calls == 1
    assert found.relaxation.status is Status.SADDLE
    assert found.stability < 0
    assert found.geometry_error is None
    assert "improve the fit" in found.relaxation.status.remedy
