"""The distortion of an atom: nothing in a perfect crystal, cut or not, and a fault where the stacking is wrong."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from suite.world.crystal import LATTICES, Crystal
from suite.world.dislocation import Dislocation, catalogue_entry, unit_sites
from suite.world.distortion import distortion

CASES = [("bcc", "screw"), ("fcc", "edge"), ("diamond", "edge"), ("B2", "screw")]


def block(lattice: str, kind: str, repeats: int) -> tuple[Crystal, Dislocation, np.ndarray, np.ndarray, np.ndarray]:
    """A perfect crystal in the frame of a dislocation: its positions, sublattices and cell."""
    crystal = Crystal(LATTICES[lattice], ("Ni", "Al"), 3.0)
    entry = catalogue_entry(lattice, kind)
    sites, index = unit_sites(crystal, entry)
    lengths = entry.lengths * crystal.a0
    units = np.array(list(product(range(repeats), repeat=3))) * lengths
    positions = (units[:, None] + sites).reshape(-1, 3)
    return crystal, entry, positions, np.tile(index, len(units)), np.diag(repeats * lengths)


@pytest.mark.parametrize(("lattice", "kind"), CASES)
def test_a_perfect_crystal_has_none_and_a_cut_by_b_leaves_none(lattice: str, kind: str) -> None:
    crystal, entry, positions, index, box = block(lattice, kind, 4)
    assert distortion(positions, index, crystal, entry.frame, box).max() < 1e-9
    upper = positions[:, 1] > box[1, 1] / 2 - 1e-3
    shifted = positions + np.outer(upper, entry.burgers_frame * crystal.a0)
    assert distortion(shifted, index, crystal, entry.frame).max() < 1e-9, "the crystal is perfect again"
    half = distortion(positions + np.outer(upper, entry.burgers_frame * crystal.a0 / 2), index, crystal, entry.frame)
    away = np.abs(positions[:, 1] - box[1, 1] / 2)
    assert half.max() > 0.1 * crystal.a0
    assert half[away > 1.5 * crystal.a0].max() < 1e-9


def test_a_stacking_fault_is_distorted_by_what_separates_both_stackings() -> None:
    crystal, entry, positions, index, box = block("fcc", "edge", 4)
    fault = entry.fault_frame
    assert fault is not None
    upper = positions[:, 1] > box[1, 1] / 2 - 1e-3
    found = distortion(positions + np.outer(upper, fault * crystal.a0), index, crystal, entry.frame)
    assert found.max() == pytest.approx(crystal.a0 / np.sqrt(6)), "the length of a Shockley partial's Burgers vector"


def test_a_rotation_of_the_frame_changes_nothing() -> None:
    crystal, entry, positions, index, box = block("diamond", "edge", 3)
    moved = positions + 0.1 * np.random.default_rng(0).standard_normal(positions.shape)
    expected = distortion(moved, index, crystal, entry.frame, box)
    cubic = distortion(moved @ entry.frame, index, crystal, np.eye(3), box @ entry.frame)
    np.testing.assert_allclose(cubic, expected, atol=1e-9)
