"""A captured migration stream, read record by record (facts sheet 4 and 5; captured streams s1, s5, s6, s8).

Reads what QEMU or `qemu.wire` wrote to a file, a pipe or a socket. A vmstate device's section says nowhere how long it
is: the description at the end of the stream does; without one, the section ends where its footer stands before the next
record. Memory and time are bounded by the file's size, whatever its bytes say.
"""
from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .qemu import stream as q
from .streamfile import WalkError, check_magic, load
from .vmdescription import find_description, read_json, sizes_of

U16, U32, U64 = (struct.Struct(f">{c}").unpack_from for c in "HIQ")
MAX_ITEMS = 1_000_000  # records, tags, blocks, messages: about 9 minutes of a source that syncs every ms
MAX_SECTIONS = 100_000  # 4096 vCPUs have a quarter of that
WINDOW = 16 << 20  # how far a section's end is looked for; QEMU's own devices stay far below
KINDS = {number: name for name, number in q.QEMU_VM.items() if name != "SUBSECTION"}
COMMANDS = {number: name for name, number in q.MIG_CMD.items()}
PAGE_FLAGS = {q.RAM_SAVE_FLAG_ZERO: "ZERO", q.RAM_SAVE_FLAG_PAGE: "PAGE", q.RAM_SAVE_FLAG_XBZRLE: "XBZRLE"}
#: tags after which nothing follows in their section (facts sheet 5.2)
LAST_TAGS = (*q.TERMINATORS, q.VFIO_MIG_FLAG_DEV_CONFIG_LOAD_READY)
PHASES = ("setup", "precopy", "switchover", "postcopy", "description")
NO_PAGES = {"EOS": 1}
QUIET = (("END_OF_STATE", 0),)


class Damage(Exception):
    """Where a stream stops making sense. `at`: offset; the text says what was expected and what is there."""

    def __init__(self, at: int, expected: str, found: str) -> None:
        super().__init__(f"{expected} expected, {found}")
        self.at = at


class Piece(NamedTuple):
    """One record. `size` counts header and footer; the sizes of all pieces add up to what could be read.

    `name`: section, command or machine type. `payload`: bytes between header and footer. `detail`: of START ram its
    blocks {name: bytes}, of other RAM sections how often each flag came, of VFIO the tags ((tag, bytes), ...), of a
    COMMAND its data, of CONFIGURATION its subsections. A PACKAGED command's content follows it, with `packaged`.
    """

    offset: int
    size: int
    kind: str
    phase: str
    name: str = ""
    section_id: int | None = None
    instance_id: int | None = None
    version_id: int | None = None
    payload: int = 0
    detail: Any = None
    packaged: bool = False


class Message(NamedTuple):
    """One return-path message; `data` without the header of 4 bytes."""

    offset: int
    name: str
    data: bytes


class Walk(NamedTuple):
    """All of a stream. `problem` and `return_path_problem`: where and why reading stopped, or empty."""

    size: int
    machine: str
    pieces: list[Piece]
    problem: str
    description: dict[str, Any]
    return_path: list[Message]
    return_path_problem: str


def text(raw: bytes) -> str:
    """A name in the stream; bytes that are no UTF-8 are shown."""
    return raw.decode("utf-8", "backslashreplace")


class Reader:
    """Numbers and pieces of a buffer; Damage where it ends."""

    def __init__(self, data: Any) -> None:
        self.data, self.at, self.end = data, 0, len(data)
        self.items = 0

    def skip(self, size: int, what: str) -> int:
        """Pass over `size` bytes; where they began."""
        at = self.at
        if size > self.end - at:
            raise Damage(at, f"{what} ({size} bytes)", f"{self.end - at} left")
        self.at += size
        return at

    def take(self, size: int, what: str) -> bytes:
        """The next bytes."""
        at = self.skip(size, what)
        return bytes(self.data[at:at + size])

    def number(self, size: int, what: str) -> int:
        """A big-endian number."""
        return int.from_bytes(self.take(size, what), "big")

    def name(self, what: str) -> str:
        """u8 length and text."""
        return text(self.take(self.number(1, f"length of {what}"), what))

    def count(self) -> None:
        """One more thing to remember."""
        self.items += 1
        if self.items > MAX_ITEMS:
            raise Damage(self.at, f"at most {MAX_ITEMS} records, tags and blocks", "more are there")


