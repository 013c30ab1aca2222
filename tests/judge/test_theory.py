"""The bound and the balance by hand, and the scales that the calibration needs."""

import numpy as np
import pytest

from suite.judge import theory
from suite.results import World

NUMBERS = {"eps_E": 0.02, "eps_F": 0.3, "eps_V1": 0.05, "eps_V1_null_free": 0.04, "eps_V2": 1.2}
CORRECTED = {**NUMBERS, "eps_V1_pressure_free": 0.045, "eps_V2_pressure_free": 1.1, "eps_K": 0.006}


def test_terms_of_the_bound() -> None:
    """(3.13) and (3.14) with L = 8, L_D = e⁴, four cores."""
    found = theory.bound(NUMBERS, 8.0, float(np.exp(4)), 4)
    bracket = 0.3 + 2 * 0.05 + 1.2 / 8 + 1 / 64
    assert found == pytest.approx(
        {
            "term_F": 0.3,
            "term_V1": 0.1,
            "term_V2": 0.15,
            "term_L": 1 / 64,
            "term_E": 0.02,
            "term_L_energy": 1 / 64,
            "bound_geometry": 2 * bracket,
            "bound_energy": 4 * (bracket**2 + 1 / 64 + 0.02),
        }
    )


def test_terms_of_the_corrected_bound() -> None:
    """The bracket with log(L_D/L), L = 8 and L_D = 8e³, and the term of first order in the energy; four cores."""
    found = theory.corrected_bound(CORRECTED, 8.0, 8 * float(np.exp(3)), 4)
    bracket = 0.3 + 2 * 0.045 + 1.1 / 8 + 1 / 64
    assert found == pytest.approx(
        {
            "term_V1_corrected": 0.09,
            "term_V2_corrected": 1.1 / 8,
            "term_B_energy": bracket**2,
            "term_V1_energy": 4 * 0.045,
            "bound_geometry_corrected": 2 * bracket,
            "bound_energy_corrected": 4 * (bracket**2 + 0.02 + 4 * 0.045 + 1.1 / 8 + 1 / 64),
        }
    )
    terms = theory.bound(CORRECTED, 8.0, 8 * float(np.exp(3)), 4) | found
    assert theory.limiting_term(terms, theory.CORRECTED_TERMS) == "term_F"
    assert theory.limiting_term(terms, theory.CORRECTED_ENERGY_TERMS) == "term_B_energy"
    assert theory.limiting_term(terms | {"term_B_energy": 0.1}, theory.CORRECTED_ENERGY_TERMS) == "term_V1_energy"
    # where the training cell reaches as far as the dislocations are apart, no logarithm is left
    assert theory.corrected_bound(CORRECTED, 8.0, 7.9, 4)["term_V1_energy"] == pytest.approx(0.045)


def test_corrected_balance_by_hand() -> None:
    found = theory.corrected_balance(CORRECTED, 8.0, 8 * float(np.exp(3)), 0.1)
    energies = {"corrected_E": 0.02, "corrected_F": 0.9, "corrected_K": 0.024}
    assert found == pytest.approx({**energies, "corrected_spread": np.log(0.9 / 0.02)})
    unstable = theory.corrected_balance({**CORRECTED, "eps_K": np.inf}, 8.0, 100.0, 0.1)
    assert unstable["corrected_spread"] == np.inf


def test_the_energy_bound_of_the_paper_fails_for_a_scaled_energy() -> None:
    """E_ML = (1 + δ)E in closed form, δ = 1/L and log L_D = L: docs/theory.md. The error is constant, the right side of
    (3.14) goes to zero as log(L)/L, and the corrected one does not."""
    factor, stiffness, third, largest = 0.6, 20.0, 500.0, 30.0  # tK, |∂²W|, |∂³W|, largest dual norm of a force
    ratios, corrected = [], []
    for size in (10.0, 40.0, 160.0, 640.0):
        delta, distance = 1 / size, float(np.exp(size))
        error = delta * 4 * factor * np.log(distance)
        numbers = {
            "eps_E": delta * 2 * factor * float(np.log(size)),
            "eps_F": delta * largest,
            "eps_V1": delta * stiffness,
            "eps_V2": delta * third,
            "eps_V1_pressure_free": delta * stiffness,
            "eps_V2_pressure_free": delta * third,
            "eps_K": delta * factor,
        }
        assert error == pytest.approx(4 * factor)
        ratios.append(theory.bound(numbers, size, distance, 4)["bound_energy"] / error)
        corrected.append(theory.corrected_bound(numbers, size, distance, 4)["bound_energy_corrected"] / error)
    assert ratios[-1] < 0.05 * ratios[0]
    assert np.all(np.diff(ratios) < 0)
    assert min(corrected) > stiffness / factor / 2, "4δ|C| log L_D over 4δ tK log L_D, whatever L"


