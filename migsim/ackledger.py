"""Who asked for a switchover ACK, when, why; when its marker left, when it was approved and counted (a journal's view).

Source: facts sheet 8.1: requests are collected by a query, markers and ACKs carry no number, so they are paired per
device in order; the ACKs of the wire are paired with approvals in order.
"""
from __future__ import annotations

from typing import NamedTuple

from .journal import Journal


class AckEntry(NamedTuple):
    """One request of one device; times in microseconds of the journal, None for what never came."""

    device: str
    why: str  # first, REINIT, final check
    asked: int | None
    marker: int | None
    approved: int | None
    counted: int | None


def ack_ledger(journal: Journal) -> list[AckEntry]:
    """The entries in the order in which they were asked for. Legacy and old: the one request of each device is made
    at the destination's load setup; only the last approval is answered."""
    asked: list[list] = []
    for e in journal:
        if e.side == "source" and e.name == "vfio_state_pending" and e.get("request_switchover_ack"):
            why = "final check" if e.get("final") else "REINIT" if any(a[0] == e.args[0] for a in asked) else "first"
            asked.append([e.args[0], why, e.us])
        elif e.name in ("migration_request_switchover_ack_legacy", "migration_request_switchover_ack"):
            asked.append([e.args[0], "legacy", e.us])
    acks = [e.us for e in journal.all("source_return_path_thread_switchover_acked", side="source")]
    markers = _times(journal, "vfio_send_init_data_flag")
    approvals = _times(journal, "loadvm_approve_switchover") or _times(journal, "loadvm_approve_switchover_legacy")
    order = sorted((us, d) for d, times in approvals.items() for us in times)
    sent = [e.us for e in journal.all("migrate_send_rp_message", side="destination") if e.args[0] == 7]
    answered = {}
    for us, counted in zip(sent, acks, strict=False):
        before = [o for o in order if o[0] <= us]
        if before:
            answered[before[-1]] = counted
    out = []
    for device, why, us in asked:
        marker = _next(markers, device)
        approved = _next(approvals, device)
        counted = answered.get((approved, device)) if approved is not None else None
        out.append(AckEntry(device, why, us, marker, approved, counted))
    return out


def _times(journal: Journal, name: str) -> dict[str, list[int]]:
    out: dict[str, list[int]] = {}
    for e in journal.all(name):
        out.setdefault(str(e.args[0]), []).append(e.us)
    return out


def _next(times: dict[str, list[int]], device: str) -> int | None:
    return times[device].pop(0) if times.get(device) else None
