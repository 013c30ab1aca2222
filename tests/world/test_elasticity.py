"""The elastic field against isotropic formulas, brute-force image sums, equilibrium and its own periods."""

import numpy as np
import pytest
from laws import rotation
from materials import LAMBDA, MU, isotropic, triclinic

from suite.world.crystal import cubic_tensor, stress_strain_coefficients
from suite.world.dislocation import catalogue_entry
from suite.world.elasticity import (
    DegenerateElasticity,
    Stroh,
    energy_factor,
    felt_form,
    field_change,
    isotropic_screw,
    periodic_displacement,
    rotate,
    strain_factor,
    stroh,
)

SIZE = (20.0, 26.0)
# rows of cores that sum to zero: a quadrupole, off its symmetric places
CORES = np.array([[5.1, 6.3], [15.0, 6.3], [4.8, 19.6], [15.2, 19.6]])
SIGNS = np.array([1, -1, -1, 1])
MIXED = np.array([0.7, 0.0, 1.1])


def single(solution: Stroh, points: np.ndarray, b: np.ndarray) -> np.ndarray:
    """u(x) of one dislocation at the origin, the defining formula: the cut is where ln has it, differences only."""
    z = points[:, 0] + np.multiply.outer(solution.p, points[:, 1])
    return np.real(np.einsum("ka,a,an->nk", solution.A, solution.L.T @ b / (1j * np.pi), np.log(z)))


def distortion(solution: Stroh, points: np.ndarray, b: np.ndarray) -> np.ndarray:
    """∂u_k/∂x_j of one dislocation at the origin, (n, 3, 2): no branch cuts."""
    inverse = 1 / (points[:, 0] + np.multiply.outer(solution.p, points[:, 1]))
    amplitude = solution.A * (solution.L.T @ b / (1j * np.pi))
    return np.real(np.stack([amplitude @ inverse, (amplitude * solution.p) @ inverse], -1).transpose(1, 0, 2))


def periodic(points: np.ndarray, solution: Stroh, b: np.ndarray = MIXED) -> np.ndarray:
    return periodic_displacement(solution, points, CORES, SIGNS[:, None] * b, SIZE)[0]


def periodic_distortion(points: np.ndarray, solution: Stroh, h: float = 1e-4) -> np.ndarray:
    """∂u_k/∂x_j by fourth-order differences, (n, 3, 2); points away from cuts."""
    parts = []
    for j in range(2):
        e = h * np.eye(2)[j]
        u = [periodic(points + k * e, solution) for k in (-2, -1, 1, 2)]
        parts.append((u[0] - 8 * u[1] + 8 * u[2] - u[3]) / (12 * h))
    return np.stack(parts, -1)


def away_from_cuts(seed: int, count: int = 40) -> np.ndarray:
    generator = np.random.default_rng(seed)
    points = generator.uniform((0, 0), SIZE, size=(20 * count, 2))
    clear = (np.abs(points[:, 1:] - CORES[:, 1]) > 0.5).all(axis=1)
    return points[clear][:count]


def test_nearly_isotropic_screw_is_the_textbook_screw() -> None:
    generator = np.random.default_rng(1)
    points = generator.uniform(-5, 5, size=(50, 2))
    found = single(stroh(isotropic(1e-4)), points, np.array([0, 0, 2.7]))[:, 2]
    expected = isotropic_screw(points, 2.7)
    np.testing.assert_allclose(found - found[0], expected - expected[0], atol=1e-3)
    assert np.ptp(expected) > 2


def test_nearly_isotropic_edge_is_the_textbook_edge() -> None:
    """Hirth & Lothe, (3-45) up to constants; the cut is at x1 < 0 as everywhere here."""
    nu, b = LAMBDA / (2 * (LAMBDA + MU)), 1.9
    points = np.random.default_rng(2).uniform(1, 5, size=(50, 2))
    x, y = points.T
    r2 = x**2 + y**2
    u1 = b / (2 * np.pi) * (np.arctan2(y, x) + x * y / (2 * (1 - nu) * r2))
    u2 = -b / (2 * np.pi) * ((1 - 2 * nu) / (4 * (1 - nu)) * np.log(r2) + (x**2 - y**2) / (4 * (1 - nu) * r2))
    found = single(stroh(isotropic(1e-4)), points, np.array([b, 0, 0]))
    for k, expected in enumerate((u1, u2)):
        np.testing.assert_allclose(found[:, k] - found[0, k], expected - expected[0], atol=1e-3)


