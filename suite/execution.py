"""Work in parallel: one function, `map_pieces`, through which all of it goes.

    for block in map_pieces(reduce, [(cell, part) for part in parts], workers=2):
        ...

The caller cuts its problem into pieces by the problem alone, and adds the results up in the order of the pieces: so no
number depends on how many processes there are. A piece is the arguments of one call. Linear algebra runs on one thread
everywhere: on a busy machine the threads of a BLAS wait for each other in loops (a fit of 200 functions took 2.5 s with
two threads and 24 ms with one, two other jobs running), and its sums would depend on their number.

There are three ways to execute, each a function with the signature of `Executor`: in this process, in processes of this
machine, and on the workers of a cluster (`suite.cluster`), inside a `with through(cluster):` block.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from threadpoolctl import threadpool_limits

from store.faults import FailedOutcome
from suite.tasks import Task

if TYPE_CHECKING:
    from joblib.externals.loky.process_executor import ProcessPoolExecutor

Result = TypeVar("Result")
Tell = Callable[[str], None]
Executor = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]], int, Tell], Iterator[Any]]

AHEAD = 3  # pieces that are sent ahead for each worker, so that none waits for this process
RETRIES = 2  # of pieces whose worker was killed
IDLE = 300.0  # seconds after which a worker without work ends
WATCH = 0.5  # seconds between two looks at the parent
ENDING = 10.0  # seconds for the thread that manages the workers to notice that they are dead
THREADS = ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "BLIS_NUM", "VECLIB_MAXIMUM", "NUMBA_NUM", "NUMEXPR_NUM")

single_threaded = threadpool_limits.wrap(limits=1, user_api="blas")


class LostWorkers(FailedOutcome, RuntimeError):
    """Worker processes were killed again and again, most likely by a system that ran out of memory."""


def to_stderr(message: str) -> None:
    """Tell the user in a line on standard error."""
    print(f"dislobench: {message}", file=sys.stderr, flush=True)


# --- a cluster --------------------------------------------------------------------------------------------------------


class Cluster(Protocol):
    """Workers of other machines, one thread each; `suite.cluster` has the only one."""

    @property
    def workers(self) -> int:
        """How many there are now, at least 1."""

    def map_pieces(
        self, function: Callable[..., Any], pieces: Sequence[tuple[Any, ...]], workers: int, tell: Tell = to_stderr
    ) -> Iterator[Any]:
        """An `Executor`."""

    def run_tasks(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        """Index and result of every task, as they end; the result of one that killed its workers is a `LostWorkers`."""


_cluster: ContextVar[Cluster | None] = ContextVar("cluster", default=None)


@contextmanager
def through(cluster: Cluster | None) -> Iterator[None]:
    """Inside the `with` block work goes to the workers of `cluster`; with None it stays on this machine."""
    token = _cluster.set(cluster)
    try:
        yield
    finally:
        _cluster.reset(token)


def the_cluster() -> Cluster | None:
    """The cluster whose workers take the work, if there is one; a worker has none."""
    return None if _in_worker else _cluster.get()


def as_worker(folder: str) -> None:
    """Make this process a worker: it has no workers itself, and names of files are relative to `folder`. Raises OSError
    when there is no such folder."""
    global _in_worker
    _in_worker = True
    os.chdir(folder)


# --- how many ---------------------------------------------------------------------------------------------------------

_limit: ContextVar[int | None] = ContextVar("workers", default=None)
_in_worker = False


@contextmanager
def at_most(workers: int | None) -> Iterator[None]:
    """Inside the `with` block `map_pieces` takes so many workers unless it is told; None leaves it as it is."""
    token = _limit.set(_limit.get() if workers is None else workers)
    try:
        yield
    finally:
        _limit.reset(token)


def usable_workers() -> int:
    """The number of workers that `at_most` allows, else of those of the cluster, else of the cores that this process
    may use; 1 in a worker."""
    if _in_worker:
        return 1
    if (limit := _limit.get()) is not None:
        return limit
    if (cluster := the_cluster()) is not None:
        return cluster.workers
    from joblib.externals.loky import cpu_count

    return int(cpu_count())  # knows affinity and the limits of a container


# --- the one function -------------------------------------------------------------------------------------------------


def map_pieces(
    function: Callable[..., Result],
    pieces: Sequence[tuple[Any, ...]],
    workers: int | None = None,
    tell: Tell = to_stderr,
) -> Iterator[Result]:
    """Yield `function(*piece)` for every piece, in their order, computed by as many as `workers` processes, of this
    machine or of the cluster.

    `function` must be importable by its name, and pieces and results must be picklable. With one worker or one piece
    everything is computed here. A worker that is killed costs a retry, which is told. What `function` raises is raised
    here; `LostWorkers` when workers die again and again. An error or an interruption ends all workers at once.
    """
    workers = min(workers or usable_workers(), len(pieces))
    cluster = the_cluster()
    execute: Executor = in_processes if cluster is None else cluster.map_pieces
    return (in_this_process if workers <= 1 or _in_worker else execute)(function, pieces, workers, tell)


def in_this_process(
    function: Callable[..., Result], pieces: Sequence[tuple[Any, ...]], workers: int = 1, tell: Tell = to_stderr
) -> Iterator[Result]:
    """The `Executor` without processes."""
    for piece in pieces:
        yield call(function, piece)


def in_processes(
    function: Callable[..., Result], pieces: Sequence[tuple[Any, ...]], workers: int, tell: Tell = to_stderr
) -> Iterator[Result]:
    """The `Executor` with clean processes of this machine (loky).

    A fork would copy LAMMPS, BLAS and progress threads half alive, and the standard library's clean processes need a
    guard in the user's script. What was not delivered when a worker was killed is computed again, by half as many
    workers each time: too little memory is the usual reason.
    """
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    delivered = 0
    for attempt in range(RETRIES + 1):
        try:
            for result in _attempt(function, pieces[delivered:], workers):
                delivered += 1
                yield result
            return
        except TerminatedWorkerError as error:
            if attempt == RETRIES:
                raise LostWorkers(
                    f"worker processes were killed {attempt + 1} times, {len(pieces) - delivered} of {len(pieces)} "
                    "pieces of work are left: most likely the memory is too small; use fewer --workers, a smaller "
                    "case, or a machine with more memory"
                ) from error
            workers = max(1, workers // 2)
            tell(
                f"a worker process was killed (is the memory too small?); {len(pieces) - delivered} of {len(pieces)} "
                f"pieces of work are computed again by {workers} worker{'s' if workers > 1 else ''}"
            )
        except BaseException:  # an interruption, an error of the function, or nobody wants the rest
            stop_workers()
            raise


def _attempt(function: Callable[..., Result], pieces: Sequence[tuple[Any, ...]], workers: int) -> Iterator[Result]:
    """Results in order. A few pieces are sent ahead, not all: their copies would fill the memory."""
    pool = _pool_of(workers)
    ahead = iter(pieces)
    folder = os.getcwd()  # workers of an earlier call may have begun in another one, and pieces name files
    sent = deque(pool.submit(_call_in, folder, function, piece) for piece in islice(ahead, AHEAD * workers))
    while sent:
        result = sent.popleft().result()
        sent.extend(pool.submit(_call_in, folder, function, piece) for piece in islice(ahead, 1))
        yield result


def _call_in(folder: str, function: Callable[..., Result], piece: tuple[Any, ...]) -> Result:
    os.chdir(folder)
    return call(function, piece)


def call(function: Callable[..., Result], piece: tuple[Any, ...]) -> Result:
    """`function(*piece)`, with one thread for linear algebra."""
    with threadpool_limits(limits=1):
        return function(*piece)


# --- a process with a memory --------------------------------------------------------------------------------------


class Companion:
    """One process of its own that keeps what it has made: an engine with its atoms, while this process works too.

        companion = Companion(make, atoms)              # state = make(atoms), there
        pending = companion.call(function, positions)   # function(state, positions), there
        result = pending()                              # before the next call

    Where only one worker is usable, state and calls are this process's own, and the results are the same. It ends with
    this object. `LostWorkers` when it is killed: its state is lost with it. (A worker of loky's pool cannot keep a
    state: it is exchanged for another one when its memory grows.)
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any) -> None:
        self._state: Any = None
        self._line: Any = None
        if usable_workers() <= 1:
            self._state = make(*arguments)
            return
        from joblib.externals.loky.backend import get_context

        context = get_context("loky")
        self._line, theirs = context.Pipe()
        environment = {f"{name}_THREADS": "1" for name in THREADS}
        process = context.Process(
            target=_serve, args=(theirs, os.getcwd(), os.getpid(), make, arguments), daemon=True, env=environment
        )
        process.start()
        theirs.close()  # so that its end is noticed here
        self._end = weakref.finalize(self, _kill, process, self._line)

    def call(self, function: Callable[..., Result], *arguments: Any) -> Callable[[], Result]:
        """Begin `function(state, *arguments)`; what is returned waits for the result, or raises what it raised."""
        if self._line is None:
            result = function(self._state, *arguments)
            return lambda: result
        line = self._line  # and not this object, which must be free to end
        with _told_of_a_loss():
            line.send((function, arguments))

        def wait() -> Result:
            with _told_of_a_loss():
                answer, error = line.recv()
            if error is not None:
                raise error
            return cast(Result, answer)

        return wait


