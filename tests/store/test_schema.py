import numpy as np
import pytest
import xarray as xr

from store.schema import GROUPS, LENGTHS, SchemaError, annotate, check, describe


def full(group: str) -> xr.Dataset:
    """A dataset with every variable of `group`; free dimensions have distinct lengths."""
    free = sorted({d for v in GROUPS[group].values() for d in v.dims} - LENGTHS.keys())
    sizes = LENGTHS | {dim: 5 + n for n, dim in enumerate(free)}
    return xr.Dataset(
        {name: (v.dims, np.zeros([sizes[d] for d in v.dims], v.dtype)) for name, v in GROUPS[group].items()}
    )


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_accepts_its_own_variables_and_any_subset(group: str) -> None:
    dataset = full(group)
    check(group, dataset)
    for name in dataset:
        check(group, dataset[[name]])


def test_all_violations_are_reported_at_once() -> None:
    dataset = xr.Dataset(
        {
            "relaxd": ("atom", np.zeros(4)),
            "predictor": (("xyz", "atom"), np.zeros((3, 4))),
            "species": ("atom", np.zeros(4)),
            "bonds": (("bond", "end"), np.zeros((2, 5), int)),
        }
    )
    with pytest.raises(SchemaError) as caught:
        check("simulation", dataset)
    violations = caught.value.violations
    assert len(violations) == 4
    for words in (
        ("relaxd", "did you mean 'relaxed'"),
        ("predictor", "('xyz', 'atom')", "('atom', 'xyz')"),
        ("species", "float64", "int64"),
        ("bonds", "'end'", "5", "must be 2"),
    ):
        assert any(all(word in sentence for word in words) for sentence in violations), words
        assert all(word in str(caught.value) for word in words)


def test_coordinates_are_held_to_the_schema_too() -> None:
    dataset = xr.Dataset({"species": ("atom", [1, 2])}, coords={"atom": [0, 1]})
    with pytest.raises(SchemaError, match="atom: unknown variable"):
        check("simulation", dataset)


def test_unknown_group_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SchemaError, match="did you mean 'simulation'"):
        check("simulations", xr.Dataset())


def test_only_the_kind_of_a_dtype_counts() -> None:
    check("model", xr.Dataset({"coefficients": ("function", np.zeros(2, "f4"))}))
    with pytest.raises(SchemaError, match="complex128"):
        check("model", xr.Dataset({"coefficients": ("function", np.zeros(2, complex))}))


@pytest.mark.parametrize("group", GROUPS)
def test_annotate_sets_unit_and_meaning_on_a_copy(group: str) -> None:
    given = full(group)
    first = next(iter(given))
    given[first].attrs["origin"] = "kept"
    result = annotate(group, given)
    for name, entry in GROUPS[group].items():
        assert result[name].attrs["units"] == entry.unit
        assert result[name].attrs["long_name"] == entry.meaning
    assert result[first].attrs["origin"] == "kept"
    assert given[first].attrs == {"origin": "kept"}
    xr.testing.assert_equal(result, given)


def test_describe_has_one_row_of_six_cells_per_variable() -> None:
    lines = describe().splitlines()
    rows = [(g, n, v) for g, variables in GROUPS.items() for n, v in variables.items()]
    assert len(lines) == 2 + len(rows)
    for line, (group, name, entry) in zip(lines[2:], rows, strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert len(cells) == 6
        assert cells[:2] == [group, f"`{name}`"]
        assert cells[3] == entry.unit
        assert cells[5] == entry.meaning
