"""Shockley partials: found where they were put, judged, and compared with elastic theory."""

import numpy as np
import pytest
from materials import LAMBDA, MU, calculator_of, crystal_of, isotropic, response_of

from suite.world.cell import StraightCell, build_cell, crystal_metric
from suite.world.crystal import LATTICES, Crystal, elastic_tensor
from suite.world.dislocation import Dislocation, catalogue_entry, find_cores
from suite.world.elasticity import Stroh, periodic_displacement, rotate, stroh
from suite.world.partials import (
    UnstableFault,
    disregistry,
    elastic_separation,
    fault_energy,
    separation_in_cell,
    stacking_fault_energy,
)
from suite.world.relaxation import Status, relax

COPPER = "Cu_mishin1"
KINDS = pytest.mark.parametrize("kind", ["screw", "edge"])
GPA_NM = 16021.766  # eV/Å^2 -> mJ/m^2


def elasticity(dislocation: Dislocation) -> np.ndarray:
    return rotate(elastic_tensor(response_of(COPPER)), dislocation.frame)


def copper_cell(kind: str, arrangement: str = "dipole", height: float = 12.0, width: float = 40.0) -> StraightCell:
    entry = catalogue_entry("fcc", kind)
    repeats = entry.repeats(width, height)
    solution = stroh(elasticity(entry))
    return build_cell(crystal_of(COPPER), entry, solution, arrangement, repeats, entry.sites["between"])


def split(cell: StraightCell, separation: float, shift: float = 0.0) -> np.ndarray:
    """The elastic field of partials at ± separation / 2 of every core, all moved by `shift` along the plane, Å."""
    assert cell.fault is not None
    entry = catalogue_entry("fcc", "screw" if abs(cell.burgers[0, 0]) < 1e-9 else "edge")
    places, burgers = [], []
    for core, b in zip(cell.cores, cell.burgers, strict=True):
        right = cell.fault if b @ cell.fault > 0 else cell.fault + b
        places += [core + np.array([shift + sign * separation / 2, 0]) for sign in (-1, 1)]
        burgers += [b - right, right]
    size = (float(cell.vectors_perfect[0, 0]), float(cell.vectors_perfect[1, 1]))
    u, tilt = periodic_displacement(
        stroh(elasticity(entry)), cell.reference[:, :2], np.array(places), np.array(burgers), size
    )
    return u + cell.reference[:, 1:2] / size[1] * (cell.vectors[1] - cell.vectors_perfect[1] - tilt)


@KINDS
@pytest.mark.parametrize("separation", [12.0, 20.0, 30.0])
def test_partials_are_found_where_they_were_put(kind: str, separation: float) -> None:
    """The tails of near ones overlap: see `find_partials`."""
    cell = copper_cell(kind, "quadrupole" if kind == "screw" else "walls", 16, 48)
    found = cell.partials(split(cell, separation, shift=3.0))
    assert found is not None
    np.testing.assert_allclose(found.separation, separation, atol=1.5 if separation < 15 else 1.0)
    np.testing.assert_allclose(found.centre[:, 0] - cell.cores[:, 0], 3.0, atol=0.5)
    planes = np.unique(cell.reference[:, 1].round(6))
    for height in found.positions[..., 1].ravel():
        assert np.abs(planes - height).min() == pytest.approx(np.diff(planes).min() / 2, abs=1e-4)


@KINDS
def test_a_compact_core_has_no_partials(kind: str) -> None:
    cell = copper_cell(kind)
    found = cell.partials(cell.predictor)
    assert found is not None
    assert np.isnan(found.positions).all()
    assert cell.judge(cell.predictor, 3.0)[0] == "moved"


def test_dislocations_that_do_not_split_have_none(tungsten_stroh: Stroh) -> None:
    screw = catalogue_entry("bcc", "screw")
    cell = build_cell(crystal_of("W_zhou04"), screw, tungsten_stroh, "dipole", (6, 9, 1), screw.sites["easy"])
    assert cell.partials(cell.predictor) is None


@KINDS
def test_circuits_around_the_whole_ribbon_give_the_whole_burgers_vector(kind: str) -> None:
    """Triangles across a stacking fault close or not by chance: here by a shift of 0.25 Å, one way in the left half of
    the ribbon and the other way in the right half, so that +b, -b and +b lie 15 Å apart."""
    cell = copper_cell(kind, "quadrupole" if kind == "screw" else "walls", 16, 48)
    u = split(cell, 30.0)
    for core, b in zip(cell.cores, cell.burgers, strict=True):
        x, height = (cell.reference[:, :2] - core).T
        above = (height > 0) & (height < 0.3 * cell.a0) & (np.abs(x) < 12)
        u[above] += 0.25 * np.sign(x[above])[:, None] * b / np.linalg.norm(b)
    found = find_cores(cell.circuits, u, 1.5 * cell.a0)
    total = sorted(tuple(np.round(core.burgers, 6) + 0.0) for core in found)
    assert total == sorted(tuple(np.round(b, 6) + 0.0) for b in cell.burgers)
    verdict, shifts = cell.judge(u, 0.8 * cell.a0)
    assert verdict == "kept"
    assert np.abs(shifts).max() < 1.5


def test_verdict_asks_where_the_partials_are() -> None:
    cell = copper_cell("edge")
    verdict, shifts = cell.judge(split(cell, 20.0, shift=6.0), 2.9)
    assert verdict == "kept"  # the place where it was put still lies between the partials
    np.testing.assert_allclose(shifts[:, 0], 6.0, atol=0.5)
    verdict, shifts = cell.judge(split(cell, 8.0, shift=6.0), 2.9)
    assert verdict == "moved"
    np.testing.assert_allclose(shifts[:, 0], 6.0, atol=0.5)
    assert cell.judge(np.zeros_like(cell.predictor), 2.9)[0] == "annihilated"


