"""Runs on a real MLflow server, in a shared database, and what happens when these do not answer."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from servers import Relay, mlflow_server, postgres, silent_port

from store import handing, through_client
from store.addresses import BadAddress, scrubbed, shown
from store.faults import BadStore
from store.remote import NoAnswer, no_answer
from store.runs import FinishedRun, RunNotFound, Tracker, WorkspaceError
from suite.cli import main
from suite.study.repair import repair


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('database')}/shared.db"


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    with postgres() as running:
        yield running.address


@pytest.fixture(params=["server", "database", "postgresql"])
def address(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def relay(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """A line to the server that can be cut; nobody waits for it to come back."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    line = Relay(server)
    yield line
    line.cut()


@pytest.fixture
def case() -> str:
    """The name of a case that no other test uses: they share the server."""
    return f"case-{uuid4().hex[:8]}"


def test_what_is_logged_is_read_back(address: str, tmp_path: Path, case: str) -> None:
    tracker = Tracker(tmp_path / "runs", address=address)
    with tracker.start(case, "one", {"training": {"size": 8}}, {"kind": "study"}) as run:
        run.metrics({"eps_E": np.float64(0.1 + 0.2), "bound": float("inf")})
        run.dataset("set", "abc", "training", "dislobench data", {"atoms": 8})
        run.json("figures/numbers.json", {"a": 1})
    trials = [FinishedRun(f"trial {n}", {"w": n}, {"x": n / 7}, {"trial": n}, start=1e9 + n) for n in range(5)]
    ids = tracker.log_batch_of_runs(case, run.id, [*trials, FinishedRun("it's", status="FAILED")])
    with pytest.raises(ValueError, match="bad"), tracker.start(case, "failed", {}, {}, parent=run.id):
        raise ValueError("bad")

    reader = Tracker(tmp_path / "runs", address=address)
    found = reader.find(run.id)
    assert (found.name, found.experiment, found.status, found.parent) == ("one", case, "FINISHED", None)
    assert found.parameters == {"training.size": "8"}
    assert found.metrics == {"eps_E": 0.1 + 0.2}
    assert found.tags.pop("workspace").endswith(f":{tmp_path}/runs")
    assert found.tags == {"kind": "study", "nonfinite.bound": "inf", "dataset.training": "abc"}
    children = reader.children(run.id)
    assert [child.id for child in children[:5]] == ids[:5]
    assert [child.metrics["x"] for child in children[:5]] == [n / 7 for n in range(5)]
    assert {child.status for child in children} == {"FINISHED", "FAILED"}
    assert len(reader.history(case)) == 8
    assert reader.find("it's").status == "FAILED"
    assert reader.find(run.id[:12]).id == run.id
    assert [record.id for record in reader.tagged(case, "trial", "3")] == [ids[3]]
    assert len(through_client.read(tracker._client(), experiment=case)) == 8
    for lost in ("f" * 32, "no such run"):
        with pytest.raises(RunNotFound):
            reader.find(lost)
    reader.discard(ids)
    assert len(reader.history(case)) == 2
    assert {*ids} <= reader.known_ids()
    assert (reader.artifacts_dir(run.id) / "figures" / "numbers.json").exists()
    assert not (tmp_path / "runs" / "mlflow.db").exists()
    assert not list((tmp_path / "runs" / "unsent").iterdir())
    assert "secret-word" not in "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())


def test_artifacts_go_to_the_store_of_the_server(server: str, tmp_path: Path, case: str) -> None:
    tracker = Tracker(tmp_path, address=server)
    (tmp_path / "potential").mkdir()
    (tmp_path / "potential" / "w.yace").write_text("elements")
    with tracker.start(case, "one", {}, {}) as run:
        run.text("spec.toml", "size = 8\n")
        run.artifact(tmp_path / "potential")
        run.sealed_json("tables/sweep.json", {"points": []})
    client = tracker._client()
    assert {f.path for f in client.list_artifacts(run.id)} == {"spec.toml", "potential", "tables"}
    assert [f.path for f in client.list_artifacts(run.id, "tables")] == ["tables/sweep.json"]
    fetched = client.download_artifacts(run.id, "potential/w.yace", str(tmp_path))
    assert Path(fetched).read_text() == "elements"


