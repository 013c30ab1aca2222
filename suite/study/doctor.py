"""Does every engine work on this machine? Each gets one line, with the cure if it fails."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def _lammps() -> str:
    from ase.build import bulk

    from suite.world.reference import build_reference

    atoms = bulk("W", "bcc", 3.16484938, cubic=True)
    atoms.calc = build_reference("W_zhou04")
    energy = atoms.get_potential_energy() / 2
    if abs(energy + 8.7599941) > 1e-5:
        raise RuntimeError(f"W_zhou04 gives {energy:.7f} eV/atom, -8.7599941 expected")
    return f"W_zhou04: {energy:.7f} eV/atom"


def _lammps_under_mpi() -> str:
    from ase.build import bulk

    from suite.world.catalogue import CATALOGUE
    from suite.world.lammps_mpi import lammps_under_mpi
    from suite.world.launch import COMMAND, Launch, UnusableEngine

    atoms = bulk("W", "bcc", 3.16484938, cubic=True).repeat(3)
    atoms.rattle(0.05)
    reference = CATALOGUE["W_zhou04"].build()
    atoms.calc = reference
    wanted = atoms.get_forces()
    try:
        with lammps_under_mpi(Launch(COMMAND, 2), reference, atoms) as engine:
            defect = float(np.abs(engine.get_forces(atoms) - wanted).max())
    except UnusableEngine as error:
        return f"absent (optional): {error}"
    if defect > 1e-9:
        raise RuntimeError(f"its forces are off by {defect:.1e} eV/Å")
    return f"two processes have the forces of LAMMPS in process to {defect:.0e} eV/Å"


def _pyace() -> str:
    from ase.build import bulk

    from suite.model.basis import AceBasis

    basis = AceBasis(["W"], 5.0, [3, 2], [0, 1])
    atoms = bulk("W", "bcc", 3.16, cubic=True)
    atoms.rattle(0.05)
    coefficients = np.linspace(-1, 1, len(basis))
    energy, forces = basis.energy_and_force_rows(atoms)
    atoms.calc = basis.calculator(coefficients)
    defect = float(np.abs(forces @ coefficients - atoms.get_forces().ravel()).max())
    if defect > 1e-10 or abs(energy @ coefficients - atoms.get_potential_energy()) > 1e-9:
        raise RuntimeError(f"rows and calculator disagree by {defect:.1e} eV/Å")
    return f"rows and calculator agree to {defect:.0e} eV/Å"


def _mlflow() -> str:
    from tempfile import TemporaryDirectory

    from store.runs import Tracker

    with TemporaryDirectory() as folder:
        tracker = Tracker(folder, address="")
        with tracker.start("doctor", "check", {}, {}) as run:
            run.metrics({"one": 1.0})
        if tracker.find(run.id).metrics != {"one": 1.0}:
            raise RuntimeError("a metric did not come back")
    return "a run was written and read"


def _zarr() -> str:
    from pathlib import Path
    from tempfile import TemporaryDirectory

    import xarray as xr

    from store import fields

    with TemporaryDirectory() as folder:
        written = xr.Dataset({"x": ("n", np.arange(3.0))})
        tree = fields.read(fields.write(Path(folder, "x.zarr"), {"group": written}, check=False))
        if not tree["group"].to_dataset().equals(written):
            raise RuntimeError("an array did not come back")
    return "a store was written and verified"


def _kim() -> str:
    try:
        import kimpy
    except ImportError:
        return "absent (optional): references named kim:MODEL need kimpy and the KIM API"
    return f"kimpy {getattr(kimpy, '__version__', '')}"


ENGINES: dict[str, Callable[[], str]] = {
    "LAMMPS in process": _lammps,
    "LAMMPS under MPI": _lammps_under_mpi,
    "pyace (python-ace)": _pyace,
    "MLflow": _mlflow,
    "zarr through xarray": _zarr,
    "OpenKIM": _kim,
}


def examine() -> list[tuple[str, bool, str]]:
    """(engine, works, detail) for each engine; a failure is reported as a line and raises nothing."""
    found = []
    for name, check in ENGINES.items():
        try:
            found.append((name, True, check()))
        except Exception as error:  # any fault of an engine is what this function reports
            found.append((name, False, f"{type(error).__name__}: {error}"))
    return found
