"""Shapes of cores: what leaves them alone, what changes them, and the two core states of one case."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from materials import calculator_of, crystal_of, response_of

from suite.judge.remarks import remarks
from suite.results import World
from suite.spec import load
from suite.stages.cells import simulation_cell, training_cells
from suite.world.cell import Cell, StraightCell
from suite.world.core_state import (
    DIFFERENT,
    UNLIKE,
    core_change,
    core_mismatch,
    core_shape,
    core_spread,
    difference,
)
from suite.world.relaxation import Status, relax


@pytest.fixture(scope="module")
def simulated(world: World) -> tuple[StraightCell, np.ndarray]:
    assert isinstance(world.simulation, StraightCell)
    return world.simulation, world.equilibrium.displacement


@pytest.fixture(scope="module")
def trained(world: World) -> tuple[StraightCell, np.ndarray]:
    return world.training[0], world.trained[0].equilibrium.displacement


def test_the_cores_of_one_case_are_alike(
    simulated: tuple[StraightCell, np.ndarray], trained: tuple[StraightCell, np.ndarray]
) -> None:
    """Easy cores of tungsten, at L = 6 and N = 24: what differs is the strain of their neighbours."""
    assert core_spread(simulated) < UNLIKE / 3
    assert 3 * core_spread(simulated) < core_mismatch(simulated, [trained]) < DIFFERENT
    assert core_mismatch(simulated, [simulated]) == 0
    assert core_change(*simulated, simulated[1]) == 0
    assert not remarks({"core_spread": core_spread(simulated), "core_mismatch": core_mismatch(simulated, [trained])})


def test_a_shape_does_not_see_where_the_cell_begins(simulated: tuple[StraightCell, np.ndarray]) -> None:
    """Translated as a whole, by less than the cell or more: the same distances, images across the tilt included."""
    cell, u = simulated
    shape = core_shape(cell, u, 0)
    assert shape[0].min() > 2  # no two atoms meet at the wrong image
    assert difference(core_shape(cell, u + np.array([0.3, -0.7, 1.1]), 0), shape) < 1e-10
    size = np.diag(cell.vectors_perfect)[:2]
    for shift in (size * [1, 0], size * [0, -1], size * [2, 3]):
        moved = replace(cell, cores=cell.cores + shift)
        assert difference(core_shape(moved, u, 0), shape) < 1e-10


def test_a_shape_does_not_see_reflections(simulated: tuple[StraightCell, np.ndarray]) -> None:
    cell, u = simulated
    mirror = np.array([1.0, 1.0, -1.0])
    mirrored = replace(cell, reference=cell.reference * mirror, vectors=cell.vectors * mirror)
    assert difference(core_shape(mirrored, u * mirror, 0), core_shape(cell, u, 0)) < 1e-10


def test_a_reconstruction_is_another_state(
    simulated: tuple[StraightCell, np.ndarray], trained: tuple[StraightCell, np.ndarray]
) -> None:
    """One column next to one core pushed along the line: this core differs from all others."""
    cell, u = simulated
    away = np.linalg.norm(cell.reference[:, :2] - cell.cores[1], axis=1)
    pushed = u.copy()
    pushed[np.argmin(away), 2] += 0.5
    assert core_change(cell, u, pushed) > DIFFERENT
    assert core_spread((cell, pushed)) > UNLIKE
    assert core_mismatch((cell, pushed), [trained]) > DIFFERENT
    told = remarks({"core_spread": 0.2, "core_mismatch": 0.3, "core_change": 0.15})
    assert len(told) == 3
    assert all(word in " ".join(told) for word in ("training.size", "dislobench scan", "0.300 Å"))


def test_silicon_at_the_smallest_size_trains_on_another_core() -> None:
    """The Lomer core of Si_ppm17 differs between a dipole of L = 6 and the quadrupole; from L = 7 on it is the same."""
    spec = load("si-edge", "quick")
    calculator, crystal, elastic = calculator_of("Si_ppm17"), crystal_of("Si_ppm17"), response_of("Si_ppm17")

    def relaxed(cell: Cell) -> tuple[StraightCell, np.ndarray]:
        assert isinstance(cell, StraightCell)
        start = cell.predictor + 0.01 * np.random.default_rng(0).standard_normal(cell.predictor.shape)
        found = relax(cell, calculator, cell.metric(calculator), start, 1e-3)
        assert found.status is Status.CONVERGED
        return cell, found.displacement

    simulated = relaxed(simulation_cell(spec, crystal, elastic))
    mismatch = {
        size: core_mismatch(
            simulated,
            [
                relaxed(cell)
                for cell in training_cells(load("si-edge", "quick", [f"training.size={size}"]), crystal, elastic)
            ],
        )
        for size in (6, 7)
    }
    assert mismatch[6] > DIFFERENT > mismatch[7]
    assert mismatch[6] > 1.3 * mismatch[7]
    assert "enlarge training.size" in remarks({"core_mismatch": mismatch[6]})[0]
