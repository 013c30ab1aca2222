"""A report is one file that needs nothing from elsewhere, and the same in Markdown."""

import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path

from PIL import Image

from suite.show.page import Page


def test_page_is_standalone_and_escaped(tmp_path: Path) -> None:
    picture = tmp_path / "figures" / "dot.png"
    picture.parent.mkdir()
    Image.new("RGB", (3, 2), "red").save(picture)
    page = Page("a < b & c")
    page.heading("numbers")
    page.table(["name", "value"], [["x|y", 1.5], ["<script>", 2]], best=1)
    page.code("[weights]\nenergy = 1\n")
    page.figure(picture, "a dot")
    written = page.write(tmp_path)
    html, markdown = (path.read_text(encoding="utf-8") for path in written)
    assert "a &lt; b &amp; c" in html
    assert html.count("<script>") == 1, "the page's own script only"
    assert not re.search(r"(src|href)=[\"']?https?:", html)
    (data,) = re.findall(r'src="data:image/webp;base64,([^"]+)"', html)
    with Image.open(BytesIO(b64decode(data))) as shown:
        assert (shown.size, shown.convert("RGB").getpixel((2, 1))) == ((3, 2), (255, 0, 0)), "without loss"
    assert '<tr class="best"><td>&lt;script&gt;' in html
    assert "| x\\|y | 1.5 |" in markdown
    assert "**<script>**" in markdown
    assert "![a dot](figures/dot.png)" in markdown


def test_wide_tables_scroll_and_parts_can_be_reached(tmp_path: Path) -> None:
    page = Page("wide")
    for name in ("one", "two", "three", "four"):
        page.heading(name)
    for _ in range(2):
        page.table([f"head {n}" for n in range(40)], [["a long sentence " * 9] * 40])
    html = page.write(tmp_path)[0].read_text(encoding="utf-8")
    assert re.findall(r'<div class="scroll" tabindex="0" role="region" aria-label="(.*?)">', html) == [
        "table 1: four",
        "table 2: four",
    ]
    assert html.count('<td class="long">') == 2 * 39, "all but the name of the row"
    anchors = re.findall(r'<a href="#([^"]+)">', html)
    assert len(set(anchors)) == 4
    assert all(f'<h2 id="{anchor}">' in html for anchor in anchors)
    assert "prefers-color-scheme: dark" in html
