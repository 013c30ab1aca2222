"""Figures of a run, from its store alone, in the style of `suite.show.style`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator
from scipy.spatial import cKDTree

from suite.judge.numbers import NUMBERS
from suite.judge.theory import TERMS
from suite.show.style import (
    BLUE,
    COLOURS,
    DPI,
    GREY,
    MARKERS,
    ONE_COLUMN,
    ORANGE,
    SEQUENTIAL,
    TWO_COLUMNS,
    centred,
    formula,
    letter,
    logarithmic,
    open_frame,
    panels,
    save,
    styled,
)
from suite.world.dislocation import nearest_image

SMALLEST = 1e-12  # Å, of what a logarithm is taken
FLATTEST = 0.35  # height over width, or width over height, of a panel


def draw_all(
    tree: xr.DataTree,
    folder: Path,
    names: Sequence[str] | None = None,
    prefix: str = "",
    dpi: int = DPI,
    failed: dict[str, Exception] | None = None,
    vector: bool = False,
) -> list[Path]:
    """Draw the figures of a run (its store `tree`), or those of `names`, as FOLDER/PREFIXname.png, and if `vector` as
    PDF too, which takes as long again; returns the paths of the PNG files.

    Figures that do not exist for its dislocations are left out. An exception of a figure is raised; if `failed` is
    given, the exception is stored there by the figure's name, and the other figures are drawn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names_for("loop_line" not in tree["simulation"]):
        if names is not None and name not in names:
            continue
        path = folder / f"{prefix}{name}.png"
        try:
            with styled():
                save(FIGURES[name](tree), path, dpi, vector)
        except Exception as error:  # anything that a drawing library may raise; the caller reports it
            if failed is None:
                raise
            failed[name] = error
            for half in (path, path.with_suffix(".pdf")):
                half.unlink(missing_ok=True)
            continue
        paths.append(path)
    return paths


def names_for(straight: bool) -> list[str]:
    """Names of the figures that exist for straight dislocations, or for a loop."""
    unfit = "loop" if straight else "differential_displacement"
    return [name for name in FIGURES if name != unfit]


# --- fields over atoms --------------------------------------------------------------------------------------------


def _plane(group: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions in the plane (n, 2), cell size (2,), and the direction of the Burgers vector (3,)."""
    burgers = group["core_burgers"].to_numpy()[0]
    return (
        group["reference"].to_numpy()[:, :2],
        np.diag(group["cell_perfect"].to_numpy())[:2],
        burgers / np.linalg.norm(burgers),
    )


def _section(group: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A plane section through the middle of a loop that contains the loop's normal: the atoms within a0/2 of it, their
    positions along an axis in the plane of the loop and along the normal (k, 2), and both axes (2, 3)."""
    burgers = group["core_burgers"].to_numpy()[0]
    normal = burgers / np.linalg.norm(burgers)
    across = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal))])
    axes = np.stack([across / np.linalg.norm(across), normal])
    away = group["reference"].to_numpy() + group["relaxed"].to_numpy() - group["loop_centre"].to_numpy()
    thickness = np.linalg.norm(burgers) / np.sqrt(3)
    half = float(np.diag(group["cell_perfect"].to_numpy()).min()) / 2
    inside = (np.abs(away @ np.cross(*axes)) < thickness) & (np.abs(away @ axes.T) < half).all(axis=1)
    chosen = np.flatnonzero(inside)
    return chosen, away[chosen] @ axes.T, axes


def _cores(axis: Axes, group: Any) -> None:
    """Marks at the cores: + for those with the first Burgers vector, x for the opposite; a line for a loop."""
    style: dict[str, Any] = {"color": "black", "markersize": 5, "markeredgewidth": 1.0, "linestyle": "none"}
    if "loop_line" in group:
        radius = float(group["loop_radius"])
        axis.plot([-radius, radius], [0, 0], "+", label="loop before relaxation", **style)
        return
    direction = group["core_burgers"].to_numpy() @ group["core_burgers"].to_numpy()[0]
    position = group["core_position"].to_numpy()
    for sign, marker, words in ((1, "+", "+b"), (-1, "x", "−b")):
        chosen = position[np.sign(direction) == sign]
        axis.plot(*chosen.T, marker, label=f"core of {words}", **style)


