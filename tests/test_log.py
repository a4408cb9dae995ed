"""Logs read: what is kept and folded, every form, damage of every kind, limits."""
from __future__ import annotations

import gzip
import lzma
import resource
from collections import Counter
from datetime import timedelta
from itertools import repeat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migsim import log
from migsim.ackledger import ack_ledger
from migsim.checks import check
from migsim.events import EVENTS
from migsim.journal import Journal, JournalError, open_text, read_journal
from migsim.log import read_log

DATA = Path(__file__).parents[1] / "data"
FOLDERS = sorted(p.parent for p in DATA.glob("recordings*/*/scenario.json"))
REINIT = DATA / "recordings/b-one-reinit"
STAMP = "2026-01-01T00:00:00.000001Z "


def both(folder: Path, **options: bool) -> Journal:
    return read_log(folder / "source.log.xz", folder / "destination.log.xz", **options)


def plain(folder: Path, side: str) -> str:
    return "".join(open_text(folder / f"{side}.log.xz"))


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# --- what is kept ---


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_kept_and_folded_are_the_whole_log(folder: Path) -> None:
    """Every event is kept or counted; what judges a migration sees the same as in the whole log."""
    whole, got = read_journal(folder / "source.log.xz", folder / "destination.log.xz"), both(folder)
    counts = Counter((e.side, e.name) for e in got)
    for fold in got.folds:
        counts[fold.side, fold.name] += fold.count
    assert counts == Counter((e.side, e.name) for e in whole)
    assert both(folder, full=True) == whole and got.start == whole.start
    loops = {name for name in log.LOOPS}
    assert [e for e in got if e.name not in loops] == [e for e in whole if e.name not in loops]
    assert ack_ledger(got) == ack_ledger(whole)
    assert [(v.id, v.verdict) for v in check(got)] == [(v.id, v.verdict) for v in check(whole)]


def test_folds_carry_the_numbers(tmp_path: Path) -> None:
    lines = [f"2026-01-01T00:00:00.{us:06d}Z qemu_savevm_query_pending exact={exact}, final=0, precopy=0, stopcopy=0, "
             f"postcopy=0, total={total}, collected switchover ack pending=0, total switchover ack pending=1\n"
             for us, exact, total in [(1, 0, 9), (2, 0, 7), (3, 0, 30), (3, 0, 30), (4, 1, 5), (99_999, 0, 8),
                                      (100_000, 0, 6)]]
    got = read_log(written(tmp_path / "log", "".join(lines)))
    assert [(e.us, e.args[0], e.args[5]) for e in got] == [(0, 0, 9)], "the first of an event is kept"
    assert [(f.key, f.count, f.low[5], f.high[5], f.total[5]) for f in got.folds] == [
        ("fast", 4, 7, 30, 75), ("exact", 1, 5, 5, 5), ("fast", 1, 6, 6, 6)]
    assert {f.side for f in got.folds} == {"source"} and got.folds[-1].first == 99_999


def test_what_asks_for_an_ack_is_kept(tmp_path: Path) -> None:
    acks = ", collected switchover ack pending={}, total switchover ack pending=1\n"
    lines = [f"{STAMP}qemu_savevm_query_pending exact=0, final={final}, precopy=0, stopcopy=0, postcopy=0, total=0"
             + acks.format(asked) for final, asked in [(0, 0), (0, 1), (1, 0)] for _ in range(100)]
    got = read_log(written(tmp_path / "log", "".join(lines)))
    assert len(got) == 100 + 100 + log.BEFORE + 1 and sum(f.count for f in got.folds) == 99 - log.BEFORE


def test_a_fold_ends_at_a_protocol_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "BEFORE", 0)
    turn, ack = (f"{STAMP}savevm_state_iterate \n", f"{STAMP}source_return_path_thread_switchover_acked \n")
    got = read_log(written(tmp_path / "log", turn * 4 + ack + turn * 5))
    assert [f.count for f in got.folds] == [3, 5]


@pytest.mark.parametrize("begins", [
    "vmstate_downtime_checkpoint src-downtime-start", "loadvm_process_command com=SWITCHOVER_START len=0",
    "runstate_set current_run_state 9 (running) new_state 7 (finish-migrate)", "qemu_loadvm_state_section 4"])
