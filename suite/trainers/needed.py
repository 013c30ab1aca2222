"""What an optional trainer or backend needs on this machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from store.faults import BadInput, FailedOutcome


class MissingPackage(BadInput, ImportError):
    """An optional package that is not installed."""


class FailedProgram(FailedOutcome, RuntimeError):
    """A program of a trainer that ended with an error; what it printed tells why. `exit_code` is as a shell has it."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} {ending(code)}")
        self.exit_code = code if code > 0 else 128 - code


def program_of(command: str) -> str | None:
    """Where a command is: beside this Python, as packages install them, or on the path; None when it is nowhere."""
    places = [str(Path(sys.executable).parent), *os.environ.get("PATH", os.defpath).split(os.pathsep)]
    return shutil.which(command, path=os.pathsep.join(places))


def needed(command: str, module: str, distribution: str, extra: str, what: str = "the trainer") -> str:
    """Path of `command` (if any); raises `MissingPackage` unless it is there and `module` can be imported: `what` needs
    it."""
    program = program_of(command) if command else ""
    if importlib.util.find_spec(module) is None or program is None:
        raise MissingPackage(
            f"{what} needs the package {distribution}: `pip install 'dislobench[{extra}]'` installs it"
        )
    return program


def run_program(command: Sequence[str], folder: Path) -> None:
    """Run the program of a trainer in `folder` and wait for it; raises `FailedProgram`."""
    code = subprocess.run(command, check=False, cwd=folder).returncode
    if code != 0:
        raise FailedProgram(Path(command[0]).name, code)


def ending(code: int) -> str:
    """How a process ended that had this exit code, in words."""
    if code >= 0:
        return f"ended with code {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (" (was the memory too small?)" if name == "SIGKILL" else "")
