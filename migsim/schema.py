"""The JSON schema of a scenario (draft 2020-12), for editors; made from the checks and fields of scenario.py.

It says less than the checks do: what it refuses is refused when the scenario is read, but not the other way round.
"""
from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import scenario as s
from .cost import COST
from .ladder import CODE_BASES

_PART = r"(gap|(t|rd|info|after)[0-9]+(\.[0-9]+)?):\s*[\w .]+"
#: kinds of values that are no numbers
KINDS: dict[Callable, dict[str, Any]] = {
    s._flag: {"enum": [0, 1, False, True]},
    s._boolean: {"type": "boolean"},
    s._text: {"type": "string", "maxLength": 2000},
    s._id: {"type": "string", "minLength": 1, "maxLength": 100},
    s._reinit: {"type": "string", "pattern": rf"^[\s;]*({_PART}\s*(;[\s;]*|$))*$"},
    s._series: {"type": ["string", "null"], "pattern": "^([^:]+:[^:]+:[^:]+)?$"},
}


def kind(check: Callable) -> dict[str, Any]:
    """The schema of one kind of value: one of KINDS, a name, a number with its bounds (as text with a unit too)."""
    if check in KINDS:
        return KINDS[check]
    if hasattr(check, "names"):
        return {"enum": list(check.names)}
    low, high, units, whole = check.number  # type: ignore[attr-defined]
    number = {"type": "integer" if whole else "number", "minimum": low, "maximum": high}
    if not units:
        return number
    pattern = rf"^\s*-?[0-9]+(\.[0-9]+)?\s*({'|'.join(units)})\s*$"
    return {"anyOf": [number, {"type": "string", "pattern": pattern}]}


def mapping(properties: Mapping[str, Any], null: bool = True) -> dict[str, Any]:
    """A mapping with these keys and no others; where a scenario may leave it empty, null is the same."""
    return {"type": ["object", "null"] if null else "object", "properties": dict(properties),
            "additionalProperties": False}


def fields(cls: type) -> dict[str, Any]:
    """The checked fields of a dataclass, with meaning and default."""
    return {f.name: {"description": f.metadata["about"], **default(f.default), **kind(f.metadata["check"])}
            for f in dataclasses.fields(cls) if f.metadata}


def default(value: Any) -> dict[str, Any]:
    """A field's default, if the file can say it."""
    return {} if value in ((), None) else {"default": value}


def array(items: Mapping[str, Any], most: int) -> dict[str, Any]:
    """A list; null is the empty one."""
    return {"type": ["array", "null"], "items": dict(items), "maxItems": most}


def whole(pattern: str) -> str:
    """A pattern that has to match from end to end."""
    return f"^({pattern})$"


def host() -> dict[str, Any]:
    """One end."""
    version = {"anyOf": [{"enum": list(CODE_BASES)}, {"type": "string", "pattern": whole(s.VERSION.pattern)},
                         {"type": "number"}], "default": s.Host().qemu}
    known = "|".join(name.replace(".", r"\.") for name in s.GLOBALS)
    other = r"(?!migration\.)[\w-]+\.[\w-]+=[\s\S]*"
    setting = {"type": "string", "pattern": whole(rf"({known})=({'|'.join(s.ON_OFF)})|{other}")}
    return mapping({
        "qemu": {"description": "QEMU version, or a step of the ladder", **version},
        "machine": {"description": "machine type", "type": "string", "pattern": whole(s.MACHINE.pattern),
                    "default": s.Host().machine},
        "globals": {"description": "-global settings", "type": "array", "items": setting}})


def params() -> dict[str, Any]:
    """Migration parameters."""
    return mapping({name: {"default": s.PARAMS[name], **kind(check)} for name, check in s.PARAM_CHECKS.items()})


def names(them: Iterable[str], value: Any) -> dict[str, Any]:
    """A mapping whose values are all of one kind."""
    return mapping(dict.fromkeys(them, value))


def action() -> dict[str, Any]:
    """A QMP command and when it comes."""
    args = {"anyOf": [{"$ref": "#/$defs/params"}, mapping({"state": kind(s._text)})]}
    return mapping({"do": {"enum": list(s.ACTIONS)}, "at_ms": {"description": "ms after migrate", **kind(s._ms)},
                    "args": args, "attempt": kind(s._attempt)}, False) | {"required": ["do"]}


def device() -> dict[str, Any]:
    """One passed-through device."""
    script = {"$ref": "#/$defs/script"}
    return mapping({
        "id": kind(s._id), "common": script, "source": script, "destination": script,
        "props": names(s.PROPS, {"type": ["string", "integer", "boolean"]})})


def schema() -> dict[str, Any]:
    """The schema of a whole scenario."""
    top = {
        **fields(s.Scenario), "source": {"$ref": "#/$defs/host"}, "destination": {"$ref": "#/$defs/host"},
        **{key: names(s.CAPABILITIES, kind(s._boolean)) for key in ("caps", "dst_caps")},
        "params": {"$ref": "#/$defs/params"}, "dst_params": {"$ref": "#/$defs/params"},
        "devices": array({"$ref": "#/$defs/device"}, s.MAX_DEVICES),
        "actions": array({"$ref": "#/$defs/action"}, s.MAX_ACTIONS),
        "before": array({"$ref": "#/$defs/action"}, s.MAX_ACTIONS), "guest": mapping(fields(s.Guest)),
        "cost": mapping({name: {"description": f"{item.unit}; {item.source}", "default": item.value,
                                **kind(s._cost_value)} for name, item in COST.items()}),
        "tee": {}, "uri_file": {}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "migsim scenario",
            **mapping(top, False),
            "$defs": {"host": host(), "params": params(), "script": mapping(fields(s.DeviceScript)),
                      "device": device(), "action": action()}}


def text() -> str:
    """The file data/scenario.schema.json."""
    return json.dumps(schema(), indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
