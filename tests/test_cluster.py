"""A cluster of two worker processes: the contract of an executor, workers that are killed, the numbers of a sweep."""

from __future__ import annotations

import json
import os
import re
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_execution import dies_until, product, refuses, surroundings

from store import handing
from store.locking import locked_file
from store.runs import FinishedRun, Tracker
from suite.cli import main
from suite.cluster import DaskCluster, NotShared, OtherVersions, job_cluster, opened, read_cluster
from suite.execution import LostWorkers, map_pieces, the_cluster, through, usable_workers
from suite.spec import BadSpec, Spec, Sweep, load
from suite.study.afar import Handed, compute_case
from suite.study.case import Case
from suite.study.points import Points, compute_point, point_key
from suite.study.session import Session
from suite.study.sweep import run_shard, run_sweep
from suite.tasks import Task

pytest.importorskip("distributed", reason="pip install 'dislobench[cluster]'")

LADDER = Sweep(
    ladders={"weights.energy": (1, 50)},
    ablation=False,
    set={
        "simulation.size": 14,
        "training.size": 4.5,
        "training.configurations": 2,
        "training.test": 1,
        "model.channels": [8],
        "model.degrees": [0],
    },
)


def tiny_with(settings: Any) -> Spec:
    return load("w-split", "tiny", [f"{key}={json.dumps(value)}" for key, value in settings.items()])


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def told() -> list[str]:
    """What the cluster has told the user."""
    return []


@pytest.fixture(scope="module")
def cluster(workspace: Path, told: list[str]) -> Iterator[DaskCluster]:
    with opened("local:2", workspace, told.append) as cluster:
        yield cluster


# --- pieces -------------------------------------------------------------------------------------------------------


def test_pieces_keep_the_contract_of_an_executor(cluster: DaskCluster, told: list[str]) -> None:
    """Order, what is raised, one thread for linear algebra, no workers of workers; and the numbers of this process."""
    assert told[0].startswith("cluster: 2 workers at tcp://127.0.0.1:")
    pieces = [(number, 0.05 * (number == 0)) for number in range(12)]
    alone = list(map_pieces(product, pieces, 1))
    with through(cluster):
        assert usable_workers() == 2
        assert list(map_pieces(product, pieces)) == alone
        found = []
        with pytest.raises(ValueError, match="piece 2 is refused"):
            found.extend(map_pieces(refuses, [(n,) for n in range(8)]))
        assert found == [0, 1]
        for process, workers, threads in map_pieces(surroundings, [(n,) for n in range(4)]):
            assert process != os.getpid()
            assert workers == 1
            assert set(threads) == {1}
        with through(None):
            assert the_cluster() is None
    assert the_cluster() is None


def page_faults() -> int:
    """Those of 200 arrays of 1 MB, one after the other."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(200):
        np.ones(2**17)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_workers_keep_the_memory_of_arrays(cluster: DaskCluster) -> None:
    """Dask's nanny lets glibc give back each array at once, 256 pages each."""
    with through(cluster):
        assert max(map_pieces(page_faults, [(), ()])) < 50 * 256


def mark(folder: str, name: str, seconds: float = 0.3) -> None:
    begun = time.time()
    time.sleep(seconds)
    Path(folder, name).write_text(f"{begun} {time.time()}")


def test_what_tasks_share_is_made_once(cluster: DaskCluster, tmp_path: Path) -> None:
    """The others of a world wait for its first one."""
    tasks = [Task("case", str(n), mark, (str(tmp_path), str(n)), ("world",)) for n in range(3)]
    assert sorted(index for index, _ in cluster.run_tasks(tasks)) == [0, 1, 2]
    times = [tuple(map(float, (tmp_path / str(n)).read_text().split())) for n in range(3)]
    assert all(begun >= times[0][1] for begun, _ in times[1:])


def test_a_killed_worker_costs_a_retry(cluster: DaskCluster, tmp_path: Path) -> None:
    pieces = [(number, str(tmp_path), 1) for number in range(6)]
    with through(cluster):
        assert list(map_pieces(dies_until, pieces)) == list(range(6))
    assert len(list(tmp_path.glob("3-*"))) == 2


def test_a_task_that_kills_its_workers_is_an_outcome_and_the_others_go_on(cluster: DaskCluster, tmp_path: Path) -> None:
    tasks = [Task("piece", f"number {n}", dies_until, (n, str(tmp_path), 99)) for n in range(6)]
    tasks.append(Task("piece", "refused", refuses, (2,)))
    found = dict(cluster.run_tasks(tasks))
    assert [found[n] for n in (0, 1, 2, 4, 5)] == [0, 1, 2, 4, 5]
    assert isinstance(found[3], LostWorkers)
    assert "'piece-number 3' were killed 3 times" in str(found[3])
    assert isinstance(found[6], ValueError)
    assert len(list(tmp_path.glob("3-*"))) == 3


# --- sweeps -------------------------------------------------------------------------------------------------------


def numbers_of(record: Any) -> dict[str, float]:
    """All numbers of a run but its cost."""
    cost = ("seconds_", "megabytes_", "training_")
    return {name: value for name, value in record.metrics.items() if not name.startswith(cost)}


