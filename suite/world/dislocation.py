"""The catalogue of dislocations: frames, Burgers vectors, core sites, arrangements; and Burgers circuits.

All crystallography is data in cubic axes and units of a0. A core site is given in fractions of the unit cell
(e1, e2) of the frame, separately for +b and -b, because the two signs need not like the same site.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import ClassVar

import numpy as np

from store.faults import BadInput
from suite import plugins
from suite.world.crystal import LATTICES, Crystal


class ImpossibleCell(BadInput, ValueError):
    """A cell that physics refuses: a core on an atom, dislocations in one place, too few repeats."""


Site = tuple[float, float]
KINDS = ("screw", "edge", "mixed")
CORE_CLEARANCE = 0.05  # a0; closer to an atomic column, the elastic field makes atoms coincide
Triple = tuple[float, float, float]
Key = tuple[str, str, str]  # lattice, kind, variant
Shape = tuple[str, "Dislocation", tuple[int, int, int]]  # of a training cell: a word, what it holds, its repeats


@dataclass(frozen=True)
class Dislocation:
    """A straight dislocation: periods of the frame's unit cell along e1, e2, e3 (line), Burgers vector, core sites.

    `fault` is the shift of the crystal above the glide plane over that below it in the stacking fault between two
    partials, b - fault on the left and fault on the right, or None for a core that does not split; `aspect` how many
    times its cells are as wide as high.
    """

    periods: tuple[Triple, Triple, Triple]
    burgers: Triple
    sites: Mapping[str, tuple[Site, Site]]
    comment: str
    fault: Triple | None = None
    aspect: float = 1.0

    @property
    def frame(self) -> np.ndarray:
        """Orthonormal rows e1, e2, e3 in cubic axes, (3, 3)."""
        rows = np.array(self.periods)
        return rows / np.linalg.norm(rows, axis=1)[:, None]

    @property
    def lengths(self) -> np.ndarray:
        """Lengths of the periods in a0, (3,)."""
        return np.linalg.norm(np.array(self.periods), axis=1)

    @property
    def burgers_frame(self) -> np.ndarray:
        """Burgers vector in the frame, (3,), a0; its component along e2 is zero."""
        return self.frame @ np.array(self.burgers)

    @property
    def straight(self) -> Dislocation:
        """The straight dislocation whose far field this one has: itself."""
        return self

    def repeats(self, width: float, height: float | None = None) -> tuple[int, int, int]:
        """Whole repeats of the unit cell for a cell of `width` and `height` in a0, one line period thick.

        Without a `height` the cell is `width` a0 high and `aspect` times wider: square for most.
        """
        sides = (width * self.aspect, width) if height is None else (width, height)
        n1, n2 = (max(1, round(side / length)) for side, length in zip(sides, self.lengths[:2], strict=True))
        return n1, n2, 1

    def training_shapes(self, size: float) -> list[Shape]:
        """The training cell of half width `size` (a0): one dipole of this dislocation, in a cell 2L wide."""
        return [("", self, self.repeats(2 * size))]

    @property
    def fault_frame(self) -> np.ndarray | None:
        """The fault vector in the frame, (3,), a0, or None."""
        return None if self.fault is None else self.frame @ np.array(self.fault)

    def core_on_atom(self, lattice: str, sites: tuple[Site, Site]) -> str | None:
        """Why these core sites cannot be used (a core within 0.05 a0 of an atomic column), or None."""
        crystal = Crystal(LATTICES[lattice], ("H",) * 2, 1.0)
        columns = unit_sites(crystal, self)[0][:, :2]
        size = self.lengths[:2]
        for sign, site in zip("+-", sites, strict=True):
            away = columns - np.array(site) * size
            nearest = float(np.linalg.norm(nearest_image(away, size), axis=1).min())
            if nearest < CORE_CLEARANCE:
                return (
                    f"the core site {tuple(site)} of {sign}b lies {nearest:.3f} a0 from an atomic column: atoms would "
                    "coincide; choose a site between the columns"
                )
        return None


def unit_sites(crystal: Crystal, dislocation: Dislocation) -> tuple[np.ndarray, np.ndarray]:
    """Sites of the frame's unit cell, (s, 3) in the frame and Å, and the crystal's basis index of each, (s,)."""
    frame, lengths = dislocation.frame, dislocation.lengths * crystal.a0
    span = range(-4, 5)
    shifts = np.array(list(product(span, repeat=3))) @ crystal.vectors
    positions, index = [], []
    for basis, base in enumerate(crystal.basis):
        fraction = ((shifts + base) @ frame.T) / lengths
        inside = ((fraction > -1e-6) & (fraction < 1 - 1e-6)).all(axis=1)
        positions.append(fraction[inside] * lengths)
        index += [basis] * int(inside.sum())
    found = np.vstack(positions)
    expected = np.prod(lengths) / crystal.volume * len(crystal.basis)
    if abs(len(found) - expected) > 1e-6:
        raise ImpossibleCell(
            f"the periods {dislocation.periods} span no unit cell of the lattice: {len(found)} sites, not {expected:g}"
        )
    return found, np.array(index)


# Cores of bcc screws sit in the centres of triangles of three [111] columns. Seen along +[111], the columns of one
# kind of triangle climb with the sense of b and the others against it: the easy core of one sign is the hard core of
# the other.
_UP, _DOWN = (1 / 6, 1 / 6), (1 / 3, 1 / 3)

# Of the shifts of 1/6<112> of one (111) half crystal over the other, three make the intrinsic stacking fault and the
# three opposite ones put atoms on atoms. Both signs of a dislocation have the same fault between their partials.
_FAULT = (-1 / 3, 1 / 6, 1 / 6)

# Keys: lattice, kind, variant ("" is the usual one). Sites of edges lie between two neighbouring atomic planes; those
# of screws may lie in an atomic row between two columns, both signs in the same one.
CATALOGUE: dict[tuple[str, str, str], Dislocation] = {
    ("bcc", "screw", ""): Dislocation(
        periods=((1, 1, -2), (-1, 1, 0), (0.5, 0.5, 0.5)),
        burgers=(0.5, 0.5, 0.5),
        sites={"easy": (_UP, _DOWN), "hard": (_DOWN, _UP)},
        comment="half <111> screw",
    ),
    ("bcc", "edge", ""): Dislocation(
        periods=((0.5, 0.5, 0.5), (-1, 1, 0), (-1, -1, 2)),
        burgers=(0.5, 0.5, 0.5),
        sites={"between": ((1 / 6, 0.25), (1 / 6, 0.25))},
        comment="half <111> edge on {110}",
    ),
    ("bcc", "mixed", ""): Dislocation(
        periods=((-1, -1, -2), (-1, 1, 0), (0.5, 0.5, -0.5)),
        burgers=(-0.5, -0.5, -0.5),
        sites={"between": ((1 / 6, 0.25), (1 / 3, 0.25))},
        comment="half <111> on {110} with a <111> line, 71 degrees between line and Burgers vector",
    ),
    # Cores of fcc glide under next to no stress: in square cells the partials of +b and -b meet, in flat ones they are
    # held by those above and below: screws as a quadrupole from 14 a0 high, edges as walls from 14 a0, training dipoles
    # from 14 and 11 a0 (Cu_mishin1, 3 times as wide). Nothing but the Peierls barrier keeps all cores of a cell
    # from gliding together: that costs screws in copper some 2e-4 eV/Å^2 (3e-5 at 20 a0), edges 1e-6; see `glide`.
    ("fcc", "screw", ""): Dislocation(
        periods=((-0.5, -0.5, 1), (1, 1, 1), (-0.5, 0.5, 0)),
        burgers=(-0.5, 0.5, 0),
        # on an atomic plane of the other {111} that holds the line: at (1/3, 1/6) cores split on either plane
        sites={"between": ((1 / 12, 1 / 6), (1 / 12, 1 / 6))},
        comment="half <110> screw on {111}, split into Shockley partials",
        fault=_FAULT,
        aspect=3.0,
    ),
    ("fcc", "edge", ""): Dislocation(
        periods=((-0.5, 0.5, 0), (1, 1, 1), (0.5, 0.5, -1)),
        burgers=(-0.5, 0.5, 0),
        sites={"between": ((0.25, 1 / 6), (0.25, 1 / 6))},
        comment="half <110> edge on {111}, split into Shockley partials",
        fault=_FAULT,
        aspect=3.0,
    ),
    ("diamond", "edge", ""): Dislocation(
        periods=((0.5, 0.5, 0), (0, 0, 1), (0.5, -0.5, 0)),
        burgers=(0.5, 0.5, 0),
        sites={"glide": ((0.5, 0.125), (0.0, 0.125)), "symmetric": ((0.25, 0.125), (0.25, 0.125))},
        comment="half <110> edge with glide normal <001> (Lomer)",
    ),
    ("diamond", "mixed", ""): Dislocation(
        periods=((-1, 0.5, 0.5), (1, 1, 1), (0, 0.5, -0.5)),
        burgers=(-0.5, 0.5, 0),
        sites={
            "shuffle": ((1 / 12, 1 / 8), (5 / 12, 1 / 8)),  # the lowest that stays, 17.66 eV as walls of 840 atoms
            "glide": ((0.25, 7 / 24), (1 / 12, 7 / 24)),  # 18.28 eV
        },
        comment="half <110> on {111} with a <110> line, 60 degrees between line and Burgers vector",
    ),
    ("B2", "screw", ""): Dislocation(
        periods=((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        burgers=(0, 0, 1),
        sites={
            # between two like columns, a centre of symmetry: where cores from the other sites end, or next to it
            "centre": ((0.5, 0.0), (0.5, 0.0)),
            "quarter": ((0.25, 0.25), (0.25, 0.25)),
            "bridge": ((0.5, 0.25), (0.5, 0.25)),
        },
        comment="<100> screw",
    ),
    ("B2", "screw", "111"): Dislocation(
        periods=((1, 1, -2), (-1, 1, 0), (1, 1, 1)),
        burgers=(1, 1, 1),
        sites={"up": (_UP, _DOWN), "down": (_DOWN, _UP)},
        comment="<111> screw",
    ),
}


@dataclass(frozen=True)
class Loop:
    """A prismatic loop: Burgers vector along its normal in cubic axes (a0), whether matter is missing inside (`sign`
    -1, vacancy) or put in (+1, interstitial), and the catalogue's keys of the straight dislocations that its training
    cells hold, a screw and the edge that the loop is all around."""

    burgers: Triple
    sign: int
    screw: Key
    edge: Key
    comment: str
    fault: ClassVar[None] = (
        None  # a loop does not split, has no core site to choose, and lies in a cube of conventional cells
    )
    sites: ClassVar[Mapping[str, tuple[Site, Site]]] = {}
    lengths: ClassVar[Triple] = (1.0, 1.0, 1.0)

    @property
    def straight(self) -> Dislocation:
        """The straight dislocation whose far field the loop has: it is an edge all around."""
        return catalogue_entry(*self.edge)

    def repeats(self, width: float) -> tuple[int, int, int]:
        """Conventional cells of a cube of `width` in a0."""
        side = max(1, round(width))
        return side, side, side

    def training_shapes(self, size: float) -> list[Shape]:
        """The training cells of half width `size` (a0): a screw dipole in a square cell 2L wide, and an edge dipole in
        one that is L high.

        Edges glide together at once in a square cell, while walls of them, closely stacked, hold each other in place.
        """
        screw, edge = catalogue_entry(*self.screw), catalogue_entry(*self.edge)
        return [("screw", screw, screw.repeats(2 * size, 2 * size)), ("edge", edge, edge.repeats(2 * size, size))]


# The loops that a spec calls kind "loop", by lattice and variant.
LOOPS: dict[tuple[str, str], Loop] = {
    ("bcc", "vacancy"): Loop(
        (0.5, 0.5, 0.5), -1, ("bcc", "screw", ""), ("bcc", "edge", ""), "half <111> prismatic vacancy loop"
    ),
    ("bcc", "interstitial"): Loop(
        (0.5, 0.5, 0.5), +1, ("bcc", "screw", ""), ("bcc", "edge", ""), "half <111> prismatic interstitial loop"
    ),
}


@cache
def dislocations() -> dict[tuple[str, str, str], Dislocation]:
    """`CATALOGUE`, and what installed packages add to it (`suite.plugins`).

    The entry point "bcc-edge-100" is the edge of variant 100 in bcc. Raises `plugins.BadPlugin` when one is no
    `Dislocation` or has an impossible name.
    """
    added = {}
    for name in plugins.installed(plugins.DISLOCATIONS):
        found = plugins.load(plugins.DISLOCATIONS, name)
        lattice, kind, variant = (*name.split("-", 2), "", "")[:3]
        if not isinstance(found, Dislocation) or lattice not in LATTICES or kind not in KINDS:
            raise plugins.BadPlugin(
                f"{plugins.told(plugins.DISLOCATIONS, name)} is not one: it must be a Dislocation, and its name "
                f"LATTICE-KIND or LATTICE-KIND-VARIANT with {', '.join(LATTICES)} and {', '.join(KINDS)}"
            )
        added[lattice, kind, variant] = found
    return added | CATALOGUE


def catalogue_entry(lattice: str, kind: str, variant: str = "") -> Dislocation:
    """The dislocation of `kind` and `variant` in `lattice`; raises `KeyError` with the known ones."""
    known = dislocations()
    if (lattice, kind, variant) not in known:
        raise KeyError(f"no {kind} {variant} dislocation in {lattice}; known: {known_entries()}")
    return known[lattice, kind, variant]


def known_entries() -> str:
    """The catalogue in words."""
    entries = [*dislocations(), *((lattice, "loop", variant) for lattice, variant in LOOPS)]
    return ", ".join(f"{kind}{f' (variant {v!r})' if v else ''} in {lattice}" for lattice, kind, v in entries)


def partner_site(lattice: str, dislocation: Dislocation, site: Site) -> Site:
    """The core site of -b that is equivalent to `site` of +b, in the same gap of atomic planes if there is one.

    Inversion about a centre of the crystal turns b into -b (u(x) -> -u(-x)); Bravais translations then bring the site
    as close to the original one as they can.
    """
    crystal = Crystal(LATTICES[lattice], ("H",) * 2, 1.0)
    inverted = 2 * (dislocation.frame @ crystal.lattice.centre)[:2] / dislocation.lengths[:2] - np.array(site)
    unit, basis = unit_sites(crystal, dislocation)
    translations = unit[basis == 0][:, :2] / dislocation.lengths[:2]
    images = (inverted + translations + 1e-9) % 1.0 - 1e-9
    away = np.abs(images - np.array(site))
    best = images[np.lexsort((away[:, 0].round(6), away[:, 1].round(6)))[0]]
    return (float(best[0].round(9)), float(best[1].round(9)))


# Positions of the cores as fractions of the cell, and the sign of each: rows of cores at one height sum to zero.
ARRANGEMENTS: dict[str, tuple[tuple[float, float, int], ...]] = {
    "quadrupole": ((0.25, 0.25, +1), (0.75, 0.25, -1), (0.25, 0.75, -1), (0.75, 0.75, +1)),
    # Edges of one sign above each other hold each other in place; in the quadrupole they have opposite neighbours above
    # and beside them, and glide together unless the Peierls stress is as high as in silicon.
    "walls": ((0.25, 0.25, +1), (0.75, 0.25, -1), (0.25, 0.75, +1), (0.75, 0.75, -1)),
    "dipole": ((0.25, 0.5, +1), (0.75, 0.5, -1)),
}


def arrange(arrangement: str, repeats: tuple[int, int], sites: tuple[Site, Site]) -> tuple[np.ndarray, np.ndarray]:
    """Core positions (m, 2) in units of the frame's unit cell, snapped to core sites, and signs (m,)."""
    positions, signs = [], []
    for f1, f2, sign in ARRANGEMENTS[arrangement]:
        site = np.array(sites[0 if sign > 0 else 1])
        wanted = np.array([f1, f2]) * repeats
        positions.append(np.floor(wanted) + site)
        signs.append(sign)
    return np.array(positions), np.array(signs)


