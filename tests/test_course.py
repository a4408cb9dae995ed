"""The course kit, and every question of the suite: the reference answer passes, a wrong one is told what to look at."""
from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
import yaml

from migsim import course, run
from migsim.course import CourseError, check, differences, exercise, predict, reveal, source_of, verdict, verdicts
from migsim.qemu import switchover_ack

ROOT = Path(__file__).parent.parent
QUESTIONS = [(path.stem, key, q) for path in sorted((ROOT / "data" / "course").glob("*.yaml"))
             for key, q in yaml.safe_load(path.read_text(encoding="utf-8")).items()]
FIRST = str(ROOT / "data" / "scenarios" / "first-migration.yaml")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions of the tests."""
    data = {"n": {"ask": "How <many>?", "answer": 2, "because": "one each", "hint": "count again", "wrong": 7,
                  "hints": {3: "one is not asked"}},
            "w": {"ask": "Which function?", "answer": ["migration_can_switchover", "can_switchover"],
                  "because": "it is", "hint": "look at the loop", "wrong": "x"},
            "p": {"ask": "What <b>now</b>?", "choices": ["<yes>", "no"], "answer": 1, "because": "so <it> is"},
            "e": {"ask": "Write it", "cases": [{"args": [2], "want": 4}, {"args": [3], "want": 9}],
                  "because": "squares", "hint": "multiply"}}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    monkeypatch.setattr(course, "DATA", tmp_path)
    monkeypatch.delenv(course.HEADLESS, raising=False)
    course._book.cache_clear()
    yield
    course._book.cache_clear()


def test_check(own: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check("t.n", 2).passed and "one each" in check("t.n", "2").data
    assert not check("t.n", 3).passed and "one is not asked" in check("t.n", 3).data
    assert "count again" in check("t.n", None).data and "&lt;many&gt;" in check("t.n", 2).data
    assert check("t.w", " Migration_can_switchover() ").passed and not check("t.w", "<i>").passed
    assert "<i>" not in check("t.w", "<i>").data.partition("</style>")[2]
    asked = check("t.n")
    assert not asked.passed and "one each" not in asked.data
    monkeypatch.setenv(course.HEADLESS, "1")
    assert check("t.n").passed


def test_predict_reveals_by_button_or_alone(own: None, monkeypatch: pytest.MonkeyPatch) -> None:
    widget = predict("t.p")
    ask, choices, button, answer = widget.children
    assert answer.value == "" and "&lt;b&gt;" in ask.value
    choices.value = 0
    button.click()
    assert "You said: &lt;yes&gt;" in answer.value and "so &lt;it&gt; is" in answer.value
    choices.value = 1
    button.click()
    assert "Right." in answer.value
    assert "<details>" in reveal("t.p").data and "so &lt;it&gt; is" in reveal("t.p").data
    monkeypatch.setenv(course.HEADLESS, "1")
    assert "so &lt;it&gt; is" in predict("t.p").children[3].value


def test_exercise(own: None) -> None:
    assert exercise("t.e", lambda n: n * n).passed
    said = exercise("t.e", lambda n: n + 2)
    assert not said.passed and "multiply" in said.data and "9" in said.data
    assert "ZeroDivisionError" in exercise("t.e", lambda n: n / 0).data


@pytest.mark.parametrize("key, near", [("t.nn", "t.n"), ("tt.n", "t"), ("t", "t."), ("", "t")])
def test_an_unknown_key_is_one_line(own: None, key: str, near: str) -> None:
    with pytest.raises(CourseError, match=re.escape(near)) as error:
        check(key, 1)
    assert "\n" not in str(error.value)


def test_verdicts_side_by_side() -> None:
    runs = {"p12": run(FIRST, base="p12"), "<p13>": run(FIRST, base="p13")}
    told = verdicts(runs, "initial-data-loaded").data
    assert "BROKEN" in told and "holds" in told and "&lt;p13&gt;" in told
    assert [verdict(r, "initial-data-loaded") for r in runs.values()] == ["violated", "holds"]
    with pytest.raises(CourseError, match="nearest is 'acks-balance'"):
        verdicts(runs, "acks-balanced")


def test_differences() -> None:
    one, two = run(FIRST, base="p2"), run(FIRST, base="p3")
    assert "are equal" in differences(one, run(FIRST, base="p2")).data
    assert "loadvm_approve_switchover" in differences(one, two).data


def test_source_of_shows_the_lines_of_the_package() -> None:
    told = source_of(switchover_ack.migration_can_switchover, "migration/migration.c").data
    assert "migsim/qemu/switchover_ack.py" in told and "def migration_can_switchover" in told


# --- the suite's own questions ---

every_question = pytest.mark.parametrize("book, key, q", QUESTIONS, ids=[f"{b}.{k}" for b, k, _ in QUESTIONS])


@every_question
def test_question(book: str, key: str, q: dict) -> None:
    """Complete; the reference answer passes, the wrong one fails with a hint."""
    assert q["ask"] and q["because"]
    if "choices" in q:
        assert len(set(q["choices"])) >= 2 and q["choices"][q["answer"]]
    elif "cases" in q:
        assert len(q["cases"]) >= 2 and q["hint"]
    else:
        assert all(check(f"{book}.{key}", a).passed for a in course.accepted(q))
        wrong = check(f"{book}.{key}", q["wrong"])
        assert not wrong.passed and len(q["hint"]) > 15


@pytest.mark.parametrize("book", sorted({b for b, _, _ in QUESTIONS}))
def test_questions_are_asked_where_they_belong(book: str) -> None:
    """Every question stands in its notebook, and no notebook asks for one that is not there."""
    [path] = [p for p in (ROOT / "notebooks").glob("*.ipynb") if p.stem == book or p.stem.startswith(book + "-")]
    source = "\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code")
    asked = set(re.findall(rf"[\"']{re.escape(book)}\.([\w-]+)[\"']", source))
    assert asked == {key for b, key, _ in QUESTIONS if b == book}
