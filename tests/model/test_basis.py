"""Rows of the basis against its calculator, its own symmetries, files read back by pyace, and elastic derivatives."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from laws import derivative_error, full_stress, rotation
from materials import crystal_of

from suite.model.basis import AceBasis, ImpossibleBasis
from suite.model.rows import elastic_rows, perfect_row
from suite.world.crystal import response, strain_path

ENERGY_PER_ATOM = -3.7


@pytest.fixture(scope="module", params=["one species", "two species"])
def basis(request: pytest.FixtureRequest) -> AceBasis:
    if request.param == "one species":
        return AceBasis(["W"], 4.7, [6, 4, 2], [0, 2, 1])
    return AceBasis(["Ni", "Al"], 4.5, [4, 2], [0, 1])


@pytest.fixture
def atoms(basis: AceBasis) -> Atoms:
    """A strained, rattled crystal with unequal numbers of the species."""
    crystal = bulk("W", cubic=True) if basis.species == ("W",) else bulk("NiAl", "cesiumchloride", a=2.86)
    crystal = crystal * (2, 2, 2)
    generator = np.random.default_rng(1)
    crystal.set_cell(crystal.cell.array @ (np.eye(3) + 0.03 * generator.standard_normal((3, 3))), scale_atoms=True)
    crystal.positions += 0.1 * generator.standard_normal(crystal.positions.shape)
    if len(basis.species) > 1:
        crystal.symbols[3] = "Ni"
        crystal.symbols[4] = "Ni"
    return crystal


@pytest.fixture(scope="module")
def coefficients(basis: AceBasis) -> np.ndarray:
    return np.random.default_rng(2).standard_normal(len(basis)) / len(basis)


def with_model(atoms: Atoms, basis: AceBasis, coefficients: np.ndarray) -> Atoms:
    copy = atoms.copy()
    copy.calc = basis.calculator(coefficients, ENERGY_PER_ATOM)
    return copy


def test_rows_times_coefficients_are_the_calculator(atoms: Atoms, basis: AceBasis, coefficients: np.ndarray) -> None:
    energies, forces = basis.energy_and_force_rows(atoms)
    assert energies.shape == (len(basis),)
    assert forces.shape == (3 * len(atoms), len(basis))
    model = with_model(atoms, basis, coefficients)
    energy, force = model.get_potential_energy(), model.get_forces()
    assert np.abs(force).max() > 1e-2
    assert energies @ coefficients + len(atoms) * ENERGY_PER_ATOM == pytest.approx(energy, abs=1e-10)
    np.testing.assert_allclose((forces @ coefficients).reshape(-1, 3), force, atol=1e-10)
    np.testing.assert_allclose(basis.site_values(atoms), energies, atol=1e-12)
    assert model.get_potential_energies().sum() == pytest.approx(energy, abs=1e-10)
    assert len(basis.orders) == len(basis)


def test_every_column_has_its_own_force(atoms: Atoms, basis: AceBasis) -> None:
    """Unit coefficients, one function at a time: no column is another's, none is empty."""
    _, forces = basis.energy_and_force_rows(atoms)
    for k in range(0, len(basis), 5):
        unit = np.zeros(len(basis))
        unit[k] = 1
        found = with_model(atoms, basis, unit).get_forces()
        assert np.abs(found).max() > 1e-9
        np.testing.assert_allclose(found.ravel(), forces[:, k], atol=1e-10 + 1e-9 * np.abs(found).max())


def test_force_is_minus_the_derivative_of_the_energy(atoms: Atoms, basis: AceBasis, coefficients: np.ndarray) -> None:
    model = with_model(atoms, basis, coefficients)
    start, forces = model.positions.copy(), model.get_forces()
    direction = np.random.default_rng(3).standard_normal(start.shape)

    def energy(h: float) -> float:
        model.positions[:] = start + h * direction
        return model.get_potential_energy()

    assert derivative_error(energy, -float((forces * direction).sum())) < 1e-5


def test_stress_is_the_derivative_of_the_energy(atoms: Atoms, basis: AceBasis, coefficients: np.ndarray) -> None:
    model = with_model(atoms, basis, coefficients)
    start, cell = model.positions.copy(), model.cell.array.copy()
    stress = full_stress(model.get_stress()) * model.get_volume()
    for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):

        def energy(h: float, i: int = i, j: int = j) -> float:
            strain = np.eye(3)
            strain[i, j] += h
            model.set_cell(cell @ strain.T)
            model.positions[:] = start @ strain.T
            return model.get_potential_energy()

        assert derivative_error(energy, stress[i, j]) < 1e-5


def test_rotation_translation_permutation(atoms: Atoms, basis: AceBasis, coefficients: np.ndarray) -> None:
    energies, forces = basis.energy_and_force_rows(atoms)
    q, generator = rotation(4), np.random.default_rng(5)
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ q.T)
    turned.positions[:] = atoms.positions @ q.T + [1.0, -20.0, 3.0]
    turned.positions += generator.integers(-2, 3, size=(len(atoms), 3)) @ turned.cell.array
    order = generator.permutation(len(atoms))
    turned = turned[order]
    found_energies, found_forces = basis.energy_and_force_rows(turned)
    scale = np.abs(energies).max()
    np.testing.assert_allclose(found_energies, energies, atol=1e-9 * scale)
    expected = np.einsum("kj,ajc->akc", q, forces.reshape(len(atoms), 3, -1)[order])
    np.testing.assert_allclose(found_forces.reshape(expected.shape), expected, atol=1e-8 * np.abs(forces).max())


