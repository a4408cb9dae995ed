"""What to run: YAML or JSON in the vocabulary of the recordings' `config`, as validated, frozen dataclasses.

Beside it our own keys: `name`, `shows` (one sentence), `seed`, `cost` (overrides of the cost model), and for a device
`reinit_random: "mean_ms:size:max"`. Sizes are bytes and may be written "4 MiB"; keys in ms may be written "300 ms".
"""
from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cost import COST
from .ladder import CODE_BASES

MAX_DEVICES, MAX_MEM_MIB, MAX_TIMEOUT_MS, MAX_TRIGGERS = 16, 1 << 20, 600_000, 10_000
MAX_FILE = 1 << 20
MAX_BYTES = 1 << 50
UNITS = {"b": 1, "k": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mib": 1 << 20, "g": 1 << 30, "gib": 1 << 30,
         "kb": 10**3, "mb": 10**6, "gb": 10**9, "tib": 1 << 40, "tb": 10**12}
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
    "announce-initial": 50, "announce-max": 550, "announce-step": 100, "xbzrle-cache-size": 67108864}
ACTIONS = ("stop", "cont", "migrate_cancel", "migrate-continue", "migrate-start-postcopy", "migrate-set-parameters")
TRIGGERS = ("t", "rd", "info", "after", "gap")
MACHINE = re.compile(r"(pc-q35|pc-i440fx)-(8\.[12]|9\.[0-2]|10\.[0-2]|11\.[01])|q35|pc")
VERSION = re.compile(r"(8\.[12]|9\.[0-2]|10\.[0-2]|11\.[01])(\.\d+)?")


class ScenarioError(ValueError):
    """A scenario that cannot be run; the message is one line: where, what, what is allowed, the nearest name."""


def _bad(place: str, value: object, allowed: str, near: str = "") -> ScenarioError:
    shown = str(value).replace("\n", " ")
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return ScenarioError(f"{place}: {shown!r}: allowed is {allowed}" + (f"; nearest is {near!r}" if near else ""))


def _near(name: object, names: Iterable[str]) -> str:
    return difflib.get_close_matches(str(name), list(names), 1, 0.0)[0]


# --- kinds of values: (place, value) -> checked value ---

def _number(low: float, high: float, units: Mapping[str, float], what: str, whole: bool = True) -> Callable:
    def check(place: str, value: Any) -> Any:
        if isinstance(value, str):
            found = re.fullmatch(r"\s*(-?\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", value)
            if not found or found[2].lower() not in units:
                raise _bad(place, value, what)
            value = float(found[1]) * units[found[2].lower()]
            value = int(value) if value == int(value) else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _bad(place, value, what)
        if not low <= value <= high or (whole and value != int(value)):
            raise _bad(place, value, f"{what} from {low:g} to {high:g}" + (" (a whole number)" if whole else ""))
        return int(value) if whole else value
    return check


_size = _number(0, MAX_BYTES, UNITS, "a size in bytes, or with a unit such as 4 MiB")
_record = _number(1, MAX_BYTES, UNITS, "a size in bytes, or with a unit such as 1 MiB,")
_any_u64 = _number(0, 2**64 - 1, {}, "an unsigned 64-bit number")
_ms = _number(0, MAX_TIMEOUT_MS, TIMES, "a time in ms, or with a unit such as 2 s,", whole=False)
_us = _number(0, 10_000_000, {}, "a time in microseconds", whole=False)
_count = _number(0, 1_000_000_000, {}, "a number")
_errno = _number(0, 133, {}, "an errno")
_rate = _number(0, MAX_BYTES, UNITS, "bytes per second")


def _flag(place: str, value: Any) -> int:
    if value not in (0, 1) or isinstance(value, float | str):
        raise _bad(place, value, "0 or 1")
    return int(value)


