"""The course kit: predict and reveal, self-checks that teach, exercises, verdicts side by side, the model's own lines.

Questions, answers and hints are data: `data/course/<notebook>.yaml`, a key is `<notebook>.<question>`. In a notebook
that nobody sits at (the runner, the gallery) questions answer themselves, so what follows is shown either way.
"""
from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets
import yaml
from IPython.display import HTML

from .checks import RULES
from .checks import check as judge
from .journal import Journal
from .run import Run

DATA = Path(__file__).parent.parent / "data" / "course"
HEADLESS = "MIGSIM_HEADLESS"  # set by the runner
MARKS = {"holds": "✓ holds", "violated": "✗ BROKEN", "vacuous": "– vacuous", "n/a": "– n/a", "unknown": "? unknown"}
STYLE = """<style>
.migsim-course { border-left: 4px solid var(--jp-brand-color1, #0b5cad); padding: .4em .9em; margin: .3em 0;
  background: var(--jp-layout-color2, #f0f3f6); color: var(--jp-ui-font-color1, #1f2933); max-width: 60em; }
.migsim-course.right { border-left-color: #2e7d32; } .migsim-course.wrong { border-left-color: #b3202a; }
.migsim-course table { border-collapse: collapse; } .migsim-course th, .migsim-course td { text-align: left;
  padding: .2em .8em; border-bottom: 1px solid var(--jp-border-color2, #9aa5b1); vertical-align: top; }
.migsim-course pre { margin: .4em 0; overflow-x: auto; color: inherit; background: transparent; }
.migsim-course summary { cursor: pointer; font-weight: 600; }
</style>"""


class CourseError(ValueError):
    """A key that no question has, or an answer of the wrong kind; the message is one line."""


def headless() -> bool:
    """Nobody answers: the runner and the gallery say so in the environment."""
    return bool(os.environ.get(HEADLESS))


@cache
def _book(name: str) -> dict[str, dict[str, Any]]:
    path = DATA / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in DATA.glob("*.yaml"))
        near = difflib.get_close_matches(name, known, 1, 0.0)
        raise CourseError(f"{name!r}: no questions there: allowed is {', '.join(known)}"
                          + (f"; nearest is {near[0]!r}" if near else ""))
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def question(key: str) -> dict[str, Any]:
    """The data of `<notebook>.<question>`. Raises CourseError with the nearest key."""
    name, _, part = key.partition(".")
    book = _book(name)
    if part not in book:
        near = difflib.get_close_matches(part, list(book), 1, 0.0)[0]
        raise CourseError(f"{key!r}: no such question: allowed is {', '.join(book)}; nearest is {name + '.' + near!r}")
    return book[part]


def box(body: str, kind: str = "") -> HTML:
    """A note in the course's frame; `body` is HTML."""
    return HTML(f'{STYLE}<div class="migsim-course {kind}">{body}</div>')


# --- predict, then reveal ---

def predict(key: str) -> ipywidgets.VBox:
    """A question before its result: choices, a button, and the answer that the button (or nobody) reveals.

    The data: `ask`, `choices` (list), `answer` (index from 0), `because`. Below it `reveal(key)` gives the same
    answer as folded text, for a page without kernel.
    """
    q = question(key)
    choices = ipywidgets.RadioButtons(options=[(text, k) for k, text in enumerate(q["choices"])], index=None,
                                      layout={"width": "auto"}, description="Your guess",
                                      style={"description_width": "initial"})
    button = ipywidgets.Button(description="Reveal", tooltip="Show the answer")
    answer = ipywidgets.HTML()

    def show(_: Any = None) -> None:
        answer.value = STYLE + _answer(q, choices.value)

    button.on_click(show)
    if headless():
        show()
    ask = ipywidgets.HTML(f"<b>{escape(q['ask'])}</b>")
    return ipywidgets.VBox([ask, choices, button, answer])


def _answer(q: Mapping[str, Any], guess: int | None) -> str:
    right = q["choices"][q["answer"]]
    said = "" if guess is None else "Right. " if guess == q["answer"] else f"You said: {escape(q['choices'][guess])}. "
    kind = "right" if guess in (None, q["answer"]) else "wrong"
    return (f'<div class="migsim-course {kind}">{said}<b>{escape(right)}</b><br>{escape(q["because"])}</div>')


def reveal(key: str) -> HTML:
    """The answer to `predict(key)` as folded text."""
    q = question(key)
    return box(f"<details><summary>The answer</summary><b>{escape(q['choices'][q['answer']])}</b><br>"
               f"{escape(q['because'])}</details>")


# --- self-checks ---

class Checked(HTML):
    """What check() shows; `passed` for tests."""

    passed = False


def check(key: str, answer: Any = ...) -> Checked:
    """Compare an answer with the question's data and say why it is right, or what to look at.

    The data: `ask`, `answer` (a value, or a list of accepted ones), `tolerance` for numbers (a share, 0.02 by default),
    `because`, `hints` (wrong answer -> hint), `hint` (for any other), `wrong` (an example for the tests). Left at `...`
    it asks; with nobody there it answers itself. Raises CourseError for an unknown key.
    """
    q = question(key)
    if answer is ... and headless():
        answer = accepted(q)[0]
    if answer is ...:
        out = Checked(box(f"<b>{escape(q['ask'])}</b> Replace the dots by your answer and run the cell again.").data)
        return out
    right = any(same(answer, a, q.get("tolerance", 0.02)) for a in accepted(q))
    hint = next((h for a, h in (q.get("hints") or {}).items() if same(answer, a, 0.02)), q["hint"])
    text = f"<b>Yes.</b> {escape(q['because'])}" if right else f"<b>Not yet.</b> {escape(hint)}"
    out = Checked(box(f"{escape(q['ask'])}<br>Your answer: {escape(str(answer))}<br>{text}",
                      "right" if right else "wrong").data)
    out.passed = right
    return out


