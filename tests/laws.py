"""Laws that many tests share: a force is minus the derivative of an energy, a rotation turns a vector."""

from collections.abc import Callable

import numpy as np


def derivative_error(function: Callable[[float], float], slope: float) -> float:
    """Relative difference of `slope` from the central difference of `function` at 0, at the best of several steps.

    The best step is the one that balances truncation against rounding, which differs between potentials; a wrong slope
    is wrong at every step. Refuses a slope of zero, which would prove nothing.
    """
    assert abs(slope) > 1e-3, f"the slope {slope} is too small to test anything"
    errors = [
        abs((8 * (function(h) - function(-h)) - (function(2 * h) - function(-2 * h))) / (12 * h) - slope)
        for h in (1e-2, 1e-3, 1e-4)
    ]
    return min(errors) / abs(slope)


def rotation(seed: int) -> np.ndarray:
    """A random proper rotation, (3, 3)."""
    q = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0]
    return q * np.linalg.det(q)


def full_stress(voigt: np.ndarray) -> np.ndarray:
    """Stress (3, 3) from ASE's xx yy zz yz xz xy."""
    return voigt[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
