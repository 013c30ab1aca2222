"""Prismatic loops: sites counted in integers, fields against Green's functions, circuits, metrics, relaxations."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
import vesin
from ase.calculators.calculator import Calculator
from laws import full_stress
from materials import LAMBDA, MU, Sprung, calculator_of, crystal_of, isotropic, response_of, triclinic

from suite.execution import at_most
from suite.world.crystal import LATTICES, Crystal, NoCrystal, elastic_tensor
from suite.world.dislocation import LOOPS, ImpossibleCell
from suite.world.elasticity import periodic_loop_displacement
from suite.world.hessian import HessianProducts, Unfactorisable, softest_mode
from suite.world.loop import LoopCell, build_loop, open_triangles
from suite.world.relaxation import Relaxation, Status, relax

VARIANTS = pytest.mark.parametrize("variant", ["vacancy", "interstitial"])
SIZES = pytest.mark.parametrize(("repeats", "diameter"), [(12, 5.0), (13, 5.5), (14, 6.0), (24, 9.3)])


@cache
def loop(variant: str, repeats: int = 12, diameter: float = 6.0, name: str = "W_zhou04") -> LoopCell:
    return build_loop(crystal_of(name), LOOPS["bcc", variant], elastic_tensor(response_of(name)), repeats, diameter)


@cache
def relaxed(variant: str) -> Relaxation:
    cell, calculator = loop(variant), calculator_of("W_zhou04")
    return relax(cell, calculator, cell.metric(calculator), started(cell))


def started(cell: LoopCell) -> np.ndarray:
    return cell.predictor + 0.01 * np.random.default_rng(0).standard_normal(cell.predictor.shape)


def lattice(cell: LoopCell) -> np.ndarray:
    """All sites of the perfect crystal in the shape of `cell`, in lattice order, Å."""
    corners = np.array(list(product(range(cell.repeats[0]), repeat=3)))
    return cell.a0 * (corners[:, None] + np.array([[0.0] * 3, [0.5] * 3])).reshape(-1, 3)


def disc(cell: LoopCell) -> np.ndarray:
    """Which sites of the lattice are missing or doubled."""
    return np.bincount(cell.sites, minlength=2 * cell.repeats[0] ** 3) != 1


def along_and_across(cell: LoopCell, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Height above the plane of the loop and distance from its axis, for points relative to its centre."""
    height = points @ cell.normal
    return height, np.linalg.norm(points - height[:, None] * cell.normal, axis=1)


# --- sites --------------------------------------------------------------------------------------------------------


@SIZES
@VARIANTS
def test_three_layers_of_a_disc_are_missing_or_doubled(variant: str, repeats: int, diameter: float) -> None:
    """In halves of a0 from the centre sites are integers of one parity: |h| < b/2 is |i + j + k| < 3/2."""
    cell = loop(variant, repeats, diameter)
    sign = LOOPS["bcc", variant].sign
    np.testing.assert_allclose(cell.reference, lattice(cell)[cell.sites], atol=1e-9)
    index = np.rint((lattice(cell) - cell.cores[0]) / (cell.a0 / 2)).astype(int)
    total = index.sum(axis=1)
    expected = (np.abs(total) < 3 / 2) & (3 * (index**2).sum(axis=1) - total**2 < 3 * diameter**2)
    np.testing.assert_array_equal(disc(cell), expected)
    assert set(total[expected]) == {-1, 0, 1}
    assert len(cell) == 2 * repeats**3 + sign * expected.sum()
    np.testing.assert_array_equal(cell.sites[cell.twins[:, 0]], cell.sites[cell.twins[:, 1]])
    assert set(cell.sites[cell.twins].ravel()) == (set(np.flatnonzero(expected)) if sign > 0 else set())
    assert cell.core_distance == pytest.approx(diameter * cell.a0)


@VARIANTS
def test_a_big_disc_is_one_burgers_vector_thick(variant: str, tungsten: Crystal) -> None:
    """πR²b/Ω sites, and a cell that has shrunk or grown along b by their volume."""
    cell, sign = loop(variant, 40, 20.0), LOOPS["bcc", variant].sign
    count = len(cell) - 2 * 40**3
    burgers = np.linalg.norm(cell.burgers)
    assert burgers == pytest.approx(np.sqrt(3) / 2 * tungsten.a0)
    assert sign * count == pytest.approx(np.pi * cell.radius**2 * burgers / tungsten.volume, rel=0.03)
    strain = cell.vectors.T @ np.linalg.inv(cell.vectors_perfect.T) - np.eye(3)
    volume = np.linalg.det(cell.vectors_perfect)
    expected = count * tungsten.volume / volume * np.outer(cell.normal, cell.normal)
    np.testing.assert_allclose(strain, expected, atol=0.03 * np.abs(expected).max())


