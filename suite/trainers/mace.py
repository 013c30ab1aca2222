"""Message-passing potentials by MACE (package mace-torch, MIT licence), on the processor.

I. Batatia, D. P. Kovács, G. N. C. Simm, C. Ortner, G. Csányi, NeurIPS 35, 11423 (2022).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.data import atomic_numbers
from ase.io import iread, write

from suite.trainers.needed import needed, run_program

PACKAGES = ("mace-torch", "torch")
NAME = "mace"


def ready() -> str:
    """Path of the command that trains; raises `MissingPackage` where it is not installed."""
    return needed("mace_run_train", "mace", "mace-torch", "mace")


def train(
    data: Path,
    model: Path,
    cutoff: float = 5.0,
    channels: int = 16,
    max_L: int = 0,
    layers: int = 1,
    correlation: int = 3,
    l_max: int = 3,
    radial_layers: Sequence[int] = (64, 64, 64),
    precision: str = "float64",
    epochs: int = 200,
    batch_size: int = 4,
    learning_rate: float = 0.01,
    last_learning_rate: float = 1e-4,
    energy_weight: float = 1.0,
    forces_weight: float = 100.0,
    stress_weight: float = 100.0,
    seed: int = 0,
) -> None:
    """Train a small MACE on the data in the folder `data`; the compiled model goes into the folder `model`.

    `cutoff` in Å; `channels` and `max_L` of the messages; `layers` of interactions, so that an atom sees as far as
    `layers` times the cutoff; body order `correlation` + 1; `radial_layers` are the widths of the network that takes
    the distance: wide ones take most of the time. Trained in `precision`, and always evaluated in float64.

    `epochs` in batches of `batch_size` configurations; the learning rate falls exponentially, to `last_learning_rate`
    after three quarters of the epochs, and from then on the weight of the energies is a thousand times larger.
    Energies are relative to the perfect crystal. Strained cells are used where the case fits virial1: small batches
    hold only them for most of the steps. A tenth of the configurations chooses the epoch.
    """
    program = ready()
    first = max(1, 3 * epochs // 4)  # epochs of the first stage
    about = json.loads((data / "set.json").read_text(encoding="utf-8"))
    elastic = bool(about["observables"]["virial1"])
    # one of ten of either kind chooses the epoch: so do forces of rattled cells and stresses of strained ones
    parts: dict[str, list[Atoms]] = {"chosen": [], "fitted": []}
    for name in ("training", "strained") if elastic else ("training",):
        for index, atoms in enumerate(iread(data / f"{name}.extxyz", ":")):
            parts["chosen" if index % 10 == 5 else "fitted"].append(atoms)
    for name, chosen in parts.items():
        write(model / f"{name}.extxyz", chosen)
    isolated = {atomic_numbers[symbol]: about["energy_per_atom"] for symbol in about["species"]}
    command = [
        program,
        f"--name={NAME}",
        "--train_file=fitted.extxyz",
        "--valid_file=chosen.extxyz",
        f"--E0s={isolated!r}",
        "--energy_key=REF_energy",
        "--forces_key=REF_forces",
        "--stress_key=REF_stress",
        "--model=MACE",
        f"--num_channels={channels}",
        f"--max_L={max_L}",
        f"--num_interactions={layers}",
        f"--correlation={correlation}",
        f"--max_ell={l_max}",
        f"--r_max={cutoff}",
        f"--radial_MLP={list(radial_layers)}",
        f"--loss={'stress' if elastic else 'weighted'}",
        f"--energy_weight={energy_weight}",
        f"--forces_weight={forces_weight}",
        f"--batch_size={batch_size}",
        f"--valid_batch_size={batch_size}",
        f"--max_num_epochs={epochs}",
        f"--lr={learning_rate}",
        "--swa",
        "--scheduler=ExponentialLR",
        f"--lr_scheduler_gamma={(last_learning_rate / learning_rate) ** (1 / first)}",
        f"--start_swa={first}",
        f"--swa_lr={last_learning_rate}",
        f"--swa_energy_weight={1000 * energy_weight}",
        f"--swa_forces_weight={forces_weight}",
        "--scaling=rms_forces_scaling",
        "--ema",
        "--ema_decay=0.99",
        f"--eval_interval={min(5, max(1, epochs // 40))}",
        f"--default_dtype={precision}",
        "--device=cpu",
        "--num_workers=0",
        "--pin_memory=False",
        f"--seed={seed}",
        *([f"--stress_weight={stress_weight}", f"--swa_stress_weight={stress_weight}"] if elastic else []),
    ]
    run_program(command, model)
    for name in parts:
        (model / f"{name}.extxyz").unlink()
    for left in ("checkpoints", "results", "logs"):  # what went before the model, and its pictures
        shutil.rmtree(model / left, ignore_errors=True)


def load(model: Path) -> Calculator:
    """The potential in the folder `model`: energies, forces and stresses."""
    ready()
    from mace.calculators import MACECalculator

    last = model / f"{NAME}_stagetwo.model"
    return MACECalculator(
        model_paths=str(last if last.exists() else model / f"{NAME}.model"), device="cpu", default_dtype="float64"
    )
