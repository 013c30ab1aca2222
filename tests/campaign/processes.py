"""Processes of the campaign: cases that are judged side by side, commands, and what a command leaves behind.

Every case is judged in a forked process of its own, so that a command that hangs, leaks or kills its process costs that
case only. A command of dislobench runs in a fork as well, which saves the seconds of its imports; where processes
themselves are on trial (`spawn`) it is a new interpreter. New interpreters and their workers carry an environment
variable, by which they are found again in /proc.
"""

from __future__ import annotations

import atexit
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MARKER = "DISLOBENCH_CAMPAIGN"
TRACEBACK = "Traceback (most recent call last)"
POLL = 0.02  # seconds between two looks at a child
MEMORY = 12 * 2**30  # bytes of addresses of a command: what takes more shall not end the machine


@dataclass(frozen=True)
class Finding:
    """One judged case: `wrong` is empty when it is right, or else one sentence of what is wrong.

    `signature` groups findings of one defect, `reproduction` tells how to see it, `files` holds the text of files that
    the reproduction needs.
    """

    part: str
    kind: str
    wrong: str = ""
    traceback: bool = False
    signature: str = ""
    reproduction: str = ""
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """Something to be judged in a process of its own: `judge` returns findings; after `limit` seconds it is ended."""

    name: str
    judge: Callable[[], list[Finding]]
    limit: float


@dataclass(frozen=True)
class Done:
    """A command that has ended: exit code (negative: the signal that ended it), what it printed, its seconds.

    `hung` tells that it was ended because its time was over.
    """

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float
    hung: bool = False

    @property
    def traced(self) -> bool:
        return TRACEBACK in self.err or TRACEBACK in self.out

    @property
    def line(self) -> str:
        """The command as it is typed."""
        import shlex

        return shlex.join(["dislobench", *self.arguments])

    def last_words(self, count: int = 300) -> str:
        """The end of what it wrote to stderr."""
        return self.err.strip()[-count:]


class Campaign:
    """The folder of all temporary files and the marker of all processes of one campaign."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.marker = root.name

    def run(self, cases: Sequence[Case], jobs: int) -> Iterator[Finding]:
        """Judge all cases, `jobs` at a time; findings come as cases end. A case that dies or takes too long is a
        finding itself."""
        waiting = list(enumerate(cases))[::-1]
        running: dict[int, tuple[Case, Path, float]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    number, case = waiting.pop()
                    told = self.root / f"told-{number}.json"
                    running[self._begin(case, told)] = (case, told, time.monotonic() + case.limit)
                for pid, (case, told, end) in list(running.items()):
                    ended, status = os.waitpid(pid, os.WNOHANG)
                    if ended:
                        del running[pid]
                        yield from _told(case, told, os.waitstatus_to_exitcode(status))
                    elif time.monotonic() > end:
                        self._stop(pid, case)
                        del running[pid]
                        partial = list(_told(case, told, 0)) if told.exists() else []
                        yield from partial
                        yield Finding(
                            "campaign",
                            case.name,
                            f"{case.name}: not judged after {case.limit:g} s: something hangs, or the machine is slow",
                            signature="case hangs",
                        )
                time.sleep(POLL)
        finally:
            for pid, (case, _, _) in running.items():
                self._stop(pid, case)

    def _begin(self, case: Case, told: Path) -> int:
        told.unlink(missing_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            os.environ[MARKER] = f"{self.marker}/{case.name}"
            findings = case.judge()
            partial = told.with_suffix(".part")
            partial.write_text(json.dumps([asdict(f) for f in findings]), encoding="utf-8")
            os.replace(partial, told)
            code = 0
        except BaseException:
            told.with_suffix(".error").write_text(traceback.format_exc(), encoding="utf-8")
        finally:
            os._exit(code)

    def _stop(self, pid: int, case: Case) -> None:
        """End a case, its forked commands, which share its process group, and everything that carries its marker."""
        for kill in (os.killpg, os.kill):
            with suppress(ProcessLookupError):
                kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
        end_marked(f"{self.marker}/{case.name}")

    def clean(self) -> None:
        """End every process that carries the marker, unmount and delete everything below the folder."""
        end_marked(self.marker)
        for line in Path("/proc/mounts").read_text().splitlines():
            place = line.split()[1]
            if place.startswith(f"{self.root}/"):
                subprocess.run(["umount", "-l", place], check=False)
        shutil.rmtree(self.root, ignore_errors=True)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder, deleted at the end. `tempfile.TemporaryDirectory` would delete it as soon as a forked command
    ends, because that runs what is registered for the end of the interpreter."""
    folder = Path(tempfile.mkdtemp())
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _told(case: Case, told: Path, code: int) -> Iterator[Finding]:
    error = told.with_suffix(".error")
    if told.exists():
        yield from (Finding(**entry) for entry in json.loads(told.read_text(encoding="utf-8")))
        told.unlink()
    elif error.exists():
        trace = error.read_text(encoding="utf-8")
        error.unlink()
        yield Finding("campaign", case.name, f"{case.name}: the judge itself failed: {trace}", signature="judge fails")
    else:
        yield Finding("campaign", case.name, f"{case.name}: its process died, exit code {code}", signature="case dies")


