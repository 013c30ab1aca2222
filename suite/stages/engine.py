"""What computes forces in the simulation cell: the potential in this process, or LAMMPS under MPI with the same one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ase.calculators.calculator import Calculator

from suite.execution import to_stderr
from suite.model.ace_file import COMPILED
from suite.progress import Progress
from suite.results import Model, Rows
from suite.spec import Spec
from suite.world.cell import Cell
from suite.world.lammps_calculator import FittedLammpsCalculator, LammpsCalculator
from suite.world.lammps_mpi import lammps_under_mpi
from suite.world.launch import COMMAND, Launch, UnusableEngine
from suite.world.reference import build_reference


def launch_of(spec: Spec) -> Launch | None:
    """How the spec starts LAMMPS under MPI; None when forces are computed in this process."""
    settings = spec.simulation
    if settings.engine == "embedded":
        return None
    assert settings.ranks is not None  # `Spec` refuses the engine without them
    return Launch(settings.command or COMMAND, settings.ranks)


def refuse_engine(spec: Spec) -> None:
    """Raise `UnusableEngine` when the engine of the spec cannot be started, or not with its reference."""
    launch = launch_of(spec)
    if launch is None:
        return
    reference = build_reference(spec.material.reference, spec.material.arguments)
    if not isinstance(reference, LammpsCalculator):
        raise UnusableEngine(
            f"simulation.engine: LAMMPS does not evaluate the reference {spec.material.reference!r}: leave the engine "
            "out, or choose a reference that LAMMPS has (`dislobench list --references`)"
        )
    if reason := launch.refuse(reference):
        raise UnusableEngine(f"simulation.command: {reason}, which the reference needs")


@contextmanager
def engine_of(
    spec: Spec, cell: Cell, calculator: Calculator, what: str, progress: Progress
) -> Iterator[Calculator | None]:
    """LAMMPS under MPI with the potential of the reference `calculator` for `cell`, or None for a spec without it;
    `what` is done with it. Raises `UnusableEngine`, `FailedEngine`."""
    launch = launch_of(spec)
    if launch is None:
        yield None
        return
    assert isinstance(calculator, LammpsCalculator)  # `refuse_engine` says so
    calculator.close()  # its memory is needed elsewhere
    progress(what, 0.0, f"{len(cell)} atoms, LAMMPS on {launch.ranks} processes of MPI")
    with lammps_under_mpi(launch, calculator, cell.atoms(cell.predictor)) as engine:
        yield engine


@contextmanager
def engine_of_model(
    spec: Spec, cell: Cell, model: Model, rows: Rows, calculator: Calculator, progress: Progress
) -> Iterator[Calculator | None]:
    """As `engine_of`, for the `calculator` of a model; None too where LAMMPS cannot evaluate it, which is told."""
    launch = launch_of(spec)
    if launch is None:
        yield None
        return
    form = in_lammps(spec, model, rows, calculator)
    reason = "LAMMPS does not evaluate this model" if form is None else launch.refuse(form)
    if form is None or reason:
        to_stderr(f"{reason}: its forces in the simulation cell are computed in this process, not under MPI")
        yield None
        return
    with engine_of(spec, cell, form, "model relaxation", progress) as engine:
        yield engine


def in_lammps(spec: Spec, model: Model, rows: Rows, calculator: Calculator) -> LammpsCalculator | None:
    """The model as a potential of LAMMPS, None if it is not one."""
    if isinstance(calculator, LammpsCalculator):
        return calculator
    with TemporaryDirectory() as folder:
        saved = rows.basis.save(model.coefficients, model.energy_per_atom, Path(folder)) if rows.functions else []
        texts = {path.name: path.read_text(encoding="ascii") for path in saved if path.name == COMPILED}
    if not texts:
        return None
    species, cutoff = list(spec.material.species), spec.model.cutoff or 0.0
    commands = ["pair_style pace", f"pair_coeff * * {COMPILED} {' '.join(species)}"]
    return FittedLammpsCalculator(commands, species, cutoff, texts)
