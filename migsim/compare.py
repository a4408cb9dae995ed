"""A simulated run held against a recording of real QEMU (recordings' README, "Comparing a simulated run")."""
from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .journal import LEFT_OUT, SIDES, read_events


#: the protocol events of each side; qemu_savevm_query_pending and vfio_load_state have rules of their own
def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


PROTOCOL = {
    "source": _names("""
        migrate_set_state migrate_error vfio_migration_init vfio_migration_set_device_state
        vfio_vmstate_change_prepare vfio_vmstate_change vfio_save_setup vfio_send_init_data_flag
        vfio_query_precopy_size_request_switchover_ack source_return_path_thread_switchover_acked
        source_return_path_thread_pong source_return_path_thread_shut migration_completion_vm_stop
        migration_precopy_complete vmstate_downtime_checkpoint vfio_save_complete_precopy
        vfio_save_device_config_state vfio_save_cleanup savevm_send_open_return_path savevm_send_ping
        savevm_send_switchover_start migration_cancel"""),
    "destination": _names("""
        migrate_set_state vfio_migration_init vfio_migration_set_device_state vfio_vmstate_change_prepare
        vfio_vmstate_change loadvm_approve_switchover loadvm_approve_switchover_legacy
        migration_request_switchover_ack_legacy loadvm_process_command migrate_send_rp_message vfio_load_cleanup
        vfio_load_device_config_state_start vfio_load_device_config_state_end vmstate_downtime_checkpoint
        process_incoming_migration_co_end"""),
}
DATA_STATE = 0xFFFFFFFFEF100004
ENDED = ("completed", "failed", "cancelled")
DOWNTIME_MS, DOWNTIME_PART = 10, 0.10

Timed = tuple[int, str, tuple]  # (microseconds, name, args)


class RecordingError(ValueError):
    """A folder that is no recording; the message is one line."""


class Recording(NamedTuple):
    """A recorded run: set-up, result and the events of each log, as (microseconds since 1970, name, args)."""

    name: str
    folder: Path
    config: dict[str, Any]
    result: dict[str, Any]
    events: dict[str, list[Timed]]
    cut: dict[str, bool]  # the log says "lines left out"


@dataclass
class Agreement:
    """What simulation and recording have in common. `ratio`: 2 x LCS / events of both, per log."""

    name: str
    ratio: dict[str, float] = field(default_factory=dict)
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    outcome: dict[str, tuple[Any, Any, bool]] = field(default_factory=dict)  # what: (simulated, recorded, agrees)

    @property
    def worst(self) -> float:
        """The lowest ratio."""
        return min(self.ratio.values(), default=0.0)

    @property
    def same_outcome(self) -> bool:
        """Status, error, run states and downtime agree."""
        return all(ok for _, _, ok in self.outcome.values())


def find_log(folder: Path, stem: str) -> Path | None:
    """`stem`.log in any of the forms that recordings come in."""
    return next((p for end in (".log.xz", ".log.gz", ".log") if (p := folder / (stem + end)).exists()), None)


