"""A path through the state space as a short string, as a journal and in words.

`merged~n1r1s~M3.E0.S.M01` : code base (or source,destination), limits, labels. A label is the thread that moves (M
migration thread, R return-path thread, D destination, B source main loop) with the answers it got to questions about
time and size (bits), E<i> a REINIT of device i, S, C, X management's stop, cont, cancel; `*k` repeats.
"""
from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import groupby
from typing import NamedTuple

from .explore import THREADS, WHO, Explorer, Limits, Variant, variant
from .journal import DeviceEvent, Event, Journal
from .qemu.state import DST, SRC, World

STEP_US = 1000  # a transition in the journal's time: 1 ms each, so that they can be told apart
START = datetime(2026, 1, 1, tzinfo=UTC)
FLAGS = {"c": "cancel", "f": "ioctl_failure", "l": "late_event"}
SCHEMES = {"L": "legacy", "N": "new"}


class ReplayError(ValueError):
    """A string that is no path; the message is one line."""


class Step(NamedTuple):
    """One transition: its label, who moved, QEMU's function, what it does, and the trace events it wrote."""

    label: str
    who: str
    function: str
    what: str
    events: tuple[Event, ...]


def to_string(which: Variant, limits: Limits, path: tuple[str, ...]) -> str:
    """The path's address."""
    base = which.name if which.source == which.destination else f"{which.source.name},{which.destination.name}"
    schemes = "".join("L" if legacy else "N" for legacy in (which.source_legacy, which.destination_legacy))
    stop = {"none": "", "stop": "s", "stop-cont": "sc"}[limits.management]
    flags = "".join(f for f, name in FLAGS.items() if getattr(limits, name)) + ("" if limits.p2p else "p")
    labels = ".".join(label + (f"*{k}" if (k := len(list(same))) > 1 else "") for label, same in groupby(path))
    return f"{base}{schemes}~n{limits.devices}r{limits.reinits}{'-' + stop if stop else ''}" \
           f"{'+' + flags if flags else ''}~{labels}"


def from_string(text: str) -> tuple[Variant, Limits, tuple[str, ...]]:
    """Variant, limits and labels of an address. Raises ReplayError."""
    found = re.fullmatch(r"([\w-]+?)(?:,([\w-]+?))?([LN])([LN])~n(\d+)r(\d+)(?:-(s|sc))?(?:\+([cflp]+))?~([\w.*]*)",
                         text.strip())
    if not found:
        raise ReplayError(f"replay: {text[:60]!r}: allowed is base, schemes, limits and labels such as "
                          "mergedNN~n1r1-s~M*3.E0.S")
    base, there, src, dst, devices, reinits, stop, flags, labels = found.groups()
    try:
        which = variant(base, source_scheme=SCHEMES[src], destination_scheme=SCHEMES[dst], destination_base=there)
    except KeyError as error:
        raise ReplayError(f"replay: unknown code base {error.args[0]!r}") from None
    limits = Limits(int(devices), int(reinits), {None: "none", "s": "stop", "sc": "stop-cont"}[stop],
                    p2p="p" not in (flags or ""), **{name: f in (flags or "") for f, name in FLAGS.items()})
    path: list[str] = []
    for part in filter(None, labels.split(".")):
        label, _, times = part.partition("*")
        path += [label] * (int(times) if times.isdigit() else 1)
        if len(path) > 100_000:
            raise ReplayError("replay: more than 100000 transitions")
    return which, limits, tuple(path)


def function_of(w: World, label: str) -> tuple[str, str]:
    """QEMU's function that the next transition runs, and what it does (the first sentence of its docstring)."""
    if label[0] not in THREADS:
        return {"S": "qmp_stop", "C": "qmp_cont", "X": "migration_cancel"}.get(label[0], "VFIO_PRECOPY_INFO_REINIT"), ""
    step = w.threads[THREADS[label[0]]][-1]
    text = (step[0].__doc__ or "").replace("\n", " ").strip()
    return step[0].__name__, re.sub(r"\s+", " ", text)


def replay(which: Variant, limits: Limits, path: tuple[str, ...]) -> tuple[Journal, list[Step]]:
    """Run a path in the model. Raises ReplayError where it is not possible."""
    explorer = Explorer(which, limits)
    raw: list[tuple] = []
    w = explorer.start(raw.append)
    events = [Event(0, e[1], e[2], e[3]) for e in raw]
    devices = told(w, None, 0)
    steps: list[Step] = []
    for number, label in enumerate(path, 1):
        function, what = function_of(w, label) if label[0] not in THREADS or w.threads[THREADS[label[0]]] else ("", "")
        raw.clear()
        new = explorer.apply(w, label)
        if new is None:
            raise ReplayError(f"replay: label {number} ({label}) is not possible there")
        written = last_of(raw, new, explorer, w, label)
        mine = tuple(Event(number * STEP_US, *e[1:]) for e in written)
        who = WHO[label[0]] + (f" {label[1:]}" if label[0] == "E" else "")
        steps.append(Step(label, who, function, what, mine))
        events += mine
        devices += told(new, w, number * STEP_US)
        w = new
    return Journal(events, START, devices=tuple(devices)), steps


def told(new: World, old: World | None, us: int) -> list[DeviceEvent]:
    """What the devices did on their own in one transition."""
    out = []
    for side, cfg, kernels, former in ((SRC, new.scfg, new.skern, old and old.skern),
                                       (DST, new.dcfg, new.dkern, old and old.dkern)):
        for i, kernel in enumerate(kernels):
            seen = len(former[i].told) if former else 0
            out += [DeviceEvent(us, side, cfg.device_names[i], what, size) for _, what, size in kernel.told[seen:]]
    return out


def last_of(raw: list[tuple], new: World, explorer: Explorer, w: World, label: str) -> list[tuple]:
    """The events of this label alone: `apply` may have tried other answers on the way."""
    if label[0] not in THREADS:
        return raw[-len(raw):] if label[0] != "E" else []
    raw.clear()
    bits = tuple(c == "1" for c in label[1:] if c in "01")
    explorer.step(w, THREADS[label[0]], bits, "f" in label)
    return list(raw)


def words(steps: list[Step]) -> list[str]:
    """What happened, step by step, without the transitions that write nothing."""
    out = []
    for k, step in enumerate(steps, 1):
        told = [f"{e.side}: {e.name} {e.text}".rstrip() for e in step.events if e.name not in QUIET_EVENTS]
        if told or step.label[0] not in THREADS or step.function in TOLD:
            head = f"{k:3d}. {step.who}" + (f", {step.function}" if step.function else "")
            out.append(head + (": " + step.what if step.what else ""))
            out += [f"       {line}" for line in told]
    return out


#: events of every turn, and silent steps that matter
QUIET_EVENTS = {"savevm_state_iterate", "savevm_section_start", "savevm_section_end", "vfio_migration_set_state",
                "source_return_path_thread_loop_top", "qemu_loadvm_state_section", "savevm_command_send",
                "qemu_loadvm_state_section_partend", "qemu_loadvm_state_section_startfull", "vm_state_notify",
                "vfio_save_iterate", "qemu_loadvm_state_section_command", "vmstate_downtime_save"}
TOLD = {"clear_initial_data_sent", "request_ack", "can_switchover_counter", "migration_can_switchover"}

