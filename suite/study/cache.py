"""The cache of a workspace: results of stages, found by the content of what they were computed from.

A stage's key hashes exactly the tables of the spec that it reads (`pipeline.stage_tables`), the content of the
potentials that these name (`suite.world.contents`), the versions of the packages whose numbers it contains, and a stage
version. What is stored under a key is reused; a failure is never stored. When several processes want the same stage at
once, the first computes it, and the others wait and read it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import xarray as xr

from store import fields, provenance
from store.locking import locked_file
from suite import pipeline
from suite.execution import usable_workers
from suite.model.trained import TrainedSpec
from suite.progress import Progress
from suite.results import Rows, Simulation, World
from suite.spec import Spec
from suite.study import archive
from suite.study.session import Session, Stages, potentials_of
from suite.study.training import trained, training_key
from suite.world.lammps_job import job_digest

# Raise a number when the results of a stage change for the same spec. Verdicts are not cached, but points of sweeps,
# which hold their numbers, are reused.
STAGE_VERSIONS = {"simulation": 4, "training": 1, "rows": 4, "verdict": 8}
STAGE_PACKAGES = {"simulation": ("lammps",), "training": ("lammps",), "rows": ("lammps", "python-ace")}

Content = TypeVar("Content")


def stage_key(spec: Spec, stage: str, job: Path | None = None) -> str:
    """Content key of a stage; `job` as in `pipeline.build_world`, which only the simulation reads."""
    potentials, packages = potentials_of(spec), STAGE_PACKAGES[stage]
    potentials.pop("loader", None)
    if stage == "rows":
        packages += spec.model.family.packages
    else:
        potentials.pop("model", None)
    return provenance.content_key(
        stage,
        STAGE_VERSIONS[stage],
        pipeline.stage_tables(spec)[stage],
        provenance.versions(packages),
        potentials,
        job_digest(job) if job is not None and stage == "simulation" else None,
    )


def _cached(path: Path) -> xr.DataTree | None:
    """The cache entry at `path`; None if it is missing or damaged."""
    try:
        return fields.read(path) if path.exists() else None
    except fields.StoreError:
        return None


@contextmanager
def _made_once(path: Path, progress: Progress) -> Iterator[None]:
    """Keep other processes from making the cache entry at `path`. Inside the `with` block, look for the entry again:
    another process may have made it meanwhile. A damaged entry is removed, because it can be computed again.
    """
    what, _, _ = path.stem.partition("-")
    lock = path.parent.parent / "locks" / path.stem
    with locked_file(lock, lambda: progress("waiting", 0.0, f"another process computes the same {what}")):
        if path.exists():
            try:
                fields.verify(path)
            except fields.StoreError as error:
                progress("cache", 1.0, f"damaged, computed again: {error}")
                fields.remove(path)
        yield


def cached(
    path: Path,
    load: Callable[[xr.DataTree], Content],
    make: Callable[[], Content],
    groups: Callable[[Content], tuple[Mapping[str, xr.Dataset], Mapping[str, Any]]],
    progress: Progress,
) -> tuple[Content, bool]:
    """The cache entry at `path`, or else the result of `make`, which is stored there; and whether it was in the
    cache."""
    if (tree := _cached(path)) is not None:
        return load(tree), True
    with _made_once(path, progress):
        if (tree := _cached(path)) is not None:
            return load(tree), True
        made = make()
        fields.write(path, *groups(made), check=False)
    return made, False


def cached_world(spec: Spec, session: Session, stages: Stages, job: Path | None = None) -> World:
    """The world of `spec`; simulation and training cells come from the cache if they are there. `job` as in
    `pipeline.build_world`."""
    progress, folder = session.progress, session.workspace / "cache"
    stages.watch(spec)
    key = stage_key(spec, "simulation", job)
    large = folder / f"simulation-{key}.zarr"
    small = folder / f"training-{stage_key(spec, 'training')}.zarr"

    def found(simulated: Simulation | None) -> tuple[Simulation | None, World | None]:
        if simulated is None and (tree := _cached(large)) is not None:
            simulated = archive.simulation_from(spec, tree)
        tree = None if simulated is None else _cached(small)
        world = None if simulated is None or tree is None else archive.world_from(spec, simulated, tree)
        return simulated, world

    with stages.stage("world"):
        simulated, world = found(session.kept.get(key))
        stages.cached["world"] = world is not None
        if world is None:
            with _made_once(large if simulated is None else small, progress):
                simulated, world = found(simulated)
                if world is None:
                    world = pipeline.build_world(spec, progress, job, simulated)
                    stages.watch(spec)
                    if simulated is None:
                        fields.write(large, archive.simulation_groups(world), check=False)
                    fields.write(small, archive.training_groups(world), check=False)
        session.kept.clear()
        session.kept[key] = world
    return world


def cached_rows(spec: Spec, world: World, session: Session, stages: Stages) -> Rows:
    """The rows of `spec`, from the cache if they are there; with the model of another trainer, if it has one."""
    stages.watch(spec)
    path = session.workspace / "cache" / f"rows-{stage_key(spec, 'rows')}.zarr"

    taken: dict[str, float] = {}

    def make() -> Rows:
        begun = time.perf_counter()
        rows = pipeline.build_rows(spec, world, session.progress, session.workers)
        stages.watch(spec)
        taken.update(seconds=time.perf_counter() - begun, cores=float(usable_workers()))
        return rows

    def load(tree: xr.DataTree) -> Rows:
        taken.update(tree.attrs.get("taken", {}))  # what an older version has cached does not tell it
        return archive.rows_from(spec, tree, list(tree.attrs["blocks"]), world.response)

    with stages.stage("rows"):
        rows, stages.cached["rows"] = cached(
            path,
            load,
            make,
            lambda rows: (archive.rows_groups(rows), {"blocks": archive.block_names(rows), "taken": taken}),
            session.progress,
        )
    if rows.functions:
        stages.training = taken
    if not isinstance(rows.recipe, TrainedSpec):
        return rows
    with stages.stage("train"):
        key = training_key(spec, stage_key(spec, "rows"))
        rows, stages.training, stages.cached["train"] = trained(
            spec, world, rows, session.workspace, key, session.progress
        )
        stages.watch(spec)
    return rows
