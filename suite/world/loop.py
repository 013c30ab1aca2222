"""Prismatic dislocation loops in a cubic cell: missing or doubled sites of the perfect lattice, displaced.

A vacancy loop lacks the sites of a disc one Burgers vector thick, an interstitial loop holds each of them twice, once
for the crystal above the disc and once for the crystal below. So every atom keeps a lattice site, and the Hessian of
the perfect crystal, inverted by the fast Fourier transform, is a metric for cells of millions of atoms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from ase.calculators.calculator import Calculator
from scipy.special import erf

from suite.world.cell import Arrays, Cell, Metric, circulant_hessian, perfect_units
from suite.world.crystal import Crystal
from suite.world.dislocation import ImpossibleCell, Loop
from suite.world.elasticity import periodic_loop_displacement

# Between the second (a0) and the third (1.41 a0) shell of bcc: its 14 Voronoi neighbours, also next to the core.
NEIGHBOUR_REACH = 1.2
CIRCUIT_REACH = 1.5  # a0; circuits over three shells also close around a stretched core
SMOOTHING = 0.3  # a0; softens the faces of the disc, so that its Fourier series does not ring
SECTORS = 12
ENCLOSING = 10  # units of a cell that holds the response to one displaced atom


@dataclass(frozen=True)
class LoopCell(Cell):
    """A cubic cell of `repeats` conventional units with one prismatic loop in its middle; axes e1, e2, e3 are cubic.

    `cores` (1, 3) its centre, `burgers` (1, 3), `radius` Å; `sites` (n,) the lattice site of every atom in lattice
    order; `twins` (k, 2) pairs of atoms on one site (interstitial loops).
    """

    radius: float
    sites: np.ndarray
    twins: np.ndarray

    @property
    def core_distance(self) -> float:
        """The diameter of the loop, which the paper calls L_D too (section 4.3), Å."""
        return 2 * self.radius

    @property
    def line_length(self) -> float:
        """The circumference, Å."""
        return float(2 * np.pi * self.radius)

    def own_arrays(self, displacement: np.ndarray) -> Arrays:
        """As `Cell.own_arrays`: the loop. Its bonds, 14 of every atom, are found again faster than they are read."""
        return {
            "loop_centre": (("xyz",), self.cores[0]),
            "loop_radius": ((), self.radius),
            "loop_line": (("point", "xyz"), self.line(displacement)),
        }

    def own_model_arrays(self, displacement: np.ndarray) -> Arrays:
        return {"loop_line_model": (("point_model", "xyz"), self.line(displacement))}

    @property
    def normal(self) -> np.ndarray:
        return self.burgers[0] / np.linalg.norm(self.burgers[0])

    @cached_property
    def bonds(self) -> np.ndarray:
        """Neighbours within 1.2 a0 of each other as the elastic field has displaced them, found once."""
        import vesin

        listed = vesin.NeighborList(cutoff=NEIGHBOUR_REACH * self.a0, full_list=True)
        i, j = listed.compute(points=self.reference + self.predictor, box=self.vectors, periodic=True, quantities="ij")
        return np.stack([i, j], axis=1).astype(np.int32)

    def line(self, displacement: np.ndarray) -> np.ndarray:
        """Where elementary circuits do not close, (k, 3) Å from the centre of the loop, for a displacement (n, 3).

        Every bond carries the lattice vector that it is nearest to; the vectors of a triangle of bonds sum to zero
        unless a dislocation passes through it. Looks within 4 a0 of the sphere around the loop.
        """
        positions = self.reference + displacement - self.cores[0]
        near = np.flatnonzero((positions**2).sum(axis=1) < (self.radius + 4 * self.a0) ** 2)
        return open_triangles(positions[near], self.lattice_vectors, CIRCUIT_REACH * self.a0)

    def judge(self, displacement: np.ndarray, allowed: float) -> tuple[str, np.ndarray]:
        """As `Cell.judge`; the shifts (1, 2) are the change of the mean radius and the glide along b, Å."""
        points = self.line(displacement)
        if len(points) == 0:
            return "annihilated", np.full((1, 2), np.nan)
        height = points @ self.normal
        outward = points - height[:, None] * self.normal
        radius = np.linalg.norm(outward, axis=1)
        shift = np.array([[radius.mean() - self.radius, height.mean()]])
        first = np.linalg.svd(self.normal[None])[2][1:]  # two axes in the plane of the loop
        sector = np.floor(np.arctan2(outward @ first[1], outward @ first[0]) / (2 * np.pi) * SECTORS).astype(int)
        closed = len(np.unique(sector % SECTORS)) == SECTORS
        away = np.hypot(radius - self.radius, height)
        kept = closed and np.abs(shift).max() <= allowed and away.max() <= allowed + 2 * self.a0
        return ("kept" if kept else "moved"), shift

    def soft_fields(self, displacement: np.ndarray) -> list[np.ndarray]:
        """As `Cell.soft_fields`: the loop glides along b, and the loop tilts.

        The change of the displacement from one Burgers vector below a site to one above it, less the jump across the
        disc; for the tilt, times the position in the plane of the loop.
        """
        field = np.zeros((2 * int(np.prod(self.repeats)), 3))
        field[self.sites] = displacement
        first, second = self.twins.T
        field[self.sites[first]] = (displacement[first] + displacement[second]) / 2
        corners, centres = np.moveaxis(field.reshape(*self.repeats, 2, 3), 3, 0)
        # from a corner of a unit b leads to the centre of a unit, and from a centre to a corner
        sign = np.sign(self.burgers[0]).astype(int)
        lower, upper = (sign - 1) // 2, (sign + 1) // 2

        def moved(grid: np.ndarray, steps: np.ndarray) -> np.ndarray:
            return np.roll(grid, -steps, axis=(0, 1, 2))

        above = np.stack([moved(centres, lower), moved(corners, upper)], axis=3)
        below = np.stack([moved(centres, -upper), moved(corners, -lower)], axis=3)
        change = (above - below).reshape(-1, 3)
        burgers = self.burgers[0]
        change -= np.rint(change @ burgers / (burgers @ burgers))[:, None] * burgers
        glide = change[self.sites]
        away = self.reference - self.cores[0]
        away[(np.abs(away) > 2 * self.radius).any(axis=1)] = 0.0
        across = np.array([0.5, 0.7]) @ np.linalg.svd(self.normal[None])[2][1:]  # along no symmetry of the loop
        return [glide, glide * (away @ across)[:, None]]

    def metric(self, calculator: Calculator) -> Metric:
        """Inverse Hessian of the perfect crystal on the lattice sites; twins share the force on their site.

        The relative motion of twins, which the lattice does not know, has the stiffness of a single atom.
        """
        small = (min(self.repeats[0], ENCLOSING),) * 3
        lattice = circulant_hessian(perfect_units(self, small), small, self, calculator)
        count = lattice.sites * int(np.prod(self.repeats))
        point = np.zeros((count, 3))
        point[0] = 1.0
        compliance = float(lattice.solve(point)[0].mean())
        first, second = self.twins.T

        def solve(force: np.ndarray) -> np.ndarray:
            field = np.zeros((count, 3))
            field[self.sites] = force
            field[self.sites[second]] = force[first] + force[second]
            moved = lattice.solve(field - field.mean(axis=0))[self.sites]
            relative = compliance * (force[first] - force[second]) / 2
            moved[first] += relative
            moved[second] -= relative
            return moved

        return solve


def open_triangles(positions: np.ndarray, lattice_vectors: np.ndarray, reach: float) -> np.ndarray:
    """Centres (k, 3) of the triangles of neighbours within `reach` Å whose lattice vectors do not sum to zero.

    `positions` (n, 3) Å of a piece of crystal, not periodic; `lattice_vectors` (3, 3) Å, not rotated by much.
    """
    from scipy.sparse import csr_array
    from scipy.spatial import cKDTree

    count = len(positions)
    i, j = cKDTree(positions).query_pairs(reach, output_type="ndarray").T
    shifts = np.array(list(product(range(-3, 4), repeat=3)))
    vectors = shifts @ lattice_vectors
    short = np.flatnonzero(np.linalg.norm(vectors, axis=1) < 1.5 * reach)
    shifts, vectors = shifts[short], vectors[short]
    nearest = cKDTree(vectors).query(positions[j] - positions[i])[1]
    graph = csr_array((np.arange(1, len(i) + 1), (i, j)), shape=(count, count))  # upper triangular: i < j
    # a triangle is a bond (i, j) and a bond (j, k) with i and k bonded too
    outgoing = np.diff(graph.indptr)
    first = np.repeat(np.arange(len(i)), outgoing[j])
    starts = graph.indptr[j]
    place = np.arange(len(first)) - np.repeat(np.cumsum(outgoing[j]) - outgoing[j], outgoing[j])
    position = np.repeat(starts, outgoing[j]) + place
    k = graph.indices[position]
    second = graph.data[position] - 1
    closing = np.asarray(graph[i[first], k]).ravel()
    closed = closing > 0
    first, second, third, k = first[closed], second[closed], closing[closed] - 1, k[closed]
    around = shifts[nearest[first]] + shifts[nearest[second]] - shifts[nearest[third]]
    pierced = (around != 0).any(axis=1)
    corners = (i[first[pierced]], j[first[pierced]], k[pierced])
    return sum(positions[corner] for corner in corners) / 3


def build_loop(crystal: Crystal, loop: Loop, elastic: np.ndarray, repeats: int, diameter: float) -> LoopCell:
    """A cubic cell `repeats` conventional units wide with a prismatic `loop` of `diameter` (a0) in its middle.

    `elastic` (3, 3, 3, 3) eV/Å^3 in cubic axes. Raises `ImpossibleCell` when the loop does not fit, and
    `NotImplementedError` for lattices other than bcc.
    """
    if len(crystal.basis) != 1 or len(np.unique(np.abs(crystal.lattice.vectors))) != 1:
        raise NotImplementedError("loops are built in bcc only")
    a0, size = crystal.a0, repeats * crystal.a0
    radius, burgers = diameter * a0 / 2, np.array(loop.burgers) * a0
    thickness = float(np.linalg.norm(burgers))
    normal = burgers / thickness
    if diameter > repeats / 2 or diameter < 2:
        raise ImpossibleCell(
            f"a loop of diameter {diameter:g} a0 does not fit a cell {repeats} a0 wide: it must be at least 2 a0 "
            f"and at most half the cell"
        )
    centre = np.full(3, (repeats // 2) * a0)  # a lattice site: the disc holds three whole layers of {111}
    field, strain = periodic_loop_displacement(elastic, 2 * repeats, size, centre, burgers, radius, SMOOTHING * a0)
    # bcc sites are the points of the half-spaced grid whose indices are all even or all odd
    displacement = np.stack([field[::2, ::2, ::2], field[1::2, 1::2, 1::2]], axis=3).reshape(-1, 3)
    corner = np.stack(np.meshgrid(*[np.arange(repeats) * a0] * 3, indexing="ij"), axis=-1)
    reference = np.stack([corner, corner + a0 / 2], axis=3).reshape(-1, 3)
    away = reference - centre
    height = away @ normal
    inside = (away**2).sum(axis=1) - height**2 < radius**2
    disc = inside & (np.abs(height) < thickness / 2)
    # the series has softened the jump across the disc: on the column above and below it, put it back
    blurred = _blurred_ramp(height, thickness, SMOOTHING * a0)
    column = np.flatnonzero(inside & ~disc & (np.abs(height) < 3 * thickness))
    displacement[column] += np.outer(np.sign(height[column]) * thickness / 2 - blurred[column], normal)
    if loop.sign < 0:
        sites = np.flatnonzero(~disc)
        twins = np.zeros((0, 2), dtype=int)
        reference, displacement = reference[sites], -displacement[sites]
    else:
        double = np.flatnonzero(disc)
        sites = np.concatenate([np.arange(len(reference)), double])
        twins = np.stack([double, len(reference) + np.arange(len(double))], axis=1)
        lower = displacement[double] + np.outer(-thickness / 2 - blurred[double], normal)
        upper = displacement[double] + np.outer(thickness / 2 - blurred[double], normal)
        displacement = np.concatenate([displacement, upper])
        displacement[double] = lower
        reference = reference[sites]
    vectors = size * np.eye(3)
    return LoopCell(
        reference=reference,
        predictor=displacement,
        vectors_perfect=vectors,
        vectors=vectors @ (np.eye(3) + loop.sign * strain).T,
        numbers=np.full(len(reference), crystal.numbers[0]),
        sublattice=np.zeros(len(reference), dtype=int),
        repeats=(repeats,) * 3,
        unit_sites=2,
        cores=centre[None],
        burgers=burgers[None],
        lattice_vectors=crystal.vectors,
        a0=a0,
        radius=radius,
        sites=sites,
        twins=twins,
    )


def _blurred_ramp(height: np.ndarray, thickness: float, width: float) -> np.ndarray:
    """∫ of a box of `thickness` convolved with a Gaussian of `width`: from -thickness/2 to thickness/2 across it."""

    def integral(x: np.ndarray) -> np.ndarray:  # of (1 + erf(x / √2 width)) / 2
        return x * (1 + erf(x / (np.sqrt(2) * width))) / 2 + width * np.exp(-((x / width) ** 2) / 2) / np.sqrt(
            2 * np.pi
        )

    return integral(height + thickness / 2) - integral(height - thickness / 2) - thickness / 2
