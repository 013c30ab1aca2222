"""What was listed within a cutoff and a skin, kept for as long as it is whole (L. Verlet, Phys. Rev. 159, 98, 1967)."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
from ase import Atoms

Listed = TypeVar("Listed")


class Kept(Generic[Listed]):
    """Neighbours that were listed within the cutoff and a skin of `width` Å.

    They are whole until an atom has moved by half the skin, or the cell or the elements change.
    """

    def __init__(self, width: float) -> None:
        self.width = width
        self.listed: Listed | None = None
        self._positions, self._cell, self._numbers = np.empty((0, 3)), np.empty((3, 3)), b""

    def at(self, atoms: Atoms) -> Listed | None:
        """What was listed, if it is whole at the positions of `atoms`; else None."""
        if self.listed is None or self._numbers != atoms.numbers.tobytes():
            return None
        if not np.array_equal(self._cell, atoms.cell.array):
            return None
        moved = ((atoms.positions - self._positions) ** 2).sum(axis=1).max()
        return self.listed if moved < (self.width / 2) ** 2 else None

    def keep(self, atoms: Atoms, listed: Listed) -> Listed:
        """Keep what was `listed` at the positions of `atoms`; returns it."""
        self.listed, self._positions = listed, atoms.positions.copy()
        self._cell, self._numbers = atoms.cell.array.copy(), atoms.numbers.tobytes()
        return listed
