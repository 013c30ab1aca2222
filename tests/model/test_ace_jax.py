"""ACE by ace-jax: files and keys name the functions of python-ace; rows, calculators and files agree with it.

What needs no JAX is tested everywhere. The rest is skipped where ace-jax is not installed.
"""

from __future__ import annotations

import importlib.util
import pickle
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from materials import crystal_of

from store.faults import BadInput
from suite.cli import main
from suite.model import ace_file
from suite.model.ace_jax import AceJax, AceJaxSettings, AceJaxSpec, Pairs, blocks_of
from suite.model.basis import AceBasis
from suite.model.contract import check_family
from suite.model.lammps_family import ImpossibleFamily, wrong_settings
from suite.model.rows import elastic_rows
from suite.pipeline import assess, build_rows, fit
from suite.results import World
from suite.spec import load
from suite.trainers.needed import MissingPackage
from suite.world.calculators import NotFinite
from suite.world.crystal import strain_path
from suite.world.relaxation import Status

INSTALLED = importlib.util.find_spec("ace_jax") is not None
with_jax = pytest.mark.skipif(not INSTALLED, reason="ace-jax is not installed: pip install 'dislobench[jax]'")
AGREEMENT = 1e-6  # of a column's largest value: python-ace takes radial functions from splines, ace-jax does not


def rattled(*arguments: Any, repeats: tuple[int, int, int], **keywords: Any) -> Atoms:
    atoms = bulk(*arguments, **keywords).repeat(repeats)
    atoms.positions += 0.1 * np.random.default_rng(0).standard_normal(atoms.positions.shape)
    return atoms


# species, cutoff, channels, degrees, total_degree; and atoms
KEYS: dict[str, tuple[Any, ...]] = {
    "w-split tiny": (
        ("W",),
        *(lambda m: (m.cutoff, m.channels, m.degrees, m.total_degree))(load("w-split", "tiny").model),
    ),
    "si-edge tiny": (
        ("Si",),
        *(lambda m: (m.cutoff, m.channels, m.degrees, m.total_degree))(load("si-edge", "tiny").model),
    ),
    "NiAl": (("Ni", "Al"), 4.4, (4, 2, 2), (0, 2, 1), ()),
    "pairs": (("W",), 4.7, (6,), (0,), ()),
    "five neighbours": (("Si",), 4.0, (2, 2, 1, 1, 1), (0, 2, 2, 2, 1), ()),
}
ATOMS = {
    "w-split tiny": rattled("W", "bcc", a=3.165, repeats=(3, 3, 3)),
    "si-edge tiny": rattled("Si", "diamond", a=5.43, repeats=(2, 2, 2)),
    "NiAl": rattled("NiAl", "cesiumchloride", a=2.88, repeats=(3, 2, 2)),
    "pairs": rattled("W", "bcc", a=3.165, repeats=(3, 3, 3)),
    "five neighbours": rattled("Si", "diamond", a=5.43, repeats=(2, 2, 1)),
}


def pyace(name: str) -> AceBasis:
    species, cutoff, channels, degrees, total = KEYS[name]
    return AceBasis(species, cutoff, channels, degrees, total_degree=total)


def settings(name: str, folder: Path) -> AceJaxSettings:
    """By keys where they are enough, else by a file that python-ace writes."""
    _, cutoff, channels, degrees, total = KEYS[name]
    if len(channels) <= ace_file.MOST_FREE:
        return AceJaxSettings(cutoff=cutoff, channels=channels, degrees=degrees, total_degree=total)
    basis = pyace(name)
    return AceJaxSettings(basis=str(basis.save(np.ones(len(basis)), 0.0, folder)[0]))


def of_pyace(basis: AceBasis) -> list[tuple[Any, ...]]:
    """The functions of python-ace, in its order."""
    lists = zip(basis._basis.basis_rank1, basis._basis.basis, strict=True)
    return [
        (centre, f.rank, tuple(f.mus), tuple(f.ns), tuple(f.ls), tuple(f.LS) if f.rank > 2 else ())
        for centre, (one, more) in enumerate(lists)
        for f in (*one, *more)
    ]


def listed(file: ace_file.BasisFile) -> list[tuple[Any, ...]]:
    return [(f.centre, f.rank, f.elements, f.n, f.l, f.couplings) for f in file.functions]


# --- without JAX ---------------------------------------------------------------------------------------------------


