"""The leaderboard as a page, from the store alone: tables, errors against cost, cores side by side, ids of the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.scale import SymmetricalLogScale

from store import fields
from store.faults import BadStore
from store.runs import Tracker
from store.seal import read_json
from suite.judge.numbers import NUMBERS, head
from suite.show.figures import cores
from suite.show.page import Page
from suite.show.style import COLOURS, GREY, MARKERS, formula, letter, open_frame, panels, save, styled
from suite.show.table import Table
from suite.study.board import BOARD, KEPT, LEFT_OUT, REFERENCE
from suite.study.rates import rank_correlations

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AGAIN = "give `dislobench leaderboard BOARD` again: its runs are kept, the page is made anew"
RANKED_BY = ("rmse_F", "eps_V1_felt", "eps_K", "geometry_error_linear", "energy_error_linear")
DIFFERENCE = f"|{NUMBERS['energy_difference'].symbol}| [meV]"
DRAWN = (("geometry_error", 1.0, head("geometry_error")), ("energy_difference", 1e3, formula(DIFFERENCE)))
HEADS = (
    *("entry", "family", "functions", "usable"),
    *(head("geometry_error"), DIFFERENCE, head("rmse_F"), head("eps_V1_felt"), f"{NUMBERS['eps_K'].symbol} [meV]"),
    *("force call [µs/atom]", "of the reference", "training [s]", "runs"),
)


class NoBoard(BadStore, LookupError):
    """A workspace that has no finished leaderboard."""


@dataclass(frozen=True)
class Standing:
    """One entry in one case over its seeds: values of the numbers by name, one for each usable run."""

    entry: str
    family: str
    functions: int | None
    seeds: int
    numbers: Mapping[str, Sequence[float]]
    runs: Sequence[str]
    reasons: Sequence[str]
    remarks: Mapping[str, Sequence[int]] = field(default_factory=dict)  # with the seeds of the runs that have it
    left_out: bool = False  # for a reason that the board gives

    @property
    def usable(self) -> int:
        """How many of the runs have errors that mean something: the model relaxed, and is stable there."""
        return len(self.numbers.get("geometry_error", ()))

    def middle(self, name: str, factor: float = 1.0) -> float:
        """Median over the usable runs of a number's absolute value, NaN without one."""
        values = self.numbers.get(name, ())
        return factor * float(np.median(np.abs(values))) if len(values) else np.nan

    def told(self, name: str, factor: float = 1.0) -> str:
        """Median and range of a number's absolute value."""
        values = factor * np.abs(self.numbers.get(name, ()))
        if not len(values):
            return ""
        if len(values) == 1:
            return f"{values[0]:.3g}"
        return f"{np.median(values):.3g} ({values.min():.3g} .. {values.max():.3g})"


def write_leaderboard(workspace: Path, folder: Path, run_id: str | None = None) -> list[Path]:
    """Write leaderboard.html, .md, .csv and figures/ of a board into `folder`.

    The board is that of the run `run_id`, or the one that was finished last. Returns the paths of the files. Raises
    `NoBoard`, and StoreError for a board that is damaged.
    """
    tracker = Tracker(workspace)
    boards = [r.id for r in tracker.history() if r.kind == "board"] if run_id is None else [run_id]
    files = [path for each in boards if (path := tracker.artifacts_dir(each) / BOARD).exists()]
    if not files:
        raise NoBoard(
            f"no finished leaderboard in {workspace}: `dislobench leaderboard BOARD` makes one, and `dislobench list` "
            "names boards"
        )
    # a board that was given again has gone on in its first run: when that began tells nothing
    content = max((read_json(path, AGAIN) for path in files), key=lambda each: str(each["created"]))
    board, costs = content["board"], content["costs"]
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    page = Page(board["title"])
    _rules(page, content)
    table = []
    for case in board["cases"]:
        standings = standings_of(content, case)
        page.heading(case)
        page.table(HEADS, [_row(each, costs.get(case, {})) for each in standings])
        _left_out(page, standings)
        _remarks(page, standings)
        if any(each.usable for each in standings):
            stem = case.removesuffix(".toml").rpartition("/")[2]
            _pareto(page, standings, costs.get(case, {}), folder / "figures" / f"pareto-{stem}.png")
            _ranks(page, standings)
            _cores(page, tracker, standings, folder / "figures" / f"cores-{stem}.png")
        table += [_record(case, each, costs.get(case, {})) for each in standings]
    written = page.write(folder, "leaderboard")
    return [*written, Table.of_records(table).csv(folder / "leaderboard.csv")]


