"""The method on one screen: world, rows, fit, judgement.

    spec = load("w-screw", preset="quick")
    world = build_world(spec)           # reference crystal, simulation and training cell, their equilibria
    rows = build_rows(spec, world)      # labelled configurations, reduced design matrix; no weights yet
    model = fit(spec, rows)             # weights and solver: milliseconds
    verdict = assess(spec, world, rows, model)

World and rows do not depend on weights; `stage_tables` says which tables of the spec each stage reads. What a stage
hands on are the records of `suite.results`. Every function here depends on its arguments only: nothing is written, and
randomness comes from the seeds in the spec.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator

from store.faults import BadInput
from suite.execution import single_threaded
from suite.judge import theory
from suite.judge.errors import Curvature, compare
from suite.judge.matching import (
    match_configurations,
    match_elasticity,
    match_energy_factor,
    match_growth,
    match_hessian,
    match_relaxed,
)
from suite.judge.neighbourhood import match_neighbourhood
from suite.judge.oracle import Oracle, Scales, elastic_forms, line_moduli, reduce_response, reduce_test_sets
from suite.model import regression
from suite.model.contract import Recipe
from suite.model.given import GivenSpec
from suite.model.linear import BroughtSpec, LinearSpec
from suite.model.regression import Block, Solution, by_observable
from suite.model.rows import BasisSpec, configuration_blocks, elastic_blocks, elastic_rows, perfect_row
from suite.model.training import Configurations, label, rattle
from suite.records import SINGLE_STEP
from suite.results import Model, Rows, Simulation, Verdict, World, elasticity_of
from suite.spec import Spec
from suite.world.cell import Cell, Metric, StraightCell, build_cell, repeats_for
from suite.world.core_state import core_change, core_mismatch, core_spread
from suite.world.crystal import (
    LATTICES,
    Crystal,
    Response,
    cubic_tensor,
    cubic_third_order,
    elastic_tensor,
    energy_per_atom,
    equilibrium_crystal,
    response,
    single_precision,
    strain_path,
)
from suite.world.dislocation import LOOPS, Dislocation, ImpossibleCell, Loop, catalogue_entry
from suite.world.elasticity import rotate, stroh
from suite.world.glide import neutral_glide
from suite.world.hessian import COARSE, FINE, Factor, HessianProducts, hessian, softest_mode, stability_constant
from suite.world.lammps_job import read_job, write_job
from suite.world.loop import build_loop
from suite.world.partials import elastic_separation, fault_energy, separation_in_cell, stacking_fault_energy
from suite.world.reference import build_reference
from suite.world.relaxation import FailedRelaxation, Relaxation, Status, relax
from suite.world.scan import ScannedSite, scan

MJ_PER_M2 = 16021.766  # eV/Å^2 -> mJ/m^2
Progress = Callable[[str, float, str], None]  # what is done, fraction in [0, 1], a note


def silent(what: str, fraction: float, note: str) -> None:
    """Progress that nobody sees."""


def dislocation_of(spec: Spec) -> Dislocation | Loop:
    """The catalogue entry that the spec names."""
    lattice, kind, variant = spec.material.lattice, spec.dislocation.kind, spec.dislocation.variant
    return LOOPS[lattice, variant] if kind == "loop" else catalogue_entry(lattice, kind, variant)


def recipe_of(spec: Spec) -> Recipe | GivenSpec:
    """The basis that the spec describes, or the potential or the functions that it names."""
    model = spec.model
    if not model.fitted:
        return GivenSpec(model.calculator, model.arguments)
    if model.named:
        return LinearSpec(model.calculator, model.arguments)
    if model.backend != "pyace":
        return BroughtSpec(model.backend, spec.material.species, model.arguments)
    assert model.cutoff is not None  # `Spec` refuses a basis without one
    return BasisSpec(
        spec.material.species,
        model.cutoff,
        model.channels,
        model.degrees,
        model.radial,
        model.total_degree,
        model.angular_weight,
    )


def stage_tables(spec: Spec) -> dict[str, dict[str, Any]]:
    """The part of the spec that each stage reads: what its content key hashes."""
    world = spec.table("material", "dislocation", "simulation")
    relaxation = {key: value for key, value in world["simulation"].items() if key != "size"}
    training = {**world, "simulation": relaxation, "training": {"size": spec.training.size}}
    return {"simulation": world, "training": training, "rows": {**training, **spec.table("training", "model")}}


@single_threaded
def build_world(
    spec: Spec, progress: Progress = silent, job: Path | None = None, simulated: Simulation | None = None
) -> World:
    """Reference crystal and elasticity, then training and simulation cell with their equilibria.

    The simulation cell starts from the result of a LAMMPS `job` where there is one (see `export_job`); what has been
    `simulated` for another training cell is taken over.
    Raises `FailedRelaxation` when an equilibrium is no dislocation dipole or quadrupole any more (annihilated, moved,
    a saddle), before anything is fitted to it.
    """
    calculator = build_reference(spec.material.reference, spec.material.arguments)
    if simulated is None:
        progress("crystal", 0.0, "lattice constant and elastic response")
        crystal, energy, elastic = _crystal(spec, calculator)
    else:
        crystal, energy, elastic = simulated.crystal, simulated.energy_per_atom, simulated.response
    training = training_cells(spec, crystal, elastic)
    shapes = training_shapes(spec)
    names = ["training cell"] if len(shapes) == 1 else [f"{name} training cell" for name, _, _ in shapes]
    relaxed = tuple(
        _equilibrium(spec, cell, calculator, cell.metric(calculator), name, "training.size", progress)
        for name, cell in zip(names, training, strict=True)
    )
    if simulated is None:
        simulated = _simulate(spec, calculator, crystal, energy, elastic, progress, job)
    return World.of(simulated, training, relaxed)


def _crystal(spec: Spec, calculator: Calculator) -> tuple[Crystal, float, Response]:
    """The reference's perfect crystal, its energy per atom (eV) and its elastic response."""
    crystal = equilibrium_crystal(LATTICES[spec.material.lattice], spec.material.species, calculator)
    path = strain_path(crystal, calculator, spec.material.strain_step, coarse=True)
    return crystal, energy_per_atom(crystal, calculator), response(crystal, calculator, path)


