"""Figures of a sweep, from its `sweep.json`: errors against the axis, fitted slopes, guide lines of the theory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from suite.judge.numbers import ERRORS, NUMBERS
from suite.ladders import AXES
from suite.show.figures import SMALLEST
from suite.show.style import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    formula,
    label,
    letter,
    logarithmic,
    open_frame,
    panels,
    save,
    styled,
)
from suite.study.sweep import GROWTHS

SETTING_STYLES = {
    "no elasticity": (ORANGE, "s", "--"),
    "CLE": (GREEN, "^", ":"),
    "CLE+nonlinear": (BLUE, "o", "-"),
    "": (BLUE, "o", "-"),
}
CURVE_STYLES = tuple(zip(COLOURS[:4], ("o", "s", "^", "D"), ("-", "--", ":", "-."), strict=True))
APART = 1.012
"""Factor in x between the curves of a figure, so that a point does not hide behind another of the same x."""


def axis_label(name: str) -> str:
    """Label of an axis: of a size, or of a number of runs with its unit; other names stay as they are."""
    return formula(AXES[name].label) if name in AXES else label(name)


def _styles(curves: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """Colour, marker and line of every curve: fixed ones for the three settings, otherwise taken in turn."""
    if set(curves) <= set(SETTING_STYLES):
        return {curve: SETTING_STYLES[curve] for curve in curves}
    return dict(zip(curves, cycle(CURVE_STYLES), strict=False))


def draw_sweep(record: Mapping[str, Any], path: Path, vector: bool = False) -> Path:
    """Both errors of a sweep (the content of its `sweep.json`) against its axis, as PNG, and if `vector` as PDF too."""
    with styled():
        figure, axes = panels(2, height=3.5)
        if record.get("law") == "logarithm":
            for axis, (error, words) in zip(axes, GROWTH_LABELS.items(), strict=True):
                _growth_panel(axis, record, error, words)
        else:
            for axis, error in zip(axes, ERRORS, strict=True):
                _panel(axis, record, error)
        return save(figure, path, vector=vector)


# Error, key of `sweep.json` with its rank correlations, and the numbers that are drawn
ORDERING = (
    ("geometry_error", "ordering", ("eps_F", "eps_V1_null_free", "eps_V1_felt")),
    ("energy_error", "ordering_energy", ("eps_E", "eps_V1_felt", "eps_K")),
)


def draw_ordering(record: Mapping[str, Any], path: Path, vector: bool = False) -> Path:
    """Both errors of every point of a sweep against matching numbers, with their rank correlation; as `draw_sweep`.

    A sweep of an older version holds correlations of the geometry error only; its figure has one row.
    """
    chosen = [row for row in ORDERING if record.get(row[1])]
    points = [p for p in record["points"] if "geometry_error" in p["numbers"]]
    with styled():
        figure, axes = panels(3, len(chosen), height=2.5 * len(chosen), sharey="row")
        for row, (error, key, names) in enumerate(chosen):
            for axis, name in zip(axes[3 * row : 3 * row + 3], names, strict=True):
                _against(axis, points, name, error)
                axis.set_title(f"rank correlation {record[key][name]:.2f}" if name in record[key] else "")
            axes[3 * row].set_ylabel(label(error))
        letter(axes)
        handles, words = axes[0].get_legend_handles_labels()
        if len(words) > 1:
            figure.legend(handles, words, loc="outside lower center", ncols=len(words))
        return save(figure, path, vector=vector)


def _against(axis: Axes, points: Sequence[Mapping[str, Any]], name: str, error: str) -> None:
    """Draw an error of every point against a number of the same run, in the style of its curve."""
    every: list[tuple[float, float]] = []
    for setting, (colour, marker, _) in _styles(list(dict.fromkeys(p["setting"] for p in points))).items():
        chosen = [p["numbers"] for p in points if p["setting"] == setting and name in p["numbers"]]
        x = [max(numbers[name], SMALLEST) for numbers in chosen]
        y = [max(numbers[error], SMALLEST) for numbers in chosen]
        axis.plot(x, y, marker, color=colour, markersize=3.5, markerfacecolor="none", linestyle="none", label=setting)
        every += zip(x, y, strict=True)
    axis.set_xlabel(axis_label(name))
    logarithmic(axis, "x", [x for x, _ in every])
    logarithmic(axis, "y", [y for _, y in every])
    open_frame(axis)


def _panel(axis: Axes, record: Mapping[str, Any], error: str) -> None:
    known = [p for p in record["points"] if p["x"] is not None and error in p["numbers"]]
    # a model that did not move has an error of exactly zero, which would stretch the axis over ten decades
    points = [p for p in known if p["numbers"][error] > 0] or known
    settings = list(dict.fromkeys(p["setting"] for p in points))
    rates = {(r["error"], r["setting"]): r for r in record["rates"]}
    styles = _styles(settings)
    for place, setting in enumerate(settings):
        colour, marker, line = styles[setting]
        chosen = [p for p in points if p["setting"] == setting]
        x, y, low, high = _over_seeds(chosen, error)
        rate = rates.get((error, setting))
        words = setting
        if rate is not None:
            half = (rate["high"] - rate["low"]) / 2
            width = f" ± {half:.2f}" if np.isfinite(half) else ""
            words = f"{words + ': ' if words else ''}slope {rate['slope']:.2f}{width}"
            span = np.array(rate["window"])
            axis.plot(span, np.exp(rate["intercept"]) * span ** rate["slope"], line, color=colour)
        apart = x * APART ** (place - (len(settings) - 1) / 2)
        style: dict[str, Any] = {"fmt": marker, "color": colour, "markersize": 4, "markerfacecolor": "white"}
        axis.errorbar(apart, y, yerr=[y - low, high - y], linewidth=0.8, label=words, **style)
    axis.set(ylabel=label(error), xlabel=axis_label(record["against"]))
    if points:
        floor, top = _guides(axis, points, error, _expected(record, error))
        logarithmic(axis, "x", [p["x"] for p in points], room=1.12)
        logarithmic(axis, "y", [floor, top], room=1.2)
        if record["against"] in AXES and AXES[record["against"]].key:
            _ticks_at(axis, sorted({p["x"] for p in points}))
    open_frame(axis)
    if axis.get_legend_handles_labels()[1]:  # without settings and rates there is nothing to tell apart
        axis.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2)


def _expected(record: Mapping[str, Any], error: str) -> list[float]:
    return sorted({r["expected"] for r in record["rates"] if r["error"] == error and r["expected"] is not None})


def _ticks_at(axis: Axes, values: Sequence[float]) -> None:
    """Ticks at the values of a ladder, as far as their labels have room."""
    shown = [values[0]]
    for value in values[1:]:
        if value / shown[-1] > 1.1:
            shown.append(value)
    axis.xaxis.set_major_locator(FixedLocator(shown))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())


GROWTH_LABELS = {
    "geometry_error": f"square of the {NUMBERS['geometry_error'].symbol} [{NUMBERS['growth_geometry'].unit}]",
    "energy_difference": label("energy_difference"),
}


def _growth_panel(axis: Axes, record: Mapping[str, Any], error: str, words: str) -> None:
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
            axis.plot(x, y, marker, color=colour, markerfacecolor="white", linestyle="-", linewidth=0.6, label=name)
            axis.plot(x, y.mean() + slope * (x - x.mean()), "--", color=colour, linewidth=1.2)
    axis.axhline(0, color=GREY, linewidth=0.5, zorder=0)
    axis.set(xlabel=axis_label("log_L_D"), ylabel=words)
    open_frame(axis)
    if len(styles) > 1:
        axis.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2)


def _over_seeds(points: Sequence[Mapping[str, Any]], error: str) -> tuple[np.ndarray, ...]:
    """Geometric mean and range over seeds of the same ladder values."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for point in points:
        groups.setdefault(str(point["values"]), []).append(point)
    rows = []
    for group in groups.values():
        values = np.array([max(p["numbers"][error], SMALLEST) for p in group])
        x = float(np.exp(np.mean([np.log(p["x"]) for p in group])))
        middle = float(np.clip(np.exp(np.log(values).mean()), values.min(), values.max()))  # equal apart from rounding
        rows.append((x, middle, values.min(), values.max()))
    return tuple(np.array(sorted(rows)).T)


def _guides(
    axis: Axes, points: Sequence[Mapping[str, Any]], error: str, slopes: Sequence[float]
) -> tuple[float, float]:
    """Thin lines of the expected slopes below the data, labelled at their ends; returns what the axis must show."""
    x = np.array([min(p["x"] for p in points), max(p["x"] for p in points)])
    values = [max(p["numbers"][error], SMALLEST) for p in points]
    lowest, highest = min(values), max(values)
    floor = lowest
    for index, slope in enumerate(slopes):
        y = (x / (x[0] if slope <= 0 else x[1])) ** slope
        y *= (lowest if slope <= 0 else float(np.sqrt(lowest * highest))) * 0.55 * 0.8**index
        axis.plot(x, y, color="black", linewidth=0.6)
        axis.annotate(f"{slope:g}", (x[1], y[1]), xytext=(3, 0), textcoords="offset points", fontsize=7, va="center")
        floor = min(floor, 0.8 * float(y.min()))
    return floor, highest
