"""What the Dockerfile names exists: a Python that is supported, extras, the command, the README's test command."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def instructions(text: str) -> list[tuple[str, str]]:
    """Instructions and their arguments, without comments."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def stages(text: str) -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage by its name; each begins with its FROM."""
    found: dict[str, list[tuple[str, str]]] = {}
    for word, rest in instructions(text):
        if word == "FROM":
            _, _, name = rest.partition(" AS ")
            found[name] = []
        found[name].append((word, rest))
    return found


@pytest.fixture(scope="module")
def built() -> dict[str, list[tuple[str, str]]]:
    return stages(TEXT)


def test_the_python_is_one_that_is_supported(built: dict[str, list[tuple[str, str]]]) -> None:
    (version,) = re.findall(r"^FROM python:(3\.\d+)-slim AS", TEXT, flags=re.M)
    assert f"Programming Language :: Python :: {version}" in PROJECT["classifiers"]
    assert [stage[0][1].partition(" ")[0] for stage in built.values()][1:] == ["installed", "installed"]


def test_it_installs_and_tests_as_the_readme_says(built: dict[str, list[tuple[str, str]]]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme[readme.index("<!-- the test command -->") :].split("\n\n")[1].strip()
    (install,) = [rest for word, rest in built["installed"] if word == "RUN" and "pip install" in rest]
    (test,) = [rest for word, rest in built["test"] if word == "RUN"]
    assert f"{install.replace(' --no-cache-dir', '')} && {test}" == shown
    (extras,) = re.findall(r"'\.\[(.*?)\]'", install)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_the_command_runs_without_rights_in_the_mounted_folder(built: dict[str, list[tuple[str, str]]]) -> None:
    last = dict(built["command"])
    assert list(built)[-1] == "command", "the last stage is the one that is built without --target"
    (command,) = json.loads(last["ENTRYPOINT"])
    assert command in PROJECT["scripts"]
    assert last["WORKDIR"] == "/work"
    words = [word for word, _ in built["installed"]]
    assert dict(built["installed"])["USER"] == "dislobench"
    assert words.index("USER") < max(index for index, word in enumerate(words) if word == "RUN")
    assert "USER" not in last


def test_what_git_leaves_out_does_not_go_into_it() -> None:
    def listed(name: str) -> set[str]:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        return {line.removeprefix("**/").rstrip("/") for line in lines if line and not line.startswith("#")}

    assert listed(".dockerignore") == listed(".gitignore") | {".git"}


def test_the_page_tells_its_variables(built: dict[str, list[tuple[str, str]]]) -> None:
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    (variables,) = [rest for word, rest in built["installed"] if word == "ENV"]
    for name in re.findall(r"(\w+)=", variables):
        assert name == "PATH" or f"`{name}`" in page
