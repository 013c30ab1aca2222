"""References that lie in the span of a basis: ACE models of another reference, fitted to rattled bulk crystals.

A student with the same basis can follow such a teacher exactly, so that each term of Theorem 3.1 can be switched on
alone and by a known amount (`observables.shift`). As a reference of a spec: `reference = "suite.model.teacher:teacher"`
with the arguments of `teacher`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from ase.calculators.calculator import Calculator

from suite.execution import single_threaded
from suite.model.basis import AceBasis
from suite.model.regression import Reducer, solve, stack
from suite.model.rows import elastic_blocks, elastic_rows, perfect_row
from suite.records import ACE_STEP, Solver
from suite.world.crystal import LATTICES, energy_per_atom, equilibrium_crystal, response, strain_path
from suite.world.reference import build_reference


def teacher(
    reference: str,
    lattice: str,
    species: Sequence[str],
    cutoff: float,
    channels: Sequence[int],
    degrees: Sequence[int],
    configurations: int = 30,
    amplitudes: Sequence[float] = (0.1, 0.3, 0.5),
    seed: int = 0,
) -> Calculator:
    """An ACE calculator fitted to `reference` on rattled cubic supercells (Å), its elastic constants included.

    The same arguments give the same coefficients. Raises what the reference and the basis raise.
    """
    basis, coefficients, energy = _fitted(
        reference,
        lattice,
        tuple(species),
        cutoff,
        tuple(channels),
        tuple(degrees),
        configurations,
        tuple(amplitudes),
        seed,
    )
    return basis.calculator(coefficients, energy)


@cache
@single_threaded  # kept for all later runs of this process, whose numbers must not depend on who asked first
def _fitted(
    reference: str,
    lattice: str,
    species: tuple[str, ...],
    cutoff: float,
    channels: tuple[int, ...],
    degrees: tuple[int, ...],
    configurations: int,
    amplitudes: tuple[float, ...],
    seed: int,
) -> tuple[AceBasis, np.ndarray, float]:
    calculator = build_reference(reference)
    crystal = equilibrium_crystal(LATTICES[lattice], species, calculator)
    basis = AceBasis(species, cutoff, channels, degrees)
    path = strain_path(crystal, calculator, ACE_STEP)
    perfect = perfect_row(basis, path.undeformed)
    ground = energy_per_atom(crystal, calculator)
    from ase.build import make_supercell

    # the primitive vectors of the cubic lattices add up to cubic ones; at least twice the cutoff wide
    cubic = np.rint(crystal.a0 * np.eye(3) @ np.linalg.inv(crystal.vectors)).astype(int)
    bulk = make_supercell(crystal.deformed(np.eye(3)), cubic * int(np.ceil(2 * cutoff / crystal.a0)))
    generator = np.random.default_rng(seed)
    energies, forces = Reducer(len(basis)), Reducer(len(basis))
    for index in range(configurations):
        atoms = bulk.copy()
        alpha = amplitudes[index % len(amplitudes)]
        atoms.positions += alpha * generator.uniform(-1, 1, atoms.positions.shape) / np.sqrt(3)
        atoms.calc = calculator
        row, force = basis.energy_and_force_rows(atoms)
        energies.add((row - len(atoms) * perfect)[None], np.array([atoms.get_potential_energy() - len(atoms) * ground]))
        forces.add(force, atoms.get_forces().ravel())
    elastic = elastic_blocks(elastic_rows(basis, path, crystal.volume), response(crystal, calculator))
    blocks = {"energy": energies.finish(), "force": forces.finish(), "virial1": elastic["virial1"]}
    weights = {"energy": 50.0, "force": 10.0, "virial1": 100.0}
    # directions that the data hardly see would get coefficients of 1e6, and third derivatives their rounding
    coefficients = solve(stack(blocks, weights, "paper"), Solver(tolerance=1e-8)).coefficients
    return basis, coefficients, float(ground - perfect @ coefficients)
