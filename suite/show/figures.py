"""Figures of a run, from its store alone.

Colours can be told apart in greyscale and with colour blindness (viridis; blue, orange and grey of Okabe and Ito).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from suite.judge.numbers import NUMBERS
from suite.judge.theory import TERMS
from suite.world.dislocation import nearest_image

BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#666666"
DPI = 150


def draw_all(
    tree: xr.DataTree,
    folder: Path,
    names: Sequence[str] | None = None,
    prefix: str = "",
    dpi: int = DPI,
    failed: dict[str, Exception] | None = None,
) -> list[Path]:
    """Draw the figures of a run (its store `tree`), or those of `names`, as FOLDER/PREFIXname.png; returns the paths.

    Figures that do not exist for its dislocations are left out. An exception of a figure is raised; if `failed` is
    given, the exception is stored there by the figure's name, and the other figures are drawn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names_for("loop_line" not in tree["simulation"]):
        if names is not None and name not in names:
            continue
        draw = FIGURES[name]
        path = folder / f"{prefix}{name}.png"
        try:
            draw(tree).savefig(path, dpi=dpi)
        except Exception as error:  # anything that a drawing library may raise; the caller reports it
            if failed is None:
                raise
            failed[name] = error
            path.unlink(missing_ok=True)
            continue
        paths.append(path)
    return paths


def names_for(straight: bool) -> list[str]:
    """Names of the figures that exist for straight dislocations, or for a loop."""
    unfit = "loop" if straight else "differential_displacement"
    return [name for name in FIGURES if name != unfit]


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


