"""Figures of a sweep, from its `sweep.json`: errors against the axis, fitted slopes, guide lines of the theory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from suite.judge.numbers import ERRORS, NUMBERS, head
from suite.ladders import AXES
from suite.show.figures import BLUE, DPI, GREY, ORANGE
from suite.study.sweep import GROWTHS

SETTING_STYLES = {
    "no elasticity": (ORANGE, "s", "--"),
    "CLE": (GREY, "^", ":"),
    "CLE+nonlinear": (BLUE, "o", "-"),
    "": (BLUE, "o", "-"),
}
CURVE_STYLES = ((BLUE, "o", "-"), (ORANGE, "s", "--"), (GREY, "^", ":"), ("black", "D", "-."))


def axis_label(name: str) -> str:
    """Label of an axis: of a size, or of a number of runs with its unit; other names stay as they are."""
    return AXES[name].label if name in AXES else head(name)


def _styles(curves: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """Colour, marker and line of every curve: fixed ones for the three settings, otherwise taken in turn."""
    if set(curves) <= set(SETTING_STYLES):
        return {curve: SETTING_STYLES[curve] for curve in curves}
    return dict(zip(curves, cycle(CURVE_STYLES), strict=False))


def draw_sweep(record: Mapping[str, Any], path: Path) -> Path:
    """Both errors of a sweep (the content of its `sweep.json`) against its axis, as PNG."""
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    axes = figure.subplots(1, 2)
    if record.get("law") == "logarithm":
        for axis, (error, label) in zip(axes, GROWTH_LABELS.items(), strict=True):
            _growth_panel(axis, record, error, label)
    else:
        for axis, error in zip(axes, ERRORS, strict=True):
            _panel(axis, record, error)
    figure.suptitle(f"{record['title']}: {record['name']}", fontsize=11)
    figure.savefig(path, dpi=DPI)
    return path


# Error, key of `sweep.json` with its rank correlations, and the numbers that are drawn
ORDERING = (
    ("geometry_error", "ordering", ("eps_F", "eps_V1_null_free", "eps_V1_felt")),
    ("energy_error", "ordering_energy", ("eps_E", "eps_V1_felt", "eps_K")),
)


def draw_ordering(record: Mapping[str, Any], path: Path) -> Path:
    """Both errors of every point of a sweep against matching numbers, with their rank correlation, as PNG.

    A sweep of an older version holds correlations of the geometry error only; its figure has one row.
    """
    chosen = [row for row in ORDERING if record.get(row[1])]
    figure = Figure(figsize=(11, 3.9 * len(chosen)), layout="constrained")
    axes = figure.subplots(len(chosen), 3, sharey="row", squeeze=False)
    points = [p for p in record["points"] if "geometry_error" in p["numbers"]]
    for row, (error, key, names) in zip(axes, chosen, strict=True):
        for axis, name in zip(row, names, strict=True):
            _against(axis, points, name, error)
            if name in record[key]:
                axis.set_title(f"rank correlation {record[key][name]:.2f}", fontsize=10)
        row[0].set_ylabel(head(error))
    if len(axes[0, 0].lines) > 1:
        axes[0, 0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=DPI)
    return path


def _against(axis: Axes, points: Sequence[Mapping[str, Any]], name: str, error: str) -> None:
    """Draw an error of every point against a number of the same run, in the style of its curve."""
    for setting, (colour, marker, _) in _styles(list(dict.fromkeys(p["setting"] for p in points))).items():
        chosen = [p["numbers"] for p in points if p["setting"] == setting and name in p["numbers"]]
        x = [max(numbers[name], 1e-12) for numbers in chosen]
        y = [max(numbers[error], 1e-12) for numbers in chosen]
        axis.plot(x, y, marker, color=colour, markersize=4, alpha=0.7, linestyle="none", label=setting)
    axis.set(xscale="log", yscale="log", xlabel=axis_label(name))
    _label_x(axis, _ticks(*axis.get_xlim()))
    axis.spines[["top", "right"]].set_visible(False)


def _label_x(axis: Axes, ticks: Sequence[float]) -> None:
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.xaxis.set_minor_formatter(NullFormatter())


def _ticks(low: float, high: float) -> list[float]:
    """At most five round numbers between `low` and `high`; labels of more would overlap."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9), (1, 2, 5), (1, 3), (1,)):
        found = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(found) <= 5:
            return found
    return found[:: -(-len(found) // 5)]


def _panel(axis: Axes, record: Mapping[str, Any], error: str) -> None:
    known = [p for p in record["points"] if p["x"] is not None and error in p["numbers"]]
    # a model that did not move has an error of exactly zero, which would stretch the axis over ten decades
    points = [p for p in known if p["numbers"][error] > 0] or known
    settings = list(dict.fromkeys(p["setting"] for p in points))
    rates = {(r["error"], r["setting"]): r for r in record["rates"]}
    styles = _styles(settings)
    for setting in settings:
        colour, marker, line = styles[setting]
        chosen = [p for p in points if p["setting"] == setting]
        x, y, low, high = _over_seeds(chosen, error)
        rate = rates.get((error, setting))
        label = setting
        if rate is not None:
            half = (rate["high"] - rate["low"]) / 2
            width = f" ± {half:.2f}" if np.isfinite(half) else ""
            label = f"{label + ': ' if label else ''}slope {rate['slope']:.2f}{width}"
            span = np.array(rate["window"])
            axis.plot(span, np.exp(rate["intercept"]) * span ** rate["slope"], line, color=colour, linewidth=1.4)
        axis.errorbar(
            x, y, yerr=[y - low, high - y], fmt=marker, color=colour, markersize=6, capsize=3, linewidth=1, label=label
        )
    expected = {r["expected"] for r in record["rates"] if r["error"] == error and r["expected"] is not None}
    if points:
        _guides(axis, points, error, sorted(expected))
    axis.set(xscale="log", yscale="log", ylabel=head(error))
    axis.set_xlabel(axis_label(record["against"]))
    sizes = record["against"] in AXES and AXES[record["against"]].key != ""
    _label_x(axis, sorted({p["x"] for p in points}) if sizes else _ticks(*axis.get_xlim()))
    axis.spines[["top", "right"]].set_visible(False)
    if axis.get_legend_handles_labels()[1]:  # without settings and rates there is nothing to tell apart
        axis.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 1.0))


