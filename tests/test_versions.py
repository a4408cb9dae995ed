"""The meeting of two versions against the facts sheet's table 8.3 and the recordings that are single cells of it."""
from __future__ import annotations

from pathlib import Path

import pytest

from migsim import run
from migsim.versions import ENDS, RESULTS, End, classify, confirming, matrix, meet, result_of

RECORDINGS = Path(__file__).parent.parent / "data" / "recordings"
NEW, LEGACY = ENDS[3], ENDS[4]
NEW_OFF, LEGACY_OFF = ENDS[5], LEGACY._replace(ack=False)

#: facts sheet 8.3: source, destination, devices, REINIT after ms -> result, words of the reason
TABLE = [
    (NEW, LEGACY, 0, 0, "never ends", "underflowed"), (LEGACY, NEW, 0, 0, "never ends", "status active"),
    (NEW, LEGACY, 1, 0, "moves", ""), (LEGACY, NEW, 1, 0, "moves", ""),
    (NEW, LEGACY, 1, 150, "refused", "qemu_loadvm_approve_switchover failed"),
    (NEW, LEGACY, 2, 0, "never ends", "status active"), (LEGACY, NEW, 2, 0, "both run", "underflowed"),
    (NEW, NEW_OFF, 1, 0, "refused", "Received INIT_DATA_SENT"),
    (LEGACY, LEGACY_OFF, 1, 0, "refused", "Received INIT_DATA_SENT"),
    (NEW, NEW_OFF, 0, 0, "moves", ""), (LEGACY, LEGACY_OFF, 0, 0, "never ends", "status active"),
    (NEW_OFF, NEW, 0, 0, "moves", ""), (LEGACY_OFF, LEGACY, 0, 0, "moves", ""),
    (NEW_OFF, LEGACY, 0, 0, "both run", "underflowed"), (NEW_OFF, NEW, 1, 0, "early", "1 of 1 initial chunks"),
    (ENDS[0], ENDS[1], 2, 0, "moves", ""), (ENDS[1], ENDS[0], 2, 0, "moves", ""),
    (ENDS[0], NEW, 1, 0, "refused", "Machine type received is"),
]


@pytest.mark.parametrize("source, destination, devices, reinit, result, words", TABLE,
                         ids=lambda v: v.name + ("" if v.ack else " off") if isinstance(v, End) else None)
def test_table_of_the_facts_sheet(source: End, destination: End, devices: int, reinit: int, result: str,
                                  words: str) -> None:
    if reinit:  # the chunk comes while the first is still being loaded elsewhere: keep the migration going until then
        cell = meet(source, destination, devices, reinit, load_ms=400)
    else:
        cell = meet(source, destination, devices)
    assert cell.result == result and words in cell.why


@pytest.mark.parametrize("name, result", [
    ("l2-src-new-dst-legacy-2dev", "never ends"), ("l3-src-legacy-dst-new-2dev", "both run"),
    ("m-10.0.13-to-11.1.3", "moves"), ("ram-legacy-ack-global", "moves"), ("ram-10.0.13-to-11.1.3", "moves"),
    ("k-cap-off-with-reinit", "early")])
def test_recordings_are_cells(name: str, result: str) -> None:
    """Their own scenario, classified; that the run equals the recording is tested in test_recordings.py."""
    assert classify(run(RECORDINGS / name))[0] == result


def test_matrix_has_every_meeting() -> None:
    cells = matrix(1)
    assert [[(c.source, c.destination) for c in row] for row in cells] == [[(s, d) for d in ENDS] for s in ENDS]
    results = {c.result for row in cells for c in row}
    assert results <= RESULTS.keys() and {"moves", "refused", "early"} <= results


def test_other_machine_is_always_refused() -> None:
    for row in matrix(1):
        for cell in row:
            if cell.source.machine != cell.destination.machine:
                assert cell.result == "refused" and "Machine type received is" in cell.why


def test_recordings_confirm_the_cells_they_are() -> None:
    assert confirming(NEW, LEGACY, 2, False, "never ends") == ("l2-src-new-dst-legacy-2dev",)
    assert confirming(LEGACY, NEW, 2, False, "both run") == ("l3-src-legacy-dst-new-2dev",)
    assert confirming(ENDS[0], ENDS[1], 1, True, "moves") == ("m-10.0.13-to-11.1.3",)
    assert "ram-no-cap" in confirming(NEW_OFF, NEW_OFF, 0, False, "moves")
    assert "b-one-reinit" in confirming(NEW, NEW, 1, True, "moves")


def test_a_recording_that_came_to_another_result_confirms_nothing() -> None:
    assert confirming(NEW, LEGACY, 2, False, "moves") == () and confirming(ENDS[0], NEW, 1, False, "refused") == ()
    new = confirming(NEW, NEW, 1, False, "moves")  # g lacks PRE_COPY, j fails, in i5 management stops the guest
    assert new == ("a-one-device-new-ack",)


def test_result_of_a_migration() -> None:
    journal = run(RECORDINGS / "k-cap-off-with-reinit").journal
    states = {"source": "postmigrate", "destination": "running"}
    early, why = result_of("completed", states, journal)
    assert early == "early" and "1 of 2 initial chunks" in why
    assert result_of("failed", states, journal) == ("refused", "")
    assert result_of("active", states, journal) == ("never ends", "")
    assert result_of("failed", dict.fromkeys(states, "running"), journal)[0] == "both run"
