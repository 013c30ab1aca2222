"""Specs: errors with file, line and cure, physics that is refused, and records that reproduce themselves."""

import json
import re
import sys
import tomllib
from keyword import iskeyword
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import suite.spec
from suite.observables import OBSERVABLES
from suite.spec import BadSpec, Spec, dump_toml, load, load_sweeps, locate, read, resolve, shipped

BASE = load("w-split", "tiny")
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
    assert problems(path, without) == [f"{path}: model: this table is missing; docs/spec.md lists its keys"]


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
    assert load("w-split").judged == "energy+force+virial1+virial2"


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
        load("w-split", "tiny", overrides)
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
        ("w-split", "dislocation", "diameter", "6.0", "only loops have a diameter"),
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
    spec = load("w-split", "tiny", ["observables.virial1=false", "weights.virial1=7", "weights.stress=3"])
    assert [spec.weight(name) for name in OBSERVABLES] == [50, 10, 0, 0, 1]
    assert spec.observables.label == "energy+force+virial2"


# --- presets and overrides ----------------------------------------------------------------------------------------


def test_every_shipped_spec_loads_in_every_preset() -> None:
    assert "w-split" in shipped()
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
        load("w-split", "tiny", [override, "solver.kind=ard"])
    assert len(caught.value.problems) == 1


def test_unknown_specs_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(BadSpec, match=r"did you mean 'w-screw'\?"):
        load("w-scerw")
    with pytest.raises(BadSpec, match="no such file; `dislobench list` names"):
        load(tmp_path / "absent.toml")
    with pytest.raises(BadSpec, match="is a folder; name a TOML file in it"):
        load(tmp_path)
    (tmp_path / "case.spec").touch()
    with pytest.raises(BadSpec, match=r"the name of a spec ends with \.toml"):
        load(tmp_path / "case.spec")
    with pytest.raises(BadSpec, match=r'did you mean "trainer", with model\.trainer = "mace"'):
        load("w-split", "tiny", ["model.backend=mace"])
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
            inline = key in ("arguments", "ladders", "set", "expect") or prefix[-1:] == ("variants",)
            if isinstance(value, dict) and not inline:
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


# --- input that no person would write, and input that a careless one does ------------------------------------------

DIGITS, DEEP = "9" * 10_000, "[" * 2_000 + "]" * 2_000


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("preset = [1, 2]\n", 1, "preset: [1, 2] is no table: write [preset.NAME]"),
        ("preset.quick = 5\n", 1, "preset.quick: 5 is no table"),
        ("sweep = 3\n", 1, "sweep: 3 is no table: write [sweep.NAME]"),
        ("sweep.L = 3\n", 1, "sweep.L: 3 is no table"),
        ("\n[preset.quick]\nsweep = 3\n", 3, "preset.quick.sweep: 3 is no table"),
        ("\n[preset.quick.sweep]\nL = 3\n", 3, "preset.quick.sweep.L: 3 is no table"),
        ('\n[preset."a/b"]\n', 2, "cannot be the name of a preset"),
        ('\n[preset.""]\n', 2, "cannot be the name of a preset"),
        ('\n\n[sweep."../L"]\nladders = {}\n', 3, "cannot be the name of a sweep"),
        (f"[case]\nx = {DEEP}\n", 2, "nested more than 32 levels deep"),
        (f"[case]\nx = {'{a = ' * 40}1{'}' * 40}\n", 2, "nested more than 32 levels deep"),
        (f"[case]\n[{'.'.join('a' * 40)}]\n", 2, "nested more than 32 levels deep"),
        (f"[case]\n\nx = {DIGITS}\n", 3, "an integer has too many digits"),
        (f"[case]\n\nx = 0x{DIGITS}\n", 3, "an integer has too many digits"),
        ("[case]\nx = 9223372036854775808\n", 2, "an integer has too many digits"),
        ("[case]\nname = 2024-13-45\n", 2, "not TOML"),
    ],
)
def test_odd_files_are_refused_with_file_and_line(path: Path, text: str, line: int, words: str) -> None:
    (found,) = problems(path, text)
    assert found.startswith(f"{path}:{line}: ")
    assert words in found
    assert len(found) < len(str(path)) + 300


def test_what_no_file_can_be_is_refused(tmp_path: Path) -> None:
    for name in ("a" * 5_000 + ".toml", "a" * 5_000, "a\0b.toml", "", str(tmp_path), "/"):
        with pytest.raises(BadSpec) as caught:
            load(name)
        assert len(str(caught.value)) < 300
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    with pytest.raises(BadSpec, match="cannot be read"):
        load(folder)
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'[case]\nname = "\xe9"\n')
    with pytest.raises(BadSpec, match="UTF-8"):
        load(latin)


