"""Slopes with intervals: exact powers, noise, windows, verdicts."""

import numpy as np
import pytest

from suite.study.rates import NO_GROWTH, Growth, measure, measure_growth

X = np.array([6.0, 7, 8, 10, 12])


def test_seeds_of_one_step_are_one_rung() -> None:
    """Four steps of three seeds with curved means: nothing is dropped, though there are twelve values of x."""
    middles = np.repeat(X[:4], 3)
    x = middles * np.tile([0.99, 1.0, 1.01], 4)
    y = x**-2 * np.exp(0.5 * np.log(middles / middles[0]) ** 2)
    together = measure(x, y, -2.0, "large", rungs=[str(m) for m in middles])
    assert together is not None
    assert together.points == 12
    apart = measure(x, y, -2.0, "large")
    assert apart is not None
    assert apart.points < 12
    assert measure(x[:6], y[:6], -2.0, "large", rungs=[str(m) for m in middles[:6]]) is None, "two steps have no rate"


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


# --- growth with a logarithm -----------------------------------------------------------------------------------------

LOGS = np.log([12.0, 16, 24, 32, 48, 80])
PREDICTED = np.array([0.02, -0.015, 0.03, -0.004, 0.011, -0.022])


def grown(factor: float, noise: float = 0.0, offset: float = 0.01, slopes: np.ndarray = PREDICTED) -> Growth:
    """Six seeds with slopes `factor` times the predicted ones, and of their own signs."""
    generator = np.random.default_rng(1)
    series = []
    for slope in slopes:
        y = offset + factor * slope * LOGS + noise * generator.standard_normal(len(LOGS))
        series.append((LOGS, y, slope))
    found = measure_growth(series)
    assert found is not None
    return found


def test_growth_as_predicted_agrees_for_slopes_of_either_sign() -> None:
    found = grown(1.0)
    assert found.ratio == pytest.approx(1)
    assert found.verdict == "agrees"
    assert [found.slope, found.predicted] == pytest.approx([PREDICTED.mean()] * 2)
    assert [found.rms, found.predicted_rms] == pytest.approx([np.sqrt((PREDICTED**2).mean())] * 2)
    assert found.low < found.slope < found.high
    assert (found.seeds, found.points) == (6, 36)


@pytest.mark.parametrize(("factor", "verdict"), [(1.05, "agrees"), (1.3, "disagrees"), (-1.0, "disagrees")])
def test_growth_of_another_size_or_sign_disagrees(factor: float, verdict: str) -> None:
    found = grown(factor)
    assert found.ratio == pytest.approx(factor)
    assert found.verdict == verdict


def test_noise_widens_the_interval_until_nothing_is_resolved() -> None:
    assert grown(1.0, noise=1e-3).verdict == "agrees"
    wide = grown(1.0, noise=0.05)
    assert wide.verdict == "not resolved"
    assert wide.ratio_low < 1 < wide.ratio_high


def test_errors_that_stay_have_no_growth() -> None:
    """Slopes a thousand times smaller than the error: whether they are the predicted ones means nothing."""
    for factor in (1.0, 5.0):
        assert grown(factor, offset=0.02, slopes=1e-2 * PREDICTED).verdict == NO_GROWTH
    # predicted to grow, and does not
    assert grown(0.0, offset=0.02).verdict == "disagrees"


def test_interval_of_a_growth_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        slopes = PREDICTED + 0.003 * generator.standard_normal(len(PREDICTED))
        found = measure_growth([(LOGS, s * LOGS, p) for s, p in zip(slopes, PREDICTED, strict=True)])
        assert found is not None
        covered.append(found.ratio_low <= 1 <= found.ratio_high)
    assert 0.9 < np.mean(covered) < 0.99


def test_one_seed_has_the_interval_of_its_residuals_and_two_points_have_none() -> None:
    y = 0.02 * LOGS + 1e-3 * np.array([1, -1, 1, -1, 1, -1])
    found = measure_growth([(LOGS, y, 0.02)])
    assert found is not None
    assert found.verdict == "agrees"
    assert pytest.approx(found.slope, rel=0.1) == 0.02
    assert found.high - found.low == pytest.approx(0.02 * (found.ratio_high - found.ratio_low))
    assert measure_growth([(LOGS[:2], y[:2], 0.02)]) is None
    nothing = measure_growth([(LOGS, y, 0.0)])
    assert nothing is not None
    assert nothing.verdict == "not resolved"
