"""Table of accuracy against basis for tungsten: `python docs/basis_table.py W_zhou04 W_eam4`.

Each basis is fitted to the quick preset of w-screw with all observables; errors are those of the test set and of the
relaxed simulation cell. Worlds are cached in ./runs.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from suite import pipeline
from suite.spec import load
from suite.study.cache import cached_world
from suite.study.session import Session, Stages

BASES = [
    (5.0, (12, 5, 3), (0, 3, 2)),
    (5.0, (20, 4), (0, 3)),
    (5.0, (15, 8), (0, 2)),
    (5.0, (15, 8, 5), (0, 2, 0)),
    (5.0, (20, 6, 4), (0, 2, 1)),
    (5.0, (15, 12), (0, 0)),
    (5.0, (20, 12), (0, 0)),
    (5.0, (25, 12), (0, 0)),
    (5.0, (20, 10, 6), (0, 0, 0)),
    (5.0, (20, 10, 6), (0, 1, 0)),
    (5.0, (20, 16), (0, 0)),
    (5.0, (20, 10, 6, 4), (0, 1, 0, 0)),
    (5.9, (20, 6, 4), (0, 2, 1)),
    (5.9, (20, 10, 6), (0, 1, 0)),
]


def main(references: list[str]) -> None:
    print(
        "| reference | cutoff Å | channels | degrees | functions | RMSE 0.1 | RMSE 0.5 | eps_V1 null-free |"
        " geometry error Å | energy error eV | rows s | model relaxation |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for reference in references:
        for cutoff, channels, degrees in BASES:
            spec = load(
                "w-screw",
                "quick",
                [
                    f"material.reference={reference}",
                    f"model.cutoff={cutoff}",
                    "training.size=8",
                    "training.configurations=32",
                    f"model.channels={list(channels)}",
                    f"model.degrees={list(degrees)}",
                ],
            )
            world = cached_world(spec, Session(Path("runs")), Stages())
            begun = time.perf_counter()
            rows = pipeline.build_rows(spec, world)
            seconds = time.perf_counter() - begun
            verdict = pipeline.assess(spec, world, rows, pipeline.fit(spec, rows))
            n = verdict.numbers
            print(
                f"| {reference} | {cutoff} | {channels} | {degrees} | {len(rows.perfect)} | {n['rmse_F_0.1']:.1e} | "
                f"{n['rmse_F_0.5']:.1e} | {n['eps_V1_null_free']:.1e} | {n.get('geometry_error', float('nan')):.3f} | "
                f"{n.get('energy_error', float('nan')):.4f} | {seconds:.0f} | {verdict.status.name.lower()} |",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:] or ["W_zhou04"])
