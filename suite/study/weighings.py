"""Weighings of a study compared: the entries of its table, which one to recommend, and what predicts the errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from suite.judge.numbers import ERRORS
from suite.model.regression import Unsolvable
from suite.records import Tune
from suite.spec import Spec, dump_toml
from suite.world.relaxation import Status

# objective of a spec -> number of a verdict; the relaxed counterpart of the last two is the name without "_linear"
NUMBERS = {
    "calibrated": "calibrated_spread",
    "corrected": "corrected_spread",
    "bound_geometry": "bound_geometry",
    "bound_energy": "bound_energy",
    "bound_geometry_corrected": "bound_geometry_corrected",
    "bound_energy_corrected": "bound_energy_corrected",
    "felt": "eps_V1_felt",
    "energy_factor": "eps_K",
    "geometry": "geometry_error_linear",
    "energy": "energy_error_linear",
}
BALANCES = {"literal": "balance_spread", "calibrated": "calibrated_spread", "corrected": "corrected_spread"}
PAPER, UNIFORM = "paper", "uniform"  # names of the spec's own weights and of equal weights
SAME = 1e-3  # relative; relaxed errors that differ by less count as equal, because relaxations end within a tolerance


def number_of(objective: str, tune: Tune) -> str:
    """The number of a verdict that an objective minimises; `balance` is the one that `tune.balance` names."""
    return BALANCES[tune.balance] if objective == "balance" else NUMBERS[objective]


@dataclass(frozen=True)
class Entry:
    """A weighing in the table of a study: `predicted` numbers and, once it is verified, `relaxed` numbers and a status.
    It is either a `trial`, which may be on the Pareto `front`, or a rival."""

    name: str
    weights: dict[str, Any]
    spec: Spec
    predicted: dict[str, float]
    relaxed: dict[str, float] = field(default_factory=dict)
    status: str = ""
    trial: bool = False
    front: bool = False


@dataclass(frozen=True)
class TuneResult:
    """A finished study: its trials as records, the Pareto front (numbers of trials), verified entries, and the
    recommended one with the `reason` for it. `importance` is the share of each parameter in each objective."""

    key: str
    folder: Path
    run_id: str
    spec: Spec
    trials: list[dict[str, Any]]
    front: list[int]
    entries: list[Entry]
    recommended: Entry
    reason: str
    importance: dict[str, dict[str, float]]
    seconds: dict[str, float]

    @property
    def altered(self) -> list[int]:
        """Numbers of the trials that were left out because their numbers are not those that were judged."""
        return [trial["number"] for trial in self.trials if trial["state"] == "altered"]

    @cached_property
    def correlation(self) -> dict[str, float]:
        """Spearman's rank correlation of predicted and relaxed errors, by name."""
        return rank_correlation(self.entries)

    @cached_property
    def tension(self) -> str:
        """Whether balance and accuracy pull apart, in one sentence."""
        return pull_apart(self.entries, self.spec, self.recommended)


SPREADS = ("balance", "calibrated", "corrected")


def regret(entry: Entry, spec: Spec) -> float:
    """Sum of the objectives: ln of errors and bounds (relaxed errors where they exist) plus spreads, which are
    logarithms already. Only differences between entries have a meaning."""
    relaxed = {"geometry": "geometry_error", "energy": "energy_error"}
    total = 0.0
    for name in spec.tune.objectives:
        value = entry.relaxed.get(relaxed.get(name, ""), entry.predicted.get(number_of(name, spec.tune), math.inf))
        if name == "energy":
            value = max(value, scatter(entry, spec))
        total += value if name in SPREADS else math.log(max(value, 1e-12))
    return total


def scatter(entry: Entry, spec: Spec) -> float:
    """How much the energy error of `entry` may change with another training set, eV: the RMSE of energies at the
    smallest amplitude. The energy difference has a sign, so that weights can make it zero for one training set by
    chance."""
    return entry.predicted.get(f"rmse_E_{min(spec.training.amplitudes):g}", 0.0)


def unbeaten(errors: Sequence[float], best: Sequence[float]) -> bool:
    """Whether none of these `errors` is larger than its counterpart in `best`."""
    return all(ours <= theirs * (1 + SAME) for ours, theirs in zip(errors, best, strict=True))


def usable(entries: Sequence[Entry], spec: Spec) -> list[Entry]:
    """The verified entries whose relaxation converged and that keep the limits."""
    limits = {number_of(name, spec.tune): limit for name, limit in spec.tune.limits.items()}
    return [
        entry
        for entry in entries
        if entry.status == Status.CONVERGED.name.lower()
        and all(entry.predicted.get(name, math.inf) <= limit for name, limit in limits.items())
    ]


