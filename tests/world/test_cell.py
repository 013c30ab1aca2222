"""Cells: the bond stencil and its norms, circulant operators against dense algebra, sizes, tilt and mean stress."""

from itertools import product

import numpy as np
import pytest
from ase.calculators.calculator import Calculator
from laws import full_stress
from materials import calculator_of, crystal_of, response_of

from suite.results import World
from suite.world.cell import (
    Circulant,
    StraightCell,
    _enclosing,
    build_cell,
    build_cell_at,
    crystal_metric,
)
from suite.world.crystal import LATTICES, Crystal, NoCrystal, elastic_tensor
from suite.world.dislocation import Dislocation, ImpossibleCell, arrange, catalogue_entry
from suite.world.elasticity import Stroh, rotate, stroh
from suite.world.relaxation import Status, relax


@pytest.fixture(scope="module")
def cell(tungsten: Crystal, screw: Dislocation, tungsten_stroh: Stroh) -> StraightCell:
    """A small dipole: odd repeats, 210 atoms."""
    return build_cell(tungsten, screw, tungsten_stroh, "dipole", (5, 7, 1), screw.sites["easy"])


def field(cell: StraightCell, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((len(cell), 3))


def bond_vectors(cell: StraightCell) -> np.ndarray:
    """Vectors of the stencil's bonds in the perfect crystal, nearest images."""
    rho = cell.reference[cell.bonds[:, 1]] - cell.reference[cell.bonds[:, 0]]
    size = np.diag(cell.vectors_perfect)
    return rho - size * np.rint(rho / size)


def test_stencil_of_bcc_is_eight_and_six_neighbours(cell: StraightCell) -> None:
    assert len(cell.bonds) == 14 * len(cell)
    assert (np.bincount(cell.bonds[:, 0]) == 14).all()
    # one line period is shorter than some bonds: neighbours along the line are an atom's own images
    offsets = plane_distances_of_bcc(cell)
    found = np.sort(np.linalg.norm(bond_vectors(cell)[:, :2], axis=1).reshape(-1, 1), axis=0)[:, 0]
    np.testing.assert_allclose(found, np.sort(np.tile(offsets, len(cell))), atol=1e-6)


def plane_distances_of_bcc(cell: StraightCell) -> np.ndarray:
    """Lengths, seen along the line, of the 8 half diagonals and 6 edges of a bcc crystal, Å: the oracle."""
    line = np.ones(3) / np.sqrt(3)
    half = np.array(list(product((-0.5, 0.5), repeat=3)))
    edges = np.vstack([np.eye(3), -np.eye(3)])
    vectors = np.vstack([half, edges]) * cell.a0
    return np.linalg.norm(vectors - np.outer(vectors @ line, line), axis=1)


def test_neighbour_distances_in_a_thick_cell(tungsten: Crystal, screw: Dislocation, tungsten_stroh: Stroh) -> None:
    thick = build_cell(tungsten, screw, tungsten_stroh, "dipole", (5, 6, 3), screw.sites["easy"])
    lengths = np.linalg.norm(bond_vectors(thick), axis=1).reshape(14, -1) / tungsten.a0
    near, far = np.isclose(lengths, np.sqrt(3) / 2), np.isclose(lengths, 1)
    assert near.sum() == 8 * len(thick)
    assert far.sum() == 6 * len(thick)


def test_every_bond_goes_both_ways(cell: StraightCell) -> None:
    pairs = {tuple(pair) for pair in cell.bonds.tolist()}
    assert pairs == {(j, i) for i, j in pairs}


def test_laplacian_is_the_square_of_the_strain_norm(cell: StraightCell) -> None:
    v = field(cell, 0)
    square = sum(v[:, k] @ (cell.laplacian @ v[:, k]) for k in range(3))
    assert square == pytest.approx(cell.strain_norm(v) ** 2, rel=1e-12)
    assert np.linalg.norm(cell.strain_per_atom(v)) == pytest.approx(cell.strain_norm(v), rel=1e-12)
    assert cell.strain_per_atom(v).shape == (len(cell),)


def test_strain_is_blind_to_translations_and_counts_both_ways(cell: StraightCell) -> None:
    v = field(cell, 1)
    np.testing.assert_allclose(cell.strain(v + np.array([3.0, -2.0, 1.0])), cell.strain(v), atol=1e-12)
    assert cell.strain_norm(np.ones_like(v)) == 0
    # one atom moved by 1 Å: 14 bonds of its own and 14 of its neighbours, less those to its own images
    own = (cell.bonds[:, 0] == 0) & (cell.bonds[:, 1] == 0)
    single = np.zeros_like(v)
    single[0, 1] = 1
    assert cell.strain_norm(single) ** 2 == pytest.approx(28 - 2 * own.sum())


def test_dual_norm_is_the_dense_one(cell: StraightCell) -> None:
    """‖f‖_{U*} = (fᵀK⁺f)^½ is also the largest work f·v over fields with ‖Dv‖ = 1."""
    f = field(cell, 2)
    f -= f.mean(axis=0)
    dense = cell.laplacian.toarray()
    best = np.linalg.pinv(dense, rcond=1e-10, hermitian=True) @ f
    assert cell.dual_norm(f) == pytest.approx(np.sqrt((f * best).sum()), rel=1e-9)
    np.testing.assert_allclose(cell.solve_laplacian(f), best, atol=1e-10)
    assert (f * best).sum() / cell.strain_norm(best) == pytest.approx(cell.dual_norm(f), rel=1e-9)
    for seed in range(3, 8):
        v = field(cell, seed)
        assert abs((f * v).sum()) <= cell.dual_norm(f) * cell.strain_norm(v)
    assert cell.dual_norm(f + 1.0) == pytest.approx(cell.dual_norm(f), rel=1e-9)


def test_crystal_metric_inverts_the_dense_hessian(cell: StraightCell, zhou: Calculator) -> None:
    atoms = cell.perfect_atoms()
    atoms.calc = zhou
    n, h = 3 * len(cell), 1e-3
    dense = np.empty((n, n))
    for index in range(n):
        atoms.positions.flat[index] += h
        plus = atoms.get_forces()
        atoms.positions.flat[index] -= 2 * h
        dense[index] = ((atoms.get_forces() - plus) / (2 * h)).ravel()
        atoms.positions.flat[index] += h
    dense = (dense + dense.T) / 2
    metric = crystal_metric(cell, zhou)
    f = field(cell, 9)
    f -= f.mean(axis=0)
    expected = (np.linalg.pinv(dense, rcond=1e-6, hermitian=True) @ f.ravel()).reshape(-1, 3)
    found = metric.solve(f)
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-12)
    lowest = np.linalg.eigvalsh(dense)[3]
    assert metric.lowest == pytest.approx(lowest, rel=1e-4)