def test_stroh_pairs_solve_the_sextic_problem() -> None:
    c = triclinic()
    solution = stroh(c)
    q, r, t = c[:, 0, :, 0], c[:, 0, :, 1], c[:, 1, :, 1]
    for p, a, el in zip(solution.p, solution.A.T, solution.L.T, strict=True):
        assert p.imag > 0
        np.testing.assert_allclose((q + p * (r + r.T) + p**2 * t) @ a, 0, atol=1e-12)
        np.testing.assert_allclose(el, (r.T + p * t) @ a, atol=1e-12)
        assert 2 * a @ el == pytest.approx(1)


@pytest.mark.parametrize("tensor", [isotropic(1e-3), triclinic()], ids=["nearly isotropic", "triclinic"])
def test_closed_form_is_the_limit_of_image_sums(tensor: np.ndarray) -> None:
    """Distortions minus their mean: sums over (2M + 1)² images differ by a remainder that falls as 1/M²."""
    solution = stroh(tensor)
    points = away_from_cuts(3)
    exact = periodic_distortion(points, solution)
    exact -= exact.mean(axis=0)
    reaches = (4, 8, 16)
    errors = []
    for m in reaches:
        total = np.zeros_like(exact)
        for i in range(-m, m + 1):
            for j in range(-m, m + 1):
                for core, sign in zip(CORES, SIGNS, strict=True):
                    total += distortion(solution, points - core - np.array([i, j]) * SIZE, sign * MIXED)
        errors.append(np.abs(total - total.mean(axis=0) - exact).max())
    slope = np.polyfit(np.log(reaches), np.log(errors), 1)[0]
    assert errors[-1] < 1e-3 * np.abs(exact).max()
    assert -2.3 < slope < -1.7


def test_jump_is_b_on_the_side_of_the_cut_and_zero_on_the_other() -> None:
    solution = stroh(triclinic())
    for row in (0, 2):
        left, right = sorted(range(row, row + 2), key=lambda k: CORES[k, 0])
        x2, eps = CORES[left, 1], 1e-9
        assert CORES[right, 1] == x2
        for x1 in np.linspace(0.3, 19.7, 30):
            above, below = periodic(np.array([[x1, x2 + eps], [x1, x2 - eps]]), solution)
            # every core has its cut on its left: the two of a row cancel left of both
            expected = sum(SIGNS[k] * MIXED * (x1 < CORES[k, 0]) for k in (left, right))
            np.testing.assert_allclose(above - below, expected, atol=1e-6)
    # a pair at two heights, each with its own cut
    staggered = CORES[[0, 3]]
    pair = np.array([MIXED, -MIXED])
    for k in (0, 1):
        for x1 in np.linspace(0.3, 19.7, 20):
            sides = np.array([[x1, staggered[k, 1] + eps], [x1, staggered[k, 1] - eps]])
            above, below = periodic_displacement(solution, sides, staggered, pair, SIZE)[0]
            np.testing.assert_allclose(above - below, pair[k] * (x1 < staggered[k, 0]), atol=1e-6)
    one = np.array([[x1, s * 1e-9] for x1 in (-2.0, 3.0) for s in (1, -1)])
    u = single(solution, one, MIXED)
    np.testing.assert_allclose([u[0] - u[1], u[2] - u[3]], [MIXED, 0 * MIXED], atol=1e-7)


def test_field_is_in_equilibrium() -> None:
    """div σ = C_ijkl ∂_j ∂_l u_k vanishes, while single terms of the sum do not."""
    c, points, h = triclinic(), away_from_cuts(4), 0.05
    solution = stroh(c)
    second = np.zeros((len(points), 3, 2, 2))
    basis = h * np.eye(2)
    for j in range(2):
        for k in range(2):
            parts = [
                weight_j * weight_k * periodic(points + a * basis[j] + d * basis[k], solution)
                for a, weight_j in ((-2, 1), (-1, -8), (1, 8), (2, -1))
                for d, weight_k in ((-2, 1), (-1, -8), (1, 8), (2, -1))
            ]
            second[..., j, k] = np.sum(parts, axis=0) / (12 * h) ** 2
    plane = c[:, :2][:, :, :, :2]
    divergence = np.einsum("ijkl,nkjl->ni", plane, second)
    terms = np.einsum("ijkl,nkjl->nijkl", plane, second)
    assert np.abs(divergence).max() < 1e-4 * np.abs(terms).max()


