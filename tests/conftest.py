"""Expensive things, made once: the tungsten reference, its crystal, one small relaxed world, its rows and a fit."""

import pytest
from ase.calculators.calculator import Calculator
from materials import calculator_of, crystal_of, response_of

from suite.pipeline import Model, Rows, World, build_rows, build_world, fit
from suite.spec import Spec, load
from suite.world.crystal import Crystal, Response, elastic_tensor
from suite.world.dislocation import Dislocation, catalogue_entry
from suite.world.elasticity import Stroh, rotate, stroh


@pytest.fixture(scope="session")
def zhou() -> Calculator:
    """The smooth tungsten potential."""
    return calculator_of("W_zhou04")


@pytest.fixture(scope="session")
def eam4() -> Calculator:
    """The piecewise cubic tungsten potential."""
    return calculator_of("W_eam4")


@pytest.fixture(scope="session")
def tungsten() -> Crystal:
    return crystal_of("W_zhou04")


@pytest.fixture(scope="session")
def tungsten_response() -> Response:
    return response_of("W_zhou04")


@pytest.fixture(scope="session")
def screw() -> Dislocation:
    return catalogue_entry("bcc", "screw")


@pytest.fixture(scope="session")
def tungsten_stroh(tungsten_response: Response, screw: Dislocation) -> Stroh:
    return stroh(rotate(elastic_tensor(tungsten_response), screw.frame))


@pytest.fixture(scope="session")
def tiny() -> Spec:
    """The spec of the shared world."""
    return load("w-screw", "tiny")


@pytest.fixture(scope="session")
def world(tiny: Spec) -> World:
    return build_world(tiny)


@pytest.fixture(scope="session")
def rows(tiny: Spec, world: World) -> Rows:
    return build_rows(tiny, world, workers=1)


@pytest.fixture(scope="session")
def model(tiny: Spec, rows: Rows) -> Model:
    return fit(tiny, rows)
