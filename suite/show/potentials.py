"""Tables of reference potentials, for the terminal and the docs."""

from __future__ import annotations

from collections.abc import Mapping

from suite.show.table import Table
from suite.world.catalogue import LICENCES, Reference
from suite.world.smoothness import grade

HEADS = (
    *("name", "lattice", "form", "cutoff [Å]", "a0 [Å]", "E [eV]", "C11", "C12", "C44 [GPa]"),
    *("smooth", "step [eV]", "force jump [eV/Å]", "kink [eV/Å²]", "third", "cost"),
)


def potential_table(entries: Mapping[str, Reference]) -> Table:
    """What each entry is, and what was measured of it; jumps are those within 0.2 Å."""
    rows = []
    for name, entry in entries.items():
        row: list[object] = [name, entry.lattice, entry.form, f"{entry.cutoff:.3f}"]
        if (found := entry.measured) is not None:
            row += [f"{found.a0:.5f}", f"{found.energies[entry.lattice]:.4f}"]
            row += [f"{constant:.1f}" for constant in (found.C11, found.C12, found.C44)]
            row += [grade(found.near, found.third), *map(_short, found.near), f"{found.third:.0e}", f"{found.cost:g}"]
        rows.append(row + [""] * (len(HEADS) - len(row)))
    return Table(HEADS, rows, "reference potentials")


def source_table(entries: Mapping[str, Reference]) -> Table:
    """Where each entry comes from, and under which terms."""
    rows = [
        [name, entry.summary, entry.source, entry.doi, LICENCES[entry.licence], " ".join(entry.files)]
        for name, entry in entries.items()
    ]
    return Table(("name", "what is particular", "source", "doi", "licence", "files"), rows, "where they come from")


def _short(size: float) -> str:
    return f"{size:.0e}" if size else "0"
