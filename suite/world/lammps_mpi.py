"""LAMMPS under MPI as an ASE calculator: a program of its own, on many processes, that gets positions and gives forces.

It is started by a command such as `mpirun -n 4 lmp`, and spoken to by the protocol of i-PI (`fix ipi`, package MISC;
Ceriotti, More, Manolopoulos, Comput. Phys. Commun. 185, 1019, 2014). So a relaxation takes the same steps in the same
metric as with LAMMPS inside this process, and only its force calls are shared. LAMMPS' own minimiser would take two to
ten times as many (docs/cluster.md).
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any
from uuid import uuid4

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.socketio import IPIProtocol, actualunixsocketname, bind_unixsocket

from suite.children import beside, ending
from suite.world.calculators import FailedEngine, NotFinite, UnusableReference
from suite.world.lammps_calculator import NEIGHBOURS, LammpsCalculator, lower_triangular, read_commands, write_data
from suite.world.launch import DRIVER, Launch, UnusableEngine, last_lines, variables

LOOK = 0.5  # seconds between two looks at a program that has not answered yet
PATIENCE = 5.0  # seconds for a program that hangs up to end
PROCESSES = "processes.txt"
# `fix ipi` converts with constants of its own (units metal), ASE with CODATA: they differ by 1e-9 and 1e-7
_BOHR = 0.52917721  # Å
_HARTREE = 8.617343e-5 / 3.1668152e-6  # eV


@contextmanager
def lammps_under_mpi(launch: Launch, calculator: LammpsCalculator, atoms: Atoms) -> Iterator[MpiCalculator]:
    """LAMMPS on many processes with the potential of `calculator`, for cells with the same atoms as `atoms`.

    It is started here, and ends with the `with` block; it ends by itself when this process is killed. Raises
    `UnusableEngine` when the command does not do what it should, `FailedEngine` when LAMMPS stops.
    """
    if reason := launch.refuse(calculator):
        raise UnusableEngine(reason)
    words = launch.words()
    with ExitStack() as running:
        output = running.enter_context(TemporaryFile())
        with ExitStack() as starting:  # once it has connected, LAMMPS has read all files: none is left by a kill
            folder = Path(starting.enter_context(TemporaryDirectory(prefix="dislobench-mpi-")))
            name = f"dislobench_{uuid4().hex}"
            server = starting.enter_context(_listening(name))
            commands = launch.known(starting.enter_context(calculator.ready()))
            script = folder / "driven.in"
            script.write_text(_script(folder, calculator, commands, atoms, name), encoding="utf-8")
            command = [*words, "-in", str(script), "-log", "none", "-nocite"]
            process = running.enter_context(
                beside(command, variables(), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
            )
            program = _Program(process, output, shlex.join(words))
            line = running.enter_context(program.connected(server))
            program.refuse_strangers(folder, launch.ranks)
        yield MpiCalculator(line, program, len(atoms), calculator.cutoff)


@contextmanager
def _listening(name: str) -> Iterator[socket.socket]:
    """A socket file where only this user's processes of this machine can connect."""
    with ExitStack() as stack:
        before = os.umask(0o077)
        try:
            server = stack.enter_context(bind_unixsocket(actualunixsocketname(name)))
        finally:
            os.umask(before)
        server.listen(1)
        server.settimeout(LOOK)
        yield server


