"""The figures of Wang, Patel and Ortner, CMAME 422, 116831 (2024), as sweeps of shipped specs, and a page of them.

Each figure is the sweep `figN` of one spec. `write_page` needs only what a sweep stores (`sweep.content_of`), so
that the page can be made again from `paper.json` without a workspace.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.judge.numbers import ERRORS
from suite.show.page import Page
from suite.show.sweep_figures import draw_sweep
from suite.study.rates import AGREES, DISAGREES, HEADS, cells

DATA = "paper.json"


@dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper: its `number`, the `spec` whose sweep `figN` makes it, and what the paper `shows` there."""

    number: int
    spec: str
    shows: str

    @property
    def sweep(self) -> str:
        return f"fig{self.number}"


_AGAINST_RMSE = (
    "errors of the relaxed simulation against the RMSE of the fit, one curve for each training cell: the geometry "
    "error is linear in the RMSE, the energy error quadratic"
)
_AGAINST_L = (
    "errors against the training cell L with no elasticity, linear elasticity (CLE), and nonlinear elasticity "
    "observed: the geometry error does not fall without elasticity, and falls as 1/L and 1/L² with it; the energy "
    "error falls as 1/L² with either"
)
FIGURES = tuple(
    PaperFigure(number, spec, shows)
    for spec, (first, second) in {
        "w-screw": (4, 5),
        "si-edge": (7, 8),
        "nial-screw": (10, 11),
        "w-loop": (13, 14),
    }.items()
    for number, shows in ((first, _AGAINST_RMSE), (second, _AGAINST_L))
)
"""All figures of the paper that show numbers."""


def verdict(record: Mapping[str, Any], error: str) -> str:
    """Whether the paper's slopes of `error` hold in a sweep: "holds" when every curve agrees, "does not hold" when one
    disagrees, else "not resolved"."""
    found = [rate["verdict"] for rate in record["rates"] if rate["error"] == error]
    if DISAGREES in found:
        return "does not hold"
    return "holds" if found and all(each == AGREES for each in found) else "not resolved"


def summary(record: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a sweep that the page needs: its content, with only the errors and the axis value of each point."""
    points = [
        {
            **{key: point[key] for key in ("setting", "seed", "values", "x", "status")},
            "numbers": {name: point["numbers"][name] for name in ERRORS if name in point["numbers"]},
        }
        for point in record["points"]
    ]
    return {**{key: value for key, value in record.items() if not key.startswith("ordering")}, "points": points}


def write_page(
    records: Mapping[int, Mapping[str, Any]], sizes: str, folder: Path, comments: Mapping[int, str] | None = None
) -> list[Path]:
    """Write paper.html, paper.md, paper.json and figures/figN.png into `folder`; returns their paths.

    `records` are the contents of the sweeps by number of the figure, `sizes` the preset that they were made with,
    `comments` a few words on a figure. A figure that is missing from `records` is left out.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    page = Page("The figures of the paper")
    page.text(
        f"Made by `dislobench paper --preset {sizes}`. Slopes are least squares in logarithms with a 95 % interval; "
        "how windows and verdicts are chosen is told in the page on sweeps. Points are geometric means over seeds, "
        "bars their range, thin lines the slopes of Theorem 3.1 and Table 1."
    )
    shown = [figure for figure in FIGURES if figure.number in records]
    page.table(
        ["figure", "spec", "against", "runs", "converged", *(f"{error.partition('_')[0]} slope" for error in ERRORS)],
        [
            [
                str(each.number),
                each.spec,
                records[each.number]["against"],
                str(len(records[each.number]["points"])),
                str(sum(point["status"] == "converged" for point in records[each.number]["points"])),
                *(verdict(records[each.number], error) for error in ERRORS),
            ]
            for each in shown
        ],
    )
    written = []
    for each in shown:
        record = records[each.number]
        page.heading(f"Figure {each.number}: {record['title']}")
        page.text(f"The paper shows {each.shows}.")
        picture = draw_sweep(record, folder / "figures" / f"{each.sweep}.png")
        written.append(picture)
        page.figure(picture, f"Figure {each.number} as `dislobench paper --preset {sizes}` makes it.")
        page.table(
            ["error", "curve", *HEADS],
            [[rate["error"].partition("_")[0], rate["setting"], *cells(rate)] for rate in record["rates"]],
        )
        holds = {error.partition("_")[0]: verdict(record, error) for error in ERRORS}
        page.text("; ".join(f"{name} error: {words}" for name, words in holds.items()) + ".")
        if comments and each.number in comments:
            page.text(comments[each.number])
    data = {"preset": sizes, "figures": {str(each.number): summary(records[each.number]) for each in shown}}
    (folder / "figures" / DATA).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return [*page.write(folder, "paper"), folder / "figures" / DATA, *written]