def _simulate(
    spec: Spec,
    calculator: Calculator,
    crystal: Crystal,
    energy: float,
    elastic: Response,
    progress: Progress,
    job: Path | None,
) -> Simulation:
    """Relax the simulation cell, measure its Hessian, hold a neutral glide mode, and refuse a saddle."""
    kind = dislocation_of(spec)
    fault = None
    if isinstance(kind, Dislocation) and kind.fault is not None:
        fault = stacking_fault_energy(crystal, kind, calculator)
    simulation = simulation_cell(spec, crystal, elastic)
    start = None if job is None else read_job(job, simulation)
    metric = simulation.metric(calculator)
    equilibrium = _equilibrium(
        spec, simulation, calculator, metric, "simulation cell", "simulation.size", progress, start
    )
    matrix = factor = glide = None
    if isinstance(simulation, StraightCell):
        matrix = hessian(
            simulation,
            calculator,
            equilibrium.displacement,
            progress=lambda done, total: progress("Hessian", done / total, f"{done} of {total} colours"),
            threshold=COARSE if fault is None else FINE,
        )
        progress("stability", 0.0, "factor and smallest eigenvalue")
        factor = Factor(matrix)
        stability, softest = stability_constant(simulation, matrix, factor)
        if glide := neutral_glide(simulation, equilibrium.displacement, stability, softest):
            factor = factor.holding(glide.pull)
            stability, softest = stability_constant(simulation, matrix, factor)
    else:
        progress("stability", 0.0, "smallest eigenvalue by conjugate gradients")
        products = HessianProducts(simulation, calculator, equilibrium.displacement, metric, twofold=True)
        stability, softest = softest_mode(
            products,
            simulation.soft_fields(equilibrium.displacement),
            progress=lambda share, note: progress("stability", share, note),
        )
    if stability <= 0:
        raise FailedRelaxation("simulation cell", replace(equilibrium, status=Status.SADDLE))
    simulated = Simulation(
        crystal, energy, elastic, kind, simulation, equilibrium, matrix, stability, softest, glide, fault
    )
    if factor is not None:
        simulated.__dict__["factor"] = factor
    return simulated


def curvature_of(spec: Spec, world: World) -> Curvature:
    """The reference's second derivatives at the simulation equilibrium: by the factor of its Hessian, or by conjugate
    gradients where there is none."""
    if world.hessian is not None:
        solve = world.factor.solve
        return Curvature(lambda force, tolerance: solve(force), solve, world.stability, world.softest, world.glide)
    calculator = build_reference(spec.material.reference, spec.material.arguments)
    metric = world.simulation.metric(calculator)
    products = HessianProducts(world.simulation, calculator, world.equilibrium.displacement, metric, twofold=True)
    return Curvature(products.solve, metric, world.stability, world.softest)


