"""What a run will take, without running: atoms, rows and columns, memory, minutes."""

from __future__ import annotations

import os
from typing import Any

from suite.pipeline import basis_of, dislocation_of
from suite.spec import Spec
from suite.world.cell import repeats_for
from suite.world.crystal import LATTICES, equilibrium_crystal
from suite.world.reference import build_reference

# Microseconds of one core, measured on a common server core for a basis of 150 functions; see benchmarks/.
REFERENCE_CALL, MODEL_CALL_PER_FUNCTION, ROW_PER_FUNCTION = 3.0, 0.18, 8.5
HESSIAN_CALLS, RELAXATION_CALLS, FACTOR_NONZEROS = 350, 40, 450


def plan(spec: Spec) -> dict[str, Any]:
    """Counts and estimates by name. Estimates are for this number of cores and good to a factor of two."""
    kind = dislocation_of(spec)
    calculator = build_reference(spec.material.reference, spec.material.arguments)
    crystal = equilibrium_crystal(LATTICES[spec.material.lattice], spec.material.species, calculator)
    density = len(crystal.basis) / crystal.volume

    def atoms(width: float) -> tuple[tuple[int, int, int], int]:
        repeats = repeats_for(width, kind)
        volume = 1.0
        for n, length in zip(repeats, kind.lengths, strict=True):
            volume *= n * float(length) * crystal.a0
        return repeats, round(volume * density)

    training_repeats, training = atoms(2 * spec.training.size)
    simulation_repeats, simulation = atoms(spec.simulation.size)
    functions = len(basis_of(spec).build())
    workers = os.cpu_count() or 1
    configurations = spec.training.configurations + spec.training.equilibrium
    rows = configurations * (3 * training + 1)
    seconds = {
        "world": 1e-6 * simulation * REFERENCE_CALL * (HESSIAN_CALLS + RELAXATION_CALLS) + 3 + 3e-4 * simulation,
        "rows": 1e-6 * configurations * training * functions * ROW_PER_FUNCTION / workers + 2,
        "assess": 1e-6 * simulation * functions * MODEL_CALL_PER_FUNCTION * 20 + 3e-4 * simulation + 2,
    }
    hessian = simulation * 3 * 57 * 12
    factor = simulation * FACTOR_NONZEROS * 3 * 12
    block = 20_000 * (functions + 1) * 8
    memory = 300e6 + 3 * hessian + 2 * factor + 3 * block + 24 * training * functions * 8
    return {
        "a0 [Å]": round(crystal.a0, 5),
        "simulation cell": f"{simulation_repeats[0]} x {simulation_repeats[1]} repeats, {simulation} atoms",
        "training cell": f"{training_repeats[0]} x {training_repeats[1]} repeats, {training} atoms",
        "functions (columns)": functions,
        "energy and force rows": rows,
        "design matrix if it were kept [GB]": round(rows * functions * 8 / 1e9, 2),
        "peak memory, estimated [GB]": round(memory / 1e9, 2),
        **{f"{name}, estimated [min]": round(value / 60, 2) for name, value in seconds.items()},
        "total, estimated [min]": round(sum(seconds.values()) / 60, 2),
        "cores": workers,
    }
