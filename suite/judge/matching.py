"""Matching conditions, potential against potential: eps_E, eps_F, eps_H, eps_V1, eps_V2 (paper, 3.9-3.12).

Energies are differences to the perfect crystal of the same potential. The maxima over a neighbourhood of the relaxed
training cell, which nobody can compute, become maxima over the test set; the root mean squares stand beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from suite.model.training import Configurations, label
from suite.world.cell import Cell
from suite.world.crystal import Response, constants, without_null_part


@dataclass(frozen=True)
class Matching:
    """Matching numbers by name, and the fields behind them.

    `energies` (c,) eV, `forces` (c, n, 3) eV/Å of the model on the test set; `dual_norms` (c,) eV/Å.
    """

    numbers: dict[str, float]
    energies: np.ndarray
    forces: np.ndarray
    dual_norms: np.ndarray


def match_configurations(cell: Cell, test: Configurations, calculator: Calculator, energy_per_atom: float) -> Matching:
    """eps_E and eps_F of the model `calculator` on labelled test configurations.

    `eps_E` max |ΔE|, eV; `eps_F` max of the dual norm (fᵀK⁺f)^½, exact for (3.10), eV/Å; `rmse_E` (eV), `rmse_F` (eV/Å,
    per component), all also for each amplitude (`rmse_F_0.1`).
    """
    model = label(cell, test.displacements, test.amplitudes, calculator, energy_per_atom)
    energy_error = model.energies - test.energies
    force_error = model.forces - test.forces
    dual = np.array([cell.dual_norm(f) for f in force_error])
    numbers = {
        "eps_E": float(np.abs(energy_error).max()),
        "eps_F": float(dual.max()),
        "rmse_E": float(np.sqrt((energy_error**2).mean())),
        "rmse_F": float(np.sqrt((force_error**2).mean())),
        "rms_eps_F": float(np.sqrt((dual**2).mean())),
    }
    for amplitude in np.unique(test.amplitudes):
        chosen = test.amplitudes == amplitude
        numbers[f"rmse_E_{amplitude:g}"] = float(np.sqrt((energy_error[chosen] ** 2).mean()))
        numbers[f"rmse_F_{amplitude:g}"] = float(np.sqrt((force_error[chosen] ** 2).mean()))
        numbers[f"eps_F_{amplitude:g}"] = float(dual[chosen].max())
    return Matching(numbers, model.energies, model.forces, dual)


def match_elasticity(reference: Response, model: Response) -> dict[str, float]:
    """eps_V1 and eps_V2 (eV/Å^3, Frobenius norms over 81 and 729 entries) and what of them a dislocation can feel.

    `eps_V1_null_free` and `eps_V2_null_free` are distances to the span of the null Lagrangians, which exert no force in
    a fixed periodic cell. Constants in GPa as `error_C11` ..., pressure as `pressure`.
    """
    difference = model - reference
    numbers = {
        "eps_stress": float(np.linalg.norm(difference.d1)),
        "eps_V1": float(np.linalg.norm(difference.d2)),
        "eps_V2": float(np.linalg.norm(difference.d3)),
        "eps_V1_null_free": float(np.linalg.norm(without_null_part(difference.d2))),
        "eps_V2_null_free": float(np.linalg.norm(without_null_part(difference.d3))),
    }
    ours, theirs = constants(model), constants(reference)
    for name in ("C11", "C12", "C44"):
        numbers[f"error_{name}"] = ours[name] - theirs[name]
    numbers["pressure"] = ours["pressure"]
    # the same constants of what is left without null Lagrangians: p·det F alone would add p to C12 and -p/2 to C44
    felt = constants(Response(difference.d1, without_null_part(difference.d2), difference.d3))
    for name in ("C11", "C12", "C44"):
        numbers[f"error_{name}_null_free"] = felt[name]
    return numbers


def match_hessian(
    cell: Cell, displacement: np.ndarray, reference: Calculator, model: Calculator, step: float = 1e-3
) -> dict[str, float]:
    """eps_H (3.11), eV/Å^2: largest |λ| of (H - H_ML) v = λ K v, training equilibrium plus perfect crystal.

    Lanczos; Hessian-vector products by central force differences, K⁺ by the Fourier transform.
    """
    from scipy.sparse import eye_array, kron
    from scipy.sparse.linalg import LinearOperator, eigsh

    n = 3 * len(cell)
    stencil = kron(cell.laplacian, eye_array(3), format="csr")

    def spread(values: np.ndarray) -> np.ndarray:
        return cell.solve_laplacian(values.reshape(-1, 3)).ravel()

    parts = {}
    for name, atoms in (("relaxed", cell.atoms(displacement)), ("perfect", cell.perfect_atoms())):
        start = atoms.positions.copy()

        def product(v: np.ndarray, atoms: Atoms = atoms, start: np.ndarray = start) -> np.ndarray:
            v = v.reshape(-1, 3) - v.reshape(-1, 3).mean(axis=0)
            h = step / np.abs(v).max()
            total = np.zeros_like(v)
            for sign, calculator in ((1, reference), (-1, model)):
                atoms.calc = calculator
                atoms.positions[:] = start + h * v
                plus = atoms.get_forces()
                atoms.positions[:] = start - h * v
                total += sign * (atoms.get_forces() - plus) / (2 * h)
            return total.ravel()

        seed = stencil @ np.random.default_rng(0).standard_normal(n)
        if np.abs(product(spread(seed))).max() < 1e-7 * np.abs(seed).max():  # equal within force differences
            parts[name] = 0.0
            continue
        # inverse iteration lives on fields of zero mean, where K is positive and K⁺ is its inverse
        values = eigsh(
            LinearOperator((n, n), matvec=product, dtype=float),
            k=1,
            M=stencil,
            Minv=LinearOperator((n, n), matvec=spread, dtype=float),
            which="LM",
            v0=seed,
            tol=1e-2,
            return_eigenvectors=False,
        )
        parts[name] = float(np.abs(values).max())
    return {"eps_H": sum(parts.values()), "eps_H_relaxed": parts["relaxed"], "eps_H_perfect": parts["perfect"]}
