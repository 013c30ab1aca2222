"""One table of numbers: complete, without doubles, and the only place where their words stand."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import suite
from suite.judge.numbers import GROUPS, NUMBERS, NUMBERS_OF_AMPLITUDES, group_of, head, number
from suite.judge.remarks import remarks
from suite.pipeline import assess
from suite.results import Model, Rows, World
from suite.spec import Spec, load

SOURCES = sorted(Path(suite.__file__).parent.rglob("*.py"))


def test_every_entry_is_whole() -> None:
    for name, entry in NUMBERS.items():
        assert entry.name == name
        assert entry.group in GROUPS
        assert entry.symbol
        assert entry.meaning
        assert not entry.meaning.endswith(".")
        if entry.under:
            assert NUMBERS[entry.under].group == entry.group
            assert not NUMBERS[entry.under].under, "variants have no variants"


def test_a_number_of_one_amplitude_has_the_words_of_its_kind() -> None:
    found = number("rmse_F_0.1")
    assert found is not None
    assert (found.unit, found.under) == ("eV/Å", "rmse_F")
    assert head("rmse_F_0.1") == "RMSE F on test configurations of 0.1 Å [eV/Å]"
    assert head("eps_F_relaxed") == NUMBERS["eps_F_relaxed"].head, "no amplitude"
    assert number("seconds_rows") is None
    assert head("seconds_rows") == "seconds_rows"


def test_a_verdict_has_the_numbers_of_the_table(tiny: Spec, world: World, rows: Rows, model: Model) -> None:
    amplitudes = {f"{name}_{a:g}" for name in NUMBERS_OF_AMPLITUDES for a in tiny.training.amplitudes}
    spec = load("w-split", "tiny", ["matching.hessian=true", "matching.neighbourhood=0.5"])
    found = set(assess(spec, world, rows, model).numbers)
    assert found == {name for name, entry in NUMBERS.items() if entry.needs != "split"} | amplitudes


def literals(tree: ast.AST) -> list[tuple[int, str]]:
    """Line and text of every string that is no docstring."""
    bodies = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, bodies) and node.body and isinstance(node.body[0], ast.Expr)
    }
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_label_stands_elsewhere(path: Path) -> None:
    if path.name == "numbers.py":
        return
    heads = {entry.head for entry in NUMBERS.values() if entry.unit}
    symbols = {entry.symbol for entry in NUMBERS.values() if not entry.symbol.isascii()}
    labels = heads | symbols | {entry.meaning for entry in NUMBERS.values()}
    found = [f"line {line}: {text!r}" for line, text in literals(ast.parse(path.read_text())) if text.strip() in labels]
    assert not found, "take the words of numbers from suite.judge.numbers"


def test_the_search_for_labels_finds_one() -> None:
    source = '"""ε_F stands in a docstring."""\nHEADS = {"eps_F": "ε_F [eV/Å]"}\n'
    assert (2, "ε_F [eV/Å]") in literals(ast.parse(source))
    assert all("docstring" not in text for _, text in literals(ast.parse(source)))


def test_rounding_of_large_coefficients_is_told(tiny: Spec, world: World, rows: Rows, model: Model) -> None:
    numbers = assess(tiny, world, rows, model).numbers
    assert 0 < numbers["energy_rounding"] < 1e-6
    assert not [each for each in remarks(numbers) if "rounding may" in each]
    told = remarks({"energy_rounding": 0.3, "energy_error": 0.25})
    assert "rounding may change the energy by 0.3 eV" in told[0]
    assert not remarks({"energy_rounding": 0.3, "energy_error": 2.5})
    assert not remarks({"energy_rounding": 5e-5, "energy_error": 0.0})


@pytest.mark.parametrize(
    ("name", "group"),
    [
        *((entry.name, entry.group) for entry in NUMBERS.values()),
        ("rmse_F_0.1", "matching"),
        ("seconds_fit", "cost"),
        ("training_seconds", "cost"),
        ("reference_force_calls", "cost"),
        ("reference_C11", "reference"),
        ("train_rmse_energy", "fit"),
        ("best_geometry_error", "best"),
        ("correlation_geometry", "correlation"),
        ("slope_geometry_error_CLE", "rates"),
        ("growth_geometry_error_CLE", "rates"),
        ("points", "counts"),
    ],
)
def test_every_number_has_its_group_in_mlflow(name: str, group: str) -> None:
    assert group_of(name) == group
