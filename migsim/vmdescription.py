"""The JSON description that ends a stream: what each vmstate device sent (vmstate_save_vmsd(), captured stream s1)."""
from __future__ import annotations

import json
import struct
from typing import Any

MAX_BYTES = 16 << 20  # a description is 44 KB for a small q35


# --- the description ---

def read_json(raw: bytes) -> dict[str, Any] | None:
    """A JSON object, or None."""
    try:
        found = json.loads(bytes(raw).decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def find_description(data: Any) -> dict[str, Any]:
    """The description that ends a stream, or {}."""
    at = len(data)
    for _ in range(8):  # the byte 6 may be in the length too, never in the JSON
        at = data.rfind(b"\x06", max(0, len(data) - MAX_BYTES), at)
        if at < 0:
            break
        if at + 5 <= len(data) and at + 5 + struct.unpack_from(">I", data, at + 1)[0] == len(data):
            return read_json(data[at + 5:]) or {}
    return {}


def sizes_of(description: dict[str, Any]) -> dict[tuple[str, int], int]:
    """Payload bytes of each section by (name, instance)."""
    devices = [d for d in list_of(description.get("devices")) if isinstance(d, dict)]
    try:
        return {(str(d.get("name")), d["instance_id"]): fields_size(d) for d in devices
                if isinstance(d.get("instance_id"), int)}
    except RecursionError:
        return {}


def list_of(value: Any) -> list[Any]:
    """A list of the JSON, or none."""
    return value if isinstance(value, list) else []


def fields_size(vmsd: dict[str, Any]) -> int:
    """Bytes of a section as vmstate_save_vmsd() describes it; -1 where that is not to be made out."""
    if isinstance(vmsd.get("size"), int):
        return vmsd["size"]
    fields = [f for f in list_of(vmsd.get("fields")) if isinstance(f, dict)]
    sizes = [(f.get("size"), f.get("array_len", 1)) for f in fields]
    if not all(isinstance(a, int) and isinstance(b, int) for a, b in sizes):
        return -1
    inner = [s for s in list_of(vmsd.get("subsections")) if isinstance(s, dict)]
    return sum(a * b for a, b in sizes) + sum(6 + len(str(s.get("vmsd_name"))) + fields_size(s) for s in inner)