# --- Burgers circuits ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Circuits:
    """Elementary circuits: a periodic triangulation of the atomic columns of one sublattice, seen along the line.

    `triangles` (t, 3) atom indices; `offsets` (t, 3, 3): what to add to the displacement of a corner, because an image
    across the second cell vector is displaced by its tilt too, Å; `centres` (t, 2), Å.
    """

    triangles: np.ndarray
    offsets: np.ndarray
    centres: np.ndarray
    lattice_vectors: np.ndarray
    size: np.ndarray

    def burgers(self, displacement: np.ndarray) -> np.ndarray:
        """Burgers vector enclosed by every triangle, (t, 3), Å, for the displacement (n, 3) of all atoms.

        Each difference of displacement along a bond is reduced to its smallest lattice-equivalent value; what the
        three of them do not close by is the Burgers vector. It is a lattice vector, or zero, by construction.
        """
        # counter-clockwise from just below the cut to just above it: u grows by [[u]] = b
        return self.steps(displacement).sum(axis=1)

    def steps(self, displacement: np.ndarray) -> np.ndarray:
        """Differences of displacement along the three bonds of every triangle, (t, 3, 3), reduced, Å."""
        corners = displacement[self.triangles] + self.offsets
        steps = np.roll(corners, -1, axis=1) - corners
        steps -= np.rint(steps @ np.linalg.inv(self.lattice_vectors)) @ self.lattice_vectors
        # what is shorter than half the shortest lattice vector has no shorter equivalent: all but a few next to cores
        long = (steps**2).sum(axis=-1) >= (self._shortest / 2) ** 2
        trial = steps[long][:, None] - _AROUND @ self.lattice_vectors
        steps[long] = np.take_along_axis(trial, (trial**2).sum(-1).argmin(-1)[:, None, None], axis=1).squeeze(1)
        return steps

    @property
    def _shortest(self) -> float:
        """Length of the shortest lattice vector, Å."""
        lengths = np.linalg.norm(_AROUND @ self.lattice_vectors, axis=1)
        return float(lengths[lengths > 0].min())

    def ambiguous(self, steps: np.ndarray) -> np.ndarray:
        """Triangles with a bond whose reduction could have been another one, (t,) bool, for reduced `steps`.

        A step shorter than half the shortest lattice vector has one nearest lattice vector; to be safe from small
        shifts, 0.4 of it is the limit here. Across a stacking fault of fcc, where the step is 1/6<112>, three are
        equally near, so that single triangles there close or not by chance: only the outline of the whole ribbon tells
        its Burgers vector.
        """
        return (np.linalg.norm(steps, axis=-1) > 0.4 * self._shortest).any(axis=1)


