"""Journal and events: real logs read and printed back, every code base's forms, damaged input."""

from __future__ import annotations

import gzip
import lzma
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migsim.events import EVENTS, RAW, RawText, format_of, lane, parse, text_of
from migsim.journal import Event, Journal, JournalError, open_text, parse_line, read_events, read_journal
from migsim.run import run

DATA = Path(__file__).parents[1] / "data"
LOGS = sorted(p for p in DATA.glob("recordings*/*/*.log.xz") if "shim" not in p.name)
BASES = ["old", "base", *(f"p{k}" for k in range(1, 14)), "merged"]

# --- real logs ---


@pytest.mark.parametrize("path", LOGS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_line_is_a_known_event_and_prints_back(path: Path) -> None:
    left_out = 0
    for line in open_text(path):
        got = parse_line(line.rstrip("\n"))
        if got is None:
            left_out += 1
            continue
        _, name, text = got
        args = parse(name, text)
        assert name in EVENTS and format_of(name, args) is not RAW, line
        assert text_of(name, args) == text
    assert left_out == (path.parent.name == "bb-measured-bandwidth-legacy" and path.name.startswith("source"))


def test_all_recordings_are_there() -> None:
    assert len(LOGS) == 93 and {p.name for p in LOGS} > {"source.log.xz", "attempt1-destination.log.xz"}


@pytest.mark.parametrize("name", ["b-one-reinit", "n-cancel-then-again", "ram-postcopy"])
def test_a_log_is_written_as_qemu_prints_it(name: str) -> None:
    folder = DATA / "recordings" / name
    journal = read_journal(folder / "source.log.xz", folder / "destination.log.xz")
    for side in ("source", "destination"):
        assert journal.log_text(side) == "".join(open_text(folder / f"{side}.log.xz"))


OF_10_0 = [DATA / "recordings" / name / "source.log.xz" for name in ("m-10.0.13-to-11.1.3", "ram-10.0.13-to-11.1.3")]


@pytest.mark.parametrize("path", OF_10_0, ids=lambda p: p.parent.name)
def test_a_log_of_10_0_is_written_with_pid_and_epoch(path: Path) -> None:
    text = re.sub(r"(?m)^\d+@", "7@", "".join(open_text(path)))  # the number is the thread's
    assert read_journal(path).log_text("source", pid=7) == text


@pytest.mark.parametrize("path", OF_10_0, ids=lambda p: p.parent.name)
def test_lanes_are_the_threads_that_10_0_names(path: Path) -> None:
    threads: dict[str, set[str | None]] = {}
    for line in open_text(path):
        number, name = re.match(r"(\d+)@[\d.]+:(\w+)", line).groups()
        threads.setdefault(number, set()).add(lane(name, "source"))
    assert sorted(x for t in threads.values() for x in t - {None}) == ["main", "migration", "return-path"]


# --- the journal ---


def journal(*events: tuple) -> Journal:
    return Journal([Event(*e) for e in events], datetime(2026, 1, 1, tzinfo=UTC))


def test_both_sides_are_merged_on_one_clock(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("2026-01-01T00:00:01Z migration_cleanup \n"
                                "2026-01-01T00:00:03.000005Z migration_cancel \n")
    (tmp_path / "d").write_text("7@1767225602.000000:loadvm_state_setup \nqemu: oh\n... 3 lines left out ...\n")
    got = read_journal(tmp_path / "s", tmp_path / "d")
    assert got.start == datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert [(e.us, e.side, e.name) for e in got] == [
        (0, "source", "migration_cleanup"), (1_000_000, "destination", "loadvm_state_setup"),
        (2_000_005, "source", "migration_cancel")]
    assert [n.split(": ", 1)[1] for n in got.notes] == [
        "... 3 lines left out ...", "1 lines are no trace events, the first: qemu: oh"]


def test_events_are_found_by_name_and_side() -> None:
    a = (0, "source", "migrate_set_state", ("setup",))
    b = (1, "destination", "migrate_set_state", ("active",))
    c = (2, "source", "migration_cancel", ())
    j = journal(a, b, c)
    assert j.first("migrate_set_state") == a and j.last("migrate_set_state") == b
    assert j.first("migrate_set_state", "destination") == b and j.last("migrate_set_state", "source") == a
    assert j.first("postcopy_start") is None and j.last("postcopy_start") is None
    assert j.all("migrate_set_state", "migration_cancel", side="source") == [a, c] == j.side("source")
    assert len(j) == 3 and j == journal(a, b, c) and j != journal(a, b)


def test_a_log_line_leaves_out_a_fraction_of_zero_and_keeps_the_blanks() -> None:
    j = journal((0, "source", "savevm_state_setup", ()), (1, "source", "vfio_save_cleanup", ("vfio0",)))
    assert j.log_text("source") == ("2026-01-01T00:00:00Z savevm_state_setup \n"
                                    "2026-01-01T00:00:00.000001Z vfio_save_cleanup  (vfio0)\n")
    assert j.log_text("source", pid=9).splitlines()[1] == "9@1767225600.000001:vfio_save_cleanup  (vfio0)"


# --- forms ---

FORMS = [  # event, text, named arguments; where it comes from is in EVENTS
    ("qemu_savevm_query_pending", "exact=1, precopy=2, stopcopy=3, postcopy=4, total=9", {"exact": 1, "total": 9}),
    ("qemu_savevm_query_pending", "exact=0, final=1, precopy=2, stopcopy=3, postcopy=4, total=9", {"final": 1}),
    ("qemu_savevm_query_pending", "exact=0, final=1, precopy=2, stopcopy=3, postcopy=4, total=9, collected switchover "
     "ack pending=1, total switchover ack pending=2", {"switchover_ack_pending": 1, "total_switchover_ack_pending": 2}),
    ("vfio_query_precopy_size", " (a) init 1 dirty 2 ret -5", {"init_size": 1, "ret": -5, "reinit": None}),
    ("vfio_query_precopy_size", " (a) init 1, dirty 2, reinit 1, ret 0", {"dirty_size": 2, "reinit": 1}),
    ("vfio_state_pending", " (a) stopcopy size 1 precopy initial size 2 precopy dirty size 3 exact 1", {"exact": 1}),
    ("vfio_state_pending", " (a) stopcopy size 1, precopy initial size 2, precopy dirty size 3, request switchover ack "
     "1, exact 0", {"request_switchover_ack": 1, "exact": 0}),
    ("vfio_state_pending", " (a) stopcopy size 1, precopy initial size 2, precopy dirty size 3, request switchover ack "
     "1, exact 0, final 1", {"final": 1, "stopcopy_size": 1}),
    ("loadvm_approve_switchover", "Switchover ack pending num=1", {"switchover_ack_pending_num": 1}),
    ("loadvm_approve_switchover", "Approver a, switchover_ack_pending_num 1", {"approver": "a"}),
    ("loadvm_approve_switchover", "Approver a", {"approver": "a"}),
    ("loadvm_approve_switchover_legacy", "Approver a, switchover_ack_pending_num_legacy 0",
     {"switchover_ack_pending_num_legacy": 0}),
    ("migration_request_switchover_ack", "Requester a, switchover_ack_pending_num 1", {"requester": "a"}),
    ("source_return_path_thread_switchover_acked", "", {"pending_num": None}),
    ("source_return_path_thread_switchover_acked", "switchover_ack_pending_num 1", {"pending_num": 1}),
    ("process_incoming_migration_co_end", "ret=0 postcopy-state=3", {"ret": 0, "ps": 3}),
    ("process_incoming_migration_co_end", "ret=-22", {"ret": -22, "ps": None}),
    ("vfio_migration_init", " (a) mig_flags 0x7, precopy_info_v2_used 1, dirty_pages_supported 1", {"mig_flags": 7}),
    ("vfio_load_state", " (a) data 0xffffffffef100004", {"data": 0xFFFFFFFFEF100004}),
    ("postcopy_discard_send_range", "pc.ram:2427/13d9", {"start": 0x2427, "length": 0x13D9}),
    ("migrate_error", "error=a: b=1, (c)", {"error": "a: b=1, (c)"}),
    ("of_another_day", "x=1", {"text": "x=1"}),
    ("migration_completion_vm_stop", "ret 007", {"text": "ret 007", "ret": None}),
]


@pytest.mark.parametrize(("name", "text", "fields"), FORMS)
def test_a_form_gives_its_arguments_their_names(name: str, text: str, fields: dict) -> None:
    event = Event(0, "source", name, parse(name, text))
    assert event.text == text
    assert {field: event.get(field) for field in fields} == fields
    assert event.get("no such field", 7) == 7


def test_forms_of_an_event_are_told_apart() -> None:
    for name, forms in EVENTS.items():
        shapes = {(len(f.fields), "%d" in f.template if len(f.fields) == 1 else None) for f in forms}
        assert len(shapes) == len(forms), name
        for form in forms:
            assert len(form.template.split("%")) - 1 == len(form.fields) == len(set(form.fields)), name


@pytest.mark.parametrize(("name", "side", "thread"), [
    ("qemu_savevm_query_pending", "source", "migration"), ("migration_cancel", "source", "main"),
    ("source_return_path_thread_pong", "source", "return-path"), ("vfio_load_state", "destination", "main"),
    ("postcopy_ram_listen_thread_start", "destination", "listen"), ("migrate_set_state", "source", None),
    ("vmstate_downtime_checkpoint", "source", "migration"), ("vmstate_downtime_checkpoint", "destination", "main")])
def test_the_name_decides_the_thread(name: str, side: str, thread: str | None) -> None:
    assert lane(name, side) == thread


@given(st.sampled_from([*EVENTS, "of_another_day"]), st.text())
def test_any_text_prints_back(name: str, text: str) -> None:
    assert text_of(name, parse(name, text)) == text


@given(st.sampled_from(sorted((n, f) for n, forms in EVENTS.items() for f in forms)), st.data())
def test_arguments_survive_printing(form: tuple, data: st.DataObject) -> None:
    name, (template, fields) = form
    kinds = [part[0] for part in template.replace("0x%x", "%x").split("%")[1:]]
    number, word = st.integers(0, 2**64 - 1), st.from_regex("[a-z]{1,8}", fullmatch=True)
    args = tuple(data.draw(word if kind == "s" else number) for kind in kinds)
    assert parse(name, text_of(name, args)) == args and len(args) == len(fields)


@pytest.mark.parametrize("base", BASES)
def test_a_simulated_run_writes_forms_of_its_code_base(base: str, tmp_path: Path) -> None:
    got = run(DATA / "recordings" / "b-one-reinit", base=base).journal
    texts = {side: got.log_text(side) for side in ("source", "destination")}
    for side, text in texts.items():
        (tmp_path / side).write_text(text)
    for event in got:
        form = format_of(event.name, event.args)
        assert event.name in EVENTS and form is not RAW and len(form.fields) == len(event.args), event
        assert form.fields != ("text",) * len(event.args) or not event.args, event
    back = read_journal(tmp_path / "source", tmp_path / "destination")
    assert [(e.name, e.args) for e in back.side("source")] == [(e.name, e.args) for e in got.side("source")]
    assert {s: back.log_text(s) for s in texts} == texts and back.notes == ()


# --- damaged input ---


@pytest.mark.parametrize("line", [
    "", "2026-11-23T03:39:25.540985Z qemu-system-x86_64: check_section_footer failed", "oh",
    "2026-13-23T03:39:25.540985Z migration_cancel ", "1@99999999999999.000000:migration_cancel ",
    "2026-11-23T03:39:25.54Z migration_cancel ", "... 5 lines left out ..."])
def test_other_lines_are_no_events(line: str) -> None:
    assert parse_line(line) is None


def test_a_stripped_blank_does_not_hide_an_event() -> None:
    assert parse_line("2026-11-23T03:39:25Z migration_cancel") == (1795405165_000000, "migration_cancel", "")


@given(st.one_of(st.text(), st.from_regex(r"[0-9-]{10}T[0-9:]{8}(\.[0-9]{6})?Z [a-z_]+ .*"),
                 st.from_regex(r"\d+@\d+\.\d{6}:[a-z_]+ .*")))
def test_no_line_breaks_the_reader(line: str) -> None:
    got = parse_line(line)
    if got:
        parse(*got[1:])


BROKEN = {
    "cut.gz": gzip.compress(b"2026-11-23T03:39:25Z migration_cancel \n" * 500)[:-20],
    "bad.gz": gzip.compress(bytes(range(256)) * 50, mtime=0)[:30] + b"\xff" * 200,
    "cut.xz": lzma.compress(b"2026-11-23T03:39:25Z migration_cancel \n" * 500)[:-20],
    "bad.xz": lzma.compress(bytes(range(256)) * 50)[:40] + b"\xff" * 200,
}


@pytest.mark.parametrize("name", [*BROKEN, "none", "."])
def test_a_log_that_cannot_be_read_is_one_line(name: str, tmp_path: Path) -> None:
    if name in BROKEN:
        (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(JournalError) as error:
        read_events(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(error.value)


def test_the_packing_is_told_by_the_first_bytes(tmp_path: Path) -> None:
    text = b"2026-11-23T03:39:25Z migration_cancel \n"
    for data in (text, gzip.compress(text), lzma.compress(text)):
        (tmp_path / "log").write_bytes(data)
        assert [e[1:] for e in read_events(tmp_path / "log")[0]] == [("migration_cancel", ())]


def test_a_damaged_event_keeps_its_text(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("2026-11-23T03:39:25Z migration_completion_vm_stop ret \n")
    event = read_journal(tmp_path / "log").events[0]
    assert event.args == ("ret ",) and isinstance(event.args[0], RawText) and event.get("ret") is None
