"""The reference pages and what they speak of: code, notebooks and data/reference, each held against the others."""
from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from migsim import run
from migsim.events import EVENTS
from migsim.ladder import CODE_BASES
from migsim.reference import (
    bases_of,
    error_page,
    errors,
    event_page,
    glossary,
    glossary_page,
    meaning_of,
    model_page,
    notebook_page,
    notebooks_of,
    places,
    places_of,
    symbol_page,
    symbols,
    symbols_of,
    words,
)

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "migsim" / "qemu"
#: how QEMU's names begin in the files that are modelled
QEMU = re.compile("qemu_|migration_|migrate_|vfio_|ram_|vm_|qmp_|loadvm_|process_incoming_|runstate_|source_return_|"
                  "bql_|postcopy_|close_return_|colo_|bdrv_|cmma_|dirty_bitmap_|save_")
#: names of the model's own that begin so, too, and belong to no single function of QEMU's
OWN = {"vm_stopped", "postcopy_after_switchover", "postcopy_package", "postcopy_send_package", "postcopy_started",
       "ram_handler", "vfio_handler", "migration_cancel_set_state", "ram_setup_done", "ram_report_pending", "ram_turn",
       "ram_put", "ram_turn_again", "ram_turn_end", "ram_complete_pages", "ram_send_end", "ram_discard_sync",
       "ram_discard_send", "ram_blocks", "vfio_size", "loadvm_switchover_ack_no_users", "qmp_command",
       "vfio_migration_refusal", "vfio_report_pending", "save_setup_done", "save_setup_precopy", "save_setup_buffer",
       "save_iterate_send", "save_complete_block", "save_complete_put", "save_complete_trace", "save_cleanup_done"}
#: functions with () in docstrings that are not modelled: the C library's, QEMU's helpers
OTHERS = {"error_report", "qatomic_read", "read", "write"}
#: modules whose longer texts are QEMU's error texts
SAYING = ("completion", "incoming", "migration", "savevm", "switchover_ack", "vfio")


# --- symbols ---

def test_every_symbol_is_in_the_model() -> None:
    assert [symbol for symbol in symbols() if not places_of(symbol)] == []


def test_every_name_of_qemu_in_the_model_is_a_symbol_or_part_of_one() -> None:
    assert {place.name for place in places() if QEMU.match(place.name) and not symbols_of(place)} == OWN


def test_every_function_that_a_docstring_names_is_a_symbol() -> None:
    named = {name for place in places() for name in re.findall(r"\b(\w+)\(\)", place.says)}
    assert named - set(symbols()) == OTHERS


def test_no_symbol_is_given_twice() -> None:
    listed = [part for part in re.findall(r"\w+", re.sub(r"^#.*|^\S+:", "", (
        ROOT / "data" / "reference" / "symbols.yaml").read_text(), flags=re.M))]
    assert sorted(listed) == sorted(symbols())


def test_both_directions_say_the_same() -> None:
    there = {(symbol, place) for symbol in symbols() for place in places_of(symbol)}
    back = {(symbol, place) for place in places() for symbol in symbols_of(place)}
    assert there == back and len(there) > len(symbols())


def test_the_function_of_that_name_comes_first() -> None:
    assert next(p.name for p in places_of("ram_save_iterate")) == "ram_save_iterate"
    assert [p.name for p in places_of("migrate_error_propagate")] == ["migrate_error"]


@pytest.mark.parametrize("stem", words())
def test_every_notebook_that_names_a_symbol_is_linked(stem: str) -> None:
    text = (ROOT / "notebooks" / f"{stem}.ipynb").read_text(encoding="utf-8").replace("\\n", " ")
    named = {symbol for symbol in symbols() if re.search(rf"\b{symbol}\b", text)}
    assert named == {symbol for symbol in symbols() if stem in notebooks_of(symbol)}
    assert all(f'"{stem}.ipynb"' in symbol_page(symbols()[symbol]) for symbol in named)


# --- error texts ---

def said(path: Path) -> Iterator[str]:
    """The texts of three words and more in a module, %s for what is put in; docstrings are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skip = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)
            if part is not node}
    skip |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        text = "".join(str(p.value) if isinstance(p, ast.Constant) else "%s" for p in parts)
        if id(node) not in skip and isinstance(node, ast.JoinedStr | ast.Constant) and len(text.split()) > 2:
            yield text


@pytest.mark.parametrize("text", [text for name in SAYING for text in said(MODEL / f"{name}.py")])
def test_every_error_text_of_the_model_has_a_meaning(text: str) -> None:
    assert meaning_of(text) is not None


def test_every_entry_is_a_text_of_the_model() -> None:
    code = [text for name in SAYING for text in said(MODEL / f"{name}.py")] + list(said(ROOT / "migsim" / "run.py"))
    assert [e.text for e in errors() if not any(meaning_of(text) == e for text in code)] == []


@pytest.mark.parametrize("entry", [e for e in errors() if e.shown], ids=lambda e: e.shown)
def test_the_scenario_says_it(entry) -> None:
    name, _, base = entry.shown.partition(", ")
    got = run(ROOT / "data" / "scenarios" / f"{name}.yaml", base=base or None)
    texts_ = [str(e.args[0]) for e in got.journal.all("migrate_error")] + [got.refused or ""]
    texts_ += [text for _, text in got.world.acct.messages]
    assert any(entry.pattern.search(text) for text in texts_), texts_


@pytest.mark.parametrize("entry", [e for e in errors() if not e.shown], ids=lambda e: e.text[:30])
def test_a_text_that_no_scenario_shows(entry) -> None:
    """It is there for who meets it in a log; as soon as a scenario shows it, the entry should name that."""
    assert entry.means and entry.look


def test_meaning_of_a_text_that_is_not_listed() -> None:
    assert meaning_of("Out of cheese") is None
    assert meaning_of("nic7: data_fd out of sync").where == "vfio_migration_set_state"


# --- events, glossary ---

def test_every_event_is_on_its_page() -> None:
    page = event_page()
    assert all(f"<code>{name}</code>" in page for name in EVENTS)
    assert page.count("<tr>") == len(EVENTS) + 1 and event_page("vfio_").count("<tr>") < 60


def test_bases_of_an_event() -> None:
    assert bases_of("migrate_pending_exact") == "old" and bases_of("vfio_send_init_data_flag") == "p8 to merged"
    assert bases_of("migrate_set_state") == "" and bases_of("qemu_savevm_query_pending") == "base to merged"
    assert all(word in CODE_BASES for name in EVENTS for word in bases_of(name).split(" to ") if word)


@pytest.mark.parametrize("term, entry", glossary().items(), ids=list(glossary()))
def test_a_term_leads_somewhere(term: str, entry: dict[str, str]) -> None:
    assert set(entry) == {"means", "see"}
    assert entry["see"] in symbols() or entry["see"] in words(), entry["see"]


def test_pages_are_tables_and_escape() -> None:
    pages = [symbol_page(), notebook_page(), glossary_page(), error_page(), model_page("vfio.py")]
    assert all(page.count("<table>") == 1 and page.count("<tr>") > 5 for page in pages)
    assert "VFIOMigration" in pages[0] and "2^32" in pages[2]
    assert "<code>Capability &#x27;switchover-ack&#x27; requires" in pages[3]


def test_no_such_file_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"no file of the model: allowed is block_dirty_bitmap\.py, "):
        model_page("vfio.c")
