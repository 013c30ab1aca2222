"""The oracle says in milliseconds what the pipeline says with calculators and relaxations."""

import numpy as np
import pytest
from laws import ace_rounding

from suite.judge import theory
from suite.judge.matching import match_elasticity
from suite.judge.oracle import Oracle, elastic_forms
from suite.pipeline import assess, fit
from suite.results import Model, Rows, World, elasticity_of
from suite.spec import Spec, load
from suite.stages.judge import NoOracle, build_oracle
from suite.study import archive
from suite.world.crystal import response, strain_path
from suite.world.dislocation import catalogue_entry
from suite.world.elasticity import felt_form, strain_factor


@pytest.fixture(scope="module")
def oracle(tiny: Spec, world: World, rows: Rows) -> Oracle:
    return build_oracle(tiny, world, rows, workers=1)


@pytest.mark.parametrize("weights", [[], ["weights.energy=1e4", "weights.virial1=0.1"], ["observables.virial2=false"]])
def test_oracle_agrees_with_the_verdict(
    oracle: Oracle, tiny: Spec, world: World, rows: Rows, weights: list[str]
) -> None:
    spec = load("w-split", "tiny", weights)
    fitted = fit(spec, rows)
    found, verdict = oracle.evaluate(fitted.coefficients), assess(spec, world, rows, fitted)
    assert set(found) <= set(verdict.numbers)
    rounding = ace_rounding(fitted.coefficients, rows.perfect, world.crystal.volume, spec.model.step)
    kappa = strain_factor(elasticity_of(world.straight, world.response), world.line.burgers)
    small, large = len(world.training[0]), len(world.simulation)
    # errors are norms of differences: each of the two ways rounds every energy, component and entry
    tolerances = {
        "eps_E": small * rounding["energy"],
        "rmse_E": small * rounding["energy"],
        "eps_F": np.sqrt(3 * small) * rounding["force"],
        "rms_eps_F": np.sqrt(3 * small) * rounding["force"],
        "rmse_F": rounding["force"],
        "eps_stress": 3 * rounding["stress"],
        "eps_V1": 9 * rounding["virial1"],
        "eps_V2": 27 * rounding["virial2"],
        # |dK| <= κ²/2 |dC'|
        "eps_K": world.line.length * kappa / 2 * (9 * rounding["virial1"] + 3 * rounding["stress"]),
        "energy_factor_difference": world.line.length * kappa / 2 * (9 * rounding["virial1"] + 3 * rounding["stress"]),
        "geometry_error_linear": np.sqrt(3 * large) * rounding["force"] / world.stability,
        "energy_error_linear": large * rounding["energy"],
    }
    elementary = {name: limit for name in found for start, limit in tolerances.items() if name.startswith(start)}
    for name, limit in elementary.items():
        assert found[name] == pytest.approx(verdict.numbers[name], rel=1e-9, abs=2 * limit), name
    # terms, bounds and balances are made of those, by the same formulas
    for numbers in (found, verdict.numbers):
        made = theory.bound(numbers, spec.training.size, world.core_distance, len(world.simulation.cores))
        made |= theory.corrected_bound(numbers, spec.training.size, world.core_distance, len(world.simulation.cores))
        made |= theory.corrected_balance(numbers, spec.training.size, world.core_distance, world.stability)
        made |= theory.balance(numbers, world.core_distance, world.stability, world.leverage)
        assert {name: numbers[name] for name in found if name not in elementary} == made
    assert found["geometry_error_linear"] == pytest.approx(verdict.numbers["geometry_error"], rel=0.3)


@pytest.mark.parametrize("kind", ["edge", "mixed"])
def test_oracle_and_verdict_agree_on_what_edges_feel(
    tiny: Spec, world: World, rows: Rows, model: Model, kind: str
) -> None:
    """The same fit felt by dislocations with a net force on the core, from rows and from finite differences."""
    entry, reference = catalogue_entry("bcc", kind), world.response
    felt = felt_form(elasticity_of(entry, reference), entry.burgers_frame * world.crystal.a0, entry.frame)
    form = elastic_forms(rows.elastic, reference, felt)["eps_V1_felt"]
    found = float(np.linalg.norm(form @ np.append(model.coefficients, -1.0)))
    calculator = model.calculator(rows)
    own = response(world.crystal, calculator, strain_path(world.crystal, calculator, tiny.model.step))
    numbers = match_elasticity(reference, own, felt)
    rounding = ace_rounding(model.coefficients, rows.perfect, world.crystal.volume, tiny.model.step)
    limit = 9 * rounding["virial1"] + 3 * rounding["stress"]
    assert found == pytest.approx(numbers["eps_V1_felt"], rel=1e-9, abs=2 * limit)
    assert numbers["eps_V1_felt"] > 10 * limit
    assert numbers["eps_stress"] > 10 * limit, "without a pressure this would prove nothing of it"


def test_the_reference_in_the_basis_would_have_no_errors(oracle: Oracle, model: Model) -> None:
    """Every number is the norm of an affine function of c: twice the distance from a root is twice the number."""
    c = model.coefficients
    numbers = {k: [] for k in ("eps_F", "eps_V1", "geometry_error_linear", "rmse_F")}  # type: dict[str, list[float]]
    direction = np.random.default_rng(0).standard_normal(len(c)) * np.abs(c)
    for step in (1e6, 2e6, 4e6):  # far out the constant part does not count
        found = oracle.evaluate(c + step * direction)
        for name, values in numbers.items():
            values.append(found[name])
    for values in numbers.values():
        assert values[1] / values[0] == pytest.approx(2, rel=1e-4)
        assert values[2] / values[1] == pytest.approx(2, rel=1e-4)


def test_oracle_survives_the_cache(oracle: Oracle, model: Model, tmp_path: object) -> None:
    groups, attributes = archive.oracle_groups(oracle)
    import xarray as xr

    tree = xr.DataTree.from_dict(groups)
    tree.attrs = attributes
    again = archive.oracle_from(tree)
    assert again.evaluate(model.coefficients) == oracle.evaluate(model.coefficients)


def test_a_loop_has_no_oracle(world: World, rows: Rows, tiny: Spec) -> None:
    from dataclasses import replace

    from suite.world.crystal import elastic_tensor
    from suite.world.dislocation import LOOPS
    from suite.world.loop import build_loop

    cell = build_loop(world.crystal, LOOPS["bcc", "vacancy"], elastic_tensor(world.response), 12, 5)
    with pytest.raises(NoOracle, match="straight dislocation"):
        build_oracle(tiny, replace(world, simulation=cell), rows)
