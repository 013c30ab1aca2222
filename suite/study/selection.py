"""Which runs of a list are wanted, and what is shown of them: `--where`, `--columns` and `--sort` of `dislobench runs`.

    wanted = [read_condition(text) for text in ("geometry_error < 0.1", "seed = 0")]
    chosen = select(records, wanted)

A name stands for a number, a parameter or a tag of a run, looked for in this order, or for one of `ATTRIBUTES`.
`metrics.NAME`, `params.NAME` and `tags.NAME` say which, as in MLflow.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from store.faults import BadInput
from store.runs import RunRecord

ATTRIBUTES: dict[str, Callable[[RunRecord], str]] = {
    "id": lambda record: record.id,
    "name": lambda record: record.name,
    "case": lambda record: record.experiment,
    "status": lambda record: record.status,
    "kind": lambda record: record.kind,
    "started": lambda record: record.start[:19],
}
_PARTS = {"metrics": "metrics", "params": "parameters", "tags": "tags"}
_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_FORM = re.compile(r"\s*(?P<name>[^<>=!~]+?)\s*(?P<sign><=|>=|!=|==|=|<|>|~)\s*(?P<value>.+?)\s*")


class BadCondition(BadInput, ValueError):
    """A condition that cannot be read, or compares what has no order."""


class UnknownName(BadInput, LookupError):
    """No run has anything of this name."""


@dataclass(frozen=True)
class Condition:
    """`name sign value`: numbers are compared as numbers, other text as text, and `~` asks whether text contains the
    value."""

    name: str
    sign: str
    value: str

    def holds(self, record: RunRecord) -> bool:
        """Whether the run satisfies it; a run without the name does not. Raises BadCondition for text that is compared
        by order."""
        found = value_of(record, self.name)
        if found is None:
            return False
        if self.sign == "~":
            return self.value.lower() in str(found).lower()
        here, wanted = _number(found), _number(self.value)
        if self.sign in _SIGNS:
            if here is None or wanted is None:
                raise BadCondition(
                    f"{self.name} {self.sign} {self.value}: {str(found) if here is None else self.value!r} is no "
                    "number; text can be compared with =, != and ~ (contains)"
                )
            return _SIGNS[self.sign](here, wanted)
        same = str(found) == self.value if here is None or wanted is None else here == wanted
        return same == (self.sign != "!=")


def read_condition(text: str) -> Condition:
    """The condition that `text` writes, such as "geometry_error < 0.1". Raises BadCondition."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise BadCondition(
            f"{text!r} is no condition: write a name, one of < <= > >= = != ~, and a value, such as "
            "'geometry_error < 0.1'"
        )
    return Condition(found["name"], "=" if found["sign"] == "==" else found["sign"], found["value"].strip("'\""))


def select(records: Sequence[RunRecord], conditions: Sequence[Condition]) -> list[RunRecord]:
    """The runs that satisfy all conditions, in order. Raises `UnknownName`, and BadCondition as `Condition.holds`."""
    refuse_unknown((condition.name for condition in conditions), records)
    return [record for record in records if all(condition.holds(record) for condition in conditions)]


def by(name: str, records: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs sorted by a name: numbers before text, and last the runs that lack it. Raises `UnknownName`."""
    refuse_unknown([name], records)

    def place(record: RunRecord) -> tuple[int, float, str]:
        found = value_of(record, name)
        number = None if found is None else _number(found)
        return (2 if found is None else int(number is None)), number or 0.0, str(found)

    return sorted(records, key=place)


def value_of(record: RunRecord, name: str) -> float | str | None:
    """What `name` stands for in this run; None if it has nothing of this name."""
    part, _, rest = name.partition(".")
    if rest and part in _PARTS:
        found: float | str | None = getattr(record, _PARTS[part]).get(rest)
        return found
    for each in (record.metrics, record.parameters, record.tags):
        if name in each:
            return each[name]
    return ATTRIBUTES[name](record) if name in ATTRIBUTES else None


def refuse_unknown(names: Iterable[str], records: Sequence[RunRecord]) -> None:
    """Raises `UnknownName`, with the name that is meant, for one that no run has; without runs every name is good."""
    for name in names:
        if records and name not in ATTRIBUTES and all(value_of(record, name) is None for record in records):
            from suite.text import printable
            from suite.toml import did_you_mean

            known = {each: None for r in records for each in (*r.metrics, *r.parameters, *r.tags)}
            hint = did_you_mean(name, [*ATTRIBUTES, *known])
            raise UnknownName(
                f"no run here has a number, parameter or tag {printable(name)!r}{hint}; "
                "`dislobench runs --json` shows all that there are"
            )


def _number(value: float | str) -> float | None:
    try:
        found = float(value)
    except ValueError:
        return None
    return None if math.isnan(found) else found