_AROUND = np.array(list(product((-1, 0, 1), repeat=3)))


def elementary_circuits(
    reference: np.ndarray, size: np.ndarray, lattice_vectors: np.ndarray, tilt: np.ndarray | None = None
) -> Circuits:
    """Triangulate the columns of `reference` (n, 3; one sublattice) in a periodic cell of `size` (2,), Å.

    `tilt` (3,) is the change of the second cell vector, Å.
    """
    plane = reference[:, :2]
    shifts = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)], dtype=float)
    margin = 0.25 if len(plane) > 60 else 1.0
    images, owner, rows = [], [], []
    for shift in shifts:
        moved = plane + shift * size
        fraction = moved / size
        inside = ((fraction > -margin) & (fraction < 1 + margin)).all(axis=1)
        images.append(moved[inside])
        owner.append(np.flatnonzero(inside))
        rows.append(np.full(int(inside.sum()), shift[1]))
    points, atoms = np.vstack(images), np.concatenate(owner)
    # columns on a regular grid are degenerate for Delaunay: a fixed tiny shear breaks the ties periodically
    sheared = points @ np.array([[1.0, 1e-4], [2e-4, 1.0]])
    from scipy.spatial import Delaunay

    simplices = Delaunay(sheared).simplices
    centres = points[simplices].mean(axis=1)
    inside = ((centres >= -1e-9) & (centres < size - 1e-9)).all(axis=1)
    simplices, centres = simplices[inside], centres[inside]
    a, b, c = (points[simplices[:, k]] for k in range(3))
    clockwise = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0] < 0
    simplices[clockwise] = simplices[clockwise][:, ::-1]
    offsets = np.concatenate(rows)[simplices][..., None] * (np.zeros(3) if tilt is None else tilt)
    return Circuits(atoms[simplices], offsets, centres, lattice_vectors, size)


