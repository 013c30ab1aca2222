"""Sweeps: ladders of runs whose slopes are compared with the theory. Every point is a run, found again by its content.

    result = run_sweep(resolve, "fig5", load_sweeps("w-screw")["fig5"], workspace)

A point's key hashes its whole resolved spec. A finished run with that key is reused, whatever sweep it belongs to, so
that an interrupted sweep resumes, and an added point computes only itself. The store of a reused run is verified, and
its numbers are read from the store. A point that failed for its physics stays failed; a point that was killed is
computed again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from store import handing, provenance
from store.runs import Run, RunRecord, Tracker
from suite.judge.numbers import ERRORS, group_of
from suite.judge.theory import expected_rate
from suite.ladders import AXES, curve_of, overrides_of, points_of, short_label
from suite.progress import Progress, silent
from suite.show.notes import sweep_note
from suite.spec import BadSpec, Spec, Sweep
from suite.study.case import Case
from suite.study.points import Points
from suite.study.rates import Growth, Rate, measure, measure_growth, rank_correlations
from suite.study.session import Session
from suite.study.worlds import shards

# what grows in proportion to ln L_D: name, of the error that grows, and of the number that predicts its slope
GROWTHS: dict[str, tuple[Callable[[Mapping[str, float]], float], str]] = {
    "geometry_error": (lambda numbers: numbers["geometry_error"] ** 2, "growth_geometry"),
    "energy_difference": (lambda numbers: numbers["energy_difference"], "growth_energy"),
}


@dataclass(frozen=True)
class Point:
    """One run of a sweep: the `setting` of its observables or, with `Sweep.curves`, the curve it belongs to; `seed`,
    values of the ladders, numbers (empty when it failed) and status.
    """

    setting: str
    seed: int
    values: dict[str, Any]
    x: float | None
    numbers: dict[str, float]
    status: str
    limiting: str
    run: str
    computed: bool


@dataclass(frozen=True)
class SweepResult:
    """A finished sweep: its points, and rates by (error, setting), or with `Sweep.law` "logarithm" growths."""

    name: str
    spec: Spec
    sweep: Sweep
    run_id: str
    points: list[Point]
    rates: dict[tuple[str, str], Rate]
    growths: dict[tuple[str, str], Growth] = field(default_factory=dict)


def entry_name(curve: str) -> str:
    """The name of a curve in MLflow, whose names may hold few characters: "CLE_nonlinear", "L_8", or "all"."""
    return re.sub(r"[^A-Za-z0-9.]+", "_", curve).strip("_")[:60] or "all"


def run_sweep(
    load: Callable[[Mapping[str, Any]], Spec],
    name: str,
    sweep: Sweep,
    workspace: Path,
    progress: Progress = silent,
    workers: int | None = None,
    retry: bool = False,
) -> SweepResult:
    """Run the points of `sweep` that no finished run can stand for; `load` resolves a spec with overrides.

    All specs are resolved before anything runs, so that a bad point is refused at once. A point whose equilibrium
    cannot be used is recorded and the others go on; it is computed again only with `retry`.
    """
    session = Session(workspace, progress, workers)
    wanted = _resolved(load, name, sweep)
    base = wanted[0].spec
    tracker = Tracker(session.workspace, group_of)
    for sentence in tracker.tidy():
        progress("workspace", 1.0, sentence)
    with _begun(tracker, name, sweep, base) as parent:
        for sentence in handing.take_over_all(tracker):  # points that shards have computed for this sweep
            progress("workspace", 1.0, sentence)
        cases = [(each.label, Case(each.spec, each.name_in(name), parent.id, draw=False)) for each in wanted]
        ready = {}
        for index, answer in Points(session, tracker, retry).run_each(f"sweep {name}", cases):
            ready[index] = answer.run(), answer.computed  # a fault ends the sweep
        points = [_point(record, sweep, wanted[index], new) for index, (record, new) in sorted(ready.items())]
        progress(f"sweep {name}", 1.0, f"{len(wanted)} points, {sum(p.computed for p in points)} computed")
        powers = sweep.law == "power"
        rates, growths = (rates_of(points, sweep), {}) if powers else ({}, growths_of(points))
        result = SweepResult(name, base, sweep, parent.id, points, rates, growths)
        _record(parent, result)
    return result


@dataclass(frozen=True)
class ShardResult:
    """A shard of a sweep: how many points it has, of how many, and how many were computed now."""

    name: str
    points: int
    total: int
    computed: int


def run_shard(
    load: Callable[[Mapping[str, Any]], Spec],
    name: str,
    sweep: Sweep,
    workspace: Path,
    shard: tuple[int, int],
    progress: Progress = silent,
    workers: int | None = None,
    retry: bool = False,
) -> ShardResult:
    """Compute the points of one shard, (k, n) with k from 1 to n, that are not there yet, and leave them for
    `run_sweep` to collect. The database is read and not written, so that shards may run at once on many machines.

    Raises as `run_sweep` does.
    """
    number, count = shard
    session = Session(workspace, progress, workers)
    wanted = _resolved(load, name, sweep)
    collector = {"sweep_key": _key(name, sweep, wanted[0].spec)}
    own = shards([each.spec for each in wanted], count)[number - 1]
    answers, computed = Points(session, Tracker(session.workspace), retry), 0
    what = f"shard {number}/{count} of {name}"
    for position, index in enumerate(own):
        each = wanted[index]
        progress(what, position / len(own), each.label)
        computed += answers.hand_over(Case(each.spec, each.name_in(name), draw=False), collector)
    progress(what, 1.0, f"{len(own)} points, {computed} computed")
    return ShardResult(name, len(own), len(wanted), computed)


# --- the steps of a sweep -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wanted:
    """A point before it has a run."""

    values: dict[str, Any]
    seed: int
    setting: str
    spec: Spec

    @property
    def label(self) -> str:
        return ", ".join(filter(None, [short_label(self.values), f"seed {self.seed}", self.setting]))

    def name_in(self, sweep: str) -> str:
        """The name of its run."""
        return f"{self.label} ({sweep})"[:200]


def _resolved(load: Callable[[Mapping[str, Any]], Spec], name: str, sweep: Sweep) -> list[_Wanted]:
    """Every point with its spec; raises `BadSpec`."""
    wanted = [
        _Wanted(values, seed, setting, load(overrides_of(sweep, values, seed, setting)))
        for values, seed, setting in points_of(sweep)
    ]
    if sweep.ablation and not wanted[0].spec.model.fitted:
        raise BadSpec([f"sweep {name}: nothing is fitted, so that observables change nothing: write ablation = false"])
    return wanted


def _begun(tracker: Tracker, name: str, sweep: Sweep, base: Spec) -> Run:
    """The sweep's own run, the parent of its points. The run of an earlier call is continued."""
    parent = tracker.start_or_resume(
        base.case.name,
        f"sweep {name}",
        {"case": base.case.name, "sweep": name},
        {"kind": "sweep", "sweep_key": _key(name, sweep, base)},
        known_by="sweep_key",
    )
    parent.text("spec.toml", base.to_toml())
    return parent


