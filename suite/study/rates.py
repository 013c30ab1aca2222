"""Measured rates: slopes in double logarithms with a confidence interval, compared with the exponents of the theory."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CLOSE = 0.1  # the theory gives the exponent of the leading term: a slope that differs by less agrees with it
AGREES, DISAGREES, UNRESOLVED, MEASURED = "agrees", "disagrees", "not resolved", "measured"
RESOLVED = 0.5  # half width of a confidence interval that tells 0, 1 and 2 apart: a wider one confirms none of them


@dataclass(frozen=True)
class Rate:
    """A measured exponent: `slope` with its 95 % interval `low`, `high`; the `window` [smallest, largest] x that
    was used, `points` in it, the `expected` exponent and a `verdict`: agrees, disagrees, not resolved, or measured
    when nothing was expected.
    """

    slope: float
    low: float
    high: float
    intercept: float
    window: tuple[float, float]
    points: int
    expected: float | None
    verdict: str


HEADS = ("slope", "95 % interval", "expected", "verdict", "window", "points")


def cells(rate: Mapping[str, Any]) -> list[str]:
    """A rate, by the names of its fields, as the cells of a table with `HEADS`."""
    return [
        f"{rate['slope']:.2f}",
        f"{rate['low']:.2f} .. {rate['high']:.2f}",
        "" if rate["expected"] is None else f"{rate['expected']:g}",
        rate["verdict"],
        f"{rate['window'][0]:.3g} .. {rate['window'][1]:.3g}",
        str(rate["points"]),
    ]


def measure(
    x: Sequence[float],
    y: Sequence[float],
    expected: float | None,
    towards: str,
    rungs: Sequence[Hashable] | None = None,
) -> Rate | None:
    """Fit y ~ x^slope by least squares in logarithms over the asymptotic window; None with fewer than three rungs.

    `rungs` tell which points belong to one step of the ladder. They are needed where x is a number of the run, such as
    an RMSE, because seeds of one step then have different x. Without `rungs` every value of x is a step.

    Window: `towards` ("large" or "small" x) is the asymptotic end. The fit starts with all points. As long as more than
    four rungs are left and a parabola through them is significantly curved (|t| > 2), the rung furthest from that end
    (by its geometric mean) is dropped. Seeds are not averaged, so that the interval (Student's t) includes their
    scatter.
    """
    labels = [round(float(np.log(a)), 9) if a > 0 else None for a in x] if rungs is None else rungs
    finite = [
        (a, b, label) for a, b, label in zip(x, y, labels, strict=True) if a > 0 and b > 0 and np.isfinite([a, b]).all()
    ]
    if not finite:
        return None
    logs = np.log(np.array([(a, b) for a, b, _ in finite]))
    numbers = {label: number for number, label in enumerate(dict.fromkeys(label for _, _, label in finite))}
    rung = np.array([numbers[label] for _, _, label in finite])
    if len(numbers) < 3 or np.ptp(logs[:, 0]) == 0:
        return None
    middles = np.array([logs[rung == number, 0].mean() for number in numbers.values()])
    order = np.argsort(middles if towards == "large" else -middles, kind="stable")
    first = 0
    while len(order) - first > 4 and _curved(logs[np.isin(rung, order[first:])]):
        first += 1
    window = logs[np.isin(rung, order[first:])]
    slope, intercept, error, degrees = _line(window)
    from scipy.stats import t

    half = float(t.ppf(0.975, degrees) * error) if degrees > 0 else np.inf
    low, high = slope - half, slope + half
    if expected is None:
        verdict = MEASURED
    elif not low - CLOSE <= expected <= high + CLOSE:
        verdict = DISAGREES  # even if the interval is wide
    else:
        verdict = AGREES if half <= RESOLVED else UNRESOLVED
    span = np.exp([window[:, 0].min(), window[:, 0].max()])
    return Rate(slope, low, high, intercept, (float(span[0]), float(span[1])), len(window), expected, verdict)


NO_GROWTH = "no growth"
NEGLIGIBLE = 0.1  # as a share of the error, over the whole ladder: a smaller growth counts as none


def rank_correlations(errors: Sequence[float], columns: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Spearman's rank correlation of `errors` with each of the `columns`; a constant column has no ranks, and one with
    a number that is not finite is left out."""
    from scipy.stats import spearmanr

    ranked = {name: column for name, column in columns.items() if np.isfinite(column).all() and len({*column}) > 1}
    if len({*errors}) < 2:
        return {}
    return {name: float(spearmanr(column, errors).statistic) for name, column in ranked.items()}


@dataclass(frozen=True)
class Growth:
    """How an error grows with x = ln L_D, one straight line for each seed, against what was `predicted` for each.

    `slope` is the mean over seeds with its 95 % interval `low`, `high`, `predicted` the mean of the predictions, both
    in the unit of the error; `rms` and `predicted_rms` are root mean squares, since signed slopes cancel over seeds.
    `ratio`, with its interval, is the factor that fits the slopes of all seeds to the predicted ones: 1 is agreement.
    `verdict`: agrees, disagrees, not resolved, or no growth where measured and predicted ones are negligible.
    """

    slope: float
    low: float
    high: float
    predicted: float
    rms: float
    predicted_rms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    seeds: int
    points: int
    verdict: str


GROWTH_HEADS = (
    *("mean slope", "95 % interval", "predicted", "rms slope", "predicted", "measured / predicted"),
    *("95 % interval", "verdict", "seeds", "points"),
)


def growth_cells(growth: Mapping[str, Any]) -> list[str]:
    """A growth, by the names of its fields, as the cells of a table with `GROWTH_HEADS`."""
    g = growth
    return [
        f"{g['slope']:.3g}",
        f"{g['low']:.3g} .. {g['high']:.3g}",
        f"{g['predicted']:.3g}",
        f"{g['rms']:.3g}",
        f"{g['predicted_rms']:.3g}",
        f"{g['ratio']:.2f}",
        f"{g['ratio_low']:.2f} .. {g['ratio_high']:.2f}",
        g["verdict"],
        str(g["seeds"]),
        str(g["points"]),
    ]


def measure_growth(series: Sequence[tuple[Sequence[float], Sequence[float], float]]) -> Growth | None:
    """Straight lines y = a + slope x through the `series` (x, y, predicted slope), one for each seed.

    The statistics count seeds, not points: the points of one seed lie on one smooth curve, so that counting them would
    narrow the interval without new information. With one seed the interval follows from its residuals. Returns None if
    no series has three values of x.
    """
    from scipy.stats import t

    lines = [(np.array(x), np.array(y), p) for x, y, p in series if len(np.unique(np.round(x, 9))) > 2]
    if not lines:
        return None
    fits = [_line(np.stack([x, y], axis=1)) for x, y, _ in lines]
    slopes, predicted = np.array([fit[0] for fit in fits]), np.array([p for _, _, p in lines])
    count, square = len(lines), float((predicted**2).sum())
    ratio = float((slopes * predicted).sum() / square) if square > 0 else 0.0
    if count > 1:
        width = float(t.ppf(0.975, count - 1))
        half = width * float(slopes.std(ddof=1)) / np.sqrt(count)
        scatter = np.sqrt(float(((slopes - ratio * predicted) ** 2).sum()) / (count - 1))
        half_ratio = width * scatter / np.sqrt(square) if square > 0 else np.inf
    else:
        half = float(t.ppf(0.975, fits[0][3]) * fits[0][2])
        half_ratio = half / abs(predicted[0]) if square > 0 else np.inf
    rms, predicted_rms = (float(np.sqrt((values**2).mean())) for values in (slopes, predicted))
    span = max(float(np.ptp(x)) for x, _, _ in lines)
    level = float(np.sqrt(np.mean(np.concatenate([y for _, y, _ in lines]) ** 2)))
    if max(rms, predicted_rms) * span <= NEGLIGIBLE * level:
        verdict = NO_GROWTH
    elif not ratio - half_ratio - CLOSE <= 1 <= ratio + half_ratio + CLOSE:
        verdict = DISAGREES
    else:
        verdict = AGREES if half_ratio <= RESOLVED else UNRESOLVED
    mean = float(slopes.mean())
    return Growth(
        mean,
        mean - half,
        mean + half,
        float(predicted.mean()),
        rms,
        predicted_rms,
        ratio,
        ratio - half_ratio,
        ratio + half_ratio,
        count,
        sum(len(x) for x, _, _ in lines),
        verdict,
    )


def _line(points: np.ndarray) -> tuple[float, float, float, int]:
    """Slope, intercept, standard error of the slope, degrees of freedom of a line through `points` (k, 2)."""
    from scipy.stats import linregress

    found = linregress(*points.T)
    return float(found.slope), float(found.intercept), float(found.stderr), len(points) - 2


def _curved(points: np.ndarray) -> bool:
    """Whether a parabola through `points` (k, 2) is significantly curved (|t| > 2)."""
    if len(points) < 4:
        return False
    x, y = points[:, 0] - points[:, 0].mean(), points[:, 1]
    coefficients, covariance = np.polyfit(x, y, 2, cov=True)
    return bool(abs(coefficients[0]) > 2 * np.sqrt(covariance[0, 0]) + 1e-12)