@single_threaded
def scan_cores(spec: Spec, width: float, grid: int, progress: Progress = silent) -> list[ScannedSite]:
    """Relax the spec's arrangement in a small cell, `width` a0 wide, from every candidate core site; lowest first."""
    calculator = build_reference(spec.material.reference, spec.material.arguments)
    crystal, _, elastic = _crystal(spec, calculator)
    kind = dislocation_of(spec)
    if isinstance(kind, Loop):
        raise ImpossibleCell("a loop has no core site to scan for; its diameter is dislocation.diameter")
    return scan(
        crystal,
        spec.material.lattice,
        kind,
        elasticity_of(kind, elastic),
        calculator,
        width,
        spec.dislocation.arrangement,
        grid,
        progress=progress,
    )


def training_shapes(spec: Spec) -> list[tuple[str, Dislocation, tuple[int, int, int]]]:
    """Name, dislocation and repeats of every training cell: dipoles in cells 2L wide.

    The edge dipole that goes with a loop has a cell 2L wide and L high: edges glide together at once in a square one,
    while walls of them, closely stacked, hold each other in place.
    """
    kind, size = dislocation_of(spec), spec.training.size
    if isinstance(kind, Dislocation):
        return [(spec.dislocation.kind, kind, repeats_for(2 * size, kind))]
    shapes = []
    for name, variant in kind.training:
        straight = catalogue_entry(spec.material.lattice, name, variant)
        shapes.append((name, straight, repeats_for(2 * size, straight, size if name == "edge" else 2 * size)))
    return shapes


def training_cells(spec: Spec, crystal: Crystal, response: Response) -> tuple[StraightCell, ...]:
    """Training cells (2L wide), displaced by the elastic field, not relaxed."""
    dislocation = spec.dislocation
    named = dislocation.kind != "loop"  # the core site that a spec names is that of its own straight dislocation
    cells = []
    for _, straight, repeats in training_shapes(spec):
        first = next(iter(straight.sites.values()))
        sites = dislocation.sites or (straight.sites[dislocation.core] if named else first)
        elasticity = elasticity_of(straight, response)
        cells.append(build_cell(crystal, straight, elasticity, "dipole", repeats, sites))
    return tuple(cells)


def simulation_cell(spec: Spec, crystal: Crystal, response: Response) -> Cell:
    """The simulation cell (N wide), displaced by the elastic field, not relaxed."""
    dislocation, kind = spec.dislocation, dislocation_of(spec)
    if isinstance(kind, Dislocation):
        repeats, sites = repeats_for(spec.simulation.size, kind), dislocation.sites or kind.sites[dislocation.core]
        return build_cell(crystal, kind, elasticity_of(kind, response), dislocation.arrangement, repeats, sites)
    assert dislocation.diameter is not None  # `Spec` refuses a loop without one
    width = max(1, round(spec.simulation.size))
    return build_loop(crystal, kind, elastic_tensor(response), width, dislocation.diameter)


def export_job(spec: Spec, folder: Path, progress: Progress = silent) -> list[Path]:
    """Write the relaxation of the simulation cell as a LAMMPS job for `mpirun`; returns its files.

    The job stops at ten times the spec's force tolerance; `build_world` goes on from there.
    """
    calculator = build_reference(spec.material.reference, spec.material.arguments)
    progress("crystal", 0.0, "lattice constant and elastic response")
    crystal, _, elastic = _crystal(spec, calculator)
    simulation = simulation_cell(spec, crystal, elastic)
    progress("job", 0.0, f"{len(simulation)} atoms")
    start = _perturbed(spec, simulation)
    return write_job(folder, simulation, calculator, start, 10 * spec.simulation.force_tolerance)


def _perturbed(spec: Spec, cell: Cell) -> np.ndarray:
    noise = np.random.default_rng(spec.simulation.seed).standard_normal(cell.predictor.shape)
    return cell.predictor + spec.simulation.perturbation * noise


