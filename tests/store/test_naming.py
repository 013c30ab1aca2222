"""Names of metrics in MLflow: grouped there, plain everywhere else, and plain in databases of older versions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import through_client
from store.naming import grouped, plain, ungrouped
from store.recording import DESCRIPTION
from store.runs import FinishedRun, RunRecord, Tracker

NAMES = st.text("abE_.0 -", min_size=1, max_size=12)
NUMBERS = {"geometry_error": 0.25, "eps_E": 0.5, "points": 3.0}


def group(name: str) -> str:
    return {"geometry_error": "errors", "eps_E": "matching"}.get(name, "")


@given(st.dictionaries(NAMES, st.floats(allow_nan=False)), st.sampled_from(["", "errors", "a/b"]))
def test_plain_names_come_back(metrics: dict[str, float], prefix: str) -> None:
    there = grouped(metrics, lambda name: prefix)
    assert len(there) == len(metrics)
    assert ungrouped(there.items()) == metrics
    assert all(name == f"{prefix}/{plain(name)}" if prefix else name == plain(name) for name in there)


def test_the_grouped_name_counts_where_a_run_has_both() -> None:
    for pairs in ([("x", 1.0), ("errors/x", 2.0)], [("errors/x", 2.0), ("x", 1.0)]):
        assert ungrouped(pairs) == {"x": 2.0}


def filled(tracker: Tracker) -> tuple[str, str]:
    """A run and a trial of it, with the same numbers; their ids."""
    with tracker.start("w-screw", "one", {"a": 1}, {}) as run:
        run.metrics({**NUMBERS, "bound": float("inf")})
    trial = FinishedRun("two", {"a": 1}, {**NUMBERS, "bound": float("inf")}, {"kind": "trial"})
    (child,) = tracker.log_batch_of_runs("w-screw", run.id, [trial])
    return run.id, child


def in_mlflow(tracker: Tracker, run_id: str) -> dict[str, float]:
    return dict(tracker._client().get_run(run_id).data.metrics)


def both_readers(tracker: Tracker, run_id: str) -> list[RunRecord]:
    return [tracker.find(run_id), *through_client.read(tracker.client(), run_id=run_id)]


def test_mlflow_gets_groups_and_everything_else_plain_names(tracker: Tracker) -> None:
    tracker = Tracker(tracker.workspace, group)
    for key in filled(tracker):
        assert in_mlflow(tracker, key) == {"errors/geometry_error": 0.25, "matching/eps_E": 0.5, "points": 3.0}
        for record in both_readers(tracker, key):
            assert record.metrics == NUMBERS
            assert record.tags["nonfinite.bound"] == "inf"
    assert tracker.metric_keys("w-screw")["eps_E"] == ["matching/eps_E"]


def test_a_database_of_an_older_version_is_read_as_it_is(tracker: Tracker) -> None:
    """Its names have no groups, and its runs no kind. Runs that join it have groups."""
    old, _ = filled(tracker)
    assert in_mlflow(tracker, old) == NUMBERS
    now = Tracker(tracker.workspace, group)
    new, _ = filled(now)
    for key in (old, new):
        for record in both_readers(now, key):
            assert (record.metrics, record.kind) == (NUMBERS, "run")
    assert now.metric_keys("w-screw") == {
        "geometry_error": ["errors/geometry_error", "geometry_error"],
        "eps_E": ["matching/eps_E", "eps_E"],
        "points": ["points"],
    }
    assert now.metric_keys("si-edge") == {}


def test_an_old_run_that_goes_on_shows_its_newer_number(tracker: Tracker) -> None:
    old, _ = filled(tracker)
    with Tracker(tracker.workspace, group).resume(old) as run:
        run.metrics({"geometry_error": 0.125})
    for record in both_readers(tracker, old):
        assert record.metrics["geometry_error"] == 0.125


def test_a_name_with_a_slash_is_refused(tracker: Tracker) -> None:
    with tracker.start("w-screw", "one", {}, {}) as run, pytest.raises(ValueError, match="a slash ends the group"):
        run.metrics({"errors/x": 1.0})
    assert tracker.find(run.id).metrics == {}


def test_runs_tell_who_made_them_and_what_they_found(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    with tracker.start("w-screw", "one", {}, {}) as run:
        run.describe("**good**")
    (child,) = tracker.log_batch_of_runs("w-screw", run.id, [FinishedRun("two", description="**good**")])
    for key in (run.id, child):
        tags = tracker._client().get_run(key).data.tags
        assert tags[DESCRIPTION] == "**good**"
        assert tags["mlflow.user"]
        assert tags["mlflow.source.type"] == "LOCAL"
        assert "/" not in tags["mlflow.source.name"]
        assert tracker.find(key).tags == {}, "MLflow's own tags are none of ours"
    assert run.record()["description"] == "**good**"
    with pytest.raises(ValueError, match="8000"):
        run.describe("x" * 8001)


def test_the_source_is_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from store.provenance import origin

    for program in ("/usr/bin/dislobench", "/somewhere/dislobench/__main__.py"):
        monkeypatch.setattr("sys.argv", [program, "run", str(tmp_path / "my.toml"), "--set", "a=1 2"])
        origin.cache_clear()
        assert origin()["mlflow.source.name"] == "dislobench run my.toml --set 'a=1 2'"
    origin.cache_clear()
