"""Benchmark of interatomic potentials on dislocations: what programs may build upon.

    import dislobench

    spec = dislobench.load("w-screw", preset="quick")
    world = dislobench.build_world(spec)
    rows = dislobench.build_rows(spec, world)
    verdict = dislobench.assess(spec, world, rows, dislobench.fit(spec, rows))

These names stay as they are within a major version; modules of `suite` and `store` may move. `python -m dislobench` is
the command line.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from store.faults import Fault as Fault
    from store.fields import read as read_fields  # noqa: F401
    from suite.judge.numbers import NUMBERS as NUMBERS
    from suite.model.contract import LinearFamily as LinearFamily
    from suite.model.contract import check_family as check_family
    from suite.pipeline import assess as assess
    from suite.pipeline import build_rows as build_rows
    from suite.pipeline import build_world as build_world
    from suite.pipeline import fit as fit
    from suite.spec import Spec as Spec
    from suite.spec import load as load
    from suite.spec import shipped as shipped
    from suite.study.case import run_case as run_case
    from suite.study.sweep import run_sweep as run_sweep
    from suite.study.tune import tune as tune
    from suite.world.dislocation import Dislocation as Dislocation
    from suite.world.reference import build_reference as build_reference

# name -> module that has it; imported when it is first asked for, so that the command line starts at once
_PUBLIC = {
    **dict.fromkeys(["load", "shipped", "Spec"], "suite.spec"),
    **dict.fromkeys(["build_world", "build_rows", "fit", "assess"], "suite.pipeline"),
    **dict.fromkeys(["LinearFamily", "check_family"], "suite.model.contract"),
    "NUMBERS": "suite.judge.numbers",
    "run_case": "suite.study.case",
    "run_sweep": "suite.study.sweep",
    "tune": "suite.study.tune",
    "read_fields": "store.fields",
    "Dislocation": "suite.world.dislocation",
    "build_reference": "suite.world.reference",
    "Fault": "store.faults",
}
_THERE = {"read_fields": "read"}  # names that are called otherwise in their module
__all__ = sorted(_PUBLIC)
__version__ = metadata.version("dislobench")


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), _THERE.get(name, name))
    raise AttributeError(f"module 'dislobench' has no attribute {name!r}; public are {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
