"""Processes that a command starts and waits for: they end when it ends, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

PARENT = "DISLOBENCH_PARENT"  # id of the process that waits for this one; this one ends when that process ends
PATIENCE = 10.0  # seconds for a child to end after SIGTERM


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
