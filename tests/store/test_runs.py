import json
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store import listing, seal, through_client
from store.faults import FailedOutcome
from store.runs import FinishedRun, RunNotFound, Tracker, WorkspaceError

CREATE = """
import sys
from store.runs import Tracker
tracker = Tracker(sys.argv[1])
tracker.prepare()
with tracker.start("w-screw", sys.argv[2], {"size": 8}, {}) as run:
    run.metrics({"eps_E": 0.5})
"""


def test_four_processes_may_start_on_a_new_workspace(tmp_path: Path, spawn: Callable[..., Any]) -> None:
    """No race, no noise (git is out of reach), and nothing outside the workspace."""
    workspace = tmp_path / "deep" / "my runs é"
    started = [spawn(CREATE, workspace, f"run {n}", PATH="") for n in range(4)]
    for process in started:
        out, noise = process.communicate()
        assert process.returncode == 0, noise
        assert (out, noise) == ("", "")
    records = Tracker(workspace).history()
    assert sorted(r.name for r in records) == [f"run {n}" for n in range(4)]
    assert {(r.experiment, r.status, r.metrics["eps_E"]) for r in records} == {("w-screw", "FINISHED", 0.5)}
    assert {p.name for p in tmp_path.iterdir()} == {"deep"}
    assert {p.name for p in workspace.iterdir()} == {"mlflow.db", "artifacts", ".lock", ".live"}
    assert not list((workspace / ".live").iterdir())


def test_importing_the_store_imports_nothing_slow(spawn: Callable[..., Any]) -> None:
    code = (
        "import sys, store.runs, store.entries, store.schema, store.provenance\n"
        "print(sorted({'mlflow', 'xarray', 'zarr', 'sqlalchemy'} & sys.modules.keys()))"
    )
    assert spawn(code).communicate() == ("[]\n", "")


def test_reading_creates_no_workspace(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path / "runs")
    assert tracker.history() == []
    for look in (tracker.find, tracker.artifacts_dir):
        with pytest.raises(RunNotFound):
            look("w-screw")
    assert not (tmp_path / "runs").exists()


