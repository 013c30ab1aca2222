"""Weighings of a study side by side: entries of its table, which one to recommend, and what predicts the errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from suite.model.regression import Unsolvable
from suite.spec import Spec, dump_toml
from suite.world.relaxation import Status

# objective of a spec -> number of a verdict; the relaxed counterpart of the last two is the name without "_linear"
NUMBERS = {
    "balance": "balance_spread",
    "calibrated": "calibrated_spread",
    "bound_geometry": "bound_geometry",
    "bound_energy": "bound_energy",
    "felt": "eps_V1_felt",
    "energy_factor": "eps_K",
    "geometry": "geometry_error_linear",
    "energy": "energy_error_linear",
}


@dataclass(frozen=True)
class Entry:
    """A weighing in the table of a study: `predicted` numbers; once verified the `relaxed` ones and a status."""

    name: str
    weights: dict[str, Any]
    spec: Spec
    predicted: dict[str, float]
    relaxed: dict[str, float] = field(default_factory=dict)
    status: str = ""


SPREADS = ("balance", "calibrated")


def regret(entry: Entry, spec: Spec) -> float:
    """Sum over the objectives, in natural logarithms: of errors and bounds, relaxed where they are, and of spreads,
    which are logarithms already. Only differences mean something."""
    relaxed = {"geometry": "geometry_error", "energy": "energy_error"}
    total = 0.0
    for name in spec.tune.objectives:
        value = entry.relaxed.get(relaxed.get(name, ""), entry.predicted[NUMBERS[name]])
        total += value if name in SPREADS else math.log(max(value, 1e-12))
    return total


def recommend(entries: Sequence[Entry], spec: Spec) -> Entry:
    """The verified entry to use, trial or rival: the one of least `regret` among those whose relaxation converged and
    that keep the limits. Raises `regression.Unsolvable` when there is none."""
    usable = [
        entry
        for entry in entries
        if entry.status == Status.CONVERGED.name.lower()
        and all(entry.predicted[NUMBERS[name]] <= limit for name, limit in spec.tune.limits.items())
    ]
    if not usable:
        raise Unsolvable(
            "no verified weighing gives a model that relaxes within the limits: improve the fit (basis, amplitudes, "
            "configurations), loosen tune.limits, or verify more of them with --verify"
        )
    return min(usable, key=lambda entry: regret(entry, spec))


def rank_correlation(entries: Sequence[Entry]) -> dict[str, float]:
    """Spearman's correlation over the verified entries that converged: of prediction with relaxation, and of the
    relaxed errors with the imbalances, the bound and the elastic errors."""
    from scipy.stats import spearmanr

    good = [entry for entry in entries if "geometry_error" in entry.relaxed]
    pairs = {
        "geometry": ("geometry_error_linear", "geometry_error"),
        "energy": ("energy_error_linear", "energy_error"),
        "balance_geometry": ("balance_spread", "geometry_error"),
        "calibrated_geometry": ("calibrated_spread", "geometry_error"),
        "bound_geometry": ("bound_geometry", "geometry_error"),
        "elastic_geometry": ("eps_V1_null_free", "geometry_error"),
        "felt_geometry": ("eps_V1_felt", "geometry_error"),
        "factor_energy": ("eps_K", "energy_error"),
        "balance_energy": ("balance_spread", "energy_error"),
        "calibrated_energy": ("calibrated_spread", "energy_error"),
        "bound_energy": ("bound_energy", "energy_error"),
    }
    if len(good) < 3:
        return {}
    found = {}
    for name, (before, after) in pairs.items():
        # trials do not keep what is infinite, as eps_K is where the crystal of a fit is not stable
        predicted = [e.predicted.get(before, math.inf) for e in good]
        value = spearmanr(predicted, [e.relaxed[after] for e in good]).statistic
        if math.isfinite(value):
            found[name] = float(value)
    return found


def weights_toml(entry: Entry) -> str:
    """The `[weights]` table of an entry, to paste into a spec; other tables that the trial changed follow."""
    tables: dict[str, Any] = {"weights": {**entry.weights, "normalisation": entry.spec.weights.normalisation}}
    if entry.spec.weights.amplitudes:
        tables["weights"]["amplitudes"] = dict(entry.spec.weights.amplitudes)
    return dump_toml(tables).lstrip()
