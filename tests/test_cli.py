"""The command line as its users call it: what the README shows, errors in one line, files to the byte."""
from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from migsim import read_journal, run
from migsim.cli import main
from migsim.ladder import PATCHES
from refresh_docs import BLOCK, DOCUMENTS, PICTURE, picture

ROOT = Path(__file__).parent.parent
SHOWN = [(name, command, text) for name in DOCUMENTS
         for command, text in BLOCK.findall((ROOT / name).read_text("utf-8"))]


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name, command, text", SHOWN, ids=[f"{n}: {c}" for n, c, _ in SHOWN])
def test_documents_show_what_the_command_prints(name: str, command: str, text: str,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 0
    assert capsys.readouterr().out == text


def test_the_readmes_picture_is_what_the_player_draws() -> None:
    assert PICTURE.read_text("utf-8") == picture(), "make docs draws it anew"


def test_the_readme_names_every_patch() -> None:
    rows = dict(re.findall(r"^\| p(\d+) \| ([^|]*) \|", (ROOT / "README.md").read_text("utf-8"), re.M))
    assert rows == {str(k): subject for k, subject in PATCHES.items()}


@pytest.mark.parametrize("argv, told", [
    (["runn"], "'runn' is no subcommand: allowed are run"), (["run", "nix.yaml"], "nix.yaml: No such file"),
    (["run", "data/recordings/b-one-reinit", "--base", "p14"], "nearest is"),
    (["run", "data/recordings/b-one-reinit", "--bse", "p1"], "nearest is '--base'"),
    (["compare", "data"], "data/scenario.json: No such file"), (["compare", "--min", "2"], "a number from 0 to 1"),
    (["explore", "--devices", "x"], "a whole number from 0 to 4"), (["explore", "--replay", "?"], "replay:"),
    (["explore", "--property", "nix"], "invalid choice")])
def test_errors_are_one_line(argv: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(argv)
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and told in err and err.count("\n") == 1


def test_out_is_the_same_to_the_byte_and_reads_back(tmp_path: Path) -> None:
    for k in (1, 2):
        assert main(["run", "data/recordings/n-cancel-then-again", "--out", str(tmp_path / str(k))]) == 0
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / str(k)).iterdir()} for k in (1, 2))
    assert first == second
    assert set(first) == {"source.log", "destination.log", "source-query-migrate.json", "attempt1-destination.log",
                          "destination-query-migrate.json", "attempt1-source-query-migrate.json",
                          "attempt1-destination-query-migrate.json"}
    journal = run("data/recordings/n-cancel-then-again").journal
    there = read_journal(tmp_path / "1" / "source.log")
    assert [(e.name, e.text) for e in there] == [(e.name, e.text) for e in journal.side("source")]
    assert first["source.log"].startswith(b"2026-01-01T00:00:00Z vfio_migration_init  (vfio0)")


def test_old_logs_have_a_pid(tmp_path: Path) -> None:
    assert main(["run", "data/recordings/m-10.0.13-to-11.1.3", "--out", str(tmp_path / "o")]) == 0
    assert re.match(rb"4242@1767225600\.000000:vfio_migration_realize  \(VFIO_FD4\)",
                    (tmp_path / "o" / "source.log").read_bytes())


def test_out_spares_what_is_not_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("x")
    assert main(["run", "data/recordings/a-one-device-new-ack", "--out", str(tmp_path)]) == 2
    assert "not empty and not ours" in capsys.readouterr().err and (tmp_path / "mine.txt").exists()


def test_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "data/recordings/b-one-reinit", "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["outcome"]["status"] == "completed" and len(got["ack_ledger"]) == 2
    assert main(["explore", "--reinits", "0", "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["complete"] and got["states"] == 322
    assert {p["id"]: p["verdict"] for p in got["properties"]}["always-ends"] == "holds"


def test_compare_fails_below_the_threshold(capsys: pytest.CaptureFixture[str]) -> None:
    folder = "data/recordings-busy/f1-four-devices-new"  # 0.953: busy recordings have a threshold of their own
    assert main(["compare", folder]) == 0
    assert main(["compare", folder, "--min", "0.98"]) == 1
    assert "f1-four-devices-new: below --min 0.98" in capsys.readouterr().err


def test_a_machine_type_that_the_base_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "data/recordings/a-one-device-new-ack", "--base", "old"]) == 0
    assert "machine pc-q35-11.1 is unknown to old: pc-q35-11.0 used" in capsys.readouterr().out
