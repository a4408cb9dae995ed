"""What to run: YAML or JSON in the vocabulary of the recordings' `config`, as validated, frozen dataclasses.

Beside it our own keys: `name`, `shows` (one sentence), `seed`, `dst_caps` (what differs from `caps` at the
destination), `cost` (overrides of the cost model), and for a device
`reinit_random: "mean_ms:size:max"`. Sizes are bytes and may be written "4 MiB"; keys in ms may be written "300 ms".
"""
from __future__ import annotations

import copy
import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cost import COST
from .ladder import CODE_BASES
from .scenario_file import ScenarioError, read

MAX_DEVICES, MAX_MEM_MIB, MAX_TIMEOUT_MS, MAX_TRIGGERS = 16, 1 << 20, 600_000, 10_000
MAX_BYTES = 1 << 50
MAX_RECORDS = 10_000
MAX_ACTIONS = 1000
# exact spelling: "Mb" could be bits, "KB" 1000 or 1024
UNITS = {"B": 1, "k": 1 << 10, "K": 1 << 10, "KiB": 1 << 10, "M": 1 << 20, "MiB": 1 << 20, "G": 1 << 30, "GiB": 1 << 30,
         "T": 1 << 40, "TiB": 1 << 40, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
TIMES = {"ms": 1.0, "s": 1000.0, "us": 0.001}
CAPABILITIES = (
    "return-path", "switchover-ack", "events", "pause-before-switchover", "postcopy-ram", "auto-converge", "multifd",
    "xbzrle", "dirty-bitmaps", "background-snapshot", "x-colo", "zero-blocks", "release-ram", "late-block-activate",
    "postcopy-preempt", "postcopy-blocktime", "x-ignore-shared", "validate-uuid", "zero-copy-send", "dirty-limit",
    "mapped-ram", "rdma-pin-all")
PARAMS = {
    "max-bandwidth": 134217728, "downtime-limit": 300, "avail-switchover-bandwidth": 0,
    "throttle-trigger-threshold": 50, "cpu-throttle-initial": 20, "cpu-throttle-increment": 10,
    "max-cpu-throttle": 99, "multifd-channels": 2, "max-postcopy-bandwidth": 0, "announce-rounds": 5,
    "announce-initial": 50, "announce-max": 550, "announce-step": 100, "xbzrle-cache-size": 67108864,
    "mode": "normal"}
PROPS = ("enable-migration", "x-pre-copy-dirty-page-tracking", "x-device-dirty-page-tracking", "migration-events",
         "x-migration-multifd-transfer", "x-migration-load-config-after-iter", "x-migration-max-queued-buffers-size")
GLOBALS = ("migration.switchover-ack-legacy", "migration.send-switchover-start")
ON_OFF = ("on", "yes", "true", "off", "no", "false")
ACTIONS = ("stop", "cont", "migrate_cancel", "migrate-continue", "migrate-start-postcopy", "migrate-set-parameters",
           "guest-suspend-ram", "kill-destination")
TRIGGERS = ("t", "rd", "info", "after", "gap")
MACHINE = re.compile(r"(pc-q35|pc-i440fx)-(8\.[12]|9\.[0-2]|10\.[0-2]|11\.[01])|q35|pc")
VERSION = re.compile(r"(8\.[12]|9\.[0-2]|10\.[0-2]|11\.[01])(\.\d+)?")


def _shown(value: object) -> str:
    try:
        text = str(value)
    except (ValueError, RecursionError):  # thousands of digits, or nested as deep as Python goes
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def _bad(place: str, value: object, allowed: str, near: str = "") -> ScenarioError:
    nearest = f"; nearest is {near!r}" if near else ""
    return ScenarioError(f"{place}: {_shown(value)!r}: allowed is {allowed}{nearest}")


def _near(name: object, names: Iterable[str]) -> str:
    return difflib.get_close_matches(_shown(name), list(names), 1, 0.0)[0]


# --- kinds of values: (place, value) -> checked value ---

def _number(low: float, high: float, units: Mapping[str, float], what: str, whole: bool = True) -> Callable:
    def check(place: str, value: Any) -> Any:
        if isinstance(value, str):
            found = re.fullmatch(r"\s*(-?[0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*", value)
            if not found or found[2] not in units:
                near = f"{found[1]} {_near(found[2], units)}" if found and units else ""
                raise _bad(place, value, what, near)
            value = float(found[1]) * units[found[2]]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _bad(place, value, what)
        if not low <= value <= high or (whole and value != int(value)):
            raise _bad(place, value, f"{what} from {low:g} to {high:g}" + (" (a whole number)" if whole else ""))
        return int(value) if value == int(value) else value
    check.number = (low, high, tuple(units), whole)  # for the schema
    return check


def _one_of(*names: str) -> Callable:
    def check(place: str, value: Any) -> str:
        if value not in names:
            raise _bad(place, value, ", ".join(filter(None, names)), _near(value, names))
        return value
    check.names = names  # for the schema
    return check


_size = _number(0, MAX_BYTES, UNITS, "a size in bytes, or with a unit such as 4 MiB,")
_record = _number(1, MAX_BYTES, UNITS, "a size in bytes, or with a unit such as 1 MiB,")
_any_u64 = _number(0, 2**64 - 1, {}, "an unsigned 64-bit number")
_ms = _number(0, MAX_TIMEOUT_MS, TIMES, "a time in ms, or with a unit such as 2 s,", whole=False)
_us = _number(0, 10_000_000, {"us": 1.0, "ms": 1000.0}, "a time in us, or with a unit such as 10 ms,", whole=False)
_seconds = _number(0, 60, {"s": 1.0, "ms": 0.001}, "seconds", whole=False)
_mib = _number(1, MAX_MEM_MIB, {"MiB": 1, "GiB": 1 << 10, "TiB": 1 << 20}, "MiB, or a size with a unit such as 8 GiB,")
_count = _number(0, 1_000_000_000, {}, "a number")
_attempt = _number(1, 10, {}, "a number")
_errno = _number(0, 133, {}, "an errno")
_failure = _number(1, 133, {}, "an errno")
_cost_value = _number(0, 1e12, {}, "a number", whole=False)
_percent = _number(1, 100, {}, "a percentage")
_downtime = _number(0, 2_000_000, TIMES, "a time in ms, or with a unit such as 2 s,", whole=False)
_transport = _one_of("unix", "tcp")
_mode = _one_of("normal", "cpr-reboot")
_state = _one_of("", "RUNNING", "RUNNING_P2P", "STOP", "PRE_COPY", "PRE_COPY_P2P", "STOP_COPY", "RESUMING")
PARAM_CHECKS = {name: _size if "bandwidth" in name or "size" in name else _percent if "throttle" in name else _count
                for name in PARAMS} | {"downtime-limit": _downtime, "mode": _mode}


def _flag(place: str, value: Any) -> int:
    if value not in (0, 1) or isinstance(value, float | str):
        raise _bad(place, value, "0 or 1")
    return int(value)


def _text(place: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > 2000:
        raise _bad(place, value, "a text of at most 2000 characters")
    return value


def _id(place: str, value: Any) -> str:
    """QEMU wants a letter, then letters, digits, '-', '.', '_'; a name that would need escaping is shown as text."""
    if not isinstance(value, str) or not 1 <= len(value) <= 100 or not value.isprintable():
        raise _bad(place, value, "a text of 1 to 100 printable characters")
    return value


def _boolean(place: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _bad(place, value, "true or false")
    return value


def _plain(text: str) -> Any:
    """A number where `text` is one, otherwise the text: it may have a unit."""
    return float(text) if re.fullmatch(r"[0-9]{1,15}(\.[0-9]+)?", text) else text


def _reinit(place: str, value: Any) -> tuple[tuple[str, float, int], ...]:
    if not isinstance(value, str):
        raise _bad(place, value, "trigger:size;... such as t600:8192;gap:4096")
    out = []
    for part in filter(None, (part.strip() for part in value.split(";"))):
        found = re.fullmatch(r"([a-z]+)([0-9]*(?:\.[0-9]+)?):\s*([\w .]+)", part)
        if not found or found[1] not in TRIGGERS or (found[1] != "gap") != bool(found[2]):
            near = _near(found[1], TRIGGERS) if found else ""
            raise _bad(place, part, "t<ms>:size, rd<ms>:size, info<n>:size, after<ms>:size or gap:size", near)
        when = (_count if found[1] == "info" else _ms)(place, _plain(found[2] or "0"))
        out.append((found[1], float(when), _record(place, _plain(found[3].strip()))))
    if len(out) > MAX_TRIGGERS:
        raise _bad(place, f"{len(out)} triggers", f"at most {MAX_TRIGGERS}")
    return tuple(out)


def _series(place: str, value: Any) -> tuple[float, int, int] | None:
    if value in (None, ""):
        return None
    parts = value.split(":") if isinstance(value, str) else []
    if len(parts) != 3:
        hint = " (in quotes: YAML reads it as a number)" if isinstance(value, int) else ""
        raise _bad(place, value, f"ms:size:max such as '300:8192:10'{hint}")
    parts = [_plain(part.strip()) for part in parts]
    ms, size, most = _ms(place, parts[0]), _record(place, parts[1]), _count(place, parts[2])
    if ms <= 0 or not 1 <= most <= MAX_TRIGGERS:
        raise _bad(place, value, f"a time above 0 ms and 1 to {MAX_TRIGGERS} chunks: endless REINIT never ends")
    return ms, size, most


# --- the parts of a scenario ---

def _field(check: Callable, default: Any, about: str) -> Any:
    return field(default=default, metadata={"check": check, "about": about})


@dataclass(frozen=True, slots=True)
class DeviceScript:
    """What one host's kernel device does; keys as in the recordings' README (`devices[]`)."""

    precopy: int = _field(_flag, 1, "mig_flags PRE_COPY")
    p2p: int = _field(_flag, 1, "mig_flags P2P")
    v2: int = _field(_flag, 1, "feature 12 (PRECOPY_INFOv2) is accepted")
    v2_errno: int = _field(_errno, 0, "feature 12 gives back this errno; any but ENOTTY refuses the device")
    initial: int = _field(_size, 65536, "bytes of initial data")
    dirty: int = _field(_size, 0, "bytes of dirty data")
    stopcopy: int = _field(_size, 4194304, "bytes of stop-copy data")
    rec: int = _field(_record, 1048576, "size of one stop-copy record")
    reinit: tuple = _field(_reinit, (), "new initial chunks as trigger:bytes;...: t<ms> rd<ms> info<n> after<ms> gap")
    reinit_every: tuple | None = _field(_series, None, "ms:size:max, a new initial chunk every so many ms")
    reinit_random: tuple | None = _field(_series, None, "mean_ms:size:max, at random times (seed)")
    reinit_flag_once: int = _field(_flag, 0, "1: REINIT is shown in exactly one query")
    size_hold: int = _field(_size, 0, "extra stop-copy size reported until dirty_until")
    size_errno: int = _field(_errno, 0, "the stop-copy size query fails with this errno")
    dirty_until: float = _field(_ms, 0, "ms since PRE_COPY until which size_hold and dirty_floor count")
    dirty_floor: int = _field(_size, 0, "dirty bytes topped up at each query until dirty_until")
    query_us: float = _field(_us, 1000, "us one precopy-info query takes")
    info_fail_at: int = _field(_count, 0, "precopy-info queries fail from this one on")
    info_fail_gap: int = _field(_flag, 0, "the precopy-info query at guest stop fails")
    info_errno: int = _field(_failure, 5, "errno of a failing precopy-info query")
    bogus_at: int = _field(_count, 0, "this precopy-info query reports bogus_init")
    bogus_init: int = _field(_any_u64, 0, "wrong initial_bytes of query bogus_at")
    load_init_ms: float = _field(_ms, 0, "ms the destination needs to load the first chunk")
    load_reinit_ms: float = _field(_ms, 0, "ms to load one REINIT chunk")
    load_dirty_ms: float = _field(_ms, 0, "ms to load one record of dirty data")
    load_stop_ms: float = _field(_ms, 0, "ms to load one stop-copy record")
    stop_ms: float = _field(_ms, 0, "ms of the transition to STOP_COPY")
    start_ms: float = _field(_ms, 0, "ms of the transition out of RESUMING")
    resume_ms: float = _field(_ms, 0, "ms of the transition to RESUMING")
    fail_state: str = _field(_state, "", "the transition to this device state fails")
    fail_load: int = _field(_count, 0, "loading of this record fails at the destination")
    once_only_session: int = _field(_count, 0, "REINITs only in this attempt")


@dataclass(frozen=True, slots=True)
class Device:
    """One passed-through device: its name and its script at each end."""

    id: str
    source: DeviceScript
    destination: DeviceScript


@dataclass(frozen=True, slots=True)
class Host:
    """One end: QEMU version or code base, machine type, -global settings."""

    qemu: str = "11.1.3"
    machine: str = "pc-q35-11.1"
    globals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Action:
    """A QMP command to the source `at_ms` after migrate, in attempt `attempt`; or guest-suspend-ram (the guest goes
    to sleep of its own accord), or kill-destination (its process is gone)."""

    do: str
    at_ms: float = 0
    args: tuple[tuple[str, Any], ...] = ()
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Guest:
    """The guest's writes: `pages` from `start_mib` on, `burst` pages every `pause_ms`, or CPU-bound with `spin`."""

    start_mib: int = _field(_count, 16, "first MiB of the range that is written")
    pages: int = _field(_count, 0, "pages in the range")
    burst: int = _field(_count, 1, "pages written every pause_ms")
    pause_ms: float = _field(_ms, 10, "ms between bursts")
    spin: int = _field(_count, 0, "CPU-bound guest: loop count between two pages")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A complete set-up, checked. Sizes in bytes, times in ms, `boot_s` in s, `mem` in MiB."""

    name: str = _field(_text, "", "what it is called; the file's name where it is missing")
    shows: str = _field(_text, "", "one sentence: what there is to see")
    source: Host = Host()
    destination: Host = Host()
    caps: tuple[tuple[str, bool], ...] = ()
    params: tuple[tuple[str, float], ...] = ()
    dst_params: tuple[tuple[str, float], ...] = ()
    dst_caps: tuple[tuple[str, bool], ...] = ()
    devices: tuple[Device, ...] = ()
    actions: tuple[Action, ...] = ()
    before: tuple[Action, ...] = ()
    transport: str = _field(_transport, "unix", "unix or tcp socket")
    attempts: int = _field(_attempt, 1, "migrations in a row")
    destination_per_attempt: bool = _field(_boolean, False, "each attempt has a fresh destination")
    mem: int = _field(_mib, 64, "guest memory in MiB")
    guest: Guest | None = None
    link_bytes_per_s: int = _field(_size, 0, "bytes per second of a slow link; 0: none")
    timeout_ms: float = _field(_ms, 30000, "ms after which management gives up")
    boot_s: float = _field(_seconds, 1.5, "seconds before the first action")
    seed: int = _field(_any_u64, 0, "of reinit_random")
    cost: tuple[tuple[str, float], ...] = ()
    config: dict = field(default_factory=dict, compare=False, repr=False)

    def with_value(self, path: str, value: Any) -> Scenario:
        """A copy with one value replaced, e.g. "params.downtime-limit" or "devices.0.source.load_init_ms".

        Raises ScenarioError as load_scenario() does.
        """
        return self.replace(**{path: value})

    def replace(self, **changes: Any) -> Scenario:
        """A copy with several values replaced, checked once they are all in; keys as in with_value()."""
        config = self.to_config()
        for path, value in changes.items():
            plain = value.item() if hasattr(value, "item") else copy.deepcopy(value)  # numpy's numbers; ours to change
            _set(config, path.split("."), plain)
        return parse(config, self.name or "scenario")

    def to_config(self) -> dict[str, Any]:
        """The set-up in the recordings' vocabulary, as it was given; load_scenario() reads it back."""
        return copy.deepcopy(self.config)


def _set(at: Any, keys: list[str], value: Any) -> None:
    """Put `value` where the path `keys` leads to; mappings on the way are made."""
    for depth, key in enumerate(keys):
        if isinstance(at, list):
            if not key.isdecimal() or int(key) >= len(at):
                raise _bad(".".join(keys), key, f"a number below {len(at)}" if at else "nothing: the list is empty")
            key = int(key)
        elif not isinstance(at, dict):
            raise _bad(".".join(keys), ".".join(keys[:depth]), "the name of a mapping or a list before the last dot")
        if depth == len(keys) - 1:
            at[key] = value
        elif isinstance(at, dict) and at.get(key) is None:
            at[key] = {}
        at = at[key]


TOP = {f.name for f in dataclasses.fields(Scenario)} - {"config"} | {"tee", "uri_file"}


def _keys(place: str, value: Any, allowed: Iterable[str]) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _bad(place or "the whole", value, "a mapping")
    allowed = sorted(allowed)
    for key in value:
        if key not in allowed:
            raise _bad(f"{place}.{_shown(key)}" if place else _shown(key), key, ", ".join(allowed), _near(key, allowed))
    return value


def _filled(cls: type, place: str, value: Any) -> Any:
    checks = {f.name: f.metadata["check"] for f in dataclasses.fields(cls)}
    return cls(**{k: checks[k](f"{place}.{k}", v) for k, v in _keys(place, value, checks).items()})


def _host(place: str, value: Any) -> Host:
    got = _keys(place, value, ("qemu", "machine", "globals"))
    qemu, machine = str(got.get("qemu", "11.1.3")), got.get("machine", "pc-q35-11.1")
    if not VERSION.fullmatch(qemu) and qemu not in CODE_BASES:
        raise _bad(f"{place}.qemu", qemu, f"a QEMU version from 8.1 to 11.1 or {', '.join(CODE_BASES)}",
                   _near(qemu, [*CODE_BASES, "10.0.13", "10.2", "11.0", "11.1.3"]))
    if not isinstance(machine, str) or not MACHINE.fullmatch(machine):
        known = [f"pc-q35-{v}" for v in ("8.1", "8.2", "9.0", "9.1", "9.2", "10.0", "10.1", "10.2", "11.0", "11.1")]
        raise _bad(f"{place}.machine", machine, "pc-q35-8.1 to pc-q35-11.1, pc-i440fx-8.1 to pc-i440fx-11.1, q35, pc",
                   _near(machine, known))
    globals_ = got.get("globals", [])
    if not isinstance(globals_, list):
        raise _bad(f"{place}.globals", globals_, "a list of driver.property=value")
    return Host(qemu, machine, tuple(_global(f"{place}.globals[{i}]", g) for i, g in enumerate(globals_)))


def _global(place: str, value: Any) -> str:
    name, sign, setting = value.partition("=") if isinstance(value, str) else ("", "", "")
    ours = name.startswith("migration.")  # other drivers' properties change nothing here
    known = name in GLOBALS and setting in ON_OFF if ours else re.fullmatch(r"[\w-]+\.[\w-]+", name)
    if not sign or not known:
        raise _bad(place, value, " or ".join(f"{g}=on|off" for g in GLOBALS), f"{_near(name, GLOBALS)}=on")
    return value


def _device(place: str, value: Any, index: int) -> Device:
    got = _keys(place, value, ("id", "common", "source", "destination", "props"))
    names = {f.name for f in dataclasses.fields(DeviceScript)}
    common = _keys(f"{place}.common", got.get("common"), names)
    _filled(DeviceScript, f"{place}.common", common)
    ends = []
    for side in ("source", "destination"):
        own = _keys(f"{place}.{side}", got.get(side), names)
        end = _filled(DeviceScript, f"{place}.{side}", {**common, **own})
        if end.stopcopy > MAX_RECORDS * end.rec:
            most = f"{MAX_RECORDS} records of rec={end.rec} bytes at most"
            raise _bad(f"{place}.{side}.stopcopy", end.stopcopy, most)
        ends.append(end)
    for name, prop in _keys(f"{place}.props", got.get("props"), PROPS).items():
        if not isinstance(prop, str | int):
            raise _bad(f"{place}.props.{name}", prop, "a text, a number, true or false")
    return Device(_id(f"{place}.id", got.get("id", f"vfio{index}")), *ends)


def _params(place: str, value: Any, defaults: bool) -> tuple[tuple[str, float], ...]:
    given = {k: PARAM_CHECKS[k](f"{place}.{k}", v) for k, v in _keys(place, value, PARAMS).items()}
    return tuple(({**PARAMS, **given} if defaults else given).items())


def _action(place: str, value: Any, attempts: int) -> Action:
    got = _keys(place, value, ("do", "at_ms", "args", "attempt"))
    do = got.get("do")
    if do not in ACTIONS:
        raise _bad(f"{place}.do", do, ", ".join(ACTIONS), _near(do, ACTIONS))
    if do == "migrate-set-parameters":
        args = _params(f"{place}.args", got.get("args"), False)
    else:
        known = ("state",) if do == "migrate-continue" else ()
        if got.get("args") and not known:
            raise _bad(f"{place}.args", got["args"], f"nothing: {do} has no arguments")
        given = _keys(f"{place}.args", got.get("args"), known)
        args = tuple((k, _text(f"{place}.args.{k}", v)) for k, v in given.items())
    attempt = _attempt(f"{place}.attempt", got.get("attempt", 1))
    if attempt > attempts:
        raise _bad(f"{place}.attempt", attempt, f"at most attempts={attempts}")
    return Action(do, _ms(f"{place}.at_ms", got.get("at_ms", 0)), args, attempt)


def _list(place: str, value: Any, most: int) -> list:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > most:
        raise _bad(place, value, f"a list of at most {most}")
    return value


def _cost(value: Any) -> tuple[tuple[str, float], ...]:
    return tuple((k, _cost_value(f"cost.{k}", v)) for k, v in _keys("cost", value, COST).items())


def parse(config: Any, where: str = "scenario") -> Scenario:
    """Check a mapping in the recordings' vocabulary. Raises ScenarioError, one line beginning with `where`."""
    try:
        return _parse(config)
    except ScenarioError as error:
        raise ScenarioError(f"{where}: {error}") from None


def _parse(config: Any) -> Scenario:
    c = _keys("", config, TOP)
    caps, dst_caps = (tuple((k, _boolean(f"{key}.{k}", v)) for k, v in _keys(key, c.get(key), CAPABILITIES).items())
                      for key in ("caps", "dst_caps"))
    devices = tuple(_device(f"devices[{i}]", d, i) for i, d in
                    enumerate(_list("devices", c.get("devices"), MAX_DEVICES)))
    ids = [d.id for d in devices]
    if len(set(ids)) < len(ids):
        raise _bad("devices", ids, "a different id for each")
    plain = {f.name: f.metadata["check"](f.name, c.get(f.name, f.default)) for f in dataclasses.fields(Scenario)
             if "check" in f.metadata}
    actions, before = ([_action(f"{key}[{i}]", a, plain["attempts"])
                        for i, a in enumerate(_list(key, c.get(key), MAX_ACTIONS))] for key in ("actions", "before"))
    return Scenario(
        source=_host("source", c.get("source")), destination=_host("destination", c.get("destination")),
        caps=caps, dst_caps=dst_caps,
        params=_params("params", c.get("params"), True), dst_params=_params("dst_params", c.get("dst_params"), False),
        devices=devices, actions=tuple(sorted(actions, key=lambda a: a.at_ms)), before=tuple(before),
        guest=_guest(c.get("guest"), plain["mem"]), cost=_cost(c.get("cost")), config=copy.deepcopy(c), **plain)


def _guest(value: Any, mem: int) -> Guest | None:
    if value is None:
        return None
    guest = _filled(Guest, "guest", value)
    if guest.pages < 1 or not (guest.spin or guest.pause_ms):
        raise _bad("guest", value, "at least one page, and pause_ms or spin above 0")
    if guest.start_mib * 256 + guest.pages > mem * 256:
        raise _bad("guest.pages", guest.pages, f"at most what lies between start_mib and mem ({mem} MiB)")
    return guest


def load_scenario(what: str | Path | Mapping[str, Any]) -> Scenario:
    """A scenario from a mapping, a YAML or JSON file, or a recording's folder. Raises ScenarioError."""
    if isinstance(what, Mapping):
        return parse(dict(what))
    if not isinstance(what, str | Path) or "\0" in str(what):
        raise _bad("scenario", what, "a mapping, or the path of a YAML or JSON file or of a recording's folder")
    path = Path(what)
    got = read(path)
    if not isinstance(got, dict):
        raise _bad(str(path), got, "a mapping: keys such as source, destination, devices")
    name = path.parent.name if path.name == "scenario.json" else path.name if path.is_dir() else path.stem
    return parse({"name": name, **(got["config"] if isinstance(got.get("config"), dict) else got)}, str(path))
