"""The report of a weight study: recommendation, rivals, predicted against relaxed errors, front, importance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from suite.judge.numbers import head
from suite.judge.theory import TERMS
from suite.show.figures import BLUE, DPI, GREY, ORANGE
from suite.show.page import Page
from suite.spec import Spec
from suite.study.weighings import BALANCES, PAPER, Entry, TuneResult, number_of, weights_toml


def _label(objective: str, spec: Spec) -> str:
    """Label of the axis of an objective; `balance` is the balance that the spec names."""
    return head(number_of(objective, spec.tune))


DOTS: dict[str, Any] = {"markersize": 7, "markeredgecolor": "black", "linestyle": "none"}


def write_report(result: TuneResult) -> list[Path]:
    """Write report.html, report.md, recommended.toml and figures/ into the study's folder; returns the paths that
    belong into MLflow."""
    folder = result.folder
    pictures = folder / "figures"
    pictures.mkdir(exist_ok=True)
    drawn: dict[str, Path] = {}
    for name, draw in FIGURES.items():
        figure = draw(result)
        if figure is not None:
            drawn[name] = pictures / f"{name}.png"
            figure.savefig(drawn[name], dpi=DPI)
    best, spec = result.recommended, result.spec
    table = weights_toml(best)
    (folder / "recommended.toml").write_text(table, encoding="utf-8")
    page = Page(f"Weights for {spec.case.title}")
    complete = [record for record in result.trials if record["state"] == "complete"]
    objectives = ", ".join(spec.tune.objectives)
    page.text(
        f"{len(complete)} trials of {', '.join(spec.tune.model_fields_set) or 'the default search space'}; minimised: "
        f"{objectives}; sampler {spec.tune.sampler}, seed {spec.tune.seed}. N = {spec.simulation.size:g} a0, "
        f"L = {spec.training.size:g} a0, {_described(spec)}, solver "
        f"{spec.solver.kind}, normalisation {spec.weights.normalisation!r}."
    )
    if result.altered:
        page.text(
            f"Left out, because their numbers are not those that were judged: trials "
            f"{', '.join(map(str, result.altered))}."
        )
    page.heading("Recommendation")
    page.text(f"{best.name}: {result.reason} {_against_paper(result)}")
    page.text(result.tension)
    page.code(table)
    page.heading("Weighings, relaxed in full")
    weights = sorted({name for entry in result.entries for name in entry.weights})
    heads = [
        "weighing",
        *(f"W {name}" for name in weights),
        head("balance_spread"),
        head("calibrated_spread"),
        head("corrected_spread"),
        head("bound_geometry"),
        *map(head, ("geometry_error_linear", "geometry_error", "energy_error_linear", "energy_error")),
        "limiting term",
        "outcome",
    ]
    page.table(
        heads,
        [
            [entry.name, *(_short(entry.weights.get(name)) for name in weights), *_row(entry)]
            for entry in result.entries
        ],
        best=next(i for i, entry in enumerate(result.entries) if entry.name == best.name),
    )
    page.heading("How far to trust the prediction")
    if result.correlation:
        page.table(
            ["rank correlation (Spearman)", "value"],
            [[CORRELATIONS[name], f"{value:.2f}"] for name, value in result.correlation.items()],
        )
    else:
        page.text("Fewer than three verified weighings converged: no rank correlation.")
    for name in drawn:
        if name in ("front", "importance"):
            page.heading({"front": "Trials", "importance": "What matters"}[name])
        page.figure(drawn[name], CAPTIONS[name])
    page.heading("Cost")
    page.table(["stage", "seconds"], [[name, f"{value:.1f}"] for name, value in result.seconds.items()])
    return [*page.write(folder), folder / "recommended.toml", pictures]


def _described(spec: Spec) -> str:
    """The family of models in words."""
    model = spec.model
    if model.source:
        settings = ", ".join(f"{key} {value}" for key, value in model.arguments.items() if value != ())
        return f"model {model.source} ({settings})"
    return f"channels {model.channels}, degrees {model.degrees}"


def _against_paper(result: TuneResult) -> str:
    paper = next((entry for entry in result.entries if entry.name == PAPER), None)
    best = result.recommended
    if paper is None or "geometry_error" not in paper.relaxed or best.name == PAPER:
        return ""
    parts = [
        f"{word} {paper.relaxed[name]:.3g} -> {best.relaxed[name]:.3g} {unit}"
        for word, name, unit in (("geometry error", "geometry_error", "Å"), ("energy error", "energy_error", "eV"))
    ]
    return f"Against the spec's own weights: {', '.join(parts)}."


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _row(entry: Entry) -> list[str]:
    numbers, relaxed = entry.predicted, entry.relaxed
    limiting = list(TERMS.values())[int(numbers["limiting"])] if "limiting" in numbers else ""
    return [
        _short(numbers["balance_spread"]),
        _short(numbers["calibrated_spread"]),
        _short(numbers.get("corrected_spread")),
        _short(numbers["bound_geometry"]),
        _short(numbers["geometry_error_linear"]),
        _short(relaxed.get("geometry_error")),
        _short(numbers["energy_error_linear"]),
        _short(relaxed.get("energy_error")),
        limiting,
        entry.status,
    ]


CORRELATIONS = {
    "geometry": "predicted and relaxed geometry error",
    "energy": "predicted and relaxed energy error",
    "balance_geometry": "literal imbalance and relaxed geometry error",
    "calibrated_geometry": "calibrated imbalance and relaxed geometry error",
    "corrected_geometry": "corrected imbalance and relaxed geometry error",
    "bound_geometry": "bound and relaxed geometry error",
    "elastic_geometry": "null-free ε_V1 and relaxed geometry error",
    "felt_geometry": "felt ε_V1 and relaxed geometry error",
    "factor_energy": "ε_K and relaxed energy error",
    "balance_energy": "literal imbalance and relaxed energy error",
    "calibrated_energy": "calibrated imbalance and relaxed energy error",
    "corrected_energy": "corrected imbalance and relaxed energy error",
    "bound_energy": "bound and relaxed energy error",
    "bound_corrected_energy": "corrected bound and relaxed energy error",
}
CAPTIONS = {
    "front": "Every trial, the Pareto front, the rivals, and the recommendation.",
    "oracle": "Errors predicted by linear response against errors of full relaxation.",
    "imbalance": "Does balance mean accuracy? Relaxed errors against the three imbalances and the bounds.",
    "importance": "Share of each parameter in the variance of the logarithm of each objective (fANOVA).",
    "terms": "Terms of the bound (3.13) with the spec's own weights and with the recommended ones.",
}


def _axes(count: int, width: float = 4.6, height: float = 4.2) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width * count, height), layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _kinds(entries: Sequence[Entry]) -> list[tuple[str, str, str, list[Entry]]]:
    trials = [entry for entry in entries if entry.trial]
    others = [entry for entry in entries if not entry.trial]
    return [("trials", BLUE, "o", trials), ("rivals", ORANGE, "s", others)]


def front(result: TuneResult) -> Figure:
    """Trials in the plane of the first two objectives, or along the trials for one objective."""
    figure, (axis,) = _axes(1, 7.2, 5.0)
    names = result.spec.tune.objectives[:2]
    complete = [record for record in result.trials if record["state"] == "complete"]
    keys = [number_of(name, result.spec.tune) for name in names]

    def place(record: dict[str, Any], numbers: dict[str, float]) -> tuple[float, float]:
        if len(keys) == 1:
            return float(record.get("number", -1)), numbers[keys[0]]
        return numbers[keys[0]], numbers[keys[1]]

    points = np.array([place(record, record["numbers"]) for record in complete])
    axis.plot(points[:, 0], points[:, 1], ".", color="#999999", markersize=5, label="trials")
    chosen = np.array([record["number"] in result.front for record in complete])
    best = points[chosen][np.argsort(points[chosen][:, 0])]
    axis.plot(best[:, 0], best[:, 1], "-o", color=BLUE, markersize=5, linewidth=1, label="Pareto front")
    if len(keys) == 2:
        for entry in _kinds(result.entries)[1][3]:
            x, y = entry.predicted[keys[0]], entry.predicted[keys[1]]
            axis.plot(x, y, "s", color=ORANGE, markersize=8, markeredgecolor="black")
            axis.annotate(entry.name, (x, y), xytext=(7, 5), textcoords="offset points", fontsize=9)
        star = [result.recommended.predicted[key] for key in keys]
        axis.plot(*star, "*", color="black", markersize=15, label=f"recommended ({result.recommended.name})")
        axis.set_xscale("log")
        low, high = np.quantile(points[:, 1], [0, 0.95])
        shown = [entry.predicted[keys[1]] for entry in result.entries]
        axis.set_ylim(min(low, *shown) / 1.5, max(high, *shown) * 1.5)
    axis.set_yscale("log")
    labels = [_label(name, result.spec) for name in names]
    axis.set(xlabel=labels[0] if len(names) == 2 else "trial", ylabel=labels[-1])
    axis.legend(frameon=False, fontsize=9)
    return figure


def oracle(result: TuneResult) -> Figure | None:
    """Predicted against relaxed geometry and energy errors."""
    good = [entry for entry in result.entries if "geometry_error" in entry.relaxed]
    if not good:
        return None
    figure, axes = _axes(2)
    for axis, name, unit in zip(axes, ("geometry", "energy"), ("Å", "eV"), strict=True):
        for label, colour, marker, entries in _kinds(good):
            x = [entry.predicted[f"{name}_error_linear"] for entry in entries]
            y = [entry.relaxed[f"{name}_error"] for entry in entries]
            axis.loglog(x, y, marker, color=colour, label=label, **DOTS)
        limits = np.array([*axis.get_xlim(), *axis.get_ylim()])
        limits = np.array([limits.min(), limits.max()])
        axis.plot(limits, limits, color=GREY, linewidth=0.8, zorder=0)
        correlation = result.correlation.get(name)
        axis.set_title("" if correlation is None else f"rank correlation {correlation:.2f}", fontsize=10)
        axis.set(xlabel=f"{name} error by linear response [{unit}]", ylabel=f"{name} error, relaxed [{unit}]")
    axes[0].legend(frameon=False, fontsize=9)
    return figure


def imbalance(result: TuneResult) -> Figure | None:
    """Relaxed errors, one row each, against the three imbalances and the bound of that error, literal or corrected."""
    good = [entry for entry in result.entries if "geometry_error" in entry.relaxed]
    if not good:
        return None
    figure = Figure(figsize=(18.4, 8.0), layout="constrained")
    rows = figure.subplots(2, 4, sharey="row")
    parts = (("geometry", "bound_geometry"), ("energy", "bound_energy_corrected"))
    for row, (error, bound) in zip(rows, parts, strict=True):
        names = {**{f"{name}_{error}": number for name, number in BALANCES.items()}, bound: bound}
        for axis, (key, number) in zip(row, names.items(), strict=True):
            for kind, colour, marker, entries in _kinds(good):
                shown = [entry for entry in entries if number in entry.predicted]
                x = [entry.predicted[number] for entry in shown]
                y = [entry.relaxed[f"{error}_error"] for entry in shown]
                axis.plot(x, y, marker, color=colour, label=kind, **DOTS)
            axis.set_yscale("log")
            if number == bound:
                axis.set_xscale("log")
            found = {f"literal_{error}": f"balance_{error}", "bound_energy_corrected": "bound_corrected_energy"}
            if (value := result.correlation.get(found.get(key, key))) is not None:
                axis.set_title(f"rank correlation {value:.2f}", fontsize=10)
            axis.set(xlabel=head(number))
            axis.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(head(f"{error}_error"))
    rows[0, 0].legend(frameon=False, fontsize=9)
    return figure


def importance(result: TuneResult) -> Figure | None:
    """Bar chart of the importance of each parameter, one panel for each objective."""
    if not result.importance:
        return None
    figure, axes = _axes(len(result.importance), 4.6, 2.8)
    for axis, (objective, shares) in zip(axes, result.importance.items(), strict=True):
        names = list(shares)[::-1]
        axis.barh(names, [shares[name] for name in names], color=BLUE)
        axis.set(xlabel="share of the variance", xlim=(0, 1), title=_label(objective, result.spec))
        axis.title.set_fontsize(10)
    return figure


def terms(result: TuneResult) -> Figure:
    """Terms of the bound with the spec's weights and with the recommended ones."""
    figure, (axis,) = _axes(1, 6.4, 3.8)
    paper = next((entry for entry in result.entries if entry.name == PAPER), None)
    shown = [(label, entry) for label, entry in ((PAPER, paper), ("recommended", result.recommended)) if entry]
    places = np.arange(len(TERMS))
    for index, ((label, entry), colour) in enumerate(zip(shown, (ORANGE, BLUE), strict=False)):
        values = [entry.predicted[name] for name in TERMS]
        offset = 0.2 * (2 * index - 1)
        axis.bar(places + offset, values, 0.38, color=colour, edgecolor="black", linewidth=0.5, label=label)
        for place, value in zip(places, values, strict=True):
            axis.text(place + offset, value * 1.1, f"{value:.2g}", ha="center", va="bottom", fontsize=8)
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    axis.set_ylim(low / 1.5, high * 2)
    axis.set_xticks(places, list(TERMS.values()))
    axis.set_ylabel("term of the bound (mixed units)")
    axis.legend(frameon=False, fontsize=9)
    return figure


FIGURES = {"front": front, "oracle": oracle, "imbalance": imbalance, "importance": importance, "terms": terms}
