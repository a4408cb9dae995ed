"""The mailed page in a browser: it plays, goes dark, fits 700 px, and prints the still picture."""
from __future__ import annotations

from pathlib import Path

import pytest

from migsim import read_journal
from migsim.page import Table, article, document

DATA = Path(__file__).parents[2] / "data" / "recordings" / "b-one-reinit"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    journal = read_journal(DATA / "source.log.xz", DATA / "destination.log.xz")
    long = Table(("rule", "reason"), [("an abort by the ACK check means that " * 4, "x" * 90)])
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(document("b", [article(journal, "b", "It completed.", ledger={"stop vCPUs": 1.2, "RAM": 17.0},
                                           tables={"Rules": long})]), encoding="utf-8")
    return path.as_uri()


def ground(page: object, selector: str) -> int:
    """How light the background is, 0 to 765."""
    color = page.eval_on_selector(selector, "e => getComputedStyle(e).backgroundColor")
    return sum(int(part) for part in color[4:-1].split(","))


def test_it_plays_and_loads_nothing(page: object, address: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    before = page.inner_text(".ms-where")
    page.focus(".migsim-player")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("t => document.querySelector('.ms-where').innerText !== t", arg=before)
    assert [url for url in asked if not url.startswith("data:")] == [address]


@pytest.mark.parametrize("scheme, light", [("light", True), ("dark", False)])
def test_page_and_player_follow_the_readers_preference(page: object, address: str, scheme: str, light: bool) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto(address)
    assert (ground(page, "body") > 600) is light and (ground(page, ".migsim-player") > 600) is light


def test_nothing_is_wider_than_700_pixels(page: object, address: str) -> None:
    page.set_viewport_size({"width": 700, "height": 900})
    page.goto(address)
    page.wait_for_selector(".migsim-player svg")
    assert page.evaluate("document.documentElement.scrollWidth") == 700


def test_paper_has_the_still_picture_in_light_colours(page: object, address: str) -> None:
    page.goto(address)
    assert page.is_visible(".screen") and not page.is_visible(".paper")
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.is_visible(".screen") and page.is_visible(".paper svg")
    assert ground(page, ".paper svg") == ground(page, "body") == 765
