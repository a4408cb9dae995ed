"""Pages of the gallery from disk: players work, nothing is fetched, nothing is wider than the page."""
from __future__ import annotations

from pathlib import Path

import pytest

from migsim.gallery import gallery

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SHOWN = ["00-start-here", "lab-every-order-of-events"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    _, failures = gallery(folder, [NOTEBOOKS / f"{name}.ipynb" for name in SHOWN])
    assert failures == []
    return folder


def test_from_the_index_to_a_working_player(page, pages: Path) -> None:
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    page.goto((pages / "index.html").as_uri())
    page.get_by_role("link", name="Start here").click()
    root = page.locator(".migsim-player").first
    root.wait_for()
    cursor = int(root.get_attribute("data-cursor"))
    root.press("ArrowRight")
    page.wait_for_function("c => document.querySelector('.migsim-player').dataset.cursor > c", arg=cursor)
    page.get_by_role("link", name="All notebooks").click()
    assert page.title() == "migsim: the notebooks"
    assert [url for url in fetched if not url.startswith("file:")] == []


@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.parametrize("width", [700, 1200])
def test_fits_the_page(page, pages: Path, name: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto((pages / f"{name}.html").as_uri())
    page.locator(".migsim-player").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
