"""A study in MLflow: a parent run, its finished trials as children, and its result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from store.runs import FinishedRun, Run, Tracker
from suite.show.notes import study_note
from suite.show.tune_report import write_report
from suite.spec import Spec
from suite.study.described import parameters, run_name
from suite.study.keeping import Place
from suite.study.weighings import TuneResult

if TYPE_CHECKING:
    from optuna.study import Study


def run_of(tracker: Tracker, spec: Spec, place: Place) -> Run:
    """The run of the study, which is the parent of its trials. The run of an earlier call is continued."""
    run = tracker.start_or_resume(
        spec.case.name,
        f"study {run_name(spec)} {place.key[:8]}",
        parameters(spec),
        {"study": place.key, "kind": "study", "folder": place.folder.name},
        known_by="study",
    )
    run.text("spec.toml", spec.to_toml())
    return run


def mirror(tracker: Tracker, experiment: str, parent: str, study: Study) -> int:
    """Log the finished trials that MLflow does not have yet, and delete those that are no longer in the journal;
    returns how many were logged."""
    import optuna

    children_of = tracker.children(parent)
    known = {
        (r.tags.get("trial"), r.tags.get("seal", "")): r.id
        for r in children_of
        if r.status != "RUNNING"  # a server that stopped answering has half of it
    }
    finished = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL))
    journaled = {(str(trial.number), trial.user_attrs.get("seal", "")) for trial in finished}
    good = {run_id for key, run_id in known.items() if key in journaled}  # one of each, whoever logged it
    tracker.discard([r.id for r in children_of if r.id not in good])
    children = []
    for trial in finished:
        seal = trial.user_attrs.get("seal", "")
        if (str(trial.number), seal) in known:
            continue
        named = trial.user_attrs.get("name", "")
        complete = trial.state == optuna.trial.TrialState.COMPLETE
        children.append(
            FinishedRun(
                name=f"trial {trial.number}{f' ({named})' if named else ''}",
                parameters=_axes_of(trial.params),
                metrics=trial.user_attrs.get("numbers", {}),
                tags={"trial": str(trial.number), "kind": "trial", **({"seal": seal} if seal else {})},
                status="FINISHED" if complete else "FAILED",
                start=trial.datetime_start.timestamp() if trial.datetime_start else None,
                end=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
            )
        )
    tracker.log_batch_of_runs(experiment, parent, children)
    return len(children)


def _axes_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a trial for MLflow's parallel coordinates: ratios as log10, because its axes are linear."""
    return {
        f"log10_{name}".replace("@", "_") if isinstance(value, float) else name: (
            round(math.log10(value), 4) if isinstance(value, float) else value
        )
        for name, value in values.items()
    }


def conclude(run: Run, result: TuneResult) -> None:
    """Write the report, and record it and the numbers of the recommended weighing in the run of the study."""
    for path in write_report(result):
        run.artifact(path)
    best = result.recommended
    run.metrics({f"best_{k}": v for k, v in best.predicted.items()})
    run.metrics({f"best_{k}_relaxed": v for k, v in best.relaxed.items()})
    run.metrics({f"correlation_{k}": v for k, v in result.correlation.items()})
    run.metrics({f"seconds_{k}": v for k, v in result.seconds.items()} | {"trials": len(result.trials)})
    run.tags({"recommended": best.name, "outcome": best.status})
    run.describe(study_note(result))