GROWTH_LABELS = {
    "geometry_error": f"square of the {NUMBERS['geometry_error'].symbol} [{NUMBERS['growth_geometry'].unit}]",
    "energy_difference": head("energy_difference"),
}


def _growth_panel(axis: Axes, record: Mapping[str, Any], error: str, label: str) -> None:
    """Draw an error against ln L_D in linear axes: a line for each seed, and the predicted slope through its middle."""
    value, prediction = GROWTHS[error]
    wanted = {error, prediction}
    points = [p for p in record["points"] if p["x"] is not None and wanted <= set(p["numbers"])]
    styles = _styles(list(dict.fromkeys(p["setting"] for p in points)))
    for setting, (colour, marker, _) in styles.items():
        chosen = [p for p in points if p["setting"] == setting]
        for index, seed in enumerate(dict.fromkeys(p["seed"] for p in chosen)):
            line = sorted((p for p in chosen if p["seed"] == seed), key=lambda p: p["x"])
            x = np.array([p["x"] for p in line])
            y = np.array([value(p["numbers"]) for p in line])
            slope = float(np.mean([p["numbers"][prediction] for p in line]))
            name = setting if index == 0 else None
            axis.plot(x, y, marker, color=colour, markersize=4, linestyle="-", linewidth=0.8, label=name)
            axis.plot(x, y.mean() + slope * (x - x.mean()), "--", color=colour, linewidth=1.2)
    axis.axhline(0, color="black", linewidth=0.5)
    axis.set(xlabel=axis_label("log_L_D"), ylabel=label)
    axis.spines[["top", "right"]].set_visible(False)
    if len(styles) > 1:
        axis.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)


def _over_seeds(points: Sequence[Mapping[str, Any]], error: str) -> tuple[np.ndarray, ...]:
    """Geometric mean and range over seeds of the same ladder values."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for point in points:
        groups.setdefault(str(point["values"]), []).append(point)
    rows = []
    for group in groups.values():
        values = np.array([max(p["numbers"][error], 1e-12) for p in group])
        x = float(np.exp(np.mean([np.log(p["x"]) for p in group])))
        middle = float(np.clip(np.exp(np.log(values).mean()), values.min(), values.max()))  # equal apart from rounding
        rows.append((x, middle, values.min(), values.max()))
    return tuple(np.array(sorted(rows)).T)


def _guides(axis: Axes, points: Sequence[Mapping[str, Any]], error: str, slopes: Sequence[float]) -> None:
    """Thin lines of the expected slopes below the data, labelled at their ends; the axis stays that of the data."""
    x = np.array([min(p["x"] for p in points), max(p["x"] for p in points)])
    values = [max(p["numbers"][error], 1e-12) for p in points]
    lowest, highest = min(values), max(values)
    floor = lowest / 6
    for index, slope in enumerate(slopes):
        y = (x / (x[0] if slope <= 0 else x[1])) ** slope
        y *= (lowest if slope <= 0 else float(np.sqrt(lowest * highest))) * 0.55 * 0.8**index
        axis.plot(x, y, color="black", linewidth=0.7)
        axis.annotate(f"{slope:g}", (x[1], y[1]), xytext=(3, 0), textcoords="offset points", fontsize=8, va="center")
        floor = min(floor, 0.8 * float(y.min())) if slope <= 0 else floor
    axis.set_ylim(floor, highest * 2)