@pytest.mark.parametrize(
    ("lattice", "kind", "reference", "repeats"),
    [("bcc", "screw", "W_zhou04_smooth", (9, 13, 1)), ("diamond", "edge", "Si_sw", (11, 8, 1))],
)
def test_metric_measured_in_a_smaller_cell(
    lattice: str, kind: str, reference: str, repeats: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response of the crystal from a cell that just holds it, against the whole cell."""
    crystal, entry, calculator = crystal_of(reference), catalogue_entry(lattice, kind), calculator_of(reference)
    solution = stroh(rotate(elastic_tensor(response_of(reference)), entry.frame))
    cell = build_cell(crystal, entry, solution, "dipole", repeats, next(iter(entry.sites.values())))
    small = crystal_metric(cell, calculator)
    m1, m2, m3 = _enclosing(cell, calculator, 1e-3)
    assert 2 * m1 * m2 <= repeats[0] * repeats[1]
    assert m3 == repeats[2]
    monkeypatch.setattr("suite.world.cell.RESPONSE", -1.0)  # every atom responds
    assert _enclosing(cell, calculator, 1e-3) == repeats
    whole = crystal_metric(cell, calculator)
    assert small.lowest == pytest.approx(whole.lowest, rel=1e-6)
    force = field(cell, 12)
    expected = whole.solve(force)
    np.testing.assert_allclose(small.solve(force), expected, atol=1e-6 * np.abs(expected).max())


def test_circulant_inverts_any_translation_invariant_operator() -> None:
    """Two sites, three components, unequal repeats: against the dense matrix built by shifting."""
    generator = np.random.default_rng(10)
    repeats, sites, d = (3, 4, 2), 2, 3
    units = list(product(*map(range, repeats)))
    n = len(units) * sites * d
    first = generator.standard_normal((sites * d, *repeats, sites * d))
    dense = np.zeros((n, n))
    place = {unit: index for index, unit in enumerate(units)}
    for (i, u), (j, v) in product(enumerate(units), repeat=2):
        shift = tuple((b - a) % size for a, b, size in zip(u, v, repeats, strict=True))
        block = first[:, shift[0], shift[1], shift[2]]
        dense[j * sites * d : (j + 1) * sites * d, i * sites * d : (i + 1) * sites * d] = block.T
    assert place[repeats[0] - 1, repeats[1] - 1, repeats[2] - 1] == len(units) - 1
    dense = (dense + dense.T) / 2
    translations = np.tile(np.eye(d), (n // d, 1)) / np.sqrt(n // d)
    blind = np.eye(n) - translations @ translations.T
    dense = blind @ (dense + 12 * np.eye(n)) @ blind
    columns = dense[:, : sites * d].T.reshape(sites, d, *repeats, sites, d)
    operator = Circulant(columns)
    f = generator.standard_normal((n // d, d))
    f -= f.mean(axis=0)
    found = operator.solve(f)
    np.testing.assert_allclose((dense @ found.ravel()).reshape(-1, d), f, atol=1e-10)


def test_unstable_crystal_is_refused(screw: Dislocation, tungsten_stroh: Stroh, zhou: Calculator) -> None:
    """Tungsten stretched beyond the inflection of its energy."""
    stretched = Crystal(LATTICES["bcc"], ("W",), 4.2)
    cell = build_cell(stretched, screw, tungsten_stroh, "dipole", (5, 6, 1), screw.sites["easy"])
    with pytest.raises(NoCrystal, match="the perfect crystal is unstable"):
        crystal_metric(cell, zhou)


# --- geometry -----------------------------------------------------------------------------------------------------


def test_number_of_atoms_of_the_paper_sized_cell(screw: Dislocation) -> None:
    """N = 120: 24 990 atoms, six per repeat."""
    n1, n2, n3 = screw.repeats(120)
    assert n1 * n2 * n3 * 6 == 24_990
    assert n3 == 1


def test_cell_is_a_perfect_crystal(cell: StraightCell, tungsten: Crystal, zhou: Calculator) -> None:
    atoms = cell.perfect_atoms()
    assert len(atoms) == 5 * 7 * 6
    assert atoms.get_volume() / len(atoms) == pytest.approx(tungsten.volume, rel=1e-12)
    atoms.calc = zhou
    assert np.abs(atoms.get_forces()).max() < 1e-9
    np.testing.assert_allclose(atoms.get_potential_energies(), -8.7599941, atol=2e-7)


def test_tilt_is_the_plastic_strain(cell: StraightCell) -> None:
    """Δc2 = Σ b x1 / c1, Δc1 = 0; a dipole at distance c1/2 tilts by b/2."""
    tilt = cell.vectors - cell.vectors_perfect
    np.testing.assert_allclose(tilt[[0, 2]], 0)
    np.testing.assert_allclose(tilt[1], cell.cores[:, 0] @ cell.burgers / cell.vectors_perfect[0, 0], atol=1e-12)
    b = np.linalg.norm(cell.burgers[0])
    assert abs(tilt[1, 2]) == pytest.approx(b / 2, rel=0.2)
    assert abs(tilt[1, 2]) > 0.3 * b


def test_tilt_takes_the_mean_stress_away(
    tungsten: Crystal, screw: Dislocation, tungsten_stroh: Stroh, zhou: Calculator
) -> None:
    """The shear stress of the glide plane along b: in a straight cell it is μ b / 2 c2, some GPa."""
    cell = build_cell(tungsten, screw, tungsten_stroh, "dipole", (8, 14, 1), screw.sites["easy"])
    relaxed = relax(cell, zhou, crystal_metric(cell, zhou).solve, cell.predictor)
    assert relaxed.status is Status.CONVERGED
    for displacement in (cell.predictor, relaxed.displacement):
        tilted = cell.atoms(displacement)
        straight = tilted.copy()
        straight.set_cell(cell.vectors_perfect, scale_atoms=True)
        for atoms in (tilted, straight):
            atoms.calc = zhou
        shear = abs(full_stress(straight.get_stress())[1, 2])
        b, height = np.linalg.norm(cell.burgers[0]), cell.vectors[1, 1]
        assert shear == pytest.approx(1.0 * b / 2 / height, rel=0.2)  # μ is about 1 eV/Å^3
        assert abs(full_stress(tilted.get_stress())[1, 2]) < 0.01 * shear


def test_tilt_of_the_training_cell_is_as_good_as_its_odd_repeats_allow(world: World, zhou: Calculator) -> None:
    cell = world.training[0]
    tilted = cell.atoms(world.trained[0].equilibrium.displacement)
    straight = tilted.copy()
    straight.set_cell(cell.vectors_perfect, scale_atoms=True)
    for atoms in (tilted, straight):
        atoms.calc = zhou
    assert abs(full_stress(tilted.get_stress())[1, 2]) < 0.25 * abs(full_stress(straight.get_stress())[1, 2])


def test_predictor_has_no_faults_at_the_cell_faces(cell: StraightCell, zhou: Calculator) -> None:
    """In the tilted cell the predictor is a crystal with two cores: forces are large near them only."""
    forces = cell_forces(cell, cell.vectors, zhou)
    wrong = cell_forces(cell, cell.vectors_perfect, zhou)
    size = np.diag(cell.vectors_perfect)[:2]
    away = cell.reference[:, None, :2] - cell.cores
    distance = np.linalg.norm(away - size * np.rint(away / size), axis=-1).min(axis=1)
    far = distance > 7
    assert far.sum() > 10
    assert forces[far].max() < 0.1
    assert wrong[far].max() > 0.5


def cell_forces(cell: StraightCell, vectors: np.ndarray, calculator: Calculator) -> np.ndarray:
    atoms = cell.atoms(cell.predictor)
    atoms.set_cell(vectors)
    atoms.calc = calculator
    return np.linalg.norm(atoms.get_forces(), axis=1)


def test_core_distance_sees_periodic_images(tungsten: Crystal, screw: Dislocation, tungsten_stroh: Stroh) -> None:
    unit = screw.lengths[:2] * tungsten.a0
    site, other = screw.sites["easy"]
    positions = np.array([[0 + site[0], 4 + site[1]], [7 + other[0], 4 + other[1]]])
    cell = build_cell_at(tungsten, screw, tungsten_stroh, (10, 14, 1), positions, np.array([1, -1]))
    away = (positions[1] - positions[0] - [10, 0]) * unit
    assert cell.core_distance == pytest.approx(np.linalg.norm(away))
    # one dislocation's own image is a core, too, but quadrupoles and dipoles keep closer partners
    assert cell.core_distance < np.diag(cell.vectors_perfect)[0] / 2


def test_impossible_cores_are_refused(tungsten: Crystal, screw: Dislocation, tungsten_stroh: Stroh) -> None:
    positions, signs = arrange("dipole", (8, 12), screw.sites["easy"])

    def build(where: np.ndarray) -> StraightCell:
        return build_cell_at(tungsten, screw, tungsten_stroh, (8, 12, 1), where, signs)

    assert len(build(positions)) == 8 * 12 * 6
    with pytest.raises(ImpossibleCell, match="coincide in 8 x 12 repeats"):
        build(np.array([positions[0], positions[0]]))
    on_atom = positions.copy()
    on_atom[1] = np.floor(on_atom[1])
    with pytest.raises(ImpossibleCell, match="from an atomic column"):
        build(on_atom)
    image = np.array([positions[0], positions[0] + [8, 0]])
    with pytest.raises(ImpossibleCell, match="coincide"):
        build(image)


# --- verdicts -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alloy() -> StraightCell:
    """Screws of B2 NiAl between two columns of nickel."""
    entry = catalogue_entry("B2", "screw")
    solution = stroh(rotate(elastic_tensor(response_of("NiAl_amb95")), entry.frame))
    return build_cell(crystal_of("NiAl_amb95"), entry, solution, "quadrupole", (12, 12, 1), entry.sites["centre"])


def test_core_between_two_like_columns_is_found_in_the_middle_whatever_the_noise(alloy: StraightCell) -> None:
    """The bond between the two columns closes to either side by chance; positions must not jump with it."""
    for seed in range(6):
        u = alloy.predictor + np.random.default_rng(seed).uniform(-0.02, 0.02, alloy.predictor.shape)
        verdict, shifts = alloy.judge(u, 0.8 * alloy.a0)
        assert verdict == "kept"
        assert np.linalg.norm(shifts, axis=1).max() < 0.1 * alloy.a0


def test_every_sublattice_has_a_say(alloy: StraightCell) -> None:
    """A dislocation that one sublattice does not have is a fault between the two, and no dislocation."""
    for sublattice in (0, 1):
        u = alloy.predictor.copy()
        u[alloy.sublattice == sublattice] = 0
        assert alloy.judge(u, 0.8 * alloy.a0)[0] == "annihilated"
    assert [set(alloy.sublattice[circuits.triangles.ravel()]) for circuits in alloy.sublattice_circuits] == [{0}, {1}]


def test_cut_of_a_core_in_a_row_runs_below_the_row(
    tungsten: Crystal, screw: Dislocation, tungsten_stroh: Stroh
) -> None:
    """Heights of atoms in the row of a core differ from its own by rounding: all atoms must be above the cut."""
    for height in range(4, 12):
        cell = build_cell(tungsten, screw, tungsten_stroh, "dipole", (6, height, 1), ((0.25, 0.5), (0.25, 0.5)))
        row = np.flatnonzero(np.abs(cell.reference[:, 1] - cell.cores[0, 1]) < 1e-4)
        along = cell.predictor[row[np.argsort(cell.reference[row, 0])], 2]
        # b/2 between the columns on both sides of a core; on the wrong side of the cut b more
        assert np.abs(np.diff(along)).max() < 0.75 * np.linalg.norm(cell.burgers[0])


def test_cells_of_cores_that_glide_freely_are_flat() -> None:
    for kind in ("screw", "edge"):
        entry = catalogue_entry("fcc", kind)
        n1, n2, _ = entry.repeats(30)
        width, height = entry.lengths[:2] * (n1, n2)
        assert height == pytest.approx(30, abs=entry.lengths[1])
        assert width == pytest.approx(entry.aspect * 30, abs=entry.lengths[0])
        given, _, _ = entry.repeats(30, 10)
        assert given * entry.lengths[0] == pytest.approx(30, abs=entry.lengths[0])
