"""Ladders: the numbers they can be drawn against are those that runs have, and a run counts once in a rate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from suite.ladders import curve_of, numbers_of, overrides_of, points_of, short_label, wrong_ladders
from suite.pipeline import assess
from suite.results import Model, Rows, World
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


VARIANTS = {"none": {"observables.virial1": False}, "V1 1000": {"weights.virial1": 1000}}


def test_variants_are_curves_with_keys_of_their_own() -> None:
    sweep = Sweep(
        ladders={"simulation.size": (24, 32), "training.size": (6, 8)},
        curves="training.size",
        variants=VARIANTS,
        ablation=False,
        set={"weights.virial1": 10, "weights.energy": 5},
    )
    points = points_of(sweep)
    assert len(points) == 2 * 2 * 2
    assert {curve_of(sweep, values, setting) for values, _, setting in points} == {
        f"{name}, L = {size}" for name in VARIANTS for size in (6, 8)
    }
    values = {"simulation.size": 24, "training.size": 6}
    common = {"weights.energy": 5, "training.seed": 3, **values}
    assert overrides_of(sweep, values, 3, "none") == common | {
        "weights.virial1": 10,
        "observables.virial1": False,
    }
    assert overrides_of(sweep, values, 3, "V1 1000") == common | {"weights.virial1": 1000}
    assert not list(wrong_ladders(sweep))


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        ({"variants": {"a": {"weights.energy": 1}}}, "variants", "write ablation = false"),
        ({"variants": {"a": {"weights.virial": 1}}, "ablation": False}, "variants", "no key 'weights.virial'"),
        ({"variants": {"": {"weights.energy": 1}}, "ablation": False}, "variants", "needs a name"),
        ({"variants": {"a": {"training.size": 1}}, "ablation": False}, "ladders", "sets it too"),
        ({"law": "logarithm"}, "law", "log_L_D"),
        ({"law": "logarithm", "against": "log_L_D", "expect": {"geometry_error": 1}}, "expect", "remove it"),
    ],
)
def test_variants_and_laws_that_mean_nothing_are_refused(change: dict[str, Any], key: str, words: str) -> None:
    wrong = list(wrong_ladders(Sweep.model_validate({"ladders": {"training.size": (6, 8)}} | change)))
    assert [found for found, _ in wrong] == [key]
    assert words in wrong[0][1]


def test_a_point_is_told_in_short() -> None:
    """By the symbols of the axes; a value that two tables of the spec share stands once."""
    values = {"training.size": 5, "model.arguments.beyond": 5.0, "material.arguments.beyond": 5.0}
    assert short_label(values) == "L = 5, arguments.beyond = 5.0"
    assert short_label({"simulation.size": 24, "weights.virial1": 10}) == "N = 24, virial1 = 10"
    assert short_label({}) == ""
