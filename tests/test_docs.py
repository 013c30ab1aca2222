"""Generated pages of the documentation are current."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from ase.build import bulk

from suite.model.backends import BACKENDS
from suite.model.contract import check_family
from suite.model.lammps_family import wrong_settings
from suite.model.linear import LinearSpec
from suite.spec import Material, load
from suite.world.crystal import LATTICES, equilibrium_crystal
from suite.world.lammps_calculator import lammps_potential_file
from suite.world.reference import build_reference

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGES = ["commands.md", "python.md", "spec.md", "store.md", "numbers.md", "paper.md", "references.md"]


@pytest.mark.parametrize("page", PAGES)
def test_page_is_what_the_code_says(generate: ModuleType, page: str) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == generate.PAGES[page](), "run python docs/generate.py"


def test_own_material_of_the_docs_is_iron(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways that the page shows give the same crystal, that of the potential's authors (a0 = 2.8553 Å)."""
    text = (DOCS / "own-material.md").read_text(encoding="utf-8")
    whole, table, *_ = re.findall(r"```toml\n(.*?)```", text, flags=re.S)
    module, _ = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    shutil.copy(lammps_potential_file("Fe_mm.eam.fs"), tmp_path)
    (tmp_path / "my_potential.py").write_text(module)
    (tmp_path / "fe-screw.toml").write_text(whole)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    by_lammps = load(tmp_path / "fe-screw.toml").material
    by_ase = Material(**tomllib.loads(table)["material"])
    constants = [
        equilibrium_crystal(LATTICES[m.lattice], m.species, build_reference(m.reference, m.arguments)).a0
        for m in (by_lammps, by_ase)
    ]
    assert constants == pytest.approx([2.8553, 2.8553], abs=2e-4)


def test_own_functions_of_the_docs_are_a_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DOCS / "own-material.md").read_text(encoding="utf-8")
    *_, table, _ = re.findall(r"```toml\n(.*?)```", text, flags=re.S)
    _, module = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    model = tomllib.loads(table)["model"]
    name = "functions_of_the_docs"  # a module of that name may stand elsewhere on the path of the tests
    (tmp_path / f"{name}.py").write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    family = LinearSpec(model["calculator"].replace("my_functions", name), model["arguments"]).build()
    atoms = bulk("W", "bcc", a=3.165, cubic=True).repeat((4, 4, 4))
    atoms.positions += 0.1 * np.random.default_rng(0).standard_normal(atoms.positions.shape)
    check_family(family, atoms)
    assert len(family) == len(model["arguments"]["widths"])


def test_settings_of_the_page_on_families_are_good() -> None:
    text = (DOCS / "families.md").read_text(encoding="utf-8")
    models = [tomllib.loads(block)["model"] for block in re.findall(r"```toml\n(.*?)```", text, flags=re.S)]
    assert len(models) >= 5
    for model in models:
        if "basis" in model["arguments"]:  # a file of a run, which tests/model/test_ace_jax.py makes
            continue
        record = BACKENDS[model["backend"]].settings
        assert record is not None
        for species in (("W",), ("Ni", "Al")):
            assert wrong_settings(record, model["arguments"], species)[1] == []
