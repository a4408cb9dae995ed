"""Figures from a journal, as HTML that keeps its alternative text in every export (matplotlib).

Opaque faces, so that they read on light and dark pages; nothing is told by colour alone.
"""
from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

from .ackledger import ack_ledger
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


def pending_figure(journal: Journal, log: bool = False) -> str:
    """Bytes pending at each query of the source and the threshold, over time (facts sheet 2.3, 2.4); hatched where an
    ACK is awaited."""
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
        waits = _ack_waits(journal, start)
        for k, (begins, ends) in enumerate(waits):
            axes.axvspan(begins, ends, facecolor=AMBER, alpha=0.12, zorder=0)
            axes.axvspan(begins, ends, facecolor="none", edgecolor=AMBER, hatch="///", linewidth=0, alpha=0.5, zorder=0,
                         label="" if k else "an ACK is awaited")
        axes.set_xlabel("seconds after setup")
        axes.set_ylabel("MB pending")
        if log:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, fontsize=9, columnspacing=1.2)
    last = exact[-1][1] if exact else 0.0
    limit = windows[-1][1] if windows else 0.0
    verdict = "below" if last <= limit else "above"
    awaited = f" ACKs are awaited for {sum(b - a for a, b in waits):.1f} s." if waits else ""
    return figure_html(figure, f"Pending bytes over {len(exact)} exact queries; the last finds {last:.1f} MB, "
                               f"{verdict} the threshold of {limit:.1f} MB.{awaited}")


def _ack_waits(journal: Journal, start: int) -> list[tuple[float, float]]:
    """When ACKs are awaited, s after `start`; to the journal's end where one never comes."""
    spans = sorted((entry.asked, entry.counted or journal.events[-1].us) for entry in ack_ledger(journal)
                   if entry.asked is not None)
    joined: list[tuple[int, int]] = []
    for begins, ends in spans:
        if joined and begins <= joined[-1][1]:
            begins, ends = joined[-1][0], max(ends, joined.pop()[1])
        joined.append((begins, ends))
    return [((begins - start) / 1e6, (ends - start) / 1e6) for begins, ends in joined]