@dataclass(frozen=True)
class _View:
    """What a panel shows of a cell: indices of atoms, their places (k, 2) and limits of x and y in Å, words of both
    axes."""

    atoms: np.ndarray
    places: np.ndarray
    limits: tuple[tuple[float, float], tuple[float, float]]
    words: tuple[str, str]

    @property
    def diameter(self) -> float:
        """Å; most neighbouring dots just touch."""
        columns = np.unique(self.places.round(1), axis=0)
        nearest = cKDTree(columns).query(columns, k=2)[0][:, 1]
        return float(0.95 * np.quantile(nearest, 0.25))

    @property
    def shape(self) -> float:
        """Height over width."""
        (left, right), (low, high) = self.limits
        return (high - low) / (right - left)


def _view(group: Any) -> _View:
    """The whole plane of a straight dislocation's cell, or a section through a loop. Very flat or high cells get some
    room around them, so that panels side by side can be compared."""
    if "loop_line" in group:
        chosen, places, _ = _section(group)
        half = float(np.abs(places).max())
        return _View(chosen, places, ((-half, half), (-half, half)), ("in the plane of the loop", "along b"))
    points, size, _ = _plane(group)
    room = np.maximum(size * 1.02, size[::-1] * FLATTEST) / 2
    (left, low), (right, high) = (size / 2 - room).tolist(), (size / 2 + room).tolist()
    return _View(np.arange(len(points)), points, ((left, right), (low, high)), ("$x_1$", "$x_2$"))


def _dots(axis: Axes, view: _View, values: np.ndarray, **style: Any) -> EllipseCollection:
    """Atoms as dots in units of length, coloured by `values` of all atoms; the largest lie on top."""
    shown = values[view.atoms]
    order = np.argsort(np.abs(shown))
    size = np.full(len(order), view.diameter)
    dots = EllipseCollection(
        size,
        size,
        np.zeros(len(order)),
        units="xy",
        offsets=view.places[order],
        offset_transform=axis.transData,
        array=shown[order],
        rasterized=True,  # a PDF of millions of dots cannot be opened
        linewidths=0,
        **style,
    )
    axis.add_collection(dots)
    axis.set(xlim=view.limits[0], ylim=view.limits[1], box_aspect=view.shape)
    axis.set(xlabel=f"{view.words[0]} [Å]", ylabel=f"{view.words[1]} [Å]")
    return dots


