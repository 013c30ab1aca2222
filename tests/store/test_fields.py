import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from store import fields, seal
from store.fields import StoreError, attributes, read, verify, write
from store.schema import SchemaError

CODES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
DTYPES = st.sampled_from(CODES).map(np.dtype)
ATTRIBUTES = st.dictionaries(
    st.text(min_size=1, max_size=4),
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4) | st.just([1, "a", {}]),
    max_size=2,
)


@st.composite
def variables(draw: st.DrawFn, name: str) -> xr.Variable:
    """An array of any stored dtype, 0 to 3 dimensions, any of them of length zero.

    The bytes are arbitrary: NaN with payloads, both zeros, infinities.
    """
    dtype = draw(DTYPES)
    shape = draw(npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    size = int(np.prod(shape))
    if dtype.kind == "b":
        flat = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), dtype)
    else:
        count = size * dtype.itemsize
        flat = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), dtype)
    dims = [f"{name}_{axis}" for axis in range(len(shape))]
    return xr.Variable(dims, flat.reshape(shape), draw(ATTRIBUTES))


@st.composite
def datasets(draw: st.DrawFn) -> xr.Dataset:
    names = draw(st.lists(st.sampled_from(["dW2", "a", "c", "_x9"]), unique=True))
    found = {name: draw(variables(name)) for name in names}
    return xr.Dataset(found, attrs=draw(ATTRIBUTES))


def assert_same(stored: xr.Dataset, given: xr.Dataset) -> None:
    """Equal names, dims, dtypes, attributes and bytes."""
    assert set(stored.variables) == set(given.variables)
    assert set(stored.coords) == set(given.coords)
    assert stored.attrs == given.attrs
    for name, array in given.variables.items():
        other = stored.variables[name]
        assert (other.dims, other.shape, other.dtype) == (array.dims, array.shape, array.dtype)
        assert other.attrs == array.attrs
        assert other.values.tobytes() == array.values.tobytes(), name


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["one", "two"]), datasets()), ATTRIBUTES)
def test_read_returns_what_write_was_given(
    tmp_path: Path, groups: dict[str, xr.Dataset], attrs: dict[str, Any]
) -> None:
    tree = read(write(tmp_path / "any.zarr", groups, attrs, check=False))
    assert set(tree.children) == set(groups)
    assert tree.attrs == attrs
    for name, dataset in groups.items():
        assert_same(tree[name].to_dataset(), dataset)
    assert not [p for p in tmp_path.iterdir() if p.name not in ("any.zarr", ".lock")]


def test_coordinates_come_back_as_coordinates(tmp_path: Path) -> None:
    dataset = xr.Dataset(
        {"y": ("x", [1.0, np.nan]), "days": ("x", [1, 2], {"units": "days since 2000-01-01"})},
        coords={"x": [0.5, 1.5], "label": ("x", [3, 4]), "origin": 2.0},
    )
    assert_same(read(write(tmp_path / "s", {"g": dataset}, check=False))["g"].to_dataset(), dataset)


def sample(value: float = 1.0) -> xr.Dataset:
    return xr.Dataset(
        {
            "predictor": (("atom", "xyz"), np.full((4, 3), value)),
            "species": ("atom", np.zeros(4, int)),  # all zeros: the fill value of zarr
            "force_history": ("call", np.zeros(0)),
        }
    )


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return write(tmp_path / "run.zarr", {"simulation": sample()}, {"spec": "[case]"})


def test_checked_groups_carry_units_and_the_given_dataset_does_not(tmp_path: Path) -> None:
    given = sample()
    given.predictor.attrs["origin"] = "Stroh"
    left_over = {"chunks": (1, 1), "dtype": "int16", "scale_factor": 0.7}
    given.predictor.encoding = dict(left_over)
    tree = read(write(tmp_path / "s", {"simulation": given}))
    attrs = tree["simulation/predictor"].attrs
    assert attrs["units"] == "Å"
    assert attrs["origin"] == "Stroh"
    assert given.predictor.attrs == {"origin": "Stroh"}
    assert given.predictor.encoding == left_over
    np.testing.assert_array_equal(tree["simulation/predictor"], given.predictor)
    files = {p.name for p in (tmp_path / "s" / "simulation" / "predictor").rglob("*")}
    assert {"zarr.json", "c", "0"} == files


def test_what_was_read_can_be_written_again(stored: Path, tmp_path: Path) -> None:
    tree = read(stored)
    again = read(write(tmp_path / "b", {"simulation": tree["simulation"].to_dataset()}, tree.attrs))
    assert again.identical(tree)