def recommend(entries: Sequence[Entry], spec: Spec) -> tuple[Entry, str]:
    """The verified entry to use, and why.

    Candidates are trials of the front whose relaxed errors are both no worse than those of every rival; the spec's own
    weights are one of the rivals. Of several candidates the one with the least `regret` is taken. Without a candidate,
    it is the entry, trial or rival, with the least product of geometry error and energy error; an energy error below
    its `scatter` counts as the scatter.
    Raises `regression.Unsolvable` when no entry can be used.
    """
    good = usable(entries, spec)
    if not good:
        raise Unsolvable(
            "no verified weighing gives a model that relaxes within the limits: improve the fit (basis, amplitudes, "
            "configurations), loosen tune.limits, or verify more of them with --verify"
        )
    against = [entry for entry in good if not entry.trial]
    best = [min((rival.relaxed[name] for rival in against), default=math.inf) for name in ERRORS]
    safe = [entry for entry in good if entry.front and unbeaten(_errors(entry), best)]
    if safe:
        chosen = min(safe, key=lambda entry: regret(entry, spec))
        several = f"it has the least sum of the objectives among {len(safe)} such points"
        reason = (
            "a verified point of the front whose errors are both no worse than those of the spec's own weights and of "
            f"every rival that relaxed; {several if len(safe) > 1 else 'it is the only such point'}"
        )
        return chosen, f"{reason}; its {_told_balance(chosen, spec)}."
    chosen = min(good, key=lambda entry: _product(entry, spec))
    reason = (
        "no verified point of the front is as good as the spec's own weights and every rival in both errors; this is "
        "the verified weighing with the least product of both errors (an energy error below the RMSE of the test "
        f"energies is replaced by that RMSE); its {_told_balance(chosen, spec)}"
    )
    for name, unit, least in zip(ERRORS, ("Å", "eV"), best, strict=True):
        if least * (1 + SAME) < chosen.relaxed[name]:
            rival = min(against, key=lambda entry: entry.relaxed[name])
            reason += f"; {rival.name} has the smaller {name.partition('_')[0]} error, {least:.3g} {unit}"
    return chosen, f"{reason}."


def _product(entry: Entry, spec: Spec) -> float:
    geometry, energy = _errors(entry)
    return geometry * max(energy, scatter(entry, spec))


def _errors(entry: Entry) -> list[float]:
    return [entry.relaxed[name] for name in ERRORS]


def _told_balance(entry: Entry, spec: Spec) -> str:
    spread = entry.predicted.get(number_of("balance", spec.tune), math.inf)
    return f"{spec.tune.balance} balance has a spread of {spread:.2g}"


def pull_apart(entries: Sequence[Entry], spec: Spec, chosen: Entry) -> str:
    """One sentence: does the best balanced weighing have larger errors than the `chosen` one?"""
    name = number_of("balance", spec.tune)
    balanced = min(usable(entries, spec), key=lambda entry: entry.predicted.get(name, math.inf))
    spreads = [entry.predicted.get(name, math.inf) for entry in (balanced, chosen)]
    if balanced is chosen or spreads[0] >= spreads[1]:
        return (
            f"Balance and accuracy agree here: {chosen.name} has the least spread of the {spec.tune.balance} balance."
        )
    numbers = [
        f"{entry.relaxed['geometry_error']:.3g} Å and {entry.relaxed['energy_error']:.3g} eV"
        for entry in (balanced, chosen)
    ]
    told = (
        f"{balanced.name} has the least spread of the {spec.tune.balance} balance, {spreads[0]:.2g}, and errors of "
        f"{numbers[0]}; {chosen.name} has a spread of {spreads[1]:.2g} and errors of {numbers[1]}."
    )
    worse = not unbeaten(_errors(balanced), _errors(chosen))
    return f"Balance and accuracy {'pull apart' if worse else 'agree'} here: {told}"


def rank_correlation(entries: Sequence[Entry]) -> dict[str, float]:
    """Spearman's rank correlation of relaxed errors with their predictions, the imbalances, the bounds and the elastic
    errors, over the verified entries that converged."""
    from scipy.stats import spearmanr

    good = [entry for entry in entries if "geometry_error" in entry.relaxed]
    pairs = {
        "geometry": ("geometry_error_linear", "geometry_error"),
        "energy": ("energy_error_linear", "energy_error"),
        "balance_geometry": ("balance_spread", "geometry_error"),
        "calibrated_geometry": ("calibrated_spread", "geometry_error"),
        "corrected_geometry": ("corrected_spread", "geometry_error"),
        "bound_geometry": ("bound_geometry", "geometry_error"),
        "elastic_geometry": ("eps_V1_null_free", "geometry_error"),
        "felt_geometry": ("eps_V1_felt", "geometry_error"),
        "factor_energy": ("eps_K", "energy_error"),
        "balance_energy": ("balance_spread", "energy_error"),
        "calibrated_energy": ("calibrated_spread", "energy_error"),
        "corrected_energy": ("corrected_spread", "energy_error"),
        "bound_energy": ("bound_energy", "energy_error"),
        "bound_corrected_energy": ("bound_energy_corrected", "energy_error"),
    }
    if len(good) < 3:
        return {}
    found = {}
    for name, (before, after) in pairs.items():
        # trials do not store infinite numbers, such as eps_K of a fit whose crystal is not stable
        predicted = [e.predicted.get(before, math.inf) for e in good]
        value = spearmanr(predicted, [e.relaxed[after] for e in good]).statistic
        if math.isfinite(value):
            found[name] = float(value)
    return found


def weights_toml(entry: Entry) -> str:
    """The `[weights]` table of an entry, to paste into a spec, followed by its amplitude factors if it has any."""
    tables: dict[str, Any] = {"weights": {**entry.weights, "normalisation": entry.spec.weights.normalisation}}
    if entry.spec.weights.amplitudes:
        tables["weights"]["amplitudes"] = dict(entry.spec.weights.amplitudes)
    return dump_toml(tables).lstrip()
