"""Modules that specs name: found without being executed, used from beside the spec, and calculators or refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from suite.world import modules
from suite.world.calculators import UnusableReference
from suite.world.modules import TwoModules, find_module, import_beside, missing_files, remember_beside
from suite.world.reference import build_reference


@pytest.fixture(autouse=True)
def same_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test adds to Python's path and to the memory of folders is gone after it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(modules, "_beside", {})


def written(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / f"{name}.py").write_text(text)
    return folder


def test_a_module_is_found_without_being_executed(tmp_path: Path) -> None:
    written(tmp_path / "package_that_explodes", "__init__", "raise SystemExit('executed')\n")
    written(tmp_path / "package_that_explodes", "part", "raise SystemExit('executed')\n")
    assert find_module("package_that_explodes.part", tmp_path) is not None
    assert find_module("package_that_explodes.other", tmp_path) is None
    assert find_module("package_that_explodes") is None
    assert find_module("ase.calculators.emt") is not None
    assert find_module("ase.calculators.emt.deeper") is None
    assert find_module("builtins") is not None
    assert "package_that_explodes" not in sys.modules


def test_a_calculator_beside_the_spec_is_built(tmp_path: Path) -> None:
    text = "from ase.calculators.emt import EMT\n\ndef build():\n    return EMT()\n"
    folder = written(tmp_path, "calculator_beside", text)
    with pytest.raises(UnusableReference, match="calculator_beside"):
        build_reference("calculator_beside:build")
    remember_beside("calculator_beside", folder)
    assert str(folder) not in sys.path, "the path is touched when it is needed"
    assert type(build_reference("calculator_beside:build")).__name__ == "EMT"


def test_an_installed_module_goes_before_one_beside_the_spec(tmp_path: Path) -> None:
    folder = written(tmp_path, "ase", "raise SystemExit('executed')\n")
    remember_beside("ase.calculators.emt", folder)
    assert import_beside("ase.calculators.emt").EMT
    assert str(folder) not in sys.path


def test_one_name_for_two_modules_is_refused(tmp_path: Path) -> None:
    folders = [written(tmp_path / name, "twice_beside", "build = dict\n") for name in ("a", "b")]
    remember_beside("twice_beside", folders[0])
    assert import_beside("twice_beside")
    remember_beside("twice_beside", folders[1])
    with pytest.raises(TwoModules, match="give them different names"):
        import_beside("twice_beside")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("builtins:dict", "gives a dict, and not an ASE calculator"),
        ("builtins:type", "cannot build"),
        ("sys:exit", "SystemExit"),
        ("os:getcwd", "gives a str"),
        ("broken_beside:build", "KeyError"),
        ("classes_beside:build", "gives the class EMT"),
    ],
)
def test_what_is_no_calculator_is_refused(name: str, words: str, tmp_path: Path) -> None:
    written(tmp_path, "broken_beside", "build = {}['nothing']\n")
    written(tmp_path, "classes_beside", "from ase.calculators.emt import EMT\n\ndef build():\n    return EMT\n")
    remember_beside(name.partition(":")[0], tmp_path)
    with pytest.raises(UnusableReference, match=words):
        build_reference(name)


def test_files_are_told_from_other_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spaced = tmp_path / "my folder" / "w.yaml"
    spaced.parent.mkdir()
    spaced.touch()
    arguments = {
        "text": ["mace_medium", "eam/fs", "lj/cut 2.5", "https://example.org/w.pt", "*.yaml", "v1.0"],
        "file": str(spaced),
        "absent": [f"{spaced}.pt", "sub/w.pt"],
        "commands": [f'pair_coeff * * "{spaced}" W', "pair_coeff 1 1 w.fs W", "pair_coeff 2 2 given.sw W"],
    }
    assert missing_files(arguments) == [f"{spaced}.pt", "sub/w.pt", "w.fs", "given.sw"]
    (tmp_path / "given.sw").touch()
    monkeypatch.setenv("LAMMPS_POTENTIALS", str(tmp_path))
    monkeypatch.chdir(spaced.parent)
    assert missing_files(arguments) == [f"{spaced}.pt", "sub/w.pt", "w.fs"]