def test_a_half_built_database_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does building one touch the logging of the application, or report to anybody."""
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    tracker = Tracker(tmp_path / "runs")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            tracker.prepare()
    assert not tracker.database.exists()
    tracker.prepare()
    tracker.start("w-screw", "a", {}, {})
    assert [r.name for r in Tracker(tmp_path / "runs").history()] == ["a"]
    assert (logging.getLogger().handlers, logging.getLogger().level) == (handlers, level)
    assert logging.getLogger("mlflow").level == logging.WARNING
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_everything_logged_is_read_back(tracker: Tracker) -> None:
    before = datetime.now(UTC)
    with tracker.start("w-screw", "L=8", {"training": {"size": 8}}, {"preset": "quick"}) as run:
        run.metrics({"eps_E": np.float64(0.25), "bound": float("inf"), "mean": float("nan")})
        run.metrics({"eps_E": 0.125}, step=1)
        run.parameters({"weights": {"energy": 1e-3}, "training.size": 8})
        run.tags({"outcome": "converged"})
    record = tracker.find(run.id)
    assert (record.id, record.name, record.experiment) == (run.id, "L=8", "w-screw")
    assert (record.status, record.parent) == ("FINISHED", None)
    assert record.parameters == {"training.size": "8", "weights.energy": "0.001"}
    assert record.metrics == {"eps_E": 0.125}
    assert record.tags == {
        "preset": "quick",
        "outcome": "converged",
        "nonfinite.bound": "inf",
        "nonfinite.mean": "nan",
    }
    start = datetime.fromisoformat(record.start)
    assert abs((start - before).total_seconds()) < 60
    assert start.utcoffset() is not None
    # The other reader of this database, the UI, sees each step of a metric.
    steps = tracker._client().get_metric_history(run.id, "eps_E")
    assert [(m.step, m.value) for m in steps] == [(0, 0.25), (1, 0.125)]


def test_more_entries_than_one_batch_holds(tracker: Tracker) -> None:
    parameters = {f"p{n}": n for n in range(230)}
    with tracker.start("w-screw", "many", parameters, {}) as run:
        run.metrics({f"m{n}": n for n in range(1700)})
        run.tags({f"t{n}": n for n in range(130)})
    record = tracker.find(run.id)
    assert record.parameters == {name: str(n) for name, n in parameters.items()}
    assert len(record.metrics) == 1700
    assert record.metrics["m1699"] == 1699.0
    assert len(record.tags) == 130


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (ValueError("atoms coincide"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(3), "KILLED"),
        (RuntimeError("x" * 9000), "FAILED"),
    ],
)
def test_a_failure_is_recorded_then_raised(tracker: Tracker, fault: BaseException, status: str) -> None:
    with (
        pytest.raises(type(fault)) as caught,
        tracker.start("w-screw", "bad", {}, {"status": "running"}) as run,
    ):
        raise fault
    assert caught.value is fault
    record = tracker.find(run.id)
    assert record.status == status
    assert record.tags["status"] == type(fault).__name__
    assert record.tags["error"] == str(fault)[:2000]


def test_a_failure_that_cannot_be_recorded_is_still_the_one_raised(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: object, **__: object) -> None:
        raise OSError("database is locked")

    def fail() -> None:
        with tracker.start("w-screw", "bad", {}, {}):
            monkeypatch.setattr(tracker._client(), "log_batch", locked)
            raise ValueError("the first")

    with pytest.raises(ValueError, match="the first") as caught:
        fail()
    assert any("database is locked" in note for note in caught.value.__notes__)


def test_a_parameter_keeps_its_value(tracker: Tracker) -> None:
    with tracker.start("w-screw", "a", {"size": 8}, {}) as run:
        run.parameters({"size": 8})
        with pytest.raises(ValueError, match=r"'size' of run .* is '8', it cannot become '9'"):
            run.parameters({"other": 1, "size": 9})
        with pytest.raises(ValueError, match="metric name"):
            run.metrics({"good": 1.0, "bad^2": 1.0})
    record = tracker.find(run.id)
    assert record.parameters == {"size": "8"}
    assert record.metrics == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("w/screw", "a", {}, {}), "experiment 'w/screw'"),
        (("..", "a", {}, {}), "experiment"),
        (("w", "", {}, {}), "run name ''"),
        (("w", "a", {"x": "y" * 6001}, {}), "'x' has 6001"),
        (("w", "a", {}, {"mlflow.user": "x"}), "belong to MLflow"),
    ],
)
def test_a_run_with_bad_names_never_starts(tracker: Tracker, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tracker.start(*arguments)
    assert tracker.history() == []


def test_artifacts_are_files_in_the_workspace(tracker: Tracker, tmp_path: Path) -> None:
    (tmp_path / "figure.svg").write_text("<svg/>")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.yace").write_text("elements")
    with tracker.start("w-screw", "a", {}, {}) as run:
        run.text("spec.toml", "größe = 8\n")
        run.json("matching/summary.json", {"eps": np.array([1.0, np.inf])})
        run.artifact(tmp_path / "figure.svg", "figures")
        run.artifact(tmp_path / "set")
        for name in ("../outside", "/outside", ""):
            with pytest.raises(ValueError, match="leads out of the run"):
                run.text(name, "x")
        with pytest.raises(FileNotFoundError):
            run.artifact(tmp_path / "missing")
    folder = tracker.artifacts_dir(run.id)
    assert folder.is_relative_to(tracker.workspace / "artifacts" / "w-screw")
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == {"spec.toml", "matching/summary.json", "figures/figure.svg", "set/a.yace"}
    assert (folder / "spec.toml").read_text("utf-8") == "größe = 8\n"
    assert json.loads((folder / "matching/summary.json").read_text()) == {"eps": [1.0, "inf"]}


def test_a_moved_workspace_still_finds_its_artifacts(tracker: Tracker, tmp_path: Path) -> None:
    with tracker.start("w-screw", "a", {}, {}) as run:
        run.text("spec.toml", "x")
    shutil.move(tracker.workspace, tmp_path / "elsewhere")
    moved = Tracker(tmp_path / "elsewhere")
    assert (moved.artifacts_dir(run.id) / "spec.toml").read_text() == "x"


def test_children_hang_below_their_parent(tracker: Tracker) -> None:
    with tracker.start("w-screw", "study", {}, {}) as study:
        ids = tracker.log_batch_of_runs(
            "w-screw",
            study.id,
            [FinishedRun(f"trial {n}", {"w": {"E": n}}, {"err": n / 8, "b": np.inf}, {"t": n}) for n in range(3)]
            + [FinishedRun("failed", status="FAILED", start=1e9, end=1e9 + 5)],
        )
        with tracker.start("w-screw", "best", {}, {}, parent=study.id) as best:
            pass
    by_id = {record.id: record for record in tracker.history("w-screw")}
    assert {by_id[i].parent for i in [*ids, best.id]} == {study.id}
    second = by_id[ids[1]]
    assert (second.name, second.status) == ("trial 1", "FINISHED")
    assert (second.parameters, second.metrics) == ({"w.E": "1"}, {"err": 0.125})
    assert second.tags == {"t": "1", "nonfinite.b": "inf"}
    assert by_id[ids[3]].status == "FAILED"
    assert by_id[ids[3]].start == "2001-09-09T01:46:40.000+00:00"


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (FinishedRun("b", {"x": object()}), TypeError),
        (FinishedRun("b", metrics={"x^2": 1.0}), ValueError),
        (FinishedRun("b", status="RUNNING"), ValueError),
    ],
)
def test_a_batch_is_checked_before_any_of_it_is_logged(
    tracker: Tracker, bad: FinishedRun, error: type[Exception]
) -> None:
    with pytest.raises(error):
        tracker.log_batch_of_runs("w-screw", None, [FinishedRun("a"), bad])
    assert tracker.history() == []


def test_a_parent_must_exist_in_the_same_experiment(tracker: Tracker) -> None:
    with pytest.raises(RunNotFound):
        tracker.start("w-screw", "a", {}, {}, parent="f" * 32)
    with tracker.start("si-loop", "study", {}, {}) as other:
        pass
    with pytest.raises(ValueError, match="is a run of 'si-loop'"):
        tracker.log_batch_of_runs("w-screw", other.id, [FinishedRun("a")])
    assert [r.name for r in tracker.history()] == ["study"]


def test_find_takes_an_id_a_name_or_a_prefix(tracker: Tracker) -> None:
    tracker.log_batch_of_runs(
        "w-screw",
        None,
        [FinishedRun("ladder", start=2e9), FinishedRun("ladder", start=1e9), FinishedRun("it's")],
    )
    other = tracker.log_batch_of_runs("si-loop", None, [FinishedRun("loop", start=3e9)])[0]
    assert tracker.find(other).name == "loop"
    assert tracker.find(other[:9]).id == other
    assert tracker.find("ladder").start.startswith("2033")
    assert tracker.find("it's").name == "it's"
    assert tracker.find("loop").experiment == "si-loop"
    # A run named like the beginning of another's id is found by its name.
    shadow = tracker.log_batch_of_runs("w-screw", None, [FinishedRun(other[:6])])[0]
    assert tracker.find(other[:6]).id == shadow
    with pytest.raises(RunNotFound, match="did you mean ladder") as caught:
        tracker.find("lader")
    assert caught.value.close == ("ladder",)
    assert f"`dislobench runs --workspace {tracker.workspace}` lists what is there" in str(caught.value)
    for reference in (other[:3], "f" * 32, "", "a'b\"c"):
        with pytest.raises(RunNotFound):
            tracker.find(reference)


def test_in_a_workspace_without_runs_another_folder_was_meant(tracker: Tracker) -> None:
    with pytest.raises(RunNotFound, match="it holds no runs: name another folder with --workspace"):
        tracker.find("ladder")


def test_a_prefix_of_several_ids_is_refused(tracker: Tracker) -> None:
    ids = ["beef" + "0" * 28, "beef" + "1" * 28]
    tracker.log_batch_of_runs("w-screw", None, [FinishedRun(key[4], id=key) for key in ids])
    with pytest.raises(RunNotFound, match="not unique") as caught:
        tracker.find("beef")
    assert set(caught.value.close) == set(ids)
    assert tracker.find("beef0").id == ids[0]


def test_history_is_newest_first(tracker: Tracker) -> None:
    tracker.log_batch_of_runs("w-screw", None, [FinishedRun(f"{n}", start=1e9 + n) for n in (3, 0, 4, 1, 2)])
    tracker.log_batch_of_runs("si-loop", None, [FinishedRun("s", start=2e9)])
    assert [r.name for r in tracker.history("w-screw")] == ["4", "3", "2", "1", "0"]
    assert [r.name for r in tracker.history()] == ["s", "4", "3", "2", "1", "0"]
    assert tracker.history("never-run") == []


def test_a_file_that_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be read as one" * 9)
    with pytest.raises(WorkspaceError, match=r"mlflow\.db: file is not a database; `dislobench repair"):
        Tracker(tmp_path).history()
    with pytest.raises(WorkspaceError, match=r"mlflow\.db: file is not a database; `dislobench repair"):
        Tracker(tmp_path).start("w", "a", {}, {})


@pytest.mark.parametrize("name", ["100%", "what?", "a#b"])
def test_a_path_mlflow_cannot_address_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(WorkspaceError, match="database address"):
        Tracker(tmp_path / name).prepare()
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_another_mlflow_is_refused_with_the_cure(tracker: Tracker) -> None:

    with closing(sqlite3.connect(tracker.database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'cc1f77228345'")
        connection.commit()
    with pytest.raises(WorkspaceError, match="mlflow db upgrade sqlite:"):
        tracker.start("w", "a", {}, {})
    assert tracker.history() == [], "its tables are the known ones, so that it can be read"


def test_an_experiment_made_by_a_faster_process_is_used(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tracker.start("w-screw", "a", {}, {})
    client = tracker._client()
    look, answers = client.get_experiment_by_name, [None]
    monkeypatch.setattr(client, "get_experiment_by_name", lambda name: answers.pop() if answers else look(name))
    second = tracker.start("w-screw", "b", {}, {})
    assert not answers
    assert {r.id for r in tracker.history("w-screw")} == {first.id, second.id}


def test_a_deleted_experiment_is_refused_with_the_cure(tracker: Tracker) -> None:
    with tracker.start("w-screw", "a", {}, {}):
        pass
    client = tracker._client()
    client.delete_experiment(client.get_experiment_by_name("w-screw").experiment_id)
    with pytest.raises(WorkspaceError, match="experiments restore -x"):
        tracker.start("w-screw", "b", {}, {})


@pytest.mark.filterwarnings("ignore")  # MLflow's command line imports half of MLflow
def test_the_ui_command_is_one_mlflow_takes(tracker: Tracker) -> None:
    from mlflow.cli import server

    command = tracker.ui_command(5001, "0.0.0.0")
    assert command[1:4] == ["-m", "mlflow", "server"]
    options = server.make_context("server", command[4:], resilient_parsing=False).params
    assert options["backend_store_uri"] == tracker.home.address
    assert options["artifacts_destination"] == tracker.artifacts.as_uri()
    assert (options["host"], options["port"], options["serve_artifacts"]) == ("0.0.0.0", 5001, True)


def test_runs_of_a_batch_look_like_runs_of_the_client(tmp_path: Path) -> None:
    """The tables are written directly: what MLflow reads back must not tell the difference."""
    tracker = Tracker(tmp_path)
    with tracker.start("w-screw", "one", {"a": 1.5}, {"kind": "trial"}) as run:
        run.metrics({"x": 0.25, "y": float("inf")})
        parent = run.id
    (child,) = tracker.log_batch_of_runs(
        "w-screw", parent, [FinishedRun("one", {"a": 1.5}, {"x": 0.25, "y": float("inf")}, {"kind": "trial"})]
    )
    first, second = tracker.find(parent), tracker.find(child)
    for name in ("name", "experiment", "status", "parameters", "metrics", "tags"):
        assert getattr(first, name) == getattr(second, name), name
    assert second.parent == parent
    assert [record.id for record in tracker.children(parent)] == [child]
    raw, batch = (tracker._client().get_run(key) for key in (parent, child))
    assert batch.info.artifact_uri == raw.info.artifact_uri.replace(parent, child)
    assert set(batch.data.tags) - {"mlflow.parentRunId"} <= set(raw.data.tags)
    (metric,) = tracker._client().get_metric_history(child, "x")
    assert metric.value == 0.25
    resumed = tracker.resume(child)
    resumed.metrics({"z": 1.0})
    assert tracker.find(child).metrics == {"x": 0.25, "z": 1.0}


# --- read without MLflow ------------------------------------------------------------------------------------------


def fill(tracker: Tracker) -> str:
    """Runs of every kind; returns the id of a parent."""
    with tracker.start("w-screw", "one", {"a": 1.5, "n": None}, {"kind": "study"}) as run:
        run.metrics({"x": 0.1 + 0.2, "y": float("inf"), "huge": 1e300})
        run.metrics({"x": 0.25}, step=1)
    children = [
        FinishedRun(f"trial {n}", {"a": n}, {"x": n / 7}, {"kind": "trial"}, start=1e9 + n // 2) for n in range(5)
    ]
    tracker.log_batch_of_runs("w-screw", run.id, children)
    tracker.log_batch_of_runs("si-loop", None, [FinishedRun("é 'quoted' \"twice\"", start=3e9), FinishedRun("bare")])
    with pytest.raises(ValueError, match="bad"), tracker.start("si-loop", "failed", {}, {}):
        raise ValueError("bad")
    tracker.start("si-loop", "still running", {}, {})
    deleted = tracker.log_batch_of_runs("w-screw", None, [FinishedRun("deleted")])
    tracker.discard(deleted)
    tracker.log_batch_of_runs("gone", None, [FinishedRun("of a deleted experiment")])
    client = tracker._client()
    client.delete_experiment(client.get_experiment_by_name("gone").experiment_id)
    return run.id


def test_the_direct_reader_agrees_with_mlflow_record_for_record(tracker: Tracker) -> None:
    parent = fill(tracker)
    everything = through_client.read(tracker._client())
    assert len(everything) == 10
    conditions: list[dict[str, Any]] = [
        {},
        *({"experiment": name} for name in ("w-screw", "si-loop", "gone", "never")),
        *({"name": name} for name in ("trial 3", "é 'quoted' \"twice\"", "x")),
        *({"run_id": record.id} for record in everything),
        *({"prefix": everything[0].id[:length]} for length in (1, 6, 32)),
        *({"status": status} for status in ("RUNNING", "FAILED")),
        {"parent": parent},
        {"tagged": ("kind", "trial")},
        {"experiment": "w-screw", "tagged": ("kind", "study"), "limit": 1},
        {"limit": 3},
        {"experiment": "w-screw", "status": "FINISHED", "limit": 2},
    ]
    for each in conditions:
        assert listing.read(tracker.database, **each) == through_client.read(tracker._client(), **each), each


def test_listing_imports_nothing_slow(tracker: Tracker, spawn: Callable[..., Any]) -> None:
    fill(tracker)
    code = (
        "import sys; from store.runs import Tracker\n"
        "tracker = Tracker(sys.argv[1]); records = tracker.history()\n"
        "tracker.find('one'), tracker.artifacts_dir(records[0].id), tracker.children(tracker.find('one').id)\n"
        "print(len(records), sorted({'mlflow', 'sqlalchemy', 'xarray', 'zarr'} & sys.modules.keys()))"
    )
    assert spawn(code, tracker.workspace).communicate() == ("10 []\n", "")


def test_other_tables_are_read_through_mlflow_and_told(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tracker)
    before = tracker.history()
    monkeypatch.setitem(listing.TABLES, "runs", {*listing.TABLES["runs"], "colour"})
    with pytest.raises(listing.UnknownTables, match="the table runs has no column colour"):
        listing.read(tracker.database)
    assert tracker.history() == before
    assert "reading through MLflow's client instead" in caplog.text


def test_a_journal_that_a_killed_process_left_is_played_back(tracker: Tracker, spawn: Callable[..., Any]) -> None:
    """SQLite cannot open such a database read-only; the reader does not write into the workspace either."""
    fill(tracker)
    before = tracker.history()
    code = (
        "import os, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA cache_size = 1'); c.execute('BEGIN')\n"
        "c.execute(\"UPDATE runs SET name = 'half'\")\n"
        "c.execute(\"UPDATE tags SET value = hex(zeroblob(3000)) WHERE key NOT LIKE 'mlflow%'\")\n"
        "os._exit(9)"
    )
    spawn(code, tracker.database).communicate()
    journal = tracker.database.with_name("mlflow.db-journal")
    assert journal.stat().st_size > 0
    files = {path: path.read_bytes() for path in (tracker.database, journal)}
    assert tracker.history() == before
    assert {path: path.read_bytes() for path in files} == files


def test_a_writer_does_not_stop_a_reader(tracker: Tracker) -> None:
    fill(tracker)
    before = tracker.history()
    with closing(sqlite3.connect(tracker.database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE runs SET name = 'not yet'")
        assert tracker.history() == before


READER = """
from store.runs import Tracker
tracker = Tracker(sys.argv[1])
print(len(tracker.history()), tracker.find("one").name, tracker.artifacts_dir(tracker.find("one").id).name)
try:
    tracker.start("w-screw", "new", {}, {})
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_read_only_workspace_is_read_and_not_written(
    tracker: Tracker, spawn: Callable[..., Any], read_only: Callable[[Path], None], powerless: str
) -> None:
    fill(tracker)
    read_only(tracker.workspace)
    before = {path: path.stat().st_mtime_ns for path in tracker.workspace.rglob("*")}
    told, noise = spawn(powerless + READER, tracker.workspace).communicate()
    lines = told.splitlines()
    assert lines, noise
    assert lines[0] == "10 one artifacts", noise
    assert lines[1].startswith("StoreError"), told + noise
    assert "can be read only by you: copy the workspace" in lines[1]
    assert {path: path.stat().st_mtime_ns for path in tracker.workspace.rglob("*")} == before


