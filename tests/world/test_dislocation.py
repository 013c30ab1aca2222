"""The catalogue as crystallography, and Burgers circuits that count dislocations whatever the atoms' labels."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from materials import crystal_of

from suite.world.cell import StraightCell, build_cell, build_cell_at
from suite.world.crystal import LATTICES, Crystal
from suite.world.dislocation import (
    ARRANGEMENTS,
    CATALOGUE,
    Dislocation,
    FoundCore,
    ImpossibleCell,
    arrange,
    catalogue_entry,
    find_cores,
    match_cores,
    unit_sites,
)
from suite.world.elasticity import Stroh, stroh

BCC_SCREW = catalogue_entry("bcc", "screw")


def solution() -> Stroh:
    """Elasticity of a nearly isotropic medium: circuits do not care."""
    d = np.eye(3)
    c = 1.2 * np.einsum("ij,kl->ijkl", d, d) + 0.999 * (np.einsum("ik,jl->ijkl", d, d) + np.einsum("il,jk->ijkl", d, d))
    for i in range(3):
        c[i, i, i, i] += 0.01 * (i + 1)
    return stroh(c)


def tungsten_cell(arrangement: str, repeats: tuple[int, int, int], core: str = "easy") -> StraightCell:
    return build_cell(crystal_of("W_zhou04"), BCC_SCREW, solution(), arrangement, repeats, BCC_SCREW.sites[core])


def distances(cores: list[FoundCore], cell: StraightCell) -> np.ndarray:
    """Distance of every intended core from the nearest found one with its Burgers vector, Å."""
    size = np.diag(cell.vectors_perfect)[:2]
    nearest = []
    for place, b in zip(cell.cores, cell.burgers, strict=True):
        away = np.array([core.position - place for core in cores if np.allclose(core.burgers, b, atol=1e-6)])
        away -= size * np.rint(away / size)
        nearest.append(np.linalg.norm(away, axis=1).min())
    return np.array(nearest)


# --- catalogue ----------------------------------------------------------------------------------------------------

ENTRIES = pytest.mark.parametrize("key", CATALOGUE, ids=" ".join)


@ENTRIES
def test_frames_are_orthonormal_and_right_handed(key: tuple[str, ...]) -> None:
    frame = catalogue_entry(*key).frame
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-14)
    assert np.linalg.det(frame) == pytest.approx(1)


@ENTRIES
def test_periods_and_burgers_vector_are_lattice_vectors(key: tuple[str, ...]) -> None:
    entry = catalogue_entry(*key)
    coordinates = np.array([*entry.periods, entry.burgers]) @ np.linalg.inv(np.array(LATTICES[key[0]].vectors))
    np.testing.assert_allclose(coordinates, np.rint(coordinates), atol=1e-12)
    assert np.linalg.norm(entry.burgers) > 0.1


@ENTRIES
def test_burgers_vector_lies_in_the_glide_plane(key: tuple[str, ...]) -> None:
    entry = catalogue_entry(*key)
    assert abs(entry.burgers_frame[1]) < 1e-12
    assert np.linalg.norm(entry.burgers_frame) == pytest.approx(np.linalg.norm(entry.burgers))
    if key[1] == "screw":
        assert abs(entry.burgers_frame[0]) < 1e-12
    if key[1] == "edge":
        assert abs(entry.burgers_frame[2]) < 1e-12


@ENTRIES
def test_partials_are_two_shifts_in_the_glide_plane(key: tuple[str, ...]) -> None:
    """Of one length, shorter together than b (Frank's rule), the left one an opposite of a fault vector."""
    entry = catalogue_entry(*key)
    if entry.fault_frame is None:
        assert key[0] != "fcc"
        return
    right, left = entry.fault_frame, entry.burgers_frame - entry.fault_frame
    assert abs(right[1]) < 1e-12
    assert np.linalg.norm(left) == pytest.approx(np.linalg.norm(right))
    assert left @ left + right @ right < 0.9 * entry.burgers_frame @ entry.burgers_frame
    # -left is the same shift of one half crystal over the other as right, up to a lattice vector
    cubic = (right + left) @ entry.frame @ np.linalg.inv(np.array(LATTICES[key[0]].vectors))
    np.testing.assert_allclose(cubic, np.rint(cubic), atol=1e-12)


@ENTRIES
def test_no_shipped_core_site_lies_on_an_atom(key: tuple[str, ...]) -> None:
    entry = catalogue_entry(*key)
    assert entry.sites
    for sites in entry.sites.values():
        assert entry.core_on_atom(key[0], sites) is None


@ENTRIES
def test_unit_sites_fill_the_unit_cell(key: tuple[str, ...]) -> None:
    """As many as the volume holds, all different, and the same crystal as the primitive one."""
    entry = catalogue_entry(*key)
    crystal = Crystal(LATTICES[key[0]], ("Ni", "Al"), 3.0)
    sites, basis = unit_sites(crystal, entry)
    lengths = entry.lengths * crystal.a0
    assert len(sites) == round(np.prod(lengths) / crystal.volume * len(crystal.basis))
    assert set(basis) == set(range(len(crystal.basis)))
    fraction = sites / lengths
    assert fraction.min() > -1e-5
    assert fraction.max() < 1 - 1e-5
    coordinates = (sites @ entry.frame - crystal.basis[basis]) @ np.linalg.inv(crystal.vectors)
    np.testing.assert_allclose(coordinates, np.rint(coordinates), atol=1e-10)
    away = sites[:, None] - sites
    away -= lengths * np.rint(away / lengths)
    assert np.sort(np.linalg.norm(away, axis=-1), axis=1)[:, 1].min() > 0.4 * crystal.a0


@ENTRIES
def test_both_signs_lie_between_the_same_atomic_planes(key: tuple[str, ...]) -> None:
    """Otherwise the atoms of the planes between the two cuts see a fault all the way from core to core.

    Both cuts run below the same row when both cores are in it.
    """
    entry, lattice = catalogue_entry(*key), key[0]
    sites, _ = unit_sites(Crystal(LATTICES[lattice], ("Ni", "Al"), 1.0), entry)
    planes = np.unique((sites[:, 1] / entry.lengths[1]).round(6))
    for plus, minus in entry.sites.values():
        low, high = sorted((plus[1], minus[1]))
        if low == high and np.isclose(planes, low).any():
            assert key[1] == "screw"
            continue
        assert 0 < low <= high < 1
        assert not ((planes > low - 1e-6) & (planes < high + 1e-6)).any()


def test_bcc_screw_unit_has_six_sites_and_half_a_diagonal() -> None:
    """a√6 x a√2 x a√3/2 holds a³·3, six atoms of a bcc crystal; b is the shortest lattice vector."""
    assert len(unit_sites(Crystal(LATTICES["bcc"], ("W",), 3.0), BCC_SCREW)[0]) == 6
    np.testing.assert_allclose(BCC_SCREW.burgers_frame, [0, 0, np.sqrt(3) / 2], atol=1e-14)


def test_core_on_an_atomic_column_is_refused() -> None:
    columns = unit_sites(Crystal(LATTICES["bcc"], ("W",), 1.0), BCC_SCREW)[0][:, :2] / BCC_SCREW.lengths[:2]
    good = BCC_SCREW.sites["easy"][0]
    for column in columns:
        bad = (float(column[0]) + 1.0, float(column[1]) - 1e-3)
        for sites, sign in (((bad, good), r"\+b"), ((good, bad), "-b")):
            reason = BCC_SCREW.core_on_atom("bcc", sites)
            assert reason is not None
            assert f"of {sign.replace(chr(92), '')} lies" in reason
            assert "choose a site between the columns" in reason


def test_periods_that_are_no_cell_are_refused() -> None:
    wrong = Dislocation(((1, 1, -2), (-1, 1, 0), (0.3, 0.3, 0.3)), (0.5, 0.5, 0.5), {}, "no period")
    with pytest.raises(ImpossibleCell, match="span no unit cell"):
        unit_sites(Crystal(LATTICES["bcc"], ("W",), 3.0), wrong)


def test_unknown_dislocation_names_the_known() -> None:
    with pytest.raises(KeyError, match="screw in bcc"):
        catalogue_entry("bcc", "helix")


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize("repeats", [(16, 28), (15, 27), (9, 14)])
def test_arrangements_have_no_net_burgers_vector_and_snap_to_sites(arrangement: str, repeats: tuple[int, int]) -> None:
    sites = BCC_SCREW.sites["easy"]
    positions, signs = arrange(arrangement, repeats, sites)
    assert signs.sum() == 0
    for position, sign in zip(positions, signs, strict=True):
        np.testing.assert_allclose(position % 1, sites[0 if sign > 0 else 1], atol=1e-12)
    # two cores of one row lie between the same atomic planes, and rows sum to zero
    rows = np.floor(positions[:, 1])
    for row in np.unique(rows):
        assert signs[rows == row].sum() == 0


# --- circuits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize("repeats", [(8, 14, 1), (9, 13, 1), (7, 10, 1)])
@pytest.mark.parametrize("core", ["easy", "hard"])
def test_circuits_of_the_predictor_find_what_was_put_there(
    arrangement: str, repeats: tuple[int, int, int], core: str
) -> None:
    cell = tungsten_cell(arrangement, repeats, core)
    found = find_cores(cell.circuits, cell.predictor, 0.8 * cell.a0)
    assert len(found) == len(cell.cores)
    assert distances(found, cell).max() < 1e-6 + 0.2 * cell.a0
    status, shifts = match_cores(found, cell.cores, cell.burgers, np.diag(cell.vectors_perfect)[:2])
    assert status == "kept"
    np.testing.assert_allclose(np.linalg.norm(shifts, axis=1), distances(found, cell), atol=1e-9)


def test_perfect_crystal_has_no_cores() -> None:
    cell = tungsten_cell("dipole", (7, 10, 1))
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, cell.predictor.shape)
    assert find_cores(cell.circuits, np.zeros_like(cell.predictor), cell.a0) == []
    assert find_cores(cell.circuits, noise, cell.a0) == []
    assert np.abs(cell.circuits.burgers(noise)).max() < 1e-9


