"""Plans: memory of everything that grows, a word when the machine has less, and no overflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from suite.spec import load
from suite.study import plan as module
from suite.study.plan import WARNING, BeyondNumbers, Cost, Costs, Duration, memory_limit, plan, plan_sweep

MEMORY = "peak memory, estimated [GB]"


def test_memory_counts_configurations() -> None:
    few, many, huge = (
        plan(load("w-split", "tiny", [f"training.configurations={count}"])) for count in (8, 10**6, 10**12)
    )
    assert WARNING not in few
    atoms = 3 * 60  # the training cell has more
    assert many[MEMORY] - few[MEMORY] > 1e6 * atoms * 3 * 8 * 2 / 1e9
    assert huge[MEMORY] > 1e6
    assert "reduce simulation.size" in huge[WARNING]


def test_a_slow_reference_takes_its_time() -> None:
    """Minutes come from what a call takes here, not from a table: SNAP costs ten times what an embedded atom does."""
    quick, slow = (
        plan(load(name, "tiny", ["training.size=6", "simulation.size=24"])) for name in ("w-screw", "w-snap")
    )
    assert slow["world, estimated [min]"] > 3 * quick["world, estimated [min]"]


def test_processes_of_mpi_share_the_force_calls() -> None:
    """Of a loop, whose products with the Hessian are force calls too."""
    costs = Costs()
    one, many = (
        costs.of(load("w-loop", "paper", ["simulation.engine=lammps-mpi", f"simulation.ranks={ranks}"]))
        for ranks in (1, 16)
    )
    ratios = [many.durations[stage].on(1) / one.durations[stage].on(1) for stage in ("world", "assess")]
    assert 1 / 16 < ratios[0] < 0.3
    assert ratios[1] < 1
    assert many.durations["world"].on(8) == many.durations["world"].on(1), "workers have nothing to add"


@pytest.mark.parametrize("name", ["w-split", "w-loop", "w-springs"])
def test_a_cell_that_is_too_large_for_the_machine_is_told(name: str) -> None:
    found = plan(load(name, "tiny", ["simulation.size=1e9"]))
    assert found[MEMORY] > 1e9
    assert f"{memory_limit() / 1e9:.3g} GB" in found[WARNING]
    with pytest.raises(BeyondNumbers, match="choose smaller ones"):
        plan(load(name, "tiny", ["simulation.size=1e200"]))


def test_the_limit_is_that_of_the_machine_or_of_a_control_group(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine = memory_limit()
    assert 1e8 < machine < 1e14
    for name, text in (("limited", "100000000\n"), ("unlimited", "max\n")):
        file = tmp_path / name
        file.write_text(text)
    monkeypatch.setattr(module, "_control_files", lambda: [tmp_path / "limited", tmp_path / "absent"])
    assert memory_limit() == 1e8
    monkeypatch.setattr(module, "_control_files", lambda: [tmp_path / "unlimited"])
    assert memory_limit() >= machine


def test_a_sweep_is_planned_with_what_its_points_share() -> None:
    """Two simulation cells, each with the same two training cells and rows, and two weights."""
    sizes = [(N, L, weight) for N in (18, 24) for L in (5.5, 6.0) for weight in (1, 2)]
    words = "simulation.size={} training.size={} weights.energy={}"
    found = plan_sweep([load("w-split", "tiny", words.format(*each).split()) for each in sizes])
    assert [found[f"different {what}"] for what in ("simulation cells", "training cells", "sets of rows")] == [2, 2, 2]
    assert found["points (tasks)"] == 8
    assert found["longest point alone, estimated [min]"] < found["one worker, estimated [min]"]
    assert 2 <= found["sensible number of workers"] <= 8
    assert found["with that many, estimated [min]"] < found["one worker, estimated [min]"]
    assert found["workers that the memory of this machine holds"] > 1
    assert WARNING not in found


def cost_of(world: float, rows: float, assess: float) -> Cost:
    durations = {"world": Duration(world, 0), "rows": Duration(rows, 0), "assess": Duration(assess, 0)}
    return Cost(None, "", "", 1, 1, 1, 1e9, 1e9, durations)  # type: ignore[arg-type]


def test_the_world_is_paid_once_and_waited_for() -> None:
    needs = [{"simulation": "a", "training": "b", "rows": "c"}] * 4
    costs = [cost_of(100, 10, 1)] * 4
    assert module._makespan(costs, needs, 1) == 100 + 10 + 4
    assert module._makespan(costs, needs, 3) == 100 + 10 + 2
    alone = [{"simulation": f"a{n}", "training": "b", "rows": f"c{n}"} for n in range(4)]
    apart = [{**each, "training": f"b{n}"} for n, each in enumerate(alone)]
    assert module._makespan(costs, apart, 4) == 111
    assert module._sensible(lambda workers: module._makespan(costs, apart, workers), 4) == 4
    assert module._sensible(lambda workers: module._makespan(costs, needs, workers), 4) == 1


def test_workers_of_one_run_are_as_many_as_are_busy() -> None:
    for part, expected in ((0.0, 1), (0.5, 2), (0.9, 6), (1.0, 64)):
        assert module._sensible(lambda n, part=part: 1 - part + part / n, 64) == expected


def test_a_stage_is_shared_by_its_pieces() -> None:
    assert [Duration(1, 12, 4).on(workers) for workers in (1, 2, 4)] == [17, 9, 6]
