"""Rows of the basis against its calculator, its own symmetries, files read back by pyace, and elastic derivatives."""

import gc
from collections.abc import Callable
from itertools import combinations_with_replacement, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from laws import derivative_error, full_stress, rotation
from materials import crystal_of

from suite.model.basis import MOST_ANGULAR, MOST_RADIAL, AceBasis, BasisSpec, ImpossibleBasis, cut_into_pieces
from suite.model.rows import elastic_rows, perfect_row
from suite.spec import BadSpec, load
from suite.stages.rows import recipe_of
from suite.study.cache import stage_key
from suite.study.described import parameters
from suite.world.crystal import response, strain_path

ENERGY_PER_ATOM = -3.7


BASES: dict[str, Callable[[], AceBasis]] = {
    "one species": lambda: AceBasis(["W"], 4.7, [6, 4, 2], [0, 2, 1]),
    "two species": lambda: AceBasis(["Ni", "Al"], 4.5, [4, 2], [0, 1]),
    "one species, total degree": lambda: AceBasis(["Si"], 4.0, [6, 5, 3], [0, 6, 3], total_degree=[6, 3]),
    "two species, total degree": lambda: AceBasis(
        ["Ni", "Al"], 4.5, [4, 3, 2], [0, 3, 2], total_degree=[3, 1.5], angular_weight=0.75
    ),
}


@pytest.fixture(scope="module", params=BASES)
def basis(request: pytest.FixtureRequest) -> AceBasis:
    return BASES[request.param]()


def crystal_for(basis: AceBasis) -> Atoms:
    """Cubic unit cell."""
    if len(basis.species) > 1:
        return bulk("NiAl", "cesiumchloride", a=2.86)
    return bulk(basis.species[0], cubic=True)


@pytest.fixture
def atoms(basis: AceBasis) -> Atoms:
    """A strained, rattled crystal with unequal numbers of the species."""
    crystal = crystal_for(basis) * (1 if basis.species == ("Si",) else 2)
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


