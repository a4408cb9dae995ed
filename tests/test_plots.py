"""Figures of tables: what they say in words, what is written in them, and that they read without colour."""
from __future__ import annotations

import html
import re
from collections.abc import Iterator

import matplotlib.pyplot as plt
import pandas
import pytest

from migsim import draw, plots

TABLE = pandas.DataFrame([{"limit": limit, "rate": rate, "kind": "on" if rate < 2 else "off",
                           "ms": None if limit * rate < 2 else limit * rate * (k + 1)}
                          for limit in (1, 30) for rate in (1, 2) for k in range(3)])


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list]:
    """The figures, before they are closed."""
    kept: list = []
    real = draw.figure_html

    def keep(figure, alt: str) -> str:
        figure.canvas.draw()
        kept.append(figure)
        return real(figure, alt)
    monkeypatch.setattr(plots, "figure_html", keep)
    yield kept
    assert not plt.get_fignums()


def alt(text: str) -> str:
    return html.unescape(re.search(r'alt="(.*?)"', text)[1])


def texts(figure) -> list[str]:
    return [t.get_text() for t in figure.axes[0].texts]


def test_heat_map_writes_every_median_and_says_never(drawn: list) -> None:
    told = plots.heat_map(TABLE, "limit", "rate", "ms")
    assert texts(drawn[0]) == ["never", "4", "60", "120"]
    assert alt(told) == "Heat map of ms over limit and rate: medians from 4 to 120; 1 of 4 cells never complete."
    axes = drawn[0].axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("rate", "limit")
    assert [t.get_text() for t in axes.get_yticklabels()] == ["1", "30"]
    assert [patch.get_hatch() for patch in axes.patches] == ["///"]


def test_a_cell_that_mostly_never_ends_says_never(drawn: list) -> None:
    table = TABLE.assign(ms=[None, None, 5.0, None, 6.0, 5.0, 1.0, 2.0, 3.0, 1.0, 2.0, 3.0])
    plots.heat_map(table, "limit", "rate", "ms")
    assert texts(drawn[0])[:2] == ["never", "6\n(1 never)"]


def test_band_has_a_dash_and_a_mark_for_each_series(drawn: list) -> None:
    told = plots.quantile_band(TABLE[TABLE.limit == 30], "rate", "ms", "kind")
    lines = drawn[0].axes[0].lines
    assert [list(line.get_ydata()) for line in lines] == [[60.0], [120.0]]
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == 2
    assert alt(told) == "ms over rate: on from 60 to 60, 95 % up to 87; off from 120 to 120, 95 % up to 174."


def test_bars_add_up_and_differ_without_colour(drawn: list) -> None:
    ledgers = {"new": {"busy": 520.0, "rest": 30.0}, "legacy": {"busy": 1600.0, "idle": 250.0, "rest": 0.0}}
    told = plots.ledger_bars(ledgers, {"legacy": [1900.0]})
    axes = drawn[0].axes[0]
    assert alt(told) == "Where the downtime went, one bar each: new 550 ms, legacy 1,850 ms."
    assert texts(drawn[0]) == ["520", "550", "1,600", "250", "1,850"]
    bars = [patch for patch in axes.patches if patch.get_width()]
    assert [(patch.get_x(), patch.get_width()) for patch in bars] == [(0, 520), (520, 30), (0, 1600), (1600, 250)]
    assert len({patch.get_hatch() for patch in bars}) == 3
    assert max(axes.lines[0].get_xdata()) == 1900


def test_a_bar_without_switchover_says_so(drawn: list) -> None:
    told = plots.ledger_bars({"on": {}, "off": {"busy": 5.0}})
    assert texts(drawn[0])[0] == "no switchover"
    assert alt(told) == "Where the downtime went, one bar each: on no switchover, off 5 ms."
    plots.ledger_bars({"on": {}, "off": {}})
    assert drawn[1].axes[0].get_ylim() == (1.5, -0.5)


def test_ten_parts_differ_in_face_and_hatch() -> None:
    assert len({part[:2] for part in plots.PARTS}) == len(plots.PARTS) == 10


def test_faces_are_opaque(drawn: list) -> None:
    plots.heat_map(TABLE, "limit", "rate", "ms")
    plots.quantile_band(TABLE[TABLE.limit == 30], "rate", "ms")
    plots.ledger_bars({"a": {"b": 1.0}})
    assert {figure.get_facecolor() for figure in drawn} == {(1.0, 1.0, 1.0, 1.0)}
