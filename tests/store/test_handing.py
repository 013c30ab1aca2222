"""Runs that are handed over: the same entries as of a run that writes the database, and nothing lost at any moment."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from store import fields, handing
from store.faults import FailedOutcome
from store.recording import Run
from store.runs import Tracker
from store.seal import StoreError, verify

SETTINGS = {"size": 8, "weights": {"energy": 1e-3}}
NUMBERS = {"geometry_error": 1 / 3, "bound": float("inf")}


def fill(run: Run, store: Path) -> None:
    """What a case does with its run."""
    run.parameters({"L_D": 3.5})
    run.dataset("w-split training", "0123456789abcdef", "training", "dislobench data", {"configurations": 3})
    data = {"simulation": xr.Dataset({"species": ("atom", np.arange(3))})}
    fields.write(store, data, {"run": run.id, "record": run.record(NUMBERS, {"outcome": "converged"})})
    run.metrics(NUMBERS)
    run.tags({"outcome": "converged"})
    run.text("spec.toml", "x")


def handed(workspace: Path, parent: str | None = None, collector: dict[str, str] | None = None) -> str:
    workspace.mkdir(exist_ok=True)
    with handing.begin(workspace, "w-split", "a run", SETTINGS, {"point": "k"}, parent, collector=collector) as run:
        fill(run, run.store)
    return run.id


def datasets(tracker: Tracker, run_id: str) -> list[tuple[str, str, str]]:
    inputs = tracker.client().get_run(run_id).inputs.dataset_inputs
    return [(each.dataset.name, each.dataset.digest, each.tags[0].value) for each in inputs]


def test_a_run_that_is_handed_over_is_like_any_other(tracker: Tracker) -> None:
    with tracker.start("w-split", "a run", SETTINGS, {"point": "k"}) as run:
        fill(run, tracker.store_of(run.id))
    before = tracker.find(run.id)
    key = handed(tracker.workspace)
    assert [record["id"] for record in handing.waiting(tracker.workspace)] == [key]
    assert not tracker.store_of(key).exists()
    assert handing.take_over(tracker, key)
    after = tracker.find(key)
    for what in ("name", "experiment", "status", "parameters", "metrics", "tags", "parent"):
        assert getattr(after, what) == getattr(before, what), what
    verify(tracker.store_of(key))
    assert tracker.believe(after).sealed
    assert (tracker.artifacts_dir(key) / "spec.toml").read_text() == "x"
    assert datasets(tracker, key) == datasets(tracker, run.id) != []
    assert list(handing.waiting(tracker.workspace)) == []
    assert not handing.take_over(tracker, key), "once is enough"
    assert tracker.tidy() == []


def test_no_database_is_needed_before_and_none_is_made(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from store import handing\n"
        "with handing.begin(Path(sys.argv[1]), 'w-split', 'x', {}, {}): pass\n"
        "assert 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True)
    assert not (tmp_path / "mlflow.db").exists()
    assert len(Tracker(tmp_path).tidy()) == 1
    assert [record.name for record in Tracker(tmp_path).history()] == ["x"]


def test_a_failure_is_handed_over_too(tracker: Tracker) -> None:
    with (
        pytest.raises(FailedOutcome, match="annihilated"),
        handing.begin(tracker.workspace, "w-split", "x", {}, {"point": "k"}) as run,
    ):
        raise FailedOutcome("annihilated")
    assert handing.take_over(tracker, run.id)
    found = tracker.find(run.id)
    assert (found.status, found.tags["outcome"], found.tags["error"]) == ("FAILED", "failedoutcome", "annihilated")


def test_a_run_waits_for_the_one_that_collects_it(tracker: Tracker) -> None:
    key = handed(tracker.workspace, collector={"sweep_key": "s"})
    assert tracker.tidy() == []
    assert not handing.take_over(tracker, key, alone=True)
    with tracker.start("w-split", "sweep L", {}, {"kind": "sweep", "sweep_key": "s"}) as sweep:
        assert len(handing.take_over_all(tracker)) == 1
    assert [child.id for child in tracker.children(sweep.id)] == [key]


def test_a_run_without_its_parent_is_taken_over_only_when_asked(tracker: Tracker) -> None:
    key = handed(tracker.workspace, parent="0" * 32)
    assert tracker.tidy() == []
    assert handing.take_over(tracker, key, alone=True)
    assert tracker.find(key).parent is None


@pytest.mark.parametrize("stop", ["_move", "Line", "remove"])
def test_taking_over_may_be_stopped_anywhere(stop: str, tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    key = handed(tracker.workspace)

    def stops(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(handing, stop, stops)
        with pytest.raises(KeyboardInterrupt):
            handing.take_over(tracker, key)
    assert handing.take_over(Tracker(tracker.workspace), key)
    with closing(sqlite3.connect(tracker.database)) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    assert tracker.believe(tracker.find(key)).sealed
    assert len(datasets(tracker, key)) == 1


def test_what_a_dead_worker_left_is_removed_and_a_living_one_is_left_alone(tmp_path: Path) -> None:
    script = (
        "import os, sys, time; from pathlib import Path; from store import handing\n"
        "run = handing.begin(Path(sys.argv[1]), 'w-split', 'x', {}, {})\n"
        "print(run.id, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        key = worker.stdout.readline().strip()
        tracker = Tracker(tmp_path)
        assert tracker.tidy() == []
        assert (tmp_path / handing.FOLDER / key).is_dir()
        os.kill(worker.pid, signal.SIGKILL)
    (told,) = tracker.tidy()
    assert "its worker died" in told
    assert not (tmp_path / handing.FOLDER / key).exists()
    assert tracker.history() == []


def test_a_mark_that_was_changed_is_told_and_not_believed(tracker: Tracker) -> None:
    key = handed(tracker.workspace)
    mark = tracker.workspace / handing.FOLDER / key / handing.MARK
    mark.write_text(mark.read_text().replace('"size": "8"', '"size": "9"'))
    (told,) = tracker.tidy()
    assert "checksum mismatch" in told
    assert "give the command again" in told
    with pytest.raises(StoreError, match="checksum mismatch"):
        handing.take_over(tracker, key)
    assert list(handing.waiting(tracker.workspace)) == []