@dataclass(frozen=True)
class FoundCore:
    """A place where elementary circuits do not close: position (2,), Å, and Burgers vector (3,), Å."""

    position: np.ndarray
    burgers: np.ndarray


def find_cores(circuits: Circuits, displacement: np.ndarray, radius: float) -> list[FoundCore]:
    """Cores in the displacement field (n, 3): open circuits within `radius` of each other are one core.

    So are those that a chain of ambiguous circuits connects: a stacking fault and the partials at its ends.
    """
    steps = circuits.steps(displacement)
    density = steps.sum(axis=1)
    open_ = np.flatnonzero((np.abs(density) > 1e-6).any(axis=1) | circuits.ambiguous(steps))
    cores: list[FoundCore] = []
    left = list(open_)
    while left:
        group = [left.pop(0)]
        for member in group:
            away = nearest_image(circuits.centres[left] - circuits.centres[member], circuits.size)
            close = np.linalg.norm(away, axis=1) < radius
            group += [left[i] for i in np.flatnonzero(close)]
            left = [left[i] for i in np.flatnonzero(~close)]
        away = nearest_image(circuits.centres[group] - circuits.centres[group[0]], circuits.size)
        position = (circuits.centres[group[0]] + away.mean(axis=0)) % circuits.size
        burgers = density[group].sum(axis=0)
        if np.abs(burgers).max() > 1e-6:  # a closed pair is noise of a wide core, not a dislocation
            cores.append(FoundCore(position, burgers))
    return cores


