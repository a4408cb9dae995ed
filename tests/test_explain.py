"""Every event in words: complete, filled in, and told from the arguments where those decide."""
from __future__ import annotations

import lzma
import re
from pathlib import Path

import pytest

from migsim.events import EVENTS, RawText, parse
from migsim.explain import COMMANDS, UNDERFLOW, explain, function_of, thread_of
from migsim.journal import parse_line

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_every_event_is_explained(name):
    for form in EVENTS[name]:
        args = tuple(1 if t != "%s" else "x" for t in re.findall(r"0x%x|%x|%d|%s", form.template))
        said = explain(name, args)
        assert said.what and said.what != name.replace("_", " ")
        assert re.fullmatch(r"[a-z_0-9]+", said.function) and 0 <= said.patch <= 13


@pytest.mark.parametrize("folder", ["a-one-device-new-ack", "m-10.0.13-to-11.1.3", "ram-postcopy"])
def test_nothing_is_left_open_in_a_recording(folder):
    """No sentence has a gap where a field should stand (vfio_load_state of an unknown tag apart)."""
    for side in ("source", "destination"):
        with lzma.open(DATA / "recordings" / folder / f"{side}.log.xz", "rt") as lines:
            for line in lines:
                got = parse_line(line.rstrip("\n"))
                if got:
                    said = explain(got[1], parse(got[1], got[2]), side)
                    assert "?" not in said.what.replace("error recorded: ", "") or "reinit" in said.what.lower(), line


def test_arguments_decide():
    final = (1, 1, 0, 0, 0, 4096)
    assert "final" in explain("qemu_savevm_query_pending", (*final, 1, 1)).what
    assert "fails the attempt" in explain("qemu_savevm_query_pending", (*final, 1, 1)).why
    assert "goes on" in explain("qemu_savevm_query_pending", (*final, 0, 1)).why
    assert explain("qemu_savevm_query_pending", (*final, 0, 0)).patch == 2
    assert explain("qemu_savevm_query_pending", (0, 0, 0, 0, 0, 9, 1, 3)).patch == 6
    assert "3 awaited" in explain("qemu_savevm_query_pending", (0, 0, 0, 0, 0, 9, 1, 3)).what
    assert "underflows" in explain("source_return_path_thread_switchover_acked", (UNDERFLOW,)).why
    assert "one-shot" in explain("source_return_path_thread_switchover_acked", ()).why
    assert explain("migrate_set_state", ("active",), "destination").function == "process_incoming_migration_co"
    assert explain("migrate_set_state", ("device",)).function == "migration_switchover_prepare"
    assert "INIT_DATA_SENT" in explain("vfio_load_state", ("vfio0", 0xFFFFFFFFEF100005)).what
    assert "SWITCHOVER_ACK" in explain("migrate_send_rp_message", (7, 0)).what


def test_text_from_the_log_stays_as_it_is():
    assert explain("migrate_error", ("{name} %s <b>",)).what == "error recorded: {name} %s <b>"
    assert explain("vfio_save_setup", (RawText("odd line"),)).what == "odd line"
    assert explain("no_such_event", (RawText("some text"),)).what == "some text"
    assert explain("no_such_event").what == "no such event"


def test_function_and_thread():
    assert function_of("savevm_state_iterate") == "qemu_savevm_state_iterate"
    assert function_of("no_such_event") == "no_such_event"
    assert thread_of("savevm_state_iterate", "source", "main") == "migration"
    assert thread_of("runstate_set", "source", "main") == "main"
    assert thread_of("runstate_set", "destination", "migration") == "main"
    assert COMMANDS[11] == "SWITCHOVER_START"
