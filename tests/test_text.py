"""Other people's text: no escape codes in a terminal, no formulas in a spreadsheet."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from suite.show.table import Table
from suite.show.terminal import progress_reporter, table
from suite.text import printable

EVIL = "\x1b[2J\x1b]0;owned\x07 name\r\u202e\x9b31m"


def test_nothing_but_text_is_printable() -> None:
    assert printable("ε_F [eV/Å]\n\tx = ‖Dȳ‖") == "ε_F [eV/Å]\n\tx = ‖Dȳ‖"
    assert printable(EVIL).isprintable()
    assert "[2J" in printable(EVIL), "what was visible stays"


def test_tables_and_progress_print_no_escape_codes(capsys: pytest.CaptureFixture[str]) -> None:
    table(EVIL, [EVIL, "b"], [[EVIL, "[bold]"]])
    with progress_reporter() as progress:
        progress(EVIL, 0.0, EVIL)
    shown = capsys.readouterr()
    assert "owned" in shown.out
    assert "[bold]" in shown.out
    assert "owned" in shown.err
    for text in (shown.out, shown.err):
        assert not set(text) & set("\x1b\x07\r\u202e\x9b")


def test_formulas_become_text_and_numbers_stay_numbers(tmp_path: Path) -> None:
    texts = ["=1+1", "+cmd", "-x", "@sum", "\t=1", "plain", "a=b"]
    numbers = [-1.5, 2, "-1.5", "+3", "-1e-3", "-inf"]
    rows = [{"=name": text, "value": number} for text, number in zip(texts, [*numbers, None], strict=True)]
    Table.of_records(rows).csv(tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="") as file:
        heads, *lines = csv.reader(file)
    assert heads == ["'=name", "value"]
    assert [line[0] for line in lines] == ["'=1+1", "'+cmd", "'-x", "'@sum", "'\t=1", "plain", "a=b"]
    assert [line[1] for line in lines] == [*map(str, numbers), ""]
