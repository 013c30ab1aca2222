"""Specs: errors with file, line and cure, physics that is refused, and records that reproduce themselves."""

import json
import tomllib
from keyword import iskeyword
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.spec import OBSERVABLES, BadSpec, Spec, dump_toml, load, locate, read, resolve, shipped

BASE = load("w-screw", "tiny")
TEXT = BASE.to_toml()
TABLES = tomllib.loads(TEXT)
KEYS = [(table, key) for table, values in TABLES.items() for key in values if not isinstance(values[key], dict)]


def problems(path: Path, text: str, preset: str | None = None, overrides: tuple[str, ...] = ()) -> list[str]:
    """The lines of the refusal of a spec with this text."""
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadSpec) as caught:
        load(path, preset, overrides)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "case.toml"


def replaced(table: str, key: str, line: str) -> tuple[str, int]:
    """The base text with another line for one key, and the number of that line."""
    lines = TEXT.splitlines()
    number = locate(TEXT)[table, key]
    assert lines[number - 1].startswith(f"{key} = ")
    lines[number - 1] = line
    return "\n".join(lines) + "\n", number


# --- single keys --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_misspelt_keys_get_file_line_and_a_suggestion(path: Path, table: str, key: str) -> None:
    value = tomllib.loads(TEXT)[table][key]
    text, number = replaced(table, key, dump_toml({key + "x": value}).strip())
    found = [p for p in problems(path, text) if f"{table}.{key}x" in p]
    assert len(found) == 1
    assert found[0].startswith(f"{path}:{number}: {table}.{key}x: unknown key (did you mean {key!r}?); known: ")


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_wrong_values_get_file_and_line(path: Path, table: str, key: str) -> None:
    wrong = "3" if isinstance(TABLES[table][key], str | list) else '"abc"'
    text, number = replaced(table, key, f"{key} = {wrong}")
    found = problems(path, text)
    assert len(found) == 1
    assert found[0].startswith(f"{path}:{number}: {table}.{key}: ")
    assert wrong.strip('"') in found[0]


@pytest.mark.parametrize("table", TABLES)
def test_misspelt_tables_get_file_line_and_a_suggestion(path: Path, table: str) -> None:
    text = TEXT.replace(f"[{table}]", f"[{table}z]").replace(f"[{table}.", f"[{table}z.")
    number = text.splitlines().index(f"[{table}z]") + 1
    expected = f"{path}:{number}: {table}z: unknown table (did you mean {table!r}?)"
    assert any(p.startswith(expected) for p in problems(path, text))


@pytest.mark.parametrize(
    ("table", "key", "wrong", "hint"),
    [
        ("material", "lattice", "bbc", "bcc"),
        ("material", "reference", "W_zhou", "W_zhou04"),
        ("dislocation", "kind", "scerw", "screw"),
        ("dislocation", "arrangement", "quadropole", "quadrupole"),
        ("dislocation", "core", "eazy", "easy"),
        ("weights", "normalisation", "means", "mean"),
        ("solver", "kind", "rrq", "rrqr"),
    ],
)
def test_misspelt_words_get_a_suggestion(path: Path, table: str, key: str, wrong: str, hint: str) -> None:
    text, number = replaced(table, key, f'{key} = "{wrong}"')
    found = problems(path, text)
    assert len(found) == 1
    assert found[0].startswith(f"{path}:{number}: {table}.{key}: {wrong!r} is not one of ")
    assert f"did you mean {hint!r}?" in found[0]


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("simulation", "size", "-3"),
        ("simulation", "size", "inf"),
        ("simulation", "force_tolerance", "0"),
        ("simulation", "max_steps", "0"),
        ("simulation", "perturbation", "-0.1"),
        ("training", "test", "0"),
        ("training", "configurations", "0"),
        ("training", "amplitudes", "[]"),
        ("training", "amplitudes", "[0.1, -0.5]"),
        ("model", "cutoff", "0"),
        ("model", "cutoff", "nan"),
        ("model", "channels", "[0]"),
        ("model", "degrees", "[0, -1]"),
        ("weights", "force", "-1"),
        ("case", "name", '"Not A Name"'),
        ("training", "configurations", "2.5"),
    ],
)
def test_numbers_out_of_range_are_refused(path: Path, table: str, key: str, value: str) -> None:
    text, number = replaced(table, key, f"{key} = {value}")
    assert any(p.startswith(f"{path}:{number}: {table}.{key}") for p in problems(path, text))


