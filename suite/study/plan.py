"""What a run will cost: atoms, rows, columns, memory, minutes. Each kind of call is timed once on small crystals."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from store.faults import BadInput
from suite.model.contract import LinearFamily
from suite.spec import Spec
from suite.stages.cells import dislocation_of
from suite.stages.rows import recipe_of
from suite.world.crystal import LATTICES, Crystal, equilibrium_crystal
from suite.world.dislocation import Dislocation, Loop
from suite.world.reference import build_reference

WARNING = "warning"  # this key of `plan` exists only when something is wrong
WIDE = 11.0  # Å; a crystal wider than most cutoffs, so that a call costs as much per atom as in a large cell
LONG, DOUBLINGS = 0.02, 6  # seconds; a call that takes longer than this is timed accurately enough
CONFIGURATION = 4 * 3 * 8  # bytes per atom: displacements, their noise, positions, forces
MODEL_CALLS = 20  # of the model in the simulation cell, half of them for its softest mode


@dataclass(frozen=True)
class Effort:
    """What a simulation cell costs, per atom.

    `relaxation` and `hessian`: force calls to relax it and for its Hessian, which all cores share; `products` with the
    Hessian for the softest mode and the linear response where there is no factor, two engines at once; `factor`:
    seconds to factorise; `held` bytes of Hessian and factor, or of the engines of the reference. `pieces`: whether a
    force call of an ACE model is shared by all cores.
    """

    relaxation: int
    hessian: int
    products: int
    factor: float
    held: int
    pieces: bool

    @classmethod
    def factored(cls, calls: int, hessian: int, factor: int) -> Effort:
        """The effort with a factorised Hessian, from its number of force calls and the nonzeros per row of it and its
        factor."""
        return cls(40, calls, 0, 3e-4, 3 * hessian * 3 * 12 + 2 * factor * 3 * 12, False)


STRAIGHT = Effort.factored(350, 57, 450)
SPLIT = Effort.factored(1600, 360, 2800)  # weak forces count too
LOOP = Effort(80, 0, 100, 0.0, 2600, True)  # 17.5 GB for 6.75 million atoms


def effort_of(kind: Dislocation | Loop) -> Effort:
    """What the simulation cell of a dislocation costs."""
    if isinstance(kind, Loop):
        return LOOP
    return STRAIGHT if kind.fault is None else SPLIT


class BeyondNumbers(BadInput, OverflowError):
    """A cell or a set of configurations so large that its size overflows double precision."""


def plan(spec: Spec) -> dict[str, Any]:
    """Counts and estimates by name. Estimates are for the cores of this machine and are right to within a factor of
    two.

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

    def atoms(lengths: Iterable[float], repeats: tuple[int, int, int]) -> int:
        sides = [float(length * n) for length, n in zip(lengths, repeats, strict=True)]
        return round(math.prod(sides) * per_cube)

    cells = kind.training_shapes(spec.training.size)
    shapes = [(repeats, atoms(straight.lengths, repeats)) for _, straight, repeats in cells]
    training = round(sum(count for _, count in shapes) / len(shapes))
    simulation_shape = kind.repeats(spec.simulation.size)
    simulation = atoms(kind.lengths, simulation_shape)
    family = recipe_of(spec).build()
    functions = len(family)
    costs = _costs(crystal, calculator, family)
    workers = os.cpu_count() or 1
    configurations = (spec.training.configurations + spec.training.equilibrium) * bool(functions)
    rows = configurations * (3 * training + 1)
    effort = effort_of(kind)
    products = effort.products * 2 / min(2, workers)
    shared = effort.pieces and spec.model.backend == "pyace"
    calls = effort.relaxation + effort.hessian / workers + products / 2
    factor_time = effort.factor * simulation
    seconds = {
        "world": simulation * costs["reference"] * calls + 3 + factor_time,
        "rows": configurations * training * (costs["reference"] + costs["rows"] / workers) + 2,
        "assess": simulation * costs["model"] * MODEL_CALLS / (workers if shared else 1)
        + simulation * costs["reference"] * products / 2
        + factor_time
        + 2,
    }
    block = 20_000 * (functions + 1) * 8
    labelled = (spec.training.configurations + spec.training.test) * training * CONFIGURATION
    memory = 300e6 + simulation * effort.held + 3 * block + 24 * training * functions * 8 + labelled
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


def _costs(crystal: Crystal, calculator: Calculator, family: LinearFamily) -> dict[str, float]:
    """Seconds per atom of one force call of `reference` and `model`, and of all `rows`, on this machine now."""
    widths = 1 / np.linalg.norm(np.linalg.inv(crystal.vectors), axis=0)
    block = crystal.deformed(np.eye(3)).repeat([math.ceil(WIDE / width) for width in widths])
    block.positions += 0.05 * np.random.default_rng(0).standard_normal(block.positions.shape)
    model = family.calculator(np.full(len(family), 1e-3))

    def seconds(work: Callable[[Atoms], Any]) -> float:
        """Seconds per atom of one call. The crystal grows until a call takes so long that its overhead is
        negligible."""
        for doubling in range(DOUBLINGS):
            atoms = block.repeat((2**doubling, 1, 1))
            work(atoms)  # builds tables and lists of neighbours
            atoms.positions += 1e-3
            begun = time.perf_counter()
            work(atoms)
            took = time.perf_counter() - begun
            if took > LONG:
                break
        return took / len(atoms)

    rows = seconds(family.energy_and_force_rows) if len(family) else 0.0
    return {"reference": seconds(calculator.get_forces), "model": seconds(model.get_forces), "rows": rows}


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
