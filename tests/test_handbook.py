"""The documents' generated parts are what the notebooks and their questions say; the schedules fit their days."""
from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from migsim.handbook import (
    AFTER,
    BREAK,
    DATA,
    LONG_BREAK,
    LUNCH,
    PARTS,
    START,
    answer,
    answers,
    books,
    days,
    minutes,
    patches,
    plan,
    questions,
    renewed,
    timings,
)
from migsim.ladder import PATCHES


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.name)
def test_the_document_is_up_to_date(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text == renewed(text, PARTS[path]), "bring it up to date: python -m migsim.gallery --map"


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.name)
def test_the_links_lead_somewhere(path: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")) if ":" not in link]
    assert len(links) > 5 and [link for link in links if not (path.parent / link).exists()] == []


def test_a_row_for_each_patch() -> None:
    rows = patches().splitlines()[2:]
    assert all(subject in row for subject, row in zip(PATCHES.values(), rows, strict=True))
    assert "p06-reusable-ack.ipynb" in rows[5] and "`initial-data-loaded`" in rows[5]
    assert rows[4].endswith("|  |")  # a rename breaks no rule


def test_times_are_those_of_the_notebooks(tmp_path: Path) -> None:
    table = timings()
    assert all(path.name in table for path in books())
    assert table.endswith(f"| all | {sum(map(minutes, books()))} |  |")
    (tmp_path / "x.ipynb").write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    with pytest.raises(ValueError, match=r"x\.ipynb: no time in the first cell"):
        minutes(tmp_path / "x.ipynb")


@pytest.mark.parametrize("title, paths", days().items(), ids=list(days()))
def test_a_day_has_breaks_and_an_end(title: str, paths: list[Path]) -> None:
    rows = plan(paths)
    assert all(a[0] + a[2] == b[0] for a, b in pairwise(rows)) and rows[0][0] == START
    assert rows[-1][0] <= (13 * 60 if "Half" in title else 17 * 60)
    work = 0
    for _, what, length in rows:
        work = 0 if what in ("break", "lunch") else work + length
        assert work < AFTER + 45
    assert sum(what == "lunch" for _, what, _ in rows) == (rows[-1][0] > LUNCH + LONG_BREAK)
    assert {length for _, what, length in rows if what == "break"} <= {BREAK}


def test_two_days_have_every_notebook_once() -> None:
    first, second = (paths for title, paths in days().items() if "Two" in title)
    assert sorted(first + second) == sorted(path for path in books() if not path.stem.startswith("ref-"))


def test_every_question_is_answered() -> None:
    text = answers()
    found = [q for path in books() for q in questions(path.stem).values()]
    assert sum(line.startswith("- ") for line in text.splitlines()) == len(found) > 50
    known = {name for path in books() for name in (path.stem, path.stem.partition("-")[0])}
    assert {path.stem for path in DATA.glob("*.yaml")} <= known


def test_an_answer_in_words() -> None:
    assert answer({"choices": ["a", "b"], "answer": 1}) == "b" and answer({"answer": [1, 2]}) == "1 or 2"
    assert answer({"cases": [1, 2]}).startswith("exercise, 2 cases")


def test_marks_that_are_missing_are_one_line() -> None:
    with pytest.raises(ValueError, match="no place for 'timings': wanted is <!-- timings -->"):
        renewed("# nothing", {"timings": timings})
    assert renewed("a\n<!-- x -->\nold\n<!-- end of x -->\nb", {"x": lambda: "new"}) == (
        "a\n<!-- x -->\nnew\n<!-- end of x -->\nb")
