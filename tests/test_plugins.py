"""The public names, and another package that brings a reference, a backend and a dislocation: installed for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dislobench

MODULE = """
from dislobench import Dislocation, build_reference
from suite.model.linear import Combination
from suite.world.dislocation import CATALOGUE


def tungsten():
    return build_reference("W_zhou04_smooth")


def mixture(species, names):
    assert species == ("W",)
    return Combination([build_reference(name) for name in names])


KNOWN = CATALOGUE["bcc", "screw", ""]
SCREW = Dislocation(KNOWN.periods, KNOWN.burgers, KNOWN.sites, "a screw of another package")
number = 3


def broken():
    raise OSError("the potential file is gone")
"""
ENTRIES = """
[dislobench.references]
W_theirs = their_potentials:tungsten
W_broken = their_potentials:broken
W_absent = their_potentials:absent

[dislobench.backends]
their-mixture = their_potentials:mixture
their-number = their_potentials:number

[dislobench.dislocations]
bcc-screw-theirs = their_potentials:SCREW
"""
SPEC = """
[case]
name = "theirs"
title = "A case of another package"

[material]
lattice = "bcc"
species = ["W"]
reference = "W_theirs"

[dislocation]
kind = "screw"
variant = "theirs"
core = "easy"

[simulation]
size = 18

[training]
size = 6
configurations = 4
test = 2

[model]
backend = "their-mixture"

[model.arguments]
names = ["W_zhou04", "W_eam4"]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages, with one, beside its spec."""
    place = tmp_path_factory.mktemp("theirs")
    folder = place / "site"
    (folder / "their_potentials-1.2.dist-info").mkdir(parents=True)
    (folder / "their_potentials.py").write_text(MODULE)
    (folder / "their_potentials-1.2.dist-info" / "entry_points.txt").write_text(ENTRIES)
    (folder / "their_potentials-1.2.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: their-potentials\nVersion: 1.2\n"
    )
    (place / "theirs.toml").write_text(SPEC)
    return folder


def command(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "dislobench", *words],
        cwd=site.parent,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_package_brings_reference_backend_and_dislocation(site: Path) -> None:
    done = command(site, "run", "theirs.toml", "--json", "--workers", "1")
    found = json.loads(done.stdout)
    assert found["case"] == "theirs", done.stderr
    assert done.returncode == 0, done.stderr
    assert found["numbers"]["geometry_error"] < 0.1, "the reference and W_zhou04 are nearly the same"
    listed = json.loads(command(site, "list", "--json").stdout)["installed"]
    assert {(each["name"], each["package"]) for each in listed} >= {
        ("W_theirs", "their-potentials"),
        ("their-mixture", "their-potentials"),
        ("bcc-screw-theirs", "their-potentials"),
    }


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("material.reference=W_theirz", "did you mean 'W_theirs'?"),
        ("material.reference=W_broken", "OSError: the potential file is gone"),
        ("material.reference=W_absent", "reference 'W_absent' of the package their-potentials 1.2 cannot be imported"),
        ("model.backend=their-mixtures", "did you mean 'their-mixture'?"),
        ("model.backend=their-number", "TypeError: 'int' object is not callable"),
        ("model.arguments.name=[1]", "unexpected keyword argument 'name'"),
        ("model.calculator=W_zhou04", "the backend 'their-mixture' has none"),
        ("dislocation.variant=ours", "known: screw (variant 'theirs') in bcc"),
    ],
)
def test_what_is_wrong_with_a_package_is_told(site: Path, setting: str, message: str) -> None:
    done = command(site, "run", "theirs.toml", "--set", setting)
    assert done.returncode == 2, done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_public_names_are_there_and_nothing_else() -> None:
    for name in dislobench.__all__:
        assert getattr(dislobench, name).__doc__ or name == "NUMBERS"
    assert set(dir(dislobench)) == {*dislobench.__all__, "__version__"}
    with pytest.raises(AttributeError, match="no attribute 'relax'; public are"):
        dislobench.relax  # noqa: B018
    done = subprocess.run(
        [sys.executable, "-c", "import dislobench, sys; print(sorted({'numpy', 'ase', 'mlflow'} & set(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]", "the command line starts at once"
