"""Code that several commands share: exit codes, reading of specs, child processes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.faults import BadInput, BadStore, FailedOutcome, Fault

if TYPE_CHECKING:
    from store.sealed import Believed
    from suite.spec import Spec, Sweep

BAD_SPEC, FAILED_OUTCOME, BAD_STORE = BadInput.exit_code, FailedOutcome.exit_code, BadStore.exit_code


class CommandError(Fault):
    """A message for the user and an exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


def spec_of(options: argparse.Namespace) -> Spec:
    """The spec that the command line names; raises `BadSpec`, and `CommandError` as `refuse_code` does."""
    from suite.spec import load

    return refuse_code(options, load(options.spec, options.preset, options.overrides))


def refuse_code(options: argparse.Namespace, spec: Spec) -> Spec:
    """The spec; raises `CommandError` when it names code and the command line has --safe."""
    if getattr(options, "safe", False) and spec.code:
        raise CommandError(
            f"{spec.case.name} names {' and '.join(spec.code)}: code that this command would run, and --safe forbids "
            "it; read that code, and leave --safe out when you trust it",
            BAD_SPEC,
        )
    return spec


def chosen_sweeps(options: argparse.Namespace, name: str, only: Sequence[str]) -> dict[str, Sweep]:
    """The sweeps of spec `name`, or `only` those with these names."""
    from suite.spec import load_sweeps

    sweeps = load_sweeps(name, options.preset, options.overrides, only)
    if unknown := [each for each in only if each not in sweeps]:
        raise CommandError(f"no sweep {unknown[0]!r} in {name}; it has {', '.join(sweeps)}", BAD_SPEC)
    return {each: sweep for each, sweep in sweeps.items() if not only or each in only}


def loader_of(options: argparse.Namespace, name: str) -> Callable[[Mapping[str, Any]], Spec]:
    """Resolves spec `name` of a command line with the settings of a point."""
    from suite.spec import load, toml_value

    def resolved(settings: Mapping[str, Any]) -> Spec:
        words = [f"{key}={toml_value(value)}" for key, value in settings.items()]
        return refuse_code(options, load(name, options.preset, [*options.overrides, *words]))

    return resolved


def specs_of_sweep(options: argparse.Namespace, name: str, sweep: str) -> list[Spec]:
    """The specs of all points of a sweep of spec `name`."""
    from suite.ladders import overrides_of, points_of

    chosen, load = chosen_sweeps(options, name, [sweep])[sweep], loader_of(options, name)
    return [load(overrides_of(chosen, *point)) for point in points_of(chosen)]


def spec_words(options: argparse.Namespace) -> list[str]:
    """The words of a command line that choose preset and overrides."""
    preset = [] if options.preset is None else ["--preset", options.preset]
    return [*preset, *(word for override in options.overrides for word in ("--set", override))]


def make_workspace(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"cannot use the workspace: {error}; name another with --workspace", BAD_STORE) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CommandError(
            f"{folder} can be read only; copy the workspace, or name another with --workspace "
            "(runs, show --figures, report --folder and compare read it as it is)",
            BAD_STORE,
        )


def refuse_own_ids(options: argparse.Namespace) -> None:
    """Raise `CommandError` for a home that gives every run an id of its own: runs that workers hand over have one."""
    from store.homes import home_of

    home = home_of(options.workspace.absolute())
    if not home.keeps_ids:
        raise CommandError(
            f"{home.where} gives every run an id of its own, so that runs of workers and shards, which have one, do "
            "not find their stores there: give --tracking-uri the address of the server's database",
            BAD_SPEC,
        )


@contextmanager
def cluster_of(options: argparse.Namespace) -> Iterator[None]:
    """Inside the `with` block work goes through the cluster that the command line names, if it names one."""
    if options.cluster is None:
        yield
        return
    refuse_own_ids(options)
    if options.command != "tune" and options.workers:
        raise CommandError("--workers belongs to this machine: a cluster has as many as it has; leave it out", BAD_SPEC)
    from suite.cluster import opened
    from suite.execution import through

    with opened(options.cluster, options.workspace) as cluster, through(cluster):
        yield


def tell(believed: Believed) -> None:
    """Say on standard error what is wrong with the numbers of a run."""
    if believed.note:
        record = believed.record
        print(f"dislobench: {record.name} ({record.id[:8]}): {believed.note}", file=sys.stderr)
