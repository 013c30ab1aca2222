"""Studies in a database: the same trials as in a journal, shared by several processes, and what dies is tried again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
from servers import Postgres, postgres, silent_port

from store.faults import BadStore
from store.remote import NoAnswer
from store.runs import FinishedRun, Tracker
from suite.cli import main
from suite.progress import Progress, silent
from suite.spec import Spec, load
from suite.study import keeping
from suite.study.bench import Bench, prepare
from suite.study.keeping import InDatabase, Place, dashboard_of, kept_at
from suite.study.mirror import mirror, run_of
from suite.study.sampling import key_of, open_study, place_of, run_trials, started
from suite.study.session import Session, Stages
from suite.study.trials import records_of
from suite.study.tune import help_with


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/trials.db"


@pytest.fixture(scope="module")
def running_postgres() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="module")
def bench(tiny: Spec, workspace: Path) -> Bench:
    return prepare(tiny, Session(workspace, workers=1), Stages())[0]


def continued(bench: Bench, place: Place, budget: int, progress: Progress = silent) -> list[dict[str, Any]]:
    """The trials of the study at `place` when it has `budget` of them, without what `tune` does with them."""
    study, kept = started(bench.spec, place)
    with kept.answering(), closing(kept):
        run_trials(study, kept, bench, place, budget, Session(place.folder, progress, workers=1))
        return records_of(study, bench.spec.tune)


def drawn(trials: list[dict[str, Any]]) -> list[Any]:
    return [(each["name"], each["parameters"], each["values"]) for each in trials]


def test_a_database_and_a_journal_give_the_same_trials(
    tiny: Spec, workspace: Path, bench: Bench, sqlite: str, tmp_path: Path
) -> None:
    """And the same when another command has helped before: it has draws of its own."""
    by_journal = continued(bench, place_of(tiny, workspace), 8)
    assert drawn(continued(bench, place_of(tiny, workspace, sqlite), 8)) == drawn(by_journal)

    helped = f"sqlite:///{tmp_path}/helped.db"
    assert help_with(tiny, workspace, helped, trials=3) == 3
    found = continued(bench, place_of(tiny, workspace, helped), 8)
    assert Counter(trial["state"] for trial in found) == {"complete": 8}
    assert {trial["name"] for trial in found} == {trial["name"] for trial in by_journal}
    values = [trial["parameters"] for trial in by_journal]
    assert not [trial for trial in found[:3] if trial["parameters"] in values]


def test_a_trial_whose_process_died_is_tried_again(
    tiny: Spec, workspace: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that had given a sign of life, and one that had not yet: each with its parameters."""
    monkeypatch.setattr(keeping, "INTERVAL", 1)
    monkeypatch.setattr(keeping, "GRACE", 1)
    place = place_of(tiny, workspace, sqlite)
    study, first = started(tiny, place)
    with first.turn():
        silent, heard = study.ask(), study.ask()
        values = [trial.suggest_float("energy", 1e-3, 1e3, log=True) for trial in (silent, heard)]
    assert isinstance(first, InDatabase)
    with first.working(heard):
        first._trial = None  # its thread says nothing more
    time.sleep(2.1)
    first.close()
    again, kept = open_study(tiny, place, seed=0)
    kept.revive(again)
    states = [trial.state.name for trial in again.trials]
    assert states[:2] == ["RUNNING", "FAIL"]
    assert again.trials[-1].state.name == "WAITING"
    assert again.trials[-1].params == {"energy": values[1]}
    monkeypatch.setattr(kept, "_patience", lambda study: 0.0)
    kept.wait(again)
    assert again.trials[0].state.name == "FAIL"
    with kept.turn():
        retried = [again.ask() for _ in range(2)]
    assert {trial.user_attrs.get("name") for trial in retried} == {t.user_attrs.get("name") for t in (silent, heard)}
    for each in (first, kept):  # looking at its trials has opened the first one again
        each.close()


def test_a_trial_that_works_for_long_stays_alive(
    tiny: Spec, workspace: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "INTERVAL", 1)
    monkeypatch.setattr(keeping, "GRACE", 1)
    study, kept = open_study(tiny, place_of(tiny, workspace, sqlite), seed=0)
    assert isinstance(kept, InDatabase)
    with kept.turn():
        trial = study.ask()
    monkeypatch.setattr(keeping, "INTERVAL", 0.3)
    with kept.working(trial):
        time.sleep(3)
        kept.revive(study)
    assert study.trials[0].state.name == "RUNNING"
    kept.close()


