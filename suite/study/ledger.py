"""The list of runs of a workspace. Numbers come from the sealed stores; trials and points are counted in their
parent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from store.runs import RunRecord, Tracker
from store.sealed import Believed


@dataclass(frozen=True)
class Row:
    """One line of the list: a run, what is wrong with it ("" if nothing is), and how many runs are folded into it."""

    record: RunRecord
    note: str
    folded: int

    def content(self) -> dict[str, Any]:
        """The row as plain JSON."""
        return {**self.record.__dict__, "note": self.note, "folded": self.folded}


def ledger(tracker: Tracker, case: str | None = None, trials: bool = False, points: bool = False) -> list[Row]:
    """Rows of all runs, or of one case, newest first; each has the numbers of its sealed store.

    Trials of a study and points of a sweep are counted in the row of their parent, unless `trials` or `points` are
    wanted. Raises WorkspaceError as `Tracker.history`.
    """
    records = tracker.history(case)
    kinds = {record.id: record.kind for record in records}
    hidden = {kind for kind, wanted in (("study", trials), ("sweep", points)) if not wanted}
    folded: dict[str, int] = {}
    shown = []
    for record in records:
        if record.parent is not None and kinds.get(record.parent) in hidden:
            folded[record.parent] = folded.get(record.parent, 0) + 1
        else:
            shown.append(record)
    return [Row(each.record, each.note, folded.get(each.record.id, 0)) for each in map(tracker.believe, shown)]


def believed(tracker: Tracker, reference: str) -> Believed:
    """The run that `reference` names, with the numbers of its sealed store; raises what `Tracker.find` raises."""
    return tracker.believe(tracker.find(reference))
