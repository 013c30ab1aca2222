"""Seals of trials, the front of those that have one, and journals on a full disk."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from store.journal import damage
from store.seal import StoreError
from suite.spec import Spec, load
from suite.study.trials import altered, front_of, open_journal, record_of, seal_of

OBJECTIVES = {"balance": "balance_spread", "geometry": "geometry_error_linear"}


@pytest.fixture
def spec() -> Spec:
    return load("w-split", "tiny", ['tune.objectives=["balance","geometry"]'])


def judged(path: Path, count: int) -> list[Any]:
    """Trials with seals, in a journal on disk and read again."""
    study = optuna.create_study(
        study_name="s", storage=open_journal(path), directions=["minimize"] * 2, load_if_exists=True
    )
    generator = np.random.default_rng(len(study.trials))
    for _ in range(count):
        trial = study.ask()
        parameters = {"energy": trial.suggest_float("energy", 1e-3, 1e4, log=True)}
        numbers = {name: float(generator.random()) for name in (*OBJECTIVES.values(), "eps_V1_felt")}
        trial.set_user_attr("numbers", numbers)
        trial.set_user_attr("seal", seal_of(trial.number, parameters, numbers))
        study.tell(trial, [numbers[name] for name in OBJECTIVES.values()])
    return optuna.load_study(study_name="s", storage=open_journal(path)).trials


def test_a_seal_survives_the_journal(tmp_path: Path, spec: Spec) -> None:
    for trial in judged(tmp_path / "journal.log", 20):
        assert not altered(trial, spec.tune)
        assert record_of(trial, spec.tune)["state"] == "complete"


@pytest.mark.parametrize("what", ["a number", "a parameter", "an objective", "the seal", "of another trial"])
def test_an_altered_trial_is_known(tmp_path: Path, spec: Spec, what: str) -> None:
    journal = tmp_path / "journal.log"
    judged(journal, 4)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    mine = [entry for entry in lines if entry.get("trial_id") == 2]
    numbers = next(entry["user_attr"]["numbers"] for entry in mine if "numbers" in entry.get("user_attr", {}))
    seal = next(entry["user_attr"] for entry in mine if "seal" in entry.get("user_attr", {}))
    if what == "a number":
        numbers["eps_V1_felt"] *= 1.0000001
    elif what == "a parameter":
        next(entry for entry in mine if "param_value_internal" in entry)["param_value_internal"] = 3.0
    elif what == "an objective":
        next(entry for entry in mine if entry.get("values"))["values"][0] = 1e-9
    elif what == "the seal":
        del seal["seal"]
        seal["other"] = 1
    else:
        theirs = [entry for entry in lines if entry.get("trial_id") == 1]
        seal["seal"] = next(e["user_attr"]["seal"] for e in theirs if "seal" in e.get("user_attr", {}))
    journal.write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    trials = optuna.load_study(study_name="s", storage=open_journal(journal)).trials
    assert [altered(trial, spec.tune) for trial in trials] == [False, False, True, False]
    records = [record_of(trial, spec.tune) for trial in trials]
    assert records[2]["state"] == "altered"
    assert 2 not in front_of(records, spec.tune)


def test_the_front_is_that_of_optuna(tmp_path: Path, spec: Spec) -> None:
    trials = judged(tmp_path / "journal.log", 40)
    study = optuna.load_study(study_name="s", storage=open_journal(tmp_path / "journal.log"))
    records = [record_of(trial, spec.tune) for trial in trials]
    front = front_of(records, spec.tune)
    assert front == sorted(trial.number for trial in study.best_trials)
    assert 1 < len(front) < 40
    # a beaten trial comes to the front when its better is altered
    first = min(records, key=lambda record: record["values"][0])
    first["state"] = "altered"
    assert first["number"] not in front_of(records, spec.tune)
    assert front_of(records, spec.tune)
    # limits are bounds of numbers, kept or not
    limit = float(np.median([record["numbers"]["eps_V1_felt"] for record in records]))
    limited = spec.tune.model_copy(update={"limits": {"felt": limit}})
    assert all(records[n]["numbers"]["eps_V1_felt"] <= limit for n in front_of(records, limited))
    assert front_of(records, spec.tune.model_copy(update={"limits": {"felt": 0.0}})) == []


TOGETHER = """
import sys
from pathlib import Path
import optuna
from store.locking import locked
from suite.study.trials import open_journal
path = Path(sys.argv[1])
journal = open_journal(path)
study = optuna.load_study(study_name="s", storage=journal)
last = None
for _ in range(int(sys.argv[2]) + 1):
    with locked(path.parent), journal.together():
        if last is not None:
            last.set_user_attr("worker", sys.argv[3])
            study.tell(last, [last.params["energy"], 1.0])
        last = study.ask()
        last.suggest_float("energy", 1e-3, 1e4, log=True)
