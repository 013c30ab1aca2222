"""Cases that the workers of a cluster compute: they hand sealed runs over, and this process writes the database.

What a worker is given and what it tells is small; the fields go from it to the workspace, and nowhere else.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from store import handing
from store.faults import FailedOutcome, Fault
from store.runs import RunRecord, Tracker
from suite import pipeline
from suite.execution import Cluster, LostWorkers
from suite.judge.numbers import group_of
from suite.results import Rows, Simulation, World
from suite.spec import Spec, remember_code
from suite.study.cache import cached_rows, cached_world
from suite.study.case import Case, failed_run, hand_over
from suite.study.session import Session, Stages
from suite.study.worlds import missing_entries
from suite.tasks import Task


class FaultOfWorker(Fault):
    """A fault that ended a case in a worker, with its message and its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


class Handed(NamedTuple):
    """What a worker tells of a case: the run that it has handed over, or a fault, or neither if it did nothing."""

    run_id: str = ""
    error: str = ""
    exit_code: int = 0


# --- in a worker --------------------------------------------------------------------------------------------------

_kept: dict[str, Simulation] = {}  # the last simulation of this worker, as `Session.kept`


def compute_case(case: Case, workspace: Path, run_id: str) -> Handed:
    """Compute a case, and hand its run over."""
    if any(record["id"] == run_id for record in handing.waiting(workspace)):
        return Handed(run_id)  # by a worker that was killed before it could tell
    remember_code(case.spec)
    try:
        hand_over(Session(workspace, kept=_kept), case, run_id)
    except FailedOutcome:
        pass  # it is recorded
    except Fault as fault:
        return Handed(run_id, str(fault), fault.exit_code)
    return Handed(run_id)


def compute_verdict(spec: Spec, workspace: Path, names: Sequence[str]) -> tuple[dict[str, float], str]:
    """Fit and relax `spec` in full, with cells and rows from the cache: those of its numbers that have these `names`,
    and its status."""
    remember_code(spec)
    session, stages = Session(workspace, kept=_kept), Stages()
    world = cached_world(spec, session, stages)
    return verdict_of(spec, world, cached_rows(spec, world, session, stages), names)


def verdict_of(spec: Spec, world: World, rows: Rows, names: Sequence[str]) -> tuple[dict[str, float], str]:
    """As `compute_verdict`, with `world` and `rows` at hand."""
    verdict = pipeline.assess(spec, world, rows, pipeline.fit(spec, rows))
    found = {name: float(verdict.numbers[name]) for name in names if name in verdict.numbers}
    return found, verdict.status.name.lower()


# --- in the process that writes the database ----------------------------------------------------------------------


def taken_over(tracker: Tracker, case: Case, run_id: str, result: Any) -> RunRecord | Fault | None:
    """The run of a case, taken over from its worker, or the fault that ended it; None when the worker did nothing.

    `result` is what `Cluster.run_tasks` gives. Raises an exception that is no fault, after its run has been taken over.
    """
    if isinstance(result, LostWorkers):
        return tracker.find(failed_run(tracker, case, result))
    handing.take_over(tracker, run_id, alone=True)
    match result:
        case Handed(error=str(error)) if error:
            return FaultOfWorker(error, result.exit_code)
        case Handed(run_id=str(key)):
            return tracker.find(key) if key else None
    raise result


def run_through(
    cluster: Cluster, cases: Mapping[str, Case], session: Session
) -> Iterator[tuple[str, RunRecord | Fault]]:
    """Run every case on a worker of `cluster`: name and run of each, or its fault, as they end."""
    tracker = Tracker(session.workspace, group_of)
    names, tasks = [*cases], []
    for name, case in cases.items():
        arguments = (case, session.workspace, uuid.uuid4().hex)
        tasks.append(Task("case", name, compute_case, arguments, missing_entries(case.spec, session.workspace)))
    for done, (index, result) in enumerate(cluster.run_tasks(tasks), start=1):
        case, _, run_id = tasks[index].arguments
        session.progress("cases", done / len(tasks), names[index])
        taken = taken_over(tracker, case, run_id, result)
        assert taken is not None
        yield names[index], taken