@contextmanager
def _told_of_a_loss() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise LostWorkers(
            "a process that computes forces was killed: most likely the memory is too small; use --workers 1, "
            "a smaller case, or a machine with more memory"
        ) from error


def _serve(line: Any, folder: str, parent: int, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """What a companion does all its life."""
    _begin_worker(parent)
    os.chdir(folder)
    state, failed = None, None
    try:
        state = make(*arguments)
    except Exception as error:
        failed = error  # told at the first call
    del arguments
    while True:
        function, arguments = line.recv()
        answer: tuple[Any, Exception | None] = (None, failed)
        if failed is None:
            try:
                with threadpool_limits(limits=1):
                    answer = function(state, *arguments), None
            except Exception as error:
                answer = None, error
        line.send(answer)


def _kill(process: Any, line: Any) -> None:
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)  # loky's processes have no kill()
    process.join()
    line.close()


# --- processes --------------------------------------------------------------------------------------------------------

_pool: ProcessPoolExecutor | None = None
_stuck: list[threading.Thread] = []  # managers of pools that have not noticed that their workers are dead


def _pool_of(workers: int) -> ProcessPoolExecutor:
    """The pool of this process, made when it is first needed; idle workers of an earlier call are used again."""
    global _pool
    from joblib.externals.loky import get_reusable_executor

    # a worker that had nothing to do, or whose memory grew, ends, and the pool starts another one: no news for a user
    warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
    environment = {f"{name}_THREADS": "1" for name in THREADS}
    _pool = get_reusable_executor(
        workers, timeout=IDLE, initializer=_begin_worker, initargs=(os.getpid(),), env=environment
    )
    return _pool


