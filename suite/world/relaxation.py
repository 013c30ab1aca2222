"""Equilibria: preconditioned limited-memory BFGS on forces, with outcomes as data.

No line search: energies of tabulated potentials are only piecewise smooth, so that Armijo tests fail near the end.
The metric carries the long waves that make dislocations slow for plain optimisers: the circulant Hessian of the
perfect crystal to begin with, the factorised Hessian at a known equilibrium where there is one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
from ase.calculators.calculator import Calculator

from store.faults import FailedOutcome
from suite.world.cell import Cell, Metric

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
    memory: int | None = None,
    longest_step: float = 0.15,
    core_radius: float | None = None,
    scaled: bool = True,
    progress: Callable[[int, float], None] | None = None,
) -> Relaxation:
    """Relax `cell` from the displacement `start` (n, 3) until the largest force component is below `tolerance`, eV/Å.

    The cell is fixed. Steps are unit L-BFGS steps in `metric`, shortened so that no atom moves more than `longest_step`
    Å, which is itself cut to a third, six times at most, when forces grow tenfold over the first or the least so far;
    `memory` of them are remembered (default 30, or what fits into 2 GB). Burgers circuits decide whether the
    dislocations are still there, within `core_radius` (default 0.8 a0) of the intended place: at the end, and after
    every tenth force call, so that a relaxation whose cores have left ends soon. Where the crystal is
    stiffer than the metric thinks, as in a core, steps shrink to the measured curvature; `scaled` = False saves the
    product with the metric which that takes, for a metric that is the Hessian itself.
    """
    memory = max(5, min(30, int(1e9 / start.nbytes))) if memory is None else memory
    atoms = cell.atoms(start)
    atoms.calc = calculator

    def forces_at(u: np.ndarray) -> np.ndarray | None:
        if not np.isfinite(u).all():
            return None
        atoms.positions[:] = cell.reference + u
        try:
            found = atoms.get_forces()
        except FloatingPointError:  # atoms have met
            return None
        return found if np.isfinite(found).all() else None

    u = start.copy()
    f = forces_at(u)
    pairs: deque[tuple[np.ndarray, np.ndarray, float]] = deque(maxlen=memory)
    history: list[float] = []
    status = Status.MAX_STEPS
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    retreats, restored = 6, False
    allowed, missed = 0.8 * cell.a0 if core_radius is None else core_radius, 0
    while True:
        if retreats and best is not None and (f is None or np.abs(f).max() > 10 * max(best[0], history[0])):
            # a soft mode was followed too far: back to the best state, with shorter steps
            if f is not None:
                history.append(float(np.abs(f).max()))
            retreats, longest_step = retreats - 1, longest_step / 3
            pairs.clear()
            u, f, restored = best[1].copy(), best[2], True
        if f is None:
            status = Status.NONFINITE
            break
        largest = float(np.abs(f).max())
        if not restored:
            history.append(largest)
        restored = False
        if best is None or largest < best[0]:
            best = (largest, u.copy(), f)
        if progress:
            progress(len(history), largest)
        if largest < tolerance:
            status = Status.CONVERGED
            break
        if largest > 1e3 * max(1.0, history[0]):
            status = Status.DIVERGED
            break
        if len(history) >= max_calls:
            break
        if len(history) % LOOK == 0:
            missed = 0 if cell.judge(u, allowed)[0] == "kept" else missed + 1
            if missed == 2:  # once may be a step too far, which the next ones take back
                best = (largest, u, f)
                break
        step = _two_loop(f, pairs, metric, scaled)
        if (step * f).sum() <= 0:  # memory from another valley: forget it
            pairs.clear()
            step = metric(f)
        length = float(np.sqrt((step**2).sum(axis=1).max()))
        step *= min(1.0, longest_step / length)
        u_new = u + step
        f_new = forces_at(u_new)
        if f_new is not None:
            change = f - f_new
            curvature = float((step * change).sum())
            if curvature > 1e-12 * np.linalg.norm(step) * np.linalg.norm(change):
                pairs.append((step, change, 1.0 / curvature))
        u, f = u_new, f_new
    if best is None:
        nothing = np.full_like(start, np.nan)
        missing = np.full((len(cell.cores), 2), np.nan)
        return Relaxation(status, start, np.nan, nothing, np.array([np.inf]), missing)
    _, u, f = best
    atoms.positions[:] = cell.reference + u
    energy = float(atoms.get_potential_energy())
    verdict, shifts = cell.judge(u, allowed)
    if status not in (Status.NONFINITE, Status.DIVERGED):
        status = {"annihilated": Status.ANNIHILATED, "moved": Status.MOVED}.get(verdict, status)
    return Relaxation(status, u, energy, f, np.array(history), shifts)


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