def standings_of(content: Mapping[str, Any], case: str) -> list[Standing]:
    """The entries of a case, those with the smallest geometry error first and those without a usable run last."""
    found = []
    for entry in content["board"]["entry"]:
        cells = [cell for cell in content["cells"] if (cell["case"], cell["entry"]) == (case, entry)]
        good = [cell for cell in cells if cell["status"] == "converged" and "geometry_error" in cell["numbers"]]
        names = dict.fromkeys(name for cell in good for name in cell["numbers"])
        found.append(
            Standing(
                entry,
                cells[0]["family"],
                next((cell["functions"] for cell in cells if cell["functions"]), None),
                len(cells),
                {name: [cell["numbers"][name] for cell in good if name in cell["numbers"]] for name in names},
                [cell["run"] for cell in [*good, *(cell for cell in cells if cell not in good)] if cell["run"]],
                list(dict.fromkeys(f"{c['status']}: {c['reason']}".strip(": ") for c in cells if c not in good)),
                _remarks_of(good),
                all(cell["status"] == LEFT_OUT for cell in cells),
            )
        )
    return sorted(found, key=lambda each: (each.usable == 0, each.middle("geometry_error")))


def _remarks_of(cells: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for cell in cells:
        if cell.get("remarks"):
            found.setdefault(cell["remarks"], []).append(cell["seed"])
    return found


def _rules(page: Page, content: Mapping[str, Any]) -> None:
    board, machine = content["board"], content["machine"]
    page.text(
        f"Entries: {len(board['entry'])}. Cases: {len(board['cases'])}. Training sets of each case: "
        f"{len(board['seeds'])} (seeds {', '.join(map(str, board['seeds']))}). "
        f"Preset: {board['preset'] or 'none, the specs as they stand'}. "
        f"Made {content['created']} on {machine['cpu']}; usable cores: {machine['cores_usable']}."
    )
    page.text(
        "Rules. All entries of a case are trained on the same configurations and judged in the same cells. A family "
        "that is fitted here has the weights of the case unless its entry says otherwise; other trainers have settings "
        "of their own. Numbers are medians over the training sets, with their range. Only runs whose model relaxed and "
        "is stable count: `usable` tells how many. Force calls are timed in one pass, on one core, in the simulation "
        "cell of the case, all models in turns, the fastest of five calls. Training is the time to make the rows and "
        "to fit, or that of the trainer, on the cores that the run had."
    )


def _row(each: Standing, costs: Mapping[str, float]) -> list[str]:
    cost = costs.get(each.entry)
    ratio = cost / costs[REFERENCE] if cost and costs.get(REFERENCE) else None
    return [
        each.entry,
        each.family,
        str(each.functions or ""),
        LEFT_OUT if each.left_out else f"{each.usable} of {each.seeds}",
        each.told("geometry_error"),
        each.told("energy_difference", 1e3),
        each.told("rmse_F"),
        each.told("eps_V1_felt"),
        each.told("eps_K", 1e3),
        "" if cost is None else f"{cost:.3g}",
        "" if ratio is None else f"{ratio:.3g} ×",
        each.told("training_seconds"),
        " ".join(run[:8] for run in each.runs),
    ]


def _record(case: str, each: Standing, costs: Mapping[str, float]) -> dict[str, object]:
    """A row of the CSV file, numbers with all their digits."""
    medians = {name: each.middle(name) if name in each.numbers else "" for name in KEPT}
    return {
        "case": case,
        "entry": each.entry,
        "family": each.family,
        "functions": each.functions or "",
        "usable": each.usable,
        "seeds": each.seeds,
        **medians,
        "force_call_us_per_atom": costs.get(each.entry, ""),
        "reference_us_per_atom": costs.get(REFERENCE, ""),
        "runs": " ".join(each.runs),
        "why_not": "; ".join(each.reasons),
        "remarks": "; ".join(f"{_seeds(seeds)}: {remark}" for remark, seeds in each.remarks.items()),
    }


def _left_out(page: Page, standings: Sequence[Standing]) -> None:
    rows = [[each.entry, reason] for each in standings for reason in each.reasons]
    if rows:
        page.text("Runs that do not count, and why:")
        page.table(["entry", "reason"], rows)


def _remarks(page: Page, standings: Sequence[Standing]) -> None:
    """Each remark once, with the entries that it is about."""
    about: dict[str, list[str]] = {}
    for each in standings:
        for remark, seeds in each.remarks.items():
            about.setdefault(remark, []).append(f"{each.entry} ({_seeds(seeds)})")
    if about:
        page.text("What to know about runs that count:")
        page.table(["remark", "entries"], [[remark, ", ".join(entries)] for remark, entries in about.items()])


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _pareto(page: Page, standings: Sequence[Standing], costs: Mapping[str, float], path: Path) -> None:
    """Geometry and energy error against the cost of a force call; the front of those that no other beats in both."""
    drawn = [each for each in standings if each.usable and each.entry in costs]
    if not drawn:
        return
    with styled():
        save(_against_cost(drawn, standings, costs), path)
    page.figure(
        path,
        "Errors against cost, medians and ranges over the training sets. No entry beats those on the line in both.",
    )


def _against_cost(drawn: Sequence[Standing], standings: Sequence[Standing], costs: Mapping[str, float]) -> Figure:
    figure, axes = panels(2, height=3.5)
    families = list(dict.fromkeys(each.family for each in sorted(standings, key=lambda each: each.family)))
    for axis, (name, factor, label) in zip(axes, DRAWN, strict=True):
        points = []
        for each in drawn:
            values = factor * np.abs(each.numbers[name])
            cost, middle = costs[each.entry], float(np.median(values))
            index = families.index(each.family)
            axis.errorbar(
                cost,
                middle,
                [[middle - values.min()], [values.max() - middle]],
                fmt=MARKERS[index % len(MARKERS)],
                color=COLOURS[index % len(COLOURS)],
                markersize=4.5,
            )
            axis.annotate(each.entry, (cost, middle), xytext=(5, 3), textcoords="offset points", fontsize=7)
            points.append((cost, middle))
        front, best = [], np.inf
        for cost, middle in sorted(points):
            if middle < best:
                front.append((cost, middle))
                best = middle
        if front:
            axis.step(*np.transpose(front), where="post", color=GREY, linewidth=0.8, zorder=0)
        axis.set(
            xscale="log",
            **_scale([value for _, value in points]),
            xlabel="force call on one core [µs/atom]",
            ylabel=label,
        )
        axis.margins(0.15)
        open_frame(axis)
    letter(axes)
    return figure


def _scale(values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic y axis that shows errors of zero too, such as those of a reference that is judged by itself."""
    positive = [value for value in values if value > 0]
    if len(positive) == len(values):
        return {"yscale": "log"}
    return {"yscale": SymmetricalLogScale(None, linthresh=min(positive))} if positive else {}


def _ranks(page: Page, standings: Sequence[Standing]) -> None:
    """Do the cheap numbers order the families as the errors do?"""
    good = [each for each in standings if each.usable]
    if len(good) < 4:
        return
    rows = []
    for error in ("geometry_error", "energy_difference"):
        columns = {name: [each.middle(name) for each in good] for name in RANKED_BY}
        ranked = rank_correlations([each.middle(error) for each in good], columns)
        rows.append([error.replace("_", " "), *(f"{ranked[name]:.2f}" if name in ranked else "" for name in RANKED_BY)])
    page.text(f"Rank correlation (Spearman) over the {len(good)} entries with usable runs:")
    page.table(["error", *(head(name).partition(" [")[0] for name in RANKED_BY)], rows)


def _cores(page: Page, tracker: Tracker, standings: Sequence[Standing], path: Path) -> None:
    """Cores of the reference and of every entry side by side, from the fields of one run each."""
    trees = {}
    for each in standings:
        if each.usable:
            try:
                if (store := tracker.store_of(each.runs[0])).exists():
                    trees[each.entry] = fields.read(store)
            except fields.StoreError as error:
                page.text(f"The core of {each.entry} is not drawn: {error}.")
    if not trees:
        return
    first = next(iter(trees.values()))
    if "loop_line" in first["simulation"]:
        return  # a loop has no map in a plane; `show` draws each
    maps = {"reference": (first, "relaxed"), **{name: (tree, "relaxed_model") for name, tree in trees.items()}}
    with styled():
        save(cores(maps), path)
    page.figure(path, "Cores side by side: differential displacement, arrows scaled to b/3.")
