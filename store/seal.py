"""Seals: checksums of the files of a workspace. This module imports fast, so that listings can use it.

A store (see `store.fields`) carries a manifest with its own name and the checksum of every file. A JSON file carries a
checksum of its content under the key `sha256`. Nothing here reads an array.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from store.entries import jsonable
from store.faults import BadStore

FORMAT = 2
"""Format of a manifest; the first one did not hold the name of its store."""
MANIFEST = "manifest.json"
ROOT = "zarr.json"
"""File of a store that holds the attributes of its root."""

AGAIN = "delete the store and run its case again"

_CURES = {
    errno.ENOSPC: "free some space and give the same command again: what was finished is kept",
    errno.EDQUOT: "free some of your quota and give the same command again: what was finished is kept",
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f`) and give the same command again",
    errno.EROFS: "it can be read only: copy the workspace, or name another folder",
    errno.EACCES: "it can be read only by you: copy the workspace, or name another folder",
    errno.EPERM: "it can be read only by you: copy the workspace, or name another folder",
    errno.ENOTDIR: "a file stands where a folder is needed: name another place",
    errno.EIO: "look after the disk, then give the same command again",
}


class StoreError(BadStore, RuntimeError):
    """A store cannot be written or read: the path, what is wrong, and the cure."""

    def __init__(self, path: Path | str, wrong: str, cure: str) -> None:
        self.path, self.wrong, self.cure = path, wrong, cure
        super().__init__(f"{path}: {wrong}; {cure}")

    def __reduce__(self) -> tuple[type[StoreError], tuple[Path | str, str, str]]:
        return type(self), (self.path, self.wrong, self.cure)  # makes it picklable: a worker sends it to its parent


def disk_fault(path: Path, error: OSError) -> StoreError | None:
    """Return the fault that describes an `error` of the disk at `path`: full, read-only, broken.

    None for an error that has nothing to do with the state of the disk.
    """
    cure = _CURES.get(error.errno or 0)
    return None if cure is None else StoreError(path, f"cannot be written: {os.strerror(error.errno or 0)}", cure)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the disk into a StoreError that names `path` and the cure."""
    try:
        yield
    except OSError as error:
        if (fault := disk_fault(path, error)) is None:
            raise
        raise fault from error


# --- stores -------------------------------------------------------------------------------------------------------


def seal(folder: Path, name: str) -> None:
    """Flush every file below `folder` to the disk, then write the manifest with their checksums.

    `name` is that of the store when it is finished. The order matters: after a power cut a manifest must not describe
    data still in memory.
    """
    files = {}
    for file in sorted(_files(folder)):
        digest, size = digest_of(folder / file)
        sync(folder / file)
        files[file] = {"sha256": digest, "size": size}
    with open(folder / MANIFEST, "wb") as handle:
        handle.write(manifest_bytes(files, name))
        handle.flush()
        os.fsync(handle.fileno())
    for below, _, _ in os.walk(folder):
        sync(Path(below))


def verify(path: Path | str) -> None:
    """Compare every file of the store at `path` with its manifest.

    Raises StoreError if there is no store or no manifest, if the manifest is damaged, of a newer format, or that of
    another store, or if a file is missing, changed, or unknown to the manifest.
    """
    path = Path(path).absolute()
    listed = _listed(path)
    present = _files(path)
    for name, entry in listed.items():
        if name not in present:
            raise StoreError(path, f"missing file {name}", AGAIN)
        _check(path, name, entry, *digest_of(path / name))
    if extra := sorted(present - listed.keys()):
        raise StoreError(path, f"{extra[0]} is not in the manifest", "delete that file, or " + AGAIN)


def attributes(path: Path | str) -> dict[str, Any]:
    """Return the attributes of the root of the store at `path`, checked against its manifest.

    Only two small files are read, so that a damaged array is not noticed here. Raises StoreError as `verify`.
    """
    path = Path(path).absolute()
    listed = _listed(path)
    try:
        raw = (path / ROOT).read_bytes()
        entry = listed[ROOT]
    except (FileNotFoundError, KeyError):
        raise StoreError(path, f"missing file {ROOT}", AGAIN) from None
    _check(path, ROOT, entry, hashlib.sha256(raw).hexdigest(), len(raw))
    return json.loads(raw).get("attributes", {})


def _check(path: Path, name: str, entry: Mapping[str, Any], digest: str, size: int) -> None:
    if size != entry["size"]:
        raise StoreError(path, f"{name} has {size} bytes, the manifest says {entry['size']}", AGAIN)
    if digest != entry["sha256"]:
        raise StoreError(path, f"checksum mismatch in {name}", AGAIN)


