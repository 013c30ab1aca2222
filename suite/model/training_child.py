"""The process that a trainer runs in: `python -m suite.model.training_child job.json`.

A process of its own, so that a trainer that crashes or takes all memory ends nothing but itself, and so that the peak
of its memory can be told.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

from store.faults import Fault
from suite.children import PARENT
from suite.execution import end_with
from suite.model.trained import TOLD, dotted_of, function_of
from suite.trainers.needed import run_program
from suite.world.modules import remember_beside


def main(note: Path) -> int:
    """Run the trainer that `note` describes; returns the exit code."""
    if parent := os.environ.pop(PARENT, None):
        # with the programs that the trainer has started: they would write into the folder of the next training
        end_with(int(parent), signal.SIGKILL, group=True)
    job = json.loads(note.read_text(encoding="utf-8"))
    data, model = Path(job["data"]), Path(job["model"])
    begun = time.perf_counter()
    try:
        if dotted := dotted_of(job["trainer"]):
            sys.path += [place for place in job["path"] if place not in sys.path]
            for folder in job["beside"]:
                remember_beside(dotted.partition(":")[0], Path(folder))
            function_of(dotted, "the trainer")(data, model, **job["arguments"])
        else:
            run_program(job["words"], model)
    except Fault as fault:
        print(fault, file=sys.stderr)
        return fault.exit_code
    except SystemExit as end:  # trainers that are programs too may end like this when all is well
        if end.code not in (None, 0):
            raise
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    told = {"seconds": time.perf_counter() - begun, "megabytes": peak / 1024}
    (model / TOLD).write_text(json.dumps(told) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
