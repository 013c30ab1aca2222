"""The files in which python-ace names an ACE basis, read and written without python-ace.

`potential.yaml` ("B-basis") has an entry for each function: elements, radial numbers n, angular momenta l and the
intermediate momenta L of its coupling. `potential.yace` ("C-tilde", which LAMMPS reads) has products of A_nlm instead,
with the coefficients multiplied in: functions that differ in L alone are one entry there, and cannot be told apart
again. So the first names any basis; the second only those where every entry has one possible coupling, which is so for
products of up to three neighbours. Such bases can be made from keys alone, too (`of_keys`).

A function is Σ_m c(l, L, m) Π_k A_{n_k l_k m_k}, with Clebsch-Gordan coefficients along a tree: neighbours 1 and 2
couple to L_1, 3 and 4 to L_2, these two to L_3, and so on, in the end to zero. R. Drautz, Phys. Rev. B 99, 014104
(2019); Y. Lysogorskiy et al., npj Comput. Mater. 7, 97 (2021).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement, product
from math import factorial, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from store.faults import BadInput

PLAIN, COMPILED = "potential.yaml", "potential.yace"  # of a saved model; the second is for `pair_style pace` of LAMMPS
MOST_NEIGHBOURS = 6  # larger products have another tree, which no basis of ours needs
MOST_FREE = 3  # neighbours; with more, not all couplings of a product are independent
CUT_WIDTH, SPLINE_BIN = 0.01, 1e-3  # Å; as in `suite.model.basis`: python-ace alone reads them
FAR, WIDTH = 1e5, 250.0  # of the core repulsion's switch, which is off: what python-ace writes itself
PRODUCTS = "products of {} neighbours, and {} are the most"

Momenta = tuple[int, ...]


class BadBasisFile(BadInput, ValueError):
    """A file that names no basis of functions, or one that cannot be read without python-ace."""


@dataclass(frozen=True)
class Function:
    """One function of the atoms of element `centre`: indices of its neighbours' elements, n, l, and L of the tree."""

    centre: int
    rank: int
    elements: tuple[int, ...]
    n: tuple[int, ...]
    l: Momenta  # noqa: E741 - the field's name for it
    couplings: Momenta

    @property
    def place(self) -> tuple[Any, ...]:
        """What python-ace sorts functions by; those that differ in L alone stay as they are listed."""
        return self.centre, self.rank, self.elements, self.n, self.l


@dataclass(frozen=True)
class Bond:
    """Radial functions of a pair of elements: R_nl = Σ_k `coefficients`[n, l, k] g_k; lengths in Å."""

    cutoff: float
    width: float
    inner: tuple[float, float]
    inner_kind: str
    radial: str
    parameters: tuple[float, ...]
    base: int
    coefficients: tuple[tuple[tuple[float, ...], ...], ...]


@dataclass(frozen=True)
class BasisFile:
    """A basis: elements in the order of the alphabet, radial functions of ordered pairs, functions in python-ace's
    order (by element, number of neighbours, their elements, n, l)."""

    elements: tuple[str, ...]
    bonds: Mapping[tuple[int, int], Bond]
    functions: tuple[Function, ...]
    spline: float

    @property
    def cutoff(self) -> float:
        """The largest distance, Å, that interacts."""
        return max(bond.cutoff for bond in self.bonds.values())


# --- couplings -------------------------------------------------------------------------------------------------------


@cache
def clebsch_gordan(j1: int, m1: int, j2: int, m2: int, j: int, m: int) -> float:
    """⟨j1 m1 j2 m2 | j m⟩ of whole numbers, by Racah's sum (Varshalovich et al., Quantum Theory of Angular Momentum,
    section 8.2)."""
    if m1 + m2 != m or not abs(j1 - j2) <= j <= j1 + j2 or abs(m1) > j1 or abs(m2) > j2 or abs(m) > j:
        return 0.0
    f = factorial
    total = 0.0
    for k in range(max(0, j2 - j - m1, j1 - j + m2), min(j1 + j2 - j, j1 - m1, j2 + m2) + 1):
        bottom = f(k) * f(j1 + j2 - j - k) * f(j1 - m1 - k) * f(j2 + m2 - k) * f(j - j2 + m1 + k) * f(j - j1 - m2 + k)
        total += (-1) ** k / bottom
    top = (2 * j + 1) * f(j + j1 - j2) * f(j - j1 + j2) * f(j1 + j2 - j)
    top *= f(j + m) * f(j - m) * f(j1 - m1) * f(j1 + m1) * f(j2 - m2) * f(j2 + m2)
    return sqrt(top / f(j1 + j2 + j + 1)) * total


