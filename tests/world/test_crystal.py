"""Lattice constants and elastic constants against published or independently computed numbers, and exact identities."""

from collections.abc import Callable
from itertools import permutations
from typing import ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from laws import rotation
from materials import Rounded, calculator_of, crystal_of, response_of
from threadpoolctl import threadpool_limits

from suite.world import crystal
from suite.world.crystal import (
    GPA,
    LATTICES,
    STEP,
    VOIGT,
    Crystal,
    NoCrystal,
    Response,
    constants,
    cubic_third_order,
    elastic_tensor,
    equilibrium_crystal,
    green_third_order,
    null_forms,
    path_derivatives,
    relax_shifts,
    response,
    single_precision,
    strain_path,
    without_null_part,
)

# Å and GPa, from a prototype with nested differences of energies; the potentials' papers agree where they print them
SECOND_ORDER = {
    "W_zhou04": (3.16485, 522.5, 204.2, 160.75),
    "W_eam4": (3.14339, 523.04, 202.18, 160.88),
    "Si_ppm17": (5.43356, 172.57, 64.57, 81.29),
    "NiAl_amb95": (2.86299, 231.0, 161.5, 155.1),
}
THIRD_ORDER_NAMES = ("C111", "C112", "C123", "C144", "C155", "C456")
GREEN = {
    "W_eam4": (-5828, -2833, -2654, -2800, -2913, -2720),
    "Si_ppm17": (-1396, -256, -610, -638, -21, -65),
    "NiAl_amb95": (-2589, -421, -298, -792, -894, -787),
}
SYMMETRIC_STRAIN_ZHOU = (-2560, -942, -1123, -790, -534, -718)
# steps of 1e-3 see the table of the Ni-Al potential as ripples of 2 % in C123
COARSE = {"NiAl_amb95": 3e-3}


def response_at_a_good_step(name: str) -> Response:
    return response_of(name, COARSE[name]) if name in COARSE else response_of(name)


