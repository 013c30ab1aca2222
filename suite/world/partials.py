"""Shockley partials: where a dislocation has split, how far, and how far elasticity and the fault energy let it.

An fcc dislocation splits on its glide plane into two partials with a ribbon of stacking fault between them. Across the
ribbon the crystal above is shifted by the fault vector f, which is no lattice vector. With the sign convention of
`suite.world.elasticity` the jump of the displacement is b to the left of a dislocation and 0 to the right of it, so
that the left partial has the Burgers vector b - f and the right one f.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from store.faults import FailedOutcome
from suite.world.crystal import Crystal
from suite.world.dislocation import Dislocation, unit_sites
from suite.world.elasticity import Stroh, periodic_displacement, stroh

if TYPE_CHECKING:
    from suite.world.cell import StraightCell


class UnstableFault(FailedOutcome, RuntimeError):
    """A stacking fault that the potential does not hold, or that costs no energy."""


@dataclass(frozen=True)
class Partials:
    """The left and the right partial of each dislocation: `positions` (m, 2, 2), Å; NaN where one has not split."""

    positions: np.ndarray

    @property
    def separation(self) -> np.ndarray:
        """Distance of the two partials of each dislocation, (m,), Å."""
        return self.positions[:, 1, 0] - self.positions[:, 0, 0]

    @property
    def centre(self) -> np.ndarray:
        """Middle between the two partials, (m, 2), Å; not wrapped into the cell."""
        return self.positions.mean(axis=1)


def find_partials(cell: StraightCell, displacement: np.ndarray) -> Partials:
    """Partials of every dislocation of `cell`, for a displacement (n, 3) of its atoms.

    The disregistry, the displacement of the atomic plane above the glide plane less that of the plane below, falls
    from b to 0 along x1. Its share along b passes 3/4 in the left partial and 1/4 in the right one. The dislocation
    has split when, half-way, the disregistry has at least half of the component of f across b: there is none in a
    compact core, nor on this plane when the core has gone to another one. The tails of partials overlap: elastic
    fields of two partials 12 Å apart are found 13 Å apart, those 20 Å apart within 1 Å.
    """
    assert cell.fault is not None
    width = float(cell.vectors_perfect[0, 0])
    positions = np.full((len(cell.cores), 2, 2), np.nan)
    for index, (core, b) in enumerate(zip(cell.cores, cell.burgers, strict=True)):
        x, jump, height = disregistry(cell, float(core[1]), displacement)
        along = b / (b @ b)
        share = jump @ along
        across = cell.fault - (cell.fault @ along) * b
        middle = _nearest(_falls(x, share, 0.5, width) - core[0], width)
        if not len(middle):
            continue
        centre = core[0] + middle[np.abs(middle).argmin()]
        sideways = np.interp(centre, x, jump @ across / (across @ across), period=width)
        left = _nearest(_falls(x, share, 0.75, width) - centre, width)
        right = _nearest(_falls(x, share, 0.25, width) - centre, width)
        if sideways >= 0.5 and (left < 0).any() and (right > 0).any():
            positions[index] = [[centre + left[left < 0].max(), height], [centre + right[right > 0].min(), height]]
    return Partials(positions)


def disregistry(cell: StraightCell, height: float, displacement: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Jump of the displacement across the gap between atomic planes around `height`, Å.

    Returns x1 (k,) of all columns of the two planes, the jump u(above) - u(below) there (k, 3), interpolated linearly
    between the columns of a plane, and the height of the middle of the gap.
    """
    width, depth = np.diag(cell.vectors_perfect)[:2]
    tilt = cell.vectors[1] - cell.vectors_perfect[1]
    away = cell.reference[:, 1] - height
    images = np.rint(away / depth)
    away = away - images * depth
    above, below = away[away > 0].min(), away[away <= 0].max()
    planes = []
    for plane in (above, below):
        chosen = np.flatnonzero(np.abs(away - plane) < 1e-3 * cell.a0)
        columns, owner = np.unique((cell.reference[chosen, 0] / cell.a0).round(6), return_inverse=True)
        moved = displacement[chosen] - images[chosen, None] * tilt
        mean = [np.bincount(owner, moved[:, k]) / np.bincount(owner) for k in range(3)]
        planes.append((columns * cell.a0, mean))
    x = np.unique(np.concatenate([columns for columns, _ in planes]))
    upper, lower = (
        np.column_stack([np.interp(x, columns, component, period=width) for component in mean])
        for columns, mean in planes
    )
    return x, upper - lower, float(height + (above + below) / 2)


