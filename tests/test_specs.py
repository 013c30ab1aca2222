"""Every shipped case has a tiny twin that runs from spec to verdict."""

from __future__ import annotations

import numpy as np
import pytest

from suite.ladders import numbers_of
from suite.pipeline import assess, build_rows, build_world, fit
from suite.spec import load, shipped
from suite.study import archive
from suite.world.cell import StraightCell
from suite.world.dislocation import find_cores
from suite.world.relaxation import Status


@pytest.mark.parametrize("name", [name for name in shipped() if name != "w-split"])  # test_cli runs that one
def test_tiny_twin_runs(name: str) -> None:
    spec = load(name, "tiny")
    world = build_world(spec)
    assert world.stability > 0
    cells = (*world.training, world.simulation)
    for cell, equilibrium in zip(cells, (*(found for _, found in world.trained), world.equilibrium), strict=True):
        assert cell.judge(equilibrium.displacement, 0.8 * cell.a0)[0] == "kept"
        if isinstance(cell, StraightCell):
            found = find_cores(cell.circuits, equilibrium.displacement, 1.5 * cell.a0)
            total = sorted(tuple(np.round(core.burgers, 4) + 0.0) for core in found)
            assert total == sorted(tuple(np.round(b, 4) + 0.0) for b in cell.burgers)
    if world.fault_energy is not None:  # what only dislocations have that split outlives the cache
        again = archive.simulation_from(spec, archive.simulation_groups(world))
        assert again.fault_energy == world.fault_energy
        assert (again.landscape.glide is None) == (world.landscape.glide is None) == (spec.dislocation.kind == "screw")
        force = np.random.default_rng(0).standard_normal(world.equilibrium.forces.shape)
        np.testing.assert_allclose(
            again.landscape.factor.solve(force), world.landscape.factor.solve(force), rtol=1e-6, atol=1e-6
        )
    rows = build_rows(spec, world)
    model = fit(spec, rows)
    verdict = assess(spec, world, rows, model)
    assert verdict.status in (Status.CONVERGED, Status.MAX_STEPS, Status.MOVED, Status.DIVERGED)
    numbers = verdict.numbers
    assert not set(numbers) - set(numbers_of(spec)), "suite.ladders lists them"
    assert numbers["neutral_modes"] == int(world.landscape.glide is not None)
    if world.fault_energy is not None:
        # partials are 5 Å wide themselves, and as far apart as elastic theory says or a little further
        assert numbers["partial_separation_elastic"] < numbers["partial_separation"]
        assert numbers["partial_separation"] < numbers["partial_separation_elastic"] + 6
        assert numbers["partial_separation_model"] == pytest.approx(numbers["partial_separation"], abs=1.5)
        assert numbers["fault_energy_model"] == pytest.approx(numbers["fault_energy"], rel=0.35)
    assert verdict.numbers["eps_V1"] < np.linalg.norm(world.response.d2)
    # linear response to a fit says how large its forces at the equilibrium are; a wrong sign anywhere makes it huge
    labels = np.concatenate([test.forces.ravel() for test in rows.test])
    assert verdict.numbers["rmse_F"] < 0.5 * np.sqrt((labels**2).mean())