# --- strangers, lost databases, dead runs -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        "mlflow-artifacts:/../../victim",
        "mlflow-artifacts://tmp/victim",
        "mlflow-artifacts:/w/../../../victim",
        "mlflow-artifacts:/link/victim",
        "mlflow-artifacts:/",
        "file:///tmp/victim",
        "s3://bucket/victim",
    ],
)
def test_a_strangers_workspace_leads_nowhere(tracker: Tracker, place: str, tmp_path: Path) -> None:
    with tracker.start("w-screw", "sweep", {}, {"sweep_key": "k"}) as run:
        pass
    (tracker.artifacts / "link").symlink_to(tmp_path)
    with closing(sqlite3.connect(tracker.database)) as connection:
        connection.execute("UPDATE runs SET artifact_uri = ?", [place])
        connection.commit()
    for look in (tracker.artifacts_dir, tracker.resume):
        with pytest.raises(WorkspaceError, match="outside the workspace"):
            look(run.id)
    with pytest.raises(WorkspaceError, match="outside the workspace"):
        tracker.start_or_resume("w-screw", "sweep", {}, {"sweep_key": "k"}, known_by="sweep_key")
    assert not list(tmp_path.rglob("victim*"))


def test_an_id_that_is_a_path_is_refused(tracker: Tracker) -> None:
    with tracker.start("w-screw", "a", {}, {}):
        pass
    with closing(sqlite3.connect(tracker.database)) as connection:
        connection.execute("UPDATE runs SET run_uuid = '../../victim'")
        connection.commit()
    with pytest.raises(WorkspaceError, match=r"has the id '\.\./\.\./victim'"):
        tracker.history()


