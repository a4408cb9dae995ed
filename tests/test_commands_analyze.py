"""`migsim analyze`: text and JSON, one side, two clocks, hostile logs. The README's block is its golden text."""
from __future__ import annotations

import gzip
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from migsim import log, run
from migsim.cli import main
from migsim.commands import analyze as command
from migsim.journal import open_text
from migsim.report import write
from test_log import CUTS, SAMPLE, STAMP, mutated

DATA = Path(__file__).parents[1] / "data"
FOLDERS = sorted(p.parent for p in DATA.glob("recordings*/*/scenario.json"))
KEYS = {"status", "error", "vfio_bytes", "downtime_ms", "guest_downtime_ms", "scheme", "base", "clock_offset_ms",
        "downtime_ledger", "ack_ledger", "rules", "missing"}


def logs(name: str, *sides: str) -> list[str]:
    folder = next(f for f in FOLDERS if f.name == name)
    return [str(folder / f"{side}.log.xz") for side in sides or ("source", "destination")]


def told(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(["analyze", *args]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def as_json(capsys: pytest.CaptureFixture[str], *args: str) -> list[dict[str, Any]]:
    return json.loads(told(capsys, *args, "--json"))["migrations"]


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(["analyze", *args]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("migsim: ")
    return err[len("migsim: "):-1]


# --- JSON ---


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_json_says_what_qmp_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = as_json(capsys, *logs(folder.name))[-1]
    said = json.loads((folder / "source-query-migrate.json").read_text())
    assert set(one) >= KEYS
    assert (one["status"], one["error"]) == (said["status"], said.get("error-desc"))
    assert (one["downtime_ms"] is None) == ("downtime" not in said)
    assert one["downtime_ms"] is None or abs(one["downtime_ms"] - said["downtime"]) < 1
    assert round(sum(s["ms"] for s in one["downtime_ledger"]), 3) == (one["downtime_ms"] or 0)
    assert one["vfio_bytes"] == said.get("vfio", {"transferred": one["vfio_bytes"]})["transferred"]
    assert one["vfio_bytes"] is not None or one["vfio_bytes_note"]


def test_json_of_one_migration(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = as_json(capsys, *logs("n-cancel-then-again"))
    assert (first["status"], second["status"]) == ("cancelled", "completed")
    assert (second["scheme"], second["base"], second["ends_agree"]) == ("new", "merged", True)
    assert second["ends"]["destination"]["bases"] == "p11 to merged"
    assert [(a["device"], a["why"]) for a in second["ack_ledger"]] == [("vfio0", "first"), ("vfio0", "REINIT")]
    assert {"what": "final check", "device": "vfio0", "ms": 1.054} in second["downtime_ledger"]
    assert second["start"] == "2026-11-23T03:41:43.320534+00:00"


def test_json_names_the_lines_of_a_violated_rule(capsys: pytest.CaptureFixture[str]) -> None:
    one = as_json(capsys, *logs("i6-stop-with-reinit-at-stop-tcp"))[0]
    rule = next(r for r in one["rules"] if r["verdict"] == "violated")
    text = list(open_text(Path(logs("i6-stop-with-reinit-at-stop-tcp")[0])))
    assert rule["id"] == "abort-implies-guest-was-running" and len(rule["lines"]) == 2
    there = [text[int(line.split(":")[1]) - 1].split(" ", 2)[1] for line in rule["lines"]]
    assert there == ["migration_thread_low_pending", "migrate_error"]


# --- text ---


def test_one_side_only(capsys: pytest.CaptureFixture[str]) -> None:
    there = told(capsys, *logs("b-one-reinit", "destination"))
    assert "by the destination's clock\nwritten by  destination p11 to merged (new ack)\n" in there
    assert "downtime    none (no log of the source) as QEMU reports it\n" in there
    assert "vfio0   not traced      -       -   211.7     211.8        -\n" in there and "never counted" not in there
    here = told(capsys, *logs("b-one-reinit", "source"))
    assert "downtime    26.1 ms as QEMU reports it\n" in here and "\nclock " not in here
    assert "  at the destination" in here


def test_the_order_of_the_logs_does_not_matter(capsys: pytest.CaptureFixture[str]) -> None:
    source, destination = logs("b-one-reinit")
    assert told(capsys, source, destination) == told(capsys, destination, source)


def shifted(path: str, out: Path, seconds: int) -> str:
    """The same log by a clock that is ahead."""
    text = re.sub(r"(?m)^(2026-11-23T03:)(\d\d):", lambda m: f"{m[1]}{int(m[2]) + seconds // 60:02d}:",
                  "".join(open_text(Path(path))))
    out.write_text(text)
    return str(out)


def test_two_clocks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, destination = logs("b-one-reinit")
    away = shifted(destination, tmp_path / "destination.log", 120)
    one, there = as_json(capsys, source, destination)[0], as_json(capsys, source, away)[0]
    assert there["clock_offset_low_ms"] <= 120_000 <= there["clock_offset_high_ms"]
    assert there["clock_offset_high_ms"] - there["clock_offset_low_ms"] < 1
    assert abs(there["clock_offset_ms"] - 120_000) < 0.5 and one["clock_offset_ms"] == 0
    assert abs(there["guest_downtime_ms"] - one["guest_downtime_ms"]) < 0.5
    given = as_json(capsys, source, away, "--clock-offset", "120000")[0]
    assert (given["ack_ledger"], given["downtime_ledger"]) == (one["ack_ledger"], one["downtime_ledger"])
    wrong = told(capsys, source, away, "--clock-offset", "119000")
    assert "clock       the destination's is 119000.000 ms ahead (given; messages allow 119999.989 to" in wrong


@pytest.mark.parametrize("value", ["soon", "nan", "inf", "1e13", ""])
def test_a_clock_offset_is_a_number(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["analyze", "x", f"--clock-offset={value}"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (f"migsim analyze: argument --clock-offset: {value!r} is no number of "
                                       "milliseconds (allowed: -1e12 to 1e12)\n")


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "".join(line for line in open_text(Path(logs("b-one-reinit")[0])) if "vfio_query_precopy_size" not in line)
    (tmp_path / "log").write_text(text)
    out = told(capsys, str(tmp_path / "log"))
    assert "\nmissing: source: no vfio_query_precopy_size events: enable `vfio_*` (initial data and REINIT)\n" in out
    assert re.search(r"(?m)^QEMU traces what is read here with -msg timestamp=on -D LOG -trace 'migrat\*' ", out)


def test_no_migration_in_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").write_text(f"{STAMP}vfio_migration_realize  (vfio0)\n")
    assert told(capsys, str(tmp_path / "log")).startswith("no migration in 1 events\nQEMU traces what is read here")
    assert as_json(capsys, str(tmp_path / "log")) == []


def test_all_shows_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few, every = (told(capsys, *logs("h-with-reinit-run1"), *options) for options in ([], ["--all"]))
    assert "the last 12 of 39 windows; --all shows all" in few and "--all" not in every
    assert len(re.findall(r"(?m)^ +[\d.]+ +\d+ +\d+ +\d+ +\d+ ", every)) == 39
    assert " small parts " in few and " small parts " not in every
    assert "\n  holds    one-final-query (" in every
    lines = [f"{STAMP}migrate_set_state new state {state}\n" for state in ["setup"] + ["active", "device"] * 300]
    (tmp_path / "log").write_text(f"{STAMP}savevm_state_setup \n" + "".join(lines))
    assert "\n  ... 402 more; --all shows all\n" in told(capsys, str(tmp_path / "log"))


# --- simulated ---


@pytest.mark.parametrize("base", ["old", "p12", "merged"])
def test_what_run_writes_is_read(base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(DATA / "scenarios" / "first-migration.yaml", base=base)
    write(done, tmp_path / "out")
    one = as_json(capsys, *(str(tmp_path / "out" / f"{side}.log") for side in ("source", "destination")))[0]
    assert one["status"] == "completed" and abs(one["downtime_ms"] - done.outcome["downtime"]) <= 1
    assert one["vfio_bytes"] == done.outcome["vfio"]["transferred"]
    assert abs(one["guest_downtime_ms"] - done.world.acct.guest_down_ns / 1e6) < 0.1


# --- hostile ---


def test_text_of_a_log_does_not_act(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "".join(open_text(Path(logs("b-one-reinit")[0]))).replace("vfio0", "<script>\x1b[2J\x07\u202e")
    (tmp_path / "log").write_text(text + f"{STAMP}oh \x1b[31m\n\x1b]0;mine\x07\n")
    for options in ([], ["--all"]):
        out = told(capsys, str(tmp_path / "log"), *options)
        assert "<script>\\x1b[2J\\x07\\x202e" in out and "note: " in out
        assert all(c.isprintable() for c in out.replace("\n", ""))
    assert all(c.isprintable() for c in told(capsys, str(tmp_path / "log"), "--json").replace("\n", ""))


@pytest.mark.parametrize("content", [b"", bytes(100_000), b"hello\n" * 9, gzip.compress(bytes(5_000_000)),
                                     b"\x1f\x8b\x08broken", b"\xfd7zXZ\x00broken"])
def test_no_log_gives_one_line(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").write_bytes(content)
    assert refused(capsys, str(tmp_path / "log")).startswith(f"{tmp_path}/log: ")
    assert refused(capsys, str(tmp_path / "no")) == f"{tmp_path}/no: No such file or directory"


def test_a_thousand_migrations_are_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").write_text(f"{STAMP}savevm_state_setup \n{STAMP}migrate_set_state new state setup\n" * 2000)
    assert "2000 migrations in one log" in refused(capsys, str(tmp_path / "log"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CUTS, CUTS)
def test_a_mutated_recording_is_analyzed_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], here: list,
                                                    there: list) -> None:
    for side, cuts in (("source", here), ("destination", there)):
        (tmp_path / side).write_bytes(mutated(SAMPLE[side], cuts))
    for options in ([], ["--json"]):
        code = main(["analyze", str(tmp_path / "source"), str(tmp_path / "destination"), *options])
        out, err = capsys.readouterr()
        assert (code, err.count("\n")) in ((0, 0), (2, 1)) and all(c.isprintable() for c in out.replace("\n", ""))


# --- progress ---


def test_progress_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "LONG", 1)
    monkeypatch.setattr(log, "blocks", lambda path, progress: iter(
        [(progress(50, 200), progress(200, 200), f"{STAMP}migration_cancel \n".encode())[2]]))
    main(["analyze", "x"])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    main(["analyze", "x"])
    assert capsys.readouterr().err == "\r 25 %\r     \r"
