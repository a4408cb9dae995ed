"""The capstone: a migration that went wrong, recorded or drawn by a seed, and answers checked against its journal.

A seed draws one of the ways in which a migration goes wrong here, and its numbers. What the reader names as
the cause is a predicate over the journal's analysis, with the evidence for or against it; what he names as the cure is
run. Nothing is looked up by the case's name.
"""
from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from .analysis import Analysis, analyze
from .course import Checked, box
from .journal import Journal
from .ladder import PATCHES
from .log import read_log
from .run import run
from .scenario import load_scenario
from .versions import RESULTS, classify

Config = dict[str, Any]
LEGACY = "migration.switchover-ack-legacy"


class Case(NamedTuple):
    """`config`: its set-up; `journal`: what QEMU's logs of both ends have, nothing of the devices' own."""

    config: Config
    journal: Journal


# --- how a migration goes wrong ---

def _device(rng: random.Random, **more: Any) -> Config:
    load = rng.randrange(100, 400, 20)
    return {"source": {"initial": 65536, "stopcopy": rng.choice((1, 2, 4)) << 20, "query_us": 5000, **more},
            "destination": {"load_init_ms": load, "load_reinit_ms": load, "load_stop_ms": 5}}


def _config(rng: random.Random, devices: int, **more: Any) -> Config:
    host = {"qemu": "11.1.3", "machine": "pc-q35-11.1"}
    return {"source": dict(host), "destination": dict(host), "timeout_ms": 4000,
            "caps": {"return-path": True, "switchover-ack": True},
            "params": {"avail-switchover-bandwidth": 100_000_000, "downtime-limit": 300},
            "devices": [_device(rng, **more) for _ in range(devices)]}


def late(rng: random.Random) -> Config:
    """New initial data in the gap."""
    return _config(rng, rng.choice((1, 2)), reinit=f"gap:{rng.choice((4096, 8192))}", once_only_session=1)


def needless(rng: random.Random) -> Config:
    """Version 2 of the series, and management stops the guest while an ACK is awaited."""
    config = _config(rng, 1)
    config["source"]["qemu"] = config["destination"]["qemu"] = "v2"
    config["devices"][0]["destination"]["load_init_ms"] = rng.randrange(800, 1600, 100)
    return {**config, "transport": "tcp", "actions": [{"at_ms": rng.randrange(200, 500, 50), "do": "stop"}]}


def schemes(rng: random.Random) -> Config:
    """The schemes differ: one ACK for several devices, or one ACK too many."""
    config = _config(rng, rng.choice((2, 3)))
    config[rng.choice(("source", "destination"))]["globals"] = [f"{LEGACY}=on"]
    return config


def forgotten(rng: random.Random) -> Config:
    """One ACK was given, then a device had new initial data, of which this machine type hears nothing."""
    at_ms = rng.randrange(400, 700, 50)
    config = _config(rng, 1, reinit=f"t{at_ms}:8192", size_hold=1 << 30, dirty_until=at_ms + 50)
    for side in ("source", "destination"):
        config[side]["machine"] = "pc-q35-11.0"
    return config


def one_sided(rng: random.Random) -> Config:
    """The destination was not given the capability."""
    return {**_config(rng, rng.choice((1, 2))), "dst_caps": {"switchover-ack": False}}


def too_busy(rng: random.Random) -> Config:
    """The guest writes faster than the link carries."""
    config = _config(rng, 0)
    config["params"] = {"max-bandwidth": 40_000_000, "downtime-limit": rng.choice((50, 100))}
    return {**config, "mem": 128, "timeout_ms": 8000, "transport": "tcp",
            "guest": {"start_mib": 16, "pages": 10240, "burst": rng.choice((200, 250)), "pause_ms": 10}}


WAYS: tuple[Callable[[random.Random], Config], ...] = (late, needless, schemes, forgotten, one_sided, too_busy)