def dislobench(
    arguments: Sequence[str],
    scratch: Path,
    limit: float = 120.0,
    memory: int = MEMORY,
    largest_file: int = resource.RLIM_INFINITY,
) -> Done:
    """Run a command of dislobench in a fork of this process, which has imported what it needs.

    It sees the output as files, has no terminal, is ended with its workers after `limit` seconds, and may have `memory`
    bytes of addresses and write files of `largest_file` bytes.
    """
    out, err = scratch / "stdout", scratch / "stderr"
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _be_command(arguments, out, err, memory, largest_file)
    code, hung = None, False
    while code is None:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
        elif time.monotonic() - begun > limit:
            hung = True
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            code = -signal.SIGKILL
        else:
            time.sleep(POLL)
    if hung or code < 0:
        end_marked(os.environ.get(MARKER, MARKER))
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in (out, err)]
    return Done(tuple(arguments), code, *texts, time.monotonic() - begun, hung)


def _be_command(arguments: Sequence[str], out: Path, err: Path, memory: int, largest_file: int) -> None:
    """Become a command of dislobench and end as an interpreter ends; never returns."""
    code = 1
    try:
        for path, number in ((out, 1), (err, 2)):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, number)
            os.close(handle)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as every interpreter does: an OSError instead
        sys.modules["__main__"] = types.ModuleType("__main__")  # workers would import the campaign otherwise
        from suite.cli import main

        code = main(list(arguments))
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # what an interpreter does at its end, and os._exit does not
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


class Spawned:
    """A command of dislobench in a new interpreter and a new session, marked for `marked`."""

    def __init__(self, arguments: Sequence[str], scratch: Path, marker: str) -> None:
        self.arguments, self.marker = tuple(arguments), marker
        self._out, self._err = scratch / "stdout", scratch / "stderr"
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        self._begun = time.monotonic()
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "import sys; from suite.cli import main; sys.exit(main())", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "PYTHONPATH": path, MARKER: marker},
                start_new_session=True,
                cwd=scratch,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: int, group: bool = False) -> None:
        """Send a signal to the command, or to its process group as a terminal does."""
        (os.killpg if group else os.kill)(self.pid, number)

    def wait(self, limit: float) -> Done | None:
        """The ended command, or None when it still runs after `limit` seconds."""
        try:
            code = self._process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in (self._out, self._err)]
        return Done(self.arguments, code, *texts, time.monotonic() - self._begun)

    def finish(self, limit: float) -> Done:
        """Wait for its end; after `limit` seconds it and its workers are killed, and it counts as hung."""
        done = self.wait(limit)
        if done is not None:
            return done
        end_marked(self.marker)
        done = self.wait(10)
        assert done is not None
        return Done(done.arguments, done.code, done.out, done.err, done.seconds, hung=True)


def marked(marker: str) -> list[int]:
    """Ids of all living processes whose environment holds `marker`, or one below it, but for this process."""
    wanted = f"{MARKER}={marker}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            continue  # it has ended
        if state != "Z" and any(v == wanted or v.startswith(wanted + b"/") for v in variables):
            found.append(int(folder.name))
    return sorted(found)


def command_of(pid: int) -> str:
    """The command line of a process, or "" when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def gone(marker: str, within: float) -> list[int]:
    """Wait until no process carries `marker`; the ids of those that are left after `within` seconds."""
    end = time.monotonic() + within
    while left := marked(marker):
        if time.monotonic() > end:
            return left
        time.sleep(0.1)
    return []


def end_marked(marker: str) -> None:
    """Kill every process that carries `marker`, each by its id."""
    for pid in marked(marker):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