def test_missing_keys_and_tables_are_named(path: Path) -> None:
    text, _ = replaced("simulation", "size", "")
    line = locate(TEXT)[("simulation",)]
    assert problems(path, text) == [f"{path}:{line}: simulation.size: is missing"]
    without = dump_toml({k: v for k, v in TABLES.items() if k != "model"})
    assert problems(path, without) == [f"{path}: model: is missing"]


@pytest.mark.parametrize("key", ["cutoff", "channels", "degrees"])
def test_a_basis_needs_all_of_its_keys(path: Path, key: str) -> None:
    text, _ = replaced("model", key, "")
    line = locate(TEXT)[("model",)]
    assert problems(path, text) == [f"{path}:{line}: model.{key}: is missing: an ACE basis needs it"]


def test_given_potentials_are_named_and_need_no_basis(path: Path) -> None:
    given = {**TABLES, "model": {"backend": "calculator"}}
    found = problems(path, dump_toml(given))
    assert len(found) == 1
    assert "model.calculator: is missing: which potential is to be judged?" in found[0]
    found = problems(path, dump_toml({**given, "model": {"backend": "calculator", "calculator": "W_eam"}}))
    assert len(found) == 1
    assert "did you mean 'W_eam4'?" in found[0]
    path.write_text(dump_toml({**given, "model": {"backend": "calculator", "calculator": "W_eam4"}}))
    spec = load(path)
    assert not spec.model.fitted
    assert spec.judged == "W_eam4"
    assert load("w-screw").judged == "energy+force+virial1+virial2"