def _key(name: str, sweep: Sweep, base: Spec) -> str:
    """Content key of a sweep, by which its run is found again."""
    return provenance.content_key("sweep", name, sweep.model_dump(), base.model_dump())


def _record(parent: Run, result: SweepResult) -> None:
    for (error, curve), growth in result.growths.items():
        label = entry_name(curve)
        parent.metrics({f"growth_{error}_{label}": growth.slope, f"growth_ratio_{error}_{label}": growth.ratio})
        parent.tags({f"verdict_{error}_{label}": growth.verdict})
    for (error, curve), rate in result.rates.items():
        label = entry_name(curve)
        parent.metrics({f"slope_{error}_{label}": rate.slope})
        parent.tags({f"verdict_{error}_{label}": rate.verdict})
    parent.metrics({"points": len(result.points)})
    parent.sealed_json("sweep.json", content_of(result))
    parent.describe(sweep_note(result))


def _point(record: RunRecord, sweep: Sweep, wanted: _Wanted, computed: bool) -> Point:
    numbers = record.metrics if record.status == "FINISHED" else {}
    axis = AXES[sweep.against].value(wanted.spec, numbers) if sweep.against in AXES else numbers.get(sweep.against)
    return Point(
        curve_of(sweep, wanted.values, wanted.setting),
        wanted.seed,
        wanted.values,
        axis,
        numbers,
        record.tags.get("outcome", record.status.lower()),
        record.tags.get("limiting_term", ""),
        record.id,
        computed,
    )


