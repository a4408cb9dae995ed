"""Every notebook keeps the rules and runs in a fresh kernel; and both the lint and the runner can say no."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from migsim.runner import NotebookError, run_notebook
from notebooks_lint import RULES, lint

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXECUTED = ROOT / "build" / "notebooks"
WORKERS = 2
NOTEBOOK_LIMIT_S = 300

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS, "notebooks/ has no notebook"


@every_notebook
def test_keeps_the_rules(path: Path) -> None:
    assert lint(path) == []


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[dict[Path, object]]:
    """The asked notebooks, all started at once in two processes; leaving ends what still runs."""
    asked = [
        item.callspec.params["path"]
        for item in request.session.items
        if getattr(item, "originalname", "") == "test_runs" and item.module is request.module
    ]
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        yield {path: pool.apply_async(_run, (path,)) for path in asked}


def _run(path: Path) -> None:
    run_notebook(path, output=EXECUTED / path.name)


@every_notebook
def test_runs(path: Path, runs: dict[Path, multiprocessing.pool.AsyncResult]) -> None:
    failure = ""
    try:
        runs[path].get(timeout=NOTEBOOK_LIMIT_S)
    except NotebookError as error:
        failure = str(error)
    except multiprocessing.TimeoutError:
        failure = f"{path.name}: not done after {NOTEBOOK_LIMIT_S} s"
    if failure:
        pytest.fail(failure, pytrace=False)
    assert wrong_boxes(EXECUTED / path.name) == []


def wrong_boxes(executed: Path) -> list[str]:
    """What the course kit marks as wrong: a claim that this run does not bear out, an answer that is not this run's, a
    solution that fails."""
    htmls = [str(output.get("data", {}).get("text/html", "")) for cell in nbformat.read(executed, as_version=4).cells
             for output in cell.get("outputs", [])]
    return [re.sub(r"<[^>]+>", " ", html.rpartition("</style>")[2]) for html in htmls if "migsim-course wrong" in html]


# --- the lint sees each rule broken ---

TITLE = """\
# p07. A small notebook

**You will be able to** see a number.

**You need** nothing.

**Time** 5 min

**Patch** 7, "a subject"
"""

ENDING = """\
A number was shown.
It was the one you gave.
Nothing else happened.

