"""What travels between source and destination: the sendings and receipts of a journal, paired by their order.

Each channel keeps its order (one stream forward, one return path), so the k-th command, marker or ACK that comes out is
the k-th that went in; a journal needs no numbers on its messages (facts sheet 4 and 5).
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .explain import COMMANDS
from .journal import Event

#: a receipt may be stamped that much before its sending (microseconds): two threads, one clock
SLACK_US = 300
#: device data sent that close to each other are one message
GAP_US = 400_000


#: when sent, when received, (label, sender's lane, receiver's lane)
Ends = tuple[list[int], list[int], tuple[str, str, str]]


class Message(NamedTuple):
    """What travels. `us`..`us_last`: sent; `at`..`at_last`: received, None if no receipt is in the journal.

    `kind`: command, data, marker, ack, pong, shut or state.
    """

    kind: str
    label: str
    sender: str
    us: int
    us_last: int
    receiver: str
    at: int | None
    at_last: int | None
    count: int


_ENDS = {
    ("source", "savevm_command_send"): (True, "command"), ("destination", "loadvm_process_command"): (False, "command"),
    ("source", "vfio_save_block"): (True, "data"), ("destination", "vfio_load_state_device_data"): (False, "data"),
    ("source", "vfio_send_init_data_flag"): (True, "marker"), ("destination", "vfio_load_state"): (False, "tag"),
    ("source", "vfio_save_setup"): (True, "state"),
    ("source", "vfio_save_device_config_state"): (True, "config"),
    ("destination", "vfio_load_device_config_state_start"): (False, "config"),
    ("destination", "migrate_send_rp_message"): (True, "rp"),
    ("source", "source_return_path_thread_pong"): (False, "pong"),
    ("source", "source_return_path_thread_shut"): (False, "shut"),
    ("source", "source_return_path_thread_switchover_acked"): (False, "ack"),
}
_RP_KINDS = {1: "shut", 2: "pong", 7: "ack"}
_RP_LABELS = {"shut": "SHUT", "pong": "PONG", "ack": "SWITCHOVER_ACK"}
_TAGS = {0xFFFFFFFFEF100003: "state", 0xFFFFFFFFEF100005: "marker"}
_TAG_LABELS = {"state": "setup", "config": "config", "marker": "INIT_DATA_SENT", "data": "data"}


def device_numbers(events: Iterable[Event]) -> dict[tuple[str, str], int]:
    """(side, device name) -> its number on that side, in the order of vfio_migration_init (or first seen)."""
    out: dict[tuple[str, str], int] = {}
    counts = {"source": 0, "destination": 0}
    for e in events:
        if e.name.startswith("vfio_") and len(e.args) and (e.side, e.args[0]) not in out and e.get("name") is not None:
            out[e.side, str(e.args[0])] = counts[e.side]
            counts[e.side] += 1
    return out


def messages_of(events: list[Event], devices: dict[tuple[str, str], int], origin: int) -> list[Message]:
    """Sendings and receipts paired in their order, per channel and kind, within each attempt."""
    channels = _channels(events, devices, origin)
    out = []
    for (_, kind, _), (sent, received, (label, sender, receiver)) in channels.items():
        at = iter(received)
        got = next(at, None)
        for us in sent:
            while got is not None and got + SLACK_US < us:  # its sending is not in the journal
                got = next(at, None)
            out.append(Message(kind, label, sender, us, us, receiver, got, got, 1))
            got = next(at, None)
    out.sort(key=lambda m: m.us)
    return _merged(out)


def _channels(events: list[Event], devices: dict[tuple[str, str], int], origin: int) -> dict[tuple, Ends]:
    """(attempt, kind, key) -> (when sent, when received, (label, sender's lane, receiver's lane))."""
    channels: dict[tuple, Ends] = {}
    drained: dict[int, int] = {}  # device -> when its initial data were all sent: before patch 8 no event tells
    traced = any(e.name == "vfio_send_init_data_flag" for e in events)
    attempt = 0
    for e in events:
        us = e.us - origin
        if e.name == "migrate_set_state" and e.side == "source" and e.args == ("setup",):
            attempt += 1
            drained.clear()
        elif e.name == "vfio_save_iterate" and not traced and len(e.args) == 3 and not e.args[1]:
            drained.setdefault(devices[e.side, e.args[0]], us)
        end = _end(e, devices)
        if not end:
            continue
        sent, kind, key, label, lanes = end
        channel = channels.setdefault((attempt, kind, key), ([], [], (label, *lanes)))
        channel[0 if sent else 1].append(us)
        if kind == "marker" and not sent and not traced and key in drained:
            channel[0].append(drained.pop(key))
    return channels


def _end(e: Event, devices: dict[tuple[str, str], int]) -> tuple[bool, str, object, str, tuple[str, str]] | None:
    """(is it the sending, kind, key, label, lanes) of the message that begins or ends at this event."""
    sent, kind = _ENDS.get((e.side, e.name), (False, ""))
    if not kind or (not e.args and kind != "ack"):
        return None
    if kind in ("rp", "pong", "shut", "ack"):
        kind = _RP_KINDS.get(e.args[0], "") if kind == "rp" else kind
        return (sent, kind, kind, _RP_LABELS[kind], ("destination/main", "source/return-path")) if kind else None
    key: object = devices.get((e.side, e.args[0]), 0)
    if kind == "command":
        key = label = COMMANDS.get(e.args[0], str(e.args[0])) if sent else str(e.args[0])
    else:
        if kind == "tag":
            kind = _TAGS.get(e.args[-1], "")
        label = f"{e.args[0]} {_TAG_LABELS.get(kind, '')}"
    return (sent, kind, key, label, ("source/migration", "destination/main")) if kind else None


def _merged(messages: list[Message]) -> list[Message]:
    """Device data that follow each other closely are one message with a count."""
    out: list[Message] = []
    last: dict[str, int] = {}
    for m in messages:
        k = last.get(m.label) if m.kind == "data" else None
        if k is not None and m.us - out[k].us_last <= GAP_US and (m.at is None) == (out[k].at is None):
            out[k] = out[k]._replace(us_last=m.us, at_last=m.at, count=out[k].count + 1)
            continue
        if m.kind == "data":
            last[m.label] = len(out)
        elif m.sender == "source/migration":
            last.clear()
        out.append(m)
    return out
