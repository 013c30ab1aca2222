"""The geometry that a spec describes: dislocation, simulation cell, training cells. Also commands that need no
model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator

from suite.execution import single_threaded
from suite.progress import Progress, silent
from suite.results import elasticity_of
from suite.spec import Spec
from suite.world.cell import Cell, StraightCell, build_cell
from suite.world.crystal import (
    LATTICES,
    Crystal,
    Response,
    elastic_tensor,
    energy_per_atom,
    equilibrium_crystal,
    response,
    strain_path,
)
from suite.world.dislocation import LOOPS, Dislocation, ImpossibleCell, Loop, catalogue_entry
from suite.world.lammps_job import write_job
from suite.world.loop import build_loop
from suite.world.reference import build_reference
from suite.world.scan import ScannedSite, scan


def dislocation_of(spec: Spec) -> Dislocation | Loop:
    """The catalogue entry that the spec names."""
    lattice, kind, variant = spec.material.lattice, spec.dislocation.kind, spec.dislocation.variant
    return LOOPS[lattice, variant] if kind == "loop" else catalogue_entry(lattice, kind, variant)


def reference_crystal(spec: Spec, calculator: Calculator) -> tuple[Crystal, float, Response]:
    """The reference's perfect crystal, its energy per atom (eV) and its elastic response."""
    crystal = equilibrium_crystal(LATTICES[spec.material.lattice], spec.material.species, calculator)
    path = strain_path(crystal, calculator, spec.material.strain_step, coarse=True)
    return crystal, energy_per_atom(crystal, calculator), response(crystal, calculator, path)


def training_cells(spec: Spec, crystal: Crystal, response: Response) -> tuple[StraightCell, ...]:
    """Training cells (2L wide), displaced by the elastic field, not relaxed."""
    dislocation, kind = spec.dislocation, dislocation_of(spec)
    cells = []
    for _, straight, repeats in kind.training_shapes(spec.training.size):
        # a core site that the spec names belongs to its own dislocation; other training dislocations take their usual
        # one
        usual = dislocation.core if straight is kind else next(iter(straight.sites))
        sites = dislocation.sites or straight.sites[usual]
        cells.append(build_cell(crystal, straight, elasticity_of(straight, response), "dipole", repeats, sites))
    return tuple(cells)


def simulation_cell(spec: Spec, crystal: Crystal, response: Response) -> Cell:
    """The simulation cell (N wide), displaced by the elastic field, not relaxed."""
    dislocation, kind = spec.dislocation, dislocation_of(spec)
    repeats = kind.repeats(spec.simulation.size)
    if isinstance(kind, Loop):  # the two kinds of cell are built from different settings
        assert dislocation.diameter is not None  # `Spec` refuses a loop without one
        return build_loop(crystal, kind, elastic_tensor(response), repeats[0], dislocation.diameter)
    sites = dislocation.sites or kind.sites[dislocation.core]
    return build_cell(crystal, kind, elasticity_of(kind, response), dislocation.arrangement, repeats, sites)


def perturbed(spec: Spec, cell: Cell) -> np.ndarray:
    """The start of a relaxation: the displacement (n, 3) of the elastic field plus the spec's noise."""
    noise = np.random.default_rng(spec.simulation.seed).standard_normal(cell.predictor.shape)
    return cell.predictor + spec.simulation.perturbation * noise


def export_job(spec: Spec, folder: Path, progress: Progress = silent) -> list[Path]:
    """Write the relaxation of the simulation cell as a LAMMPS job for `mpirun`; returns its files.

    The job stops at ten times the spec's force tolerance; `build_world` continues from its result.
    """
    calculator = build_reference(spec.material.reference, spec.material.arguments)
    progress("crystal", 0.0, "lattice constant and elastic response")
    crystal, _, elastic = reference_crystal(spec, calculator)
    simulation = simulation_cell(spec, crystal, elastic)
    progress("job", 0.0, f"{len(simulation)} atoms")
    start = perturbed(spec, simulation)
    return write_job(folder, simulation, calculator, start, 10 * spec.simulation.force_tolerance)


@single_threaded
def scan_cores(spec: Spec, width: float, grid: int, progress: Progress = silent) -> list[ScannedSite]:
    """Relax the spec's arrangement in a small cell, `width` a0 wide, from every candidate core site; lowest first."""
    calculator = build_reference(spec.material.reference, spec.material.arguments)
    crystal, _, elastic = reference_crystal(spec, calculator)
    kind = dislocation_of(spec)
    if not kind.sites:
        raise ImpossibleCell("a loop has no core site to scan for; its diameter is dislocation.diameter")
    return scan(
        crystal,
        spec.material.lattice,
        kind.straight,
        elasticity_of(kind.straight, elastic),
        calculator,
        width,
        spec.dislocation.arrangement,
        grid,
        progress=progress,
    )
