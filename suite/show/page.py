"""A report in two forms: one standalone HTML file (it contains its figures, its tables sort on a click and have a
filter, it is light or dark as the browser is, and it loads nothing from the network), and Markdown.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from PIL import Image

from suite.show.table import Table


class Page:
    """A report; parts are added in order."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts: list[dict[str, Any]] = []
        self._markdown = [f"# {title}\n"]

    def heading(self, text: str) -> None:
        anchor = f"part-{len(self._parts)}"
        self._add(f"## {text}\n", kind="heading", text=text, anchor=anchor)

    def text(self, text: str) -> None:
        self._add(f"{text}\n", kind="text", text=text)

    def link(self, text: str, path: str) -> None:
        """A link to another file, with a path relative to the report."""
        self._add(f"[{text}]({quote(path)})\n", kind="link", text=text, path=quote(path))

    def code(self, text: str) -> None:
        self._add(f"```\n{text.rstrip()}\n```\n", kind="code", text=text)

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[object]], best: int | None = None) -> None:
        """A table; row number `best` is marked."""
        table = Table(heads, rows, best=best)
        number = sum(part["kind"] == "table" for part in self._parts) + 1
        titles = [part["text"] for part in self._parts if part["kind"] == "heading"]
        label = f"table {number}: {titles[-1] if titles else self.title}"  # assistive programs tell tables apart by it
        self._add(table.markdown(), kind="table", table=table, label=label)

    def figure(self, path: Path, caption: str) -> None:
        """An image: embedded in the HTML file, without loss, linked by a relative path in the Markdown file."""
        smaller = BytesIO()
        with Image.open(path) as picture:
            picture.save(smaller, "webp", lossless=True)
        data = base64.b64encode(smaller.getvalue()).decode()
        words = f"![{caption}]({path.parent.name}/{path.name})\n\n{caption}\n"
        self._add(words, kind="figure", caption=caption, data=data)

    def _add(self, markdown: str, **part: Any) -> None:
        self._parts.append(part)
        self._markdown.append(markdown)

    def write(self, folder: Path, stem: str = "report") -> list[Path]:
        """Write `stem`.html and `stem`.md; returns their paths."""
        page, text = folder / f"{stem}.html", folder / f"{stem}.md"
        page.write_text(template("page.html").render(title=self.title, parts=self._parts), encoding="utf-8")
        text.write_text("\n".join(self._markdown), encoding="utf-8")
        return [page, text]


@cache
def template(name: str) -> Template:
    """A page of the folder `templates`."""
    environment = Environment(
        loader=PackageLoader("suite.show"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
