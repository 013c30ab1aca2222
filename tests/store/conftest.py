"""Shared by the tests of `store`: a ready workspace, and Python in a process of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import store
from store.runs import Tracker

ROOT = Path(store.__file__).parent.parent


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that nobody writes to: creating a database takes seconds, copying it does not."""
    workspace = tmp_path_factory.mktemp("template") / "runs"
    Tracker(workspace).prepare()
    return workspace


@pytest.fixture
def tracker(template: Path, tmp_path: Path) -> Tracker:
    """A tracker on an empty workspace of its own."""
    workspace = tmp_path / "runs"
    shutil.copytree(template, workspace)
    return Tracker(workspace)


@pytest.fixture
def spawn(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start Python on a piece of code in a new process, in the folder `tmp_path`."""

    def start(code: str, *arguments: object, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start
