"""Laws that many tests share: a force is minus the derivative of an energy, a rotation turns a vector, sums round.

Tests pass on any processor: a tolerance follows from rounding times condition (`ace_rounding`), from the step of a
difference, from the tolerance of an iteration, or from the digits of a published number. What is the same sum in
another order agrees to 1e-12 or better; 1e-9 leaves room for a condition of 1e6.
"""

from collections.abc import Callable

import numpy as np
from ase.calculators.calculator import Calculator

from suite.world.crystal import GPA, Crystal


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


def ace_rounding(coefficients: np.ndarray, perfect: np.ndarray, volume: float, step: float) -> dict[str, float]:
    """How far two ways to the same numbers of a linear ACE model may differ, for each kind of row.

    Its energies are sums of terms c·B that cancel, a million eV per atom for some eV: what is left is four times the
    machine epsilon of the absolute sum, with `perfect` (n,) the values B per atom of the perfect crystal; each B is
    a product of splines, rounded itself, in all atoms alike. `energy` in eV per
    atom; `force` of a component, eV/Å: as much over 1 Å, the length on which B changes; `stress`, `virial1`, `virial2`
    of an entry, eV/Å^3: differences of energies per `volume` (Å^3 per atom) over powers of the strain `step`.
    """
    energy = float(4 * np.finfo(float).eps * np.abs(coefficients) @ np.abs(perfect))
    differences = {name: energy / volume / step**k for k, name in enumerate(("stress", "virial1", "virial2"), start=1)}
    return {"energy": energy, "force": energy, **differences}


def elastic_constants(crystal: Crystal, calculator: Calculator, step: float = 2e-3) -> list[float]:
    """C11, C12, C44 in GPa, from energies of three strains; the shift of the sublattices relaxed to second order."""

    def energy(strain: np.ndarray, shift: float = 0.0) -> float:
        atoms = crystal.deformed(np.eye(3) + strain)
        atoms.positions[-1, 0] += shift
        atoms.calc = calculator
        return float(atoms.get_potential_energy()) / crystal.volume

    def curvature(strain: np.ndarray, shift: float = 0.0) -> float:
        around = [energy(k * step * strain, k * step * shift) for k in (-2, -1, 0, 1, 2)]
        return float(np.dot([-1, 16, -30, 16, -1], around)) / (12 * step**2)

    c11, both = curvature(np.diag([1.0, 0, 0])), curvature(np.diag([1.0, 1, 0]))
    sheared = np.zeros((3, 3))
    sheared[1, 2] = sheared[2, 1] = 0.5
    c44 = curvature(sheared)
    if len(crystal.basis) > 1:
        spring = curvature(np.zeros((3, 3)), 1.0)
        c44 -= ((curvature(sheared, 1.0) - curvature(sheared, -1.0)) / 4) ** 2 / spring
    return [GPA * c for c in (c11, both / 2 - c11, c44)]
