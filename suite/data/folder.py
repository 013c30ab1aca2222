"""A folder with everything that a trainer needs from a case, and what the case judges: `dislobench data`.

training.extxyz  test.extxyz     rattled configurations around the relaxed training cells
strained.extxyz  elastic.json    strained unit cells with stresses; elastic constants as numbers
cells/                           relaxed cells, as extended XYZ and as LAMMPS data
set.json  README.md  SHA256SUMS
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.io import write as write_atoms
from jinja2 import StrictUndefined, Template

from store import provenance
from store.faults import BadInput
from suite.data.frames import FORMATS, Frame, write_extxyz
from suite.data.strained import strained_frames
from suite.model.training import Configurations
from suite.results import World
from suite.spec import Spec
from suite.world.catalogue import CATALOGUE, LICENCES
from suite.world.cell import Cell
from suite.world.crystal import constants
from suite.world.reference import build_reference

SUMS, ABOUT, ELASTIC = "SHA256SUMS", "set.json", "elastic.json"
Sets = Sequence[Configurations]


class NotEmpty(BadInput, FileExistsError):
    """The folder for a data set holds something already."""


def refuse_full(folder: Path) -> None:
    """Raises `NotEmpty` unless `folder` is empty or does not exist."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        wrong = "is not empty" if folder.is_dir() else "is a file"
        raise NotEmpty(f"{folder} {wrong}: name another folder, so that no files of two data sets are mixed")


def write_data(
    spec: Spec,
    world: World,
    sets: tuple[Sets, Sets],
    folder: Path,
    form: str = "extxyz",
    relaxed: Mapping[str, np.ndarray] | None = None,
) -> list[Path]:
    """Write the data set of a case into `folder`, which must be empty or not exist; the files written.

    `sets` are the training and the test configurations, one entry for each training cell, as
    `stages.rows.labelled_sets` gives them; `form` is a name of `frames.FORMATS`; `relaxed` are further equilibria of
    the simulation cell by name, displacements (n, 3) Å. Raises `NotEmpty`.
    """
    refuse_full(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".new-", dir=folder) as scratch:  # when it is interrupted, the folder is empty again
        place = Path(scratch)
        files = _write_all(spec, world, sets, place, form, relaxed or {})
        for entry in sorted(place.iterdir()):
            os.replace(entry, folder / entry.name)
    return [folder / file.relative_to(place) for file in files]


def _write_all(
    spec: Spec, world: World, sets: tuple[Sets, Sets], folder: Path, form: str, relaxed: Mapping[str, np.ndarray]
) -> list[Path]:
    files = write_labels(spec, world, sets, folder, form)
    ending, write = FORMATS[form]
    files.append(write(configuration_frames(spec, world, sets[1]), folder / f"test{ending}"))
    calculator = build_reference(spec.material.reference, spec.material.arguments)
    (folder / "cells").mkdir()
    for number, (cell, found) in enumerate(world.trained, start=1):
        files += _write_cell(folder / "cells", f"training-{number}", cell, found.displacement, calculator)
    at_rest = {"simulation": world.equilibrium.displacement}
    at_rest |= {f"simulation-{name}": displacement for name, displacement in relaxed.items()}
    for name, displacement in at_rest.items():
        files += _write_cell(folder / "cells", name, world.simulation, displacement, calculator)
    readme = folder / "README.md"
    readme.write_text(_readme(spec, world, sets, form), encoding="utf-8")
    files.append(readme)
    sums = folder / SUMS
    sums.write_text("".join(f"{provenance.file_digest(path)}  {path.relative_to(folder)}\n" for path in files))
    return [*files, sums]


def write_labels(spec: Spec, world: World, sets: tuple[Sets, Sets], folder: Path, form: str = "extxyz") -> list[Path]:
    """Write what a trainer may learn from into `folder`: training configurations, strained cells, elastic constants,
    and `set.json`; the files written. Nothing of the test set."""
    folder.mkdir(parents=True, exist_ok=True)
    calculator = build_reference(spec.material.reference, spec.material.arguments)
    ending, write = FORMATS[form]
    return [
        write(configuration_frames(spec, world, sets[0]), folder / f"training{ending}"),
        write(
            weighed(spec, _relative(world, strained_frames(world.crystal, calculator))), folder / f"strained{ending}"
        ),
        _write_json(folder / ELASTIC, elastic_targets(world)),
        _write_json(folder / ABOUT, about(spec, world, sets, form)),
    ]


def configuration_frames(spec: Spec, world: World, sets: Sets) -> list[Frame]:
    """Labelled configurations (`sets`, one for each training cell) as frames, energies absolute."""
    frames = []
    for number, (cell, found) in enumerate(zip(world.training, sets, strict=True), start=1):
        for index in range(len(found)):
            amplitude = float(found.amplitudes[index])
            about = {
                "config_type": "rattled" if amplitude else "relaxed",
                "training_cell": f"training-{number}",
                "amplitude": amplitude,
                "energy_relative": float(found.energies[index]),
            }
            energy = float(found.energies[index]) + len(cell) * world.energy_per_atom
            frames.append(Frame(cell.atoms(found.displacements[index]), energy, found.forces[index], about=about))
    return weighed(spec, frames)