class Walker(Reader):
    """The forward stream. `sizes`: payload of each vmstate device as the description has it."""

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        self.description = find_description(data)
        self.sizes = sizes_of(self.description)
        self.sections: dict[int, tuple[str, int, int]] = {}
        self.blocks: set[bytes] = set()
        self.page_size = q.TARGET_PAGE_SIZE
        self.phase, self.packaged, self.machine = "setup", False, ""
        self.begin, self.inside = 0, "header"

    def pieces(self) -> Iterator[Piece]:
        """Every record. Raises Damage where no record can be read."""
        magic, version = self.number(4, "magic"), self.number(4, "version")
        if (magic, version) != (q.QEMU_VM_FILE_MAGIC, q.QEMU_VM_FILE_VERSION):
            raise Damage(4, "version 3", f"found {version}")
        yield Piece(0, 8, "HEADER", "setup")
        ended = False
        while self.at < self.end:
            if ended and self.data[self.at] != q.QEMU_VM["VMDESCRIPTION"]:
                raise Damage(self.at, "end of file", f"{self.end - self.at} bytes left")
            for piece in self.record():
                yield piece
                ended = piece.kind in ("EOF", "VMDESCRIPTION")
        if not ended:
            raise Damage(self.at, "next record or EOF", "0 left")

    def record(self) -> Iterator[Piece]:
        """The record at this place, and what is packaged in it."""
        self.count()
        self.begin, self.inside = self.at, "record type"
        number = self.number(1, "record type")
        kind = KINDS.get(number)
        allowed = ", ".join(f"{name} {n}" for n, name in KINDS.items())
        if kind is None:
            raise Damage(self.begin, f"record type ({allowed})", f"found {number:#04x}")
        self.inside = kind
        if kind == "COMMAND":
            yield from self.command()
        elif kind in ("EOF", "VMDESCRIPTION", "CONFIGURATION"):
            yield getattr(self, kind.lower())()
        else:
            yield self.section(kind)

    def piece(self, kind: str, name: str = "", **more: Any) -> Piece:
        """The record that began at `begin` and ends here."""
        return Piece(self.begin, self.at - self.begin, kind, self.phase, name, packaged=self.packaged, **more)

    def eof(self) -> Piece:
        """QEMU_VM_EOF."""
        return self.piece("EOF")

    def vmdescription(self) -> Piece:
        """The JSON description."""
        self.phase = "description"
        size = self.number(4, "length of the description")
        at = self.skip(size, "description")
        if not self.description and read_json(self.data[at:at + min(size, WINDOW)]) is None:
            raise Damage(at, "JSON object", "found something else")
        return self.piece("VMDESCRIPTION", payload=size)

    def configuration(self) -> Piece:
        """Machine type and subsections (vmstate_configuration)."""
        self.machine = text(self.take(self.number(4, "length of the machine type"), "machine type"))
        found: dict[str, Any] = {}
        while self.at < self.end and self.data[self.at] == q.QEMU_VM["SUBSECTION"]:
            self.at += 1
            name = self.name("subsection").removeprefix("configuration/")
            self.number(4, "version of the subsection")
            found[name] = self.subsection(name)
        if "mapped-ram" in found.get("capabilities", ()):
            raise Damage(self.begin, "stream of sections", "capability mapped-ram puts pages at fixed offsets")
        return self.piece("CONFIGURATION", self.machine, detail=found)

    def subsection(self, name: str) -> Any:
        """The fields of one subsection of `configuration`."""
        if name == "target-page-bits":
            bits = self.number(4, name)
            if not 10 <= bits <= 24:
                raise Damage(self.at - 4, "target page bits from 10 to 24", f"found {bits}")
            self.page_size = 1 << bits
            return bits
        if name == "uuid":
            return self.take(16, name).hex()
        if name != "capabilities":
            raise Damage(self.at, "subsection capabilities, target-page-bits or uuid", f"found {name!r}")
        out = []
        for _ in range(self.number(4, "number of capabilities")):
            self.count()
            out.append(self.name("capability"))
        return out

    def command(self) -> Iterator[Piece]:
        """MIG_CMD_*; of PACKAGED also what is inside."""
        number, size = self.number(2, "command"), self.number(2, "length of the command")
        name = COMMANDS.get(number, "")
        if not name or q.MIG_CMD_LENGTH[name] not in (-1, size):
            allowed = ", ".join(f"{c} {n}" for n, c in COMMANDS.items()) if not name else \
                f"{name} with {q.MIG_CMD_LENGTH[name]} bytes"
            raise Damage(self.begin, f"command ({allowed})", f"found {number} with {size} bytes")
        self.inside = f"COMMAND {name}"
        data = self.take(size, "data of the command")
        if name == "SWITCHOVER_START" or (name in ("PACKAGED", "POSTCOPY_RAM_DISCARD") and self.phase == "precopy"):
            self.phase = "switchover"
        yield self.piece("COMMAND", name, payload=size, detail=data)
        if name == "PACKAGED":
            yield from self.package(int.from_bytes(data, "big"))

    def package(self, size: int) -> Iterator[Piece]:
        """Records inside a package; a package that is cut is read as far as it goes."""
        if self.packaged:
            raise Damage(self.begin, "record", "found a package in a package")
        end, begin = self.end, self.at
        self.packaged, self.end = True, min(end, begin + size)
        while self.at < self.end:
            yield from self.record()
        self.packaged, self.end = False, end
        if begin + size > end:
            raise Damage(end, f"package of {size} bytes from {begin} on", "0 left")
        self.phase = "postcopy"

    # --- sections ---

    def section(self, kind: str) -> Piece:
        """Header, payload, footer."""
        number = self.number(4, "section id")
        if kind in ("START", "FULL"):
            name = self.name("section name")
            known = name, self.number(4, "instance id"), self.number(4, "version id")
            self.sections[number] = known
            if len(self.sections) > MAX_SECTIONS:
                raise Damage(self.begin, f"at most {MAX_SECTIONS} sections", "more are there")
        elif number not in self.sections:
            raise Damage(self.begin, f"{kind} of a section that a START has named", f"found section id {number}")
        name, instance, version = self.sections[number]
        self.inside = f"{kind} {name}"
        self.phase = {("PART", "setup"): "precopy", ("END", "setup"): "switchover", ("END", "precopy"): "switchover",
                      ("FULL", "precopy"): "switchover"}.get((kind, self.phase), self.phase)
        begin = self.at
        detail = self.payload(kind, name, number, instance)
        size, at = self.at - begin, self.at
        if self.take(5, "section footer") != footer(number):
            raise Damage(at, f"section footer {footer(number).hex(' ')}", f"found {self.data[at:at + 5].hex(' ')}")
        shown = (instance, version) if kind in ("START", "FULL") else (None, None)
        return self.piece(kind, name, section_id=number, instance_id=shown[0], version_id=shown[1], payload=size,
                          detail=detail)

    def payload(self, kind: str, name: str, number: int, instance: int) -> Any:
        """What stands between header and footer."""
        if q.is_vfio(name):
            return self.tags(number)
        if name == q.RAM.idstr:
            return self.ram_blocks() if kind == "START" else self.ram_pages()
        size = self.sizes.get((name, instance), -1) if kind == "FULL" else -1
        if 0 <= size <= self.end - self.at and self.data[self.at + size:self.at + size + 5] == footer(number):
            self.at += size
        else:
            self.find_footer(number, b"")
        return None

    def find_footer(self, number: int, tail: bytes) -> None:
        """Go to where `tail` and the footer stand before a record or the end."""
        mark, at = tail + footer(number), self.at
        limit = min(self.end, at + WINDOW)
        while (at := self.data.find(mark, at, limit)) >= 0:
            if self.begins_record(at + len(mark)):
                self.at = at
                return
            at += 1
        cut = limit == self.end
        raise Damage(limit if cut else self.at, f"section footer {footer(number).hex(' ')}",
                     "none up to the end" if cut else f"none in {WINDOW} bytes")

    def begins_record(self, at: int) -> bool:
        """Whether a record seems to begin here."""
        head = self.data[at:at + 6]
        kind = KINDS.get(head[0]) if head else "end"
        if kind in ("end", "VMDESCRIPTION") or len(head) < 6:
            return True
        if kind == "EOF":
            return head[1] == q.QEMU_VM["VMDESCRIPTION"]
        if kind == "COMMAND":
            return U16(head, 1)[0] in COMMANDS
        if kind in ("PART", "END"):
            return U32(head, 1)[0] in self.sections
        name = bytes(self.data[at + 6:at + 6 + head[5]])
        return kind in ("START", "FULL") and bool(name) and name.isascii() and text(name).isprintable()

    def tags(self, number: int) -> tuple[tuple[str, int], ...]:
        """VFIO tags with the bytes that follow each; PCI config vmstate ends where END_OF_STATE and the footer are."""
        out: list[tuple[str, int]] = []
        while True:
            self.count()
            at, flag = self.at, self.number(8, "VFIO tag")
            if flag not in q.VFIO_MIG_FLAG:
                raise Damage(at, f"VFIO tag ({min(q.VFIO_MIG_FLAG):#x} to {max(q.VFIO_MIG_FLAG):#x})",
                             f"found {flag:#018x}")
            size = 0
            if flag == q.VFIO_MIG_FLAG_DEV_DATA_STATE:
                size = self.number(8, "size of the device data")
                self.skip(size, "device data")
            elif flag == q.VFIO_MIG_FLAG_DEV_CONFIG_STATE:
                self.find_footer(number, q.VFIO_MIG_FLAG_END_OF_STATE.to_bytes(8, "big"))
                size = self.at - at - 8
            out.append((q.VFIO_MIG_FLAG[flag], size))
            if flag in LAST_TAGS:
                return QUIET if tuple(out) == QUIET else tuple(out)

    def ram_blocks(self) -> dict[str, int]:
        """ram_save_setup(): MEM_SIZE, the blocks, EOS. A page size or address behind a block (postcopy with huge
        pages, x-ignore-shared) begins with a zero byte, which no name's length is."""
        at, head = self.at, self.number(8, "size of RAM")
        if not head & q.RAM_SAVE_FLAG_MEM_SIZE:
            raise Damage(at, "RAM flag MEM_SIZE", f"found {head:#018x}")
        left, out = head & ~(q.TARGET_PAGE_SIZE - 1), {}
        while left:
            self.count()
            at = self.at
            name = self.take(self.number(1, "length of a RAM block's name"), "RAM block's name")
            size = self.number(8, "size of the RAM block")
            if not name or size > left:
                raise Damage(at, f"RAM block of at most {left} bytes", f"found {text(name)!r} of {size}")
            self.blocks.add(name)
            out[text(name)] = size
            left -= size
            while self.end - self.at >= 8 and not self.data[self.at] and (left or U64(self.data, self.at)[0] >= 1024):
                self.at += 8
        self.ram_pages()
        return out

    def ram_pages(self) -> dict[str, int]:
        """ram_load_precopy(): page headers and pages up to EOS, as numbers of each flag."""
        counts: Counter[int] = Counter()
        begin = self.at
        while True:
            at = self.at
            flags = self.number(8, "RAM page header") & 0x3FF
            counts[flags] += 1
            if flags == q.RAM_SAVE_FLAG_EOS:
                break
            kind = flags & ~q.RAM_SAVE_FLAG_CONTINUE
            if flags == q.RAM_SAVE_FLAG_MULTIFD_FLUSH:
                continue
            if kind not in PAGE_FLAGS:
                known = ", ".join(f"{name} {flag:#x}" for flag, name in PAGE_FLAGS.items())
                raise Damage(at, f"RAM flags ({known}, CONTINUE 0x20, MULTIFD_FLUSH 0x200, EOS 0x10)",
                             f"found {flags:#05x}")
            if kind == flags and (name := self.take(self.number(1, "RAM block's name"), "name")) not in self.blocks:
                raise Damage(at + 8, "name of a RAM block", f"found {text(name)!r}")
            self.page(kind)
        if self.at == begin + 8:
            return NO_PAGES
        named = {**PAGE_FLAGS, q.RAM_SAVE_FLAG_MULTIFD_FLUSH: "MULTIFD_FLUSH", q.RAM_SAVE_FLAG_EOS: "EOS",
                 q.RAM_SAVE_FLAG_CONTINUE: "CONTINUE"}
        sums = {name: sum(n for flags, n in counts.items() if flags & flag) for flag, name in named.items()}
        return {name: n for name, n in sums.items() if n}

    def page(self, kind: int) -> None:
        """Content of one page."""
        if kind == q.RAM_SAVE_FLAG_PAGE:
            self.skip(self.page_size, "RAM page")
        elif kind == q.RAM_SAVE_FLAG_ZERO:
            if self.number(1, "zero page"):
                raise Damage(self.at - 1, "byte 0 of a zero page", f"found {self.data[self.at - 1]:#04x}")
        else:
            self.number(1, "XBZRLE encoding")
            self.skip(self.number(2, "XBZRLE length"), "XBZRLE delta")


