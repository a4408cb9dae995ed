"""Figures of a journal: what they say in words, and when ACKs are awaited."""
from __future__ import annotations

import html
import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from migsim import draw, read_journal, run
from migsim.draw import _ack_waits, pending_figure
from migsim.report import begin

DATA = Path(__file__).parent.parent / "data"


def alt(text: str) -> str:
    return html.unescape(re.search(r'alt="(.*?)"', text)[1])


def test_the_figure_says_the_finding() -> None:
    journal = run(DATA / "recordings-busy" / "k1-chunk-behind-ram-new").journal
    exact = [e.get("total") for e in journal.all("qemu_savevm_query_pending", side="source") if e.get("exact")]
    limit = journal.last("migrate_transferred").get("size")
    told = alt(pending_figure(journal))
    assert told.startswith(f"Pending bytes over {len(exact)} exact queries; the last finds {exact[-1] / 1e6:.1f} MB, "
                           f"below the threshold of {limit / 1e6:.1f} MB. ACKs are awaited for ")
    assert alt(pending_figure(journal, log=True)) == told


def test_recorded_and_simulated_wait_alike() -> None:
    folder = DATA / "recordings-busy" / "k1-chunk-behind-ram-new"
    ours, theirs = run(folder).journal, read_journal(folder / "source.log.xz", folder / "destination.log.xz")
    waits = [_ack_waits(journal, begin(journal)) for journal in (ours, theirs)]
    assert [len(w) for w in waits] == [2, 2]
    assert [*waits[0][0], waits[0][1][0]] == pytest.approx([*waits[1][0], waits[1][1][0]], abs=0.1)
    assert waits[0][1][1] == pytest.approx((ours.events[-1].us - begin(ours)) / 1e6)  # the second never comes


def test_waits_that_overlap_are_one() -> None:
    journal = run(DATA / "scenarios" / "cover-letter.yaml").journal
    waits = _ack_waits(journal, begin(journal))
    assert all(a < b for a, b in waits) and all(b < c for (_, b), (c, _) in pairwise(waits))


def test_a_wait_within_a_wait_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = run(DATA / "recordings-busy" / "a1-ram-low-rate").journal
    spans = [(2_000_000, 9_000_000), (3_000_000, 4_000_000), (9_500_000, 9_600_000)]
    monkeypatch.setattr(draw, "ack_ledger", lambda _: [SimpleNamespace(asked=a, counted=b) for a, b in spans])
    assert _ack_waits(journal, 1_000_000) == [(1.0, 8.0), (8.5, 8.6)]


def test_without_devices_no_ack_is_awaited() -> None:
    journal = run(DATA / "recordings-busy" / "a1-ram-low-rate").journal
    assert _ack_waits(journal, 0) == [] and "awaited" not in alt(pending_figure(journal))
