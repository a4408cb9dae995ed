"""Where the downtime went: every microsecond between the source's stop and the end of the downtime, and what the ACKs
kept out of it.

The source's steps follow one another; once it sends the final state, the destination loads while the source saves. What
the switchover waits for then is the destination where that is busy, otherwise the source, otherwise the link. `save` is
reading a device and getting it on the link; `transfer` is data on their way; `load` ends when QEMU has written a
block to the device, so on a slow link it contains the arrival of the rest of a block. Order of the steps: facts sheet
2.5, 3, 13.1.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .ackledger import AckEntry, same_devices
from .journal import Event, Journal

DATA_STATE = 0xFFFFFFFFEF100004
OTHER = "other devices"
LATE = "load of data sent before the stop"
ELSEWHERE = "at the destination"  # what `transfer` is called where its log is missing


class Share(NamedTuple):
    """A part of the downtime. `what`: stop, final check, to STATE, pause-before-switchover, final sync, save, transfer,
    load, start, ...; `device` "" for what is no device's; `us`: how long; `first`: when it began, us of the journal."""

    what: str
    device: str
    us: int
    first: int


class Kept(NamedTuple):
    """Loading time of a device's initial data, us, that is outside the downtime, or would have been."""

    device: str
    why: str
    us: int


class Step(NamedTuple):
    """Who was busy from when to when, us of the journal."""

    first: int
    last: int
    what: str
    device: str


class Window(NamedTuple):
    """The downtime as QEMU counts it, us of the journal. `note`: what it was taken from, where that is not QEMU's own
    checkpoints."""

    first: int
    last: int
    note: str = ""


def window(events: list[Event]) -> Window | None:
    """From migration_stop_vm to migration_completion_end of the source's events, or None if there was no switchover
    that came to its end (facts sheet 13.1). Without checkpoints (before 8.2, or not traced): run state and status."""
    marks = {str(e.args[0]): e.us for e in events if e.name == "vmstate_downtime_checkpoint"}
    if "src-downtime-start" in marks and "src-downtime-end" in marks:
        return Window(marks["src-downtime-start"], marks["src-downtime-end"])
    stop = [e.us for e in events if e.name == "runstate_set" and e.args[-1] == "finish-migrate"]
    end = [e.us for e in events if e.name == "migrate_set_state" and e.args[0] == "completed"]
    stop = stop or [e.us for e in events if e.name == "migration_thread_low_pending"]
    if stop and end and stop[-1] <= end[-1] and not any(m.startswith("src-downtime") for m in marks):
        return Window(stop[-1], end[-1], "no vmstate_downtime_checkpoint events: from run state to status")
    return None


def downtime_ledger(journal: Journal) -> list[Share]:
    """Shares of the downtime in the order in which they began; they sum to it. [] if there is none."""
    span = window(journal.side("source"))
    if span is None:
        return []
    names = Names(journal)
    here = list(source_steps([e for e in journal.side("source") if span.first <= e.us <= span.last], span, names))
    sent = next((e.us for e in journal.side("source") if e.us >= span.first and e.name in (
        "savevm_send_switchover_start", "migration_precopy_complete", "postcopy_start_set_run")), span.first)
    there = clip(destination_steps(journal.side("destination"), names, sent, block_times(journal)), sent, span.last)
    out: dict[tuple[str, str], list[int]] = {}
    alone = not any(e.side == "destination" for e in journal)
    for step in overlay(here, there):
        what = ELSEWHERE if alone and step.what == "transfer" else step.what
        share = out.setdefault((what, step.device), [0, step.first])
        share[0] += step.last - step.first
    return [Share(what, device, us, first) for (what, device), (us, first) in out.items() if us]


