"""The largest errors in a ball: against closed forms, and never below what is at hand."""

from __future__ import annotations

import numpy as np
import pytest
from ase.calculators.calculator import Calculator
from materials import Sprung
from threadpoolctl import threadpool_limits

from suite.judge.matching import match_relaxed
from suite.judge.neighbourhood import Ball, Difference, match_neighbourhood
from suite.results import Model, Rows, World


def test_springs_have_their_largest_errors_in_the_softest_mode(world: World, zhou: Calculator) -> None:
    """ΔE = k/2 |v - ȳ|² and ΔF = -k(v - ȳ): over ‖D(v - ȳ)‖ <= δ at most k δ²/2λ and k δ/λ, λ the lowest eigenvalue of
    K. The error vanishes at ȳ with its gradient, so that only the random start leads anywhere."""
    cell, home = world.training[0], world.trained[0].equilibrium.displacement
    stiffness, radius = 0.4, 0.7
    model = Sprung(zhou, cell.reference + home, stiffness)
    with threadpool_limits(1):
        lowest = np.linalg.eigvalsh(cell.laplacian.toarray())[1]
    bulk = (world.energy_per_atom,) * 2
    found = match_neighbourhood([(cell, home)], zhou, model, bulk, radius)
    largest = {"eps_E_ball": stiffness * radius**2 / 2 / lowest, "eps_F_ball": stiffness * radius / lowest}
    for name, value in largest.items():
        assert 0.95 * value < found[name] < value * (1 + 1e-6)
    assert match_relaxed([(cell, home, world.trained[0].equilibrium.forces)], model)["eps_F_relaxed"] < 1e-8


def test_a_ball_holds_what_it_says_and_an_ascent_gains(
    world: World, rows: Rows, model: Model, zhou: Calculator
) -> None:
    cell, found = world.training[0], world.trained[0].equilibrium
    fitted, ball = model.calculator(rows), Ball(cell, found.displacement, 0.5)
    v = found.displacement + np.random.default_rng(1).standard_normal(found.displacement.shape)
    inside = ball.project(v)
    assert cell.strain_norm(inside - found.displacement) == pytest.approx(0.5)
    np.testing.assert_allclose(ball.project(inside), inside, atol=1e-12)
    bulk = (world.energy_per_atom,) * 2
    numbers = match_neighbourhood([(cell, found.displacement)], zhou, fitted, bulk, 0.5)
    energy, force = Difference(cell, (zhou, fitted), bulk)(found.displacement)
    relaxed = match_relaxed([(cell, found.displacement, found.forces)], fitted)["eps_F_relaxed"]
    assert relaxed == pytest.approx(cell.dual_norm(force), rel=1e-6)
    # an energy error changes by eps_F times the distance at least, to first order
    assert numbers["eps_E_ball"] > abs(energy) + 0.9 * 0.5 * relaxed
    assert numbers["eps_F_ball"] > relaxed
