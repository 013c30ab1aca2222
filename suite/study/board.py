"""A leaderboard: families of potentials against cases, every cell a run of its own, all force calls timed in one pass.

    result = run_board(*read_board("families"), workspace)

`suite.boards` says what a board is. Runs are found again by their content, like points of a sweep, so that a board
that was interrupted resumes, and an added entry computes only itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase.calculators.calculator import Calculator

from store import provenance
from store.faults import Fault
from store.runs import RunRecord, Tracker
from suite import pipeline
from suite.boards import Board, seeds_of, spec_of
from suite.judge.cost import force_costs
from suite.judge.numbers import group_of
from suite.model.trained import TrainedSpec
from suite.progress import Progress, silent
from suite.spec import Spec
from suite.stages.rows import recipe_of
from suite.study.cache import cached_rows, cached_world
from suite.study.case import Case
from suite.study.points import Points
from suite.study.session import Session, Stages
from suite.trainers.needed import MissingPackage
from suite.world.reference import build_reference

REFERENCE = "reference"  # name of the reference potential among those that are timed
BOARD = "board.json"
LEFT_OUT = "left out"  # status of a cell for which the board gives a reason
KEPT = (
    *("geometry_error", "geometry_error_linear", "energy_difference", "energy_error_linear"),
    *("rmse_F", "eps_V1_felt", "eps_K", "training_seconds", "training_megabytes", "training_cores"),
)
"""What a board keeps of each run."""


@dataclass(frozen=True)
class Cell:
    """An entry in a case with one seed: its run, its numbers and what should be known about them, or the reason why
    there are none."""

    case: str
    entry: str
    family: str
    seed: int
    status: str
    numbers: dict[str, float]
    functions: int | None
    run: str
    reason: str
    remarks: str = ""


@dataclass(frozen=True)
class BoardResult:
    """A finished board: cells, and the costs of force calls (µs for each atom, one core) by case and entry."""

    name: str
    board: Board
    run_id: str
    cells: list[Cell]
    costs: dict[str, dict[str, float]]


def run_board(
    name: str,
    board: Board,
    workspace: Path,
    progress: Progress = silent,
    workers: int | None = None,
    retry: bool = False,
    accept: Callable[[Spec], Spec] = lambda spec: spec,
) -> BoardResult:
    """Run what no finished run answers yet, and time the force calls of all models in one pass.

    All specs are resolved before anything runs, and passed through `accept`, which may refuse one. An entry whose
    package is not installed, and a model that cannot be used, are told in their cells; the others go on. Runs that
    failed for their physics are computed again only with `retry`.
    """
    specs = {
        (case, entry, seed): found if isinstance(found := spec_of(board, case, entry, seed), str) else accept(found)
        for case in board.cases
        for entry in board.entry
        for seed in seeds_of(board, case, entry)
    }
    session = Session(workspace, progress, workers)
    tracker = Tracker(session.workspace, group_of)
    for sentence in tracker.tidy():
        progress("workspace", 1.0, sentence)
    key = provenance.content_key("board", name, board.model_dump())
    words = {"kind": "board", "board_key": key}
    with tracker.start_or_resume(name, f"board {name}", {"board": name}, words, known_by="board_key") as parent:
        cells = _cells(Points(session, tracker, retry), f"board {name}", board, specs)
        progress(f"board {name}", 1.0, "force calls of all models in one pass")
        costs = {case: _costs(session, board, case, specs, cells) for case in board.cases}
        result = BoardResult(name, board, parent.id, cells, costs)
        parent.metrics({"cells": len(cells), "finished": sum(bool(cell.numbers) for cell in cells)})
        parent.sealed_json(BOARD, content_of(result))
    return result


Place = tuple[str, str, str, int]  # case, entry, family, seed of a cell


def _cells(points: Points, what: str, board: Board, specs: Mapping[tuple[str, str, int], Spec | str]) -> list[Cell]:
    """The runs of all cells, made or found."""
    cells: dict[Place, Cell] = {}
    wanted: list[tuple[Place, str, Case]] = []
    for (case, entry, seed), spec in specs.items():
        place = (case, entry, board.entry[entry].family, seed)
        if isinstance(spec, str):
            cells[place] = _empty(place, LEFT_OUT, spec)
            continue
        try:
            if isinstance(recipe := recipe_of(spec), TrainedSpec):
                recipe.importable()  # before there is a run: without its package there would be a failed one each time
            name = f"{entry}, seed {seed}"
            wanted.append((place, f"{case}, {name}", Case(spec, name[:200], draw=False)))
        except Fault as fault:  # of one entry, such as a trainer that cannot be imported: the others go on
            cells[place] = _without_run(place, fault)
    for index, answer in points.run_each(what, [(label, case) for _, label, case in wanted]):
        place = wanted[index][0]
        try:
            cells[place] = _told(answer.run(), place)
        except Fault as fault:
            cells[place] = _without_run(place, fault)
    return [cells[case, entry, board.entry[entry].family, seed] for case, entry, seed in specs]


def _without_run(place: Place, fault: Fault) -> Cell:
    return _empty(place, "not installed" if isinstance(fault, MissingPackage) else "failed", str(fault))


def _empty(place: Place, status: str, reason: str) -> Cell:
    return Cell(*place, status, {}, None, "", reason)


def _told(record: RunRecord, place: Place) -> Cell:
    numbers = {name: record.metrics[name] for name in KEPT if name in record.metrics}
    functions = record.parameters.get("functions")
    status = record.tags.get("outcome", record.status.lower())
    reason = record.tags.get("remedy") or record.tags.get("error", "")
    good = record.status == "FINISHED"
    return Cell(
        *place,
        status,
        numbers if good else {},
        int(functions) if functions else None,
        record.id,
        "" if status == "converged" else reason[:300],
        record.tags.get("remarks", "") if good else "",
    )


def _costs(
    session: Session,
    board: Board,
    case: str,
    specs: Mapping[tuple[str, str, int], Spec | str],
    cells: Sequence[Cell],
) -> dict[str, float]:
    """Costs of the models of a case, those of the first seed that has finished, and of the reference."""
    done = {cell.entry: (case, cell.entry, cell.seed) for cell in reversed(cells) if cell.case == case and cell.numbers}
    potentials: dict[str, Calculator] = {}
    atoms = None
    for entry in board.entry:
        spec = specs.get(done.get(entry, ("", "", 0)))
        if not isinstance(spec, Spec):
            continue
        stages = Stages()
        world = cached_world(spec, session, stages)
        try:
            rows = cached_rows(spec, world, session, stages)
            potentials[entry] = pipeline.fit(spec, rows).calculator(rows)
        except Fault as fault:  # such as a model that is lost and cannot be trained again: the others are timed
            session.progress("not timed", 1.0, f"{entry} in {case}: {fault}")
            continue
        if atoms is None:
            atoms = world.simulation.atoms(world.equilibrium.displacement)
            potentials[REFERENCE] = build_reference(spec.material.reference, spec.material.arguments)
    return {} if atoms is None else force_costs(potentials, atoms)


def content_of(result: BoardResult) -> dict[str, Any]:
    """What the run of a board keeps as `board.json`: all that the page needs but the fields of the runs."""
    return {
        "name": result.name,
        "board": result.board.model_dump(),
        "cells": [vars(cell) for cell in result.cells],
        "costs": result.costs,
        "machine": provenance.machine(),
        "created": provenance.utc_now(),
    }
