"""Captured streams to the last byte, the model's stream with the same eyes, and everything that is no stream."""
from __future__ import annotations

import gzip
import json
import os
import struct
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migsim import streamfile, walk
from migsim.qemu import stream as q
from migsim.qemu.stream import Record, sections
from migsim.qemu.wire import encode, encode_return_path
from migsim.run import Run
from migsim.scenario import load_scenario
from migsim.walk import Damage, Piece, Reader, Walker, WalkError

STREAMS = sorted((Path(__file__).parents[1] / "data" / "streams").glob("s*"))
CAPTURED = json.loads((Path(__file__).parent / "fixtures" / "streams.json").read_text())
SETUP, END_OF_STATE = (q.VFIO_MIG_FLAG_DEV_SETUP_STATE,), (q.VFIO_MIG_FLAG_END_OF_STATE,)
CONFIG, SENT = (q.VFIO_MIG_FLAG_DEV_CONFIG_STATE,), (q.VFIO_MIG_FLAG_DEV_INIT_DATA_SENT,)
DATA = (q.VFIO_MIG_FLAG_DEV_DATA_STATE, 100)
NICS = ("0000:00:04.0/vfio", "0000:00:05.0/vfio")
BEGIN = [Record("HEADER", "pc-q35-11.1"), Record("COMMAND", "OPEN_RETURN_PATH"), Record("COMMAND", "PING", (1,)),
         Record("START", "ram", (34086912,)), *(Record("START", nic, (SETUP, END_OF_STATE)) for nic in NICS),
         Record("PART", "ram", ((0, 2, False), (8190, 5, True))), Record("PART", NICS[1], (DATA, SENT)),
         Record("PART", NICS[0], (DATA, END_OF_STATE))]
PRECOPY = [*BEGIN, Record("COMMAND", "SWITCHOVER_START"), Record("END", "ram"),
           *(Record("END", nic, (DATA, DATA, END_OF_STATE)) for nic in NICS),
           Record("FULL", "timer"), Record("FULL", "dma", (1,)), Record("FULL", NICS[0], (CONFIG, END_OF_STATE)),
           Record("EOF", ""), Record("VMDESCRIPTION", "", (q.description_size(2),))]
POSTCOPY = [*BEGIN[:4], Record("PART", "ram", ((0, 2, False),)), Record("COMMAND", "POSTCOPY_RAM_DISCARD", (b"12345",)),
            Record("COMMAND", "PACKAGED", (Record("COMMAND", "POSTCOPY_LISTEN"), Record("FULL", "timer"),
                                           Record("COMMAND", "POSTCOPY_RUN"))),
            Record("PART", "ram", ((9, 1, False),)), Record("END", "ram"), Record("EOF", "")]


def sent(records: list[Record], devices: int = 2) -> bytes:
    return b"".join(encode(records, sections(devices)))


def read(data: bytes) -> tuple[list[Piece], Damage | None]:
    pieces: list[Piece] = []
    try:
        for piece in Walker(data).pieces():
            pieces.append(piece)
    except Damage as error:
        return pieces, error
    return pieces, None


def whole(folder: Path) -> walk.Walk:
    back = folder / "return-path.bin.gz"
    return walk.walk(folder / "forward.bin.gz", back if back.exists() else None)


# --- real streams ---

def row(p: Piece) -> list:
    """A record as the fixture writes it, without what is inside."""
    if p.section_id is not None:
        named = [p.name, p.instance_id, p.version_id] if p.version_id is not None else []
        return [p.kind, p.section_id, *named, p.payload]
    if p.kind == "COMMAND":
        return [p.kind, q.MIG_CMD[p.name], p.detail.hex()]
    return [p.kind, *([p.name] if p.name else []), *([p.payload] if p.kind == "VMDESCRIPTION" else [])]


@pytest.mark.parametrize("folder", STREAMS, ids=lambda f: f.name)
def test_every_record_of_a_captured_stream(folder: Path) -> None:
    real = CAPTURED[folder.name[:2]]
    listed = [r for times, rows in real["rows"] for _ in range(times) for r in rows]
    found = whole(folder)
    expected = [[*r[:-2], r[-1]] if len(r) > 3 else r for r in listed if r[0] not in ("HEADER", "cut")]
    assert [row(p) for p in found.pieces[1:]] == expected
    assert found.size == real["bytes"]
    cut = sum(r[1] for r in listed if r[0] == "cut")
    assert sum(p.size for p in found.pieces) == real["bytes"] - cut
    assert bool(found.problem) == bool(cut)


