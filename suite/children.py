"""Processes that a command starts and waits for: they end when it ends, however it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARENT = "DISLOBENCH_PARENT"  # id of the process that waits for this one; this one ends when that process ends
PATIENCE = 10.0  # seconds for a child to end after SIGTERM


def program_of(command: str) -> str | None:
    """Where a command is: beside this Python, as packages install them, or on the path; None when it is nowhere."""
    return shutil.which(command, path=search_path())


def search_path() -> str:
    """PATH with the folder of this Python before all others."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def ending(code: int) -> str:
    """How a process ended that had this exit code, in words."""
    if code >= 0:
        return f"ended with code {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (" (was the memory too small?)" if name == "SIGKILL" else "")


def in_a_process(
    command: Sequence[str], captured: bool = False, variables: Mapping[str, str] | None = None, **options: Any
) -> tuple[int, str]:
    """Run a command and return its exit code and, if `captured`, its output. `variables` are added to its environment,
    `options` are those of `subprocess.Popen`.

    The child never outlives this process: it is terminated when this one is stopped, and a command of dislobench ends
    by itself when this one is killed. With `start_new_session` the whole group of the child is terminated.
    """
    if captured:
        options["stdout"] = subprocess.PIPE
    environment = {**os.environ, PARENT: str(os.getpid()), **(variables or {})}
    with subprocess.Popen(command, text=True, env=environment, **options) as process:
        try:
            told, _ = process.communicate()
        except BaseException:
            own_group = options.get("start_new_session", False)
            _end_child(process, own_group)
            raise
    return process.returncode, told or ""


@contextmanager
def beside(
    command: Sequence[str], variables: Mapping[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """A command that runs while this process works, inside the `with` block: at its end it is terminated, with all
    processes of its group. `variables` and `options` as in `in_a_process`.

    When this process is killed, nobody ends the command: it must notice by itself, for instance by a broken connection.
    """
    environment = {**os.environ, **(variables or {})}
    with subprocess.Popen(command, text=True, env=environment, start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            _end_child(process, own_group=True)


def _end_child(process: Any, own_group: bool) -> None:
    """Terminate a child, with its whole process group if it has its own; kill it if it does not end in time."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            if own_group:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
        except ProcessLookupError:
            break
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            continue
