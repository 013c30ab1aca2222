"""Trials of a study: the seals of their numbers, the Pareto front of those with a valid seal, and the journal file."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from store import provenance
from store.seal import StoreError, writing
from suite.records import Tune
from suite.spec import Spec
from suite.study.space import dimensions
from suite.study.weighings import number_of

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from suite.study.journaling import Journal


def seal_of(number: int, parameters: Mapping[str, Any], numbers: Mapping[str, float]) -> str:
    """The seal of a trial: a digest of its own number, its parameters and its numbers."""
    return provenance.content_key("trial", number, dict(parameters), dict(numbers))


def altered(trial: FrozenTrial, tune: Tune) -> bool:
    """Whether a complete trial was changed: its numbers do not match the seal, or its objectives not its numbers."""
    numbers = trial.user_attrs.get("numbers", {})
    if trial.user_attrs.get("seal") != seal_of(trial.number, trial.params, numbers):
        return True
    return list(trial.values) != [numbers.get(number_of(name, tune)) for name in tune.objectives]


def record_of(trial: FrozenTrial, tune: Tune) -> dict[str, Any]:
    """A trial in plain types; its state is "altered" when it was changed after it was judged."""
    state = trial.state.name.lower()
    return {
        "number": trial.number,
        "state": "altered" if state == "complete" and altered(trial, tune) else state,
        "name": trial.user_attrs.get("name", ""),
        "parameters": dict(trial.params),
        "numbers": dict(trial.user_attrs.get("numbers", {})),
        "values": list(trial.values or []),
    }


def records_of(study: Study, tune: Tune) -> list[dict[str, Any]]:
    """`record_of` every trial of a study."""
    return [record_of(trial, tune) for trial in study.get_trials(deepcopy=False)]


def altered_of(records: Sequence[Mapping[str, Any]]) -> list[int]:
    """Numbers of the trials that were changed after they were judged."""
    return [record["number"] for record in records if record["state"] == "altered"]


def front_of(records: Sequence[Mapping[str, Any]], tune: Tune) -> list[int]:
    """Numbers of the trials on the Pareto front of those that are complete and keep the limits."""
    good = [
        record
        for record in records
        if record["state"] == "complete"
        and all(record["numbers"][number_of(name, tune)] <= limit for name, limit in tune.limits.items())
    ]
    if not good:
        return []
    values = np.array([record["values"] for record in good])
    return sorted(
        record["number"]
        for record, own in zip(good, values, strict=True)
        if not ((values <= own).all(axis=1) & (values < own).any(axis=1)).any()
    )


def importance(study: Study, spec: Spec, altered: Container[int]) -> dict[str, dict[str, float]]:
    """Share of each parameter in the variance of each objective (fANOVA of Optuna), without the trials that were
    `altered`; empty with one parameter or too few trials."""
    import optuna

    good = [trial for trial in study.get_trials(deepcopy=False) if trial.number not in altered]
    if dimensions(spec) < 2 or len(good) < 10:
        return {}
    believed = optuna.create_study(directions=["minimize"] * len(spec.tune.objectives))
    believed.add_trials(trial for trial in good if trial.state.is_finished())
    found: dict[str, dict[str, float]] = {}
    for index, name in enumerate(spec.tune.objectives):

        def value(trial: FrozenTrial, index: int = index) -> float:
            return math.log(max(trial.values[index], 1e-12))

        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=spec.tune.seed)
        found[name] = dict(optuna.importance.get_param_importances(believed, evaluator=evaluator, target=value))
    return found


def open_journal(path: Path) -> Journal:
    """The journal at `path` as Optuna's storage; a write that fails, as on a full disk, is undone.

    Raises StoreError for a journal whose entries contradict each other, and later, when the disk cannot be written.
    """
    from suite.study.journaling import Backend, Journal

    with writing(path):
        try:
            return Journal(Backend(path))
        except (AssertionError, KeyError, IndexError, TypeError, ValueError) as error:
            raise StoreError(
                path,
                f"its entries contradict each other ({type(error).__name__}: {error})",
                "put back a copy of the file, or move it away to begin the study anew",
            ) from error
