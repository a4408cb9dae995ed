"""A journal as a picture: lanes, events on them, bands of states, messages that take time, the counter of awaited ACKs.

The static twin (svg.py) and the player draw the same model. It is made from trace events, so that a recording of real
QEMU gives the same picture as a simulated run; only the moment of a REINIT is taken from the devices' own view. Equal
loop turns are folded into one item; the protocol events (compare.PROTOCOL) are never folded. Times are microseconds
since the source's first status `setup`.
"""
from __future__ import annotations

import difflib
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from math import log2
from pathlib import PurePath
from typing import NamedTuple

from .channels import SLACK_US, Message, device_numbers, messages_of
from .compare import PROTOCOL, protocol_events, rp_errors
from .explain import UNDERFLOW, explain, function_of, thread_of
from .journal import Event, Journal

#: more items than this are not drawn; what is left out is said
MAX_ITEMS = 4000


class Lane(NamedTuple):
    """A row of the picture. `kind`: guest, status, device, thread or counter."""

    key: str
    label: str
    side: str
    kind: str


class Item(NamedTuple):
    """One step of the player: an event (`kind` protocol or detail) or a fold of equal ones (`kind` fold).

    `lane` is where it is drawn, `thread` whose present function it tells; both are keys. `first`: index in the journal.
    """

    us: int
    end: int
    kind: str
    lane: str
    thread: str
    name: str
    text: str
    what: str
    why: str
    function: str
    patch: int
    count: int
    first: int
    differs: bool = False


class Band(NamedTuple):
    """A state that lasts from `us` to `end`. `state` picks the pattern, `label` is what is written."""

    lane: str
    us: int
    end: int
    state: str
    label: str


class Change(NamedTuple):
    """The number of awaited ACKs becomes `value`."""

    us: int
    value: str


@dataclass
class Picture:
    """The model of one journal. `downtime`: (from, to) of every stop for a switchover; `span`: first and last us."""

    title: str
    lanes: list[Lane]
    items: list[Item]
    bands: list[Band]
    messages: list[Message]
    counter: list[Change]
    downtime: list[tuple[int, int]]
    span: tuple[int, int]
    home: tuple[int, int]
    events: int
    notes: list[str] = field(default_factory=list)


# --- what is folded ---

_TURN = """savevm_section_start savevm_section_end savevm_state_iterate vfio_state_pending vfio_state_pending_estimate
 vfio_state_pending_exact vfio_query_precopy_size vfio_query_stop_copy_size vfio_save_iterate vfio_save_iterate_start
 vfio_save_block vfio_save_block_precopy_empty_hit qemu_savevm_query_pending migration_bitmap_sync_start
 migration_bitmap_sync_end migrate_transferred migration_rate_limit_pre migration_rate_limit_post
 migrate_pending_estimate migrate_pending_exact ram_save_iterate_big_wait vmstate_save vmstate_downtime_save
 savevm_command_send"""
_LOAD = """qemu_loadvm_state_section qemu_loadvm_state_section_partend qemu_loadvm_state_section_command ram_load_start
 ram_load_complete vfio_load_state vfio_load_state_device_data loadvm_process_command_ping vmstate_load
 vmstate_downtime_load qemu_loadvm_state_section_startfull"""
_OTHER = {
    "waiting for messages": "source_return_path_thread_loop_top",
    "host IOMMU": "iommufd_cdev_connect_and_bind iommufd_cdev_alloc_ioas iommufd_cdev_attach_ioas_hwpt "
                  "iommufd_cdev_pasid_attach_ioas_hwpt iommufd_cdev_device_info",
    "calc-dirty-rate": "dirtyrate_set_state dirtyrate_calculate",
    "requests of states": "vfio_migration_set_state",
    "postcopy pages": "postcopy_discard_send_range postcopy_discard_send_finish postcopy_init_range "
                      "postcopy_cleanup_range qemu_savevm_send_postcopy_ram_discard "
                      "loadvm_postcopy_ram_handle_discard loadvm_postcopy_ram_handle_discard_header "
                      "loadvm_postcopy_ram_handle_discard_end",
}
_FOLDS = {name: what for what, names in (("the loop", _TURN), ("loading", _LOAD), *_OTHER.items())
          for name in names.split()}