def test_kept_neighbour_list_changes_nothing(atoms: Atoms, basis: AceBasis, coefficients: np.ndarray) -> None:
    """A walk of 60 steps, far beyond the skin; a strained cell and other atoms in between."""
    generator = np.random.default_rng(6)
    walker = with_model(atoms, basis, coefficients)
    rebuilt = set()
    for step in range(60):
        walker.positions += 0.05 * generator.uniform(-1, 1, walker.positions.shape)
        if step == 30:
            walker.set_cell(walker.cell.array * 1.01, scale_atoms=True)
        if step == 45:
            walker.symbols[[0, 1]] = walker.symbols[[1, 0]]
        fresh = with_model(walker, basis, coefficients)
        assert walker.get_potential_energy() == pytest.approx(fresh.get_potential_energy(), abs=1e-10)
        np.testing.assert_allclose(walker.get_forces(), fresh.get_forces(), atol=1e-10)
        rebuilt.add(id(walker.calc._listed[3]))
    assert 2 < len(rebuilt) < 60


def test_saved_potentials_are_read_back_by_pyace(
    atoms: Atoms, basis: AceBasis, coefficients: np.ndarray, tmp_path: Path
) -> None:
    from pyace import PyACECalculator

    model = with_model(atoms, basis, coefficients)
    plain, compiled = basis.save(coefficients, ENERGY_PER_ATOM, tmp_path / "potential")
    for path, per_atom in ((plain, 0.0), (compiled, ENERGY_PER_ATOM)):
        read = atoms.copy()
        read.calc = PyACECalculator(str(path))
        difference = model.get_potential_energy() - len(atoms) * (ENERGY_PER_ATOM - per_atom)
        assert read.get_potential_energy() == pytest.approx(difference, abs=1e-8)
        np.testing.assert_allclose(read.get_forces(), model.get_forces(), atol=1e-8)
    assert repr(ENERGY_PER_ATOM) in plain.read_text().splitlines()[0]


def test_a_calculator_leaves_the_basis_alone(atoms: Atoms, basis: AceBasis, coefficients: np.ndarray) -> None:
    before = basis.site_values(atoms)
    other = with_model(atoms, basis, 7 * coefficients)
    first = with_model(atoms, basis, coefficients)
    ours = first.get_potential_energy() - len(atoms) * ENERGY_PER_ATOM
    assert other.get_potential_energy() - len(atoms) * ENERGY_PER_ATOM == pytest.approx(7 * ours, rel=1e-9)
    np.testing.assert_array_equal(basis.site_values(atoms), before)


def test_positions_that_are_not_finite_are_refused(atoms: Atoms, basis: AceBasis, coefficients: np.ndarray) -> None:
    model = with_model(atoms, basis, coefficients)
    model.positions[1, 2] = np.inf
    with pytest.raises(FloatingPointError, match="not finite"):
        model.get_potential_energy()


# --- elasticity ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["W_zhou04", "NiAl_amb95"])
def test_elastic_rows_are_derivatives_of_the_calculator(name: str) -> None:
    """Rows times coefficients against `response` of the model, both along the clamped path."""
    crystal = crystal_of(name)
    basis = AceBasis(["W"], 4.7, [5, 3], [0, 2]) if name == "W_zhou04" else AceBasis(["Ni", "Al"], 4.3, [3, 2], [0, 1])
    path = strain_path(crystal)
    coefficients = np.random.default_rng(7).standard_normal(len(basis))
    rows = elastic_rows(basis, path, crystal.volume)
    assert [rows[k].shape for k in ("stress", "virial1", "virial2")] == [(m, len(basis)) for m in (9, 81, 729)]
    found = response(crystal, basis.calculator(coefficients), path)
    for key, expected, accuracy in (
        ("stress", found.d1, 1e-6),
        ("virial1", found.d2, 1e-4),
        ("virial2", found.d3, 1e-2),
    ):
        assert np.abs(expected).max() > 1e-2
        scale = np.abs(expected).max()
        np.testing.assert_allclose(rows[key] @ coefficients, expected.ravel(), atol=accuracy * scale)
    model = basis.calculator(coefficients, ENERGY_PER_ATOM)
    perfect = path[0].copy()
    perfect.calc = model
    per_atom = perfect.get_potential_energy() / len(perfect)
    assert perfect_row(basis, path[0]) @ coefficients + ENERGY_PER_ATOM == pytest.approx(per_atom, abs=1e-9)


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cutoff", "channels", "degrees", "message"),
    [
        (0.0, [4], [0], "cutoff must be positive"),
        (-1.0, [4], [0], "cutoff must be positive"),
        (5.0, [], [], "equally long"),
        (5.0, [4, 2], [0], "equally long"),
        (5.0, [0], [0], "must be positive"),
        (5.0, [4, 2], [0, -1], "not negative"),
        (5.0, [4, 2], [1, 2], "the first 0"),
        (5.0, [4, 2, 3], [0, 1, 1], "must not increase"),
        (5.0, [4, 5], [0, 1], "must not increase"),
    ],
)
def test_impossible_bases_are_refused(cutoff: float, channels: list[int], degrees: list[int], message: str) -> None:
    with pytest.raises(ImpossibleBasis, match=message):
        AceBasis(["W"], cutoff, channels, degrees)


def test_wrong_species_and_wrong_coefficients_are_refused(basis: AceBasis) -> None:
    with pytest.raises(ImpossibleBasis, match="the basis knows"):
        basis.site_values(bulk("Cu"))
    with pytest.raises(ImpossibleBasis, match=f"{len(basis)} coefficients expected"):
        basis.calculator(np.zeros(len(basis) + 1))
