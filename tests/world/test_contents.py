"""What a potential is made of: content counts, places do not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suite.world import contents, modules
from suite.world.catalogue import CATALOGUE
from suite.world.contents import contents_of


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test stands for a process: modules are read once in each, and none is known from another test."""
    contents._digest.cache_clear()
    monkeypatch.setattr(modules, "_beside", {})
    monkeypatch.delitem(sys.modules, "my_potential", raising=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where a user works, on Python's path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def changes(path: Path, found: Callable[[], Any]) -> bool:
    """Whether what is `found` hears a change of the file, and hears when it is taken back."""
    text, before = path.read_text(), found()
    path.write_text(text + "# other\n")
    contents._digest.cache_clear()
    changed = found()
    path.write_text(text)
    contents._digest.cache_clear()
    assert found() == before
    return bool(changed != before)


def write(path: Path, text: str = "one\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_files_in_arguments_count_wherever_they_are_named(folder: Path) -> None:
    arguments = {"potential": "a.txt", "deep": [{"er": "b/b.txt"}], "commands": ["pair_coeff * * c.txt Fe"], "n": 3}
    for name in ("a.txt", "b/b.txt", "c.txt"):
        path = write(folder / name)
        assert changes(path, lambda: contents_of("ase.calculators.emt:EMT", arguments)), name
    other = write(folder / "d.txt")
    assert not changes(other, lambda: contents_of("ase.calculators.emt:EMT", arguments))


def test_files_beside_the_spec_count(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    beside = tmp_path_factory.mktemp("specs")
    path = write(beside / "weights.txt")
    arguments = {"file": "weights.txt"}
    assert changes(path, lambda: contents_of("ase.calculators.emt:EMT", arguments, [beside]))
    assert not changes(path, lambda: contents_of("ase.calculators.emt:EMT", arguments))


def test_texts_that_name_no_file_are_texts(folder: Path) -> None:
    before = contents_of("ase.calculators.emt:EMT", {})
    texts = {"a": "x\0y", "b": "z" * 5000, "c": "", "d": ".", "e": "cuda:0", "f": "nosuch:thing"}
    assert contents_of("ase.calculators.emt:EMT", texts) == before


def test_a_module_counts_with_its_package_and_nothing_else(folder: Path) -> None:
    module = write(folder / "my_potential.py", "def build(): ...\n")
    sibling = write(folder / "other.py", "")
    assert changes(module, lambda: contents_of("my_potential:build", {}))
    assert not changes(sibling, lambda: contents_of("my_potential:build", {}))
    write(folder / "mine" / "__init__.py", "raise RuntimeError('nothing is imported')\n")
    inner = write(folder / "mine" / "deep" / "iron.py", "")
    helper = write(folder / "mine" / "helper.py", "")
    write(folder / "mine" / "deep" / "__init__.py", "")
    notes = write(folder / "mine" / "notes.txt", "")
    for path in (inner, helper):
        assert changes(path, lambda: contents_of("mine.deep.iron:build", {})), path
    assert not changes(notes, lambda: contents_of("mine.deep.iron:build", {}))


def test_a_module_beside_the_spec_counts_before_and_after_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    module = write(tmp_path / "mine_beside.py", "def build(): ...\n")
    modules.remember_beside("mine_beside", tmp_path)
    before = contents_of("mine_beside:build", {})
    assert changes(module, lambda: contents_of("mine_beside:build", {}))
    modules.import_beside("mine_beside")
    assert contents_of("mine_beside:build", {}) == before != {}


def test_files_of_lammps_count_in_quotes_and_in_its_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spaced = write(folder / "my files" / "a.txt")
    arguments = {"commands": [f'pair_coeff * * "{spaced}" Fe', "pair_coeff * * b.txt Fe"]}
    assert changes(spaced, lambda: contents_of("ase.calculators.emt:EMT", arguments))
    elsewhere = write(folder / "lammps" / "b.txt")
    assert not changes(elsewhere, lambda: contents_of("ase.calculators.emt:EMT", arguments))
    monkeypatch.setenv("LAMMPS_POTENTIALS", str(elsewhere.parent))
    assert changes(elsewhere, lambda: contents_of("ase.calculators.emt:EMT", arguments))


def test_folders_without_init_are_packages_too(folder: Path) -> None:
    inner = write(folder / "loose" / "deep" / "iron.py", "")
    assert changes(inner, lambda: contents_of("loose.deep.iron:build", {}))
    assert contents_of("loose.deep.zinc:build", {}) == {}
    assert modules.find_module("loose.deep.iron") is not None


def test_what_is_installed_counts_by_its_version() -> None:
    (found,) = contents_of("ase.calculators.emt:EMT", {}).values()
    assert set(found) == {"ase"}
    assert contents_of("builtins:dict", {}) == contents_of("builtins:dict", {})
    assert contents_of("suite.model.perturbed:perturbed", {}) != {}


def test_references_in_arguments_count(folder: Path) -> None:
    module = write(folder / "my_potential.py", "def build(): ...\n")
    arguments = {"reference": "my_potential:build"}
    assert changes(module, lambda: contents_of("suite.model.perturbed:perturbed", arguments))


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_the_catalogue_counts_by_the_files_that_lammps_reads(name: str, folder: Path) -> None:
    (words,) = contents_of(name, {}).values()
    assert any(len(word) == 64 for word in words)
    assert not any(word.startswith("/") for word in words), "places do not count"
    write(folder / "W", "a file of the name of an element is no part of it")
    assert list(contents_of(name, {}).values()) == [words]


def test_a_running_script_counts(folder: Path) -> None:
    told = []
    ends = (
        "import json\nfrom suite.world.contents import contents_of\nprint(json.dumps(contents_of('__main__:x', {})))\n"
    )
    for text in ("x = 1", "x = 2"):
        script = write(folder / "script.py", f"{text}\n{ends}")
        found = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
        told.append(json.loads(found.stdout))
    assert told[0] != told[1]
    assert all(told)
