"""Ladders: the numbers they can be drawn against are those that runs have, and a run counts once in a rate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from suite.ladders import numbers_of
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
