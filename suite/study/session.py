"""What all runs of one command share, and the cost of the stages of one run."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from store.faults import BadInput
from suite.progress import Progress, silent
from suite.results import Simulation
from suite.spec import Spec
from suite.world.contents import contents_of


@dataclass(frozen=True)
class Session:
    """What all runs of one command share: their workspace, a callback for progress, and the number of workers (None:
    one for each core). `kept` holds the last simulation by its key, so that the next run need not factorise it
    again."""

    workspace: Path
    progress: Progress = silent
    workers: int | None = None
    kept: dict[str, Simulation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "workspace", self.workspace.absolute())


class ChangedPotential(BadInput, RuntimeError):
    """A file or module of a potential was changed while a run used it: its numbers would be a mixture."""


@dataclass
class Stages:
    """Wall time (s) of each stage, peak memory of the process (MB) after it, and whether it came from the cache. If a
    stage is entered again, its times are added up. `potentials` is the content of the potentials at the first stage;
    `training` is what the rows or another trainer took, perhaps in an earlier run: seconds, cores, megabytes."""

    seconds: dict[str, float] = field(default_factory=dict)
    megabytes: dict[str, float] = field(default_factory=dict)
    cached: dict[str, bool] = field(default_factory=dict)
    potentials: dict[str, Any] | None = None
    training: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun
            peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
            self.megabytes[name] = peak / 1024

    def watch(self, spec: Spec) -> None:
        """Remember the content of the potentials of `spec`; raises `ChangedPotential` when it has changed since the
        last call."""
        found = potentials_of(spec)
        if self.potentials is None:
            self.potentials = found
        elif self.potentials != found:
            changed = [name for name in found if self.potentials.get(name) != found[name]]
            raise ChangedPotential(
                f"files or code of the {' and the '.join(changed)} changed while the run used them, so that its "
                "numbers would be a mixture: run it again"
            )


def potentials_of(spec: Spec) -> dict[str, Any]:
    """The content (files and code) of the reference and, where one is given, of the model's potential or its trainer,
    and of what loads the model of a trainer."""
    folders = [] if spec.folder is None else [spec.folder]
    named = {"reference": (spec.material.reference, spec.material.arguments)}
    if spec.model.source:
        named["model"] = (spec.model.source, spec.model.arguments)
    if spec.model.backend == "trainer" and spec.model.calculator:
        named["loader"] = (spec.model.calculator, {})
    return {which: contents_of(name, arguments, folders) for which, (name, arguments) in named.items()}