@pytest.mark.parametrize("text", [DIGITS, DEEP, "6\ntest = 3", "{a = " * 500])
def test_odd_overrides_are_refused(text: str) -> None:
    with pytest.raises(BadSpec, match=r"--set training\.size"):
        load("w-split", "tiny", [f"training.size={text}"])


def test_an_empty_preset_is_none_of_the_file() -> None:
    with pytest.raises(BadSpec, match="no preset ''; it has quick"):
        load("w-split", "")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.size=true", "True: input should be a valid number"),
        ('training.size="6"', "'6': write a number, without quotes"),
        ("training.configurations=true", "valid integer"),
        ('training.configurations="8"', "write a whole number"),
        ("training.equilibrium=1", "write true or false"),
        ('training.equilibrium="yes"', "write true or false"),
        ("training.amplitudes=[true]", "valid number"),
        ("dislocation.sites=[[true, 0.2], [0.3, 0.4]]", "valid number"),
        ("dislocation.sites=[[1e9, 0.2], [0.3, 0.4]]", "less than or equal to 100"),
        ("model.channels=[216, 8]", "216 radial functions, and 215 are the most"),
        ("tune.channels=[[216, 8]]", "more than 215 radial functions"),
        ("observables.shift.C11=nan", "finite"),
        ("training.seed=-1", "greater than or equal to 0"),
        ("simulation.seed=-1", "greater than or equal to 0"),
        ("tune.seed=-1", "greater than or equal to 0"),
        ("training.seed=4294967296", "less than 4294967296"),
        (f"case.name={'a' * 101}", "at most 100 characters"),
        ("solver.tolerance=1", "less than or equal to 0.01"),
        ("solver.alpha=1e5", "less than or equal to 0.01"),
        ("tune.alpha=[1e-12, 1e9]", "less than or equal to 0.01"),
        ("training.amplitudes=[0.1000001, 0.1000002]", "two of them are called 0.1 Å in six digits"),
        ("training.amplitudes=[0.1, 0.1]", "remove one"),
        ("training.amplitudes=[0.1, 1e9]", "atoms would meet"),
        ("simulation.perturbation=1e9", "atoms would meet"),
        ("model.channels=[215, 215]", "functions or more"),
        ("material.arguments.x=1", "W_zhou04_smooth of the catalogue takes no arguments"),
        ("material.reference=kim:SomeModel", "needs the KIM API"),
        ("material.reference=no_such_module:Thing", "no module 'no_such_module' where Python looks"),
        ("material.reference=ase.no_such_part:Thing", "no module 'ase.no_such_part'"),
        ("material.species=W", 'write a list in brackets, such as ["W"]'),
        ("training.size=8A", "write a number, without quotes and without a unit"),
    ],
)
def test_values_that_a_run_would_refuse_are_refused_by_the_spec(
    override: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kimpy", None)  # not installed
    overrides = [override, *(["solver.kind=ridge"] if "alpha" in override else [])]
    with pytest.raises(BadSpec) as caught:
        load("w-split", "tiny", overrides)
    (found,) = caught.value.problems
    assert words in found
    assert found.startswith("--set ")


@pytest.mark.parametrize("value", ["core=nonsense", "core=hard", "arrangement=dipole"])
def test_loops_have_neither_core_nor_arrangement(value: str) -> None:
    with pytest.raises(BadSpec, match=f"a loop has no {value.partition('=')[0]}: remove the key"):
        load("w-loop", "tiny", [f"dislocation.{value}"])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('"a*" = 1', "'a\\*' cannot name an argument"),
        ("class = 1", "'class' cannot name an argument"),
        ("when = 2024-05-06", "a date is no argument: write it as text"),
        ("inner = { when = [07:32:00] }", "a time is no argument"),
        ("x = nan", "not a number"),
        (f'x = "{"a" * 6000}"', "put it in a file"),
        ('file = "absent.eam.alloy"', "no file 'absent.eam.alloy' in the current folder or in"),
        ('commands = ["pair_style eam/fs", "pair_coeff * * absent.eam.fs W"]', "no file 'absent.eam.fs'"),
        ('commands = ["pair_coeff * * Fe_mm.eam.fs Fe"]', "no file 'Fe_mm.eam.fs' .* LAMMPS brings one: cp /"),
        ('inner = { files = ["sub/absent.yaml"] }', "no file 'sub/absent.yaml'"),
    ],
)
def test_arguments_that_nothing_can_be_called_with_are_refused(path: Path, line: str, words: str) -> None:
    reference = TEXT.replace('reference = "W_zhou04_smooth"', 'reference = "ase.calculators.emt:EMT"')
    text = reference.replace("[material.arguments]", f"[material.arguments]\n{line}")
    assert text != reference
    found = problems(path, text)
    number = text.splitlines().index("[material.arguments]") + 2
    assert any(re.match(rf"{re.escape(str(path))}:{number}: material\.arguments\..*{words}", p) for p in found), found
    given = dump_toml({**TABLES, "model": {"backend": "calculator", "calculator": "ase.calculators.emt:EMT"}})
    text = given.replace("[observables]", f"[model.arguments]\n{line}\n\n[observables]")
    assert any(re.search(rf"model\.arguments\..*{words}", p) for p in problems(path, text))