@pytest.mark.parametrize("folder", STREAMS, ids=lambda f: f.name)
def test_tags_and_pages_of_a_captured_stream(folder: Path) -> None:
    listed = [r for times, rows in CAPTURED[folder.name[:2]]["rows"] for _ in range(times) for r in rows]
    short = {"DEV_CONFIG_STATE": "CONFIG", "DEV_SETUP_STATE": "SETUP", "DEV_DATA_STATE": "DATA",
             "DEV_INIT_DATA_SENT": "INIT_DATA_SENT", "END_OF_STATE": "END_OF_STATE"}
    inside = [r[-2] for r in listed if r[0] in ("START", "PART", "END", "FULL")]
    found = [p for p in whole(folder).pieces if p.section_id is not None]
    for p, real in zip(found, inside, strict=True):
        if isinstance(p.detail, tuple):
            assert [[short[tag], *([size] if size else [])] for tag, size in p.detail] == real
        elif p.name == "ram" and p.kind == "START":
            assert [list(b) for b in p.detail.items()] == real
        elif p.name == "ram":
            pages = [(sum(n for _, _, n, zero in real if zero is z)) for z in (False, True)]
            assert [p.detail.get("PAGE", 0), p.detail.get("ZERO", 0)] == pages


@pytest.mark.parametrize("name, acks", [("s5", 2), ("s6", 1), ("s8", 1)])
def test_return_paths(name: str, acks: int) -> None:
    found = whole(next(f for f in STREAMS if f.name.startswith(name)))
    assert [m.name for m in found.return_path] == ["PONG", *["SWITCHOVER_ACK"] * acks, "SHUT"]
    assert not found.return_path_problem


def test_the_failed_migration_ends_before_a_footer() -> None:
    found = whole(next(f for f in STREAMS if f.name.startswith("s8")))
    assert found.problem == ("offset 712206 in PART ram from 699881 on: section footer (5 bytes) expected, 0 left")


# --- the model's stream of the same scenario ---

def layout(pieces: list[Piece]) -> list[tuple]:
    """Order, headers, tags and sizes; how often a guest's few dirty pages make a turn worth it is left out."""
    out = []
    for p in pieces:
        turn = p.kind == "PART" and (p.detail == walk.QUIET or (p.name == "ram" and "ZERO" not in p.detail))
        if not turn:
            out.append((p.kind, p.phase, p.name, p.section_id, p.instance_id, p.version_id, p.size, p.detail))
    return out


@pytest.mark.parametrize("folder", STREAMS, ids=lambda f: f.name)
def test_the_model_sends_what_qemu_sent(folder: Path) -> None:
    done = Run(load_scenario(folder), (None, None), keep_records=True)
    acct, real = done.world.acct, whole(folder)
    pieces, problem = read(sent(acct.records, len(done.scenario.devices)))
    assert layout(pieces) == layout(real.pieces)
    assert bool(problem) == bool(real.problem)
    back = list(walk.messages(Reader(encode_return_path(acct.answers))))
    kept = real.return_path[:len(back)]  # a source that has failed no longer reads SHUT (s8)
    assert back == kept and len(real.return_path) - len(back) == bool(problem and real.return_path)


def test_the_model_ends_postcopy_with_a_last_section_and_eof() -> None:
    """Recording ram-postcopy: the destination traces sections 3 and 0, and 44 KB of description do not fit in."""
    done = Run(load_scenario(STREAMS[0].parents[1] / "recordings" / "ram-postcopy"), (None, None), keep_records=True)
    pieces, problem = read(sent(done.world.acct.records, 0))
    assert problem is None
    assert [(p.kind, p.phase) for p in pieces[-3:]] == [("PART", "postcopy"), ("END", "postcopy"), ("EOF", "postcopy")]
    inside = [p.name for p in pieces if p.packaged]
    assert inside[0] == "POSTCOPY_LISTEN" and inside[-1] == "POSTCOPY_RUN" and inside.count("PING") == 2


# --- other streams ---

def test_several_devices() -> None:
    pieces, problem = read(sent(PRECOPY))
    assert problem is None
    assert [(p.kind, p.name) for p in pieces if p.section_id is not None and "vfio" in p.name] == [
        ("START", NICS[0]), ("START", NICS[1]), ("PART", NICS[1]), ("PART", NICS[0]), ("END", NICS[0]),
        ("END", NICS[1]), ("FULL", NICS[0])]
    assert [p.offset for p in pieces] == [0, *accumulate(p.size for p in pieces)][:-1]


def test_a_package_is_walked_too() -> None:
    data = sent(POSTCOPY, 0)
    pieces, problem = read(data)
    assert problem is None and sum(p.size for p in pieces) == len(data)
    assert [(p.kind, p.name) for p in pieces if p.packaged] == [
        ("COMMAND", "POSTCOPY_LISTEN"), ("FULL", "timer"), ("COMMAND", "POSTCOPY_RUN")]
    assert [p.phase for p in pieces if p.name == "ram"] == ["setup", "precopy", "postcopy", "postcopy"]