Next: [the patch](https://example.org/patch)
"""


def good_notebook() -> NotebookNode:
    """A notebook for patch 7 that keeps every rule: 3 takes parameters, 5 asks, 7 answers, 9 and 11 draw and check."""
    cells = [
        new_markdown_cell(TITLE),
        new_markdown_cell("What you may change:"),
        new_code_cell("rounds: int = 3  # how many rounds, count\nspeed: float = 1e9  # bytes per second",
                      metadata={"tags": ["parameters"]}),
        new_markdown_cell("Which number comes?"),
        new_code_cell("guess, check, exercise = 3, str, str", metadata={"tags": ["predict"]}),
        new_markdown_cell("This one."),
        new_code_cell("print(rounds, guess)", metadata={"tags": ["reveal"]}),
        new_markdown_cell("A drawing."),
        new_code_cell("picture = check('a') + check('b') + exercise('c')", metadata={"tags": ["static"]}),
        new_markdown_cell("The same to play with."),
        new_code_cell("player = exercise('c')", metadata={"tags": ["widget", "solution"],
                                                           "jupyter": {"source_hidden": True}}),
        new_markdown_cell(ENDING),
    ]  # fmt: skip
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def write(notebook: NotebookNode, folder: Path, name: str = "p07-small.ipynb") -> Path:
    path = folder / name
    nbformat.write(notebook, path)
    return path


def test_the_good_notebook_keeps_every_rule(tmp_path: Path) -> None:
    assert lint(write(good_notebook(), tmp_path)) == []


def source(number: int, text: str) -> Callable[[NotebookNode], object]:
    """Give the cell `number`, counted from 1, another text."""
    return lambda notebook: notebook.cells[number - 1].update(source=text)


def replaced(number: int, old: str, new: str) -> Callable[[NotebookNode], object]:
    def change(notebook: NotebookNode) -> None:
        cell = notebook.cells[number - 1]
        assert old in cell.source
        cell.source = cell.source.replace(old, new)

    return change


def untagged(number: int) -> Callable[[NotebookNode], object]:
    return lambda notebook: notebook.cells[number - 1].metadata.clear()


# What is broken: the rule that must see it, and how.
BREAKS: dict[str, tuple[str, Callable[[NotebookNode], object]]] = {
    "title-without-its-number": ("title", replaced(1, "# p07. ", "# ")),
    "title-too-long": ("title", replaced(1, "small", "s" + 80 * "m" + "all")),
    "title-is-code": ("title", lambda notebook: notebook.cells.insert(0, new_markdown_cell("Hello."))),
    "no-goal": ("title", replaced(1, "**You will be able to**", "You will")),
    "no-needs": ("title", replaced(1, "**You need**", "Needed:")),
    "no-time": ("title", replaced(1, "**Time** 5 min", "Soon.")),
    "time-without-minutes": ("title", replaced(1, "5 min", "short")),
    "no-patch": ("title", replaced(1, "**Patch** 7", "Seven")),
    "no-parameters": ("parameters", untagged(3)),
    "two-parameters-cells": ("parameters", lambda notebook: notebook.cells[6].metadata.tags.append(
        "parameters")),
    "code-before-parameters": ("parameters", lambda notebook: notebook.cells.insert(
        1, new_markdown_cell("First:")) or notebook.cells.insert(2, new_code_cell("x = 1"))),
    "parameter-without-type": ("parameters", replaced(3, "rounds: int", "rounds")),
    "parameter-without-comment": ("parameters", replaced(3, "# how many rounds, count", "")),
    "parameter-computed": ("parameters", replaced(3, "= 3", "= int('3')")),
    "parameter-hidden-from-papermill": ("parameters", replaced(3, "rounds: int =", "rounds: int | None =")),
    "magic": ("plain-python", source(7, "%matplotlib widget")),
    "shell": ("plain-python", source(7, "!pip install x")),
    "syntax": ("plain-python", source(7, "print(")),
    "network": ("no-network", source(7, "from urllib.request import urlopen")),
    "interact": ("waiting-widgets", source(7, "from ipywidgets import interact")),
    "output-widget": ("waiting-widgets", source(7, "import ipywidgets\nipywidgets.Output()")),
    "code-over-30-lines": ("code-length", source(7, "x = 1\n" * 31)),
    "two-cells-over-12-lines": ("code-length", lambda notebook: (
        source(7, "x = 1\n" * 13)(notebook), source(9, "x = 1\n" * 13)(notebook))),
    "long-def": ("def-length", source(7, "def f():\n" + "    x = 1\n" * 10)),
    "no-prose": ("prose", lambda notebook: notebook.cells.pop(5)),
    "empty-prose": ("prose", source(6, " ")),
    "long-prose": ("markdown-length", source(6, "word " * 121)),
    "one-check": ("self-checks", replaced(9, "check('b') + ", "")),
    "no-exercise": ("self-checks", lambda notebook: (
        source(9, "check('a') + check('b')")(notebook), source(11, "1")(notebook))),
    "no-solution": ("solution", lambda notebook: notebook.cells[10].metadata.tags.remove("solution")),
    "solution-not-folded": ("solution", lambda notebook: notebook.cells[10].metadata.pop("jupyter")),
    "no-predict": ("predict", untagged(5)),
    "predict-without-reveal": ("predict", untagged(7)),
    "reveal-before-predict": ("predict", lambda notebook: notebook.cells.insert(4, notebook.cells.pop(6))),
    "widget-without-static": ("widget-twin", untagged(9)),
    "outputs-kept": ("stripped", lambda notebook: notebook.cells[6].update(
        outputs=[new_output("stream", text="3\n")])),
    "count-kept": ("stripped", lambda notebook: notebook.cells[6].update(execution_count=3)),
    "cell-metadata-kept": ("stripped", lambda notebook: notebook.cells[6].metadata.update(papermill={})),
    "widget-state-kept": ("stripped", lambda notebook: notebook.metadata.update(widgets={})),
    "another-kernel": ("stripped", lambda notebook: notebook.metadata.kernelspec.update(name="conda-env")),
    "dead-link": ("links", source(6, "See [there](nowhere.ipynb#part).")),
    "no-next": ("ending", replaced(12, "Next:", "Later:")),
    "next-without-link": ("ending", source(12, "One.\nTwo.\nThree.\n\nNext: more")),
    "short-summary": ("ending", replaced(12, "Nothing else happened.\n", "")),
    "no-link-to-the-patch": ("ending", replaced(12, "https://example.org/patch", "p07-small.ipynb")),
    "ends-with-code": ("ending", lambda notebook: notebook.cells.pop()),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_lint_sees(name: str, tmp_path: Path) -> None:
    rule, change = BREAKS[name]
    notebook = good_notebook()
    change(notebook)
    broken = lint(write(notebook, tmp_path))
    assert any(f" {rule}: " in line for line in broken), broken


def test_lint_sees_a_strange_file_name(tmp_path: Path) -> None:
    assert any("file-name" in line for line in lint(write(good_notebook(), tmp_path, "Small Notebook.ipynb")))


def test_lint_sees_a_text_twin(tmp_path: Path) -> None:
    (tmp_path / "p07-small.md").write_text("the same as text")
    assert any("one-source" in line for line in lint(write(good_notebook(), tmp_path)))


def test_each_rule_is_seen_broken() -> None:
    assert {rule for rule, _ in BREAKS.values()} | {"file-name", "one-source"} == set(RULES)


# --- the runner ---


def test_run_takes_parameters(tmp_path: Path) -> None:
    copy = tmp_path / "out" / "copy.ipynb"
    executed = run_notebook(write(good_notebook(), tmp_path), {"rounds": 5, "speed": 2}, copy)
    printed = [output["text"] for cell in executed.cells for output in cell.get("outputs", [])]
    assert printed == ["5 3\n"]
    assert nbformat.read(copy, as_version=4) == executed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"round": 5}, "no parameter 'round'; allowed: rounds, speed; did you mean 'rounds'?"),
        ({"rounds": "5"}, "parameter 'rounds': '5' is of type str, but int is wanted, as in the default 3"),
        ({"rounds": True}, "is of type bool, but int is wanted"),
        ({"rounds": 2.5}, "is of type float, but int is wanted"),
    ],
)
def test_run_refuses_parameters(given: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(NotebookError) as caught:
        run_notebook(write(good_notebook(), tmp_path), given, tmp_path / "copy.ipynb")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "copy.ipynb").exists()


@pytest.mark.parametrize("content", ["hello", '{"a": 1}', "[]"])
def test_run_refuses_what_is_no_notebook(content: str, tmp_path: Path) -> None:
    path = tmp_path / "x.ipynb"
    path.write_text(content)
    with pytest.raises(NotebookError, match=r"x\.ipynb: not a notebook: "):
        run_notebook(path)


def test_run_refuses_a_missing_notebook(tmp_path: Path) -> None:
    with pytest.raises(NotebookError, match=r"none\.ipynb: No such file"):
        run_notebook(tmp_path / "none.ipynb")


def test_run_names_the_failing_cell_and_leaves_the_copy(tmp_path: Path) -> None:
    notebook, copy = good_notebook(), tmp_path / "copy.ipynb"
    source(7, "print('so far')\n1 / 0")(notebook)
    with pytest.raises(NotebookError) as caught:
        run_notebook(write(notebook, tmp_path), {"rounds": 4}, copy)
    failed = "p07-small.ipynb: cell 7 (print('so far')): ZeroDivisionError: division by zero"
    assert str(caught.value) == f"{failed}; executed copy: {copy}"
    assert "so far" in copy.read_text()


def test_run_ends_a_cell_that_hangs(tmp_path: Path) -> None:
    notebook = good_notebook()
    source(7, "import time\ntime.sleep(100)")(notebook)
    with pytest.raises(NotebookError, match=r"cell 7 \(import time\): not done after 1 s"):
        run_notebook(write(notebook, tmp_path), output=tmp_path / "copy.ipynb", cell_timeout_s=1)


def test_run_says_when_the_kernel_dies(tmp_path: Path) -> None:
    notebook = good_notebook()
    source(7, "import os\nos._exit(1)")(notebook)
    with pytest.raises(NotebookError, match=r"cell 7 \(import os\): the kernel died"):
        run_notebook(write(notebook, tmp_path), output=tmp_path / "copy.ipynb")