@pytest.mark.parametrize(
    ("change", "expected"),
    [({}, "term_F"), ({"eps_F": 0.01}, "term_V2"), ({"eps_F": 0.01, "eps_V2": 0.1}, "term_V1")],
)
def test_limiting_term_is_the_largest(change: dict[str, float], expected: str) -> None:
    assert theory.limiting_term(theory.bound({**NUMBERS, **change}, 8.0, float(np.exp(4)), 4)) == expected


def test_a_perfect_fit_is_limited_by_the_training_cell() -> None:
    nothing = dict.fromkeys(NUMBERS, 0.0)
    terms = theory.bound(nothing, 6.0, 12.0, 4)
    assert theory.limiting_term(terms) == "term_L"
    assert terms["bound_geometry"] == pytest.approx(2 / 36)
    # the energy's worst term does not count: only the geometry bracket is compared
    assert theory.limiting_term({**terms, "term_E": 1e3}) == "term_L"


def test_balance_by_hand() -> None:
    found = theory.balance(NUMBERS, float(np.exp(4)), 0.1, 2.5)
    literal = (0.02, 0.09, 4 * 0.05**2)
    calibrated = (0.02, 0.9, 2.5 * 4 * 0.04**2 / 0.1)
    assert [found[f"balance_{k}"] for k in ("E", "F", "V1")] == pytest.approx(literal)
    assert [found[f"calibrated_{k}"] for k in ("E", "F", "V1")] == pytest.approx(calibrated)
    assert found["balance_spread"] == pytest.approx(np.log(0.09 / 0.01))
    assert found["calibrated_spread"] == pytest.approx(np.log(0.9 / 0.02))


def test_balanced_numbers_have_no_spread() -> None:
    log_distance = 3.0
    eps_e = 0.04
    numbers = {
        "eps_E": eps_e,
        "eps_F": np.sqrt(eps_e),
        "eps_V1": np.sqrt(eps_e / log_distance),
        "eps_V1_null_free": np.sqrt(eps_e / log_distance),
    }
    found = theory.balance(numbers, float(np.exp(log_distance)), 1.0, 1.0)
    assert found["balance_spread"] == pytest.approx(0, abs=1e-12)
    assert found["calibrated_spread"] == pytest.approx(0, abs=1e-12)
    assert np.isfinite(theory.balance({**numbers, "eps_E": 0.0}, 20.0, 1.0, 1.0)["balance_spread"])


def test_balance_needs_no_unit_of_energy() -> None:
    """The calibrated numbers are energies: in other units of energy the spread is the same, the literal one is not."""
    factor = 27.2
    scaled = {name: factor * value for name, value in NUMBERS.items()}
    one = theory.balance(NUMBERS, 20.0, 0.1, 2.5)
    other = theory.balance(scaled, 20.0, factor * 0.1, 2.5)
    assert other["calibrated_spread"] == pytest.approx(one["calibrated_spread"])
    assert abs(other["balance_spread"] - one["balance_spread"]) > 1


def test_strain_norm_of_a_smooth_field_is_what_the_leverage_assumes(world: World) -> None:
    """‖Dv‖² = Σ|ρ|²/(3Ω) ∫|∇v|² for long waves, so that S = κ² h · 3Ω/Σ|ρ|²."""
    cell, crystal = world.simulation, world.crystal
    size = np.diag(cell.vectors_perfect)
    k = 2 * np.pi / size[0]
    v = np.zeros((len(cell), 3))
    v[:, 2] = np.sin(k * cell.reference[:, 0])
    integral = k**2 / 2 * np.prod(size)
    bond_square = (8 * 3 / 4 + 6) * crystal.a0**2
    volume = crystal.volume
    assert cell.strain_norm(v) ** 2 == pytest.approx(bond_square / (3 * volume) * integral, rel=0.05)
    assert theory.elastic_leverage(2.0, 3.0, volume, bond_square) == pytest.approx(2 * 3 * 3 * volume / bond_square)


def test_leverage_of_the_world(world: World) -> None:
    """S from the world's own bonds: 8·¾ + 6 = 12 a0² in bcc, and κ² near b²/2π in nearly isotropic tungsten."""
    b = world.crystal.a0 * np.sqrt(3) / 2
    expected = theory.elastic_leverage(b**2 / (2 * np.pi), b, world.crystal.volume, 12 * world.crystal.a0**2)
    assert world.leverage == pytest.approx(expected, rel=0.05)
    assert world.line.length == pytest.approx(b)


def test_promised_rates() -> None:
    """Table 1 as (3.14) has it: the energy converges twice as fast, until 1/L² itself is left."""
    geometry, energy = (
        [theory.expected_rate(error, "L", setting) for setting in theory.SETTINGS]
        for error in ("geometry_error", "energy_error")
    )
    assert geometry == [0, -1, -2]
    assert energy == [0, -2, -2]
    for setting in theory.SETTINGS:
        assert theory.expected_rate("geometry_error", "rmse_F", setting) == 1
        assert theory.expected_rate("energy_error", "eps_V1", setting) == 2
    assert theory.expected_rate("geometry_error", "N", "CLE") is None
