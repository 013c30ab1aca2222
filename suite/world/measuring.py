"""Measure the entries of the catalogue and write `measured.toml`: `python -m suite.world.measuring [NAME ...]`.

Without names, all entries are measured, which takes some minutes; with names, these, and the rest of the file stays.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from suite.toml import dump_toml
from suite.world.catalogue import CATALOGUE, Reference
from suite.world.crystal import (
    LATTICES,
    Crystal,
    NoCrystal,
    constants,
    energy_per_atom,
    equilibrium_crystal,
    response,
)
from suite.world.smoothness import smoothness

FILE = Path(__file__).with_name("measured.toml")
YARDSTICK = "W_zhou01"  # costs are told in its units: an EAM table whose style copies nothing at every call
BLOCK = 300  # atoms of the crystal that is timed; LAMMPS' own costs of a call are small then


def measure(entry: Reference) -> dict[str, Any]:
    """What `catalogue.Measured` holds, as plain values, rounded to what can be trusted."""
    calculator = entry.build()
    crystal = equilibrium_crystal(LATTICES[entry.lattice], entry.species, calculator)
    elastic = constants(response(crystal, calculator))
    smooth = smoothness(crystal, calculator)
    return {
        "a0": round(crystal.a0, 6),
        "energies": energies(entry, calculator),
        **{name: round(elastic[name], 1) for name in ("C11", "C12", "C44")},
        "near": [float(f"{jump:.2g}") for jump in smooth.near],
        "far": [float(f"{jump:.2g}") for jump in smooth.far],
        "third": float(f"{smooth.third:.2g}"),
        "cost": float(f"{cost(crystal, calculator) / yardstick():.2g}"),
    }


def energies(entry: Reference, calculator: Calculator) -> dict[str, float]:
    """Energy per atom, eV, in every lattice of as many species that has an equilibrium."""
    found = {}
    for name, lattice in LATTICES.items():
        if lattice.species_count != len(entry.species):
            continue
        try:
            crystal = equilibrium_crystal(lattice, entry.species, calculator)
        except NoCrystal:
            continue
        found[name] = round(energy_per_atom(crystal, calculator), 5)
    return found


def cost(crystal: Crystal, calculator: Calculator) -> float:
    """Seconds of this process per atom of a force call: the fastest of five."""
    repeats = round((BLOCK / len(crystal.basis)) ** (1 / 3))
    block = crystal.deformed(np.eye(3)).repeat((repeats,) * 3)
    block.positions += 0.05 * np.random.default_rng(0).standard_normal(block.positions.shape)
    calculator.calculate(block, ["forces"], all_changes)  # builds tables and lists of neighbours
    took = []
    for _ in range(5):
        block.positions += 1e-3
        begun = time.process_time()
        calculator.calculate(block, ["forces"], all_changes)
        took.append(time.process_time() - begun)
    return min(took) / len(block)


def yardstick() -> float:
    """Seconds per atom of a force call of `YARDSTICK`, now."""
    entry = CATALOGUE[YARDSTICK]
    return cost(Crystal(LATTICES[entry.lattice], entry.species, 3.165), entry.build())


def main(names: Sequence[str]) -> None:
    """Measure the entries of `names`, or all, and write the file after each."""
    import tomllib

    known = tomllib.loads(FILE.read_text(encoding="utf-8"))
    for name in names or CATALOGUE:
        known[name] = measure(CATALOGUE[name])
        kept = {each: known[each] for each in CATALOGUE if each in known}
        FILE.write_text(dump_toml(kept), encoding="utf-8")
        print(name, known[name], flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
