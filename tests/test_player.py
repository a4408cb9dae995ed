"""The player without a browser: payload, static twin, words, fragments and knobs. (tests/browser has the rest.)"""
from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from itertools import pairwise, product
from pathlib import Path

import pytest

from migsim import player
from migsim.compare import find_log
from migsim.journal import Journal, read_journal
from migsim.picture import pictures
from migsim.run import run
from migsim.scenario import ScenarioError
from migsim.svg import NAMED, PATTERN, RANK, SHORT, Scale, axis, length_text, us_text

DATA = Path(__file__).parents[1] / "data" / "recordings"
STATIC = Path(player.__file__).parent / "static"
BAD = "<img src=x onerror=alert(1)>"
SVG = "{http://www.w3.org/2000/svg}"


def recorded(name: str) -> Journal:
    return read_journal(find_log(DATA / name, "source"), find_log(DATA / name, "destination"))


@pytest.fixture(scope="module")
def one() -> Journal:
    return recorded("a-one-device-new-ack")


@pytest.fixture(scope="module")
def bad() -> Journal:
    return run({"devices": [{"id": BAD}], "caps": {"return-path": True, "switchover-ack": True},
                "params": {"avail-switchover-bandwidth": 10**9}}).journal


def test_payload_holds_the_picture(one):
    data, [p] = json.loads(player.payload(pictures(one))), pictures(one)
    [q] = data["pictures"]
    assert len(q["items"]) == len(p.items) and len(q["messages"]) == len(p.messages)
    named = [data["strings"][item[5]] for item in q["items"]]
    assert named == [i.name for i in p.items]
    assert all(0 <= k < len(data["strings"]) for item in q["items"] for k in item[3:10])
    a, b = data["switchover"]
    assert a <= p.downtime[0][0] and b == p.downtime[0][1]


def test_payload_stays_small():
    """76,000 lines of a log become a few kilobytes."""
    assert len(player.payload(pictures(recorded("l2-src-new-dst-legacy-2dev")))) < 100_000


def test_svg_is_well_formed_and_says_what_it_shows(one):
    root = ET.fromstring(player.svg(one, width=700))
    assert root.get("width") == "700" and "setup, active, device, completed" in root.find(f"{SVG}title").text
    texts = [t.text for t in root.iter(f"{SVG}text")]
    assert {"PRE_COPY", "STOP_COPY", "RESUMING", "SWITCHOVER_ACK", "vfio0 INIT_DATA_SENT", "switch over!"} <= set(texts)
    assert any("downtime 26.1 ms" in t for t in texts)
    said = root.find(f"{SVG}desc").text
    assert "INIT_DATA_SENT 1 times" in said and "stands still for 26.1 ms" in said


def test_svg_inside_its_width():
    """No label leaves the picture, none lies on another one of its row."""
    names = ("h-with-reinit-run1", "i6-stop-with-reinit-at-stop-tcp", "l3-src-legacy-dst-new-2dev")
    for name, width in product(names, (700, 900, 1200)):
        root = ET.fromstring(player.svg(recorded(name), width=width))
        rows: dict[str, list[tuple[float, float]]] = {}
        for text in root.iter(f"{SVG}text"):
            size = len(text.text) * (6.9 if "strong" in text.get("class", "") else 5.6)
            start = float(text.get("x")) - (size / 2 if text.get("text-anchor") else 0)
            assert start > 0 and start + size * 0.9 < width, text.text
            if start > 170 and float(text.get("y")) > 30:
                rows.setdefault(text.get("y"), []).append((start, start + size * 0.8))
        for spans in rows.values():
            spans.sort()
            assert all(a[1] <= b[0] + 6 for a, b in pairwise(spans)), spans


def test_every_state_has_a_pattern_or_is_plain_on_purpose():
    states = {b.state for name in ("a-one-device-new-ack", "d-reinit-in-gap") for p in pictures(recorded(name))
              for b in p.bands if "/device" in b.lane}
    assert states - set(PATTERN) == {"RUNNING"}


def test_text_from_a_journal_is_escaped(bad):
    for text in (player.svg(bad), player.html(bad, title=BAD, titles=(BAD, ""))):
        assert "<img" not in text
    ET.fromstring(player.svg(bad, titles=(BAD, "")))
    assert BAD in player.describe(bad)


