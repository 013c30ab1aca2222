"""How commands end: Ctrl-C, SIGTERM, SIGKILL, a busy port. No process stays, and nothing blocks the next command."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store.locking import locked_file
from store.runs import FinishedRun, Tracker
from suite.cli import main
from suite.spec import load
from suite.study.cache import cached_rows, cached_world
from suite.study.session import Session, Stages

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")
MARK = "DISLOBENCH_TEST_MARK"
SOON = 15.0  # seconds: workers look for their parent twice a second, between two calls of compiled code


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose world is in the cache."""
    folder = tmp_path_factory.mktemp("endings")
    spec = load("w-split", "tiny")
    session = Session(folder, workers=1)
    world = cached_world(spec, session, Stages())
    cached_rows(spec, world, session, Stages())
    return folder


class Command:
    """A command in a process of its own; everything that it starts bears a mark in the environment."""

    def __init__(self, *arguments: str, program: str = "from suite.cli import main") -> None:
        self.mark = uuid.uuid4().hex
        code = f"{program}\nimport sys\nsys.exit(main({list(arguments)!r}))"
        environment = os.environ | {MARK: self.mark}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # a shell that runs the tests in the background has them ignore Ctrl-C, and a child would inherit that
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def alive(self) -> set[int]:
        """Processes that bear the mark; zombies have no environment."""
        found = set()
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if f"{MARK}={self.mark}".encode() in path.read_bytes().split(b"\0"):
                    found.add(int(path.parent.name))
            except OSError:  # it has ended, or is another user's
                continue
        return found

    def until(self, happened: Callable[[], Any], seconds: float = 240.0) -> None:
        deadline = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < deadline, self.alive()
            time.sleep(0.05)

    def computing(self) -> bool:
        """Two workers are at work: each has used a second of its processor, more than it needs to begin."""
        assert self.process.poll() is None, self.process.communicate()
        return sum(_seconds_of_a_worker(pid) > 1.0 for pid in self.alive()) >= 2

    def gone(self) -> bool:
        return not self.alive()

    def clear(self) -> None:
        for pid in self.alive():
            os.kill(pid, signal.SIGKILL)
        self.process.communicate()


def _seconds_of_a_worker(pid: int) -> float:
    """CPU time of a worker; 0 for other processes."""
    try:
        if b"LokyProcess" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return 0.0
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:  # it has ended
        return 0.0
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def start() -> Any:
    begun: list[Command] = []

    def start(*arguments: str, **named: str) -> Command:
        begun.append(Command(*arguments, **named))
        return begun[-1]

    yield start
    for command in begun:
        command.clear()


def long_run(workspace: Path) -> list[str]:
    many = ["--set", "training.configurations=1500", "--workers", "2"]
    return ["run", "w-split", "--preset", "tiny", "--workspace", str(workspace), *many]


def long_study(workspace: Path) -> list[str]:
    return [
        "tune",
        "w-split",
        "--preset",
        "tiny",
        "--workspace",
        str(workspace),
        "--trials",
        "9999",
        "--workers",
        "2",
    ]


@pytest.mark.parametrize("command", [long_run, long_study], ids=["run", "tune"])
def test_workers_end_when_their_parent_is_killed(
    command: Callable[[Path], list[str]], workspace: Path, start: Callable[..., Command]
) -> None:
    running = start(*command(workspace))
    running.until(running.computing)
    running.process.kill()
    running.until(running.gone, SOON)


