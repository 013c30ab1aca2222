"""Numbers of the database against the sealed files of their runs."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from store import fields
from store.runs import FinishedRun, Tracker

NUMBERS = {"geometry_error": 0.1 + 0.2, "eps_E": 0.25, "bound": float("inf")}
OUTCOME = {"outcome": "converged", "limiting_term": "force"}


def finished(tracker: Tracker, name: str, old: bool = False) -> str:
    """A run with a store, made as `run_case` makes it; `old` as an older version did."""
    with tracker.start("w-screw", name, {"size": 8}, {"point": "p1"}) as run:
        attributes: dict[str, Any] = {"run": run.id, "status": "converged", "limiting_term": "force"}
        finite = {key: value for key, value in NUMBERS.items() if key != "bound"}
        attributes |= {"numbers": finite, "reference": {"a0": 3.1}}
        if not old:
            attributes["record"] = run.record({**NUMBERS, "a0": 3.1, "seconds_fit": 2.0}, OUTCOME)
        data = xr.Dataset({"species": ("atom", np.arange(3))})
        fields.write(tracker.store_of(run.id), {"simulation": data}, attributes)
        run.metrics({**NUMBERS, "a0": 3.1, "seconds_fit": 2.0, "seconds_store": 0.5})
        run.tags(OUTCOME)
    return run.id


def edit(tracker: Tracker, statement: str) -> None:
    with closing(sqlite3.connect(tracker.database)) as connection:
        assert connection.execute(statement).rowcount > 0
        connection.commit()


EDITS = {
    "a number": (
        "UPDATE latest_metrics SET value = 1e-9 WHERE key = 'geometry_error'",
        "numbers differ",
        "geometry_error",
    ),
    "a number more": (
        "INSERT INTO latest_metrics SELECT 'extra', 1, 0, 0, 0, run_uuid FROM runs",
        "numbers differ",
        "extra",
    ),
    "a number less": ("DELETE FROM latest_metrics WHERE key = 'eps_E'", "numbers differ", "eps_E"),
    "cost": ("UPDATE latest_metrics SET value = 1 WHERE key = 'seconds_fit'", "numbers differ", "seconds_fit"),
    "a setting": ("UPDATE params SET value = '9' WHERE key = 'size'", "entries differ", "size"),
    "the outcome": ("UPDATE tags SET value = 'diverged' WHERE key = 'outcome'", "entries differ", "outcome"),
    "not finite": ("DELETE FROM tags WHERE key = 'nonfinite.bound'", "entries differ", "nonfinite.bound"),
}


@pytest.mark.parametrize("change", EDITS)
def test_an_edited_database_is_told_and_not_believed(tracker: Tracker, change: str) -> None:
    run = finished(tracker, "a")
    before = tracker.believe(tracker.find(run))
    assert (before.sealed, before.note) == (True, "")
    assert before.record == tracker.find(run)
    statement, told, name = EDITS[change]
    edit(tracker, statement)
    found = tracker.believe(tracker.find(run))
    assert found.note == f"{told} from the sealed store: {name}"
    assert not found.sealed
    assert found.record == before.record, "what the seal says is shown"


def test_names_and_remarks_of_the_ui_are_free(tracker: Tracker) -> None:
    run = finished(tracker, "a")
    client = tracker._client()
    client.set_tag(run, "mlflow.note.content", "a good one")
    client.set_tag(run, "my tag", "x")
    client.update_run(run, name="renamed")
    found = tracker.believe(tracker.find(run))
    assert (found.sealed, found.note) == (True, "")
    assert (found.record.name, found.record.tags["my tag"]) == ("renamed", "x")


def test_swapped_stores_are_told(tracker: Tracker, tmp_path: Path) -> None:
    one, two = (tracker.store_of(finished(tracker, name)) for name in "ab")
    os.rename(one, tmp_path / "aside")
    os.rename(two, one)
    os.rename(tmp_path / "aside", two)
    for record in tracker.history():
        found = tracker.believe(record)
        assert "under another name" in found.note
        assert not found.sealed


def test_swapped_stores_of_the_old_format_are_told_by_their_run(tracker: Tracker, tmp_path: Path) -> None:
    from test_fields import older

    one, two = (tracker.store_of(finished(tracker, name, old=True)) for name in "ab")
    older(one)
    older(two)
    assert all(tracker.believe(record).sealed for record in tracker.history())
    edit(tracker, "UPDATE latest_metrics SET value = 1e-9 WHERE key = 'geometry_error'")
    for record in tracker.history():
        found = tracker.believe(record)
        assert found.note == "numbers differ from the sealed store: geometry_error"
        assert found.record.metrics["geometry_error"] == NUMBERS["geometry_error"]
    os.rename(one, tmp_path / "aside")
    os.rename(two, one)
    os.rename(tmp_path / "aside", two)
    for record in tracker.history():
        assert "the store of run" in tracker.believe(record).note


def test_without_its_store_a_run_has_the_record_beside_its_artifacts(tracker: Tracker) -> None:
    run = finished(tracker, "a")
    shutil.rmtree(tracker.store_of(run))
    edit(tracker, "UPDATE latest_metrics SET value = 1e-9 WHERE key = 'eps_E'")
    found = tracker.believe(tracker.find(run))
    assert found.note == "its store is missing; numbers differ from the sealed run.json: eps_E"
    assert found.record.metrics["eps_E"] == 0.25
    assert not found.sealed
    (tracker.artifacts_dir(run).parent / "run.json").unlink()
    found = tracker.believe(tracker.find(run))
    assert found.note == "its store is missing; nothing vouches for its numbers"
    assert found.record.metrics == {}


def test_a_record_of_another_run_vouches_for_nothing(tracker: Tracker) -> None:
    one, two = finished(tracker, "a"), finished(tracker, "b")
    shutil.rmtree(tracker.store_of(one))
    shutil.copy(tracker.artifacts_dir(two).parent / "run.json", tracker.artifacts_dir(one).parent / "run.json")
    found = tracker.believe(tracker.find(one))
    assert "that of another run" in found.note
    assert found.record.metrics == {}


def test_trials_and_failures_need_no_store(tracker: Tracker) -> None:
    tracker.log_batch_of_runs("w-screw", None, [FinishedRun("t", metrics={"x": 1.0}, tags={"kind": "trial"})])
    tracker.log_batch_of_runs("w-screw", None, [FinishedRun("f", status="FAILED")])
    assert [tracker.believe(record).note for record in tracker.history()] == ["", ""]


# --- leftovers ----------------------------------------------------------------------------------------------------


def test_leftovers_of_killed_writes_are_cleared_and_nothing_else(tracker: Tracker) -> None:
    run = finished(tracker, "a")
    store = tracker.store_of(run)
    before = fields.read(store)
    os.rename(store, store.with_name(f".{store.name}.old"))  # killed between the two renames
    half = [tracker.fields / ".0123.zarr.new", tracker.workspace / "cache" / ".rows-ab.zarr.new"]
    for folder in half:
        (folder / "simulation").mkdir(parents=True)
    (tracker.workspace / "mlflow.db.new").write_text("half")
    record = tracker.artifacts_dir(run).parent / ".run.json.77.new"
    record.write_text("{")
    told = tracker.tidy()
    assert len(told) == 5, told
    assert any("brought back" in sentence for sentence in told)
    assert fields.read(store).identical(before)
    assert not any(path.exists() for path in [*half, record, tracker.workspace / "mlflow.db.new"])
    assert tracker.tidy() == []


WRITING = """
import sys, time
from store import fields
import numpy as np, xarray as xr
original = fields.seal
def slow(*arguments):
    print("half", flush=True)
    time.sleep(4)
    return original(*arguments)
fields.seal = slow
fields.write(sys.argv[1], {"simulation": xr.Dataset({"species": ("atom", np.arange(3))})})
"""


def test_a_store_that_is_being_written_is_no_leftover(tracker: Tracker, spawn: Callable[..., Any]) -> None:
    path = tracker.store_of("0" * 32)
    process = spawn(WRITING, path)
    assert process.stdout.readline() == "half\n"
    tracker.tidy()  # waits for the writer
    _, noise = process.communicate()
    assert process.returncode == 0, noise
    fields.verify(path)