def cells(tree: xr.DataTree) -> Figure:
    """Simulation and training cell, coloured by the displacement along the Burgers vector."""
    names = [name for name in ("simulation", "training", "training_2") if name in tree]
    fields = {}
    for name in names:
        group = tree[name]
        length = float(np.linalg.norm(group["core_burgers"].to_numpy()[0]))
        fields[name] = group["relaxed"].to_numpy() @ _plane(group)[2] / length
    views = {name: _view(tree[name]) for name in names}
    style = centred(np.concatenate([fields[name][views[name].atoms] for name in names]))
    figure, axes = panels(len(names), height=_height(views.values(), len(names)) + 0.25)
    for axis, name in zip(axes, names, strict=True):
        dots = _dots(axis, views[name], fields[name], **style)
        _cores(axis, tree[name])
        axis.set_facecolor("0.85")  # white is a displacement of zero
        axis.set_title(f"{name.replace('_', ' ')} cell, {tree[name].sizes['atom']} atoms")
    letter(axes)
    figure.colorbar(dots, ax=axes, label="$u$ along b [b]", shrink=0.8, aspect=30)
    marks = {words: mark for axis in axes for mark, words in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(list(marks.values()), list(marks), loc="outside lower center", ncols=3)
    return figure


def errors(tree: xr.DataTree) -> Figure:
    """Bond-strain error of the model in the simulation cell, relaxed and predicted by linear response."""
    group = tree["simulation"]
    view = _view(group)
    figure, axes = panels(2, height=_height([view], 2))
    fields = {"full relaxation": group["error_atom"], "linear response": group["error_linear_atom"]}
    values = {name: np.maximum(field.to_numpy(), SMALLEST) for name, field in fields.items()}
    seen = np.concatenate([field[view.atoms] for field in values.values()])
    norm = LogNorm(*_range(seen))
    for axis, (name, field) in zip(axes, values.items(), strict=True):
        dots = _dots(axis, view, field, cmap=SEQUENTIAL, norm=norm)
        axis.set_title(f"{name}: {np.linalg.norm(fields[name].to_numpy()):.3g} Å")
    letter(axes)
    bar = figure.colorbar(dots, ax=axes, shrink=0.85, aspect=30)
    bar.set_label(formula("|Dȳ - Dȳ_ML| [Å]"))
    if tree.attrs["status"] != "converged":
        axes[0].set_title(f"model relaxation: {tree.attrs['status']}", color=ORANGE)
    return figure


def _height(views: Iterable[_View], columns: int) -> float:
    """Height of a figure of cells side by side, inches; the rest of its width is for the colour bar and words."""
    width = (TWO_COLUMNS - 1.0) / columns - 0.45
    return width * max(view.shape for view in views) + 0.65


def _range(values: np.ndarray) -> tuple[float, float]:
    """Limits of a logarithmic map that follow the data: the lowest hundredth of the atoms shares the lowest colour."""
    low, high = float(np.quantile(values, 0.01)), float(values.max())
    return (low, high) if high > 1.01 * low else (low / 2, 2 * high)


# --- cores --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Neighbours:
    """Atoms near the first core in the plane: places (n, 2) relative to it, their indices, pairs of nearest columns,
    and the half width of the section, Å."""

    places: np.ndarray
    atoms: np.ndarray
    pairs: tuple[np.ndarray, np.ndarray]
    spacing: float
    radius: float


def core_neighbours(tree: xr.DataTree) -> Neighbours:
    """The section around the first core that differential-displacement maps show."""
    group = tree["simulation"]
    points, size, _ = _plane(group)
    away = nearest_image(points - group["core_position"].to_numpy()[0], size)
    radius = 3.2 * float(tree["crystal"]["a0"])
    near = np.flatnonzero((np.abs(away) < radius).all(axis=1))
    places = away[near]
    distance = np.linalg.norm(places[None] - places[:, None], axis=2)
    spacing = distance[distance > 1e-3].min()
    # three neighbours or more: in diamond the nearest column alone would show no core
    third = float(np.median(np.sort(np.where(distance > 1e-3, distance, np.inf), axis=1)[:, 2]))
    first, second = np.nonzero(np.triu((distance > 1e-3) & (distance < 1.1 * third)))
    return Neighbours(places, near, (first, second), float(spacing), radius)


def core_map(axis: Axes, tree: xr.DataTree, name: str, near: Neighbours) -> None:
    """Differential-displacement map (Vitek) of the displacement `name` around the first core."""
    group = tree["simulation"]
    _, _, direction = _plane(group)
    length = float(np.linalg.norm(group["core_burgers"].to_numpy()[0]))
    height = group["reference"].to_numpy()[near.atoms, 2]
    period = float(group["cell_perfect"].to_numpy()[2, 2])
    first, second = near.pairs
    along = group[name].to_numpy()[near.atoms] @ direction
    change = along[second] - along[first]
    change -= length * np.rint(change / length)
    middle = (near.places[first] + near.places[second]) / 2
    # an arrow from column to column is a third of b: the largest difference a perfect screw core shows
    arrow = (near.places[second] - near.places[first]) * (change / (length / 3))[:, None]
    axis.quiver(*(middle - arrow / 2).T, *arrow.T, angles="xy", scale_units="xy", scale=1, width=0.006, color=BLUE)
    size = np.full(len(near.places), 0.32 * near.spacing)
    atoms = EllipseCollection(
        size,
        size,
        np.zeros(len(size)),
        units="xy",
        offsets=near.places,
        offset_transform=axis.transData,
        array=(height / period) % 1,
        cmap="Greys",
        clim=(-0.3, 1.3),
        edgecolors="black",
        linewidths=0.5,
        zorder=3,
    )
    axis.add_collection(atoms)
    axis.plot(0, 0, "+", color=ORANGE, markersize=8, markeredgewidth=1.5, zorder=4)
    limits = (-near.radius, near.radius)
    for shown in (axis.xaxis, axis.yaxis):
        shown.set_major_locator(MaxNLocator(5))
    axis.set(box_aspect=1, xlabel="$x_1$ from the core [Å]", ylabel="$x_2$ from the core [Å]", xlim=limits, ylim=limits)


def differential_displacement(tree: xr.DataTree) -> Figure:
    """Differential-displacement maps (Vitek) around the first core: reference and model."""
    return cores({"reference": (tree, "relaxed"), "model": (tree, "relaxed_model")})


_MAP_KEY = "an arrow from column to column is a difference of b/3; greys are heights along the line"


def cores(maps: Mapping[str, tuple[xr.DataTree, str]]) -> Figure:
    """Differential-displacement maps side by side: by title, a store and the name of a displacement in it."""
    columns = min(max(len(maps), 2), 3)
    rows = -(-len(maps) // columns)
    lines = max(title.count("\n") for title in maps)
    figure, axes = panels(columns, rows, height=(TWO_COLUMNS / columns + 0.3 + 0.15 * lines) * rows + 0.2)
    for axis, (title, (tree, name)) in zip(axes, maps.items(), strict=False):
        core_map(axis, tree, name, core_neighbours(tree))
        axis.set_title(title)
        axis.label_outer()
    for axis in axes[len(maps) :]:
        axis.set_visible(False)
    figure.supxlabel(
        "an arrow from column to column is a difference of b/3; greys are heights along the line", fontsize=7
    )
    return figure


def loop(tree: xr.DataTree) -> Figure:
    """The loop after relaxation, seen along its normal and from the side: open circuits of reference and model."""
    figure, axes = panels(2, height=3.9)
    group = tree["simulation"]
    _, _, (across, normal) = _section(group)
    along, radius = np.cross(across, normal), float(group["loop_radius"])
    circle = radius * np.exp(2j * np.pi * np.linspace(0, 1, 200))
    before: dict[str, Any] = {"color": "black", "linestyle": "--", "zorder": 3}
    axes[0].plot(circle.real, circle.imag, label="before relaxation", **before)
    axes[1].plot([-radius, radius], [0, 0], **before)
    thin: dict[str, Any] = {"markeredgewidth": 0.6}
    styles = (
        ("loop_line", "reference", {"marker": "o", "color": BLUE, "markerfacecolor": "none", "markersize": 4, **thin}),
        ("loop_line_model", "model", {"marker": "x", "color": ORANGE, "markersize": 2.5, **thin}),
    )
    for name, words, style in styles:
        points = group[name].to_numpy()
        for axis, up in zip(axes, (along, normal), strict=True):
            axis.plot(points @ across, points @ up, linestyle="none", label=words, **style)
    limit = 1.6 * radius
    for axis, up in zip(axes, ("in the plane of the loop", "along b"), strict=True):
        axis.set(box_aspect=1, xlabel="in the plane of the loop [Å]", ylabel=f"{up} [Å]")
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit))
    letter(axes)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


