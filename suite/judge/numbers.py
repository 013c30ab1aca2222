"""Every number of a run: name, symbol, unit, meaning, group. Tables, axes, reports and pages are made from this table.

The symbol appears in the head of a column or at an axis; the meaning is a phrase that explains it. `needs` says which
runs have a number that not all runs have. A number in `NUMBERS_OF_AMPLITUDES` also exists for each amplitude (Å) of the
test set, with the amplitude at the end of its name: `rmse_F_0.1`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Group = Literal["errors", "matching", "elastic", "balance", "bound", "reference", "cores", "checks"]
GROUPS: dict[Group, str] = {
    "errors": "Errors of geometry and energy",
    "matching": "Matching numbers of the test set",
    "elastic": "Elastic errors",
    "balance": "Balances",
    "bound": "Bounds and their terms",
    "reference": "The reference and its dislocations",
    "cores": "Cores",
    "checks": "Checks",
}
"""Title of each group, in the order of pages."""
Need = Literal["", "split", "hessian", "neighbourhood"]


@dataclass(frozen=True)
class Number:
    """One number of a run; `unit` is empty for pure numbers, `under` names the number that this one is a variant of."""

    name: str
    symbol: str
    unit: str
    meaning: str
    group: Group
    under: str = ""
    needs: Need = ""

    @property
    def head(self) -> str:
        """Symbol and unit: the head of a column."""
        return f"{self.symbol} [{self.unit}]" if self.unit else self.symbol

    @property
    def axis(self) -> str:
        """Label of an axis: symbol, meaning, and unit."""
        words = self.symbol if self.symbol == self.meaning else f"{self.symbol}, {self.meaning}"
        return f"{words} [{self.unit}]" if self.unit else words


def _group(group: Group, rows: Iterable[tuple[str, ...]]) -> Iterable[Number]:
    for name, symbol, unit, meaning, *rest in rows:
        under, needs = (*rest, "", "")[:2]
        yield Number(name, symbol, unit, meaning, group, under, needs)  # type: ignore[arg-type]


_ALL = (
    *_group(
        "errors",
        [
            ("geometry_error", "geometry error", "Å", "‖Dȳ - Dȳ_ML‖ over the Voronoi neighbours of all atoms (A.1)"),
            (
                "geometry_resolution",
                "geometry resolution",
                "Å",
                "its uncertainty, as forces are relaxed to a tolerance only",
                "geometry_error",
            ),
            (
                "geometry_error_linear",
                "linear geometry error",
                "Å",
                "by linear response, with the reference's Hessian at ȳ",
                "geometry_error",
            ),
            ("energy_error", "energy error", "eV", "|E(ȳ) - E_ML(ȳ_ML)|, each relative to its own perfect crystal"),
            (
                "energy_difference",
                "E_ML - E",
                "eV",
                "with its sign: positive where the model's dislocations cost too much",
                "energy_error",
            ),
            ("energy_error_linear", "linear energy error", "eV", "by linear response", "energy_error"),
            (
                "energy_rounding",
                "rounding of the energy",
                "eV",
                "at most, of a sum of large terms that cancel: ε Σ|c φ| over all atoms",
                "energy_error",
            ),
            (
                "growth_energy",
                "dE/d ln L_D",
                "eV",
                "slope of the energy difference in ln L_D that the elastic constants predict",
            ),
            (
                "growth_geometry",
                "dG²/d ln L_D",
                "Å²",
                "slope of the squared geometry error in ln L_D that the elastic constants predict",
            ),
        ],
    ),
    *_group(
        "matching",
        [
            ("eps_E", "ε_E", "eV", "largest energy error of the test set (3.9)"),
            ("eps_F", "ε_F", "eV/Å", "largest dual norm (fᵀK⁺f)^½ of the force error on the test set (3.10)"),
            ("eps_F_relaxed", "ε_F relaxed", "eV/Å", "at the relaxed training cell alone", "eps_F"),
            (
                "eps_E_ball",
                "ε_E ball",
                "eV",
                "largest that an ascent finds around the relaxed training cell (3.9)",
                "eps_E",
                "neighbourhood",
            ),
            (
                "eps_F_ball",
                "ε_F ball",
                "eV/Å",
                "largest that an ascent finds around the relaxed training cell (3.10)",
                "eps_F",
                "neighbourhood",
            ),
            ("rms_eps_F", "ε_F, rms", "eV/Å", "root mean square over the test set instead of the largest", "eps_F"),
            ("rmse_E", "RMSE E", "eV", "root mean square error of the energies of the test set", "eps_E"),
            ("rmse_F", "RMSE F", "eV/Å", "root mean square error of the force components of the test set", "eps_F"),
            ("eps_H", "ε_H", "eV/Å²", "error of the Hessian (3.11)", "", "hessian"),
            ("eps_H_relaxed", "ε_H relaxed", "eV/Å²", "at the relaxed training cell", "eps_H", "hessian"),
            ("eps_H_perfect", "ε_H perfect", "eV/Å²", "in the perfect crystal", "eps_H", "hessian"),
        ],
    ),
    *_group(
        "elastic",
        [
            ("eps_stress", "ε_σ", "eV/Å³", "error of ∂W at F = I, W the Cauchy-Born energy density"),
            ("eps_V1", "ε_V1", "eV/Å³", "error of ∂²W at F = I, 81 entries: linear elasticity (3.12)"),
            ("eps_V1_null_free", "ε_V1 null-free", "eV/Å³", "its part that is no null Lagrangian", "eps_V1"),
            (
                "eps_V1_felt",
                "ε_V1 felt",
                "eV/Å³",
                "its part that exerts forces in the field of this dislocation",
                "eps_V1",
            ),
            (
                "eps_V1_pressure_free",
                "ε_V1 pressure-free",
                "eV/Å³",
                "of ∂²(W - s det F), which has no pressure",
                "eps_V1",
            ),
            ("eps_V1_noise", "ε_V1 noise", "eV/Å³", "its change with twice the strain step", "eps_V1"),
            ("eps_K", "ε_K", "eV", "t |K_ML - K|, error of the energy factor of the dislocation"),
            (
                "energy_factor_difference",
                "t (K_ML - K)",
                "eV",
                "with its sign: positive where the energy grows too fast with L_D",
                "eps_K",
            ),
            ("eps_V2", "ε_V2", "eV/Å³", "error of ∂³W at F = I, 729 entries: nonlinear elasticity (3.12)"),
            ("eps_V2_null_free", "ε_V2 null-free", "eV/Å³", "its part that is no null Lagrangian", "eps_V2"),
            (
                "eps_V2_pressure_free",
                "ε_V2 pressure-free",
                "eV/Å³",
                "of ∂³(W - s det F), which has no pressure",
                "eps_V2",
            ),
            ("eps_V2_noise", "ε_V2 noise", "eV/Å³", "its change with twice the strain step", "eps_V2"),
            ("pressure", "pressure", "GPa", "of the model's crystal at the reference's lattice constant"),
            ("error_C11", "error of C11", "GPa", "model less reference"),
            ("error_C12", "error of C12", "GPa", "model less reference"),
            ("error_C44", "error of C44", "GPa", "model less reference"),
            ("error_C11_null_free", "error of C11, null-free", "GPa", "without the null Lagrangian", "error_C11"),
            ("error_C12_null_free", "error of C12, null-free", "GPa", "without the null Lagrangian", "error_C12"),
            ("error_C44_null_free", "error of C44, null-free", "GPa", "without the null Lagrangian", "error_C44"),
        ],
    ),
    *_group(
        "balance",
        [
            ("balance_spread", "literal balance", "ln", "spread of ε_E, ε_F², log(L_D) ε_V1²"),
            ("balance_E", "ε_E", "eV", "term of the literal balance", "balance_spread"),
            ("balance_F", "ε_F²", "eV²/Å²", "term of the literal balance", "balance_spread"),
            ("balance_V1", "log(L_D) ε_V1²", "eV²/Å⁶", "term of the literal balance", "balance_spread"),
            ("calibrated_spread", "calibrated balance", "ln", "spread of these three as energies"),
            ("calibrated_E", "ε_E", "eV", "term of the calibrated balance", "calibrated_spread"),
            ("calibrated_F", "ε_F²/c₀", "eV", "term of the calibrated balance", "calibrated_spread"),
            ("calibrated_V1", "S log(L_D) ε_V1²/c₀", "eV", "term of the calibrated balance", "calibrated_spread"),
            ("corrected_spread", "corrected balance", "ln", "spread of the balance of the corrected bound"),
            ("corrected_E", "ε_E", "eV", "term of the corrected balance", "corrected_spread"),
            ("corrected_F", "ε_F²/c₀", "eV", "term of the corrected balance", "corrected_spread"),
            ("corrected_K", "(1 + log(L_D/L)) ε_K", "eV", "term of the corrected balance", "corrected_spread"),
        ],
    ),
    *_group(
        "bound",
        [
            ("bound_geometry", "bound of the geometry error", "", "right side of (3.13) with C = 1"),
            ("term_F", "ε_F", "", "term of (3.13)", "bound_geometry"),
            ("term_V1", "√log(L_D) ε_V1", "", "term of (3.13)", "bound_geometry"),
            ("term_V2", "ε_V2/L", "", "term of (3.13)", "bound_geometry"),
            ("term_L", "1/L²", "", "term of (3.13)", "bound_geometry"),
            ("bound_energy", "bound of the energy error", "", "right side of (3.14) with C = 1"),
            ("term_E", "ε_E", "", "term of the bounds of the energy error", "bound_energy"),
            ("term_L_energy", "1/L²", "", "term of the bounds of the energy error", "bound_energy"),
            (
                "bound_geometry_corrected",
                "corrected bound of the geometry error",
                "",
                "with log(L_D/L), and C = 1 (docs/theory.md)",
            ),
            (
                "term_V1_corrected",
                "√(1 + log(L_D/L)) ε_V1",
                "",
                "term of the corrected bounds",
                "bound_geometry_corrected",
            ),
            ("term_V2_corrected", "ε_V2/L", "", "term of the corrected bounds", "bound_geometry_corrected"),
            (
                "bound_energy_corrected",
                "corrected bound of the energy error",
                "",
                "with a term of first order in ε_V1, and C = 1 (docs/theory.md)",
            ),
            ("term_B_energy", "B²", "", "term of the corrected bound of the energy error", "bound_energy_corrected"),
            (
                "term_V1_energy",
                "(1 + log(L_D/L)) ε_V1",
                "",
                "term of the corrected bound of the energy error",
                "bound_energy_corrected",
            ),
        ],
    ),
    *_group(
        "reference",
        [
            ("c0", "c₀", "eV/Å²", "smallest λ of H v = λ K v, reference (Assumption 2.1)"),
            ("c0_model", "c₀ of the model", "eV/Å²", "smallest λ of H v = λ K v, model", "c0"),
            (
                "partial_separation",
                "distance of the partials",
                "Å",
                "of the reference, mean over the dislocations of the cell",
                "",
                "split",
            ),
            (
                "partial_separation_model",
                "distance of the partials, model",
                "Å",
                "of the model",
                "partial_separation",
                "split",
            ),
            (
                "partial_separation_elastic",
                "distance of the partials, elastic",
                "Å",
                "by elastic theory and the fault energy, in this cell",
                "partial_separation",
                "split",
            ),
            (
                "partial_separation_alone",
                "distance of the partials, alone",
                "Å",
                "by elastic theory and the fault energy, of a lone dislocation",
                "partial_separation",
                "split",
            ),
            ("fault_energy", "fault energy", "mJ/m²", "stacking-fault energy of the reference", "", "split"),
            (
                "fault_energy_model",
                "fault energy, model",
                "mJ/m²",
                "stacking-fault energy of the model",
                "fault_energy",
                "split",
            ),
        ],
    ),
    *_group(
        "cores",
        [
            ("core_change", "core change", "Å", "how far the model's cores are from those of the reference"),
            ("core_mismatch", "core mismatch", "Å", "how far the cores of simulation and training are apart"),
            ("core_spread", "core spread", "Å", "how unlike the cores of the simulation are"),
            ("neutral_modes", "neutral modes", "", "1 where the free glide of all dislocations is held, else 0"),
            ("glide_force", "glide force", "eV/Å", "what holds the model against free glide", "", "split"),
            ("glide_curvature", "glide curvature", "eV/Å²", "of the reference along free glide", "", "split"),
            (
                "glide_curvature_model",
                "glide curvature, model",
                "eV/Å²",
                "of the model along free glide",
                "glide_curvature",
                "split",
            ),
        ],
    ),
    *_group(
        "checks",
        [
            ("model_force_calls", "force calls of the model", "", "that its relaxation took"),
            ("strain_step", "strain step", "", "of the finite differences for the model's elastic response"),
        ],
    ),
)

NUMBERS: dict[str, Number] = {number.name: number for number in _ALL}
"""Every number by name, in the order of tables."""
ERRORS = ("geometry_error", "energy_error")
"""The two that everything else is measured by."""
NUMBERS_OF_AMPLITUDES = ("rmse_E", "rmse_F", "eps_F")
"""Those that also stand for each amplitude of the test set alone."""


SHOWN = (
    *("geometry_error", "geometry_resolution", "geometry_error_linear"),
    *("energy_error", "energy_difference", "energy_error_linear", "energy_rounding"),
    *("eps_E", "eps_E_ball"),
    *("eps_F", "eps_F_relaxed", "eps_F_ball", "rmse_F"),
    "eps_H",
    *("eps_V1", "eps_V1_null_free", "eps_V1_felt"),
    *("eps_K", "energy_factor_difference"),
    *("eps_V2", "eps_V2_null_free"),
    *("pressure", "error_C11", "error_C12", "error_C44"),
    *("c0", "c0_model"),
    *("glide_force", "glide_curvature_model"),
    *("partial_separation", "partial_separation_model", "partial_separation_elastic", "partial_separation_alone"),
    *("fault_energy", "fault_energy_model"),
    *("balance_spread", "calibrated_spread", "corrected_spread"),
)
"""Those that the table of a run shows, in this order."""


def number(name: str) -> Number | None:
    """The entry of a number, also of a single amplitude; None if `name` is no number of a verdict."""
    if name in NUMBERS:
        return NUMBERS[name]
    for base in NUMBERS_OF_AMPLITUDES:
        if name.startswith(f"{base}_"):
            found, amplitude = NUMBERS[base], name.removeprefix(f"{base}_")
            where = f"on test configurations of {amplitude} Å"
            return Number(name, f"{found.symbol} {where}", found.unit, f"{found.meaning}, {where}", "matching", base)
    return None


_OTHER_GROUPS = {
    ("best_",): "best",
    ("correlation_",): "correlation",
    ("slope_", "growth_"): "rates",
    ("seconds_", "megabytes_", "training_", "milliseconds", "reference_force_calls"): "cost",
    ("train_rmse_", "solver_"): "fit",
    ("a0", "reference_", "energy_simulation", "energy_training", "atoms_", "core_distance"): "reference",
    ("limiting",): "bound",
}
"""Groups in MLflow of numbers that are not in the table, by how their names begin: costs, those of the fit and of the
reference's cells, those of studies (the recommended weighing, rank correlations) and of sweeps."""


def group_of(name: str) -> str:
    """The group that MLflow shows a number in; "counts" for numbers of studies, sweeps and boards that only count."""
    if (found := number(name)) is not None:
        return found.group
    return next((group for begin, group in _OTHER_GROUPS.items() if name.startswith(begin)), "counts")


def head(name: str) -> str:
    """Symbol and unit of a number; `name` itself if it is no number of a verdict."""
    found = number(name)
    return name if found is None else found.head