@pytest.mark.parametrize("loss", ["deleted", "emptied", "no rows"])
def test_a_lost_database_is_not_no_runs(tracker: Tracker, loss: str) -> None:
    with tracker.start("w-screw", "a", {}, {}) as run:
        pass
    assert tracker.lost() == []
    (tracker.fields / f"{run.id}.zarr").mkdir(parents=True)
    assert tracker.lost() == []
    if loss == "deleted":
        tracker.database.unlink()
    elif loss == "emptied":
        tracker.database.write_bytes(b"")
    else:
        with closing(sqlite3.connect(tracker.database)) as connection:
            connection.execute("DELETE FROM runs")
            connection.commit()
    assert tracker.lost() == [run.id]
    for look in (tracker.history, lambda: tracker.find(run.id), lambda: tracker.find("a")):
        with pytest.raises(WorkspaceError, match=r"stores of 1; `dislobench repair --workspace"):
            look()


def test_runs_deleted_in_the_ui_are_no_lost_database(tracker: Tracker) -> None:
    with tracker.start("w-screw", "a", {}, {}) as run:
        pass
    (tracker.fields / f"{run.id}.zarr").mkdir(parents=True)
    tracker.discard([run.id])
    assert tracker.history() == []


LIVING = """
import sys, time
from store.runs import Tracker
with Tracker(sys.argv[1]).start("w-screw", "alive", {}, {}) as run:
    print(run.id, flush=True)
    time.sleep(60)
"""