def accepted(q: Mapping[str, Any]) -> list[Any]:
    """The accepted answers of a question."""
    return q["answer"] if isinstance(q["answer"], list) else [q["answer"]]


def same(given: Any, wanted: Any, tolerance: float) -> bool:
    """Numbers within `tolerance` (a share), everything else as text without case, blanks at the ends, and ()."""
    if isinstance(wanted, int | float) and not isinstance(wanted, bool):
        try:
            return abs(float(given) - wanted) <= tolerance * abs(wanted)
        except (TypeError, ValueError):
            return False
    return str(given).strip().removesuffix("()").lower() == str(wanted).strip().removesuffix("()").lower()


def exercise(key: str, function: Callable) -> Checked:
    """Call the reader's function with each case of the question and compare.

    The data: `cases` (list of {args, want}), `because`, `hint`. A function that raises is told so, in one line.
    """
    q = question(key)
    for case in q["cases"]:
        call = f"{function.__name__}({', '.join(map(repr, case['args']))})"
        try:
            got = function(*case["args"])
        except Exception as error:  # the reader's code may raise anything
            text = f"<code>{escape(call)}</code> raised {escape(type(error).__name__)}: {escape(str(error))}"
            return Checked(box(f"<b>Not yet.</b> {text}", "wrong").data)
        if not same(got, case["want"], q.get("tolerance", 1e-6)):
            text = f"<code>{escape(call)}</code> gives {escape(repr(got))}, {escape(repr(case['want']))} is wanted. "
            return Checked(box(f"<b>Not yet.</b> {text}{escape(q['hint'])}", "wrong").data)
    out = Checked(box(f"<b>Yes.</b> All {len(q['cases'])} cases. {escape(q['because'])}", "right").data)
    out.passed = True
    return out


# --- what the model says ---

def verdicts(runs: Mapping[str, Run | Journal], *rules: str) -> HTML:
    """Rules over several journals as a table: a column each, the reason under what is broken.

    `rules`: ids of migsim.checks.RULES, all when none is given. Raises CourseError for an unknown id.
    """
    for rule in rules:
        if rule not in RULES:
            near = difflib.get_close_matches(rule, RULES, 1, 0.0)[0]
            raise CourseError(f"{rule!r}: no such rule: allowed is {', '.join(RULES)}; nearest is {near!r}")
    columns = {title: {v.id: v for v in judge(journal_of(r), *rules)} for title, r in runs.items()}
    head = "".join(f"<th scope=col>{escape(title)}</th>" for title in columns)
    rows = []
    for rule in rules or RULES:
        cells = "".join(f"<td>{MARKS[v.verdict]}<br><small>{escape(v.reason)}</small></td>"
                        for v in (column[rule] for column in columns.values()))
        rows.append(f"<tr><th scope=row>{rule}<br><small>{escape(RULES[rule].sentence)}</small></th>{cells}</tr>")
    return box(f"<table><tr><th scope=col>rule</th>{head}</tr>{''.join(rows)}</table>")


def verdict(run: Run | Journal, rule: str) -> str:
    """One rule's verdict, as a word: for asserting it in a cell."""
    return judge(journal_of(run), rule)[0].verdict


def journal_of(what: Run | Journal) -> Journal:
    """The journal, of the last attempt if a run had several."""
    return what if isinstance(what, Journal) else what.attempt_journals()[-1]


def source_of(function: Callable, qemu: str = "") -> HTML:
    """The model's lines of a function, as they are in the package; `qemu`: where QEMU has it."""
    lines, first = inspect.getsourcelines(function)
    file = Path(inspect.getsourcefile(function) or "")
    where = f"{file.parent.name}/{file.name}" if file.parent.name == "qemu" else file.name
    told = f"<b>migsim/{escape(where)}</b>, line {first}" + (f"; in QEMU: <code>{escape(qemu)}</code>" if qemu else "")
    return box(f"{told}<pre><code>{escape(''.join(lines))}</code></pre>")


def differences(before: Run | Journal, after: Run | Journal, most: int = 12) -> HTML:
    """What two journals do not share, side by side: events by name and text, without times. Empty: equal."""
    a, b = ([f"{e.side}: {e.name} {e.text}".rstrip() for e in journal_of(r)] for r in (before, after))
    rows = []
    for tag, i, j, k, m in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag != "equal":
            for x in range(max(j - i, m - k)):
                rows.append((a[i + x] if i + x < j else "", b[k + x] if k + x < m else ""))
    if not rows:
        return box(f"The two journals are equal: {len(a)} events, the same names, arguments and order.", "right")
    cells = "".join(f"<tr><td><code>{escape(x)}</code></td><td><code>{escape(y)}</code></td></tr>"
                    for x, y in rows[:most])
    more = f"<p>... and {len(rows) - most} more</p>" if len(rows) > most else ""
    return box(f"<table><tr><th scope=col>before</th><th scope=col>after</th></tr>{cells}</table>{more}")
