"""Journal to picture: messages paired, states followed, turns folded, differences found; simulated as recorded."""
from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise, product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migsim.channels import SLACK_US, device_numbers
from migsim.compare import find_log, protocol_events
from migsim.events import RawText
from migsim.journal import Event, Journal, read_journal
from migsim.picture import MAX_ITEMS, Picture, picture, pictures, protocol_indexes, warp
from migsim.run import run

DATA = Path(__file__).parents[1] / "data"
RECORDINGS = sorted(p.name for p in (DATA / "recordings").iterdir() if p.is_dir())
START = datetime(2026, 1, 1, tzinfo=UTC)


def recorded(name: str) -> Journal:
    """A recorded journal."""
    folder = next(p for p in (DATA / "recordings" / name, DATA / "recordings-busy" / name) if p.is_dir())
    return read_journal(find_log(folder, "source"), find_log(folder, "destination"))


def labels(p: Picture, kind: str) -> list[str]:
    return [m.label for m in p.messages if m.kind == kind]


def states(p: Picture, lane: str) -> list[str]:
    return [b.state for b in p.bands if b.lane == lane]


def journal(*events: tuple) -> Journal:
    return Journal([Event(*e) for e in events], START)


@pytest.fixture(scope="module")
def one() -> Picture:
    return picture(recorded("a-one-device-new-ack"))


def test_states_of_a_recording(one):
    assert states(one, "source/status") == ["setup", "active", "device", "completed"]
    assert states(one, "source/device0")[2:] == [
        "RUNNING", "PRE_COPY", "PRE_COPY_P2P", "STOP_COPY", "STOP"]
    assert states(one, "destination/device0")[:4] == ["RUNNING", "RESUMING", "RUNNING_P2P", "RUNNING"]
    assert states(one, "guest")[:3] == ["source", "stopped", "destination"]
    assert [c.value for c in one.counter] == ["1", "0"]
    [(a, b)] = one.downtime
    assert b - a == pytest.approx(26_129, abs=1)  # as the log's time stamps have it


def test_messages_of_a_recording(one):
    assert labels(one, "command") == ["OPEN_RETURN_PATH", "PING", "SWITCHOVER_START"]
    assert labels(one, "marker") == ["vfio0 INIT_DATA_SENT"]
    assert labels(one, "ack") == ["SWITCHOVER_ACK"]
    assert labels(one, "pong") == ["PONG"] and labels(one, "shut") == ["SHUT"]
    assert [m.count for m in one.messages if m.kind == "data"] == [1, 4]
    assert all(m.at is not None and m.at >= m.us for m in one.messages)


@pytest.mark.parametrize("name", RECORDINGS)
def test_simulated_and_recorded_give_the_same_picture(name):
    """The same lanes, statuses, device states and messages, whoever wrote the journal.

    The logs go on while QEMU is told to quit; an attempt's first destination has a log of its own; how many discard
    commands RAM needs is not of the protocol (recordings' README).
    """
    real, ours = picture(recorded(name)), picture(run(DATA / "recordings" / name).journal)
    if real.notes:  # lines left out
        return
    for lane in ("source/status", "source/device0", "source/device1"):
        known = min(len(states(ours, lane)), len(states(real, lane)))
        assert known >= len(states(real, lane)) - 3 and states(ours, lane)[:known] == states(real, lane)[:known]
    if (DATA / "recordings" / name / "attempt1-destination.log.xz").exists():
        return
    assert [lane.key for lane in ours.lanes] == [lane.key for lane in real.lanes]
    assert states(ours, "destination/status") == states(real, "destination/status")
    for kind in ("command", "marker", "ack", "config", "state"):
        one, two = ([name for name in labels(p, kind) if name != "POSTCOPY_RAM_DISCARD"] for p in (ours, real))
        assert sorted(one) == sorted(two), kind


@pytest.mark.parametrize("name", ["a-one-device-new-ack", "d-reinit-in-gap", "m-10.0.13-to-11.1.3", "ram-postcopy",
                                  "n-cancel-then-again", "l3-src-legacy-dst-new-2dev"])
def test_protocol_events_are_never_folded(name):
    """As many as compare.protocol_events() counts, each one an item of its own."""
    j = recorded(name)
    wanted = sum(len(keys) for side in ("source", "destination") for keys in protocol_events(
        [(e.us, e.name, e.args) for e in j.side(side)], side))
    assert sum(i.kind == "protocol" for i in picture(j).items) == wanted
    assert len(protocol_indexes(j, device_numbers(j))) == wanted


def test_folds_hold_what_the_items_do_not():
    j = recorded("d1-device-20MBs-new")
    p = picture(j)
    assert len(p.items) < 400 < 20_000 < len(j)
    turns = sum(i.count for i in p.items if i.kind == "fold" and "loop turn" in i.text)
    assert turns == len(j.all("savevm_state_iterate"))
    assert [i.us for i in p.items] == sorted(i.us for i in p.items)