class Names:
    """What the logs call devices -> the source's names of them. `0000:00:04.0/vfio` is vfio0 where a device's own event
    stands in that section."""

    def __init__(self, journal: Journal) -> None:
        self.there = same_devices(journal)
        self.sections: dict[tuple[str, str], str] = {}
        for side, opens in (("source", "savevm_section_start"), ("destination", "")):
            inside: list[str] = []
            for e in journal.side(side):
                if opens and e.name == opens:
                    inside = [str(e.args[0])]
                elif e.name in ("vfio_save_complete_precopy_start", "vfio_save_device_config_state") and inside:
                    self.sections[side, inside[0]] = str(e.args[0])
                elif e.name == "vfio_load_state":
                    inside = [str(e.args[0])]
                elif e.name == "vmstate_downtime_load" and inside and str(e.args[1]).endswith("/vfio"):
                    self.sections[side, str(e.args[1])] = self.there.get(inside[0], inside[0])

    def section(self, side: str, idstr: str) -> str:
        """A section's device: a VFIO device's name, ram, or one of the others."""
        return self.sections.get((side, idstr)) or (idstr if idstr == "ram" or idstr.endswith("/vfio") else OTHER)

    def device(self, name: object) -> str:
        """A device of the destination."""
        return self.there.get(str(name), str(name))


def source_steps(events: list[Event], span: Window, names: Names) -> Iterator[Step]:
    """What the source did, without gaps: each event ends the step that it belongs to."""
    at, state = span.first, dict.fromkeys(("section", "paused", "saved", "shut"), "")
    for e in events:
        label = _source_label(e, names, state)
        if label and e.us >= at:
            yield Step(at, e.us, *label)
            at = e.us
    yield Step(at, span.last, "end at the source", "")


#: event -> the step that it ends, at the source
_SOURCE = {name: what for what, text in {
    "stop": "runstate_set vm_state_notify migration_completion_vm_stop vfio_migration_set_state vfio_vmstate_change "
            "vfio_vmstate_change_prepare",
    "final query": "vfio_state_pending qemu_savevm_query_pending vfio_query_stop_copy_size",
    "block inactivation": "migration_block_activation",
    "switchover start": "migration_precopy_complete savevm_send_switchover_start savevm_command_send",
    "postcopy package": "qemu_savevm_send_packaged postcopy_start_set_run savevm_send_postcopy_listen "
                        "savevm_send_postcopy_run",
    "flush": "migration_return_path_end_before",
    "transfer": "source_return_path_thread_shut",
}.items() for name in text.split()}


def _source_label(e: Event, names: Names, state: dict[str, str]) -> tuple[str, str] | None:
    """What the time before this event was spent on; None if the event does not tell."""
    if e.name == "savevm_section_start":
        was, state["section"] = state["saved"], names.section("source", str(e.args[0]))
        return ("save", OTHER) if was else ("switchover start", "")
    if e.name in ("savevm_section_end", "vfio_save_block", "vfio_save_complete_precopy", "ram_save_complete"):
        return "save", state["section"] or OTHER
    if e.name == "vmstate_downtime_save":
        state["section"], state["saved"] = "", "yes"
        device = names.section("source", str(e.args[1]))
        config = e.args[0] == "non-iterable" and device not in (OTHER, "ram")
        return ("save config" if config else "save"), (OTHER if e.args[0] == "non-iterable" and not config else device)
    if state["section"] and e.name.startswith("vfio_"):
        return "save", state["section"]
    if e.name == "vfio_query_precopy_size":
        return "final check", str(e.args[0])
    if e.name == "vfio_migration_set_device_state":
        return f"to {e.args[1]}", str(e.args[0])
    if e.name == "migrate_set_state":
        was, state["paused"] = state["paused"], str(e.args[0])
        return ("pause-before-switchover" if was == "pre-switchover" else "switchover start"), ""
    if e.name == "migration_return_path_end_after":
        return ("end at the source" if state["shut"] else "transfer"), ""
    if e.name == "source_return_path_thread_shut":
        state["shut"] = "yes"
    if e.name == "migration_bitmap_sync_start":
        return ("save", state["section"]) if state["section"] else ("final query", "")
    if e.name == "migration_bitmap_sync_end":
        return "final sync", ""
    if e.name == "vmstate_downtime_checkpoint":
        return {"src-vm-stopped": ("stop", ""), "src-iterable-saved": ("save", OTHER),
                "src-non-iterable-saved": ("save", OTHER)}.get(str(e.args[0]))
    return (_SOURCE[e.name], "") if e.name in _SOURCE else None


