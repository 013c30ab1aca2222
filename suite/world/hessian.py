"""The Hessian at an equilibrium: sparse, by coloured force differences; its factor, and the stability constant c0."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from itertools import pairwise, product
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from scipy.sparse import coo_array, csr_array
from scipy.spatial import cKDTree

from store.faults import FailedOutcome
from suite.execution import Companion, map_pieces
from suite.world.calculators import Portable
from suite.world.cell import Cell, Metric, StraightCell
from suite.world.dislocation import nearest_image

# Thresholds of `interaction_range`. What COARSE cuts off changes every λ of copper by -1e-4 eV/Å^2, which is nothing
# beside the 0.1 of tungsten, and too much for cores that glide freely. FINE leaves 2e-6 and costs a third more.
COARSE, FINE = 1e-4, 1e-6
ATOMS = 8_000  # a piece displaces sets of atoms until so many atoms have been computed, times six force calls
TWOFOLD = 100_000  # atoms; with fewer a second engine costs more than it saves
ROUND = 8  # iterations for the softest mode between two looks at its error
NOISE = 0.1  # of the strain norm of a guessed mode
SHARES = 4  # the number of pieces is a multiple, and they are equal: no process waits long for the last one


def force_differences(
    portable: Portable, atoms: Atoms, sets: Sequence[tuple[np.ndarray, np.ndarray]], step: float
) -> list[np.ndarray]:
    """For each set of atoms displaced together, and the atoms near it: -∂f/∂u of those, (3, near, 3) eV/Å^2; the first
    axis is that of the displacement, by ±`step` Å."""
    calculator = portable.fresh()
    moved = atoms.copy()
    moved.calc = calculator
    differences = []
    for members, near in sets:
        blocks = []
        for axis in range(3):
            forces = []
            for sign in (1, -1):
                moved.positions[:] = atoms.positions
                moved.positions[members, axis] += sign * step
                forces.append(moved.get_forces()[near])
            blocks.append((forces[1] - forces[0]) / (2 * step))
        differences.append(np.array(blocks))
    return differences


def _all_differences(
    calculator: Calculator,
    atoms: Atoms,
    sets: Sequence[tuple[np.ndarray, np.ndarray]],
    step: float,
    workers: int | None,
) -> Iterator[np.ndarray]:
    """`force_differences` of all sets, in pieces that do not depend on the number of `workers`."""
    portable = Portable.of(calculator)
    pieces = [(portable, atoms, sets[first:end], step) for first, end in pairwise(_shares(len(sets), len(atoms)))]
    for piece in map_pieces(force_differences, pieces, portable.workers(workers)):
        yield from piece


def _shares(sets: int, atoms: int) -> list[int]:
    """Where the pieces of so many `sets` of displaced atoms end, the beginning included: equal numbers of sets."""
    count = -(-sets // max(1, ATOMS // atoms))
    count = min(sets, -(-count // SHARES) * SHARES)
    return [sets * k // count for k in range(count + 1)]


def interaction_range(
    cell: StraightCell,
    calculator: Calculator,
    displacement: np.ndarray,
    threshold: float = COARSE,
    step: float = 1e-3,
    probes: int = 4,
    workers: int | None = None,
) -> float:
    """Distance in the plane beyond which the force response to one displaced atom is below `threshold` of its largest.

    Measured at the `probes` atoms next to every core, where neighbours come closer than in the crystal, and at the one
    furthest from them; a calculator need not tell, and the tail of a long potential would only fill the factor.
    """
    size = np.diag(cell.vectors_perfect)[:2]

    def away(point: np.ndarray) -> np.ndarray:
        difference = cell.reference[:, :2] - point
        return np.linalg.norm(nearest_image(difference, size), axis=1)

    from_cores = np.array([away(core) for core in cell.cores])
    chosen = {int(np.argmax(from_cores.min(axis=0)))}
    chosen.update(int(i) for row in from_cores for i in np.argsort(row)[:probes])
    probed, everyone = sorted(chosen), np.arange(len(cell))
    sets = [(np.array([index]), everyone) for index in probed]
    reach = 0.0
    differences = _all_differences(calculator, cell.atoms(displacement), sets, step, workers)
    for index, found in zip(probed, differences, strict=True):
        distance = away(cell.reference[index, :2])
        for response in np.abs(found).max(axis=2):
            reach = max(reach, float(distance[response > threshold * response.max()].max()))
    return reach + 0.1


def _wrapped(positions: np.ndarray, size: np.ndarray) -> np.ndarray:
    wrapped = positions % size
    return np.where(wrapped >= size, 0.0, wrapped)  # -1e-17 wraps to the size itself, which a periodic tree refuses


def _colours(positions: np.ndarray, size: np.ndarray, separation: float) -> np.ndarray:
    """Points (n, 2) in a periodic cell closer than `separation` get different colours, (n,).

    Recursive largest first (Leighton, J. Res. Natl. Bur. Stand. 84, 489, 1979): a colour takes one point after the
    other, each time the one that has most neighbours among those that this colour can no longer take. So points of one
    colour lie as close as they may: about a quarter fewer colours than by giving each point in turn the first free one.
    """
    if separation > size.min() / 2:
        return np.arange(len(positions))
    tree = cKDTree(_wrapped(positions, size), boxsize=size)
    pairs = tree.query_pairs(separation, output_type="ndarray")
    here, there = np.concatenate([pairs, pairs[:, ::-1]]).T
    starts = np.cumsum(np.bincount(here, minlength=len(positions)))[:-1]
    neighbours = np.split(there[np.argsort(here, kind="stable")], starts)
    colours = np.full(len(positions), -1)
    colour = 0
    while (colours < 0).any():
        free = colours < 0
        shared = np.where(free, 0, -1)
        while free.any():
            point = int(np.argmax(shared))
            colours[point] = colour
            taken = neighbours[point][free[neighbours[point]]]
            free[point], free[taken] = False, False
            shared[point], shared[taken] = -1, -1
            for index in taken:
                shared[neighbours[index]] += free[neighbours[index]]
        colour += 1
    return colours


def hessian(
    cell: StraightCell,
    calculator: Calculator,
    displacement: np.ndarray,
    step: float = 1e-3,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
    threshold: float = COARSE,
) -> csr_array:
    """Hessian (3n, 3n), eV/Å^2, of a quasi-two-dimensional cell at `displacement` (n, 3).

    Atoms further apart than twice the interaction range are displaced together, so that the number of force calls
    does not grow with the cell. Forces below `threshold` of the largest are left out, see `interaction_range`.
    Symmetric; rows sum to zero (translations cost nothing) but for rounding. Colours are
    shared among `workers` processes (default: all cores), and the result does not depend on how many.
    """
    size = np.diag(cell.vectors_perfect)[:2]
    reach = interaction_range(cell, calculator, displacement, threshold, workers=workers)
    plane = _wrapped(cell.reference[:, :2], size)
    colours = _colours(plane, size, 2 * reach)
    count = int(colours.max()) + 1
    sets, owners = [], []
    for colour in range(count):
        members = np.flatnonzero(colours == colour)
        near, owner = _surroundings(plane, size, members, reach)
        sets.append((members, near))
        owners.append(owner)
    rows, columns, values = [], [], []
    differences = _all_differences(calculator, cell.atoms(displacement), sets, step, workers)
    for colour, ((_, near), owner, found) in enumerate(zip(sets, owners, differences, strict=True)):
        for axis in range(3):
            rows.append((3 * near[:, None] + np.arange(3)).ravel())
            columns.append(np.repeat(3 * owner + axis, 3))
            values.append(found[axis].ravel())
        if progress:
            progress(colour + 1, count)
    n = 3 * len(cell)
    matrix = coo_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(n, n)).tocsr()
    matrix = ((matrix + matrix.T) / 2).tocsr()
    return _with_zero_row_sums(matrix)


def _surroundings(
    plane: np.ndarray, size: np.ndarray, members: np.ndarray, reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """Atoms within `reach` of one of `members` in the plane, and which of the members each of them is near to."""
    if len(members) > 1:
        distance, nearest = cKDTree(plane[members], boxsize=size).query(plane)
        near = np.flatnonzero(distance < reach)
        return near, members[nearest[near]]
    near = np.arange(len(plane))
    if reach < size.min() / 2:
        near = np.array(cKDTree(plane, boxsize=size).query_ball_point(plane[members[0]], reach))
    return near, np.full(len(near), members[0])


def _with_zero_row_sums(matrix: csr_array) -> csr_array:
    """Correct the 3 x 3 diagonal blocks so that a translation has no force."""
    n = matrix.shape[0] // 3
    rows, columns, values = [], [], []
    for a, b in product(range(3), repeat=2):
        unit = np.zeros(3 * n)
        unit[b::3] = 1
        excess = (matrix @ unit)[a::3]
        rows.append(3 * np.arange(n) + a)
        columns.append(3 * np.arange(n) + b)
        values.append(-excess)
    correction = coo_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=matrix.shape
    )
    corrected = (matrix + correction).tocsr()
    return ((corrected + corrected.T) / 2).tocsr()


class Unfactorisable(FailedOutcome, RuntimeError):
    """A Hessian without a factor."""


def sparse_factor(matrix: csr_array) -> Any:
    """Factor of a symmetric sparse matrix with the fill of a Cholesky factor; raises `Unfactorisable` when singular."""
    from scipy.sparse.linalg import splu

    try:
        return splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    except RuntimeError as error:
        raise Unfactorisable(f"the Hessian is singular: {error}") from error


class Factor:
    """Factorised Hessian (3n, 3n); `solve` maps a force (n, 3) to a displacement (n, 3).

    The first atom is held (`held` is the factor of the rest), which removes the three translations exactly. With a
    `pull` p (n, 3), which sums to zero, solutions stay in its complement: p·u = 0, and H u = f - μ p with the μ
    that this takes (`suite.world.glide`). Raises `Unfactorisable` on a singular matrix.
    """

    def __init__(self, matrix: csr_array, pull: np.ndarray | None = None) -> None:
        self.held = sparse_factor(matrix[3:, 3:])
        self._hold(pull)

    def _hold(self, pull: np.ndarray | None) -> None:
        self._pull = None if pull is None else pull.ravel()[3:]
        if self._pull is not None:
            self._give = self.held.solve(self._pull)  # H⁻¹p: nearly the neutral mode itself, and very long
            self._compliance = float(self._pull @ self._give)

    def holding(self, pull: np.ndarray) -> Factor:
        """The same factor with a `pull` (n, 3); nothing is factorised again."""
        found = copy(self)
        found._hold(pull)
        return found

    @property
    def negative_eigenvalues(self) -> int:
        """Number of negative eigenvalues, by Sylvester's law of inertia; on the complement of a pull p one less when
        p·H⁻¹p is negative (Haynsworth's additivity of inertia)."""
        found = int((self.held.U.diagonal() < 0).sum())
        return found - int(self._pull is not None and self._compliance < 0)

    def reduced(self, forces: np.ndarray) -> np.ndarray:
        """H⁻¹ f where the first atom is held, for (3n - 3,) or columns of (3n - 3, m)."""
        if self._pull is None:
            return self.held.solve(np.asfortranarray(forces))
        # μ = p·H⁻¹f/p·H⁻¹p is taken from the force, not from the solution, in which the neutral mode would drown it
        forces = forces - np.multiply.outer(self._pull, self._give @ forces / self._compliance)
        solved = self.held.solve(np.asfortranarray(forces))
        return solved - np.multiply.outer(self._give, self._pull @ solved / self._compliance)

    def solve(self, force: np.ndarray) -> np.ndarray:
        """H⁻¹ f with zero mean, for a force field (n, 3)."""
        return self.solve_columns(force.reshape(-1, 1)).reshape(force.shape)

    def solve_columns(self, forces: np.ndarray) -> np.ndarray:
        """`solve` for each column of (3n, m)."""
        solved = np.zeros(forces.shape)
        solved[3:] = self.reduced(forces[3:])
        by_atom = solved.reshape(-1, 3, forces.shape[1])
        by_atom -= by_atom.mean(axis=0)
        return solved


def stability_constant(cell: Cell, matrix: csr_array, factor: Factor) -> tuple[float, np.ndarray]:
    """c0, the smallest λ of H v = λ K v with K = Σ DᵀD, eV/Å^2, and its mode v (n, 3); paper, Assumption 2.1.

    Lanczos for the largest 1/λ of K v = (1/λ) H v in the inner product of K. When the factor has negative eigenvalues,
    the state is a saddle point: the only one has the only negative 1/λ, and among several Lanczos looks for the most
    negative λ directly. A factor that holds a neutral mode leaves it out, unless the state is a saddle without it too.
    """
    from scipy.sparse import eye_array, kron
    from scipy.sparse.linalg import LinearOperator, eigsh

    stencil = kron(cell.laplacian, eye_array(3), format="csr")[3:, 3:]
    n = stencil.shape[0]
    inverse = sparse_factor(stencil)
    negative = factor.negative_eigenvalues
    saddle = negative > 1
    by_inverse = LinearOperator((n, n), matvec=lambda v: stencil @ factor.reduced(stencil @ v), dtype=float)
    values, modes = eigsh(
        matrix[3:, 3:] if saddle else by_inverse,
        k=1,
        M=stencil,
        Minv=LinearOperator((n, n), matvec=inverse.solve, dtype=float),
        which="SA" if negative else "LA",
        v0=np.random.default_rng(0).standard_normal(n),
        tol=1e-4 if saddle else 1e-5,
    )
    mode = np.zeros((len(cell), 3))
    mode[1:] = modes.reshape(-1, 3)
    return (float(values[0]) if saddle else 1 / float(values[0])), mode - mode.mean(axis=0)


class Displaced:
    """Forces of a `calculator` next to given `atoms`."""

    def __init__(self, calculator: Calculator, atoms: Atoms) -> None:
        self.home = atoms.positions.copy()
        self.atoms = atoms
        atoms.calc = calculator

    @classmethod
    def of(cls, portable: Portable, atoms: Atoms) -> Displaced:
        """With a new engine, for another process."""
        return cls(portable.fresh(), atoms)

    def forces(self, step: np.ndarray) -> np.ndarray:
        """Forces (n, 3), eV/Å, where all atoms have moved by `step` (n, 3), Å."""
        self.atoms.positions[:] = self.home + step
        return self.atoms.get_forces()


class HessianProducts:
    """The Hessian of a cell at `displacement` (n, 3) as an operator: products by force differences, inverse by CG.

    For three-dimensional cells, whose factors fill. `metric`, the inverse Hessian of the perfect crystal, is the
    preconditioner: the number of products does not grow with the cell. With `twofold`, in cells of `TWOFOLD` atoms or
    more, a second engine makes one of the two force calls of a product, in a process of its own where more than one
    core may be used; not for calculators that share their work among processes themselves.
    """

    def __init__(
        self,
        cell: Cell,
        calculator: Calculator,
        displacement: np.ndarray,
        metric: Metric,
        step: float = 1e-3,
        twofold: bool = False,
    ) -> None:
        self.cell, self.metric, self.step = cell, metric, step
        self._here = Displaced(calculator, cell.atoms(displacement))
        self._second: Companion | None = None
        portable = Portable.of(calculator) if twofold and len(cell) >= TWOFOLD else None
        if portable is not None and portable.pickled is not None:
            self._second = Companion(Displaced.of, portable, cell.atoms(displacement))
        self.products = 0

    def product(self, field: np.ndarray) -> np.ndarray:
        """H v for a displacement field (n, 3)."""
        self.products += 1
        length = float(np.sqrt((field**2).sum(axis=1).max()))
        scale = self.step / length
        step = scale * field
        begun = None if self._second is None else self._second.call(Displaced.forces, -step)
        above = self._here.forces(step)
        below = self._here.forces(-step) if begun is None else begun()
        return (below - above) / (2 * scale)

    def solve(self, force: np.ndarray, tolerance: float = 1e-3, most: int = 100) -> np.ndarray:
        """H⁻¹ f with zero mean for a force field (n, 3), to the relative `tolerance` in the norm of the metric.

        Raises `Unfactorisable` when the Hessian is not positive or `most` products do not suffice.
        """
        residual = force - force.mean(axis=0)
        solved = np.zeros_like(residual)
        spread = self.metric(residual)
        direction = spread.copy()
        size = first = float((residual * spread).sum())
        for _ in range(most):
            if size <= tolerance**2 * first or first == 0:
                return solved - solved.mean(axis=0)
            along = self.product(direction)
            curvature = float((direction * along).sum())
            if curvature <= 0:
                raise Unfactorisable("the Hessian has a negative eigenvalue: the state is a saddle point")
            length = size / curvature
            solved += length * direction
            residual -= length * along
            spread = self.metric(residual)
            size, before = float((residual * spread).sum()), size
            direction = spread + size / before * direction
        raise Unfactorisable(f"conjugate gradients did not converge in {most} products with the Hessian")


def stability_bound(products: HessianProducts, mode: np.ndarray) -> float:
    """An upper bound of c0 (see `stability_constant`), eV/Å^2, by two steps of `softest_mode` from a guess of the mode.

    For cells of millions of atoms, where five products with a Hessian are affordable and a hundred are not. The guess
    `mode` (n, 3) is that of a similar potential; the error is of second order in the difference of both modes.
    """
    return _descend(products, mode.reshape(-1, 1), 2)[0]


def softest_mode(
    products: HessianProducts,
    guesses: Sequence[np.ndarray] = (),
    accuracy: float = 1e-3,
    most: int = 200,
    progress: Callable[[float, str], None] | None = None,
) -> tuple[float, np.ndarray]:
    """c0 (see `stability_constant`), eV/Å^2, of a Hessian without a factor, and its mode (n, 3).

    Locally optimal preconditioned conjugate gradients (Knyazev 2001) from the `guesses` (n, 3) with a little noise, or
    from two fields of noise; noise is smooth and has no translation, and the metric keeps all iterates so. They end
    when the error of λ, estimated by r·M r with the residual r and the metric M, is below `accuracy` |λ|; `progress`
    hears the share of the `most` iterations and the λ so far. Raises `Unfactorisable` when these do not suffice.
    """
    fields = [_smooth_field(products, seed) for seed in range(max(2, len(guesses)))]
    for k, guess in enumerate(guesses):
        fields[k] = _with_noise(products, guess, fields[k])
    modes = np.column_stack([field.ravel() for field in fields])
    for done in range(0, most, ROUND):
        value, mode, modes = _descend(products, modes, min(ROUND, most - done))
        error = _error_of(products, value, mode)
        if progress:
            progress((done + ROUND) / most, f"λ = {value:.4g} eV/Å^2 to {error / abs(value):.0e}")
        if error <= accuracy * abs(value):
            return value, mode
    raise Unfactorisable(
        f"the softest mode was not found: λ = {value:.1e} eV/Å^2 may be off by {error:.1e}; the state may be a saddle"
    )


def softest_mode_near(products: HessianProducts, guess: np.ndarray, accuracy: float = 3e-2) -> tuple[float, np.ndarray]:
    """c0 (see `stability_constant`), eV/Å^2, and its mode (n, 3), where the metric is H⁻¹ of a similar potential.

    As `softest_mode`, from one field: the `guess` (n, 3) of that potential with a little noise, which the metric has
    filled with all soft modes, so that another one that is lower is found; until the error of λ is below `accuracy`
    |λ|. A negative λ is returned as soon as it is found, because any mode that falls proves a saddle point. Every λ
    that is returned is an upper bound of c0.
    """
    modes = _with_noise(products, guess, _smooth_field(products, 0)).reshape(-1, 1)
    for iterations in (2, 4, 8, 16, 32):  # each round begins the conjugate directions anew
        value, mode, modes = _descend(products, modes, iterations)
        if value < 0 or _error_of(products, value, mode) <= accuracy * value:
            break
    return value, mode


def _with_noise(products: HessianProducts, guess: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """A guessed mode (n, 3) that is free to leave its symmetry, and has no translation."""
    norm = products.cell.strain_norm
    centred = guess - guess.mean(axis=0)
    return centred + NOISE * norm(centred) / norm(noise) * noise


def _error_of(products: HessianProducts, value: float, mode: np.ndarray) -> float:
    """Estimated error of λ, eV/Å^2: r·M r with the residual r = H v - λ K v and the metric M."""
    residual = products.product(mode) - value * (products.cell.laplacian @ mode)
    return abs(float((residual * products.metric(residual)).sum()))


def _smooth_field(products: HessianProducts, seed: int) -> np.ndarray:
    return products.metric(np.random.default_rng(seed).standard_normal((len(products.cell), 3)))


def _descend(products: HessianProducts, modes: np.ndarray, iterations: int) -> tuple[float, np.ndarray, np.ndarray]:
    """So many iterations of LOBPCG: lowest λ, its mode (n, 3), all modes (3n, k)."""
    from scipy.sparse.linalg import LinearOperator, lobpcg

    cell = products.cell
    n = 3 * len(cell)

    def each(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        def columns(fields: np.ndarray) -> np.ndarray:
            fields = fields.reshape(n, -1)
            return np.column_stack([function(field.reshape(-1, 3)).ravel() for field in fields.T])

        return columns

    def operator(function: Callable[[np.ndarray], np.ndarray]) -> Any:
        apply = each(function)
        return LinearOperator((n, n), matvec=apply, matmat=apply, dtype=float)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # convergence is judged by the caller
        values, modes = lobpcg(
            operator(products.product),
            modes,
            B=operator(lambda field: cell.laplacian @ field),
            M=operator(products.metric),
            largest=False,
            tol=np.finfo(float).tiny,  # scipy takes 0 for its default, which grows with the cell
            maxiter=iterations,
        )
    lowest = int(np.argmin(values))
    return float(values[lowest]), modes[:, lowest].reshape(-1, 3), modes