@cache
def tree(rank: int) -> tuple[tuple[int, int], ...]:
    """Which two momenta each step couples: leaves are 0 .. rank - 1, the result of step k is rank + k; the last gives
    zero."""
    pairs = [(k, k + 1) for k in range(0, rank - 1, 2)]
    steps: list[tuple[int, int]] = []
    open_: list[int] = []  # what is not coupled yet
    for pair in pairs:
        steps.append(pair)
        open_.append(rank + len(steps) - 1)
        if len(open_) == 2 and (len(steps) < rank - 1):
            steps.append((open_[0], open_[1]))
            open_ = [rank + len(steps) - 1]
    if rank % 2:
        open_.append(rank - 1)
    if len(open_) == 2:
        steps.append((open_[0], open_[1]))
    return tuple(steps)


def possible(l: Momenta) -> Iterator[Momenta]:  # noqa: E741
    """Intermediate momenta with which momenta `l` couple to zero."""
    rank = len(l)
    if rank == 1:
        if l == (0,):
            yield ()
        return
    steps = tree(rank)

    def follow(found: Momenta) -> Iterator[Momenta]:
        step = len(found) - rank
        a, b = (found[k] for k in steps[step])
        if step == len(steps) - 1:
            if a == b:
                yield found[rank:]
            return
        for j in range(abs(a - b), a + b + 1):
            yield from follow((*found, j))

    yield from follow(l)


@cache
def coupling(l: Momenta, couplings: Momenta) -> tuple[tuple[Momenta, float], ...]:  # noqa: E741
    """Projections m of the product of momenta `l` and their coefficients c(l, L, m), those that are not zero.

    The real part of a product is that of its complex conjugate, where all m change sign; so of each such two only one
    is listed, with twice the coefficient.
    """
    rank = len(l)
    if rank == 1:
        return (((0,), 1.0),)
    steps = tree(rank)
    momenta = (*l, *couplings, 0)
    found = []
    for free in product(*(range(-j, j + 1) for j in l[:-1])):
        last = -sum(free)
        if abs(last) > l[-1]:
            continue
        m = (*free, last)
        first = next((x for x in m if x), 0)
        if first < 0:
            continue
        projections, value = list(m), 1.0
        for step, (a, b) in enumerate(steps):
            j = rank + step
            projections.append(projections[a] + projections[b])
            value *= clebsch_gordan(momenta[a], projections[a], momenta[b], projections[b], momenta[j], projections[j])
            if value == 0:
                break
        if value != 0:
            found.append((m, value * (2 if first else 1)))
    return tuple(found)


# --- from keys -------------------------------------------------------------------------------------------------------


def of_keys(
    species: Sequence[str],
    cutoff: float,
    channels: Sequence[int],
    degrees: Sequence[int],
    total_degree: Sequence[float] = (),
    angular_weight: float = 1.0,
) -> BasisFile:
    """The basis that python-ace makes of these keys (see `suite.model.basis.AceBasis`), of up to three neighbours: for
    more, couplings of one product depend on each other, and python-ace has tables of those that it keeps.

    Raises `BadBasisFile`.
    """
    if not 1 <= len(channels) == len(degrees) <= MOST_FREE:
        raise BadBasisFile(
            f"channels {list(channels)} and degrees {list(degrees)} must be equally long, and {MOST_FREE} entries are "
            "the most: name a basis file for products of more neighbours"
        )
    if min(channels) < 1 or min(degrees) < 0 or degrees[0] != 0:
        raise BadBasisFile(f"channels {list(channels)} must be positive; degrees {list(degrees)} >= 0, the first 0")
    if list(channels) != sorted(channels, reverse=True):
        raise BadBasisFile(f"channels {list(channels)} must not increase with the number of neighbours")
    if total_degree and len(total_degree) != len(channels) - 1:
        raise BadBasisFile(f"total_degree {list(total_degree)} must have {len(channels) - 1} entries")
    elements = tuple(sorted(species))
    wide = channels[1] if len(channels) > 1 else 0
    one = tuple(
        tuple(tuple(float(n == k) for k in range(channels[0])) for _ in range(max(degrees) + 1)) for n in range(wide)
    )
    bond = Bond(cutoff, CUT_WIDTH, (0.0, 0.0), "distance", "SBessel", (cutoff,), channels[0], one)
    factors = [
        list(product(range(len(elements)), range(1, most + 1), range(degree + 1)))
        for most, degree in zip(channels, degrees, strict=True)
    ]
    functions = []
    for rank, choices in enumerate(factors, start=1):
        for chosen in combinations_with_replacement(choices, rank):
            kinds, n, l = zip(*chosen, strict=True)  # noqa: E741
            degree = sum(n) - rank + angular_weight * sum(l)
            kept = rank == 1 or not total_degree or degree <= total_degree[rank - 2] + 1e-9
            if kept and sum(l) % 2 == 0:  # a product that is odd changes its sign in a mirror
                functions += [
                    Function(centre, rank, kinds, n, l, ways) for ways in possible(l) for centre in range(len(elements))
                ]
    bonds = {(i, j): bond for i in range(len(elements)) for j in range(len(elements))}
    return BasisFile(elements, bonds, _sorted(functions), SPLINE_BIN)