@pytest.mark.parametrize("b", [MIXED, np.array([0, 0, 1.0])], ids=["mixed", "screw"])
def test_displacement_has_the_periods_of_the_tilted_cell(b: np.ndarray) -> None:
    """u(x + c1) = u(x), and u(x + c2) = u(x) + Δc2 with the tilt Σ b x1/c1, both ways round the cuts."""
    solution = stroh(triclinic())
    burgers = SIGNS[:, None] * b
    x1 = np.linspace(0.5, 19.5, 20)
    bottom, top = np.column_stack([x1, 0 * x1]), np.column_stack([x1, 0 * x1 + SIZE[1]])
    u_bottom, tilt = periodic_displacement(solution, bottom, CORES, burgers, SIZE)
    u_top, _ = periodic_displacement(solution, top, CORES, burgers, SIZE)
    np.testing.assert_allclose(tilt, CORES[:, 0] @ burgers / SIZE[0], atol=1e-14)
    assert np.abs(tilt).max() > 1e-2
    np.testing.assert_allclose(u_top - u_bottom, np.tile(tilt, (20, 1)), atol=1e-10)
    x2 = np.linspace(0.4, 25.6, 20)
    left, right = np.column_stack([0 * x2, x2]), np.column_stack([0 * x2 + SIZE[0], x2])
    np.testing.assert_allclose(periodic(left, solution, b), periodic(right, solution, b), atol=1e-10)


def test_mean_stress_is_zero() -> None:
    """The mean distortion of the glued cell, cuts taken out, is the plastic one; what is left is elastic and zero.

    ∮u n over the cell's faces gives the mean of ∇u; the cuts carry -Σ b ⊗ e2 x1/area of it.
    """
    solution = stroh(triclinic())
    burgers = SIGNS[:, None] * MIXED
    n = 200
    x2 = (np.arange(n) + 0.5) / n * SIZE[1]
    mean1 = (
        periodic(np.column_stack([0 * x2 + SIZE[0], x2]), solution) - periodic(np.column_stack([0 * x2, x2]), solution)
    ).mean(axis=0) / SIZE[0]
    x1 = (np.arange(n) + 0.5) / n * SIZE[0]
    across = periodic(np.column_stack([x1, 0 * x1 + SIZE[1]]), solution) - periodic(
        np.column_stack([x1, 0 * x1]), solution
    )
    plastic = CORES[:, 0] @ burgers / (SIZE[0] * SIZE[1])
    mean2 = across.mean(axis=0) / SIZE[1] - plastic
    np.testing.assert_allclose([mean1, mean2], 0, atol=1e-12)


def test_degenerate_tensors_are_refused() -> None:
    with pytest.raises(DegenerateElasticity, match="isotropic"):
        stroh(isotropic())
    for k in (0, 1):
        soft = isotropic(1e-3)
        soft[2, k, 2, k] = soft[k, 2, 2, k] = soft[2, k, k, 2] = soft[k, 2, k, 2] = -0.1
        with pytest.raises(DegenerateElasticity, match="not positive definite"):
            stroh(soft)


def test_burgers_vectors_must_cancel() -> None:
    solution = stroh(isotropic(1e-3))
    with pytest.raises(ValueError, match="sum to zero"):
        periodic_displacement(solution, np.ones((1, 2)), CORES, np.tile(MIXED, (4, 1)), SIZE)


def test_energy_factor_of_isotropic_dislocations() -> None:
    b, nu = 2.5, LAMBDA / (2 * (LAMBDA + MU))
    assert energy_factor(isotropic(), np.array([0, 0, b])) == pytest.approx(MU * b**2 / (4 * np.pi), rel=1e-12)
    edge = MU * b**2 / (4 * np.pi * (1 - nu))
    assert energy_factor(isotropic(), np.array([b, 0, 0])) == pytest.approx(edge, rel=1e-12)


def test_energy_factor_is_that_of_stroh() -> None:
    """K = b·H b/4π with H = -2i Σ L⊗L (Barnett and Lothe's third tensor; Ting 1996): eigenvectors, not an integral."""
    c = triclinic()
    solution = stroh(c)
    by_stroh = MIXED @ (-2j * (solution.L @ solution.L.T)).real @ MIXED / (4 * np.pi)
    assert energy_factor(c, MIXED) == pytest.approx(by_stroh, rel=1e-9)


