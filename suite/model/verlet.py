"""What was listed within a cutoff and a skin, kept for as long as it is whole (L. Verlet, Phys. Rev. 159, 98, 1967)."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
from ase import Atoms

Listed = TypeVar("Listed")


class Kept(Generic[Listed]):
    """Neighbours, by the indices of atoms and of their periodic images, that were listed within `reach` = `cutoff` and
    a skin of `width`, Å.

    They are whole as long as no other pair can have come within the cutoff: until an atom has moved by half the skin,
    or the elements change. Where the cell is deformed, atoms move beside those that are carried along with it, and the
    skin is thinner by what the deformation shortens `reach` at most (the smallest singular value of its gradient).
    """

    def __init__(self, cutoff: float, width: float) -> None:
        self.cutoff, self.reach = cutoff, cutoff + width
        self.listed: Listed | None = None
        self._positions, self._cell, self._numbers = np.empty((0, 3)), np.empty((3, 3)), b""

    def at(self, atoms: Atoms) -> Listed | None:
        """What was listed, if it is whole at the positions of `atoms`; else None."""
        if self.listed is None or self._numbers != atoms.numbers.tobytes():
            return None
        carried, reach = self._positions, self.reach
        if not np.array_equal(self._cell, atoms.cell.array):
            gradient = np.linalg.solve(self._cell, atoms.cell.array)  # of the deformation, for vectors that are rows
            carried = carried @ gradient
            reach *= float(np.linalg.svd(gradient, compute_uv=False)[-1])
        moved = ((atoms.positions - carried) ** 2).sum(axis=1).max()
        return self.listed if 2 * np.sqrt(moved) < reach - self.cutoff else None

    def keep(self, atoms: Atoms, listed: Listed) -> Listed:
        """Keep what was `listed` at the positions of `atoms`; returns it."""
        self.listed, self._positions = listed, atoms.positions.copy()
        self._cell, self._numbers = atoms.cell.array.copy(), atoms.numbers.tobytes()
        return listed
