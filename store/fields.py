"""Groups of arrays in one zarr store: written whole or not at all, read whole or refused.

zarr reads a missing chunk as the fill value, without an error. So a store carries a manifest
with its own name and the checksum of every file, written last; a reader refuses a store that
differs from its manifest (see `store.seal`).
"""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr
import zarr

from store import schema
from store.locking import locked
from store.seal import MANIFEST, StoreError, attributes, recover, remove, seal, sibling, sync, verify, writing

__all__ = ["StoreError", "attributes", "read", "remove", "verify", "write"]

CHUNK_BYTES = 64 * 2**20
"""An array below this size is one chunk, hence one file."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# xarray gives these attributes a meaning of its own when it writes or reads a variable.
_RESERVED = {
    *("_FillValue", "missing_value", "scale_factor", "add_offset", "dtype", "calendar"),
    *("coordinates", "grid_mapping", "_Unsigned", "_ARRAY_DIMENSIONS"),
}


def write(
    path: Path | str,
    groups: Mapping[str, xr.Dataset],
    attrs: Mapping[str, Any] | None = None,
    *,
    check: bool = True,
) -> Path:
    """Write `groups` as the nodes of one store at `path`, replacing what is there; return `path`.

    `attrs` are JSON values kept at the root. With `check` every group must satisfy
    `schema.check` and is stored with its units; without it any names are allowed, as for a cache.
    Arrays are bool, integer, float or complex; their byte order becomes little-endian. All
    writers into one folder take turns.

    If a process is killed at any moment, there is either the old store, or the new one, or (between
    two renames) the old one under another name, which the next write to `path` restores first.

    Raises before anything is written: SchemaError; StoreError for values that zarr or JSON
    would change, and for a `path` that holds something other than a store. Raises StoreError when
    the disk is full or cannot be written; the old store is still there then.
    """
    path = Path(path).absolute()
    prepared = _prepared(path, groups, check)
    tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs=_plain(path, "attrs", attrs or {}))})
    for name, dataset in prepared.items():
        tree[name] = xr.DataTree(dataset)
    encoding = {
        f"/{name}": {str(k): _encoding(v) for k, v in dataset.variables.items()} for name, dataset in prepared.items()
    }
    new, aside = sibling(path, "new"), sibling(path, "old")
    _replaceable(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent):
            recover(path)
            try:
                # Every chunk becomes a file, so that a missing one is always a fault.
                with zarr.config.set({"array.write_empty_chunks": True}):
                    tree.to_zarr(new, mode="w-", zarr_format=3, consolidated=False, encoding=encoding)
                seal(new, path.name)
            except OSError:
                remove(new)  # on a full disk, an incomplete store would take up the space that is needed
                raise
            if path.exists():
                os.rename(path, aside)
            os.rename(new, path)
            sync(path.parent)
            remove(aside)
    return path


def read(path: Path | str) -> xr.DataTree:
    """Verify the store at `path` and return it in memory; the root holds the attributes.

    Raises StoreError where `verify` does.
    """
    path = Path(path).absolute()
    verify(path)
    with warnings.catch_warnings():
        # zarr warns about every file that is not its own, such as the manifest.
        warnings.filterwarnings("ignore", f"Object at {MANIFEST} is not recognized")
        tree = xr.open_datatree(
            path,
            engine="zarr",
            consolidated=False,
            chunks=None,
            # Arrays are returned as they were given: no masking, no conversion of numbers to dates.
            mask_and_scale=False,
            decode_times=False,
            decode_timedelta=False,
            concat_characters=False,
        )
    with tree:
        tree.load()
        plain = {node.path: node.to_dataset(inherit=False).drop_encoding() for node in tree.subtree}
    return xr.DataTree.from_dict(plain)


def _replaceable(path: Path) -> None:
    """Refuse to replace anything but a store, whole or damaged, or an empty folder."""
    inside = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    if path.exists() and not (path.is_dir() and (not inside or inside & {MANIFEST, "zarr.json"})):
        raise StoreError(path, "exists and is not a store", "choose another path, or move it away")


def _encoding(array: xr.Variable) -> dict[str, Any]:
    """Return chunks of at most `CHUNK_BYTES`, cut along the leading dimensions only."""
    # Without an explicit None xarray adds a `_FillValue` attribute that was never given.
    encoding: dict[str, Any] = {"_FillValue": None}
    if array.ndim == 0:
        return encoding
    chunks = [max(length, 1) for length in array.shape]  # the format has no chunk of length 0
    for axis, length in enumerate(chunks):
        if (excess := math.prod(chunks) * array.dtype.itemsize / CHUNK_BYTES) <= 1:
            break
        chunks[axis] = max(1, int(length / excess))
    return {**encoding, "chunks": tuple(chunks)}


def _plain(path: Path, place: str, attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Return `attrs` as a reader will get them: lists for tuples, str keys, no NaN."""
    cure = "attributes are JSON values with str keys; put numbers that may be NaN into a variable"
    for key in attrs:
        if not isinstance(key, str):
            raise StoreError(path, f"{place}: the key {key!r} is not a str", cure)
        if key in _RESERVED:
            cure = "rename it: xarray reads that name as an instruction"
            raise StoreError(path, f"{place}: {key!r} is reserved", cure)
    try:
        return json.loads(json.dumps(dict(attrs), allow_nan=False))
    except (TypeError, ValueError) as fault:
        raise StoreError(path, f"{place}: {fault}", cure) from None


def _prepared(path: Path, groups: Mapping[str, xr.Dataset], check: bool) -> dict[str, xr.Dataset]:
    """Return the datasets as they will be stored; refuse values that would be changed by it."""
    prepared = {}
    for name, given in groups.items():
        if not _NAME.fullmatch(name):
            raise StoreError(path, f"group name {name!r}", "use letters, digits, underscores")
        dataset = schema.annotate(name, given) if check else given.copy()
        dataset.attrs = _plain(path, f"{name} attrs", dataset.attrs)
        for key, array in dataset.variables.items():
            place = f"{name}/{key}"
            if not _NAME.fullmatch(str(key)):
                raise StoreError(path, f"{place}: name", "use letters, digits, underscores")
            if array.dtype.kind not in "biufc":
                cure = "store numbers; put labels into a JSON attribute"
                raise StoreError(path, f"{place}: dtype {array.dtype}", cure)
            array.attrs = _plain(path, f"{place} attrs", array.attrs)
        prepared[name] = dataset
    return prepared
