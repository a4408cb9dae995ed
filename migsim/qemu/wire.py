"""Records as bytes, in QEMU's stream format (facts sheet 4 and 5; captured streams s1, s5, s6, s8).

Order, headers, tags and sizes are those of the real stream. What is not modelled (vmstate of devices, pages,
device data) is filled with the name of its section or RAM block, over and over.
"""
from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import zip_longest

from .stream import (
    MIG_CMD,
    MIG_CMD_LENGTH,
    MIG_RP_MSG,
    MIG_RP_MSG_LENGTH,
    QEMU_VM,
    QEMU_VM_FILE_MAGIC,
    QEMU_VM_FILE_VERSION,
    QEMU_VM_SECTION_FOOTER,
    RAM,
    RAM_SAVE_FLAG_CONTINUE,
    RAM_SAVE_FLAG_EOS,
    RAM_SAVE_FLAG_MEM_SIZE,
    RAM_SAVE_FLAG_PAGE,
    RAM_SAVE_FLAG_ZERO,
    TARGET_PAGE_SIZE,
    VFIO_CONFIG_BYTES,
    VFIO_MIG_FLAG,
    VFIO_MIG_FLAG_DEV_CONFIG_STATE,
    VFIO_MIG_FLAG_DEV_DATA_STATE,
    RAMBlock,
    Record,
    RPMessage,
    Section,
    StreamError,
    command_data_size,
    description_size,
    ended,
    is_vfio,
    lookup,
    ram_blocks,
    section_of,
)


def encode(records: Iterable[Record], sections: tuple[Section, ...]) -> Iterator[bytes]:
    """The bytes of each record, one item per record; `sections` are the source's, from `stream.sections`.

    A stream may end anywhere, as a failed one does. Raises StreamError naming the record that cannot be sent.
    """
    wire = _Wire(sections)
    records = tuple(records)
    for number, (record, then) in enumerate(zip_longest(records, records[1:])):
        wire.goes_on = then is not None and (then.kind, then.name) == ("MORE", RAM.idstr)
        try:
            yield wire.encode(record)
        except StreamError as error:
            raise StreamError(f"record {number} ({record.kind} {record.name}): {error}") from None


def encode_return_path(messages: Iterable[RPMessage]) -> bytes:
    """Return-path messages as bytes: be16 type, be16 length, be32 value if the length is 4.

    Raises StreamError for a message of another length than 0 or 4, which the model does not send.
    """
    out = []
    for number, (kind, value) in enumerate(messages):
        length = MIG_RP_MSG_LENGTH.get(kind, -1)
        if length not in (0, 4):
            known = [k for k, size in MIG_RP_MSG_LENGTH.items() if size in (0, 4)]
            allowed = ", ".join(f"{k} ({MIG_RP_MSG[k]})" for k in known)
            raise StreamError(f"return-path message {number}: type {kind}: allowed are {allowed}")
        out.append(struct.pack(">HH", kind, length) + (_be32(value, "value") if length else b""))
    return b"".join(out)


