"""Shards of a sweep: each run in one of them, and runs that share a world together where that leaves work for all."""

from __future__ import annotations

from pathlib import Path

import pytest

from suite.spec import Spec, load
from suite.study.worlds import entries_of, missing_entries, shards


@pytest.fixture(scope="module")
def ladder() -> list[Spec]:
    """Two simulation cells, each with three training cells, each with two seeds of rows and two weights."""
    return [
        load(
            "w-split",
            "tiny",
            [f"simulation.size={N}", f"training.size={L}", f"training.seed={seed}", f"weights.energy={weight}"],
        )
        for N in (18, 21)
        for L in (5.5, 6, 6.5)
        for seed in (0, 1)
        for weight in (1, 2)
    ]


@pytest.mark.parametrize(("count", "shared"), [(1, 0), (2, 0), (3, 1), (6, 1), (7, 2), (12, 2), (20, 3), (30, 3)])
def test_every_run_is_in_one_shard_with_those_that_share_work(count: int, shared: int, ladder: list[Spec]) -> None:
    found = shards(ladder, count)
    assert len(found) == count
    assert sorted(index for shard in found for index in shard) == list(range(len(ladder)))
    home = {index: number for number, shard in enumerate(found) for index in shard}
    if shared < 3:  # 0: the same simulation cell, 1: training cell, 2: rows
        for stage in range(shared, 3):
            homes: dict[tuple[str, ...], set[int]] = {}
            for index, spec in enumerate(ladder):
                homes.setdefault(entries_of(spec)[: stage + 1], set()).add(home[index])
            assert {len(each) for each in homes.values()} == {1}
    sizes = [len(shard) for shard in found]
    assert max(sizes) - min(sizes) <= {0: 12, 1: 4, 2: 2, 3: 1}[shared]
    assert shards(ladder, count) == found


def test_entries_are_those_of_the_cache(tmp_path: Path, tiny: Spec) -> None:
    simulation, training, rows = entries_of(tiny)
    assert [entry.partition("-")[0] for entry in (simulation, training, rows)] == ["simulation", "training", "rows"]
    assert missing_entries(tiny, tmp_path) == (simulation, training, rows)
    (tmp_path / "cache" / f"{training}.zarr").mkdir(parents=True)
    assert missing_entries(tiny, tmp_path) == (simulation, rows)
    other = load("w-split", "tiny", ["weights.energy=3"])
    assert entries_of(other) == entries_of(tiny)