def test_a_footer_inside_a_device_is_none() -> None:
    timer = next(s for s in sections(0) if s.idstr == "timer")
    mark = walk.footer(timer.section_id)
    plain = sent([Record("HEADER", "m"), Record("FULL", "timer"), Record("EOF", "")], 0)
    at = plain.index(b"timer", 30)
    tricked = plain[:at] + mark + b"\x09" + plain[at + 6:]  # 9 is no record type
    pieces, problem = read(tricked)
    assert problem is None and pieces[2].payload == timer.size
    described = sent([Record("HEADER", "m"), Record("FULL", "timer"), Record("EOF", ""),
                      Record("VMDESCRIPTION", "", (q.description_size(0),))], 0)
    tricked = described[:at] + mark + b"\x00\x06" + described[at + 7:]  # looks like EOF and description
    pieces, problem = read(tricked)
    assert problem is None and pieces[2].payload == timer.size


def test_page_sizes_behind_blocks_are_passed() -> None:
    """Postcopy with huge pages: be64 page size after each block (facts sheet 5.3)."""
    block = bytes((6,)) + b"pc.ram" + struct.pack(">QQ", 1 << 21, 1 << 21)
    start = struct.pack(">BI", 1, 2) + b"\3ram" + struct.pack(">II", 0, 4) + struct.pack(">Q", 1 << 22 | 4)
    ram = start + block + block.replace(b"pc", b"xy") + struct.pack(">Q", 0x10) + walk.footer(2)
    pieces, problem = read(sent([Record("HEADER", "m")]) + ram + b"\0")
    assert problem is None and pieces[2].detail == {"pc.ram": 1 << 21, "xy.ram": 1 << 21}


def configured(*subsections: bytes) -> bytes:
    return sent([Record("HEADER", "m")]) + b"".join(subsections) + b"\0"


def capability(name: str) -> bytes:
    return (b"\5\x1aconfiguration/capabilities" + struct.pack(">II", 1, 1) + bytes((len(name),)) + name.encode())


def test_subsections_of_the_configuration() -> None:
    bits = b"\5\x1econfiguration/target-page-bits" + struct.pack(">II", 1, 14)
    pieces, problem = read(configured(bits, capability("x-ignore-shared")))
    assert problem is None
    assert pieces[1].detail == {"target-page-bits": 14, "capabilities": ["x-ignore-shared"]}


def test_pages_are_as_large_as_the_configuration_says() -> None:
    bits = b"\5\x1econfiguration/target-page-bits" + struct.pack(">II", 1, 14)
    begun = sent(BEGIN[:1])
    start = sent([*BEGIN[:1], BEGIN[3]], 0)[len(begun):]
    part = b"\2" + struct.pack(">I", 1) + struct.pack(">Q", 8) + b"\6pc.ram" + bytes(1 << 14) + struct.pack(">Q", 0x10)
    pieces, problem = read(begun + bits + start + part + walk.footer(1) + b"\0")
    assert problem is None and pieces[3].detail == {"PAGE": 1, "EOS": 1}


@pytest.mark.parametrize("data, at, told", [
    (b"QEVM\0\0\0\2", 4, "version 3 expected, found 2"),
    (sent(PRECOPY)[:-1], None, "0 left|left"), (sent(BEGIN), len(sent(BEGIN)), "next record or EOF expected, 0 left"),
    (sent(BEGIN) + b"\x09", len(sent(BEGIN)), "record type (EOF 0, START 1, PART 2, END 3, FULL 4, VMDESCRIPTION 6"),
    (sent(BEGIN) + b"\x08\0\x0c\0\0", len(sent(BEGIN)), "found 12 with 0 bytes"),
    (sent(BEGIN) + b"\x08\0\2\0\3", len(sent(BEGIN)), "PING with 4 bytes"),
    (sent(BEGIN) + b"\2\0\0\0\x63", len(sent(BEGIN)), "that a START has named expected, found section id 99"),
    (sent([*BEGIN, Record("EOF", "")]) + b"more", len(sent(BEGIN)) + 1, "end of file expected, 4 bytes left"),
    (configured(capability("mapped-ram")), 8, "pages at fixed offsets"),
    (sent(BEGIN) + b"\x08\0\7\0\4\0\0\0\x10\x08\0\4\0\0", len(sent(BEGIN)) + 14, "package of 16 bytes"),
    (sent(BEGIN) + b"\2\0\0\0\1" + struct.pack(">Q", 0x100), len(sent(BEGIN)) + 5, "RAM flags (ZERO 0x2"),
    (sent(BEGIN) + b"\2\0\0\0\1" + struct.pack(">Q", 2) + b"\1x", len(sent(BEGIN)) + 13, "name of a RAM block"),
    (sent(BEGIN) + b"\2\0\0\0\x25" + struct.pack(">Q", 7), len(sent(BEGIN)) + 5, "VFIO tag (0xffffffffef100001 to"),
    (sent(BEGIN) + b"\2\0\0\0\x25" + struct.pack(">QQ", DATA[0], 1 << 60), len(sent(BEGIN)) + 21,
     "device data (1152921504606846976 bytes) expected, 0 left"),
])
def test_damage_is_named_with_its_place(data: bytes, at: int | None, told: str) -> None:
    _, problem = read(data)
    assert problem is not None
    assert at is None or problem.at == at
    assert any(part in str(problem) for part in told.split("|"))


