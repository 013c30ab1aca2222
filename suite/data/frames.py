"""Labelled configurations as files that trainers read: extended XYZ, and the formats of NEP, MLIP and pacemaker.

Numbers are written with 17 significant digits, so that reading gives back the same bits. (The writers of ASE keep eight
decimals of positions and forces: 1e-8 Å is a hundred times the error of the third derivatives of an energy.)
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms


@dataclass(frozen=True)
class Frame:
    """A configuration with the reference's labels.

    `energy` in eV, absolute as the reference gives it; `forces` (n, 3) eV/Å; `stress` (3, 3) eV/Å³, positive under
    tension as in ASE, or None; `about` further values of the configuration by name; `arrays` further values for each
    atom by name, (n, 3).
    """

    atoms: Atoms
    energy: float
    forces: np.ndarray
    stress: np.ndarray | None = None
    about: Mapping[str, str | float | np.ndarray] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def virial(self) -> np.ndarray | None:
        """-V σ, (3, 3), eV: the convention of NEP and MLIP."""
        return None if self.stress is None else -self.atoms.get_volume() * self.stress


def _number(value: float) -> str:
    return f"{value:.17g}"


def _numbers(values: np.ndarray) -> str:
    return " ".join(_number(value) for value in np.ravel(values))


def _word(value: str | float | np.ndarray) -> str:
    """A value of the comment line of an extended XYZ file."""
    if isinstance(value, np.ndarray):
        return f'"{_numbers(value)}"'
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return _number(value)


def _xyz(frame: Frame, labels: Mapping[str, str | float | np.ndarray], arrays: Mapping[str, np.ndarray]) -> str:
    """One frame of an extended XYZ file; `arrays` (n, 3) each."""
    atoms = frame.atoms
    columns = "".join(f":{name}:R:3" for name in arrays)
    words = [f'Lattice="{_numbers(atoms.cell.array)}"', f"Properties=species:S:1:pos:R:3{columns}", 'pbc="T T T"']
    words += [f"{name}={_word(value)}" for name, value in labels.items()]
    table = np.hstack([atoms.positions, *arrays.values()])
    rows = [f"{symbol} {_numbers(row)}" for symbol, row in zip(atoms.get_chemical_symbols(), table, strict=True)]
    return "\n".join([str(len(atoms)), " ".join(words), *rows]) + "\n"


def write_extxyz(frames: Sequence[Frame], path: Path) -> Path:
    """Extended XYZ: REF_energy, REF_forces (n, 3), REF_stress (9 numbers, row by row), and what the frame tells."""
    texts = []
    for frame in frames:
        stress = {} if frame.stress is None else {"REF_stress": frame.stress}
        labels = {"REF_energy": frame.energy, **stress, **frame.about}
        texts.append(_xyz(frame, labels, {"REF_forces": frame.forces, **frame.arrays}))
    path.write_text("".join(texts), encoding="ascii")
    return path


def write_nep(frames: Sequence[Frame], path: Path) -> Path:
    """The extended XYZ of NEP (GPUMD's train.xyz): energy, virial, and `force` of every atom."""
    texts = []
    for frame in frames:
        virial = {} if frame.virial is None else {"virial": frame.virial}
        texts.append(_xyz(frame, {"energy": frame.energy, **virial}, {"force": frame.forces}))
    path.write_text("".join(texts), encoding="ascii")
    return path


def write_mlip(frames: Sequence[Frame], path: Path) -> Path:
    """The cfg files of MLIP (moment tensor potentials); types are numbered in the order of atomic numbers."""
    numbers = sorted({int(z) for frame in frames for z in frame.atoms.numbers})
    lines: list[str] = []
    for frame in frames:
        atoms = frame.atoms
        lines += ["BEGIN_CFG", " Size", f"    {len(atoms)}", " Supercell"]
        lines += [f"    {_numbers(vector)}" for vector in atoms.cell.array]
        lines += [" AtomData:  id type cartes_x cartes_y cartes_z fx fy fz"]
        table = np.hstack([atoms.positions, frame.forces])
        types = [numbers.index(int(z)) for z in atoms.numbers]
        lines += [f"    {k + 1} {kind} {_numbers(row)}" for k, (kind, row) in enumerate(zip(types, table, strict=True))]
        lines += [" Energy", f"    {_number(frame.energy)}"]
        if frame.virial is not None:
            lines += [" PlusStress:  xx yy zz yz xz xy"]
            lines += [f"    {_numbers(frame.virial[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]])}"]
        lines += ["END_CFG", ""]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")
    return path


def write_pacemaker(frames: Sequence[Frame], path: Path) -> Path:
    """The pickled table of pacemaker (nonlinear ACE): ase_atoms, energy, energy_corrected and forces.

    `energy_corrected` is the energy relative to the perfect crystal where the frame tells it, else the energy.
    """
    import pandas

    table = pandas.DataFrame(
        {
            "ase_atoms": [frame.atoms for frame in frames],
            "energy": [frame.energy for frame in frames],
            "energy_corrected": [frame.about.get("energy_relative", frame.energy) for frame in frames],
            "forces": [frame.forces for frame in frames],
        }
    )
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
    ):  # no name, no time: same bytes
        table.to_pickle(packed, protocol=4)
    return path


# name of a format -> ending of its files, and its writer
FORMATS: dict[str, tuple[str, Callable[[Sequence[Frame], Path], Path]]] = {
    "extxyz": (".extxyz", write_extxyz),
    "nep": (".xyz", write_nep),
    "mlip": (".cfg", write_mlip),
    "pacemaker": (".pckl.gzip", write_pacemaker),
}