def test_dead_runs_are_closed_and_living_ones_are_not(tracker: Tracker, spawn: Callable[..., Any]) -> None:
    process = spawn(LIVING, tracker.workspace)
    run_id = process.stdout.readline().strip()
    here = tracker.start("w-screw", "of this process", {}, {})
    assert tracker.close_dead() == []
    process.kill()
    process.communicate()
    assert tracker.find(run_id).status == "RUNNING"
    (closed,) = tracker.close_dead()
    assert (closed.id, tracker.find(run_id).status) == (run_id, "KILLED")
    assert "died without closing" in tracker.find(run_id).tags["error"]
    assert tracker.close_dead() == []
    assert tracker.find(here.id).status == "RUNNING"
    assert [path.name for path in (tracker.workspace / ".live").iterdir()] == [here.id]
    # a run that is gone on with is alive again, for as long as the last of its processes
    first, second = tracker.resume(run_id), tracker.resume(run_id)
    with first:
        pass
    with closing(sqlite3.connect(tracker.database)) as connection:
        connection.execute("UPDATE runs SET status = 'RUNNING'")
        connection.commit()
    assert tracker.close_dead() == []
    with second:
        pass
    assert tracker.find(run_id).status == "FINISHED"


def test_a_run_keeps_its_record_beside_its_artifacts(tracker: Tracker) -> None:
    with tracker.start("w-screw", "a", {"x": 1}, {"kind": "sweep"}) as run:
        told = run.record({"y": 2.0, "z": float("nan")}, {"outcome": "converged"})
        run.metrics({"y": 2.0, "z": float("nan")})
        run.tags({"outcome": "converged"})
    record = tracker.find(run.id)
    kept = seal.read_json(tracker.artifacts_dir(run.id).parent / "run.json", "")
    assert kept == {**told, "status": "FINISHED"}
    for name in ("id", "name", "experiment", "status", "start", "parameters", "metrics", "tags", "parent"):
        assert kept[name] == getattr(record, name), name
    assert not list(tracker.artifacts_dir(run.id).parent.rglob("artifacts/run.json"))


