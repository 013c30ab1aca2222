"""Work on the workers of a cluster, by Dask.

    with opened("local:4", workspace) as cluster, through(cluster):
        run_sweep(...)

An address is `tcp://HOST:PORT` of a scheduler that runs, `local:N` for N worker processes of this machine, or a TOML
file (`ClusterFile`) whose jobs dask-jobqueue submits to a batch system. Whoever needs no cluster does not import this
module, nor Dask.

Workers see the workspace and the current folder under the same names, have one thread each, and the packages of this
machine: all three are checked in every worker before it computes anything.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import platform
import queue
import shutil
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from store import provenance
from store.faults import BadInput, Fault
from store.locking import locked_file
from suite.execution import AHEAD, RETRIES, THREADS, LostWorkers, Tell, as_worker, call, to_stderr
from suite.records import Count, Record, sentence_of
from suite.spec import BadSpec, locate, read_toml
from suite.study.described import PACKAGES
from suite.tasks import Order, Task
from suite.trainers.needed import needed

if TYPE_CHECKING:
    from distributed import Client, Future

FIRST = 30.0  # seconds for a scheduler to answer
LOOK = 2.0  # seconds between two looks at the workers
PATIENCE = 60.0  # seconds without workers between two words about it

# Dask would take a worker for dead that computes for minutes without letting Python go, and would pause or kill one
# that uses much memory: that is for the batch system to judge. A piece counts as deadly after as many deaths as
# elsewhere, and no piece waits in a worker that another piece may kill.
SETTINGS = {
    "distributed.scheduler.worker-ttl": None,
    "distributed.scheduler.allowed-failures": RETRIES,
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.admin.tick.limit": "1h",  # no warning whenever a factorisation keeps Python
    # what Dask does all the time for its own pages takes 6 % of a core otherwise, with two workers
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.tick.interval": "1s",
}


class BadCluster(BadInput):
    """A cluster that cannot be used: no scheduler answers, or its workers do not fit."""


class NotShared(BadInput):
    """A worker does not see a folder of this machine, or locks on it do not hold there."""


class OtherVersions(BadInput):
    """A worker has other packages than this machine: its numbers would be others."""


class LostCluster(Fault):
    """The scheduler of a cluster has ended while work was left."""

    exit_code = 3


class ClusterFile(Record):
    """A cluster of batch jobs. `jobs` of `workers` processes each are submitted to the `system`; a job gets `memory`
    and ends after `walltime`, and so does the work that it has begun. `queue` (or partition) and `account` as the
    system has them; `directives` are further lines of the head of the job script, without #SBATCH and the like,
    `prologue` are lines before the workers start. `interface` is the network that workers and this machine share;
    `python` runs the workers; `log_folder` takes what they print."""

    system: Literal["slurm", "pbs", "lsf", "sge"]
    jobs: Count
    workers: Count = 1
    memory: Annotated[str, Field(pattern=r"^\d+(\.\d+)?\s*[kKMGT]i?B$")]
    walltime: Annotated[str, Field(pattern=r"^(\d+-)?\d+:\d\d(:\d\d)?$")]
    queue: str | None = None
    account: str | None = None
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    interface: str | None = None
    python: str | None = None
    log_folder: str | None = None


def read_cluster(path: Path) -> ClusterFile:
    """The record of a cluster file; raises `BadSpec` with file and line."""
    text, tables = read_toml(path)
    try:
        return ClusterFile.model_validate(tables)
    except ValidationError as error:
        lines = locate(text)
        problems = []
        for item in error.errors():
            place = tuple(map(str, item["loc"][:1]))
            sentence = sentence_of({**item}, place, ClusterFile)
            problems.append(f"{path}:{lines.get(place, 1)}: {'.'.join(place)}: {sentence}")
        raise BadSpec(problems) from error


# --- opening ------------------------------------------------------------------------------------------------------


@contextmanager
def opened(address: str, workspace: Path, tell: Tell = to_stderr) -> Iterator[DaskCluster]:
    """The cluster at `address`; what this started, ends with the block, and the work that is left with it.

    Raises `BadCluster` when there is no such cluster, `BadSpec` for a bad file, `MissingPackage` without Dask.
    """
    needed("", "distributed", "distributed", "cluster", "--cluster")
    import dask
    from distributed import Client

    kind, _, rest = address.partition(":")
    with dask.config.set(SETTINGS), _quiet(), _token(workspace) as token:
        made: Any = None
        client: Client | None = None
        try:
            if kind == "local":
                made = _local(int(rest))
            elif address.endswith(".toml"):
                made = _submitted(read_cluster(Path(address)))
            try:
                client = Client(made or address, timeout=FIRST, set_as_default=False, name="dislobench")
            except (OSError, ValueError) as error:
                raise BadCluster(
                    f"no Dask scheduler answers at {address} ({error}): start one with `dask scheduler`, and take the "
                    "address that it prints"
                ) from error
            cluster = DaskCluster(client, Setting(os.getcwd(), token, _own_versions()), tell)
            tell(f"cluster: {cluster.told()}")
            yield cluster
        finally:
            for each in (client, made):
                if each is not None:
                    each.close(timeout=FIRST)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Dask's client logs: tracebacks of lost connections, of which we tell in a sentence."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _local(workers: int) -> Any:
    from distributed import LocalCluster

    made = LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        memory_limit=0,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs="ERROR",
        env={f"{name}_THREADS": "1" for name in THREADS},
    )
    # Dask gives a worker up that was killed while it started, and would be left without workers
    made.adapt(minimum=workers, maximum=workers)
    return made


def _submitted(file: ClusterFile) -> Any:
    """The cluster of dask-jobqueue for a file, with its jobs submitted; a job that ends is replaced. Raises
    `MissingPackage`, and `BadCluster` where no job can be submitted."""
    program = {"slurm": "sbatch", "pbs": "qsub", "lsf": "bsub", "sge": "qsub"}[file.system]
    if shutil.which(program) is None:
        raise BadCluster(
            f"there is no {program} here: give the command on a machine that submits jobs to {file.system}"
        )
    made = job_cluster(file)
    made.adapt(minimum_jobs=file.jobs, maximum_jobs=file.jobs)
    return made


def job_cluster(file: ClusterFile) -> Any:
    """The cluster of dask-jobqueue for a file, before any job is submitted; `job_script()` of it is what a job does."""
    needed("", "dask_jobqueue", "dask-jobqueue", "cluster", "--cluster FILE.toml")
    import dask_jobqueue

    kinds = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster"}
    account = {"lsf": "project", "sge": "project"}.get(file.system, "account")
    given = {"queue": file.queue, account: file.account, "interface": file.interface, "python": file.python}
    return getattr(dask_jobqueue, kinds[file.system])(
        cores=file.workers,
        processes=file.workers,
        memory=file.memory,
        walltime=file.walltime,
        job_extra_directives=list(file.directives),
        job_script_prologue=[*(f"export {name}_THREADS=1" for name in THREADS), *file.prologue],
        worker_extra_args=["--memory-limit", "0"],  # the batch system counts the memory
        log_directory=file.log_folder,
        job_name="dislobench",
        scheduler_options={"dashboard_address": ":0"},
        silence_logs="ERROR",
        **{key: value for key, value in given.items() if value is not None},
    )


@contextmanager
def _token(workspace: Path) -> Iterator[Path]:
    """A locked file in the workspace: a worker that finds it, and finds it locked, has the same file system."""
    path = workspace.absolute() / "locks" / f"cluster-{uuid.uuid4().hex}"
    with locked_file(path):
        yield path


# --- in a worker --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """What a worker must have in common with the machine that sends work: the current folder, the workspace (a locked
    file in it), and versions."""

    folder: str
    token: Path
    versions: dict[str, str]


@cache
def _own_versions() -> dict[str, str]:
    return {"python": platform.python_version(), **provenance.versions(PACKAGES)}


_checked: set[Path] = set()


def _in_worker(setting: Setting, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """What a worker does for one task. Raises `NotShared` and `OtherVersions`."""
    host = socket.gethostname()
    if setting.token not in _checked:
        if differ := {name for name, version in _own_versions().items() if setting.versions.get(name) != version}:
            name = min(differ)
            raise OtherVersions(
                f"the worker on {host} has {name} {_own_versions()[name]}, and this machine "
                f"{setting.versions.get(name)}: install the same packages on both"
            )
        _check_sharing(setting.token, host)
        _keep_memory()
        _checked.add(setting.token)
    try:
        as_worker(setting.folder)
    except OSError as error:
        raise NotShared(
            f"the worker on {host} has no folder {setting.folder}: give the command in a folder that all machines share"
        ) from error
    return call(function, arguments)


def _keep_memory() -> None:
    """Let this process keep the memory of arrays up to 32 MiB for the next ones, as a process of its own would.

    Dask's nanny starts workers with MALLOC_TRIM_THRESHOLD_, and glibc then maps every array above 128 KiB anew: a
    third of a sweep's time went into page faults. Other libraries of C have no `mallopt`, and not this problem.
    """
    if platform.libc_ver()[0] == "glibc":
        trim, mapped, largest = -1, -3, 2**25  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, and the most that malloc takes
        ctypes.CDLL(None).mallopt(mapped, largest)
        ctypes.CDLL(None).mallopt(trim, 2 * largest)


def _check_sharing(token: Path, host: str) -> None:
    workspace = token.parent.parent
    try:
        handle = token.open("r+")
    except OSError as error:
        raise NotShared(
            f"the worker on {host} does not see the workspace {workspace} ({error.strerror}): name a folder with "
            "--workspace that all machines have under this name (of a workspace in a bucket, with DISLOBENCH_CACHE)"
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError as error:
            raise NotShared(f"the file system of {workspace} has no locks on {host} ({error.strerror})") from error
    raise NotShared(
        f"locks on {workspace} do not hold between this machine and {host}: mount its file system with locks (flock), "
        "or take another one"
    )


# --- on this machine ----------------------------------------------------------------------------------------------


class DaskCluster:
    """The workers of a Dask scheduler; see `suite.execution.Cluster`."""

    def __init__(self, client: Client, setting: Setting, tell: Tell) -> None:
        self._client, self._setting, self._tell = client, setting, tell
        self._known: set[str] = set()
        self._looked, self._silent = 0.0, time.monotonic()

    @property
    def workers(self) -> int:
        """How many workers there are, at least 1; raises `BadCluster` when one has several threads, `LostCluster`."""
        if time.monotonic() - self._looked > LOOK:
            self._look()
        return max(1, len(self._known))

    def told(self) -> str:
        """The cluster in words."""
        self._look()
        link = self._client.dashboard_link
        return f"{len(self._known)} workers at {self._client.scheduler.address}, dashboard at {link}"

    def map_pieces(
        self, function: Callable[..., Any], pieces: Sequence[tuple[Any, ...]], workers: int, tell: Tell = to_stderr
    ) -> Iterator[Any]:
        """The `Executor` with workers of a cluster: a few pieces for each of `workers` are sent ahead."""
        kind = f"{function.__module__.rpartition('.')[2]} {function.__name__.strip('_')}".replace("_", " ")
        ahead = iter(enumerate(pieces))
        sent: deque[Future] = deque()
        try:
            sent.extend(self._submit(kind, str(n), function, piece) for n, piece in islice(ahead, AHEAD * workers))
            while sent:
                result = self._result(sent[0])
                sent.popleft()
                sent.extend(self._submit(kind, str(n), function, piece) for n, piece in islice(ahead, 1))
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            self._give_up([*sent])

    def run_tasks(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        """Index and result of every task, or the exception that ended it, as they end. No more are sent than there are
        workers, and never two at once that make the same thing (`suite.tasks.Order`)."""
        order = Order([task.makes for task in tasks])
        ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        running: dict[Future, int] = {}

        def fill() -> None:
            while len(running) < self.workers and (index := order.next()) is not None:
                task = tasks[index]
                future = self._submit(task.kind, task.name, task.function, task.arguments)
                running[future] = index
                future.add_done_callback(ended.put)

        try:
            fill()
            while running:
                try:
                    future = ended.get(timeout=LOOK)
                except queue.Empty:
                    self._look()
                    fill()  # workers may have come
                    continue
                index = running.pop(future)
                result = self._result(future)
                order.ended(index, made=not isinstance(result, BaseException))
                fill()
                yield index, result
        finally:
            self._give_up([*running])

    def _submit(self, kind: str, name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Future:
        # Dask's pages count together what is the same before the first dash
        key = f"{kind.replace('-', '_')}-{name}, {uuid.uuid4().hex[:8]}"
        return self._client.submit(_in_worker, self._setting, function, arguments, key=key, pure=False)

    def _result(self, future: Future) -> Any:
        """The result of a task when it has ended, or its exception; raises `LostCluster`."""
        from distributed import CancelledError, KilledWorker

        while future.status in ("pending", "lost"):  # lost with the worker that held it: it is computed again
            done = threading.Event()
            future.add_done_callback(lambda _, done=done: done.set())
            while not done.wait(LOOK):
                self._look()
        if future.status == "cancelled":
            raise self._lost()
        try:
            return future.result()
        except CancelledError as error:
            raise self._lost() from error
        except KilledWorker as error:
            lost = LostWorkers(
                f"the workers that computed {str(future.key).rpartition(', ')[0]!r} were killed {RETRIES + 1} times: "
                "most likely their memory is too small; give each worker more memory, or take a smaller case"
            )
            lost.__cause__ = error
            return lost
        except Exception as error:
            return error

    def _look(self) -> None:
        """Count the workers; raises `LostCluster` when the scheduler is gone, `BadCluster` for workers with threads."""
        try:
            threads = self._client.nthreads() if self._client.status == "running" else None
        except (OSError, TimeoutError, RuntimeError, ValueError):
            threads = None
        if threads is None:
            raise self._lost()
        if many := next((address for address, count in threads.items() if count > 1), None):
            raise BadCluster(
                f"the worker at {many} has {threads[many]} threads, and LAMMPS needs a process of its own: start "
                "workers with --nthreads 1, and --nworkers for as many as there are cores"
            )
        for gone in sorted(self._known - threads.keys()):
            self._tell(f"the worker at {gone} has ended; what it was computing is computed again by another one")
        self._known, self._looked = {*threads}, time.monotonic()
        if threads:
            self._silent = self._looked
        elif self._looked - self._silent > PATIENCE:
            self._silent = self._looked
            self._tell(f"no worker has come to {self._client.scheduler.address} yet; waiting for one")

    def _lost(self) -> LostCluster:
        return LostCluster(
            "the scheduler of the cluster has ended or cannot be reached; what its workers had finished is kept, so "
            "that the same command goes on"
        )

    def _give_up(self, futures: list[Future]) -> None:
        if futures and self._client.status == "running":
            self._client.cancel(futures, force=True, asynchronous=False)
