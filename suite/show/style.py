"""One style for all figures: sizes of a journal's columns, colours that can be told apart, units, formulas.

    with styled():
        figure, axes = panels(2)
        ...
        save(figure, folder / "errors.png")

Colours are those of Okabe and Ito, which people with colour blindness can tell apart, and every curve has a marker or a
line of its own as well. Signed fields have a diverging map whose middle is zero.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, LogLocator, NullFormatter

from suite.judge.numbers import head

BLUE, ORANGE, GREEN, PINK, SKY, YELLOW = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
GREY = "#666666"
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, YELLOW, "#000000", GREY)
MARKERS = "os^DvP*X"
DIVERGING, SEQUENTIAL = "RdBu_r", "viridis"
ONE_COLUMN, TWO_COLUMNS = 3.5, 7.1
"""Widths of figures in a journal, inches."""
DPI = 150

_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, and has every symbol that is used
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "lines.linewidth": 1.0,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "errorbar.capsize": 2,
    "axes.unicode_minus": True,
    "mathtext.fontset": "dejavusans",
    "pdf.fonttype": 42,  # text stays text, as journals ask
    "svg.fonttype": "none",
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in this style; settings of the user's matplotlib do not reach in, and are back afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)  # type: ignore[arg-type]
        yield


def panels(
    columns: int, rows: int = 1, width: float = TWO_COLUMNS, height: float | None = None, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of `width` inches and its panels, row by row; `options` are those of `Figure.subplots`."""
    shape = (width, height if height is not None else 0.82 * rows * width / columns)
    figure = Figure(figsize=shape, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.ravel())


def save(figure: Figure, path: Path, dpi: int = DPI, vector: bool = False) -> Path:
    """Write a figure as PNG to `path`, and if `vector` as PDF beside it; returns `path`."""
    figure.savefig(path, dpi=dpi)
    if vector:
        logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every font that it embeds
        figure.savefig(path.with_suffix(".pdf"), dpi=2 * dpi, metadata={"CreationDate": None})
    return path


def letter(axes: Sequence[Axes]) -> None:
    """Write (a), (b), ... before the titles of panels."""
    for index, axis in enumerate(axes):
        title = axis.title
        words, colour = title.get_text(), title.get_color()
        title.set_text("")
        axis.set_title(f"({chr(ord('a') + index)}) {words}".strip(), loc="left", color=colour)


# --- words --------------------------------------------------------------------------------------------------------

_FORMULA = re.compile(
    r"(?P<letter>ȳ|ε|(?<![A-Za-z])[A-Za-z])_(?P<below>[A-Za-z0-9σ]+)|(?P<bar>ȳ)|c₀|(?<![A-Za-z])[LNKEBCSt](?![A-Za-z\d])"
)
_LETTERS = {"ȳ": r"\bar{y}", "ε": r"\varepsilon"}
_SLANTED = {"D": "D", "σ": r"\sigma"}  # indices that are quantities themselves; others are names


def formula(text: str) -> str:
    """`text` with its symbols as mathtext: "ε_V1 felt" becomes an epsilon with an index."""

    def set_one(found: re.Match[str]) -> str:
        if found["bar"]:
            return rf"${_LETTERS['ȳ']}$"
        if found["letter"] is None:
            return f"${found[0].replace('₀', '_0')}$"
        below = _SLANTED.get(found["below"], rf"\mathrm{{{found['below']}}}")
        return f"${_LETTERS.get(found['letter'], found['letter'])}_{{{below}}}$"

    return _FORMULA.sub(set_one, text.replace(" - ", " − "))


def label(name: str) -> str:
    """Label of the axis of a number: its symbol as mathtext, and its unit in brackets. The unit holds no formula."""
    words, bracket, unit = head(name).rpartition(" [")
    return f"{formula(words)}{bracket}{unit}" if bracket else formula(unit)


# --- axes ---------------------------------------------------------------------------------------------------------


def open_frame(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)


def centred(values: np.ndarray) -> dict[str, Any]:
    """Map and limits for a signed field: the middle of the map is zero."""
    largest = float(np.abs(values).max()) or 1.0
    return {"cmap": DIVERGING, "clim": (-largest, largest)}


def logarithmic(axis: Axes, which: str, values: Sequence[float], room: float = 1.4) -> None:
    """Make an axis ("x" or "y") logarithmic, with the range of the positive `values` and some room, and with as many
    labels as fit where it spans less than two decades. Without positive values the axis stays linear."""
    positive = [value for value in values if value > 0 and np.isfinite(value)]
    if not positive:
        return
    low, high = min(positive) / room, max(positive) * room
    shown = axis.xaxis if which == "x" else axis.yaxis
    axis.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    steps = next((steps for span, steps in _STEPS.items() if high / low < span), None)
    if steps is not None:
        shown.set_major_locator(LogLocator(subs=steps))
        shown.set_major_formatter(_Plain(minor_thresholds=(np.inf, np.inf)))
        shown.set_minor_formatter(NullFormatter())


_STEPS = {4: (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0), 15: (1.0, 2.0, 5.0), 100: (1.0, 3.0)}
"""Labels within a decade, by how many times the upper limit of an axis is its lower one."""


class _Plain(LogFormatter):
    """Numbers as people write them: 0.05, 0.1, 0.2; powers of ten beyond."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        if x <= 0:
            return ""
        if 1e-3 <= x < 1e4:
            return f"{x:g}"
        power = int(np.floor(np.log10(x) + 1e-9))
        first = x / 10.0**power
        times = "" if abs(first - 1) < 1e-6 else rf"{first:g}\times"
        return rf"${times}10^{{{power}}}$"
