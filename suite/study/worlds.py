"""Which runs share cells and rows that the cache keeps; and shards of a sweep that share as little as possible."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from suite.spec import Spec
from suite.study.cache import stage_key

# coarse to fine, as entries of the cache are named, and in words
STAGES = {"simulation": "simulation cells", "training": "training cells", "rows": "sets of rows"}


def entries_of(spec: Spec) -> tuple[str, ...]:
    """The entries of the cache that a run of `spec` needs: its simulation cell, its training cell, its rows."""
    return tuple(f"{stage}-{stage_key(spec, stage)}" for stage in STAGES)


def missing_entries(spec: Spec, workspace: Path) -> tuple[str, ...]:
    """Those of `entries_of` that the workspace does not have yet."""
    return tuple(entry for entry in entries_of(spec) if not (workspace / "cache" / f"{entry}.zarr").exists())


def shards(specs: Sequence[Spec], count: int) -> list[list[int]]:
    """Split the runs of `specs` into `count` shards, as lists of indices: the same for every process that asks.

    Runs with the same simulation cell stay together if that leaves work for all shards; else those with the same
    training cell or the same rows do, or each run is by itself. The largest groups are dealt first, each to the shard
    that has least.
    """
    entries = [entries_of(spec) for spec in specs]
    levels = [[each[: depth + 1] for each in entries] for depth in range(len(STAGES))]
    alone = [(str(index),) for index in range(len(specs))]
    chosen = next((level for level in levels if len(set(level)) >= count), alone)
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, key in enumerate(chosen):
        groups.setdefault(key, []).append(index)
    dealt: list[list[int]] = [[] for _ in range(count)]
    for group in sorted(groups.values(), key=lambda group: (-len(group), group)):
        min(dealt, key=len).extend(group)
    return [sorted(shard) for shard in dealt]
