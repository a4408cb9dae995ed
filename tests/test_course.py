"""The course kit, and every question of the suite: the reference answer passes, a wrong one is told what to look at."""
from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
import yaml

from migsim import Limits, course, explore, run, variant
from migsim.course import (
    CourseError,
    check,
    differences,
    exercise,
    predict,
    remember,
    reveal,
    source_of,
    verdict,
    verdicts,
)
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
            "p": {"ask": "What <b>now</b>?", "choices": ["<yes>", "no"], "answer": 1, "because": "so <it> is",
                  "hints": {0: "but <no>"}},
            "j": {"ask": "Count <them>", "because": "one each", "hint": "only the source's", "cases": [
                {"args": [{"run": "first-migration"}], "want": 2},
                {"args": [{"run": "first-migration", "base": "p5"}], "want": 1}]},
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
    assert "You said: &lt;yes&gt;. but &lt;no&gt;" in answer.value and "so &lt;it&gt; is" in answer.value
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


def test_check_against_this_run(own: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check("t.n", 5, value=5).passed and not check("t.n", 2, value=5).passed
    monkeypatch.setenv(course.HEADLESS, "1")
    assert check("t.n", value=2).passed and not check("t.n", value=5).passed


def test_exercise_over_journals(own: None) -> None:
    acks = "source_return_path_thread_switchover_acked"
    assert exercise("t.j", lambda journal: len(journal.all(acks))).passed
    said = exercise("t.j", lambda journal: 2).data
    assert "journal of first-migration at p5" in said and "only the source&#x27;s" in said


def test_an_exercise_not_written_yet_says_what_is_asked(own: None) -> None:
    said = exercise("t.j", lambda journal: None)
    assert not said.passed and "Count &lt;them&gt;" in said.data and "2 cases" in said.data


def test_progress_is_kept_only_when_asked(own: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.json"
    monkeypatch.delenv(course.REMEMBER, raising=False)
    check("t.n", 2)
    assert not file.exists()
    monkeypatch.setenv(course.REMEMBER, "")  # put back after the test
    assert "0 passed: none yet" in remember(file).data
    check("t.n", 2), check("t.w", "x"), exercise("t.e", lambda n: n * n)
    assert yaml.safe_load(file.read_text()) == ["t.e", "t.n"]
    assert "2 passed: t.e, t.n" in remember(file).data
    monkeypatch.setenv(course.HEADLESS, "1")
    check("t.w", "can_switchover")
    assert yaml.safe_load(file.read_text()) == ["t.e", "t.n"]
    file.write_text('{"a": 1}')
    with pytest.raises(CourseError, match=r"mine\.json: not a list of passed questions"):
        remember(file)


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
    right, other = (verdicts(runs, "initial-data-loaded", claim=("violated", word)).data for word in ("holds", "n/a"))
    assert "otherwise" not in right and 'class="migsim-course wrong"' not in right
    assert "The text is about violated, n/a; with these parameters it is otherwise" in other
    with pytest.raises(CourseError, match="nearest is 'acks-balance'"):
        verdicts(runs, "acks-balanced")


def test_verdicts_of_every_order() -> None:
    runs = {base: explore(variant(base, "new"), Limits(1, 1)) for base in ("p11", "p12")}
    told = verdicts(runs, "initial-data-loaded", "one-final-query").data
    assert "in some order: the shortest has" in told and f"in all orders: {runs['p12'].states} states" in told
    assert told.count("n/a") == 2  # a search judges only its own properties
    assert [verdict(r, "initial-data-loaded") for r in runs.values()] == ["violated", "holds"]


def test_differences() -> None:
    one, two = run(FIRST, base="p2"), run(FIRST, base="p3")
    assert "are equal" in differences(one, run(FIRST, base="p2")).data
    assert "loadvm_approve_switchover" in differences(one, two).data


def test_fingerprint_tells_journals_apart() -> None:
    same = [course.fingerprint(run(FIRST, base="p2")) for _ in range(2)]
    assert same[0] == same[1] != course.fingerprint(run(FIRST, base="p3"))


def test_source_of_shows_the_lines_of_the_package() -> None:
    told = source_of(switchover_ack.migration_can_switchover, "migration/migration.c").data
    assert "migsim/qemu/switchover_ack.py" in told and "def migration_can_switchover" in told
    told = source_of(switchover_ack.late_request).data
    assert "<li><code>code.late_request_fails</code>: p7 migration_switchover_start()</li>" in told
    assert "<b>    if not code.late_request_fails" in told


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