def content_of(result: SweepResult) -> dict[str, Any]:
    """The content of `sweep.json`: all that figures and the report need."""
    sweep, points = result.sweep, result.points

    def limiting(setting: str, window: tuple[float, float]) -> str:
        inside = [p.limiting for p in points if p.setting == setting and p.x and window[0] <= p.x * 1.000001]
        return max(set(inside), key=inside.count) if inside else ""

    return {
        "name": result.name,
        "title": result.spec.case.title,
        "against": sweep.against,
        "ladders": {key: list(values) for key, values in sweep.ladders.items()},
        "seeds": list(sweep.seeds),
        "curves": sweep.curves,
        "variants": sweep.variants,
        "law": sweep.law,
        "points": [asdict(point) for point in points],
        "rates": [
            {"error": error, "setting": setting, **asdict(rate), "limiting": limiting(setting, rate.window)}
            for (error, setting), rate in result.rates.items()
        ],
        "growths": [
            {"error": error, "setting": setting, **asdict(growth)}
            for (error, setting), growth in result.growths.items()
        ],
        "ordering": ordering(points, "geometry_error"),
        "ordering_energy": ordering(points, "energy_error"),
    }


_ELASTIC = ("eps_V1", "eps_V1_null_free", "eps_V1_felt", "eps_K", "eps_V2", "eps_V2_null_free")
ORDERED_BY = {
    "geometry_error": ("rmse_F", "eps_F", "eps_F_relaxed", *_ELASTIC, "bound_geometry"),
    "energy_error": ("rmse_E", "eps_E", "rmse_F", "eps_F", "eps_F_relaxed", *_ELASTIC, "bound_energy"),
}


def ordering(points: Sequence[Point], error: str) -> dict[str, float]:
    """Spearman's rank correlation of a relaxed `error` with each matching number, over all points."""
    good = [p.numbers for p in _usable(points)]
    if len(good) < 4:
        return {}
    # runs of an older version lack some numbers
    columns = {name: [numbers[name] for numbers in good] for name in ORDERED_BY[error] if all(name in n for n in good)}
    return rank_correlations([numbers[error] for numbers in good], columns)


def _usable(points: Sequence[Point]) -> list[Point]:
    """The points whose errors can be compared. An unstable model has errors too, but they compare two core states."""
    return [p for p in points if p.status == "converged" and "geometry_error" in p.numbers]


def growths_of(points: Sequence[Point]) -> dict[tuple[str, str], Growth]:
    """Growths by (error, setting) of the points that converged, one line for each seed; see `rates.measure_growth`. A
    run that stands for several points counts once."""
    found = {}
    points = _usable(list({(point.setting, point.run): point for point in points}.values()))
    for error, (value, prediction) in GROWTHS.items():
        for setting in dict.fromkeys(point.setting for point in points):
            chosen = [p for p in points if p.setting == setting and p.x is not None and prediction in p.numbers]
            lines = [[p for p in chosen if p.seed == seed] for seed in dict.fromkeys(p.seed for p in chosen)]
            growth = measure_growth(
                [
                    (
                        [p.x for p in line if p.x is not None],
                        [value(p.numbers) for p in line],
                        sum(p.numbers[prediction] for p in line) / len(line),
                    )
                    for line in lines
                ]
            )
            if growth is not None:
                found[error, setting] = growth
    return found


def rates_of(points: Sequence[Point], sweep: Sweep) -> dict[tuple[str, str], Rate]:
    """Rates by (error, setting) of the points that converged; see `rates.measure`. A run that stands for several points
    counts once: copies would narrow the interval without new information."""
    found = {}
    points = _usable(list({(point.setting, point.run): point for point in points}.values()))
    towards = "large" if sweep.against in AXES else "small"
    for error in ERRORS:
        for setting in dict.fromkeys(point.setting for point in points):
            chosen = [p for p in points if p.setting == setting and p.x is not None and error in p.numbers]
            expected = sweep.expect.get(error, expected_rate(error, sweep.against, setting))  # type: ignore[call-overload]
            x, y, rungs = [p.x for p in chosen], [p.numbers[error] for p in chosen], [str(p.values) for p in chosen]
            rate = measure(x, y, expected, towards, rungs)  # type: ignore[arg-type]
            if rate is not None:
                found[error, setting] = rate
    return found