_FRAMES = frozenset(("savevm_section_start", "savevm_section_end", "qemu_loadvm_state_section",
                     "source_return_path_thread_loop_top"))
#: what a fold counts: the first of these that it has
_COUNTED = {"savevm_state_iterate": "loop turns", "vmstate_downtime_save": "device states saved",
            "qemu_loadvm_state_section": "sections loaded"}
_PHASE = {"savevm_state_header": "migration", "migration_cleanup": "main"}
_SINGULAR = {"loop turns": "loop turn", "device states saved": "device state saved",
             "sections loaded": "section loaded"}
_WHY_FOLD = {
    "loop turns": "the loop queries, sends and waits; nothing of the protocol happens",
    "sections loaded": "RAM and device data are loaded in the order they came",
}
_ON_DEVICE = frozenset((
    "vfio_migration_init", "vfio_migration_realize", "vfio_migration_set_state", "vfio_migration_set_device_state",
    "vfio_vmstate_change_prepare", "vfio_vmstate_change", "vfio_migration_state_notifier",
    "vfio_query_precopy_size_request_switchover_ack", "vfio_save_cleanup", "vfio_load_cleanup"))


#: what compare.protocol_events() looks at beside its names; nothing else of a long log needs to be handed to it
_ASKED = {"qemu_savevm_query_pending", "vfio_load_state", "source_return_path_thread_bad_end"}
#: what only a fold counts: neither state nor message nor counter
_PLAIN = frozenset(_FOLDS) - {"qemu_savevm_query_pending", "savevm_command_send", "vfio_load_state", "vfio_save_block",
                              "vfio_load_state_device_data", "vfio_save_iterate"}


def protocol_indexes(journal: Journal, devices: dict[tuple[str, str], int]) -> dict[int, tuple[str, tuple]]:
    """Index in the journal -> (log and thread it is compared in, what is compared) of every protocol event.

    compare.protocol_events() says what counts; device names are replaced by numbers (10.0 calls them VFIO_FD4).
    """
    out: dict[int, tuple[str, tuple]] = {}
    for side in ("source", "destination"):
        asked = PROTOCOL[side] | _ASKED
        where = [i for i, e in enumerate(journal.events) if e.side == side and e.name in asked]
        timed = [(e.us, e.name, e.args) for e in (journal.events[i] for i in where)]
        threads, errors = protocol_events(timed, side), rp_errors(timed)
        queues = [deque(keys) for keys in threads]
        for k, (_, name, args) in enumerate(timed):
            thread = int(name.startswith("source_return_path_thread") or k in errors)
            queue = queues[thread]
            if queue and queue[0][0] == name and _same(queue[0], name, args):
                key = tuple([devices.get((side, x), x) if isinstance(x, str) else x for x in queue.popleft()])
                out[where[k]] = f"{side}/{thread}", key
    return out


def _same(key: tuple, name: str, args: tuple) -> bool:
    if name == "qemu_savevm_query_pending":
        return len(args) >= 6 and key[1:] == (int(args[0]), int(args[1]), *args[6:8])
    if key[1:] == ("POSTCOPY_RAM_DISCARD",):
        return args[:1] == key[1:]
    return key[1:] == tuple(args)


