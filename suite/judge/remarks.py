"""Warnings about the numbers of a run that converged, but whose numbers may be misleading."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from suite.judge.matching import NOISES
from suite.world.core_state import DIFFERENT, UNLIKE
from suite.world.glide import NEUTRAL

LEAST = 1e-4  # eV; smaller rounding errors of the energy do not matter


def remarks(numbers: Mapping[str, float]) -> list[str]:
    """Sentences about `numbers` of a verdict, each with its cure; an empty list when there is nothing to say."""
    found = []
    if numbers.get("core_mismatch", 0.0) > DIFFERENT:
        found.append(
            f"the cores that were trained on differ from those of the simulation (distances by, on average, "
            f"{numbers['core_mismatch']:.3f} Å): the model learned another core state; enlarge training.size"
        )
    if numbers.get("core_spread", 0.0) > UNLIKE:
        found.append(
            f"cores of one sign in the simulation cell are in different states (distances differ, on average, by "
            f"{numbers['core_spread']:.3f} Å): choose another core site with `dislobench scan`"
        )
    if numbers.get("core_change", 0.0) > DIFFERENT:
        found.append(
            f"a core of the model is in another state than that of the reference (distances differ, on average, by "
            f"{numbers['core_change']:.3f} Å): the errors compare two core states"
        )
    if numbers.get("glide_curvature_model", 0.0) < -NEUTRAL:
        found.append(
            f"all dislocations of the model together are on top of a Peierls barrier that the reference does not have "
            f"(λ = {numbers['glide_curvature_model']:.1e} eV/Å^2): the errors are those of a state that is held there; "
            "improve the fit (basis, smaller amplitudes)"
        )
    if numbers.get("energy_rounding", 0.0) > max(0.5 * numbers.get("energy_error", np.inf), LEAST):
        found.append(
            f"the coefficients of the fit are so large that rounding may change the energy by "
            f"{numbers['energy_rounding']:.1g} eV, as much as the energy error: choose solver.kind = 'rrqr', or raise "
            "solver.tolerance or solver.alpha"
        )
    noisy = [name for name in ("eps_V1", "eps_V2") if numbers.get(NOISES[name], 0.0) > 0.5 * numbers.get(name, 0.0) > 0]
    if noisy:
        found.append(
            f"{' and '.join(noisy)} change with the strain step by more than half of their size: they are mostly "
            "rounding or truncation. Try other steps (material.strain_step, model.strain_step); there may be no better "
            "one for a potential made of splines, or with energies of 32 bits"
        )
    return found
