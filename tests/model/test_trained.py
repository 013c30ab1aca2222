"""Potentials that another trainer fits: functions and command lines, what is kept, what is refused."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from materials import calculator_of

from store import provenance
from store.fields import read as read_fields
from suite.cli import main
from suite.model.contract import BrokenContract, check_calculator
from suite.model.trained import FailedTraining, TrainedSpec, Untrained, refused, train, words_of
from suite.model.trained import load as load_model
from suite.spec import BadSpec, load
from suite.stages.rows import recipe_of
from suite.study.points import point_key
from suite.study.training import training_key
from suite.trainers.needed import FailedProgram, run_program
from suite.world import contents
from suite.world.reference import UnusableReference

# Fits one number: by what factor the energies of the data are those of W_zhou04_smooth. Called again it would count.
TRAINER = """
import json, os, signal, sys
import numpy as np
from ase.calculators.mixing import LinearCombinationCalculator
from ase.io import read
from suite.world.reference import build_reference


def train(data, model, factor=1.0, fail=""):
    if fail == "told":
        print("no convergence after 3 epochs", file=sys.stderr)
        raise SystemExit(7)
    if fail == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fail == "left":
        os._exit(0)
    reference = build_reference("W_zhou04_smooth")
    ratios = []
    for atoms in read(data / "training.extxyz", ":"):
        label = atoms.info["REF_energy"]
        ratios.append(label / reference.get_potential_energy(atoms))
    (model / "factor.json").write_text(json.dumps(factor * float(np.mean(ratios))))
    print("trained on", len(ratios), "configurations")
    raise SystemExit  # as programs end


def wrong(model):
    return LinearCombinationCalculator([build_reference("W_zhou04_smooth")], [1.0]).get_forces


def load(model):
    factor = json.loads((model / "factor.json").read_text())
    return LinearCombinationCalculator([build_reference("W_zhou04_smooth")], [factor])


if __name__ == "__main__":
    from pathlib import Path
    train(Path(sys.argv[1]), Path(sys.argv[2]))
"""
SMALL = ["--set", "training.configurations=2", "--set", "training.test=1", "--workers", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a trainer and a spec that names it. Its workspace is shared, because all runs have one world."""
    place = tmp_path_factory.mktemp("trainer")
    text = Path(__file__).parents[2].joinpath("specs", "w-split.toml").read_text(encoding="utf-8")
    text = re.sub(
        r"\[model\].*?\n\n", '[model]\nbackend = "trainer"\ntrainer = "own_trainer:train"\n\n', text, flags=re.S
    )
    text = re.sub(r"^model\..*\n", "", text[: text.index("[sweep.")] + text[text.index("[preset.") :], flags=re.M)
    (place / "mine.toml").write_text(re.sub(r"^(sweep|tune)\..*\n", "", text, flags=re.M), encoding="utf-8")
    (place / "own_trainer.py").write_text(TRAINER, encoding="utf-8")
    yield place
    sys.modules.pop("own_trainer", None)


