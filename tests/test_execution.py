"""Work in pieces: their order, their threads, and workers that are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import struct
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from suite import execution
from suite.execution import Companion, LostWorkers, at_most, in_processes, in_this_process, map_pieces, usable_workers


def product(number: int, delay: float = 0.0) -> tuple[int, float]:
    time.sleep(delay)
    rows = np.random.default_rng(number).standard_normal((300, 40))
    return number, float(np.linalg.svd(rows, compute_uv=False)[0])


def dies_until(number: int, marks: str, deaths: int) -> int:
    """Piece 3 kills its process `deaths` times; every call leaves a mark."""
    marked = Path(marks)
    (marked / f"{number}-{time.monotonic_ns()}").touch()
    if number == 3 and len(list(marked.glob("3-*"))) <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def surroundings(number: int) -> tuple[int, int, list[int]]:
    float(np.ones((2, 2)).dot(np.ones((2, 2))).sum())
    return os.getpid(), usable_workers(), [library["num_threads"] for library in threadpool_info()]


def refuses(number: int) -> int:
    if number == 2:
        raise ValueError("piece 2 is refused")
    return number


def test_results_come_in_order_and_do_not_depend_on_the_workers() -> None:
    pieces = [(number, 0.05 * (number == 0)) for number in range(12)]  # the first one is the last to be ready
    alone = list(map_pieces(product, pieces, 1))
    assert [number for number, _ in alone] == list(range(12))
    assert list(map_pieces(product, pieces, 2)) == alone
    assert list(map_pieces(product, pieces, 3)) == alone
    assert list(map_pieces(product, [], 2)) == []


@pytest.mark.parametrize("execute", [in_this_process, in_processes])
def test_every_executor_keeps_the_contract(execute: object) -> None:
    """Order, what is raised, and one thread for linear algebra."""
    assert callable(execute)
    assert [number for number, _ in execute(product, [(n,) for n in (3, 1, 2)], 2)] == [3, 1, 2]
    found = []
    with pytest.raises(ValueError, match="piece 2 is refused"):
        found.extend(execute(refuses, [(n,) for n in range(4)], 2))
    for _, _, threads in execute(surroundings, [(n,) for n in range(2)], 2):
        assert threads
        assert set(threads) == {1}


def test_a_worker_has_no_workers() -> None:
    for process, workers, _ in in_processes(surroundings, [(n,) for n in range(4)], 2):
        assert process != os.getpid()
        assert workers == 1


def test_a_limit_holds_inside_its_block() -> None:
    before = usable_workers()
    with at_most(7), at_most(None):
        assert usable_workers() == 7
        with at_most(1):
            (process, *_), _ = map_pieces(surroundings, [(0,), (1,)])
            assert process == os.getpid()
    assert usable_workers() == before


def test_workers_end_when_nobody_wants_the_rest() -> None:
    """While pieces run, wait in the queue, and wait to be queued: all of it ends at once, and a new pool works."""
    for taken in (1, 5, 9):
        results = map_pieces(product, [(number, 0.01) for number in range(200)], 2)
        assert [next(results)[0] for _ in range(taken)] == list(range(taken))
        pool = execution._pool
        assert pool is not None
        workers = [process.pid for process in pool._processes.values()]
        results.close()  # type: ignore[attr-defined]
        for worker in workers:
            with pytest.raises(ProcessLookupError):
                os.kill(worker, 0)


def test_a_killed_worker_costs_a_retry_of_what_was_not_delivered(tmp_path: Path) -> None:
    told: list[str] = []
    pieces = [(number, str(tmp_path), 1) for number in range(8)]
    assert list(map_pieces(dies_until, pieces, 2, told.append)) == list(range(8))
    assert len(told) == 1
    assert "pieces of work are computed again by 1 worker" in told[0]
    assert len(list(tmp_path.glob("3-*"))) == 2


def test_workers_that_die_again_and_again_are_an_outcome_with_a_remedy(tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(LostWorkers, match=r"killed 3 times.*fewer --workers") as caught:
        list(map_pieces(dies_until, [(number, str(tmp_path), 99) for number in range(6)], 2, told.append))
    assert caught.value.exit_code == 3
    assert len(told) == 2
    assert list(map_pieces(product, [(0,), (1,)], 2)) == list(map_pieces(product, [(0,), (1,)], 1)), "a new pool works"


def test_stopping_does_not_wait_for_a_manager_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C may come at any moment: a pool whose thread never notices must not keep the command from ending."""
    never = threading.Event()
    manager = threading.Thread(target=never.wait, daemon=True)
    manager.start()
    pool = SimpleNamespace(_processes={}, _executor_manager_thread=manager, shutdown=lambda wait: None)
    monkeypatch.setattr(execution, "_pool", pool)
    monkeypatch.setattr(execution, "ENDING", 0.2)
    begun = time.monotonic()
    execution.stop_workers()
    assert 0.2 <= time.monotonic() - begun < 5
    never.set()


