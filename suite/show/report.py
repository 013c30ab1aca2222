"""The report of a workspace, from its stores alone: runs, matching conditions, errors, rates with verdicts, cost, and
failures with their remedies. It is one HTML file that needs no server, the same as Markdown, and tables as CSV.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from store import fields
from store.faults import BadStore
from store.listing import RUN
from store.runs import RunRecord, Tracker
from store.seal import StoreError, read_json
from suite.judge.numbers import head
from suite.judge.theory import TERMS
from suite.show import figures
from suite.show.comparison_figures import AGAINST, against_matching, legend_names
from suite.show.page import Page
from suite.show.scene import scene_path
from suite.show.style import save, styled
from suite.show.sweep_figures import draw_ordering, draw_sweep
from suite.show.table import Table
from suite.study.described import PACKAGES
from suite.study.rates import GROWTH_HEADS, cells, growth_cells
from suite.study.rates import HEADS as HEADS_OF_RATES
from suite.world.catalogue import CATALOGUE

ERRORS = ("geometry_error", "geometry_error_linear", "energy_error", "energy_difference", "energy_error_linear")
MATCHING = (
    *("eps_E", "eps_F", "rmse_F", "eps_V1", "eps_V1_null_free", "eps_V1_felt", "eps_K", "eps_V2", "eps_V2_null_free"),
    *("c0", "balance_spread", "calibrated_spread", "corrected_spread"),
)
COST = ("world", "rows", "fit", "assess", "store")


class NothingToReport(BadStore, LookupError):
    """A workspace without runs."""


def write_report(workspace: Path, folder: Path, case: str | None = None, chosen: Sequence[str] = ()) -> list[Path]:
    """Write report.html, report.md, runs.csv, rates.csv and figures/ into `folder`; returns their paths.

    Cells and cores are those of the `chosen` runs (as `Tracker.find` takes them), or of the newest run of every case.
    Numbers come from the sealed stores. Runs that are damaged or differ from their seal are listed as such.

    Raises `NothingToReport` when the workspace has no run (of `case`), WorkspaceError when its database is lost, and
    RunNotFound for a chosen run that is not there.
    """
    tracker = Tracker(workspace)
    records = [r for r in reversed(tracker.history(case)) if r.kind != "trial"]
    believed = [tracker.believe(r) for r in records if r.kind == RUN]
    runs = [each.record for each in believed]
    if not runs and not records:
        raise NothingToReport(
            f"no runs{f' of case {case!r}' if case else ''} in {workspace}; run a case first, or name another folder "
            "with --workspace"
        )
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    page = Page(f"dislobench: {case or 'all cases'}")
    good = [r for r in runs if r.status == "FINISHED"]
    kinds = [r.kind for r in records]
    page.text(
        f"{len(runs)} runs ({len(good)} finished), {kinds.count('sweep')} sweeps, {kinds.count('study')} weight "
        f"studies in {workspace.name}/."
    )
    notes = {each.record.id: each.note for each in believed if each.note}
    written = _sweeps(tracker, [r for r in records if r.kind == "sweep"], notes, page, folder)
    _compared(good, page, folder)
    _portraits(tracker, good, chosen, notes, page, folder)
    _scenes(good, workspace, page, folder)
    _studies(tracker, [r for r in records if r.kind == "study"], page)
    _distrust(runs, notes, page)
    _runs(good, page)
    _failures(runs, page)
    _provenance(runs, page)
    rows = [
        {"run": r.id, "name": r.name, "status": r.status, "note": notes.get(r.id, ""), **r.parameters, **r.metrics}
        for r in runs
    ]
    Table.of_records(rows).csv(folder / "runs.csv")
    return [*page.write(folder), folder / "runs.csv", *written]


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _file_name(*words: str) -> str:
    """A safe file name made from names that may come from other people's workspaces."""
    return "-".join(re.sub(r"[^\w.+-]+", "_", word).lstrip(".") for word in words)


