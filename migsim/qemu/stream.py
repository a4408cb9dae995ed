"""What travels in a migration: records on the way there, return-path messages on the way back.

Numbers and names are QEMU's (facts sheet 4 and 5). The machine's sections come from `pc_q35.json`, taken from
the captured streams s1, s5, s6. Records are cheap; `wire` turns them into bytes, `record_size` says how many.
"""
from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

QEMU_VM_FILE_MAGIC = 0x5145564D  # "QEVM"
QEMU_VM_FILE_VERSION = 3
QEMU_VM_SECTION_FOOTER = 0x7E
#: type byte of each kind of record that has one (QEMU_VM_EOF, QEMU_VM_SECTION_START, ...)
QEMU_VM = {"EOF": 0, "START": 1, "PART": 2, "END": 3, "FULL": 4, "SUBSECTION": 5, "VMDESCRIPTION": 6,
           "CONFIGURATION": 7, "COMMAND": 8}

#: MIG_CMD_*: number of each command
MIG_CMD = {"OPEN_RETURN_PATH": 1, "PING": 2, "POSTCOPY_ADVISE": 3, "POSTCOPY_LISTEN": 4, "POSTCOPY_RUN": 5,
           "POSTCOPY_RAM_DISCARD": 6, "PACKAGED": 7, "ENABLE_COLO": 8, "POSTCOPY_RESUME": 9,
           "RECV_BITMAP": 10, "SWITCHOVER_START": 11}
#: length of each command's data in bytes; -1: variable (mig_cmd_args)
MIG_CMD_LENGTH = {"OPEN_RETURN_PATH": 0, "PING": 4, "POSTCOPY_ADVISE": -1, "POSTCOPY_LISTEN": 0,
                  "POSTCOPY_RUN": 0, "POSTCOPY_RAM_DISCARD": -1, "PACKAGED": 4, "ENABLE_COLO": -1,
                  "POSTCOPY_RESUME": 0, "RECV_BITMAP": -1, "SWITCHOVER_START": 0}

MIG_RP_MSG_INVALID, MIG_RP_MSG_SHUT, MIG_RP_MSG_PONG, MIG_RP_MSG_REQ_PAGES_ID = 0, 1, 2, 3
MIG_RP_MSG_REQ_PAGES, MIG_RP_MSG_RECV_BITMAP, MIG_RP_MSG_RESUME_ACK, MIG_RP_MSG_SWITCHOVER_ACK = 4, 5, 6, 7
#: name of each return-path message
MIG_RP_MSG = {0: "INVALID", 1: "SHUT", 2: "PONG", 3: "REQ_PAGES_ID", 4: "REQ_PAGES", 5: "RECV_BITMAP",
              6: "RESUME_ACK", 7: "SWITCHOVER_ACK"}
#: length of each return-path message's payload in bytes; -1: variable (rp_cmd_args)
MIG_RP_MSG_LENGTH = {0: -1, 1: 4, 2: 4, 3: -1, 4: 12, 5: -1, 6: 4, 7: 0}

VFIO_MIG_FLAG_END_OF_STATE = 0xFFFFFFFFEF100001
VFIO_MIG_FLAG_DEV_CONFIG_STATE = 0xFFFFFFFFEF100002
VFIO_MIG_FLAG_DEV_SETUP_STATE = 0xFFFFFFFFEF100003
VFIO_MIG_FLAG_DEV_DATA_STATE = 0xFFFFFFFFEF100004
VFIO_MIG_FLAG_DEV_INIT_DATA_SENT = 0xFFFFFFFFEF100005
VFIO_MIG_FLAG_DEV_CONFIG_LOAD_READY = 0xFFFFFFFFEF100006
#: VFIO_MIG_FLAG_*: name of each tag
VFIO_MIG_FLAG = {
    VFIO_MIG_FLAG_END_OF_STATE: "END_OF_STATE",
    VFIO_MIG_FLAG_DEV_CONFIG_STATE: "DEV_CONFIG_STATE",
    VFIO_MIG_FLAG_DEV_SETUP_STATE: "DEV_SETUP_STATE",
    VFIO_MIG_FLAG_DEV_DATA_STATE: "DEV_DATA_STATE",
    VFIO_MIG_FLAG_DEV_INIT_DATA_SENT: "DEV_INIT_DATA_SENT",
    VFIO_MIG_FLAG_DEV_CONFIG_LOAD_READY: "DEV_CONFIG_LOAD_READY",
}
#: the tags that end a section (facts sheet 5.2)
TERMINATORS = (VFIO_MIG_FLAG_END_OF_STATE, VFIO_MIG_FLAG_DEV_INIT_DATA_SENT)

RAM_SAVE_FLAG_ZERO, RAM_SAVE_FLAG_MEM_SIZE, RAM_SAVE_FLAG_PAGE, RAM_SAVE_FLAG_EOS = 0x002, 0x004, 0x008, 0x010
RAM_SAVE_FLAG_CONTINUE, RAM_SAVE_FLAG_XBZRLE, RAM_SAVE_FLAG_HOOK = 0x020, 0x040, 0x080
RAM_SAVE_FLAG_MULTIFD_FLUSH = 0x200
TARGET_PAGE_SIZE = 4096

