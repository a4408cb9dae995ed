"""The patch slider: each step marks what the patch changes, and nothing else."""
from __future__ import annotations

from pathlib import Path

import pytest

from migsim import Event, Journal, run
from migsim.ladder import MERGED
from migsim.replay import START
from migsim.slider import STEPS, changes, ladder_table, patch_slider, steps_of, told

SCENARIOS = Path(__file__).parent.parent / "data" / "scenarios"
FIRST, STOPPED = str(SCENARIOS / "first-migration.yaml"), str(SCENARIOS / "stop-while-ack-pending.yaml")


def names(patch: int, scenario: str = FIRST, forced: bool = False) -> set[str]:
    before, after = steps_of(scenario, patch, forced)
    return {c.name for c in changes(before.journal, after.journal)}


@pytest.mark.parametrize("patch, changed", [
    (1, set()), (3, {"loadvm_approve_switchover"}), (4, {"loadvm_state_switchover_ack_needed",
                                                        "migration_request_switchover_ack"}), (7, set()), (9, set())])
def test_a_step_changes_what_its_patch_says(patch: int, changed: set[str]) -> None:
    assert names(patch) == changed


def test_the_last_step_needs_the_scenario_that_shows_it() -> None:
    before, after = steps_of(STOPPED, MERGED)
    assert (before.outcome["status"], after.outcome["status"]) == ("failed", "completed")
    text = told(STOPPED, MERGED)
    assert "abort-implies-new-request: violated → vacuous" in text and "failed → completed" in text


def test_changes_count_and_show_the_first() -> None:
    x, y, z = (Event(k, "source", name, ("a",)) for k, name in enumerate("xyz"))
    one, two = Journal([x, x, y], START), Journal([y._replace(us=5), x._replace(us=6), z], START)
    assert [(c.name, c.before, c.after) for c in changes(one, two)] == [("x", 1, 0), ("z", 0, 1)]
    assert changes(one, one) == []


def test_slider_moves_the_player() -> None:
    slider = patch_slider(FIRST, 12)
    before = slider.player.data
    slider.patch.value = 13
    assert slider.player.data != before and "initial-data-loaded: violated → holds" in slider.readout.value
    slider.forced.value = True
    assert "equal, event for event" in slider.readout.value  # with the scheme forced on, patch 13 changes nothing


def test_equal_journals_say_so() -> None:
    assert "equal, event for event" in told(FIRST, 9)
    assert "just before the series" in told(FIRST, 0) and "equal, event for event" in told(FIRST, 0)
    slider = patch_slider(FIRST, 1)
    slider.patch.value = 0
    assert "just before the series" in slider.readout.value


def test_ladder_in_one_table() -> None:
    rows = ladder_table(FIRST).split("<tr>")[2:]
    assert len(rows) == MERGED
    assert [k for k, row in enumerate(rows, 1) if "<td>–</td>" in row] == [
        k for k in range(1, MERGED + 1) if not names(k)]
    assert "completed, 33 ms" in rows[12] and "completed, 33 ms" not in rows[11]


@pytest.mark.parametrize("patch", [15, -1])
def test_no_such_patch_is_one_line(patch: int) -> None:
    with pytest.raises(ValueError, match="allowed is 0 to 14"):
        steps_of(FIRST, patch)


def test_steps_are_the_ladder() -> None:
    assert STEPS[0] == "base" and STEPS[6] == "p6" and STEPS[14] == "merged" and len(STEPS) == 15
    assert run(FIRST, base=STEPS[13]).journal == run(FIRST, base="v2").journal
