"""Every entry of the catalogue is what its record says, and how its smoothness is measured."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from laws import elastic_constants
from materials import calculator_of, crystal_of

from suite.world.catalogue import CATALOGUE, LICENCES, Measured, Reference, selected
from suite.world.crystal import LATTICES, Crystal, energy_per_atom
from suite.world.smoothness import FELT_THIRD, grade, jumps, third_derivative_change

# Their second derivatives by strain are not constant within a strain of 2e-3: kinks, or the noise of coarse tables
ROUGH = {"CoAl_vf97": 0.05, "Si_meam00": 0.06}


def record(name: str) -> tuple[Reference, Measured, Crystal]:
    """An entry, what was measured of it, and its crystal at the lattice constant that was measured."""
    entry = CATALOGUE[name]
    assert entry.measured is not None, f"run python -m suite.world.measuring {name}"
    return entry, entry.measured, Crystal(LATTICES[entry.lattice], entry.species, entry.measured.a0)


@pytest.mark.parametrize("name", CATALOGUE)
def test_entry_is_what_was_measured(name: str) -> None:
    """The energy is least at the lattice constant; energy and elastic constants are those of the record, by another set
    of strains; the crystal is stable."""
    entry, measured, crystal = record(name)
    calculator = calculator_of(name)
    assert energy_per_atom(crystal, calculator) == pytest.approx(measured.energies[entry.lattice], abs=2e-5)
    found = elastic_constants(crystal, calculator)
    expected = [measured.C11, measured.C12, measured.C44]
    assert found == pytest.approx(expected, rel=ROUGH.get(name, 0.01), abs=1.0)
    # the force on the lattice constant, by the bulk modulus: where the energy is least
    h = 1e-3
    below, above = (energy_per_atom(replace(crystal, a0=crystal.a0 * (1 + s)), calculator) for s in (-h, h))
    bulk = (measured.C11 + 2 * measured.C12) / 3
    pressure = (above - below) / (2 * h) / 3 * len(crystal.basis) / crystal.volume * 160.2
    assert abs(pressure / bulk) / 3 < 1e-4, "relative distance from the lattice constant of least energy"
    c11, c12, c44 = found
    assert c44 > 0
    assert c11 > abs(c12)


@pytest.mark.parametrize("name", CATALOGUE)
def test_third_derivatives_are_as_good_as_the_record_says(name: str) -> None:
    _, measured, crystal = record(name)
    found = third_derivative_change(crystal, calculator_of(name))
    assert (found < FELT_THIRD) == (measured.third < FELT_THIRD)


@pytest.mark.parametrize("name", ["W_zhou04", "Si_sw", "Si_ea", "Fe_mendelev03"])
def test_jumps_are_those_of_the_record(name: str) -> None:
    _, measured, crystal = record(name)
    near, far = jumps(crystal, calculator_of(name))
    for found, expected in zip((*near, *far), (*measured.near, *measured.far), strict=True):
        assert expected / 2 <= found <= 2 * expected
    assert grade(near, measured.third) == grade(measured.near, measured.third)


class Broken(Calculator):
    """Free atoms, but for the first: E = sin x, and from x = `at` on a jump of one derivative, by 1."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, at: float, order: int, size: float) -> None:
        super().__init__()
        self.at, self.order, self.size = at, order, size

    def calculate(
        self, atoms: Atoms | None = None, properties: list[str] | None = None, system_changes: list[str] = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert atoms is not None
        x = atoms.positions[0, 0]
        beyond = max(x - self.at, 0.0)
        forces = np.zeros((len(atoms), 3))
        forces[0, 0] = -np.cos(x)
        energy = np.sin(x)
        if beyond > 0:
            energy += self.size * beyond**self.order / max(self.order, 1)
            forces[0, 0] -= self.size * beyond ** (self.order - 1) if self.order > 0 else 0.0
        self.results = {"energy": float(energy), "forces": forces}


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("at", [0.0123, 0.0771])
def test_a_jump_is_measured_as_large_as_it_is(order: int, at: float) -> None:
    """A step of the energy, of the force, and a kink; the path crosses it with dx/ds of its own."""
    crystal = Crystal(LATTICES["bcc"], ("W",), 3.16)
    size = (1e-3, 0.1, 5.0)[order]
    direction = np.random.default_rng(0).standard_normal((8, 3))
    direction -= direction.mean(axis=0)
    direction /= np.sqrt((direction**2).mean())
    speed = abs(float(direction[0, 0]))
    near, _ = jumps(crystal, Broken(at * speed, order, size))
    assert 0.5 < near[order] / (size * speed**order) < 2, "kinks are good to a factor of two"
    assert max(near[:order], default=0.0) == 0
    assert grade(near, 0.0) == ("energy jumps", "forces jump", "forces have kinks")[order]


def test_nothing_jumps_where_nothing_does() -> None:
    near, far = jumps(Crystal(LATTICES["bcc"], ("W",), 3.16), Broken(0.0, 2, 0.0))
    assert near == far == (0.0, 0.0, 0.0)
    assert grade(near, 1e-4) == "smooth"
    assert grade(near, float("nan")) == grade(near, 1.0) == "no third derivatives"


def test_records_are_complete() -> None:
    for name, entry in CATALOGUE.items():
        assert name.startswith("".join(entry.species) + "_")
        assert entry.licence in LICENCES
        assert (entry.licence == "formula") == (not entry.files)
        assert LATTICES[entry.lattice].species_count == len(entry.species)
        assert entry.measured is not None
        assert entry.measured.cost > 0
    assert {s for entry in CATALOGUE.values() for s in entry.species} >= {
        *["W", "Mo", "Ta", "Ni", "Cu", "Al", "Fe", "Si"]
    }


def test_entries_are_selected_by_element_and_by_text() -> None:
    silicon = selected("Si")
    assert set(silicon) == {name for name in CATALOGUE if name.startswith("Si_")}
    assert {"NiAl_pm09", "Al_jnp87"} <= set(selected("Al"))
    assert {entry.form for entry in selected("snap").values()} == {"SNAP", "quadratic SNAP"}
    assert "Fe_mendelev03" in selected("Mendelev")
    assert set(selected("")) == set(CATALOGUE)
    assert not selected("xyzzy")


def test_the_stored_constants_are_those_of_equilibrium_crystal() -> None:
    for name in ("W_snap17", "Si_sw", "NiAl_pm09", "Cu_mishin1"):
        assert crystal_of(name).a0 == pytest.approx(record(name)[2].a0, abs=1e-5)