# --- whatever the bytes are ---

SMALL = (sent(PRECOPY), sent(POSTCOPY, 0), encode_return_path([q.RPMessage(2, 1), q.RPMessage(7), q.RPMessage(1)]))


def sane(data: bytes) -> None:
    pieces, problem = read(data)
    assert [p.offset for p in pieces] == [0, *accumulate(p.size for p in pieces)][:len(pieces)]
    assert problem is not None or sum(p.size for p in pieces) == len(data)
    assert problem is None or (0 <= problem.at <= len(data) and "expected" in str(problem))


@settings(max_examples=300, deadline=2000)
@given(st.sampled_from(SMALL[:2]), st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=6))
def test_flipped_bytes(data: bytes, flips: list[tuple[int, int]]) -> None:
    changed = bytearray(data)
    for at, value in flips:
        changed[at % len(data)] = value
    sane(bytes(changed))


@settings(deadline=2000)
@given(st.sampled_from(SMALL[:2]), st.integers(0, 1 << 20), st.binary(max_size=60), st.integers(0, 40))
def test_cuts_and_garbage(data: bytes, at: int, garbage: bytes, left_out: int) -> None:
    at %= len(data)
    sane(data[:at] + garbage + data[at + left_out:])
    _, problem = read(data[:at])
    assert problem is not None


@given(st.binary(max_size=80))
def test_a_return_path_of_garbage(data: bytes) -> None:
    found = []
    try:
        for message in walk.messages(Reader(data)):
            found.append(message)
    except Damage as error:
        assert 0 <= error.at <= len(data)
    assert sum(4 + len(m.data) for m in found) <= len(data)


def test_what_is_remembered_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value, told in (("MAX_ITEMS", 5, "at most 5 records, tags and blocks"),
                              ("MAX_SECTIONS", 2, "at most 2 sections")):
        with monkeypatch.context() as small:
            small.setattr(walk, name, value)
            assert f"{told} expected, more are there" in str(read(sent(PRECOPY))[1])


def test_a_description_that_nests_without_end() -> None:
    inner = b'{"devices": ' + b"[" * 100_000
    data = sent([Record("HEADER", "m"), Record("EOF", "")]) + b"\6" + struct.pack(">I", len(inner)) + inner
    _, problem = read(data)
    assert "JSON object expected" in str(problem)


# --- files ---

@pytest.mark.parametrize("content, told", [
    (b"", "begins with nothing"), (b"\x89PNG\r\n", "a PNG picture"), (b"\x11\x22\x33\x44\0\0", "a multifd channel"),
    (b"2026-11-23T03:16:20Z migrate_set_state", "51 45 56 4d (QEVM) expected"),
    (gzip.compress(gzip.compress(b"QEVM")), "gzip in gzip"), (b"\x1f\x8b garbage", "gzip: "),
    (gzip.compress(b"QEVM" * 10)[:-4] + b"abcd", "gzip: "),
])
def test_foreign_files(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(WalkError) as error:
        walk.walk(tmp_path / "f")
    assert told in str(error.value) and "\n" not in str(error.value)


def test_a_gzip_file_that_is_cut_gives_what_it_has(tmp_path: Path) -> None:
    packed = (STREAMS[0] / "forward.bin.gz").read_bytes()
    (tmp_path / "f").write_bytes(packed[:len(packed) // 2])
    found = walk.walk(tmp_path / "f")
    assert found.pieces[1].name == "pc-q35-11.1" and "left" in found.problem


def test_a_gzip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamfile, "MAX_UNPACKED", 1 << 22)
    (tmp_path / "f").write_bytes(gzip.compress(b"QEVM" + bytes(1 << 24)))
    with pytest.raises(WalkError, match="more than 4194304 bytes unpacked"):
        walk.walk(tmp_path / "f")


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, told in ((tmp_path, "no regular file"), (tmp_path / "pipe", "no regular file"),
                       (tmp_path / "nix", "No such file or directory")):
        with pytest.raises(WalkError, match=told):
            walk.walk(path)


def test_a_return_path_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"QEVM")
    with pytest.raises(WalkError, match=r"INVALID|message \(SHUT 1, PONG 2"):
        walk.walk(STREAMS[0] / "forward.bin.gz", tmp_path / "f")
