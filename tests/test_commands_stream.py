"""`migsim stream`: what it prints, and one line for what it cannot read. The README's block is its golden text."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migsim import streamreport
from migsim.cli import main
from migsim.qemu.stream import Record
from migsim.walk import Walk, Walker
from test_walk import BEGIN, NICS, POSTCOPY, PRECOPY, STREAMS, sent

S8 = next(f for f in STREAMS if f.name.startswith("s8"))


def found(data: bytes) -> Walk:
    return Walk(len(data), "m", list(Walker(data).pieces()), "", {}, [], "")


def test_a_cut_stream_gives_what_it_has_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(S8 / "forward.bin.gz")
    assert main(["stream", path]) == 2
    out, err = capsys.readouterr()
    assert out.startswith(f"{path}: 712206 bytes, pc-q35-11.1, 699881 of them in whole records\n")
    assert "336 small PART sections: ram, 0000:00:04.0/vfio, 19 pages" in out
    assert err == (f"migsim: {path}: offset 712206 in PART ram from 699881 on: section footer (5 bytes) expected, "
                   "0 left\n")


def test_a_cut_return_path_is_told_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "back").write_bytes(bytes.fromhex("0002000400000001" "00070000" "0001"))
    assert main(["stream", str(STREAMS[0] / "forward.bin.gz"), str(tmp_path / "back")]) == 2
    out, err = capsys.readouterr()
    assert "return path: PONG 1, SWITCHOVER_ACK\n" in out
    assert err == f"migsim: {tmp_path / 'back'}: offset 14: message length (2 bytes) expected, 0 left\n"


def test_json_has_every_record(capsys: pytest.CaptureFixture[str]) -> None:
    s5 = next(f for f in STREAMS if f.name.startswith("s5"))
    assert main(["stream", str(s5 / "forward.bin.gz"), str(s5 / "return-path.bin.gz"), "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["complete"] and got["bytes"] == sum(r["size"] for r in got["records"]) == 2588496
    assert sum(sum(row.values()) for row in got["bytes_by_module"].values()) == 2588496
    assert got["bytes_by_module"]["0000:00:04.0/vfio"] == {"setup": 52, "precopy": 87116, "switchover": 1573242}
    assert [m["message"] for m in got["return_path"]] == ["PONG", "SWITCHOVER_ACK", "SWITCHOVER_ACK", "SHUT"]
    assert len(got["described"]) == 30


def test_a_listing_of_a_package() -> None:
    lines = list(streamreport.listing(found(sent(POSTCOPY, 0)), every=True))
    assert [line[23:] for line in lines if "POSTCOPY" in line or "timer" in line] == [
        "COMMAND POSTCOPY_RAM_DISCARD 3132333435", "  COMMAND POSTCOPY_LISTEN",
        "  FULL timer id 0 instance 0 version 2", "  COMMAND POSTCOPY_RUN"]


def test_a_description_that_does_not_fit_is_told() -> None:
    walk = found(sent(PRECOPY))
    fits = {"devices": [{"name": "timer", "instance_id": 0, "size": 24}, {"name": "dma", "instance_id": 1, "size": 75},
                        {"name": NICS[0], "instance_id": 0, "size": 292}]}
    lines = list(streamreport.totals(walk._replace(description=fits)))
    assert "description: 3 devices; the sizes that it gives are those sent" in lines
    fits["devices"][0]["size"] = 25
    lines = list(streamreport.totals(walk._replace(description=fits)))
    assert "description: 3 devices; other sizes than sent: timer" in lines


@given(st.text(min_size=1, max_size=40))
def test_names_cannot_drive_a_terminal(name: str) -> None:
    walk = found(sent([*BEGIN, Record("EOF", "")]))
    pieces = [p._replace(name=name, detail={name: 1} if p.kind == "START" else p.detail)
              if p.section_id is not None or p.kind == "CONFIGURATION" else p for p in walk.pieces]
    text = streamreport.summary(walk._replace(machine=name, pieces=pieces), name, every=True)
    assert all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.parametrize("content, told", [(b"\x89PNG\r\n\x1a\n", "a PNG picture"), (b"{}", "begins with 7b 7d")])
def test_a_foreign_file_is_one_line(content: bytes, told: str, tmp_path: Path,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f").write_bytes(content)
    assert main(["stream", str(tmp_path / "f")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and told in err and err.count("\n") == 1
