"""Figures that compare runs: their errors against their matching numbers, and their cores side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap

import xarray as xr
from matplotlib.figure import Figure

from store.runs import RunRecord
from suite.show.figures import SMALLEST, cores
from suite.show.style import BLUE, COLOURS, MARKERS, label, letter, logarithmic, open_frame, panels, save, styled

AGAINST = {
    "geometry_error": ("eps_F", "eps_V1_felt", "rmse_F"),
    "energy_error": ("eps_E", "eps_K", "eps_V1_felt"),
}
"""Errors, and the matching numbers that they are drawn against."""
LONGEST = 60  # characters of a name in a legend


def draw_comparison(
    runs: Sequence[RunRecord], trees: Mapping[str, xr.DataTree], folder: Path, titles: Sequence[str] | None = None
) -> list[Path]:
    """Draw the figures of these runs into `folder`, as PNG and PDF; returns the paths of the PNG files.

    `trees` are the stores of runs by id, of those that have one; `titles` stand for the runs, by default their names.
    Cores are drawn of straight dislocations, in a figure for each case.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = legend_names(runs) if titles is None else list(titles)
    with styled():
        written = [save(against_matching(runs, words), folder / "errors-against-matching.png", vector=True)]
        for case, maps in _maps(runs, trees, words).items():
            written.append(save(cores(maps), folder / f"cores-{case}.png", vector=True))
    return written


def legend_names(runs: Sequence[RunRecord]) -> list[str]:
    """Names that tell runs apart in a legend."""
    return [f"{record.id[:4]} {record.name}"[:LONGEST] for record in runs]


def against_matching(runs: Sequence[RunRecord], words: Sequence[str] | None) -> Figure:
    """Both errors of every run against its matching numbers; `words` tell the runs apart, which are not told apart
    without them."""
    columns = len(next(iter(AGAINST.values())))
    figure, axes = panels(columns, len(AGAINST), height=4.6 + 0.14 * len(words or ()), sharey="row")
    for row, (error, names) in enumerate(AGAINST.items()):
        shown = [max(record.metrics[error], SMALLEST) for record in runs if error in record.metrics]
        for axis, name in zip(axes[columns * row :], names, strict=False):
            points = []
            for index, record in enumerate(runs):
                if error not in record.metrics or name not in record.metrics:
                    continue
                x, y = max(record.metrics[name], SMALLEST), max(record.metrics[error], SMALLEST)
                points.append(x)
                if words is None:
                    axis.plot(x, y, "o", color=BLUE, markersize=3, markerfacecolor="none")
                    continue
                marker, colour = MARKERS[index % len(MARKERS)], COLOURS[index % len(COLOURS)]
                axis.plot(x, y, marker, color=colour, markersize=5, linestyle="none", label=words[index])
            logarithmic(axis, "x", points)
            axis.set_xlabel(label(name))
            open_frame(axis)
        logarithmic(axes[columns * row], "y", shown)
        axes[columns * row].set_ylabel(label(error))
    letter(axes)
    handles = {text: mark for axis in axes for mark, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    if handles:
        figure.legend(list(handles.values()), list(handles), loc="outside lower left")
    return figure


def _maps(
    runs: Sequence[RunRecord], trees: Mapping[str, xr.DataTree], words: Sequence[str]
) -> dict[str, dict[str, tuple[xr.DataTree, str]]]:
    """Core maps by case and title: the reference of the first run of a case, then the model of each run."""
    found: dict[str, dict[str, tuple[xr.DataTree, str]]] = {}
    for record, title in zip(runs, words, strict=True):
        tree = trees.get(record.id)
        if tree is None or "loop_line" in tree["simulation"]:
            continue
        maps = found.setdefault(record.experiment, {"reference": (tree, "relaxed")})
        maps["\n".join(wrap(title, 34)[:2])] = (tree, "relaxed_model")
    return found