@pytest.mark.parametrize(("number", "code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "int")])
def test_a_run_that_is_stopped_ends_its_workers_and_says_so(
    number: signal.Signals, code: int, word: str, workspace: Path, start: Callable[..., Command]
) -> None:
    for left in workspace.glob("locks/*"):  # of a process that an earlier test killed; the kernel has dropped them
        left.unlink()
    running = start(*long_run(workspace))
    running.until(running.computing)
    running.process.send_signal(number)
    _, message = running.process.communicate(timeout=60)
    assert running.process.returncode == code
    assert f"dislobench: {word}" in message
    assert "goes on" in message
    assert "Traceback" not in message
    running.until(running.gone, SOON)
    record = Tracker(workspace).history("w-split")[0]
    assert record.status == "KILLED"
    for lock in (workspace / "locks").iterdir():
        with locked_file(lock, lambda: pytest.fail("a lock is held by nobody")):
            pass


def test_ctrl_c_after_the_answer_leaves_no_traceback() -> None:
    program = (
        "import os, signal, sys\nfrom suite.cli import main\nsys.argv = ['dislobench', 'list', '--json']\n"
        "code = main()\nos.kill(os.getpid(), signal.SIGINT)\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_training_ends_with_its_command(
    workspace: Path, start: Callable[..., Command], number: signal.Signals, code: int
) -> None:
    """The programs that a trainer has started too: they would write into the folder of the next training."""
    for path in workspace.glob("training/*/model/begun"):  # the folder of a training that was stopped stays
        path.unlink()
    trainer = "sh -c 'touch begun; sleep 600; :' sh {data} {model}"
    command = start(
        *["run", "w-split", "--preset", "tiny", "--workspace", str(workspace), "--workers", "1"],
        *["--set", "model.backend=trainer", "--set", f"model.trainer={json.dumps(trainer)}"],
        *["--set", "model.calculator=ase.calculators.lj:LennardJones"],
    )

    def training() -> bool:
        assert command.process.poll() is None, command.process.communicate()
        return bool([*workspace.glob("training/*/model/begun")])

    command.until(training)
    assert len(command.alive()) >= 3  # the command, the process of the trainer, and its program
    command.process.send_signal(number)
    assert command.process.wait(120) == code  # it records the end of the run first
    command.until(command.gone, SOON)
    assert not [*(workspace / "cache").glob("trained-*")]


def test_several_cases_end_with_their_command(workspace: Path, start: Callable[..., Command]) -> None:
    """`run A B` starts a process for each case: stopped with it, and gone when it is killed."""
    arguments = ["run", "w-split", *long_run(workspace)[1:]]
    stopped = start(*arguments)
    stopped.until(stopped.computing)
    stopped.process.send_signal(signal.SIGTERM)
    stopped.process.communicate(timeout=60)
    assert stopped.process.returncode == 143
    stopped.until(stopped.gone, SOON)
    assert Tracker(workspace).history("w-split")[0].status == "KILLED"
    killed = start(*arguments)
    killed.until(killed.computing)
    killed.process.kill()
    killed.until(killed.gone, SOON)


# --- the UI -------------------------------------------------------------------------------------------------------

SERVER = """
import store.runs, sys
server = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(600)"
store.runs.Tracker.ui_command = lambda self, port, host: [sys.executable, "-c", server]
from suite.cli import main
"""
CHILD = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    Tracker(folder).log_batch_of_runs("w-split", None, [FinishedRun("a run")])
    return folder


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_ui_ends_its_server_and_the_server_s_children(
    number: signal.Signals, code: int, served: Path, free_port: int, start: Callable[..., Command]
) -> None:
    program = SERVER.format(child=CHILD)
    running = start("ui", "--workspace", str(served), "--port", str(free_port), program=program)
    running.until(lambda: len(running.alive()) >= 3)
    time.sleep(0.5)  # the child ignores SIGTERM as soon as it has begun
    running.process.send_signal(number)
    told, message = running.process.communicate(timeout=60)
    assert running.process.returncode == code
    assert "the server has ended" in message
    assert "viewStateShareKey=dislobench" in told
    running.until(running.gone, SOON)


def test_a_busy_port_is_told_at_once(served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        assert main(["ui", "--workspace", str(served), "--port", str(port)]) == 2
    message = capsys.readouterr().err
    assert f"port {port}" in message
    assert "--port" in message


def test_a_server_that_dies_early_is_told(
    served: Path, free_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dies = [sys.executable, "-c", "raise SystemExit(7)"]
    monkeypatch.setattr(Tracker, "ui_command", lambda self, port, host: dies)
    assert main(["ui", "--workspace", str(served), "--port", str(free_port)]) == 1
    assert "ended by itself with exit code 7" in capsys.readouterr().err


def test_a_pool_that_never_notices_its_end_does_not_keep_the_command() -> None:
    """A worker killed in the middle of a large message: the manager of the pool waits for the rest of it for ever."""
    program = """
import sys, threading
from types import SimpleNamespace
from suite import cli, execution

manager = threading.Thread(target=threading.Event().wait)
manager.start()

def stopped(arguments):
    execution._pool = SimpleNamespace(_processes={}, _executor_manager_thread=manager, shutdown=lambda wait: None)
    execution.ENDING = 0.2
    execution.stop_workers()
    print("told", end="")
    return 143

cli._command = stopped
sys.exit(cli.main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (143, "told")
