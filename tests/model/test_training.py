"""Rattled configurations, their labels, and the exact fit when the reference is itself a member of the basis."""

from typing import ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from suite.model.basis import BasisSpec
from suite.model.regression import solve, stack
from suite.model.rows import configuration_blocks, elastic_blocks, elastic_rows, perfect_row
from suite.model.training import Configurations, label, rattle
from suite.results import Rows, World
from suite.spec import Solver, Spec
from suite.world.crystal import response, strain_path


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_rattles_are_bounded_and_take_turns() -> None:
    equilibrium = generator(1).standard_normal((500, 3))
    found, amplitudes = rattle(equilibrium, (0.1, 0.5, 0.02), 7, generator())
    assert found.shape == (7, 500, 3)
    assert amplitudes.tolist() == [0.1, 0.5, 0.02, 0.1, 0.5, 0.02, 0.1]
    for displacement, alpha in zip(found - equilibrium, amplitudes, strict=True):
        lengths = np.linalg.norm(displacement, axis=1)
        assert lengths.max() <= alpha
        # uniform in ±α/√3: mean square α²/9 per component, no drift, no two atoms alike
        assert np.abs(displacement).max() == pytest.approx(alpha / np.sqrt(3), rel=1e-2)
        assert (displacement**2).mean() == pytest.approx(alpha**2 / 9, rel=0.1)
        assert np.abs(displacement.mean(axis=0)).max() < 0.1 * alpha
    assert np.abs(found[0] - found[3]).max() > 0.05