@SIZES
@VARIANTS
def test_predictor_keeps_atoms_apart(variant: str, repeats: int, diameter: float) -> None:
    cell = loop(variant, repeats, diameter)
    listed = vesin.NeighborList(cutoff=cell.a0, full_list=False)
    positions = cell.reference + cell.predictor
    (distance,) = listed.compute(points=positions, box=cell.vectors, periodic=True, quantities="d")
    assert distance.min() > 0.6 * np.sqrt(3) / 2 * cell.a0


@VARIANTS
def test_bonds_are_eight_and_six_neighbours_away_from_the_loop(variant: str) -> None:
    cell = loop(variant)
    pairs = {tuple(pair) for pair in cell.bonds.tolist()}
    assert len(pairs) == len(cell.bonds)
    assert pairs == {(j, i) for i, j in pairs}
    height, across = along_and_across(cell, cell.reference - cell.cores[0])
    counts = np.bincount(cell.bonds[:, 0], minlength=len(cell))
    far = np.hypot(height, across - cell.radius) > 3 * cell.a0
    assert far.sum() > 1000
    assert (counts[far] == 14).all()
    assert np.abs(counts - 14).max() <= 6


# --- elastic field ------------------------------------------------------------------------------------------------

NORMAL = np.array([0.5, 0.3, -0.6]) / np.sqrt(0.7)
CENTRE = np.array([28.3, 33.0, 31.1])
SIZE, RADIUS, WIDTH = 64, 1.5, 0.8


def field_of(
    c: np.ndarray, burgers: np.ndarray = 0.8 * NORMAL, radius: float = RADIUS, centre: np.ndarray = CENTRE
) -> np.ndarray:
    """Displacement on a grid of 1 Å, mean strain included, (64, 64, 64, 3)."""
    return periodic_loop_displacement(c, SIZE, float(SIZE), centre, burgers, radius, WIDTH)[0]


def kelvin(x: np.ndarray) -> np.ndarray:
    """Green's function (n, 3, 3) of an isotropic solid; Mura 1987, (5.8)."""
    nu, r = LAMBDA / (2 * (LAMBDA + MU)), np.linalg.norm(x, axis=1)[:, None, None]
    return ((3 - 4 * nu) * np.eye(3) + x[:, :, None] * x[:, None] / r**2) / (16 * np.pi * MU * (1 - nu) * r)


def synge(x: np.ndarray) -> np.ndarray:
    """Green's function of the triclinic solid, as an integral over the circle normal to x; Mura 1987, (5.15)."""
    _, _, frame = np.linalg.svd(x[:, None])
    angles = np.pi * np.arange(24) / 24
    z = [np.cos(a) * frame[:, 1] + np.sin(a) * frame[:, 2] for a in angles]
    inverse = [np.linalg.inv(np.einsum("ijkl,nj,nl->nik", triclinic(), v, v, optimize=True)) for v in z]
    return np.mean(inverse, axis=0) / (4 * np.pi * np.linalg.norm(x, axis=1)[:, None, None])


def dipole(green: Callable[[np.ndarray], np.ndarray], moment: np.ndarray, x: np.ndarray) -> np.ndarray:
    """u_i = -G_ij,k P_jk of a force dipole at the origin, (n, 3)."""
    h = 0.05 * np.eye(3)
    gradient = np.stack([(green(x + h[k]) - green(x - h[k])) / 0.1 for k in range(3)], axis=-1)
    return -np.einsum("nijk,jk->ni", gradient, moment)