def _distrust(runs: Sequence[RunRecord], notes: Mapping[str, str], page: Page) -> None:
    """A list of the runs whose entries in the database cannot be trusted."""
    wrong = [[r.name, r.id[:8], notes[r.id]] for r in runs if r.id in notes]
    if wrong:
        page.heading("Damaged, or different from the sealed store")
        page.text("Numbers of these runs come from their sealed files; where these are damaged, numbers are left out.")
        page.table(["run", "id", "what is wrong"], wrong)


def _sweeps(
    tracker: Tracker, records: Sequence[RunRecord], notes: dict[str, str], page: Page, folder: Path
) -> list[Path]:
    table: list[dict[str, Any]] = []
    for record in records:
        path = tracker.artifacts_dir(record.id) / "sweep.json"
        if not path.exists() and record.status != "FINISHED":
            continue  # it was stopped before its end
        try:
            content = read_json(path, "give the sweep again: its points are kept, its rates are computed again")
        except StoreError as error:
            page.heading(f"Sweep {record.tags.get('sweep', record.name)} of {record.experiment}")
            page.text(f"Not shown: {error}.")
            continue
        page.heading(f"Sweep {content['name']}: {content['title']}")
        page.text(
            f"{len(content['points'])} points against {content['against']}; ladders "
            f"{', '.join(f'{k} = {v}' for k, v in content['ladders'].items())}; seeds {content['seeds']}."
        )
        if doubtful := [point for point in content["points"] if point["run"] in notes]:
            page.text(
                f"{len(doubtful)} of these points are damaged or differ from their sealed stores (see below): give the "
                "sweep again, which computes them anew."
            )
        stem = _file_name(record.experiment, content["name"])
        picture = draw_sweep(content, folder / "figures" / f"sweep-{stem}.png")
        logarithmic = content.get("law") == "logarithm"
        caption = "Points: geometric means over seeds, bars their range; lines: fits; thin: slopes of the theory."
        if logarithmic:
            caption = "A line for each seed; dashed: the slope that the elastic constants of that model predict."
        page.figure(picture, caption)
        rows = []
        for rate in content["rates"]:
            table.append({"case": record.experiment, "sweep": content["name"], **rate})
            rows.append(
                [
                    ", ".join(filter(None, [rate["error"].partition("_")[0], rate["setting"]])),
                    *cells(rate),
                    TERMS.get(rate["limiting"], ""),
                ]
            )
        if content.get("growths"):  # a sweep of an older version has none
            page.text(
                "Growth with ln L_D: slopes of the squared geometry error (Å²) and of the signed energy difference "
                "(eV), a line for each seed, and those that the elastic constants of each model predict."
            )
            named = [(f"{each['error'].partition('_')[0]}, {each['setting']}", each) for each in content["growths"]]
            page.table(["curve", *GROWTH_HEADS], [[name, *growth_cells(each)] for name, each in named])
        if rows or content.get("law", "power") == "power":
            page.table(["curve", *HEADS_OF_RATES, "limiting term"], rows)
        # a sweep of an older version has not ordered its energy errors
        orders = {"geometry": content["ordering"], "energy": content.get("ordering_energy", {})}
        if any(orders.values()):
            place = folder / "figures" / f"ordering-{stem}.png"
            page.figure(draw_ordering(content, place), "Which matching number orders the errors of all points.")
        for kind, order in orders.items():
            if order:
                page.text(
                    f"Rank correlation (Spearman) of the relaxed {kind} error over all points of the sweep with: "
                    + ", ".join(f"{name} {value:.2f}" for name, value in order.items())
                    + "."
                )
    if table:
        Table.of_records(table).csv(folder / "rates.csv")
    return [folder / "rates.csv"] if table else []


PORTRAITS = {
    "cells": "Simulation and training cell, displacement along the Burgers vector",
    "differential_displacement": "Cores of reference and model",
    "loop": "The loop of reference and model",
    "errors": "Where the model is wrong",
}


MOST_NAMED = 12
"""Runs that a figure can tell apart by colours and markers."""