def test_rattles_follow_the_seed() -> None:
    equilibrium = np.zeros((20, 3))
    first, again, other = (rattle(equilibrium, (0.1,), 4, generator(seed))[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_split_keeps_order_and_loses_nothing() -> None:
    whole = Configurations(
        *(generator(k).standard_normal((9, *shape)) for k, shape in enumerate([(4, 3), (), (), (4, 3)]))
    )
    head, tail = whole.split(4)
    assert (len(head), len(tail)) == (4, 5)
    for name in Configurations.__dataclass_fields__:
        both = np.concatenate([getattr(head, name), getattr(tail, name)])
        np.testing.assert_array_equal(both, getattr(whole, name))


class Counting(Calculator):
    """Its energy is the number of its calculations so far: the extreme of an engine that remembers."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]
    count = 0

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert atoms is not None
        self.count += 1
        self.results = {"energy": float(self.count), "forces": np.zeros((len(atoms), 3))}


def test_no_label_depends_on_the_pieces_before(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, ground = world.training[0], world.trained[0].equilibrium.displacement
    monkeypatch.setattr("suite.model.training.ATOMS", 2 * len(cell))
    displacements, amplitudes = rattle(ground, (0.1,), 7, generator())
    for workers in (1, 2):
        found = label(cell, displacements, amplitudes, Counting(), 0.0, workers)
        assert found.energies.tolist() == [1, 2, 1, 2, 1, 2, 1]


def test_the_number_of_workers_changes_no_label(
    world: World, zhou: Calculator, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, ground = world.training[0], world.trained[0].equilibrium.displacement
    monkeypatch.setattr("suite.model.training.ATOMS", 2 * len(cell))
    displacements, amplitudes = rattle(ground, (0.1, 0.5), 7, generator())
    one, two = (label(cell, displacements, amplitudes, zhou, -8.76, workers) for workers in (1, 2))
    np.testing.assert_array_equal(one.energies, two.energies)
    np.testing.assert_array_equal(one.forces, two.forces)


def test_labels_are_relative_to_the_perfect_crystal(world: World, zhou: Calculator) -> None:
    cell = world.training[0]
    straight = cell.perfect_atoms()
    straight.calc = zhou
    ground = world.trained[0].equilibrium
    found = label(cell, ground.displacement[None], np.zeros(1), zhou, world.energy_per_atom)
    expected = ground.energy - straight.get_potential_energy()
    assert found.energies == pytest.approx([expected], abs=1e-8)
    assert expected == pytest.approx(world.training_energies[0], abs=1e-8)
    np.testing.assert_allclose(found.forces[0], ground.forces, atol=1e-9)


def test_labels_of_the_rows_are_those_of_the_reference(world: World, rows: Rows, tiny: Spec, zhou: Calculator) -> None:
    (train,), (test,) = rows.train, rows.test
    assert len(train) == tiny.training.configurations + 1
    assert len(test) == tiny.training.test
    assert train.amplitudes[0] == 0
    assert set(train.amplitudes[1:]) == set(tiny.training.amplitudes)
    for part in (train, test):
        for k in range(len(part)):
            atoms = world.training[0].atoms(part.displacements[k])
            atoms.calc = zhou
            energy = atoms.get_potential_energy() - len(atoms) * world.energy_per_atom
            assert part.energies[k] == pytest.approx(energy, abs=1e-8)
            np.testing.assert_allclose(part.forces[k], atoms.get_forces(), atol=1e-9)
    # rattling costs energy: every training configuration lies above the equilibrium
    assert train.energies[1:].min() > train.energies[0] > 0


def test_labels_of_nothing_have_the_shape_of_nothing(world: World, zhou: Calculator) -> None:
    """One of a loop's two cells may have no test configuration."""
    cell = world.training[0]
    found = label(cell, np.zeros((0, len(cell), 3)), np.zeros(0), zhou, world.energy_per_atom)
    assert found.forces.shape == (0, len(cell), 3)
    assert found.energies.shape == (0,)


class Sick(Calculator):
    """Finite forces until the third configuration."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]
    count = 0

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert atoms is not None
        self.count += 1
        self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3))}
        if self.count > 2:
            self.results["forces"][0] = np.inf


def test_labels_that_are_not_finite_name_the_configuration(world: World) -> None:
    displacements = rattle(world.training[0].predictor, (0.3,), 4, generator())[0]
    with pytest.raises(FloatingPointError, match=r"configuration 2 \(amplitude 0.3 Å\)"):
        label(world.training[0], displacements, np.full(4, 0.3), Sick(), 0.0)


# --- exact fit ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalisation", ["paper", "mean"])
def test_a_reference_in_the_basis_is_fitted_exactly(world: World, tiny: Spec, normalisation: str) -> None:
    """Labels by an ACE potential of the same basis: energies, forces and elasticity come back, on other atoms too."""
    parameters = BasisSpec(("W",), 4.7, (5, 3), (0, 2))
    basis, cell = parameters.build(), world.training[0]
    truth = generator(5).standard_normal(len(basis))
    reference = basis.calculator(truth, -2.0)
    path = strain_path(world.crystal, None, 4e-3)
    perfect = path.undeformed.copy()
    perfect.calc = reference
    energy_per_atom = perfect.get_potential_energy() / len(perfect)
    displacements, amplitudes = rattle(cell.predictor, (0.1, 0.5), 6, generator(6))
    train, test = label(cell, displacements, amplitudes, reference, energy_per_atom).split(4)
    row = perfect_row(basis, path.undeformed)
    blocks = configuration_blocks(parameters, [(cell, train)], row, workers=1)
    assert sorted(blocks) == ["energy@0.1", "energy@0.5", "force@0.1", "force@0.5"]
    assert [blocks[name].rows for name in sorted(blocks)] == [2, 2, 6 * len(cell), 6 * len(cell)]
    blocks |= elastic_blocks(elastic_rows(basis, path, world.crystal.volume), response(world.crystal, reference, path))
    weights = dict.fromkeys(blocks, 2.0)
    solution = solve(stack(blocks, weights, normalisation), Solver(kind="rrqr"))
    for name, block in blocks.items():
        scale = np.abs(block.triangle[:, -1]).max()
        assert block.rmse(solution.coefficients) < (1e-4 if name == "virial2" else 1e-6) * scale
    anchored = energy_per_atom - float(row @ solution.coefficients)
    model = basis.calculator(solution.coefficients, anchored)
    predicted = label(cell, test.displacements, test.amplitudes, model, energy_per_atom)
    assert np.abs(test.forces).max() > 0.1
    np.testing.assert_allclose(predicted.energies, test.energies, atol=1e-6 * np.abs(test.energies).max())
    np.testing.assert_allclose(predicted.forces, test.forces, atol=1e-6 * np.abs(test.forces).max())


def test_exact_fit_without_elastic_rows_recovers_the_coefficients(world: World) -> None:
    """Energies and forces alone are consistent to rounding, so that the coefficients themselves come back."""
    parameters = BasisSpec(("W",), 4.7, (5, 3), (0, 2))
    basis, cell = parameters.build(), world.training[0]
    truth = generator(7).standard_normal(len(basis))
    displacements, amplitudes = rattle(cell.predictor, (0.1, 0.5), 4, generator(8))
    row = perfect_row(basis, world.crystal.deformed(np.eye(3)))
    train = label(cell, displacements, amplitudes, basis.calculator(truth), float(row @ truth))
    blocks = configuration_blocks(parameters, [(cell, train)], row, workers=1)
    solution = solve(stack(blocks, dict.fromkeys(blocks, 1.0), "paper"), Solver(kind="rrqr", tolerance=1e-14))
    used = np.linalg.norm(np.vstack([b.triangle[:, :-1] for b in blocks.values()]), axis=0) > 0
    assert used.sum() > 10
    np.testing.assert_allclose(solution.coefficients[used], truth[used], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("workers", "cut"), [(2, None), (1, 3), (1, 0)])
def test_rows_do_not_depend_on_processes_nor_sets(world: World, rows: Rows, workers: int, cut: int | None) -> None:
    (cell,), (train,) = world.training, rows.train
    sets = [(cell, part) for part in ([train] if cut is None else train.split(cut))]
    seen: list[tuple[int, int]] = []
    blocks = configuration_blocks(rows.recipe, sets, rows.perfect, workers, lambda *report: seen.append(report))
    assert seen[-1] == (len(train), len(train))
    assert set(blocks) < set(rows.blocks)
    for name, block in blocks.items():
        other = rows.blocks[name]
        assert (block.rows, block.target_sum) == (other.rows, pytest.approx(other.target_sum, rel=1e-12))
        grams = [b.triangle.T @ b.triangle for b in (block, other)]
        np.testing.assert_allclose(grams[0], grams[1], atol=1e-10 * np.abs(grams[1]).max())
