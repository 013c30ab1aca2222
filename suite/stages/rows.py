"""The second and third stage: labelled configurations and the design matrix of a model, then its fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from suite.execution import single_threaded
from suite.model import regression
from suite.model.backends import backend_of
from suite.model.contract import Recipe
from suite.model.regression import Block, Solution, by_observable
from suite.model.rows import configuration_blocks, elastic_blocks, elastic_rows, perfect_row
from suite.model.training import Configurations, label, rattle
from suite.progress import Progress, silent
from suite.results import Model, Rows, World
from suite.spec import Spec
from suite.world.crystal import cubic_tensor, cubic_third_order, strain_path
from suite.world.reference import build_reference


def recipe_of(spec: Spec) -> Recipe:
    """How to build what the spec describes: a basis, a given potential, a list of functions, another trainer."""
    backend = backend_of(spec.model.backend)
    assert backend is not None  # `Spec` refuses others
    return backend.recipe(spec.material.species, spec.model)


Sets = tuple[Configurations, ...]  # one for each training cell


@single_threaded
def labelled_sets(spec: Spec, world: World, trains: bool = True) -> tuple[Sets, Sets]:
    """Training and test configurations around the relaxed training cells, labelled by the reference.

    Without `trains` the training sets are empty; the test sets are the same.
    """
    calculator = build_reference(spec.material.reference, spec.material.arguments)
    settings, energy = spec.training, world.energy_per_atom
    generator = np.random.default_rng(settings.seed)
    training, testing = [], []
    shares = [_shares(count, len(world.trained)) for count in (settings.configurations, settings.test)]
    for index, ((cell, equilibrium), trained, tested) in enumerate(zip(world.trained, *shares, strict=True)):
        ground = equilibrium.displacement
        displacements, amplitudes = rattle(ground, settings.amplitudes, trained + tested, generator, first=index)
        if not trains:
            displacements, amplitudes, trained = displacements[trained:], amplitudes[trained:], 0
        train, test = label(cell, displacements, amplitudes, calculator, energy).split(trained)
        if settings.equilibrium and trains:
            train = label(cell, ground[None], np.zeros(1), calculator, energy).joined(train)
        training.append(train)
        testing.append(test)
    return tuple(training), tuple(testing)


@single_threaded
def build_rows(spec: Spec, world: World, progress: Progress = silent, workers: int | None = None) -> Rows:
    """Labelled training and test configurations, and the reduced design matrix of a family that is fitted here."""
    energy = world.energy_per_atom
    training, testing = labelled_sets(spec, world, spec.model.trains)
    if not spec.model.fitted:
        return Rows(recipe_of(spec), {}, {}, np.zeros(0), energy, training, testing, world.response)
    recipe = recipe_of(spec)
    basis = recipe.build()
    # internal shifts are those of the reference: exact to first order in the model error (envelope theorem)
    calculator = build_reference(spec.material.reference, spec.material.arguments)
    path = strain_path(world.crystal, calculator, spec.model.step)
    progress("elastic rows", 0.0, f"{len(basis)} functions")
    elastic = elastic_rows(basis, path, world.crystal.volume)
    perfect = perfect_row(basis, path.undeformed)
    blocks = configuration_blocks(
        recipe,
        list(zip(world.training, training, strict=True)),
        perfect,
        workers,
        lambda done, total: progress("rows", done / total, f"{done} of {total} configurations"),
    )
    blocks.update(elastic_blocks(elastic, world.response))
    return Rows(recipe, blocks, elastic, perfect, energy, training, testing, world.response)


def _shares(count: int, cells: int) -> list[int]:
    """`count` configurations divided among `cells` cells as equally as possible."""
    return [count // cells + (index < count % cells) for index in range(cells)]


def blocks_of(spec: Spec, rows: Rows) -> dict[str, Block]:
    """The reduced blocks of the rows, with the target elastic constants shifted as the spec says."""
    if not spec.observables.shift:
        return rows.blocks
    shift, found = spec.observables.shift, rows.response
    wanted = replace(found, d2=found.d2 + cubic_tensor(shift), d3=found.d3 + cubic_third_order(shift))
    return rows.blocks | elastic_blocks(rows.elastic, wanted)


@single_threaded
def fit(spec: Spec, rows: Rows) -> Model:
    """Weigh, solve, and anchor the energy of the perfect crystal; a given potential is taken as it is.

    Raises `regression.Unsolvable`.
    """
    if not rows.functions:
        return Model(Solution(np.zeros(0), {}), 0.0, {})
    solution = regression.fit(spec, by_observable(spec, blocks_of(spec, rows)))
    coefficients = solution.coefficients
    training_rmse = {name: block.rmse(coefficients) for name, block in rows.blocks.items()}
    return Model(solution, rows.energy_per_atom - float(rows.perfect @ coefficients), training_rmse)
