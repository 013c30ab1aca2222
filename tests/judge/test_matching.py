"""Matching numbers: zero for the reference itself, each against a direct computation for a model known to be off."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator
from materials import Sprung
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits

from suite.judge.matching import match_configurations, match_elasticity, match_energy_factor, match_hessian, told
from suite.model.training import Configurations, label, rattle
from suite.results import Rows, World
from suite.world.cell import StraightCell, build_cell
from suite.world.crystal import GPA, Crystal, Response, cubic_tensor, elastic_tensor, null_forms
from suite.world.dislocation import Dislocation, catalogue_entry
from suite.world.elasticity import Line, Stroh, felt_form, rotate, stroh


def paired(world: World, rows: Rows) -> list[tuple[StraightCell, Configurations]]:
    return list(zip(world.training, rows.test, strict=True))


def test_the_reference_matches_itself(world: World, rows: Rows, tungsten_response: Response, zhou: Calculator) -> None:
    found = match_configurations(paired(world, rows), zhou, world.energy_per_atom).numbers
    assert {"eps_E", "eps_F", "rmse_E", "rmse_F", "rms_eps_F", "eps_F_0.1", "rmse_E_0.5"} <= set(found)
    assert max(found.values()) < 1e-8
    elastic = match_elasticity(tungsten_response, tungsten_response, world.felt)
    assert max(abs(v) for k, v in elastic.items() if k != "pressure") == 0


def test_numbers_of_known_errors(world: World, rows: Rows, zhou: Calculator) -> None:
    """Labels shifted by hand: energies by -0.3, 0.2, ..., forces by a known field."""
    ((cell, test),) = paired(world, rows)
    generator = np.random.default_rng(0)
    energy_shift = np.linspace(-0.3, 0.2, len(test))
    force_shift = generator.standard_normal(test.forces.shape) * np.arange(1, len(test) + 1)[:, None, None]
    labels = Configurations(
        test.displacements, test.amplitudes, test.energies - energy_shift, test.forces - force_shift
    )
    found = match_configurations([(cell, labels)], zhou, world.energy_per_atom)
    laplacian = np.linalg.pinv(cell.laplacian.toarray(), rcond=1e-10, hermitian=True)
    dual = np.sqrt([sum(f[:, k] @ laplacian @ f[:, k] for k in range(3)) for f in force_shift])
    np.testing.assert_allclose(found.dual_norms, dual, rtol=1e-6)
    expected = {
        "eps_E": 0.3,
        "rmse_E": np.sqrt(np.mean(energy_shift**2)),
        "eps_F": dual.max(),
        "rms_eps_F": np.sqrt(np.mean(dual**2)),
        "rmse_F": np.sqrt(np.mean(force_shift**2)),
    }
    for alpha in (0.1, 0.5):
        chosen = test.amplitudes == alpha
        assert chosen.any()
        expected[f"rmse_E_{alpha:g}"] = np.sqrt(np.mean(energy_shift[chosen] ** 2))
        expected[f"rmse_F_{alpha:g}"] = np.sqrt(np.mean(force_shift[chosen] ** 2))
        expected[f"eps_F_{alpha:g}"] = dual[chosen].max()
    assert found.numbers == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("cut", [1, 3, 0])
def test_numbers_do_not_depend_on_how_the_test_set_is_cut(
    world: World, rows: Rows, zhou: Calculator, eam4: Calculator, cut: int
) -> None:
    """A loop's test set is cut into two, one for each training cell, and `training.test` may be 1."""
    ((cell, test),) = paired(world, rows)
    whole = match_configurations([(cell, test)], eam4, world.energy_per_atom)
    assert cut < len(test)
    parts = match_configurations([(cell, part) for part in test.split(cut)], eam4, world.energy_per_atom)
    assert whole.numbers["rmse_F"] > 0.1
    assert parts.numbers == pytest.approx(whole.numbers, rel=1e-12)
    np.testing.assert_allclose(np.concatenate(parts.forces), whole.forces[0], atol=1e-12)
    np.testing.assert_allclose(parts.dual_norms, whole.dual_norms, rtol=1e-12)


