"""Second derivatives of the reference at its equilibrium: by the factor of a Hessian, or by products with it.

A straight dislocation has a sparse Hessian that is assembled and factorised. The factor of a three-dimensional cell
would fill the memory: there the Hessian is known by its products with fields, and conjugate gradients invert it.
`landscape_at` asks which of the two a cell needs; whoever has a `Landscape` or a `Curvature` need not ask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ase.calculators.calculator import Calculator
from scipy.sparse import csr_array

from suite.progress import Progress
from suite.world.cell import Cell, Metric, StraightCell
from suite.world.glide import Glide, neutral_glide
from suite.world.hessian import (
    COARSE,
    FINE,
    Factor,
    HessianProducts,
    hessian,
    softest_mode,
    softest_mode_near,
    stability_bound,
    stability_constant,
)

Near = Callable[[HessianProducts, np.ndarray], tuple[float, np.ndarray]]


@dataclass(frozen=True)
class Curvature:
    """The reference's second derivatives at its equilibrium ȳ, as functions.

    `inverse` applies H⁻¹ to a force (n, 3), to a relative tolerance if it iterates; `preconditioner` approximates it
    at the cost of one sparse solve or Fourier transform; `c0` is the stability constant (eV/Å^2), `mode` (n, 3) its
    mode. With a neutral `glide` mode both leave it out, and displacements are held in its complement. `near` finds c0
    and its mode for the Hessian of a similar potential, from a guess (n, 3) of the mode.
    """

    inverse: Callable[[np.ndarray, float], np.ndarray]
    preconditioner: Metric
    c0: float
    mode: np.ndarray
    glide: Glide | None = None
    near: Near = softest_mode_near


@dataclass(frozen=True)
class Landscape:
    """What is known of the energy around an equilibrium.

    `hessian` (3n, 3n), eV/Å^2, None where its factor would fill the memory; `stability` c0, eV/Å^2, and its mode, the
    `softest` one (n, 3); `glide`, a neutral mode that is held and left out of c0, or None.
    """

    hessian: csr_array | None
    stability: float
    softest: np.ndarray
    glide: Glide | None = None

    @cached_property
    def factor(self) -> Factor | None:
        """Factor of the Hessian, made when it is first needed; None without a Hessian."""
        if self.hessian is None:
            return None
        return Factor(self.hessian, None if self.glide is None else self.glide.pull)

    def curvature(
        self,
        cell: Cell,
        displacement: np.ndarray,
        calculator: Callable[[], Calculator],
        engine: Callable[[Calculator], Calculator] = lambda reference: reference,
    ) -> Curvature:
        """The second derivatives as functions; `calculator` makes the reference, for cells whose Hessian has no factor,
        and `engine` what computes its forces in this cell.

        `displacement` (n, 3) is that of the equilibrium.
        """
        if self.factor is not None:
            solve = self.factor.solve
            return Curvature(lambda force, tolerance: solve(force), solve, self.stability, self.softest, self.glide)
        reference = calculator()
        metric = cell.metric(reference)
        products = HessianProducts(cell, engine(reference), displacement, metric, twofold=True)
        return Curvature(products.solve, metric, self.stability, self.softest, near=_bound)


def landscape_at(
    cell: Cell, calculator: Calculator, displacement: np.ndarray, metric: Metric, progress: Progress
) -> Landscape:
    """Measure the energy of `calculator` around the equilibrium `displacement` (n, 3) of a cell.

    Where cores split, weak forces count too, and a glide of all dislocations together that costs nothing is held.
    """
    if not isinstance(cell, StraightCell):
        progress("stability", 0.0, "smallest eigenvalue by conjugate gradients")
        products = HessianProducts(cell, calculator, displacement, metric, twofold=True)
        fields = cell.soft_fields(displacement)
        found = softest_mode(products, fields, progress=lambda share, note: progress("stability", share, note))
        return Landscape(None, *found)
    matrix = hessian(
        cell,
        calculator,
        displacement,
        progress=lambda done, total: progress("Hessian", done / total, f"{done} of {total} colours"),
        threshold=COARSE if cell.fault is None else FINE,
    )
    progress("stability", 0.0, "factor and smallest eigenvalue")
    factor = Factor(matrix)
    stability, softest = stability_constant(cell, matrix, factor)
    if glide := neutral_glide(cell, displacement, stability, softest):
        factor = factor.holding(glide.pull)
        stability, softest = stability_constant(cell, matrix, factor)
    landscape = Landscape(matrix, stability, softest, glide)
    landscape.__dict__["factor"] = factor  # seeds the cached property: at paper size a factor costs 17 s
    return landscape


def _bound(products: HessianProducts, guess: np.ndarray) -> tuple[float, np.ndarray]:
    """An upper bound of c0 where more than a few products with a Hessian cannot be afforded, and the guess itself."""
    return stability_bound(products, guess), guess