@lru_cache(maxsize=32)
def filler(name: str, size: int) -> bytes:
    """`size` bytes in place of content that is not modelled: the name and a blank, repeated."""
    unit = name.encode() + b" "
    return (unit * (size // len(unit) + 1))[:size]


def _be32(value: int, what: str) -> bytes:
    if not 0 <= value < 1 << 32:
        raise StreamError(f"{what} {value}: allowed are 0 to 4294967295")
    return struct.pack(">I", value)


def _text(name: str) -> bytes:
    return bytes((len(name),)) + name.encode()


class _Wire:
    """What the writer of a stream remembers: blocks of RAM, block of the last page, a section without end."""

    def __init__(self, sections: tuple[Section, ...]) -> None:
        self.sections = sections
        self.machine = ""
        self.blocks: tuple[RAMBlock, ...] = ()
        self.last_sent_block = ""
        self.unfinished = ""  # VFIO section whose terminator comes with a MORE record
        self.goes_on = self.went_on = False  # the RAM section has more pages in the next record, had in the last
        self.kinds: dict[str, Callable[[Record], bytes]] = {
            "HEADER": self.header, "CONFIGURATION": self.configuration, "COMMAND": self.command,
            "START": self.section, "PART": self.section, "END": self.section, "FULL": self.section,
            "MORE": self.more, "EOF": lambda _: b"\0", "VMDESCRIPTION": self.description,
        }

    def encode(self, record: Record) -> bytes:
        encoder = lookup(self.kinds, record.kind, "kind of record")
        if (record.kind, record.name) == ("MORE", RAM.idstr) and not self.went_on:
            raise StreamError("there is no RAM section before it")
        if self.unfinished and (record.kind, record.name) != ("MORE", self.unfinished):
            raise StreamError(f"section {self.unfinished} before it has no terminator")
        return encoder(record)

    def header(self, record: Record) -> bytes:
        """qemu_savevm_state_header()."""
        head = struct.pack(">II", QEMU_VM_FILE_MAGIC, QEMU_VM_FILE_VERSION)
        return head + (self.configuration(record) if record.name else b"")

    def configuration(self, record: Record) -> bytes:
        """The configuration section: the machine type, no subsections."""
        self.machine, name = record.name, record.name.encode()
        return struct.pack(">BI", QEMU_VM["CONFIGURATION"], len(name)) + name

    def command(self, record: Record) -> bytes:
        """qemu_savevm_command_send()."""
        number, length = lookup(MIG_CMD, record.name, "command"), MIG_CMD_LENGTH[record.name]
        size = command_data_size(record)
        if length not in (-1, size):
            raise StreamError(f"{size} bytes of data: allowed are {length}")
        head = struct.pack(">BHH", QEMU_VM["COMMAND"], number, size)
        if record.name == "PACKAGED":
            package = b"".join(self.encode(packaged) for packaged in record.payload)
            return head + _be32(len(package), "package of") + package
        return head + b"".join(_be32(v, "data") if isinstance(v, int) else v for v in record.payload)

    def section(self, record: Record) -> bytes:
        """save_section_header(), the payload, save_section_footer()."""
        section = section_of(record, self.sections)
        head = struct.pack(">BI", QEMU_VM[record.kind], section.section_id)
        if record.kind in ("START", "FULL"):
            head += _text(section.idstr) + struct.pack(">II", section.instance_id, section.version_id)
        if is_vfio(section.idstr):
            return head + self.vfio(record, section)
        if section is RAM:
            return head + (self.ram_start(record) if record.kind == "START" else self.ram_pages(record))
        elif record.kind == "FULL":
            body = filler(section.idstr, section.size)
        else:
            raise StreamError("a vmstate device has FULL sections only")
        return head + body + self.footer(section)

    def footer(self, section: Section) -> bytes:
        return struct.pack(">BI", QEMU_VM_SECTION_FOOTER, section.section_id)

    def more(self, record: Record) -> bytes:
        """The rest of a section."""
        if record.name == RAM.idstr:
            return self.ram_pages(record)
        if not self.unfinished:
            raise StreamError("there is no section without a terminator before it")
        return self.vfio(record, section_of(record, self.sections))

    def vfio(self, record: Record, section: Section) -> bytes:
        """VFIO tags (facts sheet 5.2), and the footer once the terminator is there."""
        out = []
        for flag, *rest in record.payload:
            if flag not in VFIO_MIG_FLAG:
                raise StreamError(f"unknown VFIO tag {flag:#x}: allowed are {min(VFIO_MIG_FLAG):#x} "
                                  f"({VFIO_MIG_FLAG[min(VFIO_MIG_FLAG)]}) to {max(VFIO_MIG_FLAG):#x}")
            out.append(struct.pack(">Q", flag))
            if flag == VFIO_MIG_FLAG_DEV_DATA_STATE:
                out += [struct.pack(">Q", rest[0]), filler(section.idstr, rest[0])]
            elif flag == VFIO_MIG_FLAG_DEV_CONFIG_STATE:
                out.append(filler(section.idstr, VFIO_CONFIG_BYTES))
        finished = ended(record.payload)
        self.unfinished = "" if finished else section.idstr
        return b"".join(out) + (self.footer(section) if finished else b"")

    def ram_start(self, record: Record) -> bytes:
        """ram_save_setup(): the list of blocks."""
        total = record.payload[0]
        self.blocks = ram_blocks(total)
        out = struct.pack(">Q", total | RAM_SAVE_FLAG_MEM_SIZE)
        for block in self.blocks:
            out += _text(block.idstr) + struct.pack(">Q", block.used_length)
        return out + self.ram_end()

    def ram_end(self) -> bytes:
        """End of pages, and of the section."""
        return struct.pack(">Q", RAM_SAVE_FLAG_EOS) + self.footer(RAM)

    def ram_pages(self, record: Record) -> bytes:
        """Pages (facts sheet 5.3), and the end of the section unless the next record has more."""
        self.went_on = self.goes_on
        out = []
        for first, count, zero in record.payload:
            for block, start, pages in self.split(first, count):
                out.append(self.page_run(block, start, pages, zero))
        return b"".join(out) + (b"" if self.goes_on else self.ram_end())

    def split(self, first: int, count: int) -> Iterator[tuple[str, int, int]]:
        """A run of pages of RAM as runs inside its blocks."""
        if not self.blocks:
            raise StreamError("pages before SECTION_START of ram")
        end = self.blocks[-1].first_page + self.blocks[-1].used_length // TARGET_PAGE_SIZE
        if first < 0 or count < 0 or first + count > end:
            raise StreamError(f"pages {first} to {first + count - 1}: allowed are 0 to {end - 1}")
        for block in self.blocks:
            a = max(first, block.first_page)
            b = min(first + count, block.first_page + block.used_length // TARGET_PAGE_SIZE)
            if a < b:
                yield block.idstr, a - block.first_page, b - a

    def page_run(self, block: str, start: int, pages: int, zero: bool) -> bytes:
        """save_page_header() and content of each page; the block is named where it is not the last page's."""
        flag = RAM_SAVE_FLAG_ZERO if zero else RAM_SAVE_FLAG_PAGE
        content = b"\0" if zero else filler(block, TARGET_PAGE_SIZE)
        out = []
        if block != self.last_sent_block:
            self.last_sent_block = block
            out.append(struct.pack(">Q", start * TARGET_PAGE_SIZE | flag) + _text(block) + content)
            start, pages = start + 1, pages - 1
        flag |= RAM_SAVE_FLAG_CONTINUE
        for page in range(start, start + pages):
            out += [struct.pack(">Q", page * TARGET_PAGE_SIZE | flag), content]
        return b"".join(out)

    def description(self, record: Record) -> bytes:
        """The JSON description: devices as in QEMU's, each with one field; blanks fill it up to its size."""
        size = record.payload[0] if record.payload else description_size(0)
        fields = [{"name": "len", "type": "uint32", "size": 4},
                  {"name": "name", "type": "buffer", "size": len(self.machine.encode())}]
        text = json.dumps({
            "configuration": {"vmsd_name": "configuration", "version": 1, "fields": fields},
            "page_size": TARGET_PAGE_SIZE,
            "devices": [_describe(section) for section in self.sections],
        }).encode()
        if len(text) > size:
            raise StreamError(f"{size} bytes: the description needs {len(text)}")
        return struct.pack(">BI", QEMU_VM["VMDESCRIPTION"], size) + text.ljust(size)


def _describe(section: Section) -> dict:
    field = {"name": "data", "size": section.size, "type": "buffer"}
    device = {"name": section.idstr, "instance_id": section.instance_id}
    if is_vfio(section.idstr):
        return {**device, "size": section.size, "fields": [field]}
    vmsd = {"vmsd_name": section.idstr.split("/")[-1], "version": section.version_id}
    return {**device, **vmsd, "fields": [field]}
