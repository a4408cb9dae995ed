"""The results file: gone on with after a kill, whole or torn; never another one's."""
from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from migsim import sweep
from migsim.results import Results, SweepError
from migsim.sweep import load_sweep, run_sweep
from sweeps import MANY, expected, made

ROOT = Path(__file__).parent.parent


def test_gone_on_with_at_any_torn_byte(tmp_path: Path) -> None:
    out, got = tmp_path / "r.jsonl", made()
    rows = run_sweep(got, out)
    whole = out.read_bytes()
    for cut in (*range(0, len(whole), 97), len(whole) - 1):
        out.write_bytes(whole[:cut])
        assert run_sweep(got, out) == rows and out.read_bytes() == whole


def test_what_is_there_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, got = tmp_path / "r.jsonl", made()
    run_sweep(got, out)
    monkeypatch.setattr(sweep, "run", lambda *_: pytest.fail("ran again"))
    seen: list[int] = []
    assert len(run_sweep(got, out, progress=seen.append)) == 6 and seen == [6]


def test_another_sweeps_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    run_sweep(made(), out)
    before = out.read_bytes()
    with pytest.raises(SweepError, match=r"r\.jsonl: rows of another sweep, .*; give another --out$"):
        run_sweep(made(measure=["acks"]), out)
    out.write_bytes(before.replace(b'"migsim": "', b'"migsim": "9'))
    with pytest.raises(SweepError, match=r"rows of migsim '9"):
        run_sweep(made(), out)
    out.write_bytes(before)
    with pytest.raises(SweepError, match="another process is writing it"), Results(out, made()):
        run_sweep(made(), out)
    assert out.read_bytes() == before


@pytest.mark.parametrize("text", ["precious", "{}\n", '{"sweep": 3}\n', "[" * 9999 + "\n"])
def test_a_file_that_is_not_ours_is_left_alone(text: str, tmp_path: Path) -> None:
    out = tmp_path / "notes.txt"
    out.write_text(text)
    with pytest.raises(SweepError, match="not a results file of a sweep"):
        run_sweep(made(), out)
    assert out.read_text() == text


@pytest.mark.parametrize("damage", [lambda ls: [*ls, ls[2]], lambda ls: [ls[0], "x\n", *ls[1:]],
                                    lambda ls: [ls[0], ls[1].replace('"run": 0', '"run": 1'), *ls[2:]]])
def test_a_damaged_file_is_refused(damage: Callable, tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    run_sweep(made(), out)
    out.write_text("".join(damage(out.read_text().splitlines(keepends=True))))
    with pytest.raises(SweepError, match=r"line \d is no row of this sweep"):
        run_sweep(made(), out)


def children(pid: int) -> list[int]:
    return [int(p) for task in Path(f"/proc/{pid}/task").glob("*/children") for p in task.read_text().split()]


def wait_until(holds: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_killed_and_started_again_it_goes_on(tmp_path: Path) -> None:
    out, what = tmp_path / "r.jsonl", tmp_path / "many.json"
    what.write_text(json.dumps(MANY))
    command = [sys.executable, "-m", "migsim", "sweep", str(what), "--out", str(out), "--workers", "2"]
    for rows in (20, 120):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT)
        wait_until(lambda rows=rows: out.exists() and out.read_bytes().count(b"\n") > rows)
        workers = [pid for child in children(process.pid) for pid in (child, *children(child))]
        assert workers
        process.kill()
        process.wait()
        wait_until(lambda workers=workers: not any(Path(f"/proc/{pid}").exists() for pid in workers), 10)
    before = out.read_bytes().count(b"\n")
    assert 120 < before < 401
    assert run_sweep(load_sweep(what), out) == expected()
    assert out.read_bytes().count(b"\n") == 401
