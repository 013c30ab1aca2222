"""Core sites by a scan in a small cell: which site relaxes to the lowest energy, and which stays where it was put."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.calculators.calculator import Calculator

from suite.progress import Progress, silent
from suite.world.cell import build_cell, crystal_metric
from suite.world.crystal import Crystal
from suite.world.dislocation import Dislocation, Site, partner_site, unit_sites
from suite.world.elasticity import Stroh
from suite.world.relaxation import Relaxation, relax

TOLERANCE, MOST_CALLS = 1e-3, 200  # eV/Å; a scan ranks sites, and looks whether cores stay
PERTURBATION = 0.01  # Å; breaks symmetry


@dataclass(frozen=True)
class ScannedSite:
    """A candidate: sites of +b and -b (fractions of the unit cell), relaxed energy (eV), and how it ended."""

    sites: tuple[Site, Site]
    energy: float
    relaxation: Relaxation
    atoms: int

    @property
    def largest_shift(self) -> float | None:
        """How far the core that moved most has moved, Å; None when cores are missing."""
        lengths = np.linalg.norm(self.relaxation.shifts, axis=1)
        return None if np.isnan(lengths).any() else float(lengths.max())


def candidate_sites(crystal: Crystal, lattice: str, dislocation: Dislocation, grid: int) -> list[tuple[Site, Site]]:
    """Sites in every gap between atomic planes, `grid` along e1, one of each class of translations.

    They lie in the middle of the gap, and for screws that do not split also at its thirds, and between any two like
    columns that are neighbours in an atomic row.
    """
    unit, basis = unit_sites(crystal, dislocation)
    fractions = unit[:, :2] / (dislocation.lengths[:2] * crystal.a0)
    heights = np.unique(fractions[:, 1].round(6) % 1.0)
    middles = (heights + np.diff(np.append(heights, heights[0] + 1.0)) / 2) % 1.0
    thirds = [heights + t * np.diff(np.append(heights, heights[0] + 1.0)) for t in (1 / 3, 2 / 3)]
    screw = dislocation.burgers_frame[0] == 0 and dislocation.fault is None
    levels = np.concatenate([middles, *thirds]) if screw else middles
    wanted = [(float(f1), float(f2)) for f2 in sorted(levels % 1.0) for f1 in np.arange(grid) / grid]
    if screw:
        wanted += _sites_in_rows(fractions, basis)
    translations = fractions[basis == 0]
    found: list[tuple[Site, Site]] = []
    classes: set[tuple[float, float]] = set()
    for site in wanted:
        images = ((np.array(site) + translations + 1e-7) % 1.0).round(5)
        key = tuple(min(map(tuple, images)))
        if key in classes:
            continue
        classes.add(key)
        pair = (site, partner_site(lattice, dislocation, site))
        if dislocation.core_on_atom(lattice, pair) is None:
            found.append(pair)
    return found


def _sites_in_rows(fractions: np.ndarray, basis: np.ndarray) -> list[Site]:
    """Middles between neighbouring columns (s, 2) of an atomic row, where both are of one sublattice."""
    columns = np.unique(np.column_stack([fractions.round(6) % 1.0, basis]), axis=0)
    sites: list[Site] = []
    for height in np.unique(columns[:, 1]):
        row = columns[columns[:, 1] == height]  # sorted along e1 by `unique`
        after = np.roll(row, -1, axis=0)
        gap = (after[:, 0] - row[:, 0]) % 1.0
        gap[gap == 0] = 1.0  # the only column of its row: its own image
        middles = (row[:, 0] + gap / 2) % 1.0
        sites += [
            (float(f1), float(height)) for f1, like in zip(middles, row[:, 2] == after[:, 2], strict=True) if like
        ]
    return sites


def scan(
    crystal: Crystal,
    lattice: str,
    dislocation: Dislocation,
    elasticity: Stroh,
    calculator: Calculator,
    width: float,
    arrangement: str = "quadrupole",
    grid: int = 4,
    progress: Progress = silent,
) -> list[ScannedSite]:
    """Relax an `arrangement` `width` a0 wide from every candidate site; sorted by energy, usable ones first.

    Energies are comparable: all cells have the same atoms, and cores move by less than a unit cell between candidates.
    """
    repeats = dislocation.repeats(width)
    candidates = candidate_sites(crystal, lattice, dislocation, grid)
    metric, ground = None, 0.0
    results = []
    for index, sites in enumerate(candidates):
        cell = build_cell(crystal, dislocation, elasticity, arrangement, repeats, sites)
        if metric is None:
            metric = crystal_metric(cell, calculator).solve
            perfect = cell.perfect_atoms()
            perfect.calc = calculator
            ground = float(perfect.get_potential_energy())
        noise = np.random.default_rng(0).standard_normal(cell.predictor.shape)
        start = cell.predictor + PERTURBATION * noise
        result = relax(cell, calculator, metric, start, TOLERANCE, MOST_CALLS)
        results.append(ScannedSite(sites, result.energy - ground, result, len(cell)))
        progress("scan", (index + 1) / len(candidates), f"{sites[0]}: {result.status.name.lower()}")
    return sorted(results, key=lambda r: (r.relaxation.status.name != "CONVERGED", r.energy))