def test_files_and_modules_are_found_in_the_current_folder_and_beside_the_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, here = tmp_path / "beside it", tmp_path / "here"
    for folder in (beside, here):
        folder.mkdir()
    (beside / "w.yaml").touch()
    (beside / "w.fs").touch()
    (beside / "potential_beside_a_spec.py").write_text("raise SystemExit('executed')\n")
    arguments = {"file": "w.yaml", "commands": ["pair_coeff * * w.fs W", "pair_style eam/fs"], "other": ["a", 1.5]}
    material = {**TABLES["material"], "reference": "potential_beside_a_spec:build", "arguments": arguments}
    path = beside / "case.toml"
    path.write_text(dump_toml({**TABLES, "material": material}))
    monkeypatch.chdir(here)
    found = load(path).material
    assert found.arguments["file"] == str(beside / "w.yaml")
    assert found.arguments["commands"] == [f'pair_coeff * * "{beside / "w.fs"}" W', "pair_style eam/fs"]
    assert found.arguments["other"] == ["a", 1.5]
    resolved = here / "spec.toml"
    resolved.write_text(load(path).to_toml())
    with pytest.raises(BadSpec, match=r"no module 'potential_beside_a_spec'.*put potential_beside_a_spec.py there"):
        load(resolved)
    (here.parent / "potential_beside_a_spec.py").touch()
    monkeypatch.chdir(here.parent)
    with pytest.raises(BadSpec, match="move it there from"):
        load(resolved)
    monkeypatch.chdir(here)
    typo = dump_toml({**TABLES, "material": {**material, "reference": "potential_besides_a_spec:build"}})
    path.with_name("typo.toml").write_text(typo)
    with pytest.raises(BadSpec, match=r"did you mean 'potential_beside_a_spec'\?"):
        load(path.with_name("typo.toml"))
    (here / "w.yaml").touch()
    assert load(path).material.arguments["file"] == "w.yaml", "the current folder goes first"


