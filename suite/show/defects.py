"""The atoms of a run that belong to defects, from its store alone, and all its atoms as a file for OVITO."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from ase import Atoms
from ase.io import write as write_frames

from suite.spec import Spec, from_text
from suite.stages.cells import dislocation_of
from suite.world.crystal import LATTICES, Crystal
from suite.world.dislocation import Dislocation, Loop
from suite.world.distortion import distortion

DISTORTED = 0.15  # nearest distances: atoms that are distorted more belong to a defect
AROUND_LOOP = 8  # a0; atoms are looked for in a sphere that is so much larger than the loop
EQUILIBRIA = ("reference", "model")


@dataclass(frozen=True)
class Defects:
    """The simulation cell of a run, and which of its atoms belong to defects.

    `group` the cell in the store; `places` (2, n, 3) Å, positions of all atoms at the equilibria of reference and
    model; `distorted` (2, n) Å, as `suite.world.distortion` has it, zero where it was not looked for; `atoms` (k,)
    indices of those that are distorted more than `limit` Å at one of both equilibria, the most distorted first.
    """

    spec: Spec
    group: Any
    crystal: Crystal
    kind: Dislocation | Loop
    places: np.ndarray
    distorted: np.ndarray
    limit: float
    atoms: np.ndarray

    @property
    def box(self) -> np.ndarray:
        """Vectors of the cell as rows, (3, 3), Å."""
        return np.asarray(self.group["cell"].to_numpy())

    @cached_property
    def apart(self) -> np.ndarray:
        """The displacement error: from the reference's equilibrium to the model's, without the shift of the whole
        crystal, which costs no energy, (n, 3), Å."""
        found = self.places[1] - self.places[0]
        return np.asarray(found - found.mean(axis=0))

    @property
    def bond_error(self) -> np.ndarray:
        """What an atom contributes to the geometry error, (n,), Å."""
        return np.asarray(self.group["error_atom"].to_numpy())


def find_defects(tree: xr.DataTree, limit: float | None = None) -> Defects:
    """The defects of a run (its store `tree`): atoms that are distorted more than `limit` Å, by default 0.15 times the
    distance of nearest neighbours."""
    spec, group = from_text(tree.attrs["spec"]), tree["simulation"]
    crystal = Crystal(LATTICES[spec.material.lattice], spec.material.species, float(tree["crystal"]["a0"]))
    kind = dislocation_of(spec)
    limit = DISTORTED * crystal.lattice.nearest * crystal.a0 if limit is None else limit
    perfect = group["reference"].to_numpy()
    places = np.stack([perfect + group[name].to_numpy() for name in ("relaxed", "relaxed_model")])
    distorted = np.stack([_distorted(group, crystal, kind, each) for each in places])
    largest = distorted.max(axis=0)
    beyond = np.flatnonzero(largest > limit)
    return Defects(spec, group, crystal, kind, places, distorted, limit, beyond[np.argsort(-largest[beyond])])


def _distorted(group: Any, crystal: Crystal, kind: Dislocation | Loop, places: np.ndarray) -> np.ndarray:
    """The distortion of all atoms, (n,), Å; in a loop's cell, which may hold millions, of those around the loop."""
    sublattice = group["sublattice"].to_numpy()
    if isinstance(kind, Dislocation):
        return distortion(places, sublattice, crystal, kind.frame, group["cell"].to_numpy())
    away = np.linalg.norm(places - group["loop_centre"].to_numpy(), axis=1)
    near = np.flatnonzero(away < float(group["loop_radius"]) + AROUND_LOOP * crystal.a0)
    found = np.zeros(len(places))
    found[near] = distortion(places[near], sublattice[near], crystal, np.eye(3))
    return found


def write_atoms(found: Defects, path: Path) -> Path:
    """Write all atoms as extended XYZ, which OVITO reads: two frames, the reference's equilibrium and the model's.

    Properties of an atom, in Å: the vectors `displacement` (from the perfect crystal) and `error_vector`, and the
    numbers `displacement_error` (the length of this vector), `bond_error` and `distortion`.
    """
    perfect, numbers = found.group["reference"].to_numpy(), found.group["species"].to_numpy()
    frames = []
    for name, places, distorted in zip(EQUILIBRIA, found.places, found.distorted, strict=True):
        atoms = Atoms(numbers=numbers, positions=places, cell=found.box, pbc=True)
        atoms.arrays |= {
            "displacement": places - perfect,
            "error_vector": found.apart,
            "displacement_error": np.linalg.norm(found.apart, axis=1),
            "bond_error": found.bond_error,
            "distortion": distorted,
        }
        atoms.info = {"equilibrium": name}
        frames.append(atoms)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_frames(path, frames, format="extxyz")
    return path