def _equilibrium(
    spec: Spec,
    cell: Cell,
    calculator: Calculator,
    metric: Metric,
    what: str,
    key: str,
    progress: Progress,
    start: np.ndarray | None = None,
) -> Relaxation:
    settings = spec.simulation
    progress(what, 0.0, f"{len(cell)} atoms")
    result = relax(
        cell,
        calculator,
        metric,
        _perturbed(spec, cell) if start is None else start,
        settings.force_tolerance,
        settings.max_steps,
        progress=lambda calls, force: progress(what, calls / settings.max_steps, f"force {force:.1e} eV/Å"),
    )
    if result.status is not Status.CONVERGED:
        repeats = " x ".join(str(n) for n in cell.repeats if n > 1)
        raise FailedRelaxation(f"{what} ({key}, {repeats} repeats, {len(cell)} atoms)", result)
    return result


@single_threaded
def build_rows(spec: Spec, world: World, progress: Progress = silent, workers: int | None = None) -> Rows:
    """Labelled training and test configurations and the reduced design matrix of the basis."""
    calculator = build_reference(spec.material.reference, spec.material.arguments)
    settings = spec.training
    generator = np.random.default_rng(settings.seed)
    training, testing = [], []
    shares = [_shares(count, len(world.training)) for count in (settings.configurations, settings.test)]
    cells = zip(world.training, world.training_equilibria, *shares, strict=True)
    for index, (cell, equilibrium, trained, tested) in enumerate(cells):
        ground = equilibrium.displacement
        displacements, amplitudes = rattle(ground, settings.amplitudes, trained + tested, generator, first=index)
        if not spec.model.fitted:  # the test set is the same as that of a fit
            displacements, amplitudes, trained = displacements[trained:], amplitudes[trained:], 0
        labelled = label(cell, displacements, amplitudes, calculator, world.energy_per_atom)
        train, test = labelled.split(trained)
        if settings.equilibrium and spec.model.fitted:
            relaxed = label(cell, ground[None], np.zeros(1), calculator, world.energy_per_atom)
            train = Configurations(
                *(
                    np.concatenate([getattr(relaxed, name), getattr(train, name)])
                    for name in Configurations.__dataclass_fields__
                )
            )
        training.append(train)
        testing.append(test)
    energy, sets = world.energy_per_atom, (tuple(training), tuple(testing))
    parameters = recipe_of(spec)
    if isinstance(parameters, GivenSpec):
        return Rows(parameters, {}, {}, np.zeros(0), energy, *sets, world.response)
    basis = parameters.build()
    # the reference's relaxed path: right to first order in the model error (envelope theorem)
    path = strain_path(world.crystal, calculator, spec.model.step)
    progress("elastic rows", 0.0, f"{len(basis)} functions")
    elastic = elastic_rows(basis, path, world.crystal.volume)
    perfect = perfect_row(basis, path.undeformed)
    blocks = configuration_blocks(
        parameters,
        list(zip(world.training, training, strict=True)),
        perfect,
        workers,
        lambda done, total: progress("rows", done / total, f"{done} of {total} configurations"),
    )
    blocks.update(elastic_blocks(elastic, world.response))
    return Rows(parameters, blocks, elastic, perfect, energy, *sets, world.response)


def blocks_of(spec: Spec, rows: Rows) -> dict[str, Block]:
    """The reduced blocks of the rows, with the elastic constants that the spec shifts."""
    if not spec.observables.shift:
        return rows.blocks
    shift, found = spec.observables.shift, rows.response
    wanted = replace(found, d2=found.d2 + cubic_tensor(shift), d3=found.d3 + cubic_third_order(shift))
    return rows.blocks | elastic_blocks(rows.elastic, wanted)


