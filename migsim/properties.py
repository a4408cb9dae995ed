"""The handshake's properties, as the exhaustive driver judges them (facts sheet 16; review of patch 7)."""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .ladder import CodeBase
from .qemu.state import World
from .qemu.switchover_ack import UINT32_MAX

ENDS = ("completed", "failed", "cancelled")
ABORT = "Switchover ACK was requested by"


class Environment(NamedTuple):
    """What the environment may still do, and what it did: part of the explored state."""

    reinits: int
    stops: int
    conts: int
    cancels: int
    failures: int
    stopped: bool = False  # management has stopped the guest
    unloaded: bool = False  # a device entered STOP_COPY with an announced chunk not loaded


class Property(NamedTuple):
    """`premise` tells where the property says something, `holds` whether it is kept there; `not_applicable` gives
    the reason why a variant (code base, legacy) cannot express it, or ""."""

    id: str
    sentence: str
    premise: Callable[[World, Environment], bool]
    holds: Callable[[World, Environment], bool]
    not_applicable: Callable[[CodeBase, bool], str]


def _completed(w: World, e: Environment) -> bool:
    return w.src.state == "completed"


def _completed_unstopped(w: World, e: Environment) -> bool:
    return w.src.state == "completed" and not e.stopped


def _aborted(w: World, e: Environment) -> bool:
    return w.src.error.startswith(ABORT)


def _late(w: World, e: Environment) -> bool:
    return w.src.final_collected


def _balance(w: World, e: Environment) -> bool:
    s = w.src
    return s.switchover_ack_pending_num == 0 and (w.scfg.legacy or s.collected == s.acks)


def _always(code: CodeBase, legacy: bool) -> str:
    return ""


def _counter(code: CodeBase, legacy: bool) -> str:
    return "" if code.ack_reusable else "the source has a flag, not a counter, before patch 6"


def _check(code: CodeBase, legacy: bool) -> str:
    if not code.late_request_fails:
        return "no check for late requests before patch 7"
    return "the check is skipped in the legacy scheme" if legacy else ""


def _request(code: CodeBase, legacy: bool) -> str:
    if not code.ack_reusable:
        return "no request can be collected before patch 6"
    return "nothing is requested in the legacy scheme" if legacy else ""


PROPERTIES: dict[str, Property] = {p.id: p for p in (
    Property("initial-data-loaded", "every initial chunk announced is loaded when a device enters STOP_COPY",
             _completed_unstopped, lambda w, e: not e.unloaded, _always),
    Property("counter-never-underflows", "switchover_ack_pending_num never goes below 0",
             lambda w, e: True, lambda w, e: w.src.switchover_ack_pending_num != UINT32_MAX, _counter),
    Property("acks-balance", "at completion the counter is 0 and requests collected equal ACKs received",
             _completed_unstopped, _balance, _counter),
    Property("abort-implies-new-request", "an abort by the ACK check means that the final query collected a request",
             _aborted, lambda w, e: w.src.final_collected, _check),
    Property("abort-implies-guest-was-running", "an abort by the ACK check means that the guest ran at the decision",
             _aborted, lambda w, e: w.src.decided_running, _check),
    Property("late-request-prevents-completion", "a request collected by the final query prevents completion",
             _late, lambda w, e: w.src.state != "completed", _request),
    Property("always-ends", "an end stays reachable from every state without help from management",
             lambda w, e: True, lambda w, e: True, _always),
)}
