"""One standalone HTML file: figures inline, tables that sort on a click, no server and nothing from elsewhere."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-size: 13px; margin: .8rem 0; display: block; overflow-x: auto; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th { cursor: pointer; background: #f3f3f3; position: sticky; top: 0; }
th::after { content: ' \\2195'; color: #999; } td:first-child, th:first-child { text-align: left; }
tr.best td { font-weight: 600; background: #eef5fb; }
img { max-width: 100%; } pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; } figcaption { color: #555; }
figure { margin: 1rem 0; }
"""
SCRIPT = """
document.querySelectorAll('th').forEach(function (head) {
  head.addEventListener('click', function () {
    var table = head.closest('table'), body = table.tBodies[0], place = head.cellIndex;
    var down = head.dataset.down = head.dataset.down === '1' ? '0' : '1';
    var value = function (row) { return row.cells[place].textContent.trim(); };
    Array.from(body.rows).sort(function (a, b) {
      var x = value(a), y = value(b), p = parseFloat(x), q = parseFloat(y);
      var order = isNaN(p) || isNaN(q) ? (isNaN(p) - isNaN(q)) || x.localeCompare(y) : p - q;
      return down === '1' ? order : -order;
    }).forEach(function (row) { body.appendChild(row); });
  });
});
"""


class Page:
    """A report written twice, as HTML and as Markdown; parts are added in order."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._html = [f"<h1>{html.escape(title)}</h1>"]
        self._markdown = [f"# {title}\n"]

    def heading(self, text: str) -> None:
        self._html.append(f"<h2>{html.escape(text)}</h2>")
        self._markdown.append(f"## {text}\n")

    def text(self, text: str) -> None:
        self._html.append(f"<p>{html.escape(text)}</p>")
        self._markdown.append(f"{text}\n")

    def code(self, text: str) -> None:
        self._html.append(f"<pre>{html.escape(text)}</pre>")
        self._markdown.append(f"```\n{text.rstrip()}\n```\n")

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[object]], best: int | None = None) -> None:
        """A table; row number `best` is marked."""
        cells = [[str(cell) for cell in row] for row in rows]
        head = "".join(f"<th>{html.escape(h)}</th>" for h in heads)
        body = "".join(
            f"<tr{' class=best' if index == best else ''}>{''.join(f'<td>{html.escape(c)}</td>' for c in row)}</tr>"
            for index, row in enumerate(cells)
        )
        self._html.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
        lines = [heads, ["---"] * len(heads)]
        lines += [[f"**{row[0]}**", *row[1:]] if index == best else row for index, row in enumerate(cells)]
        escaped = ["| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines]
        self._markdown.append("\n".join(escaped) + "\n")

    def figure(self, path: Path, caption: str) -> None:
        """An image, inline in HTML, and by its path from the Markdown file's folder."""
        data = base64.b64encode(path.read_bytes()).decode()
        words = html.escape(caption)
        self._html.append(
            f'<figure><img alt="{words}" src="data:image/png;base64,{data}"><figcaption>{words}</figcaption></figure>'
        )
        self._markdown.append(f"![{caption}]({path.parent.name}/{path.name})\n\n{caption}\n")

    def write(self, folder: Path, stem: str = "report") -> list[Path]:
        """Write `stem`.html and `stem`.md; returns their paths."""
        page = (
            f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{html.escape(self.title)}</title>"
            f"<meta name=viewport content='width=device-width'><style>{STYLE}</style></head><body>"
            f"{''.join(self._html)}<script>{SCRIPT}</script></body></html>"
        )
        written = {folder / f"{stem}.html": page, folder / f"{stem}.md": "\n".join(self._markdown)}
        for path, text in written.items():
            path.write_text(text, encoding="utf-8")
        return list(written)
