"""Equilibria: published energies, decay of the predictor's residual, and every way in which a relaxation can fail."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from materials import calculator_of, crystal_of, response_of

from suite.pipeline import build_world
from suite.results import World
from suite.spec import Spec, load
from suite.world.cell import StraightCell, build_cell, build_cell_at, crystal_metric
from suite.world.crystal import Crystal, elastic_tensor
from suite.world.dislocation import Dislocation, catalogue_entry
from suite.world.elasticity import Stroh, rotate, stroh
from suite.world.relaxation import FailedRelaxation, Relaxation, Status, relax

# quadrupole of 16 x 28 repeats, cores in units of the unit cell: every one in the triangle where its sign is easy
CORES = np.array([(4 + 1 / 6, 7 + 1 / 6), (12 + 0, 7 + 1 / 3), (4 + 1 / 6, 21 - 1 / 6), (12 + 1 / 6, 21 + 1 / 6)])
SIGNS = np.array([1, -1, -1, 1])
# eV above the perfect crystal. EAM4: relaxed by a prototype with other code. Zhou's cores are polarised, which gives a
# handful of minima within 3e-4; the number is a regression value (perturbations of 0.001 to 0.1 Å, eleven of twelve
# seeds), 6e-3 below what the prototype stopped at with 1e-3 eV/Å.
ENERGIES = {"W_zhou04": 21.2315, "W_eam4": 22.0166}
PROTOTYPE_ZHOU = 21.2376


def stroh_of(name: str) -> Stroh:
    return stroh(rotate(elastic_tensor(response_of(name)), catalogue_entry("bcc", "screw").frame))


def quadrupole(name: str) -> StraightCell:
    return build_cell_at(crystal_of(name), catalogue_entry("bcc", "screw"), stroh_of(name), (16, 28, 1), CORES, SIGNS)


def perfect_energy(cell: StraightCell, calculator: Calculator) -> float:
    atoms = cell.perfect_atoms()
    atoms.calc = calculator
    return atoms.get_potential_energy()


def started(cell: StraightCell, size: float = 0.01, seed: int = 0) -> np.ndarray:
    return cell.predictor + size * np.random.default_rng(seed).standard_normal(cell.predictor.shape)


@pytest.mark.parametrize("name", ENERGIES)
def test_energy_of_a_relaxed_quadrupole(name: str) -> None:
    cell, calculator = quadrupole(name), calculator_of(name)
    result = relax(cell, calculator, crystal_metric(cell, calculator).solve, started(cell))
    assert result.status is Status.CONVERGED
    energy = result.energy - perfect_energy(cell, calculator)
    assert energy == pytest.approx(ENERGIES[name], abs=1e-3)
    if name == "W_zhou04":
        assert PROTOTYPE_ZHOU - 1e-2 < energy < PROTOTYPE_ZHOU
    assert np.abs(result.forces).max() < 1e-4


def test_residual_force_of_the_predictor_decays_from_the_cores() -> None:
    cell = quadrupole("W_zhou04")
    atoms = cell.atoms(cell.predictor)
    atoms.calc = calculator_of("W_zhou04")
    force = np.abs(atoms.get_forces()).max(axis=1)
    size = np.diag(cell.vectors_perfect)[:2]
    away = cell.reference[:, None, :2] - cell.cores
    distance = np.linalg.norm(away - size * np.rint(away / size), axis=-1).min(axis=1)
    near, middle, far = (force[(distance > a) & (distance < b)] for a, b in ((0, 5), (10, 20), (20, 40)))
    assert near.max() > 0.3
    assert middle.max() < 1e-2
    assert 0 < far.max() < 1.5e-3


def test_relaxation_from_an_equilibrium_stays(world: World, tiny: Spec) -> None:
    found = world.equilibrium
    again = relax(
        world.simulation,
        calculator_of(tiny.material.reference),
        world.landscape.factor.solve,
        found.displacement,
        tiny.simulation.force_tolerance,
    )
    assert again.calls == 1
    assert again.status is Status.CONVERGED
    np.testing.assert_array_equal(again.displacement, found.displacement)
    assert again.energy == pytest.approx(found.energy, abs=1e-9)


def test_relaxation_forgets_its_start_and_its_metric(world: World, zhou: Calculator) -> None:
    """From another perturbation and with another preconditioner: the same minimum."""
    cell, found = world.training[0], world.trained[0].equilibrium
    other = relax(cell, zhou, lambda f: 0.05 * f, started(cell, 0.02, seed=7), tolerance=1e-5, max_calls=800)
    assert other.status is Status.CONVERGED
    assert other.energy == pytest.approx(found.energy, abs=1e-5)
    difference = other.displacement - found.displacement
    assert np.abs(difference - difference.mean(axis=0)).max() < 1e-2


def test_outcome_is_consistent(world: World, zhou: Calculator) -> None:
    cell, found = world.training[0], world.trained[0].equilibrium
    atoms = cell.atoms(found.displacement)
    atoms.calc = zhou
    assert found.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(found.forces, atoms.get_forces(), atol=1e-9)
    assert found.history[-1] == np.abs(found.forces).max()
    assert found.calls_to(np.inf) == 1
    assert found.calls_to(0.0) is None
    first = found.calls_to(1e-2)
    assert first is not None
    assert found.history[first - 1] < 1e-2 <= found.history[: first - 1].min()
    assert found.shifts.shape == cell.cores.shape
    assert np.linalg.norm(found.shifts, axis=1).max() < 0.8 * cell.a0


# --- failures -----------------------------------------------------------------------------------------------------


def test_a_dipole_that_is_too_close_annihilates(screw: Dislocation) -> None:
    """4 x 6 repeats, 144 atoms: EAM4 relaxes them to the perfect crystal, and to no number."""
    calculator = calculator_of("W_eam4")
    cell = build_cell(crystal_of("W_eam4"), screw, stroh_of("W_eam4"), "dipole", (4, 6, 1), screw.sites["easy"])
    assert len(cell) == 144
    metric = crystal_metric(cell, calculator).solve
    result = relax(cell, calculator, metric, started(cell))
    assert result.status is Status.ANNIHILATED
    assert result.calls < 100, "it ends soon after the cores have met"
    for _ in range(20):  # each goes on for two looks at the cores
        if np.abs(result.forces).max() < 1e-4:
            break
        result = relax(cell, calculator, metric, result.displacement)
        assert result.status is Status.ANNIHILATED
    # what is left is the perfect crystal, sheared by the tilt that no dislocation carries any more: by 0.54 b, or by
    # -0.46 b when the two met across the face of the cell
    energies = []
    for k in (-1, 0, 1):
        sheared = cell.perfect_atoms()
        sheared.set_cell(cell.vectors + k * np.outer([0, 1, 0], cell.burgers[0]), scale_atoms=True)
        sheared.calc = calculator
        energies.append(sheared.get_potential_energy())
    assert result.energy == pytest.approx(min(energies), abs=1e-4)
    assert result.energy > perfect_energy(cell, calculator) + 1


def test_a_world_that_annihilates_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suite.stages.cells.response", lambda *arguments: response_of("W_eam4"))
    spec = load("w-split", "tiny", ["material.reference=W_eam4", "training.size=4.9"])
    assert catalogue_entry("bcc", "screw").repeats(2 * 4.9)[0] == 4
    with pytest.raises(FailedRelaxation, match=r"training cell .*annihilated.*Remedy: enlarge the cell") as caught:
        build_world(spec)
    assert caught.value.relaxation.status is Status.ANNIHILATED


class Faulty(Calculator):
    """A calculator that turns into NaN after some calls."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, healthy: Calculator, calls: int) -> None:
        super().__init__()
        self.healthy, self.left = healthy, calls

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert atoms is not None
        self.healthy.calculate(atoms)
        self.results = {"energy": self.healthy.results["energy"], "forces": self.healthy.results["forces"].copy()}
        self.left -= 1
        if self.left < 0:
            self.results["forces"][3] = np.nan