def footer(section_id: int) -> bytes:
    """QEMU_VM_SECTION_FOOTER and be32 section id."""
    return struct.pack(">BI", q.QEMU_VM_SECTION_FOOTER, section_id)


# --- the return path ---

def messages(reader: Reader) -> Iterator[Message]:
    """Return-path messages (facts sheet 4). Raises Damage."""
    while reader.at < reader.end:
        reader.count()
        at = reader.at
        kind, size = reader.number(2, "message type"), reader.number(2, "message length")
        name = q.MIG_RP_MSG.get(kind) if kind else None
        if name is None or q.MIG_RP_MSG_LENGTH[kind] not in (-1, size):
            allowed = f"{name} with {q.MIG_RP_MSG_LENGTH[kind]} bytes" if name else ", ".join(
                f"{n} {k}" for k, n in q.MIG_RP_MSG.items() if k)
            raise Damage(at, f"message ({allowed})", f"found {kind} with {size} bytes")
        yield Message(at, name, reader.take(size, f"data of {name}"))


def walk(forward: str | Path, return_path: str | Path | None = None) -> Walk:
    """Read a stream and what came back, each a file, raw or gzip. Raises WalkError if one is no stream at all; a stream
    that is cut or damaged is read up to there, and `problem` says where and what was expected."""
    data = load(forward)
    check_magic(data, forward)
    walker, found, problem = Walker(data), [], ""
    try:
        for piece in walker.pieces():
            found.append(piece)
    except Damage as error:
        inside = "" if error.at == walker.begin else f" in {walker.inside} from {walker.begin} on"
        problem = f"offset {error.at}{inside}: {error}"
    back, trouble = [], ""
    if return_path is not None:
        try:
            for message in messages(Reader(load(return_path))):
                back.append(message)
        except Damage as error:
            trouble = f"offset {error.at}: {error}"
        if trouble and not back:
            raise WalkError(f"{return_path}: {trouble}")
    return Walk(len(data), walker.machine, found, problem, walker.description, back, trouble)