# --- sweeps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            'ladders = { "training.size" = [6, -5] }',
            "at training.size = -5: training.size: -5: input should",
        ),
        ('ladders = { "training.size" = [6, "a"] }', "at training.size = 'a': training.size: 'a': write a number"),
        ('ladders = { "training.size" = [6, 13] }', "at training.size = 13: training.size: L = 13 a0 exceeds"),
        ('ladders = { "training.size" = [6, 1979-05-27] }', "input should be a valid number"),
        ("ladders = {}", "sweep.x.ladders: dictionary should have at least 1 item"),
        ('ladders = { "case.name" = ["a", "b"] }', "changes no number of a run"),
        ('ladders = { "tune.seed" = [1, 2] }', "changes no number of a run"),
        ('ladders = { "training.size" = [6, 6.5] }\nset = { "case.title" = "a" }', "changes no number of a run"),
        ('ladders = { "training.seed" = [0] }\nseeds = [5, 6, 7]', "write seeds = [0, 1, 2]"),
        ('ladders = { "training.size" = [6] }\nset = { "training.seed" = 1 }', "write seeds = [0, 1, 2]"),
        ('ladders = { "training.size" = [6, 6.5] }\nset = { "training.size" = 6 }', "sets it too: remove one of them"),
        ('ladders = { "weights.energy" = [1, 2] }\nset = { "weights" = { energy = 3 } }', "no key 'weights' in a spec"),
        (
            'ladders = { "observables.virial1" = [true, false] }',
            "ablation switches 'observables.virial1' at every point: write ablation = false",
        ),
        ('ladders = { "training.size" = [6, 6.5, 6.0] }', "training.size has 6.0 twice"),
        ('ladders = { "training.size" = [6] }\nseeds = [1, 1, 1, 2, 4]', "seeds: 1 comes twice"),
        ('ladders = { "training.size" = [6] }\nseeds = [-1]', "sweep.x.seeds.0: input should be greater than or equal"),
        ('ladders = { "training.size" = [6] }\nseeds = [true]', "valid integer"),
        (
            'ladders = { "training.size" = [6, 6.5, 6], "weights.energy" = [1, 2, 1] }\nzip = true\nagainst = "rmse_F"',
            "the values [6, 1] come twice",
        ),
        ('ladders = { "training.size" = [6] }\nagainst = "nonsense"', "no run has a number 'nonsense'"),
        ('ladders = { "training.size" = [6] }\nagainst = "rmse_G"', "did you mean 'rmse_F'?"),
        ('ladders = { "training.size" = [6] }\nagainst = "rmse_F_0.3"', "no run has a number 'rmse_F_0.3'"),
        ('ladders = { "training.size" = [6] }\nagainst = "eps_H"', "it needs matching.hessian = true"),
        ('ladders = { "weights.energy" = [1, 2, 3] }', "'L' is training.size, which no ladder changes"),
        ('ladders = { "training.size" = [6] }\nexpect = { geometry_error = nan }', "finite"),
        (
            f'ladders = {{ "training.size" = {list(range(101))}, "weights.energy" = {list(range(101))} }}',
            "30603 runs are more than 10000",
        ),
        (
            'ladders = { "weights.amplitudes" = [{}, { "0.5" = 1 }] }\nset = { "training.amplitudes" = [0.1] }',
            "is not an amplitude of the training set",
        ),
    ],
)
def test_sweeps_that_no_run_could_answer_are_refused(path: Path, table: str, words: str) -> None:
    path.write_text(f"{TEXT}\n[sweep.x]\n{table}\n")
    line = TEXT.count("\n") + 2
    with pytest.raises(BadSpec) as caught:
        load_sweeps(path)
    assert any(words in problem for problem in caught.value.problems), caught.value.problems
    for problem in caught.value.problems:
        place = re.match(rf"{re.escape(str(path))}:(\d+): sweep\.x", problem)
        assert place is not None
        assert line <= int(place[1]) <= line + 1 + table.count("\n")


def test_a_run_is_one_point_however_it_is_written(path: Path) -> None:
    """Two names of one file end in the same resolved spec."""
    (path.parent / "w.yaml").touch()
    text = TEXT.replace('reference = "W_zhou04_smooth"', 'reference = "ase.calculators.emt:EMT"')
    table = f'ladders = {{ "material.arguments.file" = ["w.yaml", "{path.parent / "w.yaml"}"] }}\nagainst = "rmse_F"\n'
    path.write_text(f"{text}\n[sweep.x]\n{table}")
    with pytest.raises(BadSpec, match="one run would be several points"):
        load_sweeps(path)
    one = table.replace('"w.yaml",', "")
    path.write_text(f"{text}\n[sweep.x]\n{one}")
    assert load_sweeps(path)