# --- reading ---------------------------------------------------------------------------------------------------------


def read(path: Path) -> BasisFile:
    """The basis that a `.yaml` or `.yace` file of python-ace names; coefficients are ignored. Raises `BadBasisFile`."""
    found = path.expanduser().resolve()
    try:
        state = found.stat()
    except OSError as error:
        raise BadBasisFile(f"{path} cannot be read: {error.strerror}") from error
    return _read(found, state.st_mtime_ns, state.st_size)


@cache
def _read(path: Path, changed: int, size: int) -> BasisFile:
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Pairs of elements are keys of a `.yace`: sequences, which become tuples."""

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadBasisFile(f"{path} is not a YAML file: {str(error).splitlines()[0]}") from error
    if not isinstance(content, Mapping) or not ({"species", "functions"} & set(content)):
        raise BadBasisFile(f"{path} has neither 'species' (a .yaml of python-ace) nor 'functions' (a .yace)")
    try:
        basis = _of_blocks(content) if "species" in content else _of_products(content)
    except BadBasisFile as error:
        raise BadBasisFile(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise BadBasisFile(f"{path} is not as python-ace writes it: {type(error).__name__}: {error}") from error
    _check(path, basis)
    return basis


def _mapping(loader: Any, node: Any) -> dict[Any, Any]:
    pairs = [[loader.construct_object(part, deep=True) for part in pair] for pair in node.value]
    return {tuple(key) if isinstance(key, list) else key: value for key, value in pairs}


def _bond(table: Mapping[str, Any], suffix: str, radial: str, base: str) -> Bond:
    if any(float(value) for value in table.get("core-repulsion", [table.get("prehc", 0)])):
        raise BadBasisFile("a core repulsion is no function of a basis: remove it")
    return Bond(
        float(table["rcut" + suffix]),
        float(table["dcut" + suffix]),
        (float(table.get("r_in", table.get("rcut_in", 0))), float(table.get("delta_in", table.get("dcut_in", 0)))),
        str(table.get("inner_cutoff_type", "density")),
        str(table[radial]),
        tuple(float(x) for x in table["radparameters"]),
        int(table[base]),
        tuple(tuple(tuple(float(x) for x in row) for row in rows) for rows in table["radcoefficients"]),
    )


def _of_blocks(content: Mapping[str, Any]) -> BasisFile:
    """From the blocks of a `.yaml`: one for each ordered set of elements, of which the first is the centre."""
    blocks = [(str(block["speciesblock"]).split(), block) for block in content["species"]]
    elements = tuple(sorted({names[0] for names, _ in blocks}))
    place = {name: k for k, name in enumerate(elements)}
    bonds, functions = {}, []
    for names, block in blocks:
        if len(names) <= 2:
            pair = (place[names[0]], place[names[-1]])
            bonds[pair] = _bond(block, "ij", "radbase", "nradbaseij")
        for entry in block.get("nbody") or []:
            centre, *others = (place[name] for name in str(entry["type"]).split())
            rank = len(others)
            l = tuple(int(x) for x in entry["nl"])  # noqa: E741
            if rank > MOST_NEIGHBOURS:
                raise BadBasisFile(PRODUCTS.format(rank, MOST_NEIGHBOURS))
            couplings = tuple(int(x) for x in entry.get("lint", ())) if rank > 2 else ()
            if len(couplings) != max(rank - 2, 0):
                raise BadBasisFile(f"lint {list(couplings)} of nl {list(l)} must have {rank - 2} entries")
            functions.append(Function(centre, rank, tuple(others), tuple(int(x) for x in entry["nr"]), l, couplings))
    return BasisFile(elements, bonds, _sorted(functions), float(content["global"]["DeltaSplineBins"]))


def _sorted(functions: Sequence[Function]) -> tuple[Function, ...]:
    return tuple(sorted(functions, key=lambda function: function.place))


def _of_products(content: Mapping[str, Any]) -> BasisFile:
    """From the products of a `.yace`."""
    names = [str(name) for name in content["elements"]]
    elements = tuple(sorted(names))
    place = [elements.index(name) for name in names]
    bonds = {
        (place[i], place[j]): _bond(bond, "", "radbasename", "nradbasemax") for (i, j), bond in content["bonds"].items()
    }
    functions = []
    for centre, entries in content["functions"].items():
        for entry in entries:
            others = tuple(place[k] for k in entry["mus"])
            n, l = (tuple(int(x) for x in entry[key]) for key in ("ns", "ls"))  # noqa: E741
            if len(l) > MOST_NEIGHBOURS:
                raise BadBasisFile(PRODUCTS.format(len(l), MOST_NEIGHBOURS))
            ways = list(possible(l))
            if len(ways) != 1:
                raise BadBasisFile(
                    f"l = {list(l)} couples in {len(ways)} ways, and a .yace does not tell which of them are functions "
                    "of their own: name the .yaml of the same potential"
                )
            functions.append(Function(place[centre], len(l), others, n, l, ways[0]))
    return BasisFile(elements, bonds, _sorted(functions), float(content["deltaSplineBins"]))


def _check(path: Path, basis: BasisFile) -> None:
    """That every function is there once, has its radial functions, and couples to zero."""
    for name in basis.elements:
        if name not in atomic_numbers:
            raise BadBasisFile(f"{path}: {name!r} is not a chemical symbol")
    pairs = set(product(range(len(basis.elements)), repeat=2))
    if set(basis.bonds) != pairs:
        raise BadBasisFile(f"{path}: there must be one bond for each ordered pair of {', '.join(basis.elements)}")
    if not basis.functions or len(set(basis.functions)) != len(basis.functions):
        raise BadBasisFile(f"{path}: each function must be listed once, and there must be one")
    for f in basis.functions:
        told = f"{path}: the function nr {list(f.n)}, nl {list(f.l)}, lint {list(f.couplings)}"
        if not len(f.elements) == len(f.n) == len(f.l) == f.rank:
            raise BadBasisFile(f"{told} has lists of different lengths")
        bonds = [basis.bonds[f.centre, other] for other in f.elements]
        for n, l, bond in zip(f.n, f.l, bonds, strict=True):  # noqa: E741
            rows = bond.coefficients
            within = n <= bond.base if f.rank == 1 else n <= len(rows) and l < len(rows[n - 1])
            if not (n >= 1 and l >= 0 and within):
                raise BadBasisFile(f"{told} needs a radial function that its bond does not have")
        if not coupling(f.l, f.couplings):
            raise BadBasisFile(f"{told} does not couple to zero")


# --- writing ---------------------------------------------------------------------------------------------------------


def written(basis: BasisFile, coefficients: np.ndarray, energy_per_atom: float) -> dict[str, str]:
    """Texts of `potential.yaml` and `potential.yace` of the model with these coefficients (functions,), by name.

    As in python-ace's own files, energies of isolated atoms are in the second one only.
    """
    if coefficients.shape != (len(basis.functions),):
        raise BadBasisFile(f"{len(basis.functions)} coefficients expected, got shape {coefficients.shape}")
    return {
        PLAIN: _blocks(basis, coefficients, energy_per_atom),
        COMPILED: products(basis, coefficients, energy_per_atom, merged=True),
    }


def _number(value: float) -> str:
    return repr(float(value))


def _list(values: Sequence[Any]) -> str:
    """Numbers in brackets, nested as they are."""
    inner = [_list(x) if isinstance(x, list | tuple) else str(x) if isinstance(x, int) else _number(x) for x in values]
    return f"[{', '.join(inner)}]"


def _blocks(basis: BasisFile, coefficients: np.ndarray, energy_per_atom: float) -> str:
    by_elements: dict[tuple[int, ...], list[str]] = {(i,): [] for i in range(len(basis.elements))}
    by_elements |= {pair: [] for pair in basis.bonds if pair[0] != pair[1]}
    for f, value in zip(basis.functions, coefficients, strict=True):
        kinds = (f.centre, *sorted(set(f.elements) - {f.centre}))
        names = " ".join(basis.elements[k] for k in (f.centre, *f.elements))
        lint = f", lint: {_list(f.couplings)}" if f.rank > 2 else ""
        entry = f"{{type: {names}, nr: {_list(f.n)}, nl: {_list(f.l)}{lint}, c: [{_number(value)}]}}"
        by_elements.setdefault(kinds, []).append(f"      - {entry}")
    lines = [f"# add {energy_per_atom!r} eV per atom", "global:", f"  DeltaSplineBins: {_number(basis.spline)}"]
    lines.append("species:")
    for kinds, entries in by_elements.items():
        lines.append(f"  - speciesblock: {' '.join(basis.elements[k] for k in kinds)}")
        table: dict[str, str] = {}
        if len(kinds) == 1:
            table |= {"ndensityi": "1", "npoti": "FinnisSinclair", "parameters": "[1, 1]"}
            table |= {"rho_core_cut": _number(FAR), "drho_core_cut": _number(WIDTH)}
        if len(kinds) <= 2:
            bond = basis.bonds[kinds[0], kinds[-1]]
            table |= {"nradmaxi": str(len(bond.coefficients)), "lmaxi": str(_highest(bond))}
            table |= {"rcutij": _number(bond.cutoff), "dcutij": _number(bond.width), "NameOfCutoffFunctionij": "cos"}
            table |= {"r_in": _number(bond.inner[0]), "delta_in": _number(bond.inner[1])}
            table |= {"inner_cutoff_type": bond.inner_kind, "nradbaseij": str(bond.base), "radbase": bond.radial}
            table |= {"radparameters": _list(bond.parameters), "radcoefficients": _list(bond.coefficients)}
            table |= {"core-repulsion": "[0, 0]"}
        lines += [f"    {key}: {value}" for key, value in table.items()]
        lines += ["    nbody:", *entries] if entries else ["    nbody: []"]
    return "\n".join(lines) + "\n"


def _highest(bond: Bond) -> int:
    return max((len(row) for row in bond.coefficients), default=1) - 1


def products(basis: BasisFile, coefficients: np.ndarray, energy_per_atom: float, merged: bool) -> str:
    """Text of a `.yace`. With `merged`, one entry for functions that differ in L alone, as python-ace writes it; else
    one for each function, in their order."""
    count = range(len(basis.elements))
    embedding = f"ndensity: 1, FS_parameters: [1, 1], npoti: FinnisSinclair, rho_core_cutoff: {FAR}"
    lines = [
        f"elements: [{', '.join(basis.elements)}]",
        f"E0: {_list([energy_per_atom] * len(basis.elements))}",
        f"deltaSplineBins: {_number(basis.spline)}",
        "embeddings:",
        *(f"  {k}: {{{embedding}, drho_core_cutoff: {WIDTH}}}" for k in count),
        "bonds:",
    ]
    for pair in sorted(basis.bonds):
        bond = basis.bonds[pair]
        # a basis of pair functions has no R_nl, but ace-jax reads no empty table of them
        radial = bond.coefficients or (((1.0,) + (0.0,) * (bond.base - 1),),)
        table = {
            "nradmax": str(len(radial)),
            "lmax": str(_highest(bond)),
            "nradbasemax": str(bond.base),
            "radbasename": bond.radial,
            "radparameters": _list(bond.parameters),
            "radcoefficients": _list(radial),
            "prehc": "0",
            "lambdahc": "0",
            "rcut": _number(bond.cutoff),
            "dcut": _number(bond.width),
            "rcut_in": _number(bond.inner[0]),
            "dcut_in": _number(bond.inner[1]),
            "inner_cutoff_type": bond.inner_kind,
        }
        lines.append(f"  {_list(pair)}: {{{', '.join(f'{key}: {value}' for key, value in table.items())}}}")
    entries: dict[Any, dict[Momenta, float]] = {}
    for place, (f, value) in enumerate(zip(basis.functions, coefficients, strict=True)):
        terms = entries.setdefault((f.centre, f.elements, f.n, f.l, None if merged else place), {})
        for m, c in coupling(f.l, f.couplings):
            terms[m] = terms.get(m, 0.0) + c * float(value)
    lines.append("functions:")
    for centre in count:
        own = [(key, terms) for key, terms in entries.items() if key[0] == centre]
        lines.append(f"  {centre}:" if own else f"  {centre}: []")
        for (_, elements, n, l, _), terms in own:  # noqa: E741
            words = f"mu0: {centre}, rank: {len(n)}, ndensity: 1, num_ms_combs: {len(terms)}"
            words += f", mus: {_list(elements)}, ns: {_list(n)}, ls: {_list(l)}"
            words += f", ms_combs: {_list([x for m in terms for x in m])}, ctildes: {_list(list(terms.values()))}"
            lines.append(f"    - {{{words}}}")
    return "\n".join(lines) + "\n"
