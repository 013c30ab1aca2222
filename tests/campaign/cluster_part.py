"""Kills on a Dask cluster: of a worker, of the scheduler, of the command. Nothing of the sweep is lost, and its end has
the numbers of one that no cluster computed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import compared
import judging
from kills_part import LONGEST, SUBJECTS, Controls, judge_end, judge_leftovers
from processes import MARKER, ROOT, Case, Done, Finding, Spawned, command_of, end_marked, marked, scratch_folder

WORKERS = 2
SWEEP = next(subject for subject in SUBJECTS if subject.name == "sweep")
STARTING = 60.0  # seconds in which a cluster must be there
EARLIEST = 2.0  # seconds; before it the command is starting
FASTER = 0.6  # two workers take less time than the control


@dataclass(frozen=True)
class Victim:
    """What is killed, and the exit codes that the command may end with: its own, when it goes on to its end, is 0."""

    name: str
    codes: tuple[int, ...]
    choose: Callable[[Cluster, int], list[int]]  # of the process of the command: whom a signal may hit


@dataclass
class Cluster:
    """A scheduler and workers, each in a process of its own, that carry `marker`."""

    address: str
    scheduler: int
    marker: str

    def computing(self) -> list[int]:
        """The processes in which workers compute, not those that watch over them."""
        return [
            pid
            for pid in marked(self.marker)
            if "multiprocessing" in (line := command_of(pid)) and "resource_tracker" not in line
        ]


VICTIMS = (  # a scheduler that is gone before the command has found it is bad input, later it is lost
    Victim("a worker", (0,), lambda cluster, _: cluster.computing()),
    Victim("the scheduler", (2, 3), lambda cluster, _: [cluster.scheduler]),
    Victim("the command", (-signal.SIGKILL,), lambda _, command: [command]),
)


@contextmanager
def cluster_in(folder: Path, marker: str) -> Iterator[Cluster]:
    """A scheduler and `WORKERS` workers, as a user starts them; ended with all their processes."""
    folder.mkdir(exist_ok=True)
    told = folder / "scheduler.json"
    told.unlink(missing_ok=True)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, MARKER: marker, "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "null"}
    place = ("--scheduler-file", str(told))
    commands = [
        ["scheduler", *place, "--host", "127.0.0.1", "--port", "0", "--no-dashboard"],
        ["worker", *place, "--nworkers", str(WORKERS), "--nthreads", "1", "--memory-limit", "0", "--no-dashboard"],
    ]
    try:
        with (folder / "log").open("ab") as log:
            begun = [
                subprocess.Popen(
                    [sys.executable, "-m", "dask", *words],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=ROOT, start_new_session=True,
                )
                for words in commands
            ]  # fmt: skip
        end = time.monotonic() + STARTING
        while not told.exists():
            if time.monotonic() > end:
                raise TimeoutError(f"no cluster after {STARTING:g} s: {(folder / 'log').read_text()[-500:]}")
            time.sleep(0.1)
        address = str(compared.printed(told.read_text())["address"])
        yield Cluster(address, begun[0].pid, marker)
    finally:
        end_marked(marker)
        for process in begun:
            process.wait(10)


def _spawn(controls: Controls, scratch: Path, cluster: Cluster, marker: str) -> Spawned:
    words = [word for word in SWEEP.words(controls.folder) if word not in ("--workers", "2")]
    return Spawned([*words, "--cluster", cluster.address, "--workspace", str(scratch / "runs")], scratch, marker)


def judge_kill(number: int, victim: Victim, controls: Controls, seed: int) -> list[Finding]:
    """Kill the victim once in the middle of a sweep, then give the command again, and compare its numbers."""
    dice = random.Random(f"{seed}/cluster/{number}")
    control, seconds = controls.known(SWEEP)
    after = dice.uniform(EARLIEST, max(2 * EARLIEST, FASTER * seconds))
    mine = os.environ[MARKER]
    with scratch_folder() as scratch:
        with cluster_in(scratch / "cluster", f"{mine}/cluster") as cluster:
            spawned = _spawn(controls, scratch, cluster, f"{mine}/command")
            done, killed = spawned.wait(after), False
            while done is None and not killed:
                if hit := victim.choose(cluster, spawned.pid):
                    with suppress(ProcessLookupError):
                        os.kill(dice.choice(hit), signal.SIGKILL)
                        killed = True
                done = spawned.wait(0.1)
            done = done or spawned.finish(LONGEST)
        codes = victim.codes if killed else (0,)
        wrong = "" if done.code == 0 else judging.of_ending(done, codes)
        kind = f"{victim.name} killed" if killed else f"faster than the kill of {victim.name}"
        found = [_finding(kind, wrong, done, after)]
        if done.code == 0:
            found.append(_finding(f"{kind}, numbers", judge_end(SWEEP, done, control), done, after))
        with cluster_in(scratch / "cluster", f"{mine}/again") as cluster:
            again = _spawn(controls, scratch, cluster, f"{mine}/command-again").finish(LONGEST)
        found.append(_finding(f"{kind}, the same command again", judge_end(SWEEP, again, control), again, after))
        wrong = judge_leftovers(scratch / "runs", scratch)
        found.append(_finding(f"{kind}, leftovers", wrong, None, after))
    return found


def _finding(kind: str, wrong: str, done: Done | None, after: float) -> Finding:
    traced = done is not None and done.traced
    told = f"{done.line if done else ''} ({after:.1f} s after its start)" if wrong or traced else ""
    if done is not None and traced:
        told += f"\n{done.err[-2000:]}"
    return Finding("cluster", kind, wrong, traced, f"{kind}: {judging.signature_of(wrong)}"[:120], told)


def cases(count: int, controls: Controls, seed: int) -> list[Case]:
    """`count` kills; victims take turns."""
    return [
        Case(
            f"cluster-{number}",
            lambda number=number: judge_kill(number, VICTIMS[number % len(VICTIMS)], controls, seed),
            3 * LONGEST,
        )
        for number in range(count)
    ]
