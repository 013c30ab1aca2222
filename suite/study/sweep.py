"""Ladders of runs: every point a run of its own, found again by its content; slopes against theory.

    result = run_sweep(resolve, "fig5", load_sweeps("w-screw")["fig5"], workspace)

A point's key hashes its whole resolved spec. A finished run with that key is reused wherever it was made, so that a
sweep that was interrupted resumes, and an added point computes only itself. It must be whole: its store is verified and
its numbers are those of the store. A point that failed for its physics stays failed; one that was killed is computed
again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from store import provenance
from store.faults import FailedOutcome
from store.locking import locked_file
from store.runs import RunRecord, Tracker
from store.seal import StoreError, verify
from suite.judge.numbers import ERRORS
from suite.judge.theory import expected_rate
from suite.ladders import curve_of, overrides_of, points_of
from suite.progress import Progress, silent
from suite.results import Simulation
from suite.spec import BadSpec, Spec, Sweep
from suite.study.case import STAGE_PACKAGES, STAGE_VERSIONS, potentials_of, run_case
from suite.study.rates import Growth, Rate, measure, measure_growth

# what grows in proportion to ln L_D: name, of the error that grows, and of the number that predicts its slope
GROWTHS: dict[str, tuple[Callable[[Mapping[str, float]], float], str]] = {
    "geometry_error": (lambda numbers: numbers["geometry_error"] ** 2, "growth_geometry"),
    "energy_difference": (lambda numbers: numbers["energy_difference"], "growth_energy"),
}
# axes that are sizes rather than errors of a run, in a0: their asymptotic end is the large one
AXES: dict[str, Callable[[Spec, Mapping[str, float]], float | None]] = {
    "L": lambda spec, numbers: spec.training.size,
    "N": lambda spec, numbers: spec.simulation.size,
    "log_L_D": lambda spec, numbers: math.log(numbers["core_distance"]) if numbers else None,
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
    """What stands for a curve in the names of MLflow, which knows few characters: "CLE_nonlinear", "L_8", or "all"."""
    return re.sub(r"[^A-Za-z0-9.]+", "_", curve).strip("_")[:60] or "all"


def point_key(spec: Spec) -> str:
    """Content key of a run: all of its spec but its name and its study, the content of its potentials, and the versions
    that its numbers depend on."""
    tables = spec.model_dump(exclude={"case", "tune"})
    packages = provenance.versions(STAGE_PACKAGES["rows"])
    return provenance.content_key("run", tables, STAGE_VERSIONS, packages, potentials_of(spec))


def run_sweep(
    load: Callable[[Mapping[str, Any]], Spec],
    name: str,
    sweep: Sweep,
    workspace: Path,
    progress: Progress = silent,
    workers: int | None = None,
    retry: bool = False,
) -> SweepResult:
    """Run the points of `sweep` that no finished run answers yet; `load` resolves a spec with overrides.

    All specs are resolved before anything runs, so that a bad point is refused at once. A point whose equilibrium
    cannot be used is recorded and the others go on; it is computed again only with `retry`.
    """
    workspace = workspace.absolute()
    wanted = [
        (values, seed, setting, load(overrides_of(sweep, values, seed, setting)))
        for values, seed, setting in points_of(sweep)
    ]
    base = wanted[0][-1]
    if sweep.ablation and not base.model.fitted:
        raise BadSpec([f"sweep {name}: nothing is fitted, so that observables change nothing: write ablation = false"])
    tracker = Tracker(workspace)
    for sentence in tracker.tidy():
        progress("workspace", 1.0, sentence)
    made: dict[str, list[RunRecord]] = {}
    for record in tracker.history(base.case.name):
        made.setdefault(record.tags.get("point", ""), []).append(record)
    key = provenance.content_key("sweep", name, sweep.model_dump(), base.model_dump())
    parent = tracker.start_or_resume(
        base.case.name,
        f"sweep {name}",
        {"case": base.case.name, "sweep": name},
        {"kind": "sweep", "sweep_key": key},
        known_by="sweep_key",
    )
    parent.text("spec.toml", base.to_toml())
    points = []
    kept: dict[str, Simulation] = {}
    with parent:
        for index, (values, seed, setting, spec) in enumerate(wanted):
            parts = [f"{k.partition('.')[2]} {v}" for k, v in values.items()]
            label = ", ".join([*parts, f"seed {seed}", *([setting] if setting else [])])
            progress(f"sweep {name}", index / len(wanted), label)
            point, computed = _answer(tracker, made.get(point_key(spec), []), retry, progress), False
            if point is None:
                point, computed = _run(
                    spec, workspace, tracker, parent.id, f"{name}: {label}", workers, kept, progress, retry
                )
            points.append(_point(point, sweep, spec, values, seed, setting, computed))
        progress(f"sweep {name}", 1.0, f"{len(wanted)} points, {sum(p.computed for p in points)} computed")
        powers = sweep.law == "power"
        rates, growths = (rates_of(points, sweep), {}) if powers else ({}, growths_of(points))
        for (error, curve), growth in growths.items():
            label = entry_name(curve)
            parent.metrics({f"growth_{error}_{label}": growth.slope, f"growth_ratio_{error}_{label}": growth.ratio})
            parent.tags({f"verdict_{error}_{label}": growth.verdict})
        for (error, curve), rate in rates.items():
            label = entry_name(curve)
            parent.metrics({f"slope_{error}_{label}": rate.slope})
            parent.tags({f"verdict_{error}_{label}": rate.verdict})
        parent.metrics({"points": len(points)})
        result = SweepResult(name, base, sweep, parent.id, points, rates, growths)
        parent.sealed_json("sweep.json", content_of(result))
    return result


def _answer(tracker: Tracker, made: Sequence[RunRecord], retry: bool, progress: Progress) -> RunRecord | None:
    """The newest of the runs of a point that can be taken over, with the numbers of its store; None without one."""
    for record in made:
        if record.status == "FAILED" and "outcome" in record.tags and not retry:
            return record
        if record.status != "FINISHED":
            continue
        found = tracker.believe(record)
        try:
            if found.sealed:
                verify(tracker.store_of(record.id))
                return found.record
            reason = found.note
        except StoreError as error:
            reason = str(error)
        progress("computed again", 1.0, f"{record.name} ({record.id[:8]}): {reason}")
    return None


def _run(
    spec: Spec,
    workspace: Path,
    tracker: Tracker,
    parent: str,
    name: str,
    workers: int | None,
    kept: dict[str, Simulation],
    progress: Progress,
    retry: bool,
) -> tuple[RunRecord, bool]:
    """One point, and whether it was computed here; an outcome that cannot be used is recorded by `run_case` and
    returned like any other. Of several sweeps at once the first that comes to a point computes it, the others wait."""
    key = point_key(spec)
    lock = workspace / "locks" / f"point-{key}"
    with locked_file(lock, lambda: progress("waiting", 0.0, f"another process computes {name}")):
        if found := _answer(tracker, tracker.tagged(spec.case.name, "point", key), retry, silent):
            return found, False
        try:
            result = run_case(
                spec, workspace, name=name[:200], parent=parent, tags={"point": key}, workers=workers, draw=False,
                kept=kept,
            )  # fmt: skip
            return tracker.find(result.run_id), True
        except FailedOutcome:
            return next(iter(tracker.tagged(spec.case.name, "point", key))), True


def _point(
    record: RunRecord, sweep: Sweep, spec: Spec, values: dict[str, Any], seed: int, setting: str, computed: bool
) -> Point:
    numbers = record.metrics if record.status == "FINISHED" else {}
    axis = AXES[sweep.against](spec, numbers) if sweep.against in AXES else numbers.get(sweep.against)
    tags = record.tags
    limiting = tags.get("limiting_term", "")
    return Point(
        curve_of(sweep, values, setting),
        seed,
        values,
        axis,
        numbers,
        tags.get("outcome", record.status.lower()),
        limiting,
        record.id,
        computed,
    )


def content_of(result: SweepResult) -> dict[str, Any]:
    """What a sweep's run keeps as `sweep.json`: all that figures and report need."""
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
    """Spearman's correlation of a relaxed `error` with each matching number, over all points: which of them orders the
    errors."""
    from scipy.stats import spearmanr

    good = [p.numbers for p in _usable(points)]
    if len(good) < 4:
        return {}
    errors = [numbers[error] for numbers in good]
    columns = {name: [numbers[name] for numbers in good] for name in ORDERED_BY[error] if all(name in n for n in good)}
    # a constant has no rank; runs of an older version lack some numbers
    ranked = {name: column for name, column in columns.items() if len({*column}) > 1 and len({*errors}) > 1}
    return {name: float(spearmanr(column, errors).statistic) for name, column in ranked.items()}


def _usable(points: Sequence[Point]) -> list[Point]:
    """Those whose errors mean something: a model that is unstable at ȳ has errors too, but between two core states."""
    return [p for p in points if p.status == "converged" and "geometry_error" in p.numbers]


def growths_of(points: Sequence[Point]) -> dict[tuple[str, str], Growth]:
    """Growths by (error, setting) of the points that converged, a line for each seed; see `rates.measure_growth`. A run
    that is several points counts once."""
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
    """Rates by (error, setting) of the points that converged; see `rates.measure`. A run that is several points counts
    once: its copies would narrow the interval without telling anything new."""
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