def test_functions_in_parts_are_those_of_the_whole(
    atoms: Atoms, basis: AceBasis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients by small bases of few angular momenta each, against one basis of all functions."""
    energies, forces = basis.energy_and_force_rows(atoms)
    assert len(basis._parts) > (basis.parameters["degrees"] != [0, 1])  # which is too small to be cut
    monkeypatch.setattr(basis, "_parts", [basis._whole])
    whole_energies, whole_forces = basis.energy_and_force_rows(atoms)
    assert gc.isenabled()
    assert (np.abs(whole_forces).max(axis=0) > 1e-6).all()
    # every sum has the same terms in the same order; only zeros are left out
    np.testing.assert_allclose(energies, whole_energies, rtol=1e-13, atol=0)
    np.testing.assert_allclose(forces, whole_forces, rtol=0, atol=1e-14 * np.abs(whole_forces).max())


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
        rebuilt.add(id(walker.calc._kept.listed))
    assert 2 < len(rebuilt) < 60


@pytest.mark.parametrize("size", [0.01, 0.1])
def test_neighbours_are_kept_while_the_cell_is_deformed(
    atoms: Atoms, basis: AceBasis, coefficients: np.ndarray, size: float
) -> None:
    """Small strains keep the list, large ones bring in pairs that were not on it."""
    generator = np.random.default_rng(6)
    calculator = with_model(atoms, basis, coefficients).calc
    listed = set()
    for _ in range(20):
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array @ (np.eye(3) + size * generator.uniform(-1, 1, (3, 3))), scale_atoms=True)
        strained.positions += 0.02 * generator.uniform(-1, 1, strained.positions.shape)
        fresh = with_model(strained, basis, coefficients)
        strained.calc = calculator
        assert strained.get_potential_energy() == pytest.approx(fresh.get_potential_energy(), abs=1e-10)
        np.testing.assert_allclose(strained.get_forces(), fresh.get_forces(), atol=1e-10)
        np.testing.assert_allclose(strained.get_stress(), fresh.get_stress(), atol=1e-12)
        listed.add(id(calculator._kept.listed))
    assert len(listed) == 1 if size < 0.05 else len(listed) > 3


def test_saved_potentials_are_read_back_by_pyace(
    atoms: Atoms, basis: AceBasis, coefficients: np.ndarray, tmp_path: Path
) -> None:
    from pyace import BBasisConfiguration, PyACECalculator

    model = with_model(atoms, basis, coefficients)
    plain, compiled = basis.save(coefficients, ENERGY_PER_ATOM, tmp_path / "potential")
    for path, per_atom in ((plain, 0.0), (compiled, ENERGY_PER_ATOM)):
        read = atoms.copy()
        read.calc = PyACECalculator(str(path))
        difference = model.get_potential_energy() - len(atoms) * (ENERGY_PER_ATOM - per_atom)
        assert read.get_potential_energy() == pytest.approx(difference, abs=1e-8)
        np.testing.assert_allclose(read.get_forces(), model.get_forces(), atol=1e-8)
    blocks = BBasisConfiguration(str(plain)).funcspecs_blocks
    assert sum(len(block.funcspecs) for block in blocks) == len(basis)
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


# --- total degree -------------------------------------------------------------------------------------------------

SILICON = ["Si"], 3.6


@pytest.mark.parametrize(
    ("channels", "degrees", "total_degree", "angular_weight", "count"),
    [
        ([20, 10, 5], [0, 10, 4], [12, 6], 0.5, 433),
        ([16, 8, 4], [0, 10, 2], [10, 6], 0.5, 257),
        ([20, 10, 6], [0, 8, 4], [12, 8], 1.0, 304),
        ([20, 12], [0, 2], [], 1.0, 254),
        ([20, 12], [0, 2], [26], 1.0, 254),  # nothing is as high
        ([20, 12], [0, 2], [0], 1.0, 21),
    ],
)
def test_counts(
    channels: list[int], degrees: list[int], total_degree: list[float], angular_weight: float, count: int
) -> None:
    basis = AceBasis(*SILICON, channels, degrees, total_degree=total_degree, angular_weight=angular_weight)
    assert len(basis) == count


@pytest.mark.parametrize("weight", [0.3, 0.5, 1.0])
def test_products_of_two_are_counted_by_hand(weight: float) -> None:
    """n1 <= n2 and l = l1 = l2; twice l in the sum. 0.3 * 10 is a little more than 3."""
    pairs = combinations_with_replacement(range(4), 2)
    expected = sum(a + b + 2 * weight * m < 3.01 for a, b in pairs for m in range(7))
    basis = AceBasis(*SILICON, [5, 4], [0, 6], total_degree=[3], angular_weight=weight)
    assert len(basis) == 5 + expected


def test_what_stays_is_what_it_was() -> None:
    """The rows of a selected basis are columns of those of the whole one, pair functions first."""
    whole = AceBasis(*SILICON, [5, 3, 2], [0, 3, 2])
    part = AceBasis(*SILICON, [5, 3, 2], [0, 3, 2], total_degree=[4, 2])
    silicon = bulk("Si", cubic=True)
    silicon.positions += 0.1 * np.random.default_rng(11).standard_normal(silicon.positions.shape)
    columns, kept = whole.energy_and_force_rows(silicon)[1], part.energy_and_force_rows(silicon)[1]
    assert 5 < kept.shape[1] < columns.shape[1]
    distances = np.linalg.norm(kept[:, :, None] - columns[:, None, :], axis=0)
    places = distances.argmin(axis=1)
    assert distances.min(axis=1).max() < 1e-12
    assert (np.diff(places) > 0).all()
    np.testing.assert_array_equal(places[:5], np.arange(5))
    np.testing.assert_array_equal(whole.orders[places], part.orders)


def test_worker_processes_rebuild_the_selected_basis(basis: AceBasis) -> None:
    """What crosses to them: species, cutoff and `parameters`, by position."""
    again = AceBasis(basis.species, basis.cutoff, *basis.parameters.values())
    assert (len(again), again.parameters) == (len(basis), basis.parameters)
    recipe = BasisSpec(
        basis.species, basis.cutoff, *(tuple(v) if isinstance(v, list) else v for v in basis.parameters.values())
    )
    assert len(recipe.build()) == len(basis)


def test_the_content_key_knows_the_selection() -> None:
    basis = ["model.channels=[20, 10, 5]", "model.degrees=[0, 4, 2]"]
    limits = ["model.total_degree=[4, 2]", "model.angular_weight=0.5"]
    specs = [load("w-split", "tiny", [*basis, *limits[:k]]) for k in range(3)]
    assert len({stage_key(spec, "rows") for spec in specs}) == 3
    assert len({stage_key(spec, "simulation") for spec in specs}) == 1
    assert [len(recipe_of(spec).build()) for spec in specs[:2]] == [
        len(AceBasis(["W"], specs[0].model.cutoff or 0, [20, 10, 5], [0, 4, 2], total_degree=t)) for t in ([], [4, 2])
    ]
    assert parameters(specs[2])["total_degree"] == "4 2"
    assert "total_degree" not in parameters(specs[0])


@pytest.mark.parametrize(
    ("overrides", "key", "words"),
    [
        (["model.total_degree=[3, 2]"], "model.total_degree", "2 limits for 1 orders of products"),
        (["model.total_degree=[-1]"], "model.total_degree", "greater than or equal to 0"),
        (["model.angular_weight=0.5"], "model.angular_weight", "no effect without model.total_degree"),
        (["model.total_degree=[3]", "model.angular_weight=0"], "model.angular_weight", "greater than 0"),
    ],
)
def test_impossible_selections_are_refused(overrides: list[str], key: str, words: str) -> None:
    with pytest.raises(BadSpec) as caught:
        load("w-split", "tiny", ["model.channels=[6, 4]", "model.degrees=[0, 1]", *overrides])
    (problem,) = caught.value.problems
    assert f": {key}" in problem
    assert words in problem


# --- pieces -------------------------------------------------------------------------------------------------------


def around(positions: np.ndarray, cell: np.ndarray, centre: np.ndarray, cutoff: float) -> np.ndarray:
    """Vectors to all atoms and periodic images within `cutoff` of `centre`, sorted; brute force."""
    shifts = np.array(list(product(range(-3, 4), repeat=3))) @ cell
    vectors = (positions[:, None] + shifts - centre).reshape(-1, 3)
    return ordered(vectors[np.linalg.norm(vectors, axis=1) < cutoff])


def ordered(vectors: np.ndarray) -> np.ndarray:
    return vectors[np.lexsort(vectors.round(6).T)]


@pytest.mark.parametrize("faces", [False, True], ids=["anywhere", "on faces"])
@pytest.mark.parametrize(("seed", "size"), [(0, 10), (1, 60), (2, 10_000)])
def test_pieces_hold_every_atom_once_and_all_its_neighbours(seed: int, size: int, faces: bool) -> None:
    """A gas in a sheared cell, some of it outside."""
    generator, cutoff = np.random.default_rng(seed), 2.0
    cell = np.diag([8.3, 6.8, 9.9]) + 0.6 * generator.uniform(-1, 1, (3, 3))
    fractional = generator.uniform(-1, 2, (300, 3))
    if faces:
        fractional[:5] = [[0, 0, 0], [1, 0.5, 0.5], [0.5, -1e-17, 0.5], [1 - 1e-16, 0.3, 0.4], [2, -1, 0.1]]
    positions = fractional @ cell
    owners, pieces = [], list(cut_into_pieces(positions, cell, cutoff, size))
    assert len(pieces) == 1 if size > 300 else len(pieces) > 3
    for index, where, own in pieces:
        owners += index[:own].tolist()
        moved = np.linalg.solve(cell.T, (where - positions[index]).T).T
        np.testing.assert_allclose(moved, np.rint(moved), atol=1e-9)
        for place in range(0, own, 5):
            vectors = where - where[place]
            found = ordered(vectors[np.linalg.norm(vectors, axis=1) < cutoff])
            expected = around(positions, cell, positions[index[place]], cutoff)
            assert len(found) == len(expected)
            np.testing.assert_allclose(found, expected, atol=1e-9)
    assert sorted(owners) == list(range(300))


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Cells of 200 atoms and more count as large; how many pieces each of them was cut into."""
    counts: list[int] = []

    def counted(*arguments: Any) -> list[Any]:
        pieces = list(cut_into_pieces(*arguments))
        counts.append(len(pieces))
        return pieces

    monkeypatch.setattr("suite.model.basis.PIECEWISE", 200)
    monkeypatch.setattr("suite.model.basis.PIECE", 60)
    monkeypatch.setattr("suite.model.basis.cut_into_pieces", counted)
    return counts


@pytest.fixture(scope="module")
def large(basis: AceBasis) -> Atoms:
    """A sheared and rattled cell wider than three cutoffs; every seventh atom has gone for a walk through the faces."""
    unit = crystal_for(basis)
    crystal = unit * {1: (6, 5, 5), 2: (5, 5, 5)}[len(basis.species)] if len(unit) < 8 else unit * (3, 3, 3)
    generator = np.random.default_rng(8)
    crystal.set_cell(crystal.cell.array @ (np.eye(3) + 0.03 * generator.uniform(-1, 1, (3, 3))), scale_atoms=True)
    crystal.positions += 0.08 * generator.standard_normal(crystal.positions.shape)
    crystal.positions[::7] += generator.integers(-2, 3, size=(len(crystal.positions[::7]), 3)) @ crystal.cell.array
    return crystal


def test_pieces_are_the_whole(large: Atoms, basis: AceBasis, coefficients: np.ndarray, in_pieces: list[int]) -> None:
    """Energies, forces and stress, for one model after another in the same processes."""
    for factor in (1.0, -2.0):
        split = with_model(large, basis, factor * coefficients)
        results = [split.get_potential_energies(), split.get_forces(), split.get_stress(), split.get_potential_energy()]
        assert in_pieces[-1] > 3
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("suite.model.basis.PIECEWISE", 10**9)
            whole = with_model(large, basis, factor * coefficients)
            expected = [
                whole.get_potential_energies(),
                whole.get_forces(),
                whole.get_stress(),
                whole.get_potential_energy(),
            ]
        for found, value in zip(results, expected, strict=True):
            np.testing.assert_allclose(found, value, atol=1e-10 * np.abs(value).max())
    assert len(in_pieces) == 2


def test_atoms_too_close_are_refused_in_pieces(
    large: Atoms, basis: AceBasis, coefficients: np.ndarray, in_pieces: list[int]
) -> None:
    model = with_model(large, basis, coefficients)
    model.positions[1] = model.positions[0] + model.cell.array[1] + 1e-9
    with pytest.raises(FloatingPointError, match="the model cannot be evaluated"):
        model.get_forces()
    assert in_pieces[-1] > 3


def test_thin_cells_stay_whole(large: Atoms, basis: AceBasis, coefficients: np.ndarray, in_pieces: list[int]) -> None:
    """Blocks of a cell narrower than three cutoffs would overlap with themselves."""
    thin = crystal_for(basis) * (12, 10, 1)
    assert len(thin) >= 200
    assert np.isfinite(with_model(thin, basis, coefficients).get_potential_energy())
    assert not in_pieces


# --- elasticity ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["W_zhou04", "NiAl_amb95"])
def test_elastic_rows_are_derivatives_of_the_calculator(name: str) -> None:
    """Rows times coefficients against `response` of the model, both along the clamped path."""
    crystal = crystal_of(name)
    basis = AceBasis(["W"], 4.7, [5, 3], [0, 2]) if name == "W_zhou04" else AceBasis(["Ni", "Al"], 4.3, [3, 2], [0, 1])
    path = strain_path(crystal, None, 4e-3)
    coefficients = np.random.default_rng(7).standard_normal(len(basis))
    rows = elastic_rows(basis, path, crystal.volume)
    assert [rows[k].shape for k in ("stress", "virial1", "virial2")] == [(m, len(basis)) for m in (9, 81, 729)]
    found = response(crystal, basis.calculator(coefficients), path)
    for key, expected, accuracy in (
        ("stress", found.d1, 1e-8),
        ("virial1", found.d2, 1e-6),
        ("virial2", found.d3, 1e-4),
    ):
        assert np.abs(expected).max() > 1e-2
        scale = np.abs(expected).max()
        np.testing.assert_allclose(rows[key] @ coefficients, expected.ravel(), atol=accuracy * scale)
    model = basis.calculator(coefficients, ENERGY_PER_ATOM)
    perfect = path.undeformed.copy()
    perfect.calc = model
    per_atom = perfect.get_potential_energy() / len(perfect)
    assert perfect_row(basis, path.undeformed) @ coefficients + ENERGY_PER_ATOM == pytest.approx(per_atom, abs=1e-9)


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
        (5.0, [216], [0], "215 radial functions are the most"),
        (5.0, [4, 2], [0, 11], "degree 11 for products of 2 neighbours, and 10 is the most"),
        (5.0, [2] * 13, [0] * 13, "products of 13 neighbours, and 12 are the most"),
    ],
)
def test_impossible_bases_are_refused(cutoff: float, channels: list[int], degrees: list[int], message: str) -> None:
    with pytest.raises(ImpossibleBasis, match=message):
        AceBasis(["W"], cutoff, channels, degrees)


