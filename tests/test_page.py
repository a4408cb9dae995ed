"""The page is one file without network, says what it was given, and obeys nothing that a log says."""
from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migsim import Event, Journal, read_journal
from migsim.analysis import analyze
from migsim.events import parse
from migsim.journal import EPOCH
from migsim.log import read_log
from migsim.page import Table, article, document, longest, page, pending_picture, sentence, table
from migsim.report import OutputError, write_file

DATA = Path(__file__).parents[1] / "data" / "recordings"
EVIL = '<img src=x onerror=alert(1)>"\'&$\\frac{$ </script><script>alert(2)</script>\x1b[2J\n'
LEDGER = {"stop vCPUs": 1.2, "RAM and device data": 17.0}


class Tags(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def recorded(name: str) -> Journal:
    return read_journal(DATA / name / "source.log.xz", DATA / name / "destination.log.xz")


@pytest.fixture(scope="module")
def plain() -> str:
    tables = {"ACKs": Table(("device", "asked"), [("vfio0", 2.34), ("vfio0", None)], frozenset({"vfio0"}))}
    made = article(recorded("b-one-reinit"), "b", "It completed.", ledger=LEDGER, tables=tables, remarks=["One."])
    return document("b", [made])


def test_the_file_loads_nothing(plain: str) -> None:
    addresses = [value for name, value in Tags(plain).attributes if name in ("src", "href", "action", "data", "poster")]
    assert all(value.startswith("data:image/png;base64,") for value in addresses) and len(addresses) == 2
    assert "default-src 'none'" in plain and "@import" not in plain
    assert re.findall(r"url\((?!#)", plain) == []


def test_the_verdict_comes_first_and_the_order_is_kept(plain: str) -> None:
    said = [plain.index(text) for text in ('<p class="verdict">It completed.</p><p>One.</p>', "What happened, in order",
                                           "Where the downtime went", "Pending bytes against the threshold",
                                           "<h2>ACKs</h2>")]
    assert said == sorted(said)
    assert '<p class="verdict bad">' in article(Journal([], EPOCH), "", "", bad=True)


def test_player_on_the_screen_and_picture_on_paper(plain: str) -> None:
    screen, paper = plain.index('<div class="screen">'), plain.index('<div class="paper" data-jp-theme-light="true">')
    assert screen < plain.index("new Player(el") < paper < plain.index('width="760"')
    assert plain.count("/*DARK*/") == 0 and plain.count(".migsim-picture .bg {") == 1


@pytest.mark.parametrize("name, number, told", [
    ("b-one-reinit", 0, "completed after 0.929 s; QEMU's downtime was 26.1 ms; the last ACK waited for was that of "
     "vfio0 (REINIT), counted 802.6 ms after setup; no rule was broken."),
    ("d-reinit-in-gap", 0, "failed after 0.220 s (Switchover ACK was requested by 1 devices during switchover); no "
     "downtime can be told (no switchover was completed); the last ACK waited for was that of vfio0 (first), "
     "counted 216.6 ms after setup, never counted: the ACK of vfio0 (final check); no rule was broken."),
    ("n-cancel-then-again", 0, "was cancelled after 0.166 s (Channel error: Input/output error); no downtime can be "
     "told (no switchover was completed); never counted: the ACK of vfio0 (first); no rule was broken."),
    ("ram-no-cap", 0, "completed after 0.024 s; QEMU's downtime was 2.8 ms; no ACK was counted; no rule was broken.")])
def test_the_verdict_in_one_sentence(name: str, number: int, told: str) -> None:
    a = analyze(recorded(name))[number]
    a.guest_downtime_us = None
    assert sentence(a) == f"The migration {told}"


def test_the_guests_view_and_broken_rules_are_told() -> None:
    a = analyze(recorded("ram-no-cap"))[0]
    a.guest_downtime_us, a.status = 3456, "active"
    a.rules = [a.rules[0]._replace(verdict="violated", sentence="one"), *a.rules[1:]]
    said = sentence(a)
    assert said.startswith("The migration had not ended when the log did") and "stood still for 3.5 ms;" in said
    assert said.endswith("broken: one.")


def test_two_migrations_of_one_log_are_two_articles() -> None:
    text = page(analyze(recorded("n-cancel-then-again")), "n")
    assert re.findall(r"<h1>(.*?)</h1>", text) == ["n, migration 1 of 2", "n, migration 2 of 2"]
    first, second = text.split("</article>")[:2]
    assert 'class="verdict bad"' in first and "Where the downtime went" not in first
    assert 'class="verdict"' in second and "Where the downtime went" in second
    assert "part by part" in second and "part by part" not in first
    assert "ACKs, ms after setup" in second and "<h2>Rules</h2>" in second and "<p>Code: source " in second


def test_the_bar_has_the_whole_downtime_and_the_small_parts_last() -> None:
    a = analyze(recorded("h-with-reinit-run1"))[0]
    parts = longest(a)
    assert round(sum(parts.values()) * 1000) == a.downtime_us
    assert list(parts) == ["load busy", "load idle1", "load idle2", "load idle3", "small parts"]
    a.downtime_ledger = []
    assert longest(a) == {}


def test_a_table() -> None:
    text = table(Table(("what", "ms"), [("a<b", 1.25), ("bad", None)], frozenset({"bad"})))
    assert '<th>what</th><th class="number">ms</th>' in text
    assert '<td>a&lt;b</td><td class="number">1.2</td>' in text
    assert '<td class="strong">bad</td><td class="number"></td>' in text


def test_a_log_without_queries_has_no_pending_picture() -> None:
    assert pending_picture(Journal([Event(0, "source", "migrate_set_state", ("setup",))], EPOCH)) == ""
    failed = recorded("d-reinit-in-gap")  # its ACK is awaited until the end, not until QEMU quits
    assert "ACKs are awaited for 0.2 s" in pending_picture(failed)
    folded = read_log(DATA / "b-one-reinit" / "source.log.xz")
    assert pending_picture(folded) == "<p>The log has more queries than a picture can show.</p>"
    odd = Event(0, "source", "migrate_transferred", ("no numbers",))
    assert pending_picture(Journal([odd], EPOCH)) == ""


def hostile(evil: str) -> str:
    rows = [(0, "migrate_set_state", "new state setup"), (1, "vfio_migration_init", f" ({evil}) mig_flags 0x7"),
            (2, "vfio_migration_set_device_state", f" ({evil}) state {evil}"), (3, "migrate_error", f"error={evil}"),
            (4, "vfio_send_init_data_flag", f" ({evil})"), (5, "migrate_transferred", evil)]
    journal = Journal([Event(us, "source", name, parse(name, text)) for us, name, text in rows], EPOCH, (evil,))
    made = article(journal, evil, evil, ledger={evil: 1.0}, tables={evil: Table((evil,), [(evil,)], frozenset({evil}))},
                   remarks=[evil])
    return document(evil, [made])


@cache
def calm() -> Tags:
    return Tags(hostile("nic0"))


@pytest.mark.filterwarnings("ignore:Glyph")
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=30).map(lambda text: EVIL + text))
def test_nothing_that_a_log_says_is_obeyed(evil: str) -> None:
    harmless, found = calm(), Tags(hostile(evil))
    assert found.tags.count("script") == harmless.tags.count("script") == 2
    assert found.tags.count("img") == harmless.tags.count("img")
    assert {name for name, _ in found.attributes} <= {name for name, _ in harmless.attributes}
    assert not any("\x1b" in text for text in found.texts)


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    write_file(path, "one")
    assert path.read_text() == "one"
    with monkeypatch.context() as broken:
        broken.setattr("os.replace", lambda a, b: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OutputError, match=r"page\.html: No space left on device"):
            write_file(path, "two")
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]
    for where, told in ((tmp_path, "no regular file"), (tmp_path / "no" / "x", "No such file or directory")):
        with pytest.raises(OutputError, match=told):
            write_file(where, "")