def _text(place: str, value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > 2000:
        raise _bad(place, value, "a text")
    return value


def _boolean(place: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _bad(place, value, "true or false")
    return value


def _reinit(place: str, value: Any) -> tuple[tuple[str, float, int], ...]:
    if isinstance(value, list | tuple) and all(isinstance(v, list | tuple) and len(v) == 3 for v in value):
        value = ";".join(f"{k}{n or '':g}:{s}" if n else f"{k}:{s}" for k, n, s in value)
    if not isinstance(value, str):
        raise _bad(place, value, "trigger:size;... such as t600:8192;gap:4096")
    out = []
    for part in filter(None, value.split(";")):
        found = re.fullmatch(r"\s*([a-z]+)(\d*(?:\.\d+)?):([\w .]+)\s*", part)
        if not found or found[1] not in TRIGGERS or (found[1] != "gap") != bool(found[2]):
            near = _near(found[1], TRIGGERS) if found else ""
            raise _bad(place, part, "t<ms>:size, rd<ms>:size, info<n>:size, after<ms>:size or gap:size", near)
        size = found[3].strip()
        out.append((found[1], float(found[2] or 0), _record(place, int(size) if size.isdigit() else size)))
    if len(out) > MAX_TRIGGERS:
        raise _bad(place, f"{len(out)} triggers", f"at most {MAX_TRIGGERS}")
    return tuple(out)


def _series(place: str, value: Any) -> tuple[float, int, int] | None:
    if value in (None, ""):
        return None
    parts = value if isinstance(value, list | tuple) else str(value).split(":")
    if len(parts) != 3:
        raise _bad(place, value, "ms:size:max such as 300:8192:10")
    ms = _ms(place, float(parts[0]) if re.fullmatch(r"[\d.]+", str(parts[0])) else parts[0])
    size, most = (_record(place, int(p) if str(p).isdigit() else p) for p in parts[1:])
    if ms <= 0 or most > MAX_TRIGGERS:
        raise _bad(place, value, f"a time above 0 ms and at most {MAX_TRIGGERS} chunks: endless REINIT never ends")
    return ms, size, most


# --- the parts of a scenario ---

def _field(check: Callable, default: Any) -> Any:
    return field(default=default, metadata={"check": check})


@dataclass(frozen=True, slots=True)
class DeviceScript:
    """What one host's kernel device does; keys as in the recordings' README (`devices[]`)."""

    precopy: int = _field(_flag, 1)
    p2p: int = _field(_flag, 1)
    v2: int = _field(_flag, 1)
    v2_errno: int = _field(_errno, 0)
    initial: int = _field(_size, 65536)
    dirty: int = _field(_size, 0)
    stopcopy: int = _field(_size, 4194304)
    rec: int = _field(_record, 1048576)
    reinit: tuple = _field(_reinit, ())
    reinit_every: tuple | None = _field(_series, None)
    reinit_random: tuple | None = _field(_series, None)
    reinit_flag_once: int = _field(_flag, 0)
    size_hold: int = _field(_size, 0)
    dirty_until: float = _field(_ms, 0)
    dirty_floor: int = _field(_size, 0)
    query_us: float = _field(_us, 1000)
    info_fail_at: int = _field(_count, 0)
    info_fail_gap: int = _field(_flag, 0)
    info_errno: int = _field(_errno, 5)
    bogus_at: int = _field(_count, 0)
    bogus_init: int = _field(_any_u64, 0)
    load_init_ms: float = _field(_ms, 0)
    load_reinit_ms: float = _field(_ms, 0)
    load_dirty_ms: float = _field(_ms, 0)
    load_stop_ms: float = _field(_ms, 0)
    stop_ms: float = _field(_ms, 0)
    start_ms: float = _field(_ms, 0)
    resume_ms: float = _field(_ms, 0)
    once_only_session: int = _field(_count, 0)


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
    """A QMP command `at_ms` after migrate, in attempt `attempt`."""

    do: str
    at_ms: float = 0
    args: tuple[tuple[str, Any], ...] = ()
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Guest:
    """The guest's writes: `pages` from `start_mib` on, `burst` pages every `pause_ms`, or CPU-bound with `spin`."""

    start_mib: int = _field(_count, 16)
    pages: int = _field(_count, 0)
    burst: int = _field(_count, 1)
    pause_ms: float = _field(_ms, 10)
    spin: int = _field(_count, 0)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A complete set-up, checked. Sizes in bytes, times in ms, `boot_s` in s, `mem` in MiB."""

    name: str = ""
    shows: str = ""
    source: Host = Host()
    destination: Host = Host()
    caps: tuple[tuple[str, bool], ...] = ()
    params: tuple[tuple[str, float], ...] = ()
    dst_params: tuple[tuple[str, float], ...] = ()
    devices: tuple[Device, ...] = ()
    actions: tuple[Action, ...] = ()
    before: tuple[Action, ...] = ()
    transport: str = "unix"
    attempts: int = 1
    destination_per_attempt: bool = False
    mem: int = 64
    guest: Guest | None = None
    link_bytes_per_s: int = 0
    timeout_ms: float = 30000
    boot_s: float = 1.5
    seed: int = 0
    cost: tuple[tuple[str, float], ...] = ()
    config: dict = field(default_factory=dict, compare=False, repr=False)

    def with_value(self, path: str, value: Any) -> Scenario:
        """A copy with one value replaced, e.g. "params.downtime-limit" or "devices.0.source.load_init_ms"."""
        config = json.loads(json.dumps(self.config))
        at, keys = config, path.split(".")
        for k, key in enumerate(keys[:-1]):
            if isinstance(at, list):
                if not key.isdigit() or int(key) >= len(at):
                    raise _bad(".".join(keys[:k + 1]), key, f"a number below {len(at)}")
                at = at[int(key)]
            else:
                at = at.setdefault(key, {})
        at[keys[-1]] = value
        return parse(config, path)


TOP = {f.name for f in dataclasses.fields(Scenario)} - {"config"} | {"tee", "uri_file"}


def _keys(place: str, value: Any, allowed: Iterable[str]) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _bad(place, value, "a mapping")
    allowed = sorted(allowed)
    for key in value:
        if key not in allowed:
            raise _bad(f"{place}.{key}" if place else str(key), key, ", ".join(allowed), _near(key, allowed))
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
    if not isinstance(globals_, list | tuple) or not all(isinstance(g, str) and "=" in g for g in globals_):
        raise _bad(f"{place}.globals", globals_, "a list of driver.property=value")
    return Host(qemu, machine, tuple(globals_))


def _device(place: str, value: Any, index: int) -> Device:
    got = _keys(place, value, ("id", "common", "source", "destination", "props"))
    common = _keys(f"{place}.common", got.get("common"), {f.name for f in dataclasses.fields(DeviceScript)})
    ends = []
    for side in ("source", "destination"):
        own = _keys(f"{place}.{side}", got.get(side), {f.name for f in dataclasses.fields(DeviceScript)})
        _filled(DeviceScript, f"{place}.common", common)
        ends.append(_filled(DeviceScript, f"{place}.{side}", {**common, **own}))
    return Device(_text(f"{place}.id", got.get("id", f"vfio{index}")), *ends)


def _params(place: str, value: Any, defaults: bool) -> tuple[tuple[str, float], ...]:
    given = {k: _number(0, MAX_BYTES, {**UNITS, **TIMES}, "a number", whole=k != "downtime-limit")(f"{place}.{k}", v)
             for k, v in _keys(place, value, PARAMS).items()}
    return tuple(({**PARAMS, **given} if defaults else given).items())


def _action(place: str, value: Any) -> Action:
    got = _keys(place, value, ("do", "at_ms", "args", "attempt"))
    do = got.get("do")
    if do not in ACTIONS:
        raise _bad(f"{place}.do", do, ", ".join(ACTIONS), _near(do, ACTIONS))
    args = got.get("args") or {}
    if do == "migrate-set-parameters":
        args = dict(_params(f"{place}.args", args, False))
    elif not isinstance(args, dict):
        raise _bad(f"{place}.args", args, "a mapping")
    return Action(do, _ms(f"{place}.at_ms", got.get("at_ms", 0)), tuple(args.items()),
                  _number(1, 10, {}, "a number")(f"{place}.attempt", got.get("attempt", 1)))


def _list(place: str, value: Any, most: int) -> list:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > most:
        raise _bad(place, value, f"a list of at most {most}")
    return value


def _cost(value: Any) -> tuple[tuple[str, float], ...]:
    check = _number(0, 1e12, {}, "a number", whole=False)
    return tuple((k, check(f"cost.{k}", v)) for k, v in _keys("cost", value, COST).items())


def parse(config: Any, where: str = "scenario") -> Scenario:
    """Check a mapping in the recordings' vocabulary. Raises ScenarioError, one line beginning with `where`."""
    try:
        return _parse(config)
    except ScenarioError as error:
        raise ScenarioError(f"{where}: {error}") from None


def _parse(config: Any) -> Scenario:
    c = _keys("", config, TOP)
    caps = _keys("caps", c.get("caps"), CAPABILITIES)
    devices = tuple(_device(f"devices[{i}]", d, i) for i, d in
                    enumerate(_list("devices", c.get("devices"), MAX_DEVICES)))
    ids = [d.id for d in devices]
    if len(set(ids)) < len(ids):
        raise _bad("devices", ids, "a different id for each")
    transport = c.get("transport", "unix")
    if transport not in ("unix", "tcp"):
        raise _bad("transport", transport, "unix or tcp", _near(transport, ("unix", "tcp")))
    actions = [_action(f"actions[{i}]", a) for i, a in enumerate(_list("actions", c.get("actions"), 1000))]
    mem = _number(1, MAX_MEM_MIB, {}, "MiB")("mem", c.get("mem", 64))
    guest = _filled(Guest, "guest", c["guest"]) if c.get("guest") else None
    if guest and (guest.pages < 1 or not (guest.spin or guest.pause_ms)):
        raise _bad("guest", c["guest"], "at least one page, and pause_ms or spin above 0")
    if guest and guest.start_mib * 256 + guest.pages > mem * 256:
        raise _bad("guest.pages", guest.pages, f"at most what lies between start_mib and mem ({mem} MiB)")
    return Scenario(
        name=str(c.get("name", "")), shows=str(c.get("shows", "")),
        source=_host("source", c.get("source")), destination=_host("destination", c.get("destination")),
        caps=tuple((k, _boolean(f"caps.{k}", v)) for k, v in caps.items()),
        params=_params("params", c.get("params"), True), dst_params=_params("dst_params", c.get("dst_params"), False),
        devices=devices, actions=tuple(sorted(actions, key=lambda a: a.at_ms)),
        before=tuple(_action(f"before[{i}]", a) for i, a in enumerate(_list("before", c.get("before"), 100))),
        transport=transport, attempts=_number(1, 10, {}, "a number")("attempts", c.get("attempts", 1)),
        destination_per_attempt=_boolean("destination_per_attempt", c.get("destination_per_attempt", False)),
        mem=mem, guest=guest, link_bytes_per_s=_rate("link_bytes_per_s", c.get("link_bytes_per_s", 0)),
        timeout_ms=_ms("timeout_ms", c.get("timeout_ms", 30000)),
        boot_s=_number(0, 60, {}, "seconds", whole=False)("boot_s", c.get("boot_s", 1.5)),
        seed=_number(0, 2**63, {}, "a number")("seed", c.get("seed", 0)), cost=_cost(c.get("cost")), config=dict(c))


def _read(path: Path) -> Any:
    if path.is_dir():
        path = path / "scenario.json"
    try:
        if path.stat().st_size > MAX_FILE:
            raise ScenarioError(f"{path}: larger than {MAX_FILE >> 20} MiB: no scenario")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror}: a YAML or JSON scenario or a recording's folder is needed") \
            from None
    except UnicodeDecodeError:
        raise ScenarioError(f"{path}: not a text file") from None
    if path.suffix == ".json":
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ScenarioError(f"{path}: {error}") from None
    return _yaml(path, text)


def _yaml(path: Path, text: str) -> Any:
    import yaml

    try:
        if any(isinstance(t, yaml.tokens.AliasToken) for t in yaml.scan(text)):
            raise ScenarioError(f"{path}: YAML aliases are not allowed in a scenario")
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, ScenarioError):
            raise
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ScenarioError(f"{path}: {where}{getattr(error, 'problem', None) or error}".replace("\n", " ")) from None


def load_scenario(what: str | Path | Mapping[str, Any]) -> Scenario:
    """A scenario from a mapping, a YAML or JSON file, or a recording's folder. Raises ScenarioError."""
    if isinstance(what, Mapping):
        return parse(dict(what))
    path = Path(what)
    got = _read(path)
    if isinstance(got, dict) and "config" in got and isinstance(got["config"], dict):
        got = {"name": path.name if path.is_dir() else path.stem, **got["config"]}
    elif isinstance(got, dict):
        got.setdefault("name", path.stem)
    return parse(got, str(path))