#: event -> the step that it ends, at the destination once everything is loaded
_START = {"migration_block_activation": "start", "runstate_set": "start", "vm_state_notify": "start",
          "vfio_migration_set_state": "start", "vfio_vmstate_change": "start", "vfio_vmstate_change_prepare": "start",
          "qemu_loadvm_state_post_main": "load", "process_incoming_migration_co_end": "load"}


def destination_steps(events: list[Event], names: Names, sent: int, saved: dict) -> Iterator[Step]:
    """What the destination was busy with, in order, with gaps where it waited. `sent`: when the source began to send
    the final state; `saved`: block_times()."""
    at, nth, began = 0, {}, {}
    loaded = False
    for e in events:
        if e.name == "vfio_load_state" and e.args[-1] == DATA_STATE:
            began[e.args[0]] = e.us
        elif e.name == "vfio_load_state_device_data":
            device = names.device(e.args[0])
            k = nth[device] = nth.get(device, 0) + 1
            yield from _block(device, began.pop(e.args[0], at), e.us, saved.get((device, k)), sent)
            at = e.us
        elif e.name == "vmstate_downtime_load":
            device = names.section("destination", str(e.args[1]))
            config = e.args[0] == "non-iterable" and device != OTHER
            if device in (OTHER, "ram") or config:  # of a VFIO device the blocks tell
                yield Step(max(at, e.us - int(e.args[3])), e.us, "load config" if config else "load", device)
            at = e.us
        elif e.name == "vmstate_downtime_checkpoint" and at:
            loaded = True
            yield Step(at, e.us, "load" if e.args[0] == "dst-precopy-loadvm-completed" else "start",
                       OTHER if e.args[0] == "dst-precopy-loadvm-completed" else "")
            at = e.us
        elif e.name == "migrate_send_rp_message" and loaded and e.args[0] == 1:
            yield Step(at, e.us, "SHUT", "")
            return
        elif e.name == "vfio_migration_set_device_state" and loaded:
            yield Step(at, e.us, f"to {e.args[1]}", names.device(e.args[0]))
            at = e.us
        elif e.name in _START and at and (loaded or _START[e.name] == "load"):
            yield Step(at, e.us, _START[e.name], OTHER if _START[e.name] == "load" else "")
            at = e.us


def _block(device: str, first: int, last: int, saved: int | None, sent: int) -> Iterator[Step]:
    """One block of device data: on its way until the source had put all of it on the link, then loaded."""
    if saved is not None and saved < sent:
        yield Step(first, last, LATE, device)
        return
    arrived = min(max(first, saved or first), last)
    yield Step(first, arrived, "transfer", device)
    yield Step(arrived, last, "load", device)


def block_times(journal: Journal) -> dict[tuple[str, int], int]:
    """(device, n) -> when the source had sent its n-th block. Blocks carry no number; they stay in order."""
    nth: dict[str, int] = {}
    out = {}
    for e in journal.all("vfio_save_block", side="source"):
        device = str(e.args[0])
        nth[device] = nth.get(device, 0) + 1
        out[device, nth[device]] = e.us
    return out


def clip(steps: Iterable[Step], first: int, last: int) -> Iterator[Step]:
    """What of the steps lies between two times, no two of them at once."""
    for step in steps:
        begin, end = max(step.first, first), min(step.last, last)
        if begin < end:
            yield step._replace(first=begin, last=end)
            first = end


def overlay(base: Iterable[Step], top: Iterable[Step]) -> Iterator[Step]:
    """`base` has no gaps; where `top` has a step, that counts. Both are in order."""
    over = deque(top)
    for step in base:
        at = step.first
        while over and over[0].first < step.last:
            busy = over[0]
            if busy.first > at:
                yield step._replace(first=at, last=busy.first)
            begin, at = max(busy.first, at), max(at, min(busy.last, step.last))
            if begin < at:
                yield busy._replace(first=begin, last=at)
            if busy.last > step.last:
                break
            over.popleft()
        if at < step.last:
            yield step._replace(first=at)


