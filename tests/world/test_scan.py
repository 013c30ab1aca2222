"""Candidate core sites."""

import numpy as np
import pytest

from suite.world.crystal import LATTICES, Crystal
from suite.world.dislocation import CATALOGUE, catalogue_entry
from suite.world.scan import candidate_sites


@pytest.mark.parametrize("key", CATALOGUE, ids=" ".join)
def test_candidates_lie_on_no_atom_and_are_different(key: tuple[str, str, str]) -> None:
    entry = catalogue_entry(*key)
    found = candidate_sites(Crystal(LATTICES[key[0]], ("Ni", "Al"), 3.0), key[0], entry, 4)
    assert found
    for sites in found:
        assert entry.core_on_atom(key[0], sites) is None
    assert len({plus for plus, _ in found}) == len(found)


def test_candidates_of_b2_are_also_between_like_columns_of_a_row() -> None:
    """Between two columns of nickel, (1/2, 0), and two of aluminium, (0, 1/2); no site in a row is on a column."""
    entry = catalogue_entry("B2", "screw")
    found = candidate_sites(Crystal(LATTICES["B2"], ("Ni", "Al"), 3.0), "B2", entry, 4)
    in_rows = {plus for plus, _ in found if np.isclose(plus[1] % 0.5, 0)}
    assert in_rows == {(0.5, 0.0), (0.0, 0.5)}
    centre = entry.sites["centre"]
    assert centre in found


def test_candidates_of_edges_and_of_cores_that_split_keep_between_the_planes() -> None:
    """The cut of an edge in a row of atoms would pull the row apart; a core splits in the gap of its glide plane."""
    for key in (("bcc", "edge", ""), ("fcc", "screw", "")):
        entry = catalogue_entry(*key)
        crystal = Crystal(LATTICES[key[0]], ("Cu",), 3.6)
        heights = {round(plus[1], 6) for plus, _ in candidate_sites(crystal, key[0], entry, 4)}
        planes = 2 if key[0] == "bcc" else 3
        assert all(np.isclose(height * planes % 1, 0.5) for height in heights)
