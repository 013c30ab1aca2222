"""Slopes with intervals: exact powers, noise, windows, verdicts."""

import numpy as np
import pytest

from suite.study.rates import measure

X = np.array([6.0, 7, 8, 10, 12])


def test_exact_power_is_found_and_agrees() -> None:
    rate = measure(X, 3 * X**-2, -2.0, "large")
    assert rate is not None
    assert rate.slope == pytest.approx(-2)
    assert np.exp(rate.intercept) == pytest.approx(3)
    assert rate.verdict == "agrees"
    assert rate.window == pytest.approx((6, 12))
    wrong = measure(X, 3 * X**-2, -1.0, "large")
    assert wrong is not None
    assert wrong.verdict == "disagrees"


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    x = np.repeat(X, 3)
    covered = []
    for _ in range(400):
        rate = measure(x, x**-1 * np.exp(0.05 * generator.standard_normal(len(x))), -1.0, "large")
        assert rate is not None
        covered.append(rate.low <= -1 <= rate.high)
    assert 0.9 < np.mean(covered) < 0.99


def test_a_slope_next_to_the_expected_one_agrees() -> None:
    """However narrow its interval: the exponents of the theory are those of leading terms."""
    for slope, verdict in ((-1.95, "agrees"), (-1.8, "disagrees")):
        rate = measure(X, X**slope, -2.0, "large")
        assert rate is not None
        assert rate.verdict == verdict


def test_noise_is_not_resolved() -> None:
    generator = np.random.default_rng(1)
    rate = measure(X, np.exp(generator.standard_normal(5)), -2.0, "large")
    assert rate is not None
    assert rate.verdict == "not resolved"


def test_an_interval_that_leaves_the_expected_slope_out_disagrees_however_wide_it_is() -> None:
    generator = np.random.default_rng(3)
    rate = measure(X, X**-6 * np.exp(0.3 * generator.standard_normal(5)), 0.0, "large")
    assert rate is not None
    assert rate.high - rate.low > 1
    assert rate.verdict == "disagrees"


@pytest.mark.parametrize("towards", ["large", "small"])
def test_window_leaves_out_what_is_not_asymptotic(towards: str) -> None:
    """A power with a plateau at the other end."""
    x = np.geomspace(1, 64, 10)
    y = np.maximum(x**-2, 0.05) if towards == "small" else np.minimum(x**-2, 0.05)
    rate = measure(x, y, -2.0, towards)
    assert rate is not None
    assert rate.points < 10
    assert rate.slope == pytest.approx(-2, abs=0.1)
    end = rate.window[1] if towards == "large" else rate.window[0]
    assert end == pytest.approx(64 if towards == "large" else 1)


def test_too_little_is_no_rate() -> None:
    assert measure([1, 2], [1, 2], None, "large") is None
    assert measure([1, 1, 2], [1, 2, 3], None, "large") is None
    assert measure([], [], None, "large") is None
    rate = measure([1, 2, 4, 8], [1, 2, 0, np.inf], None, "large")
    assert rate is None, "zero and infinity have no logarithm"
