"""Training and test configurations: rattled copies of the relaxed training cell, labelled by the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from suite.execution import map_pieces
from suite.world.calculators import NotFinite, Portable
from suite.world.cell import Cell

ATOMS = 8_000  # a piece is as many configurations as have so many atoms together


@dataclass(frozen=True)
class Configurations:
    """Labelled configurations of one cell.

    `displacements` (c, n, 3) Å; `amplitudes` (c,) Å, 0 for the equilibrium; `energies` (c,) eV, relative to the perfect
    crystal; `forces` (c, n, 3) eV/Å.
    """

    displacements: np.ndarray
    amplitudes: np.ndarray
    energies: np.ndarray
    forces: np.ndarray

    def __len__(self) -> int:
        return len(self.energies)

    def split(self, count: int) -> tuple[Configurations, Configurations]:
        """The first `count` configurations and the others."""
        return self._each(lambda values: values[:count]), self._each(lambda values: values[count:])

    def joined(self, other: Configurations) -> Configurations:
        """These configurations, then the `other` ones."""
        later = iter((other.displacements, other.amplitudes, other.energies, other.forces))
        return self._each(lambda values: np.concatenate([values, next(later)]))

    def _each(self, change: Callable[[np.ndarray], np.ndarray]) -> Configurations:
        return Configurations(*map(change, (self.displacements, self.amplitudes, self.energies, self.forces)))


def rattle(
    equilibrium: np.ndarray, amplitudes: Sequence[float], count: int, generator: np.random.Generator, first: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """`count` copies (count, n, 3) of `equilibrium` (n, 3), amplitudes taking turns from the `first`, and their
    amplitudes (count,).

    Every Cartesian component is uniform in ±α/√3, so that no atom moves by more than α (the paper gives no
    distribution; this is the convention of its authors' library).
    """
    alpha = np.array([amplitudes[(first + i) % len(amplitudes)] for i in range(count)])
    noise = generator.uniform(-1, 1, size=(count, *equilibrium.shape)) / np.sqrt(3)
    return equilibrium + alpha[:, None, None] * noise, alpha


def label(
    cell: Cell,
    displacements: np.ndarray,
    amplitudes: np.ndarray,
    calculator: Calculator,
    energy_per_atom: float,
    workers: int | None = None,
) -> Configurations:
    """Energies (relative to `energy_per_atom`, eV) and forces of `calculator` for displacements (c, n, 3).

    Configurations are shared among `workers` processes (default: all cores), and no label depends on how many.
    Raises `NotFinite` naming the configuration when a label is not finite.
    """
    portable = Portable.of(calculator)
    atoms = cell.atoms(np.zeros_like(cell.reference))
    size = max(1, ATOMS // len(cell))
    pieces = [
        (portable, atoms, cell.reference + displacements[first : first + size])
        for first in range(0, len(displacements), size)
    ]
    energies, forces = np.empty(len(displacements)), np.empty(displacements.shape)
    done = 0
    for energy, force in map_pieces(_labels, pieces, portable.workers(workers)):
        part = slice(done, done + len(energy))
        energies[part], forces[part] = energy - len(cell) * energy_per_atom, force
        done += len(energy)
        for index in range(part.start, part.stop):
            if not (np.isfinite(energies[index]) and np.isfinite(forces[index]).all()):
                raise NotFinite(
                    f"the reference gives no finite label for configuration {index} (amplitude {amplitudes[index]} Å)"
                )
    return Configurations(displacements, amplitudes, energies, forces)


def _labels(portable: Portable, atoms: Atoms, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energies (c,) and forces (c, n, 3) of a piece of the configurations, at `positions` (c, n, 3)."""
    moved = atoms.copy()
    moved.calc = portable.fresh()
    energies, forces = np.empty(len(positions)), np.empty(positions.shape)
    for index, places in enumerate(positions):
        moved.positions[:] = places
        energies[index], forces[index] = moved.get_potential_energy(), moved.get_forces()
    return energies, forces