def test_clebsch_gordan_coefficients_are_a_unitary_matrix() -> None:
    for j1, j2 in product(range(4), repeat=2):
        pairs = list(product(range(-j1, j1 + 1), range(-j2, j2 + 1)))
        sums = [(j, m) for j in range(abs(j1 - j2), j1 + j2 + 1) for m in range(-j, j + 1)]
        matrix = np.array([[ace_file.clebsch_gordan(j1, a, j2, b, j, m) for j, m in sums] for a, b in pairs])
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(pairs)), atol=1e-13)
    assert ace_file.clebsch_gordan(1, 1, 1, -1, 0, 0) == pytest.approx(3**-0.5)  # signs of Condon and Shortley
    assert ace_file.clebsch_gordan(1, 0, 1, 0, 0, 0) == pytest.approx(-(3**-0.5))


@pytest.mark.parametrize("momenta", [(1, 1), (1, 2, 3), (1, 1, 2, 2), (1, 1, 1, 1, 2), (1, 2, 2, 1, 1, 1)])
def test_couplings_to_zero_are_orthonormal(momenta: tuple[int, ...]) -> None:
    """With both of each two products that are complex conjugates; c² counts half for twice the coefficient."""
    ways = list(ace_file.possible(momenta))
    tables = [dict(ace_file.coupling(momenta, way)) for way in ways]
    every = sorted(set().union(*tables))
    weights = np.array([0.5 if any(m) else 1.0 for m in every])
    vectors = np.array([[table.get(m, 0.0) for m in every] for table in tables])
    np.testing.assert_allclose((vectors * weights) @ vectors.T, np.eye(len(ways)), atol=1e-12)


@pytest.mark.parametrize("name", KEYS)
def test_files_and_keys_name_the_functions_of_pyace(name: str, tmp_path: Path) -> None:
    basis = pyace(name)
    plain, compiled = basis.save(np.random.default_rng(0).standard_normal(len(basis)), -1.0, tmp_path)
    file = ace_file.read(plain)
    assert listed(file) == of_pyace(basis)
    assert file.cutoff == basis.cutoff
    species, cutoff, channels, degrees, total = KEYS[name]
    if len(channels) > ace_file.MOST_FREE:
        with pytest.raises(ace_file.BadBasisFile, match=r"potential\.yace: l = .* name the \.yaml"):
            ace_file.read(compiled)
        with pytest.raises(ace_file.BadBasisFile, match="3 entries are the most"):
            ace_file.of_keys(species, cutoff, channels, degrees)
    else:
        assert listed(ace_file.read(compiled)) == listed(file)
        of_keys = ace_file.of_keys(species, cutoff, channels, degrees, total)
        assert of_keys.functions == file.functions
        assert of_keys.spline == file.spline
        for pair, bond in of_keys.bonds.items():
            other = file.bonds[pair]
            assert (bond.cutoff, bond.radial, bond.base) == (other.cutoff, other.radial, other.base)


@pytest.mark.parametrize("name", KEYS)
def test_pyace_reads_what_is_written(name: str, tmp_path: Path) -> None:
    """Both files, against a calculator of python-ace with the same coefficients."""
    from pyace import PyACECalculator

    basis, atoms = pyace(name), ATOMS[name]
    coefficients = np.random.default_rng(1).standard_normal(len(basis))
    file = ace_file.read(basis.save(coefficients, -1.5, tmp_path)[0])
    calculator = basis.calculator(coefficients, -1.5)
    energy, forces = calculator.get_potential_energy(atoms), calculator.get_forces(atoms)
    for k, (name_, text) in enumerate(ace_file.written(file, coefficients, -1.5).items()):
        path = tmp_path / f"own-{name_}"
        path.write_text(text, encoding="ascii")
        assert listed(ace_file.read(tmp_path / "own-potential.yaml")) == listed(file)
        read = PyACECalculator(str(path))
        absent = -1.5 * len(atoms) if k == 0 else 0.0  # a .yaml has no energy of isolated atoms
        assert read.get_potential_energy(atoms) + absent == pytest.approx(energy, rel=1e-10, abs=1e-9)
        np.testing.assert_allclose(read.get_forces(atoms), forces, rtol=0, atol=1e-10 * np.abs(forces).max())


