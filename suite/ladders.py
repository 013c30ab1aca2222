"""The points of a sweep: which runs it asks for, and what is wrong with a ladder as such."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from suite.judge.numbers import NUMBERS, NUMBERS_OF_AMPLITUDES
from suite.judge.theory import SETTINGS
from suite.records import Spec, Sweep
from suite.toml import did_you_mean, shortened


@dataclass(frozen=True)
class Axis:
    """What a sweep can be measured against besides the numbers of its runs: a size, in a0. Its asymptotic end is the
    large one. `value` of a run follows from its spec and its numbers, which are empty when it failed (None: unknown);
    `key` is the key of the spec that the size is, if it is one."""

    label: str
    value: Callable[[Spec, Mapping[str, float]], float | None]
    key: str = ""


AXES: dict[str, Axis] = {
    "L": Axis("L, half width of the training cell [a₀]", lambda spec, numbers: spec.training.size, "training.size"),
    "N": Axis("N, width of the simulation cell [a₀]", lambda spec, numbers: spec.simulation.size, "simulation.size"),
    "log_L_D": Axis(
        "log L_D, of the distance of the dislocations in a₀",
        lambda spec, numbers: math.log(numbers["core_distance"]) if numbers else None,
    ),
}
MOST_POINTS = 10_000
# keys of [matching] that some numbers need
_KEYS = {"hessian": "hessian = true", "neighbourhood": "neighbourhood = 3.0"}


def points_of(sweep: Sweep) -> list[tuple[dict[str, Any], int, str]]:
    """(values of the ladders, seed, setting) of every point, in order: settings innermost, for they share world and
    rows.
    """
    names = list(sweep.ladders)
    combine = zip(*sweep.ladders.values(), strict=True) if sweep.zip else product(*sweep.ladders.values())
    return [
        (dict(zip(names, values, strict=True)), seed, setting)
        for values in combine
        for seed in sweep.seeds
        for setting in settings_of(sweep)
    ]


def settings_of(sweep: Sweep) -> dict[str, dict[str, Any]]:
    """The curves that are run at every point of the ladders, by name, and the keys that each sets: the settings of the
    ablation, the variants, or nothing."""
    if sweep.ablation:
        observed = {name: SETTINGS[name].items() for name in SETTINGS}
        return {name: {f"observables.{each}": on for each, on in items} for name, items in observed.items()}
    return sweep.variants or {"": {}}


def curve_of(sweep: Sweep, values: Mapping[str, Any], setting: str) -> str:
    """Name of the curve that a point belongs to: its setting or variant, the value of the ladder `sweep.curves`, both,
    or neither."""
    curve = short_label({sweep.curves: values[sweep.curves]}) if sweep.curves else ""
    return ", ".join(filter(None, [setting, curve]))


def overrides_of(sweep: Sweep, values: Mapping[str, Any], seed: int, setting: str) -> dict[str, Any]:
    """What a point sets, by key of the spec."""
    return {**sweep.set, "training.seed": seed, **values, **settings_of(sweep)[setting]}


def label(values: Mapping[str, Any]) -> str:
    """The values of the ladders at a point, in words."""
    return ", ".join(f"{key} = {shortened(value)}" for key, value in values.items())


def short_label(values: Mapping[str, Any]) -> str:
    """The same with N and L for the sizes and without the tables of other keys; what two tables share stands once."""
    symbols = {axis.key: symbol for symbol, axis in AXES.items()}
    parts = (f"{symbols.get(key, key.partition('.')[2])} = {shortened(value)}" for key, value in values.items())
    return ", ".join(dict.fromkeys(parts))


def numbers_of(spec: Spec) -> list[str]:
    """Names of the numbers that a run of `spec` has."""
    from suite.world.dislocation import dislocations

    amplitudes = [f"{a:g}" for a in spec.training.amplitudes]
    entry = dislocations().get((spec.material.lattice, spec.dislocation.kind, spec.dislocation.variant))
    had = {
        "": True,
        "split": entry is not None and entry.fault is not None,
        "hessian": spec.matching.hessian,
        "neighbourhood": spec.matching.neighbourhood is not None,
    }
    every = [name for name, number in NUMBERS.items() if had[number.needs]]
    return [*every, *(f"{name}_{a}" for name in NUMBERS_OF_AMPLITUDES for a in amplitudes)]


def wrong_ladders(sweep: Sweep) -> Iterator[tuple[str, str]]:
    """What is wrong with a sweep, whatever its spec says: (key of the sweep, sentence)."""
    groups: list[tuple[str, Mapping[str, Any]]] = [("ladders", sweep.ladders), ("set", sweep.set)]
    for group, keys in [*groups, *(("variants", keys) for keys in sweep.variants.values())]:
        yield from ((group, reason) for key in keys if (reason := _wrong_key(key, sweep)))
    if sweep.curves and sweep.curves not in sweep.ladders:
        hint = did_you_mean(sweep.curves, list(sweep.ladders))
        yield "curves", f"{sweep.curves!r} is none of the ladders ({', '.join(sweep.ladders)}){hint}"
    if sweep.curves and sweep.ablation:
        yield "curves", "the settings of the ablation are the curves already: write ablation = false"
    if sweep.variants and sweep.ablation:
        yield "variants", "the settings of the ablation are the curves already: write ablation = false"
    if "" in sweep.variants:
        yield "variants", "a variant needs a name"
    if sweep.law == "logarithm" and sweep.against != "log_L_D":
        yield "law", 'only against = "log_L_D" is there a prediction of a growth with the logarithm'
    if sweep.law == "logarithm" and sweep.expect:
        yield "expect", "with law = 'logarithm' the constants of each model say what to expect: remove it"
    for key in sweep.ladders:
        varied = {k for keys in sweep.variants.values() for k in keys}
        for other in [*sweep.set, *varied, *(k for k in sweep.ladders if k != key)]:
            if f"{key}.".startswith(f"{other}."):
                yield "ladders", f"{key!r} is in ladders, and {other!r} sets it too: remove one of them"
    if sweep.zip:
        if len({len(values) for values in sweep.ladders.values()}) > 1:
            yield "ladders", "with zip all ladders must be equally long"
            return
        if twice := _twice(list(zip(*sweep.ladders.values(), strict=True))):
            yield "ladders", f"the values {shortened(list(twice))} come twice: a run counts once, so remove them"
    else:
        for key, values in sweep.ladders.items():
            if (twice := _twice(values)) is not None:
                yield "ladders", f"{key} has {shortened(twice)} twice: a run counts once, so remove it"
    if (twice := _twice(sweep.seeds)) is not None:
        yield "seeds", f"{twice} comes twice: a run counts once, so remove it"
    lengths = [len(values) for values in sweep.ladders.values()]
    count = (lengths[0] if sweep.zip else math.prod(lengths)) * len(sweep.seeds) * len(settings_of(sweep))
    if count > MOST_POINTS:
        yield "ladders", f"{count} runs are more than {MOST_POINTS}: use fewer values, or zip = true"


def _wrong_key(key: str, sweep: Sweep) -> str | None:
    table, _, rest = key.partition(".")
    record: Any = Spec.model_fields[table].annotation if table in Spec.model_fields else None
    if rest.partition(".")[0] not in getattr(record, "model_fields", {}):
        every = [f"{t}.{k}" for t, f in Spec.model_fields.items() for k in f.annotation.model_fields]  # type: ignore[union-attr]
        return f"no key {key!r} in a spec{did_you_mean(key, every)}"
    if table in ("case", "tune"):
        return f"{key!r} changes no number of a run: a ladder over it would count one run several times; remove it"
    if key == "training.seed":
        return f"{key!r} is what seeds is for: write seeds = [0, 1, 2]"
    switched = {f"observables.{name}" for setting in SETTINGS.values() for name in setting}
    if sweep.ablation and key in switched:
        return f"ablation switches {key!r} at every point: write ablation = false, or remove the key"
    return None


def _twice(values: tuple[Any, ...] | list[Any]) -> Any:
    """The first of `values` that comes again, or None."""
    for place, value in enumerate(values[:MOST_POINTS]):
        if value in values[:place]:
            return value
    return None


def wrong_axis(sweep: Sweep, specs: list[Spec]) -> str | None:
    """Why no rate can be measured against `sweep.against` over the resolved `specs` of its points, or None."""
    if sweep.against in AXES:
        key = AXES[sweep.against].key
        if not key:
            return None
        table, name = key.split(".")
        if len(specs) > 1 and key not in sweep.ladders and len({getattr(getattr(s, table), name) for s in specs}) == 1:
            return (
                f"{sweep.against!r} is {key}, which no ladder changes: write against = the number of the runs "
                'that the ladder changes, such as "rmse_F"'
            )
        return None
    for spec in specs:
        known = numbers_of(spec)
        if sweep.against not in known:
            hint = did_you_mean(sweep.against, [*AXES, *known])
            optional = _KEYS.get(NUMBERS[sweep.against].needs) if sweep.against in NUMBERS else None
            needs = f" (it needs matching.{optional})" if optional else ""
            shown = ", ".join([*AXES, "rmse_F", "eps_F", "eps_V1", "eps_V1_null_free", "eps_V1_felt", "eps_V2"])
            return f"no run has a number {sweep.against!r}{needs}{hint}; known: {shown}, ..."
    return None