def test_before_patch_8_the_marker_has_no_event():
    """10.0 sends the marker without a trace: it begins where the initial data were drained."""
    p = picture(recorded("m-10.0.13-to-11.1.3"))
    [marker] = [m for m in p.messages if m.kind == "marker"]
    assert marker.at is not None and marker.at >= marker.us


def test_a_lost_message():
    """The failed attempt's SHUT finds nobody: the source's thread has gone."""
    p = picture(recorded("d-reinit-in-gap"))
    assert [m.label for m in p.messages if m.at is None] == ["SHUT"]


def test_attempts_do_not_mix():
    """The first attempt's destination has a log of its own: its messages find no receipt in the second one's."""
    p = picture(recorded("n-cancel-then-again"))
    second = [b.us for b in p.bands if b.lane == "source/status" and b.state == "setup"]
    pairs = [m for m in p.messages if m.sender == "source/migration"]
    assert len(second) == 2 and {m.at is None for m in pairs if m.us < second[1]} == {True}
    assert {m.at is None for m in pairs if m.us > second[1]} == {False}


def test_two_guests_at_once():
    assert "both" in states(picture(recorded("l3-src-legacy-dst-new-2dev")), "guest")


def test_differences():
    with_, without = recorded("h-with-reinit-run1"), recorded("h-without-reinit-run1")
    a, b = pictures(with_, without)
    only = {i.name for i in a.items if i.differs}
    assert {"vfio_query_precopy_size_request_switchover_ack", "vfio_send_init_data_flag"} <= only
    assert "vfio_query_precopy_size_request_switchover_ack" not in {i.name for i in b.items if i.differs}
    _, last = pictures(without, with_)
    assert only == {i.name for i in last.items if i.differs}
    same = pictures(with_, recorded("h-with-reinit-run1"))
    assert not any(i.differs for p in same for i in p.items)


def test_differences_of_old_and_new_names():
    """10.0 calls the device VFIO_FD4: that is no difference."""
    old, _ = pictures(recorded("m-10.0.13-to-11.1.3"), recorded("a-one-device-new-ack"))
    assert not [i for i in old.items if i.differs and i.name == "vfio_migration_set_device_state" and i.us > 0]


def test_what_is_left_out_is_said():
    events = [(k, "source", "migration_cleanup" if k % 2 else "savevm_state_setup", ()) for k in range(MAX_ITEMS + 50)]
    p = picture(journal((0, "source", "migrate_set_state", ("setup",)), *events))
    assert len(p.items) == MAX_ITEMS and "51 of 4051 steps" in p.notes[0]
    assert p.items[0].name == "migrate_set_state"


def test_damaged_lines_are_no_stumbling_block():
    texts = ("", "(vfio0) nonsense", "\x00", "(vfio0) state")
    names = ("vfio_migration_set_device_state", "vfio_save_block", "vfio_load_state", "migrate_set_state",
             "qemu_savevm_query_pending", "vm_state_notify", "migrate_send_rp_message", "savevm_command_send",
             "loadvm_process_command", "vfio_save_iterate", "source_return_path_thread_switchover_acked")
    events = [(k, side, name, (RawText(text),)) for k, (side, name, text) in enumerate(
        product(("source", "destination"), names, texts))]
    assert len(picture(journal(*events)).items) > 20


def test_an_empty_journal():
    p = picture(journal())
    assert p.items == [] and p.messages == [] and len(warp([p])) >= 1


def test_one_side_only():
    j = recorded("a-one-device-new-ack")
    p = picture(Journal(j.side("source"), j.start))
    assert labels(p, "marker") and all(m.at is None for m in p.messages)
    assert picture(Journal(j.side("destination"), j.start)).items


@given(st.lists(st.integers(0, 2_000), max_size=20), st.lists(st.integers(0, 2_000), max_size=20))
def test_pairs_keep_their_order(sent, received):
    """Every sending shows, in order; no receipt is used twice or lies before its sending."""
    events = [(us, "source", "savevm_command_send", (2, 4)) for us in sent]
    events += [(us, "destination", "loadvm_process_command", ("PING", 4)) for us in received]
    p = picture(journal(*sorted(events)))
    assert [m.us for m in p.messages] == sorted(sent)
    got = [m.at for m in p.messages if m.at is not None]
    assert got == sorted(got) and len(got) <= len(received)
    assert all(m.at >= m.us - SLACK_US for m in p.messages if m.at is not None)


def test_the_scale_is_monotone():
    points = warp(pictures(recorded("h-with-reinit-run1"), recorded("h-without-reinit-run1")))
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(points))
