"""Matching conditions between two potentials: eps_E, eps_F, eps_H, eps_V1, eps_V2 (paper, 3.9-3.12).

Energies are differences to the perfect crystal of the same potential. The maxima over a neighbourhood of the relaxed
training cell cannot be computed; they are replaced by maxima over the test set. Root mean squares are given as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from suite.model.training import Configurations, label
from suite.world.cell import StraightCell
from suite.world.crystal import (
    Response,
    constants,
    stress_strain_coefficients,
    third_without_pressure,
    without_null_part,
)
from suite.world.elasticity import DegenerateElasticity, Line, field_change, rotate, stroh


@dataclass(frozen=True)
class Matching:
    """Matching numbers by name, and the fields behind them.

    `energies` (c,) eV and `dual_norms` (c,) eV/Å are over all test sets, `forces` (c, n, 3) eV/Å of the model on each.
    """

    numbers: dict[str, float]
    energies: np.ndarray
    forces: tuple[np.ndarray, ...]
    dual_norms: np.ndarray


def match_configurations(
    sets: Sequence[tuple[StraightCell, Configurations]], calculator: Calculator, energy_per_atom: float
) -> Matching:
    """eps_E and eps_F of the model `calculator` on labelled test configurations of some training cells.

    `eps_E` max |ΔE|, eV; `eps_F` max of the dual norm (fᵀK⁺f)^½, exact for (3.10), eV/Å; `rmse_E` (eV), `rmse_F` (eV/Å,
    per component), all also for each amplitude (`rmse_F_0.1`).
    """
    labels = [label(cell, test.displacements, test.amplitudes, calculator, energy_per_atom) for cell, test in sets]
    differences = [(model.forces - test.forces) for model, (_, test) in zip(labels, sets, strict=True)]
    dual = np.array([cell.dual_norm(f) for (cell, _), fields in zip(sets, differences, strict=True) for f in fields])
    energies = np.concatenate([model.energies for model in labels])
    energy_error = energies - np.concatenate([test.energies for _, test in sets])
    amplitudes = np.concatenate([test.amplitudes for _, test in sets])
    squares = np.concatenate([(d**2).sum(axis=(1, 2)) for d in differences])
    components = np.repeat([3 * len(cell) for cell, _ in sets], [len(test) for _, test in sets])
    chosen = {f"{amplitude:g}": amplitudes == amplitude for amplitude in np.unique(amplitudes)}
    numbers = error_numbers(
        amplitudes,
        energy_error,
        dual,
        {name: float(squares[mask].sum()) for name, mask in chosen.items()},
        {name: int(components[mask].sum()) for name, mask in chosen.items()},
    )
    return Matching(numbers, energies, tuple(model.forces for model in labels), dual)


def error_numbers(
    amplitudes: np.ndarray,
    energy_error: np.ndarray,
    dual: np.ndarray,
    squares: Mapping[str, float],
    components: Mapping[str, int],
) -> dict[str, float]:
    """The numbers of `match_configurations`, from the energy errors (c,) eV, the dual norms of the force errors (c,)
    eV/Å, and for each amplitude (`f"{α:g}"`) the sum of squares and the number of all force components."""
    numbers = {
        "eps_E": float(np.abs(energy_error).max()),
        "eps_F": float(dual.max()),
        "rmse_E": float(np.sqrt((energy_error**2).mean())),
        "rmse_F": float(np.sqrt(sum(squares.values()) / sum(components.values()))),
        "rms_eps_F": float(np.sqrt((dual**2).mean())),
    }
    for name in squares:
        chosen = amplitudes == float(name)
        numbers[f"rmse_E_{name}"] = float(np.sqrt((energy_error[chosen] ** 2).mean()))
        numbers[f"rmse_F_{name}"] = float(np.sqrt(squares[name] / components[name]))
        numbers[f"eps_F_{name}"] = float(dual[chosen].max())
    return numbers


def match_relaxed(sets: Sequence[tuple[StraightCell, np.ndarray, np.ndarray]], model: Calculator) -> dict[str, float]:
    """`eps_F_relaxed`, eV/Å: eps_F at the relaxed training cell; with several training cells the largest one.

    `sets` are training cells with displacements (n, 3) of their equilibria and the reference's forces (n, 3) there.
    """
    found = []
    for cell, displacement, forces in sets:
        atoms = cell.atoms(displacement)
        atoms.calc = model
        found.append(cell.dual_norm(atoms.get_forces() - forces))
    return {"eps_F_relaxed": max(found)}


def match_elasticity(reference: Response, model: Response, felt: np.ndarray) -> dict[str, float]:
    """eps_V1 and eps_V2 (eV/Å^3, Frobenius norms over 81 and 729 entries) and their parts that exert forces.

    `eps_V1_null_free` and `eps_V2_null_free` are distances to the span of the null Lagrangians, which exert no force in
    a fixed periodic cell; `eps_V1_felt` is the part of the error of the stress-strain coefficients that exerts forces
    in the field of this dislocation, by the form `felt` (k, 81) of `elasticity.felt_form`. `eps_V1_pressure_free` and
    `eps_V2_pressure_free` are errors of W - s det F, s its tr(∂W)/3: the pressure and what comes with it are gone.
    `eps_V1_noise` and `eps_V2_noise` are the changes of the first two with twice the strain step: numbers that are not
    well above them are rounding or truncation of the finite differences. Constants in GPa as `error_C11` ..., pressure
    as `pressure`.
    """
    difference = model - reference
    numbers = {
        "eps_stress": float(np.linalg.norm(difference.d1)),
        "eps_V1": float(np.linalg.norm(difference.d2)),
        "eps_V2": float(np.linalg.norm(difference.d3)),
        "eps_V1_null_free": float(np.linalg.norm(without_null_part(difference.d2))),
        "eps_V2_null_free": float(np.linalg.norm(without_null_part(difference.d3))),
        "eps_V1_felt": float(np.linalg.norm(felt @ stress_strain_coefficients(difference.d1, difference.d2).ravel())),
        "eps_V1_pressure_free": float(np.linalg.norm(stress_strain_coefficients(difference.d1, difference.d2))),
        "eps_V2_pressure_free": float(np.linalg.norm(third_without_pressure(difference.d1, difference.d3))),
    }
    if difference.coarse is not None:
        _, numbers["eps_V1_noise"], numbers["eps_V2_noise"] = difference.noise
    ours, theirs = constants(model), constants(reference)
    for name in ("C11", "C12", "C44"):
        numbers[f"error_{name}"] = ours[name] - theirs[name]
    numbers["pressure"] = ours["pressure"]
    # the same without the null Lagrangians: p·det F alone would add p to C12 and -p/2 to C44
    left = constants(Response(difference.d1, without_null_part(difference.d2), difference.d3))
    for name in ("C11", "C12", "C44"):
        numbers[f"error_{name}_null_free"] = left[name]
    return numbers


def energy_factor_numbers(coefficients: np.ndarray, line: Line, reference: float) -> dict[str, float]:
    """`energy_factor_difference` t K(C') - `reference` for stress-strain `coefficients` C' (81 entries, frame of the
    line), and `eps_K`, its magnitude, eV.

    Both are infinite when the crystal of C' is not stable, where there is no dislocation.
    """
    try:
        difference = line.energy(coefficients) - reference
    except DegenerateElasticity:
        difference = math.inf
    return {"energy_factor_difference": difference, "eps_K": abs(difference)}


def match_energy_factor(reference: Response, model: Response, line: Line) -> dict[str, float]:
    """Error of the energy of one dislocation of length t for every factor e of distance, eV: t (K(C'_ML) - K(C')) as
    `energy_factor_difference`, positive where the model's dislocations cost too much, and its magnitude `eps_K`.

    Both are infinite when the crystal of the model is not stable. C' are the stress-strain coefficients.
    """
    ours, theirs = (_in_frame(found, line) for found in (model, reference))
    return energy_factor_numbers(ours, line, line.energy(theirs))


def match_growth(
    reference: Response, model: Response, line: Line, cores: int, stencil_density: float
) -> dict[str, float]:
    """Growth of both errors with the distance of straight dislocations, as the elastic constants predict it.

    `growth_energy`, eV: the slope of the signed energy difference in ln L_D, n_D t (K_ML - K). `growth_geometry`, Å^2:
    that of the squared geometry error, n_D t Σ|ρ|²/(3Ω) ∮|β_ML - β|² dθ, with the elastic fields β of both and
    `stencil_density` Σ|ρ|²/(3Ω) (1/Å); docs/theory.md. Infinite when the crystal of the model is not stable. For an
    isotropic crystal, where Stroh's solution is degenerate, `growth_geometry` is absent.
    """
    ours, theirs = (_in_frame(found, line) for found in (model, reference))
    found = {
        "growth_energy": cores * energy_factor_numbers(ours, line, line.energy(theirs))["energy_factor_difference"]
    }
    try:
        change = field_change(stroh(ours), stroh(theirs), line.burgers)
    except DegenerateElasticity:
        return found
    return {**found, "growth_geometry": cores * line.length * stencil_density * change}


def _in_frame(found: Response, line: Line) -> np.ndarray:
    """Stress-strain coefficients (3, 3, 3, 3) in the frame of a dislocation."""
    return rotate(stress_strain_coefficients(found.d1, found.d2), line.frame)


def match_hessian(
    sets: Sequence[tuple[StraightCell, np.ndarray]], reference: Calculator, model: Calculator, step: float = 1e-3
) -> dict[str, float]:
    """eps_H (3.11), eV/Å^2: largest |λ| of (H - H_ML) v = λ K v, training equilibrium plus perfect crystal.

    `sets` are training cells with the displacements (n, 3) of their equilibria; the largest value is returned.
    Lanczos with Hessian-vector products by central force differences and K⁺ by the Fourier transform.
    """
    found = [_hessian_errors(cell, displacement, reference, model, step) for cell, displacement in sets]
    relaxed, perfect = (max(pair[place] for pair in found) for place in (0, 1))
    return {"eps_H": relaxed + perfect, "eps_H_relaxed": relaxed, "eps_H_perfect": perfect}


def _hessian_errors(
    cell: StraightCell, displacement: np.ndarray, reference: Calculator, model: Calculator, step: float
) -> tuple[float, float]:
    """The two parts of eps_H in one cell: at `displacement`, and in the perfect crystal."""
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
        # inverse iteration works on fields of zero mean, where K is positive and K⁺ is its inverse
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
    return parts["relaxed"], parts["perfect"]


NOISES = {
    f"eps_{order}{part}": f"eps_{order}_noise"
    for order in ("V1", "V2")
    for part in ("", "_null_free", "_felt", "_pressure_free")
}
"""Elastic errors, and the number that says how far finite differences determine them."""


def told(numbers: Mapping[str, float], name: str) -> str:
    """A number as text for a table; an elastic error with its uncertainty if that is more than a tenth of it."""
    value, noise = numbers[name], numbers.get(NOISES.get(name, ""), 0.0)
    if noise <= 0.1 * abs(value):
        return f"{value:.4g}"
    return f"{value:.2g} ± {noise:.1g}" if noise < value else f"noise (below {noise:.1g})"
