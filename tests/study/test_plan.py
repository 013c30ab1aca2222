"""Plans: memory of everything that grows, a word when the machine has less, and no overflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from suite.spec import load
from suite.study import plan as module
from suite.study.plan import WARNING, BeyondNumbers, memory_limit, plan

MEMORY = "peak memory, estimated [GB]"


def test_memory_counts_configurations() -> None:
    few, many, huge = (
        plan(load("w-split", "tiny", [f"training.configurations={count}"])) for count in (8, 10**6, 10**12)
    )
    assert WARNING not in few
    atoms = 3 * 60  # the training cell has more
    assert many[MEMORY] - few[MEMORY] > 1e6 * atoms * 3 * 8 * 2 / 1e9
    assert huge[MEMORY] > 1e6
    assert "reduce simulation.size" in huge[WARNING]


def test_a_slow_reference_takes_its_time() -> None:
    """Minutes come from what a call takes here, not from a table: SNAP costs ten times what an embedded atom does."""
    quick, slow = (
        plan(load(name, "tiny", ["training.size=6", "simulation.size=24"])) for name in ("w-screw", "w-snap")
    )
    assert slow["world, estimated [min]"] > 3 * quick["world, estimated [min]"]


@pytest.mark.parametrize("name", ["w-split", "w-loop", "w-springs"])
def test_a_cell_that_is_too_large_for_the_machine_is_told(name: str) -> None:
    found = plan(load(name, "tiny", ["simulation.size=1e9"]))
    assert found[MEMORY] > 1e9
    assert f"{memory_limit() / 1e9:.3g} GB" in found[WARNING]
    with pytest.raises(BeyondNumbers, match="choose smaller ones"):
        plan(load(name, "tiny", ["simulation.size=1e200"]))


def test_the_limit_is_that_of_the_machine_or_of_a_control_group(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine = memory_limit()
    assert 1e8 < machine < 1e14
    for name, text in (("limited", "100000000\n"), ("unlimited", "max\n")):
        file = tmp_path / name
        file.write_text(text)
    monkeypatch.setattr(module, "_control_files", lambda: [tmp_path / "limited", tmp_path / "absent"])
    assert memory_limit() == 1e8
    monkeypatch.setattr(module, "_control_files", lambda: [tmp_path / "unlimited"])
    assert memory_limit() >= machine
