"""Time that does not depend on what else runs: CPU seconds, of this process, of its children, of all others."""

import os
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from time import perf_counter
from typing import Any

TICK = os.sysconf("SC_CLK_TCK")


def cpu() -> float:
    """CPU seconds of this process and of its children that have ended: a timer for pytest-benchmark."""
    return sum(usage.ru_utime + usage.ru_stime for usage in (getrusage(RUSAGE_SELF), getrusage(RUSAGE_CHILDREN)))


def cpu_of(process: int) -> float:
    """CPU seconds of another process that still runs."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def tell_per_atom(benchmark: Any, unit: str, factor: float, atoms: int) -> None:
    """Note the shortest round as `factor` seconds per atom, unless --benchmark-disable measures nothing."""
    if benchmark.stats is not None:
        benchmark.extra_info[f"{unit} per atom and core"] = factor * benchmark.stats.stats.min / atoms


class Watch:
    """Wall and CPU seconds in a `with` block: of this process (`own`), of `workers` (each), of `others` (cores)."""

    def __init__(self, workers: list[int] | None = None) -> None:
        self.processes = workers or []

    def _read(self) -> tuple[float, float, list[float], float]:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        user, nice, system, _, _, irq, soft, steal = (int(word) / TICK for word in words)
        busy = user + nice + system + irq + soft + steal
        return perf_counter(), cpu(), [cpu_of(process) for process in self.processes], busy

    def __enter__(self) -> "Watch":
        self._begin = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        wall, own, workers, busy = self._read()
        self.wall, self.own = wall - self._begin[0], own - self._begin[1]
        self.workers = [after - before for after, before in zip(workers, self._begin[2], strict=True)]
        self.others = (busy - self._begin[3] - self.own - sum(self.workers)) / self.wall
