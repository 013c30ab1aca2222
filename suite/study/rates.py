"""Rates are measured: slopes in double logarithms with a confidence interval, compared with what the theory
promises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CLOSE = 0.1  # the theory's exponents are those of the leading term: a slope this near to one is it
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


def measure(x: Sequence[float], y: Sequence[float], expected: float | None, towards: str) -> Rate | None:
    """Fit y ~ x^slope by least squares in logarithms over the asymptotic window; None with fewer than three values
    of x.

    Window: `towards` ("large" or "small" x) is the asymptotic end. Starting from all points, the value of x
    furthest from it is dropped as long as more than four are left and the curvature of a parabola through the rest
    is significant (|t| > 2). Every point of a seed counts by itself, so that the interval (Student's t) holds their
    scatter.
    """
    finite = [(a, b) for a, b in zip(x, y, strict=True) if a > 0 and b > 0 and np.isfinite([a, b]).all()]
    if not finite:
        return None
    logs = np.log(np.array(finite))
    values = np.unique(logs[:, 0].round(9))
    if len(values) < 3:
        return None
    order = values if towards == "large" else values[::-1]
    first = 0
    while len(order) - first > 4 and _curved(_inside(logs, order[first:])):
        first += 1
    window = _inside(logs, order[first:])
    slope, intercept, error, degrees = _line(window)
    from scipy.stats import t

    half = float(t.ppf(0.975, degrees) * error) if degrees > 0 else np.inf
    low, high = slope - half, slope + half
    if expected is None:
        verdict = MEASURED
    elif not low - CLOSE <= expected <= high + CLOSE:
        verdict = DISAGREES  # however wide the interval is
    else:
        verdict = AGREES if half <= RESOLVED else UNRESOLVED
    span = np.exp([window[:, 0].min(), window[:, 0].max()])
    return Rate(slope, low, high, intercept, (float(span[0]), float(span[1])), len(window), expected, verdict)


def _inside(logs: np.ndarray, values: np.ndarray) -> np.ndarray:
    return logs[np.isin(logs[:, 0].round(9), values)]


def _line(logs: np.ndarray) -> tuple[float, float, float, int]:
    """Slope, intercept, standard error of the slope, degrees of freedom."""
    x, y = logs.T
    away = x - x.mean()
    slope = float((away * y).sum() / (away**2).sum())
    intercept = float(y.mean() - slope * x.mean())
    degrees = len(x) - 2
    residual = y - intercept - slope * x
    error = float(np.sqrt((residual**2).sum() / max(degrees, 1) / (away**2).sum()))
    return slope, intercept, error, degrees


def _curved(logs: np.ndarray) -> bool:
    x, y = logs[:, 0] - logs[:, 0].mean(), logs[:, 1]
    design = np.stack([np.ones_like(x), x, x**2], axis=1)
    coefficients, *_ = np.linalg.lstsq(design, y, rcond=None)
    degrees = len(y) - 3
    if degrees < 1:
        return False
    residual = y - design @ coefficients
    variance = float((residual**2).sum()) / degrees * np.linalg.pinv(design.T @ design)[2, 2]
    return bool(abs(coefficients[2]) > 2 * np.sqrt(variance) + 1e-12)
