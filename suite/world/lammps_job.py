"""Relaxations that go to LAMMPS under MPI: a folder with everything that `mpirun lmp -in relax.in` needs, and back.

For cells that one machine is too small for. What comes back is a start: it is relaxed to the spec's tolerance here, and
judged by Burgers circuits, like every other equilibrium.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator

from store.provenance import file_digest
from suite.world.calculators import UnusableReference
from suite.world.cell import Cell
from suite.world.lammps_calculator import LammpsCalculator, lower_triangular, read_commands, write_data

DATA, SCRIPT, RESULT = "cell.data", "relax.in", "relaxed.dump"


def write_job(
    folder: Path, cell: Cell, calculator: Calculator, start: np.ndarray, tolerance: float, most: int = 20_000
) -> list[Path]:
    """Write the relaxation of `cell` from the displacement `start` (n, 3) Å into `folder`, to a largest force component
    of `tolerance` eV/Å; returns the files. Raises `UnusableReference` for a calculator that is not LAMMPS itself."""
    if not isinstance(calculator, LammpsCalculator):
        raise UnusableReference("only references that LAMMPS evaluates itself can be exported as a LAMMPS job")
    folder.mkdir(parents=True, exist_ok=True)
    write_data(folder / DATA, cell.atoms(start), calculator.species)
    commands, files = [], [folder / DATA, folder / SCRIPT]
    for command in calculator.commands:
        words = command.split()
        for place, word in enumerate(words):
            if Path(word).is_file():
                files.append(folder / Path(word).name)
                shutil.copyfile(word, files[-1])
                words[place] = Path(word).name
        commands.append(" ".join(words))
    script = [
        f"# mpirun -n 2 lmp -in {SCRIPT}",
        *read_commands(DATA, commands),
        "thermo 20",
        "min_style cg",
        "min_modify norm max",
        f"minimize 0 {tolerance:g} {most} {2 * most}",
        # continued positions: displacements are differences to the perfect crystal
        f"write_dump all custom {RESULT} id xu yu zu modify sort id format float %.15g",
    ]
    (folder / SCRIPT).write_text("\n".join(script) + "\n", encoding="ascii")
    return files


def job_digest(folder: Path) -> str:
    """Digest of a finished job's result, for content keys; raises `UnusableReference` when there is none."""
    return file_digest(_result(folder))


def _result(folder: Path) -> Path:
    if not folder.is_dir():
        raise UnusableReference(f"{folder}: no such folder; `dislobench export SPEC --folder {folder}` prepares a job")
    path = folder / RESULT
    if not path.is_file():
        raise UnusableReference(f"{path}: no such file; run `mpirun -n 2 lmp -in {SCRIPT}` in {folder} first")
    return path


def read_job(folder: Path, cell: Cell) -> np.ndarray:
    """Displacement (n, 3) Å of a finished job; raises `UnusableReference` when it is missing or of another cell."""
    path = _result(folder)
    with path.open(encoding="ascii") as file:
        header = [next(file, "") for _ in range(9)]
        values = np.loadtxt(file, ndmin=2)
    _, rotation = lower_triangular(cell.vectors)
    if header[3].strip() != str(len(cell)) or values.shape != (len(cell), 4):
        raise UnusableReference(f"{path} holds {header[3].strip() or 'no'} atoms, the cell has {len(cell)}")
    if not np.array_equal(values[:, 0], np.arange(1, len(cell) + 1)):
        raise UnusableReference(f"{path}: atoms are missing or not sorted")
    displacement = values[:, 1:] @ rotation - cell.reference
    # atoms may have been wrapped when they were read
    fractional = np.linalg.solve(cell.vectors.T, (displacement - cell.predictor).T).T
    displacement -= np.rint(fractional) @ cell.vectors
    furthest = float(np.abs(displacement - cell.predictor).max())
    if furthest > 2 * cell.a0:
        raise UnusableReference(f"{path} is of another cell: an atom lies {furthest:.1f} Å from where the spec puts it")
    return displacement
