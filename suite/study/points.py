"""Runs that are found again by their content: the points of sweeps, and the cells of leaderboards.

A point's key hashes its whole resolved spec. A finished run with that key is reused wherever it was made. It must be
whole: its store is verified and its numbers are those of the store. A run that failed for its physics stays failed; one
that was killed is computed again.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from store import handing, provenance
from store.faults import FailedOutcome, Fault
from store.locking import locked_file
from store.runs import RunRecord, Tracker
from store.seal import StoreError, verify
from suite.execution import Cluster, the_cluster
from suite.progress import Progress, silent
from suite.spec import Spec
from suite.study.afar import Handed, compute_case, taken_over
from suite.study.cache import STAGE_PACKAGES, STAGE_VERSIONS
from suite.study.case import Case, hand_over, run_in
from suite.study.session import Session, potentials_of
from suite.study.training import trainer_contents
from suite.study.worlds import missing_entries
from suite.tasks import Task


def point_key(spec: Spec) -> str:
    """Content key of a run: `Spec.content`, the content of its potentials and of its trainer, and the versions that its
    numbers depend on."""
    packages = provenance.versions(STAGE_PACKAGES["rows"])
    trainer = [trainer_contents(spec)] if spec.model.backend == "trainer" else []  # other keys are those of old runs
    return provenance.content_key("run", spec.content(), STAGE_VERSIONS, packages, potentials_of(spec), *trainer)


@dataclass(frozen=True)
class Answer:
    """What became of a point: its run and whether it was computed now, or the fault because of which it has none."""

    record: RunRecord | None
    computed: bool
    fault: Fault | None = None

    def run(self) -> RunRecord:
        """The run; raises the fault."""
        if self.record is None:
            assert self.fault is not None
            raise self.fault
        return self.record


class Points:
    """The points of a workspace: those that are there are answered, others are run. With `retry` those that failed for
    their physics are run again."""

    def __init__(self, session: Session, tracker: Tracker, retry: bool = False) -> None:
        self._session, self._tracker, self._retry = session, tracker, retry
        self._made: dict[str, dict[str, list[RunRecord]]] = {}  # experiment -> key -> runs, as they were at first

    def run_each(self, what: str, cases: Sequence[tuple[str, Case]]) -> Iterator[tuple[int, Answer]]:
        """Index and answer of every case, given with a label, as soon as each is ready: in their order, or through the
        cluster in any order. `what` is run, for the progress and for the dashboard of a cluster."""
        cluster = the_cluster()
        ready = self._run_here(what, cases) if cluster is None else self._run_there(cluster, what, cases)
        yield from ready

    def run(self, case: Case) -> tuple[RunRecord, bool]:
        """The run of a point, and whether it was computed here; an outcome that cannot be used is recorded by `run_in`
        and returned like any other. When several processes want a point at once, the first computes it and the others
        wait. Raises what `run_in` raises, but not a `FailedOutcome`."""
        key = point_key(case.spec)
        if found := self._known(case, key):
            return found, False
        waiting = f"another process computes {case.name}"
        with locked_file(_lock(self._session, key), lambda: self._session.progress("waiting", 0.0, waiting)):
            if found := self._found(case, key):
                return found, False
            try:
                result = run_in(self._session, replace(case, tags={"point": key}))
                return self._tracker.find(result.run_id), True
            except FailedOutcome:
                return next(iter(self._tracker.tagged(case.spec.case.name, "point", key))), True

    def hand_over(self, case: Case, collector: Mapping[str, str]) -> bool:
        """Compute a point that neither the database nor the folder of `store.handing` has, and leave it in that folder,
        for the run with the tags `collector`; returns whether it was computed. Raises as `run`."""
        key = point_key(case.spec)
        if self._known(case, key):
            return False
        waiting = f"another process computes {case.name}"
        with locked_file(_lock(self._session, key), lambda: self._session.progress("waiting", 0.0, waiting)):
            if any(self._usable(record) for record in _handed(self._session, key)):
                return False
            with suppress(FailedOutcome):  # it is recorded
                hand_over(self._session, replace(case, tags={"point": key}), collector=collector)
        return True

    def _run_here(self, what: str, cases: Sequence[tuple[str, Case]]) -> Iterator[tuple[int, Answer]]:
        for index, (label, case) in enumerate(cases):
            self._session.progress(what, index / len(cases), label)
            try:
                answer = Answer(*self.run(case))
            except Fault as fault:
                answer = Answer(None, False, fault)
            yield index, answer

    def _run_there(
        self, cluster: Cluster, what: str, cases: Sequence[tuple[str, Case]]
    ) -> Iterator[tuple[int, Answer]]:
        left: dict[str, list[int]] = {}
        for index, (_, case) in enumerate(cases):
            left.setdefault(point_key(case.spec), []).append(index)
        look = self._known
        while True:
            for key, indices in [*left.items()]:
                if found := look(cases[indices[0]][1], key):
                    yield from ((index, Answer(found, False)) for index in left.pop(key))
            look = self._found
            if not left:
                return
            keys = [*left]
            chosen = [cases[left[key][0]] for key in keys]
            tasks = [
                _task(what, label, replace(case, tags={"point": key}), self._session, key)
                for key, (label, case) in zip(keys, chosen, strict=True)
            ]
            for position, result in cluster.run_tasks(tasks):
                key, label = keys[position], tasks[position].name
                case, _, run_id, _ = tasks[position].arguments
                taken = taken_over(self._tracker, case, run_id, result)
                if taken is None:  # another command was computing it: look for its run
                    continue
                answer = Answer(None, False, taken) if isinstance(taken, Fault) else Answer(taken, True)
                first, *others = left.pop(key)
                done = 1 - sum(map(len, left.values())) / len(cases)
                self._session.progress(what, done, f"{label}: {_ended(answer)}; {len(left)} points left")
                yield first, answer
                yield from ((index, replace(answer, computed=False)) for index in others)

    def _known(self, case: Case, key: str) -> RunRecord | None:
        """The run of a point as the database was when these points began."""
        experiment = case.spec.case.name
        if experiment not in self._made:
            self._made[experiment] = {}
            for record in self._tracker.history(experiment):
                self._made[experiment].setdefault(record.tags.get("point", ""), []).append(record)
        return self._answer(self._made[experiment].get(key, []), self._session.progress)

    def _found(self, case: Case, key: str) -> RunRecord | None:
        """The run of a point as the database is now."""
        return self._answer(self._tracker.tagged(case.spec.case.name, "point", key), silent)

    def _usable(self, record: Mapping[str, Any]) -> bool:
        """Whether a record stands for its point: that of a finished run, or of one that failed for its physics."""
        return record["status"] == "FINISHED" or self._stays_failed(record["status"], record["tags"])

    def _stays_failed(self, status: str, tags: Mapping[str, str]) -> bool:
        """Whether a run failed for its physics, and is not to be tried again."""
        return status == "FAILED" and "outcome" in tags and not self._retry

    def _answer(self, made: Sequence[RunRecord], progress: Progress) -> RunRecord | None:
        """The newest reusable run of a point, with the numbers of its store; None if there is none."""
        for record in made:
            if self._stays_failed(record.status, record.tags):
                return record
            if record.status != "FINISHED":
                continue
            found = self._tracker.believe(record)
            try:
                if found.sealed:
                    verify(self._tracker.store_of(record.id))
                    return found.record
                reason = found.note
            except StoreError as error:
                reason = str(error)
            progress("computed again", 1.0, f"{record.name} ({record.id[:8]}): {reason}")
        return None


def _task(what: str, label: str, case: Case, session: Session, key: str) -> Task:
    arguments = (case, session.workspace, uuid.uuid4().hex, key)
    return Task(what, label, compute_point, arguments, missing_entries(case.spec, session.workspace))


def compute_point(case: Case, workspace: Path, run_id: str, key: str) -> Handed:
    """Compute a point in a worker of a cluster, and hand its run over; an empty answer if another process is at it."""
    session, waited = Session(workspace), []
    with locked_file(_lock(session, key), lambda: waited.append(True)):
        return Handed() if waited else compute_case(case, workspace, run_id)


def _lock(session: Session, key: str) -> Path:
    return session.workspace / "locks" / f"point-{key}"


def _handed(session: Session, key: str) -> list[dict[str, Any]]:
    return [record for record in handing.waiting(session.workspace) if record["tags"].get("point") == key]


def _ended(answer: Answer) -> str:
    if answer.record is None:
        return "failed"
    return answer.record.tags.get("outcome", answer.record.status.lower())
