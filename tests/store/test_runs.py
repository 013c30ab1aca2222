import json
import logging
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
    assert {p.name for p in workspace.iterdir()} == {"mlflow.db", "artifacts", ".lock"}


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
    for reference in (other[:3], "f" * 32, "", "a'b\"c"):
        with pytest.raises(RunNotFound):
            tracker.find(reference)


def test_a_prefix_of_several_ids_is_refused(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = tracker.log_batch_of_runs("w-screw", None, [FinishedRun("a"), FinishedRun("b")])
    search = tracker._search
    # Ids are random: the prefix of one is made to match both.
    monkeypatch.setattr(
        tracker,
        "_search",
        lambda condition, *a, **k: search("" if "LIKE" in condition else condition, *a, **k),
    )
    with pytest.raises(RunNotFound, match="not unique") as caught:
        tracker.find(ids[0][:4])
    assert set(caught.value.close) == set(ids)


def test_history_is_newest_first_over_all_pages(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.runs._PAGE", 2)
    tracker.log_batch_of_runs("w-screw", None, [FinishedRun(f"{n}", start=1e9 + n) for n in (3, 0, 4, 1, 2)])
    tracker.log_batch_of_runs("si-loop", None, [FinishedRun("s", start=2e9)])
    assert [r.name for r in tracker.history("w-screw")] == ["4", "3", "2", "1", "0"]
    assert [r.name for r in tracker.history()] == ["s", "4", "3", "2", "1", "0"]
    assert tracker.history("never-run") == []


def test_a_file_that_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be read as one" * 9)
    with pytest.raises(WorkspaceError, match=r"mlflow\.db: file is not a database; move"):
        Tracker(tmp_path).history()


@pytest.mark.parametrize("name", ["100%", "what?", "a#b"])
def test_a_path_mlflow_cannot_address_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(WorkspaceError, match="database address"):
        Tracker(tmp_path / name).prepare()
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_another_mlflow_is_refused_with_the_cure(tracker: Tracker) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(tracker.database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'cc1f77228345'")
        connection.commit()
    with pytest.raises(WorkspaceError, match="mlflow db upgrade sqlite:"):
        tracker.history()


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
    assert options["backend_store_uri"] == tracker.uri
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
    raw, batch = (tracker._raw(key) for key in (parent, child))
    assert batch.info.artifact_uri == raw.info.artifact_uri.replace(parent, child)
    assert set(batch.data.tags) - {"mlflow.parentRunId"} <= set(raw.data.tags)
    (metric,) = tracker._client().get_metric_history(child, "x")
    assert metric.value == 0.25
    resumed = tracker.resume(child)
    resumed.metrics({"z": 1.0})
    assert tracker.find(child).metrics == {"x": 0.25, "z": 1.0}
