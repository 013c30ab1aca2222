"""The trainers that come with dislobench, where their packages are installed."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suite.data.folder import write_labels
from suite.model.contract import check_calculator
from suite.results import Rows, World
from suite.spec import Spec
from suite.trainers import TRAINERS
from suite.trainers.needed import MissingPackage

SMALL: dict[str, dict[str, Any]] = {
    "gap": {"n_max": 4, "l_max": 2, "sparse": 20, "pair_sparse": 10},
    "mace": {"channels": 4, "l_max": 1, "correlation": 1, "epochs": 4, "batch_size": 32},
}
PACKAGES = {"gap": "quippy", "mace": "mace"}


def test_every_trainer_is_tried_here() -> None:
    assert set(SMALL) == set(PACKAGES) == set(TRAINERS)


@pytest.mark.filterwarnings("default")  # theirs are not ours
@pytest.mark.parametrize("name", TRAINERS)
def test_trains_a_potential(name: str, tiny: Spec, world: World, rows: Rows, tmp_path: Path) -> None:
    pytest.importorskip(PACKAGES[name], reason=f"needs `pip install 'dislobench[{name}]'`", exc_type=ImportError)
    module = importlib.import_module(f"suite.trainers.{name}")
    data, model = tmp_path / "data", tmp_path / "model"
    write_labels(tiny, world, (rows.train, rows.test), data)
    model.mkdir()
    module.train(data, model, **SMALL[name])
    calculator = module.load(model)
    found = rows.test[0]
    atoms = world.training[0].atoms(found.displacements[0])
    check_calculator(calculator, atoms)
    atoms.calc = calculator
    # as small as these are, they know more of the forces than nothing: 4 epochs take a tenth off
    error, size = np.linalg.norm(atoms.get_forces() - found.forces[0]), np.linalg.norm(found.forces[0])
    assert error < size
    # energies are absolute: that of the reference, to some per cent of what the rattling costs
    assert abs(atoms.get_potential_energy() / len(atoms) - world.energy_per_atom) < 0.1


@pytest.mark.parametrize("name", TRAINERS)
def test_a_missing_package_is_told_with_its_cure(name: str) -> None:
    if importlib.util.find_spec(PACKAGES[name]) is not None:
        pytest.skip(f"{PACKAGES[name]} is installed here")
    with pytest.raises(MissingPackage, match=rf"pip install 'dislobench\[{name}\]'"):
        importlib.import_module(f"suite.trainers.{name}").ready()