@pytest.fixture(scope="module")
def swept(cluster: DaskCluster, workspace: Path) -> Any:
    with through(cluster):
        return run_sweep(tiny_with, "weights", LADDER, workspace)


def test_a_sweep_through_a_cluster_is_the_serial_one_bit_for_bit(swept: Any, workspace: Path, tmp_path: Path) -> None:
    serial = run_sweep(tiny_with, "weights", LADDER, tmp_path, workers=1)
    tracker, other = Tracker(workspace), Tracker(tmp_path)
    for there, here in zip(swept.points, serial.points, strict=True):
        assert there.computed
        one, two = tracker.find(there.run), other.find(here.run)
        assert numbers_of(one) == numbers_of(two)
        assert len(numbers_of(one)) > 50
        assert (one.parameters, one.name, one.status) == (two.parameters, two.name, two.status)
        assert one.tags == two.tags
        assert one.parent == swept.run_id
        assert tracker.believe(one).sealed
    assert not list((workspace / "handed").glob("*/handed.json"))


class Deadly:
    """A cluster whose workers are killed by everything."""

    workers = 2

    def run_tasks(self, tasks: list[Task]) -> Iterator[tuple[int, Any]]:
        yield from ((index, LostWorkers("were killed 3 times")) for index in range(len(tasks)))


def test_a_point_that_kills_its_workers_is_recorded_and_computed_again_only_when_asked(
    swept: Any, cluster: DaskCluster, workspace: Path
) -> None:
    ladder = LADDER.model_copy(update={"ladders": {"weights.energy": (1, 8)}})

    def sweep(through_what: Any, retry: bool = False) -> list[Any]:
        with through(through_what):
            return run_sweep(tiny_with, "deadly", ladder, workspace, retry=retry).points

    first, deadly = sweep(Deadly())
    assert (first.status, first.computed) == ("converged", False), "it was there"
    record = Tracker(workspace).find(deadly.run)
    assert (record.status, record.tags["outcome"], record.tags["error"]) == (
        "FAILED",
        "lostworkers",
        "were killed 3 times",
    )
    assert sweep(cluster)[1].run == deadly.run
    assert [point.status for point in sweep(cluster, retry=True)] == ["converged", "converged"]


def test_shards_are_collected_by_the_sweep(swept: Any, workspace: Path) -> None:
    """Cells and rows are in the cache; shards write no database, and the sweep finds what they computed."""
    ladder = LADDER.model_copy(update={"ladders": {"weights.energy": (1, 21)}})
    before = {record.id for record in Tracker(workspace).history()}
    done = [run_shard(tiny_with, "shards", ladder, workspace, (number, 2), workers=1) for number in (1, 2)]
    assert sum(shard.points for shard in done) == 2
    assert sum(shard.computed for shard in done) == 1
    assert {record.id for record in Tracker(workspace).history()} == before
    again = run_shard(tiny_with, "shards", ladder, workspace, (1, 1), workers=1)
    assert (again.points, again.computed) == (2, 0)
    found = run_sweep(tiny_with, "shards", ladder, workspace, workers=1)
    assert [point.computed for point in found.points] == [False, False]
    children = {record.id for record in Tracker(workspace).children(found.run_id)}
    assert children == {point.run for point in found.points[1:]}


def test_a_fault_of_a_worker_keeps_its_message_and_its_code(cluster: DaskCluster, workspace: Path) -> None:
    spec = tiny_with({})
    broken = spec.model_copy(update={"material": spec.material.model_copy(update={"reference": "W_nothing"})})
    with through(cluster):
        ((_, answer),) = Points(Session(workspace), Tracker(workspace)).run_each("x", [("x", Case(broken, "x"))])
    assert answer.record is None
    assert answer.fault is not None
    assert answer.fault.exit_code == 2
    assert "W_nothing" in str(answer.fault)


def test_a_point_that_another_command_computes_is_looked_for_again(tmp_path: Path) -> None:
    """Its worker finds the lock of the point held, and does nothing; then the run of the other command is there."""
    case = Case(tiny_with({}), "x")
    key, tracker = point_key(case.spec), Tracker(tmp_path)
    lock = tmp_path / "locks" / f"point-{key}"
    free, answers = threading.Event(), []

    def holder() -> None:
        with locked_file(lock, None):
            free.wait(30)

    class Busy:
        workers = 1

        def run_tasks(self, tasks: list[Task]) -> Iterator[tuple[int, Any]]:
            threading.Timer(0.5, free.set).start()
            answers.append(compute_point(*tasks[0].arguments))
            failed = FinishedRun("theirs", {}, {}, {"point": key, "outcome": "annihilated"}, "FAILED")
            tracker.log_batch_of_runs("w-split", None, [failed])
            yield 0, answers[0]

    other = threading.Thread(target=holder)
    other.start()
    while not lock.exists():
        time.sleep(0.01)
    with through(Busy()):  # type: ignore[arg-type]
        ((index, answer),) = Points(Session(tmp_path), tracker).run_each("points", [("x", case)])
    other.join()
    assert answers == [Handed()]
    assert (index, answer.computed, answer.run().name) == (0, False, "theirs")


