"""Whose milliseconds the downtime was: sums, and the recordings beside the simulation."""
from __future__ import annotations

from pathlib import Path

import pytest

from migsim import load_recording, load_scenario, read_journal, run
from migsim.shares import downtime_shares

DATA = Path(__file__).parent.parent / "data"
COMPLETED = [p.parent for p in sorted(DATA.glob("recordings*/*/scenario.json"))
             if load_recording(p.parent).result["outcome"].get("downtime") is not None]
H = [p for p in COMPLETED if p.name.startswith("h-") and "postcopy" not in p.name]


def recorded(folder: Path) -> dict[str, float]:
    return downtime_shares(read_journal(folder / "source.log.xz", folder / "destination.log.xz"))


@pytest.mark.parametrize("folder", COMPLETED, ids=lambda p: p.name)
def test_shares_sum_to_the_downtime_that_qemu_reported(folder: Path) -> None:
    done = run(folder)
    ours, theirs = downtime_shares(done.attempt_journals()[-1]), recorded(folder)
    assert sum(theirs.values()) == pytest.approx(load_recording(folder).result["outcome"]["downtime"], abs=1)
    assert sum(ours.values()) == pytest.approx(done.outcome["downtime"], abs=1)
    assert set(ours) == set(theirs) and min(*ours.values(), *theirs.values()) >= 0


@pytest.mark.parametrize("folder", H, ids=lambda p: p.name)
def test_simulated_and_recorded_shares_agree(folder: Path) -> None:
    ours, theirs = downtime_shares(run(folder).journal), recorded(folder)
    assert list(ours) == list(theirs)
    for what in ours:
        assert ours[what] == pytest.approx(theirs[what], rel=0.1, abs=10)


def test_reinit_moves_the_late_chunks_out() -> None:
    cover = load_scenario(DATA / "scenarios" / "cover-letter.yaml")
    with_, without = (downtime_shares(run(cover.with_value("devices.0.common.v2", v2)).journal) for v2 in (1, 0))
    assert with_["late chunks"] < 1 < 1000 < without["late chunks"]
    assert with_["busy"] == pytest.approx(without["busy"], abs=1)
    assert with_["stop"] == pytest.approx(without["stop"] + 25, abs=1)  # the query at guest stop


def test_without_a_switchover_there_is_nothing_to_share() -> None:
    assert downtime_shares(run(DATA / "recordings" / "d-reinit-in-gap").journal) == {}


def test_a_device_may_be_called_as_a_share_is() -> None:
    cover = load_scenario(DATA / "scenarios" / "cover-letter.yaml")
    done = run(cover.with_value("devices.1.id", "rest"))
    shares = downtime_shares(done.journal)
    assert shares["rest (device)"] > 200 and sum(shares.values()) == pytest.approx(done.outcome["downtime"], abs=1)
