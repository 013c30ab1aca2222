"""Workspaces whose database was lost, emptied or damaged, and studies with damaged journals."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import xarray as xr

from store import fields, seal, through_client
from store.faults import BadStore
from store.runs import RunRecord, Tracker, WorkspaceError
from suite.cli import main
from suite.spec import load
from suite.study.repair import repair
from suite.study.trials import open_journal, seal_of

DATA = xr.Dataset({"species": ("atom", np.arange(3))})
SETTINGS = {"size": 8, "weights": {"energy": 1e-3}}


def finish(tracker: Tracker, name: str, parent: str | None = None) -> str:
    """A run with a store and artifacts."""
    with tracker.start("w-split", name, SETTINGS, {"point": f"key of {name}"}, parent) as run:
        numbers = {"geometry_error": 1 / 3, "bound": float("inf")}
        attributes = {"run": run.id, "record": run.record(numbers, {"outcome": "converged"})}
        fields.write(
            tracker.store_of(run.id), {"simulation": xr.Dataset({"species": ("atom", np.arange(3))})}, attributes
        )
        run.describe(f"**{name}**")
        run.metrics(numbers | {"seconds_store": 1.5})
        run.tags({"outcome": "converged"})
        run.text("spec.toml", "x")
    return run.id


def judge(path: Path, trials: int) -> None:
    """A study with so many sealed trials in the journal at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    storage = open_journal(path)
    study = optuna.create_study(study_name="0123456789abcdef", storage=storage, load_if_exists=True)
    for _ in range(trials):
        trial = study.ask()
        parameters = {"energy": trial.suggest_float("energy", 0.1, 10, log=True)}
        numbers = {"geometry_error_linear": parameters["energy"] ** 2}
        trial.set_user_attr("numbers", numbers)
        trial.set_user_attr("seal", seal_of(trial.number, parameters, numbers))
        study.tell(trial, numbers["geometry_error_linear"])


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs, a failed one, a sweep with two points, and a study with its trials."""
    workspace = tmp_path_factory.mktemp("original") / "runs"
    tracker = Tracker(workspace)
    finish(tracker, "alone")
    with pytest.raises(ValueError, match="bad"), tracker.start("si-edge", "failed", {"a": 1}, {}):
        raise ValueError("bad")
    with tracker.start("w-split", "sweep L", {"case": "w-split"}, {"kind": "sweep", "sweep_key": "k"}) as sweep:
        for n in range(2):
            finish(tracker, f"point {n}", sweep.id)
        sweep.metrics({"points": 2})
        sweep.sealed_json("sweep.json", {"name": "L", "points": []})
    study_tags = {"study": "0123456789abcdef", "kind": "study", "folder": "w-split-01234567"}
    judge(workspace / "studies" / "w-split-01234567" / "journal.log", 5)
    with tracker.start("w-split", "study w-split 01234567", {}, study_tags):
        pass
    repair(workspace)
    assert len(tracker.history()) == 11
    return workspace


@pytest.fixture
def workspace(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "runs"))


def told(records: list[RunRecord]) -> list[dict[str, Any]]:
    """Everything of the runs; the ids of trials are drawn anew."""
    found = []
    for record in records:
        content = asdict(record)
        if record.tags.get("kind") == "trial":
            del content["id"], content["place"]
        found.append(content)
    return sorted(found, key=str)


def lose(workspace: Path, how: str) -> None:
    database = workspace / "mlflow.db"
    if how == "deleted":
        database.unlink()
    elif how == "emptied":
        database.write_bytes(b"")
    elif how == "damaged":
        raw = bytearray(database.read_bytes())
        raw[4096 : len(raw) - 4096] = os.urandom(len(raw) - 8192)
        database.write_bytes(raw)
    elif how == "no database":
        database.write_text("nonsense " * 1000)
    else:
        statements = {
            "no rows": [f"DELETE FROM {name}" for name in ("tags", "params", "latest_metrics", "metrics", "runs")],
            "no tags": ["DELETE FROM tags"],
            "no numbers": ["DELETE FROM latest_metrics"],
            "no table": ["DROP TABLE latest_metrics"],
        }
        with closing(sqlite3.connect(database)) as connection:
            for statement in statements[how]:
                connection.execute(statement)
            connection.commit()


DAMAGED = ("damaged", "no database", "no tags", "no numbers", "no table")  # the file is set aside
LOSSES = ("deleted", "emptied", "no rows", *DAMAGED)


@pytest.mark.parametrize("how", LOSSES)
def test_a_lost_database_is_rebuilt_run_for_run(
    original: Path, workspace: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lose(workspace, how)
    assert main(["runs", "--workspace", str(workspace)]) == 4
    assert f"dislobench repair --workspace {workspace}" in capsys.readouterr().err
    assert main(["repair", "--workspace", str(workspace)]) == 0
    said = capsys.readouterr().out
    assert "6 runs restored, 4 of them with their artifacts" in said
    assert "5 trials are in the database again" in said
    assert told(Tracker(workspace).history()) == told(Tracker(original).history())
    assert all(Tracker(workspace).believe(record).note == "" for record in Tracker(workspace).history())
    assert len(list(workspace.glob("mlflow.db.damaged-*"))) == (how in DAMAGED)
    again = repair(workspace)
    assert (again.done, again.left) == ([], []), "there is nothing more to do"
    # MLflow itself reads what was rebuilt, and goes on with it
    tracker = Tracker(workspace)
    raw = tracker._client().get_run(tracker.find("alone").id).data
    assert raw.tags["mlflow.note.content"] == "**alone**"
    assert set(raw.metrics) == {"errors/geometry_error", "cost/seconds_store"}
    assert through_client.read(tracker._client()) == tracker.history()
    with tracker.start_or_resume("w-split", "sweep L", {}, {"sweep_key": "k"}, known_by="sweep_key") as sweep:
        pass
    assert len(tracker.children(sweep.id)) == 2


def test_runs_of_before_the_loss_join_those_of_after(original: Path, workspace: Path) -> None:
    (workspace / "mlflow.db").unlink()
    new = finish(Tracker(workspace), "after")
    assert len(Tracker(workspace).lost()) == 3
    repair(workspace)
    names = {record.name for record in Tracker(workspace).history()}
    assert names == {"after"} | {record.name for record in Tracker(original).history()}
    assert Tracker(workspace).find("after").id == new


def test_what_cannot_be_restored_is_told(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = Tracker(workspace)
    alone, sweep = tracker.find("alone"), tracker.find("sweep L")
    for record in (alone, sweep):
        (tracker.artifacts_dir(record.id).parent / "run.json").write_text("{}")
    (tracker.artifacts_dir(sweep.id) / "sweep.json").unlink()
    (tracker.store_of(alone.id) / "manifest.json").unlink()
    (workspace / "mlflow.db").unlink()
    assert main(["repair", "--workspace", str(workspace), "--json"]) == 4
    err = capsys.readouterr().err
    assert f"{alone.id}.zarr: no manifest.json" in err
    assert f"the sweep or study {sweep.id[:8]} of 2 runs: nothing is left of it" in err
    assert {r.name for r in tracker.history()} >= {"point 0", "point 1", "failed", "study w-split 01234567"}
    assert tracker.find("point 0").parent is None


def test_the_numbers_come_from_the_seal(original: Path, workspace: Path) -> None:
    """A store that is damaged gives nothing; the record beside the artifacts stands in."""
    tracker = Tracker(workspace)
    alone = tracker.find("alone")
    (tracker.store_of(alone.id) / "zarr.json").write_text("{}")
    (workspace / "mlflow.db").unlink()
    found = repair(workspace)
    assert any("checksum" in sentence or "bytes" in sentence for sentence in found.left)
    assert tracker.find("alone").metrics == alone.metrics
    assert "damaged store" in tracker.believe(tracker.find("alone")).note


def test_stores_of_an_older_version_give_what_they_hold(tmp_path: Path) -> None:
    spec = load("w-split", "tiny")
    key, path = "ab" * 16, tmp_path / "fields"
    attributes = {
        "run": key,
        "case": "w-split",
        "spec": spec.to_toml(),
        "numbers": {"geometry_error": 0.5},
        "reference": {},
        "status": "converged",
        "limiting_term": "force",
        "versions": {"numpy": "2.0"},
        "created": "2026-01-31T12:00:00+00:00",
    }
    fields.write(path / f"{key}.zarr", {"simulation": DATA}, attributes)
    assert repair(tmp_path).left == []
    (record,) = Tracker(tmp_path).history()
    assert (record.id, record.experiment, record.status) == (key, "w-split", "FINISHED")
    assert record.name == "E+F+V1+V2 L=6 N=24 w-split"
    assert record.parameters["L"] == "6.0"
    assert record.start.startswith("2026-01-31T12:00")
    assert Tracker(tmp_path).believe(record).note == ""
    assert repair(tmp_path).done == []


def test_the_sweep_of_an_older_version_is_found_by_its_file(workspace: Path) -> None:
    tracker = Tracker(workspace)
    sweep = tracker.find("sweep L")
    (tracker.artifacts_dir(sweep.id).parent / "run.json").unlink()
    (workspace / "mlflow.db").unlink()
    repair(workspace)
    assert {record.name for record in tracker.children(sweep.id)} == {"point 0", "point 1"}
    assert tracker.find(sweep.id).tags["kind"] == "sweep"


def test_a_study_without_a_record_gets_its_artifacts_back(workspace: Path) -> None:
    tracker = Tracker(workspace)
    study = tracker.find("study w-split 01234567")
    folder = tracker.artifacts_dir(study.id)
    folder.mkdir(parents=True)
    for place in (folder, workspace / "studies" / "w-split-01234567"):
        (place / "report.md").write_text("the same report")
    (folder.parent / "run.json").unlink()
    (workspace / "mlflow.db").unlink()
    repair(workspace)
    again = tracker.find("study w-split 01234567")
    assert (again.id, again.tags["study"]) == (study.id, study.tags["study"])
    assert len(tracker.children(study.id)) == 5


def test_a_journal_damaged_in_the_middle_is_cut_and_its_trials_go(workspace: Path) -> None:
    journal = workspace / "studies" / "w-split-01234567" / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if b'"seal"' in line and n > len(lines) / 2)
    lines[place] = lines[place][:20] + b"\n"
    journal.write_bytes(b"".join(lines))
    found = repair(workspace)
    assert any(f"line {place + 1} was damaged: it and all that followed were dropped" in s for s in found.done)
    assert journal.with_name("journal.log.damaged-1").read_bytes() == b"".join(lines)
    tracker = Tracker(workspace)
    trials = tracker.children(tracker.find("study w-split 01234567").id)
    assert 0 < len(trials) < 5, "MLflow forgets the trials that the journal has lost"
    assert repair(workspace).done == []
    judge(journal, 2)
    repair(workspace)
    assert len(tracker.children(tracker.find("study w-split 01234567").id)) == len(trials) + 2


def test_entries_that_contradict_each_other_are_a_fault_with_the_file(tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    judge(journal, 2)
    journal.write_text(journal.read_text().replace('"op_code":0', '"op_code":77', 1))
    with pytest.raises(seal.StoreError, match=r"journal\.log: its entries contradict each other.*begin the study anew"):
        judge(journal, 1)


def test_repair_stops_at_nothing_to_repair_and_at_strangers(
    tmp_path: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["repair", "--workspace", str(tmp_path / "nowhere")]) == 4
    assert "no such workspace" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()
    assert main(["repair", "--workspace", str(workspace)]) == 0
    assert "nothing to repair" in capsys.readouterr().out


def test_a_run_that_lives_is_not_touched(workspace: Path) -> None:
    code = (
        "import sys, time; from store.runs import Tracker\n"
        "with Tracker(sys.argv[1]).start('w-split', 'alive', {}, {}) as run:\n"
        "    print(run.id, flush=True); time.sleep(100)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(workspace)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        run = process.stdout.readline().strip()
        assert repair(workspace).done == []
        assert Tracker(workspace).find(run).status == "RUNNING"
        shutil.move(workspace / "mlflow.db", workspace / "elsewhere")
        with pytest.raises(BadStore, match="still work on 1 runs"):
            repair(workspace)
        shutil.move(workspace / "elsewhere", workspace / "mlflow.db")
    finally:
        process.kill()
        process.communicate()
    assert "closed as KILLED" in repair(workspace).done[0]
    assert Tracker(workspace).find(run).status == "KILLED"
    (workspace / "mlflow.db").unlink()
    with pytest.raises(WorkspaceError, match="repair"):
        Tracker(workspace).find(run)
    repair(workspace)
    assert Tracker(workspace).find(run).status == "KILLED"
