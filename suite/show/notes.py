"""Descriptions of runs, studies and sweeps in Markdown, which MLflow's UI shows above their numbers.

A description stays valid when the workspace is moved: it names files by their place in the workspace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from suite.judge.matching import told
from suite.judge.numbers import ERRORS, NUMBERS, head
from suite.judge.theory import TERMS
from suite.show.table import Table
from suite.study.rates import GROWTH_HEADS, HEADS, cells, growth_cells

if TYPE_CHECKING:
    from suite.study.sweep import SweepResult
    from suite.study.weighings import TuneResult

_SHOWN = (*ERRORS, "eps_E", "eps_F", "rmse_F", "eps_V1_felt", "eps_K", "eps_V2", "c0", "c0_model", "corrected_spread")
_FIGURES = ("errors", "differential_displacement", "loop", "balance")
"""Figures that matter, in this order, of those that were drawn."""


def run_note(
    run_id: str, title: str, words: str, numbers: Mapping[str, float], ending: Mapping[str, str], drawn: Sequence[str]
) -> str:
    """What a run found. `words` say how it was fitted; `ending` holds its outcome, and remedy and remarks if it has
    any; `drawn` are the names of its figures."""
    limiting = TERMS.get(ending.get("limiting_term", ""), "")
    parts = [
        f"**{title}: {ending['outcome']}.** {words[:1].upper()}{words[1:]}."
        + (f" Limiting term of the bound (3.13): {limiting}." if limiting else ""),
        _numbers(numbers),
        *(f"{name.capitalize()}: {ending[name]}." for name in ("remedy", "remarks") if name in ending),
        f"Every field: `fields/{run_id}.zarr` in the workspace, `xarray.open_datatree` reads it. Figures again, and "
        f"all numbers: `dislobench show {run_id[:8]}`.",
        " ".join(_image(run_id, name) for name in _FIGURES if name in drawn),
    ]
    return _joined(parts)


def study_note(result: TuneResult) -> str:
    """What a study recommends, and how its rivals compare."""
    rows = [
        [
            entry.name,
            *(_cell(entry.predicted.get(f"{error}_linear")) for error in ERRORS),
            *(_cell(entry.relaxed.get(error)) for error in ERRORS),
            entry.status,
        ]
        for entry in result.entries
    ]
    names = [*(f"{error}_linear" for error in ERRORS), *ERRORS]
    best = result.entries.index(result.recommended) if result.recommended in result.entries else None
    parts = [
        f"**{result.spec.case.title}: {len(result.trials)} trials, {len(result.front)} on the Pareto front.** "
        f"Recommended is {result.recommended.name}: {result.reason}",
        result.tension,
        Table(["weighing", *map(head, names), "outcome"], rows, best=best).markdown(),
        f"Trials: `studies/{result.folder.name}/` in the workspace. Report: `report.html` among the artifacts.",
        " ".join(_image(result.run_id, name) for name in ("front", "oracle")),
    ]
    return _joined(parts)


def sweep_note(result: SweepResult) -> str:
    """The rates of a sweep and their verdicts."""
    good = sum(point.status == "converged" for point in result.points)
    parts = [
        f"**{result.spec.case.title}, sweep {result.name}: {len(result.points)} points against "
        f"{result.sweep.against}, {good} converged.** `dislobench report` draws it.",
        _rates(("error", "setting", *HEADS), {key: cells(asdict(rate)) for key, rate in result.rates.items()}),
        _rates(
            ("error", "setting", *GROWTH_HEADS),
            {key: growth_cells(asdict(growth)) for key, growth in result.growths.items()},
        ),
    ]
    return _joined(parts)


def _rates(heads: Sequence[str], rows: Mapping[tuple[str, str], Sequence[Any]]) -> str:
    return Table(heads, [[*key, *row] for key, row in rows.items()]).markdown() if rows else ""


def _numbers(numbers: Mapping[str, float]) -> str:
    entries = [NUMBERS[name] for name in _SHOWN if name in numbers]
    rows = [[entry.symbol, told(numbers, entry.name), entry.unit, entry.meaning] for entry in entries]
    return Table(["number", "value", "unit", "meaning"], rows).markdown()


def _image(run_id: str, name: str) -> str:
    """An artifact of the run as an image, at the address where MLflow's server gives it out."""
    where = urlencode({"path": f"figures/{name}.png", "run_uuid": run_id})
    return f"![{name}](get-artifact?{where})"


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _joined(parts: Sequence[str]) -> str:
    return "\n\n".join(part.strip() for part in parts if part.strip())
