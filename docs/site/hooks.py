"""What the site has beyond the pages of docs/: the two notebooks as pages, and files of the repository that pages link.

Pages link as it is right in the repository: `../specs/w-screw.toml`, `notebooks/verdict.ipynb`. In the site, such a
file is a page of its own, so that the site can be read without the repository and without a network.
"""

from __future__ import annotations

import base64
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?(\))")
NAMED = re.compile(r"\[(?:docs/)?[a-z-]+\.md\](?=\(([a-z/.-]+\.md)[#)])")
CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.M | re.S)
LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml", ".json": "json", ".cff": "yaml"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        text, pictures = notebook_page(notebook)
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=text))
    pages = [ROOT / "docs" / file.src_uri for file in files.documentation_pages() if file.generated_by is None]
    pages += [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    linked = dict.fromkeys(pages[-2:])
    while pages:
        new = [target for target in _outside(pages.pop()) if target not in linked]
        linked |= dict.fromkeys(new)
        pages += new
    for path in linked:
        files.append(File.generated(config, _site(path), content=repository_page(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links to their pages in the site."""
    return _relinked(markdown, _origin(page.file.src_uri), page.file.src_uri)


def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        printed = "".join(line for output in cell.get("outputs", ()) for line in output.get("text", ()))
        if printed:
            parts.append(f"```text\n{printed.rstrip()}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{path.stem}-{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode("".join(data["image/png"]))
                described = (cell["metadata"].get("alt") or "What the lines above draw").replace("]", "\\]")
                parts.append(f"![{described}]({name})")
            elif text := "".join(data.get("text/plain", "")):
                parts.append(f"```text\n{text.rstrip()}\n```")
    parts.append(f"[Download this notebook]({path.name})")
    return "\n\n".join(parts) + "\n", pictures


def repository_page(path: Path) -> str:
    """The page of a file or a folder of the repository."""
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        lines = [f"* [{each.name}]({path.name}/{each.name})" for each in _files(path)]
        return f"# `{name}`\n\n" + "\n".join(lines) + "\n"
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    unsearched = "---\nsearch:\n  exclude: true\n---\n"  # the search is for words, not for code
    return f"{unsearched}# `{name}`\n\n````{LANGUAGES.get(path.suffix, 'text')}\n{text.rstrip()}\n````\n"


def _outside(page: Path) -> Iterator[Path]:
    """Existing files and folders outside docs/ that a page links; the files of a folder."""
    if page.is_dir():
        yield from _files(page)
    elif page.suffix == ".md":
        for part in CODE.split(page.read_text(encoding="utf-8"))[::2]:
            for _, target, *_ in LINK.findall(part):
                path = Path(posixpath.normpath((page.parent / target).as_posix()))
                if path.exists() and path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / "docs"):
                    yield path


def _files(folder: Path) -> list[Path]:
    return [each for each in sorted(folder.iterdir()) if each.is_file()]


def _site(path: Path) -> str:
    """Where the site has a file of the repository."""
    if path.is_relative_to(ROOT / "docs"):
        return path.relative_to(ROOT / "docs").as_posix().replace(".ipynb", ".md")
    name = f"repository/{path.relative_to(ROOT).as_posix()}"
    return name if path.suffix == ".md" else f"{name}.md"


def _origin(uri: str) -> Path:
    """The file of the repository that a page of the site is made from."""
    if not uri.startswith("repository/"):
        return ROOT / "docs" / uri
    path = ROOT / uri.removeprefix("repository/")
    return path if path.exists() else path.with_suffix("")


def _title(page: Path) -> str:
    return page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def _relinked(markdown: str, origin: Path, uri: str) -> str:
    def relinked(found: re.Match[str]) -> str:
        before, target, anchor, after = found.groups()
        path = Path(posixpath.normpath((origin.parent / target).as_posix()))
        if not path.exists() or not path.is_relative_to(ROOT):
            return found[0]  # a page of the site, or one that is missing: mkdocs tells
        if path.suffix == ".ipynb" and uri.startswith("notebooks/"):
            return found[0]  # the notebook itself, to be downloaded
        return f"{before}{posixpath.relpath(_site(path), posixpath.dirname(uri) or '.')}{anchor or ''}{after}"

    def titled(found: re.Match[str]) -> str:
        """A link that is called by its file is called by the title of the page instead."""
        path = origin.parent / found[1]
        return f"[{_title(path)}]" if path.is_file() else found[0]

    parts = CODE.split(markdown)
    parts[::2] = [LINK.sub(relinked, NAMED.sub(titled, part)) for part in parts[::2]]
    return "".join(parts)