def _relative(world: World, frames: Sequence[Frame]) -> list[Frame]:
    """The frames with their energies relative to the perfect crystal too, as those of `configuration_frames`."""
    return [
        replace(
            frame,
            about={**frame.about, "energy_relative": frame.energy - len(frame.atoms) * world.energy_per_atom},
        )
        for frame in frames
    ]


def weighed(spec: Spec, frames: Sequence[Frame]) -> list[Frame]:
    """The frames with the weights of the spec: factors of the squared residual of the total energy (eV²), and of each
    component of the forces ((eV/Å)²) and of the stress of strained cells ((eV/Å³)²)."""
    found = []
    for frame in frames:
        factor = spec.weights.amplitudes.get(f"{frame.about.get('amplitude', 0.0):g}", 1.0)
        weights = {name: factor * spec.weight(name) for name in ("energy", "force")}
        if frame.stress is not None:
            weights = {"energy": 0.0, "force": 0.0, "stress": spec.weight("virial1")}
        about = {**frame.about, **{f"weight_{name}": value for name, value in weights.items()}}
        found.append(replace(frame, about=about))
    return found


def elastic_targets(world: World) -> dict[str, object]:
    """Lattice, lattice constant (Å), energy of an atom (eV) and elastic constants of second and third order (GPa)."""
    return {
        "a0": world.crystal.a0,
        "energy_per_atom": world.energy_per_atom,
        "constants_GPa": constants(world.response),
        "dW2_eV_per_A3": world.response.d2.tolist(),
        "dW3_eV_per_A3": world.response.d3.tolist(),
    }


def digest_of(sets: Sequence[Sets]) -> str:
    """Content key of the labelled configurations: equal labels have equal keys."""
    return provenance.content_key(
        [[found.displacements, found.amplitudes, found.energies, found.forces] for part in sets for found in part]
    )


def about(spec: Spec, world: World, sets: tuple[Sets, Sets], form: str) -> dict[str, object]:
    """What the set is, for programs."""
    return {
        "case": spec.case.name,
        "reference": spec.material.reference,
        "arguments": dict(spec.material.arguments),
        "terms": _terms(spec.material.reference),
        "species": list(spec.material.species),
        "lattice": spec.material.lattice,
        "format": form,
        "digest": digest_of(sets),
        "configurations": {"training": _count(sets[0]), "test": _count(sets[1])},
        "atoms": [len(cell) for cell in world.training],
        "amplitudes": list(spec.training.amplitudes),
        "weights": spec.weights.model_dump(),
        "observables": spec.observables.model_dump(),
        "a0": world.crystal.a0,
        "energy_per_atom": world.energy_per_atom,
        "versions": provenance.versions(("dislobench", "ase", "numpy", "lammps")),
        "spec": spec.to_toml(),
    }


def _count(sets: Sets) -> int:
    return sum(len(found) for found in sets)


def _write_json(path: Path, content: Mapping[str, object]) -> Path:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def _write_cell(
    folder: Path, name: str, cell: Cell, displacement: np.ndarray, calculator: Calculator
) -> tuple[Path, Path]:
    """A cell at a `displacement` (n, 3) as extended XYZ, with the reference's labels and the displacement, and as
    LAMMPS data."""
    atoms = cell.atoms(displacement)
    measured: Atoms = atoms.copy()
    measured.calc = calculator
    frame = Frame(
        atoms,
        float(measured.get_potential_energy()),
        measured.get_forces(),
        about={"config_type": name},
        arrays={"displacement": displacement},
    )
    table = folder / f"{name}.data"
    write_atoms(
        str(table), atoms, format="lammps-data", specorder=sorted(set(atoms.get_chemical_symbols())), masses=True
    )
    return write_extxyz([frame], folder / f"{name}.extxyz"), table


def _terms(reference: str) -> str:
    """Licence of a reference of the catalogue, and the notice of its files; empty for others."""
    if reference not in CATALOGUE:
        return ""
    entry = CATALOGUE[reference]
    return "; ".join(filter(None, [LICENCES[entry.licence], entry.notice]))


def _readme(spec: Spec, world: World, sets: tuple[Sets, Sets], form: str) -> str:
    text = Path(__file__).with_name("README.md.j2").read_text(encoding="utf-8")
    template = Template(text, undefined=StrictUndefined)
    return template.render(
        spec=spec,
        ending=FORMATS[form][0],
        count={"training": _count(sets[0]), "test": _count(sets[1])},
        sizes=" and ".join(str(len(cell)) for cell in world.training),
        amplitudes=", ".join(f"{value:g}" for value in spec.training.amplitudes),
        energy_per_atom=world.energy_per_atom,
        source=CATALOGUE[spec.material.reference].source if spec.material.reference in CATALOGUE else "",
        terms=_terms(spec.material.reference),
    )
