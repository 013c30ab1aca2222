"""The first stage: the reference's crystal, simulation and training cells, and their equilibria."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator

from suite.execution import single_threaded
from suite.progress import Progress, silent
from suite.results import Simulation, Solved, World
from suite.spec import Spec
from suite.stages.cells import dislocation_of, perturbed, reference_crystal, simulation_cell, training_cells
from suite.stages.engine import engine_of
from suite.world.cell import Cell, Metric, StraightCell
from suite.world.crystal import Crystal, Response
from suite.world.curvature import Curvature, Landscape, landscape_at
from suite.world.lammps_job import read_job
from suite.world.partials import stacking_fault_energy
from suite.world.reference import build_reference
from suite.world.relaxation import FailedRelaxation, Relaxation, Status, relax_with


@single_threaded
def build_world(
    spec: Spec, progress: Progress = silent, job: Path | None = None, simulated: Simulation | None = None
) -> World:
    """Reference crystal and elasticity, then training and simulation cell with their equilibria.

    With a `job`, the relaxation of the simulation cell starts from the result of a LAMMPS job (see `cells.export_job`).
    With `simulated`, an earlier result, crystal and simulation cell are taken from it.
    Raises `FailedRelaxation` before anything is fitted when an equilibrium has lost its dislocations (they annihilated
    or moved) or is a saddle.
    """
    calculator = build_reference(spec.material.reference, spec.material.arguments)
    if simulated is None:
        progress("crystal", 0.0, "lattice constant and elastic response")
        crystal, energy, elastic = reference_crystal(spec, calculator)
    else:
        crystal, energy, elastic = simulated.crystal, simulated.energy_per_atom, simulated.response
    cells = training_cells(spec, crystal, elastic)
    shapes = dislocation_of(spec).training_shapes(spec.training.size)
    names = [f"{name} training cell".strip() for name, _, _ in shapes]
    relaxed = [
        equilibrium_in(spec, cell, calculator, cell.metric(calculator), name, "training.size", progress)
        for name, cell in zip(names, cells, strict=True)
    ]
    if simulated is None:
        simulated = _simulate(spec, calculator, crystal, energy, elastic, progress, job)
    return World.of(simulated, list(map(Solved, cells, relaxed)))


def _simulate(
    spec: Spec,
    calculator: Calculator,
    crystal: Crystal,
    energy: float,
    elastic: Response,
    progress: Progress,
    job: Path | None,
) -> Simulation:
    """Relax the simulation cell, measure the energy around its equilibrium, and refuse a saddle."""
    kind = dislocation_of(spec)
    fault = None if kind.fault is None else stacking_fault_energy(crystal, kind.straight, calculator)
    cell = simulation_cell(spec, crystal, elastic)
    start = None if job is None else read_job(job, cell)
    metric = cell.metric(calculator)
    what = "simulation cell"

    def around(forces: Calculator) -> Landscape:
        return landscape_at(cell, forces, equilibrium.displacement, metric, progress)

    with engine_of(spec, cell, calculator, what, progress) as engine:
        equilibrium = equilibrium_in(spec, cell, calculator, metric, what, "simulation.size", progress, start, engine)
        # products with the Hessian of a loop are whole force calls, and most of all that there are
        products = None if isinstance(cell, StraightCell) else around(engine or calculator)
    landscape = products or around(calculator)
    if landscape.stability <= 0:
        raise FailedRelaxation("simulation cell", replace(equilibrium, status=Status.SADDLE))
    return Simulation(crystal, energy, elastic, kind, cell, equilibrium, landscape, fault)


def curvature_of(
    spec: Spec, world: Simulation, engine: Callable[[Calculator], Calculator] = lambda reference: reference
) -> Curvature:
    """The reference's second derivatives at the equilibrium of the simulation cell; `engine` as in
    `Landscape.curvature`."""
    return world.landscape.curvature(
        world.simulation,
        world.equilibrium.displacement,
        lambda: build_reference(spec.material.reference, spec.material.arguments),
        engine,
    )


def equilibrium_in(
    spec: Spec,
    cell: Cell,
    calculator: Calculator,
    metric: Metric,
    what: str,
    key: str,
    progress: Progress,
    start: np.ndarray | None = None,
    engine: Calculator | None = None,
) -> Relaxation:
    """Relax `cell`, called `what`, from its elastic field with noise or from `start` (n, 3); `engine` as in
    `relaxation.relax_with`.

    Raises `FailedRelaxation`, which names `key`, the key of the spec that sets the size of the cell.
    """
    settings = spec.simulation
    progress(what, 0.0, f"{len(cell)} atoms")
    result = relax_with(
        engine,
        cell,
        calculator,
        metric,
        perturbed(spec, cell) if start is None else start,
        settings.force_tolerance,
        settings.max_steps,
        progress=lambda calls, force: progress(what, calls / settings.max_steps, f"force {force:.1e} eV/Å"),
    )
    if result.status is not Status.CONVERGED:
        repeats = " x ".join(str(n) for n in cell.repeats if n > 1)
        raise FailedRelaxation(f"{what} ({key}, {repeats} repeats, {len(cell)} atoms)", result)
    return result
