"""Everything that a verdict without relaxation needs, reduced to small matrices: a fit is judged in milliseconds.

Matching numbers of the test set, elastic errors and the linear response at ȳ are norms of affine functions of the
coefficients, ‖B c - y‖. Each is reduced once, by QR, to a triangle R with ‖B c - y‖ = ‖R [c; -1]‖; maxima over the test
set keep one triangle for each configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import qr

from suite.execution import map_pieces
from suite.judge import theory
from suite.judge.matching import energy_factor_numbers, error_numbers
from suite.model.contract import Recipe
from suite.model.regression import triangle_of
from suite.model.rows import built, compressed, cut
from suite.model.training import Configurations
from suite.world.cell import Circulant, StraightCell
from suite.world.crystal import Response, stress_strain_coefficients, third_without_pressure, without_null_part
from suite.world.elasticity import Line, rotate
from suite.world.hessian import Factor
from suite.world.relaxation import Relaxation


@dataclass(frozen=True)
class Scales:
    """Numbers of the world that the theory needs: L and L_D in a0, the number of dislocations, c0 (eV/Å^2), S (Å^4)."""

    size: float
    distance: float
    cores: int
    stability: float
    leverage: float


@dataclass(frozen=True)
class Oracle:
    """A judge of coefficients c (n,).

    `energies` (t, n + 1) rows [b, y] of the test energies; `dual` (t, k, n + 1) triangles of the whitened force errors,
    ‖·‖_{U*}; `forces` and `components` triangle and number of all force components, for each amplitude; `elastic`
    compressed rows of the elastic errors; `moduli` (81, n + 1) rows [b, y] of the stress-strain coefficients in the
    frame of the dislocation `line`; `geometry` triangle of D H⁻¹ (A c - f); `energy` (n + 1,) row of E_ML(ȳ) -
    E(ȳ); `pull` and `shift` (k, n + 1) with F - f = Q pull x and Qᵀ H⁻¹ (F - f) = shift x for x = [c; -1], F = A c:
    each is accurate by itself, while one quadratic form would square the condition number.
    """

    scales: Scales
    amplitudes: np.ndarray
    energies: np.ndarray
    dual: np.ndarray
    forces: dict[str, np.ndarray]
    components: dict[str, int]
    elastic: dict[str, np.ndarray]
    moduli: np.ndarray
    line: Line
    geometry: np.ndarray
    energy: np.ndarray
    pull: np.ndarray
    shift: np.ndarray

    @cached_property
    def line_energy(self) -> float:
        """t K of the reference, eV."""
        return self.line.energy(self.moduli[:, -1])

    def evaluate(self, coefficients: np.ndarray) -> dict[str, float]:
        """The numbers of `pipeline.assess` that need no relaxation, by the same names; eps_K may be infinite.

        Elastic errors are taken on the reference's relaxed path: right to second order for a multilattice, exact
        otherwise.
        """
        x = np.append(coefficients, -1.0)
        energy_error = self.energies @ x
        dual = np.sqrt(_squares(self.dual, x))
        squares = {name: float(((r @ x) ** 2).sum()) for name, r in self.forces.items()}
        numbers = error_numbers(self.amplitudes, energy_error, dual, squares, self.components)
        numbers |= {name: float(np.linalg.norm(rows @ x)) for name, rows in self.elastic.items()}
        numbers |= energy_factor_numbers(self.moduli[:, :-1] @ coefficients, self.line, self.line_energy)
        numbers["geometry_error_linear"] = float(np.linalg.norm(self.geometry @ x))
        force = self.pull @ x + self.pull[:, -1]
        numbers["energy_error_linear"] = abs(float(self.energy @ x - force @ (self.shift @ x) / 2))
        scales = self.scales
        numbers |= theory.bound(numbers, scales.size, scales.distance, scales.cores)
        numbers |= theory.corrected_bound(numbers, scales.size, scales.distance, scales.cores)
        numbers |= theory.balance(numbers, scales.distance, scales.stability, scales.leverage)
        numbers |= theory.corrected_balance(numbers, scales.size, scales.distance, scales.stability)
        return numbers


def _squares(triangles: np.ndarray, x: np.ndarray, height: int = 32) -> np.ndarray:
    """‖R x‖² (t,) of each upper triangle in (t, k, n). Entries below the diagonal blocks are not read: the
    triangles do not fit into the processor's cache, so that reading memory takes most of the time."""
    total = np.zeros(len(triangles))
    for first in range(0, triangles.shape[1], height):
        part = triangles[:, first : first + height, first:] @ x[first:]
        total += np.einsum("tk,tk->t", part, part)
    return total