def _compared(records: Sequence[RunRecord], page: Page, folder: Path) -> None:
    """Errors against matching numbers of all runs of a case that belong to no sweep, study or board."""
    cases: dict[str, list[RunRecord]] = {}
    for record in records:
        if record.parent is None and any(name in record.metrics for name in AGAINST):
            cases.setdefault(record.experiment, []).append(record)
    for case, runs in cases.items():
        if len(runs) < 2:
            continue
        words = legend_names(runs) if len(runs) <= MOST_NAMED else None
        page.heading(f"Runs of {case} compared")
        with styled():
            path = save(against_matching(runs, words), folder / "figures" / f"compared-{_file_name(case)}.png")
        page.figure(path, f"Errors of the {len(runs)} runs of {case} against their matching numbers.")


def _portraits(
    tracker: Tracker,
    records: Sequence[RunRecord],
    chosen: Sequence[str],
    notes: dict[str, str],
    page: Page,
    folder: Path,
) -> None:
    """Figures of cells and cores of the chosen runs, or of the newest run of every case whose fields can be read;
    damage is reported in `notes`."""
    drawn: set[str] = set()
    for record in [tracker.find(each) for each in chosen] or reversed(records):
        case = record.experiment
        if case in drawn and not chosen:
            continue
        try:
            if not (store := tracker.store_of(record.id)).exists():  # fetched from a bucket, where there is one
                continue
            tree = fields.read(store)
        except StoreError as error:
            notes.setdefault(record.id, f"damaged store: {error}")
            continue
        drawn.add(case)
        page.heading(f"Cells and cores of {record.name if chosen else case}")
        page.text(f"{record.name} ({record.id[:8]})")
        prefix = f"{_file_name(case, record.id[:8])}-" if chosen else f"{_file_name(case)}-"
        for path in figures.draw_all(tree, folder / "figures", list(PORTRAITS), prefix, dpi=120):
            page.figure(path, PORTRAITS[path.stem.removeprefix(prefix)])


def _scenes(records: Sequence[RunRecord], workspace: Path, page: Page, folder: Path) -> None:
    """Links to the pages that `dislobench view` has written."""
    pages = [(record, scene_path(workspace, record.id)) for record in records]
    if not any(path.exists() for _, path in pages):
        return
    page.heading("In three dimensions")
    for record, path in pages:
        if path.exists():
            page.link(f"{record.name} ({record.id[:8]})", os.path.relpath(path, folder))


def _studies(tracker: Tracker, records: Sequence[RunRecord], page: Page) -> None:
    for record in records:
        page.heading(f"Weight study of {record.experiment}")
        path = tracker.artifacts_dir(record.id) / "recommended.toml"
        best = record.tags.get("recommended", "none yet")
        page.text(f"Recommended: {best}; report in studies/{record.tags.get('folder', '')}/.")
        if path.exists():
            page.code(path.read_text(encoding="utf-8"))


def _runs(records: Sequence[RunRecord], page: Page) -> None:
    if not records:
        return
    page.heading("Errors")
    page.table(
        ["run", "case", "id", *map(head, ERRORS), "limiting term", "outcome"],
        [
            [
                r.name,
                r.experiment,
                r.id[:8],
                *(_short(r.metrics.get(k)) for k in ERRORS),
                TERMS.get(r.tags.get("limiting_term", ""), ""),
                r.tags.get("outcome", ""),
            ]
            for r in records
        ],
    )
    page.heading("Matching conditions")
    rows = [[r.name, r.experiment, *(_short(r.metrics.get(k)) for k in MATCHING)] for r in records]
    page.table(["run", "case", *map(head, MATCHING)], rows)
    page.heading("Cost")
    heads = ["run", "case", "atoms", "atoms trained on", "functions", *(f"{name} [s]" for name in COST), "peak [MB]"]
    page.table(
        heads,
        [
            [
                r.name,
                r.experiment,
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
    rows = [[name, CATALOGUE[name].source if name in CATALOGUE else "not in the catalogue"] for name in names if name]
    page.table(["reference potential", "source"], rows)
    told = {(k.removeprefix("version."), v) for r in records for k, v in r.tags.items() if _is_provenance(k)}
    page.table(["package or machine", "version"], sorted(told))


def _is_provenance(tag: str) -> bool:
    """Whether a tag tells the version of a package or the machine; versions had no prefix in older versions."""
    return tag.startswith(("version.", "machine.")) or tag in PACKAGES
