"""Killed commands: nothing of them stays, the next one goes on, and the end has the numbers of one never killed."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import compared
import judging
from processes import (
    MARKER,
    ROOT,
    Case,
    Done,
    Finding,
    Spawned,
    command_of,
    dislobench,
    end_marked,
    gone,
    marked,
    scratch_folder,
)

SWEEP = """
[sweep.small]
ladders = { "training.size" = [6, 7, 8, 9] }
ablation = false
"""
PER_WORKSPACE = 5  # kills before a command may come to its end
EARLIEST = 1.0  # seconds; before it the interpreter itself is starting
LONGEST = 400.0  # seconds that an uninterrupted command may take
GONE = 10.0  # seconds in which every process of a killed command must be gone


@dataclass(frozen=True)
class Subject:
    """A command on trial, and which of its numbers a control must have too."""

    name: str
    words: Callable[[Path], list[str]]  # of the folder that holds the spec
    numbers: Callable[[Any], compared.Numbers]


def _run(folder: Path) -> list[str]:
    return ["run", "w-split", "--preset", "tiny", "--workers", "2", "--json"]


def _sweep(folder: Path) -> list[str]:
    return ["sweep", str(folder / "kills.toml"), "--preset", "tiny", "--only", "small", "--workers", "2", "--json"]


def _tune(folder: Path) -> list[str]:
    return ["tune", "w-split", "--preset", "tiny", "--trials", "40", "--verify", "1", "--workers", "2", "--json"]


def _of_tune(told: Any) -> compared.Numbers:
    """Trials of two workers depend on which is faster; the rivals do not, and there must be enough trials."""
    return compared.rivals_of(told) | {"enough trials": told["trials"] >= 40}


SUBJECTS = [
    Subject("run", _run, compared.of_run),
    Subject("sweep", _sweep, compared.of_sweep),
    Subject("tune", _tune, _of_tune),
]
SIGNALS = [  # (signal, to the whole group as a terminal does, exit codes)
    *[(signal.SIGKILL, False, (-signal.SIGKILL,))] * 6,
    (signal.SIGTERM, False, (-signal.SIGTERM, 130, 143)),
    (signal.SIGINT, False, (130,)),
    (signal.SIGINT, True, (130,)),
]


@dataclass(frozen=True)
class Controls:
    """The folder of specs and of what the controls found: numbers and seconds of each command, never killed."""

    folder: Path

    def write_spec(self) -> None:
        text = (ROOT / "specs" / "w-split.toml").read_text()
        (self.folder / "kills.toml").write_text(text.replace('"w-split"', '"kills"', 1) + SWEEP)

    def path(self, subject: Subject) -> Path:
        return self.folder / f"{subject.name}.json"

    def known(self, subject: Subject) -> tuple[compared.Numbers, float]:
        found = json.loads(self.path(subject).read_text())
        return found["numbers"], found["seconds"]

    def make(self, subject: Subject) -> list[Finding]:
        """Run a command to its end in a workspace of its own."""
        with scratch_folder() as scratch:
            done = _spawn(self, subject, scratch).finish(LONGEST)
            wrong, numbers = _ended_well(subject, done)
            if not wrong:
                self.path(subject).write_text(json.dumps({"numbers": numbers, "seconds": done.seconds}))
        return [
            Finding("kills", f"control: {subject.name}", wrong, done.traced, judging.signature_of(wrong), done.line)
        ]


def _spawn(controls: Controls, subject: Subject, scratch: Path) -> Spawned:
    words = [*subject.words(controls.folder), "--workspace", str(scratch / "runs")]
    return Spawned(words, scratch, os.environ[MARKER])


def _ended_well(subject: Subject, done: Done) -> tuple[str, compared.Numbers]:
    if wrong := judging.of_ending(done, (0,)):
        return wrong, {}
    try:
        return "", subject.numbers(compared.printed(done.out))
    except (TypeError, KeyError) as error:
        return f"not the JSON object of {subject.name} ({error!r}): {done.out[:200]}", {}


def judge_end(subject: Subject, done: Done, control: compared.Numbers) -> str:
    """What is wrong with the end of a command that was killed before."""
    wrong, numbers = _ended_well(subject, done)
    if not wrong and (differs := compared.differences(control, numbers)):
        return f"other numbers than a command that was never killed: {'; '.join(differs)}"
    return wrong


def judge_kill(done: Done | None, codes: Sequence[int], left: Sequence[str]) -> str:
    """What is wrong after a signal: `done` is None when the command goes on, `left` the processes that are left."""
    if done is None:
        return f"the command goes on {GONE:g} s after the signal"
    if done.code != 0 and (wrong := judging.of_ending(done, codes)):
        return wrong
    return f"{len(left)} processes are left after {GONE:g} s: {'; '.join(left)[:200]}" if left else ""


def _kill(spawned: Spawned, after: float, how: tuple[int, bool, Sequence[int]]) -> tuple[Done | None, str]:
    """Send a signal after so many seconds; the ended command, and what is wrong. "ended" when it was faster."""
    early = spawned.wait(after)
    if early is not None:
        return early, "ended"
    number, group, codes = how
    spawned.signal(number, group)
    done = spawned.wait(GONE)
    left = [command_of(pid) for pid in gone(spawned.marker, GONE)]
    wrong = judge_kill(done, codes, left)
    end_marked(spawned.marker)
    if done is None:
        spawned.wait(GONE)
    return done, wrong


def judge_sequence(number: int, subject: Subject, count: int, controls: Controls, seed: int) -> list[Finding]:
    """Kill a command `count` times in one workspace, then let it end."""
    dice = random.Random(f"{seed}/kills/{number}")
    control, seconds = controls.known(subject)
    found, history = [], []
    with scratch_folder() as scratch:
        longest = seconds
        kills = 0
        for _ in range(10 * count):
            if kills == count:
                break
            how = dice.choice(SIGNALS)
            after = dice.uniform(EARLIEST, max(longest, EARLIEST + 1))
            spawned = _spawn(controls, subject, scratch)
            done, wrong = _kill(spawned, after, how)
            if wrong == "ended":
                assert done is not None
                longest = min(longest, done.seconds)
                wrong, kind = judge_end(subject, done, control), f"{subject.name}, faster than its signal"
            else:
                kills += 1
                word = signal.Signals(how[0]).name + (" to the group" if how[1] else "")
                history.append(f"{word} after {after:.1f} s")
                kind = f"{subject.name}, {word}"
            found.append(_finding(kind, wrong, done, history, spawned))
        last = _spawn(controls, subject, scratch)
        done = last.finish(LONGEST)
        found.append(_finding(f"{subject.name}, the end", judge_end(subject, done, control), done, history, last))
        wrong = judge_leftovers(scratch / "runs", scratch)
        found.append(_finding(f"{subject.name}, leftovers", wrong, None, history, last))
    return found


def _finding(kind: str, wrong: str, done: Done | None, history: Sequence[str], spawned: Spawned) -> Finding:
    traced = done is not None and done.traced
    told = f"dislobench {' '.join(spawned.arguments[:-2])}: {', '.join(history)}" if wrong or traced else ""
    if done is not None and traced:
        told += f"\n{done.err[-2000:]}"
    return Finding("kills", kind, wrong, traced, f"{kind}: {judging.signature_of(wrong)}"[:120], told)


def judge_leftovers(workspace: Path, scratch: Path, command: Callable[..., Done] = dislobench) -> str:
    """What stays of killed commands: runs RUNNING, stores that were being written. `repair` may clean up before, if
    there is one."""
    known = command(["repair", "--help"], scratch)
    if known.code == 0:
        repaired = command(["repair", "--workspace", str(workspace)], scratch)
        if wrong := judging.of_ending(repaired, (0,)):
            return f"repair: {wrong}"
    listed = command(["runs", "--json", "--workspace", str(workspace)], scratch)
    if wrong := judging.of_ending(listed, (0,)):
        return f"runs: {wrong}"
    running = [record["name"] for record in compared.printed(listed.out)["runs"] if record["status"] == "RUNNING"]
    new = sorted(str(path.relative_to(workspace)) for path in workspace.rglob("*.new"))
    after = "after repair" if known.code == 0 else "and there is no command `repair`"
    told = [f"runs that stay RUNNING: {', '.join(running)}"] if running else []
    told += [f"leftovers: {', '.join(new)}"] if new else []
    return f"{'; '.join(told)} ({after})" if told else ""


def judge_worker(number: int, subject: Subject, controls: Controls, seed: int) -> list[Finding]:
    """Kill one worker of a command; the command still ends with the numbers of the control."""
    dice = random.Random(f"{seed}/worker/{number}")
    control, _ = controls.known(subject)
    with scratch_folder() as scratch:
        spawned = _spawn(controls, subject, scratch)
        killed = ""
        wanted = dice.uniform(0.2, 4.0)  # seconds after the first worker appeared
        end, seen = time.monotonic() + LONGEST / 2, 0.0
        while not killed and time.monotonic() < end and spawned.wait(0.05) is None:
            workers = [pid for pid in marked(spawned.marker) if pid != spawned.pid and is_worker(command_of(pid))]
            seen = seen or (time.monotonic() if workers else 0.0)
            if workers and time.monotonic() > seen + wanted:
                victim = dice.choice(workers)
                killed = command_of(victim)
                try:
                    os.kill(victim, signal.SIGKILL)
                except ProcessLookupError:
                    killed = ""
        done = spawned.finish(LONGEST)
        wrong = judge_end(subject, done, control)
        history = [f"SIGKILL to one worker, {wanted:.1f} s after workers appeared" if killed else "no worker to kill"]
        kind = f"{subject.name}, {'a worker killed' if killed else 'no worker was there to be killed'}"
        return [_finding(kind, wrong, done, history, spawned)]


def is_worker(command: str) -> bool:
    """Whether a command line is that of a worker process, not of a process that only cleans up after workers."""
    return (
        ("loky" in command or "multiprocessing" in command)
        and "resource_tracker" not in command
        and "forkserver" not in command
    )


def controls_of(folder: Path) -> Controls:
    folder.mkdir(parents=True, exist_ok=True)
    controls = Controls(folder)
    controls.write_spec()
    return controls


def control_cases(controls: Controls) -> list[Case]:
    return [Case(f"kills-control-{s.name}", lambda s=s: controls.make(s), LONGEST + 60) for s in SUBJECTS[::-1]]


def cases(count: int, controls: Controls, seed: int) -> list[Case]:
    """`count` kills, a tenth of them of a worker only; subjects take turns."""
    workers = count // 10
    found, left, number = [], count - workers, 0
    while left > 0:
        subject, some = SUBJECTS[number % 3], min(PER_WORKSPACE, left)
        judge = lambda number=number, subject=subject, some=some: judge_sequence(number, subject, some, controls, seed)
        found.append(Case(f"kills-{number}", judge, (some + 2) * LONGEST))
        left, number = left - some, number + 1
    for number in range(workers):
        subject = SUBJECTS[number % 3]
        judge = lambda number=number, subject=subject: judge_worker(number, subject, controls, seed)
        found.append(Case(f"kills-worker-{number}", judge, 2 * LONGEST))
    return found
