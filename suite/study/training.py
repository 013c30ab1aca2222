"""Training by another trainer, once for each content: the model is kept under a seal, as the stages of a run are.

workspace/cache/trained-KEY/      the files of the model, and what the training took (trained.json)
workspace/training/KEY/           the folder of a training that runs, or that failed
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
from dataclasses import replace
from pathlib import Path

from ase import Atoms

from store import provenance
from store.locking import locked, locked_file
from store.seal import StoreError, remove, seal, verify
from suite.children import program_of
from suite.data.folder import write_labels
from suite.execution import usable_workers
from suite.model.contract import BrokenContract, check_calculator
from suite.model.trained import TOLD, TrainedSpec, dotted_of, load, train
from suite.progress import Progress, silent
from suite.results import Rows, World
from suite.spec import Spec
from suite.stages.rows import recipe_of
from suite.world.reference import others_code

VERSION = 2  # of what a trainer gets: raise it when the data folder changes


def training_key(spec: Spec, rows_key: str) -> str:
    """Content key of a trained model: its data, what the trainer reads of the spec, and what the trainer is made of."""
    return provenance.content_key(
        "trained", VERSION, rows_key, spec.table("weights", "observables"), trainer_contents(spec)
    )


def trainer_contents(spec: Spec) -> dict[str, str]:
    """What a trainer is made of besides the code and the files that its name tells.

    Versions of the packages of a trainer that comes with dislobench, and the digest of the program of a command line;
    empty where the spec has no trainer.
    """
    recipe = recipe_of(spec)
    if not isinstance(recipe, TrainedSpec):
        return {}
    if dotted := dotted_of(recipe.trainer):
        shipped = dotted.startswith("suite.trainers.")
        return provenance.versions(importlib.import_module(dotted.partition(":")[0]).PACKAGES) if shipped else {}
    program = program_of(shlex.split(recipe.trainer)[0])
    return {} if program is None else {"program": provenance.file_digest(Path(program))}


def trained(
    spec: Spec, world: World, rows: Rows, workspace: Path, key: str, progress: Progress = silent
) -> tuple[Rows, dict[str, float], bool]:
    """The rows with the trained model, what its training took (seconds, megabytes, cores), and whether it was kept
    from an earlier training.

    Raises `FailedTraining` when the trainer ends with an error or leaves nothing that can be loaded, `BrokenContract`
    when what it leaves is no potential, `UnusableReference` when the trainer cannot be imported.
    """
    recipe = recipe_of(spec)
    assert isinstance(recipe, TrainedSpec)
    kept = workspace / "cache" / f"trained-{key}"

    def found() -> bool:
        try:
            verify(kept)
        except StoreError as error:
            if kept.exists():
                progress("cache", 1.0, f"damaged, trained again: {error}")
            return False
        return True

    cached = found()
    if not cached:
        lock = workspace / "cache" / "locks" / kept.name
        with locked_file(lock, lambda: progress("waiting", 0.0, "another process trains the same model")):
            cached = found()
            if not cached:
                _train(spec, world, rows, recipe, workspace, kept, progress)
    told = json.loads((kept / TOLD).read_text(encoding="utf-8"))
    return replace(rows, recipe=replace(recipe, folder=kept)), told, cached


def _train(
    spec: Spec, world: World, rows: Rows, recipe: TrainedSpec, workspace: Path, kept: Path, progress: Progress
) -> None:
    """Train in a folder of its own, check what came out, and put it where it is kept."""
    job = workspace / "training" / kept.name.removeprefix("trained-")
    remove(job)
    data, model = job / "data", job / "model"
    write_labels(spec, world, (rows.train, rows.test), data)
    cores = usable_workers()
    progress("training", 0.0, f"{recipe.trainer.split()[0]}, on {cores} cores; its log is {model / 'train.log'}")
    beside = [] if spec.folder is None else [spec.folder]
    told = train(recipe, data, model, cores, beside)
    _check(recipe, model, world.training[0].atoms(rows.train[0].displacements[-1]))
    (model / TOLD).write_text(json.dumps(told) + "\n", encoding="utf-8")
    with locked(kept.parent):
        seal(model, kept.name)
        remove(kept)
        os.replace(model, kept)
    remove(job)


def _check(recipe: TrainedSpec, model: Path, atoms: Atoms) -> None:
    """Measure that the files in `model` are a potential; raises `UnusableReference` or `BrokenContract`."""
    calculator = load(recipe.loader, model)
    try:
        with others_code(f"forces with what {recipe.loader!r} loads"):
            check_calculator(calculator, atoms)
    except BrokenContract as broken:
        raise BrokenContract(
            f"what {recipe.loader!r} loads is no potential that can be judged: {broken}. The files of the model are in "
            f"{model}"
        ) from broken
