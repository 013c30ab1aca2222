"""The site: built with warnings as errors, so that every link leads somewhere, and read without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

DOCS = Path(__file__).parent.parent / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    command += ["-f", str(DOCS / "site" / "mkdocs.yml"), "-d", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # the theme advertises its successor
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_in_the_site(site: Path) -> None:
    for page in DOCS.glob("*.md"):
        assert (site / page.with_suffix(".html").name).is_file(), page
    for notebook in NOTEBOOKS:
        assert (site / "notebooks" / f"{notebook.stem}.html").is_file()
        assert (site / "notebooks" / notebook.name).is_file(), "it can be downloaded"
    assert (site / "repository" / "CONTRIBUTING.html").is_file()


class _Loaded(HTMLParser):
    """What a page loads, links aside, and the pictures that nothing describes."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.silent: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in ("script", "img", "iframe", "source"):
            self.addresses.append(given.get("src", ""))
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.addresses.append(given.get("href", ""))
        if tag == "img" and not given.get("alt"):
            self.silent.append(given.get("src", ""))


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        parser = _Loaded()
        parser.feed(page.read_text(encoding="utf-8"))
        assert not [address for address in parser.addresses if re.match(r"(https?:)?//", address)], page
        assert parser.silent == [], page


def test_links_to_the_repository_lead_to_pages(site: Path) -> None:
    text = (site / "cases.html").read_text(encoding="utf-8")
    assert 'href="repository/specs.html"' in text
    shown = (site / "repository" / "specs" / "w-screw.toml.html").read_text(encoding="utf-8")
    assert "preset.quick" in re.sub(r"<[^>]*>", "", shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_keeps_its_output(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code), "execute it and keep its output"
    assert not [cell for cell in code if "plt.subplots" in cell.source and not cell.metadata.get("alt")]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    drawn = [o for cell in code for o in cell.outputs if "image/png" in o.get("data", {})]
    assert len(drawn) == 2