def test_a_switchover_is_kept_whole(tmp_path: Path, begins: str) -> None:
    """Each of its first events tells it: not every version and machine type has all."""
    turn = f"{STAMP}qemu_loadvm_state_section 2\n{STAMP}savevm_state_iterate \n" * 100
    end = f"{STAMP}migrate_set_state new state device\n{turn}{STAMP}migrate_set_state new state completed\n"
    got = read_log(written(tmp_path / "log", f"{turn}{STAMP}{begins}\n{turn}{end}{turn}"))
    assert sorted(got.lines) == [1, 2, *range(201 - log.BEFORE, 604), 604, 605]
    assert sum(f.count for f in got.folds) == 198 - log.BEFORE + 198


def test_a_fold_tells_devices_apart(tmp_path: Path) -> None:
    text = "".join(f"{STAMP}vfio_query_stop_copy_size  (vfio{k % 2}) stopcopy size {k} ret {-5 if k == 7 else 0}\n"
                   for k in range(10))
    folds = read_log(written(tmp_path / "log", text)).folds
    assert {(f.key, f.count, f.low, f.high) for f in folds} == {
        ("vfio0", 4, (2, 0), (8, 0)), ("vfio1", 5, (1, -5), (9, 0))}


def test_unknown_events_are_folded_by_name(tmp_path: Path) -> None:
    text = "".join(f"{STAMP}kvm_exit reason {k}\n" for k in range(50)) + f"{STAMP}migration_cancel \n"
    got = read_log(written(tmp_path / "log", text))
    assert [(e.name, got.lines[0]) for e in got] == [("migration_cancel", 51)]
    assert [(f.name, f.count, f.low) for f in got.folds] == [("kvm_exit", 50, ())]
    assert len(read_log(tmp_path / "log", full=True)) == 51


def test_names_and_windows_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MOST_NAMES", 3)
    monkeypatch.setattr(log, "MOST_FOLDS", 8)
    text = "".join(f"7@{1_700_000_000 + k}.000000:event_{k % 9} x\n" for k in range(900))
    folds = read_log(written(tmp_path / "log", text)).folds
    assert sum(f.count for f in folds) == 900 and len(folds) <= 8
    assert {f.name for f in folds} == {"event_0", "event_1", "event_2", "(others)"}


def test_lines_are_where_the_events_stand(tmp_path: Path) -> None:
    got = read_log(REINIT / "source.log.xz")
    lines = plain(REINIT, "source").splitlines()
    assert len(got.lines) == len(got)
    assert all(lines[n - 1].split("Z ", 1)[1] == f"{e.name} {e.text}" for n, e in zip(got.lines, got, strict=True))


# --- forms ---


def test_with_and_without_fraction_crlf_and_pid(tmp_path: Path) -> None:
    text = ("2026-01-01T00:00:01Z migrate_set_state new state setup\r\n"
            "7@1767225602.000000:migrate_set_state new state active\n"
            "\n2026-01-01T00:00:03.500000Z migration_cancel\n")
    got = read_log(written(tmp_path / "log", text))
    assert [(e.us, e.name, e.args) for e in got] == [
        (0, "migrate_set_state", ("setup",)), (1_000_000, "migrate_set_state", ("active",)),
        (2_500_000, "migration_cancel", ())]
    assert got.notes == ()


@pytest.mark.parametrize("pack", [lambda b: b, gzip.compress, lzma.compress,
                                  lambda b: gzip.compress(b[:70_000]) + gzip.compress(b[70_000:]),
                                  lambda b: lzma.compress(b[:70_000]) + bytes(8) + lzma.compress(b[70_000:])],
                         ids=["plain", "gzip", "xz", "two gzip members", "two xz streams, padding"])
def test_packed_in_any_way(tmp_path: Path, pack: object) -> None:
    path = written(tmp_path / "log", pack(plain(REINIT, "source").encode()))
    assert read_log(path) == read_log(REINIT / "source.log.xz") and read_log(path).notes == ()


