"""Descriptions of runs in MLflow: what was found, in Markdown, without paths that end when a workspace moves."""

from __future__ import annotations

from suite.judge.numbers import NUMBERS
from suite.show.notes import run_note

NUMBERS_OF_A_RUN = {"geometry_error": 0.0123456, "energy_error": 3e-4, "eps_V1": 0.5, "a0": 3.16}


def note(ending: dict[str, str], drawn: tuple[str, ...] = ()) -> str:
    return run_note("ab" * 16, "Screw in W", "energy+force, trained", NUMBERS_OF_A_RUN, ending, drawn)


def test_a_note_has_the_numbers_and_the_way_to_the_rest() -> None:
    text = note({"outcome": "converged", "limiting_term": "term_F"})
    assert text.startswith("**Screw in W: converged.** Energy+force, trained.")
    error = NUMBERS["geometry_error"]
    assert f"| {error.symbol} | 0.01235 | Å | {error.meaning} |" in text
    assert "a0" not in text, "only what matters"
    assert f"`fields/{'ab' * 16}.zarr`" in text
    assert "`dislobench show abababab`" in text
    assert "remedy" not in text.lower()
    assert "![" not in text


def test_a_failed_model_gets_its_remedy() -> None:
    text = note({"outcome": "unstable", "remedy": "improve the fit", "remarks": "cores differ"})
    assert "Remedy: improve the fit." in text
    assert "Remarks: cores differ." in text


def test_figures_are_shown_where_they_were_drawn() -> None:
    text = note({"outcome": "converged"}, ("cells", "errors", "loop"))
    place = "get-artifact?path=figures%2F{}.png&run_uuid=" + "ab" * 16
    assert f"![errors]({place.format('errors')})" in text
    assert f"![loop]({place.format('loop')})" in text
    assert "cells" not in text
