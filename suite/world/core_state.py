"""Are two cores the same? Their shapes are compared, so that a fit that learned another core than it has to simulate is
told.

The shape of a core is the sorted list of distances between the atoms next to it. A rotation, a reflection and a lattice
translation leave it as it is, so that equivalent variants of one core have one shape; a reconstruction, or another
place in the unit cell, changes it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from suite.world.cell import StraightCell
from suite.world.dislocation import nearest_image

REACH = 1.0  # a0; the atoms of a core. Further out the elastic fields of neighbouring dislocations differ too
DIFFERENT = 0.1  # Å; the strain of neighbouring dislocations changes a shape by up to 0.06 Å at L = 6
UNLIKE = 0.03  # Å; cores of one cell have equivalent neighbours, and differ by less than 0.01 Å


def core_shape(cell: StraightCell, displacement: np.ndarray, core: int) -> np.ndarray:
    """Sorted distances (k,), Å, between all atoms within `REACH` of the intended place of a core, under `displacement`
    (n, 3); along the line the nearest image of an atom counts."""
    size = np.diag(cell.vectors_perfect)[:2]
    away = cell.reference[:, :2] - cell.cores[core]
    near = np.flatnonzero(np.linalg.norm(nearest_image(away, size), axis=1) < REACH * cell.a0)
    images = np.rint(away[near] / size)
    positions = cell.reference[near] + displacement[near] - images @ cell.vectors[:2]
    between = positions[:, None] - positions[None]
    between -= np.rint(between[..., 2:] / cell.vectors[2, 2]) * cell.vectors[2]
    return np.sort(np.linalg.norm(between, axis=-1)[np.triu_indices(len(near), 1)])


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference of two shapes, Å; infinite for different numbers of atoms."""
    return float(np.abs(one - other).max()) if one.shape == other.shape else float("inf")


Relaxed = tuple[StraightCell, np.ndarray]  # a cell and its displacement (n, 3)


def core_spread(relaxed: Relaxed) -> float:
    """Largest difference in shape of two cores of one sign in a cell, Å."""
    return max(difference(*pair) for shapes in _by_sign(relaxed).values() for pair in _pairs(shapes))


def core_mismatch(simulation: Relaxed, training: Sequence[Relaxed]) -> float:
    """How far the simulation's cores are from those that were trained on, Å: of every core its difference in shape to
    the most similar training core of its sign, and of these the largest."""
    learned: dict[int, list[np.ndarray]] = {}
    for relaxed in training:
        for sign, shapes in _by_sign(relaxed).items():
            learned.setdefault(sign, []).extend(shapes)
    wanted = [(sign, shape) for sign, shapes in _by_sign(simulation).items() for shape in shapes]
    return max(min(difference(shape, other) for other in learned[sign]) for sign, shape in wanted)


def core_change(cell: StraightCell, before: np.ndarray, after: np.ndarray) -> float:
    """Largest difference in shape of a core under two displacements (n, 3) of one cell, Å."""
    return max(
        difference(core_shape(cell, before, core), core_shape(cell, after, core)) for core in range(len(cell.cores))
    )


def _by_sign(relaxed: Relaxed) -> dict[int, list[np.ndarray]]:
    cell, displacement = relaxed
    shapes: dict[int, list[np.ndarray]] = {}
    for core, burgers in enumerate(cell.burgers):
        shapes.setdefault(int(np.sign(burgers @ cell.burgers[0])), []).append(core_shape(cell, displacement, core))
    return shapes


def _pairs(shapes: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(shapes[0], other) for other in shapes]
