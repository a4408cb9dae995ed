"""The player in a real browser: a page from disk, keys, text that tries to be markup, JupyterLab."""
from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from migsim import player
from migsim.compare import find_log
from migsim.journal import Journal, read_journal
from migsim.run import run

DATA = Path(__file__).parents[2] / "data" / "recordings"
BAD = "<img src=x onerror=window.hacked=1>"
SCENARIO = {"caps": {"return-path": True, "switchover-ack": True}, "params": {"avail-switchover-bandwidth": 10**9},
            "devices": [{"common": {"load_init_ms": 40}, "source": {"reinit": "t150:8192"}}]}


def recording(name: str) -> Journal:
    """A recorded run."""
    return read_journal(find_log(DATA / name, "source"), find_log(DATA / name, "destination"))


@pytest.fixture
def opened(page, tmp_path):
    """Opens the player of one or two journals from disk; gives (page, root element)."""
    def open_(*journals: Journal, **kwargs):
        requests: list[str] = []
        page.on("request", lambda r: requests.append(r.url))
        path = tmp_path / "page.html"
        path.write_text(f"<!doctype html><meta charset=utf-8>{player.html(*journals, **kwargs)}", encoding="utf-8")
        page.goto(path.as_uri())
        root = page.locator(".migsim-player")
        root.wait_for()
        page.wait_for_function("document.querySelector('.migsim-player').dataset.frame > 0")
        assert all(url.startswith("file:") for url in requests), requests
        return root
    return open_


def frame(root) -> int:
    return int(root.get_attribute("data-frame"))


def cursor(root) -> int:
    return int(root.get_attribute("data-cursor"))


def press(page, root, key: str) -> None:
    """A key, and wait until what it does is drawn."""
    before = frame(root)
    root.press(key)
    page.wait_for_function("f => document.querySelector('.migsim-player').dataset.frame > f", arg=before)


def test_page_from_disk(page, opened):
    root = opened(recording("a-one-device-new-ack"), title="one device")
    assert int(root.get_attribute("data-events")) > 60
    assert root.locator("svg").count() == 1  # the static twin has given way
    texts = root.locator("svg text").all_text_contents()
    assert {"vfio0", "PRE_COPY", "vfio0 INIT_DATA_SENT", "SWITCHOVER_ACK", "switch over!"} <= set(texts)
    assert any("downtime 26" in t for t in texts)
    assert "setup" in root.locator(".ms-event").text_content()


def test_step_back_and_ends(page, opened):
    root = opened(recording("a-one-device-new-ack"))
    start, said = cursor(root), root.locator(".ms-event").text_content()
    press(page, root, "ArrowRight")
    assert cursor(root) == start + 1 and root.locator(".ms-event").text_content() != said
    press(page, root, "ArrowLeft")
    assert cursor(root) == start and root.locator(".ms-event").text_content() == said
    press(page, root, "End")
    assert cursor(root) == int(root.get_attribute("data-events")) - 1
    press(page, root, "Home")
    assert cursor(root) == 0


def test_protocol_events_and_counter(page, opened):
    root = opened(recording("a-one-device-new-ack"))
    for _ in range(60):
        press(page, root, "Shift+ArrowRight")
        if "switchover_acked" in root.locator(".ms-event").text_content():
            break
    assert "SWITCHOVER_ACK has come: 0 awaited" in root.locator(".ms-what").text_content()
    assert root.locator(".ms-now code").last.text_content() == "0"
    press(page, root, "Shift+ArrowLeft")
    assert "migrate_send_rp_message 7" in root.locator(".ms-event").text_content()
    assert root.locator(".ms-now code").last.text_content() == "1"


def test_zoom_time_and_play(page, opened):
    root = opened(recording("d-reinit-in-gap"))
    def names():
        return root.locator("svg text").all_text_contents()
    assert "failing" in names() and "SWITCHOVER_ACK" in names()
    press(page, root, "z")
    assert "REINIT" in names() and "SWITCHOVER_ACK" not in names()
    press(page, root, "0")
    assert "SWITCHOVER_ACK" in names()
    press(page, root, "t")
    assert "after setup, true time" in names()
    press(page, root, "+")
    before = cursor(root)
    root.press(" ")
    page.wait_for_function("c => document.querySelector('.migsim-player').dataset.cursor > c + 2", arg=before)
    root.press(" ")
    assert root.locator("button[data-action=play]").text_content() == "▶ Play"


