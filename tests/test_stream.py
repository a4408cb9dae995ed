"""The stream against what QEMU 11.1.3 sent.

`fixtures/streams.json` lists the captured streams s1, s5, s6 and s8 section by section, as `walk` below sees
them (it knows the format, not migsim).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migsim.qemu import stream
from migsim.qemu.stream import Record, RPMessage, StreamError, record_size, sections
from migsim.qemu.wire import encode, encode_return_path

CAPTURED = json.loads((Path(__file__).parent / "fixtures" / "streams.json").read_text())
TYPES = {1: "START", 2: "PART", 3: "END", 4: "FULL"}
TAGS = {1: "END_OF_STATE", 2: "CONFIG", 3: "SETUP", 4: "DATA", 5: "INIT_DATA_SENT"}
DATA, END_OF_STATE = stream.VFIO_MIG_FLAG_DEV_DATA_STATE, stream.VFIO_MIG_FLAG_END_OF_STATE
SENT, CONFIG = stream.VFIO_MIG_FLAG_DEV_INIT_DATA_SENT, stream.VFIO_MIG_FLAG_DEV_CONFIG_STATE
SETUP = stream.VFIO_MIG_FLAG_DEV_SETUP_STATE
FLAGS = {"END_OF_STATE": END_OF_STATE, "CONFIG": CONFIG, "SETUP": SETUP, "DATA": DATA, "INIT_DATA_SENT": SENT}
VFIO = "0000:00:04.0/vfio"


# --- a walker of its own ---

class Walker:
    """Reads a stream in QEMU's format into rows; EOFError where it is cut."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.names: dict[int, str] = {}

    def take(self, size: int) -> bytes:
        piece = self.data[self.at:self.at + size]
        if len(piece) < size:
            raise EOFError
        self.at += size
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def text(self) -> str:
        return self.take(self.number(1)).decode()

    def rows(self) -> Iterator[list]:
        yield ["HEADER", self.take(4).decode(), self.number(4)]
        while self.at < len(self.data):
            start = self.at
            try:
                yield self.row()
            except EOFError:
                yield ["cut", len(self.data) - start]
                return

    def row(self) -> list:
        kind = self.number(1)
        if kind in TYPES:
            return self.section(TYPES[kind])
        if kind == 0:
            return ["EOF"]
        if kind == 6:
            return ["VMDESCRIPTION", len(self.take(self.number(4)))]
        if kind == 7:
            return ["CONFIGURATION", self.take(self.number(4)).decode()]
        assert kind == 8, kind
        number, size = self.number(2), self.number(2)
        return ["COMMAND", number, self.take(size).hex()]

    def section(self, kind: str) -> list:
        number, row = self.number(4), [kind]
        row.append(number)
        if kind in ("START", "FULL"):
            self.names[number] = self.text()
            row += [self.names[number], self.number(4), self.number(4)]
        name, begin = self.names[number], self.at
        row.append(self.payload(kind, name, number))
        row.append(self.at - begin)
        assert (self.number(1), self.number(4)) == (0x7E, number)
        return row

    def payload(self, kind: str, name: str, number: int) -> list:
        if name == "ram":
            return self.blocks() if kind == "START" else self.pages()
        if name.endswith("/vfio"):
            return self.tags()
        self.at = self.data.index(b"\x7e" + struct.pack(">I", number), self.at)
        return []

    def blocks(self) -> list:
        total, out = self.number(8) - 4, []
        while total:
            out.append([self.text(), self.number(8)])
            total -= out[-1][1]
        assert self.number(8) == 0x10
        return out

    def pages(self) -> list:
        """Runs of [block or "" (continued), first page, pages, zero]."""
        runs: list[list] = []
        while True:
            page, flags = divmod(self.number(8), 4096)
            if flags == 0x10:
                return runs
            name = "" if flags & 0x20 else self.text()
            zero = {2: True, 8: False}[flags & ~0x20]
            content = self.take(1 if zero else 4096)
            assert not zero or content == b"\0"
            if not name and runs and runs[-1][3] == zero and runs[-1][1] + runs[-1][2] == page:
                runs[-1][2] += 1
            else:
                runs.append([name, page, 1, zero])

    def tags(self) -> list:
        out: list[list] = []
        while True:
            flag = self.number(8)
            assert flag >> 16 == 0xFFFFFFFFEF10
            tag = TAGS[flag & 0xFFFF]
            out.append([tag])
            if tag in ("DATA", "CONFIG"):
                out[-1].append(self.number(8) if tag == "DATA" else 276)
                self.take(out[-1][1])
            elif tag != "SETUP":
                return out


