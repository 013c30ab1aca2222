"""The weighings of a study that are relaxed in full: rivals, and a selection of trials. Also their relaxation."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from store import provenance
from store.seal import writing
from suite.execution import LostWorkers, the_cluster
from suite.model.regression import Unsolvable
from suite.progress import Progress
from suite.spec import Spec
from suite.study import rivals
from suite.study.afar import compute_verdict, verdict_of
from suite.study.bench import Bench, Ground
from suite.study.space import basis_key, search_space
from suite.study.weighings import PAPER, UNIFORM, Entry, number_of, regret, unbeaten
from suite.tasks import Task

LOST = "lost workers"  # status of an entry whose workers were killed
# numbers of a relaxation that a study stores
RELAXED = (
    *("geometry_error", "energy_error", "balance_spread", "calibrated_spread", "corrected_spread"),
    *("bound_geometry", "bound_energy_corrected"),
)


def rivals_of(bench: Bench, trials: int, progress: Progress) -> list[Entry]:
    """The judged weighings that a study of `trials` trials has to beat. One without a finite solution is reported and
    left out."""
    spec, key = bench.spec, basis_key(bench.spec)
    blocks, oracle = bench.blocks[key], bench.oracles[key]
    entries = []

    def rival(name: str, candidate: Spec) -> None:
        try:
            entries.append(Entry(name, _weights(candidate), candidate, bench.judge(candidate)))
        except Unsolvable:
            progress("rivals", 1.0, f"{name} has no finite solution")

    rival(PAPER, spec)
    rival(UNIFORM, rivals.with_weights(spec, rivals.uniform(spec)))
    rival("elastic share", rivals.with_weights(spec, rivals.elastic_share(spec, blocks)))
    progress("rivals", 0.2, "evidence")
    rival("evidence", rivals.with_weights(spec, rivals.evidence(spec, blocks)))
    progress("rivals", 0.4, "closed-form rule")
    rival("closed form", rivals.with_weights(spec, rivals.balanced(spec, blocks, oracle)))
    progress("rivals", 0.6, "random search")
    drawn, _ = rivals.random_search(
        search_space(spec),
        trials,
        spec.tune.seed,
        lambda values: bench.judge(bench.candidate(values)),
        lambda numbers: regret(Entry("", {}, spec, numbers), spec),
    )
    rival("random search", bench.candidate(drawn))
    return entries


def chosen_trials(
    bench: Bench, records: Sequence[Mapping[str, Any]], front: Sequence[int], verify: int, against: Sequence[Entry]
) -> list[Entry]:
    """The `verify` trials to relax. Half of them come from the front: first trials whose predicted errors are both no
    worse than those of every rival in `against`, then trials evenly spaced along the front, ends included. The other
    half is evenly spaced along the imbalance of all other trials."""
    spec = bench.spec
    finished = {record["number"]: record for record in records if record["state"] == "complete"}
    share = max(1, (verify + 1) // 2)
    chosen = _promising(spec, {n: finished[n]["numbers"] for n in front}, against)[: (share + 1) // 2]
    left = sorted((n for n in front if n not in chosen), key=lambda n: finished[n]["values"][0])
    chosen += _spread_over(left, share - len(chosen))
    spread = number_of("balance", spec.tune)
    others = sorted((n for n in finished if n not in front), key=lambda n: finished[n]["numbers"].get(spread, math.inf))
    chosen += [n for n in _spread_over(others, verify - len(chosen)) if n not in chosen]
    entries = []
    for number in chosen:
        candidate, on_front = bench.candidate(finished[number]["parameters"]), number in front
        name = f"trial {number}" + (" (front)" if on_front else "")
        predicted = finished[number]["numbers"]
        entries.append(Entry(name, _weights(candidate), candidate, predicted, trial=True, front=on_front))
    return entries


def _weights(candidate: Spec) -> dict[str, float]:
    return {name: getattr(candidate.weights, name) for name in rivals.observed(candidate)}


def _promising(spec: Spec, front: Mapping[int, dict[str, float]], against: Sequence[Entry]) -> list[int]:
    """Numbers of the trials of the front whose predicted errors are both no worse than those of every rival, those with
    the least regret first."""
    errors = ("geometry_error_linear", "energy_error_linear")
    best = [min((rival.predicted[name] for rival in against), default=math.inf) for name in errors]
    good = [n for n, numbers in front.items() if unbeaten([numbers[name] for name in errors], best)]
    return sorted(good, key=lambda n: regret(Entry("", {}, spec, front[n]), spec))


def _spread_over(items: list[int], count: int) -> list[int]:
    if count <= 0 or not items:
        return []
    places = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[place] for place in places]


def verified(
    entries: Sequence[Entry], grounds: Mapping[str, Ground], folder: Path, workspace: Path, progress: Progress
) -> list[Entry]:
    """Relax every entry in full, through the cluster if there is one. Results of earlier relaxations with the same
    weights are read from the study's `folder`."""
    path = folder / "verified.json"
    known = believed_entries(path, progress)
    keys = [provenance.content_key(entry.spec.table("weights", "solver", "model", "observables")) for entry in entries]
    missing = {key: entry for key, entry in zip(keys, entries, strict=True) if key not in known}
    relaxed: dict[str, dict[str, Any]] = {}
    for done, (key, found) in enumerate(_relaxations(missing, grounds, workspace)):
        progress("verification", done / len(missing), missing[key].name)
        relaxed[key] = found
        if found["status"] == LOST:  # an outcome of this time, and not of the weights
            continue
        known[key] = found | {"seal": provenance.content_key("verified", key, found)}
        partial = path.with_suffix(".new")
        with writing(path):
            partial.write_text(json.dumps(known, indent=1))
            os.replace(partial, path)
    told = [{**known, **relaxed}[key] for key in keys]
    return [replace(e, relaxed=t["relaxed"], status=t["status"]) for e, t in zip(entries, told, strict=True)]


def _relaxations(
    entries: Mapping[str, Entry], grounds: Mapping[str, Ground], workspace: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key, and numbers and status of a full relaxation, of every entry, as they end."""
    if (cluster := the_cluster()) is None:
        for key, entry in entries.items():
            ground = grounds[basis_key(entry.spec)]
            yield key, _told(*verdict_of(entry.spec, ground.world, ground.rows, RELAXED))
        return
    tasks = [Task("verification", e.name, compute_verdict, (e.spec, workspace, RELAXED)) for e in entries.values()]
    keys = [*entries]
    for index, result in cluster.run_tasks(tasks):
        if isinstance(result, LostWorkers):
            yield keys[index], _told({}, LOST)
            continue
        if isinstance(result, BaseException):
            raise result
        yield keys[index], _told(*result)


def _told(relaxed: dict[str, float], status: str) -> dict[str, Any]:
    return {"relaxed": relaxed, "status": status}


def believed_entries(path: Path, progress: Progress) -> dict[str, dict[str, Any]]:
    """The entries of `verified.json` with a valid seal; the others are reported, and will be relaxed again."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = {key: dict(entry) for key, entry in content.items()}
    except (ValueError, AttributeError, TypeError, RecursionError):
        progress("verified", 1.0, f"{path}: damaged, every entry is relaxed again")
        return {}
    good = {}
    for key, entry in entries.items():
        seal = entry.pop("seal", None)
        if seal == provenance.content_key("verified", key, entry):
            good[key] = entry | {"seal": seal}
    if bad := len(entries) - len(good):
        progress("verified", 1.0, f"{path}: {bad} of {len(entries)} entries were altered; they are relaxed again")
    return good
