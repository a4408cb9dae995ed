"""The clickable matrix: every cell opens its own run."""
from __future__ import annotations

from migsim.meeting import MARKS, meeting, table
from migsim.versions import ENDS


def test_a_click_opens_the_cells_run() -> None:
    m = meeting(1)
    before = m.player.data
    m.buttons[5, 3].click()
    assert m.player.data != before and m.cell.result == "early" and "STOP_COPY" in m.readout.value
    assert m.buttons[5, 3].button_style == "info" and m.buttons[3, 4].button_style == ""


def test_knobs_change_the_cells() -> None:
    m = meeting(1)
    assert m.buttons[4, 3].description == MARKS["moves"]
    m.devices.value = 2
    assert m.buttons[4, 3].description == MARKS["both run"] and m.buttons[3, 4].description == MARKS["never ends"]
    assert "never ends" in m.readout.value


def test_static_twin_says_the_same() -> None:
    text = table(2)
    for (i, k), button in meeting(2).buttons.items():
        cells = text.split("<tr>")[i + 2].split("<td>")[1:]
        assert cells[k].startswith(button.description), (ENDS[i].name, ENDS[k].name)
    assert "both run</b>" in text and "early</b>" in text and "early</b>" not in table(0)


def test_recordings_stand_beside_their_cells() -> None:
    m = meeting(2)
    m.show_cell(4, 3)
    assert "both run" in m.readout.value and "l3-src-legacy-dst-new-2dev" in m.readout.value
    m.show_cell(0, 3)
    assert "No recording has this meeting" in m.readout.value
    row = table(2).split("<tr>")[6].split("<td>")
    assert "<small>l3-src-legacy-dst-new-2dev</small>" in row[4] and "<small>" not in row[1]