def test_present_function_follows_the_cursor(page, opened):
    root = opened(recording("a-one-device-new-ack"))
    press(page, root, "z")
    shown = root.locator("svg text.fn").all_text_contents()
    assert "migration_iteration_run()" in shown
    press(page, root, "End")
    assert root.locator("svg text.fn").all_text_contents() != shown


def test_scrub_by_pointer_and_range(page, opened):
    root = opened(recording("a-one-device-new-ack"))
    box = root.locator("svg").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.8, box["y"] + 60)
    page.wait_for_function("document.querySelector('.migsim-player').dataset.cursor > 60")
    root.locator("input[type=range]").fill("3")
    page.wait_for_function("document.querySelector('.migsim-player').dataset.cursor == 3")


def test_differences_are_marked(page, opened):
    root = opened(recording("h-with-reinit-run1"), recording("h-without-reinit-run1"), titles=("with", "without"))
    assert root.locator("svg path.differs").count() > 5
    press(page, root, "d")
    assert "Only here" in root.locator(".ms-what").text_content()


def test_text_stays_text(page, opened):
    scenario = {**SCENARIO, "devices": [{**SCENARIO["devices"][0], "id": BAD}]}
    root = opened(run(scenario).journal, title=BAD, titles=(BAD, ""))
    press(page, root, "z")
    box = root.locator("svg").bounding_box()
    for y in range(20, int(box["height"]), 12):
        page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + y)
    assert root.locator("img").count() == 0 and page.evaluate("window.hacked") is None
    assert BAD in root.locator(".ms-heading").text_content()
    assert any(BAD in t for t in root.locator("svg title").all_text_contents())


@pytest.mark.parametrize("width", [700, 1200])
def test_nothing_is_wider_than_the_page(page, opened, width):
    page.set_viewport_size({"width": width, "height": 900})
    root = opened(recording("h-with-reinit-run1"))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert root.bounding_box()["height"] <= 1200


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(page, opened, scheme):
    """Every text of picture and controls has a contrast of 4.5 or more to whatever can lie behind it."""
    page.emulate_media(color_scheme=scheme)
    opened(recording("a-one-device-new-ack"))
    colours = page.evaluate("""() => {
        const s = getComputedStyle(document.querySelector('.migsim-player'));
        return Object.fromEntries(['bg','ink','soft','head','down','accent','warn','green','blue','orange','grey',
            'violet','red','yellow','data'].map(n => [n, s.getPropertyValue('--ms-' + n).trim()]))}""")
    grounds = {"ink": ("bg", "head", "green", "blue", "orange", "grey", "violet", "red", "yellow", "down", "data"),
               "soft": ("bg", "head", "down"), "accent": ("bg",), "warn": ("bg", "blue")}
    for text, behind in grounds.items():
        for ground in behind:
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def contrast(a: str, b: str) -> float:
    """WCAG's contrast ratio of two #rrggbb colours."""
    def luminance(colour: str) -> float:
        parts = [int(colour[k:k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    one, two = sorted((luminance(a), luminance(b)), reverse=True)
    return (one + 0.05) / (two + 0.05)


def test_knobs_in_jupyterlab(page, lab):
    """The widget appears, a knob moves, the kernel simulates, the picture is drawn anew."""
    address, root = lab
    code = (f"from migsim.player import knobs\nk = knobs({SCENARIO!r}, base=True, "
            "devices__0__destination__load_init_ms=(0, 100))\nk")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, root / "k.ipynb")
    page.goto(address % "k.ipynb")
    page.locator(".jp-Notebook .jp-CodeCell").wait_for(timeout=60_000)
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    player_root = page.locator(".migsim-player")
    player_root.wait_for(timeout=60_000)
    page.wait_for_function("document.querySelector('.migsim-player').dataset.frame > 0")
    before, events = frame(player_root), player_root.get_attribute("data-events")
    page.locator(".widget-dropdown select").select_option("base")
    page.wait_for_function("f => document.querySelector('.migsim-player').dataset.frame > f", arg=before)
    assert player_root.get_attribute("data-events") != events
    before = frame(player_root)
    page.locator(".widget-slider .noUi-handle").press("End")
    page.wait_for_function("f => document.querySelector('.migsim-player').dataset.frame > f", arg=before)
    press(page, player_root, "z")
    press(page, player_root, "ArrowRight")
    assert page.locator(".jp-Notebook .jp-Cell").count() == 1  # the keys stayed in the player
