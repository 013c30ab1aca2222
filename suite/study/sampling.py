"""Trials of a study: Optuna proposes parameters, workers judge them, a journal or a database stores the results.

Every worker opens the storage itself (`suite.study.keeping`). If a study is killed, only the trials that were running
are lost; they are tried again when the study continues.
"""

from __future__ import annotations

import math
import secrets
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from store.faults import BadInput
from store.seal import writing
from suite.execution import map_pieces, through
from suite.judge.numbers import head
from suite.model.regression import Unsolvable
from suite.spec import Spec
from suite.study.bench import Bench, study_key
from suite.study.described import run_name
from suite.study.keeping import Kept, Place, kept_at
from suite.study.session import Session
from suite.study.space import first_trials, limits_of, objectives_of, suggest
from suite.study.trials import seal_of

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial

BATCH, MOST = 25, 1000  # trials of one worker between two reports to the parent: at first, and at most


def study_name(spec: Spec, key: str) -> str:
    """Name of a study in Optuna and its dashboard: what it varies the weights of, and last its key."""
    return f"{run_name(spec)} {key}"


def key_of(name: str) -> str:
    """The key of the study of this name. Names of older versions are the key alone."""
    return name.rpartition(" ")[2]


class StudyInUse(BadInput, RuntimeError):
    """Another process works on this study."""


def place_of(spec: Spec, workspace: Path, storage: str = "") -> Place:
    """The place of the study of `spec`, with the address of a database for its trials; its folder is created if it is
    missing."""
    key = study_key(spec)
    folder = workspace / "studies" / f"{spec.case.name}-{key[:8]}"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return Place(key, folder, storage)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """The lock of a whole study. It does not wait: it raises `StudyInUse` when another process has it."""
    import fcntl

    with writing(folder):
        handle = (folder / ".study").open("w")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StudyInUse(
                f"another process works on the study in {folder}; start one command with more --workers instead"
            ) from error
        yield