def test_a_run_goes_on_without_its_server_and_is_sent_later(
    relay: Relay, tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Tracker(tmp_path, address=relay.address)

    def compute() -> None:
        with tracker.start(case, "long", {"size": 8}, {}) as run:
            ids.append(run.id)
            relay.cut()
            run.metrics({"eps_E": 0.5})
            run.text("spec.toml", "size = 8\n")
            run.tags({"outcome": "converged"})

    ids: list[str] = []
    with pytest.raises(NoAnswer, match=r"Nothing is lost: run 'long' .* has ended as FINISHED .* repair") as caught:
        compute()
    assert caught.value.exit_code == BadStore.exit_code
    assert caplog.text.count("The run goes on") == 1
    with pytest.raises(NoAnswer):
        Tracker(tmp_path, address=relay.address).tidy()
    relay.mend()
    assert Tracker(tmp_path, address="").tidy() == [], "another home leaves it alone"
    again = Tracker(tmp_path, address=relay.address)
    (told,) = again.tidy()
    assert "'long'" in told
    assert "when the run ended as FINISHED" in told
    assert again.tidy() == []
    found = again.find(ids[0])
    assert (found.status, found.metrics, found.tags["outcome"]) == ("FINISHED", {"eps_E": 0.5}, "converged")
    assert [f.path for f in again._client().list_artifacts(ids[0])] == ["spec.toml"]


def test_a_server_that_comes_back_in_time_gets_everything_at_the_end(relay: Relay, tmp_path: Path, case: str) -> None:
    tracker = Tracker(tmp_path, address=relay.address)
    with tracker.start(case, "long", {"size": 8}, {}) as run:
        relay.cut()
        run.metrics({"eps_E": 0.5})
        run.dataset("set", "abc", "training", "dislobench data", {"atoms": 8})
        relay.mend()
        run.metrics({"eps_F": 0.25})
    assert tracker.find(run.id).metrics == {"eps_E": 0.5, "eps_F": 0.25}
    (used,) = tracker._client().get_run(run.id).inputs.dataset_inputs
    assert used.dataset.digest == "abc"
    assert tracker.tidy() == []


def test_a_failure_without_a_server_is_still_the_one_raised(relay: Relay, tmp_path: Path, case: str) -> None:
    tracker = Tracker(tmp_path, address=relay.address)

    def fail() -> None:
        with tracker.start(case, "bad", {}, {}):
            relay.cut()
            raise ValueError("the first")

    with pytest.raises(ValueError, match="the first") as caught:
        fail()
    assert "could not be marked FAILED" in caught.value.__notes__[0]
    relay.mend()
    assert "as FAILED" in tracker.tidy()[0]
    (found,) = tracker.history(case)
    assert (found.status, found.tags["error"]) == ("FAILED", "the first")


def test_only_dead_runs_of_this_workspace_are_closed(server: str, tmp_path: Path, case: str) -> None:
    other = Tracker(tmp_path / "other", address=server).start(case, "of another machine", {}, {})
    tracker = Tracker(tmp_path / "runs", address=server)
    dead = tracker.start(case, "dead", {}, {})
    os.close(dead._alive)  # as the kernel does when a process is killed
    assert [record.name for record in tracker.close_dead()] == ["dead"]
    assert {record.name: record.status for record in tracker.history(case)} == {
        "dead": "KILLED",
        "of another machine": "RUNNING",
    }
    assert tracker.find(dead.id).tags["error"] == "its process died without closing it"
    other.__exit__(None, None, None)


def test_repair_sends_what_a_server_has_lost(server: str, tmp_path: Path, case: str) -> None:
    tracker = Tracker(tmp_path, address=server)
    with tracker.start(case, "one", {}, {}) as run:
        run.metrics({"eps_E": 0.5})
    with Tracker(tmp_path, address="").start(case, "elsewhere", {}, {}):
        pass
    client = tracker._client()
    client.delete_tag(run.id, "workspace")
    client.update_run(run.id, "RUNNING")
    found = tracker.home.catch_up(tracker.alive)
    assert len(found) == 1
    assert "which had missed a part of it" in found[0]
    assert tracker.find(run.id).status == "FINISHED"
    assert "workspace" in tracker.find(run.id).tags
    assert tracker.home.catch_up(tracker.alive) == []


def test_a_database_takes_the_runs_of_a_workspace(
    database: str, server: str, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their ids, which name their stores; a server cannot do that, and says so."""
    own = Tracker(tmp_path, address="")
    with own.start(case, "one", {"size": 8}, {}) as run:
        run.metrics({"eps_E": 0.5})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert any("gives every new run an id of its own" in sentence for sentence in repair(tmp_path).left)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    assert "1 runs restored" in repair(tmp_path).done[-1]
    moved = Tracker(tmp_path).find(run.id)
    assert (moved.name, moved.metrics, moved.parameters) == ("one", {"eps_E": 0.5}, {"size": "8"})


def test_a_cluster_is_refused_before_anything_is_made(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its workers give their runs ids, which name their stores."""
    words = ["sweep", "w-split", "--preset", "tiny", "--workspace", str(tmp_path), "--tracking-uri", server]
    for more in (["--cluster", "local:1"], ["--shard", "1/2"]):
        assert main([*words, *more]) == 2
        assert "give --tracking-uri the address of the server's database" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_runs_that_workers_hand_over_go_to_a_database(database: str, tmp_path: Path, case: str) -> None:
    with handing.begin(tmp_path, case, "one", {"size": 8}, {"kind": "run"}) as run:
        run.metrics({"eps_E": 0.5})
        run.dataset("set", "abc", "training", "dislobench data", {"atoms": 8})
        run.describe("**one**")
    tracker = Tracker(tmp_path, lambda name: "matching", address=database)
    assert handing.take_over(tracker, run.id)
    found = tracker.find(run.id)
    assert (found.status, found.metrics) == ("FINISHED", {"eps_E": 0.5})
    raw = tracker.client().get_run(run.id)
    assert raw.data.metrics == {"matching/eps_E": 0.5}
    assert raw.data.tags["mlflow.note.content"] == "**one**"
    assert raw.inputs.dataset_inputs[0].dataset.digest == "abc"
    assert tracker.metric_keys(case) == {"eps_E": ["matching/eps_E"]}


def test_runs_of_another_workspace_are_shown_as_such(server: str, tmp_path: Path, case: str) -> None:
    with Tracker(tmp_path / "there", address=server).start(case, "one", {}, {}) as run:
        run.metrics({"eps_E": 0.5})
    here = Tracker(tmp_path / "here", address=server)
    found = here.believe(here.find(run.id))
    assert found.record.metrics == {"eps_E": 0.5}
    assert not found.sealed
    assert f":{tmp_path}/there" in found.note


def test_experiments_of_other_programs_are_left_alone(server: str, tmp_path: Path, case: str) -> None:
    tracker = Tracker(tmp_path, address=server)
    client = tracker._client()
    foreign = client.create_experiment(case)
    client.create_run(foreign)
    client.create_experiment(f"{case}-empty")
    with pytest.raises(WorkspaceError, match="holds runs of another program"):
        tracker.start(case, "one", {}, {})
    assert tracker.history(case) == []
    with tracker.start(f"{case}-empty", "one", {}, {}):
        pass
    assert [record.name for record in tracker.history(f"{case}-empty")] == ["one"]


@pytest.mark.parametrize(
    "form", ["http://me:secret-word@127.0.0.1:{port}", "postgresql://me:secret-word@127.0.0.1:{port}/runs"]
)
def test_what_does_not_answer_is_told_at_once(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if form.startswith("postgresql"):
        pytest.importorskip("psycopg", reason="psycopg, the driver of PostgreSQL, is not installed")
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "set here, so that it is gone after the test")
    with silent_port() as port:
        address = form.format(port=port)
        words = ["run", "w-split", "--preset", "tiny", "--workspace", str(tmp_path), "--tracking-uri", address]
        assert main(words) == BadStore.exit_code
    told = capsys.readouterr().err
    assert f"dislobench: {shown(address)} does not answer:" in told
    assert "refused" in told
    assert "--tracking-uri" in told
    assert "secret-word" not in told
    assert not (tmp_path / "cache").exists(), "before anything is computed"


def test_a_missing_driver_and_a_wrong_password_have_their_own_cure() -> None:
    assert "pip install" in str(no_answer("postgresql://h/x", ModuleNotFoundError("No module named 'psycopg'")))
    broken = str(no_answer("http://h", OSError("Max retries exceeded (too many 503 error responses)')")))
    assert broken.startswith("http://h does not answer: too many 503 error responses; the log of the server says why")
    denied = str(no_answer("http://h", OSError("failed with error code 401: no authentication")))
    assert "MLFLOW_TRACKING_USERNAME" in denied


def test_the_commands_read_from_the_server(
    server: str, tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Tracker(tmp_path, address=server).start(case, "one", {"size": 8}, {}) as run:
        run.metrics({"eps_E": 0.5})
    words = ["--workspace", str(tmp_path)]
    assert main(["runs", "--json", "--case", case, "--tracking-uri", server, *words]) == 0
    assert [each["id"] for each in json.loads(capsys.readouterr().out)["runs"]] == [run.id]
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert main(["runs", "--json", *words]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert main(["ui", *words]) == 0
    told = capsys.readouterr().out
    assert "MLflow UI. The newest case" in told, "there is nothing to start"
    assert f"{server}/#/experiments/" in told


def test_addresses_are_checked_and_shown_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for bad in ("file:///tmp/mlruns", "mlruns", "s3://bucket/x", "databricks", "ftp://me:secret-word@host/x"):
        with pytest.raises(BadAddress) as caught:
            Tracker("runs", address=bad)
        assert "secret-word" not in str(caught.value)
    assert (
        shown("postgresql+psycopg://me:p%40ss@host:5432/runs?sslmode=require") == "postgresql+psycopg://host:5432/runs"
    )
    monkeypatch.setenv("PGPASSWORD", "secret-word")
    assert scrubbed("at http://me:x@host/a with secret-word") == "at http://host/a with ***"


def test_nothing_of_mlflow_is_said_on_the_screen(
    server: str, tmp_path: Path, case: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Its client prints the addresses of runs."""
    caplog.set_level(logging.INFO)
    with Tracker(tmp_path, address=server).start(case, "one", {}, {}) as run:
        run.text("spec.toml", "x")
    out = capfd.readouterr()
    assert (out.out, out.err) == ("", "")
