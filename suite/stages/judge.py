"""The last stage judges a model. This module also builds the oracle, which judges fits without relaxations."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

import numpy as np
from ase.calculators.calculator import Calculator

from store.faults import BadInput
from suite.execution import single_threaded
from suite.judge import theory
from suite.judge.errors import Comparison, Ground, compare
from suite.judge.matching import (
    Matching,
    match_configurations,
    match_elasticity,
    match_energy_factor,
    match_growth,
    match_hessian,
    match_relaxed,
)
from suite.judge.neighbourhood import match_neighbourhood
from suite.judge.oracle import Oracle, Scales, elastic_forms, line_moduli, reduce_response, reduce_test_sets
from suite.progress import Progress, silent
from suite.records import SINGLE_STEP
from suite.results import Model, Rows, Verdict, World
from suite.spec import Spec
from suite.stages.engine import engine_of, engine_of_model
from suite.stages.world import curvature_of
from suite.world.cell import StraightCell
from suite.world.core_state import core_change, core_mismatch, core_spread
from suite.world.crystal import (
    Crystal,
    Response,
    elastic_tensor,
    energy_per_atom,
    response,
    single_precision,
    strain_path,
)
from suite.world.elasticity import rotate, stroh
from suite.world.partials import elastic_separation, fault_energy, separation_in_cell
from suite.world.reference import build_reference
from suite.world.relaxation import Relaxation, Status

MJ_PER_M2 = 16021.766  # eV/Å^2 -> mJ/m^2
Numbers = dict[str, float]


@single_threaded
def assess(spec: Spec, world: World, rows: Rows, model: Model, progress: Progress = silent) -> Verdict:
    """Matching numbers, geometry and energy error (relaxed and by linear response), bound and balance.

    A failed relaxation raises nothing: `Verdict.status` says how it failed, and its errors are absent from `numbers`.
    The same holds for a model that is not stable at its equilibrium, or whose forces are negligible.
    """
    calculator = model.calculator(rows)
    ground = energy_per_atom(world.crystal, calculator)
    matching, elastic, numbers = _match(spec, world, rows, calculator, ground, progress)
    comparison = _compare(spec, world, rows, model, calculator, ground, progress)
    numbers |= _error_numbers(comparison) | _rounding(world, rows, model)
    numbers |= _theory_numbers(spec, world, numbers)
    numbers |= {"c0": world.stability, "c0_model": comparison.stability}
    numbers |= _glide_numbers(world, comparison)
    numbers |= _core_numbers(world, comparison.relaxation)
    numbers |= _partial_numbers(world, comparison.relaxation, calculator)
    return Verdict(numbers, matching, elastic, comparison, theory.limiting_term(numbers))


def _compare(
    spec: Spec, world: World, rows: Rows, model: Model, calculator: Calculator, ground: float, progress: Progress
) -> Comparison:
    """Relax the `calculator` of a model; `ground` is its energy per atom of its perfect crystal, eV.

    Only one of the two potentials has LAMMPS under MPI, whose processes take their cores also while they wait: where
    the Hessian of the reference has no factor, most force calls are products with it; else they are the model's.
    """
    cell = world.simulation
    with ExitStack() as stack:

        def engine(reference: Calculator) -> Calculator:
            found = stack.enter_context(engine_of(spec, cell, reference, "linear response", progress))
            return found or reference

        curvature = curvature_of(spec, world, engine)
        shared = None
        if world.landscape.hessian is not None:
            shared = stack.enter_context(engine_of_model(spec, cell, model, rows, calculator, progress))
        most = spec.simulation.max_steps
        return compare(
            Ground(cell, world.equilibrium, world.simulation_energy, curvature),
            calculator,
            ground,
            spec.simulation.force_tolerance,
            most,
            lambda calls, force: progress("model relaxation", calls / most, f"force {force:.1e} eV/Å"),
            shared,
        )


# --- the numbers of a verdict, group by group ------------------------------------------------------------------------


def _match(
    spec: Spec, world: World, rows: Rows, calculator: Calculator, ground: float, progress: Progress
) -> tuple[Matching, Response, Numbers]:
    """Compare the two potentials on the test set, in elasticity, and around the relaxed training cells.

    `ground` is the model's energy per atom of its perfect crystal, eV.
    """
    progress("matching", 0.0, "test set and elastic response")
    matching = match_configurations(list(zip(world.training, rows.test, strict=True)), calculator, ground)
    step = _strain_step(spec, world.crystal, calculator, progress)
    elastic = response(world.crystal, calculator, strain_path(world.crystal, calculator, step, coarse=True))
    numbers = {**matching.numbers, **match_elasticity(world.response, elastic, world.felt), "strain_step": step}
    numbers |= _finite(match_energy_factor(world.response, elastic, world.line))
    if lines := world.simulation.straight_lines:  # not for loops, whose distance is their own diameter
        numbers |= _finite(match_growth(world.response, elastic, world.line, lines, world.stencil_density))
    numbers |= match_relaxed([(cell, found.displacement, found.forces) for cell, found in world.trained], calculator)
    relaxed = [(cell, found.displacement) for cell, found in world.trained]
    if spec.matching.hessian:
        progress("eps_H", 0.0, "Lanczos on two Hessians")
        numbers |= match_hessian(relaxed, _reference(spec), calculator)
    if spec.matching.neighbourhood is not None:
        progress("neighbourhood", 0.0, f"largest errors within {spec.matching.neighbourhood:g} Å")
        bulk = (world.energy_per_atom, ground)
        numbers |= match_neighbourhood(relaxed, _reference(spec), calculator, bulk, spec.matching.neighbourhood)
    return matching, elastic, numbers


def _reference(spec: Spec) -> Calculator:
    return build_reference(spec.material.reference, spec.material.arguments)


def _finite(numbers: Mapping[str, float | None]) -> Numbers:
    return {name: value for name, value in numbers.items() if value is not None and np.isfinite(value)}


def _strain_step(spec: Spec, crystal: Crystal, calculator: Calculator, progress: Progress) -> float:
    """The strain step for the model: the one of the spec, or a larger one if its energies have single precision."""
    if spec.model.strain_step is not None or not single_precision(crystal, calculator):
        return spec.model.step
    progress("matching", 0.0, f"energies of 32 bits: strain step {SINGLE_STEP:g} instead of {spec.model.step:g}")
    return SINGLE_STEP


def _error_numbers(comparison: Comparison) -> Numbers:
    """Errors of the model's equilibrium, relaxed (absent where that failed) and by linear response."""
    relaxed = {
        "geometry_error": comparison.geometry_error,
        "energy_difference": comparison.energy_difference,
        "energy_error": comparison.energy_error,
        "geometry_resolution": comparison.resolution,
    }
    return _finite(relaxed) | {
        "geometry_error_linear": comparison.linear_geometry_error,
        "energy_error_linear": comparison.linear_energy_error,
        "model_force_calls": comparison.relaxation.calls,
    }


