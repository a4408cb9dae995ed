"""Who asked for a switchover ACK, when, why; when its marker left, was loaded and approved, and was counted.

Source: facts sheet 8.1: requests are collected by a query, markers and ACKs carry no number and no name, so they are
paired per device in order; the ACKs of the wire are paired with the approvals that were answered, in order.
"""
from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from typing import NamedTuple

from .journal import Event, Journal

INIT_DATA_SENT = 0xFFFFFFFFEF100005
SWITCHOVER_ACK = 7
LEGACY_REQUESTS = ("migration_request_switchover_ack_legacy", "migration_request_switchover_ack")


class AckEntry(NamedTuple):
    """One request of one device, in the source's name for it; times in microseconds of the journal, None for what never
    came or is not traced.

    `why`: first, REINIT or final check (new scheme), legacy (requested once, at the destination's load setup),
    not asked (a marker or an ACK that this log shows no request for), not traced (there is no log of the source). A
    legacy ACK without any device has device "".
    """

    device: str
    why: str
    asked: int | None
    marker: int | None
    loaded: int | None
    approved: int | None
    counted: int | None


def ack_ledger(journal: Journal) -> list[AckEntry]:
    """The entries in the order in which they were asked for."""
    names = same_devices(journal)
    requests = _requests(journal)
    if not requests:  # the source counts nothing itself: legacy, old, or no log of it
        requests = [(names.get(str(e.args[0]), str(e.args[0])), "legacy", e.us)
                    for e in journal.all(*LEGACY_REQUESTS, side="destination")]
    markers = _times(journal, "vfio_send_init_data_flag")
    approvals = _approvals(journal, names)
    counted = _counted(journal, approvals)
    rows: list[tuple[str, str, int | None]] = list(requests)
    asked, old = Counter(r[0] for r in rows), _old(journal)
    alone = not any(e.side == "source" for e in journal)
    approved: dict[str, list[tuple[str, int | None, int]]] = defaultdict(list)
    for a in approvals:
        approved[a[0]].append(a)
    for device in dict.fromkeys([*markers, *approved]):
        there = max(len(markers.get(device, ())), len(approved[device]))
        why = "not traced" if alone else "legacy" if old and not asked[device] else "not asked"
        rows += [(device, why, None)] * (there - asked[device])
    out, nth = [], defaultdict(int)
    for device, why, us in rows:
        k, nth[device] = nth[device], nth[device] + 1
        marker = markers.get(device, [])[k:k + 1]
        approval = approved[device][k:k + 1]
        out.append(AckEntry(device, why, us, *(marker or [None]), *(approval[0][1:] if approval else (None, None)),
                            counted.get((device, k))))
    return out + [AckEntry("", "legacy", None, None, None, None, us) for us in counted.get("", ())]


def same_devices(journal: Journal) -> dict[str, str]:
    """The destination's names of the devices -> the source's; they differ where QEMU 10.0 names them by their file
    descriptor. The n-th of one side is the n-th of the other."""
    order = {side: list(dict.fromkeys(str(e.args[0]) for e in journal.all(
        "vfio_migration_realize", "vfio_save_setup", "vfio_load_state", "vfio_migration_set_device_state", side=side)))
        for side in ("source", "destination")}
    if set(order["source"]) & set(order["destination"]):
        return {}
    return dict(zip(order["destination"], order["source"], strict=False))


def _requests(journal: Journal) -> list[tuple[str, str, int | None]]:
    """The source's: (device, why, when). A REINIT asks when it is seen, which may be long before a query collects it
    (pause-before-switchover); the first request and one for a failed query show only where they are collected."""
    out: list[tuple[str, str, int | None]] = []
    seen: dict[str, int] = {}
    known: set[str] = set()
    for e in journal.all("vfio_state_pending", "vfio_query_precopy_size_request_switchover_ack", side="source"):
        device = str(e.args[0])
        if e.name != "vfio_state_pending":
            seen.setdefault(device, e.us)
        elif e.get("request_switchover_ack"):
            why = "final check" if e.get("final") else "REINIT" if device in known else "first"
            known.add(device)
            out.append((device, why, seen.pop(device, e.us)))
    return out


def _times(journal: Journal, name: str) -> dict[str, list[int]]:
    out: dict[str, list[int]] = {}
    for e in journal.all(name, side="source"):
        out.setdefault(str(e.args[0]), []).append(e.us)
    return out


def _approvals(journal: Journal, names: dict[str, str]) -> list[tuple[str, int | None, int]]:
    """(device, when its last data were loaded, when its marker was read) of the destination, in order.

    The marker's own trace, vfio_load_state, is in every version; who approved is named from patch 3 on.
    """
    out, loaded = [], {}
    for e in journal.all("vfio_load_state", "vfio_load_state_device_data", side="destination"):
        device = names.get(str(e.args[0]), str(e.args[0]))
        if e.name == "vfio_load_state_device_data":
            loaded[device] = e.us
        elif e.args[-1] == INIT_DATA_SENT:
            out.append((device, loaded.get(device), e.us))
    return out or [(names.get(str(e.args[0]), str(e.args[0])), None, e.us) for e in journal.all(
        "loadvm_approve_switchover", "loadvm_approve_switchover_legacy", side="destination")
        if isinstance(e.args[0], str)]


def _counted(journal: Journal, approvals: list[tuple[str, int | None, int]]) -> dict:
    """(device, its n-th approval) -> when the source counted the ACK; "" -> ACKs without a device.

    An ACK that was sent answers the last approval before it. Without a log of the destination: in order of the markers,
    where every marker is answered (new scheme).
    """
    acks = [e.us for e in journal.all("source_return_path_thread_switchover_acked", side="source")]
    sent = [e.us for e in journal.all("migrate_send_rp_message", side="destination") if e.args[0] == SWITCHOVER_ACK]
    if not any(e.side == "destination" for e in journal):
        order = [str(e.args[0]) for e in journal.all("vfio_send_init_data_flag", side="source")]
        whom = order[-1:] if _old(journal) and acks else order
    else:
        whom, times, so_far, nth_of = [], [a[2] for a in approvals], Counter(), []
        for device, _, _ in approvals:
            nth_of.append((device, so_far[device]))
            so_far[device] += 1
        for us in sent:
            k = bisect_right(times, us)
            whom.append(nth_of[k - 1] if k else "")
    out: dict = {"": []}
    nth: dict[str, int] = defaultdict(int)
    for who, us in zip(whom, acks, strict=False):
        if who == "":
            out[""].append(us)
        elif isinstance(who, tuple):
            out[who] = us
        else:
            out[who, nth[who]] = us
            nth[who] += 1
    return out if whom else {"": acks}


def _old(journal: Journal) -> bool:
    """The source, if there is a log of it, does not count requests: the old flag, or a counter that begins at 1."""
    if not any(e.side == "source" for e in journal):
        return False
    first: Event | None = next((e for e in journal.all("qemu_savevm_query_pending", side="source")
                                if len(e.args) >= 8), None)
    if first is None:
        return True
    early = len([e for e in journal.all("source_return_path_thread_switchover_acked", side="source")
                 if e.us < first.us])
    return first.args[7] + early > first.args[6]
