"""Locks of a name: one holder at a time, none after its death, and no litter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from store.locking import clear_locks, locked_file


def test_holders_take_turns_and_leave_nothing(tmp_path: Path) -> None:
    path, inside, most, waited = tmp_path / "locks" / "one", [0], [0], [0]

    def work() -> None:
        def waiting() -> None:
            waited[0] += 1

        with locked_file(path, waiting):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.02)
            inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1]
    assert 1 <= waited[0] < 8, "each of those that wait tells it once"
    assert not list(path.parent.iterdir())


def test_a_killed_holder_blocks_nobody(tmp_path: Path) -> None:
    path = tmp_path / "one"
    program = (
        "import sys, time; from pathlib import Path; from store.locking import locked_file\n"
        f"with locked_file(Path({str(path)!r})):\n    print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    told: list[str] = []

    def kill() -> None:
        told.append("waiting")
        os.kill(holder.pid, signal.SIGKILL)

    with locked_file(path, kill):
        assert told == ["waiting"]
    holder.communicate()


def test_files_of_dead_holders_are_cleared_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    dead, alive = tmp_path / "dead", tmp_path / "alive"
    dead.touch()
    with locked_file(alive):
        clear_locks(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["alive"]
    clear_locks(tmp_path / "nowhere")
