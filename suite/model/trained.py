"""Potentials that another trainer fits: a command, or a function, that gets a data folder and leaves files of a model.

In a spec:

    [model]
    backend = "trainer"
    trainer = "gap"                      # a name of `suite.trainers`, "module:function", or a command line

A function is called as `train(data, model, **arguments)`, with the folder of the data and an empty folder for the
model. The function `load` beside it, or the one that `model.calculator` names, is called with the folder of the model
and returns an ASE calculator. In a command line {data} and {model} stand for these folders, and `model.calculator` is
needed.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase.calculators.calculator import Calculator

from store.faults import BadInput, FailedOutcome
from suite.children import ending, in_a_process, program_of
from suite.execution import THREADS
from suite.model.contract import hash_of
from suite.model.given import GivenPotential
from suite.toml import did_you_mean
from suite.trainers import TRAINERS
from suite.world.modules import import_beside
from suite.world.reference import UnusableReference, is_calculator, is_code, others_code, unknown_reference

TOLD, LOG = "trained.json", "train.log"
LINES = 5  # of the log that a message shows


class Untrained(BadInput, RuntimeError):
    """A potential whose trainer has not run yet."""


class NoTrainer(BadInput, ValueError):
    """What `model.trainer` or `model.calculator` names cannot be used."""


class FailedTraining(FailedOutcome, RuntimeError):
    """A trainer that ended with an error, or left nothing that can be loaded."""


@dataclass(frozen=True)
class TrainedSpec:
    """A potential that `trainer` makes with `arguments`, and that `calculator` (default: `load` beside the trainer)
    loads from `folder`; None before the training."""

    trainer: str
    calculator: str
    arguments: Mapping[str, Any]
    folder: Path | None = None

    def __hash__(self) -> int:
        return hash_of(self.trainer, self.calculator, self.folder, self.arguments)

    @property
    def loader(self) -> str:
        """Dotted name of what loads the model."""
        return loader_of(self.trainer, self.calculator)

    def importable(self) -> None:
        """Raises `UnusableReference` when the trainer or what loads its model cannot be imported, `MissingPackage` when
        a shipped trainer is not installed."""
        if self.trainer in TRAINERS:
            module, _, _ = TRAINERS[self.trainer].partition(":")
            import_beside(module).ready()
        if dotted := dotted_of(self.trainer):
            function_of(dotted, "the trainer")
        function_of(self.loader, "what loads the model,")

    def build(self) -> TrainedPotential:
        """The potential; raises `Untrained` before the training, `UnusableReference` when it cannot be loaded."""
        if self.folder is None:
            raise Untrained(
                f"the trainer {self.trainer!r} has not run yet: `dislobench run` runs it, in Python `run_case`; what "
                "it will take is not known before"
            )
        return TrainedPotential(load(self.loader, self.folder), self.folder)


class TrainedPotential(GivenPotential):
    """A potential in the files of a `folder`, which a run keeps."""

    def __init__(self, potential: Calculator, folder: Path) -> None:
        super().__init__(potential)
        self.folder = folder

    def save(self, coefficients: Any, energy_per_atom: float, folder: Path) -> list[Path]:
        """Copy the files of the model into `folder`."""
        shutil.copytree(self.folder, folder)
        return [path for path in folder.rglob("*") if path.is_file()]


def dotted_of(trainer: str) -> str:
    """The dotted name of a shipped trainer or a function; empty for a command line."""
    dotted = TRAINERS.get(trainer, trainer)
    return dotted if is_code(dotted) and unknown_reference(dotted) is None else ""


def loader_of(trainer: str, calculator: str) -> str:
    """Dotted name of what loads the model of a trainer; raises `NoTrainer` for a command line without one."""
    if calculator:
        return calculator
    if not (dotted := dotted_of(trainer)):
        raise NoTrainer("model.calculator is missing: what loads the model that the command leaves, 'module:function'?")
    return dotted.partition(":")[0] + ":load"


def refused(trainer: str, calculator: str) -> tuple[str, str] | None:
    """Key and reason why these cannot train and load a model, or None; nothing is imported or executed."""
    if not trainer.strip():
        return "model.trainer", f"is missing: {', '.join(TRAINERS)}, 'module:function', or a command line"
    if not dotted_of(trainer):
        try:
            words = shlex.split(trainer)
        except ValueError as error:
            return "model.trainer", f"is no command line: {error}"
        if "{model}" not in trainer or "{data}" not in trainer:
            return (
                "model.trainer",
                f"{trainer!r} is not one of {', '.join(TRAINERS)}, no 'module:function', and no command line with "
                "{data} and {model} in the place of the folders of the data and of the model"
                f"{did_you_mean(trainer, TRAINERS)}",
            )
        if program_of(words[0]) is None:
            return "model.trainer", f"no command {words[0]!r} on this machine: install it, or correct PATH"
        if not calculator:
            return "model.calculator", "is missing: what loads the model that the command leaves, 'module:function'?"
    if calculator and unknown_reference(calculator):
        return "model.calculator", f"{calculator!r} is no 'module:function' that loads a model from its folder"
    return None


def function_of(dotted: str, what: str) -> Callable[..., Any]:
    """What a dotted name names; raises `UnusableReference` when it cannot be imported."""
    module, _, attribute = dotted.partition(":")
    with others_code(f"{what} {dotted!r}"):
        return getattr(import_beside(module), attribute)


def load(loader: str, folder: Path) -> Calculator:
    """The calculator of the model in `folder`; raises `UnusableReference` when it cannot be loaded, or is no
    calculator."""
    function = function_of(loader, "what loads the model,")
    with others_code(f"the trained model with {loader!r}"):
        calculator = function(folder)
    if not is_calculator(calculator):
        raise UnusableReference(f"{loader!r} returns a {type(calculator).__name__}, and not an ASE calculator")
    return calculator


def words_of(command: str, data: Path, folder: Path, beside: Sequence[Path] = ()) -> list[str]:
    """The words of a command line, with the folders of the data and of the model in their places.

    The command runs in the folder of the model: names of files that lie in the current folder, or in one of `beside`,
    become absolute.
    """

    def placed(word: str) -> str:
        if "{data}" in word or "{model}" in word:
            return word.replace("{data}", str(data)).replace("{model}", str(folder))
        if not Path(word).suffix and "/" not in word:
            return word  # a word such as "train" is no file, even where one is called so
        return str(next((place / word for place in (Path.cwd(), *beside) if (place / word).is_file()), word))

    program, *words = shlex.split(command)
    found = program_of(program)
    return [str(Path(found).absolute()) if found else program, *map(placed, words)]


def train(recipe: TrainedSpec, data: Path, folder: Path, cores: int, beside: Sequence[Path] = ()) -> dict[str, float]:
    """Train in a process of its own, from `data` into the empty `folder`; its seconds and megabytes, and `cores`.

    Modules are looked for in the folders `beside` too. What the trainer prints goes into train.log in `folder`. Raises
    `FailedTraining` with the end of that log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command_line = not dotted_of(recipe.trainer)
    job = {
        "trainer": recipe.trainer,
        "words": words_of(recipe.trainer, data, folder, beside) if command_line else [],
        "arguments": dict(recipe.arguments),
        "data": str(data),
        "model": str(folder),
        "beside": [str(path) for path in beside],
        "path": [str(Path(place).absolute()) for place in sys.path],  # what is found here is found there
    }
    note = folder.with_suffix(".job.json")
    note.write_text(json.dumps(job), encoding="utf-8")
    threads = {f"{name}_THREADS": str(cores) for name in THREADS}
    with (folder / LOG).open("w", encoding="utf-8") as log:
        # -P: nothing that lies in the current folder may stand in for a module of dislobench
        command = [sys.executable, "-P", "-m", "suite.model.training_child", str(note)]
        code, _ = in_a_process(command, variables=threads, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    if code != 0 or not (folder / TOLD).is_file():
        how = ending(code) if code else "ended too early"
        lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-LINES:]
        raise FailedTraining(
            f"the trainer {recipe.trainer!r} {how}; its log is {folder / LOG} and ends with\n"
            + "\n".join(f"    {line}" for line in lines)
        )
    note.unlink()
    return {**json.loads((folder / TOLD).read_text()), "cores": float(cores)}
