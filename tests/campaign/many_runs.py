"""A workspace of many runs, made of a few real ones: `python tests/campaign/many_runs.py SOURCE TARGET --count 200`.

Each run of TARGET is a copy of a finished run of SOURCE with another name and numbers that are off by up to a factor
of 1.5, written by the store's own functions, so that it is sealed and listed like any other. With it one measures what
lists, reports and the UI take; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from store import fields
from store.listing import RUN, RunRecord
from store.runs import Tracker
from suite.judge.numbers import group_of

KEPT_BY_MLFLOW = "mlflow."  # tags that MLflow sets itself


def copy_run(source: Path, tree: xr.DataTree, record: RunRecord, target: Tracker, number: int) -> None:
    """Write run `record`, whose store is `tree` and whose artifacts are in the folder `source`, as another one."""
    factor = float(np.exp(np.random.default_rng(number).uniform(-0.4, 0.4)))
    numbers = {name: value * factor for name, value in tree.attrs["numbers"].items()}
    parameters = {**record.parameters, "seed": number}
    tags = {name: text for name, text in record.tags.items() if not name.startswith(KEPT_BY_MLFLOW)}
    with target.start(record.experiment, f"seed={number} {record.name}", parameters, tags) as run:
        measured: dict[str, Any] = {**record.metrics, **numbers}
        attrs = {**tree.attrs, "run": run.id, "numbers": numbers, "record": run.record(measured)}
        groups = {name: node.to_dataset() for name, node in tree.children.items()}
        fields.write(target.store_of(run.id), groups, attrs)
        run.metrics(measured)
        if (figures := source / "figures").is_dir():
            run.artifact(figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    options.target.mkdir(parents=True, exist_ok=True)
    source, target = Tracker(options.source), Tracker(options.target, group_of)
    records = [each for each in source.history() if each.kind == RUN and each.status == "FINISHED"]
    trees = {each.id: fields.read(source.store_of(each.id)) for each in records}
    there = len(target.history())  # a workspace that was stopped is completed
    for number, record in list(enumerate(islice(cycle(records), options.count)))[there:]:
        copy_run(source.artifacts_dir(record.id), trees[record.id], record, target, number)


if __name__ == "__main__":
    main()
