"""Figures of runs, and figures that compare runs: what they show, read off their axes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import EllipseCollection

from store.listing import RunRecord
from suite.pipeline import assess
from suite.results import Model, Rows, World
from suite.show import comparison_figures, figures
from suite.show.style import styled
from suite.spec import Spec
from suite.study import archive


@pytest.fixture(scope="module")
def tree(tiny: Spec, world: World, rows: Rows, model: Model) -> xr.DataTree:
    verdict = assess(tiny, world, rows, model)
    found = xr.DataTree.from_dict(archive.run_groups(world, rows, model, verdict))
    found.attrs = {"numbers": verdict.numbers, "title": "tiny", "status": "converged"}
    return found


def dots(figure: Any) -> list[EllipseCollection]:
    return [each for axis in figure.axes for each in axis.collections if isinstance(each, EllipseCollection)]


def test_displacements_have_one_map_with_zero_in_the_middle(tree: xr.DataTree) -> None:
    found = dots(figures.cells(tree))
    assert len(found) == 2
    (low, high), other = (each.get_clim() for each in found)
    assert (low, high) == other
    assert low == -high
    assert {each.get_cmap().name for each in found} == {"RdBu_r"}


def test_colours_of_errors_follow_the_data(tree: xr.DataTree) -> None:
    """The lowest colour is that of atoms that are there."""
    figure = figures.errors(tree)
    first, second = dots(figure)
    assert first.get_clim() == second.get_clim()
    low, high = first.get_clim()
    values = tree["simulation"]["error_atom"].to_numpy()
    assert values.min() <= low < np.quantile(values, 0.1)
    assert high == pytest.approx(max(values.max(), tree["simulation"]["error_linear_atom"].to_numpy().max()))
    sizes = [axis.get_window_extent().width for axis in figure.axes[:2]]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)


def test_residuals_have_a_panel_for_each_amplitude(tree: xr.DataTree) -> None:
    figure = figures.test_set(tree)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == ["(a) amplitude 0.1 Å", "(b) amplitude 0.5 Å", "(c) energies"]
    for axis in figure.axes[:2]:
        low, high = axis.get_ylim()
        error = np.abs(axis.lines[1].get_ydata())
        assert low == -high
        assert np.quantile(error, 0.99) < high < 2 * error.max(), "the cloud fills the panel"


def test_balance_shows_every_term_and_one_that_is_zero(tree: xr.DataTree) -> None:
    changed = tree.copy()
    changed.attrs = {**tree.attrs, "numbers": {**tree.attrs["numbers"], "balance_V1": 0.0}}
    axis = figures.balance(changed).axes[0]
    drawn = [line for line in axis.lines if line.get_marker() in ("o", "<")]
    assert [line.get_marker() for line in drawn] == ["o", "o", "<"]
    assert drawn[2].get_xdata()[0] == axis.get_xlim()[0]
    assert [text.get_text() for text in axis.texts][2] == "0"


def test_a_map_of_a_core_joins_every_column_with_its_neighbours(tree: xr.DataTree) -> None:
    near = figures.core_neighbours(tree)
    first, second = near.pairs
    inner = np.flatnonzero(np.abs(near.places).max(axis=1) < near.radius / 2)
    counts = [int((first == k).sum() + (second == k).sum()) for k in inner]
    assert set(counts) == {6}, "columns along <111> of bcc"


def record(tree: xr.DataTree, name: str, **numbers: float) -> RunRecord:
    metrics = {**tree.attrs["numbers"], **numbers}
    return RunRecord(name * 32, name, "w-split", "FINISHED", "2026-01-01", {}, metrics, {}, None)


def test_runs_are_compared_in_figures(tree: xr.DataTree, tmp_path: Path) -> None:
    runs = [record(tree, "a"), record(tree, "b", geometry_error=0.5), replace(record(tree, "c"), metrics={})]
    written = comparison_figures.draw_comparison(runs, {runs[0].id: tree, runs[1].id: tree}, tmp_path)
    assert [path.name for path in written] == ["errors-against-matching.png", "cores-w-split.png"]
    assert all(path.with_suffix(".pdf").exists() for path in written)
    with styled():
        figure = comparison_figures.against_matching(runs, ["first", "second", "third"])
        cores = figures.cores({"reference": (tree, "relaxed"), "a": (tree, "relaxed_model"), "b": (tree, "relaxed")})
    axis = figure.axes[0]
    assert [line.get_label() for line in axis.lines] == ["first", "second"], "a run without errors is no point"
    assert len({(line.get_marker(), line.get_color()) for line in axis.lines}) == 2
    assert axis.lines[1].get_ydata()[0] == 0.5
    assert [axis.get_title() for axis in cores.axes] == ["reference", "a", "b"]


def test_runs_without_any_number_are_still_a_figure(tree: xr.DataTree, tmp_path: Path) -> None:
    runs = [replace(record(tree, name), metrics={}) for name in "ab"]
    assert len(comparison_figures.draw_comparison(runs, {}, tmp_path)) == 1