def test_all_errors_come_at_once(path: Path) -> None:
    text = TEXT
    for old, new in (
        ("configurations = ", "configuratoins = "),
        ('kind = "rrqr"', 'kind = "rrqz"'),
        ("cutoff = 5.0", "cutoff = -5.0"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    found = problems(path, text)
    assert len(found) == 3
    for key in ("training.configuratoins", "solver.kind", "model.cutoff"):
        assert sum(key in p for p in found) == 1


def test_all_physics_comes_at_once(path: Path) -> None:
    wrong = ("material.reference=W_zhou", "training.size=99", "model.degrees=[1]", "dislocation.core=eazy")
    found = problems(path, TEXT, None, wrong)
    for key in ("material.reference", "training.size", "model.degrees", "dislocation.core"):
        assert any(f" {key}: " in p for p in found)


def test_physics_is_checked_beside_misspelt_keys(path: Path) -> None:
    """One typo must not hide that the training cell is impossible."""
    text = TEXT.replace("configurations = ", "configuratoins = ")
    found = problems(path, text, None, ("training.size=99",))
    assert any("training.configuratoins" in p for p in found)
    assert any("training.size" in p for p in found)


# --- physics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "key", "words"),
    [
        (["dislocation.sites=[[0.0, 0.0], [0.333, 0.333]]"], "dislocation.sites", "atoms would coincide"),
        (["dislocation.sites=[[0.17, 0.17], [0.5, 0.49]]"], "dislocation.sites", "of -b lies"),
        (["training.size=1.0"], "training.size", "less than twice the cutoff"),
        (["training.size=13"], "training.size", "the theory needs L <= L_D"),
        (
            ["weights.energy=0", "weights.force=0", "weights.virial1=0", "weights.virial2=0"],
            "weights",
            "nothing to fit",
        ),
        (["observables.energy=false", "observables.force=false"], "observables", "neither energies nor forces"),
        (["material.reference=W_zhou4"], "material.reference", "did you mean 'W_zhou04'"),
        (["model.channels=[8, 3]", "model.degrees=[0]"], "model.degrees", "1 degrees for 2 orders"),
        (["model.channels=[8, 3]", "model.degrees=[2, 0]"], "model.degrees", "the first degree must be 0"),
        (["model.channels=[3, 8]", "model.degrees=[0, 0]"], "model.channels", "must not increase"),
        (["material.species=['W', 'Ta']"], "material.species", "bcc has 1 species"),
        (["material.species=['Wx']"], "material.species", "not a chemical symbol"),
        (["dislocation.kind=loop"], "dislocation.kind", "screw in bcc"),
    ],
)
def test_impossible_physics_is_refused_where_it_was_asked_for(overrides: list[str], key: str, words: str) -> None:
    with pytest.raises(BadSpec) as caught:
        load("w-screw", "tiny", overrides)
    found = [p for p in caught.value.problems if f": {key}: " in p]
    assert len(found) == 1
    assert words in found[0]
    if any(o.startswith(f"{key}=") for o in overrides):
        assert found[0].startswith("--set ")


@pytest.mark.parametrize(
    ("name", "table", "key", "line", "words"),
    [
        ("w-loop", "dislocation", "diameter", None, "is missing: a loop needs its diameter"),
        ("w-loop", "dislocation", "diameter", "7.1", "at most half the simulation cell, N/2 = 7 a0"),
        ("w-loop", "dislocation", "diameter", "1.9", "at least 2 a0"),
        ("w-loop", "dislocation", "diameter", "-6.0", "greater than 0"),
        ("w-loop", "dislocation", "sites", "[[0.1, 0.2], [0.3, 0.4]]", "a loop has no core sites"),
        ("w-loop", "dislocation", "variant", '"vacncy"', "no loop vacncy dislocation in bcc; known: "),
        ("w-loop", "material", "lattice", '"fcc"', "no loop interstitial dislocation in fcc; known: "),
        ("w-loop", "training", "size", "6.1", "the diameter of the loop, L_D = 6 a0: the theory needs L <= L_D"),
        ("w-loop", "training", "size", "2.5", "less than twice the cutoff"),
        ("w-screw", "dislocation", "diameter", "6.0", "only loops have a diameter"),
    ],
)
def test_impossible_loops_are_refused_with_file_and_line(
    path: Path, name: str, table: str, key: str, line: str | None, words: str
) -> None:
    lines = load(name, "tiny").to_toml().splitlines()
    known = locate("\n".join(lines))
    place = known.get((table, key), known[(table,)] + 1)
    lines[place - 1 : place - ((table, key) not in known)] = [] if line is None else [f"{key} = {line}"]
    found = [p for p in problems(path, "\n".join(lines)) if words in p]
    assert len(found) == 1
    blamed = "dislocation.kind" if "known: " in words else f"{table}.{key}"
    number = locate("\n".join(lines)).get(tuple(blamed.split(".")), known[(table,)])
    assert found[0].startswith(f"{path}:{number}: {blamed}: ")


@pytest.mark.parametrize("variant", ["vacancy", "interstitial"])
def test_loops_that_just_fit_are_no_problem(variant: str) -> None:
    overrides = [f"dislocation.variant={variant}", "dislocation.diameter=7.0", "training.size=7.0"]
    assert load("w-loop", "tiny", overrides).dislocation.diameter == load("w-loop", "tiny").simulation.size / 2


def test_a_table_that_is_off_counts_as_no_weight() -> None:
    spec = load("w-screw", "tiny", ["observables.virial1=false", "weights.virial1=7", "weights.stress=3"])
    assert [spec.weight(name) for name in OBSERVABLES] == [50, 10, 0, 0, 1]
    assert spec.observables.label == "energy+force+virial2"


# --- presets and overrides ----------------------------------------------------------------------------------------


def test_every_shipped_spec_loads_in_every_preset() -> None:
    assert "w-screw" in shipped()
    for name in shipped():
        presets = read(name).presets
        assert "tiny" in presets
        for preset in (None, *presets):
            spec = load(name, preset)
            assert spec.case.name == name
            assert load(name, preset) == spec


def test_presets_change_what_they_say_and_nothing_else(path: Path) -> None:
    path.write_text(TEXT + '\n[preset.wide]\nsimulation.size = 77\nsolver.kind = "ard"\n\n[preset.same]\n')
    base, wide = load(path), load(path, "wide")
    assert base == BASE == load(path, "same")
    assert (wide.simulation.size, wide.solver.kind) == (77, "ard")
    changed = wide.model_dump()
    changed["simulation"]["size"], changed["solver"]["kind"] = base.simulation.size, base.solver.kind
    assert changed == base.model_dump()


def test_errors_of_a_preset_point_into_the_preset(path: Path) -> None:
    text = TEXT + "\n[preset.wide]\nsimulation.sise = 77\ntraining.size = 99\n"
    number = text.splitlines().index("simulation.sise = 77") + 1
    path.write_text(text)
    assert load(path) == BASE
    assert problems(path, text, "wide")[0].startswith(
        f"{path}:{number}: simulation.sise: unknown key (did you mean 'size'?)"
    )
    text = text.replace("simulation.sise = 77\n", "")
    assert problems(path, text, "wide")[0].startswith(f"{path}:{number}: training.size: L = 99 a0")


def test_unknown_presets_get_a_suggestion(path: Path) -> None:
    found = problems(path, TEXT + "\n[preset.quick]\n", "qiuck")
    assert found == [f"{path}: no preset 'qiuck'; it has quick (did you mean 'quick'?)"]


def test_overrides_win_over_presets_and_keep_their_type(path: Path) -> None:
    path.write_text(TEXT + "\n[preset.wide]\nsimulation.size = 77\n")
    overrides = [
        "simulation.size=80",
        "solver.kind = ridge",
        "model.channels=[9]",
        "model.degrees=[0]",
        "case.title=a b",
    ]
    spec = load(path, "wide", [*overrides, "training.equilibrium=false", "simulation.size=81"])
    assert spec.simulation.size == 81
    assert (spec.solver.kind, spec.model.channels, spec.case.title) == ("ridge", (9,), "a b")
    assert spec.training.equilibrium is False


@pytest.mark.parametrize("override", ["simulation.size", "size=3", "=3", ".size=3", "simulation.=3"])
def test_malformed_overrides_say_how_to_write_them(override: str) -> None:
    with pytest.raises(BadSpec, match=r"write --set table\.key=value") as caught:
        load("w-screw", "tiny", [override, "solver.kind=ard"])
    assert len(caught.value.problems) == 1


def test_unknown_specs_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(BadSpec, match=r"did you mean 'w-screw'\?"):
        load("w-scerw")
    with pytest.raises(BadSpec, match="no such file"):
        load(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text('[case]\nname = "a"\ntitle = \n')
    with pytest.raises(BadSpec, match=r"broken.toml:3: not TOML"):
        load(broken)


# --- reading and writing ------------------------------------------------------------------------------------------


def test_a_resolved_spec_reproduces_itself(path: Path) -> None:
    for name in shipped():
        for preset in read(name).presets:
            spec = load(name, preset, ["solver.threshold=123.5"])
            path.write_text(spec.to_toml(), encoding="utf-8")
            assert load(path) == spec
            assert load(path).to_toml() == spec.to_toml()


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
POSITIVE = st.floats(1e-300, 1e300)
NO_FILES = st.text(st.characters(codec="utf-8", exclude_characters="."), max_size=20)
ARGUMENTS = st.dictionaries(
    st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]{0,9}\Z").filter(lambda name: not iskeyword(name)),
    st.recursive(
        st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | NO_FILES | st.booleans(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)


@settings(deadline=None, max_examples=150)
@given(
    title=TEXTS,
    arguments=ARGUMENTS,
    tolerance=POSITIVE,
    amplitudes=st.lists(st.floats(1e-300, 2.0), min_size=1, max_size=4, unique_by=lambda a: f"{a:g}"),
    seed=st.integers(0, 2**32 - 1),
    weights=st.lists(st.floats(1e-300, 1e300), min_size=5, max_size=5),
    equilibrium=st.booleans(),
)
def test_reading_what_was_written_gives_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    title: str,
    arguments: dict[str, Any],
    tolerance: float,
    amplitudes: list[float],
    seed: int,
    weights: list[float],
    equilibrium: bool,
) -> None:
    tables = json.loads(json.dumps(TABLES))
    tables["case"]["title"] = title
    tables["material"]["arguments"] = arguments
    tables["material"]["reference"] = "ase.calculators.emt:EMT"
    tables["simulation"] |= {"force_tolerance": tolerance, "seed": seed}
    tables["training"] |= {"amplitudes": amplitudes, "equilibrium": equilibrium}
    tables["weights"] |= dict(zip(OBSERVABLES, weights, strict=True))
    spec = Spec.model_validate(tables)
    path = tmp_path_factory.getbasetemp() / "round.toml"
    path.write_text(spec.to_toml(), encoding="utf-8", newline="")
    assert load(path) == spec


def test_locate_finds_tables_keys_and_skips_values() -> None:
    text = """# a comment
[case]
name = "x"   # [not.a.table]
title = "[neither.is] this = 3"

[ model ]
channels = [
    12,  # key = 3
    5,
]
degrees = [0, 3]
[preset.quick]
simulation.size = 32
"weights".energy = 1
[preset."full size"]
arguments = { a = 1, b = 2 }
"""
    found = locate(text)
    lines = text.splitlines()
    tomllib.loads(text)
    expected = {
        ("case",): "[case]",
        ("case", "name"): "name = ",
        ("case", "title"): "title = ",
        ("model",): "[ model ]",
        ("model", "channels"): "channels = ",
        ("model", "degrees"): "degrees = ",
        ("preset",): "[preset.quick]",
        ("preset", "quick"): "[preset.quick]",
        ("preset", "quick", "simulation", "size"): "simulation.size = ",
        ("preset", "full size"): "[preset.",
        ("preset", "full size", "arguments"): "arguments = ",
    }
    for key, start in expected.items():
        assert lines[found[key] - 1].startswith(start), key
    assert not any("not" in key or "neither" in key or "key" in key for key in found)


def test_locate_knows_every_key_of_every_shipped_spec() -> None:
    def keys(tables: dict[str, Any], prefix: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
        found = set()
        for key, value in tables.items():
            found.add((*prefix, key))
            if isinstance(value, dict) and key not in ("arguments", "ladders", "set", "expect"):
                found |= keys(value, (*prefix, key))
        return found

    for name in shipped():
        file = read(name)
        leaves = {key for key in keys(file.tables) if not isinstance(_at(file.tables, key), dict)}
        assert leaves <= set(file.lines)
        lines = file.text.splitlines()
        for key in leaves:
            assert key[-1] in lines[file.lines[key] - 1]


def _at(tables: dict[str, Any], key: tuple[str, ...]) -> Any:
    value: Any = tables
    for part in key:
        value = value[part]
    return value


def test_resolution_tells_where_a_value_came_from(path: Path) -> None:
    path.write_text(TEXT + "\n[preset.wide]\nsimulation.size = 77\n")
    file = read(path)
    tables, origin = resolve(file, "wide", ["training.size=6"])
    assert tables["simulation"]["size"] == 77
    assert origin["simulation", "size"] == f"{path}:{len(path.read_text().splitlines())}"
    assert origin["training", "size"] == "--set training.size=6"
    assert origin["solver", "kind"] == f"{path}:{locate(TEXT)['solver', 'kind']}"


def test_records_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        BASE.simulation.size = 3  # type: ignore[misc]