def test_progress_ends_at_the_size(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = written(tmp_path / "log", plain(REINIT, "source") * 4)
    read_log(path, progress=lambda done, size: told.append((done, size)))
    assert len(told) > 3 and told[-1] == (path.stat().st_size,) * 2


# --- sides ---


def test_sides_are_told_by_the_events() -> None:
    there = read_log(REINIT / "destination.log.xz")
    assert {e.side for e in there} == {"destination"} == {f.side for f in there.folds}
    assert read_log(REINIT / "destination.log.xz", REINIT / "source.log.xz") == both(REINIT)
    with pytest.raises(JournalError, match=r"both are logs of a source: give the source's and the destination's$"):
        read_log(REINIT / "source.log.xz", DATA / "recordings/ram-no-cap/source.log.xz")


def test_both_sides_share_one_start(tmp_path: Path) -> None:
    got = both(REINIT)
    assert got == both(REINIT) and got.events == sorted(got.events, key=lambda e: e.us)
    assert min(f.first for f in got.folds) > 0 and max(f.last for f in got.folds) < got.events[-1].us
    source = read_log(REINIT / "source.log.xz")
    assert [e.us for e in source] == [e.us + (got.start - source.start) // timedelta(microseconds=1)
                                      for e in got.side("source")]


# --- damage ---


@pytest.mark.parametrize("torn", [
    "{a1}{b}\n{a2}\n", "oh no {a}\n{b}\n", "{a}{b}\n", "qemu: warning\n{a}\n{b}\n", "{a}\r\n{b}\r\n"])
def test_lines_torn_by_other_writers(tmp_path: Path, torn: str) -> None:
    a = STAMP + "vfio_save_block  (vfio0) data_size 65536"
    b = "2026-01-01T00:00:00.000002Z migrate_set_state new state active"
    text = torn.format(a=a, b=b, a1=a[:-9], a2=a[-9:])
    got = read_log(written(tmp_path / "log", text * 2))
    assert [(e.name, e.args) for e in got] == [("vfio_save_block", ("vfio0", 65536))] * 2 + [
        ("migrate_set_state", ("active",))] * 2
    assert len(got.notes) == ("qemu" in torn or "oh no" in torn)


def test_a_text_that_looks_like_a_line_stays_a_text(tmp_path: Path) -> None:
    text = f"{STAMP}migrate_error error=oh {STAMP}migrate_set_state new state completed\n"
    assert [e.name for e in read_log(written(tmp_path / "log", text))] == ["migrate_error"]


def test_what_fits_no_form_is_told_not_kept(tmp_path: Path) -> None:
    text = f"{STAMP}migrate_set_state oh\n{STAMP}migration_cancel \n{STAMP}savevm_section_end ram, sec"
    text = f"{STAMP}savevm_section_end ram, section_id 1 -> 1\n{text}"
    got = read_log(written(tmp_path / "log", text))
    assert [e.name for e in got] == ["savevm_section_end", "migration_cancel"] and got.folds == ()
    assert got.notes == (f"{tmp_path}/log: 2 lines are no trace events, the first: 2026-01-01T00:00:00.000001Z "
                         "migrate_set_state oh",)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress], ids=["gzip", "xz"])