def elastic_forms(rows: Mapping[str, np.ndarray], reference: Response, felt: np.ndarray) -> dict[str, np.ndarray]:
    """Compressed rows of eps_stress, eps_V1, eps_V2, of their null-free and pressure-free parts, and of eps_V1_felt
    with the form `felt` (k, 81) of `elasticity.felt_form`. Each number is ‖rows [c; -1]‖."""
    stress, virial1 = _with_target(rows, reference)
    virial2 = np.column_stack([rows["virial2"], reference.d3.ravel()])
    free = {
        "eps_V1_null_free": np.column_stack([without_null_part(column) for column in virial1.T]),
        "eps_V2_null_free": np.column_stack([without_null_part(column) for column in virial2.T]),
    }
    plain = {"eps_stress": stress, "eps_V1": virial1, "eps_V2": virial2}
    inner = stress_strain_coefficients(stress, virial1)
    forms = {
        **plain,
        **free,
        "eps_V1_felt": felt @ inner,
        "eps_V1_pressure_free": inner,
        "eps_V2_pressure_free": third_without_pressure(stress, virial2),
    }
    return {name: compressed(form) for name, form in forms.items()}


def _with_target(rows: Mapping[str, np.ndarray], reference: Response) -> tuple[np.ndarray, np.ndarray]:
    """Elastic rows of first and second order, (9, n + 1) and (81, n + 1), with their targets as the last column."""
    stress = np.column_stack([rows["stress"], reference.d1.ravel()])
    return stress, np.column_stack([rows["virial1"], reference.d2.ravel()])


def line_moduli(rows: Mapping[str, np.ndarray], reference: Response, line: Line) -> np.ndarray:
    """Rows (81, n + 1) of the stress-strain coefficients in the frame of `line`; the last column is the `reference`."""
    columns = stress_strain_coefficients(*_with_target(rows, reference))
    return np.column_stack([rotate(column, line.frame).ravel() for column in columns.T])


def _test_piece(
    parameters: Recipe, cell: StraightCell, test: Configurations, perfect: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Energy rows, whitened triangles, and triangles of the plain forces by amplitude, of some test configurations."""
    basis = built(parameters)
    energies, dual = [], []
    plain: dict[str, np.ndarray] = {}
    to_dual = cell.laplacian_power(-0.5)  # the norm of a whitened force is its dual norm
    for index in range(len(test)):
        energy, force = basis.energy_and_force_rows(cell.atoms(test.displacements[index]))
        energies.append(np.append(energy - len(cell) * perfect, test.energies[index]))
        augmented = np.column_stack([force, test.forces[index].ravel()])
        dual.append(_padded(triangle_of(_applied(to_dual, augmented))))
        name = f"{test.amplitudes[index]:g}"
        before = [plain[name]] if name in plain else []
        plain[name] = triangle_of(np.vstack([*before, augmented]))
    return np.array(energies), np.array(dual), plain


def _applied(operator: Circulant, columns: np.ndarray) -> np.ndarray:
    """A scalar operator on every Cartesian component of columns (3n, m)."""
    fields = columns.reshape(-1, 1, 3 * columns.shape[1])
    return operator.solve_columns(fields).reshape(columns.shape)


def _padded(triangle: np.ndarray) -> np.ndarray:
    return np.vstack([triangle, np.zeros((triangle.shape[1] - len(triangle), triangle.shape[1]))])


def reduce_test_sets(
    parameters: Recipe,
    sets: list[tuple[StraightCell, Configurations]],
    perfect: np.ndarray,
    workers: int | None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], dict[str, int]]:
    """`energies`, `dual`, `forces` and `components` of an `Oracle` for labelled test sets."""
    pieces = cut(sets, 2)
    results = map_pieces(_test_piece, [(parameters, cell, piece, perfect) for cell, piece in pieces], workers)
    energies, dual = [], []
    plain: dict[str, np.ndarray] = {}
    for done, (energy, triangle, force) in enumerate(results, start=1):
        energies.append(energy)
        dual.append(triangle)
        for name, rows in force.items():
            plain[name] = triangle_of(np.vstack([plain[name], rows])) if name in plain else rows
        if progress:
            progress(done, len(pieces))
    components = dict.fromkeys(plain, 0)
    for cell, test in sets:
        for amplitude in test.amplitudes:
            components[f"{amplitude:g}"] += 3 * len(cell)
    return np.concatenate(energies), np.concatenate(dual), plain, components


def reduce_response(
    parameters: Recipe,
    cell: StraightCell,
    equilibrium: Relaxation,
    reference_energy: float,
    factor: Factor,
    perfect: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`geometry`, `energy`, `pull` and `shift` of an `Oracle`; `reference_energy` relative to the perfect crystal, eV.

    At ȳ the forces of a fit are A c. To first order its equilibrium differs by H⁻¹ (A c - f), where f is the residual
    force of the reference's relaxation.
    """
    energy, force = parameters.build().energy_and_force_rows(cell.atoms(equilibrium.displacement))
    augmented = np.column_stack([force, equilibrium.forces.ravel()])
    shift = factor.solve_columns(augmented)
    directions, pull = qr(augmented, mode="economic", check_finite=False)
    strain = _applied(cell.laplacian_power(0.5), shift)
    row = np.append(energy - len(cell) * perfect, reference_energy)
    return _padded(triangle_of(strain)), row, pull, directions.T @ shift
