"""The far-field perturbation: forces of its energy, silence where it must not act, derivatives of its order alone."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator
from laws import derivative_error
from materials import calculator_of, crystal_of

from suite.ladders import SETTINGS
from suite.model.perturbed import NEAREST, PerturbedCalculator, perturbed, screw_strain, springs, sprung
from suite.pipeline import assess, build_rows, build_world, fit
from suite.spec import load
from suite.world.crystal import Crystal, response, strain_path


def rattled(amplitude: float, seed: int = 0) -> Atoms:
    atoms = crystal_of("W_zhou04_smooth").deformed(np.eye(3)) * (5, 5, 5)
    atoms.positions += amplitude * np.random.default_rng(seed).uniform(-1, 1, atoms.positions.shape) / np.sqrt(3)
    return atoms


def spring(order: int, beyond: float = 4.0, amplitude: float = 1.0) -> PerturbedCalculator:
    found = perturbed("W_zhou04_smooth", "W", order, beyond, amplitude)
    assert isinstance(found, PerturbedCalculator)
    return found


@pytest.mark.parametrize(("order", "amplitude"), [(2, 30.0), (3, 1e4), (4, 1e6)])
def test_forces_are_those_of_the_energy(order: int, amplitude: float) -> None:
    calculator, atoms = spring(order, amplitude=amplitude), rattled(0.03)
    direction = np.random.default_rng(1).standard_normal(atoms.positions.shape)

    def energy(step: float) -> float:
        moved = atoms.copy()
        moved.positions += step * direction
        return calculator.springs(moved)[0]

    forces = calculator.springs(atoms)[1]
    # half of the atoms are near the strain where the springs fade: the test sees χ change
    assert derivative_error(energy, -float((forces * direction).sum())) < 1e-5
    np.testing.assert_allclose(forces.sum(axis=0), 0, atol=1e-9 * np.abs(forces).max())


def test_springs_add_to_the_reference_and_vanish_where_it_is_strained(zhou: Calculator) -> None:
    weak, strong = rattled(0.02), rattled(0.5)
    calculator = spring(2, amplitude=10.0)
    for atoms, silent in ((weak, False), (strong, True)):
        plain, changed = atoms.copy(), atoms.copy()
        plain.calc, changed.calc = zhou, calculator
        difference = changed.get_forces() - plain.get_forces()
        assert (np.abs(difference).max() < 1e-9) == silent
        np.testing.assert_allclose(difference, calculator.springs(atoms)[1], atol=1e-9)
        energy = changed.get_potential_energy() - plain.get_potential_energy()
        assert energy == pytest.approx(calculator.springs(atoms)[0], abs=1e-9)


def test_an_atom_without_all_its_neighbours_is_left_alone() -> None:
    """Around a vacancy in a crystal that is otherwise perfect, bonds are perfect too: what counts is their number."""
    atoms = rattled(0.0)
    calculator = spring(2, amplitude=10.0)
    stretched = atoms.cell.array * 1.002
    atoms.set_cell(stretched, scale_atoms=True)
    whole = calculator.springs(atoms)[0] / len(atoms)
    del atoms[0]
    assert whole > 1e-6
    assert calculator.springs(atoms)[0] == pytest.approx((len(atoms) - 14) * whole, rel=1e-9)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_derivatives_below_the_order_are_those_of_the_reference(order: int, zhou: Calculator) -> None:
    crystal: Crystal = crystal_of("W_zhou04_smooth")
    path = strain_path(crystal, None, 5e-4)
    amplitude = {2: 1.0, 3: 10.0, 4: 100.0}[order]
    changed, plain = response(crystal, spring(order, amplitude=amplitude), path), response(crystal, zhou, path)
    assert np.linalg.norm(changed.d1 - plain.d1) < 1e-8
    errors = [float(np.linalg.norm(getattr(changed, d) - getattr(plain, d))) for d in ("d2", "d3")]
    # W gains amplitude/volume Σ q^k over 8 bonds, q = n·εn to first order: ∂^k W is k! amplitude/volume Σ (n⊗n)^k
    bonds = np.array([(a, b, c) for a in (1, -1) for b in (1, -1) for c in (1, -1)]) / np.sqrt(3)
    pairs = np.einsum("bi,bj->bij", bonds, bonds).reshape(8, 9)
    volume = crystal.volume
    if order == 2:
        expected = 2 * amplitude / volume * np.linalg.norm(np.einsum("ba,bc->ac", pairs, pairs))
        assert errors[0] == pytest.approx(expected, rel=1e-5)
    if order == 3:
        expected = 6 * amplitude / volume * np.linalg.norm(np.einsum("ba,bc,bd->acd", pairs, pairs, pairs))
        assert errors[0] < 1e-6
        assert errors[1] == pytest.approx(expected, rel=1e-3)
    if order == 4:
        assert max(errors) < 1e-3


def test_screw_strain_is_that_of_the_field() -> None:
    """(Σ q²)^½ over 14 bonds in the field of a screw, at two distances and any angle, to first order in the strain."""
    line = np.ones(3) / np.sqrt(3)
    across = np.array([1, -1, 0]) / np.sqrt(2)
    other = np.cross(line, across)
    shell = [np.array(s) / np.sqrt(3) for s in [(a, b, c) for a in (1, -1) for b in (1, -1) for c in (1, -1)]]
    shell += [sign * axis for axis in np.eye(3) for sign in (1, -1)]
    for distance in (3.0, 7.0):
        for angle in (0.0, 0.4, 2.0):
            around = -np.sin(angle) * across + np.cos(angle) * other
            strain = NEAREST / (2 * np.pi * distance) * (np.outer(around, line) + np.outer(line, around)) / 2
            found = np.sqrt(sum((n @ strain @ n) ** 2 for n in shell))
            assert screw_strain(distance) == pytest.approx(found, rel=1e-9)


def test_springs_of_several_orders_are_their_sum(zhou: Calculator) -> None:
    atoms = rattled(0.02)
    together = sprung("W_zhou04_smooth", "W", [2, 3, 4], 2.0, [0.5, -3.0, 7.0])
    base, *functions = springs("W_zhou04_smooth", "W", [2, 3, 4], 2.0)
    assert base.get_potential_energy(atoms) == zhou.get_potential_energy(atoms)
    found = [(each.get_potential_energy(atoms), each.get_forces(atoms)) for each in functions]
    assert min(abs(energy) for energy, _ in found) > 0
    energy = base.get_potential_energy(atoms) + sum(c * e for c, (e, _) in zip([0.5, -3.0, 7.0], found, strict=True))
    forces = base.get_forces(atoms) + sum(c * f for c, (_, f) in zip([0.5, -3.0, 7.0], found, strict=True))
    assert together.get_potential_energy(atoms) == pytest.approx(energy, rel=1e-12)
    np.testing.assert_allclose(together.get_forces(atoms), forces, atol=1e-10)


@pytest.mark.parametrize(("order", "beyond"), [(1, 4.0), (2, 0.0), (3, -1.0)])
def test_impossible_perturbations_are_refused(order: int, beyond: float) -> None:
    calculator_of("W_zhou04_smooth")
    with pytest.raises(ValueError, match="must be 2 or more"):
        perturbed("W_zhou04_smooth", "W", order, beyond, 1.0)


def test_elastic_observables_fix_one_order_of_springs_after_the_other() -> None:
    """Table 1 by a fit: the coefficients that energies, forces, V1 and V2 see, of the reference and of three orders."""
    plain = load("w-springs", "tiny")
    world = build_world(plain)
    rows = build_rows(plain, world)
    known: dict[str, list[float]] = {
        "no elasticity": [1.0, 0.0, 0.0, 0.0],
        "CLE": [1.0, 0.1, 0.0, 0.0],
        "CLE+nonlinear": [1.0, 0.1, 5.0, 0.0],
    }
    found = {}
    for name, expected in known.items():
        words = [f"observables.{key}={'true' if on else 'false'}" for key, on in SETTINGS[name].items()]
        spec = load("w-springs", "tiny", words)
        model = fit(spec, rows)
        # second derivatives see a little of the third order by the strain step, and third derivatives of the fourth
        np.testing.assert_allclose(model.coefficients[:3], expected[:3], rtol=2e-2, atol=2e-2)
        found[name] = assess(spec, world, rows, model).numbers
    errors = [found[name]["geometry_error"] for name in known]
    assert errors[0] > 1.5 * errors[1] > 1.5 * errors[2], "24 a0 are few for a rate, and enough for an order"
    assert found["no elasticity"]["rmse_F"] < 1e-9
