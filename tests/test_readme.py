"""The README's example runs as it stands, on the tiny twin; its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_example_runs_without_a_guard(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)
    script = tmp_path / "example.py"
    script.write_text(example.replace('"quick"', '"tiny"'))
    found = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, cwd=tmp_path)
    lines = [[float(word) for word in line.split()] for line in found.stdout.splitlines()]
    assert [line[0] for line in lines] == [0, 10, 1000]
    assert lines[0][1] > lines[1][1] > lines[2][1], "a heavier virial1 must lower eps_V1"


def test_every_command_of_the_readme_exists() -> None:
    from suite.arguments import build_parser

    (choices,) = [a.choices for a in build_parser()._actions if a.dest == "command"]
    shown = set(re.findall(r"^    dislobench (\w+)", TEXT, flags=re.M))
    assert shown
    assert shown == set(choices or ())


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).exists(), target
