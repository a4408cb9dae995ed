"""The cells of a sweep as buttons: any cell opens its run in the player (ipywidgets)."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets

from .picture import pictures
from .player import payload, show
from .plots import NEVER, median
from .sweep import Sweep, frame

LABEL = {"width": "auto", "margin": "2px"}


class Cells(ipywidgets.VBox):
    """A table of buttons over a player. `buttons`: (value down, value across) -> button; `readout`: what is shown, in
    words; `opened`: the index of the run in the player."""

    def __init__(self, sweep: Sweep, rows: Sequence[Mapping[str, Any]], value: str) -> None:
        if len(sweep.grid) != 2:
            raise ValueError(f"cells: the sweep's grid has {len(sweep.grid)} keys: allowed is two")
        self.sweep, self.value = sweep, value
        self.table = frame(rows)
        if value not in self.table:
            raise ValueError(f"cells: {value!r}: allowed is {', '.join(self.table.columns)}")
        (self.down, downs), (self.across, acrosses) = sweep.grid.items()
        self.buttons = {(a, b): self._button(a, b) for a in downs for b in acrosses}
        self.readout = ipywidgets.HTML()
        first = self._typical(downs[0], acrosses[0])
        self.player = show(sweep.run_of(first).journal)
        self._say(first)
        super().__init__([ipywidgets.HTML(f"{escape(value)}; down: {escape(self.down)}, across: {escape(self.across)}"),
                          self._grid(downs, acrosses), self.readout, self.player])

    def _cell(self, a: Any, b: Any) -> Any:
        return self.table[(self.table[self.down] == a) & (self.table[self.across] == b)]

    def _typical(self, a: Any, b: Any) -> int:
        """The run in the middle of the cell; runs without the value are the longest."""
        order = self._cell(a, b)[self.value].astype(float).fillna(float("inf")).sort_values(kind="stable")
        return int(order.index[(len(order) - 1) // 2])

    def _button(self, a: Any, b: Any) -> ipywidgets.Button:
        middle = median(self._cell(a, b)[self.value])
        button = ipywidgets.Button(
            description=f"{middle:g}" if middle == middle else NEVER, layout=LABEL,
            tooltip=f"{self.down} {a}, {self.across} {b}: open the run")
        button.on_click(lambda _: self.show_cell(a, b))
        return button

    def _grid(self, downs: list, acrosses: list) -> ipywidgets.GridBox:
        def head(value: Any) -> ipywidgets.HTML:
            return ipywidgets.HTML(f"<b>{escape(str(value))}</b>", layout=LABEL)
        cells = [head(""), *map(head, acrosses)]
        for a in downs:
            cells += [head(a), *(self.buttons[a, b] for b in acrosses)]
        columns = f"minmax(60px, max-content) repeat({len(acrosses)}, minmax(64px, 110px))"
        return ipywidgets.GridBox(cells, layout={"grid_template_columns": columns, "width": "100%"})

    def show_cell(self, a: Any, b: Any) -> None:
        """Show the run in the middle of the cell, as a click does."""
        run = self._typical(a, b)
        ps = pictures(self.sweep.run_of(run).journal)
        self.player.data = payload(ps)
        self._say(run)

    def _say(self, run: int) -> None:
        self.opened = run
        row = self.table.loc[run]
        point = ", ".join(f"{key} = {value}" for key, value in self.sweep.point(run).items())
        reason = f": {row['reason']}" if row["reason"] else ""
        self.readout.value = f'<span role="status">Run {run} ({escape(point)}): {escape(row["status"] + reason)}</span>'


def cells(sweep: Sweep, rows: Sequence[Mapping[str, Any]], value: str = "downtime_ms") -> Cells:
    """Buttons for the cells of a grid of two keys, each with the median of `value`; a click opens the cell's run in
    the player. Raises ValueError, one line, for another grid or an unknown column."""
    return Cells(sweep, rows, value)
