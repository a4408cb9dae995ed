"""Why a migration does not end, on recordings whose cause is known."""
from __future__ import annotations

from pathlib import Path

from migsim.sweep import load_sweep
from sweeps import HOST, SMALL

ROOT = Path(__file__).parent.parent


def busy(name: str, **changes: object) -> dict:
    """A recording's row at its time-out."""
    return load_sweep({"scenario": str(ROOT / "data" / name), "grid": {key.replace("__", "."): [value] for
                       key, value in {"timeout_ms": 9000, **changes}.items()}}).row(0)


def test_why_it_never_ends_with_a_chunk_behind_ram() -> None:
    row = busy("recordings-busy/k1-chunk-behind-ram-new")
    assert row["reason"].endswith("that is never sent: RAM uses up the rate limit of each window") and row["acks"] == 1


def test_why_it_never_ends_with_a_starved_estimate() -> None:
    row = busy("recordings/bb-measured-bandwidth-legacy")
    assert row["reason"].endswith("bandwidth is measured while only what gets dirty is sent")
    assert row["pending_bytes"] > row["threshold_bytes"]


def test_why_it_never_ends_with_a_busy_guest() -> None:
    row = busy("recordings-busy/b1-ram-high-rate-limit-raised", actions=[])
    assert row["reason"] == "data gets dirty as fast as it is sent"
    assert row["pending_bytes"] > 40 * 10**6 > row["threshold_bytes"] * 3


def test_why_it_never_ends_without_an_approval() -> None:
    mixed = {**SMALL, "destination": {**HOST, "globals": ["migration.switchover-ack-legacy=on"]},
             "devices": [*SMALL["devices"], {"common": {"v2": 1}}]}
    row = load_sweep({"scenario": mixed, "grid": {"seed": [0]}}).row(0)
    assert row["reason"] == "an ACK is awaited: the initial data is sent, its approval has not come back"
