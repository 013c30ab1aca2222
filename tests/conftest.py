"""Expensive things, made once: the tungsten reference, its crystal, one small relaxed world, its rows and a fit."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from ase.calculators.calculator import Calculator
from materials import calculator_of, crystal_of, response_of
from servers import Objects

from store import database, objects
from suite.pipeline import build_rows, build_world, fit
from suite.results import Model, Rows, World
from suite.spec import Spec, load
from suite.world.crystal import Crystal, Response, elastic_tensor
from suite.world.dislocation import Dislocation, catalogue_entry
from suite.world.elasticity import Stroh, rotate, stroh

AWS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret-word"}
POWERLESS = """
import ctypes, os, sys
if "POWERLESS" not in os.environ:  # root may write what is read-only, unless it gives that power up for good
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
    os.execve(sys.executable, sys.orig_argv, {**os.environ, "POWERLESS": "1"})
"""


@pytest.fixture(autouse=True)
def own_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of tests go to their own workspaces, wherever those of the user go."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session", autouse=True)
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """MLflow makes its tables once for each process that runs tests, and not, in 0.7 s each time, for every workspace;
    commands that tests start make their own."""
    empty = tmp_path_factory.mktemp("tables") / "mlflow.db"
    make = database._make_tables

    def copy(path: Path) -> None:
        if not empty.exists():
            make(empty)
        shutil.copyfile(empty, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_make_tables", copy)
        yield


@pytest.fixture(scope="session")
def s3() -> Iterator[Objects]:
    """An S3 server."""
    running = Objects()
    yield running
    running.stop()


@pytest.fixture
def bucket(s3: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a new workspace on the S3 server, which is asked twice when it refuses."""
    for name, value in {**AWS, "AWS_ENDPOINT_URL": s3.address, "DISLOBENCH_CACHE": str(tmp_path / "here")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(objects, "PATIENCE", {"retries": 1, "first": 0.01, "longest": 0.01, "all": 5.0})
    objects._bucket.cache_clear()
    monkeypatch.setattr(s3, "refuse", lambda method, path: False)
    s3.bucket("bucket")
    s3.asked.clear()
    return f"s3://bucket/{uuid4().hex[:8]}"


@pytest.fixture
def powerless() -> str:
    """Beginning of a program that obeys the permissions of files, whoever runs the tests."""
    return POWERLESS


@pytest.fixture
def read_only() -> Iterator[Callable[[Path], None]]:
    """Make a folder and all in it read-only until the end of the test."""
    changed: dict[Path, int] = {}

    def close(folder: Path) -> None:
        for path in [folder, *folder.rglob("*")]:
            changed[path] = path.stat().st_mode
            path.chmod(0o555 if path.is_dir() else 0o444)

    yield close
    for path, mode in changed.items():
        path.chmod(mode)


@pytest.fixture(scope="session")
def zhou() -> Calculator:
    """The smooth tungsten potential."""
    return calculator_of("W_zhou04_smooth")


@pytest.fixture(scope="session")
def eam4() -> Calculator:
    """The piecewise cubic tungsten potential."""
    return calculator_of("W_eam4")


@pytest.fixture(scope="session")
def tungsten() -> Crystal:
    return crystal_of("W_zhou04_smooth")


@pytest.fixture(scope="session")
def tungsten_response() -> Response:
    return response_of("W_zhou04_smooth")


@pytest.fixture(scope="session")
def screw() -> Dislocation:
    return catalogue_entry("bcc", "screw")


@pytest.fixture(scope="session")
def tungsten_stroh(tungsten_response: Response, screw: Dislocation) -> Stroh:
    return stroh(rotate(elastic_tensor(tungsten_response), screw.frame))


@pytest.fixture(scope="session")
def tiny() -> Spec:
    """The spec of the shared world."""
    return load("w-split", "tiny")


@pytest.fixture(scope="session")
def world(tiny: Spec) -> World:
    return build_world(tiny)


@pytest.fixture(scope="session")
def rows(tiny: Spec, world: World) -> Rows:
    return build_rows(tiny, world, workers=1)


@pytest.fixture(scope="session")
def model(tiny: Spec, rows: Rows) -> Model:
    return fit(tiny, rows)