def stop_workers() -> None:
    """Kill the workers of this process, whatever they do.

    As if they had died: loky's own `shutdown(kill_workers=True)` loses its managing thread when work is waiting
    (KeyError, joblib 1.6), and the process hangs at its end.
    """
    global _pool
    pool, _pool = _pool, None
    if pool is not None:
        from joblib.externals.loky.process_executor import _threads_wakeups

        manager = pool._executor_manager_thread
        for process in list((pool._processes or {}).values()):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        _hang_up(manager)
        pool.shutdown(wait=False)
        if manager is not None:  # an interruption may have caught it anywhere: the end of the process must not hang
            manager.join(ENDING)
            _threads_wakeups.pop(manager, None)
            if manager.is_alive():
                _stuck.append(manager)


def _hang_up(manager: Any) -> None:
    """Close this process's own ends of the pipes that only dead workers used.

    A worker that is killed while it sends megabytes leaves half a message, and the manager of the pool waits for the
    rest as long as anybody could write it; so does the thread that sends work, as long as anybody could read it.
    """
    for queue, end in (("result_queue", "_writer"), ("call_queue", "_reader")):
        if (connection := getattr(getattr(manager, queue, None), end, None)) is not None:
            with suppress(OSError):
                connection.close()


def leave(code: int) -> None:
    """End this process with the exit `code` at once if a thread of a killed pool still waits: Python would wait too."""
    if any(thread.is_alive() for thread in _stuck):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _begin_worker(parent: int) -> None:
    global _in_worker
    _in_worker = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    end_with(parent, signal.SIGKILL)


def end_with(parent: int, number: signal.Signals, group: bool = False) -> None:
    """Send this process the signal `number` as soon as `parent` is no longer its parent: nobody waits for it then. With
    `group` the whole process group gets it, if this process leads one.

    A thread looks, every half second. Linux could send the signal itself (PR_SET_PDEATHSIG), but does so when the
    *thread* that started this process ends, and workers may be started by a thread that ends before its process.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH)
        if group and os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), number)
        os.kill(os.getpid(), number)

    threading.Thread(target=watch, name="watch the parent", daemon=True).start()
