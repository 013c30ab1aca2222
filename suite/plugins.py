"""What other installed packages add: references, backends and dislocations, by the entry points of their distribution.

    [project.entry-points."dislobench.references"]
    Fe_mine = "my_package:iron"             # called with material.arguments, returns an ASE calculator

    [project.entry-points."dislobench.backends"]
    splines = "my_package:Splines"          # called with species and model.arguments, returns a family of models

    [project.entry-points."dislobench.dislocations"]
    bcc-edge-100 = "my_package:EDGE_100"    # a `Dislocation` of lattice, kind and variant

A package is imported only when something of it is used, but for dislocations, which a spec may name without their
package. Names of this project come first.
"""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import Any

from store.faults import BadInput

REFERENCES, BACKENDS, DISLOCATIONS = "dislobench.references", "dislobench.backends", "dislobench.dislocations"
GROUPS = (REFERENCES, BACKENDS, DISLOCATIONS)


class BadPlugin(BadInput, ImportError):
    """An installed package whose entry point cannot be loaded, or is not what its group asks for."""


@cache
def installed(group: str) -> dict[str, metadata.EntryPoint]:
    """The entry points of a group, by name."""
    return {entry.name: entry for entry in metadata.entry_points(group=group)}


def load(group: str, name: str) -> Any:
    """What the entry point `name` names; raises `BadPlugin` when it cannot be imported."""
    entry = installed(group)[name]
    try:
        return entry.load()
    except (Exception, SystemExit) as error:  # it is other people's code, and may raise anything
        raise BadPlugin(f"{told(group, name)} cannot be imported: {type(error).__name__}: {error}") from error


def told(group: str, name: str) -> str:
    """An entry point in words: its name and package."""
    entry = installed(group)[name]
    package = f" of the package {entry.dist.name} {entry.dist.version}" if entry.dist else ""
    return f"{group.rpartition('.')[2].removesuffix('s')} {name!r}{package}"