def walk(data: bytes) -> list[list]:
    return list(Walker(data).rows())


# --- the captured streams ---

def captured(name: str) -> list[list]:
    """The rows of a captured stream; the fixture says [times, rows] where rows repeat."""
    return [row for times, rows in CAPTURED[name]["rows"] for _ in range(times) for row in rows]


class Records:
    """Rows as the records that a model would send."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.first: dict[str, int] = {}
        self.block = ""

    def record(self, row: list) -> Record:
        kind, *rest = row
        if kind in TYPES.values():
            return self.section(kind, *rest)
        if kind == "COMMAND":
            name = next(name for name, number in stream.MIG_CMD.items() if number == rest[0])
            return Record(kind, name, (int(rest[1], 16),) if rest[1] else ())
        if kind == "VMDESCRIPTION":
            return Record(kind, "", (rest[0],))
        return Record(kind, rest[0] if kind == "CONFIGURATION" else "")

    def section(self, kind: str, number: int, *rest: object) -> Record:
        if kind in ("START", "FULL"):
            self.names[number] = rest[0]
        name, payload = self.names[number], rest[-2]
        if name.endswith("/vfio"):
            return Record(kind, name, tuple((FLAGS[tag], *size) for tag, *size in payload))
        if kind == "FULL":
            return Record(kind, name, (rest[1],))
        if kind == "START":
            pages = 0
            for block, size in payload:
                self.first[block] = pages
                pages += size // 4096
            return Record(kind, name, (pages * 4096,))
        return Record(kind, name, tuple(self.run(*run) for run in payload))

    def run(self, block: str, page: int, count: int, zero: bool) -> tuple[int, int, bool]:
        self.block = block or self.block
        return self.first[self.block] + page, count, zero


def rebuilt(name: str) -> list[Record]:
    """A captured stream as records; one that was cut, up to the cut."""
    records = Records()
    return [records.record(row) for row in captured(name) if row[0] != "cut"]


def devices(records: list[Record]) -> int:
    return sum(r.kind == "START" and r.name != "ram" for r in records)


@pytest.mark.parametrize("name", CAPTURED)
def test_encoded_stream_has_the_sections_of_the_captured_one(name: str) -> None:
    records = rebuilt(name)
    rows = walk(b"".join(encode(records, sections(devices(records)))))
    expected = [row for row in captured(name) if row[0] != "cut"]
    different = [(i, a, b) for i, (a, b) in enumerate(zip(rows, expected, strict=True)) if a != b]
    assert different == []


def cut_bytes(name: str) -> int:
    """Bytes of a captured stream after its last whole section."""
    last = captured(name)[-1]
    return last[1] if last[0] == "cut" else 0


@pytest.mark.parametrize("name", CAPTURED)
def test_encoded_stream_is_as_long_as_the_captured_one(name: str) -> None:
    records = rebuilt(name)
    size = sum(map(len, encode(records, sections(devices(records)))))
    assert size + cut_bytes(name) == CAPTURED[name]["bytes"]


@pytest.mark.parametrize("name", CAPTURED)
def test_record_sizes_differ_from_the_captured_stream_by_the_names_of_ram_blocks(name: str) -> None:
    parts = [row for row in captured(name) if row[:2] == ["PART", stream.RAM.section_id]]
    named = [1 + len(block) for row in parts for block, *_ in row[2] if block]
    assert named[:6] == [7, 21, 8, 7, 22, 19]
    assert sum(map(record_size, rebuilt(name))) + sum(named) + cut_bytes(name) == CAPTURED[name]["bytes"]


@pytest.mark.parametrize(("n_vfio", "name"), [(0, "s1"), (1, "s5"), (1, "s6")])
def test_machine_table_is_that_of_the_captured_stream(n_vfio: int, name: str) -> None:
    rows = captured(name)
    full = [(idstr, instance, version, number, size) for kind, number, idstr, instance, version, _, size in
            (row for row in rows if row[0] == "FULL")]
    assert [tuple(section) for section in sections(n_vfio)] == full
    assert stream.description_size(n_vfio) == rows[-1][1]
    blocks = next(row for row in rows if row[0] == "START" and row[2] == "ram")[5]
    assert [[b.idstr, b.used_length] for b in stream.ram_blocks(34086912)] == blocks


@pytest.mark.parametrize("name", CAPTURED)
def test_return_path_is_the_captured_one_byte_for_byte(name: str) -> None:
    real = bytes.fromhex(CAPTURED[name]["return_path"])
    messages, at = [], 0
    while at < len(real):
        kind, size = struct.unpack_from(">HH", real, at)
        messages.append(RPMessage(kind, int.from_bytes(real[at + 4:at + 4 + size], "big")))
        at += 4 + size
    assert encode_return_path(messages) == real


def test_captured_acks_are_told_apart_by_their_number_only() -> None:
    assert [CAPTURED[name]["return_path"].count("00070000") for name in ("s5", "s6")] == [2, 1]


# --- recordings: section ids (destination's qemu_loadvm_state_section_startfull), bytes (query-migrate) ---

@pytest.mark.parametrize(("n_vfio", "old", "ids"), [
    (0, False, [28, 37, 38]),  # ram-new-ack
    (1, False, [28, 37, 39, 40]),  # a-one-device-new-ack
    (2, False, [28, 37, 39, 41, 42]),  # l3-src-legacy-dst-new-2dev
    (4, False, [28, 37, 39, 41, 43, 45, 46]),  # h-with-reinit-run1
    (0, True, [28, 37, 38]),  # ram-10.0.13-to-11.1.3
    (1, True, [28, 37, 38, 39]),  # m-10.0.13-to-11.1.3
])
def test_section_ids_shift_with_the_devices(n_vfio: int, old: bool, ids: list[int]) -> None:
    table = sections(n_vfio, old)
    assert [section.section_id for section in table][-len(ids):] == ids
    names = [f"0000:00:0{4 + i}.0/vfio" for i in range(n_vfio)]
    assert [section.idstr for section in table][-n_vfio - 2:] == [*names, "acpi_build", "globalstate"]
    first = ["timer", "cpu_common", "cpu", "kvm-tpr-opt", "apic", "fw_cfg"]
    assert [section.idstr for section in table][:6] == (first if old else ["apic", *first[:4], "fw_cfg"])


class Sent(NamedTuple):
    """What a recording sent: sections by its source log, pages and all bytes by its query-migrate."""

    n_vfio: int
    old: bool
    ram_parts: int
    normal: int
    zero: int
    vfio_parts: int
    blocks: int  # DEV_DATA_STATE tags
    data: int  # and their bytes
    transferred: int


@pytest.mark.parametrize("sent", [
    pytest.param(Sent(0, False, 1, 116, 16398, 0, 0, 0, 701066), id="ram-no-cap"),
    pytest.param(Sent(0, False, 2, 120, 16398, 0, 0, 0, 717507), id="ram-new-ack"),
    pytest.param(Sent(0, True, 1, 116, 16398, 0, 0, 0, 700470), id="ram-10.0.13-to-11.1.3"),
    pytest.param(Sent(1, False, 788, 180, 16398, 788, 6, 4268032, 5260728), id="b-one-reinit"),
    pytest.param(Sent(1, True, 1049, 170, 16398, 1049, 6, 4268032, 5228488), id="m-10.0.13-to-11.1.3"),
    pytest.param(Sent(2, False, 184, 132, 16398, 184, 9, 8454144, 9228673), id="g2-no-precopy-plus-precopy"),
    pytest.param(Sent(4, False, 821, 400, 65550, 3284, 119, 117714944, 120101781), id="h-with-reinit-run1"),
])
def test_transferred_bytes_of_recordings(sent: Sent) -> None:
    table = sections(sent.n_vfio, sent.old)
    blocks = tuple((DATA, 0 if i else sent.data) for i in range(sent.blocks))  # only their sum matters
    vfio = [section.idstr for section in table if section.idstr.endswith("/vfio")]
    records = [
        Record("HEADER", "pc-q35-11.1"),
        Record("COMMAND", "OPEN_RETURN_PATH"), Record("COMMAND", "PING", (1,)),
        Record("START", "ram", (4096,)),
        *(Record("START", name, ((SETUP,), (END_OF_STATE,))) for name in vfio),
        Record("PART", "ram", ((0, sent.normal, False), (sent.normal, sent.zero, True))),
        *[Record("PART", "ram")] * (sent.ram_parts - 1),
        *[Record("PART", VFIO, ((END_OF_STATE,),))] * sent.vfio_parts,
        Record("COMMAND", "SWITCHOVER_START"), Record("END", "ram"),
        *(Record("END", name, (*(blocks if name == VFIO else ()), (END_OF_STATE,))) for name in vfio),
        *(Record("FULL", s.idstr, ((CONFIG,), (END_OF_STATE,)) if s.idstr in vfio else ()) for s in table),
        Record("EOF", ""), Record("VMDESCRIPTION", "", (stream.description_size(sent.n_vfio, sent.old),)),
    ]
    names = 84 if sent.ram_parts == 1 else 91  # pc.ram is named again in the second pass
    assert sum(map(record_size, records)) + names == sent.transferred


# --- sizes of single records ---

TABLE = sections(2)
items = st.one_of(st.just((SETUP,)), st.just((CONFIG,)),
                  st.integers(0, 1 << 20).map(lambda size: (DATA, size)),
                  st.integers(0, 100).map(lambda size: (DATA, size, "S", True)))
names = st.sampled_from([section.idstr for section in TABLE if section.idstr.endswith("/vfio")])
terminators = st.sampled_from([END_OF_STATE, SENT])
tags = st.builds(lambda some, last: (*some, (last,)), st.lists(items, max_size=3), terminators)
runs = st.lists(st.tuples(st.integers(0, 60000), st.integers(0, 40), st.booleans()), max_size=6).map(tuple)
commands = st.one_of(
    st.sampled_from(["OPEN_RETURN_PATH", "POSTCOPY_LISTEN", "POSTCOPY_RUN", "SWITCHOVER_START"]).map(
        lambda name: Record("COMMAND", name)),
    st.integers(0, (1 << 32) - 1).map(lambda value: Record("COMMAND", "PING", (value,))),
    st.binary(max_size=80).map(lambda data: Record("COMMAND", "POSTCOPY_RAM_DISCARD", (data,))),
    st.just(Record("COMMAND", "POSTCOPY_ADVISE", (bytes(16),))),
)
vmstates = [section for section in TABLE if not section.idstr.endswith("/vfio")]
fulls = st.sampled_from([Record("FULL", section.idstr, (section.instance_id,)) for section in vmstates])
packages = st.lists(st.one_of(commands, fulls), max_size=5).map(
    lambda records: Record("COMMAND", "PACKAGED", tuple(records)))
anything = st.one_of(
    commands, fulls, packages,
    st.sampled_from(["", "pc-q35-11.1", "pc-q35-10.0"]).map(lambda name: Record("HEADER", name)),
    st.sampled_from(["pc-q35-11.0", "none"]).map(lambda name: Record("CONFIGURATION", name)),
    st.builds(Record, st.sampled_from(["START", "PART", "END", "FULL"]), names, tags),
    st.integers(1, 4096).map(lambda mem: Record("START", "ram", ((mem << 20) + 532480,))),
    st.builds(Record, st.sampled_from(["PART", "END"]), st.just("ram"), runs),
    st.just(Record("EOF", "")), st.just(Record("VMDESCRIPTION", "")),
    st.integers(20000, 60000).map(lambda size: Record("VMDESCRIPTION", "", (size,))),
)


@given(anything)
def test_record_size_is_the_length_on_the_wire(record: Record) -> None:
    # pages need a RAM, here of 256 MiB; its last page before is in pc.ram, so that nothing is named
    before = [Record("START", "ram", ((256 << 20) + 532480,)), Record("PART", "ram", ((0, 1, True),))]
    assert len([*encode([*before, record], TABLE)][-1]) == record_size(record)


@given(names, st.lists(st.lists(items, min_size=1, max_size=3).map(tuple), min_size=1, max_size=4))
def test_a_section_in_pieces_is_the_section_in_one(name: str, pieces: list[tuple]) -> None:
    end = Record("MORE", name, ((END_OF_STATE,),))
    parts = [Record("END", name, pieces[0]), *(Record("MORE", name, piece) for piece in pieces[1:]), end]
    whole = Record("END", name, (*(item for piece in pieces for item in piece), (END_OF_STATE,)))
    assert b"".join(encode(parts, TABLE)) == b"".join(encode([whole], TABLE))
    assert sum(map(record_size, parts)) == record_size(whole)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 86), st.booleans()), min_size=1, max_size=9))
def test_pages_arrive_where_they_were(runs: list[tuple[int, int, bool]]) -> None:
    """Every page of a 1 MiB machine (386 pages) comes in order, in its block, named when it changes."""
    blocks = stream.ram_blocks((1 << 20) + 532480)
    where = [(b.idstr, page) for b in blocks for page in range(b.used_length // 4096)]
    expected = [(*where[page], zero) for first, count, zero in runs for page in range(first, first + count)]
    data = b"".join(encode([Record("HEADER", ""), Record("START", "ram", ((1 << 20) + 532480,)),
                            Record("PART", "ram", tuple(runs))], TABLE))
    got, block = [], None
    for name, first, count, zero in walk(data)[2][2]:
        assert not name or name != block
        block = name or block
        got += [(block, page, zero) for page in range(first, first + count)]
    assert got == expected


def test_description_is_the_devices_with_their_sizes() -> None:
    records = [Record("HEADER", "pc-q35-11.1"), Record("EOF", ""), Record("VMDESCRIPTION", "")]
    described = json.loads([*encode(records, TABLE)][-1][5:])
    assert described["page_size"] == 4096
    assert described["configuration"]["fields"][1]["size"] == 11
    assert [(d["name"], d["instance_id"], d["fields"][0]["size"]) for d in described["devices"]] == [
        (s.idstr, s.instance_id, s.size) for s in TABLE]
    # as in captured stream s5
    field = {"name": "data", "size": 292, "type": "buffer"}
    assert {"name": VFIO, "instance_id": 0, "size": 292, "fields": [field]} in described["devices"]


# --- bad input ---

START = Record("START", "ram", ((1 << 20) + 532480,))


@pytest.mark.parametrize(("records", "message"), [
    ([Record("FUL", "cpu")], r"record 0 \(FUL cpu\): unknown kind of record 'FUL': .*nearest is 'FULL'"),
    ([START, Record("FULL", "cpux")], r"record 1 \(FULL cpux\): unknown section 'cpux': .*nearest is 'cpu'"),
    ([Record("FULL", "dma", (2,))], r"section 'dma' has no instance 2"),
    ([Record("PART", "0000:00:09.0/vfio", ((END_OF_STATE,),))], r"unknown section '0000:00:09.0/vfio'"),
    ([Record("PART", VFIO, ((7,), (END_OF_STATE,)))], r"unknown VFIO tag 0x7"),
    ([Record("COMMAND", "PONG")], r"unknown command 'PONG': .*nearest is 'PING'"),
    ([Record("COMMAND", "PING", (b"\0",))], r"1 bytes of data: allowed are 4"),
    ([Record("COMMAND", "PING", (1 << 32,))], r"data 4294967296: allowed are 0 to 4294967295"),
    ([Record("PART", "ram", ((0, 1, True),))], r"pages before SECTION_START of ram"),
    ([START, Record("PART", "ram", ((380, 7, True),))], r"pages 380 to 386: allowed are 0 to 385"),
    ([Record("START", "ram", (4096,))], r"ram: 4096 bytes: allowed is 532480 and .* 4096 above it"),
    ([Record("PART", "cpu")], r"a vmstate device has FULL sections only"),
    ([Record("END", VFIO, ((DATA, 1),)), Record("EOF", "")], rf"section {VFIO} before it has no terminator"),
    ([Record("MORE", VFIO, ((END_OF_STATE,),))], r"there is no section without a terminator before it"),
    ([Record("VMDESCRIPTION", "", (10,))], r"10 bytes: the description needs \d+"),
])
def test_what_cannot_be_sent_is_said_in_one_line(records: list[Record], message: str) -> None:
    with pytest.raises(StreamError, match=message) as caught:
        list(encode(records, TABLE))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: record_size(Record("Full", "")), r"unknown kind of record 'Full'"),
    (lambda: record_size(Record("FULL", "hpett")), r"unknown section 'hpett': .*nearest is 'hpet'"),
    (lambda: record_size(Record("START", "rom")), r"unknown iterable section 'rom': .*nearest is 'ram'"),
    (lambda: record_size(Record("PART", "cpu")), r"unknown iterable section 'cpu'"),
    (lambda: sections(28), r"28 VFIO devices: allowed are 0 to 27"),
    (lambda: encode_return_path([RPMessage(4)]), r"message 0: type 4: allowed are 1 \(SHUT\), 2 \(PONG\)"),
    (lambda: encode_return_path([RPMessage(1, -1)]), r"value -1: allowed are 0 to"),
])
def test_bad_arguments_are_refused_in_one_line(call, message: str) -> None:
    with pytest.raises(StreamError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