def test_fragment_needs_no_network(one):
    text = player.html(one)
    assert text.count("http") == text.count("http://www.w3.org/")
    assert "import " not in (STATIC / "player.js").read_text() and "</script>" not in (STATIC / "player.js").read_text()
    assert text == player.html(one)


def test_javascript_builds_text_only_by_text_content():
    script = (STATIC / "player.js").read_text()
    words = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(")
    assert not any(word in script for word in words)


def test_python_and_javascript_draw_alike():
    """Patterns, names and ranks are the same in both."""
    script = (STATIC / "player.js").read_text()
    for state, pattern in PATTERN.items():
        assert f'{state}: "{pattern}"' in script
    assert all(name in script for name in (*NAMED, *NAMED.values(), *SHORT, *SHORT.values(), *RANK))


def test_describe(one):
    lines = player.describe(recorded("d-reinit-in-gap")).splitlines()
    assert any("setup, active, device, failing" in line for line in lines)
    assert any("Switchover ACK was requested by 1 devices" in line for line in lines)
    both = player.describe(recorded("h-with-reinit-run1"), recorded("h-without-reinit-run1"), ("with", "without"))
    assert "with: a migration" in both and "only here" in both
    assert player.describe(Journal([], one.start))


def test_times():
    assert [us_text(x) for x in (0, 999, 1500, -2_000_000)] == ["0 µs", "999 µs", "1.5 ms", "-2 s"]
    assert [length_text(x) for x in (1234, 1_394_271)] == ["1.2 ms", "1394 ms"]


def test_scale_there_and_back():
    scale = Scale([(0, 0.0), (100, 50.0), (1_000_000, 100.0)], 0, 1_000_000, 100, 700)
    assert scale.x(0) == 100 and scale.x(1_000_000) == 700 and scale.us(scale.x(100)) == pytest.approx(100)
    marks = axis(scale.us, 100, 700, scale.x)
    assert len(marks) > 3 and all(b.x - a.x > 52 for a, b in pairwise(marks))


def test_widget_shows_text_where_no_widget_can():
    widget = player.show(recorded("d-reinit-in-gap"), title="gap")
    bundle = widget._repr_mimebundle_()
    bundle = bundle[0] if isinstance(bundle, tuple) else bundle
    assert "application/vnd.jupyter.widget-view+json" in bundle and "failing" in bundle["text/plain"]


# --- knobs ---

def test_knobs_simulate_anew():
    panel = player.knobs(DATA / "b-one-reinit", base=["base", "merged"],
                         devices__0__source__reinit={"none": "", "at 600 ms": "t600:8192", "in the gap": "gap:8192"},
                         devices__0__destination__load_init_ms=(0, 500, 10), params__downtime_limit=[100, 300])
    before = panel.player.data
    assert panel.run.outcome["status"] == "completed" and "downtime" in panel.readout.value
    panel.controls["devices.0.source.reinit"].value = "gap:8192"
    assert panel.player.data != before and panel.run.outcome["status"] == "failed"
    assert "Switchover ACK was requested" in panel.readout.value
    panel.controls["base"].value = "base"
    assert panel.run.outcome["status"] == "completed"


def test_knobs_are_labelled_and_start_at_what_holds():
    panel = player.knobs(DATA / "b-one-reinit", devices__0__destination__load_init_ms=(0, 500, 10))
    control = panel.controls["devices.0.destination.load_init_ms"]
    assert (control.value, control.description, control.continuous_update) == (200, "load init ms", False)
    panel = player.knobs(DATA / "b-one-reinit", devices__0__source__query_us=(0, 5000))  # not written: the default
    assert panel.controls["devices.0.source.query_us"].value == 1000


def test_a_knob_that_cannot_be():
    with pytest.raises(ScenarioError, match=r"knobs: mem: 3: allowed is \(low, high\)"):
        player.knobs({}, mem=3)
    with pytest.raises(ScenarioError, match="nearest"):
        player.knobs({}, params__downtime_limits=[100, 300])


def test_a_value_the_scenario_refuses_is_said_in_place():
    panel = player.knobs({"mem": 64}, mem=[64, 0])
    shown = panel.player.data
    panel.controls["mem"].value = 0
    assert 'role="alert"' in panel.readout.value and panel.player.data == shown
