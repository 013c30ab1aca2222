"""Runs that are found again by their content: the points of sweeps, and the cells of leaderboards.

A point's key hashes its whole resolved spec. A finished run with that key is reused wherever it was made. It must be
whole: its store is verified and its numbers are those of the store. A run that failed for its physics stays failed; one
that was killed is computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from store import provenance
from store.faults import FailedOutcome
from store.locking import locked_file
from store.runs import RunRecord, Tracker
from store.seal import StoreError, verify
from suite.progress import Progress, silent
from suite.spec import Spec
from suite.study.cache import STAGE_PACKAGES, STAGE_VERSIONS
from suite.study.case import Case, run_in
from suite.study.session import Session, potentials_of
from suite.study.training import trainer_contents


def point_key(spec: Spec) -> str:
    """Content key of a run: its spec without the tables [case] and [tune], the content of its potentials and of its
    trainer, and the versions that its numbers depend on."""
    tables = spec.model_dump(exclude={"case", "tune"})
    packages = provenance.versions(STAGE_PACKAGES["rows"])
    trainer = [trainer_contents(spec)] if spec.model.backend == "trainer" else []  # other keys are those of old runs
    return provenance.content_key("run", tables, STAGE_VERSIONS, packages, potentials_of(spec), *trainer)


class Points:
    """The points of a workspace: those that are there are answered, others are run. With `retry` those that failed for
    their physics are run again."""

    def __init__(self, session: Session, tracker: Tracker, retry: bool = False) -> None:
        self._session, self._tracker, self._retry = session, tracker, retry
        self._made: dict[str, dict[str, list[RunRecord]]] = {}  # experiment -> key -> runs, as they were at first

    def run(self, case: Case) -> tuple[RunRecord, bool]:
        """The run of a point, and whether it was computed here; an outcome that cannot be used is recorded by `run_in`
        and returned like any other. When several processes want a point at once, the first computes it and the others
        wait. Raises what `run_in` raises, but not a `FailedOutcome`."""
        experiment, key = case.spec.case.name, point_key(case.spec)
        if experiment not in self._made:
            self._made[experiment] = {}
            for record in self._tracker.history(experiment):
                self._made[experiment].setdefault(record.tags.get("point", ""), []).append(record)
        if found := self._answer(self._made[experiment].get(key, []), self._session.progress):
            return found, False
        lock = self._session.workspace / "locks" / f"point-{key}"
        waiting = f"another process computes {case.name}"
        with locked_file(lock, lambda: self._session.progress("waiting", 0.0, waiting)):
            if found := self._answer(self._tracker.tagged(experiment, "point", key), silent):
                return found, False
            try:
                result = run_in(self._session, replace(case, tags={"point": key}))
                return self._tracker.find(result.run_id), True
            except FailedOutcome:
                return next(iter(self._tracker.tagged(experiment, "point", key))), True

    def _answer(self, made: Sequence[RunRecord], progress: Progress) -> RunRecord | None:
        """The newest reusable run of a point, with the numbers of its store; None if there is none."""
        for record in made:
            if record.status == "FAILED" and "outcome" in record.tags and not self._retry:
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