HEADER_BYTES = 8
FOOTER_BYTES = 5
NORMAL_PAGE_BYTES = 8 + TARGET_PAGE_SIZE
ZERO_PAGE_BYTES = 8 + 1
MAX_VFIO = 27  # slots 0x04 to 0x1e; the chipset sits at 0x1f


class StreamError(ValueError):
    """A record, section or message that the stream cannot carry; the message is one line."""


class Record(NamedTuple):
    """One piece of the forward stream (facts sheet 5).

    kind           name             payload
    HEADER         machine type     (), magic and version, then CONFIGURATION; with name "" without that
    CONFIGURATION  machine type     ()
    COMMAND        key of MIG_CMD   (), (int,) for 4 bytes, or (bytes,); PACKAGED: the packaged records
    START          ram              (bytes of RAM,)
    PART, END      ram              runs of pages: (first page of all RAM, pages, zero)
    START, PART, END, FULL  .../vfio  tags: (flag,) or (DEV_DATA_STATE, bytes, ...); a terminator is the last
    MORE           .../vfio         more tags of the section before, as long as it had no terminator
    MORE           ram              more pages of the section before; its end comes after the last of them
    FULL           vmstate device   (instance,) or ()
    EOF                             ()
    VMDESCRIPTION                   (bytes of JSON,), or () for those of a machine without VFIO devices

    The footer of a section comes with its last page or tag.
    """

    kind: str
    name: str
    payload: tuple = ()


class RPMessage(NamedTuple):
    """One return-path message (facts sheet 4): a MIG_RP_MSG_* number and its be32, if it has one."""

    type: int
    value: int = 0


class Section(NamedTuple):
    """A section as the stream names it; `size` is the payload of its SECTION_FULL in bytes, 0 without one."""

    idstr: str
    instance_id: int
    version_id: int
    section_id: int
    size: int


class RAMBlock(NamedTuple):
    """A block of guest RAM: its pages are first_page ... first_page + used_length / 4096 - 1 of all RAM."""

    idstr: str
    first_page: int
    used_length: int


def lookup(table: Mapping[str, Any], name: str, what: str) -> Any:
    """`table[name]`; raises StreamError with what is allowed and the nearest name."""
    try:
        return table[name]
    except KeyError:
        near = difflib.get_close_matches(name, table, 1, 0.0)[0]
        raise StreamError(f"unknown {what} {name!r}: allowed are {', '.join(table)}; "
                          f"nearest is {near!r}") from None


# --- the machine ---

@cache
def _machine() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("pc_q35.json").read_text(encoding="utf-8"))


RAM = Section("ram", 0, _machine()["ram"]["version_id"], _machine()["ram"]["section_id"], 0)
VFIO_CONFIG_BYTES: int = _machine()["vfio"]["config_bytes"]  # PCI config vmstate behind DEV_CONFIG_STATE
_VFIO_FULL_BYTES = 8 + VFIO_CONFIG_BYTES + 8
_FULL_BYTES = {row[0]: row[4] for row in _machine()["sections"]}  # instances of one device have one size
_RAM_NAMES = tuple(row[0] for row in _machine()["ram"]["blocks"])
_ITERABLE = {RAM.idstr: RAM, "0000:00:04.0/vfio": None}
_RAM_START_BYTES = 8 + sum(1 + len(name) + 8 for name in _RAM_NAMES) + 8


@cache
def sections(n_vfio: int, old: bool = False) -> tuple[Section, ...]:
    """All sections that the modelled q35 sends as SECTION_FULL, in stream order, VFIO devices included.

    Devices sit at 0000:00:04.0 and up. Each takes two section ids, with `old` (10.0) one; `old` sends in the
    order of ids, later versions put apic first (recordings a-*, l3-*, h-*, m-*). Sizes of `old` are taken to
    be the same. Raises StreamError for more devices than slots.
    """
    if not 0 <= n_vfio <= MAX_VFIO:
        raise StreamError(f"sections: {n_vfio} VFIO devices: allowed are 0 to {MAX_VFIO}, one PCI slot each")
    vfio, step = _machine()["vfio"], 1 if old else 2
    rows = [Section(*row) for row in _machine()["sections"]]
    at = next(i for i, row in enumerate(rows) if row.idstr == vfio["stands_before"])
    first = rows[at].section_id
    idstrs = [f"0000:00:{4 + i:02x}.0/vfio" for i in range(n_vfio)]
    devices = [Section(idstr, 0, vfio["version_id"], first + i * step, _VFIO_FULL_BYTES)
               for i, idstr in enumerate(idstrs)]
    after = [row._replace(section_id=row.section_id + n_vfio * step) for row in rows[at:]]
    rows = rows[:at] + devices + after
    return tuple(sorted(rows, key=lambda row: row.section_id) if old else rows)


