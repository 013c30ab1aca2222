"""The catalogue's references, their crystals and elastic responses, each computed once for all tests; tensors; a
model that is off."""

from functools import cache
from typing import ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from suite.world.catalogue import CATALOGUE
from suite.world.crystal import LATTICES, STEP, Crystal, Response, equilibrium_crystal, response, strain_path
from suite.world.reference import build_reference

LATTICE = {name: entry.lattice for name, entry in CATALOGUE.items()}
LAMBDA, MU = 1.3, 1.0  # Lamé constants of the solids below, eV/Å^3


@cache
def calculator_of(name: str) -> Calculator:
    return build_reference(name)


@cache
def crystal_of(name: str) -> Crystal:
    return equilibrium_crystal(LATTICES[LATTICE[name]], CATALOGUE[name].species, calculator_of(name))


@cache
def response_of(name: str, step: float = STEP) -> Response:
    crystal, calculator = crystal_of(name), calculator_of(name)
    return response(crystal, calculator, strain_path(crystal, calculator, step))


def isotropic(anisotropy: float = 0.0) -> np.ndarray:
    """Isotropic tensor, with one cubic constant changed by `anisotropy` of itself."""
    d = np.eye(3)
    c = LAMBDA * np.einsum("ij,kl->ijkl", d, d)
    c += MU * (1 + anisotropy) * (np.einsum("ik,jl->ijkl", d, d) + np.einsum("il,jk->ijkl", d, d))
    for i in range(3):
        c[i, i, i, i] -= 2 * MU * anisotropy
    return c


def triclinic() -> np.ndarray:
    """A positive definite tensor without any symmetry of its own: nothing cancels by accident."""
    a = np.random.default_rng(0).standard_normal((3, 3, 3, 3))
    a = a + a.transpose(1, 0, 2, 3)
    a = a + a.transpose(0, 1, 3, 2)
    return isotropic() + 0.08 * (a + a.transpose(2, 3, 0, 1)) / 2


class Sprung(Calculator):
    """A calculator with weak springs added, which pull every atom to its `home` (n, 3): a model known to be off.

    Energy ½ `stiffness` Σ |d_i|² with d_i the displacement from home less the mean of all, so that forces sum to zero.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, base: Calculator, home: np.ndarray, stiffness: float) -> None:
        super().__init__()
        self.base, self.home, self.stiffness = base, home, stiffness

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert atoms is not None
        self.base.calculate(atoms)
        energy, forces = self.base.results["energy"], self.base.results["forces"].copy()
        away = atoms.positions - self.home
        away -= away.mean(axis=0)
        energy = energy + self.stiffness / 2 * float((away**2).sum())
        self.results = {"energy": energy, "forces": forces - self.stiffness * away}


class Rounded(Calculator):
    """A calculator with energies and forces of 32 bits, as most neural networks have."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, base: Calculator) -> None:
        super().__init__()
        self.base = base

    def calculate(
        self, atoms: Atoms | None = None, properties: list[str] | None = None, system_changes: list[str] = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        self.base.calculate(atoms)
        self.results = {
            "energy": float(np.float32(self.base.results["energy"])),
            "forces": self.base.results["forces"].astype(np.float32).astype(float),
        }


def single_zhou() -> Rounded:
    """Tungsten in single precision, as a spec names it: `materials:single_zhou`."""
    return Rounded(calculator_of("W_zhou04"))
