"""`--large`: the sizes at which the numbers of docs/benchmarks.md were measured, some ten minutes."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--large", action="store_true", help="the sizes of docs/benchmarks.md instead of small ones")


@pytest.fixture(scope="module")
def large(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--large"))
