"""Potentials that are judged and not fitted: any ASE calculator in the place of a basis, without functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from suite.world.reference import build_reference


@dataclass(frozen=True)
class GivenSpec:
    """Name of a potential, as of a reference (catalogue, `kim:MODEL`, `module:callable`), and its arguments."""

    name: str
    arguments: Mapping[str, Any]

    def build(self) -> GivenPotential:
        """The potential; raises `UnusableReference` when it cannot be built."""
        return GivenPotential(build_reference(self.name, self.arguments))


class GivenPotential:
    """A family of models with no functions and one calculator: a potential that has nothing to fit."""

    orders = np.zeros(0, dtype=np.int64)

    def __init__(self, potential: Calculator) -> None:
        self.potential = potential

    def __len__(self) -> int:
        return 0

    def site_values(self, atoms: Atoms) -> np.ndarray:
        """No values: there are no functions."""
        return np.zeros(0)

    def energy_and_force_rows(self, atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
        """Rows without columns."""
        return np.zeros(0), np.zeros((3 * len(atoms), 0))

    def calculator(self, coefficients: np.ndarray, energy_per_atom: float = 0.0) -> Calculator:
        """The potential itself; there are no `coefficients`, and its energies are as they are."""
        return self.potential

    def save(self, coefficients: np.ndarray, energy_per_atom: float, folder: Path) -> list[Path]:
        """Nothing to write: whoever gave the potential has it."""
        return []
