"""The cross-version matrix as buttons: each cell opens its run in the player (ipywidgets), and its static twin."""
from __future__ import annotations

from functools import lru_cache
from html import escape
from typing import Any

import ipywidgets

from .picture import pictures
from .player import payload, show
from .versions import ENDS, RESULTS, Cell, confirming, matrix

MARKS = {"moves": "✓ moves", "early": "! early", "both run": "✗ both run", "never ends": "∞ never ends",
         "refused": "– refused"}


@lru_cache(maxsize=8)
def _cells(devices: int, reinit_ms: int) -> tuple[tuple[Cell, ...], ...]:
    return tuple(tuple(row) for row in matrix(devices, reinit_ms))


def recorded(cell: Cell, devices: int, reinit_ms: int) -> tuple[str, ...]:
    """Recordings of real QEMU that confirm a cell."""
    return confirming(cell.source, cell.destination, devices, bool(reinit_ms), cell.result)


def _small(cell: Cell, devices: int, reinit_ms: int) -> str:
    return "".join(f"<br><small>{escape(name)}</small>" for name in recorded(cell, devices, reinit_ms))


def table(devices: int = 1, reinit_ms: int = 0) -> str:
    """The matrix as HTML: sources down, destinations across, each cell's result and the recordings that confirm it."""
    rows = _cells(devices, reinit_ms)
    head = "".join(f"<th scope=col>{escape(end.name)}</th>" for end in ENDS)
    body = "".join(f"<tr><th scope=row>{escape(row[0].source.name)}</th>"
                   + "".join(f"<td>{MARKS[cell.result]}{_small(cell, devices, reinit_ms)}</td>" for cell in row)
                   + "</tr>" for row in rows)
    used = {cell.result for row in rows for cell in row}
    legend = "".join(f"<li><b>{MARKS[key]}</b>: {escape(text)}</li>" for key, text in RESULTS.items() if key in used)
    head = f"<tr><th scope=col>source \\ destination</th>{head}</tr>"
    style = "table-layout: fixed; width: 100%; overflow-wrap: break-word; font-size: 12px"
    return f'<table style="{style}">{head}{body}</table><ul>{legend}</ul>'


class Meeting(ipywidgets.VBox):
    """`controls`: devices and REINIT; `buttons`: (row, column) -> button; `readout` says what the player shows."""

    def __init__(self, devices: int, reinit_ms: int) -> None:
        self.devices = ipywidgets.Dropdown(options=[0, 1, 2], value=devices, description="devices")
        self.reinit = ipywidgets.Dropdown(options=[("never", 0), ("at 150 ms", 150), ("at 400 ms", 400)],
                                          value=reinit_ms, description="REINIT")
        size = range(len(ENDS))
        self.buttons = {(i, k): ipywidgets.Button(layout={"width": "auto", "margin": "2px"})
                        for i in size for k in size}
        for at, button in self.buttons.items():
            button.on_click(lambda _, at=at: self.show_cell(*at))
        self.readout = ipywidgets.HTML()
        self.opened = (3, 4)
        self.player = show(self.cell.run.journal)
        self._label()
        super().__init__([ipywidgets.HBox([self.devices, self.reinit]), self._grid(), self.readout, self.player])
        for control in (self.devices, self.reinit):
            control.observe(self._changed, "value")

    @property
    def cell(self) -> Cell:
        """What the player shows."""
        row, column = self.opened
        return _cells(self.devices.value, self.reinit.value)[row][column]

    def _grid(self) -> ipywidgets.GridBox:
        def head(text: str) -> ipywidgets.HTML:
            return ipywidgets.HTML(f"<b>{escape(text)}</b>", layout={"width": "auto", "margin": "2px"})
        cells: list[ipywidgets.Widget] = [head("source ↓ destination →"), *(head(end.name) for end in ENDS)]
        for i, end in enumerate(ENDS):
            cells += [head(end.name), *(self.buttons[i, k] for k in range(len(ENDS)))]
        columns = f"minmax(100px, 1.3fr) repeat({len(ENDS)}, minmax(84px, 1fr))"
        return ipywidgets.GridBox(cells, layout={"grid_template_columns": columns, "width": "100%"})

    def _label(self) -> None:
        for (i, k), button in self.buttons.items():
            cell = _cells(self.devices.value, self.reinit.value)[i][k]
            button.description = MARKS[cell.result]
            button.tooltip = f"{cell.source.name} to {cell.destination.name}: {RESULTS[cell.result]}; open the run"
            button.button_style = "info" if (i, k) == self.opened else ""
        cell = self.cell
        names = ", ".join(recorded(cell, self.devices.value, self.reinit.value))
        real = f" With real QEMU: {escape(names)}." if names else " No recording has this meeting."
        self.readout.value = (f'<span role="status"><b>{escape(cell.source.name)} → {escape(cell.destination.name)}: '
                              f"{MARKS[cell.result]}</b>. {escape(RESULTS[cell.result])}. {escape(cell.why)}."
                              f"{real}</span>")

    def show_cell(self, row: int, column: int) -> None:
        """Show a cell's run, as a click does."""
        self.opened = row, column
        self._draw()

    def _changed(self, _: Any) -> None:
        self._draw()

    def _draw(self) -> None:
        self.player.data = payload(pictures(self.cell.run.journal))
        self._label()


def meeting(devices: int = 2, reinit_ms: int = 0) -> Meeting:
    """The matrix of migsim.versions as buttons over a player."""
    return Meeting(devices, reinit_ms)