def test_cells_of_different_sizes_are_judged_together(
    world: World, rows: Rows, screw: Dislocation, tungsten_stroh: Stroh, zhou: Calculator, eam4: Calculator
) -> None:
    """Errors of force are pooled over components, of energy over configurations; the largest is the largest."""
    other = build_cell(world.crystal, screw, tungsten_stroh, "dipole", (5, 7, 1), screw.sites["easy"])
    displacements, amplitudes = rattle(other.predictor, (0.1, 0.5), 5, np.random.default_rng(1))
    sets = [*paired(world, rows), (other, label(other, displacements, amplitudes, zhou, world.energy_per_atom))]
    assert len(sets[0][0]) != len(other)
    single = [match_configurations([one], eam4, world.energy_per_atom).numbers for one in sets]
    both = match_configurations(sets, eam4, world.energy_per_atom).numbers
    configurations = np.array([len(test) for _, test in sets])
    components = configurations * [len(cell) for cell, _ in sets]
    for name, weights in (("rmse_E", configurations), ("rms_eps_F", configurations), ("rmse_F", components)):
        pooled = np.average([numbers[name] ** 2 for numbers in single], weights=weights)
        assert both[name] ** 2 == pytest.approx(pooled, rel=1e-9)
    for name in ("eps_E", "eps_F", "eps_F_0.1"):
        assert both[name] == max(numbers[name] for numbers in single)
    straight = np.zeros_like(other.predictor)
    pair = [(other, straight), (other, other.predictor)]
    errors = [match_hessian([one], zhou, eam4) for one in pair]
    together = match_hessian(pair, zhou, eam4)
    assert together["eps_H_relaxed"] == max(one["eps_H_relaxed"] for one in errors)
    assert together["eps_H_perfect"] == errors[0]["eps_H_perfect"]
    assert errors[1]["eps_H_relaxed"] > 1.01 * errors[0]["eps_H_relaxed"]


def test_dual_norm_bounds_the_work_of_a_force_error(world: World, rows: Rows, zhou: Calculator) -> None:
    """|Σ f·v| <= eps_F ‖Dv‖: why (3.10) is the norm that the theorem needs."""
    ((cell, test),) = paired(world, rows)
    model = Sprung(zhou, cell.reference + world.trained[0].equilibrium.displacement, 0.4)
    found = match_configurations([(cell, test)], model, world.energy_per_atom)
    for seed in range(5):
        v = np.random.default_rng(seed).standard_normal(cell.predictor.shape)
        v -= v.mean(axis=0)
        work = np.abs(((found.forces[0] - test.forces) * v).sum(axis=(1, 2)))
        assert (work <= found.numbers["eps_F"] * cell.strain_norm(v) * (1 + 1e-9)).all()


def test_elastic_numbers_of_a_stiffer_crystal(tungsten_response: Response, world: World) -> None:
    """A model with every constant 2 % too large."""
    r = tungsten_response
    found = match_elasticity(r, Response(r.d1, 1.02 * r.d2, 1.02 * r.d3), world.felt)
    assert found["eps_V1"] == pytest.approx(0.02 * np.linalg.norm(r.d2))
    assert found["eps_V2"] == pytest.approx(0.02 * np.linalg.norm(r.d3))
    assert [found["error_C11"], found["error_C12"], found["error_C44"]] == pytest.approx(
        [0.02 * 522.5, 0.02 * 204.2, 0.02 * 160.75], rel=1e-3
    )
    assert found["eps_stress"] == 0
    assert 0 < found["eps_V1_null_free"] < found["eps_V1"]
    assert found["eps_V1_felt"] == pytest.approx(0, abs=1e-9), "a stiffer crystal is displaced alike"
    factor = match_energy_factor(r, Response(r.d1, 1.02 * r.d2, r.d3), world.line)
    own = world.line.energy(rotate(r.d2, world.line.frame))
    wanted = pytest.approx(0.02 * own, rel=1e-6)
    assert factor == {"energy_factor_difference": wanted, "eps_K": wanted}
    softer = match_energy_factor(r, Response(r.d1, 0.98 * r.d2, r.d3), world.line)
    assert softer == {"energy_factor_difference": pytest.approx(-0.02 * own, rel=1e-6), "eps_K": wanted}
    # a screw in nearly isotropic tungsten, as thick as its Burgers vector: μb³/4π
    b = world.crystal.a0 * np.sqrt(3) / 2
    assert own == pytest.approx(160.755 / GPA * b**3 / (4 * np.pi), rel=0.02)


def test_a_crystal_that_is_not_stable_has_no_energy_factor(tungsten_response: Response, world: World) -> None:
    r = tungsten_response
    found = match_energy_factor(r, Response(r.d1, r.d2 - 1.1 * cubic_tensor({"C44": 160.755}), r.d3), world.line)
    assert found == {"energy_factor_difference": np.inf, "eps_K": np.inf}


def felt_by(kind: str, reference: Response, crystal: Crystal) -> np.ndarray:
    """The form of what a dislocation of bcc feels."""
    entry = catalogue_entry("bcc", kind)
    solution = stroh(rotate(elastic_tensor(reference), entry.frame))
    return felt_form(solution, entry.burgers_frame * crystal.a0, entry.frame)


