"""Buckets of object stores, which can be the lasting place of a workspace. Only this module imports obstore.

    folder = folder_of("s3://bucket/prefix")    # where this workspace lies on this machine
    bucket = bucket_of(folder)                  # None for every other folder
    bucket.put("a/b.json", b"{}")

A workspace in a bucket has a local folder, in which everything is computed as in any other workspace; `store.lasting`
sends what lasts to the bucket, and fetches it from there. The name of the folder tells the bucket, so that every
process that works in the folder knows it.

Keys and passwords are read from the environment by obstore, and are neither stored nor shown.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from store.addresses import BadAddress, scrubbed, shown
from store.faults import BadInput, BadStore

Item = TypeVar("Item")
Result = TypeVar("Result")

CACHE = "DISLOBENCH_CACHE"
"""Environment variable with the folder of the local folders of all buckets."""
KINDS = {"s3": "S3Store", "gs": "GCSStore", "az": "AzureStore"}
"""Schemes of addresses, and the classes of obstore."""
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
"""Environment variables that name another server than Amazon's; the first that is set counts."""
AT_A_TIME = 16  # requests, which wait for the network most of the time
PATIENCE = {"retries": 4, "first": 1.0, "longest": 8.0, "all": 60.0}
"""Retries of a request that was not answered, and seconds between them: enough for a server that is restarted."""
_TIMEOUT = timedelta(seconds=120)  # of one request, which may carry a piece of 64 MB
_ADDRESS = re.compile(r"(s3|gs|az)://([a-z0-9][a-z0-9._-]{2,62})((?:/\w[\w.-]*)*)/?", flags=re.ASCII)
_JOINT = "+"  # stands for a slash of the address in the name of the local folder


class NoObstore(BadInput, ImportError):
    """The library for object stores is not installed."""


class BucketError(BadStore, RuntimeError):
    """A bucket does not answer, or refuses what was asked: which one, why, and the cure."""


# --- addresses and folders ----------------------------------------------------------------------------------------


def is_bucket(text: str) -> bool:
    """Whether `text` is meant as the address of a bucket."""
    return text.partition("://")[0].lower() in KINDS and "://" in text


def folder_of(address: str) -> Path:
    """The local folder of the workspace at `address`; raises BadAddress for one that cannot be used."""
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise BadAddress(
            f"{shown(address)!r} is no address of a workspace in a bucket: write s3://BUCKET/PREFIX (or gs://, az://) "
            "with letters, digits, dots, dashes and underscores, and give keys in the environment"
        )
    kind, name, prefix = found.groups()
    return _root() / f"{kind}{_server_of(kind)}" / _JOINT.join([name, *prefix.split("/")[1:]])


def bucket_of(folder: Path) -> Bucket | None:
    """The bucket whose local folder this is; None for every other folder. Raises BucketError if the environment names
    another server than the one that this folder belongs to."""
    folder = folder.absolute()
    if folder.parent.parent != _root():
        return None
    kind, dash, server = folder.parent.name.partition("-")
    address = f"{kind}://{folder.name.replace(_JOINT, '/')}"
    if kind not in KINDS or _ADDRESS.fullmatch(address) is None:
        return None
    if dash + server != _server_of(kind):
        variable = "AZURE_STORAGE_ACCOUNT_NAME" if kind == "az" else "AWS_ENDPOINT_URL"
        raise BucketError(
            f"{folder} is the local folder of {address} at {server or 'Amazon'}, and {variable} names another server: "
            "set it to that one, or name the workspace by its address"
        )
    return _bucket(address, folder)


@cache
def _bucket(address: str, folder: Path) -> Bucket:
    return Bucket(address, folder)


