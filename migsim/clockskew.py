"""Two hosts have two clocks: how far the destination's is ahead of the source's, from messages that both logs show.

What one side sends the other cannot have seen earlier. A message to the destination bounds the offset from above, one
on the return path from below (events on both ends of each: facts sheet 2, 3 and 4).
"""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from .journal import Event

INIT_DATA_SENT = 0xFFFFFFFFEF100005
RP_NAMES = {1: "SHUT", 2: "PONG", 7: "SWITCHOVER_ACK"}


class ClockOffset(NamedTuple):
    """Destination's clock minus source's, ms. `low`, `high`: what the messages allow (None: no bound from there).

    `how`: messages, given, or one side (nothing to compare). low > high: the messages contradict each other.
    """

    ms: float
    low: float | None
    high: float | None
    how: str


def forward(e: Event) -> str | None:
    """The message to the destination that this event sends (source) or receives (destination)."""
    if e.side == "source":
        return {"savevm_send_open_return_path": "OPEN_RETURN_PATH", "savevm_send_switchover_start": "SWITCHOVER_START",
                "vfio_send_init_data_flag": "INIT_DATA_SENT", "migrate_global_state_pre_save": "globalstate",
                "savevm_send_ping": f"PING {e.text}"}.get(e.name)
    if e.name == "loadvm_process_command":
        return str(e.args[0]) if e.args[0] in ("OPEN_RETURN_PATH", "SWITCHOVER_START") else None
    if e.name == "vfio_load_state":
        return "INIT_DATA_SENT" if e.args[-1] == INIT_DATA_SENT else None
    return {"migrate_global_state_post_load": "globalstate",
            "loadvm_process_command_ping": f"PING {e.text}"}.get(e.name)


def backward(e: Event) -> str | None:
    """The message of the return path that this event sends (destination) or receives (source)."""
    if e.side == "destination":
        return RP_NAMES.get(e.args[0]) if e.name == "migrate_send_rp_message" else None
    return {"source_return_path_thread_shut": "SHUT", "source_return_path_thread_pong": "PONG",
            "source_return_path_thread_switchover_acked": "SWITCHOVER_ACK"}.get(e.name)


def delays(events: Iterable[Event], message: object) -> list[int]:
    """Destination's time minus source's, us, of each message that both sides show, the n-th of a kind with the n-th."""
    seen: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for e in events:
        kind = message(e)
        if kind:
            seen[kind][e.side].append(e.us)
    return [there - here for sides in seen.values()
            for here, there in zip(sides["source"], sides["destination"], strict=False)]


def clock_offset(events: list[Event], given_ms: float | None = None) -> ClockOffset:
    """The offset between the two sides of one migration. 0 where the messages allow it (hosts that keep time, or one
    host), otherwise the middle of what they allow."""
    above, below = delays(events, forward), delays(events, backward)
    high, low = min(above, default=None), max(below, default=None)
    bounds = [None if x is None else x / 1000 for x in (low, high)]
    if given_ms is not None:
        return ClockOffset(float(given_ms), bounds[0], bounds[1], "given")
    if low is None and high is None:
        return ClockOffset(0.0, None, None, "one side")
    if (low is None or low <= 0) and (high is None or high >= 0):
        return ClockOffset(0.0, bounds[0], bounds[1], "messages")
    middle = [x for x in (low, high) if x is not None]
    return ClockOffset(sum(middle) / len(middle) / 1000, bounds[0], bounds[1], "messages")
