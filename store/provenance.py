"""Provenance of numbers: content keys, package versions, machine, revision, time."""

import getpass
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

KEY_LENGTH = 16


def _canonical(value: Any, place: str) -> Any:
    """Return a JSON value that determines `value`.

    Mappings and arrays become objects with one reserved key each, which no plain mapping can
    imitate because plain mappings are wrapped too.
    """
    match value:
        case None | bool() | str() | int() | float():
            return value
        case np.bool_() | np.integer() | np.floating():
            return value.item()
        case Mapping():
            for key in value:
                if not isinstance(key, str):
                    raise TypeError(f"{place}: key {key!r} is a {type(key).__name__}, not a str")
            return {"mapping": {k: _canonical(v, f"{place}.{k}") for k, v in value.items()}}
        case list() | tuple():
            return [_canonical(item, f"{place}[{n}]") for n, item in enumerate(value)]
        case np.ndarray() if value.dtype.kind in "biufc":
            # Little-endian bytes, so that a key made on one machine is found on another.
            plain = value.astype(value.dtype.newbyteorder("<"), copy=False)
            digest = hashlib.sha256(plain.tobytes()).hexdigest()
            return {"array": [plain.dtype.str, list(value.shape), digest]}
        case np.ndarray():
            raise TypeError(f"{place}: an array of dtype {value.dtype} has no content key")
    raise TypeError(
        f"{place}: a {type(value).__name__} has no content key; use mappings, lists, tuples, "
        "str, int, float, bool, None and numeric numpy arrays"
    )


def content_key(*parts: Any) -> str:
    """Return 16 hexadecimal characters that identify the content of `parts`.

    Equal content gives equal keys in every process and on every machine, whatever the order of
    mapping keys. Lists and tuples of equal items are equal; 1, 1.0, True and "1" all differ, so do
    0.0 and -0.0. A numpy scalar counts as the Python number it holds; an array by dtype, shape
    and bytes.

    Raises TypeError that names the place of a value of any other type.
    """
    listed = [_canonical(part, f"part {n}") for n, part in enumerate(parts)]
    text = json.dumps(listed, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of the content of a file, in hexadecimal; a file that has not changed is read once."""
    state = path.stat()
    return _file_digest(path.absolute(), state.st_mtime_ns, state.st_size, state.st_ino)


@lru_cache(maxsize=1024)
def _file_digest(path: Path, *state: int) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each distribution, "absent" for one not installed."""

    def version(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "absent"

    return {package: version(package) for package in packages}


def _first_line(command: list[str], **options: Any) -> str | None:
    """Return the first line that `command` prints; None if it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10, **options)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.partition("\n")[0].strip() or None


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    brand = _first_line(["sysctl", "-n", "machdep.cpu.brand_string"])
    return brand or platform.processor() or platform.machine() or "unknown"


def machine() -> dict[str, str | int | float]:
    """Return what run times depend on: cpu, cores, cores_usable, memory_gb (1e9 B), platform, python.

    `cores_usable` is smaller than `cores` where a batch system pins the process.
    """
    cores = os.cpu_count() or 1
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": _cpu_model(),
        "cores": cores,
        "cores_usable": len(affinity(0)) if affinity else cores,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }


def git_revision(folder: Path) -> str | None:
    """Return the commit that `folder` belongs to, with "-dirty" appended after local changes.

    None without git, outside a repository, and where the repository tracks nothing in `folder`:
    a package installed below somebody's checkout is not at that checkout's revision.
    """
    # git sets these while it runs a hook; they would override the folder asked about.
    overriding = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
    env = {name: value for name, value in os.environ.items() if name not in overriding}
    git = ["git", "-C", str(folder)]
    if _first_line([*git, "ls-files"], env=env) is None:
        return None
    return _first_line([*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"], env=env)


@cache
def origin() -> dict[str, str]:
    """Return MLflow's tags for who makes the runs of this process, and with which command."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # KeyError before Python 3.13: a container whose user has no name
        user = f"user {os.getuid()}"
    program, *words = sys.argv or [""]
    name = Path(program).parent.name if Path(program).name == "__main__.py" else Path(program).name
    # the UI shows only what follows the last slash: paths are cut to their last name
    command = shlex.join([name or "python", *(Path(word).name if "/" in word else word for word in words)])
    return {"mlflow.user": user, "mlflow.source.name": command[:250], "mlflow.source.type": "LOCAL"}


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC with whole seconds: 2026-01-31T12:00:00+00:00."""
    return datetime.now(UTC).isoformat(timespec="seconds")
