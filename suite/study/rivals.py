"""Weights that need no search: a study has to do better than these."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from suite.judge.oracle import Oracle
from suite.model.regression import Block, by_observable, fit, triangle_of
from suite.observables import OBSERVABLES, block_parts
from suite.spec import Spec

PRIOR = 1e-6
SHARE = 0.1  # weight of virial1, as a fraction of the weight of all force components
Weighing = dict[str, float]  # observable -> weight


def with_weights(spec: Spec, weights: Mapping[str, float]) -> Spec:
    """The spec with other weights of observables; amplitude factors stay."""
    return spec.model_copy(update={"weights": spec.weights.model_copy(update=dict(weights))})


def observed(spec: Spec) -> list[str]:
    """Observables of a spec that are switched on."""
    return [name for name in OBSERVABLES if getattr(spec.observables, name)]


def uniform(spec: Spec) -> Weighing:
    """Weight 1 for every observable."""
    return dict.fromkeys(observed(spec), 1.0)


def elastic_share(spec: Spec, blocks: Mapping[str, Block]) -> Weighing:
    """The spec's weights, but virial1 gets `SHARE` of the weight of all force components of the training set.

    The errors of the elastic constants are then a hundredth of those that a fit to energies and forces leaves, and the
    forces are hardly worse (docs/tuning.md). Without virial1 or forces the weights are those of the spec.
    """
    weights = {name: spec.weight(name) for name in observed(spec)}
    if {"virial1", "force"} <= set(weights):
        components = sum(block.rows for key, block in blocks.items() if block_parts(key)[0] == "force")
        # under "mean" a weight is that of a whole block already
        rows = blocks["virial1"].rows if spec.weights.normalisation == "mean" else components
        weights["virial1"] = SHARE * weights["force"] * rows
    return weights


def evidence(spec: Spec, blocks: Mapping[str, Block], most: int = 50) -> Weighing:
    """Weights 1/σ² with the noise level σ of each observable that maximises the evidence.

    MacKay's fixed point with one noise level for each block: σ_b² = ‖r_b‖² / (N_b - γ_b), where γ_b is the number of
    coefficients that block b determines. The vague prior of ARD (1e-6, relative to the mean square target) keeps σ_b
    positive where a few elastic rows are fitted exactly. The weights are scaled so that forces keep the weight of the
    spec. For `normalisation = "mean"` they are multiplied by the number of rows, which gives the same problem.
    """
    names = observed(spec)
    merged = _merged(spec, blocks)
    counts = {name: block.rows for name, block in merged.items()}
    targets = {name: float((block.triangle[:, -1] ** 2).sum()) / block.rows for name, block in merged.items()}
    variance = dict(targets)
    for _ in range(most):
        scaled = {name: merged[name].triangle / np.sqrt(variance[name]) for name in names}
        matrix = np.vstack([scaled[name] for name in names])
        norms = np.linalg.norm(matrix[:, :-1], axis=0)
        norms[norms == 0] = 1.0
        u, s, vt = np.linalg.svd(matrix[:, :-1] / norms, full_matrices=False)
        kept = s > 1e-10 * s[0]
        coefficients = vt[kept].T @ ((u[:, kept].T @ matrix[:, -1]) / s[kept]) / norms
        before, begin = dict(variance), 0
        for name in names:
            end = begin + len(scaled[name])
            determined = float((u[begin:end, kept] ** 2).sum())
            begin = end
            residual = scaled[name] @ np.append(coefficients, -1.0)
            squares = variance[name] * float((residual**2).sum())
            free = max(counts[name] - determined, 0.0)
            variance[name] = (squares + 2 * PRIOR * targets[name]) / (free + 2 * PRIOR)
        if all(abs(np.log(variance[name] / before[name])) < 1e-3 for name in names):
            break
    count = counts if spec.weights.normalisation == "mean" else dict.fromkeys(names, 1)
    weights = {name: count[name] / variance[name] for name in names}
    return _relative(spec, weights)


def balanced(spec: Spec, blocks: Mapping[str, Block], oracle: Oracle, most: int = 60) -> Weighing:
    """The closed rule W ∝ 1/eps², iterated towards the literal balance: if the term of an observable is too large, its
    weight grows by the square root of the excess. Returns the weighing with the least spread."""
    pairs = {entry.name: entry.balance for entry in OBSERVABLES.values() if entry.balance}
    names = [name for name in pairs if spec.weight(name) > 0]
    joint = by_observable(spec, blocks)
    first = fit(with_weights(spec, uniform(spec)), joint)
    start = {name: b.rmse(first.coefficients) for name, b in _merged(spec, blocks).items()}
    weights = {name: 1 / max(start[name], 1e-12) ** 2 for name in start}
    best: tuple[float, Weighing] = (np.inf, weights)
    for _ in range(most):
        coefficients = fit(with_weights(spec, weights), joint).coefficients
        numbers = oracle.evaluate(coefficients)
        if numbers["balance_spread"] < best[0]:
            best = (numbers["balance_spread"], dict(weights))
        logs = {name: np.log(numbers[pairs[name]]) for name in names}
        mean = float(np.mean(list(logs.values())))
        if numbers["balance_spread"] < 1e-2:
            break
        weights = {n: w * np.exp(np.clip((logs[n] - mean) / 2, -2, 2)) if n in logs else w for n, w in weights.items()}
    return _relative(spec, best[1])


def _merged(spec: Spec, blocks: Mapping[str, Block]) -> dict[str, Block]:
    merged = {}
    for name in observed(spec):
        found = [block for key, block in blocks.items() if block_parts(key)[0] == name]
        triangle = triangle_of(np.vstack([block.triangle for block in found]))
        merged[name] = Block(triangle, sum(b.rows for b in found), sum(b.target_sum for b in found))
    return merged


def random_search(
    ranges: Mapping[str, tuple[float, float]],
    trials: int,
    seed: int,
    judge: Callable[[Mapping[str, float]], dict[str, float]],
    score: Callable[[dict[str, float]], float],
) -> tuple[dict[str, float], dict[str, float]]:
    """The best of `trials` independent log-uniform draws: its parameters and its numbers."""
    generator = np.random.default_rng(seed)
    best: tuple[float, dict[str, float], dict[str, float]] | None = None
    for _ in range(trials):
        drawn = {name: float(np.exp(generator.uniform(*np.log(limits)))) for name, limits in ranges.items()}
        numbers = judge(drawn)
        value = score(numbers)
        if best is None or value < best[0]:
            best = (value, drawn, numbers)
    assert best is not None
    return best[1], best[2]


def _relative(spec: Spec, weights: Mapping[str, float]) -> Weighing:
    """The weights, scaled so that the forces keep the weight of the spec: only ratios matter."""
    factor = spec.weights.force / weights["force"] if weights.get("force") else 1.0
    return {name: float(weight * factor) for name, weight in weights.items()}
