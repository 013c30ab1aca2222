"""Reduced blocks are exact, solvers are what scikit-learn and textbooks say, and weights mean what the loss says."""

from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import ARDRegression, BayesianRidge

from suite.model.regression import (
    SOLVERS,
    Block,
    Problem,
    Reducer,
    Solution,
    _determined,
    by_observable,
    joined,
    solve,
    stack,
    triangle_of,
    weighed,
)
from suite.spec import Solver, Spec

N = 7


def data(rows: int, seed: int, noise: float = 0.1, functions: int = N) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, targets, and the coefficients they were made from."""
    generator = np.random.default_rng(seed)
    matrix = generator.standard_normal((rows, functions)) * np.logspace(0, -1, functions)
    truth = generator.standard_normal(functions)
    return matrix, matrix @ truth + noise * generator.standard_normal(rows) + 0.3 * (noise > 0), truth


def block_of(matrix: np.ndarray, targets: np.ndarray, buffer_rows: int = 20_000) -> Block:
    reducer = Reducer(matrix.shape[1], buffer_rows)
    reducer.add(matrix, targets)
    return reducer.finish()


def solved(problem: Problem, kind: str, **settings: float | bool) -> Solution:
    return solve(problem, Solver.model_validate({"kind": kind, **settings}))


@pytest.mark.parametrize("normalisation", ["paper", "mean"])
def test_stack_is_the_weighted_least_squares_problem(normalisation: str) -> None:
    """Residuals and solution equal those of all rows, scaled by √(W/N_b) and never reduced."""
    sets = {"energy@0.1": data(40, 1), "force@0.1": data(300, 2), "force@0.5": data(5, 3)}
    weights = {"energy@0.1": 50.0, "force@0.1": 10.0, "force@0.5": 0.5}
    blocks = {name: block_of(a, y) for name, (a, y, _) in sets.items()}
    factors = {k: np.sqrt(w / (len(sets[k][1]) if normalisation == "mean" else 1)) for k, w in weights.items()}
    full = np.vstack([factors[k] * a for k, (a, _, _) in sets.items()])
    targets = np.concatenate([factors[k] * y for k, (_, y, _) in sets.items()])
    problem = stack(blocks, weights, normalisation)
    assert problem.triangle.shape == (N + 1, N + 1)
    assert problem.rows == 345
    assert problem.target_sum == pytest.approx(targets.sum(), rel=1e-12)
    assert problem.variance == pytest.approx(targets.var(), rel=1e-10)
    expected = np.linalg.lstsq(full, targets, rcond=None)[0]
    np.testing.assert_allclose(solved(problem, "rrqr").coefficients, expected, rtol=1e-10)
    for seed in range(3):
        c = np.random.default_rng(seed).standard_normal(N)
        loss = np.linalg.norm(problem.triangle @ np.append(c, -1))
        assert loss == pytest.approx(np.linalg.norm(full @ c - targets), rel=1e-12)
        for name, (a, y, _) in sets.items():
            assert blocks[name].residual(c) == pytest.approx(np.linalg.norm(a @ c - y), rel=1e-12)
            assert blocks[name].rmse(c) == pytest.approx(np.sqrt(np.mean((a @ c - y) ** 2)), rel=1e-12)


def test_mean_weights_do_not_know_how_many_rows_there_are() -> None:
    """Twice the same rows change the sum of squares and not its mean."""
    a, y, _ = data(30, 4)
    other = {"force": block_of(*data(50, 5)[:2])}
    once, twice = {**other, "energy": block_of(a, y)}, {**other, "energy": block_of(np.vstack([a, a]), np.tile(y, 2))}
    weights = {"energy": 3.0, "force": 1.0}

    def found(blocks: dict[str, Block], normalisation: str) -> np.ndarray:
        return solved(stack(blocks, weights, normalisation), "rrqr").coefficients

    np.testing.assert_allclose(found(twice, "mean"), found(once, "mean"), rtol=1e-10)
    assert np.abs(found(twice, "paper") - found(once, "paper")).max() > 1e-4


@settings(deadline=None, max_examples=50)
@given(
    cuts=st.lists(st.integers(0, 60), max_size=6),
    buffer_rows=st.integers(1, 80),
    merged=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_block_does_not_depend_on_how_rows_arrive(
    cuts: list[int], buffer_rows: int, merged: bool, order: Random
) -> None:
    a, y, _ = data(60, 6)
    edges = [0, *sorted(cuts), 60]
    pieces = [(a[i:j], y[i:j]) for i, j in pairwise(edges)]
    order.shuffle(pieces)
    reducer = Reducer(N, buffer_rows)
    for rows, targets in pieces:
        if merged:
            reducer.merge(block_of(rows, targets, buffer_rows))
        else:
            reducer.add(rows, targets)
    found, expected = reducer.finish(), block_of(a, y)
    assert found.rows == 60
    assert found.target_sum == pytest.approx(expected.target_sum, rel=1e-12)
    assert len(found.triangle) <= N + 1
    np.testing.assert_allclose(found.triangle.T @ found.triangle, expected.triangle.T @ expected.triangle, atol=1e-10)


@pytest.mark.parametrize("columns", [1, 5, 40])  # fewer and more than LAPACK eliminates at once
def test_joined_triangles_are_the_triangle_of_their_stack(columns: int) -> None:
    generator = np.random.default_rng(columns)
    heights = [min(height, columns) for height in (1, 3, columns, 17, columns)]
    triangles = [triangle_of(generator.standard_normal((height, columns))) for height in heights]
    before = [triangle.copy() for triangle in triangles]
    found, direct = joined(triangles), triangle_of(np.vstack(triangles))
    assert found.shape == (columns, columns)
    assert (np.tril(found, -1) == 0).all()
    np.testing.assert_allclose(np.abs(found), np.abs(direct), rtol=1e-9, atol=1e-12)  # rows up to their sign
    for triangle, copy in zip(triangles, before, strict=True):
        np.testing.assert_array_equal(triangle, copy)


def test_a_block_is_a_triangle() -> None:
    with pytest.raises(ValueError, match="a block of 3 rows and 3 columns is not an upper triangle"):
        Block(np.ones((3, 3)), 3, 0.0)


def test_an_empty_reducer_is_an_empty_block() -> None:
    block = Reducer(N).finish()
    assert block.rows == 0
    assert block.residual(np.ones(N)) == 0
    assert block.rmse(np.ones(N)) == 0


def test_triangle_has_the_rows_it_needs() -> None:
    for rows in (3, 8, 40):
        matrix = np.random.default_rng(rows).standard_normal((rows, 8))
        r = triangle_of(matrix.copy())
        assert r.shape == (min(rows, 8), 8)
        np.testing.assert_allclose(r.T @ r, matrix.T @ matrix, atol=1e-12)
        np.testing.assert_array_equal(r, np.triu(r))


# --- solvers ------------------------------------------------------------------------------------------------------


def test_ard_is_scikit_learns() -> None:
    a, y, _ = data(400, 7)
    y = a[:, :4] @ [1.0, -2.0, 0.5, 3.0] + 0.05 * np.random.default_rng(8).standard_normal(400)
    problem = stack({"all": block_of(a, y)}, {"all": 1.0}, "paper")
    theirs = ARDRegression(fit_intercept=False, threshold_lambda=1e4).fit(a, y)
    ours = solved(problem, "ard", scale=False)
    np.testing.assert_allclose(ours.coefficients, theirs.coef_, rtol=1e-6, atol=1e-9)
    assert ours.details["noise_precision"] == pytest.approx(theirs.alpha_, rel=1e-6)
    assert ours.details["relevant_functions"] == (theirs.lambda_ < 1e4).sum() < N


def test_what_data_do_not_determine_is_not_negative() -> None:
    """Precisions of ARD are square rooted: with 200 radial functions rounding made some of them negative."""
    precision = np.array([1e-4, 1.0, 1e3, 0.0])
    variance = np.array([1e4 * (1 + 1e-5), 0.25, 1.0000001e-3, 5.0])
    np.testing.assert_array_equal(_determined(precision, variance), [0.0, 0.75, 0.0, 1.0])


def test_bayesian_ridge_is_scikit_learns() -> None:
    a, y, _ = data(400, 9, noise=0.5)
    problem = stack({"all": block_of(a, y)}, {"all": 1.0}, "paper")
    theirs = BayesianRidge(fit_intercept=False).fit(a, y)
    ours = solved(problem, "bayesian_ridge", scale=False)
    np.testing.assert_allclose(ours.coefficients, theirs.coef_, rtol=1e-6)
    # scikit-learn updates its precisions once more after the last step
    assert ours.details["noise_precision"] == pytest.approx(theirs.alpha_, rel=1e-2)
    assert ours.details["prior_precision"] == pytest.approx(theirs.lambda_, rel=1e-2)


@pytest.mark.parametrize("kind", ["ard", "bayesian_ridge"])
def test_evidence_needs_the_true_number_of_rows(kind: str) -> None:
    """A triangle has eight rows; taking eight for the number of data gives another noise and another solution."""
    a, y, _ = data(400, 10, noise=0.5)
    problem = stack({"all": block_of(a, y)}, {"all": 1.0}, "paper")
    wrong = Problem(problem.triangle, len(problem.triangle), float(problem.triangle[:, -1].sum()))
    right = solved(problem, kind, scale=False)
    assert abs(solved(wrong, kind, scale=False).details["noise_precision"] / right.details["noise_precision"] - 1) > 0.5
    assert right.details["noise_precision"] ** -0.5 == pytest.approx(np.sqrt(0.5**2 + 0.3**2), rel=0.1)


@pytest.mark.parametrize("alpha", [1e-8, 1e-3, 1e-2])
def test_ridge_is_the_closed_form(alpha: float) -> None:
    a, y, _ = data(100, 11)
    problem = stack({"all": block_of(a, y)}, {"all": 1.0}, "paper")
    size = alpha * np.linalg.norm(a, 2) ** 2
    expected = np.linalg.solve(a.T @ a + size * np.eye(N), a.T @ y)
    found = solved(problem, "ridge", alpha=alpha, scale=False)
    np.testing.assert_allclose(found.coefficients, expected, rtol=1e-9)
    assert found.details["condition"] == pytest.approx(np.linalg.cond(a), rel=1e-9)


def test_rrqr_finds_the_rank() -> None:
    """Two columns that depend on others: same predictions as the pseudo-inverse, and no huge coefficients."""
    a, y, _ = data(100, 12)
    a[:, 3] = a[:, 0] - 2 * a[:, 1]
    a[:, 6] = a[:, 2]
    problem = stack({"all": block_of(a, y)}, {"all": 1.0}, "paper")
    found = solved(problem, "rrqr")
    assert found.details["rank"] == N - 2
    best = np.linalg.lstsq(a, y, rcond=1e-10)[0]
    np.testing.assert_allclose(a @ found.coefficients, a @ best, atol=1e-9)
    assert np.abs(found.coefficients).max() < 100
    assert (found.coefficients == 0).sum() == 2


def test_underdetermined_problems_are_met_exactly() -> None:
    a, y, _ = data(4, 13)
    found = solved(stack({"all": block_of(a, y)}, {"all": 1.0}, "paper"), "rrqr")
    np.testing.assert_allclose(a @ found.coefficients, y, atol=1e-10)


@pytest.mark.parametrize("kind", SOLVERS)
@pytest.mark.parametrize("scale", [True, False])
def test_consistent_data_give_their_coefficients_back(kind: str, scale: bool) -> None:
    a, y, truth = data(200, 14, noise=0.0)
    found = solved(stack({"all": block_of(a, y)}, {"all": 1.0}, "paper"), kind, scale=scale, alpha=1e-14)
    np.testing.assert_allclose(found.coefficients, truth, rtol=1e-4)


@pytest.mark.parametrize("kind", SOLVERS)
def test_solutions_are_finite_whatever_the_scale(kind: str) -> None:
    a, y, _ = data(50, 15)
    for factor in (1e-8, 1.0, 1e8):
        found = solved(stack({"all": block_of(a * factor, y)}, {"all": 1.0}, "paper"), kind)
        assert np.isfinite(found.coefficients).all()
        assert all(np.isfinite(value) for value in found.details.values())
        assert np.abs(a * factor @ found.coefficients - y).max() < 5


@pytest.mark.parametrize("kind", ["rrqr", "ridge"])
@pytest.mark.parametrize("normalisation", ["paper", "mean"])
def test_a_common_factor_of_all_weights_changes_nothing(kind: str, normalisation: str) -> None:
    blocks = {"energy": block_of(*data(30, 16)[:2]), "force": block_of(*data(80, 17)[:2])}
    one = stack(blocks, {"energy": 3.0, "force": 0.2}, normalisation)
    other = stack(blocks, {"energy": 3e4, "force": 2e3}, normalisation)
    found = [solved(p, kind).coefficients for p in (one, other)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-10)
    ratio = stack(blocks, {"energy": 3.0, "force": 2.0}, normalisation)
    assert np.abs(solved(ratio, kind).coefficients - found[0]).max() > 1e-3


@pytest.mark.parametrize("kind", SOLVERS)
def test_columns_that_nothing_sees_are_unused(kind: str) -> None:
    a, y, _ = data(60, 18)
    a[:, 2] = 0
    found = solved(stack({"all": block_of(a, y)}, {"all": 1.0}, "paper"), kind)
    assert found.coefficients[2] == 0
    assert found.details["unused_functions"] == 1
    rest = np.delete(a, 2, axis=1)
    alone = solved(stack({"all": block_of(rest, y)}, {"all": 1.0}, "paper"), kind)
    np.testing.assert_allclose(np.delete(found.coefficients, 2), alone.coefficients, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", SOLVERS)
def test_input_is_left_alone(kind: str) -> None:
    a, y, _ = data(60, 19)
    kept_a, kept_y = a.copy(), y.copy()
    problem = stack({"all": block_of(a, y)}, {"all": 1.0}, "paper")
    kept = problem.triangle.copy()
    solved(problem, kind)
    np.testing.assert_array_equal(problem.triangle, kept)
    np.testing.assert_array_equal(a, kept_a)
    np.testing.assert_array_equal(y, kept_y)


def test_nothing_to_fit_raises() -> None:
    blocks = {"energy": block_of(*data(30, 20)[:2])}
    for weights in ({"energy": 0.0}, {"force": 1.0}, {}):
        with pytest.raises(ValueError, match="nothing to fit"):
            stack(blocks, weights, "paper")
    with pytest.raises(ValueError, match="nothing to fit"):
        stack({"energy": Reducer(N).finish()}, {"energy": 1.0}, "paper")


@pytest.mark.parametrize("normalisation", ["paper", "mean"])
def test_weights_follow_the_name_before_the_amplitude(tiny: Spec, normalisation: str) -> None:
    """Joint blocks have the loss of the single ones: weight of the observable, factor of the amplitude, a mean each."""
    names = ["energy@0", "energy@0.5", "force@0.1", "force@0.5", "force@2", "virial1", "stress"]
    blocks = {name: block_of(*data(4 + 9 * place, place)[:2]) for place, name in enumerate(names)}
    weights = {"normalisation": normalisation, "amplitudes": {"0.5": 0.3, "2": 0.0}}
    spec = tiny.model_copy(update={"weights": tiny.weights.model_copy(update=weights)})
    factors = [tiny.weights.energy] * 2 + [tiny.weights.force] * 3 + [tiny.weights.virial1, 0.0]
    factors = [f * each for f, each in zip(factors, [1, 0.3, 1, 0.3, 0, 1, 1], strict=True)]
    assert tiny.weights.stress > 0  # and yet 0 above: the observable is off
    problem = weighed(spec, by_observable(spec, blocks))
    coefficients = np.random.default_rng(9).standard_normal(N)
    wanted = sum(
        factor * block.residual(coefficients) ** 2 / (block.rows if normalisation == "mean" else 1)
        for factor, block in zip(factors, blocks.values(), strict=True)
    )
    assert np.linalg.norm(problem.triangle @ np.append(coefficients, -1.0)) ** 2 == pytest.approx(wanted)
    assert problem.rows == sum(block.rows for factor, block in zip(factors, blocks.values(), strict=True) if factor)
