"""What a run will take, without running: atoms, rows and columns, memory, minutes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from store.faults import BadInput
from suite.pipeline import dislocation_of, recipe_of, training_shapes
from suite.spec import Spec
from suite.world.cell import repeats_for
from suite.world.crystal import LATTICES, equilibrium_crystal
from suite.world.dislocation import Dislocation, Loop
from suite.world.reference import build_reference

WARNING = "warning"  # key of `plan` that is there only when something is wrong
# Microseconds of one core, measured on a common server core for a basis of 150 functions; see benchmarks/.
REFERENCE_CALL, MODEL_CALL_PER_FUNCTION, ROW_PER_FUNCTION = 3.0, 0.18, 8.5
CONFIGURATION = 4 * 3 * 8  # bytes per atom: displacements, their noise, positions, forces
RELAXATION_CALLS, LOOP_CALLS = 40, 250
# Force calls for a Hessian, nonzeros of it and of its factor per row; for cores that split, weak forces count too
HESSIAN_CALLS, HESSIAN_NONZEROS, FACTOR_NONZEROS = 350, 57, 450
SPLIT_CALLS, SPLIT_HESSIAN, SPLIT_FACTOR = 1600, 360, 2800


class BeyondNumbers(BadInput, OverflowError):
    """A cell or a set of configurations that is so large that its size is no number."""


def plan(spec: Spec) -> dict[str, Any]:
    """Counts and estimates by name. Estimates are for this number of cores and good to a factor of two.

    `WARNING` is among the names when the run needs more memory than this machine has. Raises `BeyondNumbers` when a
    count is infinite in double precision.
    """
    with np.errstate(over="ignore"):
        try:
            return _plan(spec)
        except OverflowError as error:
            raise BeyondNumbers(
                f"N = {spec.simulation.size:g} a0 and L = {spec.training.size:g} a0 with "
                f"{spec.training.configurations:.3g} configurations are beyond counting: choose smaller ones"
            ) from error


def _plan(spec: Spec) -> dict[str, Any]:
    kind = dislocation_of(spec)
    calculator = build_reference(spec.material.reference, spec.material.arguments)
    crystal = equilibrium_crystal(LATTICES[spec.material.lattice], spec.material.species, calculator)
    per_cube = len(crystal.basis) * crystal.a0**3 / crystal.volume  # atoms in a0³

    def atoms(straight: Dislocation, repeats: tuple[int, int, int]) -> int:
        sides = [float(length * n) for length, n in zip(straight.lengths, repeats, strict=True)]
        return round(math.prod(sides) * per_cube)

    shapes = [(repeats, atoms(straight, repeats)) for _, straight, repeats in training_shapes(spec)]
    training = round(sum(count for _, count in shapes) / len(shapes))
    if isinstance(kind, Loop):
        side = max(1, round(spec.simulation.size))
        simulation_shape, simulation = (side,) * 3, round(float(side) ** 3 * per_cube)
    else:
        simulation_shape = repeats_for(spec.simulation.size, kind)
        simulation = atoms(kind, simulation_shape)
    functions = len(recipe_of(spec).build())
    workers = os.cpu_count() or 1
    configurations = spec.training.configurations + spec.training.equilibrium if spec.model.fitted else 0
    rows = configurations * (3 * training + 1)
    split = isinstance(kind, Dislocation) and kind.fault is not None
    hessian_calls, hessian_nonzeros, factor_nonzeros = (
        (SPLIT_CALLS, SPLIT_HESSIAN, SPLIT_FACTOR) if split else (HESSIAN_CALLS, HESSIAN_NONZEROS, FACTOR_NONZEROS)
    )
    # a loop has no Hessian matrix: it relaxes, and its softest mode is found, by some 250 force calls
    calls = LOOP_CALLS if isinstance(kind, Loop) else hessian_calls + RELAXATION_CALLS
    model_workers = workers if isinstance(kind, Loop) else 1
    factor_time = 0.0 if isinstance(kind, Loop) else 3e-4 * simulation
    seconds = {
        "world": 1e-6 * simulation * REFERENCE_CALL * calls + 3 + factor_time,
        "rows": 1e-6 * configurations * training * functions * ROW_PER_FUNCTION / workers + 2,
        "assess": 1e-6 * simulation * functions * MODEL_CALL_PER_FUNCTION * 20 / model_workers + factor_time + 2,
    }
    hessian = simulation * (100 if isinstance(kind, Loop) else hessian_nonzeros * 3 * 12)
    factor = simulation * (500 if isinstance(kind, Loop) else factor_nonzeros * 3 * 12)
    block = 20_000 * (functions + 1) * 8
    labelled = (spec.training.configurations + spec.training.test) * training * CONFIGURATION
    memory = 300e6 + 3 * hessian + 2 * factor + 3 * block + 24 * training * functions * 8 + labelled
    here = memory_limit()
    excess = (
        f"the run needs about {memory / 1e9:.3g} GB, and this machine lets it have {here / 1e9:.3g} GB: reduce "
        "simulation.size, training.size or training.configurations, or run it elsewhere"
    )
    return {
        "a0 [Å]": round(crystal.a0, 5),
        "simulation cell": _shape(simulation_shape, simulation),
        "training cell": " and ".join(_shape(*each) for each in shapes),
        "functions (columns)": functions,
        "energy and force rows": rows,
        "design matrix if it were kept [GB]": round(rows * functions * 8 / 1e9, 2),
        "peak memory, estimated [GB]": round(memory / 1e9, 2),
        **{f"{name}, estimated [min]": round(value / 60, 2) for name, value in seconds.items()},
        "total, estimated [min]": round(sum(seconds.values()) / 60, 2),
        "cores": workers,
        **({WARNING: excess} if memory > here else {}),
    }


def memory_limit() -> float:
    """Bytes of memory that this process may use: those of the machine, or fewer where a control group says so."""
    limits = [float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")]
    for file in _control_files():
        try:
            limits.append(float(file.read_text()))
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
    return min(limits)


def _control_files() -> Iterator[Path]:
    """Files of Linux that hold limits of memory: of version 1, and of the process's own groups of version 2."""
    root = Path("/sys/fs/cgroup")
    yield root / "memory" / "memory.limit_in_bytes"
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, _, group = line.split(":", 2)
        if number == "0":
            own = Path(group.strip("/"))
            yield from (root / folder / "memory.max" for folder in [own, *own.parents])


def _shape(repeats: tuple[int, int, int], atoms: int) -> str:
    return f"{' x '.join(str(n) for n in repeats if n > 1)} repeats, {atoms} atoms"