def test_disregistry_falls_from_b_to_nothing() -> None:
    cell = copper_cell("edge")
    x, jump, height = disregistry(cell, cell.cores[0, 1], split(cell, 20.0))
    share = jump @ cell.burgers[0] / (cell.burgers[0] @ cell.burgers[0])
    left, right = (np.abs(x - cell.cores[0, 0] - away).argmin() for away in (-20, 20))
    assert share[left] - share[right] == pytest.approx(1, abs=0.15)
    middle = jump[np.abs(x - cell.cores[0, 0]).argmin()]
    assert cell.fault is not None
    np.testing.assert_allclose(middle - jump[right], cell.fault, atol=0.15 * cell.a0)
    assert height == pytest.approx(cell.cores[0, 1], abs=1e-6)


# --- against theory -----------------------------------------------------------------------------------------------


def test_stacking_fault_of_copper_costs_what_its_authors_say() -> None:
    """44.4 mJ/m^2, Mishin et al. (2001); both dislocations have the same fault."""
    for kind in ("screw", "edge"):
        found = stacking_fault_energy(crystal_of(COPPER), catalogue_entry("fcc", kind), calculator_of(COPPER))
        assert found * GPA_NM == pytest.approx(44.4, abs=0.1)


def test_fault_that_costs_nothing_is_refused() -> None:
    """Tungsten forced into fcc: the shift that would make a fault lowers its energy."""
    entry = catalogue_entry("fcc", "edge")
    crystal = Crystal(LATTICES["fcc"], ("W",), 4.05)
    with pytest.raises(UnstableFault, match="partials would part for good"):
        stacking_fault_energy(crystal, entry, calculator_of("W_zhou04"))
    assert fault_energy(crystal, entry, calculator_of("W_zhou04")) < 0  # what a model may be told to have


@KINDS
def test_separation_in_an_isotropic_solid_is_the_textbook_s(kind: str) -> None:
    """d = G b² (2 - ν)/(8π γ (1 - ν)) (1 - 2ν cos 2β/(2 - ν)), β between b and line (Hirth & Lothe, chapter 10)."""
    entry = catalogue_entry("fcc", kind)
    left, right = entry.burgers_frame - entry.fault_frame, entry.fault_frame
    assert right is not None
    nu, gamma = LAMBDA / (2 * (LAMBDA + MU)), 0.003
    beta = 0.0 if kind == "screw" else np.pi / 2
    expected = MU * right @ right * (2 - nu) / (8 * np.pi * gamma * (1 - nu))
    expected *= 1 - 2 * nu * np.cos(2 * beta) / (2 - nu)
    solution = stroh(rotate(isotropic(1e-4), entry.frame))
    assert elastic_separation(solution, left, right, gamma) == pytest.approx(expected, rel=1e-3)


@KINDS
def test_images_matter_less_in_larger_cells(kind: str) -> None:
    """The relative correction of a lone dislocation's separation falls with the square of the size."""
    entry = catalogue_entry("fcc", kind)
    c = elasticity(entry)
    arrangement = "quadrupole" if kind == "screw" else "walls"
    gamma = 0.01
    errors = []
    for height in (20.0, 40.0):
        cell = copper_cell(kind, arrangement, height, 3 * height)
        assert cell.fault is not None
        plus = cell.burgers[0] if cell.burgers[0] @ cell.fault > 0 else -cell.burgers[0]
        alone = elastic_separation(stroh(c), plus - cell.fault, cell.fault, gamma)
        errors.append(abs(separation_in_cell(cell, c, gamma) / alone - 1))
    assert errors[1] < errors[0] / 2.5
    assert errors[1] < 0.1


@pytest.mark.parametrize(("kind", "size", "expected"), [("screw", 14.0, 16.4), ("edge", 11.0, 20.2)])
def test_dipole_of_copper_splits_as_elastic_theory_says(kind: str, size: float, expected: float) -> None:
    """Some 4 Å more than theory in so small cells: partials are 5 Å wide themselves."""
    entry = catalogue_entry("fcc", kind)
    calculator = calculator_of(COPPER)
    cell = build_cell(
        crystal_of(COPPER),
        entry,
        stroh(elasticity(entry)),
        "dipole",
        entry.repeats(size),
        entry.sites["between"],
    )
    start = cell.predictor + 0.01 * np.random.default_rng(0).standard_normal(cell.predictor.shape)
    result = relax(cell, calculator, crystal_metric(cell, calculator).solve, start, 1e-3)
    assert result.status is Status.CONVERGED
    found = cell.partials(result.displacement)
    assert found is not None
    np.testing.assert_allclose(found.separation, expected, atol=0.3)
    theory = separation_in_cell(cell, elasticity(entry), 44.4 / GPA_NM)
    assert theory < found.separation.mean() < theory + 5


def test_square_dipole_of_copper_does_not_last() -> None:
    entry = catalogue_entry("fcc", "screw")
    calculator = calculator_of(COPPER)
    cell = copper_cell("screw", height=14, width=14)
    assert separation_in_cell(cell, elasticity(entry), 44.4 / GPA_NM) == np.inf
    result = relax(cell, calculator, crystal_metric(cell, calculator).solve, cell.predictor, 1e-3)
    assert result.status is Status.ANNIHILATED