def test_energy_factor_changes_by_the_energy_of_the_error() -> None:
    """dK = ½∮ΔC β β dθ: to first order the field need not change (Hellmann and Feynman)."""
    c, h = triclinic(), 1e-4
    error = isotropic(0.3) - 0.2 * c
    angle = np.linspace(0, 2 * np.pi, 512, endpoint=False)
    field = distortion(stroh(c), np.column_stack([np.cos(angle), np.sin(angle)]), MIXED)
    slope = np.pi * np.einsum("ijkl,nij,nkl->n", error[:, :2][:, :, :, :2], field, field).mean()
    found = (energy_factor(c + h * error, MIXED) - energy_factor(c - h * error, MIXED)) / (2 * h)
    assert abs(slope) > 1e-2
    assert found == pytest.approx(slope, rel=1e-6)


# GPa added in W as in `PUBLISHED`, and how much larger the energy factor of a screw is (eV/Å), from the same check
@pytest.mark.parametrize(("shift", "change"), [({"C44": 4.0}, 4.9e-3), ({"C11": 3.0, "C12": -1.0, "C44": 2.0}, 7.5e-3)])
def test_energy_factor_of_a_screw_in_tungsten(shift: dict[str, float], change: float) -> None:
    entry = catalogue_entry("bcc", "screw")
    tungsten = cubic_tensor({"C11": 522.54, "C12": 204.221, "C44": 160.755})
    burgers = entry.burgers_frame * 3.16485
    before, after = (energy_factor(rotate(c, entry.frame), burgers) for c in (tungsten, tungsten + cubic_tensor(shift)))
    assert after - before == pytest.approx(change, abs=5e-5)


def test_an_unstable_crystal_has_no_energy_factor() -> None:
    soft = isotropic()
    soft[2, 0, 2, 0] = soft[0, 2, 2, 0] = soft[2, 0, 0, 2] = soft[0, 2, 0, 2] = -0.1
    with pytest.raises(DegenerateElasticity, match="not positive definite"):
        energy_factor(soft, MIXED)


def test_strain_factor_of_an_isotropic_screw() -> None:
    """|∇u|² = (b/2πr)², integrated over an annulus: b²/2π ln(R/r)."""
    solution, b = stroh(isotropic(1e-4)), 2.5
    assert strain_factor(solution, np.array([0, 0, b])) == pytest.approx(b**2 / (2 * np.pi), rel=1e-3)


def test_energy_and_strain_factor_by_quadrature_of_the_field() -> None:
    c = triclinic()
    solution = stroh(c)
    angle = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    gradient = distortion(solution, np.column_stack([np.cos(angle), np.sin(angle)]), MIXED)
    plane = c[:, :2][:, :, :, :2]
    density = np.einsum("ijkl,nij,nkl->n", plane, gradient, gradient) / 2
    assert energy_factor(c, MIXED) == pytest.approx(density.mean() * 2 * np.pi, rel=1e-9)
    assert strain_factor(solution, MIXED) == pytest.approx((gradient**2).sum(axis=(1, 2)).mean() * 2 * np.pi, rel=1e-9)


def test_change_of_the_field_by_quadrature_and_for_one_component() -> None:
    """Two crystals without symmetry; and a screw with c1313 = μ + δμ, whose field changes by what it feels over μ."""
    one, two = stroh(triclinic()), stroh(isotropic(0.2))
    angle = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    change = distortion(one, circle, MIXED) - distortion(two, circle, MIXED)
    assert field_change(one, two, MIXED) == pytest.approx((change**2).sum(axis=(1, 2)).mean() * 2 * np.pi, rel=1e-9)
    assert field_change(one, stroh(1.7 * triclinic()), MIXED) < 1e-20

    error, b = 1e-3, np.array([0.0, 0.0, 2.5])
    wrong = isotropic(1e-4)
    for i, j, k, l in ((0, 2, 0, 2), (2, 0, 0, 2), (0, 2, 2, 0), (2, 0, 2, 0)):  # noqa: E741
        wrong[i, j, k, l] += error * MU
    solution = stroh(isotropic(1e-4))
    felt = error / np.sqrt(8)
    assert field_change(stroh(wrong), solution, b) == pytest.approx(felt**2 * strain_factor(solution, b), rel=3e-3)


# --- what a dislocation feels of an elastic error -------------------------------------------------------------------