def test_a_packed_log_that_breaks_off_is_read_up_to_there(tmp_path: Path, pack: object) -> None:
    whole = "".join(f"{STAMP}migrate_error error={k * 7919}\n" for k in range(90_000)).encode()
    packed = pack(whole)
    got = read_log(written(tmp_path / "log", packed[:len(packed) * 9 // 10]))
    assert 1000 < len(got) < 90_000 and "breaks off after" in got.notes[0]
    with pytest.raises(JournalError, match=r"^\S+/log: [^\n]+$"):
        read_log(written(tmp_path / "log", packed[:20]))


HOPELESS = {"nothing": b"", "zeros": bytes(5_000_000), "one long line": b"x" * 5_000_000, "a picture": b"\x89PNG\r\n",
            "no stamps": b"migrate_set_state new state active\n" * 99,
            "month 13": b"2026-13-01T00:00:00Z kvm_exit\n" * 9,
            "gzip of zeros": gzip.compress(bytes(5_000_000)), "a broken xz": b"\xfd7zXZ\x00" + bytes(99)}


@pytest.mark.parametrize("content", HOPELESS.values(), ids=HOPELESS)
def test_no_log_gives_one_line(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(JournalError) as error:
        read_log(written(tmp_path / "log", content))
    assert str(error.value).startswith(f"{tmp_path}/log: ") and "\n" not in str(error.value)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "no", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(JournalError, match=f"^{path}: {why}$"):
            read_log(path)


def test_a_bomb_is_given_up_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1 GiB of zeros in 1 MiB: no memory, no time; also behind an event."""
    monkeypatch.setattr(log, "HOPELESS", 8 << 20)
    for first in (b"", f"{STAMP}migration_cancel \n".encode()):
        packed = gzip.compress(first) + gzip.compress(bytes(64 << 20)) * 16
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(JournalError, match="no trace event in 8 MiB after line"):
            read_log(written(tmp_path / "log.gz", packed))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_a_line_without_end_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    event = f"{STAMP}migration_cancel \n".encode()
    monkeypatch.setattr(log, "blocks", lambda path, progress: iter([event, *[b"x" * (1 << 20)] * 3, b"x\n" + event]))
    got = read_log("log")
    assert len(got) == 2 and got.notes == (f"log: 2 lines are no trace events, the first: a line of more than "
                                           f"{log.MOST_LINE} bytes",)


def test_empty_lines_and_noise_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "HOPELESS", 4 << 20)
    for device in ("zero", "urandom"):
        with pytest.raises(JournalError, match="no trace event in 4 MiB after line"):
            read_log(Path("/dev") / device)
    monkeypatch.setattr(log, "blocks", lambda path, progress: repeat(b"\n" * 1000))
    with pytest.raises(JournalError, match="no trace event in 4 MiB after line"):
        read_log("x")


def test_limits_of_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MOST_EVENTS", 100)
    blocks = "".join(f"{STAMP}vfio_save_block  (vfio0) data_size {k}\n" for k in range(300))
    got = read_log(written(tmp_path / "log", blocks + f"{STAMP}migration_cancel \n"))
    assert len(got) == 101 and [(f.count, f.total) for f in got.folds] == [(200, (sum(range(100, 300)),))]
    with pytest.raises(JournalError, match=r"line 201: more than 200 events to keep: no log of migrations$"):
        read_log(written(tmp_path / "log", f"{STAMP}migration_cancel \n" * 300))
    monkeypatch.setattr(log, "MOST_FULL", 50)
    with pytest.raises(JournalError, match=r"line 51: more than 50 events to keep: read it without full=True$"):
        read_log(tmp_path / "log", full=True)


def mutated(text: bytes, cuts: list[tuple[int, int, bytes]]) -> bytes:
    for at, length, new in cuts:
        k = at % (len(text) + 1)
        text = text[:k] + new + text[k + length:]
    return text


SAMPLE = {side: "\n".join(plain(DATA / "recordings/y2-reinit-while-ack-in-flight", side).splitlines()[:400]
                          + plain(DATA / "recordings/y2-reinit-while-ack-in-flight", side).splitlines()[-300:]).encode()
          for side in ("source", "destination")}
WRONG = [b"", b"\n", b"\x00", b"\x1b[2J", b"<script>", b"-1", b"9" * 30, b" ", STAMP.encode(), b"7@1.000000:x\n",
         b"\xff\xfe", b"(", b"\r"]
CUTS = st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from([0, 1, 5, 80, 4000]), st.sampled_from(WRONG)),
                max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CUTS, CUTS)
def test_a_mutated_recording_is_read_or_refused_in_one_line(tmp_path: Path, here: list, there: list) -> None:
    source = written(tmp_path / "s", mutated(SAMPLE["source"], here))
    destination = written(tmp_path / "d", mutated(SAMPLE["destination"], there))
    try:
        got = read_log(source, destination)
    except JournalError as error:
        assert "\n" not in str(error)
        return
    assert all(e.name not in EVENTS or e.text is not None for e in got)
    assert [e.us for e in got] == sorted(e.us for e in got) and got.events[0].us >= 0
    check(got)
    ack_ledger(got)
