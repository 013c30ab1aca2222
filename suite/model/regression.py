"""The loss as a weighted least-squares problem, cut where the weights enter.

    L(c) = Σ_blocks W_b / N_b · ‖A_b c - y_b‖²        N_b = 1 ("paper", 4.16) or the number of rows ("mean")

Every block is reduced once, by QR, to a triangle of n + 1 rows: ‖A c - y‖ = ‖R [c; -1]‖ exactly. A re-weighted problem
is a stack of scaled triangles; the rows themselves are never needed again. (Not the Gram matrix: that squares the
condition number.) Weights multiply *squared* residuals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import qr, qr_multiply, solve_triangular
from scipy.linalg.lapack import dtpqrt

from store.faults import FailedOutcome
from suite.observables import block_parts
from suite.spec import Solver, Spec


@dataclass(frozen=True)
class Block:
    """One kind of observation, reduced.

    `triangle` (k, n + 1), k <= n + 1, upper triangular, last column for the targets; `rows` and `target_sum` of the
    original block, which some solvers need. Raises ValueError for another shape, or where there is something below the
    diagonal: `joined` does not look there.
    """

    triangle: np.ndarray
    rows: int
    target_sum: float

    def __post_init__(self) -> None:
        rows, columns = self.triangle.shape
        if rows > columns or np.tril(self.triangle, -1).any():
            raise ValueError(f"a block of {rows} rows and {columns} columns is not an upper triangle")

    def residual(self, coefficients: np.ndarray) -> float:
        """‖A c - y‖ of the original rows."""
        return float(np.linalg.norm(self.triangle @ np.append(coefficients, -1.0)))

    def rmse(self, coefficients: np.ndarray) -> float:
        """Root mean square residual per row."""
        return self.residual(coefficients) / np.sqrt(max(self.rows, 1))


def triangle_of(matrix: np.ndarray) -> np.ndarray:
    """Upper triangle R of a QR factorisation, at most as many rows as columns."""
    return qr(matrix, mode="r", overwrite_a=True, check_finite=False)[0][: matrix.shape[1]]


PANEL = 16  # columns that LAPACK eliminates at once


def joined(triangles: Sequence[np.ndarray]) -> np.ndarray:
    """Triangle R (m, m) with RᵀR = Σ TᵀT over `triangles` (k, m), k <= m, each upper triangular or trapezoidal.

    Triangles are merged one by one, by Householder reflections that leave out the zeros below their diagonals
    (LAPACK's TPQRT): as stable as a QR of the stack, for 2 m³ / 3 operations a square triangle instead of 2 m³.
    """
    columns = triangles[0].shape[1]
    first = max(range(len(triangles)), key=lambda index: len(triangles[index]))
    merged = np.zeros((columns, columns), order="F")
    merged[: len(triangles[first])] = triangles[first]
    for index, triangle in enumerate(triangles):
        if index != first and len(triangle):
            below = np.array(triangle, order="F")
            merged, _, _, info = dtpqrt(len(below), min(PANEL, columns), merged, below, overwrite_a=1, overwrite_b=1)
            if info:
                raise ValueError(f"argument {-info} of LAPACK's TPQRT is wrong")
    return np.asarray(merged)


@dataclass
class Reducer:
    """Collects rows of one block and keeps only their triangle; memory is bounded by `buffer_rows`."""

    functions: int
    buffer_rows: int = 20_000
    _pending: list[np.ndarray] = field(default_factory=list)
    _held: int = 0
    _rows: int = 0
    _sum: float = 0.0

    def add(self, rows: np.ndarray, targets: np.ndarray) -> None:
        """Add `rows` (k, n) with `targets` (k,)."""
        self._pending.append(np.column_stack([rows, targets]))
        self._held += len(targets)
        self._rows += len(targets)
        self._sum += float(targets.sum())
        if self._held > self.buffer_rows:
            self._reduce()

    def merge(self, block: Block) -> None:
        """Add a block that was reduced elsewhere."""
        self._pending.append(block.triangle)
        self._held += len(block.triangle)
        self._rows += block.rows
        self._sum += block.target_sum

    def _reduce(self) -> None:
        if self._pending:
            self._pending = [triangle_of(np.vstack(self._pending))]
            self._held = len(self._pending[0])

    def finish(self) -> Block:
        """The reduced block."""
        self._reduce()
        triangle = self._pending[0] if self._pending else np.zeros((0, self.functions + 1))
        return Block(triangle, self._rows, self._sum)


@dataclass(frozen=True)
class Problem:
    """A weighted problem: `triangle` (k, n + 1) and the true number, sum and sum of squares of its weighted targets."""

    triangle: np.ndarray
    rows: int
    target_sum: float

    @property
    def variance(self) -> float:
        """Variance of the weighted targets over all original rows."""
        squares = float((self.triangle[:, -1] ** 2).sum())
        return squares / self.rows - (self.target_sum / self.rows) ** 2


def stack(blocks: Mapping[str, Block], weights: Mapping[str, float], normalisation: str) -> Problem:
    """Weighted stack of reduced blocks; `weights` by block name, on squared residuals.

    Raises `ValueError` when nothing has a positive weight.
    """
    scaled, rows, total = [], 0, 0.0
    for name, block in blocks.items():
        weight = weights.get(name, 0.0)
        if weight <= 0 or block.rows == 0:
            continue
        factor = np.sqrt(weight / (block.rows if normalisation == "mean" else 1))
        scaled.append(factor * block.triangle)
        rows += block.rows
        total += factor * block.target_sum
    if not scaled:
        raise ValueError("no block has a positive weight: there is nothing to fit")
    return Problem(joined(scaled), rows, total)


def by_observable(spec: Spec, blocks: Mapping[str, Block]) -> dict[str, Block]:
    """The blocks of each observable as one, with the amplitude factors and the normalisation of `spec` inside.

    Blocks are named `observable` or `observable@amplitude`. What is left to weigh is one factor for each observable: a
    study that leaves the amplitudes alone merges the large triangles of the forces once, not in every trial.
    """
    joint = {}
    for observable in dict.fromkeys(block_parts(name)[0] for name in blocks):
        found = {name: block for name, block in blocks.items() if block_parts(name)[0] == observable and block.rows}
        factors = {name: spec.weights.amplitudes.get(block_parts(name)[1], 1.0) for name in found}
        if any(factor > 0 for factor in factors.values()):
            problem = stack(found, factors, spec.weights.normalisation)
            held = sum(len(found[name].triangle) for name, factor in factors.items() if factor > 0)
            joint[observable] = Block(problem.triangle[:held], problem.rows, problem.target_sum)
    return joint


def weighed(spec: Spec, joint: Mapping[str, Block]) -> Problem:
    """The weighted problem of `spec` from blocks that are joint `by_observable`. Raises ValueError as `stack` does."""
    return stack(joint, {name: spec.weight(name) for name in joint}, "paper")


def fit(spec: Spec, joint: Mapping[str, Block]) -> Solution:
    """Coefficients for the weights of `spec` from blocks that are joint `by_observable`. Raises `Unsolvable`."""
    return solve(weighed(spec, joint), spec.solver)


# --- solvers ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Solution:
    """Coefficients (n,) and what the solver has to say: numbers by name."""

    coefficients: np.ndarray
    details: dict[str, float]


class Unsolvable(FailedOutcome, RuntimeError):
    """A least-squares problem without a finite solution."""


def solve(problem: Problem, solver: Solver) -> Solution:
    """Solve a weighted problem. Raises `Unsolvable` when the coefficients are not finite."""
    triangle = problem.triangle
    norms = np.linalg.norm(triangle[:, :-1], axis=0)
    used = norms > max(1e-14 * norms.max(initial=0.0), 1e-300)
    if not used.any():
        raise Unsolvable("every basis function is zero on every row: no atom has a neighbour within model.cutoff")
    scale = np.where(used & solver.scale, norms, 1.0)
    matrix = triangle[:, :-1][:, used] / scale[used]
    scaled = Problem(np.column_stack([matrix, triangle[:, -1]]), problem.rows, problem.target_sum)
    found = SOLVERS[solver.kind](scaled, solver)
    coefficients = np.zeros(len(norms))
    coefficients[used] = found.coefficients / scale[used]
    if not np.isfinite(coefficients).all():
        raise Unsolvable(f"the {solver.kind} solver found no finite coefficients; try solver.kind = 'rrqr'")
    return Solution(coefficients, {**found.details, "unused_functions": float((~used).sum())})


def _ridge(problem: Problem, solver: Solver) -> Solution:
    matrix, target = problem.triangle[:, :-1], problem.triangle[:, -1]
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    alpha = solver.alpha * s[0] ** 2
    gain = s / (s**2 + alpha)
    return Solution(vt.T @ (gain * (u.T @ target)), {"condition": float(s[0] / max(s[-1], 1e-300)), "alpha": alpha})


def _rrqr(problem: Problem, solver: Solver) -> Solution:
    matrix, target = problem.triangle[:, :-1], problem.triangle[:, -1]
    projected, r, order = qr_multiply(matrix, target, mode="right", pivoting=True)  # Q itself is not needed
    diagonal = np.abs(np.diag(r))
    rank = int((diagonal > solver.tolerance * diagonal[0]).sum())
    coefficients = np.zeros(matrix.shape[1])
    coefficients[order[:rank]] = solve_triangular(r[:rank, :rank], projected[:rank])
    condition = float(diagonal[0] / max(diagonal[-1], 1e-300))
    return Solution(coefficients, {"rank": float(rank), "condition": condition})


def _bayesian_ridge(problem: Problem, solver: Solver) -> Solution:
    """Evidence maximisation with one precision for all coefficients (MacKay 1992), scikit-learn's updates."""
    matrix, target = problem.triangle[:, :-1], problem.triangle[:, -1]
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    projected = u.T @ target
    outside = float((target**2).sum() - (projected**2).sum())
    alpha, lam, prior = 1 / (problem.variance + float(np.finfo(float).eps)), 1.0, 1e-6
    previous = np.full(matrix.shape[1], np.inf)
    for iteration in range(1, solver.max_iterations + 1):
        gain = s / (s**2 + lam / alpha)
        coefficients = vt.T @ (gain * projected)
        if np.abs(previous - coefficients).sum() < 1e-3 and iteration > 1:
            break
        previous = coefficients
        squared = outside + float(((projected - s * gain * projected) ** 2).sum())
        gamma = float((alpha * s**2 / (lam + alpha * s**2)).sum())
        lam = (gamma + 2 * prior) / (float((coefficients**2).sum()) + 2 * prior)
        alpha = (problem.rows - gamma + 2 * prior) / (squared + 2 * prior)
    return Solution(coefficients, {"noise_precision": alpha, "prior_precision": lam, "iterations": float(iteration)})


def _determined(precision: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """How well the data determine each coefficient, from 0 to 1: one minus its prior precision times its posterior
    variance. Where they say nothing, rounding in an ill-conditioned factor would make it negative."""
    return np.clip(1.0 - precision * variance, 0.0, 1.0)


def _ard(problem: Problem, solver: Solver) -> Solution:
    """Automatic relevance determination: one precision per function, scikit-learn's updates on orthogonal factors.

    The noise update needs the true number of rows: a triangle has far fewer, and the noise would be overestimated.
    """
    matrix, target = problem.triangle[:, :-1], problem.triangle[:, -1]
    n = matrix.shape[1]
    prior, eps = 1e-6, float(np.finfo(float).eps)
    alpha, lam = 1 / (problem.variance + eps), np.ones(n)
    keep = np.ones(n, dtype=bool)
    coefficients, previous = np.zeros(n), np.full(n, np.inf)
    for iteration in range(1, solver.max_iterations + 1):
        m = int(keep.sum())
        augmented = np.zeros((len(matrix) + m, m + 1))
        augmented[: len(matrix), :m] = np.sqrt(alpha) * matrix[:, keep]
        augmented[: len(matrix), m] = np.sqrt(alpha) * target
        augmented[len(matrix) :, :m] = np.diag(np.sqrt(lam[keep]))
        r = triangle_of(augmented)[: m + 1]
        inverse = solve_triangular(r[:m, :m], np.eye(m))
        variance = (inverse**2).sum(axis=1)  # diagonal of the posterior covariance
        coefficients[:] = 0.0
        coefficients[keep] = inverse @ r[:m, m]
        squared = float(((target - matrix @ coefficients) ** 2).sum())
        gamma = _determined(lam[keep], variance)
        lam[keep] = (gamma + 2 * prior) / (coefficients[keep] ** 2 + 2 * prior)
        alpha = (problem.rows - float(gamma.sum()) + 2 * prior) / (squared + 2 * prior)
        keep = lam < solver.threshold
        coefficients[~keep] = 0.0
        if not keep.any():
            raise Unsolvable("ARD pruned every function: raise solver.threshold")
        if iteration > 1 and np.abs(previous - coefficients).sum() < 1e-3:
            break
        previous = coefficients.copy()
    m = int(keep.sum())
    augmented = np.vstack(
        [
            np.sqrt(alpha) * np.column_stack([matrix[:, keep], target]),
            np.column_stack([np.diag(np.sqrt(lam[keep])), np.zeros(m)]),
        ]
    )
    r = triangle_of(augmented)
    coefficients[:] = 0.0
    coefficients[keep] = solve_triangular(r[:m, :m], r[:m, m])
    return Solution(
        coefficients,
        {"noise_precision": alpha, "relevant_functions": float(m), "iterations": float(iteration)},
    )


SOLVERS: dict[str, Callable[[Problem, Solver], Solution]] = {
    "ard": _ard,
    "bayesian_ridge": _bayesian_ridge,
    "ridge": _ridge,
    "rrqr": _rrqr,
}