def open_study(spec: Spec, place: Place, seed: int) -> tuple[Study, Kept]:
    """The study at `place`, created if it is missing, and its storage; `seed` is the seed of the sampler."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tune = spec.tune
    samplers: dict[str, Any] = {
        "tpe": optuna.samplers.TPESampler,
        "nsga2": optuna.samplers.NSGAIISampler,
        "random": optuna.samplers.RandomSampler,
    }
    named: dict[str, Any] = {"multivariate": True, "n_startup_trials": 20} if tune.sampler == "tpe" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = samplers[tune.sampler](seed=seed, **named)
    kept = kept_at(place)
    with kept.alone():
        known = [each.study_name for each in kept.storage.get_all_studies()]
        study = optuna.create_study(
            study_name=next((name for name in known if key_of(name) == place.key), study_name(spec, place.key)),
            storage=kept.storage,
            sampler=sampler,
            directions=["minimize"] * len(tune.objectives),
            load_if_exists=True,
        )
    return study, kept


def started(spec: Spec, place: Place) -> tuple[Study, Kept]:
    """The study at `place`, ready to run, and its storage. A new study begins with `first_trials`; in an existing one,
    trials that a killed process left running are queued again."""
    study, kept = open_study(spec, place, spec.tune.seed)
    _name_objectives(study, spec)
    kept.revive(study)
    trials = study.get_trials(deepcopy=False)
    begun = {trial.user_attrs.get("name") for trial in trials}
    for name, values in first_trials(spec):
        if not trials or (kept.shared and name not in begun):  # helpers may have begun a shared study
            study.enqueue_trial(values, user_attrs={"name": name})
    return study, kept


def _name_objectives(study: Study, spec: Spec) -> None:
    """Label the axes of optuna-dashboard, which are 0, 1, 2 otherwise; also in a study of an older version."""
    import optuna

    labels = [head(name) for name in objectives_of(spec)]
    if study.metric_names != labels:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(labels)


def run_trials(
    study: Study, kept: Kept, bench: Bench, place: Place, budget: int, session: Session, helper: bool = False
) -> None:
    """Run trials until `study` has `budget` complete ones, those of other commands included. In a database, workers
    that end at the same time may each complete one more. A `helper` has draws of its own, and does not wait for the
    last trials of others.

    Raises `regression.Unsolvable` when trial after trial has no finite solution, NoAnswer when the database of the
    trials does not answer.
    """
    import optuna

    def count() -> int:
        return len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))

    seed, workers = bench.spec.tune.seed, session.workers or 1
    if helper:
        seed += secrets.randbelow(1 << 30)
    while (done := count()) < budget:
        session.progress("trials", done / budget, f"{done} of {budget}")
        kept.revive(study)  # a killed worker leaves a trial running, which would count against the budget for ever
        # the seed depends on how many trials there are, or a continued study would repeat its draws
        begun = len(study.get_trials(deepcopy=False))
        seeds = [seed + begun + 1000 * worker for worker in range(workers)]
        # each batch reads the whole journal; as batches grow with it, the total time stays linear in the number of
        # trials
        most = min(max(BATCH, begun // 2), MOST)
        pieces = [(bench, place, budget, most, each) for each in seeds]
        with through(None):  # a trial takes milliseconds: processes of this machine
            worked = sum(map_pieces(_work, pieces, workers))
        if not worked:
            if helper:
                break
            kept.wait(study)
        if count() == done and _failed_in_a_row(study) >= BATCH:
            raise Unsolvable(f"the last {BATCH} trials had no finite solution: widen or shift the ranges in [tune]")
    session.progress("trials", 1.0, f"{count()} of {budget}")


def _failed_in_a_row(study: Study) -> int:
    import optuna

    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    length = 0
    while length < len(states) and states[-1 - length] == optuna.trial.TrialState.FAIL:
        length += 1
    return length


class _Answer(NamedTuple):
    """A trial, its parameters, and its result: numbers or an error."""

    trial: Trial
    values: dict[str, Any]
    numbers: dict[str, float]
    error: str


def _work(bench: Bench, place: Place, budget: int, most: int, seed: int) -> int:
    """Run at most `most` trials while the study has fewer than `budget`; returns how many."""
    study, kept = open_study(bench.spec, place, seed)
    with kept.answering():
        return _ask_and_tell(study, kept, bench, budget, most)


def _ask_and_tell(study: Study, kept: Kept, bench: Bench, budget: int, most: int) -> int:
    import optuna

    last: _Answer | None = None
    try:
        for done in range(most + 1):
            with kept.turn():
                if last is not None:
                    with suppress(optuna.exceptions.UpdateFinishedTrialError):  # taken for dead, and tried again
                        _tell(study, bench.spec, last)
                if done == most or kept.begun(study) >= budget:
                    return done
                trial = study.ask()
                values = suggest(trial, bench.spec)
            with kept.working(trial):
                last = _answer(bench, trial, values)
    finally:
        kept.close()
    return most


def _answer(bench: Bench, trial: Trial, values: dict[str, Any]) -> _Answer:
    begun = time.perf_counter()
    try:
        numbers = bench.judge(bench.candidate(values))
        judged = {*objectives_of(bench.spec), *(number for number, _ in limits_of(bench.spec).values())}
        if unknown := [name for name in judged if not math.isfinite(numbers[name])]:
            raise Unsolvable(f"the crystal of this fit is not stable: it has no {', '.join(sorted(unknown))}")
    except Unsolvable as error:
        return _Answer(trial, values, {}, str(error))
    numbers["milliseconds"] = 1e3 * (time.perf_counter() - begun)
    return _Answer(trial, values, numbers, "")


def _tell(study: Study, spec: Spec, answer: _Answer) -> None:
    import optuna

    trial, numbers = answer.trial, answer.numbers
    if answer.error:
        trial.set_user_attr("error", answer.error)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    # all numbers in one entry of the journal, not in forty
    finite = {k: float(v) for k, v in numbers.items() if math.isfinite(v)}
    trial.set_user_attr("numbers", finite)
    trial.set_user_attr("seal", seal_of(trial.number, answer.values, finite))
    for name, (number, limit) in limits_of(spec).items():
        trial.set_constraint(name, numbers[number] / limit - 1)
    study.tell(trial, [float(numbers[name]) for name in objectives_of(spec)])