"""


def test_entries_together_are_those_of_optuna(tmp_path: Path) -> None:
    """A sampler draws the same, and the file is read the same, whether entries are written one by one or together."""
    told = []
    for name in ("one by one", "together"):
        path = tmp_path / name / "journal.log"
        path.parent.mkdir()
        journal = open_journal(path)
        sampler = optuna.samplers.TPESampler(seed=1, multivariate=True, n_startup_trials=5)
        study = optuna.create_study(study_name="s", storage=journal, sampler=sampler, directions=["minimize"] * 2)
        for _ in range(15):
            before = path.read_bytes()
            with journal.together() if name == "together" else nullcontext():
                trial = study.ask()
                x = trial.suggest_float("x", 1e-3, 1e4, log=True)
                trial.set_constraint("felt", x - 100)
                study.tell(trial, [x, 1 / x])
                assert (path.read_bytes() == before) == (name == "together")
            assert study.get_trials(deepcopy=False)[-1].values == [x, 1 / x]
        stock = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
        read = optuna.load_study(study_name="s", storage=stock).trials
        assert [t.number for t in read] == list(range(15))
        assert [(t.params, t.values, t.system_attrs) for t in read] == [
            (t.params, t.values, t.system_attrs) for t in study.trials
        ]
        told.append([(t.params, t.values, t.constraints, t.state) for t in read])
    assert told[0] == told[1]


def test_a_journal_counts_and_lists_unfinished_trials_as_optuna_does(tmp_path: Path) -> None:
    """Whatever happens to the trials, here or in another process: it only looks at those that may have changed."""
    states, dice = optuna.trial.TrialState, np.random.default_rng(0)
    journals = [open_journal(tmp_path / "journal.log") for _ in range(2)]
    studies = [optuna.create_study(study_name="s", storage=journal, load_if_exists=True) for journal in journals]
    journal, study, seen = journals[0], studies[0], set()
    for _ in range(60):
        other = studies[dice.integers(2)]
        match dice.integers(4):
            case 0:
                other.enqueue_trial({"x": dice.random()})
            case 1:
                other.ask()
            case _ if running := other.get_trials(states=(states.RUNNING,)):
                failed = dice.random() < 0.3
                number = running[dice.integers(len(running))].number
                other.tell(number, None if failed else 1.0, states.FAIL if failed else None)
        all_of_them = study.get_trials(deepcopy=False)
        seen |= {trial.state for trial in all_of_them}
        for wanted in (
            (states.WAITING,),
            (states.RUNNING,),
            (states.WAITING, states.RUNNING),
            (states.RUNNING, states.FAIL),
        ):
            expected = [trial for trial in all_of_them if trial.state in wanted]
            assert study.get_trials(deepcopy=bool(dice.integers(2)), states=wanted) == expected
        assert journal.begun(study._study_id) == sum(t.state in (states.COMPLETE, states.RUNNING) for t in all_of_them)
    assert seen == {states.WAITING, states.RUNNING, states.COMPLETE, states.FAIL}


def test_two_processes_share_a_journal(tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    judged(journal, 1)
    command = [sys.executable, "-c", TOGETHER, str(journal), "25"]
    processes = [subprocess.Popen([*command, name]) for name in ("a", "b")]
    assert [process.wait() for process in processes] == [0, 0]
    trials = optuna.load_study(study_name="s", storage=open_journal(journal)).trials
    assert [trial.number for trial in trials] == list(range(53))
    finished = [trial for trial in trials if "worker" in trial.user_attrs]
    assert Counter(trial.user_attrs["worker"] for trial in finished) == {"a": 25, "b": 25}
    assert all(trial.values == [trial.params["energy"], 1.0] for trial in finished)
    assert sum(trial.state.name == "RUNNING" for trial in trials) == 2


def test_a_trial_of_another_program_is_not_overwritten(tmp_path: Path) -> None:
    """Notes that a program without our lock makes meanwhile are kept; a trial that it makes stops ours."""
    path = tmp_path / "journal.log"
    judged(path, 2)
    journal = open_journal(path)
    study = optuna.load_study(study_name="s", storage=journal)
    stock = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    other = optuna.load_study(study_name="s", storage=stock)
    with journal.together():
        trial = study.ask()
        other.set_user_attr("note", "seen")
    study.tell(trial, [1.0, 2.0])
    assert study.user_attrs == {"note": "seen"}

    def ask() -> None:
        with journal.together():
            study.ask()
            other.enqueue_trial({"energy": 3.0})

    size = len(path.read_bytes())
    with pytest.raises(StoreError, match=r"journal\.log: another program made a trial.*give the same command again"):
        ask()
    assert path.read_bytes()[size:].count(b"\n") == 1, "only the other program's entry"
    trials = optuna.load_study(study_name="s", storage=open_journal(path)).trials
    assert [t.state.name for t in trials] == ["COMPLETE"] * 3 + ["WAITING"]


FULL = """
import resource, sys
from pathlib import Path
import optuna
from store.faults import BadStore
from suite.study.trials import open_journal
path = Path(sys.argv[1])
study = optuna.load_study(study_name="s", storage=open_journal(path))
size = path.stat().st_size + 700
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
try:
    for _ in range(50):
        trial = study.ask()
        trial.set_user_attr("numbers", {"x" * 40: 0.1})
        study.tell(trial, [0.5, 0.5])
except BadStore as fault:
    print(fault)
"""


def test_a_full_disk_leaves_a_whole_journal(tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    judged(journal, 3)
    before = journal.read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL, str(journal)], capture_output=True, text=True, check=True)
    assert "journal.log: cannot be written: File too large; raise the limit" in done.stdout, done.stderr
    assert journal.read_bytes().startswith(before)
    assert damage(journal) is None, "what could not be written whole was undone"
    trials = judged(journal, 2)
    assert sum(trial.state.is_finished() for trial in trials) >= 5