class _Builder:
    """One pass over the events."""

    def __init__(self, journal: Journal, title: str) -> None:
        self.events = journal.events
        self.told = journal.devices or ()
        self.notable = [e for e in self.events if e.name not in _PLAIN]
        setup = next((e.us for e in self.notable if e.side == "source" and e.name == "migrate_set_state"), 0)
        self.origin = setup
        self.devices = device_numbers(self.notable)
        self.protocol = protocol_indexes(journal, self.devices)
        self.title = title
        self.items: list[Item] = []
        self.folds: dict[str, tuple[str, str, list[int]]] = {}  # side -> (what, thread, indexes)
        self.phase = "main"

    def items_of(self) -> list[Item]:
        """Events and folds in time order."""
        errors = {i for i, (log, key) in self.protocol.items() if log.endswith("/1")}
        for i, e in enumerate(self.events):
            what = _FOLDS.get(e.name)
            if what and i not in self.protocol:
                fold = self.folds.get(e.side)
                if fold and (fold[0] == what or e.name in _FRAMES):  # frames belong to any fold
                    fold[2].append(i)
                else:
                    self._flush(e.side)
                    self.folds[e.side] = what, self._thread(e), [i]
                continue
            if e.side == "source":
                self.phase = _PHASE.get(e.name, self.phase)
            self._flush(e.side)
            thread = "source/return-path" if i in errors else self._thread(e)
            on_device = e.name in _ON_DEVICE and (e.side, e.args[0]) in self.devices if e.args else False
            lane = f"{e.side}/device{self.devices[e.side, e.args[0]]}" if on_device else thread
            said = explain(e.name, e.args, e.side)
            us = e.us - self.origin
            self.items.append(Item(us, us, "protocol" if i in self.protocol else "detail", lane, thread, e.name,
                                   e.text.strip(), said.what, said.why, said.function, said.patch, 1, i))
        for side in ("source", "destination"):
            self._flush(side)
        self.items += self._untraced()
        self.items.sort(key=lambda item: (item.us, item.first))
        return self.items

    def _untraced(self) -> list[Item]:
        """New initial chunks, which only the devices of a simulated run know of before a query sees them."""
        return [Item(d.us - self.origin, d.us - self.origin, "protocol", lane, lane, "REINIT", f"{d.size} bytes",
                     "the device has produced a new initial chunk",
                     "QEMU does not see this: at best the next precopy-info query tells it", "kernel driver", 0, 1, -1)
                for d in self.told if d.what == "REINIT" and (d.side, d.device) in self.devices
                for lane in [f"{d.side}/device{self.devices[d.side, d.device]}"]]

    def _thread(self, e: Event) -> str:
        if e.name == "migrate_set_state" and e.args[:1] in (("cancelling",), ("setup",), ("failed",)):
            return f"{e.side}/main"
        return f"{e.side}/{thread_of(e.name, e.side, self.phase)}"

    def _flush(self, side: str) -> None:
        fold = self.folds.pop(side, None)
        if not fold:
            return
        what, thread, indexes = fold
        first, last = self.events[indexes[0]], self.events[indexes[-1]]
        said = explain(first.name, first.args)
        text, words, why, function, count = first.text.strip(), said.what, said.why, said.function, 1
        if len(indexes) > 1:
            names = Counter([self.events[i].name for i in indexes])
            counted = next((n for n in _COUNTED if names[n]), None)
            count = names[counted] if counted else len(indexes)
            what = _COUNTED[counted] if counted else f"events ({what})"
            why = _WHY_FOLD.get(what, "")
            text = f"{count} {_SINGULAR.get(what, what) if count == 1 else what}"
            text += f" ({len(indexes)} events)" if counted else ""
            words = f"{text}; first: {said.what}; last: {explain(last.name, last.args).what}"
            function = "migration_iteration_run" if names["savevm_state_iterate"] else function_of(last.name)
        self.items.append(Item(first.us - self.origin, last.us - self.origin, "fold", thread, thread, first.name,
                               text, words, why, function, 0, count, indexes[0]))

    # --- bands ---

    def bands_of(self, end: int) -> list[Band]:
        """Status of both ends, state of every device, the guest."""
        tracks: dict[str, list[tuple[int, str]]] = {}
        running = {"source": False, "destination": False}
        for e in self.notable:
            us = e.us - self.origin
            if e.name == "migrate_set_state":
                tracks.setdefault(f"{e.side}/status", []).append((us, str(e.args[0])))
            elif e.name in _STATES and (e.side, e.args[0] if e.args else "") in self.devices:
                state = "RUNNING" if e.name == "vfio_migration_realize" else str(e.args[-1])
                tracks.setdefault(f"{e.side}/device{self.devices[e.side, e.args[0]]}", []).append((us, state))
            elif e.name == "vm_state_notify" and len(e.args) == 3:
                running[e.side] = bool(e.args[0])
                state = _GUEST[running["source"], running["destination"]]
                if e.args[2] == "shutdown":
                    state = "quit" if not any(running.values()) else state
                tracks.setdefault("guest", []).append((us, state))
        out = []
        for lane, track in tracks.items():
            merged = [t for k, t in enumerate(track) if not k or track[k - 1][1] != t[1]]
            for (us, state), (until, _) in pairwise([*merged, (end, "")]):
                out.append(Band(lane, us, until, state, _GUEST_LABEL.get(state, state) if lane == "guest" else state))
        return out

    def counter_of(self) -> list[Change]:
        """The awaited ACKs as the source counts them; where its log does not tell, as the destination does."""
        source, destination = [], []
        for e in self.notable:
            us = e.us - self.origin
            if e.name == "qemu_savevm_query_pending" and len(e.args) >= 8:
                source.append((us, e.args[7]))
            elif e.name == "source_return_path_thread_switchover_acked" and e.args:
                source.append((us, e.args[0]))
            elif e.name in _LEGACY_COUNT and e.args and isinstance(e.args[-1], int):
                destination.append((us, e.args[-1]))
        values = source or destination
        changes = [Change(us, "underflow" if v == UNDERFLOW else str(v)) for k, (us, v) in enumerate(values)
                   if not k or values[k - 1][1] != v]
        return changes

    def downtime_of(self, bands: list[Band]) -> list[tuple[int, int]]:
        """Every stop of the guest that belongs to a switchover."""
        starts = [e.us - self.origin for e in self.notable
                  if e.name == "vmstate_downtime_checkpoint" and e.args == ("src-downtime-start",)]
        stops = [b for b in bands if b.lane == "guest" and b.state == "stopped"]
        return [(start, b.end) for start in starts
                for b in [next((b for b in stops if b.end > start and b.us >= start - SLACK_US), None)] if b]