# --- numbers ------------------------------------------------------------------------------------------------------


def test_set(tree: xr.DataTree) -> Figure:
    """Errors of forces and energies on the test set: a panel of force residuals for each amplitude, one of energies."""
    group = tree["matching"]
    amplitude = group["amplitude"].to_numpy()
    values = np.unique(amplitude)
    of_component = amplitude[group["force_config"].to_numpy()]
    force, model = group["force_reference"].to_numpy(), group["force_model"].to_numpy()
    columns = min(len(values) + 1, 4)
    rows = -(-(len(values) + 1) // columns)
    figure, axes = panels(columns, rows, height=2.5 * rows)
    for index, (axis, value) in enumerate(zip(axes, values, strict=False)):
        chosen = of_component == value
        _residuals(axis, force[chosen], (model - force)[chosen], index)
        axis.set(title=f"amplitude {value:g} Å", xlabel="reference force [eV/Å]")
    axes[0].set_ylabel("force error [eV/Å]")
    _energies(axes[len(values)], group, amplitude, values)
    for axis in axes[len(values) + 1 :]:
        axis.set_visible(False)
    letter(axes[: len(values) + 1])
    return figure


def _residuals(axis: Axes, force: np.ndarray, error: np.ndarray, index: int) -> None:
    """Errors of force components against the components. The range holds all but a thousandth of them, and says so."""
    limit = 1.15 * float(np.quantile(np.abs(error), 0.999)) or 1.0
    axis.axhline(0, color=GREY, linewidth=0.6)
    axis.plot(force, error, ".", color=COLOURS[index], markersize=1.5, markeredgewidth=0, rasterized=True)
    outside = int((np.abs(error) > limit).sum())
    told = f"RMSE {np.sqrt((error**2).mean()):.2g} eV/Å" + (f"\n{outside} outside" if outside else "")
    axis.set_ylim(-limit, limit)
    axis.text(0.04, 0.96, told, transform=axis.transAxes, va="top", fontsize=7, bbox=_PAPER)


_PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}


