"""A run's dislocations in three dimensions: an interactive page, which is one file that needs no network.

It holds the library plotly, the atoms near the dislocations only, and two scenes that turn together: the equilibrium of
the reference beside that of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from suite.show.defects import EQUILIBRIA, Defects
from suite.show.page import template
from suite.show.style import BLUE, GREY, ORANGE
from suite.text import short
from suite.trainers.needed import needed
from suite.world.dislocation import Loop

MOST = 20_000  # dots of a scene: more make turning slow
THICKNESS = 6  # a0; a cell that is thinner along the line is shown several times, so that lines look like lines
CORNERS = np.array([[k >> axis & 1 for axis in range(3)] for k in range(8)])
EDGES = [(a, b) for a in range(8) for b in range(a) if np.abs(CORNERS[a] - CORNERS[b]).sum() == 1]


def scene_path(workspace: Path, run_id: str) -> Path:
    """Where the page of a run is, unless another place is named."""
    return workspace / "figures" / run_id / "view.html"


def write_scene(found: Defects, name: str, outcome: str, path: Path) -> Path:
    """Write the page of a run, called `name`, with this `outcome`, to `path`.

    Raises `MissingPackage` without plotly.
    """
    needed("", "plotly", "plotly", "view", "the view")
    from plotly.offline import get_plotlyjs

    scenes = _Scenes(found)
    page = template("scene.html").render(
        title=f"{found.spec.case.title}: {name}",
        facts=[f"Outcome: {outcome}.", _crystallography(found), scenes.shown],
        library=get_plotlyjs(),
        content={"traces": scenes.traces(), "layout": scenes.layout(), "colours": scenes.colours, "eyes": scenes.eyes},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _crystallography(found: Defects) -> str:
    """Burgers vector and line direction in words, in cubic axes."""
    burgers = f"Burgers vector {miller(found.kind.burgers)} a0"
    if isinstance(found.kind, Loop):
        return f"{burgers}, along the normal of the loop. Diameter {found.spec.dislocation.diameter:g} a0."
    line = miller(found.kind.periods[2], primitive=True)
    return f"{burgers}, line direction {line}. {len(found.group['core_burgers'])} dislocations."


def miller(vector: Sequence[float], primitive: bool = False) -> str:
    """A vector in cubic axes as "1/2 [1 -1 1]"; if `primitive`, its direction alone."""
    parts = [Fraction(component).limit_denominator(12) for component in vector]
    below = lcm(*(part.denominator for part in parts))
    whole = np.array([int(part * below) for part in parts])
    common = int(np.gcd.reduce(whole))
    factor = Fraction(common, below)
    direction = "[" + " ".join(str(each) for each in whole // common) + "]"
    return direction if primitive or factor == 1 else f"{factor} {direction}"


class _Scenes:
    """What the page shows of the defects `found`, as plotly's library reads it."""

    def __init__(self, found: Defects) -> None:
        self.found = found
        self.copies = 1
        if not isinstance(found.kind, Loop):
            wanted = round(THICKNESS * found.crystal.a0 / float(found.box[2, 2]))
            self.copies = max(1, min(wanted, MOST // max(1, len(found.atoms))))
        self.atoms = found.atoms[: MOST // self.copies]
        self.colours = self._colours()
        self.eyes = self._eyes()

    @property
    def shown(self) -> str:
        """Which atoms are shown, in words."""
        found = self.found
        told = [
            f"{len(self.atoms)} of {found.places.shape[1]} atoms are shown: those where the vector to a neighbour "
            f"differs by more than {found.limit:.2g} Å from all that the perfect crystal has."
        ]
        if left := len(found.atoms) - len(self.atoms):
            told.append(f"{left} more, which are less distorted, are left out.")
        if self.copies > 1:
            told.append(f"The cell is shown {self.copies} times along the line.")
        looped = isinstance(found.kind, Loop)
        told.append(
            "Orange points: circuits of neighbours that the dislocation line crosses."
            if looped
            else "Lines: where the cores of +b (blue) and −b (orange) were put before the relaxation."
        )
        return " ".join(told)

    def _repeated(self, values: np.ndarray) -> np.ndarray:
        """Values of all atoms -> those of the dots, copy by copy."""
        return np.concatenate([values[self.atoms]] * self.copies)

    def _colours(self) -> list[dict[str, Any]]:
        """What the dots can be coloured by: words, values for both scenes, limits and ticks of the scale."""
        length = np.linalg.norm(self.found.apart, axis=1)
        choices = []
        for words, values in (("displacement error [Å]", length), ("bond error [Å]", self.found.bond_error)):
            dots = np.log10(np.maximum(self._repeated(values), SMALLEST))
            low, high = _limits(dots)
            ticks = [each for each in TICKS if low <= np.log10(each) <= high]
            choices.append(
                {
                    "words": words,
                    "values": [dots.round(3).tolist()] * 2,
                    "limits": [low, high],
                    "ticks": {"tickvals": np.log10(ticks).tolist(), "ticktext": [f"{each:g}" for each in ticks]},
                }
            )
        both = [self._repeated(each).round(4) for each in self.found.distorted]
        limits = [0.0, float(max((each.max() for each in both if len(each)), default=1.0))]
        even = {"words": "distortion [Å]", "values": [each.tolist() for each in both], "limits": limits, "ticks": None}
        return [*choices, even]

    def _eyes(self) -> dict[str, dict[str, Any]]:
        """Named places of the camera, and what is up in each; the first is the one to begin with."""
        if isinstance(self.found.kind, Loop):
            line = np.array(self.found.kind.burgers) / np.linalg.norm(self.found.kind.burgers)
            up = np.cross(line, np.eye(3)[np.argmin(np.abs(line))])
            up /= np.linalg.norm(up)
            names = ("along b", "from the side")
        else:
            line, up = np.eye(3)[2], np.eye(3)[1]
            names = ("along the line", "along e1")
        side = np.cross(up, line)
        size = np.diag(self.found.box) * (1, 1, self.copies)
        closer = 0.9 if isinstance(self.found.kind, Loop) else 1.25  # a loop is in the middle of its cell
        far = closer * float(size.max() / np.prod(size) ** (1 / 3))  # plotly counts in the mean of the three sides
        aslant = (2 * line + up + 1.5 * side) / np.sqrt(2**2 + 1 + 1.5**2)
        return {
            "aslant": _camera(far * aslant, up),
            **{name: _camera(far * eye, up) for name, eye in zip(names, (line, side), strict=True)},
        }

    def traces(self) -> list[dict[str, Any]]:
        """Dots, box and lines of both scenes; the first two are the dots of the reference and of the model."""
        both = range(len(EQUILIBRIA))
        return [self._dots(k) for k in both] + [self._box(k) for k in both] + [self._lines(k) for k in both]

    def _dots(self, number: int) -> dict[str, Any]:
        """The atoms of an equilibrium, with what is told under the pointer."""
        found, name = self.found, EQUILIBRIA[number]
        shifts = np.arange(self.copies)[:, None, None] * found.box[2]
        told = np.column_stack(
            [found.apart, np.linalg.norm(found.apart, axis=1), found.bond_error, found.distorted[number]]
        )
        numbers = found.group["species"].to_numpy()[self.atoms]
        words = [
            [chemical_symbols[species], int(atom), *map(short, row)]
            for species, atom, row in zip(numbers, self.atoms, told[self.atoms].tolist(), strict=True)
        ]
        return {
            **_trace(number, (found.places[number][self.atoms] + shifts).reshape(-1, 3)),
            "mode": "markers",
            "marker": {
                "size": 6,
                "color": self.colours[0]["values"][number],
                "coloraxis": "coloraxis",
                "line": _OUTLINE,
            },
            "hoverinfo": "all",
            "customdata": words * self.copies,
            "hovertemplate": (
                "%{customdata[0]}, atom %{customdata[1]}, at %{x:.2f}, %{y:.2f}, %{z:.2f} Å"
                "<br>displacement error %{customdata[5]} Å"
                "<br>= |%{customdata[2]}, %{customdata[3]}, %{customdata[4]}|"
                "<br>bond error %{customdata[6]} Å, distortion %{customdata[7]} Å"
                f"<extra>{name}</extra>"
            ),
        }

    def _box(self, number: int) -> dict[str, Any]:
        """The edges of the cell."""
        corners = CORNERS @ self.found.box
        gap = np.full(3, np.nan)
        places = np.array([point for a, b in EDGES for point in (corners[a], corners[b], gap)])
        return {**_trace(number, places), "mode": "lines", "line": {"color": GREY, "width": 2}}

    def _lines(self, number: int) -> dict[str, Any]:
        """Where the dislocations are: the open circuits of a loop, or lines through the nominal cores."""
        group = self.found.group
        if isinstance(self.found.kind, Loop):
            places = group[("loop_line", "loop_line_model")[number]].to_numpy() + group["loop_centre"].to_numpy()
            style = {"mode": "markers", "marker": {"size": 2, "color": ORANGE}}
            return {**_trace(number, places), **style}
        cores = group["core_position"].to_numpy()
        signs = np.sign(group["core_burgers"].to_numpy() @ group["core_burgers"].to_numpy()[0])
        ends = np.array([0.0, self.copies * self.found.box[2, 2], np.nan])
        places = np.array([[*core, end] for core in cores for end in ends])
        colours = [BLUE if sign > 0 else ORANGE for sign in signs for _ in ends]
        return {
            **_trace(number, places),
            "mode": "lines",
            "line": {"color": colours, "width": 5},
        }

    def layout(self) -> dict[str, Any]:
        """Scenes side by side with a common scale."""
        first = self.colours[0]
        camera = next(iter(self.eyes.values()))
        axes = {f"{axis}axis": {"title": {"text": f"{axis} [Å]"}, "showbackground": False} for axis in "xyz"}
        scenes = {
            _scene(k): {
                "domain": {"x": [0.5 * k, 0.5 * k + 0.5]},
                "aspectmode": "data",
                "dragmode": "orbit",
                "camera": camera,
                **axes,
            }
            for k in range(len(EQUILIBRIA))
        }
        titles = [
            {
                "text": f"<b>{name}</b>",
                "x": 0.25 + 0.5 * k,
                "y": 1,
                "xref": "paper",
                "yref": "paper",
                "showarrow": False,
            }
            for k, name in enumerate(EQUILIBRIA)
        ]
        bar = {"title": {"text": first["words"], "side": "right"}, "thickness": 14, "len": 0.85, **first["ticks"]}
        low, high = first["limits"]
        return {
            **scenes,
            "annotations": titles,
            "coloraxis": {"colorscale": "Viridis", "cmin": low, "cmax": high, "colorbar": bar},
            "margin": {"l": 0, "r": 0, "t": 24, "b": 0},
            "modebar": {"bgcolor": "rgba(0,0,0,0)"},
            "paper_bgcolor": "rgba(0,0,0,0)",
        }


_OUTLINE = {"color": "rgba(0,0,0,0.6)", "width": 1}
SMALLEST = 1e-12  # Å, of what a logarithm is taken
TICKS = [first * 10.0**power for power in range(-8, 2) for first in (1, 2, 5)]


def _limits(logarithms: np.ndarray) -> tuple[float, float]:
    """Limits of a logarithmic scale: the lowest hundredth of the dots shares the lowest colour. It spans half a decade
    or more, so that it has ticks."""
    if len(logarithms) == 0:
        return -3.0, 0.0
    high = float(logarithms.max())
    return min(float(np.quantile(logarithms, 0.01)), high - 0.5), high


def _scene(number: int) -> str:
    return "scene" if number == 0 else f"scene{number + 1}"


def _trace(number: int, places: np.ndarray) -> dict[str, Any]:
    """The common part of a trace of an equilibrium, at `places` (k, 3) Å; nan interrupts a line."""
    rows = np.where(np.isnan(places), None, places.round(3).astype(object))  # type: ignore[call-overload]
    x, y, z = rows.T.tolist() if len(rows) else ([], [], [])
    common = {"type": "scatter3d", "scene": _scene(number), "hoverinfo": "skip", "showlegend": False}
    return {**common, "x": x, "y": y, "z": z}


def _camera(eye: np.ndarray, up: np.ndarray) -> dict[str, Any]:
    def point(vector: np.ndarray) -> dict[str, float]:
        return dict(zip("xyz", vector.round(4).tolist(), strict=True))

    return {"eye": point(eye), "up": point(up), "projection": {"type": "orthographic"}}
