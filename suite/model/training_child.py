"""The process that a trainer runs in: `python -m suite.model.training_child job.json`.

A process of its own, so that a trainer that crashes or takes all memory ends nothing but itself, and so that the peak
of its memory can be told.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from store.faults import Fault
from suite.children import PARENT
from suite.execution import end_with
from suite.model.trained import TOLD, dotted_of, function_of
from suite.trainers.needed import program_of
from suite.world.modules import remember_beside


def main(note: Path) -> int:
    """Run the trainer that `note` describes; returns the exit code."""
    if parent := os.environ.pop(PARENT, None):
        end_with(int(parent), signal.SIGTERM)
    job = json.loads(note.read_text(encoding="utf-8"))
    data, model = Path(job["data"]), Path(job["model"])
    begun = time.perf_counter()
    if dotted := dotted_of(job["trainer"]):
        for folder in job["beside"]:
            remember_beside(dotted.partition(":")[0], Path(folder))
        try:
            function_of(dotted, "the trainer")(data, model, **job["arguments"])
        except Fault as fault:
            print(fault, file=sys.stderr)
            return fault.exit_code
    else:
        words = shlex.split(job["trainer"])
        words = [word.replace("{data}", str(data)).replace("{model}", str(model)) for word in words]
        code = subprocess.run([program_of(words[0]) or words[0], *words[1:]], check=False).returncode
        if code != 0:
            return code if code > 0 else 1
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    told = {"seconds": time.perf_counter() - begun, "megabytes": peak / 1024}
    (model / TOLD).write_text(json.dumps(told) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