@pytest.mark.parametrize("kind", ["screw", "edge", "mixed"])
def test_what_no_dislocation_feels_is_not_counted(tungsten_response: Response, tungsten: Crystal, kind: str) -> None:
    """p det F added to W: a pressure and wrong constants, and nothing in the null-free numbers."""
    r, p = tungsten_response, 0.5
    felt = felt_by(kind, r, tungsten)
    identity = np.eye(3)
    d2 = p * (np.einsum("ij,kl->ijkl", identity, identity) - np.einsum("il,jk->ijkl", identity, identity))
    d3 = p * null_forms()[1].reshape((3,) * 6)
    model = Response(r.d1 + p * identity, r.d2 + d2, r.d3 + d3)
    found = match_elasticity(r, model, felt)
    entry = catalogue_entry("bcc", kind)
    factor = match_energy_factor(r, model, Line(entry.frame, entry.burgers_frame * tungsten.a0, 2.7))
    assert factor["eps_K"] == pytest.approx(0, abs=1e-9)
    assert found["eps_V1"] > p
    assert found["eps_V2"] > p
    for name in (
        "eps_V1_null_free",
        "eps_V1_felt",
        "eps_V2_null_free",
        "eps_V1_pressure_free",
        "eps_V2_pressure_free",
        *(f"error_{c}_null_free" for c in ("C11", "C12", "C44")),
    ):
        assert found[name] == pytest.approx(0, abs=1e-9)
    assert found["error_C12"] == pytest.approx(p * GPA)
    assert found["error_C44"] == pytest.approx(-p / 2 * GPA)
    assert found["error_C11"] == pytest.approx(0, abs=1e-9)
    assert found["pressure"] == pytest.approx(-p * GPA, abs=1e-2)


# --- eps_H --------------------------------------------------------------------------------------------------------


def dense_hessian(atoms: Atoms, calculator: Calculator, step: float = 1e-3) -> np.ndarray:
    atoms.calc = calculator
    n = 3 * len(atoms)
    matrix = np.empty((n, n))
    for index in range(n):
        atoms.positions.flat[index] += step
        plus = atoms.get_forces()
        atoms.positions.flat[index] -= 2 * step
        matrix[index] = ((atoms.get_forces() - plus) / (2 * step)).ravel()
        atoms.positions.flat[index] += step
    return (matrix + matrix.T) / 2


def test_eps_h_is_the_largest_generalised_eigenvalue(
    tungsten: Crystal, screw: Dislocation, tungsten_stroh: Stroh, zhou: Calculator, eam4: Calculator
) -> None:
    """Two potentials of tungsten in a cell of 144 atoms, dense."""
    cell = build_cell(tungsten, screw, tungsten_stroh, "dipole", (4, 6, 1), screw.sites["easy"])
    found = match_hessian([(cell, cell.predictor)], zhou, eam4)
    expected = {
        name: largest_eigenvalue(cell, dense_hessian(atoms, zhou) - dense_hessian(atoms, eam4))
        for name, atoms in (("relaxed", cell.atoms(cell.predictor)), ("perfect", cell.perfect_atoms()))
    }
    assert min(expected.values()) > 0.1
    assert found["eps_H_relaxed"] == pytest.approx(expected["relaxed"], rel=1e-2)
    assert found["eps_H_perfect"] == pytest.approx(expected["perfect"], rel=1e-2)
    assert found["eps_H"] == pytest.approx(found["eps_H_relaxed"] + found["eps_H_perfect"])


def largest_eigenvalue(cell: StraightCell, difference: np.ndarray) -> float:
    stencil = np.kron(cell.laplacian.toarray(), np.eye(3))
    blind = np.eye(len(stencil)) - np.kron(np.full((len(cell),) * 2, 1 / len(cell)), np.eye(3))
    # translations: no difference, and a positive K
    with threadpool_limits(1):
        values = eigh(blind @ difference @ blind, stencil + (np.eye(len(stencil)) - blind), eigvals_only=True)
    return float(np.abs(values).max())


def test_eps_h_of_the_reference_is_zero(world: World, zhou: Calculator) -> None:
    found = match_hessian([(world.training[0], world.trained[0].equilibrium.displacement)], zhou, zhou)
    assert found["eps_H"] < 1e-6


def test_tables_tell_an_elastic_error_with_its_noise() -> None:
    numbers = {
        "eps_V1": 0.0123,
        "eps_V1_noise": 1e-4,
        "eps_V2": 3.2,
        "eps_V2_noise": 1.4,
        "eps_F": 0.2,
        "error_C11": -3.0,
    }
    assert [told(numbers, name) for name in ("eps_V1", "eps_V2", "eps_F", "error_C11")] == [
        "0.0123",
        "3.2 ± 1",
        "0.2",
        "-3",
    ]
    assert told(numbers | {"eps_V2_felt": 0.8}, "eps_V2_felt") == "noise (below 1)"
