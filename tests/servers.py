"""Real servers for tests, each on a free port: MLflow's, PostgreSQL, S3, and a line that can be cut."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

START = 300.0  # seconds for a server to answer on a busy machine


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def silent_port() -> Iterator[int]:
    """A port that refuses connections, and that no other program can take meanwhile."""
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


@contextmanager
def mlflow_server(folder: Path, database: str | None = None) -> Iterator[str]:
    """The address of a new MLflow server that keeps runs in `database` and artifacts in `folder`/artifacts."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", database or f"sqlite:///{folder}/server.db"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = (folder / "server.log").open("w")
    with log, subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **quiet}, process_group=0) as server:
        address = f"http://127.0.0.1:{port}"
        try:
            until = time.monotonic() + START
            while not _answers(f"{address}/health"):
                assert server.poll() is None, (folder / "server.log").read_text()
                assert time.monotonic() < until, "the MLflow server does not start"
                time.sleep(0.2)
            yield address
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, 9)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


class Postgres:
    """A PostgreSQL server of our own in `folder`; skips the test when it is not installed."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("psycopg", reason="psycopg, the driver of PostgreSQL, is not installed")
        found = shutil.which("initdb") or max(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), default="")
        if not found:
            pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
        self._programs, self._data = Path(found).resolve().parent, folder / "data"
        self._user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}  # root is refused
        self._data.mkdir()
        if self._user:
            folder.chmod(0o755)
            shutil.chown(self._data, **self._user)
        self._port = free_port()
        self.address = f"postgresql://tester:secret-word@127.0.0.1:{self._port}/postgres"
        words = folder / "password"
        words.write_text("secret-word")
        words.chmod(0o644)
        secured = ["-U", "tester", "-A", "scram-sha-256", "--pwfile", str(words), "--no-sync"]
        self._call("initdb", "-D", str(self._data), *secured)

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._data}"
        self._call("pg_ctl", "-D", str(self._data), "-w", "-o", options, "-l", str(self._data / "log"), "start")

    def stop(self, how: str = "fast") -> None:
        """End it; `how` "immediate" is a crash: nothing is written any more."""
        self._call("pg_ctl", "-D", str(self._data), "-w", "-m", how, "stop")

    def _call(self, program: str, *words: str) -> None:
        command = [str(self._programs / program), *words]
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False, cwd="/", **self._user
        )
        assert done.returncode == 0, done.stderr


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL server. Its folder is none of pytest's, which only their owner may enter."""
    with TemporaryDirectory(prefix="dislobench-postgres-") as folder:
        server = Postgres(Path(folder))
        server.start()
        try:
            yield server
        finally:
            with suppress(AssertionError):  # a test may have ended it
                server.stop("immediate")


class Objects:
    """An S3 server (moto's) in this process, which tells what it was asked, and can be told to refuse."""

    def __init__(self) -> None:
        pytest.importorskip("obstore", reason="obstore, the client of object stores, is not installed")
        pytest.importorskip("moto", reason="moto, an S3 server for tests, is not installed")
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Silent(WSGIRequestHandler):
            def log(self, *_: object) -> None: ...

        self._app = DomainDispatcherApplication(create_backend_app)
        self.asked: list[tuple[str, str, int]] = []
        """Method, path and bytes of each request, in the order in which they ended."""
        self.refuse: Callable[[str, str], bool] = lambda method, path: False
        """Whether a request (method, path) gets no answer but an error of the server."""
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=Silent)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, environ: dict[str, Any], begin: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if self.refuse(method, path):
            begin("503 SLOW DOWN", [("Content-Length", "0")])
            return [b""]
        answer = [*self._app(environ, begin)]
        size = int(environ.get("CONTENT_LENGTH") or 0) if method == "PUT" else sum(map(len, answer))
        self.asked.append((method, path, size))
        return answer

    def bucket(self, name: str) -> None:
        """Make a bucket."""
        self._ask("PUT", f"/{name}")

    def put(self, path: str, content: bytes) -> None:
        """Write an object, as somebody else would."""
        self._ask("PUT", path, content)

    def get(self, path: str) -> bytes:
        return self._ask("GET", path)

    def delete(self, path: str) -> None:
        self._ask("DELETE", path)

    def _ask(self, method: str, path: str, content: bytes | None = None) -> bytes:
        """moto looks who asks, and not at the signature."""
        head = {
            "Authorization": "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request",
            "Content-Type": "application/octet-stream",
        }
        request = urllib.request.Request(self.address + path, content, head, method=method)
        with urllib.request.urlopen(request) as answer:
            return bytes(answer.read())

    def written(self) -> list[str]:
        """The paths of all objects that were written, in their order, with their bucket."""
        return [path for method, path, _ in self.asked if method == "PUT"]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Relay:
    """A port that hands everything on to another one, until it is cut."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("http://").rpartition(":")
        self._to = (host, int(port))
        self._port = free_port()
        self.address = f"http://127.0.0.1:{self._port}"
        self._open: list[socket.socket] = []
        self.mend()

    def cut(self) -> None:
        """Refuse connections, and break those that are there."""
        for each in [self._listener, *self._open]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._open.clear()

    def mend(self) -> None:
        """Accept connections again."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self._to)
                self._open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(1 << 16):
                target.sendall(piece)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