def test_a_case_that_was_handed_over_before_its_worker_died_is_not_computed_again(tmp_path: Path) -> None:
    with handing.begin(tmp_path, "w-split", "x", {}, {}) as run:
        pass
    assert compute_case(Case(tiny_with({}), "x"), tmp_path, run.id) == Handed(run.id)
    assert not (tmp_path / "cache").exists()


# --- what does not fit --------------------------------------------------------------------------------------------


def fails(cluster: DaskCluster, **changed: Any) -> BaseException:
    """What a task says whose sender has another setting."""
    other = DaskCluster(cluster._client, replace(cluster._setting, **changed), print)
    ((_, found),) = other.run_tasks([Task("piece", "x", refuses, (1,))])
    assert isinstance(found, BaseException)
    return found


def test_workers_that_do_not_fit_are_refused_before_they_compute(cluster: DaskCluster, tmp_path: Path) -> None:
    token = tmp_path / "gone" / "locks" / "cluster-1"
    found = fails(cluster, token=token)
    assert isinstance(found, NotShared)
    assert f"does not see the workspace {tmp_path / 'gone'}" in str(found)
    assert "--workspace" in str(found)
    unlocked = tmp_path / "cluster-2"
    unlocked.touch()
    assert "locks on" in str(fails(cluster, token=unlocked))
    found = fails(cluster, token=tmp_path / "3", versions={**cluster._setting.versions, "lammps": "1"})
    assert isinstance(found, OtherVersions)
    assert "has lammps" in str(found)
    found = fails(cluster, folder=str(tmp_path / "gone"))
    assert "has no folder" in str(found)
    assert {type(found).exit_code} == {2}  # type: ignore[attr-defined]


GOOD = 'system = "slurm"\njobs = 2\nworkers = 4\nmemory = "8GB"\nwalltime = "01:00:00"\n'


@pytest.mark.parametrize(
    ("system", "words"),
    [
        ("slurm", ("#SBATCH -n 1", "#SBATCH --cpus-per-task=4", "#SBATCH -p normal", "#SBATCH -A mine", "--mem=8G")),
        ("pbs", ("select=1:ncpus=4", "#PBS -q normal", "#PBS -A mine", "walltime=01:00:00")),
        ("lsf", ("#BSUB -n 4", "#BSUB -q normal", '#BSUB -P "mine"')),
        ("sge", ("#$ -q normal", "#$ -P mine", "h_rt=01:00:00")),
    ],
)
def test_job_scripts_start_workers_of_one_thread(system: str, words: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue", reason="pip install 'dislobench[cluster]'")
    path = tmp_path / "cluster.toml"
    more = 'queue = "normal"\naccount = "mine"\nprologue = ["module load python"]\ndirectives = ["--exclusive"]\n'
    path.write_text(GOOD.replace("slurm", system) + more)
    with closing(job_cluster(read_cluster(path))) as made:
        script = made.job_script()
    for word in (
        *words,
        "--nworkers 4 ",
        "--nthreads 1 ",
        "--memory-limit 0",
        "export OMP_NUM_THREADS=1",
        "module load python",
        "--exclusive",
    ):
        assert word in script, word


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("jobs = 0", "cluster.toml:2: jobs: "),
        ('memory = "much"', "cluster.toml:4: memory: "),
        ("cores = 3", "cluster.toml:6: cores: "),
        ('system = "cobalt"', "cluster.toml:1: system: "),
        ('walltime = "soon"', "cluster.toml:5: walltime: "),
    ],
)
def test_a_bad_file_is_told_with_its_line(line: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    lines = GOOD.splitlines()
    kept = [line if each.split()[0] == line.split()[0] else each for each in lines]
    path.write_text("\n".join(kept if line in kept else [*lines, line]))
    with pytest.raises(BadSpec, match=re.escape(told)):
        read_cluster(path)


@pytest.mark.parametrize("words", ["--shard 0/3", "--shard 4/3", "--shard 3", "--cluster here", "--cluster local:0"])
def test_impossible_options_are_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sweep", "w-split", *words.split()])
    assert words.split()[1] in capsys.readouterr().err


@pytest.mark.parametrize("words", ["--cluster local:2 --workers 2", "--cluster local:2 --shard 1/2"])
def test_two_ways_at_once_are_refused(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sweep", "w-split", "--preset", "tiny", "--only", "L", "--workspace", str(tmp_path)]
    assert main([*command, *words.split()]) == 2
    assert re.search("a cluster has as many|choose one", capsys.readouterr().err)


def test_a_scheduler_that_does_not_answer_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from suite import cluster as clusters

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(clusters, "FIRST", 0.5)
        words = ["sweep", "w-split", "--preset", "tiny", "--only", "L", "--workspace", str(tmp_path)]
        code = main([*words, "--cluster", "tcp://127.0.0.1:9"])
    assert code == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err
    assert not list((tmp_path / "locks").iterdir())
