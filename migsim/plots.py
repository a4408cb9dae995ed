"""Figures of tables: heat map and quantile band of a sweep, bars of where the downtime went (pandas, matplotlib).

Like draw.py: HTML with alternative text that says the finding; opaque faces; every number that a colour tells is
written too, every series has its own hatch, dash and label.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .draw import AMBER, BLUE, INK, RED, STYLE, figure_html

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

NEVER = "never"
#: face, hatch and text of the parts of a bar, again from the start after ten
PARTS = (("#1f5fa8", "", "white"), ("#e8b04a", "///", INK), ("#d5d9e0", "...", INK), ("#7a9cc6", "\\\\\\", INK),
         ("#f0d9b5", "xx", INK), ("#f7f8fa", "||", INK), ("#c3d9c6", "--", INK), ("#5b6475", "", "white"),
         ("#e3c5cb", "++", INK), ("#b9a7cf", "oo", INK))
LINES = ((BLUE, "-", "o"), (RED, "--", "s"), (AMBER, ":", "D"), (INK, "-.", "^"))


def heat_map(table: pandas.DataFrame, down: str, across: str, value: str) -> str:
    """The median of column `value` for each pair of `down` and `across`, in the order in which they stand there.

    A run without the value counts as longer than any; a cell whose median is such a run says `never`. How many of a
    cell have none is written below.
    """
    import matplotlib.pyplot as plt
    from matplotlib.colors import LogNorm, Normalize

    rows, columns = (list(dict.fromkeys(table[key])) for key in (down, across))
    groups = table.groupby([down, across], sort=False)[value]
    middle = groups.agg(median).unstack(across).loc[rows, columns]
    missing = groups.agg(lambda cell: cell.isna().sum()).unstack(across).loc[rows, columns]
    low, high = middle.min(axis=None), middle.max(axis=None)
    norm = LogNorm(low, high) if low > 0 and high > 20 * low else Normalize(low, max(high, low + 1))
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = plt.subplots(figsize=(7.6, 1.4 + 0.52 * len(rows)))
        axes.imshow(middle, cmap="Blues", norm=norm, aspect="auto", alpha=0.9)
        for i, row in enumerate(middle.to_numpy()):
            for j, number in enumerate(row):
                _cell(axes, i, j, number, int(missing.iat[i, j]), norm)
        axes.set_xticks(range(len(columns)), map(str, columns))
        axes.set_yticks(range(len(rows)), map(str, rows))
        axes.set_xlabel(across)
        axes.set_ylabel(down)
        axes.set_title(f"{value}, median of each cell", fontsize=11, loc="left")
    empty = int(middle.isna().sum(axis=None))
    return figure_html(figure, f"Heat map of {value} over {down} and {across}: medians from {_number(low)} to "
                               f"{_number(high)}; {empty} of {middle.size} cells never complete.")


def median(cell: pandas.Series) -> float:
    """The median, where no value is longer than any; NaN if that is what it comes to."""
    middle = cell.astype(float).fillna(float("inf")).median()
    return middle if middle < float("inf") else float("nan")


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def _cell(axes: Axes, i: int, j: int, number: float, missing: int, norm: Any) -> None:
    if number != number:  # NaN
        axes.add_patch(_box(j, i))
        text, ink, back = NEVER, INK, {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    else:
        text, ink, back = _number(number), "white" if norm(number) > 0.6 else INK, None
        text += f"\n({missing} never)" if missing else ""
    axes.text(j, i, text, ha="center", va="center", color=ink, fontsize=10 if "\n" not in text else 8.5, bbox=back)


def _box(x: float, y: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor="white", edgecolor="#9aa3b2", hatch="///", linewidth=0)


def quantile_band(table: pandas.DataFrame, x: str, value: str, by: str | None = None, log: bool = False) -> str:
    """Median of `value` over `x` as a line, 5 to 95 % of the runs as a band; a line for each value of `by`."""
    import matplotlib.pyplot as plt

    groups = {"": table} if by is None else {str(k): part for k, part in table.groupby(by, sort=False)}
    told = []
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.6, 3.6))
        for (name, part), (ink, dash, mark) in zip(groups.items(), LINES * len(groups), strict=False):
            low, middle, high = (part.groupby(x)[value].quantile(q) for q in (0.05, 0.5, 0.95))
            axes.plot(middle.index, middle, color=ink, linestyle=dash, marker=mark, label=name or "median")
            axes.fill_between(middle.index, low, high, color=ink, alpha=0.18, linewidth=0)
            told.append(f"{name or 'median'} from {_number(middle.iloc[0])} to {_number(middle.iloc[-1])}, "
                        f"95 % up to {_number(high.max())}")
        if log:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(x)
        axes.set_ylabel(value)
        axes.legend(frameon=False, title="line: median, band: 5 to 95 %", title_fontsize=9)
    return figure_html(figure, f"{value} over {x}: " + "; ".join(told) + ".")


def ledger_bars(ledgers: Mapping[str, Mapping[str, float]], marks: Mapping[str, Sequence[float]] | None = None,
                marked: str = "recorded") -> str:
    """One bar for each ledger (name -> what -> ms), what took how long one after the other, the sum behind it;
    an empty one says that there was no switchover.

    `marks`: what was recorded of a whole bar, ms, as diamonds called `marked`.
    """
    import matplotlib.pyplot as plt

    parts = list(dict.fromkeys(what for ledger in ledgers.values() for what in ledger))
    sums = [sum(ledger.values()) for ledger in ledgers.values()]
    longest = max([1.0, *sums, *(ms for given in (marks or {}).values() for ms in given)])
    with plt.rc_context({**STYLE, "hatch.linewidth": 0.5, "axes.grid.axis": "x", "axes.axisbelow": True}):
        figure, axes = plt.subplots(figsize=(7.6, 1.5 + 0.55 * len(ledgers)))
        for i, (name, ledger) in enumerate(ledgers.items()):
            _bar(axes, i, ledger, parts, longest)
            for ms in (marks or {}).get(name, ()):
                axes.plot(ms, i + 0.38, marker="D", color=RED, markersize=5, linestyle="", clip_on=False, zorder=5)
        for what, (face, hatch, _) in zip(parts, PARTS * len(parts), strict=False):
            axes.barh(0, 0, color=face, hatch=hatch, edgecolor=INK, linewidth=0.5, label=what)
        if marks:
            axes.plot([], [], marker="D", color=RED, linestyle="", label=marked)
        axes.set_yticks(range(len(ledgers)), list(ledgers))
        axes.set_ylim(len(ledgers) - 0.5, -0.5)
        axes.set_xlim(0, longest * 1.13)
        axes.set_xlabel("ms of downtime")
        if parts or marks:
            axes.legend(frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1), fontsize=9)
    told = ", ".join(f"{name} {_number(ms)} ms" if ledgers[name] else f"{name} no switchover"
                     for name, ms in zip(ledgers, sums, strict=True))
    return figure_html(figure, f"Where the downtime went, one bar each: {told}.")


def _bar(axes: Axes, i: int, ledger: Mapping[str, float], parts: list[str], longest: float) -> None:
    left = 0.0
    for what, (face, hatch, ink) in zip(parts, PARTS * len(parts), strict=False):
        ms = ledger.get(what, 0.0)
        if not ms:
            continue
        axes.barh(i, ms, left=left, height=0.62, color=face, hatch=hatch, edgecolor=INK, linewidth=0.5)
        if ms > longest * 0.06:
            axes.text(left + ms / 2, i, _number(ms), ha="center", va="center", color=ink, fontsize=9,
                      bbox={"facecolor": face, "edgecolor": "none", "pad": 1})
        left += ms
    axes.text(left + longest * 0.01, i, _number(left) if ledger else "no switchover", va="center", color=INK,
              fontweight="bold", fontsize=10)