GOOD = """\
global: {DeltaSplineBins: 0.001}
species:
  - speciesblock: W
    rcutij: 4.7
    dcutij: 0.01
    inner_cutoff_type: distance
    nradbaseij: 2
    radbase: SBessel
    radparameters: [4.7]
    radcoefficients: [[[1, 0], [1, 0]]]
    core-repulsion: [0, 0]
    nbody:
      - {type: W W, nr: [1], nl: [0], c: [0.5]}
      - {type: W W W, nr: [1, 1], nl: [1, 1], c: [0.5]}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (GOOD, "{", "is not a YAML file"),
        (GOOD, "a: 1", "has neither 'species'"),
        ("speciesblock: W", "speciesblock: Q", "'Q' is not a chemical symbol"),
        ("core-repulsion: [0, 0]", "core-repulsion: [1, 1]", "a core repulsion is no function"),
        ("rcutij: 4.7", "", "is not as python-ace writes it: KeyError: 'rcutij'"),
        ("nr: [1]", "nr: [3]", "needs a radial function that its bond does not have"),
        ("nl: [1, 1]", "nl: [0, 1]", "does not couple to zero"),
        ("nl: [1, 1]", "nl: [1]", "lists of different lengths"),
        ("W W W, nr: [1, 1], nl: [1, 1]", "W W, nr: [1], nl: [0]", "each function must be listed once"),
        ("type: W W W, nr: [1, 1], nl: [1, 1]", "type: W W W W, nr: [1, 1, 1], nl: [0, 1, 1]", "must have 1 entries"),
    ],
)
def test_files_that_name_no_basis_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "basis.yaml"
    path.write_text(GOOD.replace("Q", "W"))
    assert len(ace_file.read(path).functions) == 2
    changed = GOOD.replace(old, new)
    if "'Q'" in message:
        changed = changed.replace("type: W W W", "type: Q Q Q").replace("type: W W", "type: Q Q")
    path = tmp_path / "changed.yaml"
    path.write_text(changed)
    with pytest.raises(ace_file.BadBasisFile) as caught:
        ace_file.read(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    assert isinstance(caught.value, BadInput)


@pytest.mark.parametrize(
    ("arguments", "key", "message"),
    [
        ({"basis": "absent.yaml"}, "basis", "absent.yaml cannot be read: No such file"),
        ({"basis": "basis.yaml", "cutoff": 5.0}, "cutoff", "has 4.7 Å: remove the key"),
        ({"basis": "basis.yaml", "channels": [3]}, "channels", "remove the key"),
        ({"basis": "basis.yaml", "chanels": [3]}, "chanels", "unknown key (did you mean 'channels'?)"),
        ({}, "cutoff", "is missing"),
        ({"cutoff": 5.0}, "channels", "must be equally long"),
        ({"cutoff": 5.0, "channels": [3, 4], "degrees": [0, 1]}, "channels", "must not increase"),
        ({"cutoff": 5.0, "channels": [3, 3], "degrees": [1, 1]}, "channels", "the first 0"),
        ({"cutoff": 5.0, "channels": [3, 3], "degrees": [0, 1], "total_degree": [1, 2]}, "channels", "1 entries"),
    ],
)
def test_wrong_settings_are_told_with_their_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], key: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("basis.yaml").write_text(GOOD)
    _, found = wrong_settings(AceJaxSettings, arguments, ("W",))
    assert [sentence for name, sentence in found if name == key and message in sentence], found
    assert wrong_settings(AceJaxSettings, {"basis": "basis.yaml"}, ("Mo",))[1][0][0] == "basis"


def test_a_spec_is_checked_without_jax(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("basis.yaml").write_text(GOOD)
    spec = load("w-split", "tiny", ["model.backend=ace-jax", "model.arguments.basis=basis.yaml"])
    assert spec.model.arguments["cutoff"] == 4.7  # the resolved spec says it
    Path("own.toml").write_text(spec.to_toml(), encoding="utf-8")
    assert main(["check", "own.toml"]) == 0
    Path("basis.yaml").write_text(GOOD.replace("rcutij: 4.7", "rcutij: 4.8"))
    assert main(["check", "own.toml"]) != 0
    assert "model.arguments.cutoff: the file basis.yaml has 4.8 Å" in capsys.readouterr().err


def test_building_without_the_package_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "suite.trainers.needed.importlib.util.find_spec", lambda name: None if name == "ace_jax" else find(name)
    )
    with pytest.raises(MissingPackage, match=r'"ace-jax" needs the package ace-jax: `pip install .dislobench\[jax\]'):
        AceJaxSpec(("W",), AceJaxSettings(cutoff=5.0, channels=(3,), degrees=(0,))).build()


def test_neighbours_are_those_of_ase() -> None:
    from ase.neighborlist import neighbor_list

    atoms = ATOMS["NiAl"]
    table = Pairs.within(5.0, atoms).table(atoms, 4.4)  # a skin of 0.6 Å is taken off again
    i, j, vectors = neighbor_list("ijD", atoms, 4.4)
    found = np.column_stack([np.nonzero(table.real)[0], table.places[table.real], table.vectors[table.real]])
    wanted = np.column_stack([i, j, vectors])
    order = [np.lexsort(np.round(part, 6).T) for part in (found, wanted)]
    np.testing.assert_allclose(found[order[0]], wanted[order[1]], atol=1e-12)
    assert [(len(rows), count) for rows, count in blocks_of(np.arange(70), 32)] == [(32, 32), (32, 32), (32, 6)]
    assert [(len(rows), count) for rows, count in blocks_of(np.arange(3), 32)] == [(4, 3)]


# --- with JAX ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AceJax]:
    """Each built once: JAX compiles for seconds."""
    folder = tmp_path_factory.mktemp("bases")
    return {name: AceJaxSpec(KEYS[name][0], settings(name, folder)).build() for name in KEYS}


@with_jax
@pytest.mark.parametrize("name", KEYS)
def test_rows_and_calculator_are_those_of_pyace(name: str, families: dict[str, AceJax]) -> None:
    family, basis, atoms = families[name], pyace(name), ATOMS[name]
    (values, forces), (energies, rows) = basis.energy_and_force_rows(atoms), family.energy_and_force_rows(atoms)
    largest = np.abs(forces).max(axis=0)
    assert (largest > 1e-7).all()
    assert (np.abs(rows - forces).max(axis=0) <= AGREEMENT * largest).all()
    np.testing.assert_allclose(energies, values, rtol=AGREEMENT, atol=0)
    np.testing.assert_allclose(family.site_values(atoms), values, rtol=AGREEMENT, atol=0)
    np.testing.assert_array_equal(family.orders, basis.orders)
    coefficients = np.random.default_rng(2).standard_normal(len(basis)) / largest
    ours, theirs = family.calculator(coefficients, -1.5), basis.calculator(coefficients, -1.5)
    size = np.abs(coefficients * values).sum()
    assert ours.get_potential_energy(atoms) == pytest.approx(theirs.get_potential_energy(atoms), abs=AGREEMENT * size)
    for found, wanted in (
        (ours.get_forces(atoms), theirs.get_forces(atoms)),
        (ours.get_stress(atoms), theirs.get_stress(atoms)),
    ):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=AGREEMENT * np.abs(wanted).max())


@with_jax
@pytest.mark.parametrize("name", ["w-split tiny", "NiAl"])
def test_the_family_keeps_the_contract(name: str, families: dict[str, AceJax]) -> None:
    check_family(families[name], ATOMS[name])


@with_jax
def test_elastic_rows_are_those_of_pyace(families: dict[str, AceJax]) -> None:
    """First and second derivatives to the agreement asked for; third ones to what splines of 1e-3 Å leave of them."""
    crystal = crystal_of("W_zhou04_smooth")
    path = strain_path(crystal, step=4e-3)
    ours, theirs = (elastic_rows(f, path, crystal.volume) for f in (families["w-split tiny"], pyace("w-split tiny")))
    for key, tolerance in (("stress", AGREEMENT), ("virial1", AGREEMENT), ("virial2", 1e-5)):
        largest = np.abs(theirs[key]).max(axis=0)
        assert (np.abs(ours[key] - theirs[key]).max(axis=0) <= tolerance * np.maximum(largest, 1e-6)).all(), key


@with_jax
def test_no_bit_depends_on_what_was_computed_before_and_no_precision_changes(families: dict[str, AceJax]) -> None:
    import jax

    family, atoms = families["w-split tiny"], ATOMS["w-split tiny"]
    before = family.energy_and_force_rows(atoms)
    other = atoms.copy()
    other.positions += 0.1 * np.random.default_rng(7).standard_normal(other.positions.shape)
    family.energy_and_force_rows(other)
    again = AceJaxSpec(family.recipe.species, family.recipe.settings).build().energy_and_force_rows(atoms)
    for found, wanted in zip(again, before, strict=True):
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, wanted)
    assert jax.numpy.zeros(1).dtype == np.float32  # 64 bits are switched on inside the family alone


@with_jax
def test_a_calculator_goes_to_other_processes_and_follows_moving_atoms(families: dict[str, AceJax]) -> None:
    family, atoms = families["w-split tiny"], ATOMS["w-split tiny"].copy()
    coefficients = np.full(len(family), 1e-2)
    calculator = family.calculator(coefficients, 0.5)
    copy = pickle.loads(pickle.dumps(calculator))
    for step in (0.0, 0.05, 0.4):  # with the list of before, and beyond its skin
        atoms.positions[3] += step
        fresh = family.calculator(coefficients, 0.5, skin=0.0)
        for each in (calculator, copy):
            np.testing.assert_allclose(each.get_forces(atoms), fresh.get_forces(atoms), rtol=0, atol=1e-12)
    atoms.positions[0, 0] = np.nan
    with pytest.raises(NotFinite, match="positions are not finite"):
        calculator.get_forces(atoms)
    with pytest.raises(ImpossibleFamily, match="the basis knows W, not Mo"):
        calculator.get_forces(Atoms("Mo", cell=3 * np.eye(3), pbc=True))
    with pytest.raises(ImpossibleFamily, match="coefficients expected"):
        family.calculator(np.zeros(3))


@with_jax
@pytest.mark.parametrize("name", ["NiAl", "five neighbours"])
def test_ace_jax_reads_what_is_saved(name: str, families: dict[str, AceJax], tmp_path: Path) -> None:
    """ace-jax's own calculator with the .yace, and the .yaml as a basis again."""
    import jax
    from ace_jax.eval.pace_model import load_yace

    family, atoms = families[name], ATOMS[name]
    coefficients = np.random.default_rng(3).standard_normal(len(family))
    plain, compiled = family.save(coefficients, -3.25, tmp_path)
    assert listed(ace_file.read(plain)) == listed(family.file)
    with jax.enable_x64(True):
        model, meta, _ = load_yace(compiled)
        own = family.with_coefficients(coefficients, -3.25)
        assert [int(z) for z in meta["elements"]] == sorted({int(z) for z in atoms.numbers})
        table = Pairs.within(family.cutoff, atoms).table(atoms, family.cutoff)
        types = family.types(atoms)
        kinds = np.broadcast_to(types[:, None], table.places.shape)
        found, wanted = (
            np.asarray(m.site_energies_dense(table.vectors, kinds, types[table.places], table.real, types))
            for m in (model, own)
        )
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-10 * np.abs(wanted).max())


