"""A figure with knobs: simulates anew at every change and draws what came out (ipywidgets)."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import ipywidgets

from .player import BASE, _control, _path
from .run import Run, run
from .scenario import Scenario, load_scenario
from .sweep import outcome


class Panel(ipywidgets.VBox):
    """Controls above a figure. `controls`: path -> widget; `run`: the run that is drawn; `readout`: how it ended."""

    def __init__(self, scenario: Scenario, figure: Callable[[Run], str], what: Mapping[str, Any]) -> None:
        self.scenario, self.figure = scenario, figure
        self.controls = {path: _control(path, values, scenario) for path, values in what.items()}
        self.readout, self.picture = ipywidgets.HTML(), ipywidgets.HTML()
        self._draw()
        super().__init__([*self.controls.values(), self.readout, self.picture])
        for control in self.controls.values():
            control.observe(self._changed, "value")

    def _draw(self) -> None:
        values = {path: control.value for path, control in self.controls.items()}
        base = values.pop(BASE, None)
        self.run = run(self.scenario.replace(**values), base)
        self.picture.value = self.figure(self.run)
        self.readout.value = f'<span role="status">{escape(words(self.run))}</span>'

    def _changed(self, _: Any) -> None:
        try:
            self._draw()
        except ValueError as error:
            self.readout.value = f'<span role="alert">{escape(str(error))}</span>'


def words(done: Run) -> str:
    """How a run ended, in one line."""
    ended, down = outcome(done), done.outcome.get("downtime")
    return (f"status {ended['status']}" + (f", downtime {down} ms" if down is not None else "")
            + (f": {ended['reason']}" if ended["reason"] else ""))


def panel(scenario: Any, figure: Callable[[Run], str], **what: Any) -> Panel:
    """Knobs over a figure. `figure`: a run -> HTML; `what`: as for player.knobs(), `__` stands for a dot; `base` takes
    a list. Raises ScenarioError, one line."""
    if not isinstance(scenario, Scenario):
        scenario = load_scenario(scenario)
    return Panel(scenario, figure, {_path(name): values for name, values in what.items()})
