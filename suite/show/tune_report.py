"""The report of a weight study: recommendation, rivals, predicted against relaxed errors, front, importance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from suite.judge.numbers import head
from suite.judge.theory import TERMS
from suite.show.page import Page
from suite.show.style import (
    BLUE,
    COLOURS,
    GREY,
    MARKERS,
    ONE_COLUMN,
    ORANGE,
    TWO_COLUMNS,
    formula,
    label,
    letter,
    logarithmic,
    open_frame,
    panels,
    save,
    styled,
)
from suite.spec import Spec
from suite.study.weighings import BALANCES, PAPER, Entry, TuneResult, number_of, weights_toml


def _label(objective: str, spec: Spec) -> str:
    """Label of the axis of an objective; `balance` is the balance that the spec names."""
    return label(number_of(objective, spec.tune))


DOTS: dict[str, Any] = {"markersize": 4.5, "markeredgecolor": "black", "markeredgewidth": 0.5, "linestyle": "none"}


def write_report(result: TuneResult) -> list[Path]:
    """Write report.html, report.md, recommended.toml and figures/ into the study's folder; returns the paths that
    belong into MLflow."""
    folder = result.folder
    pictures = folder / "figures"
    pictures.mkdir(exist_ok=True)
    drawn: dict[str, Path] = {}
    for name, draw in FIGURES.items():
        with styled():
            figure = draw(result)
            if figure is not None:
                drawn[name] = save(figure, pictures / f"{name}.png", vector=True)
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


def _kinds(entries: Sequence[Entry]) -> list[tuple[str, str, str, list[Entry]]]:
    trials = [entry for entry in entries if entry.trial]
    others = [entry for entry in entries if not entry.trial]
    return [("trials", BLUE, "o", trials), ("rivals", ORANGE, "s", others)]


def front(result: TuneResult) -> Figure:
    """Trials in the plane of the first two objectives, or along the trials for one objective."""
    figure, (axis,) = panels(1, width=TWO_COLUMNS, height=3.6)
    names = result.spec.tune.objectives[:2]
    complete = [record for record in result.trials if record["state"] == "complete"]
    keys = [number_of(name, result.spec.tune) for name in names]

    def place(record: dict[str, Any], numbers: dict[str, float]) -> tuple[float, float]:
        if len(keys) == 1:
            return float(record.get("number", -1)), numbers[keys[0]]
        return numbers[keys[0]], numbers[keys[1]]

    points = np.array([place(record, record["numbers"]) for record in complete])
    axis.plot(points[:, 0], points[:, 1], ".", color="#999999", markersize=3, label="trials")
    chosen = np.array([record["number"] in result.front for record in complete])
    best = points[chosen][np.argsort(points[chosen][:, 0])]
    # with more objectives than axes the front is no line in this plane
    line = "-" if len(result.spec.tune.objectives) <= 2 else "none"
    axis.plot(best[:, 0], best[:, 1], "o", linestyle=line, color=BLUE, markersize=3.5, label="Pareto front")
    shown = [float(np.quantile(points[:, 1], 0)), float(np.quantile(points[:, 1], 0.95))]
    if len(keys) == 2:
        for index, entry in enumerate(_kinds(result.entries)[1][3]):
            style = {"color": COLOURS[1 + index % (len(COLOURS) - 1)], "label": entry.name, **DOTS}
            axis.plot(*(entry.predicted[key] for key in keys), MARKERS[1 + index % (len(MARKERS) - 1)], **style)
        star = [result.recommended.predicted[key] for key in keys]
        words = f"recommended: {result.recommended.name}"
        axis.plot(*star, "*", color="none", markeredgecolor="black", markersize=12, linestyle="none", label=words)
        logarithmic(axis, "x", points[:, 0].tolist())
        shown += [entry.predicted[keys[1]] for entry in result.entries]
    logarithmic(axis, "y", shown, room=1.5)
    labels = [_label(name, result.spec) for name in names]
    axis.set(xlabel=labels[0] if len(names) == 2 else "trial", ylabel=labels[-1])
    open_frame(axis)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center")  # names of rivals would cover points
    return figure


def oracle(result: TuneResult) -> Figure | None:
    """Predicted against relaxed geometry and energy errors."""
    good = [entry for entry in result.entries if "geometry_error" in entry.relaxed]
    if not good:
        return None
    figure, axes = panels(2, height=3.3)
    for axis, name in zip(axes, ("geometry", "energy"), strict=True):
        every: list[float] = []
        for words, colour, marker, entries in _kinds(good):
            x = [entry.predicted[f"{name}_error_linear"] for entry in entries]
            y = [entry.relaxed[f"{name}_error"] for entry in entries]
            axis.plot(x, y, marker, color=colour, label=words, **DOTS)
            every += [*x, *y]
        for which in "xy":
            logarithmic(axis, which, every)
        limits = axis.get_xlim()
        axis.plot(limits, limits, color=GREY, linewidth=0.6, zorder=0)
        correlation = result.correlation.get(name)
        axis.set_title("" if correlation is None else f"rank correlation {correlation:.2f}")
        axis.set(xlabel=label(f"{name}_error_linear"), ylabel=f"{label(f'{name}_error')}, relaxed", box_aspect=1)
    letter(axes)
    axes[0].legend()
    return figure


def imbalance(result: TuneResult) -> Figure | None:
    """Relaxed errors, one row each, against the three imbalances and the bound of that error, literal or corrected."""
    good = [entry for entry in result.entries if "geometry_error" in entry.relaxed]
    if not good:
        return None
    figure, axes = panels(4, 2, height=4.4, sharey="row")
    parts = (("geometry", "bound_geometry"), ("energy", "bound_energy_corrected"))
    for row, (error, bound) in enumerate(parts):
        names = {**{f"{name}_{error}": number for name, number in BALANCES.items()}, bound: bound}
        for axis, (key, number) in zip(axes[4 * row : 4 * row + 4], names.items(), strict=True):
            for kind, colour, marker, entries in _kinds(good):
                shown = [entry for entry in entries if number in entry.predicted]
                x = [entry.predicted[number] for entry in shown]
                y = [entry.relaxed[f"{error}_error"] for entry in shown]
                axis.plot(x, y, marker, color=colour, label=kind, **DOTS)
            if number == bound:
                logarithmic(axis, "x", [entry.predicted[number] for entry in good if number in entry.predicted])
            found = {f"literal_{error}": f"balance_{error}", "bound_energy_corrected": "bound_corrected_energy"}
            value = result.correlation.get(found.get(key, key))
            axis.set_title("" if value is None else f"rank corr. {value:.2f}")
            axis.set_xlabel("\n".join(wrap(label(number), 24)))
            open_frame(axis)
        logarithmic(axes[4 * row], "y", [entry.relaxed[f"{error}_error"] for entry in good])
        axes[4 * row].set_ylabel(label(f"{error}_error"))
    letter(axes)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def importance(result: TuneResult) -> Figure | None:
    """Bar chart of the importance of each parameter, one panel for each objective."""
    if not result.importance:
        return None
    figure, axes = panels(len(result.importance), width=TWO_COLUMNS, height=1.9)
    for axis, (objective, shares) in zip(axes, result.importance.items(), strict=True):
        names = list(shares)[::-1]
        axis.barh(names, [shares[name] for name in names], color=BLUE, height=0.6)
        axis.set(xlabel="share of the variance", xlim=(0, 1), title=_label(objective, result.spec).partition(" [")[0])
        open_frame(axis)
    letter(axes)
    return figure


def terms(result: TuneResult) -> Figure:
    """Terms of the bound with the spec's weights and with the recommended ones."""
    figure, (axis,) = panels(1, width=ONE_COLUMN, height=2.6)
    paper = next((entry for entry in result.entries if entry.name == PAPER), None)
    shown = [(words, entry) for words, entry in ((PAPER, paper), ("recommended", result.recommended)) if entry]
    places = np.arange(len(TERMS))
    for (words, entry), colour, marker in zip(shown, (ORANGE, BLUE), "so", strict=False):
        values = [entry.predicted[name] for name in TERMS]
        axis.plot(values, places, marker, color=colour, label=words, **DOTS)
    logarithmic(axis, "x", [entry.predicted[name] for _, entry in shown for name in TERMS], room=2.0)
    for place in places:
        axis.axhline(float(place), color=GREY, linewidth=0.3, linestyle=":", zorder=0)
    axis.set_yticks(places, [formula(each) for each in TERMS.values()])
    axis.set(ylim=(len(TERMS) - 0.5, -0.5), xlabel="term of the bound, in units of eV and Å")
    open_frame(axis)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


FIGURES = {"front": front, "oracle": oracle, "imbalance": imbalance, "importance": importance, "terms": terms}
