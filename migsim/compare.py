"""A simulated run held against a recording of real QEMU (recordings' README, "Comparing a simulated run")."""
from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from .journal import LEFT_OUT, SIDES, Journal, read_events


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: the protocol events of each side; qemu_savevm_query_pending and vfio_load_state have rules of their own
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


class Simulated(Protocol):
    """What a simulated run shows for the comparison (migsim.run.Run): `journal` of all attempts, `outcome` as the
    source's query-migrate has it, `run_state` of both ends (None: exited), and a journal for each attempt."""

    outcome: dict[str, Any]
    run_state: dict[str, str | None]

    @property
    def journal(self) -> Journal: ...

    def attempt_journals(self) -> list[Journal]: ...


class RecordingError(ValueError):
    """A folder that is no recording; the message is one line."""


class Recording(NamedTuple):
    """A recorded run: set-up, result and the events of each log, as (microseconds since 1970, name, args).

    Logs are called source, destination and attempt1-destination (the first of two attempts).
    """

    name: str
    folder: Path
    config: dict[str, Any]
    result: dict[str, Any]
    events: dict[str, list[Timed]]
    cut: dict[str, bool]  # the log says "lines left out"
    query_migrate: dict[str, dict[str, Any]]  # last answer of each end


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


def _json(path: Path) -> dict[str, Any]:
    try:
        got = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror}: a recording's folder has this file") from None
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{path}: {error}") from None
    if not isinstance(got, dict):
        raise RecordingError(f"{path}: an object is needed, not {type(got).__name__}")
    return got


def _part(of: dict, key: str, path: Path) -> dict[str, Any]:
    if not isinstance(of.get(key, {} if key != "config" else None), dict):
        raise RecordingError(f"{path}: {key!r} must be an object")
    return of.get(key, {})


def load_recording(folder: str | Path) -> Recording:
    """Read a recording's folder, packed as in data/ (.log.xz) or as recorded (.log.gz, .log).

    Raises RecordingError or JournalError in one line.
    """
    folder = Path(folder)
    path = folder / "scenario.json"
    scenario = _json(path)
    config, result = (dict(_part(scenario, key, path)) for key in ("config", "result"))
    for key in ("outcome", "run_state"):
        result[key] = _part(result, key, path)
    quit_time = result.get("quit_time", 0)
    if not isinstance(quit_time, int | float) or not math.isfinite(quit_time):
        raise RecordingError(f"{path}: 'quit_time' must be seconds since 1970")
    events, cut = {}, {}
    for stem in (*SIDES, "attempt1-destination"):
        log = find_log(folder, stem)
        if log is None and stem in SIDES:
            raise RecordingError(f"{folder}: {stem}.log (.gz, .xz) is missing")
        if log:
            events[stem], others = read_events(log)
            cut[stem] = any(LEFT_OUT.fullmatch(line) for line in others)
    answers = {side: _json(p) for side in SIDES if (p := folder / f"{side}-query-migrate.json").exists()}
    return Recording(folder.resolve().name, folder, config, result, events, cut, answers)


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
            acks = tuple(args[6:8])  # none before patch 6; no final query before patch 2
            if side != "source" or len(args) < 6 or not (args[1] or acks[:1] > (0,)):
                continue
            key = (name, int(args[0]), int(args[1]), *acks)
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