def test_two_processes_share_a_study_and_a_killed_one_loses_nothing(
    tiny: Spec, workspace: Path, bench: Bench, running_postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL, whose tables both of them try to make."""
    monkeypatch.setattr(keeping, "INTERVAL", 1)
    monkeypatch.setattr(keeping, "GRACE", 2)
    address = running_postgres.address
    script = (
        "import sys; from pathlib import Path; from suite.spec import load; from suite.study.tune import help_with; "
        "help_with(load('w-split', 'tiny'), Path(sys.argv[1]), sys.argv[2], trials=100000)"
    )
    command = [sys.executable, "-c", script, str(workspace), address]
    helpers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    place = place_of(tiny, workspace, address)
    deadline = time.monotonic() + 120
    try:
        while _complete(place) < 6:
            assert time.monotonic() < deadline
            for helper in helpers:
                assert helper.poll() is None, helper.communicate()
            time.sleep(0.2)
    finally:
        for helper in helpers:
            helper.send_signal(signal.SIGKILL)
            helper.communicate()
    done = _complete(place)
    found = continued(bench, place, done + 3)
    states = Counter(trial["state"] for trial in found)
    assert states["complete"] == done + 3
    assert states["running"] == 0
    assert len({tuple(t["parameters"].values()) for t in found if t["state"] == "complete"}) == done + 3


def _complete(place: Place) -> int:
    with closing(kept_at(place)) as kept:
        names = [each.study_name for each in kept.storage.get_all_studies() if key_of(each.study_name) == place.key]
        if not names:  # nobody has made it yet
            return 0
        study = optuna.load_study(study_name=names[0], storage=kept.storage)
        return len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)))


def test_a_database_that_dies_is_told_and_has_every_trial_that_had_ended(
    tiny: Spec, workspace: Path, bench: Bench, running_postgres: Postgres
) -> None:
    place = place_of(load("w-split", "tiny", ["tune.seed=7"]), workspace, running_postgres.address)
    done: list[int] = []

    def crash(stage: str, part: float, text: str) -> None:
        if part > 0.1:
            done.append(round(part * 100))
            running_postgres.stop("immediate")

    with pytest.raises(NoAnswer, match="give the same command again") as caught:
        continued(bench, place, 100, crash)
    assert "secret-word" not in str(caught.value)
    running_postgres.start()
    assert _complete(place) == done[0]
    assert Counter(trial["state"] for trial in continued(bench, place, done[0] + 2))["complete"] == done[0] + 2


def test_a_database_out_of_reach_is_told_without_its_password(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("psycopg", reason="psycopg, the driver of PostgreSQL, is not installed")
    words = ["tune", "w-split", "--preset", "tiny", "--workspace", str(workspace), "--trials", "2"]
    with silent_port() as port:
        place = f"127.0.0.1:{port}/trials"
        assert main([*words, "--storage", f"postgresql://me:secret-word@{place}"]) == BadStore.exit_code
    told = capsys.readouterr().err
    assert f"postgresql://{place} does not answer: " in told
    assert "--storage" in told
    assert "secret-word" not in told


@pytest.mark.parametrize("words", [["--storage", "journal.log"], ["--storage", "redis://host"], ["--help-only"]])
def test_unusable_storages_are_refused(words: list[str], workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["tune", "w-split", "--preset", "tiny", "--workspace", str(workspace), *words]
    with suppress(SystemExit):  # of the parser, with the code 2 as well
        assert main(command) == 2
    assert "storage" in capsys.readouterr().err


def test_a_study_of_a_database_is_mirrored_once(tiny: Spec, workspace: Path, bench: Bench, sqlite: str) -> None:
    """A trial that was logged by half, or by two commands, is there once in the end."""
    place = place_of(tiny, workspace, sqlite)
    continued(bench, place, 3)
    tracker = Tracker(workspace)
    study, kept = open_study(tiny, place, seed=0)
    with closing(kept), run_of(tracker, tiny, place) as run:
        assert mirror(tracker, tiny.case.name, run.id, study) == 3
        first, second, _ = tracker.children(run.id)
        tracker._client().update_run(first.id, "RUNNING")
        twice = FinishedRun(second.name, second.parameters, second.metrics, second.tags)
        tracker.log_batch_of_runs(tiny.case.name, run.id, [twice])
        assert mirror(tracker, tiny.case.name, run.id, study) == 1
        assert mirror(tracker, tiny.case.name, run.id, study) == 0
        children = tracker.children(run.id)
        seals = [trial.user_attrs["seal"] for trial in study.trials]
    assert sorted(child.tags["seal"] for child in children) == sorted(seals)
    assert first.id not in [child.id for child in children]
    assert {child.status for child in children} == {"FINISHED"}


def test_the_dashboard_is_named_without_a_password(tmp_path: Path) -> None:
    assert dashboard_of(Place("key", tmp_path)) == f"{tmp_path}/journal.log"
    assert dashboard_of(Place("key", tmp_path, "postgresql://me:secret-word@host/trials")) == "postgresql://host/trials"
