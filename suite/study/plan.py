"""What a run or a sweep will cost: atoms, rows, columns, memory, minutes, workers. Each kind of call is timed once on
small crystals."""

from __future__ import annotations

import heapq
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from suite.study.worlds import STAGES, entries_of
from suite.tasks import Order
from suite.world.crystal import LATTICES, Crystal, equilibrium_crystal
from suite.world.dislocation import Dislocation, Loop
from suite.world.reference import build_reference

WARNING = "warning"  # this key of `plan` exists only when something is wrong
WIDE = 11.0  # Å; a crystal wider than most cutoffs, so that a call costs as much per atom as in a large cell
LONG, DOUBLINGS = 0.02, 6  # seconds; a call that takes longer than this is timed accurately enough
CONFIGURATION = 4 * 3 * 8  # bytes per atom: displacements, their noise, positions, forces
BASE = 300e6  # bytes of a process with all its libraries
ENGINE = 2600  # bytes per atom of an engine with its lists of neighbours
CALLS_OF_A_COLOUR = 6  # of the Hessian, which is shared by colours
BUSY = 0.6  # share of their time that workers must have work, or there are too many
MEMORY, WORKER_MEMORY = "peak memory, estimated [GB]", "memory for each worker, estimated [GB]"
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
    found = Costs().of(spec)
    cores = os.cpu_count() or 1
    seconds = {stage: duration.on(cores) for stage, duration in found.durations.items()}
    here = memory_limit()
    return {
        "a0 [Å]": round(found.crystal.a0, 5),
        "simulation cell": found.simulation,
        "training cell": found.training,
        "functions (columns)": found.functions,
        "energy and force rows": found.rows,
        "design matrix if it were kept [GB]": round(found.rows * found.functions * 8 / 1e9, 2),
        MEMORY: round(found.memory / 1e9, 2),
        **{f"{name}, estimated [min]": round(value / 60, 2) for name, value in seconds.items()},
        "total, estimated [min]": round(sum(seconds.values()) / 60, 2),
        "cores": cores,
        **({} if spec.simulation.ranks is None else {"processes of MPI": spec.simulation.ranks}),
        "pieces that workers share": found.pieces,
        WORKER_MEMORY: round(found.worker_memory / 1e9, 2),
        "sensible number of workers": found.sensible_workers(),
        **({WARNING: _excess(found.memory, here)} if found.memory > here else {}),
    }


