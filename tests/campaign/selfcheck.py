"""Every judge against something that is wrong on purpose: a judge that finds nothing there is worthless.

Each check gives what a judge says about a broken thing, which must not be "", and about a whole one, which must be "".
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import compared
import damage_part
import disk_part
import judging
import kills_part
import specs_part
from mutants import SPECS, Mutant
from processes import MARKER, TRACEBACK, Case, Done, Finding, Spawned, dislobench, end_marked, gone, scratch_folder
from workspace import RUN, RUNS, TUNE, Template

Check = tuple[str, str, str]  # what, said about the broken thing, said about the whole one
GOOD = Done(("runs",), 0, "{}", "", 1.0)


def _endings() -> Iterator[Check]:
    sentence = replace(GOOD, code=4, err="dislobench: w/mlflow.db: damaged\n")
    trace = f'{TRACEBACK}:\n  File "x.py", line 1, in f\nValueError: no\n'
    yield "a hang", judging.of_ending(replace(GOOD, hung=True), (0,)), judging.of_ending(GOOD, (0,))
    yield "a traceback", judging.of_ending(replace(GOOD, err=trace), (0,)), ""
    yield "a signal", judging.of_ending(replace(GOOD, code=-11), (0,)), ""
    yield "an exit code", judging.of_ending(replace(sentence, code=1), (0, 4)), judging.of_ending(sentence, (0, 4))
    yield "no sentence", judging.of_ending(replace(sentence, err="oh\n"), (0, 4)), ""


def _specs() -> Iterator[Check]:
    real = specs_part.real()
    whole = Mutant(next(path for path in SPECS if path.stem == "w-split"), ())
    renamed = replace(whole, edits=(("rename", 1),))

    def fault(message: str) -> Any:
        from store.faults import BadInput

        def refuse(*_: object) -> None:
            raise BadInput(message)

        return refuse

    def crash(*_: object) -> None:
        raise KeyError("size")

    def hang(*_: object) -> None:
        while True:
            time.sleep(0.01)

    with scratch_folder() as folder:

        def judged(mutant: Mutant = whole, **broken: Any) -> str:
            return specs_part.judge_mutant(mutant, mutant.write(folder), replace(real, **broken))

        good = judged()
        yield "a loader that crashes", judged(load=crash), good
        yield "a loader of sweeps that crashes", judged(load_sweeps=crash), good
        yield "a check that crashes", judged(main=crash), good
        yield "a message without a place", judged(load=fault("size: must be positive")), good
        yield "an empty message", judged(load=fault("")), good
        yield "check says good, load refuses", judged(load=fault("mine.toml:3: no")), good
        yield "check says good, load_sweeps refuses", judged(load_sweeps=fault("mine.toml:3: no")), good
        yield "an exit code of check", judged(main=lambda _: 3), good
        yield "an unknown preset that is accepted", judged(replace(whole, preset="q"), load=lambda *_: None), ""
        sure = next(mutant for seed in range(100) if (mutant := replace(whole, edits=(("rename", seed),))).surely_bad)
        yield "an unknown key that is accepted", judged(sure, load=lambda *_: None), judged(renamed)
        alarm, specs_part.ALARM = specs_part.ALARM, 0.3
        yield "a loader that hangs", judged(load=hang), good
        specs_part.ALARM = alarm
    late = Done(("run",), 2, "", "dislobench: mine.toml: a bad seed\n", 1.0)
    known = specs_part._refused_late(late, [("a bad seed", "")])
    yield "run refuses what check accepts", specs_part._refused_late(late, []), known


def _numbers() -> Iterator[Check]:
    control, other = {"a": 0.1 + 0.2, "b": float("nan")}, {"a": 0.3, "b": float("nan")}
    yield (
        "another last bit",
        str(compared.differences(control, other) or ""),
        str(compared.differences(control, dict(control)) or ""),
    )
    yield "a missing number", str(compared.differences(control, {"b": float("nan")}) or ""), ""


def _kills() -> Iterator[Check]:
    killed = Done(("run",), -signal.SIGKILL, "", "", 1.0)
    codes = (-signal.SIGKILL,)
    good = kills_part.judge_kill(killed, codes, [])
    yield "a process that is left", kills_part.judge_kill(killed, codes, ["loky"]), good
    yield "a command that goes on", kills_part.judge_kill(None, codes, []), good
    interrupted = Done(("run",), 1, "", "dislobench: no\n", 1.0)
    yield "another code of an interrupt", kills_part.judge_kill(interrupted, (130,), []), good
    subject = kills_part.SUBJECTS[0]
    told = {"status": "converged", "numbers": {"c0": 1.0}}
    end = Done(("run",), 0, json.dumps(told), "", 1.0)
    control = compared.of_run(told)
    other = {**control, "numbers.c0": 1.0 + 2**-52}
    yield (
        "another number at the end",
        kills_part.judge_end(subject, end, other),
        kills_part.judge_end(subject, end, control),
    )
    marker = f"{os.environ[MARKER]}/orphan"
    sleeper = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], env={**os.environ, MARKER: marker}
    )
    left = gone(marker, 0.5)
    end_marked(marker)
    sleeper.wait()
    yield "a process of ours is found", f"{left}" if left == [sleeper.pid] else "", "".join(map(str, gone(marker, 1.0)))
    with scratch_folder() as scratch:
        spawned = Spawned(["list", "--json"], scratch, f"{os.environ[MARKER]}/list")
        listed = spawned.finish(60)
    yield (
        "a command in a new interpreter",
        str((listed.code == 0 and compared.printed(listed.out) is not None) or ""),
        "",
    )


def _leftovers(template: Template) -> Iterator[Check]:
    """A run that stays RUNNING, and half a store, with a `repair` that does not see them."""

    def without_repair(words: list[str], scratch: Path) -> Done:
        return dislobench(["no-such-command"] if words[0] == "repair" else words, scratch)

    with scratch_folder() as scratch:
        workspace = scratch / "runs"
        shutil.copytree(template.workspace, workspace)

        def judged() -> str:
            return kills_part.judge_leftovers(workspace, scratch, without_repair)

        clean, run = judged(), template.facts["ids"]["first"]
        damage_part.sql(workspace, "UPDATE runs SET status = 'RUNNING' WHERE run_uuid = ?", (run,))
        yield "a run that stays RUNNING", judged(), clean
        damage_part.sql(workspace, "UPDATE runs SET status = 'FINISHED' WHERE run_uuid = ?", (run,))
        (workspace / "fields" / ".a.zarr.new").mkdir()
        yield "half a store", judged(), clean


def _damage(template: Template) -> Iterator[Check]:
    damage = damage_part.Damage("mlflow.db zeroed", ("mlflow.db",), ())
    numbers = template.numbers(RUNS)
    name = next(name for name, value in numbers.items() if isinstance(value, float))
    changed = {**numbers, name: 7.0}

    def judged(found: compared.Numbers, done: Done = GOOD, notes: str = "") -> str:
        return damage_part.judge_after(damage, RUNS, done, found, template, notes)

    named = replace(GOOD, code=4, err="dislobench: w/mlflow.db: not a database\n")
    yield "a number changed without a word", judged(changed), judged(numbers)
    yield "a number changed, the file in a table only", judged(changed, notes="| mlflow.db |"), judged(changed, named)
    yield "a fault without the name", judged({}, replace(named, err="dislobench: not a database\n")), judged({}, named)
    study = list(template.facts["study"].values())
    whole = Done(TUNE, 0, json.dumps({"entries": study}), "", 1.0)
    study = json.loads(json.dumps(study))
    study[0]["relaxed"]["geometry_error"] = 1e-9
    relaxed = Done(TUNE, 0, json.dumps({"entries": study}), "", 1.0)
    study = json.loads(json.dumps(list(template.facts["study"].values())))
    trial = next(entry for entry in study if entry["name"].startswith("trial"))
    trial["weights"]["energy"] *= 2
    moved = Done(TUNE, 0, json.dumps({"entries": study}), "", 1.0)
    good = damage_part.judge_after(damage, TUNE, whole, {}, template, "")
    yield "a relaxed number of a study changed", damage_part.judge_after(damage, TUNE, relaxed, {}, template, ""), good
    yield "numbers of another trial", damage_part.judge_after(damage, TUNE, moved, {}, template, ""), good


def _disk(template: Template) -> Iterator[Check]:
    control = template.numbers(RUN)
    key = next(name for name, value in control.items() if isinstance(value, float))
    wrong = {**control, key: 7.0}
    full = Done(RUN, 4, "", "dislobench: runs/mlflow.db: no space left\n", 1.0)
    good = disk_part.judge_full(full, {}, control)
    yield "a full disk, exit 1", disk_part.judge_full(replace(full, code=1), {}, control), good
    yield "a full disk, other numbers", disk_part.judge_full(replace(full, code=0), wrong, control), good
    after = disk_part.judge_after(replace(full, code=0), control, control)
    yield "other numbers with space again", disk_part.judge_after(replace(full, code=0), wrong, control), after
    yield "still refused with space again", disk_part.judge_after(full, {}, control), after
    with scratch_folder() as scratch, disk_part.small_disk(scratch / "disk") as mounted:
        told = "mounting is refused: files are limited instead"
        if mounted:
            disk_part.fill(scratch / "disk", 10_000)
            try:
                (scratch / "disk" / "file").write_bytes(bytes(100_000))
                told = ""
            except OSError as error:
                told = str(error)
        yield "a full disk is full", told, ""


def judge(template: Template | None) -> list[Finding]:
    """Findings about the judges themselves; those that need a workspace only with one."""
    checks = [_endings(), _specs(), _numbers(), _kills()]
    checks += [] if template is None else [_leftovers(template), _damage(template), _disk(template)]
    found = []
    for check in checks:
        for what, broken, whole in check:
            wrong = "" if broken else f"the judge does not see it: {what}"
            wrong = wrong or (f"the judge sees {whole!r} in what is good: {what}" if whole else "")
            found.append(Finding("judges", what, wrong, False, what, "tests/campaign/selfcheck.py" if wrong else ""))
    return found


def case(template: Template | None) -> Case:
    return Case("judges", lambda: judge(template), 300.0)