@cache
def case(what: int | str) -> Case:
    """The case of a seed, where neighbouring seeds go wrong in different ways, or the log pair in a recording's folder.

    Raises JournalError for logs, OSError for a set-up that cannot be read."""
    if isinstance(what, str):
        config = json.loads((Path(what) / "scenario.json").read_text(encoding="utf-8"))["config"]
        return Case(config, read_log(f"{what}/source.log.xz", f"{what}/destination.log.xz"))
    config = WAYS[what % len(WAYS)](random.Random(what))
    got = run(copy.deepcopy(config)).journal
    return Case(config, Journal(got.events, got.start))


# --- what the reader may name as the cause ---

def _error(a: Analysis) -> str:
    return a.error or "none"


def _collected(a: Analysis) -> int:
    """Requests that the final query collected."""
    return sum(q.get("switchover_ack_pending", 0) for q in a.journal.all("qemu_savevm_query_pending") if q.get("final"))


def _checked(a: Analysis) -> bool:
    return "ACK was requested" in _error(a)


def _says_late(a: Analysis) -> tuple[bool, str]:
    return (_checked(a) and _collected(a) > 0,
            f"error: {_error(a)}; the final query collected {_collected(a)} requests")


def _says_needless(a: Analysis) -> tuple[bool, str]:
    return (_checked(a) and not _collected(a),
            f"error: {_error(a)}; the final query collected {_collected(a)} requests")


def _says_schemes(a: Analysis) -> tuple[bool, str]:
    said = f"source {a.scheme.get('source')}, destination {a.scheme.get('destination')}"
    return a.ends_agree is False, f"the scheme by the events of each end: {said}"


def _says_forgotten(a: Analysis) -> tuple[bool, str]:
    loading, downtime = sum(share.us for share in a.ack_would) / 1000, (a.downtime_us or 0) / 1000
    return (a.status == "completed" and loading > downtime / 2,
            f"status {a.status}; of {downtime:.0f} ms downtime one more ACK would have kept out {loading:.0f} ms")


def _says_one_sided(a: Analysis) -> tuple[bool, str]:
    markers = len(a.journal.all("vfio_send_init_data_flag"))
    approved = sum(entry.approved is not None for entry in a.acks)
    asked = a.journal.all("loadvm_approve_switchover", "loadvm_approve_switchover_legacy")
    return (bool(markers) and not asked and a.status == "failed",
            f"{markers} markers sent, {len(asked)} approvals traced, {approved} in the ACK ledger; status {a.status}")


def _says_too_busy(a: Analysis) -> tuple[bool, str]:
    size = max((int(e.get("size")) for e in a.journal.all("migrate_transferred")), default=0)
    left = [int(q.get("total")) for q in a.journal.all("qemu_savevm_query_pending") if q.get("exact")]
    low = min(left[1:], default=0)
    return (a.status == "active" and low > size,
            f"status {a.status}; exact queries never found less than {low} bytes, the threshold was {size} at most")


class Cause(NamedTuple):
    """`says`: whether an analysis shows it, and the evidence; `patches`: of the series that it has to do with (0:
    none), and why."""

    what: str
    says: Callable[[Analysis], tuple[bool, str]]
    patches: tuple[int, ...]
    why: str


CAUSES = {
    "late-request": Cause("a device asked for an ACK after the decision to switch over", _says_late, (7, 12),
                          "Patch 12 notices new initial data at the stop, patch 7 lets the attempt fail for it."),
    "needless-abort": Cause("the check failed although nothing new was asked for", _says_needless, (7,),
                            "Patch 7 as posted asks whether an ACK is due, not whether one was asked for now."),
    "schemes-differ": Cause("the ends count ACKs by different schemes", _says_schemes, (6, 13),
                            "Patch 6 brings the second scheme and the property, patch 13 turns it on by default."),
    "reinit-unheard": Cause("new initial data were loaded while the guest stood still", _says_forgotten, (11, 13),
                            "Patch 11 makes QEMU see a REINIT, patch 13 turns on the scheme that asks for an ACK."),
    "capability-one-sided": Cause("the destination does not use switchover-ack", _says_one_sided, (0,),
                                  "The capability is older than the series and is not negotiated."),
    "never-converges": Cause("more is left in each round than fits into downtime-limit", _says_too_busy, (0,),
                             "That is precopy; no ACK has to do with it."),
}