def load_recording(folder: str | Path) -> Recording:
    """Read a recording's folder. Raises RecordingError in one line."""
    folder = Path(folder)
    try:
        scenario = json.loads((folder / "scenario.json").read_text(encoding="utf-8"))
        config, result = scenario["config"], scenario["result"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordingError(f"{folder}: no recording: scenario.json with config and result is needed "
                             f"({type(error).__name__}: {error})") from None
    events, cut = {}, {}
    for stem in (*SIDES, "attempt1-destination"):
        path = find_log(folder, stem)
        if path is None and stem in SIDES:
            raise RecordingError(f"{folder}: {stem}.log (.gz, .xz) is missing")
        if path:
            events[stem], others = read_events(path)
            cut[stem] = any(LEFT_OUT.fullmatch(line) for line in others)
    return Recording(folder.resolve().name, folder, config, result, events, cut)


def until_end(events: Iterable[Timed], until_us: int | None) -> list[Timed]:
    """The log up to the moment when the process is told to quit, or up to `until_us`."""
    out = []
    for event in events:
        if (event[1] == "runstate_set" and "shutdown" in map(str, event[2][-1:])) or (until_us and event[0] > until_us):
            break
        out.append(event)
    return out


def protocol_events(events: list[Timed], side: str) -> tuple[list[tuple], list[tuple]]:
    """(events of the side in order, events of the source's return-path thread), each as (name, arguments)."""
    names, rest, thread = PROTOCOL[side], [], []
    errors = rp_errors(events)
    previous: tuple = ()
    for k, (_, name, args) in enumerate(events):
        key: tuple = (name, *(int(a) if isinstance(a, bool) else a for a in args))
        if name == "qemu_savevm_query_pending":
            if side != "source" or len(args) < 8 or not (args[1] or args[6]):
                continue
            key = (name, int(args[0]), int(args[1]), args[6], args[7])
        elif name == "vfio_load_state" and side == "destination":
            if args[-1] == DATA_STATE and previous[:1] == ("data",) and previous[1] == args[0]:
                continue
            previous = ("data", args[0]) if args[-1] == DATA_STATE else ()
            rest.append(key)
            continue
        elif name not in names:
            continue
        elif args[:1] == ("POSTCOPY_RAM_DISCARD",):
            key = (name, "POSTCOPY_RAM_DISCARD")
            if previous == key:
                continue
        previous = key
        (thread if name.startswith("source_return_path_thread") or k in errors else rest).append(key)
    return rest, thread


def rp_errors(events: list[Timed]) -> set[int]:
    """Where the return-path thread records its error: the last migrate_error before it ends badly."""
    out, last = set(), -1
    for k, (_, name, _) in enumerate(events):
        if name == "migrate_error":
            last = k
        elif name == "source_return_path_thread_bad_end" and last >= 0:
            out.add(last)
    return out


def common(a: list[tuple], b: list[tuple]) -> int:
    """Length of the longest common subsequence."""
    start = 0
    while start < len(a) and start < len(b) and a[start] == b[start]:
        start += 1
    end = 0
    while end < min(len(a), len(b)) - start and a[-1 - end] == b[-1 - end]:
        end += 1
    a, b = a[start:len(a) - end], b[start:len(b) - end]
    row = [0] * (len(b) + 1)
    for x in a:
        new = [0]
        for j, y in enumerate(b):
            new.append(row[j] + 1 if x == y else max(row[j + 1], new[j]))
        row = new
    return start + end + row[-1]


def describe(recorded: list[tuple], simulated: list[tuple], side: str, most: int = 3) -> list[str]:
    """The first differences in words."""
    out: list[str] = []
    for tag, i, j, k, m in difflib.SequenceMatcher(None, recorded, simulated, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        where = f" after {' '.join(map(str, recorded[i - 1]))}" if i else ""
        for what, items in (("recorded", recorded[i:j]), ("simulated", simulated[k:m])):
            out += [f"{side}: only {what}{where}: {' '.join(map(str, item))}" for item in items]
    return out[:most] + ([f"{side}: ... {len(out) - most} more"] if len(out) > most else [])


def compare_side(agreement: Agreement, stem: str, side: str, simulated: list[Timed], recorded: list[Timed],
                 cut: bool) -> None:
    """Add one log's ratio and differences."""
    ours, theirs = protocol_events(simulated, side), protocol_events(recorded, side)
    same = sum(common(a, b) for a, b in zip(ours, theirs, strict=True))
    n, m = sum(map(len, ours)), sum(map(len, theirs))
    agreement.ratio[stem] = (same / m if cut else 2 * same / (n + m)) if n + m and m else float(n == m)
    agreement.counts[stem] = n, m
    for a, b in zip(theirs, ours, strict=True):
        agreement.differences += [] if cut else describe(a, b, stem)


def compare_outcome(agreement: Agreement, outcome: dict, run_state: dict, result: dict) -> None:
    """Status, error text, run state of both ends, downtime."""
    real = result["outcome"]
    for key in ("status", "error-desc"):
        agreement.outcome[key] = outcome.get(key), real.get(key), outcome.get(key) == real.get(key)
    for side in SIDES:
        ours, theirs = run_state.get(side), result.get("run_state", {}).get(side)
        agreement.outcome[f"{side} run state"] = ours, theirs, ours == theirs
    ours, theirs = outcome.get("downtime"), real.get("downtime")
    near = ours == theirs or (None not in (ours, theirs)
                              and abs(ours - theirs) <= max(DOWNTIME_MS, DOWNTIME_PART * theirs))
    agreement.outcome["downtime"] = ours, theirs, near


def compare(run: Any, recording: Recording) -> Agreement:
    """Hold a run of the recording's scenario against the recording."""
    agreement = Agreement(recording.name)
    result = recording.result
    until = None
    if result["outcome"].get("status") not in ENDED and result["outcome"]:
        until = _quit_us(recording)
    journals = run.attempt_journals()
    for stem, recorded in recording.events.items():
        side = "destination" if stem.endswith("destination") else "source"
        events = journals[0].events if stem.startswith("attempt1") else \
            journals[-1].events if side == "destination" else run.journal.events
        simulated = [(e.us, e.name, e.args) for e in events if e.side == side]
        compare_side(agreement, stem, side, simulated, until_end(recorded, until), recording.cut[stem])
    compare_outcome(agreement, run.outcome, run.run_state, result)
    return agreement


def _quit_us(recording: Recording) -> int | None:
    if "quit_time" in recording.result:
        return int(recording.result["quit_time"] * 1e6)
    return next((us for us, name, _ in reversed(recording.events["source"]) if name == "migration_cancel"), None)


def busy_measures(events: list[Timed]) -> dict[str, int]:
    """Of a source's log: bitmap syncs, and those made while no ACK was awaited (recordings-busy' README)."""
    waiting, syncs, outside = True, 0, 0
    for _, name, args in events:
        if name == "qemu_savevm_query_pending" and len(args) >= 8:
            waiting = args[7] != 0
        elif name == "source_return_path_thread_switchover_acked":
            waiting = bool(args and args[0])
        elif name == "migration_bitmap_sync_start":
            syncs += 1
            outside += not waiting
    return {"syncs": syncs, "outside": outside}
