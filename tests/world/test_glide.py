"""Dislocations that glide freely: the neutral mode is found, held, and told; what holds it is exact."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pytest
from ase.calculators.calculator import Calculator
from materials import Sprung, calculator_of, crystal_of, response_of
from scipy.sparse import coo_array, csr_array, eye_array, kron

from suite.judge.errors import Comparison, Ground, compare
from suite.judge.remarks import remarks
from suite.world.cell import StraightCell, build_cell, crystal_metric
from suite.world.crystal import elastic_tensor, energy_per_atom
from suite.world.curvature import Curvature
from suite.world.dislocation import catalogue_entry, nearest_image
from suite.world.elasticity import rotate, stroh
from suite.world.glide import NEUTRAL, Glide, Holding, common_glide, neutral_glide
from suite.world.hessian import (
    COARSE,
    FINE,
    Factor,
    HessianProducts,
    _with_zero_row_sums,
    hessian,
    interaction_range,
    stability_constant,
)
from suite.world.relaxation import Relaxation, Status, relax

COPPER = "Cu_mishin1"


@dataclass
class Walls:
    """A relaxed edge dipole in copper; the fewer colours of its Hessian make it faster than smaller cells."""

    cell: StraightCell
    equilibrium: Relaxation
    calculator: Calculator

    @cached_property
    def matrix(self) -> csr_array:
        return hessian(self.cell, self.calculator, self.equilibrium.displacement, threshold=FINE)

    @cached_property
    def free(self) -> Factor:
        return Factor(self.matrix)

    @cached_property
    def softest(self) -> tuple[float, np.ndarray]:
        return stability_constant(self.cell, self.matrix, self.free)

    @cached_property
    def glide(self) -> Glide:
        found = neutral_glide(self.cell, self.equilibrium.displacement, *self.softest)
        assert found is not None
        return found

    @cached_property
    def factor(self) -> Factor:
        return self.free.holding(self.glide.pull)

    @cached_property
    def held(self) -> tuple[float, np.ndarray]:
        return stability_constant(self.cell, self.matrix, self.factor)

    @property
    def curvature(self) -> Curvature:
        return Curvature(lambda f, _: self.factor.solve(f), self.factor.solve, *self.held, self.glide)

    def random(self, seed: int) -> np.ndarray:
        field = np.random.default_rng(seed).standard_normal(self.cell.reference.shape)
        return field - field.mean(axis=0)


@pytest.fixture(scope="module")
def walls() -> Walls:
    entry, calculator = catalogue_entry("fcc", "edge"), calculator_of(COPPER)
    solution = stroh(rotate(elastic_tensor(response_of(COPPER)), entry.frame))
    cell = build_cell(crystal_of(COPPER), entry, solution, "dipole", entry.repeats(36, 12), entry.sites["between"])
    start = cell.predictor + 0.01 * np.random.default_rng(0).standard_normal(cell.predictor.shape)
    equilibrium = relax(cell, calculator, crystal_metric(cell, calculator).solve, start, 1e-5)
    assert equilibrium.status is Status.CONVERGED
    return Walls(cell, equilibrium, calculator)


def test_edges_of_copper_glide_freely(walls: Walls) -> None:
    """The mode is the motion of all dislocations together; the next one, against each other, costs hundreds of
    times as much. Forces, whose range is not cut, say the same of its curvature."""
    curvature = walls.softest[0]
    assert abs(curvature) < NEUTRAL
    assert walls.held[0] > 50 * NEUTRAL
    found = walls.glide
    assert walls.cell.strain_norm(found.mode) == pytest.approx(1)
    together = common_glide(walls.cell, walls.equilibrium.displacement)
    share = float((found.pull * together).sum()) / walls.cell.strain_norm(together)
    assert share**2 > 0.8
    products = HessianProducts(walls.cell, walls.calculator, walls.equilibrium.displacement, walls.factor.solve)
    assert abs((found.mode * products.product(found.mode)).sum() - curvature) < NEUTRAL / 2
    # the mode of c0 is in the complement
    assert abs((found.pull * walls.held[1]).sum()) < 1e-6 * walls.cell.strain_norm(walls.held[1])


def test_a_coarse_hessian_does_not_see_it(walls: Walls) -> None:
    """Why splitting cores have a finer one: without the tail that is cut off, the neutral mode would be a saddle."""
    cell, fine, mode = walls.cell, walls.matrix.tocoo(), walls.glide.mode.ravel()
    reach = interaction_range(cell, walls.calculator, walls.equilibrium.displacement, COARSE)
    plane = cell.reference[:, :2]
    away = nearest_image(plane[fine.row // 3] - plane[fine.col // 3], np.diag(cell.vectors_perfect)[:2])
    kept = np.linalg.norm(away, axis=1) < reach
    assert 0 < (~kept).sum() < len(kept) / 2
    cut = coo_array((fine.data[kept], (fine.row[kept], fine.col[kept])), shape=fine.shape).tocsr()
    assert mode @ (_with_zero_row_sums(cut) @ mode) < -3 * NEUTRAL


def test_gliding_is_minus_the_gradient(walls: Walls) -> None:
    """The predictor of dislocations one period further to the right is the old one, one period further to the right."""
    cell, u = walls.cell, walls.equilibrium.displacement
    grid = u.reshape(*cell.repeats, cell.unit_sites, 3)
    period = cell.vectors_perfect[0, 0] / cell.repeats[0]
    ahead, behind = (np.roll(grid, sign, axis=0).reshape(-1, 3) for sign in (1, -1))
    change = (ahead - behind) / (2 * period)
    bonds = np.abs(common_glide(cell, u) - change + change.mean(axis=0))
    far = np.abs(cell.reference[:, 1] - cell.cores[0, 1]) > 2 * cell.a0  # away from the cut they agree as they are
    assert far.any()
    np.testing.assert_allclose(bonds[far] - bonds[far].mean(axis=0), 0, atol=1e-9)


def test_only_small_curvatures_of_glide_are_neutral(walls: Walls) -> None:
    cell, u = walls.cell, walls.equilibrium.displacement
    curvature, mode = walls.softest
    assert neutral_glide(cell, u, -NEUTRAL / 2, mode) is not None
    for other in (2 * NEUTRAL, -2 * NEUTRAL):
        assert neutral_glide(cell, u, other, mode) is None
    assert neutral_glide(cell, u, curvature, walls.held[1]) is None, "dislocations that glide against each other"
    assert neutral_glide(cell, u, curvature, walls.random(4)) is None
    assert neutral_glide(replace(cell, fault=None), u, curvature, mode) is None


def test_a_held_factor_solves_in_the_complement(walls: Walls) -> None:
    """gᵀK u = 0, H u = f - μ K g, symmetric, and no trace of the neutral mode, 1/λ long as it is."""
    f, other = walls.random(1), walls.random(2)
    u = Factor(walls.matrix, walls.glide.pull).solve(f)
    pull = walls.glide.pull
    scale = float(np.abs(u).max())
    assert abs((pull * u).sum()) < 1e-9 * scale
    left = f - (walls.matrix @ u.ravel()).reshape(f.shape)
    mu = walls.glide.along(left)
    # the atom that is held takes what rows lack to zero, as in test_hessian
    np.testing.assert_allclose(left - mu * pull, 0, atol=1e-4)
    assert (other * u).sum() == pytest.approx((f * walls.factor.solve(other)).sum(), rel=1e-6, abs=1e-6 * scale)
    assert walls.cell.strain_norm(u) < np.sqrt((f**2).sum()) / walls.held[0]


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_of_the_neutral_curvature_does_not_matter(walls: Walls, sign: int) -> None:
    """All λ shifted, so that the neutral one is ± 5e-6: a minimum or a saddle in full, the same in the complement."""
    stencil = kron(walls.cell.laplacian, eye_array(3), format="csr")
    shifted = (walls.matrix + (sign * 5e-6 - walls.softest[0]) * stencil).tocsr()
    full = Factor(shifted)
    held = full.holding(walls.glide.pull)
    assert full.negative_eigenvalues == (0 if sign > 0 else 1)
    assert held.negative_eigenvalues == 0
    assert stability_constant(walls.cell, shifted, full)[0] == pytest.approx(sign * 5e-6, abs=1e-7)
    assert stability_constant(walls.cell, shifted, held)[0] == pytest.approx(walls.held[0], rel=0.02)


def test_a_model_is_judged_modulo_glide(walls: Walls) -> None:
    """A model that only pushes along the neutral mode has no error but a glide force; free, it would glide away."""
    cell, ground, glide = walls.cell, walls.equilibrium.displacement, walls.glide
    energy_per = energy_per_atom(crystal_of(COPPER), walls.calculator)
    energy = walls.equilibrium.energy - len(cell) * energy_per
    stiffness = 1e-3
    # springs pull every atom to where it is after a glide, so that they push along g, and along little else
    home = cell.reference + ground + 0.5 * glide.mode
    pushed = Sprung(walls.calculator, home, stiffness)

    def judged(curvature: Curvature) -> Comparison:
        return compare(Ground(cell, walls.equilibrium, energy, curvature), pushed, energy_per, 1e-5, 60)

    found = judged(walls.curvature)
    assert found.relaxation.status is Status.CONVERGED
    force = stiffness * 0.5 * float((glide.mode**2).sum())
    assert found.glide_force == pytest.approx(force, rel=0.2)
    curvature = walls.softest[0] + stiffness * float((glide.mode**2).sum())
    assert found.glide_curvature == pytest.approx(curvature, abs=NEUTRAL / 2)
    moved = found.relaxation.displacement - ground
    assert abs((glide.pull * moved).sum()) < 1e-6
    assert found.geometry_error is not None
    assert found.geometry_error == pytest.approx(found.linear_geometry_error, rel=0.3, abs=1e-3)
    assert found.stability == pytest.approx(walls.held[0], rel=0.2)
    loose = Curvature(lambda f, _: walls.free.solve(f), walls.free.solve, *walls.softest)
    assert judged(loose).linear_geometry_error > 100 * found.linear_geometry_error


def test_forces_of_a_held_calculator_are_derivatives_in_the_complement(walls: Walls) -> None:
    holding = Holding(walls.calculator, walls.glide)
    v = walls.random(5)
    v = v - walls.glide.mode * (walls.glide.pull * v).sum()
    step = 1e-4
    energies = []
    start = walls.equilibrium.displacement + 0.01 * v
    for sign in (1, -1):
        atoms = walls.cell.atoms(start + sign * step * v)
        atoms.calc = holding
        energies.append(atoms.get_potential_energy())
    atoms = walls.cell.atoms(start)
    atoms.calc = holding
    forces = atoms.get_forces()
    assert -(forces * v).sum() == pytest.approx((energies[0] - energies[1]) / (2 * step), rel=1e-5)
    assert abs(walls.glide.along(forces)) < 1e-10


def test_a_barrier_of_the_model_is_told() -> None:
    (told,) = remarks({"glide_curvature_model": -3 * NEUTRAL})
    assert "Peierls barrier" in told
    assert not remarks({"glide_curvature_model": -NEUTRAL / 3})
