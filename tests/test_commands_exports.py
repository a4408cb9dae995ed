"""`migsim analyze --html FILE --chrome-trace FILE`: both files, one line where they cannot be written."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from migsim import read_journal
from migsim.cli import main

DATA = Path(__file__).parents[1] / "data" / "recordings" / "b-one-reinit"
LOGS = [str(DATA / "source.log.xz"), str(DATA / "destination.log.xz")]


def test_both_files_are_written_and_the_text_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", *LOGS]) == 0
    plain = capsys.readouterr().out
    files = tmp_path / "page.html", tmp_path / "trace.json"
    assert main(["analyze", *LOGS, "--html", str(files[0]), "--chrome-trace", str(files[1])]) == 0
    assert capsys.readouterr().out == plain
    assert "<h1>b-one-reinit/source.log.xz</h1>" in files[0].read_text("utf-8")
    assert str(DATA.parent) not in files[0].read_text("utf-8")  # where the log was is nobody's business
    events = json.loads(files[1].read_text("utf-8"))["traceEvents"]
    assert events[0]["args"] == {"name": "source QEMU"}
    queries = len(read_journal(*LOGS).all("qemu_savevm_query_pending"))  # none of them folded
    assert sum(e["name"] == "pending bytes" for e in events) == queries > 500
    again = tmp_path / "again.html", tmp_path / "again.json"
    assert main(["analyze", *LOGS, "--html", str(again[0]), "--chrome-trace", str(again[1])]) == 0
    assert [f.read_bytes() for f in again] == [f.read_bytes() for f in files]


@pytest.mark.parametrize("option", ["--html", "--chrome-trace"])
def test_what_cannot_be_written_is_one_line(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "source.log"
    log.write_text("2026-11-23T03:16:20.149396Z runstate_set current_run_state 1 (prelaunch) new_state 9 (running)\n")
    for argv, told in (([*LOGS, option, str(tmp_path / "no" / "file")], "No such file or directory"),
                       ([*LOGS, option, str(tmp_path)], "no regular file"),
                       ([str(log), option, str(log)], "this is the log: give another file")):
        assert main(["analyze", *argv]) == 2
        out, err = capsys.readouterr()
        assert out == "" and told in err and err.count("\n") == 1
    assert main(["analyze", str(log), option, str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err == f"migsim: {log}: no migration in it: no file is written\n"
    assert [p.name for p in tmp_path.iterdir()] == ["source.log"]
