"""Full disks: a command stops with exit 4 and a sentence, and with more space it ends with the right numbers."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import compared
import judging
from processes import Case, Done, Finding, dislobench, scratch_folder
from workspace import RUN, SWEEP, TUNE, Template, numbers_of, size_of

ROOM = 256 * 2**20  # bytes of the small file system: enough for everything
COMMANDS = (RUN, SWEEP, TUNE)


@contextmanager
def small_disk(place: Path) -> Iterator[bool]:
    """A file system of its own at `place`; yields False when mounting is refused."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "dislobench-campaign", str(place)],
        capture_output=True,
        check=False,
    )
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", str(place)], check=False)


def fill(place: Path, free: int) -> Path:
    """Fill a file system until `free` bytes are left; returns the file that fills it."""
    filler = place / "filler"
    space = os.statvfs(place)
    with filler.open("wb") as handle:
        os.posix_fallocate(handle.fileno(), 0, max(4096, space.f_bavail * space.f_frsize - free))
    return filler


def judge_full(done: Done, found: compared.Numbers, control: compared.Numbers) -> str:
    """What is wrong with a command on a full disk: exit 4, or done with the right numbers."""
    if wrong := judging.of_ending(done, (0, 4)):
        return wrong
    if done.code == 0 and (differs := compared.differences(control, found)):
        return f"exit 0 on a full disk with other numbers: {'; '.join(differs)}"
    return ""


def judge_after(done: Done, found: compared.Numbers, control: compared.Numbers) -> str:
    """What is wrong with the same command once there is space."""
    if wrong := judging.of_ending(done, (0,)):
        return wrong
    differs = compared.differences(control, found)
    return f"other numbers after a full disk: {'; '.join(differs)}" if differs else ""


def judge(number: int, template: Template, seed: int) -> list[Finding]:
    """Run a command with too little space, then again with enough."""
    dice = random.Random(f"{seed}/disk/{number}")
    command = COMMANDS[number % 3]
    key = " ".join(command)
    control, found = template.numbers(command), []
    cached = dice.random() < 0.6  # with the stages in the cache the disk is full later, in the database or the journal
    share = dice.uniform(0.0, 1.05)
    with scratch_folder() as scratch, small_disk(scratch / "disk") as mounted:
        workspace = scratch / "disk" / "runs"
        workspace.mkdir()
        grows = template.facts["grown"][" ".join(RUN)] if command == TUNE else 0
        grows += template.facts["grown"][key]
        if cached:
            shutil.copytree(template.workspace / "cache", workspace / "cache")
            grows = max(2**20, grows - size_of(workspace / "cache") // 2)
        free = int(share * grows)
        if mounted:
            filler = fill(scratch / "disk", free)
            full = dislobench(template.words(command, workspace), scratch, 150.0)
            filler.unlink()
            limit = f"{free} bytes free"
        else:
            largest = dice.choice([4096, 20_000, 100_000, 300_000, 600_000])
            full = dislobench(template.words(command, workspace), scratch, 150.0, largest_file=largest)
            limit = f"no file larger than {largest} bytes (mounting is refused)"
        told = f"dislobench {key} with {limit}{' and a full cache' if cached else ''}   (--disk case {number})"
        numbers = numbers_of(command, full, workspace) if full.code == 0 else {}
        wrong = judge_full(full, numbers, control)
        kind = f"{command[0]}, full"
        found.append(
            Finding(
                "disk", kind, wrong, full.traced, f"{kind}: {judging.signature_of(wrong)}"[:120], told if wrong else ""
            )
        )
        again = dislobench(template.words(command, workspace), scratch, 240.0)
        numbers = numbers_of(command, again, workspace) if again.code == 0 else {}
        wrong = judge_after(again, numbers, control)
        kind = f"{command[0]}, with space again"
        found.append(
            Finding(
                "disk", kind, wrong, again.traced, f"{kind}: {judging.signature_of(wrong)}"[:120], told if wrong else ""
            )
        )
    return found


def cases(count: int, template: Template, seed: int) -> list[Case]:
    return [Case(f"disk-{n}", lambda n=n: judge(n, template, seed), 600.0) for n in range(count)]