def test_felt_part_of_one_component_for_an_isotropic_screw() -> None:
    """σ13 = δμ ∂1 u3 alone is wrong: div σ = δμ b/(2π r²) sin 2θ, whose dual norm over that of ∇u is δμ/√8."""
    form = felt_form(stroh(isotropic(1e-5)), np.array([0, 0, 2.5]), np.eye(3))
    error = np.zeros((3, 3, 3, 3))
    error[2, 0, 2, 0] = 0.7
    assert np.linalg.norm(form @ error.ravel()) == pytest.approx(0.7 / np.sqrt(8), rel=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_dislocation_feels_a_multiple_of_the_constants_or_more_than_the_error(seed: int) -> None:
    c, frame = triclinic(), rotation(seed)
    form = felt_form(stroh(rotate(c, frame)), MIXED, frame)
    assert np.linalg.norm(form) > 0.1
    np.testing.assert_allclose(form @ c.ravel(), 0, atol=1e-11)
    for error in np.random.default_rng(seed).standard_normal((5, 81)):
        assert 0 < np.linalg.norm(form @ error) < np.linalg.norm(error)


def test_a_null_lagrangian_is_not_felt_with_its_stress_and_is_without() -> None:
    """∂²det F pulls on the core with b⊥ = b x e3, and ∂det F = I takes it back: dσ knows nothing of p det F."""
    form = felt_form(stroh(triclinic()), MIXED, np.eye(3))
    identity = np.eye(3)
    second = np.einsum("ij,kl->ijkl", identity, identity) - np.einsum("il,jk->ijkl", identity, identity)
    np.testing.assert_allclose(stress_strain_coefficients(0.3 * identity, 0.3 * second), 0, atol=1e-15)
    alone = np.linalg.norm(MIXED[:2]) / np.sqrt(2 * np.pi * strain_factor(stroh(triclinic()), MIXED))
    assert np.linalg.norm(form @ second.ravel()) == pytest.approx(alone, rel=1e-9)
    # many columns at once, as the rows of a basis have them
    columns = np.random.default_rng(0).standard_normal((90, 4))
    together = stress_strain_coefficients(columns[:9], columns[9:])
    for both, one in zip(columns.T, together.T, strict=True):
        single = stress_strain_coefficients(both[:9].reshape(3, 3), both[9:].reshape((3,) * 4))
        np.testing.assert_allclose(single.ravel(), one, atol=1e-14)


def test_stress_strain_coefficients_are_the_slope_of_the_cauchy_stress() -> None:
    """Of W = p·(F:F)^1.5, isotropic under a stress: σ = ∂W Fᵀ/det F by differences of F."""

    def cauchy(gradient: np.ndarray) -> np.ndarray:
        piola = 3 * np.sqrt((gradient**2).sum()) * gradient
        return piola @ gradient.T / np.linalg.det(gradient)

    identity, root, h = np.eye(3), np.sqrt(3.0), 1e-4
    d2 = root * (3 * np.einsum("ik,jl->ijkl", identity, identity) + np.einsum("ij,kl->ijkl", identity, identity))
    found = stress_strain_coefficients(3 * root * identity, d2)
    for row, column in np.ndindex(3, 3):
        change = h * np.multiply.outer(identity[row], identity[column])
        slope = (cauchy(identity + change) - cauchy(identity - change)) / (2 * h)
        np.testing.assert_allclose(found[:, :, row, column], slope, atol=1e-6)


# Errors of constants (GPa) in W, C = 522.54, 204.221, 160.755 GPa, and what is felt of them (eV/Å^3), from an
# independent check with a Fourier solver
PUBLISHED = [
    ("screw", {"C44": 4.0}, 0.011712),
    ("screw", {"C12": 4.0}, 0.0058854),
    ("edge", {"C44": 4.0}, 0.0122),
    ("edge", {"C12": 4.0}, 0.0100),
    ("edge", {"C11": 4.0, "C12": 4.0}, 0.0086),
    ("mixed", {"C44": 4.0}, 0.0120),
]


@pytest.mark.parametrize(("kind", "shift", "felt"), PUBLISHED)
def test_felt_part_of_wrong_constants_in_tungsten(kind: str, shift: dict[str, float], felt: float) -> None:
    entry = catalogue_entry("bcc", kind)
    tungsten = cubic_tensor({"C11": 522.54, "C12": 204.221, "C44": 160.755})
    form = felt_form(stroh(rotate(tungsten, entry.frame)), entry.burgers_frame * 3.16485, entry.frame)
    digits = 5e-5 * felt if kind == "screw" else 5e-5  # the screw's number, without F0, was right before
    assert np.linalg.norm(form @ cubic_tensor(shift).ravel()) == pytest.approx(felt, abs=digits)


def smeared_dipole(c: np.ndarray, error: np.ndarray, b: np.ndarray, width: float) -> tuple[float, float, float]:
    """‖∇φ‖², ‖β‖² and the energy ½∫β:C:β, per length, of a periodic array of dipoles, each dislocation smeared by a
    Gaussian.

    β = ∇u - β* with div(C:β) = 0 for the slip β* = b⊗e2 between the cores, and -Δφ = div(ΔC:β): sums over the
    reciprocal lattice of `SIZE`, without Stroh's solution, angles or logarithms.
    """
    reach = np.arange(-300, 301)
    k = np.stack([*np.meshgrid(*(2 * np.pi * reach / size for size in SIZE), indexing="ij")], -1).reshape(-1, 2)
    squares = (k**2).sum(axis=1)
    chosen = (squares > 0) & (squares * width**2 < 40)  # exp(-40) of the rest
    assert np.abs(k[chosen]).max() < np.abs(k).max(axis=0).min(), "the reciprocal lattice is cut too soon"
    k, squares = k[chosen], squares[chosen]
    k = np.column_stack([k, np.zeros(len(k))])
    half = SIZE[0] / 4  # from core to core is half the cell
    cut = 2 * half * np.sinc(k[:, 0] * half / np.pi) * np.exp(-squares * width**2 / 2) / (SIZE[0] * SIZE[1])
    slip = cut[:, None, None] * np.multiply.outer(b, [0, 1, 0])
    acoustic = np.einsum("ijkl,nj,nl->nik", c, k, k, optimize=True)
    source = np.einsum("ijkl,nj,nkl->ni", c, k, slip, optimize=True)
    u = -1j * np.linalg.solve(acoustic, source[..., None])[..., 0]
    elastic = 1j * u[:, :, None] * k[:, None, :] - slip
    force = 1j * np.einsum("ijkl,nj,nkl->ni", error, k, elastic, optimize=True)
    displaced = float((np.abs(force) ** 2 / squares[:, None]).sum())
    energy = np.einsum("ijkl,nij,nkl->", c, elastic.conj(), elastic, optimize=True).real / 2
    area = SIZE[0] * SIZE[1]
    return area * displaced, area * float((np.abs(elastic) ** 2).sum()), area * float(energy)


BURGERS = {"mixed": MIXED, "edge": np.array([1.3, 0.0, 0.0]), "screw": np.array([0.0, 0.0, 1.0])}


@pytest.mark.parametrize("b", BURGERS.values(), ids=BURGERS)
def test_felt_part_and_factors_by_smeared_dislocations(b: np.ndarray) -> None:
    """Halving the width w adds felt² κ² ln 2 to ‖∇φ‖², κ² ln 2 to ‖β‖², K ln 2 to the energy, for each dislocation.

    Partner and images at distances d add powers of w²/d²; the halvings show the first two, and take them out.
    """
    c, error = triclinic(), np.random.default_rng(5).standard_normal((3, 3, 3, 3))
    error = error + error.transpose(1, 0, 2, 3)
    error = error + error.transpose(0, 1, 3, 2)
    error = error + error.transpose(2, 3, 0, 1)
    norms = np.array([smeared_dipole(c, error, b, width) for width in (0.8, 0.4, 0.2, 0.1)])
    slopes = np.diff(norms, axis=0) / (2 * np.log(2))
    better = slopes[1:] + np.diff(slopes, axis=0) / 3
    best = better[1] + (better[1] - better[0]) / 15
    solution = stroh(c)
    form = felt_form(solution, b, np.eye(3)) @ error.ravel()
    kappa = strain_factor(solution, b)
    exact = np.array([form @ form * kappa, kappa, energy_factor(c, b)])
    np.testing.assert_allclose(best, exact, rtol=1e-4)
    assert (np.abs(slopes[2] / exact - 1) < 0.3 * np.abs(slopes[0] / exact - 1)).all(), "they converge"
    net = np.linalg.norm(form.reshape(3, -1)[:, -1])
    assert net > 0.1 * np.linalg.norm(form), "the net force on the core counts here"


def test_felt_part_does_not_depend_on_the_axes() -> None:
    c, error, turned = triclinic(), np.random.default_rng(2).standard_normal((3, 3, 3, 3)), rotation(3)
    one = felt_form(stroh(c), MIXED, np.eye(3)) @ error.ravel()
    # the same dislocation in crystal axes that are turned by `turned`: its frame has the rows of turnedᵀ
    other = felt_form(stroh(c), MIXED, turned.T) @ rotate(error, turned).ravel()
    assert np.linalg.norm(other) == pytest.approx(np.linalg.norm(one), rel=1e-9)