@dataclass(frozen=True)
class _Program:
    """The running LAMMPS, the file that takes what it prints, and the command that started it."""

    process: subprocess.Popen[str]
    output: IO[bytes]
    command: str

    def connected(self, server: socket.socket) -> socket.socket:
        """The line to LAMMPS, as soon as it has connected; raises `FailedEngine` when it ends before."""
        while True:
            try:
                line, _ = server.accept()
            except TimeoutError:
                if self.process.poll() is not None:
                    raise self.failed() from None
            else:
                line.settimeout(None)  # a force call of a large cell takes long
                return line

    def failed(self) -> FailedEngine:
        """The error to raise when it does not answer any more."""
        try:
            how = ending(self.process.wait(PATIENCE))
        except subprocess.TimeoutExpired:
            how = "does not answer any more"
        file = self.output.fileno()  # whose place is LAMMPS' too: it must not be moved
        printed = os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace")
        cure = ""
        if "UNIX socket" in printed:  # words of `fix ipi`
            cure = ": its first process must run on this machine, because it is spoken to through a file in /tmp"
        return FailedEngine(f"`{self.command}` {how}{cure}{last_lines(printed)}")

    def refuse_strangers(self, folder: Path, ranks: int) -> None:
        """Raise `UnusableEngine` when the command has started several programs of one process each: mpirun of one MPI
        does that with a LAMMPS of another one."""
        found = re.search(r"Nprocs = (\d+)", (folder / PROCESSES).read_text(encoding="utf-8"))
        count = int(found.group(1)) if found else 0
        if count != ranks:
            raise UnusableEngine(
                f"simulation.command: `{self.command}` started LAMMPS on {count} processes, and not on {ranks}: do "
                f"mpirun and lmp belong to the same MPI? Name a pair that does, each with its folder"
            )


def _script(folder: Path, calculator: LammpsCalculator, commands: list[str], atoms: Atoms, name: str) -> str:
    """The input of LAMMPS, which then waits for positions; the data file beside it is written too."""
    data = folder / "cell.data"
    write_data(data, atoms, calculator.species)
    return "\n".join(
        [
            *read_commands(f'"{data}"', commands),
            *NEIGHBOURS,
            "thermo_modify norm no lost error",
            "thermo 0",
            f'info communication out overwrite "{folder / PROCESSES}"',
            f"fix driver all {DRIVER} {name} 31415 unix",
            "run 2000000000 post no",
            "",
        ]
    )


class _Line(IPIProtocol):
    """ASE's protocol, which goes on where a number is not finite: it would leave half of the answer unread."""

    def recv(self, shape: Any, dtype: Any) -> np.ndarray:
        count = int(np.prod(shape))
        return np.frombuffer(self._recvall(count * np.dtype(dtype).itemsize), dtype).reshape(shape)


class MpiCalculator(Calculator):
    """ASE calculator (energy, forces) of a LAMMPS that runs elsewhere; `lammps_under_mpi` makes it.

    The energy is LAMMPS' own sum, whose rounding grows with the cell. It is for one number of atoms, and cannot be
    copied to other processes. Raises `FailedEngine` when LAMMPS has stopped, `NotFinite` where forces are not finite.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, line: socket.socket, program: _Program, count: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self._count, self._program = count, program
        self._protocol = _Line(line)

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("a LAMMPS that runs elsewhere cannot be copied")

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        if len(self.atoms) != self._count:
            raise UnusableReference(f"LAMMPS was started for {self._count} atoms, not for {len(self.atoms)}")
        if not np.isfinite(self.atoms.positions).all():
            raise NotFinite("positions are not finite")
        vectors = self.atoms.cell.array
        lower, rotation = lower_triangular(vectors)
        fractional = np.linalg.solve(vectors.T, self.atoms.positions.T).T
        fractional -= np.rint(fractional)  # LAMMPS puts its cell around the origin
        scale = units.Bohr / _BOHR
        try:
            self._protocol.sendposdata(scale * lower, np.linalg.inv(scale * lower), scale * (fractional @ lower))
            energy, forces, _, _ = self._protocol.sendrecv_force()
        except OSError as error:  # `SocketClosed` is one
            raise self._program.failed() from error
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise NotFinite("the energy or a force is not finite")
        self.results = {
            "energy": energy * _HARTREE / units.Ha,
            "forces": forces @ rotation * (_HARTREE / _BOHR * units.Bohr / units.Ha),
        }
