"""The cells of a sweep: medians on the buttons, a click opens the run in the middle of the cell."""
from __future__ import annotations

import json
import statistics

import pytest

from migsim.picture import pictures
from migsim.player import payload
from migsim.sweep import Sweep, load_sweep, run_sweep
from migsim.sweepview import cells
from sweeps import SMALL

DOWN, ACROSS = "devices.0.destination.load_stop_ms", "devices.0.destination.load_init_ms"
DRAW = {"devices.0.source.stopcopy": {"uniform": [1, 9 << 20]}}


def small(**changes: object) -> Sweep:
    grid = {DOWN: [0, 40], ACROSS: [3000, 20]}  # the first is longer than the time-out
    return load_sweep({"scenario": SMALL, "grid": grid, "runs": 3, "draw": DRAW, **changes})


@pytest.fixture(scope="module")
def view():
    return cells(small(), run_sweep(small()))


def test_buttons_say_the_median_or_never(view) -> None:
    rows = run_sweep(small())
    middle = statistics.median(row["downtime_ms"] for row in rows[9:])
    assert [b.description for b in view.buttons.values()][::2] == ["never"] * 2
    assert view.buttons[40, 20].description == f"{middle:g}"
    assert all(DOWN in b.tooltip and "open the run" in b.tooltip for b in view.buttons.values())


def test_a_click_opens_the_run_in_the_middle(view) -> None:
    view.buttons[40, 20].click()
    rows = sorted(run_sweep(small())[9:], key=lambda row: row["downtime_ms"])
    assert view.opened == rows[1]["run"]
    assert view.player.data == payload(pictures(small().run_of(view.opened).journal))
    assert f"Run {view.opened} ({DOWN} = 40, {ACROSS} = 20, " in view.readout.value
    assert view.readout.value.endswith(": completed</span>")
    view.buttons[0, 3000].click()
    assert view.opened == 1 and "active: an ACK is awaited" in view.readout.value
    assert json.loads(view.player.data)["pictures"]


def test_a_run_that_never_completed_is_the_longest_of_its_cell() -> None:
    rows = run_sweep(small())
    for row, ms in zip(rows[9:], (50, None, 40), strict=True):
        row["downtime_ms"] = ms
    view = cells(small(), rows)
    view.buttons[40, 20].click()
    assert view.opened == rows[9]["run"] and view.buttons[40, 20].description == "50"


def test_text_of_a_sweep_is_no_markup() -> None:
    odd = small(grid={"devices.0.id": ["<img src=x>"], "name": ["<b>"]})
    view = cells(odd, run_sweep(odd))
    assert "<img" not in view.readout.value and "&lt;img" in view.readout.value
    assert not any("<b><b>" in child.value for child in view.children[1].children if hasattr(child, "value"))


def test_a_grid_of_another_size_is_one_line() -> None:
    with pytest.raises(ValueError, match="the sweep's grid has 1 keys: allowed is two"):
        cells(small(grid={"mem": [64]}), [])
    with pytest.raises(ValueError, match="cells: 'down': allowed is "):
        cells(small(), run_sweep(small()), "down")