@pytest.mark.parametrize(
    ("c", "green"), [(isotropic(), kelvin), (triclinic(), synge)], ids=["isotropic, Kelvin", "triclinic, Synge"]
)
def test_far_field_is_that_of_a_force_dipole(c: np.ndarray, green: Callable[[np.ndarray], np.ndarray]) -> None:
    """P = C : b⊗n A, spread over the disc and its soft faces, and its images; their sum is known up to a strain."""
    burgers = 0.8
    moment = np.einsum("ijkl,k,l->ij", c, burgers * NORMAL, NORMAL) * np.pi * RADIUS**2
    grid = np.stack(np.meshgrid(*[np.arange(SIZE)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    x = grid - CENTRE
    chosen = np.flatnonzero((np.abs(x).max(axis=1) < SIZE / 2) & (np.abs(np.linalg.norm(x, axis=1) - 15) < 3))
    chosen = chosen[::211]  # 81 of them; a random choice would change with the version of NumPy
    x, found = x[chosen], field_of(c, burgers * NORMAL).reshape(-1, 3)[chosen]
    flat = np.outer(NORMAL, NORMAL)
    spread = RADIUS**2 / 4 * (np.eye(3) - flat) + burgers**2 / 12 * flat + WIDTH**2 * np.eye(3)
    corners = np.sqrt(3) * np.linalg.cholesky(spread).T  # six points with the second moments of the source
    expected = sum(dipole(green, moment, x + s) for s in (*corners, *-corners)) / 6
    images = SIZE * np.array([s for s in product((-1, 0, 1), repeat=3) if any(s)])
    expected = expected + sum(dipole(green, moment, x - image) for image in images)
    scale = np.abs(expected).max()
    assert np.abs(found - expected).max() < 0.05 * scale
    affine = np.column_stack([np.ones(len(x)), x])
    rest = found - expected - affine @ np.linalg.lstsq(affine, found - expected, rcond=None)[0]
    # the next moments of the source, (radius/r)^4, and the strain gradients of further images; without `WIDTH` 7e-3
    assert np.abs(rest).max() < 5e-3 * scale


def test_field_is_odd_about_the_centre() -> None:
    """The mean strain is odd itself; what is left is odd and periodic."""
    centre = np.array([28.0, 33.0, 31.0])
    burgers = 0.8 * NORMAL
    field, strain = periodic_loop_displacement(triclinic(), SIZE, float(SIZE), centre, burgers, 6.0, WIDTH)
    grid = np.stack(np.meshgrid(*[np.arange(SIZE)] * 3, indexing="ij"), axis=-1)
    np.testing.assert_allclose(strain, np.pi * 6.0**2 * 0.8 / SIZE**3 * np.outer(NORMAL, NORMAL), rtol=1e-12)
    rest = field - (grid - centre) @ strain.T
    mirror = tuple(np.moveaxis((2 * centre.astype(int) - grid) % SIZE, -1, 0))
    assert np.abs(rest).max() > 0.2
    np.testing.assert_allclose(rest[mirror], -rest, atol=1e-12)
    np.testing.assert_allclose(rest.mean(axis=(0, 1, 2)), 0, atol=1e-12)


def test_field_is_linear_in_burgers_vector_and_area() -> None:
    """Far away; exactly, it is blind to the sign of b, and to the scale of the elastic constants."""
    c = triclinic()
    field = field_of(c)
    np.testing.assert_allclose(field_of(c, -0.8 * NORMAL), field, atol=1e-12)
    np.testing.assert_allclose(field_of(7 * c), field, atol=1e-12)
    grid = np.stack(np.meshgrid(*[np.arange(SIZE)] * 3, indexing="ij"), axis=-1)
    far = np.linalg.norm(grid - CENTRE, axis=-1) > 15
    for other in (field_of(c, 1.6 * NORMAL), field_of(c, radius=np.sqrt(2) * RADIUS)):
        np.testing.assert_allclose(other[far], 2 * field[far], atol=0.02 * np.abs(2 * field[far]).max())


@VARIANTS
def test_displacement_jumps_by_b_across_the_disc(variant: str) -> None:
    """Where the missing layers were, the crystal has closed; between doubled layers, it has opened."""
    cell, sign = loop(variant, 40, 20.0), LOOPS["bcc", variant].sign
    height, across = along_and_across(cell, cell.reference - cell.cores[0])
    layer = height / (cell.a0 / (2 * np.sqrt(3)))
    below, above = (
        (cell.predictor[(across < 2 * cell.a0) & np.isclose(layer, side, atol=1e-6)] @ cell.normal).mean()
        for side in (-2, 2)
    )
    b = np.linalg.norm(cell.burgers)
    assert above - below == pytest.approx(sign * b, rel=0.1)
    opened = cell.predictor[cell.twins[:, 1]] - cell.predictor[cell.twins[:, 0]]
    np.testing.assert_allclose(opened, np.tile(cell.burgers, (len(cell.twins), 1)), atol=1e-9)


@VARIANTS
def test_residual_force_of_the_predictor_decays_from_the_line(variant: str, zhou: Calculator) -> None:
    cell = loop(variant, 32, 9.3)
    atoms = cell.atoms(cell.predictor)
    atoms.calc = zhou
    force = np.abs(atoms.get_forces()).max(axis=1)
    height, across = along_and_across(cell, cell.reference - cell.cores[0])
    distance = np.hypot(height, across - cell.radius) / cell.a0
    near, middle, far = (force[(distance > a) & (distance < a + 1)].max() for a in (0, 6, 12))
    assert near > 3
    assert middle < 0.06
    assert 0 < far < 4e-3


# --- circuits -----------------------------------------------------------------------------------------------------


def cluster(tungsten: Crystal) -> np.ndarray:
    corners = np.array(list(product(range(8), repeat=3)))
    return tungsten.a0 * (corners[:, None] + np.array([[0.0] * 3, [0.5] * 3])).reshape(-1, 3)


@pytest.mark.parametrize("seed", range(4))
def test_circuits_close_in_strained_and_rattled_crystals(tungsten: Crystal, seed: int) -> None:
    positions, generator = cluster(tungsten), np.random.default_rng(seed)
    strain = 0.02 * generator.uniform(-1, 1, (3, 3))
    noise = 0.1 * generator.standard_normal(positions.shape)
    for moved in (positions, positions @ (np.eye(3) + strain).T, positions + noise):
        assert len(open_triangles(moved, tungsten.vectors, 1.5 * tungsten.a0)) == 0


def test_circuits_close_around_a_vacancy_but_not_around_a_shifted_half(tungsten: Crystal) -> None:
    positions, a0 = cluster(tungsten), tungsten.a0
    hole = np.linalg.norm(positions - 4 * a0, axis=1) > 0.1 * a0
    assert hole.sum() == len(positions) - 1
    assert len(open_triangles(positions[hole], tungsten.vectors, 1.5 * a0)) == 0
    # a cut that ends inside the crystal: half of it shifted by a ramp from 0 to b, a screw
    x, y, _ = (positions - 3.8 * a0).T
    screw = np.outer(np.arctan2(y, x) / (2 * np.pi), [0, 0, a0])
    centres = open_triangles(positions + screw, tungsten.vectors, 1.5 * a0) - 3.8 * a0
    assert len(centres) > 50
    assert np.linalg.norm(centres[:, :2], axis=1).max() < 1.5 * a0
    assert np.ptp(centres[:, 2]) > 6 * a0


@SIZES
@VARIANTS
def test_circuits_stay_open_along_the_circle_only(variant: str, repeats: int, diameter: float) -> None:
    cell = loop(variant, repeats, diameter)
    points = cell.line(cell.predictor)
    height, across = along_and_across(cell, points)
    assert len(points) > 50
    assert np.hypot(height, across - cell.radius).max() < 1.5 * cell.a0


# --- judgement ----------------------------------------------------------------------------------------------------


@SIZES
@VARIANTS
def test_predictor_is_kept(variant: str, repeats: int, diameter: float) -> None:
    cell = loop(variant, repeats, diameter)
    verdict, shifts = cell.judge(cell.predictor, 0.8 * cell.a0)
    assert verdict == "kept"
    assert shifts.shape == (1, 2)
    assert np.abs(shifts).max() < 0.4 * cell.a0


@VARIANTS
def test_a_crystal_without_a_line_has_lost_its_loop(variant: str) -> None:
    """Undisplaced, the disc is a flat void, or a flat of coinciding pairs, in a perfect crystal."""
    cell = loop(variant)
    full = np.zeros((2 * cell.repeats[0] ** 3, 3))
    whole = replace(cell, reference=lattice(cell), sites=np.arange(len(full)), twins=np.zeros((0, 2), dtype=int))
    for judged, displacement in ((cell, np.zeros_like(cell.predictor)), (whole, full)):
        verdict, shifts = judged.judge(displacement, 0.8 * cell.a0)
        assert verdict == "annihilated"
        assert shifts.shape == (1, 2)
        assert np.isnan(shifts).all()


@VARIANTS
def test_shifts_are_changes_of_radius_and_glide(variant: str) -> None:
    cell = loop(variant)
    allowed, start = 0.8 * cell.a0, loop(variant).judge(cell.predictor, 1.0)[1]
    for grown in (-1.5, 1.0):
        verdict, shifts = replace(cell, radius=cell.radius - grown * cell.a0).judge(cell.predictor, allowed)
        assert verdict == "moved"
        np.testing.assert_allclose(shifts - start, [[grown * cell.a0, 0]], atol=1e-9)
    for steps in (-1, 2):
        verdict, shifts = replace(cell, cores=cell.cores - steps * cell.burgers).judge(cell.predictor, allowed)
        assert verdict == "moved"
        np.testing.assert_allclose(shifts - start, [[0, steps * np.linalg.norm(cell.burgers)]], atol=1e-9)
    assert replace(cell, radius=cell.radius - cell.a0).judge(cell.predictor, 1.5 * cell.a0)[0] == "kept"


@VARIANTS
def test_a_loop_that_slid_sideways_has_moved(variant: str) -> None:
    """Its mean radius and height hardly tell."""
    cell = loop(variant, 24, 9.3)
    for slide, expected in ((0.5, "kept"), (3.3, "moved")):
        aside = replace(cell, cores=cell.cores + slide * cell.a0 * np.array([1, -1, 0]) / np.sqrt(2))
        verdict, shifts = aside.judge(cell.predictor, 0.8 * cell.a0)
        assert verdict == expected
        assert np.abs(shifts).max() < 0.8 * cell.a0


def test_half_a_loop_has_moved() -> None:
    """Its line closes through the middle."""
    cell = loop("vacancy")
    kept = (cell.reference - cell.cores[0]) @ [1, -1, 0] > 0
    half = np.where(kept[:, None], cell.predictor, 0)
    assert cell.judge(half, 0.8 * cell.a0)[0] == "moved"


# --- metric -------------------------------------------------------------------------------------------------------


@VARIANTS
def test_metric_is_symmetric_and_positive(variant: str, zhou: Calculator) -> None:
    cell = loop(variant)
    metric, generator = cell.metric(zhou), np.random.default_rng(1)
    for _ in range(3):
        f, g = generator.standard_normal((2, len(cell), 3))
        assert (f * metric(g)).sum() == pytest.approx((g * metric(f)).sum(), rel=1e-9)
        assert (f * metric(f)).sum() > 0
    # what no lattice knows: only the disc, or the pairs in it, pulled apart
    near = np.flatnonzero(np.linalg.norm(cell.reference - cell.cores[0], axis=1) < cell.radius)
    f = np.zeros_like(cell.predictor)
    f[near] = generator.standard_normal((len(near), 3))
    assert (f * metric(f)).sum() > 1e-3 * (f**2).sum()


@VARIANTS
def test_metric_inverts_the_hessian_of_the_crystal(variant: str, zhou: Calculator) -> None:
    """Atoms far from the loop moved at random: forces of the perfect crystal, which end before the loop."""
    cell = loop(variant, 14)
    metric = cell.metric(zhou)
    perfect = replace(cell, reference=lattice(cell), numbers=np.full(2 * 14**3, 74), vectors=cell.vectors_perfect)
    corner = np.linalg.norm(perfect.reference - [0.3, 0, 0], axis=1) < 1.2 * cell.a0
    corner |= np.linalg.norm(perfect.reference - [0.3, 0, 7 * cell.a0], axis=1) < 1.2 * cell.a0
    moved = np.zeros_like(perfect.reference)
    moved[corner] = 1e-4 * np.random.default_rng(2).standard_normal((corner.sum(), 3))
    moved[corner] -= moved[corner].mean(axis=0)
    atoms, forces = perfect.atoms(np.zeros_like(moved)), []
    atoms.calc = zhou
    for sign in (1, -1):
        atoms.positions[:] = perfect.reference + sign * moved
        forces.append(atoms.get_forces())
    force = (forces[1] - forces[0]) / 2
    assert np.abs(force[disc(cell)]).max() < 1e-4 * np.abs(force).max()
    found = metric(force[cell.sites])
    np.testing.assert_allclose(found, moved[cell.sites], atol=1e-3 * np.abs(moved).max())


def test_twins_share_a_site_and_resist_each_other_like_single_atoms(zhou: Calculator) -> None:
    cell = loop("interstitial")
    metric = cell.metric(zhou)
    first, second = cell.twins[5]
    single = np.flatnonzero(np.linalg.norm(cell.reference - cell.cores[0], axis=1) > 5 * cell.a0)[0]

    def answer(*forces: tuple[int, float]) -> np.ndarray:
        f = np.zeros_like(cell.predictor)
        for atom, size in forces:
            f[atom] = size * cell.normal
        return metric(f)

    alone = answer((single, 1.0))
    apart = answer((first, 1.0), (second, -1.0))
    np.testing.assert_allclose(apart[first], -apart[second], atol=1e-12)
    np.testing.assert_allclose(apart[first], alone[single], rtol=1e-3)
    np.testing.assert_allclose(np.delete(apart, cell.twins[5], axis=0), 0, atol=1e-12)
    together = answer((first, 0.5), (second, 0.5))
    np.testing.assert_allclose(together[[first, second]], np.tile(alone[single], (2, 1)), rtol=1e-3)


# --- relaxed ------------------------------------------------------------------------------------------------------


@VARIANTS
def test_relaxed_loops_stay(variant: str) -> None:
    cell, result = loop(variant), relaxed(variant)
    assert result.status is Status.CONVERGED
    assert np.abs(result.forces).max() < 1e-4
    assert cell.judge(result.displacement, 0.8 * cell.a0)[0] == "kept"
    height, across = along_and_across(cell, cell.line(result.displacement))
    assert np.hypot(height, across - cell.radius).max() < 1.5 * cell.a0


@VARIANTS
def test_stiff_cores_relax_too(variant: str) -> None:
    """FIRE finds these equilibria."""
    cell, calculator = loop(variant, name="W_eam4"), calculator_of("W_eam4")
    result = relax(cell, calculator, cell.metric(calculator), started(cell), tolerance=1e-3, max_calls=120)
    assert result.status is Status.CONVERGED


def test_strain_takes_the_mean_stress_away(zhou: Calculator) -> None:
    """Cores press outwards whatever the sign of the loop: that half which changes sign with it belongs to its disc."""
    odd = {}
    for shape in ("vectors", "vectors_perfect"):
        stress = []
        for variant in ("vacancy", "interstitial"):
            cell = loop(variant)
            atoms = cell.atoms(relaxed(variant).displacement)
            atoms.set_cell(getattr(cell, shape), scale_atoms=True)
            atoms.calc = zhou
            stress.append(full_stress(atoms.get_stress()))
        odd[shape] = np.abs(stress[1] - stress[0]).max()
    assert odd["vectors"] < 0.1 * odd["vectors_perfect"]


def products_of(variant: str, stiffness: float = 0.0) -> HessianProducts:
    """The Hessian of a relaxed loop, and `stiffness` times the unit matrix."""
    cell, displacement, calculator = loop(variant), relaxed(variant).displacement, calculator_of("W_zhou04")
    sprung = Sprung(calculator, cell.reference + displacement, stiffness)
    return HessianProducts(cell, sprung, displacement, cell.metric(calculator))


@VARIANTS
def test_hessian_of_a_relaxed_loop_is_symmetric_and_inverted(variant: str) -> None:
    products = products_of(variant)
    f, g = np.random.default_rng(3).standard_normal((2, *products.cell.predictor.shape))
    assert (f * products.product(g)).sum() == pytest.approx((g * products.product(f)).sum(), rel=1e-3)
    f -= f.mean(axis=0)
    for tolerance in (1e-1, 1e-3):
        rest = products.product(products.solve(f, tolerance)) - f
        error = np.sqrt((rest * products.metric(rest)).sum() / (f * products.metric(f)).sum())
        assert error < 1.5 * tolerance


@VARIANTS
def test_softest_mode_of_a_relaxed_loop(variant: str) -> None:
    """Its own Rayleigh quotient, which no field that we can think of undercuts, nor more iterations."""
    products = products_of(variant)
    cell = products.cell
    guesses = cell.soft_fields(relaxed(variant).displacement)
    found, mode = softest_mode(products, guesses)

    def quotient(field: np.ndarray) -> float:
        return float((field * products.product(field)).sum() / (field * (cell.laplacian @ field)).sum())

    assert 0 < found == pytest.approx(quotient(mode), rel=1e-3)
    height, across = along_and_across(loop(variant), cell.reference - cell.cores[0])
    glide = np.outer((across < loop(variant).radius) * np.exp(-((height / (3 * cell.a0)) ** 2)), [1, 1, 1])
    for field in (glide, products.metric(glide), products.metric(np.random.default_rng(4).standard_normal(mode.shape))):
        assert found < quotient(field)
    assert found == pytest.approx(softest_mode(products, guesses, accuracy=1e-5)[0], rel=2e-3)


def test_glide_and_tilt_lead_to_the_softest_mode() -> None:
    """To the same λ as noise does, with half the products or fewer; an interstitial loop needs them to get there."""
    products = products_of("vacancy")
    by_noise = softest_mode(products, accuracy=1e-4)[0]
    needed, products.products = products.products, 0
    told: list[float] = []
    guesses = products.cell.soft_fields(relaxed("vacancy").displacement)
    found, _ = softest_mode(products, guesses, progress=lambda share, note: told.append(share))
    assert found == pytest.approx(by_noise, rel=2e-3)
    assert products.products <= needed / 2
    assert told == sorted(told)
    assert told[-1] <= 1
    products = products_of("interstitial")
    found, _ = softest_mode(products, products.cell.soft_fields(relaxed("interstitial").displacement))
    with pytest.raises(Unfactorisable, match="may be off by"):
        softest_mode(products, most=24)
    assert found < 0.5 * softest_mode(products, accuracy=0.02, most=80)[0]


@VARIANTS
def test_the_glide_of_a_loop_is_close_to_its_core_and_knows_no_jump(variant: str) -> None:
    cell = loop(variant, 24, 8.0)
    glide, tilt = cell.soft_fields(cell.predictor)
    away = cell.reference - cell.cores[0]
    height, across = along_and_across(cell, away)
    from_line = np.hypot(height, across - cell.radius)
    size = np.linalg.norm(glide, axis=1)
    burgers = np.linalg.norm(cell.burgers[0])
    assert size.max() < 0.8 * burgers, "the jump across the disc is a lattice vector, no motion"
    assert size[from_line < cell.a0].mean() > 5 * size[from_line > 4 * cell.a0].mean()
    np.testing.assert_allclose(tilt[(np.abs(away) > 2 * cell.radius).any(axis=1)], 0, atol=1e-14)


def test_two_engines_give_the_products_of_one_whoever_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    cell, displacement = loop("vacancy"), relaxed("vacancy").displacement
    calculator = calculator_of("W_zhou04")
    field = np.random.default_rng(7).standard_normal(displacement.shape)
    metric = cell.metric(calculator)
    one = HessianProducts(cell, calculator, displacement, metric, twofold=True).product(field)
    monkeypatch.setattr("suite.world.hessian.TWOFOLD", len(cell))
    found = []
    for workers in (1, 2):
        with at_most(workers):
            products = HessianProducts(cell, calculator, displacement, metric, twofold=True)
            found.append([products.product(field), products.product(2 * field)])
    assert np.array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0][0], one, atol=1e-9 * np.abs(one).max())


def test_a_loop_on_a_saddle_is_found_out() -> None:
    products = products_of("vacancy", stiffness=-1.0)
    assert softest_mode(products)[0] < 0
    with pytest.raises(Unfactorisable, match="saddle point"):
        products.solve(np.random.default_rng(5).standard_normal(products.cell.predictor.shape))


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("diameter", [1.9, 6.1, 40.0])
def test_loops_that_do_not_fit_are_refused(tungsten: Crystal, diameter: float) -> None:
    c = isotropic()
    with pytest.raises(ImpossibleCell, match=f"diameter {diameter:g} a0 does not fit a cell 12 a0 wide"):
        build_loop(tungsten, LOOPS["bcc", "vacancy"], c, 12, diameter)
    for fitting in (2.0, 6.0):
        assert build_loop(tungsten, LOOPS["bcc", "vacancy"], c, 12, fitting).radius == fitting * tungsten.a0 / 2


@pytest.mark.parametrize("name", ["fcc", "diamond", "B2"])
def test_other_lattices_are_refused(name: str) -> None:
    with pytest.raises(NotImplementedError, match="bcc only"):
        build_loop(Crystal(LATTICES[name], ("W", "W"), 3.2), LOOPS["bcc", "vacancy"], isotropic(), 12, 5.0)


def test_unstable_crystal_is_refused(zhou: Calculator) -> None:
    cell = build_loop(Crystal(LATTICES["bcc"], ("W",), 4.2), LOOPS["bcc", "vacancy"], isotropic(), 6, 3.0)
    with pytest.raises(NoCrystal, match="the perfect crystal is unstable"):
        cell.metric(zhou)