def test_the_most_radial_functions_are_finite() -> None:
    assert np.isfinite(AceBasis(["W"], 5.0, [MOST_RADIAL], [0]).site_values(bulk("W"))).all()


def test_pyace_has_the_degrees_that_are_allowed() -> None:
    """It would leave out higher ones without a word."""
    orders = 5
    basis = AceBasis(["W"], 5.0, [1] * orders, MOST_ANGULAR[:orders])
    largest = [0] * orders
    for function in [*basis._basis.basis_rank1[0], *basis._basis.basis[0]]:
        order = len(function.ns) - 1
        largest[order] = max(largest[order], *function.ls)
    assert largest == list(MOST_ANGULAR[:orders])


@pytest.mark.parametrize(
    ("total_degree", "angular_weight", "message"),
    [([3, 3], 1.0, "each of the 1 orders"), ([-1], 1.0, "not negative"), ([3], 0.0, "angular_weight must be positive")],
)
def test_impossible_total_degrees_are_refused(total_degree: list[float], angular_weight: float, message: str) -> None:
    with pytest.raises(ImpossibleBasis, match=message):
        AceBasis(["W"], 5.0, [4, 2], [0, 1], total_degree=total_degree, angular_weight=angular_weight)


def test_wrong_species_and_wrong_coefficients_are_refused(basis: AceBasis) -> None:
    with pytest.raises(ImpossibleBasis, match="the basis knows"):
        basis.site_values(bulk("Cu"))
    with pytest.raises(ImpossibleBasis, match=f"{len(basis)} coefficients expected"):
        basis.calculator(np.zeros(len(basis) + 1))