def section_of(record: Record, table: tuple[Section, ...]) -> Section:
    """The section that a START, PART, END, MORE or FULL record belongs to; `table` is from `sections`."""
    if record.name == RAM.idstr:
        return RAM
    instance = 0
    if record.kind == "FULL" and record.payload and isinstance(record.payload[0], int):
        instance = record.payload[0]
    for section in table:
        if section.idstr == record.name and section.instance_id == instance:
            return section
    lookup({section.idstr: section for section in (RAM, *table)}, record.name, "section")
    raise StreamError(f"section {record.name!r} has no instance {instance}")


@cache
def ram_blocks(total_bytes: int) -> tuple[RAMBlock, ...]:
    """The blocks of a RAM of `total_bytes`, in stream order: pc.ram, then firmware (captured stream s1)."""
    rows = _machine()["ram"]["blocks"]
    rest = total_bytes - sum(size for _, size in rows if size)
    if rest <= 0 or rest % TARGET_PAGE_SIZE:
        raise StreamError(f"ram: {total_bytes} bytes: allowed is {total_bytes - rest} and a multiple of "
                          f"{TARGET_PAGE_SIZE} above it")
    blocks, page = [], 0
    for idstr, size in rows:
        blocks.append(RAMBlock(idstr, page, size or rest))
        page += (size or rest) // TARGET_PAGE_SIZE
    return tuple(blocks)


def description_size(n_vfio: int, old: bool = False) -> int:
    """Bytes of the JSON description (captured streams s1, s5).

    QEMU 10.0.13 sends 596 bytes less in devices and description together (ram.transferred of recordings
    ram-10.0.13-*, m-* against ram-no-cap, b-*); with `old` all of it is taken off here.
    """
    base = _machine()["description_bytes_old" if old else "description_bytes"]
    return base + n_vfio * _machine()["vfio"]["description_bytes"]


# --- sizes ---

def is_vfio(name: str) -> bool:
    """Whether a section belongs to a VFIO device."""
    return name.endswith("/vfio")


def vfio_size(payload: tuple) -> int:
    """Bytes of VFIO tags with what follows them, and of the footer if they end the section."""
    size = 0
    for item in payload:
        size += 8
        if item[0] == VFIO_MIG_FLAG_DEV_DATA_STATE:
            size += 8 + item[1]
        elif item[0] == VFIO_MIG_FLAG_DEV_CONFIG_STATE:
            size += VFIO_CONFIG_BYTES
    return size + (FOOTER_BYTES if ended(payload) else 0)


def ended(payload: tuple) -> bool:
    """Whether VFIO tags end their section."""
    return bool(payload) and payload[-1][0] in TERMINATORS


def command_data_size(record: Record) -> int:
    """Bytes of a COMMAND's data; of PACKAGED without the package."""
    if record.name == "PACKAGED":
        return 4
    return sum(4 if isinstance(value, int) else len(value) for value in record.payload)


def _command(record: Record) -> int:
    size = 5 + command_data_size(record)
    return size + package_size(record) if record.name == "PACKAGED" else size


def package_size(record: Record) -> int:
    """Bytes inside a PACKAGED command."""
    return sum(record_size(packaged) for packaged in record.payload)


def _start_full(record: Record) -> int:
    head = 1 + 4 + 1 + len(record.name) + 4 + 4
    if is_vfio(record.name):
        return head + vfio_size(record.payload)
    if record.kind == "START":
        lookup(_ITERABLE, record.name, "iterable section")
        return head + _RAM_START_BYTES + FOOTER_BYTES
    return head + lookup(_FULL_BYTES, record.name, "section") + FOOTER_BYTES


def _part_end(record: Record) -> int:
    if is_vfio(record.name):
        return 5 + vfio_size(record.payload)
    lookup(_ITERABLE, record.name, "iterable section")
    return 5 + _pages(record) + 8 + FOOTER_BYTES


def _more(record: Record) -> int:
    return vfio_size(record.payload) if is_vfio(record.name) else _pages(record)


def _pages(record: Record) -> int:
    return sum(count * (ZERO_PAGE_BYTES if zero else NORMAL_PAGE_BYTES) for _, count, zero in record.payload)


def _header(record: Record) -> int:
    return HEADER_BYTES + (_configuration(record) if record.name else 0)


def _configuration(record: Record) -> int:
    return 5 + len(record.name.encode())


def _description(record: Record) -> int:
    return 5 + (record.payload[0] if record.payload else description_size(0))


_SIZES: dict[str, Callable[[Record], int]] = {
    "HEADER": _header, "CONFIGURATION": _configuration, "COMMAND": _command,
    "START": _start_full, "PART": _part_end, "END": _part_end, "FULL": _start_full,
    "MORE": _more, "EOF": lambda record: 1, "VMDESCRIPTION": _description,
}


def record_size(record: Record) -> int:
    """Bytes of a record on the wire, header and footer included, without building them.

    Not counted are the names of RAM blocks, which depend on the page sent before: 84 bytes in a pass over all
    RAM, 7 when pc.ram follows another block (captured streams s1, s5). Raises StreamError on an unknown name.
    """
    return lookup(_SIZES, record.kind, "kind of record")(record)
