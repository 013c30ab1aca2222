"""Are two cores the same? Their shapes are compared, so that a fit that learned another core than it has to simulate is
told.

The shape of a core is the distribution of the distances between the atoms around it. A rotation, a reflection and a
lattice translation leave it as it is, so that equivalent variants of one core have one shape; a reconstruction, or
another place in the unit cell, changes it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from suite.world.cell import StraightCell
from suite.world.dislocation import nearest_image

REACH = 1.5  # a0; weights of atoms fall to zero there. Further out the fields of neighbouring dislocations differ too
DIFFERENT = 0.032  # Å; the strain of neighbouring dislocations alone makes 0.030 for W at L = 6 (0.009 at L = 8)
UNLIKE = 0.016  # Å; cores of one cell have equivalent neighbours: 0.001 for W, up to 0.014 in small cells of Si

Shape = tuple[np.ndarray, np.ndarray]
"""Distances (k,), Å, and their weights (k,)."""


def core_shape(cell: StraightCell, displacement: np.ndarray, core: int) -> Shape:
    """Distances between all atoms within `REACH` of a core under `displacement` (n, 3), with smooth weights.

    Atoms count by where they are, not by where they were: across the slip behind a core they have moved by b. Along
    the line the nearest image of an atom counts.
    """
    size = np.diag(cell.vectors_perfect)[:2]
    around = np.linalg.norm(nearest_image(cell.reference[:, :2] - cell.cores[core], size), axis=1)
    centre = cell.cores[core] + displacement[around < cell.a0, :2].mean(axis=0)
    away = cell.reference + displacement
    away[:, :2] -= centre
    away -= np.rint(away[:, :2] @ np.linalg.inv(cell.vectors[:2, :2])) @ cell.vectors[:2]
    radius = np.linalg.norm(away[:, :2], axis=1) / (REACH * cell.a0)
    near = away[radius < 1]
    weight = (1 - radius[radius < 1] ** 2) ** 2
    between = near[:, None] - near[None]
    between -= np.rint(between[..., 2:] / cell.vectors[2, 2]) * cell.vectors[2]
    pairs = np.triu_indices(len(near), 1)
    return np.linalg.norm(between, axis=-1)[pairs], np.outer(weight, weight)[pairs]


def difference(one: Shape, other: Shape) -> float:
    """By how much distances of one shape have to be changed to make the other, on average, Å (the earth mover's
    distance, which is continuous in the positions of all atoms)."""
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(one[0], other[0], one[1], other[1]))


Relaxed = tuple[StraightCell, np.ndarray]  # a cell and its displacement (n, 3)


def core_spread(relaxed: Relaxed) -> float:
    """Largest difference in shape of two cores of one sign in a cell, Å."""
    return max(difference(*pair) for shapes in _by_sign(relaxed).values() for pair in _pairs(shapes))


def core_mismatch(simulation: Relaxed, training: Sequence[Relaxed]) -> float:
    """How far the simulation's cores are from those that were trained on, Å: of every core its difference in shape to
    the most similar training core of its sign, and of these the largest."""
    learned: dict[int, list[Shape]] = {}
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


def _by_sign(relaxed: Relaxed) -> dict[int, list[Shape]]:
    cell, displacement = relaxed
    shapes: dict[int, list[Shape]] = {}
    for core, burgers in enumerate(cell.burgers):
        shapes.setdefault(int(np.sign(burgers @ cell.burgers[0])), []).append(core_shape(cell, displacement, core))
    return shapes


def _pairs(shapes: Sequence[Shape]) -> list[tuple[Shape, Shape]]:
    return [(shapes[0], other) for other in shapes]