def _listed(path: Path) -> dict[str, dict[str, Any]]:
    """Return the files that the manifest of the store at `path` lists, after checking the manifest itself."""
    if not path.is_dir():
        if path.exists():
            raise StoreError(path, "not a folder", "a store is a folder made by fields.write")
        if sibling(path, "old").exists():
            cure = f"rename {sibling(path, 'old').name} back, or run the case again"
            raise StoreError(path, "no store: replacing it was interrupted", cure)
        raise StoreError(path, "no store", "run its case first, or correct the path")
    try:
        raw = (path / MANIFEST).read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise StoreError(path, f"no {MANIFEST}: the store was not written to its end", AGAIN) from None
    try:
        manifest = json.loads(raw)
        form, files, digest = manifest["format"], manifest["files"], manifest["sha256"]
        newer = form > FORMAT
        name = manifest["name"] if form > 1 else None
    except (ValueError, KeyError, TypeError):
        raise StoreError(path, f"{MANIFEST} is damaged", AGAIN) from None
    if newer:
        raise StoreError(path, f"written in format {form}, this version reads up to {FORMAT}", "upgrade dislobench")
    if manifest_bytes(files, name) != raw:
        raise StoreError(path, f"{MANIFEST} is damaged: its checksum is not {digest}", AGAIN)
    if name not in (None, path.name):
        raise StoreError(path, f"this is the store {name} under another name", f"rename it to {name}, or {AGAIN}")
    return files


def manifest_bytes(files: Mapping[str, Mapping[str, Any]], name: str | None) -> bytes:
    """Return the manifest of the store `name`; None for one of format 1, which holds no name."""
    body = {"format": 1, "files": files} if name is None else {"format": FORMAT, "name": name, "files": files}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps({**body, "sha256": digest}, sort_keys=True, indent=1).encode()


def manifest_files(raw: bytes) -> dict[str, dict[str, Any]]:
    """Return the files that the manifest `raw` lists, relative with slashes; raises ValueError for one that leads out
    of its store."""
    files: dict[str, dict[str, Any]] = json.loads(raw)["files"]
    if wrong := [name for name in files if leads_out(name)]:
        raise ValueError(f"{MANIFEST} lists the file {wrong[0]!r}")
    return files


def leads_out(path: str) -> bool:
    """Whether a relative path with slashes, which somebody else has written, may lead out of its folder."""
    return bool({"", ".", ".."} & {*path.split("/")})


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _files(folder: Path) -> set[str]:
    """Return the paths of all files below `folder` except its manifest, relative, with slashes."""
    found = (entry for entry in folder.rglob("*") if not entry.is_dir())
    return {entry.relative_to(folder).as_posix() for entry in found} - {MANIFEST}


def digest_of(content: Path | bytes) -> tuple[str, int]:
    """Return the SHA-256 and the size of a file or of bytes."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest(), len(content)
    with open(content, "rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
        return digest, handle.tell()


def sibling(path: Path, role: str) -> Path:
    """Return the name that a store has while it is being written ("new") or replaced ("old")."""
    return path.with_name(f".{path.name}.{role}")


def recover(path: Path) -> bool:
    """Remove what an interrupted write of the store `path` left; return whether there was anything.

    The old store is restored if the write was interrupted between the two renames. Hold the lock of the folder.
    """
    new, aside = sibling(path, "new"), sibling(path, "old")
    found = os.path.lexists(new) or os.path.lexists(aside)
    if aside.exists() and not path.exists():
        os.rename(aside, path)
    remove(new)
    remove(aside)
    return found


def remove(path: Path) -> None:
    """Remove a file or a whole folder; a missing one is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# --- JSON files ---------------------------------------------------------------------------------------------------


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return `content` as plain JSON with its own checksum under the key `sha256`."""
    plain = {key: value for key, value in jsonable(content).items() if key != "sha256"}
    text = json.dumps(plain, sort_keys=True, allow_nan=False)
    return {**plain, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` with its checksum to `path`, whole or not at all; raises StoreError when the disk cannot be
    written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.new")
    with writing(path):
        try:
            partial.write_text(json.dumps(sealed(content), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            os.replace(partial, path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


def read_json(path: Path, cure: str) -> dict[str, Any]:
    """Return the content of the sealed JSON file at `path`, without its checksum.

    Raises StoreError, with `cure`, if it is missing, no JSON, has no checksum, or was changed since it was written.
    """
    try:
        content = json.loads(path.read_bytes())
        digest = content["sha256"]
    except FileNotFoundError:
        raise StoreError(path, "missing", cure) from None
    except (ValueError, RecursionError):
        raise StoreError(path, "damaged: not JSON", cure) from None
    except (KeyError, TypeError):
        raise StoreError(path, "has no checksum (written by an older version, or edited)", cure) from None
    if sealed(content)["sha256"] != digest:
        raise StoreError(path, "was changed since it was written: checksum mismatch", cure)
    return {key: value for key, value in content.items() if key != "sha256"}
