"""Figures from a journal, as HTML that keeps its alternative text in every export (matplotlib).

Opaque faces, so that they read on light and dark pages; nothing is told by colour alone.
"""
from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

from .journal import Journal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, GRID, BLUE, RED, AMBER = "#1f2430", "#d5d9e0", "#1f5fa8", "#b3202a", "#8a5a00"
STYLE = {"figure.facecolor": "white", "axes.facecolor": "white", "axes.edgecolor": INK, "axes.labelcolor": INK,
         "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.grid": True, "grid.color": GRID,
         "axes.spines.top": False, "axes.spines.right": False, "font.size": 11, "svg.hashsalt": "migsim"}


def figure_html(figure: Figure, alt: str) -> str:
    """The figure as <figure><img alt=...>; `alt` says the finding."""
    import matplotlib.pyplot as plt

    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    data = base64.b64encode(out.getvalue()).decode()
    return (f'<figure style="margin:0"><img alt="{html.escape(alt, quote=True)}" style="max-width:100%" '
            f'src="data:image/png;base64,{data}"></figure>')


def pending_figure(journal: Journal) -> str:
    """Bytes pending at each query of the source and the threshold, over time (facts sheet 2.3, 2.4)."""
    import matplotlib.pyplot as plt

    begin = journal.first("migrate_set_state", "source")
    start = begin.us if begin else 0
    fast, exact, windows = [], [], []
    for e in journal.all("qemu_savevm_query_pending", "migrate_transferred", side="source"):
        at = (e.us - start) / 1e6
        if e.name == "migrate_transferred":
            windows.append((at, e.get("size") / 1e6))
        else:
            (exact if e.get("exact") else fast).append((at, e.get("total") / 1e6))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8, 3.4))
        if fast:
            axes.plot(*zip(*fast, strict=True), color=BLUE, marker=".", linewidth=1, label="estimate at each turn")
        if exact:
            axes.plot(*zip(*exact, strict=True), color=RED, marker="D", linestyle="", label="exact query")
        if windows:
            axes.step(*zip(*windows, strict=True), where="post", color=INK, linestyle="--", label="threshold")
        axes.set_xlabel("seconds after setup")
        axes.set_ylabel("MB pending")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, loc="upper right")
    last = exact[-1][1] if exact else 0.0
    limit = windows[-1][1] if windows else 0.0
    verdict = "below" if last <= limit else "above"
    return figure_html(figure, f"Pending bytes over {len(exact)} exact queries; the last finds {last:.1f} MB, "
                               f"{verdict} the threshold of {limit:.1f} MB.")