def symmetric_in_strains(d3: np.ndarray) -> np.ndarray:
    """Third derivatives with respect to the symmetric strain ε in F = I + ε."""
    for axes in ((1, 0, 2, 3, 4, 5), (0, 1, 3, 2, 4, 5), (0, 1, 2, 3, 5, 4)):
        d3 = (d3 + d3.transpose(axes)) / 2
    return d3


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_lattice_and_elastic_constants(name: str) -> None:
    a0, *expected = SECOND_ORDER[name]
    assert crystal_of(name).a0 == pytest.approx(a0, rel=2e-6)
    found = constants(response_at_a_good_step(name))
    assert [found["C11"], found["C12"], found["C44"]] == pytest.approx(expected, rel=1e-3)
    assert found["pressure"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("name", GREEN)
def test_third_order_constants(name: str) -> None:
    found = constants(response_at_a_good_step(name))
    # the table prints whole GPa
    assert [found[c] for c in THIRD_ORDER_NAMES] == pytest.approx(GREEN[name], rel=1e-2, abs=0.6)


def test_third_order_constants_in_symmetric_strain() -> None:
    d3 = symmetric_in_strains(response_of("W_zhou04").d3) * GPA
    found = [d3[sum((VOIGT[int(k) - 1] for k in name[1:]), ())] for name in THIRD_ORDER_NAMES]
    assert found == pytest.approx(SYMMETRIC_STRAIN_ZHOU, rel=1e-2)


def test_clamped_silicon_is_stiffer_in_shear() -> None:
    """Without relaxing the shift between the two sublattices C44 is 117.20 GPa, and C11, C12 are the same."""
    crystal, calculator = crystal_of("Si_ppm17"), calculator_of("Si_ppm17")
    clamped = constants(response(crystal, calculator, strain_path(crystal)))
    relaxed = constants(response_of("Si_ppm17"))
    assert clamped["C44"] == pytest.approx(117.20, rel=1e-3)
    assert [clamped["C11"], clamped["C12"]] == pytest.approx([relaxed["C11"], relaxed["C12"]], rel=1e-6)


def test_shifts_are_relaxed_along_the_whole_path() -> None:
    crystal, calculator = crystal_of("Si_ppm17"), calculator_of("Si_ppm17")
    path = strain_path(crystal).cells[::83]

    def largest_force() -> float:
        largest = 0.0
        for atoms in path:
            atoms.calc = calculator
            largest = max(largest, float(np.abs(atoms.get_forces()).max()))
            atoms.calc = None
        return largest

    assert largest_force() > 1e-3
    relax_shifts(crystal, calculator, path)
    assert largest_force() < 1e-8


def test_results_do_not_depend_on_the_step() -> None:
    coarse, fine = constants(response_of("W_zhou04", 2e-3)), constants(response_of("W_zhou04"))
    for name, value in fine.items():
        if name != "pressure":
            assert coarse[name] == pytest.approx(value, rel=1e-4 if len(name) == 4 else 1e-5)


@pytest.mark.parametrize("name", ["W_zhou04", "Si_ppm17"])
def test_frame_indifference(name: str) -> None:
    """W(QF) = W(F) and zero stress: second derivatives have the minor symmetries, and with QᵀFQ those of the cube."""
    found = response_of(name)
    c = found.d2
    assert np.abs(found.d1).max() < 1e-7 * np.abs(c).max()
    assert np.abs(c - c.transpose(1, 0, 2, 3)).max() < 1e-5 * np.abs(c).max()
    assert np.abs(c - c.transpose(2, 3, 0, 1)).max() < 1e-9 * np.abs(c).max()
    for order in permutations(range(3)):
        turn = np.eye(3)[list(order)]
        assert np.abs(np.einsum("ia,jb,kc,ld,abcd->ijkl", turn, turn, turn, turn, c) - c).max() < 1e-5 * np.abs(c).max()
    # a rotation costs nothing to third order either: W'''(ω, ε, ε) = -2 C(ε, sym(ωᵀε)) ... at zero stress
    q = rotation(0)
    omega, strain = (q - q.T) / 2, (q + q.T) / 2
    # F = exp(tω)(I + sε): energy depends on s only, so d³W/dt ds² = 0 at t = s = 0
    mixed = np.einsum("ijklmn,ij,kl,mn->", found.d3, omega, strain, strain)
    mixed += 2 * np.einsum("ijkl,ij,kl->", c, omega @ strain, strain)
    assert abs(mixed) < 1e-4 * np.abs(found.d3).max()


def test_path_derivatives_are_exact_for_cubic_polynomials() -> None:
    generator = np.random.default_rng(0)
    linear, square, cube = (generator.standard_normal((9,) * order) for order in (1, 2, 3))
    square = square + square.T
    cube = np.sum([cube.transpose(p) for p in permutations(range(3))], axis=0)
    crystal = Crystal(LATTICES["bcc"], ("W",), 1.0)
    inverse = np.linalg.inv(crystal.vectors)
    step = 0.1
    f = np.array(
        [(inverse @ atoms.cell.array).T.ravel() - np.eye(3).ravel() for atoms in strain_path(crystal, None, step).cells]
    )
    values = (
        7.0 + f @ linear + np.einsum("ij,ai,aj->a", square, f, f) / 2 + np.einsum("ijk,ai,aj,ak->a", cube, f, f, f) / 6
    )
    # two columns, to see that trailing axes are carried along
    d1, d2, d3 = path_derivatives(np.column_stack([values, -2 * values]), step)
    for found, expected in ((d1, linear), (d2, square), (d3, cube)):
        np.testing.assert_allclose(found[:, 0], expected.ravel(), atol=1e-9)
        np.testing.assert_allclose(found[:, 1], -2 * expected.ravel(), atol=1e-9)


def energy_density_response(density: Callable[[np.ndarray], float]) -> Response:
    """Derivatives at I of a function of F, along the path of a unit cube."""
    values = np.array([density(atoms.cell.array.T) for atoms in strain_path(CUBE).cells])
    d1, d2, d3 = path_derivatives(values, STEP)
    return Response(d1.reshape((3,) * 2), d2.reshape((3,) * 4), d3.reshape((3,) * 6))


CUBE = Crystal(LATTICES["B2"], ("H", "H"), 1.0)


def test_what_later_runs_use_does_not_depend_on_who_asked_first() -> None:
    """A call in a notebook may have had all cores."""
    found = []
    for threads in (1, 2):
        crystal._polarisation.cache_clear()
        with threadpool_limits(threads):
            found.append(crystal._polarisation())
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


def test_both_steps_on_one_path_are_the_two_paths(tungsten: Crystal, zhou: Calculator) -> None:
    both = response(tungsten, zhou, strain_path(tungsten, None, STEP, coarse=True))
    assert both.coarse is not None
    for found, step in ((both, STEP), (both.coarse, 2 * STEP)):
        alone = response(tungsten, zhou, strain_path(tungsten, None, step))
        for order in ("d1", "d2", "d3"):
            np.testing.assert_array_equal(getattr(found, order), getattr(alone, order))
    with pytest.raises(ValueError, match="one strain step only"):
        _ = both.coarse.noise


def test_noise_is_the_error_of_rounded_energies(tungsten: Crystal, zhou: Calculator) -> None:
    """Of a potential of 32 bits the exact derivatives are known: the noise says how wrong they are, at every step."""
    exact = response(tungsten, zhou, strain_path(tungsten, None, STEP, coarse=True))
    assert exact.noise[1] < 1e-6
    for step in (1e-3, 1e-2):
        found = response(tungsten, Rounded(zhou), strain_path(tungsten, None, step, coarse=True))
        for order, noise in zip(("d2", "d3"), found.noise[1:], strict=True):
            wrong = np.linalg.norm(getattr(found, order) - getattr(exact, order))
            assert wrong / 3 < noise, (step, order)
            if step == 1e-3:  # rounding rules; at the larger step twice the step truncates, and noise is an upper bound
                assert noise < 3 * wrong, order


def test_single_precision_is_noticed(tungsten: Crystal, zhou: Calculator) -> None:
    assert single_precision(tungsten, Rounded(zhou))
    assert not single_precision(tungsten, zhou)


def random_strain_tensor(order: int, seed: int) -> np.ndarray:
    """A tensor of `order` strains with all minor and major symmetries."""
    tensor = np.random.default_rng(seed).standard_normal((6,) * order)
    tensor = np.sum([tensor.transpose(p) for p in permutations(range(order))], axis=0)
    voigt = np.zeros((3, 3), dtype=int)
    for k, (i, j) in enumerate(VOIGT):
        voigt[i, j] = voigt[j, i] = k
    flat = voigt.ravel()
    return tensor[np.ix_(*[flat] * order)].reshape((3,) * (2 * order))


def test_green_third_order_of_a_material_known_in_green_strain() -> None:
    """W(F) = ½ C(E, E) + ⅙ C3(E, E, E) with E = (FᵀF - I)/2, St. Venant-Kirchhoff and one order more."""
    c2, c3 = random_strain_tensor(2, 1), random_strain_tensor(3, 2)

    def density(f: np.ndarray) -> float:
        e = (f.T @ f - np.eye(3)) / 2
        second = np.einsum("ijkl,ij,kl->", c2, e, e)
        return float(second / 2 + np.einsum("ijklmn,ij,kl,mn->", c3, e, e, e, optimize=True) / 6)

    found = energy_density_response(density)
    np.testing.assert_allclose(elastic_tensor(found), c2, atol=1e-7)
    np.testing.assert_allclose(green_third_order(found), c3, atol=1e-4)
    # the correction is not small: symmetric-strain derivatives are others
    assert np.abs(symmetric_in_strains(found.d3) - c3).max() > 1


def test_determinant_lies_in_the_null_forms() -> None:
    found = energy_density_response(lambda f: float(np.linalg.det(f)))
    assert np.abs(found.d2).max() == pytest.approx(1, rel=1e-6)
    assert np.abs(found.d3).max() == pytest.approx(1, rel=1e-3)
    assert np.abs(without_null_part(found.d2)).max() < 1e-8
    assert np.abs(without_null_part(found.d3)).max() < 1e-5


def test_minors_lie_in_the_null_forms_and_squares_do_not() -> None:
    for i, j in ((0, 0), (1, 2), (2, 0)):

        def minor(f: np.ndarray, i: int = i, j: int = j) -> float:
            return float(np.linalg.det(np.delete(np.delete(f, i, 0), j, 1)))

        assert np.abs(without_null_part(energy_density_response(minor).d2)).max() < 1e-8
    assert np.linalg.matrix_rank(null_forms()[0]) == 9
    square = energy_density_response(lambda f: float(f[0, 1] ** 2))
    np.testing.assert_allclose(without_null_part(square.d2), square.d2, atol=1e-8)
    assert np.abs(square.d2).max() == pytest.approx(2, rel=1e-6)


def test_projection_removes_only_the_null_part() -> None:
    generator = np.random.default_rng(3)
    for order, null in ((2, null_forms()[0]), (3, null_forms()[1])):
        tensor = generator.standard_normal((3,) * (2 * order))
        rest = without_null_part(tensor)
        assert np.abs(null.T @ rest.ravel()).max() < 1e-12
        np.testing.assert_allclose(without_null_part(rest), rest, atol=1e-13)
        added = tensor + (null @ generator.standard_normal(null.shape[1])).reshape(tensor.shape)
        np.testing.assert_allclose(without_null_part(added), rest, atol=1e-12)


def test_pressure_of_a_null_lagrangian_hides_in_the_constants(tungsten_response: Response) -> None:
    """p det F changes C12 by p, C44 by -p/2, C11 not at all, and the pressure by -p."""
    p = 0.3
    determinant = energy_density_response(lambda f: p * float(np.linalg.det(f)))
    before = constants(tungsten_response)
    after = constants(Response(*(getattr(tungsten_response, d) + getattr(determinant, d) for d in ("d1", "d2", "d3"))))
    changes = [after[name] - before[name] for name in ("C11", "C12", "C44", "pressure")]
    assert changes == pytest.approx([0, p * GPA, -p / 2 * GPA, -p * GPA], abs=1e-5 * GPA)


def test_lattice_constant_is_a_minimum(tungsten: Crystal, zhou: Calculator) -> None:
    def energy(a0: float) -> float:
        atoms = Crystal(tungsten.lattice, tungsten.species, a0).deformed(np.eye(3))
        atoms.calc = zhou
        return atoms.get_potential_energy()

    lowest = energy(tungsten.a0)
    assert lowest < min(energy(tungsten.a0 * (1 - 1e-4)), energy(tungsten.a0 * (1 + 1e-4)))
    atoms = tungsten.deformed(np.eye(3))
    atoms.calc = zhou
    assert np.abs(atoms.get_stress()).max() * GPA < 1e-4


def test_fcc_copper_in_emt() -> None:
    """Another lattice, another calculator; a0 as ASE's own tests have it for EMT copper (3.59 Å)."""
    assert equilibrium_crystal(LATTICES["fcc"], ("Cu",), EMT()).a0 == pytest.approx(3.59, abs=0.01)


class Repulsive(Calculator):
    """Energy that falls with the volume: no crystal at all."""

    implemented_properties: ClassVar[list[str]] = ["energy"]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert atoms is not None
        self.results = {"energy": 1 / atoms.get_volume()}


def test_no_crystal_is_refused() -> None:
    with pytest.raises(NoCrystal, match=r"no energy minimum of W for a0 in \[.*\] Å"):
        equilibrium_crystal(LATTICES["bcc"], ("W",), Repulsive())


class Runaway(Calculator):
    """A second sublattice that is pushed on for ever."""

    implemented_properties: ClassVar[list[str]] = ["forces"]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert atoms is not None
        push = self.push(atoms.positions[1] - atoms.positions[0])
        self.results = {"forces": np.array([-push, push])}

    def push(self, between: np.ndarray) -> np.ndarray:
        return 2 + np.tanh(between)


class Nothing(Runaway):
    """A potential that ends before the nearest neighbours."""

    def push(self, between: np.ndarray) -> np.ndarray:
        return np.zeros_like(between)


def test_sublattices_that_nothing_holds_are_refused() -> None:
    with pytest.raises(NoCrystal, match="sublattices of Si can be shifted against each other without any force"):
        strain_path(Crystal(LATTICES["diamond"], ("Si",), 5.43), Nothing())


def test_unstable_internal_shift_is_refused() -> None:
    with pytest.raises(NoCrystal, match="the internal shift of Si does not relax"):
        strain_path(Crystal(LATTICES["diamond"], ("Si",), 5.43), Runaway())


def test_third_order_constants_are_shifted_by_what_is_asked_for() -> None:
    """Each constant by its own amount, in a crystal that has others; with the symmetries of a third derivative."""
    wanted = {"C111": 5.0, "C112": -4.0, "C123": 3.0, "C144": 2.0, "C155": -1.0, "C456": 7.0}
    tensor = cubic_third_order(wanted)
    for axes in ((1, 0, 2, 3, 4, 5), (0, 1, 2, 3, 5, 4), (2, 3, 0, 1, 4, 5), (4, 5, 2, 3, 0, 1)):
        np.testing.assert_array_equal(tensor, tensor.transpose(axes))
    before = response_of("W_zhou04")
    shifted = constants(Response(before.d1, before.d2, before.d3 + tensor))
    for name, value in constants(before).items():
        assert shifted[name] - value == pytest.approx(wanted.get(name, 0.0), abs=1e-9)