def test_triangles_tile_the_cell() -> None:
    cell = tungsten_cell("quadrupole", (7, 11, 1))
    size = np.diag(cell.vectors_perfect)[:2]
    corners = cell.reference[cell.circuits.triangles][..., :2]
    sides = np.roll(corners, -1, axis=1) - corners
    sides -= size * np.rint(sides / size)
    np.testing.assert_allclose(sides.sum(axis=1), 0, atol=1e-10)
    areas = (sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0]) / 2
    assert areas.min() > 0  # counter-clockwise
    assert areas.sum() == pytest.approx(np.prod(size))
    assert len(np.unique(cell.circuits.triangles)) == len(cell)


def test_burgers_vectors_found_by_circuits_add_up_over_the_cell() -> None:
    cell = tungsten_cell("dipole", (8, 13, 1))
    u = cell.predictor + np.random.default_rng(1).uniform(-0.1, 0.1, cell.predictor.shape)
    np.testing.assert_allclose(cell.circuits.burgers(u).sum(axis=0), 0, atol=1e-9)


SMALL = tungsten_cell("dipole", (7, 10, 1))


@pytest.mark.parametrize("amplitude", [0.0, 0.5, 4.0])
def test_steps_are_reduced_to_the_shortest(amplitude: float) -> None:
    """A lattice vector apart from the step that was given, and no other equivalent is shorter."""
    noise = amplitude * np.random.default_rng(5).standard_normal(SMALL.predictor.shape)
    circuits = SMALL.circuits
    steps = circuits.steps(SMALL.predictor + noise)
    corners = (SMALL.predictor + noise)[circuits.triangles] + circuits.offsets
    given = np.stack([corners[:, (k + 1) % 3] - corners[:, k] for k in range(3)], axis=1)
    taken = (given - steps) @ np.linalg.inv(circuits.lattice_vectors)
    np.testing.assert_allclose(taken, np.rint(taken), atol=1e-9)
    assert np.abs(taken).max() > 0.5
    around = np.array(list(product(range(-2, 3), repeat=3))) @ circuits.lattice_vectors
    others = np.linalg.norm(steps[:, :, None] - around, axis=-1)
    assert (np.linalg.norm(steps, axis=-1) <= others.min(axis=-1) + 1e-12).all()


