"""Equilibria: preconditioned limited-memory BFGS on forces, with outcomes as data.

No line search: energies of tabulated potentials are only piecewise smooth, so that Armijo tests fail near the end.
The metric carries the long waves that make dislocations slow for plain optimisers: the circulant Hessian of the
perfect crystal to begin with, the factorised Hessian at a known equilibrium where there is one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from ase.calculators.calculator import Calculator

from store.faults import FailedOutcome
from suite.world.calculators import FailedEngine
from suite.world.cell import Cell, Metric

CORE_RADIUS = 0.8  # a0; a dislocation further from its place has moved
MEMORY = 2e9  # bytes for remembered steps
AGREEMENT = 1e-6  # of the largest force: two programs with one potential differ by less
LOOK = 10  # force calls between two looks at the cores; two looks in a row without them end a relaxation


class Status(Enum):
    """How a relaxation ended; the value is a sentence, `remedy` and `reference_remedy` say what to do."""

    CONVERGED = "forces are below the tolerance and every core is where it was put"
    MAX_STEPS = "the forces are still above the tolerance after the last allowed step"
    ANNIHILATED = "dislocations of opposite sign have met and disappeared"
    MOVED = "a core has left the place where it was put"
    SADDLE = "the forces vanish at a saddle point, not at a minimum"
    UNSTABLE = "the state that the relaxation began with is unstable, and it ended in another one"
    UNRESOLVED = "the forces are below the tolerance, but too weak to tell where the equilibrium is"
    DIVERGED = "the forces grow instead of falling: there is no equilibrium nearby"
    NONFINITE = "the potential returned energies or forces that are not finite"

    @property
    def remedy(self) -> str:
        """What to do when the relaxation of a model has ended so."""
        return {
            Status.CONVERGED: "",
            Status.MAX_STEPS: "raise simulation.max_steps, or improve the fit: it may have no equilibrium nearby",
            Status.ANNIHILATED: "improve the fit: its forces on the cores are too wrong for this cell",
            Status.MOVED: "improve the fit (basis, cutoff, smaller amplitudes): its cores prefer another place",
            Status.SADDLE: "improve the fit (basis, cutoff, smaller amplitudes): it is unstable at its equilibrium",
            Status.UNSTABLE: "improve the fit (basis, cutoff, smaller amplitudes), or judge a potential against a "
            "reference that has the same core",
            Status.UNRESOLVED: "lower simulation.force_tolerance, and check that the fit has forces at all "
            "(solver.tolerance, solver.alpha)",
            Status.DIVERGED: "improve the fit (basis, amplitudes, configurations): its forces at ȳ are too wrong",
            Status.NONFINITE: "fit on larger amplitudes or more configurations: the model left its training range",
        }[self]

    @property
    def reference_remedy(self) -> str:
        """What to do when the relaxation of the reference has ended so."""
        return {
            Status.CONVERGED: "",
            Status.MAX_STEPS: "raise simulation.max_steps, loosen simulation.force_tolerance, or try another core site",
            Status.ANNIHILATED: "enlarge the cell (training.size or simulation.size): the dislocations met in this one",
            Status.MOVED: "choose another core site (`dislobench scan` lists them), or enlarge the cell",
            Status.SADDLE: "raise simulation.perturbation, so that the relaxation leaves the symmetric state",
            Status.UNSTABLE: "choose another core site (`dislobench scan` lists them)",
            Status.UNRESOLVED: "lower simulation.force_tolerance, or choose a reference that has forces",
            Status.DIVERGED: "choose another core site, arrangement or size, or another reference: this one has no "
            "equilibrium near the elastic field",
            Status.NONFINITE: "choose another core site or reference: this one fails where atoms come so close",
        }[self]


@dataclass(frozen=True)
class Relaxation:
    """Result of `relax`: displacement (n, 3) from the perfect crystal, Å; energy eV; forces (n, 3) eV/Å.

    `history` (calls,) holds the largest force component after each force call; `shifts` (m, 2) how far each core moved.
    """

    status: Status
    displacement: np.ndarray
    energy: float
    forces: np.ndarray
    history: np.ndarray
    shifts: np.ndarray

    @property
    def calls(self) -> int:
        return len(self.history)

    def calls_to(self, tolerance: float) -> int | None:
        """Number of force calls until the largest force first fell below `tolerance`, None when it never did."""
        below = np.flatnonzero(self.history < tolerance)
        return int(below[0]) + 1 if len(below) else None


class FailedRelaxation(FailedOutcome, RuntimeError):
    """A relaxation of the reference whose outcome cannot be used; carries it as `relaxation`, and the `remedy`."""

    def __init__(self, what: str, relaxation: Relaxation) -> None:
        status = relaxation.status
        super().__init__(
            f"{what}: {status.name.lower()}: {status.value} (largest force {relaxation.history[-1]:.1e} eV/Å after "
            f"{relaxation.calls} force calls). Remedy: {status.reference_remedy}"
        )
        self.what, self.relaxation, self.remedy = what, relaxation, status.reference_remedy


def relax(
    cell: Cell,
    calculator: Calculator,
    metric: Metric,
    start: np.ndarray,
    tolerance: float = 1e-4,
    max_calls: int = 300,
    longest_step: float = 0.15,
    scaled: bool = True,
    progress: Callable[[int, float], None] | None = None,
) -> Relaxation:
    """Relax `cell` from the displacement `start` (n, 3) until the largest force component is below `tolerance`, eV/Å.

    The cell is fixed. Steps are unit L-BFGS steps in `metric`, shortened so that no atom moves more than `longest_step`
    Å. Where the crystal is stiffer than the metric says, as in a core, steps shrink to the measured curvature;
    `scaled` = False saves the product with the metric which that takes, for a metric that is the Hessian itself.
    Burgers circuits decide whether the dislocations are still within 0.8 a0 of the intended places: at the end, and
    after every tenth force call, so that a relaxation whose cores have left ends soon.
    """
    descent = _Descent(cell, calculator, metric, start, longest_step, scaled)
    while True:
        descent.guard()
        descent.record()
        if progress and descent.forces is not None:
            progress(len(descent.history), descent.largest)
        if (status := descent.ended(tolerance, max_calls)) is not None:
            return descent.verdict(status)
        descent.step()


def relax_with(
    engine: Calculator | None,
    cell: Cell,
    calculator: Calculator,
    metric: Metric,
    start: np.ndarray,
    tolerance: float = 1e-4,
    max_calls: int = 300,
    scaled: bool = True,
    progress: Callable[[int, float], None] | None = None,
) -> Relaxation:
    """`relax` with the forces of `engine`, another program with the potential of `calculator`, if there is one.

    Both must agree at `start`, and an equilibrium of the engine is relaxed further with `calculator` where its forces
    are not below the tolerance yet. All force calls of that count. Raises `FailedEngine` where the two are different
    potentials.
    """
    if engine is None:
        return relax(cell, calculator, metric, start, tolerance, max_calls, scaled=scaled, progress=progress)
    _compare_forces(engine, calculator, cell, start, tolerance)
    found = relax(cell, engine, metric, start, tolerance, max_calls, scaled=scaled, progress=progress)
    if found.status is not Status.CONVERGED:
        return found
    checked = relax(cell, calculator, metric, found.displacement, tolerance, max_calls, scaled=scaled)
    return replace(checked, history=np.concatenate([found.history, checked.history]))


def _compare_forces(
    engine: Calculator, calculator: Calculator, cell: Cell, displacement: np.ndarray, tolerance: float
) -> None:
    """Raise `FailedEngine` when forces of the two differ by a tenth of the tolerance, and not by rounding."""
    found = []
    for each in (engine, calculator):
        atoms = cell.atoms(displacement)
        atoms.calc = each
        found.append(atoms.get_forces())
    largest = float(np.abs(found[1]).max())
    difference = float(np.abs(found[0] - found[1]).max())
    if difference > 0.1 * tolerance + AGREEMENT * largest:
        raise FailedEngine(
            f"LAMMPS under MPI has other forces than LAMMPS here: they differ by {difference:.1e} eV/Å, and the "
            f"largest is {largest:.1e} eV/Å. Is it of another version? Name another one in simulation.command"
        )


class _Descent:
    """A relaxation between two force calls: where it is (`displacement`, `forces`, None where they are not finite, and
    the `largest` component of them, eV/Å), the best state so far, and what the next step remembers."""

    def __init__(
        self, cell: Cell, calculator: Calculator, metric: Metric, start: np.ndarray, longest: float, scaled: bool
    ) -> None:
        self.cell, self.metric, self.longest, self.scaled = cell, metric, longest, scaled
        self.atoms = cell.atoms(start)
        self.atoms.calc = calculator
        self.allowed = CORE_RADIUS * cell.a0
        memory = max(5, min(30, int(MEMORY / 2 / start.nbytes)))  # a step and a change of the force each
        self.pairs: deque[tuple[np.ndarray, np.ndarray, float]] = deque(maxlen=memory)
        self.history: list[float] = []
        self.best: tuple[float, np.ndarray, np.ndarray] | None = None
        self.retreats, self.restored, self.missed = 6, False, 0
        self.start = start
        self._move_to(start.copy())

    def _move_to(self, displacement: np.ndarray) -> None:
        self.displacement, self.forces = displacement, self._forces_at(displacement)
        self.largest = np.inf if self.forces is None else float(np.abs(self.forces).max())

    def _forces_at(self, displacement: np.ndarray) -> np.ndarray | None:
        if not np.isfinite(displacement).all():
            return None
        self.atoms.positions[:] = self.cell.reference + displacement
        try:
            found = self.atoms.get_forces()
        except FloatingPointError:  # atoms have met
            return None
        return found if np.isfinite(found).all() else None

    def guard(self) -> None:
        """Go back to the best state, with steps a third as long, where a soft mode was followed too far: when forces
        have grown tenfold over the first and the least ones, or are not finite; six times at most."""
        if not self.retreats or self.best is None:
            return
        if self.forces is not None:
            if self.largest <= 10 * max(self.best[0], self.history[0]):
                return
            self.history.append(self.largest)
        self.retreats, self.longest = self.retreats - 1, self.longest / 3
        self.pairs.clear()
        self.largest, self.displacement, self.forces = self.best[0], self.best[1].copy(), self.best[2]
        self.restored = True

    def record(self) -> None:
        """Note the forces of this state; one that was restored has been noted before."""
        if self.forces is None:
            return
        if not self.restored:
            self.history.append(self.largest)
        self.restored = False
        if self.best is None or self.largest < self.best[0]:
            self.best = (self.largest, self.displacement.copy(), self.forces)

    def ended(self, tolerance: float, max_calls: int) -> Status | None:
        """Why the relaxation ends here, or None when it goes on."""
        if self.forces is None:
            return Status.NONFINITE
        if self.largest < tolerance:
            return Status.CONVERGED
        if self.largest > 1e3 * max(1.0, self.history[0]):
            return Status.DIVERGED
        if len(self.history) >= max_calls:
            return Status.MAX_STEPS
        if len(self.history) % LOOK == 0:
            kept = self.cell.judge(self.displacement, self.allowed)[0] == "kept"
            self.missed = 0 if kept else self.missed + 1
            if self.missed == 2:  # once may be a step too far, which the next ones take back
                self.best = (self.largest, self.displacement, self.forces)
                return Status.MAX_STEPS
        return None

    def step(self) -> None:
        """One L-BFGS step, and the forces at its end."""
        assert self.forces is not None  # `ended` says so
        step = _two_loop(self.forces, self.pairs, self.metric, self.scaled)
        if (step * self.forces).sum() <= 0:  # memory from another valley: forget it
            self.pairs.clear()
            step = self.metric(self.forces)
        length = float(np.sqrt((step**2).sum(axis=1).max()))
        step *= min(1.0, self.longest / length)
        before = self.forces
        self._move_to(self.displacement + step)
        if self.forces is not None:
            change = before - self.forces
            curvature = float((step * change).sum())
            if curvature > 1e-12 * np.linalg.norm(step) * np.linalg.norm(change):
                self.pairs.append((step, change, 1.0 / curvature))

    def verdict(self, status: Status) -> Relaxation:
        """The best state; where cores have left, that is its status, unless the forces say worse."""
        if self.best is None:
            nothing = np.full_like(self.start, np.nan)
            missing = np.full((len(self.cell.cores), 2), np.nan)
            return Relaxation(status, self.start, np.nan, nothing, np.array([np.inf]), missing)
        _, displacement, forces = self.best
        self.atoms.positions[:] = self.cell.reference + displacement
        energy = float(self.atoms.get_potential_energy())
        found, shifts = self.cell.judge(displacement, self.allowed)
        if status not in (Status.NONFINITE, Status.DIVERGED):
            status = {"annihilated": Status.ANNIHILATED, "moved": Status.MOVED}.get(found, status)
        return Relaxation(status, displacement, energy, forces, np.array(self.history), shifts)


def _two_loop(
    f: np.ndarray, pairs: deque[tuple[np.ndarray, np.ndarray, float]], metric: Metric, scaled: bool
) -> np.ndarray:
    """L-BFGS two-loop recursion for the step along the force `f` (Nocedal & Wright, algorithm 7.4), the metric scaled
    down to the curvature along the last step (their 7.20, never up)."""
    q = f.copy()
    weights = []
    for s, y, inverse in reversed(pairs):
        weight = inverse * float((s * q).sum())
        q -= weight * y
        weights.append(weight)
    q = metric(q)
    if scaled and pairs:
        _, y, inverse = pairs[-1]
        q *= min(1.0, 1 / (inverse * float((y * metric(y)).sum())))
    for (s, y, inverse), weight in zip(pairs, reversed(weights), strict=True):
        q += (weight - inverse * float((y * q).sum())) * s
    return q
