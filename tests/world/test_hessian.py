"""The sparse Hessian against dense differences and dense eigenvalues."""

from dataclasses import replace

import numpy as np
import pytest
from ase.calculators.calculator import Calculator
from materials import Sprung
from scipy.linalg import eigh
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from suite.results import World
from suite.world.calculators import Portable
from suite.world.cell import StraightCell, build_cell, crystal_metric
from suite.world.crystal import Crystal
from suite.world.dislocation import Dislocation
from suite.world.elasticity import Stroh
from suite.world.hessian import (
    ATOMS,
    Factor,
    HessianProducts,
    Unfactorisable,
    _colours,
    _shares,
    hessian,
    interaction_range,
    softest_mode,
    softest_mode_near,
    stability_bound,
    stability_constant,
)
from suite.world.lammps_calculator import LammpsCalculator

STEP = 1e-3


@pytest.fixture(scope="module")
def dense(world: World, zhou: Calculator) -> np.ndarray:
    """Hessian of the relaxed training cell, one atom at a time."""
    cell = world.training[0]
    atoms = cell.atoms(world.trained[0].equilibrium.displacement)
    atoms.calc = zhou
    n = 3 * len(cell)
    matrix = np.empty((n, n))
    for index in range(n):
        atoms.positions.flat[index] += STEP
        plus = atoms.get_forces()
        atoms.positions.flat[index] -= 2 * STEP
        matrix[index] = ((atoms.get_forces() - plus) / (2 * STEP)).ravel()
        atoms.positions.flat[index] += STEP
    return (matrix + matrix.T) / 2


@pytest.fixture(scope="module")
def sparse(world: World, zhou: Calculator) -> csr_array:
    return hessian(world.training[0], zhou, world.trained[0].equilibrium.displacement, STEP)


def stencil(cell: StraightCell) -> np.ndarray:
    return np.kron(cell.laplacian.toarray(), np.eye(3))


def smallest_eigenvalue(cell: StraightCell, matrix: np.ndarray) -> float:
    """min λ of H v = λ K v with the first atom held, dense."""
    with threadpool_limits(1):  # threads of a BLAS wait for each other: seconds instead of hundredths
        return float(eigh(matrix[3:, 3:], stencil(cell)[3:, 3:], eigvals_only=True, subset_by_index=[0, 0])[0])


def test_small_cell_is_the_dense_hessian(sparse: csr_array, dense: np.ndarray) -> None:
    assert np.abs(dense).max() > 1
    # what is cut off is smaller than the threshold of `interaction_range`
    assert np.abs(sparse.toarray() - dense).max() < 1e-4 * np.abs(dense).max()


def test_coloured_hessian_is_the_dense_one(
    tungsten: Crystal, screw: Dislocation, tungsten_stroh: Stroh, zhou: Calculator
) -> None:
    """A cell large enough for colours to be shared; entries beyond the range are cut, at 1e-4 of the largest."""
    cell = build_cell(tungsten, screw, tungsten_stroh, "dipole", (8, 14, 1), screw.sites["easy"])
    size = np.diag(cell.vectors_perfect)[:2]
    reach = interaction_range(cell, zhou, cell.predictor)
    colours = _colours(cell.reference[:, :2], size, 2 * reach)
    assert colours.max() + 1 < len(cell) / 2
    matrix = hessian(cell, zhou, cell.predictor, STEP)
    atoms = cell.atoms(cell.predictor)
    atoms.calc = zhou
    chosen = np.random.default_rng(0).choice(3 * len(cell), 40, replace=False)
    scale = abs(matrix).max()
    for index in chosen:
        atoms.positions.flat[index] += STEP
        plus = atoms.get_forces()
        atoms.positions.flat[index] -= 2 * STEP
        column = ((atoms.get_forces() - plus) / (2 * STEP)).ravel()
        atoms.positions.flat[index] += STEP
        found = matrix[:, [index]].toarray().ravel()
        assert np.abs(found - column).max() < 3e-4 * scale
        assert np.abs(found).max() > 0.1 * scale