def plan_sweep(specs: Sequence[Spec]) -> dict[str, Any]:
    """What a sweep over `specs` takes on workers of one core each, counts and estimates by name, as `plan`."""
    costs = Costs()
    found = [costs.of(spec) for spec in specs]
    needs = [dict(zip(STAGES, entries_of(spec), strict=True)) for spec in specs]
    most = _sensible(lambda workers: _makespan(found, needs, workers), len(specs))
    alone, shared = (_makespan(found, needs, workers) for workers in (1, most))
    memory, here = max(each.memory for each in found), memory_limit()
    return {
        "points (tasks)": len(specs),
        **{f"different {STAGES[stage]}": len({each[stage] for each in needs}) for stage in STAGES},
        WORKER_MEMORY: round(memory / 1e9, 2),
        "longest point alone, estimated [min]": round(max(each.alone() for each in found) / 60, 2),
        "one worker, estimated [min]": round(alone / 60, 2),
        "sensible number of workers": most,
        "with that many, estimated [min]": round(shared / 60, 2),
        "workers that the memory of this machine holds": max(0, int(here // memory)),
        **({WARNING: _excess(memory, here)} if memory > here else {}),
    }


def _excess(memory: float, here: float) -> str:
    return (
        f"the run needs about {memory / 1e9:.3g} GB, and this machine lets it have {here / 1e9:.3g} GB: reduce "
        "simulation.size, training.size or training.configurations, or run it elsewhere"
    )


@dataclass(frozen=True)
class Duration:
    """Seconds of a stage: those of one process, those that workers share, and those that two processes share."""

    alone: float
    shared: float
    paired: float = 0.0

    def on(self, workers: int) -> float:
        """Seconds with so many workers."""
        return self.alone + self.shared / workers + self.paired / min(2, workers)


@dataclass(frozen=True)
class Cost:
    """What a run takes: its cells in words, counts, bytes of this process and of a worker for its pieces, and the
    duration of each stage."""

    crystal: Crystal
    simulation: str
    training: str
    functions: int
    rows: int
    pieces: int
    memory: float
    worker_memory: float
    durations: dict[str, Duration]

    def alone(self) -> float:
        """Seconds on one core, with nothing in the cache."""
        return sum(duration.on(1) for duration in self.durations.values())

    def sensible_workers(self) -> int:
        """See `_sensible`."""
        return _sensible(lambda workers: sum(d.on(workers) for d in self.durations.values()), max(1, self.pieces))


class Costs:
    """The costs of runs. Crystals are relaxed once, and each kind of call is timed once, for all specs that share
    them."""

    def __init__(self) -> None:
        self._crystals: dict[str, tuple[Calculator, Crystal]] = {}
        self._calls: dict[str, tuple[int, dict[str, float]]] = {}

    def of(self, spec: Spec) -> Cost:
        """The cost of one run; raises `BeyondNumbers`."""
        with np.errstate(over="ignore"):
            try:
                return self._of(spec)
            except OverflowError as error:
                raise BeyondNumbers(
                    f"N = {spec.simulation.size:g} a0 and L = {spec.training.size:g} a0 with "
                    f"{spec.training.configurations:.3g} configurations are beyond counting: choose smaller ones"
                ) from error

    def _measured(self, spec: Spec) -> tuple[Crystal, int, dict[str, float]]:
        """The crystal of `spec`, the functions of its model, and seconds per atom of its calls (`_costs`)."""
        material, model = (str(spec.table(*names)) for names in (("material",), ("material", "model", "solver")))
        if material not in self._crystals:
            calculator = build_reference(spec.material.reference, spec.material.arguments)
            crystal = equilibrium_crystal(LATTICES[spec.material.lattice], spec.material.species, calculator)
            self._crystals[material] = calculator, crystal
        calculator, crystal = self._crystals[material]
        if model not in self._calls:
            family = recipe_of(spec).build()
            self._calls[model] = len(family), _costs(crystal, calculator, family)
        return crystal, *self._calls[model]

    def _of(self, spec: Spec) -> Cost:
        kind = dislocation_of(spec)
        crystal, functions, costs = self._measured(spec)
        per_cube = len(crystal.basis) * crystal.a0**3 / crystal.volume  # atoms in a0³

        def atoms(lengths: Iterable[float], repeats: tuple[int, int, int]) -> int:
            sides = [float(length * n) for length, n in zip(lengths, repeats, strict=True)]
            return round(math.prod(sides) * per_cube)

        cells = kind.training_shapes(spec.training.size)
        shapes = [(repeats, atoms(straight.lengths, repeats)) for _, straight, repeats in cells]
        training = round(sum(count for _, count in shapes) / len(shapes))
        simulation_shape = kind.repeats(spec.simulation.size)
        simulation = atoms(kind.lengths, simulation_shape)
        configurations = (spec.training.configurations + spec.training.equilibrium) * bool(functions)
        effort = effort_of(kind)
        shared = effort.pieces and spec.model.backend == "pyace"
        factor, call = effort.factor * simulation, simulation * costs["reference"]
        products, calls = call * effort.products, simulation * costs["model"] * MODEL_CALLS
        rows = configurations * training
        # processes of MPI share the force calls of the reference, but for those of a Hessian that is assembled
        ranks = spec.simulation.ranks
        alone, paired = (products / ranks, 0.0) if ranks else (0.0, products)
        relaxation = call * effort.relaxation / (ranks or 1)
        durations = {
            "world": Duration(relaxation + 3 + factor + alone, call * effort.hessian, paired),
            "rows": Duration(rows * costs["reference"] + 2, rows * costs["rows"]),
            "assess": Duration((0 if shared else calls) + factor + 2 + alone, calls if shared else 0, paired),
        }
        block = 20_000 * (functions + 1) * 8
        own_rows = 24 * training * functions * 8
        labelled = (spec.training.configurations + spec.training.test) * training * CONFIGURATION
        return Cost(
            crystal,
            _shape(simulation_shape, simulation),
            " and ".join(_shape(*each) for each in shapes),
            functions,
            configurations * (3 * training + 1),
            configurations + math.ceil(effort.hessian / CALLS_OF_A_COLOUR),
            BASE + simulation * effort.held + 3 * block + own_rows + labelled,
            BASE + max(own_rows + block, simulation * ENGINE),
            durations,
        )


def _sensible(makespan: Callable[[int], float], most: int) -> int:
    """The largest number of workers, at most `most`, that have work for most of the time (`BUSY`)."""
    one, best, workers = makespan(1), 1, 1
    while workers < most:
        workers = min(most, workers + max(1, workers // 2))
        if one < BUSY * workers * makespan(workers):
            break
        best = workers
    return best


def _makespan(costs: Sequence[Cost], needs: Sequence[Mapping[str, str]], workers: int) -> float:
    """Seconds until so many workers of one core have run all points, in the order that a cluster keeps
    (`suite.tasks.Order`)."""
    order, made = Order([tuple(each.values()) for each in needs]), set[str]()
    running: list[tuple[float, int]] = []
    now = 0.0
    while True:
        while len(running) < workers and (index := order.next()) is not None:
            durations, need = costs[index].durations, needs[index]
            stages = ["assess"]
            stages += ["world"] if need["simulation"] not in made else []  # by far the most of it is this cell
            stages += ["rows"] if need["rows"] not in made else []
            heapq.heappush(running, (now + sum(durations[stage].on(1) for stage in stages), index))
        if not running:
            return now
        now, index = heapq.heappop(running)
        made |= set(needs[index].values())
        order.ended(index, made=True)


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