def _shares(count: int, cells: int) -> list[int]:
    """`count` configurations for so many cells, as equally as can be."""
    return [count // cells + (index < count % cells) for index in range(cells)]


@single_threaded
def fit(spec: Spec, rows: Rows) -> Model:
    """Weigh, solve, and anchor the energy of the perfect crystal; a given potential is taken as it is.

    Raises `regression.Unsolvable`.
    """
    if not spec.model.fitted:
        return Model(Solution(np.zeros(0), {}), 0.0, {})
    solution = regression.fit(spec, by_observable(spec, blocks_of(spec, rows)))
    coefficients = solution.coefficients
    training_rmse = {name: block.rmse(coefficients) for name, block in rows.blocks.items()}
    return Model(solution, rows.energy_per_atom - float(rows.perfect @ coefficients), training_rmse)


@single_threaded
def build_oracle(
    spec: Spec, world: World, rows: Rows, progress: Progress = silent, workers: int | None = None
) -> Oracle:
    """Reduce the test set and the linear response at ȳ to small matrices, which judge a fit in milliseconds.

    Raises `NoOracle` for loops, where linear response would take conjugate gradients for every basis function, and for
    given potentials.
    """
    if isinstance(rows.recipe, GivenSpec):
        raise NoOracle("a study of weights needs a model to fit; model.backend = 'calculator' gives one that is fixed")
    if not isinstance(world.simulation, StraightCell):
        raise NoOracle("a study of weights needs the factorised Hessian of a straight dislocation; a loop has none")
    progress("oracle", 0.0, "linear response of every function")
    response_forms = reduce_response(
        rows.recipe, world.simulation, world.equilibrium, world.simulation_energy, world.factor, rows.perfect
    )
    energies, dual, forces, components = reduce_test_sets(
        rows.recipe,
        list(zip(world.training, rows.test, strict=True)),
        rows.perfect,
        workers,
        lambda done, total: progress("oracle", done / total, f"{done} of {total} parts of the test set"),
    )
    scales = Scales(
        spec.training.size, world.core_distance, len(world.simulation.cores), world.stability, world.leverage
    )
    amplitudes = np.concatenate([test.amplitudes for test in rows.test])
    elastic = elastic_forms(rows.elastic, world.response, world.felt)
    moduli = line_moduli(rows.elastic, world.response, world.line)
    return Oracle(scales, amplitudes, energies, dual, forces, components, elastic, moduli, world.line, *response_forms)


class NoOracle(BadInput, ValueError):
    """A case whose fits cannot be judged without relaxation."""


def _core_numbers(world: World, relaxation: Relaxation) -> dict[str, float]:
    """How alike the cores are: within the simulation, to those trained on, and the model's to the reference's (Å)."""
    cell, displacement = world.simulation, world.equilibrium.displacement
    if not isinstance(cell, StraightCell):
        return {}
    pairs = zip(world.training, world.training_equilibria, strict=True)
    trained = [(small, equilibrium.displacement) for small, equilibrium in pairs]
    numbers = {
        "core_spread": core_spread((cell, displacement)),
        "core_mismatch": core_mismatch((cell, displacement), trained),
    }
    if relaxation.status in (Status.CONVERGED, Status.UNSTABLE):
        numbers["core_change"] = core_change(cell, displacement, relaxation.displacement)
    return {name: value for name, value in numbers.items() if np.isfinite(value)}


def _partial_numbers(world: World, relaxation: Relaxation, calculator: Calculator) -> dict[str, float]:
    """How far partials are apart in the simulation cell (Å, mean over its dislocations), with the reference, the model,
    and by elastic theory; and what the fault between them costs (mJ/m^2). Nothing for cores that do not split."""
    cell, kind, fault = world.simulation, world.dislocation, world.fault_energy
    if not isinstance(cell, StraightCell) or not isinstance(kind, Dislocation) or fault is None:
        return {}
    assert kind.fault_frame is not None
    right = kind.fault_frame * world.crystal.a0
    left = kind.burgers_frame * world.crystal.a0 - right
    tensor = rotate(elastic_tensor(world.response), kind.frame)
    numbers = {
        "partial_separation": _separation(cell, world.equilibrium.displacement),
        "partial_separation_elastic": separation_in_cell(cell, tensor, fault),
        "partial_separation_alone": elastic_separation(stroh(tensor), left, right, fault),
        "fault_energy": fault * MJ_PER_M2,
        "fault_energy_model": fault_energy(world.crystal, kind, calculator) * MJ_PER_M2,
    }
    if relaxation.status in (Status.CONVERGED, Status.UNSTABLE):
        numbers["partial_separation_model"] = _separation(cell, relaxation.displacement)
    return {name: value for name, value in numbers.items() if np.isfinite(value)}


def _separation(cell: StraightCell, displacement: np.ndarray) -> float:
    found = cell.partials(displacement)
    assert found is not None  # of a cell whose cores split
    return float(found.separation.mean())


def _strain_step(spec: Spec, crystal: Crystal, calculator: Calculator, progress: Progress) -> float:
    """The strain step for the model: that of the spec, or for a given potential one that its precision allows."""
    if spec.model.fitted or spec.model.strain_step is not None or not single_precision(crystal, calculator):
        return spec.model.step
    progress("matching", 0.0, f"energies of 32 bits: strain step {SINGLE_STEP:g} instead of {spec.model.step:g}")
    return SINGLE_STEP


@single_threaded
def assess(spec: Spec, world: World, rows: Rows, model: Model, progress: Progress = silent) -> Verdict:
    """Matching numbers, geometry and energy error (relaxed and by linear response), bound and balance.

    A relaxation that fails is an outcome, told by `Verdict.status`: its errors are absent from `numbers`. So is a model
    that is not stable at its equilibrium, or that has no forces to speak of.
    """
    calculator = model.calculator(rows)
    progress("matching", 0.0, "test set and elastic response")
    tests = list(zip(world.training, rows.test, strict=True))
    ground = energy_per_atom(world.crystal, calculator)
    matching = match_configurations(tests, calculator, ground)
    step = _strain_step(spec, world.crystal, calculator, progress)
    model_response = response(world.crystal, calculator, strain_path(world.crystal, calculator, step, coarse=True))
    numbers = {**matching.numbers, **match_elasticity(world.response, model_response, world.felt), "strain_step": step}
    factor = match_energy_factor(world.response, model_response, world.line)
    if isinstance(world.simulation, StraightCell):  # the distance of a loop is its own diameter
        cores = len(world.simulation.cores)
        factor |= match_growth(world.response, model_response, world.line, cores, world.stencil_density)
    numbers |= {name: value for name, value in factor.items() if np.isfinite(value)}
    pairs = list(zip(world.training, world.training_equilibria, strict=True))
    numbers |= match_relaxed([(cell, found.displacement, found.forces) for cell, found in pairs], calculator)
    relaxed = [(cell, found.displacement) for cell, found in pairs]
    if spec.matching.hessian:
        progress("eps_H", 0.0, "Lanczos on two Hessians")
        reference = build_reference(spec.material.reference, spec.material.arguments)
        numbers |= match_hessian(relaxed, reference, calculator)
    if spec.matching.neighbourhood is not None:
        progress("neighbourhood", 0.0, f"largest errors within {spec.matching.neighbourhood:g} Å")
        reference = build_reference(spec.material.reference, spec.material.arguments)
        bulk = (world.energy_per_atom, ground)
        numbers |= match_neighbourhood(relaxed, reference, calculator, bulk, spec.matching.neighbourhood)
    comparison = compare(
        world.simulation,
        world.equilibrium,
        world.simulation_energy,
        curvature_of(spec, world),
        calculator,
        ground,
        spec.simulation.force_tolerance,
        spec.simulation.max_steps,
        lambda calls, force: progress("model relaxation", calls / spec.simulation.max_steps, f"force {force:.1e} eV/Å"),
    )
    if comparison.geometry_error is not None and comparison.energy_difference is not None:
        numbers["geometry_error"] = comparison.geometry_error
        numbers["energy_difference"] = comparison.energy_difference
        numbers["energy_error"] = abs(comparison.energy_difference)
    if len(rows.perfect):
        summands = float(np.abs(model.coefficients * rows.perfect).sum())
        numbers["energy_rounding"] = len(world.simulation) * float(np.finfo(float).eps) * summands
    numbers["geometry_error_linear"] = comparison.linear_geometry_error
    numbers["energy_error_linear"] = comparison.linear_energy_error
    numbers["model_force_calls"] = comparison.relaxation.calls
    size, distance, cores = spec.training.size, world.core_distance, len(world.simulation.cores)
    terms = theory.bound(numbers, size, distance, cores)
    numbers |= terms
    numbers |= theory.corrected_bound(numbers, size, distance, cores)
    numbers |= theory.balance(numbers, distance, world.stability, world.leverage)
    if "eps_K" in numbers:
        numbers |= theory.corrected_balance(numbers, size, distance, world.stability)
    numbers["c0"], numbers["c0_model"] = world.stability, comparison.stability
    numbers["neutral_modes"] = 0 if world.glide is None else 1
    if world.glide is not None:
        found = {"glide_force": comparison.glide_force, "glide_curvature_model": comparison.glide_curvature}
        numbers["glide_curvature"] = world.glide.curvature
        numbers |= {name: value for name, value in found.items() if value is not None and np.isfinite(value)}
    numbers |= _core_numbers(world, comparison.relaxation)
    numbers |= _partial_numbers(world, comparison.relaxation, calculator)
    if comparison.resolution is not None and np.isfinite(comparison.resolution):
        numbers["geometry_resolution"] = comparison.resolution
    return Verdict(numbers, matching, model_response, comparison, theory.limiting_term(terms))
