"""Gaussian approximation potentials by `gap_fit` of QUIP (package quippy-ase, which is under the GPL).

A. P. Bartók, M. C. Payne, R. Kondor, G. Csányi, Physical Review Letters 104, 136403 (2010); smooth overlap of atomic
positions (SOAP): A. P. Bartók, R. Kondor, G. Csányi, Physical Review B 87, 184115 (2013).
"""

from __future__ import annotations

import json
from pathlib import Path

from ase.calculators.calculator import Calculator

from suite.trainers.needed import needed, run_program

PACKAGES = ("quippy-ase",)
FILE = "gap.xml"


def ready() -> str:
    """Path of the command that trains; raises `MissingPackage` where it is not installed."""
    return needed("gap_fit", "quippy", "quippy-ase", "gap")


def train(
    data: Path,
    model: Path,
    cutoff: float = 5.0,
    n_max: int = 8,
    l_max: int = 4,
    sparse: int = 500,
    pair_sparse: int = 20,
    atom_sigma: float = 0.5,
    zeta: int = 4,
    delta: float = 1.0,
    pair_delta: float = 1.0,
    energy_sigma: float = 1e-4,
    force_sigma: float = 0.01,
    stress_sigma: float = 1e-3,
) -> None:
    """Fit a pair and a SOAP kernel to the data in the folder `data`; the files of the potential go into `model`.

    `cutoff` and `atom_sigma` in Å; `n_max` and `l_max` of the SOAP expansion; `sparse` and `pair_sparse` are numbers of
    sparse points for each species and each pair of species; `delta` and `pair_delta` (eV) are the scales of the two
    kernels. Expected errors: `energy_sigma` eV for each atom, `force_sigma` eV/Å, `stress_sigma` eV for each atom (of
    the virial). Energies are relative to the perfect crystal. Strained cells are used where the case fits virial1.
    """
    program = ready()
    about = json.loads((data / "set.json").read_text(encoding="utf-8"))
    species = about["species"]
    frames = (data / "training.extxyz").read_text(encoding="ascii")
    if about["observables"]["virial1"]:
        frames += (data / "strained.extxyz").read_text(encoding="ascii")
    configurations = model / "fitted.extxyz"
    configurations.write_text(frames, encoding="ascii")
    pairs = [(first, second) for k, first in enumerate(species) for second in species[k:]]
    width = 1.0 if cutoff > 2.0 else cutoff / 2
    terms = [
        f"distance_Nb order=2 cutoff={cutoff} cutoff_transition_width={width} n_sparse={pair_sparse} "
        f"delta={pair_delta} compact_clusters=T covariance_type=ard_se theta_uniform=1.0 sparse_method=uniform "
        f"add_species=F Z={{{{{_number(first)} {_number(second)}}}}}"
        for first, second in pairs
    ]
    terms += [
        f"soap l_max={l_max} n_max={n_max} cutoff={cutoff} cutoff_transition_width={width} atom_sigma={atom_sigma} "
        f"zeta={zeta} delta={delta} n_sparse={sparse} sparse_method=cur_points covariance_type=dot_product "
        f"add_species=F Z={_number(symbol)} n_species={len(species)} "
        f"species_Z={{{{{' '.join(str(_number(other)) for other in species)}}}}}"
        for symbol in species
    ]
    isolated = ":".join(f"{symbol}:{about['energy_per_atom']!r}" for symbol in species)
    command = [
        program,
        f"atoms_filename={configurations}",
        "energy_parameter_name=REF_energy",
        "force_parameter_name=REF_forces",
        "stress_parameter_name=REF_stress",
        f"default_kernel_regularisation={{{energy_sigma} {force_sigma} {stress_sigma} 0.0}}",
        f"e0={{{isolated}}}",
        "gap={" + " : ".join(terms) + "}",
        "do_copy_atoms_file=F",
        "sparse_separate_file=T",
        f"gp_file={model / FILE}",
    ]
    run_program(command, model)
    configurations.unlink()


def _number(symbol: str) -> int:
    from ase.data import atomic_numbers

    return int(atomic_numbers[symbol])


def load(model: Path) -> Calculator:
    """The potential in the folder `model`: energies, forces and stresses."""
    ready()
    from quippy.potential import Potential

    return Potential("IP GAP", param_filename=str(model / FILE))