_GUEST = {(True, False): "source", (False, False): "stopped", (False, True): "destination", (True, True): "both"}
_GUEST_LABEL = {"source": "runs on the source", "stopped": "stopped", "destination": "runs on the destination",
                "both": "RUNS ON BOTH SIDES", "quit": "QEMU quits"}
_STATES = ("vfio_migration_realize", "vfio_migration_set_device_state")
_LEGACY_COUNT = ("loadvm_state_switchover_ack_needed", "migration_request_switchover_ack_legacy",
                 "migration_request_switchover_ack", "loadvm_approve_switchover", "loadvm_approve_switchover_legacy")


def _lanes(journal: Journal, items: list[Item], devices: dict[tuple[str, str], int]) -> list[Lane]:
    """Rows from top to bottom; only threads that wrote something."""
    seen = {item.thread for item in items}
    names: dict[str, list[str]] = {"source": [], "destination": []}
    for (side, name), _ in sorted(devices.items(), key=lambda d: d[1]):
        names[side].append(name)
    out = [Lane("guest", "guest", "", "guest"), Lane("source/status", "Source", "source", "status")]
    out += [Lane(f"source/device{k}", name, "source", "device") for k, name in enumerate(names["source"])]
    out += [Lane(f"source/{t}", t + " thread", "source", "thread") for t in ("main", "migration", "return-path")
            if f"source/{t}" in seen or t != "return-path"]
    out.insert(-1, Lane("counter", "ACKs awaited", "source", "counter"))
    out += [Lane("destination/status", "Destination", "destination", "status"),
            Lane("destination/main", "main thread (incoming)", "destination", "thread")]
    if "destination/listen" in seen:
        out.append(Lane("destination/listen", "listen thread", "destination", "thread"))
    return out + [Lane(f"destination/device{k}", name, "destination", "device")
                  for k, name in enumerate(names["destination"])]