def _plane(group: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions in the plane (n, 2), cell size (2,), and the direction of the Burgers vector (3,)."""
    burgers = group["core_burgers"].to_numpy()[0]
    return (
        group["reference"].to_numpy()[:, :2],
        np.diag(group["cell_perfect"].to_numpy())[:2],
        burgers / np.linalg.norm(burgers),
    )


def _cores(axes: Axes, group: Any) -> None:
    if "loop_line" in group:
        radius = float(group["loop_radius"])
        axes.plot([-radius, radius], [0, 0], "+", color="black", markersize=9, markeredgewidth=1.6, linestyle="none")
        return
    direction = group["core_burgers"].to_numpy() @ group["core_burgers"].to_numpy()[0]
    position = group["core_position"].to_numpy()
    for sign, marker in ((1, "+"), (-1, "x")):
        chosen = position[np.sign(direction) == sign]
        axes.plot(*chosen.T, marker, color="black", markersize=9, markeredgewidth=1.6, linestyle="none")


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


def _scatter(axes: Axes, group: Any, values: np.ndarray, label: str, style: dict[str, Any]) -> None:
    if "loop_line" in group:
        chosen, points, _ = _section(group)
        values, half = values[chosen], float(np.abs(points).max())
        diameter = 0.9 * 3.6 * 72 / np.sqrt(len(points))
        order = np.argsort(values)
        dots = axes.scatter(points[order, 0], points[order, 1], c=values[order], s=diameter**2, linewidths=0, **style)
        axes.figure.colorbar(dots, ax=axes, label=label, shrink=0.85)
        axes.set(aspect="equal", xlabel="in the plane of the loop [Å]", ylabel="along b [Å]")
        axes.set(xlim=(-half, half), ylim=(-half, half))
        return
    points, size, _ = _plane(group)
    # dots as wide as the distance of the columns: about 3.6 inches (72 points each) hold sqrt(n) of them
    diameter = 0.9 * 3.6 * 72 / np.sqrt(len(points))
    dots = axes.scatter(points[:, 0], points[:, 1], c=values, s=diameter**2, linewidths=0, **style)
    axes.figure.colorbar(dots, ax=axes, label=label, shrink=0.85)
    axes.set(aspect="equal", xlabel="x₁ [Å]", ylabel="x₂ [Å]", xlim=(0, size[0]), ylim=(0, size[1]))


def cells(tree: xr.DataTree) -> Figure:
    """Simulation and training cell, coloured by the displacement along the Burgers vector."""
    names = [name for name in ("simulation", "training", "training_2") if name in tree]
    figure, axes = _figure(5.5 * len(names), 4.6, len(names))
    for axis, name in zip(axes, names, strict=True):
        group = tree[name]
        along = group["relaxed"].to_numpy() @ _plane(group)[2]
        length = float(np.linalg.norm(group["core_burgers"].to_numpy()[0]))
        _scatter(axis, group, along / length, "displacement along b [b]", {"cmap": "viridis"})
        _cores(axis, group)
        marks = "+ : the loop before relaxation" if "loop_line" in group else "+ and × : cores of +b and -b"
        axis.set_title(f"{name.replace('_', ' ')} cell, {group.sizes['atom']} atoms ({marks})", fontsize=10)
    return figure


def errors(tree: xr.DataTree) -> Figure:
    """Bond-strain error of the model in the simulation cell, relaxed and predicted by linear response."""
    figure, axes = _figure(11, 4.6, 2)
    group = tree["simulation"]
    relaxed, linear = group["error_atom"].to_numpy(), group["error_linear_atom"].to_numpy()
    top = float(np.log10(max(relaxed.max(), linear.max(), 1e-12)))
    for axis, values, name in zip(axes, (relaxed, linear), ("full relaxation", "linear response"), strict=True):
        style = {"cmap": "viridis", "vmin": top - 4, "vmax": top}
        _scatter(axis, group, np.log10(np.maximum(values, 1e-12)), "log₁₀ |Dȳ - Dȳ_ML| per atom [Å]", style)
        axis.set_title(f"{name}: norm {np.linalg.norm(values):.3g} Å", fontsize=10)
    if tree.attrs["status"] != "converged":
        axes[0].set_title(f"model relaxation: {tree.attrs['status']}", fontsize=10, color="firebrick")
    return figure


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
    first, second = np.nonzero(np.triu((distance > 1e-3) & (distance < 1.1 * spacing)))
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
    unit = (near.places[second] - near.places[first]) / near.spacing
    # an arrow from column to column is a third of b: the largest difference a perfect screw core shows
    arrow = unit * (change / (length / 3))[:, None] * near.spacing
    axis.quiver(*(middle - arrow / 2).T, *arrow.T, angles="xy", scale_units="xy", scale=1, width=0.006, color=BLUE)
    axis.scatter(
        near.places[:, 0],
        near.places[:, 1],
        c=(height / period) % 1,
        cmap="Greys",
        s=70,
        vmin=-0.3,
        vmax=1.3,
        edgecolors="black",
        linewidths=0.8,
        zorder=3,
    )
    axis.plot(0, 0, "+", color=ORANGE, markersize=12, markeredgewidth=2)
    limits = (-near.radius, near.radius)
    axis.set(aspect="equal", xlabel="x₁ from the core [Å]", ylabel="x₂ from the core [Å]", xlim=limits, ylim=limits)


def differential_displacement(tree: xr.DataTree) -> Figure:
    """Differential-displacement maps (Vitek) around the first core: reference and model."""
    figure, axes = _figure(10, 5.2, 2)
    near = core_neighbours(tree)
    for axis, name in zip(axes, ("relaxed", "relaxed_model"), strict=True):
        core_map(axis, tree, name, near)
        axis.set_title("reference" if name == "relaxed" else "model")
    figure.suptitle(f"{tree.attrs['title']}: differential displacement, arrows scaled to b/3", fontsize=11)
    return figure


def loop(tree: xr.DataTree) -> Figure:
    """The loop after relaxation, seen along its normal and from the side: open circuits of reference and model."""
    figure, axes = _figure(10, 5, 2)
    group = tree["simulation"]
    _, _, (across, normal) = _section(group)
    along, radius = np.cross(across, normal), float(group["loop_radius"])
    circle = radius * np.exp(2j * np.pi * np.linspace(0, 1, 200))
    axes[0].plot(circle.real, circle.imag, color=GREY, linewidth=0.8, label="before relaxation")
    axes[1].plot([-radius, radius], [0, 0], color=GREY, linewidth=0.8)
    styles = (("loop_line", BLUE, "o", "reference"), ("loop_line_model", ORANGE, "x", "model"))
    for name, colour, marker, label in styles:
        points = group[name].to_numpy()
        for axis, up in zip(axes, (along, normal), strict=True):
            axis.plot(points @ across, points @ up, marker, color=colour, markersize=4, alpha=0.6, label=label)
    limit = 1.6 * radius
    for axis, up in zip(axes, ("in the plane of the loop", "along b"), strict=True):
        axis.set(aspect="equal", xlabel="in the plane of the loop [Å]", ylabel=f"{up} [Å]")
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit))
    axes[0].legend(frameon=False, fontsize=8, loc="upper right")
    figure.suptitle(f"{tree.attrs['title']}: where Burgers circuits do not close", fontsize=11)
    return figure


def parity(tree: xr.DataTree) -> Figure:
    """Forces of the model against the reference on the test set, and energies."""
    figure, axes = _figure(10, 4.6, 2)
    group = tree["matching"]
    reference, model = group["force_reference"].to_numpy(), group["force_model"].to_numpy()
    amplitude = group["amplitude"].to_numpy()
    of_component = amplitude[group["force_config"].to_numpy()]
    limit = 1.05 * float(np.abs(reference).max())
    axes[0].plot([-limit, limit], [-limit, limit], color=GREY, linewidth=0.8)
    energy, energy_model = group["energy_reference"].to_numpy(), group["energy_model"].to_numpy()
    axes[1].axhline(0, color=GREY, linewidth=0.8)
    for value, colour, marker in zip(np.unique(amplitude)[::-1], (BLUE, ORANGE, GREY), "os^", strict=False):
        chosen = of_component == value
        rmse = float(np.sqrt(((model - reference)[chosen] ** 2).mean()))
        axes[0].plot(
            reference[chosen],
            model[chosen],
            marker,
            markersize=2,
            color=colour,
            markeredgewidth=0,
            label=f"amplitude {value:g} Å: RMSE {rmse:.2g} eV/Å",
        )
        chosen = amplitude == value
        rmse = float(np.sqrt(((energy_model - energy)[chosen] ** 2).mean()))
        axes[1].plot(
            energy[chosen],
            (energy_model - energy)[chosen],
            marker,
            markersize=5,
            color=colour,
            label=f"amplitude {value:g} Å: RMSE {rmse:.2g} eV",
        )
    axes[0].set(
        xlabel="reference force [eV/Å]", ylabel="model force [eV/Å]", xlim=(-limit, limit), ylim=(-limit, limit)
    )
    axes[1].set(xlabel="reference energy above the perfect crystal [eV]", ylabel="energy error of the model [eV]")
    for axis in axes:
        axis.legend(frameon=False, fontsize=8, loc="best")
    figure.suptitle(f"{tree.attrs['title']}: test set", fontsize=11)
    return figure


def balance(tree: xr.DataTree) -> Figure:
    """The three numbers of the balance, literal, calibrated and corrected, and the terms of the bound."""
    numbers = tree.attrs["numbers"]
    panels = [
        ("literal balance", ("balance_E", "balance_F", "balance_V1"), "mixed units"),
        ("calibrated balance", ("calibrated_E", "calibrated_F", "calibrated_V1"), "eV"),
        ("terms of the bound (3.13)", tuple(TERMS), "mixed units"),
    ]
    if "corrected_spread" in numbers:  # missing for a model whose crystal is unstable, and in runs of an older version
        panels.insert(2, ("corrected balance", ("corrected_E", "corrected_F", "corrected_K"), "eV"))
    figure, axes = _figure(3.7 * len(panels), 3.9, len(panels))
    for axis, (title, bars, unit) in zip(axes, panels, strict=True):
        values = [numbers[name] for name in bars]
        places = np.arange(len(bars))
        axis.bar(places, values, color=BLUE, width=0.6)
        positive = [value for value in values if value > 0 and np.isfinite(value)]
        low, high = (min(positive) / 3, max(positive) * 4) if positive else (0.1, 1.0)  # a model without errors
        axis.set_ylim(low, high)  # before the scale is set, because bars of zero height have no logarithmic range
        axis.set_yscale("log")
        axis.set_ylim(low, high)
        for place, value in zip(places, values, strict=True):
            foot = min(max(value, low), high) if np.isfinite(value) else low  # zero lies below every logarithmic axis
            axis.text(float(place), foot * 1.15, f"{value:.2g}", ha="center", va="bottom", fontsize=8)
        axis.set_xticks(places, [NUMBERS[name].symbol for name in bars], fontsize=8)
        axis.set_ylabel(unit)
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def convergence(tree: xr.DataTree) -> Figure:
    """Largest force against force calls, reference and model."""
    figure, (axis,) = _figure(5.5, 3.8)
    group = tree["simulation"]
    for name, colour, style, label in (
        ("force_history", BLUE, "-o", "reference, from the predictor"),
        ("force_history_model", ORANGE, "-s", "model, from ȳ"),
    ):
        values = group[name].to_numpy()
        axis.semilogy(np.arange(1, len(values) + 1), values, style, color=colour, markersize=3, label=label)
    axis.set(xlabel="force calls", ylabel="largest force component [eV/Å]", title="relaxation of the simulation cell")
    axis.legend(frameon=False, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


FIGURES: dict[str, Callable[[xr.DataTree], Figure]] = {
    "cells": cells,
    "errors": errors,
    "differential_displacement": differential_displacement,
    "loop": loop,
    "parity": parity,
    "balance": balance,
    "convergence": convergence,
}
