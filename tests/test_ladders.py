"""Ladders: the numbers they can be drawn against are those that runs have, and a run counts once in a rate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from suite.ladders import curve_of, numbers_of, wrong_ladders
from suite.pipeline import Model, Rows, World, assess
from suite.spec import Spec, Sweep
from suite.study.sweep import Point, rates_of


def test_numbers_of_a_sweep_are_those_of_a_run(tiny: Spec, world: World, rows: Rows, model: Model) -> None:
    verdict = assess(tiny, world, rows, model)
    assert not set(verdict.numbers) - set(numbers_of(tiny)), "suite.ladders.NUMBERS lists them"


def test_a_run_counts_once_in_a_rate() -> None:
    """Five runs, scattered about 1/L: ten copies of each must not narrow the interval."""
    generator = np.random.default_rng(0)
    sizes = [6.0, 7.0, 8.0, 10.0, 12.0]
    errors = [np.exp(0.2 * generator.standard_normal()) / size for size in sizes]
    points = [
        Point("CLE", 0, {"training.size": x}, x, {"geometry_error": y}, "converged", "term_F", f"run{x}", True)
        for x, y in zip(sizes, errors, strict=True)
    ]
    sweep = Sweep(ladders={"training.size": tuple(sizes)})
    once = rates_of(points, sweep)["geometry_error", "CLE"]
    copies = [replace(point, seed=seed) for point in points for seed in range(10)]
    assert rates_of(copies, sweep)["geometry_error", "CLE"] == once
    assert once.points == len(sizes)


def test_a_ladder_of_curves_has_a_slope_for_each_value() -> None:
    """Linear on one curve, quadratic on the other: together they would be neither."""
    sweep = Sweep(
        ladders={"model.channels": ([8], [9], [10], [11]), "training.size": (6, 8)},
        curves="training.size",
        ablation=False,
        against="rmse_F",
    )
    points = []
    for size, power in ((6, 1.0), (8, 2.0)):
        for rung, x in enumerate((1e-3, 2e-3, 4e-3, 8e-3)):
            values = {"model.channels": [8 + rung], "training.size": size}
            curve = curve_of(sweep, values, "")
            numbers = {"geometry_error": x**power}
            points.append(Point(curve, 0, values, x, numbers, "converged", "", f"{size}{rung}", True))
    rates = rates_of(points, sweep)
    assert {key: round(rate.slope, 9) for key, rate in rates.items()} == {
        ("geometry_error", "L = 6"): 1.0,
        ("geometry_error", "L = 8"): 2.0,
    }
    assert not list(wrong_ladders(sweep))


def test_curves_must_be_a_ladder_and_no_ablation() -> None:
    ladders = {"training.size": (6, 8)}
    wrong = list(wrong_ladders(Sweep(ladders=ladders, curves="training.sizes", ablation=False)))
    assert [key for key, _ in wrong] == ["curves"]
    assert "did you mean 'training.size'" in wrong[0][1]
    wrong = list(wrong_ladders(Sweep(ladders=ladders, curves="training.size")))
    assert wrong == [("curves", "the settings of the ablation are the curves already: write ablation = false")]