def _energies(axis: Axes, group: Any, amplitude: np.ndarray, values: np.ndarray) -> None:
    energy = group["energy_reference"].to_numpy()
    error = group["energy_model"].to_numpy() - energy
    axis.axhline(0, color=GREY, linewidth=0.6)
    for index, value in enumerate(values):
        chosen = amplitude == value
        rmse = np.sqrt((error[chosen] ** 2).mean())
        marker, colour = MARKERS[index % len(MARKERS)], COLOURS[index % len(COLOURS)]
        words = f"{value:g} Å: {rmse:.2g} eV"
        axis.plot(energy[chosen], error[chosen], marker, color=colour, markersize=3.5, label=words)
    largest = float(np.abs(error).max()) or 1.0
    axis.set(ylim=(-1.3 * largest, (1.7 + 0.3 * len(values)) * largest), title="energies")
    axis.margins(x=0.15)
    axis.set(xlabel="reference energy [eV]", ylabel="fit − reference [eV]")
    axis.legend(loc="upper left", handletextpad=0.2, borderaxespad=0.2, title="RMSE", alignment="left")


def balance(tree: xr.DataTree) -> Figure:
    """The three numbers of the balance, literal, calibrated and corrected, and the terms of the bound."""
    numbers = tree.attrs["numbers"]
    parts = [
        ("literal balance", ("balance_E", "balance_F", "balance_V1"), "units of each term, in eV and Å"),
        ("calibrated balance", ("calibrated_E", "calibrated_F", "calibrated_V1"), "eV"),
        ("terms of the bound (3.13)", tuple(TERMS), "units of each term, in eV and Å"),
    ]
    if "corrected_spread" in numbers:  # missing for a model whose crystal is unstable, and in runs of an older version
        parts.insert(2, ("corrected balance", ("corrected_E", "corrected_F", "corrected_K"), "eV"))
    figure, axes = panels(2, 2, height=3.6)
    for axis, (title, names, unit) in zip(axes, parts, strict=False):
        _terms(axis, {formula(NUMBERS[name].symbol): numbers[name] for name in names})
        axis.set(title=title, xlabel=unit)
    for axis in axes[len(parts) :]:
        axis.set_visible(False)
    letter(axes[: len(parts)])
    return figure


def _terms(axis: Axes, terms: Mapping[str, float]) -> None:
    """Terms as dots on a logarithmic axis, the first at the top; one that is zero lies at the left edge."""
    usable = [value for value in terms.values() if value > 0 and np.isfinite(value)]
    logarithmic(axis, "x", usable or [1.0], room=3.0)
    low, high = axis.get_xlim()
    for place, value in enumerate(terms.values()):
        shown = min(max(value, low), high) if np.isfinite(value) else low
        axis.axhline(place, color=GREY, linewidth=0.3, linestyle=":", zorder=0)
        axis.plot(shown, place, "o" if low < value < high else "<", color=BLUE, markersize=5, clip_on=False)
        axis.annotate(
            f"{value:.2g}", (shown, place), xytext=(0, 5), textcoords="offset points", ha="center", fontsize=7
        )
    axis.yaxis.set_major_locator(FixedLocator(range(len(terms))))
    axis.set_yticklabels(list(terms))
    axis.set_ylim(len(terms) - 0.5, -0.8)
    axis.tick_params(axis="y", length=0)
    open_frame(axis)


def convergence(tree: xr.DataTree) -> Figure:
    """Largest force against force calls, reference and model."""
    figure, (axis,) = panels(1, width=ONE_COLUMN, height=2.6)
    group = tree["simulation"]
    for name, colour, style, words in (
        ("force_history", BLUE, "-o", "reference, from the predictor"),
        ("force_history_model", ORANGE, "--s", formula("model, from ȳ")),
    ):
        values = group[name].to_numpy()
        axis.semilogy(np.arange(1, len(values) + 1), values, style, color=colour, markersize=2.5, label=words)
    axis.set(xlabel="force calls", ylabel="largest force component [eV/Å]")
    axis.legend()
    open_frame(axis)
    return figure


FIGURES: dict[str, Callable[[xr.DataTree], Figure]] = {
    "cells": cells,
    "errors": errors,
    "differential_displacement": differential_displacement,
    "loop": loop,
    "test_set": test_set,
    "balance": balance,
    "convergence": convergence,
}
