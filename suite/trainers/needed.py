"""What an optional trainer or backend needs on this machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from store.faults import BadInput


class MissingPackage(BadInput, ImportError):
    """An optional package that is not installed."""


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
