"""Published numbers of ours, recomputed and compared within tolerances.

`specs/expected/NAME.toml` names a spec, a preset and overrides, and gives for each number its value and a
tolerance: `rel`, `abs`, or both (the larger counts). BLAS, threads and package versions change the last digits, so that
a tolerance says how well the quantity is determined, not how exact the arithmetic is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from suite.spec import BadSpec, Record, load, read_toml, specs_folder
from suite.toml import shortened


class ExpectedNumber(Record):
    """A published number, and how much a recomputed one may differ from it."""

    value: float
    rel: Annotated[float, Field(ge=0)] = 0.0
    abs: Annotated[float, Field(ge=0)] = 0.0


class Expected(Record):
    """One file of `specs/expected`."""

    spec: str
    preset: str | None = None
    set: tuple[str, ...] = ()
    numbers: Annotated[dict[str, ExpectedNumber], Field(min_length=1)]


@dataclass(frozen=True)
class Check:
    """A published number and the recomputed one (None when it is missing)."""

    name: str
    expected: float
    found: float | None
    tolerance: float

    @property
    def good(self) -> bool:
        return self.found is not None and abs(self.found - self.expected) <= self.tolerance


def published() -> dict[str, Path]:
    """Names and paths of the files of published numbers that are shipped."""
    return {path.stem: path for path in sorted((specs_folder() / "expected").glob("*.toml"))}


def read_expected(name: str) -> Expected:
    """The published numbers `name`, a shipped name or a path. Raises `BadSpec`, also when its spec does not resolve."""
    path = published().get(name, Path(name))
    if name not in published() and path.suffix != ".toml":
        raise BadSpec([f"nothing is published for {shortened(name)}; known: {', '.join(published())}"])
    try:
        expected = Expected.model_validate(read_toml(path)[1])
    except ValidationError as error:
        raise BadSpec(
            [f"{path}: {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        ) from error
    load(expected.spec, expected.preset, expected.set)
    return expected


def compare(expected: Expected, numbers: Mapping[str, Any]) -> list[Check]:
    """Compare every expected number with `numbers` of a run."""
    checks = []
    for name, wanted in expected.numbers.items():
        found = numbers.get(name)
        value = float(found) if found is not None and math.isfinite(found) else None
        checks.append(Check(name, wanted.value, value, max(wanted.rel * abs(wanted.value), wanted.abs)))
    return checks
