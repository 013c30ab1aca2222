"""Data sets for other trainers: what ASE and pandas read back is what the reference said, to the last bit."""

import gzip
import json
import subprocess
from pathlib import Path

import numpy as np
import pandas
import pytest
from ase.calculators.calculator import Calculator
from ase.io import read

from suite.cli import main
from suite.data.folder import NotEmpty, configuration_frames, digest_of, write_data
from suite.data.frames import FORMATS, write_extxyz
from suite.data.strained import STRAINS, strain_directions, strained_frames, stress_of
from suite.results import Rows, World
from suite.spec import Spec
from suite.stages.rows import labelled_sets
from suite.world.catalogue import CATALOGUE, LICENCES
from suite.world.crystal import GPA, constants


@pytest.fixture(scope="module")
def folder(tiny: Spec, world: World, rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sets") / "extxyz"
    write_data(tiny, world, (rows.train, rows.test), place)
    return place


def test_the_labels_are_those_of_the_rows(tiny: Spec, world: World, rows: Rows) -> None:
    assert digest_of(labelled_sets(tiny, world)) == digest_of((rows.train, rows.test))
    without = labelled_sets(tiny, world, trains=False)
    assert len(without[0][0]) == 0
    assert np.array_equal(without[1][0].forces, rows.test[0].forces)


def test_ase_reads_back_every_bit(folder: Path, world: World, rows: Rows) -> None:
    for name, found in (("training", rows.train[0]), ("test", rows.test[0])):
        frames = read(folder / f"{name}.extxyz", index=":")
        assert len(frames) == len(found)
        for index, atoms in enumerate(frames):
            assert np.array_equal(atoms.positions, world.training[0].reference + found.displacements[index])
            assert np.array_equal(atoms.cell.array, world.training[0].vectors)
            assert np.array_equal(atoms.arrays["REF_forces"], found.forces[index])
            assert atoms.info["energy_relative"] == found.energies[index]
            assert atoms.info["amplitude"] == found.amplitudes[index]
            absolute = found.energies[index] + len(atoms) * world.energy_per_atom
            assert atoms.info["REF_energy"] == absolute
            assert atoms.pbc.all()


def test_weights_are_those_of_the_spec(folder: Path, tiny: Spec) -> None:
    atoms = read(folder / "training.extxyz", index="0")
    assert (atoms.info["weight_energy"], atoms.info["weight_force"]) == (tiny.weight("energy"), tiny.weight("force"))
    strained = read(folder / "strained.extxyz", index="-1")
    assert strained.info["weight_stress"] == tiny.weight("virial1")


def test_strained_cells_have_the_elastic_constants(folder: Path, world: World) -> None:
    """C11 and C44 from the stresses at the smallest strains, good to the fourth order of the strain that is left."""
    frames = {
        (a.info["strain"], *np.ravel(a.info["deformation_gradient"])): a for a in read(folder / "strained.extxyz", ":")
    }
    assert len(frames) == 1 + len(STRAINS) * len(strain_directions())
    found = constants(world.response)
    for direction, (i, j), name in ((0, (0, 0), "C11"), (3, (1, 2), "C44")):

        def slope(size: float, direction: int = direction, i: int = i, j: int = j) -> float:
            key = [(s, *np.ravel(np.eye(3) + s * strain_directions()[direction])) for s in (size, -size)]
            plus, minus = (np.reshape(frames[k].info["REF_stress"], (3, 3))[i, j] for k in key)
            return (plus - minus) / (2 * size)

        value = (4 * slope(0.005) - slope(0.01)) / 3 * GPA
        assert value == pytest.approx(found[name], rel=1e-3)  # strain to the fourth power times large constants
    written = json.loads((folder / "elastic.json").read_text())
    assert written["constants_GPa"] == found
    assert np.array_equal(written["dW3_eV_per_A3"], world.response.d3)


def test_stress_by_differences_is_that_of_the_calculator(world: World, zhou: Calculator) -> None:
    atoms = world.crystal.deformed(np.eye(3) + 0.01 * strain_directions()[7])

    class Stressless:
        implemented_properties = ("energy", "forces")
        get_potential_energy, calculation_required = zhou.get_potential_energy, zhou.calculation_required

    own, differences = stress_of(atoms, zhou), stress_of(atoms, Stressless())  # type: ignore[arg-type]
    # fourth order of a step of 1e-4, and rounding of 1e-15 of the energy over the step
    assert np.abs(own - differences).max() < 1e-9


def test_internal_shifts_are_relaxed() -> None:
    from materials import calculator_of, crystal_of

    frames = strained_frames(crystal_of("Si_sw"), calculator_of("Si_sw"))
    assert max(float(np.abs(frame.forces).max()) for frame in frames) < 1e-6


def test_strained_energies_are_relative_too(folder: Path, world: World) -> None:
    frames = read(folder / "strained.extxyz", ":")
    assert abs(frames[0].info["energy_relative"]) < 1e-9  # the perfect crystal
    for atoms in frames[1:]:
        assert atoms.info["energy_relative"] == atoms.info["REF_energy"] - len(atoms) * world.energy_per_atom > 0


def test_cells_are_at_rest_and_checksums_agree(folder: Path, world: World, tiny: Spec) -> None:
    atoms = read(folder / "cells" / "simulation.extxyz")
    assert np.array_equal(atoms.arrays["displacement"], world.equilibrium.displacement)
    assert np.abs(atoms.arrays["REF_forces"]).max() <= tiny.simulation.force_tolerance
    table = read(folder / "cells" / "training-1.data", format="lammps-data")
    distances = [a.get_all_distances(mic=True)[0] for a in (table, read(folder / "cells" / "training-1.extxyz"))]
    assert np.abs(distances[0] - distances[1]).max() < 1e-9
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == sum(path.is_file() for path in folder.rglob("*")) - 1


def test_the_readme_tells_terms_and_counts(folder: Path, tiny: Spec) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "9 configurations of 240 atoms to train on" in text
    entry = CATALOGUE[tiny.material.reference]
    told = f"`{entry.name}` ({entry.source}); its terms of use apply to them: {LICENCES[entry.licence]}."
    assert told in " ".join(text.split())


def test_a_full_folder_is_refused(folder: Path, tiny: Spec, world: World, rows: Rows) -> None:
    with pytest.raises(NotEmpty, match="name another folder"):
        write_data(tiny, world, (rows.train, rows.test), folder)
    with pytest.raises(NotEmpty, match="is a file"):
        write_data(tiny, world, (rows.train, rows.test), folder / "set.json")


def test_an_interrupted_set_leaves_an_empty_folder(
    tmp_path: Path, tiny: Spec, world: World, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("suite.data.folder._readme", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_data(tiny, world, (rows.train, rows.test), tmp_path / "set")
    assert not [*(tmp_path / "set").iterdir()]  # the same command can be given again


def test_other_formats(tmp_path: Path, tiny: Spec, world: World, rows: Rows, zhou: Calculator) -> None:
    frames = [*configuration_frames(tiny, world, rows.test), *strained_frames(world.crystal, zhou)[:2]]
    paths = {name: write(frames, tmp_path / f"set{ending}") for name, (ending, write) in FORMATS.items()}
    for atoms, frame in zip(read(paths["nep"], ":"), frames, strict=True):
        assert np.array_equal(atoms.arrays["force"], frame.forces)
        assert atoms.get_potential_energy() == frame.energy
    assert np.allclose(read(paths["nep"], "-1").info["virial"], frames[-1].virial, rtol=1e-15, atol=0)
    with gzip.open(paths["pacemaker"]) as file:
        table = pandas.read_pickle(file)
    assert table.energy.tolist() == [frame.energy for frame in frames]
    assert table.energy_corrected[0] == rows.test[0].energies[0]
    assert np.array_equal(table.forces[0], frames[0].forces)
    lines = paths["mlip"].read_text().split("\n")
    assert lines.count("BEGIN_CFG") == len(frames)
    first = lines[lines.index(" Energy") + 1]
    assert float(first) == frames[0].energy
    again = write_extxyz(frames, tmp_path / "again.extxyz")
    assert again.read_bytes() == paths["extxyz"].read_bytes()


def test_command_needs_a_spec_or_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["w-split", "--run", "RUN"], ["--run", "RUN", "--preset", "tiny"]):
        assert main(["data", *words]) == 2
        assert "a spec" in capsys.readouterr().err