# --- what the reader may try as a cure ---

def _both(config: Config, **host: Any) -> None:
    for side in ("source", "destination"):
        config[side] = {**config[side], **host}


CURES: dict[str, tuple[str, Callable[[Config], Any]]] = {
    "try-again": ("migrate once more, to a fresh destination",
                  lambda c: c.update(attempts=2, destination_per_attempt=True)),
    "new-scheme": (f"-global {LEGACY}=off at both ends", lambda c: _both(c, globals=[f"{LEGACY}=off"])),
    "qemu-11.1": ("QEMU 11.1.3 at both ends", lambda c: _both(c, qemu="11.1.3")),
    "capability": ("set switchover-ack at the destination, too", lambda c: c.pop("dst_caps", None)),
    "downtime-limit": ("raise downtime-limit to 2 s", lambda c: c["params"].update({"downtime-limit": 2000})),
    "wait": ("give it 10 s more", lambda c: c.update(timeout_ms=c.get("timeout_ms", 30_000) + 10_000)),
}


@cache
def cured(what: int | str, cure: str) -> tuple[str, str]:
    """(key of migsim.versions.RESULTS, why) of the case with a cure."""
    config = copy.deepcopy(case(what).config)
    CURES[cure][1](config)
    got = run(load_scenario(config))
    return ("refused", got.refused) if got.refused else classify(got)


# --- the check ---

def diagnose(what: int | str, cause: str = "", patch: int | None = None, cure: str = "") -> Checked:
    """Check a diagnosis of a case and say why. `cause`: a key of CAUSES; `patch`: 1 to 13, or 0 for none; `cure`:
    a key of CURES. What is left out is asked for. Raises ValueError, one line, for another key."""
    for given, allowed in ((cause, CAUSES), (cure, CURES)):
        if given and given not in allowed:
            raise ValueError(f"{given!r}: allowed is {', '.join(allowed)}")
    [found] = analyze(case(what).journal)
    answers = (_cause(found, cause), _patch(found, patch), _cure(what, cure))
    passed = all(ok for ok, _ in answers)
    kind = "right" if passed else "wrong" if cause and cure and patch is not None else ""
    out = Checked(box("<br>".join(text for _, text in answers), kind).data)
    out.passed = passed
    return out


def _asked(what: str, keys: dict[str, str]) -> str:
    return f"<b>{what}?</b> " + "; ".join(f"<code>{key}</code>: {escape(text)}" for key, text in keys.items())


def _cause(found: Analysis, cause: str) -> tuple[bool, str]:
    if not cause:
        return False, _asked("Cause", {key: known.what for key, known in CAUSES.items()})
    right, evidence = CAUSES[cause].says(found)
    return right, f"<b>Cause: {'yes' if right else 'no'}.</b> {escape(CAUSES[cause].what)}? {escape(evidence)}."


def _patch(found: Analysis, patch: int | None) -> tuple[bool, str]:
    if patch is None:
        return False, "<b>Patch?</b> 1 to 13, or 0 if it has nothing to do with the series"
    shown = [cause for cause in CAUSES.values() if cause.says(found)[0]]
    right = any(patch in cause.patches for cause in shown)
    said = f"patch {patch}, {PATCHES[patch]}" if patch in PATCHES else "none of the series"
    why = " ".join(cause.why for cause in shown) if right else "Which patch changes what the cause's evidence shows?"
    return right, f"<b>Patch: {'yes' if right else 'no'}.</b> {escape(said)}. {escape(why)}"


def _cure(what: int | str, cure: str) -> tuple[bool, str]:
    if not cure:
        return False, _asked("Cure", {key: what for key, (what, _) in CURES.items()})
    result, why = cured(what, cure)
    right = result == "moves"
    said = f"{CURES[cure][0]}: {RESULTS[result]} ({why})."
    return right, f"<b>Cure: {'yes' if right else 'no'}.</b> {escape(said)}"