def describe(recorded: list[tuple], simulated: list[tuple], stem: str, cut: bool, most: int = 3) -> list[str]:
    """The first differences in words. `cut`: what only the simulation has may have been left out of the log."""
    out: list[str] = []
    for tag, i, j, k, m in difflib.SequenceMatcher(None, recorded, simulated, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        where = f" after {' '.join(map(str, recorded[i - 1]))}" if i else ""
        for what, items in (("recorded", recorded[i:j]), ("simulated", [] if cut else simulated[k:m])):
            out += [f"{stem}: only {what}{where}: {' '.join(map(str, item))}" for item in items]
    return out[:most] + ([f"{stem}: ... {len(out) - most} more"] if len(out) > most else [])


def compare_log(agreement: Agreement, stem: str, simulated: list[Timed], recorded: list[Timed], cut: bool) -> None:
    """Add one log's ratio, counts and differences."""
    side = "destination" if stem.endswith("destination") else "source"
    ours, theirs = protocol_events(simulated, side), protocol_events(recorded, side)
    same = sum(common(a, b) for a, b in zip(ours, theirs, strict=True))
    n, m = sum(map(len, ours)), sum(map(len, theirs))
    agreement.ratio[stem] = (same / m if cut else 2 * same / (n + m)) if n + m and m else float(n == m)
    agreement.counts[stem] = n, m
    for a, b in zip(theirs, ours, strict=True):
        agreement.differences += describe(a, b, stem, cut)


def compare_events(simulated: Mapping[str, list[Timed]], recording: Recording) -> Agreement:
    """Protocol events only. `simulated`: a list of events per log, named as in Recording.events.

    Both end where QEMU was told to quit; a recording whose migration did not end, at result.quit_time.
    """
    agreement = Agreement(recording.name)
    for stem, recorded in recording.events.items():
        compare_log(agreement, stem, until_end(simulated.get(stem, ()), None),
                    until_end(recorded, _quit_us(recording)), recording.cut[stem])
    return agreement


def compare_outcome(agreement: Agreement, outcome: dict, run_state: dict, result: dict) -> None:
    """Status, error text, run state of both ends; downtime within 10 ms or 10 % of the recorded one."""
    real = result.get("outcome", {})
    for key in ("status", "error-desc"):
        agreement.outcome[key] = outcome.get(key), real.get(key), outcome.get(key) == real.get(key)
    for side in SIDES:
        ours, theirs = run_state.get(side), result.get("run_state", {}).get(side)
        agreement.outcome[f"{side} run state"] = ours, theirs, ours == theirs
    ours, theirs = outcome.get("downtime"), real.get("downtime")
    near = ours == theirs or (isinstance(ours, int | float) and isinstance(theirs, int | float)
                              and abs(ours - theirs) <= max(DOWNTIME_MS, DOWNTIME_PART * theirs))
    agreement.outcome["downtime"] = ours, theirs, near


def compare(run: Simulated, recording: Recording) -> Agreement:
    """Hold a run of the recording's scenario against the recording: protocol events and outcome."""
    journals = run.attempt_journals()
    whole = {"source": run.journal, "destination": journals[-1], "attempt1-destination": journals[0]}
    agreement = compare_events({stem: _timed(journal, stem) for stem, journal in whole.items()}, recording)
    compare_outcome(agreement, run.outcome, run.run_state, recording.result)
    return agreement


def _timed(journal: Journal, stem: str) -> list[Timed]:
    return [(e.us, e.name, e.args) for e in journal.events if stem.endswith(e.side)]


def _quit_us(recording: Recording) -> int | None:
    """When the driver gave up on a migration that had not ended, in us since 1970; None if it ended."""
    outcome = recording.result["outcome"]
    if not outcome or outcome.get("status") in ENDED:
        return None
    if "quit_time" in recording.result:
        return int(recording.result["quit_time"] * 1e6)
    return next((us for us, name, _ in reversed(recording.events["source"]) if name == "migration_cancel"), None)


def busy_measures(events: Iterable[Timed], switchover_ack: bool = True) -> dict[str, int]:
    """Of a source's log: bitmap syncs (`syncs`), and those made while no ACK was awaited (`outside`).

    An ACK is awaited while the total of pending ACKs is not 0; in a log that does not print it (before patch 6), and in
    the legacy scheme, until the ACK comes. `switchover_ack`: the capability; without it nothing is awaited.
    Source: recordings-busy' README, "number of syncs outside an ACK wait".
    """
    events = list(events)
    pending = next((args[7] - args[6] for _, name, args in events
                    if name == "qemu_savevm_query_pending" and len(args) >= 8), 1)  # before the first query
    syncs = outside = 0
    for _, name, args in events:
        if name == "qemu_savevm_query_pending" and len(args) >= 8:
            pending = args[7]
        elif name == "source_return_path_thread_switchover_acked":
            pending = args[0] if args else 0
        elif name == "migration_bitmap_sync_start":
            syncs += 1
            outside += not (switchover_ack and pending)
    return {"syncs": syncs, "outside": outside}
