"""The page of a run in three dimensions, and its atoms for OVITO."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from ase.io import read as read_frames

from store.listing import RunRecord
from suite.pipeline import assess
from suite.results import Model, Rows, World
from suite.show import scene
from suite.show.defects import Defects, find_defects, write_atoms
from suite.show.page import Page
from suite.show.report import _scenes
from suite.spec import Spec, load
from suite.stages.cells import dislocation_of
from suite.study import archive
from suite.world.dislocation import nearest_image


@pytest.fixture(scope="module")
def tree(tiny: Spec, world: World, rows: Rows, model: Model) -> xr.DataTree:
    verdict = assess(tiny, world, rows, model)
    found = xr.DataTree.from_dict(archive.run_groups(world, rows, model, verdict))
    found.attrs = {"numbers": verdict.numbers, "spec": tiny.to_toml()}
    return found


@pytest.fixture(scope="module")
def found(tree: xr.DataTree) -> Defects:
    return find_defects(tree)


def content_of(page: Path) -> dict[str, Any]:
    (text,) = re.findall(r"^var content = (.*);$", page.read_text(encoding="utf-8"), flags=re.M)
    return dict(json.loads(text))


def test_defects_are_where_the_cores_are(tree: xr.DataTree, found: Defects) -> None:
    group = tree["simulation"]
    size = np.diag(group["cell_perfect"].to_numpy())[:2]
    places = group["reference"].to_numpy()[found.atoms, None, :2]
    away = np.linalg.norm(nearest_image(places - group["core_position"].to_numpy(), size), axis=2)
    assert set(away.argmin(axis=1)) == set(range(len(group["core_position"]))), "every core is found"
    assert away.min(axis=1).max() < 10, "and nothing else, Å"
    assert len(find_defects(tree, 2 * found.limit).atoms) < len(found.atoms) < len(group["reference"]) / 2


def test_all_atoms_can_be_read_with_their_errors(tree: xr.DataTree, found: Defects, tmp_path: Path) -> None:
    reference, model = read_frames(write_atoms(found, tmp_path / "new" / "run.extxyz"), index=":")
    assert [each.info["equilibrium"] for each in (reference, model)] == ["reference", "model"]
    np.testing.assert_allclose(model.positions, found.places[1], atol=1e-7)
    np.testing.assert_allclose(reference.cell.array, found.box, atol=1e-7)
    shift = model.positions - reference.positions
    np.testing.assert_allclose(shift - shift.mean(axis=0), model.arrays["error_vector"], atol=1e-7)
    lengths = np.linalg.norm(model.arrays["error_vector"], axis=1)
    np.testing.assert_allclose(lengths, model.arrays["displacement_error"], atol=1e-7)
    total = np.linalg.norm(model.arrays["bond_error"])
    assert total == pytest.approx(tree.attrs["numbers"]["geometry_error"], rel=1e-4)


def test_the_page_needs_no_network_and_shows_the_same_atoms_twice(found: Defects, tmp_path: Path) -> None:
    path = scene.write_scene(found, "<a run>", "converged", tmp_path / "view.html")
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", text)
    assert "&lt;a run&gt;" in text
    assert "Burgers vector 1/2 [1 1 1] a0, line direction [1 1 1]" in text
    content = content_of(path)
    reference, model = content["traces"][:2]
    copies = len(reference["x"]) // len(found.atoms)
    assert copies > 1
    assert len(reference["x"]) == len(model["x"]) == len(model["marker"]["color"]) == copies * len(found.atoms)
    assert [row[1] for row in reference["customdata"]] == [row[1] for row in model["customdata"]]
    first = found.atoms[0]
    shown = [model[axis][0] for axis in "xyz"]
    np.testing.assert_allclose(shown, found.places[1][first], atol=1e-3)
    assert 10 ** model["marker"]["color"][0] == pytest.approx(np.linalg.norm(found.apart[first]), rel=0.01)


def test_too_many_atoms_are_told(found: Defects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene, "MOST", 5)
    path = scene.write_scene(found, "run", "converged", tmp_path / "view.html")
    assert len(content_of(path)["traces"][0]["x"]) == 5
    assert f"{len(found.atoms) - 5} more, which are less distorted, are left out" in path.read_text(encoding="utf-8")


def test_a_page_without_atoms_is_a_page(tree: xr.DataTree, tmp_path: Path) -> None:
    nothing = find_defects(tree, 5.0)
    assert len(nothing.atoms) == 0
    content = content_of(scene.write_scene(nothing, "run", "converged", tmp_path / "view.html"))
    assert content["traces"][0]["x"] == []


def test_a_loop_is_shown_once_with_its_circuits(found: Defects, tmp_path: Path) -> None:
    spec = load("w-loop", "tiny")
    points = np.array([[10.0, 0.0, 0.0], [0.0, 10.0, 0.0]])
    group = found.group.to_dataset().assign(
        loop_centre=("xyz", [1.0, 2.0, 3.0]),
        loop_radius=10.0,
        loop_line=(("point", "xyz"), points),
        loop_line_model=(("point_model", "xyz"), points),
    )
    loop = replace(found, spec=spec, kind=dislocation_of(spec), group=group)
    path = scene.write_scene(loop, "run", "converged", tmp_path / "view.html")
    content = content_of(path)
    assert len(content["traces"][0]["x"]) == len(found.atoms)
    assert content["traces"][4]["x"] == [11.0, 1.0]
    assert "along the normal of the loop. Diameter 6 a0." in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("vector", "primitive", "words"),
    [
        ((0.5, 0.5, -0.5), False, "1/2 [1 1 -1]"),
        ((1, 0, 0), False, "[1 0 0]"),
        ((0.5, 0.5, -1), False, "1/2 [1 1 -2]"),
        ((2, 2, 0), True, "[1 1 0]"),
        ((2, 2, 0), False, "2 [1 1 0]"),
        ((-1 / 3, 1 / 6, 1 / 6), False, "1/6 [-2 1 1]"),
    ],
)
def test_vectors_have_the_usual_words(vector: tuple[float, ...], primitive: bool, words: str) -> None:
    assert scene.miller(vector, primitive) == words


def test_the_report_links_to_the_pages_that_are_there(tmp_path: Path) -> None:
    runs = [RunRecord(name * 32, f"run {name}", "w-split", "FINISHED", "2026-01-01", {}, {}, {}, None) for name in "ab"]
    page, folder = Page("report"), tmp_path / "my report"
    folder.mkdir()
    _scenes(runs, tmp_path, page, folder)
    assert "In three dimensions" not in page.write(folder)[0].read_text(encoding="utf-8")
    place = scene.scene_path(tmp_path, runs[1].id)
    place.parent.mkdir(parents=True)
    place.touch()
    _scenes(runs, tmp_path, page, folder)
    (link,) = re.findall(r'<p><a href="(.*?)">(.*?)</a>', page.write(folder)[0].read_text(encoding="utf-8"))
    assert link[1] == "run b (bbbbbbbb)"
    assert (folder / link[0]).samefile(place)
