"""Theorem 3.1: the terms of the bound, the balance of the fit errors, and which term limits.

    geometry <= C_G √n_D ( eps_F + log^½(L_D) eps_V1 + eps_V2/L + 1/L² )                      (3.13)
    energy   <= C_E n_D ( (the bracket)² + 1/L² + eps_E )                                     (3.14)

(3.14) as printed is too small: the energy error between L and L_D is of first order in eps_V1, and no term of the bound
is. The corrected bounds, with the bracket B = eps_F + (1 + log(L_D/L))^½ eps_V1 + eps_V2/L + 1/L²:

    geometry <= C_G √n_D B
    energy   <= C_E n_D ( B² + eps_E + (1 + log(L_D/L)) eps_V1 + eps_V2/L + 1/L² )

docs/theory.md derives them and has a counterexample to (3.14). Constants C are unknown: terms are compared with each
other, never with an error. Lengths are in units of a0, so that log(L_D) and 1/L are pure numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from suite.judge.numbers import NUMBERS


def _symbols(*names: str) -> dict[str, str]:
    return {name: NUMBERS[name].symbol for name in names}


TERMS = _symbols("term_F", "term_V1", "term_V2", "term_L")
"""The terms of the bracket of (3.13), by the names of their numbers."""
CORRECTED_TERMS = _symbols("term_F", "term_V1_corrected", "term_V2_corrected", "term_L")
"""The terms of the corrected bracket B."""
CORRECTED_ENERGY_TERMS = _symbols("term_B_energy", "term_E", "term_V1_energy", "term_V2_corrected", "term_L_energy")
"""The terms of the corrected bound of the energy error."""


def bound(matching: Mapping[str, float], size: float, distance: float, cores: int) -> dict[str, float]:
    """Terms of (3.13) and (3.14) with C = 1 for L = `size` and L_D = `distance` in a0, and their sums."""
    terms = {
        "term_F": matching["eps_F"],
        "term_V1": float(np.sqrt(np.log(distance))) * matching["eps_V1"],
        "term_V2": matching["eps_V2"] / size,
        "term_L": size**-2.0,
    }
    bracket = sum(terms.values())
    energy_terms = {"term_E": matching["eps_E"], "term_L_energy": size**-2.0}
    return {
        **terms,
        **energy_terms,
        "bound_geometry": float(np.sqrt(cores)) * bracket,
        "bound_energy": cores * (bracket**2 + sum(energy_terms.values())),
    }


def corrected_bound(matching: Mapping[str, float], size: float, distance: float, cores: int) -> dict[str, float]:
    """Terms of the corrected bounds with C = 1 for L = `size` and L_D = `distance` in a0, and their sums.

    eps_V1 and eps_V2 are those without the pressure (`eps_V1_pressure_free`): a pressure costs no energy in a fixed
    cell.
    """
    logarithm, bare = 1 + log_ratio(distance, size), size**-2.0
    first, second = matching["eps_V1_pressure_free"], matching["eps_V2_pressure_free"] / size
    bracket = {"term_V1_corrected": float(np.sqrt(logarithm)) * first, "term_V2_corrected": second}
    total = matching["eps_F"] + sum(bracket.values()) + bare
    energy = {"term_B_energy": total**2, "term_V1_energy": logarithm * first}
    return {
        **bracket,
        **energy,
        "bound_geometry_corrected": float(np.sqrt(cores)) * total,
        "bound_energy_corrected": cores * (sum(energy.values()) + matching["eps_E"] + second + bare),
    }


def log_ratio(distance: float, size: float) -> float:
    """log(L_D/L), 0 where the training cell reaches as far as the distance of the dislocations."""
    return max(0.0, float(np.log(distance / size)))


def limiting_term(terms: Mapping[str, float], among: Mapping[str, str] = TERMS) -> str:
    """Name of the largest of the terms in `among` (default: the bracket of the geometry bound): what to improve
    first."""
    return max(among, key=lambda name: terms[name])


def balance(matching: Mapping[str, float], distance: float, stability: float, strain: float) -> dict[str, float]:
    """The three numbers of the balance eps_E ≈ eps_F² ≈ log(L_D) eps_V1², literally and calibrated, and their spread.

    The literal numbers have three different units, as in the paper. The calibrated ones are energies (eV): eps_E,
    eps_F²/c0 and S log(L_D) eps_V1²/c0 with the null-free eps_V1, c0 = `stability` (eV/Å^2) and S = `strain` (Å^4,
    `elastic_leverage`). The spread is the difference of the largest and the smallest logarithm; it is 0 in balance.
    """
    log_distance = float(np.log(distance))
    literal = {
        "balance_E": matching["eps_E"],
        "balance_F": matching["eps_F"] ** 2,
        "balance_V1": log_distance * matching["eps_V1"] ** 2,
    }
    calibrated = {
        "calibrated_E": matching["eps_E"],
        "calibrated_F": matching["eps_F"] ** 2 / stability,
        "calibrated_V1": strain * log_distance * matching["eps_V1_null_free"] ** 2 / stability,
    }
    return {
        **literal,
        "balance_spread": _spread(literal),
        **calibrated,
        "calibrated_spread": _spread(calibrated),
    }


def corrected_balance(
    matching: Mapping[str, float], size: float, distance: float, stability: float
) -> dict[str, float]:
    """The three energies (eV) of the corrected balance eps_E ≈ eps_F² ≈ log(L_D/L) eps_V1, and their spread.

    eps_E, eps_F²/c0 with c0 = `stability` (eV/Å^2), and (1 + log(L_D/L)) eps_K. eps_K is the exact coefficient of the
    logarithm in the energy of one dislocation, of first order in the error of the elastic constants: a norm of
    this error (null-free or felt) would count combinations that cost no energy, and the felt norm would miss those that
    displace nothing.
    The spread is infinite where eps_K is.
    """
    energies = {
        "corrected_E": matching["eps_E"],
        "corrected_F": matching["eps_F"] ** 2 / stability,
        "corrected_K": (1 + log_ratio(distance, size)) * matching["eps_K"],
    }
    return {**energies, "corrected_spread": _spread(energies)}


def elastic_leverage(strain_factor: float, thickness: float, volume: float, bond_square: float) -> float:
    """S with ‖elastic residual‖²_{U*} <= S log(L_D) eps_V1² for one dislocation, Å^4.

    An error ΔC exerts ∫ ΔC∇u:∇v <= eps_V1 ‖∇u‖ ‖∇v‖ with ‖∇u‖² = κ² log(L_D) per length (κ² = `strain_factor`, Å^2;
    cell `thickness`, Å), and ‖∇v‖² = 3Ω/Σ|ρ|² ‖Dv‖² in a cubic crystal (atomic `volume` Ω, `bond_square` Σ|ρ|² of the
    stencil, Å^2).
    """
    return strain_factor * thickness * 3 * volume / bond_square


def _spread(numbers: Mapping[str, float]) -> float:
    logs = np.log(np.maximum(list(numbers.values()), 1e-300))
    return float(logs.max() - logs.min())


SETTINGS = {
    "no elasticity": {"virial1": False, "virial2": False},
    "CLE": {"virial1": True, "virial2": False},
    "CLE+nonlinear": {"virial1": True, "virial2": True},
}
"""The paper's three settings of the observables."""


def expected_rate(error: str, against: str, setting: str) -> float | None:
    """Exponent that Table 1 and (3.13)-(3.14) promise for `geometry_error` or `energy_error`.

    Against L: 0, -1, -2 for the geometry as the elastic terms vanish one after the other, 0, -2, -2 for the energy (the
    last from 1/L² itself). Against a fit error: 1 and 2. Against log(L_D), where eps_V1 rules: ½ and 1. None for any
    other axis.
    """
    place = list(SETTINGS).index(setting) if setting in SETTINGS else len(SETTINGS) - 1
    if against == "L":
        return {"geometry_error": (0.0, -1.0, -2.0), "energy_error": (0.0, -2.0, -2.0)}[error][place]
    if against.startswith(("rmse", "eps")):
        return {"geometry_error": 1.0, "energy_error": 2.0}[error]
    if against == "log_L_D":
        return {"geometry_error": 0.5, "energy_error": 1.0}[error]
    return None