@pytest.mark.parametrize("calls", [0, 1, 4])
def test_forces_that_are_not_finite_end_the_relaxation(world: World, calls: int) -> None:
    cell, healthy = world.training[0], calculator_of("W_zhou04")
    start = started(cell)
    result = relax(cell, Faulty(healthy, calls), crystal_metric(cell, healthy).solve, start)
    assert result.status is Status.NONFINITE
    assert result.displacement.shape == start.shape
    assert np.isfinite(result.displacement).all()
    message = str(FailedRelaxation("a cell", result))
    assert "nonfinite" in message
    assert "Remedy: " in message


def run_out(cell: StraightCell, calculator: Calculator, calls: int) -> Relaxation:
    return relax(cell, calculator, crystal_metric(cell, calculator).solve, started(cell), max_calls=calls)


def test_too_few_steps_are_an_outcome(world: World, zhou: Calculator) -> None:
    result = run_out(world.training[0], zhou, 3)
    assert result.status is Status.MAX_STEPS
    assert result.calls == 3
    assert result.history.min() == pytest.approx(np.abs(result.forces).max())
    assert "raise simulation.max_steps" in str(FailedRelaxation("a cell", result))


def test_a_core_that_left_its_place_is_moved(
    world: World, tungsten: Crystal, screw: Dislocation, tungsten_stroh: Stroh, zhou: Calculator
) -> None:
    """Starting from a dipole whose second core is two units further: a fine equilibrium, but not this one."""
    cell = world.training[0]
    n1, n2, _ = cell.repeats
    unit = screw.lengths[:2] * tungsten.a0
    positions = cell.cores / unit
    positions[:, 1] -= 2  # both, so that the tilt of the cell stays right
    elsewhere = build_cell_at(tungsten, screw, tungsten_stroh, (n1, n2, 1), positions, np.array([1, -1]))
    np.testing.assert_allclose(elsewhere.vectors, cell.vectors, atol=1e-9)
    result = relax(cell, zhou, crystal_metric(cell, zhou).solve, started(elsewhere))
    assert result.status is Status.MOVED
    np.testing.assert_allclose(np.abs(result.shifts[:, 1]), 2 * unit[1], atol=0.5 * tungsten.a0)
    assert "another core site" in str(FailedRelaxation("a cell", result))