def test_a_read_store_no_longer_needs_its_files(stored: Path) -> None:
    tree = read(stored)
    shutil.rmtree(stored)
    assert float(tree["simulation/predictor"].sum()) == 12.0


def test_large_arrays_are_cut_into_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "CHUNK_BYTES", 8 * 30)
    values = np.arange(200.0).reshape(20, 10)
    wide = np.arange(100.0).reshape(2, 50)
    dataset = xr.Dataset({"tall": (("a", "b"), values), "wide": (("c", "d"), wide)})
    path = write(tmp_path / "s", {"g": dataset}, check=False)
    assert len(list((path / "g" / "tall" / "c").rglob("0"))) == 1 + 7  # 7 chunks of 3 rows each
    assert all(p.stat().st_size <= 8 * 30 + 20 for p in (path / "g").rglob("c/*/*") if p.is_file())
    assert_same(read(path)["g"].to_dataset(), dataset)


def test_an_empty_array_has_chunks_of_positive_length(stored: Path) -> None:
    metadata = json.loads((stored / "simulation" / "force_history" / "zarr.json").read_text())
    assert metadata["shape"] == [0]
    assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == [1]


def test_schema_is_enforced_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="predictr"):
        write(tmp_path / "s", {"simulation": sample().rename(predictor="predictr")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("groups", "attrs", "message"),
    [
        ({"g": xr.Dataset({"v": ("x", ["a"])})}, {}, "g/v: dtype <U1"),
        ({"g": xr.Dataset({"v": ("x", np.array(["2000"], "M8[s]"))})}, {}, "g/v: dtype datetime64"),
        ({"g/h": xr.Dataset()}, {}, "group name 'g/h'"),
        ({"g": xr.Dataset({"a/b": 1.0})}, {}, "g/a/b: name"),
        ({"g": xr.Dataset({"v": ((), 1.0, {"_FillValue": 1.0})})}, {}, "'_FillValue' is reserved"),
        ({"g": xr.Dataset(attrs={"x": np.zeros(2)})}, {}, "g attrs: .*ndarray"),
        ({}, {"x": float("nan")}, "attrs: .*not JSON compliant"),
        ({}, {1: 2}, "the key 1 is not a str"),
    ],
)
def test_what_would_not_come_back_is_refused(tmp_path: Path, groups: Any, attrs: Any, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        write(tmp_path / "s", groups, attrs, check=False)
    assert list(tmp_path.iterdir()) == []


def chunk(path: Path) -> Path:
    return path / "simulation" / "predictor" / "c" / "0" / "0"


def edit_manifest(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((path / "manifest.json").read_bytes())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest, sort_keys=True, indent=1))


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no store": (shutil.rmtree, "no store; run its case"),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), "no manifest.json"),
    "no chunk": (lambda p: chunk(p).unlink(), "missing file simulation/predictor/c/0/0"),
    "no chunk of zeros": (
        lambda p: (p / "simulation/species/c/0").unlink(),
        "missing file simulation/species/c/0",
    ),
    "no metadata": (
        lambda p: (p / "simulation/zarr.json").unlink(),
        "missing file simulation/zarr",
    ),
    "flipped": (lambda p: flip(chunk(p)), "checksum mismatch in simulation/predictor/c/0/0"),
    "cut": (lambda p: os.truncate(chunk(p), 5), "simulation/predictor/c/0/0 has 5 bytes"),
    "extra": (
        lambda p: shutil.copy(chunk(p), chunk(p).with_name("1")),
        "simulation/predictor/c/0/1 is not in the manifest; delete that file",
    ),
    "newer": (lambda p: edit_manifest(p, lambda m: m.update(format=99)), "format 99.*upgrade"),
    "manifest edited": (
        lambda p: edit_manifest(p, lambda m: m["files"].popitem()),
        "manifest.json is damaged: its checksum",
    ),
    "manifest cut": (lambda p: os.truncate(p / "manifest.json", 40), "manifest.json is damaged"),
    "manifest a list": (lambda p: (p / "manifest.json").write_text("[]"), "manifest.json is dam"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_store_is_refused_with_the_place(stored: Path, damage: str) -> None:
    verify(stored)
    spoil, message = DAMAGE[damage]
    spoil(stored)
    for look in (read, verify):
        with pytest.raises(StoreError, match=message) as caught:
            look(stored)
        assert str(stored) in str(caught.value)


def test_a_damaged_store_can_be_replaced(stored: Path) -> None:
    (stored / "manifest.json").unlink()
    write(stored, {"simulation": sample(2.0)})
    assert float(read(stored)["simulation/predictor"][0, 0]) == 2.0


def test_only_a_store_is_ever_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    for target in (tmp_path / "thesis", tmp_path / "thesis" / "chapter.tex"):
        with pytest.raises(StoreError, match="exists and is not a store"):
            write(target, {"simulation": sample()})
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "x"


KILL = """
import os, sys, numpy as np, xarray as xr
from store import fields
path, call, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
owner, name = (os if call == "rename" else fields), call
original, calls = getattr(owner, name), [0]
def dying(*arguments, **options):
    calls[0] += 1
    if calls[0] == count:
        os._exit(9)
    return original(*arguments, **options)
setattr(owner, name, dying)
fields.write(path, {"simulation": xr.Dataset({"species": ("atom", np.full(3, 7))})})
"""


@pytest.mark.parametrize(
    ("call", "count", "readable"),
    [
        ("seal", 1, True),  # all chunks written, no manifest
        ("rename", 1, True),  # the new store is whole, the old one in place
        ("rename", 2, False),  # the old one set aside
        ("remove", 1, True),  # the new one in place
    ],
)
def test_a_killed_write_never_loses_a_store(
    stored: Path, spawn: Callable[..., Any], call: str, count: int, readable: bool
) -> None:
    before = read(stored)
    process = spawn(KILL, stored, call, count)
    _, noise = process.communicate()
    assert process.returncode == 9, noise
    assert len(list(stored.parent.iterdir())) > 2  # it did leave something
    if readable:
        tree = read(stored)
        species = tree["simulation/species"].values
        assert tree.identical(before) or species.tolist() == [7, 7, 7]
    else:
        with pytest.raises(StoreError, match=r"interrupted; rename \.run\.zarr\.old back"):
            read(stored)
        # A second failure, before anything new is whole, must not cost the copy set aside.
        dead = spawn(KILL, stored, "seal", 1)
        dead.communicate()
        assert dead.returncode == 9
        assert read(stored).identical(before)
    write(stored, {"simulation": sample(3.0)})
    assert float(read(stored)["simulation/predictor"][0, 0]) == 3.0
    assert {p.name for p in stored.parent.iterdir()} == {"run.zarr", ".lock"}


def test_a_failed_write_leaves_the_old_store(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = read(stored)
    with monkeypatch.context() as patch:
        patch.setattr(fields, "seal", full_disk)
        with pytest.raises(StoreError, match=r"run\.zarr: cannot be written: No space left on device; free some space"):
            write(stored, {"simulation": sample(2.0)})
    assert read(stored).identical(before)
    assert {p.name for p in stored.parent.iterdir()} == {"run.zarr", ".lock"}, "half a store takes no room"


LIMITED = """
import resource, sys, numpy as np, xarray as xr
from store import fields
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
data = xr.Dataset({"x": ("n", np.random.default_rng(0).random(100_000))})
try:
    fields.write(sys.argv[1], {"g": data}, check=False)
except fields.StoreError as fault:
    print(fault)
"""


def test_a_limit_on_the_size_of_files_is_told(stored: Path, spawn: Callable[..., Any]) -> None:
    before = read(stored)
    told, noise = spawn(LIMITED, stored).communicate()
    assert "run.zarr: cannot be written: File too large; raise the limit" in told, noise
    assert read(stored).identical(before)


def test_the_manifest_is_the_last_file_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    original = seal.manifest_bytes

    def watching(files: dict[str, Any], name: str) -> bytes:
        folder = tmp_path / ".s.new"
        seen.append({p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()})
        return original(files, name)

    monkeypatch.setattr(seal, "manifest_bytes", watching)
    path = write(tmp_path / "s", {"simulation": sample()})
    final = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
    assert seen[0] == (final - {"manifest.json"}) | ({"manifest.json"} & seen[0])
    assert seen[0] | {"manifest.json"} == final


# --- the name, and the attributes alone ---------------------------------------------------------------------------


def older(path: Path) -> None:
    """Give the store the manifest of format 1, which held no name."""
    manifest = json.loads((path / "manifest.json").read_bytes())
    (path / "manifest.json").write_bytes(seal.manifest_bytes(manifest["files"], None))


def test_two_swapped_stores_are_refused(stored: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.zarr", {"simulation": sample(2.0)})
    os.rename(stored, tmp_path / "aside")
    os.rename(other, stored)
    os.rename(tmp_path / "aside", other)
    for look in (read, verify, attributes):
        with pytest.raises(StoreError, match=r"run\.zarr: this is the store other\.zarr under another name; rename it"):
            look(stored)


def test_an_entry_copied_under_another_key_is_refused(stored: Path, tmp_path: Path) -> None:
    shutil.copytree(stored, tmp_path / "rows-0123.zarr")
    with pytest.raises(StoreError, match=r"this is the store run\.zarr under another name"):
        read(tmp_path / "rows-0123.zarr")
    read(stored)


def test_a_moved_folder_of_stores_is_still_good(stored: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    verify(shutil.move(stored, tmp_path / "elsewhere" / "run.zarr"))


def test_stores_of_the_old_format_are_read(stored: Path, tmp_path: Path) -> None:
    before = read(stored)
    older(stored)
    assert read(stored).identical(before)
    assert attributes(stored) == {"spec": "[case]"}
    # that they hold no name is known
    assert read(shutil.copytree(stored, tmp_path / "copy.zarr")).identical(before)
    flip(chunk(stored))
    with pytest.raises(StoreError, match="checksum mismatch"):
        read(stored)


def test_attributes_are_read_without_arrays(stored: Path) -> None:
    flip(chunk(stored))
    assert attributes(stored) == {"spec": "[case]"}
    root = stored / "zarr.json"
    text = root.read_text()
    root.write_text(text.replace("[case]", "[cake]"))
    with pytest.raises(StoreError, match=r"checksum mismatch in zarr\.json"):
        attributes(stored)
    root.unlink()
    with pytest.raises(StoreError, match=r"missing file zarr\.json"):
        attributes(stored)


MANIFESTS = [damage for damage in DAMAGE if damage.startswith(("manifest", "no manifest", "no store", "newer"))]


@pytest.mark.parametrize("damage", MANIFESTS)
def test_attributes_of_a_damaged_store_are_refused(stored: Path, damage: str) -> None:
    spoil, message = DAMAGE[damage]
    spoil(stored)
    with pytest.raises(StoreError, match=message):
        attributes(stored)


def test_asking_for_attributes_imports_nothing_slow(stored: Path, spawn: Callable[..., Any]) -> None:
    code = (
        "import sys; from store.seal import attributes; print(attributes(sys.argv[1]))\n"
        "print(sorted({'mlflow', 'xarray', 'zarr'} & sys.modules.keys()))"
    )
    assert spawn(code, stored).communicate()[0] == "{'spec': '[case]'}\n[]\n"


# --- sealed JSON --------------------------------------------------------------------------------------------------


def test_a_sealed_file_is_believed_until_it_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "sweep.json"
    content = {"name": "L", "points": [{"x": 6, "error": 0.1 + 0.2, "bad": float("inf")}], "é": None}
    seal.write_json(path, content)
    assert seal.read_json(path, "sweep again") == {**content, "points": [{"x": 6, "error": 0.1 + 0.2, "bad": "inf"}]}
    assert {p.name for p in tmp_path.iterdir()} == {"sweep.json"}
    good = path.read_text()
    for bad, message in (
        (good.replace("0.30000000000000004", "0.3"), "was changed"),
        (good[: len(good) // 2], "not JSON"),
        ("[]", "no checksum"),
        ('{"name": "L"}', "no checksum"),
        ("\x00" * 40, "not JSON"),
    ):
        path.write_text(bad)
        with pytest.raises(StoreError, match=rf"sweep\.json: .*{message}.*; sweep again"):
            seal.read_json(path, "sweep again")
    path.unlink()
    with pytest.raises(StoreError, match="missing; sweep again"):
        seal.read_json(path, "sweep again")


def test_writers_of_one_path_take_turns(tmp_path: Path, spawn: Callable[..., Any]) -> None:
    code = (
        "import sys, numpy as np, xarray as xr; from store import fields\n"
        "for n in range(6):\n"
        "    data = xr.Dataset({'species': ('atom', np.full(3, int(sys.argv[2])))})\n"
        "    fields.write(sys.argv[1], {'simulation': data})"
    )
    writers = [spawn(code, tmp_path / "s", n) for n in (1, 2)]
    for writer in writers:
        _, noise = writer.communicate()
        assert writer.returncode == 0, noise
    assert read(tmp_path / "s")["simulation/species"].values.tolist() in ([1] * 3, [2] * 3)