def _falls(x: np.ndarray, share: np.ndarray, level: float, width: float) -> np.ndarray:
    """Places where a periodic profile, known up to a whole number, falls through `level`."""
    phase = (share - level + 0.5) % 1.0 - 0.5
    after = np.roll(phase, -1)
    step = (np.roll(x, -1) - x) % width
    falls = (phase > 0) & (after <= 0) & (phase - after < 0.5)
    return x[falls] + step[falls] * phase[falls] / (phase[falls] - after[falls])


def _nearest(difference: np.ndarray, width: float) -> np.ndarray:
    return difference - width * np.rint(difference / width)


# --- what elastic theory expects ----------------------------------------------------------------------------------


def stacking_fault_energy(
    crystal: Crystal, dislocation: Dislocation, calculator: Calculator, repeats: int = 4, tolerance: float = 1e-4
) -> float:
    """`fault_energy`, eV/Å^2; raises `UnstableFault` when it is not positive: nothing would hold partials together."""
    energy = fault_energy(crystal, dislocation, calculator, repeats, tolerance)
    if not energy > 0:
        raise UnstableFault(
            f"the stacking fault of the {dislocation.comment} costs {energy:.2e} eV/Å^2 with this potential: the "
            "partials would part for good; choose a reference in which the lattice is the stable one"
        )
    return energy


def fault_energy(
    crystal: Crystal, dislocation: Dislocation, calculator: Calculator, repeats: int = 4, tolerance: float = 1e-4
) -> float:
    """Energy of the fault between the partials over that of the perfect crystal, eV/Å^2, by `calculator`.

    A periodic cell of `repeats` periods along e2, whose second vector is tilted by f, holds one fault and no surface.
    Positions are relaxed until forces are below `tolerance`, eV/Å; the height of the cell is not, which from 12 planes
    to 24 changes the energy by 1e-3 of itself.
    """
    from ase.optimize import BFGS

    fault = dislocation.fault_frame
    assert fault is not None
    unit, index = unit_sites(crystal, dislocation)
    lengths = dislocation.lengths * crystal.a0
    positions = np.vstack([unit + np.array([0, k * lengths[1], 0]) for k in range(repeats)])
    vectors = np.diag(lengths * [1, repeats, 1])
    energies = []
    for shift in (np.zeros(3), fault * crystal.a0):
        tilted = vectors.copy()
        tilted[1] += shift
        atoms = Atoms(numbers=np.tile(crystal.numbers[index], repeats), positions=positions, cell=tilted, pbc=True)
        atoms.calc = calculator
        BFGS(atoms, logfile=None).run(fmax=tolerance, steps=500)
        energies.append(float(atoms.get_potential_energy()))
    return (energies[1] - energies[0]) / float(lengths[0] * lengths[2])


def elastic_separation(solution: Stroh, left: np.ndarray, right: np.ndarray, fault_energy: float) -> float:
    """Separation of two partials `left` and `right` (3,), Å, in an infinite crystal with `fault_energy`, eV/Å^2.

    Two parallel dislocations repel each other by b·H·b'/(2π d), H = 2 Im L Lᵀ of the Stroh solution, and the ribbon
    between them pulls with its energy: d = b·H·b'/(2π γ) (Hirth & Lothe, Theory of Dislocations, 2nd ed., chapter 10;
    with the anisotropic H chapter 13).
    """
    barnett = 2 * (solution.L @ solution.L.T).imag
    return float(left @ barnett @ right) / (2 * np.pi * fault_energy)