def picture(journal: Journal, title: str = "") -> Picture:
    """The model of a journal."""
    return _picture(journal, title)[0]


def _picture(journal: Journal, title: str) -> tuple[Picture, _Builder]:
    b = _Builder(journal, title)
    items, notes = b.items_of(), [_note(n) for n in journal.notes]
    first, last = (items[0].us, max(i.end for i in items)) if items else (0, 1)
    bands = b.bands_of(last)
    shutdown = next((e.us - b.origin for e in reversed(b.notable)
                     if e.name == "runstate_set" and "shutdown" in map(str, e.args[-1:])), last)
    inside = [i.us for i in items if i.us < shutdown and i.name != "migration_cancel"] or [last]
    home = (max(first, 0), max(inside[-1], 1))
    if len(items) > MAX_ITEMS:
        items, note = _fewer(items)
        notes.append(note)
    return Picture(title, _lanes(journal, items, b.devices), items, bands,
                   messages_of(b.notable, b.devices, b.origin), b.counter_of(), b.downtime_of(bands),
                   (first, max(last, first + 1)), home, len(b.events), notes), b


def _note(note: str) -> str:
    """A note of a log without the folder it lies in."""
    path, colon, rest = note.partition(": ")
    return PurePath(path).name + colon + rest


def _fewer(items: list[Item]) -> tuple[list[Item], str]:
    """Protocol events and the first of the rest; a line that says what is not drawn."""
    keep = MAX_ITEMS - sum(i.kind == "protocol" for i in items)
    out = []
    for item in items:
        if item.kind == "protocol":
            out.append(item)
        elif keep > 0:
            out.append(item)
            keep -= 1
    gone = len(items) - len(out)
    return out, f"{gone} of {len(items)} steps are not drawn (none of them a protocol event)"


def pictures(journal: Journal, other: Journal | None = None, titles: tuple[str, str] = ("", "")) -> list[Picture]:
    """One or two pictures; with two, the protocol events that only one of them has are marked (`differs`)."""
    one, b = _picture(journal, titles[0])
    if other is None:
        return [one]
    two, c = _picture(other, titles[1])
    only = _differences(b.protocol, c.protocol)
    for p, gone in zip((one, two), only, strict=True):
        p.items = [i._replace(differs=True) if i.first in gone else i for i in p.items]
    return [one, two]


def _differences(a: dict[int, tuple[str, tuple]], b: dict[int, tuple[str, tuple]]) -> tuple[set[int], set[int]]:
    """Indexes of the protocol events that the other journal does not have at that place (difflib, per log)."""
    gone: tuple[set[int], set[int]] = (set(), set())
    for log in sorted({log for log, _ in (*a.values(), *b.values())}):
        rows = [[(i, key) for i, (where, key) in p.items() if where == log] for p in (a, b)]
        keys = [[key for _, key in row] for row in rows]
        for tag, i, j, k, m in difflib.SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
            if tag != "equal":
                gone[0].update(index for index, _ in rows[0][i:j])
                gone[1].update(index for index, _ in rows[1][k:m])
    return gone


# --- time scale ---

def warp(pictures: Iterable[Picture]) -> list[tuple[int, float]]:
    """Breakpoints (us, place) of the stretched time scale: room where protocol events are dense, little where nothing
    happens. Monotone; between the points it is linear."""
    times = sorted({us for p in pictures for us in _marks(p)})
    out, place = [(times[0], 0.0)], 0.0
    for before, us in pairwise(times):
        place += 0.3 + log2(1 + (us - before) / 10)
        out.append((us, round(place, 3)))
    return out


def _marks(p: Picture) -> set[int]:
    marks = {p.span[0], p.span[1], *p.home}
    marks.update(i.us for i in p.items if i.kind == "protocol")
    marks.update(us for m in p.messages if m.kind != "data" for us in (m.us, m.at) if us is not None)
    marks.update(us for a, b in p.downtime for us in (a, b))
    return marks
