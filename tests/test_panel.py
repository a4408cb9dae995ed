"""A figure with knobs: what is turned is simulated, and what came out is drawn and said."""
from __future__ import annotations

from pathlib import Path

import pytest

from migsim import ScenarioError, load_scenario, run
from migsim.panel import panel
from sweeps import SMALL

BUSY = Path(__file__).parent.parent / "data" / "recordings-busy" / "k1-chunk-behind-ram-new"


def told(done: object) -> str:
    return f"<b>{done.outcome.get('downtime')}</b>"


def test_a_knob_simulates_anew() -> None:
    shown = panel(SMALL, told, devices__0__destination__load_stop_ms=[0, 50], base=["old", "merged"])
    first = shown.picture.value
    shown.controls["devices.0.destination.load_stop_ms"].value = 50
    want = run(load_scenario(SMALL).with_value("devices.0.destination.load_stop_ms", 50), "old").outcome["downtime"]
    assert shown.picture.value == f"<b>{want}</b>" != first
    assert shown.readout.value == f'<span role="status">status completed, downtime {want} ms</span>'
    shown.controls["base"].value = "merged"
    assert shown.run.binaries[0].code.name == "merged"


def test_it_says_why_a_run_does_not_end() -> None:
    shown = panel(BUSY, told, params__max_bandwidth={"40 MB/s": 40_000_000, "no limit": 0})
    assert "status active: an ACK is awaited for initial data that is never sent" in shown.readout.value
    shown.controls["params.max-bandwidth"].value = 0
    assert "status completed, downtime" in shown.readout.value


def test_values_that_do_not_go_together_leave_the_figure() -> None:
    shown = panel({**SMALL, "guest": {"start_mib": 40, "pages": 10}}, told, mem=[64, 32])
    before = shown.picture.value
    shown.controls["mem"].value = 32
    assert 'role="alert"' in shown.readout.value and "guest.pages" in shown.readout.value
    assert shown.picture.value == before


def test_a_knob_that_does_not_exist_is_one_line() -> None:
    with pytest.raises(ScenarioError, match="meme"):
        panel(SMALL, told, meme=[1])
