"""Which atoms belong to a defect: how far the surroundings of an atom are from those in the perfect crystal."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from suite.world.crystal import Crystal

LATTICE_SPAN = 4  # primitive vectors each way: all that are shorter than twice the reach, and more


def distortion(
    positions: np.ndarray, sublattice: np.ndarray, crystal: Crystal, frame: np.ndarray, box: np.ndarray | None = None
) -> np.ndarray:
    """How far the vector to a neighbour is from every vector that the perfect crystal has there, (n,), Å: the largest
    over the neighbours of each atom, which are those of the first two shells; zero for an atom without any.

    `positions` (n, 3) Å in the axes `frame` (3, 3) rows, `sublattice` (n,) indices of `crystal.basis`; `box` (3, 3)
    vectors of a periodic cell as rows, or None for a piece without periods. A vector of a wrong lattice site counts as
    right: only atoms of dislocation cores and of stacking faults are left, not the plane that a dislocation has
    crossed.
    """
    import vesin

    reach = _reach(crystal)
    listed = vesin.NeighborList(cutoff=reach, full_list=True)
    cell = np.zeros((3, 3)) if box is None else box
    first, second, away = listed.compute(points=positions, box=cell, periodic=box is not None, quantities="ijD")
    found = np.zeros(len(positions))
    sites = range(len(crystal.basis))
    for start in sites:
        for end in sites:
            chosen = (sublattice[first] == start) & (sublattice[second] == end)
            perfect = _vectors(crystal, start, end)
            near = perfect[np.linalg.norm(perfect, axis=1) < 2 * reach]
            np.maximum.at(found, first[chosen], cKDTree(near @ frame.T).query(away[chosen])[0])
    return found


def _vectors(crystal: Crystal, start: int, end: int) -> np.ndarray:
    """Vectors from a site of sublattice `start` to those of sublattice `end`, (k, 3), Å, in cubic axes."""
    steps = np.stack(np.meshgrid(*[np.arange(-LATTICE_SPAN, LATTICE_SPAN + 1)] * 3), axis=-1).reshape(-1, 3)
    return np.asarray(steps @ crystal.vectors + crystal.basis[end] - crystal.basis[start])


def _reach(crystal: Crystal) -> float:
    """Å; midway between the second and the third shell, so that an atom whose bond is broken still has neighbours."""
    away = np.linalg.norm(np.vstack([_vectors(crystal, 0, end) for end in range(len(crystal.basis))]), axis=1)
    shells = np.unique(away.round(6))  # the first is the site itself
    return float(shells[2] + shells[3]) / 2
