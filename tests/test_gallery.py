"""The gallery's pages and the learner's edition, without executing the suite (test_notebooks.py does that)."""
from __future__ import annotations

import re
from pathlib import Path

import ipywidgets
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from migsim import run
from migsim.gallery import STATE, VIEW, heading, kept, learner, main, map_table, order, page, render, write_learner
from migsim.player import show
from migsim.runner import run_notebook

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
HOSTILE = "<img src=x onerror=alert(1)>"


def executed(*widgets: ipywidgets.Widget) -> nbformat.NotebookNode:
    """A notebook as a run leaves it: outputs that are views, and the state of all widgets."""
    state = ipywidgets.Widget.get_manager_state()["state"]
    cells = [new_markdown_cell("# A & B\n\n**You will be able to** see.\n\n**Time** 5 min\n\n"
                               "[next](00-start-here.ipynb)")]
    for w in widgets:
        view = {VIEW: {"model_id": w.model_id, "version_major": 2, "version_minor": 0}, "text/plain": "w"}
        cells.append(new_code_cell("w", execution_count=1, outputs=[new_output("display_data", view)]))
    return new_notebook(cells=cells, metadata={"widgets": {STATE: {"state": state}}})


def test_players_keep_working_and_controls_show_their_value() -> None:
    config = {"devices": [{"id": HOSTILE}], "caps": {"return-path": True, "switchover-ack": True}}
    slider = ipywidgets.IntSlider(value=7, min=1, max=9, description="load ms")
    choice = ipywidgets.Dropdown(options=["old", HOSTILE], value=HOSTILE, description="base")
    box = ipywidgets.HBox([slider, choice, ipywidgets.Button(description="Reveal"), ipywidgets.HTML("<b>said</b>")])
    text = page(executed(show(run(config).journal), box), ["00-start-here"])
    assert text.count('<div class="migsim-frozen">') == 1 and '<b>7</b> <small>(1 to 9)' in text
    assert '<li class="chosen">&lt;img' in text and "<b>said</b>" in text and "Reveal" in text
    assert HOSTILE not in text  # neither as markup nor in the player's data
    assert 'href="00-start-here.html"' in text and "<title>A &amp; B</title>" in text


def test_what_a_button_reveals_is_folded() -> None:
    asked, said = ipywidgets.HTML("asked"), ipywidgets.HTML("said")
    box = ipywidgets.VBox([asked, ipywidgets.Button(description="<Reveal>"), said])
    text = page(executed(box), [])
    assert "<div>asked</div><details><summary>&lt;Reveal&gt;</summary>said</details>" in text


def test_links_lead_to_pages() -> None:
    said = new_output("display_data", {"text/html": '<a href="p06-x.ipynb#a">p06</a> <a href="p99-x.ipynb">p99</a>'})
    node = new_notebook(cells=[new_markdown_cell("[docs](../docs/x.md) [p06](p06-x.ipynb)"),
                               new_code_cell("w", outputs=[said])])
    found = re.findall(r'<a href="([^"]+)"', page(node, ["p06-x"]))
    assert found == ["index.html", "../../docs/x.md", "p06-x.html", "p06-x.html#a", "p99-x.ipynb"]


def test_a_page_loads_nothing() -> None:
    text = page(executed(show(run(str(ROOT / "data" / "scenarios" / "first-migration.yaml")).journal)), [])
    assert re.findall(r'(?:src|href)="(?:https?:)?//', text) == [] and "unpkg" not in text and "@import" not in text


def test_index_leads_to_every_page(tmp_path: Path) -> None:
    for name in ("lab-b", "00-a", "p06-c"):
        nbformat.write(executed(), tmp_path / f"{name}.ipynb")
    files = render(tmp_path.glob("*.ipynb"), tmp_path / "out")
    index = (tmp_path / "out" / "index.html").read_text()
    assert re.findall(r'href="([\w-]+)\.html"', index) == ["00-a", "p06-c", "lab-b"]
    assert len(files) == 4 and all(f.exists() for f in files)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_learner_has_no_solutions(path: Path, tmp_path: Path) -> None:
    whole = nbformat.read(path, 4)
    [written] = write_learner(tmp_path / "notebooks", [path])
    stripped = nbformat.read(written, 4)
    gone = [c for c in whole.cells if "solution" in c.metadata.get("tags", [])]
    assert len(stripped.cells) == len(whole.cells) - len(gone)
    assert heading(stripped) == heading(whole) and learner(stripped) == stripped
    nbformat.validate(stripped)


def test_learner_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "notebooks"
    assert main(["--learner", str(folder)]) == 0
    assert len(list(folder.glob("*.ipynb"))) == len(NOTEBOOKS) and str(len(NOTEBOOKS)) in capsys.readouterr().out


def test_a_learner_can_run_what_he_gets(tmp_path: Path) -> None:
    [path] = write_learner(tmp_path / "notebooks", [ROOT / "notebooks" / "p06-reusable-ack.ipynb"])
    text = str([cell.get("outputs") for cell in run_notebook(path).cells])
    assert "5 cases wait" in text and "All 5 cases" not in text


@pytest.mark.parametrize("given", [["p06-reusable.ipynb"], ["--learner", "/dev/null/x"], ["--out", "/dev/null/x"]])
def test_what_cannot_be_read_or_written_is_one_line(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(given) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("gallery: ")


def test_the_map_is_up_to_date() -> None:
    start = nbformat.read(ROOT / "notebooks" / "00-start-here.ipynb", 4)
    [cell] = [c for c in start.cells if "map" in c.metadata.get("tags", [])]
    assert cell.source.endswith("\n\n" + map_table(NOTEBOOKS)), "bring it up to date: python -m migsim.gallery --map"


def test_kept_needs_both_verdicts() -> None:
    cells = ['verdicts({"a": x}, "acks-balance", claim=["violated"])',
             'verdicts(both, "acks-balance", claim=["holds"])',
             'assert verdict(x, "always-ends") == "violated"\nassert verdict(y, "always-ends") == "holds"',
             'verdicts(runs, "one-final-query", claim=["violated", "vacuous"])', 'print("violated", "holds")',
             'verdicts(three, "initial-data-loaded", claim=["violated", "violated", "holds"])']
    assert kept(new_notebook(cells=[new_code_cell(c) for c in cells])) == ["acks-balance", "always-ends"]
    assert kept(new_notebook(cells=[new_markdown_cell(c) for c in cells])) == []


def test_order_of_the_course() -> None:
    names = ["lab-x", "ref-x", "p01-x", "00-x", "capstone", "review-x", "p13-x"]
    assert sorted(names, key=lambda n: order(Path(n))) == ["00-x", "p01-x", "p13-x", "review-x", "lab-x", "capstone",
                                                          "ref-x"]