@with_jax
def test_python_ace_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A family by keys, what it saves, and a family of that file, where `import pyace` fails."""
    monkeypatch.setitem(sys.modules, "pyace", None)
    with pytest.raises(ImportError):
        pyace("pairs")
    family = AceJaxSpec(("W",), settings("pairs", tmp_path)).build()
    plain, _ = family.save(np.ones(len(family)), 0.0, tmp_path)
    again = AceJaxSpec(("W",), AceJaxSettings(basis=str(plain))).build()
    atoms = ATOMS["pairs"]
    assert np.abs(again.site_values(atoms)).min() > 0
    np.testing.assert_allclose(again.site_values(atoms), family.site_values(atoms), rtol=1e-12)
    assert np.isfinite(again.calculator(np.ones(len(again))).get_forces(atoms)).all()


@with_jax
def test_a_case_is_fitted_and_judged(world: World) -> None:
    """The same spec with both engines: a core that holds, and the same force error to 5 %.

    No closer: 4 configurations leave combinations of functions undetermined, and energies that they decide differ more.
    """
    keys = load("w-split", "tiny").model
    few = ("training.configurations=4", "training.test=2", "training.amplitudes=[0.02, 0.1]")
    table = f"cutoff = {keys.cutoff}, channels = {list(keys.channels)}, degrees = {list(keys.degrees)}"
    own = f"model.arguments={{ {table} }}"
    numbers = {}
    for name, words in (("pyace", few), ("ace-jax", ("model.backend=ace-jax", own, *few))):
        spec = load("w-split", "tiny", words)
        rows = build_rows(spec, world, workers=1)
        verdict = assess(spec, world, rows, fit(spec, rows))
        assert verdict.status is Status.CONVERGED
        numbers[name] = verdict.numbers
    assert numbers["ace-jax"]["rmse_F"] == pytest.approx(numbers["pyace"]["rmse_F"], rel=5e-2)