def nearest_image(difference: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Shortest periodic equivalent of differences (..., 2) in a rectangular cell of `size` (2,)."""
    return difference - size * np.rint(difference / size)


def match_cores(
    found: list[FoundCore], positions: np.ndarray, burgers: np.ndarray, size: np.ndarray
) -> tuple[str, np.ndarray]:
    """Compare `found` cores with the intended `positions` (m, 2) and `burgers` (m, 3).

    Returns ("kept", shifts (m, 2)), ("annihilated", ...) when Burgers vectors have disappeared, or ("moved", ...) when
    the Burgers vectors are all there but not one core at each intended place.
    """
    shifts = np.full_like(positions, np.nan)
    left = list(found)
    for index, (position, b) in enumerate(zip(positions, burgers, strict=True)):
        same = [core for core in left if np.abs(core.burgers - b).max() < 1e-3 * np.abs(b).max() + 1e-6]
        if same:
            away = np.array([nearest_image(core.position - position, size) for core in same])
            nearest = int(np.linalg.norm(away, axis=1).argmin())
            shifts[index] = away[nearest]
            left = [core for core in left if core is not same[nearest]]
    if not np.isnan(shifts).any() and not left:
        return "kept", shifts
    content = sum(np.abs(core.burgers).sum() for core in found)
    intended = np.abs(burgers).sum()
    return ("moved" if content > intended - 1e-3 else "annihilated"), shifts