EXPECTED = SMALL.circuits.burgers(SMALL.predictor)


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(st.integers(0, len(SMALL) - 1), st.tuples(*[st.integers(-3, 3)] * 3), min_size=1, max_size=40))
def test_relabelled_atoms_change_no_circuit(jumps: dict[int, tuple[int, int, int]]) -> None:
    """A displacement is known up to a lattice vector of the crystal; a Burgers vector is not."""
    u = SMALL.predictor.copy()
    for atom, jump in jumps.items():
        u[atom] += np.array(jump) @ SMALL.lattice_vectors
    np.testing.assert_allclose(SMALL.circuits.burgers(u), EXPECTED, atol=1e-9)


def test_moved_and_annihilated_dipoles_are_told_apart(tungsten_stroh: Stroh) -> None:
    crystal = crystal_of("W_zhou04")
    repeats = (8, 12, 1)
    intended = build_cell(crystal, BCC_SCREW, tungsten_stroh, "dipole", repeats, BCC_SCREW.sites["easy"])
    size = np.diag(intended.vectors_perfect)[:2]

    def verdict(displacement: np.ndarray) -> tuple[str, np.ndarray]:
        found = find_cores(intended.circuits, displacement, 0.8 * intended.a0)
        return match_cores(found, intended.cores, intended.burgers, size)

    assert verdict(np.zeros_like(intended.predictor))[0] == "annihilated"
    assert verdict(intended.predictor)[0] == "kept"
    # one core of the dipole a unit further
    positions, signs = arrange("dipole", (8, 12), BCC_SCREW.sites["easy"])
    positions[1] += [1, 0]
    elsewhere = build_cell_at(crystal, BCC_SCREW, tungsten_stroh, repeats, positions, signs)
    status, shifts = verdict(elsewhere.predictor)
    assert status == "kept"  # the Burgers vectors are there: how far is too far is the caller's decision
    period = BCC_SCREW.lengths[0] * crystal.a0
    np.testing.assert_allclose(shifts[1] - shifts[0], [period, 0], atol=0.35 * crystal.a0)
    assert np.linalg.norm(shifts[0]) < 0.3 * crystal.a0