@pytest.fixture
def many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece is one colour."""
    monkeypatch.setattr("suite.world.hessian.ATOMS", 1)


def test_the_number_of_workers_changes_no_bit(world: World, zhou: Calculator, many_pieces: None) -> None:
    """Nor does what the calculator has computed before, such as a cell whose neighbour lists have another order."""
    cell, ground = world.training[0], world.trained[0].equilibrium.displacement
    done: list[tuple[int, int]] = []
    two = hessian(cell, zhou, ground, STEP, lambda *counts: done.append(counts), workers=2)
    elsewhere = cell.atoms(ground)
    elsewhere.positions += 0.4 * np.random.default_rng(3).standard_normal(elsewhere.positions.shape)
    elsewhere.calc = zhou
    elsewhere.get_forces()
    one = hessian(cell, zhou, ground, STEP, workers=1)
    assert (one.data == two.data).all()
    assert (one.indices == two.indices).all()
    assert done == [(k + 1, len(done)) for k in range(len(done))]
    assert len(done) > 20


class Rooted(Sprung):
    """Cannot leave its process."""

    def __reduce__(self) -> str:
        raise TypeError("cannot pickle")


def test_calculators_that_cannot_be_sent_stay_here(world: World, zhou: Calculator, many_pieces: None) -> None:
    cell, ground = world.training[0], world.trained[0].equilibrium.displacement
    rooted = Rooted(zhou, cell.reference + ground, 0.0)
    assert Portable.of(rooted).fresh() is rooted
    assert [Portable.of(rooted).workers(n) for n in (None, 1, 4)] == [1, 1, 1]
    found, expected = (hessian(cell, calculator, ground, STEP, workers=2) for calculator in (rooted, zhou))
    assert abs(found - expected).max() < 1e-8 * abs(expected).max()


def test_hessian_is_symmetric_and_translations_are_free(world: World) -> None:
    matrix = world.landscape.hessian
    scale = abs(matrix).max()
    assert abs(matrix - matrix.T).max() < 1e-12 * scale  # exactly; row sums only within rounding of the differences
    for axis in range(3):
        shift = np.zeros((len(world.simulation), 3))
        shift[:, axis] = 1
        assert np.abs(matrix @ shift.ravel()).max() < 1e-6 * scale


def test_same_colours_are_far_apart() -> None:
    generator = np.random.default_rng(1)
    size = np.array([30.0, 40.0])
    points = generator.uniform((0, 0), size, (300, 2))
    colours = _colours(points, size, 9.0)
    away = points[:, None] - points
    distance = np.linalg.norm(away - size * np.rint(away / size), axis=-1)
    same = (colours[:, None] == colours) & ~np.eye(300, dtype=bool)
    assert same.any()
    assert distance[same].min() >= 9.0
    assert colours.max() + 1 < 150


def test_colours_are_fewer_than_those_of_the_first_free_one(world: World) -> None:
    """On the columns of a crystal: each colour costs six force calls."""
    cell = world.simulation
    size = np.diag(cell.vectors_perfect)[:2]
    points, separation = cell.reference[:, :2], 10.5
    away = points[:, None] - points
    close = np.linalg.norm(away - size * np.rint(away / size), axis=-1) < separation
    simple = np.full(len(points), -1)
    for index in range(len(points)):
        simple[index] = min(set(range(len(points))) - set(simple[close[index]]))
    colours = _colours(points, size, separation)
    assert set(colours) == set(range(colours.max() + 1))
    assert not (close & (colours[:, None] == colours) & ~np.eye(len(points), dtype=bool)).any()
    assert colours.max() + 1 < 0.85 * (simple.max() + 1)


@pytest.mark.parametrize(
    ("sets", "atoms", "count"), [(17, 1000, 4), (60, 1000, 8), (3, 4000, 3), (5, 100, 4), (9, 7000, 9)]
)
def test_pieces_are_equal_shares(sets: int, atoms: int, count: int) -> None:
    """A multiple of four pieces that differ by one set at most, unless there are fewer sets."""
    ends = _shares(sets, atoms)
    sizes = np.diff(ends)
    assert (ends[0], ends[-1], len(sizes)) == (0, sets, count)
    assert sizes.min() >= 1
    assert np.ptp(sizes) <= 1
    assert sizes.max() <= max(1, ATOMS // atoms)


def test_interaction_range_covers_the_potential(world: World, zhou: Calculator) -> None:
    """Forces of an embedded atom reach twice the cutoff, their tail less than 1e-4 of the largest."""
    cell = world.simulation
    ground = world.equilibrium.displacement
    wide, narrow = (interaction_range(cell, zhou, ground, threshold=threshold) for threshold in (1e-4, 1e-1))
    assert isinstance(zhou, LammpsCalculator)
    assert narrow < wide <= 2 * zhou.cutoff + 0.3
    assert wide > np.sqrt(2) * cell.a0


def test_factor_solves(world: World) -> None:
    """H (H⁻¹ f) = f for forces that sum to zero, the mean displacement is zero."""
    f = np.random.default_rng(2).standard_normal((len(world.simulation), 3))
    f -= f.mean(axis=0)
    solved = world.landscape.factor.solve(f)
    # the atom that is held takes what rows lack to zero: 1e-6 of the largest entry, times the mean displacement
    np.testing.assert_allclose((world.landscape.hessian @ solved.ravel()).reshape(-1, 3), f, atol=1e-4)
    np.testing.assert_allclose(solved.mean(axis=0), 0, atol=1e-12)


def test_singular_matrices_have_no_factor() -> None:
    with pytest.raises(Unfactorisable, match="singular"):
        Factor(csr_array((12, 12)))


def test_stability_constant_is_the_smallest_eigenvalue(world: World, sparse: csr_array, dense: np.ndarray) -> None:
    cell = world.training[0]
    found, mode = stability_constant(cell, sparse, Factor(sparse))
    assert found == pytest.approx(smallest_eigenvalue(cell, dense), rel=1e-4)
    assert found > 0
    flat = mode.ravel()
    assert flat @ dense @ flat == pytest.approx(found * cell.strain_norm(mode) ** 2, rel=1e-4)


def test_stability_constant_scales_with_the_hessian(world: World) -> None:
    """3 H has 3 c0, and K itself has 1."""
    matrix = 3 * world.landscape.hessian
    found = stability_constant(world.simulation, matrix, Factor(matrix))[0]
    assert found == pytest.approx(3 * world.stability, rel=1e-5)
    cell = world.training[0]
    own = csr_array(stencil(cell))
    assert stability_constant(cell, own, Factor(own))[0] == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("depth", [0.05, 0.5, 3.0])
def test_stability_constant_is_negative_at_a_saddle(world: World, sparse: csr_array, depth: float) -> None:
    """One direction made to fall: the exact smallest eigenvalue, however shallow or deep."""
    cell = world.training[0]
    v = np.random.default_rng(3).standard_normal((len(cell), 3))
    k = stencil(cell)
    # smooth: the softest direction of K, where a dislocation moves
    v = cell.solve_laplacian(v - v.mean(axis=0)).ravel()
    kv = k @ v
    matrix = sparse.toarray()
    matrix -= (v @ matrix @ v + depth * (v @ kv)) / (v @ kv) ** 2 * np.outer(kv, kv)
    indefinite = csr_array((matrix + matrix.T) / 2)
    expected = smallest_eigenvalue(cell, indefinite.toarray())
    assert expected < 0
    assert stability_constant(cell, indefinite, Factor(indefinite))[0] == pytest.approx(expected, rel=1e-4)


def test_hessian_of_a_perfect_crystal_has_the_circulant_spectrum(
    screw: Dislocation, tungsten: Crystal, tungsten_stroh: Stroh, zhou: Calculator
) -> None:
    cell = build_cell(tungsten, screw, tungsten_stroh, "dipole", (5, 6, 1), screw.sites["easy"])
    straight = replace(cell, vectors=cell.vectors_perfect)
    values = np.linalg.eigvalsh(hessian(straight, zhou, np.zeros_like(cell.predictor)).toarray())
    assert np.abs(values[:3]).max() < 1e-8
    assert values[3] == pytest.approx(crystal_metric(straight, zhou).lowest, rel=1e-4)


# --- products -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def products(world: World, zhou: Calculator) -> HessianProducts:
    ((cell, ground),) = world.trained
    return HessianProducts(cell, zhou, ground.displacement, cell.metric(zhou))


def random_force(products: HessianProducts) -> np.ndarray:
    f = np.random.default_rng(4).standard_normal(products.cell.predictor.shape)
    return f - f.mean(axis=0)


def test_products_are_those_of_the_matrix(products: HessianProducts, sparse: csr_array) -> None:
    v = random_force(products)
    before = products.products
    found = products.product(v)
    assert products.products == before + 1
    np.testing.assert_allclose(found.ravel(), sparse @ v.ravel(), atol=1e-4 * np.abs(found).max())
    np.testing.assert_allclose(products.product(1e4 * v), 1e4 * found, rtol=1e-6, atol=1e-3)


def test_conjugate_gradients_are_the_factor(products: HessianProducts, sparse: csr_array) -> None:
    f = random_force(products)
    exact = Factor(sparse).solve(f)
    energy = lambda u: np.sqrt(u.ravel() @ (sparse @ u.ravel()))
    for tolerance in (1e-1, 1e-2, 1e-3):
        found = products.solve(f, tolerance)
        assert energy(found - exact) < 2 * tolerance * energy(exact)
    # products know entries that the matrix cuts, up to 3e-4 eV/Å^2, and the softest direction resists with 0.1 only
    precise = products.solve(f, 1e-6)
    np.testing.assert_allclose(precise, exact, atol=1e-3 * np.abs(exact).max())
    np.testing.assert_allclose(products.solve(f + 1.0, 1e-6), precise, atol=1e-6 * np.abs(exact).max())
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-12)
    assert (products.solve(np.ones_like(f)) == 0).all()


def test_conjugate_gradients_that_do_not_converge_say_so(products: HessianProducts) -> None:
    with pytest.raises(Unfactorisable, match="did not converge in 3 products"):
        products.solve(random_force(products), 1e-6, most=3)


def test_softest_mode_has_the_stability_constant(products: HessianProducts, sparse: csr_array) -> None:
    found, mode = softest_mode(products)
    exact, guess = stability_constant(products.cell, sparse, Factor(sparse))
    assert found == pytest.approx(exact, rel=1e-2)
    strain = products.cell.strain_norm(mode) ** 2
    assert (mode * products.product(mode)).sum() == pytest.approx(found * strain, rel=1e-3)
    assert exact * (1 - 1e-3) < stability_bound(products, guess) < 1.01 * exact


def test_softest_mode_of_a_similar_potential(products: HessianProducts, sparse: csr_array) -> None:
    """From a wrong guess and with the inverse of the Hessian itself: c0 within the accuracy, from above, in no time."""
    cell = products.cell
    exact, mode = stability_constant(cell, sparse, Factor(sparse))
    here = products._here
    near = HessianProducts(cell, here.atoms.calc, here.home - cell.reference, Factor(sparse).solve)
    guess = mode + 0.3 * np.abs(mode).max() * np.random.default_rng(5).standard_normal(mode.shape)
    for accuracy in (1e-1, 1e-2, 1e-4):
        found, v = softest_mode_near(near, guess, accuracy)
        assert exact * (1 - 1e-4) < found < exact * (1 + accuracy)
        assert (v * products.product(v)).sum() == pytest.approx(found * cell.strain_norm(v) ** 2, rel=1e-3)
    assert near.products < 150


@pytest.mark.parametrize("stiffness", [0.5, 1.0])
def test_a_negative_curvature_is_proof_enough(
    products: HessianProducts, sparse: csr_array, world: World, zhou: Calculator, stiffness: float
) -> None:
    ((cell, ground),) = world.trained
    calculator = Sprung(zhou, cell.reference + ground.displacement, -stiffness)
    short = HessianProducts(cell, calculator, ground.displacement, Factor(sparse).solve)
    found, mode = softest_mode_near(short, stability_constant(cell, sparse, Factor(sparse))[1])
    assert smallest_eigenvalue(cell, pushed(sparse, stiffness).toarray()) * (1 + 1e-3) < found < 0
    assert short.products < 60
    assert (mode * short.product(mode)).sum() < 0


def pushed(sparse: csr_array, stiffness: float) -> csr_array:
    """H less a multiple of the unit matrix, translations apart."""
    n = sparse.shape[0] // 3
    return csr_array(sparse.toarray() - stiffness * np.kron(np.eye(n) - 1 / n, np.eye(3)))


@pytest.mark.parametrize("stiffness", [0.3, 0.5, 1.0])
def test_products_at_a_saddle(
    products: HessianProducts, sparse: csr_array, world: World, zhou: Calculator, stiffness: float
) -> None:
    """Springs that push, too weak to make any difference or strong enough for many negative eigenvalues."""
    ((cell, ground),) = world.trained
    calculator = Sprung(zhou, cell.reference + ground.displacement, -stiffness)
    saddle = HessianProducts(cell, calculator, ground.displacement, products.metric)
    matrix = pushed(sparse, stiffness)
    expected = smallest_eigenvalue(cell, matrix.toarray())
    assert (expected < 0) == (stiffness > 0.4)
    assert softest_mode(saddle)[0] == pytest.approx(expected, rel=1e-2)
    f = random_force(products)
    if expected > 0:
        exact = Factor(matrix).solve(f)
        np.testing.assert_allclose(saddle.solve(f, 1e-6), exact, atol=1e-3 * np.abs(exact).max())
    else:
        with pytest.raises(Unfactorisable, match="saddle point"):
            saddle.solve(f)


def test_stability_constant_with_several_negative_eigenvalues(world: World, sparse: csr_array) -> None:
    matrix = pushed(sparse, 0.5)
    assert Factor(matrix).negative_eigenvalues > 1
    found, _ = stability_constant(world.training[0], matrix, Factor(matrix))
    assert found == pytest.approx(smallest_eigenvalue(world.training[0], matrix.toarray()), rel=1e-4)
