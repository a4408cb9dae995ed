"""What a log lacks, and how to get it."""
from __future__ import annotations

from pathlib import Path

import pytest

from migsim import Journal, run
from migsim.ackledger import LEGACY_REQUESTS
from migsim.analysis import RECEIVING, SENDING, analyze
from migsim.compare import PROTOCOL
from migsim.log import read_log
from migsim.missing import PATTERNS, TRACE_OPTIONS, WANTED, pattern

DATA = Path(__file__).parent.parent / "data"
FOLDERS = sorted(p.parent for p in DATA.glob("recordings*/*/scenario.json"))
B = read_log(*(DATA / "recordings" / "b-one-reinit" / f"{side}.log.xz" for side in ("source", "destination")))


def without(*names: str) -> list[str]:
    journal = Journal([e for e in B if e.name not in names], B.start, (), None,
                      tuple(f for f in B.folds if f.name not in names))
    return analyze(journal)[0].missing


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_recordings_lack_nothing_but_what_their_qemu_has_not(folder: Path) -> None:
    for a in analyze(read_log(folder / "source.log.xz", folder / "destination.log.xz")):
        assert [text for text in a.missing if "QEMU before 11.1 has none" not in text] == []
        assert bool(a.missing) == (a.base["source"].name == "old")


@pytest.mark.parametrize("wanted", [w for w in WANTED if w.events != "migrate_set_state" and w.given != "old"],
                         ids=lambda w: w.events[:30])
def test_each_is_missed(wanted: object) -> None:
    found = [text for text in without(*wanted.events.split()) if wanted.what in text]
    assert any(text.startswith(f"{wanted.side}: no {wanted.events.split()[0]} events: enable `") for text in found)


def test_old_has_pending_events_of_its_own() -> None:
    journal = run(DATA / "scenarios" / "first-migration.yaml", base="old").journal
    less = Journal([e for e in journal if not e.name.startswith("migrate_pending")], journal.start)
    assert [m for m in analyze(less)[0].missing if "QEMU before" not in m] == [
        "source: no migrate_pending_estimate events: enable `migrat*` (pending bytes)"]


def test_words() -> None:
    assert without("vfio_query_precopy_size") == [
        "source: no vfio_query_precopy_size events: enable `vfio_*` (initial data and REINIT)"]
    assert without("vmstate_downtime_save") == [
        "source: no vmstate_downtime_save events: enable `vmstate_downtime_*`, QEMU 8.2 on (what each device's save "
        "took)"]


def test_the_options_enable_every_event_that_is_looked_at() -> None:
    looked_at = {*SENDING, *RECEIVING, *LEGACY_REQUESTS, *PROTOCOL["source"], *PROTOCOL["destination"],
                 *(name for w in WANTED for name in w.events.split())}
    assert [name for name in sorted(looked_at) if pattern(name) not in PATTERNS] == []
    assert TRACE_OPTIONS.startswith("-msg timestamp=on -D LOG -trace 'migrat*' ")
