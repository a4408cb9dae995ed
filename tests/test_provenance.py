"""Which code base and scheme wrote a log."""
from __future__ import annotations

from pathlib import Path

import pytest

from migsim import CODE_BASES, Event, Journal, run
from migsim.analysis import analyze
from migsim.journal import EPOCH
from migsim.log import read_log
from migsim.provenance import Base, code_base_of, scheme_of

DATA = Path(__file__).parent.parent / "data"
ORDER = list(CODE_BASES)


@pytest.mark.parametrize("name", ORDER)
def test_each_code_base_is_among_those_that_fit(name: str) -> None:
    journal = run(DATA / "scenarios" / "first-migration.yaml", base=name).journal
    for side in ("source", "destination"):
        base = code_base_of(journal, side)
        assert not base.mixed and ORDER.index(base.first) <= ORDER.index(name) <= ORDER.index(base.last), base
    expected = "old" if CODE_BASES[name].level < 6 else "legacy" if CODE_BASES[name].level < 13 else "new"
    assert scheme_of(journal, "source") == expected
    assert scheme_of(journal, "destination") == ("legacy" if expected == "old" and CODE_BASES[name].level == 5
                                                 else expected)


def test_recordings() -> None:
    def bases(name: str) -> list[str]:
        folder = DATA / "recordings" / name
        found = analyze(read_log(folder / "source.log.xz", folder / "destination.log.xz"))[-1]
        return [f"{base} {base.name}" for base in found.base.values()]

    assert bases("a-one-device-new-ack") == ["p12 to merged merged", "p11 to merged merged"]
    assert bases("d-reinit-in-gap") == ["merged merged", "p11 to merged merged"]  # failing
    assert bases("m-10.0.13-to-11.1.3") == ["old old", "p11 to merged merged"]


def test_events_of_two_code_bases() -> None:
    events = [Event(1, "source", "migrate_pending_estimate", (1, 1, 0)),
              Event(2, "source", "vfio_send_init_data_flag", ("vfio0",))]
    base = code_base_of(Journal(events, EPOCH), "source")
    assert base.mixed and str(base) == "of no single code base"
    assert code_base_of(Journal(events, EPOCH), "destination") == Base("", "") and str(Base("", "")) == "unknown"
    assert Base("", "").name == ""


def test_a_number_or_a_name_of_the_approver() -> None:
    def of(*args: object) -> tuple[str, str]:
        journal = Journal([Event(1, "destination", "loadvm_approve_switchover", args)], EPOCH)
        return str(code_base_of(journal, "destination")), scheme_of(journal, "destination")

    assert of(0) == ("old to p2", "old") and of("vfio0", 0) == ("p3 to p4", "old")
    assert of("vfio0") == ("p6 to merged", "new")