def test_matching_of_constructed_cores() -> None:
    size = np.array([10.0, 12.0])
    b = np.array([0, 0, 2.0])
    places, burgers = np.array([[2.0, 6.0], [7.0, 6.0]]), np.array([b, -b])
    plus, minus = FoundCore(np.array([9.5, 6.0]), b), FoundCore(np.array([7.0, 6.5]), -b)
    status, shifts = match_cores([minus, plus], places, burgers, size)
    assert status == "kept"
    np.testing.assert_allclose(shifts, [[-2.5, 0], [0, 0.5]])
    assert match_cores([], places, burgers, size)[0] == "annihilated"
    assert match_cores([plus], places, burgers, size)[0] == "annihilated"
    # twice the Burgers vector in one place, the other split: all there, not where it was put
    split = [FoundCore(np.array([2.0, 6.0]), b / 2), FoundCore(np.array([3.0, 6.0]), b / 2), minus]
    assert match_cores(split, places, burgers, size)[0] == "moved"
    extra = [plus, minus, FoundCore(np.array([1.0, 1.0]), b), FoundCore(np.array([1.0, 9.0]), -b)]
    assert match_cores(extra, places, burgers, size)[0] == "moved"
    # the nearest of two equal cores is taken, periodic images included
    near = FoundCore(np.array([2.0, 11.9 - 6.0]), b)
    status, shifts = match_cores([plus, near, minus, FoundCore(np.array([5.0, 5.0]), -b)], places, burgers, size)
    np.testing.assert_allclose(shifts[0], [0, -0.1], atol=1e-12)
