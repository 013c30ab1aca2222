"""The figures of the paper: every one is a sweep of a shipped spec, and the page says what its rates say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from suite.spec import load, load_sweeps
from suite.study.paper import FIGURES, summary, verdict, write_page


def record(slopes: dict[str, str]) -> dict[str, Any]:
    """What a sweep keeps: two curves of four points; verdicts of the geometry error by curve."""
    points = [
        {
            "setting": curve,
            "seed": 0,
            "values": {"training.size": x},
            "x": x,
            "numbers": {"geometry_error": 0.1 / x, "energy_error": 0.01 / x, "rmse_F": 1e-3},
            "status": "converged",
            "limiting": "term_F",
            "run": "abc",
            "computed": True,
        }
        for curve in slopes
        for x in (6.0, 7.0, 8.0, 10.0)
    ]
    rates = [
        {
            "error": "geometry_error",
            "setting": curve,
            "slope": -1.0,
            "low": -1.2,
            "high": -0.8,
            "intercept": -2.3,
            "window": [6.0, 10.0],
            "points": 4,
            "expected": -1.0,
            "verdict": word,
            "limiting": "",
        }
        for curve, word in slopes.items()
    ]
    texts = {"name": "fig5", "title": "Screw quadrupole in W", "against": "L", "curves": ""}
    orders = {"ordering": {"rmse_F": 0.5}, "ordering_energy": {"eps_K": 0.8}}
    return {**texts, "ladders": {}, "seeds": [0], "points": points, "rates": rates, **orders}


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.sweep)
@pytest.mark.parametrize("preset", ["tiny", "quick", "standard", "paper"])
def test_every_figure_is_a_sweep_of_its_spec(figure: Any, preset: str) -> None:
    sweep = load_sweeps(figure.spec, preset, only=[figure.sweep])[figure.sweep]
    assert sweep.ablation == (sweep.against == "L")
    assert sweep.against in ("L", f"rmse_F_{sorted(load(figure.spec, preset).training.amplitudes)[-2]:g}")
    assert preset == "tiny" or len(sweep.seeds) >= 3, "a published number comes from three seeds"


def test_figures_are_those_of_the_paper_that_show_numbers() -> None:
    assert [figure.number for figure in FIGURES] == [4, 5, 7, 8, 10, 11, 13, 14]


@pytest.mark.parametrize(
    ("slopes", "words"),
    [
        ({"CLE": "agrees", "CLE+nonlinear": "agrees"}, "holds"),
        ({"CLE": "agrees", "CLE+nonlinear": "not resolved"}, "not resolved"),
        ({"CLE": "disagrees", "CLE+nonlinear": "agrees"}, "does not hold"),
        ({}, "not resolved"),
    ],
)
def test_a_claim_holds_when_every_curve_agrees(slopes: dict[str, str], words: str) -> None:
    assert verdict(record(slopes), "geometry_error") == words


def test_page_tells_every_figure_and_can_be_made_again(tmp_path: Path) -> None:
    records = {5: record({"CLE": "agrees", "CLE+nonlinear": "disagrees"}), 8: record({"CLE": "agrees"})}
    files = write_page(records, "quick", tmp_path, {5: "A word of our own."})
    text = (tmp_path / "paper.md").read_text(encoding="utf-8")
    assert all(file.stat().st_size for file in files)
    assert "## Figure 5: Screw quadrupole in W" in text
    assert "geometry error: does not hold; energy error: not resolved." in text
    assert "A word of our own." in text
    assert "| 8 | si-edge | L | 4 | 4 | holds | not resolved |" in text
    kept = json.loads((tmp_path / "figures" / "paper.json").read_text(encoding="utf-8"))
    again = {int(number): each for number, each in kept["figures"].items()}
    assert again[5] == json.loads(json.dumps(summary(records[5])))
    assert "rmse_F" not in again[5]["points"][0]["numbers"]
    assert not {"ordering", "ordering_energy"} & set(again[5])
    write_page(again, kept["preset"], tmp_path / "again", {5: "A word of our own."})
    assert (tmp_path / "again" / "paper.md").read_text(encoding="utf-8") == text