def test_many_seeds_of_a_sweep_are_checked_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every seed is a run, but a point is right or wrong whatever its seed."""
    checked = []
    validate = suite.spec._validated
    monkeypatch.setattr(suite.spec, "_validated", lambda *words: checked.append(1) or validate(*words))
    path.write_text(f'{TEXT}\n[sweep.x]\nladders = {{ "training.size" = [6, 6.5] }}\nseeds = {list(range(300))}\n')
    assert len(load_sweeps(path)["x"].seeds) == 300
    assert len(checked) == 2 * 3  # two sizes, three settings


def test_sweeps_of_a_preset_are_refused_where_the_preset_has_them(path: Path) -> None:
    sweep = '\n[sweep.x]\nladders = { "training.size" = [6, 6.5] }\n'
    preset = '\n[preset.small]\nsweep.x.ladders = { "training.size" = [6, -5] }\n'
    path.write_text(TEXT + sweep + preset)
    assert load_sweeps(path)["x"].ladders == {"training.size": (6, 6.5)}
    with pytest.raises(BadSpec) as caught:
        load_sweeps(path, "small")
    line = path.read_text().splitlines().index('sweep.x.ladders = { "training.size" = [6, -5] }') + 1
    assert caught.value.problems[0].startswith(f"{path}:{line}: sweep.x.ladders: at training.size = -5: ")
    assert load_sweeps(path, "small", only=["other"])


@pytest.mark.parametrize("name", list(shipped()))
def test_every_point_of_every_shipped_sweep_is_a_run(name: str) -> None:
    for preset in (None, *read(name).presets):
        assert load_sweeps(name, preset)


@pytest.mark.parametrize("override", ['model.calculator="W_eam4"', "model.arguments={ a = 1979-05-27 }"])
def test_what_belongs_to_given_potentials_is_refused_for_a_fit(override: str) -> None:
    """Somebody who forgets the backend would get a fit, and never know."""
    with pytest.raises(BadSpec, match=r"model\.\w+: an ACE model has none: it belongs to model.backend = 'cal"):
        load("w-split", "tiny", [override])


# --- backends -----------------------------------------------------------------------------------------------------

SNAP = "model.backend=snap", "model.arguments.cutoff=4.7"


def test_another_backend_leaves_the_keys_of_the_spec_behind() -> None:
    """No preset can delete a key: a cutoff and channels of an ACE basis say nothing of a SNAP model."""
    for order in (SNAP, SNAP[::-1]):
        model = load("w-split", "tiny", order).model
        assert (model.backend, model.cutoff, model.channels) == ("snap", None, ())
        assert model.arguments["cutoff"] == 4.7
        assert model.arguments["twojmax"] == 8  # defaults are written down: a later version may have others
    again = load("w-split", "tiny", ["model.backend=pyace", "weights.energy=3"])
    assert again.model == BASE.model


def test_a_preset_brings_another_backend_and_an_override_takes_it_back(path: Path) -> None:
    tables = {
        **TABLES,
        "tune": {"channels": [[8, 4]]},
        "preset": {"snap": {"model": {"backend": "snap", "arguments": {"cutoff": 4.7, "twojmax": 4}}}},
    }
    path.write_text(dump_toml(tables))
    assert load(path).tune.channels == ((8, 4),)
    snap = load(path, "snap", ["model.arguments.twojmax=6"])
    assert (snap.model.arguments["twojmax"], snap.model.channels, snap.tune.channels) == (6, (), ())
    assert load(path, "snap", ["model.backend=pyace"]) == load(path)
    assert load(path, "snap", ["model.backend=pod", "model.arguments.cutoff=5"]).model.arguments["cutoff"] == 5
    path.write_text(snap.to_toml())
    assert load(path) == snap


def test_a_key_of_another_backend_is_refused(path: Path) -> None:
    with pytest.raises(BadSpec, match=r"model.channels: the backend 'snap' has none; its settings are model.arguments"):
        load("w-split", "tiny", [*SNAP, "model.channels=[8]"])
    with pytest.raises(BadSpec, match=r"tune.channels: only an ACE model has channels"):
        load("w-split", "tiny", [*SNAP, "tune.channels=[[8]]"])
    given = ["model.backend=calculator", "model.calculator=W_zhou04", "model.cutoff=5"]
    with pytest.raises(BadSpec, match=r"model.cutoff: .* its settings are model.calculator and model.arguments"):
        load("w-split", "tiny", given)


def test_a_wrong_setting_has_file_line_and_key(path: Path) -> None:
    model = {"backend": "snap", "arguments": {"cutof": 4.7, "twojmax": 2.5}}
    text = dump_toml({**TABLES, "model": model})
    found = problems(path, text)
    number = locate(text)["model", "arguments", "cutof"]
    wrong = f"{path}:{number}: model.arguments.cutof: unknown key (did you mean 'cutoff'?); known: cutoff, twojmax, "
    assert any(line.startswith(wrong) for line in found)
    assert any("model.arguments.twojmax: 2.5: " in line for line in found)
    assert any("model.arguments.cutoff: is missing" in line for line in found)
    assert len(found) == 3


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("cutoff=1.5", "model.arguments.cutoff: 1.5 Å is shorter than a bond"),
        ("cutoff=30", "training.size: the training cell is"),
        ("element_weights=[1, 0.5]", "model.arguments.element_weights: 2 values for 1 species: W"),
        ("name=1979-05-27", "a date is no argument"),
    ],
)
def test_settings_that_physics_forbids_are_refused(setting: str, message: str) -> None:
    with pytest.raises(BadSpec) as caught:
        load("w-split", "tiny", [*SNAP, f"model.arguments.{setting}"])
    assert message in str(caught.value)


def test_a_family_of_too_many_functions_is_refused() -> None:
    with pytest.raises(BadSpec, match=r"model.arguments: they make \d+ functions, and 20000 are the most"):
        load("w-split", "tiny", [*SNAP, "model.arguments.twojmax=20", "model.arguments.quadratic=true"])


def test_a_ladder_may_change_the_backend(path: Path) -> None:
    sweep = {
        "ladders": {"training.size": [5, 6]},
        "ablation": False,
        "variants": {"ACE": {}, "SNAP": {"model.backend": "snap", "model.arguments.cutoff": 4.7}},
    }
    path.write_text(dump_toml({**TABLES, "sweep": {"families": sweep}}))
    assert load_sweeps(path)
