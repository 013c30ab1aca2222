"""A small workspace with two runs, a sweep and a study, and what the commands say about it while it is whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import compared
from processes import Case, Done, Finding, dislobench, scratch_folder

SPEC = """[case]
name = "small"
title = "A small screw quadrupole in W"
[material]
lattice = "bcc"
species = ["W"]
reference = "W_zhou04"
[dislocation]
kind = "screw"
core = "easy"
[simulation]
size = 16
[training]
size = 6
configurations = 4
test = 3
[model]
cutoff = 5.0
channels = [10, 5]
degrees = [0, 0]
[tune]
trials = 12
verify = 1
[sweep.L]
ladders = { "training.size" = [5, 6, 7, 8] }
ablation = false
"""

RUNS, REPORT = ("runs", "--all", "--json"), ("report", "--json")
SHOW, SHOW_SECOND = ("show", "first", "--json"), ("show", "second", "--json")
RUN = ("run", "SPEC", "--workers", "1", "--name", "first", "--json")
SECOND = ("run", "SPEC", "--workers", "1", "--name", "second", "--set", "training.seed=1", "--json")
SWEEP = ("sweep", "SPEC", "--workers", "1", "--json")
TUNE = ("tune", "SPEC", "--json")
EVERY_TRIAL = (*TUNE, "--verify", "12")


@dataclass(frozen=True)
class Template:
    """The folder of a finished workspace `runs`, its spec, and what is known about it (`facts.json`).

    `facts["numbers"]` holds what each command says, `facts["cache"]` the cache entries that each command made,
    `facts["ids"]` the ids of runs by name, `facts["study"]` the entries of every trial and rival by weights.
    """

    folder: Path

    @property
    def spec(self) -> Path:
        return self.folder / "small.toml"

    @property
    def workspace(self) -> Path:
        return self.folder / "runs"

    @cached_property
    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "facts.json").read_text())
        return found

    def words(self, command: tuple[str, ...], workspace: Path) -> list[str]:
        """`command` with the place of the spec and a workspace."""
        return [str(self.spec) if word == "SPEC" else word for word in command] + ["--workspace", str(workspace)]

    def numbers(self, command: tuple[str, ...]) -> compared.Numbers:
        """What `command` says about the whole workspace."""
        found: compared.Numbers = self.facts["numbers"][" ".join(command)]
        return found


def numbers_of(command: tuple[str, ...], done: Done, workspace: Path) -> compared.Numbers:
    """The numbers that a command printed or wrote."""
    told = compared.printed(done.out)
    if command[0] == "report":
        return compared.of_report(workspace / "report")
    readers: dict[str, Callable[[Any], compared.Numbers]] = {
        "runs": compared.of_runs,
        "show": compared.of_show,
        "run": compared.of_run,
        "sweep": compared.of_sweep,
        "tune": compared.of_tune,
    }
    try:
        return readers[command[0]](told)
    except (TypeError, KeyError):
        return {"printed": done.out[:200]}


def build(template: Template) -> list[Finding]:
    """Make the workspace of `template`; a finding for every command that fails."""
    found, facts = [], {"numbers": {}, "cache": {}, "seconds": {}, "grown": {}}
    template.folder.mkdir(parents=True, exist_ok=True)
    template.spec.write_text(SPEC)

    def say(command: tuple[str, ...], workspace: Path) -> compared.Numbers:
        done = dislobench(template.words(command, workspace), template.folder, 600.0)
        wrong = "" if done.code == 0 else f"exit {done.code} in a new workspace: {done.last_words()}"
        found.append(Finding("template", command[0], wrong, done.traced, wrong[:80], done.line if wrong else ""))
        facts["seconds"].setdefault(" ".join(command), done.seconds)
        return numbers_of(command, done, workspace)

    known: set[str] = set()
    for command in (RUN, SECOND, SWEEP, TUNE):
        before = size_of(template.workspace)
        facts["numbers"][" ".join(command)] = say(command, template.workspace)
        entries = {path.name for path in (template.workspace / "cache").glob("*.zarr")}
        facts["cache"][" ".join(command)] = sorted(entries - known)
        facts["grown"][" ".join(command)] = size_of(template.workspace) - before
        known |= entries
    with scratch_folder() as scratch:
        copy = scratch / "runs"
        shutil.copytree(template.workspace, copy)
        for command in (RUNS, SHOW, SHOW_SECOND, REPORT):
            facts["numbers"][" ".join(command)] = say(command, copy)
        listed = dislobench(template.words(RUNS, copy), template.folder)
        facts["ids"] = {record["name"]: record["id"] for record in compared.printed(listed.out)["runs"]}
        for command in (SWEEP, RUN, TUNE):  # whatever has been made before is used again
            told = say(command, copy)
            if differs := compared.differences(facts["numbers"][" ".join(command)], told):
                wrong = f"{command[0]} again in the same workspace: other numbers: {differs}"
                found.append(Finding("template", command[0], wrong, False, "again", " ".join(command)))
        every = dislobench(template.words(EVERY_TRIAL, copy), template.folder, 600.0)
        entries = compared.printed(every.out)["entries"]
        facts["study"] = {compared.weights_of(entry): entry for entry in entries}
    (template.folder / "facts.json").write_text(json.dumps(facts))
    return found


def size_of(folder: Path) -> int:
    """Bytes that the files below a folder take, in pages of 4096."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def case(template: Template) -> Case:
    return Case("template", lambda: build(template), 1800.0)
