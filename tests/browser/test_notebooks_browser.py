"""Each notebook in JupyterLab in a real browser: runs top to bottom, widgets appear, the player answers."""
from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
RUN_S = 120
#: cells that have run bear a number, those that wait a star or nothing; a folded solution has no prompt
DONE = """() => {
  const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(p => p.textContent);
  return prompts.some(p => /\\[[0-9]+\\]/.test(p)) && !prompts.some(p => /\\[[ *]\\]/.test(p))
      || document.querySelector('[data-mime-type="application/vnd.jupyter.stderr"]') !== null;
}"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_in_jupyterlab(page, suite: str, path: Path) -> None:
    page.goto(suite % f"notebooks/{path.name}" + "&reset")  # no tab of the notebook before
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(DONE, timeout=RUN_S * 1000)
    complaints = page.locator('[data-mime-type="application/vnd.jupyter.stderr"]')  # tracebacks have this type, too
    assert complaints.all_inner_texts() == []
    assert page.get_by_text("Error displaying widget").count() == 0
    assert page.get_by_text("model not found").count() == 0
    for k in range(page.locator(".migsim-player").count()):
        check_player(page, page.locator(".migsim-player").nth(k))
    shut_down(page, suite)


def shut_down(page, suite: str) -> None:
    """End the kernels: two dozen of them need gigabytes."""
    api = suite.partition("/lab/tree")[0] + "/api/sessions"
    for session in page.request.get(f"{api}?token=test").json():
        assert page.request.delete(f"{api}/{session['id']}?token=test").ok


def check_player(page, root) -> None:
    """It has drawn its events, and a step and a step back each draw anew."""
    root.scroll_into_view_if_needed()
    page.wait_for_function("e => e.dataset.frame > 0 && e.dataset.events > 0", arg=root.element_handle())
    cursors = []
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        frame = int(root.get_attribute("data-frame"))
        root.focus()
        root.press(key)
        page.wait_for_function("([e, f]) => e.dataset.frame > f", arg=[root.element_handle(), frame])
        cursors.append(int(root.get_attribute("data-cursor")))
    assert cursors[1] != cursors[0] == cursors[2]