def append(values: list[int], more: int) -> tuple[int, list[int]]:
    values.append(more)
    return os.getpid(), list(values)


def kill(values: list[int]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_companion_remembers_and_ends_with_its_object() -> None:
    with at_most(2):
        companion = Companion(list, (1, 2))
    there, values = companion.call(append, 3)()
    assert values == [1, 2, 3]
    assert companion.call(append, 4)() == (there, [1, 2, 3, 4])
    assert there != os.getpid()
    with pytest.raises(TypeError):
        companion.call(append)()
    del companion
    with pytest.raises(ProcessLookupError):
        os.kill(there, 0)


def large(size: int) -> np.ndarray:
    return np.ones(size)


def total(state: np.ndarray, more: np.ndarray) -> float:
    return float(state.sum() + more.sum())


def test_a_companion_may_be_as_large_as_it_likes() -> None:
    """A worker of the pool would be exchanged for another one, without its state."""
    with at_most(2):
        companion = Companion(large, 50_000_000)
    for _ in range(3):
        assert companion.call(total, np.ones(20_000_000))() == 7e7
        time.sleep(1.0)  # loky looks at the memory once a second


def test_a_companion_that_cannot_be_made_says_why_at_the_first_call() -> None:
    with at_most(2):
        companion = Companion(large, -1)
    with pytest.raises(ValueError, match="negative dimensions"):
        companion.call(total, np.ones(1))()


def test_a_companion_is_this_process_where_it_may_have_no_other() -> None:
    with at_most(1):
        companion = Companion(list, (1,))
    assert companion.call(append, 2)() == (os.getpid(), [1, 2])
    with pytest.raises(TypeError):
        companion.call(append)()


def test_a_killed_companion_is_an_outcome_with_a_remedy() -> None:
    with at_most(2):
        companion = Companion(list, ())
    with pytest.raises(LostWorkers, match="--workers 1") as caught:
        companion.call(kill)()
    assert caught.value.exit_code == 3
    with pytest.raises(LostWorkers):
        companion.call(append, 1)()


def half_a_message(megabytes: int) -> np.ndarray:
    return np.ones(megabytes * 125_000)


def test_workers_that_are_killed_in_the_middle_of_a_message_leave_nobody_waiting() -> None:
    """Both ways: results of 100 MB, and pieces as large that wait to be sent."""
    pieces = [(np.ones(12_500_000), np.ones(1)) for _ in range(6)]
    for function, work in ((half_a_message, [(100,)] * 6), (total, pieces)):
        results = map_pieces(function, work, 2)
        next(results)
        assert execution._pool is not None
        manager = execution._pool._executor_manager_thread
        assert manager is not None
        execution.stop_workers()
        manager.join(5.0)
        assert not manager.is_alive()
        results.close()


def test_a_manager_that_waits_for_half_a_message_is_freed() -> None:
    reader, writer = multiprocessing.Pipe(duplex=False)
    os.write(writer.fileno(), struct.pack("!i", 1_000_000) + b"half of it")
    ended = threading.Event()

    def receive() -> None:
        with pytest.raises((EOFError, OSError)):
            reader.recv_bytes()
        ended.set()

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    assert not ended.wait(0.3)
    execution._hang_up(SimpleNamespace(result_queue=SimpleNamespace(_writer=writer)))
    assert ended.wait(5.0)