def kept_out(journal: Journal, acks: list[AckEntry]) -> list[Kept]:
    """What switchover-ack kept out of the downtime: loading of the initial data that was approved before the stop.

    An ACK's initial data are the blocks between its request (the last marker, where none is traced) and its marker.
    """
    span = window(journal.side("source"))
    stop = span.first if span else None
    loads = block_loads(journal)
    saved: dict[str, deque[tuple[int, int]]] = {}
    for (device, n), at in block_times(journal).items():
        saved.setdefault(device, deque()).append((at, n))
    out = []
    for ack in acks:
        if ack.marker is None or ack.loaded is None or (stop is not None and ack.loaded > stop):
            continue
        since, us, blocks = (ack.asked or 0) if ack.why == "REINIT" else 0, 0, saved.get(ack.device, deque())
        while blocks and blocks[0][0] <= ack.marker:
            at, n = blocks.popleft()
            us += loads.get((ack.device, n), 0) if at >= since else 0
        out.append(Kept(ack.device, ack.why, us))
    return out


def ack_would(journal: Journal) -> list[Kept]:
    """What one more ACK (REINIT asks for it) would have kept out: loading, in the downtime, of precopy data.

    `sent before the stop`: on their way, or being loaded, when the guest stopped. Not yet read by then: `initial`, or,
    of a device without INFOv2, which counts a new initial chunk among its dirty data, `dirty or initial`.
    """
    span = window(journal.side("source"))
    if span is None:
        return []
    loads, saved = block_loads(journal), block_times(journal)
    v2 = {str(e.args[0]): e.args[2] for e in journal.all("vfio_migration_init", side="source") if len(e.args) > 2}
    blocks: dict[str, list[tuple[int, int, int]]] = {}
    for (device, n), (at, block) in saved_sizes(journal, saved).items():
        blocks.setdefault(device, []).append((at, n, block))
    out = [Kept(s.device, "sent before the stop", s.us) for s in downtime_ledger(journal) if s.what == LATE]
    for device, (initial, dirty) in unread(journal, span.first).items():
        why, size = ("initial", initial) if initial else ("dirty or initial", dirty)
        if not size or (not initial and v2.get(device, 1)):
            continue
        us = 0
        for at, n, block in blocks.get(device, ()):
            if at >= span.first and size > 0:
                us, size = us + loads.get((device, n), 0), size - block
        out.append(Kept(device, why, us))
    return out


def unread(journal: Journal, stop: int) -> dict[str, tuple[int, int]]:
    """device -> (initial, dirty) bytes not read when the guest stopped: the last sizes before STOP_COPY."""
    out: dict[str, tuple[int, int]] = {}
    stopped: set[object] = set()
    for e in journal.side("source"):
        if e.name == "vfio_migration_set_device_state" and e.args[1] == "STOP_COPY" and e.us >= stop:
            stopped.add(e.args[0])
        elif e.args and e.args[0] not in stopped and e.name in ("vfio_query_precopy_size", "vfio_save_iterate"):
            out[str(e.args[0])] = int(e.args[1]), int(e.args[2])
    return out


def saved_sizes(journal: Journal, saved: dict[tuple[str, int], int]) -> dict[tuple[str, int], tuple[int, int]]:
    """(device, n) -> (when its n-th block was sent, bytes)."""
    nth: dict[str, int] = {}
    out = {}
    for e in journal.all("vfio_save_block", side="source"):
        key = str(e.args[0]), nth.get(str(e.args[0]), 0) + 1
        nth[key[0]] = key[1]
        out[key] = saved[key], int(e.args[1])
    return out


def block_loads(journal: Journal) -> dict[tuple[str, int], int]:
    """(device, n) -> us that the destination needed for the n-th block."""
    names, began, nth, out = same_devices(journal), {}, {}, {}
    for e in journal.all("vfio_load_state", "vfio_load_state_device_data", side="destination"):
        device = names.get(str(e.args[0]), str(e.args[0]))
        if e.name == "vfio_load_state":
            began[device] = e.us
        else:
            nth[device] = nth.get(device, 0) + 1
            out[device, nth[device]] = e.us - began.get(device, e.us)
    return out
