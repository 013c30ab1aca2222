"""The method on one screen: world, rows, fit, judgement.

World and rows do not depend on weights; `stage_tables` says which tables of the spec each stage reads. What a stage
hands on are the records of `suite.results`. Stages depend on their arguments only: nothing is written, and randomness
comes from the seeds in the spec. `suite.study.case` runs them with a cache, a tracker and a store.
"""

from __future__ import annotations

from typing import Any

from suite.progress import Progress, silent
from suite.records import ENGINE_KEYS
from suite.results import Verdict
from suite.spec import Spec
from suite.stages.judge import assess
from suite.stages.rows import build_rows, fit
from suite.stages.world import build_world


def judge(spec: Spec, progress: Progress = silent) -> Verdict:
    """The experiment of the paper for one case. Raises what the stages raise."""
    world = build_world(spec, progress)  # reference crystal, simulation and training cells, their equilibria
    rows = build_rows(spec, world, progress)  # labelled configurations, reduced design matrix; no weights yet
    model = fit(spec, rows)  # weights and solver: milliseconds
    return assess(spec, world, rows, model, progress)  # errors of the fit, errors of the dislocations


def stage_tables(spec: Spec) -> dict[str, dict[str, Any]]:
    """The part of the spec that each stage reads: what its content key hashes."""
    world = spec.table("material", "dislocation", "simulation")
    world["simulation"] = {key: value for key, value in world["simulation"].items() if key not in ENGINE_KEYS}
    relaxation = {key: value for key, value in world["simulation"].items() if key != "size"}
    training = {**world, "simulation": relaxation, "training": {"size": spec.training.size}}
    return {"simulation": world, "training": training, "rows": {**training, **spec.table("training", "model")}}
