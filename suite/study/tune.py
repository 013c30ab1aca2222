"""Weight studies: Optuna proposes, the oracle judges in milliseconds, full relaxation confirms.

    result = tune(spec, workspace, trials=200, workers=2)

A trial is scale, stack, solve, evaluate; no configuration is touched. Trials live in an Optuna journal in the
workspace, so that a study that was stopped or killed goes on when the command is given again; MLflow mirrors them, a
parent run with one child each. The paper's weights of the spec and the uniform ones are the first two trials. At the
end the best few trials and the rivals are relaxed in full. The numbers of each trial and of each verified entry carry a
seal (`suite.study.trials`): what was altered is told, left out, or computed again.

What is tried is in `space`, what judges it in `bench`, how trials run in `sampling`, what is relaxed in `candidates`,
which weighing is recommended in `weighings`, and what MLflow keeps in `mirror`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from store import journal
from store.runs import Tracker
from suite.model.regression import Unsolvable
from suite.progress import Progress, silent
from suite.spec import Spec
from suite.study.bench import prepare
from suite.study.candidates import chosen_trials, rivals_of, verified
from suite.study.mirror import conclude, mirror, run_of
from suite.study.sampling import JOURNAL, only_one, place_of, run_trials, started
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
) -> TuneResult:
    """Run or continue the study of `spec` until it has `trials` trials, verify, recommend, and write the report.

    Raises what the stages raise (`FailedRelaxation`, `NoOracle`, ...), and `StudyInUse`; a study that is killed goes on
    when it is called again.
    """
    session, stages = Session(workspace, progress, workers), Stages()
    trials, verify = trials or spec.tune.trials, verify or spec.tune.verify
    bench, grounds = prepare(spec, session, stages)
    tracker, place = Tracker(session.workspace), place_of(spec, session.workspace)
    with only_one(place.folder):
        _mend(tracker, place.folder, progress)
        study = started(spec, place)
        with run_of(tracker, spec, place) as run:
            with stages.stage("trials"):
                lost = altered_of(records_of(study, spec.tune))  # left out, so that as many more are needed
                run_trials(study, bench, place, trials + len(lost), session)
            with stages.stage("mlflow"):
                progress("MLflow", 0.0, f"{mirror(tracker, spec.case.name, run.id, study)} new trials")
            records = records_of(study, spec.tune)
            front = _front(spec, records, progress)
            with stages.stage("rivals"):
                rivals = rivals_of(bench, trials, progress)
                chosen = chosen_trials(bench, records, front, verify, rivals)
            with stages.stage("verify"):
                entries = verified([*rivals, *chosen], grounds, place.folder, progress)
            recommended, reason = recommend(entries, spec)
            shares = importance(study, spec, altered_of(records))
            result = TuneResult(
                *place, run.id, spec, records, front, entries, recommended, reason, shares, stages.seconds
            )
            conclude(run, result)
    return result


def _mend(tracker: Tracker, folder: Path, progress: Progress) -> None:
    """Clear what killed processes left in the workspace and in the journal."""
    for sentence in [*tracker.tidy(), journal.mend(folder / JOURNAL)]:
        if sentence:
            progress("workspace", 1.0, sentence)


def _front(spec: Spec, records: Sequence[Mapping[str, Any]], progress: Progress) -> list[int]:
    """The Pareto front of the trials that are believed; the others are told. Raises `Unsolvable` when it is empty."""
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
