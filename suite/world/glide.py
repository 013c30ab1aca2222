"""Dislocations that glide freely: the mode that costs nothing, and equilibria in which it is held.

Where the Peierls stress is next to nothing, as for edges in fcc metals, all dislocations of a cell can glide together
and the energy hardly changes: H v = λ K v (see `suite.world.hessian.stability_constant`) has a λ of about zero, and no
force tells where on their planes the dislocations are. Then "the" equilibrium is one of a family, as it is with respect
to translations of the crystal. A constraint picks one: displacements stay in the complement of the mode g,
gᵀK v = 0 (the reduction of Lyapunov and Schmidt: solve what is stable, and tell the force that is left along g).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from suite.world.cell import Cell, StraightCell

# eV/Å^2. Let a sine of the period p be the energy of gliding cores. If λ is 1e-5 at its bottom, the Peierls stress is
# about 0.1 MPa in copper, below the flow stress of its purest crystals; Hessians resolve 2e-6.
NEUTRAL = 1e-5
ALIKE = 0.5  # share of a mode, in the norm of K, that has to be the glide of all dislocations together


@dataclass(frozen=True)
class Glide:
    """A neutral mode: `mode` g (n, 3) with gᵀKg = 1, `pull` K g (n, 3), `curvature` gᵀHg of the reference, eV/Å^2."""

    mode: np.ndarray
    pull: np.ndarray
    curvature: float

    @classmethod
    def of(cls, cell: Cell, mode: np.ndarray, curvature: float) -> Glide:
        """From a `mode` (n, 3) of any length."""
        mode = mode / cell.strain_norm(mode)
        return cls(mode, cell.laplacian @ mode, curvature)

    def along(self, force: np.ndarray) -> float:
        """gᵀf of a force field (n, 3): its share along g in the dual norm (fᵀK⁺f)^½, eV/Å, with sign."""
        return float((self.mode * force).sum())

    def free(self, force: np.ndarray) -> np.ndarray:
        """The force (n, 3) without K g (gᵀf): what vanishes at an equilibrium with gᵀK v = 0."""
        return force - self.pull * self.along(force)


class Holding(Calculator):
    """A calculator without force along a neutral mode: relaxations in a metric that holds it keep gᵀK v.

    Energies are those of `base`: on displacements that are held, forces are their derivatives.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, base: Calculator, glide: Glide) -> None:
        super().__init__()
        self.base, self.glide = base, glide

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert atoms is not None
        forces = self.base.get_forces(atoms)
        self.results = {"energy": self.base.get_potential_energy(atoms), "forces": self.glide.free(forces)}


def common_glide(cell: StraightCell, displacement: np.ndarray) -> np.ndarray:
    """How displacements change when all dislocations of a cell glide along x1 by one Å, (n, 3).

    It is -∂u/∂x1, by central differences of `displacement` (n, 3) between atoms one period to the right and one to the
    left; the jump at cuts is a lattice vector and is taken out.
    """
    u = displacement.reshape(*cell.repeats, cell.unit_sites, 3)
    steps = (np.roll(u, -1, axis=0) - np.roll(u, 1, axis=0)).reshape(-1, 3)
    period = float(cell.vectors_perfect[0, 0]) / cell.repeats[0]
    steps -= np.rint(steps @ np.linalg.inv(cell.lattice_vectors)) @ cell.lattice_vectors
    found = -steps / (2 * period)
    return found - found.mean(axis=0)


def neutral_glide(cell: StraightCell, displacement: np.ndarray, curvature: float, mode: np.ndarray) -> Glide | None:
    """The softest mode (n, 3) of the equilibrium `displacement` (n, 3), if it is free glide, else None.

    It is when its `curvature` λ is less than `NEUTRAL` in size, be it negative, and most of it is the glide of all
    dislocations together. Only for dislocations that split: only there are Hessians measured finely enough to tell.
    """
    if cell.fault is None or abs(curvature) > NEUTRAL:
        return None
    glide = Glide.of(cell, mode, curvature)
    together = common_glide(cell, displacement)
    share = float((glide.pull * together).sum()) / cell.strain_norm(together)
    return glide if share**2 >= ALIKE else None
