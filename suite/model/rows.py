"""Rows of the design matrix: exact for energies and forces, Cauchy-Born derivatives for stress, virial1 and virial2.

Rows do not depend on weights. They are made block by block, by several processes (`suite.execution`), and only their
triangles are kept (see `suite.model.regression`). Pieces are cut by the size of the problem alone and merged in their
order, so that no bit depends on the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
from ase import Atoms

from suite.execution import map_pieces
from suite.model.contract import LinearFamily, Recipe
from suite.model.regression import Block, Reducer, triangle_of
from suite.model.training import Configurations
from suite.observables import ELASTIC, block_name
from suite.world.cell import Cell
from suite.world.crystal import Response, StrainPath, path_derivatives

AnyCell = TypeVar("AnyCell", bound=Cell)


def perfect_row(basis: LinearFamily, primitive: Atoms) -> np.ndarray:
    """Value of every basis function per atom of the perfect crystal, (functions,)."""
    return basis.site_values(primitive) / len(primitive)


def elastic_rows(basis: LinearFamily, path: StrainPath, volume: float) -> dict[str, np.ndarray]:
    """Derivatives of W_cb for unit coefficients: `stress` (9, n), `virial1` (81, n), `virial2` (729, n), eV/Å^3."""
    values = np.array([basis.site_values(atoms) for atoms in path.cells]) / volume
    return dict(zip(ELASTIC, path_derivatives(values, path.step), strict=True))


def elastic_blocks(rows: dict[str, np.ndarray], reference: Response) -> dict[str, Block]:
    """Blocks of the elastic observables, compressed to their rank (1, 4, 9 in cubic crystals)."""
    targets = dict(zip(ELASTIC, (reference.d1, reference.d2, reference.d3), strict=True))
    blocks = {}
    for name, target in targets.items():
        augmented = np.column_stack([rows[name], target.ravel()])
        blocks[name] = Block(triangle_of(compressed(augmented)), len(target.ravel()), float(target.sum()))
    return blocks


def compressed(rows: np.ndarray) -> np.ndarray:
    """As few rows as the rank of `rows` (k, n), with the same norm of every combination of columns."""
    _, size, directions = np.linalg.svd(rows, full_matrices=False)
    kept = size > 1e-13 * max(float(size[0]), np.finfo(float).tiny)  # rounding; differences are good to 1e-9
    return size[kept, None] * directions[kept]


@lru_cache(maxsize=1)
def built(parameters: Recipe) -> LinearFamily:
    """The basis that this process built last, for the next piece of the same work."""
    return parameters.build()


def _piece(parameters: Recipe, cell: Cell, configurations: Configurations, perfect: np.ndarray) -> dict[str, Block]:
    basis = built(parameters)
    reducers: dict[str, Reducer] = {}
    for index in range(len(configurations)):
        amplitude = configurations.amplitudes[index]
        atoms = cell.atoms(configurations.displacements[index])
        energy, force = basis.energy_and_force_rows(atoms)
        for name, rows, targets in (
            ("energy", (energy - len(cell) * perfect)[None], configurations.energies[index : index + 1]),
            ("force", force, configurations.forces[index].ravel()),
        ):
            key = block_name(name, amplitude)
            reducers.setdefault(key, Reducer(len(basis))).add(rows, targets)
    return {name: reducer.finish() for name, reducer in reducers.items()}


def cut(sets: Sequence[tuple[AnyCell, Configurations]], size: int) -> list[tuple[AnyCell, Configurations]]:
    """Sets of configurations in pieces of at most `size`: a job each."""
    pieces = []
    for cell, left in sets:
        while len(left):
            head, left = left.split(size)
            pieces.append((cell, head))
    return pieces


def configuration_blocks(
    parameters: Recipe,
    sets: Sequence[tuple[Cell, Configurations]],
    perfect: np.ndarray,
    workers: int | None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Block]:
    """Reduced blocks `energy@α` and `force@α` of labelled configurations of some cells, α in Å (0: an equilibrium).

    `perfect` (functions,) is subtracted per atom from every energy row, as it is from the labels.
    """
    count = sum(len(configurations) for _, configurations in sets)
    pieces = cut(sets, piece_size(len(perfect), max(len(cell) for cell, _ in sets)))
    collected: dict[str, Reducer] = {}
    results = map_pieces(_piece, [(parameters, cell, part, perfect) for cell, part in pieces], workers)
    done = 0
    for (_, part), blocks in zip(pieces, results, strict=True):
        for name, block in blocks.items():
            collected.setdefault(name, Reducer(len(perfect))).merge(block)
        done += len(part)
        if progress:
            progress(done, count)
    return {name: collected[name].finish() for name in sorted(collected)}


def piece_size(functions: int, atoms: int) -> int:
    """Configurations of a piece: so many that their rows outnumber the triangle that is left of them by far, and no
    more, so that there are pieces for many processes."""
    return min(8, max(1, -(-8 * (functions + 1) // (3 * atoms))))
