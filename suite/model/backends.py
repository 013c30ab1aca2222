"""The families of models that a spec can name as `model.backend`: a further one is a file, and a line of `BACKENDS`.

Families of other packages come in by `suite.plugins`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from suite import plugins
from suite.model.ace_jax import AceJaxSettings, AceJaxSpec
from suite.model.basis import BasisSpec
from suite.model.contract import Recipe
from suite.model.given import GivenSpec
from suite.model.lammps_family import Settings, wrong_settings
from suite.model.linear import BroughtSpec, LinearSpec
from suite.model.pod import PodSettings, PodSpec
from suite.model.snap import SnapSettings, SnapSpec
from suite.model.trained import TrainedSpec, refused
from suite.records import ACE_STEP, Model
from suite.trainers import TRAINERS
from suite.world.crystal import STEP
from suite.world.reference import is_code, unknown_reference

Species = tuple[str, ...]
EVERY = ("backend", "strain_step")  # keys that all of them read


@dataclass(frozen=True)
class Backend:
    """What `model.backend` names: keys of `[model]` that it reads, the recipe that these give, and the record that its
    `model.arguments` are, where they are one.

    `fits`: are there coefficients to be fitted here? `trains`: does it need training data? `step` is its strain step.
    `packages` are distributions whose versions decide its rows, besides those of every run.
    `source` names what the model is made of, empty where keys say all. `code` are names in the spec that are executed,
    `wrong` is a key and what is wrong with it, before anything is imported or built.
    """

    keys: tuple[str, ...]
    recipe: Callable[[Species, Model], Recipe]
    settings: type[Settings] | None = None
    fits: bool = True
    trains: bool = True
    step: float = STEP
    packages: tuple[str, ...] = ()
    source: Callable[[Model], str] = lambda model: model.calculator or model.backend
    code: Callable[[Model], Sequence[str]] = lambda model: ()
    wrong: Callable[[Model], tuple[str, str] | None] = lambda model: None

    @classmethod
    def of_settings(
        cls, settings: type[Settings], recipe: Callable[[Species, Any], Recipe], packages: tuple[str, ...] = ()
    ) -> Backend:
        """A family that is described by its `settings` alone."""
        return cls(
            ("arguments",),
            lambda species, model: recipe(species, settings.model_validate(model.arguments)),
            settings,
            step=ACE_STEP,
            packages=packages,
        )


def _ace(species: Species, model: Model) -> Recipe:
    assert model.cutoff is not None  # `Spec` refuses a basis without one
    return BasisSpec(
        species,
        model.cutoff,
        model.channels,
        model.degrees,
        model.radial,
        model.total_degree,
        model.angular_weight,
    )


def _wrong_given(model: Model) -> tuple[str, str] | None:
    if not model.calculator:
        return "model.calculator", "is missing: which potential is to be judged?"
    reason = unknown_reference(model.calculator)
    return None if reason is None else ("model.calculator", reason)


def _wrong_functions(model: Model) -> tuple[str, str] | None:
    if is_code(model.calculator):
        return None
    return "model.calculator", "a linear model needs a function, 'module:function', that returns its calculators"


def _code_of_trainer(model: Model) -> list[str]:
    """A function or a command line, and what loads the model; the trainers that are shipped are no strangers' code."""
    return [name for name in (model.trainer, model.calculator) if name and name not in TRAINERS]


BACKENDS = {
    "pyace": Backend(
        ("cutoff", "radial", "channels", "degrees", "total_degree", "angular_weight"),
        _ace,
        step=ACE_STEP,
        source=lambda model: "",
    ),
    "calculator": Backend(
        ("calculator", "arguments"),
        lambda _, model: GivenSpec(model.calculator, model.arguments),
        fits=False,
        trains=False,
        code=lambda model: [model.calculator],
        wrong=_wrong_given,
    ),
    "linear": Backend(
        ("calculator", "arguments"),
        lambda _, model: LinearSpec(model.calculator, model.arguments),
        code=lambda model: [model.calculator],
        wrong=_wrong_functions,
    ),
    "trainer": Backend(
        ("trainer", "calculator", "arguments"),
        lambda _, model: TrainedSpec(model.trainer, model.calculator, model.arguments),
        fits=False,
        source=lambda model: model.trainer,
        code=_code_of_trainer,
        wrong=lambda model: refused(model.trainer, model.calculator),
    ),
    "snap": Backend.of_settings(SnapSettings, SnapSpec),
    "pod": Backend.of_settings(PodSettings, PodSpec),
    "ace-jax": Backend.of_settings(AceJaxSettings, AceJaxSpec, ("ace-jax", "jaxlib")),
}


def backend_of(name: str) -> Backend | None:
    """The backend of this name, ours or an installed package's, or None."""
    if name in BACKENDS:
        return BACKENDS[name]
    if name in plugins.installed(plugins.BACKENDS):
        return Backend(("arguments",), lambda species, model: BroughtSpec(name, species, model.arguments))
    return None


def settings_of(model: Model, species: Sequence[str]) -> tuple[Settings | None, list[tuple[str, str]]]:
    """The settings of a backend that has a record of them, else None; and keys of `model.arguments` that are wrong."""
    backend = BACKENDS.get(model.backend)
    if backend is None or backend.settings is None:
        return None, []
    return wrong_settings(backend.settings, model.arguments, species)
