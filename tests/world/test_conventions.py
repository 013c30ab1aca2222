"""What docs/conventions.md says of signs and orders, measured."""

from __future__ import annotations

import numpy as np
import pytest
from ase.calculators.calculator import Calculator

from suite.results import World
from suite.world.cell import StraightCell
from suite.world.crystal import GPA


def test_the_burgers_vector_is_what_the_displacement_gains_counter_clockwise(world: World) -> None:
    cell = world.simulation
    assert isinstance(cell, StraightCell)
    for core, burgers in zip(cell.cores, cell.burgers, strict=True):
        away = cell.reference[:, :2] - core
        distance = np.linalg.norm(away, axis=1)
        ring = np.flatnonzero((distance > 4.0) & (distance < 7.0))
        ring = ring[np.argsort(np.arctan2(away[ring, 1], away[ring, 0]))]
        steps = np.diff(cell.predictor[ring, 2], append=cell.predictor[ring[0], 2])
        length = float(np.linalg.norm(burgers))
        steps -= length * np.rint(steps / length)  # a cut changes which atoms are neighbours, and nothing else
        assert steps.sum() == pytest.approx(burgers[2], rel=1e-6)


def test_norms_count_every_bond_both_ways(world: World) -> None:
    cell = world.simulation
    field = np.random.default_rng(0).standard_normal(cell.predictor.shape)
    by_bonds = sum(float(((field[j] - field[i]) ** 2).sum()) for i, j in cell.bonds)
    assert cell.strain_norm(field) ** 2 == pytest.approx(by_bonds)
    assert (field * (cell.laplacian @ field)).sum() == pytest.approx(by_bonds)
    pairs = set(map(tuple, cell.bonds.tolist()))
    assert all((j, i) in pairs for i, j in pairs)


def test_frames_and_cells_are_right_handed(world: World) -> None:
    frame = world.dislocation.frame
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(frame) == pytest.approx(1)
    assert np.linalg.det(world.simulation.vectors) > 0
    np.testing.assert_allclose(world.simulation.vectors[2, :2], 0, atol=1e-12)


def test_a_stretched_crystal_has_positive_stress_and_negative_pressure(world: World, zhou: Calculator) -> None:
    atoms = world.crystal.deformed(1.001 * np.eye(3))
    atoms.calc = zhou
    stress = atoms.get_stress()[:3]
    bulk = (stress / 0.003).mean() * GPA  # three times the bulk modulus over three times the strain
    assert stress.min() > 0
    assert bulk == pytest.approx(310, rel=0.05)
