"""Runs side by side: what differs, and what is left out."""

from __future__ import annotations

from dataclasses import replace

from store.runs import RunRecord
from suite.study.comparison import Line, compare, differing

A = RunRecord(
    "0" * 32,
    "a",
    "w-split",
    "FINISHED",
    "2026-01-01",
    {"L": "6", "seed": "0"},
    {"geometry_error": 0.1, "energy_error": 0.02, "c0": 0.3, "seconds_fit": 1.0, "rmse_F_0.1": 0.5, "a0": 3.16},
    {"outcome": "converged"},
    None,
)
B = replace(
    A, parameters={"L": "8", "seed": "0", "core": "easy"}, metrics=A.metrics | {"geometry_error": 0.2, "a0": 3.2}
)
C = replace(A, metrics=A.metrics | {"geometry_error": -0.4, "eps_E": 0.1, "seconds_fit": 9.0}, tags={}, status="FAILED")


def test_settings_that_differ() -> None:
    found = compare([A, B, C])
    assert found.settings == [Line("L", ("6", "8", "6")), Line("core", (None, "easy", None))]
    assert found.outcomes.values == ("converged", "converged", "failed")


def test_what_differs_comes_without_constants_and_costs() -> None:
    found = compare([A, B, C])
    assert [line.name for line in found.telling()] == ["geometry_error", "eps_E"]
    names = [line.name for line in found.numbers]
    assert names == ["geometry_error", "energy_error", "eps_E", "rmse_F_0.1", "c0", "a0", "seconds_fit"]
    assert compare([A, A]).telling() == []


def test_ratios() -> None:
    two, three = compare([A, B]), compare([A, B, C])
    assert {line.name: line.ratio for line in two.numbers}["geometry_error"] == 2.0
    ratios = {line.name: line.ratio for line in three.numbers}
    assert ratios["geometry_error"] == 4.0, "of magnitudes"
    assert ratios["eps_E"] is None
    assert Line("x", (0.0, 1.0)).ratio is None


def test_what_differs_keeps_its_order() -> None:
    assert differing([{"b": "1", "a": "1"}, {"b": "2", "a": "1", "c": "3"}]) == ["b", "c"]
    assert differing([{"b": "1"}]) == []
    assert differing([]) == []
