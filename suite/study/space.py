"""Definition of a weight study: its parameters and their ranges, its objectives and limits, its first trials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from suite.observables import RATIOS
from suite.spec import Spec
from suite.study import rivals
from suite.study.weighings import PAPER, UNIFORM, number_of

if TYPE_CHECKING:
    from optuna.trial import Trial


def basis_key(spec: Spec) -> str:
    return " ".join(map(str, spec.model.channels))


def bases_of(spec: Spec) -> list[Spec]:
    """One spec for each basis that the study may choose; the basis of `spec` itself comes first."""
    wanted = dict.fromkeys([spec.model.channels, *spec.tune.channels])
    return [spec.model_copy(update={"model": spec.model.model_copy(update={"channels": c})}) for c in wanted]


def search_space(spec: Spec) -> dict[str, tuple[float, float]]:
    """Log-uniform ranges by parameter: ratios of weights to the forces', amplitude factors, solver parameters."""
    tune, space = spec.tune, {}
    for name in RATIOS:
        limits = getattr(tune, name)
        if getattr(spec.observables, name) and limits is not None:
            space[name] = limits
    if tune.amplitudes is not None:
        for amplitude in sorted(spec.training.amplitudes)[1:]:
            space[f"amplitude@{amplitude:g}"] = tune.amplitudes
    for name in ("alpha", "threshold"):
        if getattr(tune, name) is not None:
            space[name] = getattr(tune, name)
    return space


def suggest(trial: Trial, spec: Spec) -> dict[str, Any]:
    """The parameters that the sampler of `trial` proposes."""
    values: dict[str, Any] = {
        name: trial.suggest_float(name, *limits, log=True) for name, limits in search_space(spec).items()
    }
    if spec.tune.channels:
        values["channels"] = trial.suggest_categorical("channels", [basis_key(each) for each in bases_of(spec)])
    return values


def first_trials(spec: Spec) -> list[tuple[str, dict[str, Any]]]:
    """The first two trials: the spec's own weights (the paper's, for shipped cases) and equal weights, moved into the
    ranges."""
    space = search_space(spec)
    named = []
    for name, weights in ((PAPER, spec.weights.model_dump()), (UNIFORM, rivals.uniform(spec))):
        force = weights["force"] or 1.0
        values: dict[str, Any] = {}
        for key, (low, high) in space.items():
            wanted = {"alpha": spec.solver.alpha, "threshold": spec.solver.threshold}.get(key)
            if key in weights:
                wanted = weights[key] / force
            elif key.startswith("amplitude@"):
                wanted = spec.weights.amplitudes.get(key.partition("@")[2], 1.0)
            assert wanted is not None
            values[key] = min(max(wanted, low), high)
        if spec.tune.channels:
            values["channels"] = basis_key(spec)
        named.append((name, values))
    return named


def objectives_of(spec: Spec) -> list[str]:
    """The number of a verdict that each objective minimises."""
    return [number_of(name, spec.tune) for name in spec.tune.objectives]


def limits_of(spec: Spec) -> dict[str, tuple[str, float]]:
    """The number of a verdict that each limit bounds, and the bound."""
    return {name: (number_of(name, spec.tune), limit) for name, limit in spec.tune.limits.items()}


def dimensions(spec: Spec) -> int:
    """The number of parameters of a trial."""
    return len(search_space(spec)) + bool(spec.tune.channels)
