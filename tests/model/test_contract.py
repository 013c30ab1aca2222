"""What every family of models promises, measured on all of them; and families that break each promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.lj import LennardJones

from suite.model.basis import AceBasis
from suite.model.contract import BrokenContract, LinearFamily, check_family
from suite.model.given import GivenSpec
from suite.model.linear import Combination, LinearSpec, SumCalculator
from suite.world.calculators import UnusableReference

TWO = {"epsilons": [1.0, 0.3], "sigmas": [2.3, 2.6]}


def pairs(epsilons: list[float], sigmas: list[float]) -> list[Calculator]:
    """Lennard-Jones potentials, smooth at the cutoff."""
    return [LennardJones(epsilon=e, sigma=s, rc=5.0, smooth=True) for e, s in zip(epsilons, sigmas, strict=True)]


def no_list() -> Calculator:
    return LennardJones()


def fails() -> list[Calculator]:
    raise KeyError("nothing here")


def names() -> list[str]:
    return ["W_zhou04"]


def crystal(seed: int = 0) -> Atoms:
    atoms = bulk("W", "bcc", a=3.165, cubic=True).repeat((4, 4, 4))
    atoms.positions += 0.1 * np.random.default_rng(seed).standard_normal(atoms.positions.shape)
    return atoms


FAMILIES: dict[str, Callable[[], LinearFamily]] = {
    "ACE": lambda: AceBasis(["W"], 5.0, [6, 3], [0, 1]),
    "ACE, total degree": lambda: AceBasis(["W"], 5.0, [6, 4, 2], [0, 2, 1], total_degree=[4, 2]),
    "calculators": lambda: LinearSpec(f"{__name__}:pairs", TWO).build(),
    "springs": lambda: LinearSpec(
        "suite.model.perturbed:springs", {"reference": "W_zhou04", "species": "W", "orders": [2, 3], "beyond": 0.6}
    ).build(),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_keeps_the_contract(name: str) -> None:
    check_family(FAMILIES[name](), crystal())


class Broken(Combination):
    """Two pair potentials, wrong in one place."""

    def __init__(self, place: str) -> None:
        super().__init__(pairs(**TWO))
        self.place = place

    @property
    def orders(self) -> np.ndarray:
        return np.zeros(3 if self.place == "orders" else 2, dtype=np.int64)

    def site_values(self, atoms: Atoms) -> np.ndarray:
        values = super().site_values(atoms)
        return values / len(atoms) if self.place == "per atom" else values

    def energy_and_force_rows(self, atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
        energies, forces = super().energy_and_force_rows(atoms)
        if self.place == "energies":
            energies = 1.001 * energies
        if self.place == "order of atoms":
            forces = forces[::-1]
        if self.place == "gradient":
            forces = 1.01 * forces
        return energies, forces

    def calculator(self, coefficients: np.ndarray, energy_per_atom: float = 0.0) -> SumCalculator:
        found = super().calculator(coefficients, 0.0 if self.place == "constant" else energy_per_atom)
        return _Pushed(found) if self.place == "gradient" else found


class _Pushed(SumCalculator):
    """Forces, and rows of them, that are not the gradient of the energy are found by the slope alone."""

    def __init__(self, other: SumCalculator) -> None:
        super().__init__([], np.zeros(0), other.energy_per_atom)
        self.terms = other.terms

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        super().calculate(*args, **kwargs)
        self.results["forces"] *= 1.01


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("orders", r"orders: shape \(3,\) instead of \(2,\)"),
        ("per atom", "energy of the calculator and of the rows"),
        ("energies", "site_values and the energies"),
        ("order of atoms", "forces of the calculator and of the rows"),
        ("constant", "energy of the calculator and of the rows"),
        ("gradient", "forces and the slope of the energy"),
    ],
)
def test_a_broken_promise_is_named(place: str, message: str) -> None:
    with pytest.raises(BrokenContract, match=message):
        check_family(Broken(place), crystal())


@pytest.mark.parametrize(
    ("name", "message"),
    [("no_list", "TypeError"), ("fails", "KeyError: 'nothing here'"), ("names", "gives a str"), ("nowhere", "nowhere")],
)
def test_functions_that_cannot_be_had_are_refused(name: str, message: str) -> None:
    with pytest.raises(UnusableReference, match=message):
        LinearSpec(f"{__name__}:{name}", {}).build()


def test_a_saved_sum_is_read_back(tmp_path: Path) -> None:
    family, coefficients = LinearSpec(f"{__name__}:pairs", TWO).build(), np.array([0.7, -0.2])
    (path,) = family.save(coefficients, 0.25, tmp_path)
    found = GivenSpec("suite.model.linear:saved", {"potential": str(path)}).build().calculator(np.zeros(0))
    one, two = crystal(), crystal()
    one.calc, two.calc = found, family.calculator(coefficients, 0.25)
    assert one.get_potential_energy() == two.get_potential_energy()
    assert np.array_equal(one.get_forces(), two.get_forces())


def test_equal_recipes_are_one_key() -> None:
    one, same = LinearSpec("m:f", {"a": [1, 2], "b": "x"}), LinearSpec("m:f", {"b": "x", "a": [1, 2]})
    other = LinearSpec("m:f", {"a": [1, 3], "b": "x"})
    assert {one: 1}[same] == 1
    assert one != other
