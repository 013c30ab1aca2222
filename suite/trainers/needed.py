"""What an optional trainer or backend needs on this machine."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Sequence
from pathlib import Path

from store.faults import BadInput, FailedOutcome
from suite.children import ending, program_of


class MissingPackage(BadInput, ImportError):
    """An optional package that is not installed."""


class FailedProgram(FailedOutcome, RuntimeError):
    """A program of a trainer that ended with an error; what it printed tells why. `exit_code` is as a shell has it."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} {ending(code)}")
        self.exit_code = code if code > 0 else 128 - code


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
