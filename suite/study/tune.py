"""Weight studies: Optuna proposes weights, the oracle judges them in milliseconds, full relaxations confirm the best.

    result = tune(spec, workspace, trials=200, workers=2)

A trial scales and stacks reduced blocks, solves for the coefficients, and evaluates the oracle; it reads no
configuration. Trials are stored in an Optuna journal in the workspace, or in a database that several hosts use. A study
that was stopped or killed continues when the command is given again. MLflow shows a study as a parent run with one
child for each trial. The first two trials are the weights of the spec and equal weights. At the end a few trials and
all rivals are relaxed in full. The numbers of each trial and of each verified entry carry a seal
(`suite.study.trials`); if a seal does not match, this is reported, and the trial is left out or the entry is computed
again.

The parts: `space` defines what is varied, `bench` judges a trial, `sampling` runs trials, `keeping` stores them,
`candidates` selects and relaxes, `weighings` recommends, and `mirror` records the study in MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from store import journal
from store.runs import Tracker
from suite.execution import the_cluster
from suite.judge.numbers import group_of
from suite.model.regression import Unsolvable
from suite.progress import Progress, silent
from suite.spec import Spec
from suite.study.bench import prepare
from suite.study.candidates import chosen_trials, rivals_of, verified
from suite.study.keeping import JOURNAL
from suite.study.mirror import conclude, mirror, run_of
from suite.study.sampling import only_one, open_study, place_of, run_trials, started
from suite.study.session import Session, Stages
from suite.study.trials import altered_of, front_of, importance, records_of
from suite.study.weighings import TuneResult, recommend


def tune(
    spec: Spec,
    workspace: Path,
    trials: int | None = None,
    workers: int = 1,
    verify: int | None = None,
    progress: Progress = silent,
    storage: str | None = None,
) -> TuneResult:
    """Run or continue the study of `spec` until it has `trials` trials, verify, recommend, and write the report.

    Trials are kept in a journal in the workspace, or in the database at the address `storage`, where other hosts may
    `help`. Raises what the stages raise (`FailedRelaxation`, `NoOracle`, ...), `StudyInUse`, and NoAnswer for a
    database that does not answer. A study that was killed continues when it is called again.
    """
    session, stages = Session(workspace, progress, workers), Stages()
    trials, verify = trials or spec.tune.trials, verify or spec.tune.verify
    # --workers are processes for trials; a cluster that is there takes cells and rows
    ground = session if the_cluster() is None else replace(session, workers=None)
    bench, grounds = prepare(spec, ground, stages)
    tracker, place = Tracker(session.workspace, group_of), place_of(spec, session.workspace, storage or "")
    with only_one(place.folder):
        tracker.fetch_study(spec.case.name, place.key)
        _mend(tracker, place.folder, progress)
        study, kept = started(spec, place)
        # the storage is closed before the run ends: a bucket gets the whole journal then
        with kept.answering(), run_of(tracker, spec, place) as run, closing(kept):
            with stages.stage("trials"):
                lost = altered_of(records_of(study, spec.tune))  # these do not count, so that as many more are needed
                run_trials(study, kept, bench, place, trials + len(lost), session)
            with stages.stage("mlflow"):
                progress("MLflow", 0.0, f"{mirror(tracker, spec.case.name, run.id, study)} new trials")
            records = records_of(study, spec.tune)
            front = _front(spec, records, progress)
            with stages.stage("rivals"):
                rivals = rivals_of(bench, trials, progress)
                chosen = chosen_trials(bench, records, front, verify, rivals)
            with stages.stage("verify"):
                entries = verified([*rivals, *chosen], grounds, place.folder, session.workspace, progress)
            recommended, reason = recommend(entries, spec)
            shares = importance(study, spec, altered_of(records))
            result = TuneResult(
                place.key,
                place.folder,
                run.id,
                spec,
                records,
                front,
                entries,
                recommended,
                reason,
                shares,
                stages.seconds,
            )
            conclude(run, result)
    return result


def help_with(
    spec: Spec,
    workspace: Path,
    storage: str,
    trials: int | None = None,
    workers: int = 1,
    progress: Progress = silent,
) -> int:
    """Run trials of the study of `spec` in the database `storage` until it has `trials`; returns how many it has then.

    Any number of hosts may help, while `tune` runs somewhere or before it does. Raises as `tune`.
    """
    session, stages = Session(workspace, progress, workers), Stages()
    bench, _ = prepare(spec, session, stages)
    place = place_of(spec, session.workspace, storage)
    study, kept = open_study(spec, place, spec.tune.seed)
    with kept.answering(), closing(kept):
        run_trials(study, kept, bench, place, trials or spec.tune.trials, session, helper=True)
        return sum(record["state"] == "complete" for record in records_of(study, spec.tune))


def _mend(tracker: Tracker, folder: Path, progress: Progress) -> None:
    """Remove what killed processes left in the workspace and in the journal."""
    for sentence in [*tracker.tidy(), journal.mend(folder / JOURNAL)]:
        if sentence:
            progress("workspace", 1.0, sentence)


def _front(spec: Spec, records: Sequence[Mapping[str, Any]], progress: Progress) -> list[int]:
    """The Pareto front, without altered trials, which are reported. Raises `Unsolvable` when it is empty."""
    if altered := altered_of(records):
        named = ", ".join(map(str, altered))
        progress("left out", 1.0, f"the numbers of these trials are not those that were judged: {named}")
    front = front_of(records, spec.tune)
    if not front:
        raise Unsolvable(
            f"none of {len(records)} trials keeps tune.limits ({spec.tune.limits}): loosen them, widen the ranges, or "
            "give more --trials"
        )
    return front
