"""The ACK ledger against what the devices themselves saw: the recordings' shim logs."""
from __future__ import annotations

import re
from pathlib import Path

import pytest

from migsim import Journal, read_journal, run
from migsim.ackledger import AckEntry, ack_ledger, same_devices
from migsim.analysis import analyze
from migsim.journal import EPOCH, open_text

DATA = Path(__file__).parent.parent / "data"
WITH_DEVICE = sorted(p.parent for p in DATA.glob("recordings*/*/source-shim.log.xz"))
SHIM = re.compile(r"\d+@(\d+)\.(\d{6}):dev(\d+): (.*)\n")
SCHEMES = {"new": {"first", "REINIT", "final check"}, "legacy": {"legacy"}, "old": {"legacy"}}


def shim(path: Path) -> list[tuple[int, int, str]]:
    """(us since 1970, device, text)."""
    found = filter(None, map(SHIM.fullmatch, open_text(path)))
    return [(int(s) * 1_000_000 + int(us), int(dev), text) for s, us, dev, text in (f.groups() for f in found)]


def ledger(folder: Path) -> tuple[Journal, list[AckEntry], str]:
    """The last migration's journal and ledger, and the source's scheme."""
    last = analyze(read_journal(folder / "source.log.xz", folder / "destination.log.xz"))[-1]
    return last.journal, last.acks, last.scheme["source"]


def asked_by_device(source: list[tuple[int, int, str]], dev: int) -> list[int]:
    """When the device gave reason to ask: at PRE_COPY, and at each REINIT shown (or query failed) when nothing that was
    asked for is unread."""
    out, unread, chunks = [], False, 0
    for us, who, text in source:
        if who != dev:
            continue
        if text.startswith("state RUNNING -> PRE_COPY"):
            out, unread, chunks = [us], True, 1  # a session begins with one chunk
        elif "new chunk" in text:
            chunks += 1
        elif re.match("read finished record [IR]", text):
            chunks -= 1
            unread = chunks > 0
        elif text.startswith("GET_PRECOPY_INFO") and ("flags 0x1" in text or "-> ok" not in text) and not unread:
            out.append(us)
            unread = True
    return out


@pytest.mark.parametrize("folder", WITH_DEVICE, ids=lambda p: p.name)
def test_requests_are_those_that_the_devices_gave_reason_for(folder: Path) -> None:
    journal, acks, scheme = ledger(folder)
    if scheme != "new":
        assert {a.why for a in acks} <= {"legacy"}
        return
    names = list(dict.fromkeys(str(e.args[0]) for e in journal.all("vfio_migration_realize", side="source")))
    origin = (journal.start - EPOCH).total_seconds() * 1e6
    expected = {name: asked_by_device(shim(folder / "source-shim.log.xz"), k) for k, name in enumerate(names)}
    capability = journal.all("vfio_send_init_data_flag", side="source")
    for name in names:
        mine = [a for a in acks if a.device == name]
        assert len(mine) == (len(expected[name]) if capability else 0), (mine, expected[name])
        for ack, us in zip(mine, expected[name], strict=False):
            assert -2_000 < ack.asked + origin - us < 20_000, (ack, us)


@pytest.mark.parametrize("folder", WITH_DEVICE, ids=lambda p: p.name)
def test_loaded_when_the_device_had_loaded_the_last_chunk_before_the_marker(folder: Path) -> None:
    journal, acks, scheme = ledger(folder)
    assert {a.why for a in acks} <= SCHEMES[scheme]
    origin = (journal.start - EPOCH).total_seconds() * 1e6
    there = shim(folder / "destination-shim.log.xz")
    loads = [us - origin for us, _, text in there if text.startswith("loaded record I")
             or text.startswith("loaded record R")]
    for ack in acks:
        if ack.loaded is not None:
            assert min(abs(ack.loaded - us) for us in loads) < 2_000, ack
            assert 0 <= ack.approved - ack.loaded < 5_000
            assert ack.counted is None or 0 < ack.counted - ack.approved < 10_000
            assert ack.marker is None or ack.marker < ack.loaded


def counts(folder: str, kind: str = "recordings") -> list[tuple[str, str, bool, bool]]:
    return [(a.device, a.why, a.marker is not None, a.counted is not None) for a in ledger(DATA / kind / folder)[1]]


def test_a_chunk_while_the_last_one_is_on_its_way() -> None:
    assert counts("y2-reinit-while-ack-in-flight") == [("vfio0", "first", True, True), ("vfio0", "REINIT", True, True)]


def test_what_never_came() -> None:
    """l2: the legacy destination answers only its last device; k1: RAM starves the device."""
    assert counts("l2-src-new-dst-legacy-2dev") == [("vfio0", "first", True, False), ("vfio1", "first", True, True)]
    assert counts("k1-chunk-behind-ram-new", "recordings-busy")[1] == ("vfio0", "REINIT", False, False)


def test_nobody_asked_a_legacy_source() -> None:
    """l3: the counter begins at 1, two ACKs come."""
    assert counts("l3-src-legacy-dst-new-2dev") == [("vfio0", "legacy", True, True), ("vfio1", "legacy", True, True)]


def test_the_one_ack_of_a_legacy_destination_without_devices() -> None:
    assert counts("ram-legacy-ack-global") == [("", "legacy", False, True)]
    assert counts("ram-new-ack") == []


def test_names_of_10_0_are_told_by_their_order() -> None:
    folder = DATA / "recordings" / "m-10.0.13-to-11.1.3"
    assert same_devices(read_journal(folder / "source.log.xz", folder / "destination.log.xz")) == {"vfio0": "VFIO_FD4"}
    assert counts("m-10.0.13-to-11.1.3") == [("VFIO_FD4", "legacy", False, True)]


def test_one_side_only() -> None:
    folder = DATA / "recordings" / "b-one-reinit"
    both = ledger(folder)[1]
    here = ack_ledger(read_journal(folder / "source.log.xz"))
    assert [(a.why, a.marker is None, a.counted is None) for a in here] == [(a.why, False, False) for a in both]
    assert all(a.loaded is None and a.approved is None for a in here)
    there = ack_ledger(Journal([e for e in ledger(folder)[0] if e.side == "destination"], EPOCH))
    assert [(a.device, a.why, a.counted) for a in there] == [("vfio0", "not traced", None)] * 2
    assert [a.approved for a in there] == [a.approved for a in both]


def test_a_simulated_run_has_the_same() -> None:
    journal = run(DATA / "scenarios" / "first-migration.yaml").journal
    assert [(a.why, None in a) for a in ack_ledger(journal)] == [("first", False), ("REINIT", False)]