@pytest.fixture
def bench(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, to work in."""
    monkeypatch.chdir(folder)
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, object]]:
    code = main(["run", "mine.toml", "--preset", "tiny", "--json", *SMALL, *words])
    told = capsys.readouterr()
    return code, json.loads(told.out.strip().rpartition("\n")[2])


def test_a_function_trains_once_and_is_judged(bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(capsys)
    assert code == 0, told
    # the trainer has learnt the reference itself
    assert told["numbers"]["geometry_error"] < 1e-3
    assert abs(told["numbers"]["energy_difference"]) < 1e-6
    assert told["numbers"]["eps_V1"] < 1e-6
    log = next((bench / "runs" / "cache").glob("trained-*")) / "train.log"
    assert log.read_text().startswith("trained on 3 configurations")  # two, and the relaxed one
    artifacts = [path.name for path in (bench / "runs" / "artifacts").rglob("potential/*")]
    assert {"factor.json", "trained.json"} <= set(artifacts)
    tree = read_fields(Path(str(told["fields"])))
    assert tree.attrs["case"] == "w-split"
    assert main(["runs", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)["runs"][-1]
    assert record["metrics"]["training_seconds"] > 0
    assert record["metrics"]["training_megabytes"] > 10
    assert record["parameters"]["model"] == "own_trainer:train"

    log.write_text("this would break the seal")  # so that it is trained again
    _, again = run(capsys)
    assert log.read_text().startswith("trained on 3")
    made = log.stat().st_mtime_ns
    code, other = run(capsys, "--set", "model.arguments.factor=1.01")
    assert log.stat().st_mtime_ns == made
    assert len([*log.parent.parent.glob("trained-*")]) == 2
    # every energy is one per cent off, and so are the constants
    assert other["numbers"]["eps_V1"] > 100 * told["numbers"]["eps_V1"]
    assert again["numbers"] == told["numbers"]


def test_a_command_line_trains(bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = f"{sys.executable} {bench / 'own_trainer.py'} {{data}} {{model}}"
    trainer = ["--set", f"model.trainer='{command}'"]
    code, told = run(capsys, *trainer)
    assert code == 2
    assert "model.calculator" in str(told["error"])
    code, told = run(capsys, *trainer, "--set", "model.calculator=own_trainer:load")
    assert code == 0, told
    assert told["numbers"]["geometry_error"] < 1e-3
    code, told = run(capsys, *trainer, "--set", "model.calculator=own_trainer:load", "--safe")
    assert code == 2
    assert "--safe forbids" in str(told["error"])


def test_a_failed_training_tells_the_end_of_its_log(bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = len([*(bench / "runs" / "cache").glob("trained-*")])
    code, told = run(capsys, "--set", "model.arguments.fail=told")
    assert code == 3
    assert "ended with code 7" in str(told["error"])
    assert "no convergence after 3 epochs" in str(told["error"])
    assert len([*(bench / "runs" / "cache").glob("trained-*")]) == before


def test_a_training_without_a_model_is_told(bench: Path, tmp_path: Path) -> None:
    for fail, words in (("killed", r"was killed by SIGKILL \(was the memory too small"), ("left", "ended too early")):
        recipe = TrainedSpec("own_trainer:train", "", {"fail": fail})
        with pytest.raises(FailedTraining, match=words):
            train(recipe, tmp_path, tmp_path / fail, 1, [bench])
    load("mine.toml", "tiny")  # says where the module of the trainer lies
    with pytest.raises(UnusableReference, match="returns a method, and not an ASE calculator"):
        load_model("own_trainer:wrong", tmp_path)


def test_what_is_no_trainer_is_refused() -> None:
    assert refused("gap", "") is None
    assert refused("module:train", "other:load") is None
    for trainer, calculator, key, words in (
        ("", "", "trainer", "is missing"),
        ("gapp", "", "trainer", "(did you mean 'gap'?)"),
        ("gapp", "module:load", "trainer", "is not one of gap, mace"),
        ("no-such-command {data} {model}", "module:load", "trainer", "no command 'no-such-command'"),
        ("'open {data} {model}", "module:load", "trainer", "no command line"),
        ("env {data} {model}", "", "calculator", "what loads the model"),
        ("env {data} {model}", "load", "calculator", "no 'module:function'"),
    ):
        found = refused(trainer, calculator)
        assert found is not None
        assert found[0] == f"model.{key}"
        assert words in found[1]
    with pytest.raises(BadSpec, match=r"model\.trainer: is missing"):
        load("w-split", "tiny", ["model.backend=trainer"])
    spec = load("w-split", "tiny", ["model.backend=trainer", "model.trainer=gap"])
    assert spec.code == []
    with pytest.raises(Untrained, match="has not run yet"):
        recipe_of(spec).build()


def test_words_of_a_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs in the folder of the model: files beside the spec, or in the current folder, are found from there."""
    for name in ("here/fit.py", "beside/fit.py", "beside/settings.toml", "beside/train"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "here")
    command = f"{sys.executable} fit.py train settings.toml --data={{data}}/training.extxyz {{model}} lost.py"
    found = words_of(command, tmp_path / "data", tmp_path / "model", [tmp_path / "beside"])
    assert found == [
        sys.executable,
        str(tmp_path / "here" / "fit.py"),
        "train",
        str(tmp_path / "beside" / "settings.toml"),
        f"--data={tmp_path}/data/training.extxyz",
        str(tmp_path / "model"),
        "lost.py",
    ]


def test_a_program_of_a_trainer_that_fails_is_told(tmp_path: Path) -> None:
    run_program([sys.executable, "-c", "open('here', 'w')"], tmp_path)
    assert (tmp_path / "here").exists()
    with pytest.raises(FailedProgram, match="ended with code 5") as caught:
        run_program([sys.executable, "-c", "raise SystemExit(5)"], tmp_path)
    assert caught.value.exit_code == 5


def test_keys_know_what_a_trainer_is_made_of(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished run is no answer any more when the package, the program or what loads the model has changed."""
    gap = load("w-split", "tiny", ["model.backend=trainer", "model.trainer=gap"])
    before = point_key(gap), training_key(gap, "rows")
    monkeypatch.setattr(provenance, "versions", lambda packages: dict.fromkeys(packages, "1.2.3"))
    assert point_key(gap) != before[0]
    assert training_key(gap, "rows") != before[1]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    program, loader = tmp_path / "fit", tmp_path / "loads_for_keys.py"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    loader.write_text("one")
    (tmp_path / "mine.toml").write_text((folder / "mine.toml").read_text(encoding="utf-8"), encoding="utf-8")
    words = [f"model.trainer='{program} {{data}} {{model}}'", "model.calculator=loads_for_keys:load"]
    keys = {point_key(load("mine.toml", "tiny", words))}
    program.write_text("#!/bin/sh\nexit 0\n")
    keys.add(point_key(load("mine.toml", "tiny", words)))
    loader.write_text("two, another size")
    contents._digest.cache_clear()
    keys.add(point_key(load("mine.toml", "tiny", words)))
    assert len(keys) == 3


class Wrong(Calculator):
    """W_zhou04_smooth with one promise broken."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, wrong: str) -> None:
        super().__init__()
        self.wrong, self.right = wrong, calculator_of("W_zhou04_smooth")

    def calculate(
        self, atoms: Atoms | None = None, properties: object = None, system_changes: list[str] = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        energy, forces = self.right.get_potential_energy(self.atoms), self.right.get_forces(self.atoms)
        if self.wrong == "sign":
            forces = -forces
        elif self.wrong == "place":
            energy += 1e-3 * self.atoms.positions[0, 0]
        elif self.wrong == "size":
            energy /= len(self.atoms)
            forces = forces / len(self.atoms)
        elif self.wrong == "nan":
            energy = np.nan
        elif self.wrong == "single":
            energy, forces = float(np.float32(energy)), forces.astype(np.float32)
        self.results = {"energy": energy, "forces": forces}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("sign", "work of the forces"), ("place", "work of|translation"), ("size", "two cells"), ("nan", "not finite")],
)
def test_a_broken_potential_is_told(wrong: str, message: str) -> None:
    atoms = Atoms("W2", positions=[[0, 0, 0], [1.5, 1.7, 1.55]], cell=[3.165] * 3, pbc=True)
    check_calculator(Wrong("nothing"), atoms)
    check_calculator(Wrong("single"), atoms)
    with pytest.raises(BrokenContract, match=message):
        check_calculator(Wrong(wrong), atoms)