def test_a_saddle_is_refused(world: World, tiny: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A negative c0 (see test_hessian for how it is found) fails the world, with the remedy."""
    equilibria = {len(world.training[0]): world.trained[0].equilibrium, len(world.simulation): world.equilibrium}
    monkeypatch.setattr("suite.stages.cells.response", lambda *arguments: world.response)
    monkeypatch.setattr("suite.stages.world.equilibrium_in", lambda spec, cell, *rest: equilibria[len(cell)])
    monkeypatch.setattr("suite.world.curvature.hessian", lambda *arguments, **named: world.landscape.hessian)
    monkeypatch.setattr("suite.world.curvature.stability_constant", lambda *arguments: (-0.02, world.landscape.softest))
    with pytest.raises(FailedRelaxation, match=r"simulation cell.*saddle.*raise simulation.perturbation") as caught:
        build_world(tiny)
    assert caught.value.relaxation.status is Status.SADDLE
    np.testing.assert_array_equal(caught.value.relaxation.displacement, world.equilibrium.displacement)


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.CONVERGED])
def test_every_failure_has_a_sentence_and_a_remedy(status: Status) -> None:
    assert len(status.value) > 20
    assert len(status.remedy) > 20
    assert len(status.reference_remedy) > 20
    assert "the fit" not in status.reference_remedy  # nobody has fitted the reference


def test_steps_are_bounded(world: World, zhou: Calculator) -> None:
    """No atom moves further than `longest_step` at once, however wild the metric."""
    seen: list[np.ndarray] = []

    class Watching(Faulty):
        def calculate(self, atoms: Atoms | None = None, *rest: object) -> None:  # type: ignore[override]
            assert atoms is not None
            seen.append(atoms.positions.copy())
            super().calculate(atoms)

    wild: Callable[[np.ndarray], np.ndarray] = lambda f: 1e3 * f
    relax(world.training[0], Watching(zhou, 99), wild, started(world.training[0]), max_calls=5, longest_step=0.07)
    lengths = [np.linalg.norm(b - a, axis=1).max() for a, b in pairwise(seen[:5])]
    assert len(lengths) == 4
    assert max(lengths) == pytest.approx(0.07)


def test_a_model_whose_atoms_meet_is_an_outcome(world: World) -> None:
    """pyace refuses atoms that coincide: six retreats to shorter steps, then the relaxation ends, not the process."""
    met: list[float] = []

    class Colliding(Calculator):
        implemented_properties = ("energy", "forces")

        def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = None) -> None:
            super().calculate(atoms, properties, system_changes or [])
            moved = np.abs(self.atoms.positions - world.training[0].reference).max()
            if moved > 1e-3:
                met.append(moved)
                raise FloatingPointError("the model cannot be evaluated: very small distance")
            self.results = {"energy": 0.0, "forces": np.ones((len(world.training[0]), 3))}

    still = np.zeros_like(world.training[0].reference)
    result = relax(world.training[0], Colliding(), lambda force: force, still, 1e-4, 20)
    assert result.status is Status.NONFINITE
    assert len(met) == 7
    np.testing.assert_allclose(met[:5], 0.15 / np.sqrt(3) / 3.0 ** np.arange(5), rtol=1e-9)
    np.testing.assert_array_equal(result.displacement, still)