def test_a_failed_outcome_is_told_from_other_failures(tracker: Tracker) -> None:
    for fault in (FailedOutcome("unstable"), ValueError("a defect")):
        with pytest.raises(type(fault)), tracker.start("w-screw", "a", {}, {}):
            raise fault
    defect, physics = tracker.history()
    assert (physics.status, physics.tags["outcome"]) == ("FAILED", "failedoutcome")
    assert (defect.status, defect.tags.get("outcome")) == ("FAILED", None)


FULL = """
import resource, sys
from store.faults import Fault
from store.runs import Tracker
tracker = Tracker(sys.argv[1])
run = tracker.start("w-screw", "full", {}, {})
if len(sys.argv) > 2:
    run.text("before.txt", "x" * 9000)
size = tracker.database.stat().st_size if len(sys.argv) < 3 else 5000
resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
try:
    with run:
        if len(sys.argv) > 2:
            run.text("spec.toml", "x" * 9000)
        for n in range(400):
            run.tags({f"t{n}_{k}": "x" * 4000 for k in range(20)})
except Fault as fault:
    print(fault.exit_code, fault)
"""


@pytest.mark.parametrize(("what", "place"), [((), "mlflow.db"), (("file",), "spec.toml")])
def test_a_full_disk_is_told_with_place_and_cure(
    tracker: Tracker, spawn: Callable[..., Any], what: tuple[str, ...], place: str
) -> None:
    told, noise = spawn(FULL, tracker.workspace, *what).communicate()
    assert told.startswith("4 "), told + noise
    assert f"{place}: cannot be written" in told
    assert "ulimit -f" in told
    assert "Traceback" not in noise
    with tracker.start("w-screw", "with space", {}, {}) as run:
        run.metrics({"x": 1.0})
    assert {record.name for record in tracker.history()} == {"full", "with space"}
