"""eps_E and eps_F as Theorem 3.1 defines them: the largest errors in a ball around the training cell (3.9, 3.10).

    max |ΔE(v)|,  max ‖ΔF(v)‖_{U*}   over  ‖D(v - ȳ_L)‖ <= δ

These maxima cannot be computed exactly. Projected gradient ascent in the norm of the ball finds a local maximum, which
is a lower bound. The test set holds random configurations only, and random displacements are not the worst case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase.calculators.calculator import Calculator

from suite.world.cell import StraightCell

STEPS = 30  # steps of an ascent; a difficult one uses many of them up by halving
GAIN = 1e-4  # relative; an ascent ends when a step gains less


@dataclass(frozen=True)
class Ball:
    """Displacements v (n, 3) of `cell` with ‖D(v - centre)‖ <= `radius`, Å."""

    cell: StraightCell
    centre: np.ndarray
    radius: float

    def project(self, v: np.ndarray) -> np.ndarray:
        """The nearest displacement of the ball in ‖D·‖, without its translation."""
        away = v - self.centre
        away = away - away.mean(axis=0)
        return self.centre + away * min(1.0, self.radius / max(self.cell.strain_norm(away), 1e-300))

    def uphill(self, gradient: np.ndarray) -> np.ndarray:
        """The direction of steepest ascent in ‖D·‖ for the `gradient` (n, 3), with norm 1; zero if the gradient is
        zero."""
        direction = self.cell.solve_laplacian(gradient)
        norm = self.cell.strain_norm(direction)
        return direction / norm if norm > 0 else direction


@dataclass(frozen=True)
class Difference:
    """Model minus reference in one cell: energies relative to the perfect crystal of each (`per_atom`, eV), forces."""

    cell: StraightCell
    calculators: tuple[Calculator, Calculator]  # reference, model
    per_atom: tuple[float, float]

    def __call__(self, v: np.ndarray) -> tuple[float, np.ndarray]:
        """ΔE (eV) and ΔF (n, 3) eV/Å at the displacement v (n, 3)."""
        energy, forces = 0.0, np.zeros_like(v)
        for sign, calculator, bulk in zip((-1, 1), self.calculators, self.per_atom, strict=True):
            atoms = self.cell.atoms(v)
            atoms.calc = calculator
            forces += sign * atoms.get_forces()
            energy += sign * (float(atoms.get_potential_energy()) - len(atoms) * bulk)
        return energy, forces


def match_neighbourhood(
    sets: Sequence[tuple[StraightCell, np.ndarray]],
    reference: Calculator,
    model: Calculator,
    per_atom: tuple[float, float],
    radius: float,
) -> dict[str, float]:
    """`eps_E_ball` (eV) and `eps_F_ball` (eV/Å), the largest errors found within `radius` (Å) of training equilibria.

    `sets` are training cells with the displacements (n, 3) of their equilibria; `per_atom` energies of the perfect
    crystal of both, eV. Ascents start at the equilibrium and at a random smooth field; the ascent of the force error
    also starts where the energy error is largest.
    """
    largest = {"eps_E_ball": 0.0, "eps_F_ball": 0.0}
    for cell, equilibrium in sets:
        ball, difference = Ball(cell, equilibrium, radius), Difference(cell, (reference, model), per_atom)
        noise = ball.uphill(np.random.default_rng(0).standard_normal(equilibrium.shape))
        starts = [equilibrium, equilibrium + radius / 2 * noise]
        for sign in (1, -1):
            climbed = [ascend(ball, start, *_energy_error(difference, sign)) for start in starts[:2]]
            value, place = max(climbed, key=lambda found: found[0])
            largest["eps_E_ball"] = max(largest["eps_E_ball"], value)
            starts.append(place)
        for start in starts:
            value, _ = ascend(ball, start, *_force_error(difference))
            largest["eps_F_ball"] = max(largest["eps_F_ball"], value)
    return largest


Value = Callable[[np.ndarray], float]
Gradient = Callable[[np.ndarray], np.ndarray]


def _energy_error(difference: Difference, sign: int) -> tuple[Value, Gradient]:
    """± ΔE and its gradient."""
    return lambda v: sign * difference(v)[0], lambda v: -sign * difference(v)[1]


def _force_error(difference: Difference, step: float = 1e-3) -> tuple[Value, Gradient]:
    """‖ΔF‖_{U*}, and the gradient of half its square: (∂ΔF)ᵀ K⁺ ΔF, where ∂ΔF, a difference of Hessians, is symmetric.
    Central differences of `step` Å for the atom that moves furthest."""
    cell = difference.cell

    def gradient(v: np.ndarray) -> np.ndarray:
        along = cell.solve_laplacian(difference(v)[1])
        if not (size := np.abs(along).max()) > 0:
            return along
        h = step / size
        return (difference(v + h * along)[1] - difference(v - h * along)[1]) / (2 * h)

    return lambda v: cell.dual_norm(difference(v)[1]), gradient


def ascend(ball: Ball, start: np.ndarray, value: Value, gradient: Gradient) -> tuple[float, np.ndarray]:
    """The largest `value` on a projected ascent from `start` (n, 3), and where it is. The value never decreases."""
    place = ball.project(start)
    best, length = value(place), ball.radius
    for _ in range(STEPS):
        direction, before = ball.uphill(gradient(place)), best
        while best <= before and length > 1e-3 * ball.radius:
            candidate = ball.project(place + length * direction)
            found = value(candidate)
            if found > best:  # a value that is not finite is not accepted
                best, place, length = found, candidate, min(2 * length, 2 * ball.radius)
            else:
                length /= 2
        if best - before <= GAIN * abs(best):
            break
    return best, place
