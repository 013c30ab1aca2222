"""Runs side by side: the settings that differ, then the numbers that differ, those that matter first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from store.runs import RunRecord
from suite.judge.numbers import NUMBERS, SHOWN, number


@dataclass(frozen=True)
class Line:
    """A setting or a number of several runs; None where a run has none."""

    name: str
    values: tuple[Any, ...]

    @property
    def same(self) -> bool:
        return all(value == self.values[0] for value in self.values)

    @property
    def ratio(self) -> float | None:
        """Of two runs, the second number over the first; of more, the largest over the smallest magnitude."""
        if any(value is None for value in self.values):
            return None
        first, last = self.values[0], self.values[-1]
        if len(self.values) > 2:
            first, last = min(map(abs, self.values)), max(map(abs, self.values))
        return last / first if first and math.isfinite(first) else None


@dataclass(frozen=True)
class Compared:
    """Runs, the settings in which they differ, their outcomes, and all their numbers in the order of the table of
    numbers."""

    runs: tuple[RunRecord, ...]
    settings: list[Line]
    outcomes: Line
    numbers: list[Line]

    def telling(self) -> list[Line]:
        """The numbers that the table of a run shows, if they differ: no constants, no costs."""
        found = {line.name: line for line in self.numbers}
        return [found[name] for name in SHOWN if name in found and not found[name].same]


def compare(runs: Sequence[RunRecord]) -> Compared:
    """Compare two runs or more."""
    settings = [Line(name, tuple(r.parameters.get(name) for r in runs)) for name in sorted(_names(runs, "parameters"))]
    numbers = [
        Line(name, tuple(r.metrics.get(name) for r in runs)) for name in sorted(_names(runs, "metrics"), key=_place)
    ]
    outcomes = Line("outcome", tuple(r.tags.get("outcome", r.status.lower()) for r in runs))
    return Compared(tuple(runs), [line for line in settings if not line.same], outcomes, numbers)


def differing(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Names of the settings that are not the same in all, in the order in which they were given."""
    names = dict.fromkeys(name for each in settings for name in each)
    return [name for name in names if len({each.get(name) for each in settings}) > 1]


def _names(runs: Iterable[RunRecord], part: str) -> list[str]:
    return list(dict.fromkeys(name for record in runs for name in getattr(record, part)))


_PLACES = {name: place for place, name in enumerate(NUMBERS)}


def _place(name: str) -> tuple[int, str]:
    """The table of numbers first, each number of one amplitude after the number of all; then everything else."""
    found = number(name)
    return (len(NUMBERS), name) if found is None else (_PLACES.get(name, _PLACES.get(found.under, 0)), name)