def separation_in_cell(cell: StraightCell, elastic: np.ndarray, fault_energy: float) -> float:
    """Separation of the partials, Å, by elastic theory in this periodic cell, or inf.

    As `elastic_separation`, with the forces of all partials of the cell and their images, and with the stress that a
    cell of fixed vectors has because the partials' components across b add plastic strain. `elastic` (3, 3, 3, 3) in
    the frame, eV/Å^3. All dislocations are taken to be split equally. It is inf when the repulsion exceeds the pull of
    the fault at every distance up to half of that to the next dislocation on the plane: such a cell is too small.
    """
    from scipy.optimize import brentq

    solution, limit = stroh(elastic), _distance_on_plane(cell) / 2

    def surplus(separation: float) -> float:
        return _repulsion(cell, elastic, solution, separation) - fault_energy

    trials = np.linspace(_SHORTEST, limit, max(2, int(np.ceil(limit))))
    for before, after in pairwise([float(trial) for trial in trials]):
        if surplus(after) <= 0:
            return float(brentq(surplus, before, after, xtol=1e-6)) if surplus(before) > 0 else before
    return np.inf


_SHORTEST = 1.0  # Å; partials are never nearer


def _distance_on_plane(cell: StraightCell) -> float:
    """Smallest distance along x1 between two dislocations of one row, images included, Å."""
    width = float(cell.vectors_perfect[0, 0])
    rows = [np.sort(cell.cores[np.isclose(cell.cores[:, 1], height), 0]) for height in cell.cores[:, 1]]
    return min(float(np.diff(np.append(row, row[0] + width)).min()) for row in rows)


def _repulsion(cell: StraightCell, elastic: np.ndarray, solution: Stroh, separation: float) -> float:
    """Half the Peach-Koehler force along x1 that drives right partials from left ones, eV/Å^2, mean of all.

    The force on a unit length is σ_2k b_k. A partial's own field is odd around it: the mean of the stress at two
    opposite points near it leaves the stress of all others.
    """
    assert cell.fault is not None
    size = (float(cell.vectors_perfect[0, 0]), float(cell.vectors_perfect[1, 1]))
    # between the partials of -b the crystal has the same fault as between those of +b, up to a lattice vector
    rights = [cell.fault if b @ cell.fault > 0 else cell.fault + b for b in cell.burgers]
    burgers = np.array([(b - right, right) for b, right in zip(cell.burgers, rights, strict=True)]).reshape(-1, 3)
    places = (cell.cores[:, None] + [[-separation / 2, 0.0], [separation / 2, 0.0]]).reshape(-1, 2)
    step, near = 1e-3, 0.1
    offsets = [
        [sign * near + step * a, sign * near + step * c]
        for sign in (1, -1)
        for a, c in ((1, 0), (-1, 0), (0, 1), (0, -1))
    ]
    points = (places[:, None] + np.array(offsets)).reshape(-1, 2)
    u, tilt = periodic_displacement(solution, points, places, burgers, size)
    u = u.reshape(len(places), 2, 4, 3).mean(axis=1)
    gradient = np.zeros((len(places), 3, 3))
    gradient[:, :, 0] = (u[:, 0] - u[:, 1]) / (2 * step)
    gradient[:, :, 1] = (u[:, 2] - u[:, 3]) / (2 * step)
    gradient[:, :, 1] += (cell.vectors[1] - cell.vectors_perfect[1] - tilt) / size[1]
    stress = np.einsum("ijkl,nkl->nij", elastic, gradient)
    force = (stress[:, 1] * burgers).sum(axis=1)
    return float((force[1::2] - force[0::2]).mean()) / 2