def _root() -> Path:
    """The folder of all local folders."""
    if named := os.environ.get(CACHE):
        return Path(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "dislobench"


def _endpoint() -> str:
    """The address of another server than Amazon's, "" if none is named; raises BadAddress for one that is none."""
    name = next((name for name in ENDPOINTS if os.environ.get(name)), "")
    told = os.environ.get(name, "").strip()
    if told and not re.fullmatch(r"https?://[^/\s]+/?", told):
        raise BadAddress(f"{name} is {shown(told)!r}, and should be the address of a server: https://HOST:PORT")
    return told


def _server_of(kind: str) -> str:
    """What distinguishes buckets of the same name in folder names: a dash and a server or an account, or ""."""
    if kind == "az":
        told = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
    else:
        told = urlsplit(_endpoint()).netloc.rpartition("@")[2] if kind == "s3" else ""
    return "-" + re.sub(r"[^\w.]", "_", told) if told else ""


# --- a bucket -----------------------------------------------------------------------------------------------------


@dataclass
class Traffic:
    """Objects and bytes that went to a bucket and came from it."""

    put: int = 0
    got: int = 0
    sent: int = 0
    received: int = 0

    def told(self) -> str:
        """A short sentence; "" if there was nothing."""
        parts = []
        if self.put:
            parts.append(f"sent {self.put} objects, {self.sent / 1e6:.2f} MB")
        if self.got:
            parts.append(f"fetched {self.got} objects, {self.received / 1e6:.2f} MB")
        return "; ".join(parts)


class Bucket:
    """The objects below the prefix of an address. Its methods may be called from several threads, and raise
    BucketError when the bucket does not answer or refuses, NoObstore without the library."""

    def __init__(self, address: str, folder: Path) -> None:
        self.where = address.rstrip("/")
        """Its address, which messages show: it holds no password."""
        self.folder = folder
        self.traffic = Traffic()
        self._counting = threading.Lock()

    def listed(self, below: str = "", patient: bool = True) -> dict[str, int]:
        """The objects below the folder `below`, by their names relative to it, and their sizes. Without patience a
        server that is not there is told at once."""
        store = self._store if patient else self._opened(retries=0)
        with self._answering():
            found = [each for page in self._obstore.list(store, below or None) for each in page]
        return {each["path"].removeprefix(f"{below}/"): each["size"] for each in found}

    def put(self, name: str, content: bytes | Path) -> None:
        """Write an object: bytes, or a file. Others see it when it is complete."""
        with self._answering():
            self._obstore.put(self._store, name, content, max_concurrency=2)
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        with self._counting:
            self.traffic.put += 1
            self.traffic.sent += size

    def get(self, name: str) -> bytes:
        """The content of a small object; raises FileNotFoundError if there is none."""
        with self._answering():
            content = bytes(self._obstore.get(self._store, name).bytes())
        self._received(len(content))
        return content

    def download(self, name: str, path: Path) -> tuple[str, int]:
        """Write an object to the file `path`; returns its SHA-256 and size. Raises FileNotFoundError if there is none,
        StoreError when the disk cannot be written."""
        from store.seal import writing  # here, because it brings numpy, and the command line begins with this module

        digest, size = hashlib.sha256(), 0
        with self._answering():
            pieces = iter(self._obstore.get(self._store, name).stream())
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as handle:
                while piece := self._next(pieces):
                    handle.write(piece)
                    digest.update(piece)
                    size += len(piece)
        self._received(size)
        return digest.hexdigest(), size

    def _next(self, pieces: Iterator[Any]) -> bytes:
        with self._answering():
            return bytes(next(pieces, b""))

    def _received(self, size: int) -> None:
        with self._counting:
            self.traffic.got += 1
            self.traffic.received += size

    @cached_property
    def _obstore(self) -> Any:
        try:
            import obstore
            import obstore.exceptions
            import obstore.store
        except ImportError as error:
            raise NoObstore(
                f"{self.where}: object stores need obstore, which is not installed: pip install 'dislobench[s3]'"
            ) from error
        return obstore

    @cached_property
    def _store(self) -> Any:
        return self._opened(PATIENCE["retries"])

    def _opened(self, retries: float) -> Any:
        """obstore's store. Options that are not given here are taken from the environment by obstore."""
        make = self._obstore.store
        kind, name, prefix = _ADDRESS.fullmatch(self.where).groups()  # type: ignore[union-attr]
        endpoint = _endpoint() if kind == "s3" else ""
        client: dict[str, Any] = {"timeout": _TIMEOUT}
        if endpoint.startswith("http://"):
            client["allow_http"] = True
        waits = {name: timedelta(seconds=PATIENCE[key]) for name, key in _BACKOFF.items()}
        retry = {
            "max_retries": int(retries),
            "retry_timeout": timedelta(seconds=PATIENCE["all"]),
            "backoff": {**waits, "base": 2},
        }
        named = {"endpoint": endpoint} if endpoint else {}
        with self._answering():
            return getattr(make, KINDS[kind])(
                name, prefix=prefix.strip("/") or None, client_options=client, retry_config=retry, **named
            )

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turn errors of obstore into `BucketError`; a single object that is missing is a FileNotFoundError."""
        broken = self._obstore.exceptions.BaseError
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise self._fault(error) from None
            raise
        except (broken, OSError, ValueError) as error:
            raise self._fault(error) from None  # the original message may hold more than it should

    def _fault(self, error: Exception) -> BucketError:
        told = scrubbed(str(error))
        answer = re.search(r"<Code>([^<]*)</Code>\s*<Message>([^<]*)</Message>", told)
        short = f"{answer[1]}: {answer[2].rstrip('.')}" if answer else _cause(told)
        server = f" at {shown(_endpoint())}" if self.where.startswith("s3") and _endpoint() else ""
        if "NoSuchBucket" in told:
            cure = "make the bucket, or correct the address"
        elif re.search(r"\b40[13]\b|AccessDenied|Signature|InvalidAccessKeyId|credential|169\.254|Account", told):
            cure = f"give keys that may read and write it in the environment ({_KEYS[self.where[:2]]})"
        else:
            cure = "look after the network, or correct the address (--workspace, AWS_ENDPOINT_URL)"
        return BucketError(f"{self.where}{server} does not answer as it should: {short}; {cure}")


_KEYS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY",
}
_BACKOFF = {"init_backoff": "first", "max_backoff": "longest"}


def _cause(told: str) -> str:
    """The beginning of a long message of nested errors."""
    first = " ".join(told.partition("Debug source")[0].split())
    return first.rpartition(" - ")[2][:300] or first[:300]


def for_each(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`function` of every item, in their order, several at a time; the first error ends it."""
    pool = ThreadPoolExecutor(AT_A_TIME)
    try:
        return list(pool.map(function, items))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
