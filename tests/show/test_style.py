"""The style of figures: words, ranges, files."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from suite.judge.numbers import NUMBERS
from suite.show.style import centred, formula, label, letter, logarithmic, panels, save, styled


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ε_V1 felt", r"$\varepsilon_{\mathrm{V1}}$ felt"),
        ("ε_σ", r"$\varepsilon_{\sigma}$"),
        ("c₀ of the model", "$c_0$ of the model"),
        ("√log(L_D) ε_V1", r"√log($L_{D}$) $\varepsilon_{\mathrm{V1}}$"),
        ("|Dȳ - Dȳ_ML|", r"|D$\bar{y}$ − D$\bar{y}_{\mathrm{ML}}$|"),
        ("E_ML - E", r"$E_{\mathrm{ML}}$ − $E$"),
        ("1/L²", "1/$L$²"),
        ("geometry error", "geometry error"),
        ("error of C11", "error of C11"),
        ("RMSE F on test configurations of 0.1 Å", "RMSE F on test configurations of 0.1 Å"),
    ],
)
def test_symbols_become_formulas(text: str, expected: str) -> None:
    assert formula(text) == expected


def test_every_label_can_be_drawn() -> None:
    """Mathtext that cannot be parsed is an exception when the figure is drawn."""
    figure = Figure()
    for name in NUMBERS:
        figure.text(0, 0, label(name))
    figure.draw_without_rendering()


def test_units_are_no_formulas() -> None:
    assert label("eps_V1") == r"$\varepsilon_{\mathrm{V1}}$ [eV/Å³]"
    assert label("bound_geometry") == "bound of the geometry error"
    assert label("L") == "$L$"


def test_the_middle_of_a_signed_map_is_zero() -> None:
    low, high = centred(np.array([-0.2, 1.5, 0.3]))["clim"]
    assert (low, high) == (-1.5, 1.5)
    low, high = centred(np.zeros(3))["clim"]
    assert low < 0 < high


@pytest.mark.parametrize("values", [[0.02, 0.05], [1e-5, 3e-5], [1.0, 1.01], [1e-6, 10.0], [3.0], [0.01, 0.4]])
def test_a_logarithmic_axis_follows_the_data_and_has_labels(values: list[float]) -> None:
    with styled():
        figure, (axis,) = panels(1)
        logarithmic(axis, "x", values)
        figure.draw_without_rendering()
        low, high = axis.get_xlim()
        assert low < min(values)
        assert max(values) < high
        assert high / low == pytest.approx(1.4**2 * max(values) / min(values))
        ticks = [
            each for each, words in zip(axis.get_xticks(), axis.get_xticklabels(), strict=True) if words.get_text()
        ]
        assert 1 <= sum(low <= tick <= high for tick in ticks) <= 9


def test_an_axis_of_zeros_stays_linear() -> None:
    _, (axis,) = panels(1)
    logarithmic(axis, "y", [0.0, float("nan")])
    assert axis.get_yscale() == "linear"


def test_settings_of_the_user_do_not_reach_in_and_come_back() -> None:
    with matplotlib.rc_context({"font.size": 33, "axes.facecolor": "red"}):
        with styled():
            assert matplotlib.rcParams["font.size"] == 8
            assert matplotlib.rcParams["axes.facecolor"] == "white"
        assert matplotlib.rcParams["font.size"] == 33


def test_files(tmp_path: Path) -> None:
    with styled():
        figure, axes = panels(2)
        axes[1].set_title("second")
        letter(axes)
        assert [axis.get_title(loc="left") for axis in axes] == ["(a)", "(b) second"]
        assert save(figure, tmp_path / "one.png") == tmp_path / "one.png"
        save(figure, tmp_path / "two.png", vector=True)
    assert {path.name for path in tmp_path.iterdir()} == {"one.png", "two.png", "two.pdf"}
    pdf = (tmp_path / "two.pdf").read_bytes()
    assert b"/Type3" not in pdf, "fonts that journals refuse"
    assert b"CreationDate" not in pdf