def _rounding(world: World, rows: Rows, model: Model) -> Numbers:
    """The rounding error of the model's energy of the simulation cell: a fit is a sum of large terms."""
    if not rows.functions:
        return {}
    summands = float(np.abs(model.coefficients * rows.perfect).sum())
    return {"energy_rounding": len(world.simulation) * float(np.finfo(float).eps) * summands}


def _theory_numbers(spec: Spec, world: World, numbers: Numbers) -> Numbers:
    """The terms of the bounds, literal and corrected, and the balances."""
    size, distance, cores = spec.training.size, world.core_distance, len(world.simulation.cores)
    found = theory.bound(numbers, size, distance, cores)
    found |= theory.corrected_bound(numbers, size, distance, cores)
    found |= theory.balance(numbers, distance, world.stability, world.leverage)
    if "eps_K" in numbers:
        found |= theory.corrected_balance(numbers, size, distance, world.stability)
    return found


def _glide_numbers(world: World, comparison: Comparison) -> Numbers:
    """Curvatures and forces along a neutral glide mode of the reference, if it has one."""
    glide = world.landscape.glide
    if glide is None:
        return {"neutral_modes": 0}
    found = {
        "glide_curvature": glide.curvature,
        "glide_force": comparison.glide_force,
        "glide_curvature_model": comparison.glide_curvature,
    }
    return {"neutral_modes": 1, **_finite(found)}


def _core_numbers(world: World, relaxation: Relaxation) -> Numbers:
    """Differences between cores (Å): within the simulation, from the training cells, and of the model from the
    reference."""
    cell, displacement = world.simulation, world.equilibrium.displacement
    if not isinstance(cell, StraightCell):  # the core of a loop is a curve, and has no shape to compare
        return {}
    trained = [(small, found.displacement) for small, found in world.trained]
    numbers = {
        "core_spread": core_spread((cell, displacement)),
        "core_mismatch": core_mismatch((cell, displacement), trained),
    }
    if relaxation.status in (Status.CONVERGED, Status.UNSTABLE):
        numbers["core_change"] = core_change(cell, displacement, relaxation.displacement)
    return _finite(numbers)


def _partial_numbers(world: World, relaxation: Relaxation, calculator: Calculator) -> Numbers:
    """Distance of the partials in the simulation cell (Å, mean over its dislocations) for the reference, for the model
    and by elastic theory, and the energies of the fault between them (mJ/m^2). Empty for cores that do not split."""
    cell, kind, fault = world.simulation, world.straight, world.fault_energy
    if fault is None or not isinstance(cell, StraightCell):
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
    return _finite(numbers)


def _separation(cell: StraightCell, displacement: np.ndarray) -> float:
    found = cell.partials(displacement)
    assert found is not None  # cores of this cell split, so that there are partials
    return float(found.separation.mean())


# --- without relaxation ----------------------------------------------------------------------------------------------


@single_threaded
def build_oracle(
    spec: Spec, world: World, rows: Rows, progress: Progress = silent, workers: int | None = None
) -> Oracle:
    """Reduce the test set and the linear response at ȳ to small matrices, with which a fit is judged in milliseconds.

    Raises `NoOracle` for given potentials and for loops: without a factorised Hessian, linear response would need
    conjugate gradients for every basis function.
    """
    if not rows.functions:
        raise NoOracle("a study of weights needs a model to fit; model.backend = 'calculator' gives one that is fixed")
    cell, factor = world.simulation, world.landscape.factor
    if factor is None or not isinstance(cell, StraightCell):
        raise NoOracle("a study of weights needs the factorised Hessian of a straight dislocation; a loop has none")
    progress("oracle", 0.0, "linear response of every function")
    response_forms = reduce_response(
        rows.recipe, cell, world.equilibrium, world.simulation_energy, factor, rows.perfect
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
