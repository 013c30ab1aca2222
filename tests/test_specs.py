"""Every shipped case has a tiny twin that runs from spec to verdict."""

from __future__ import annotations

import numpy as np
import pytest

from suite.pipeline import assess, build_rows, build_world, fit
from suite.spec import load, shipped
from suite.world.cell import StraightCell
from suite.world.dislocation import find_cores
from suite.world.relaxation import Status


@pytest.mark.parametrize("name", [name for name in shipped() if name != "w-split"])  # test_cli runs that one
def test_tiny_twin_runs(name: str) -> None:
    spec = load(name, "tiny")
    world = build_world(spec)
    assert world.stability > 0
    cells = (*world.training, world.simulation)
    for cell, equilibrium in zip(cells, (*world.training_equilibria, world.equilibrium), strict=True):
        assert cell.judge(equilibrium.displacement, 0.8 * cell.a0)[0] == "kept"
        if isinstance(cell, StraightCell):
            found = find_cores(cell.circuits, equilibrium.displacement, 1.5 * cell.a0)
            total = sorted(tuple(np.round(core.burgers, 4) + 0.0) for core in found)
            assert total == sorted(tuple(np.round(b, 4) + 0.0) for b in cell.burgers)
    rows = build_rows(spec, world)
    model = fit(spec, rows)
    verdict = assess(spec, world, rows, model)
    assert verdict.status in (Status.CONVERGED, Status.MAX_STEPS, Status.MOVED, Status.DIVERGED)
    assert verdict.numbers["eps_V1"] < np.linalg.norm(world.response.d2)
    # linear response to a fit says how large its forces at the equilibrium are; a wrong sign anywhere makes it huge
    labels = np.concatenate([test.forces.ravel() for test in rows.test])
    assert verdict.numbers["rmse_F"] < 0.5 * np.sqrt((labels**2).mean())
