"""A table as a value that can be shown in the terminal, in HTML, in Markdown and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table as RichTable

from suite.text import printable


@dataclass(frozen=True)
class Table:
    """Heads and rows of cells, each of which is shown by its `str`; `best` is the index of a row that is marked."""

    heads: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""
    best: int | None = None

    @classmethod
    def of_records(cls, records: Sequence[Mapping[str, object]]) -> Table:
        """A table with a column for each key of any record; the cell is empty where a record lacks the key."""
        heads = list(dict.fromkeys(name for record in records for name in record))
        return cls(heads, [[record.get(name, "") for name in heads] for record in records])

    def marked(self) -> list[tuple[bool, list[str]]]:
        """Rows as text, each with a flag: is it the best row?"""
        return [(index == self.best, list(map(str, row))) for index, row in enumerate(self.rows)]

    def terminal(self) -> RichTable:
        """The table for `rich`, without characters that a terminal would take for commands."""
        shown = RichTable(title=_plain(self.title), title_justify="left", show_edge=False)
        for name in self.heads:
            shown.add_column(_plain(name), overflow="fold")
        for _, row in self.marked():
            shown.add_row(*map(_plain, row))
        return shown

    def markdown(self) -> str:
        """Lines of a Markdown table; the first cell of the best row is bold."""
        lines = [list(self.heads), ["---"] * len(self.heads)]
        lines += [[f"**{row[0]}**", *row[1:]] if best else row for best, row in self.marked()]
        return "".join("| " + " | ".join(_line(cell) for cell in line) + " |\n" for line in lines)

    def csv(self, path: Path) -> Path:
        """Write the table into a file for spreadsheets; numbers keep all their digits. Returns `path`."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(map(_cell, self.heads))
            writer.writerows(map(_cell, row) for row in self.rows)
        return path


def _line(text: str) -> str:
    """A cell of a Markdown table: one line, without the sign that ends a cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _plain(text: str) -> str:
    return escape(printable(text))


def _cell(value: Any) -> Any:
    """`value` for a CSV file: text that a spreadsheet would take for a formula gets a quote in front of it.

    Numbers stay as they are, also those that are kept as text.
    """
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
