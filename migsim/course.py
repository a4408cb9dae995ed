"""The course kit: predict and reveal, self-checks that teach, exercises, verdicts side by side, the model's own lines.

Questions, answers and hints are data: `data/course/<notebook>.yaml`, a key is `<notebook>.<question>`. In a notebook
that nobody sits at (the runner, the gallery) questions answer themselves, so what follows is shown either way.
"""
from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets
import yaml
from IPython.display import HTML

from .checks import RULES
from .checks import check as judge
from .explore import Result
from .journal import SIDES, Journal
from .ladder import CodeBase
from .run import Run, run

ROOT = Path(__file__).parent.parent / "data"
DATA = ROOT / "course"
HEADLESS = "MIGSIM_HEADLESS"  # set by the runner
REMEMBER = "MIGSIM_PROGRESS"  # file of the answers that passed; set by remember()
CONDITION = re.compile(r"code\.(\w+)")  # a condition of the ladder in the model's lines
MARKS = {"holds": "✓ holds", "violated": "✗ BROKEN", "vacuous": "– vacuous", "n/a": "– n/a", "unknown": "? unknown"}
STYLE = """<style>
.migsim-course { border-left: 4px solid var(--jp-brand-color1, #0b5cad); padding: .4em .9em; margin: .3em 0;
  background: var(--jp-layout-color2, #f0f3f6); color: var(--jp-ui-font-color1, #1f2933); max-width: 60em;
  overflow-x: auto; line-height: 1.45; }
.migsim-course.right { border-left-color: #2e7d32; } .migsim-course.wrong { border-left-color: #d0353f; }
.migsim-course table { border-collapse: collapse; } .migsim-course th, .migsim-course td { text-align: left !important;
  padding: .2em .8em .2em 0; border-bottom: 1px solid var(--jp-border-color2, #9aa5b1); vertical-align: top;
  white-space: normal; min-width: 6em; }
.migsim-course th small { font-weight: normal; }
.migsim-course pre { margin: .4em 0; overflow-x: auto; color: inherit; background: transparent; font-size: 12px; }
.migsim-course pre b { border-left: 3px solid #d08a00; padding-left: .3em; margin-left: -.6em; }
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

    The data: `ask`, `choices` (list), `answer` (index from 0), `because`, `hints` (index of a wrong choice -> what
    speaks against it). Below it `reveal(key)` gives the same answer as folded text, for a page without kernel.
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
    said = "" if guess is None else "Right. "
    if guess not in (None, q["answer"]):
        against = (q.get("hints") or {}).get(guess, "")
        said = f"You said: {escape(q['choices'][guess].rstrip('.'))}. {escape(against)}<br>"
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


def check(key: str, answer: Any = ..., value: Any = None) -> Checked:
    """Compare an answer with the question's data and say why it is right, or what to look at.

    The data: `ask`, `answer` (a value, or a list of accepted ones), `tolerance` for numbers (a share, 0.02 by default),
    `because`, `hints` (wrong answer -> hint), `hint` (for any other), `wrong` (an example for the tests). `value`: what
    this very run gives, where that is the answer: it counts instead of the data's. Left at `...` it asks; with nobody
    there it gives the data's answer itself. Raises CourseError for an unknown key.
    """
    q = question(key)
    if answer is ... and headless():
        answer = accepted(q)[0]
    if answer is ...:
        return Checked(box(f"<b>{escape(q['ask'])}</b> Replace the dots by your answer and run the cell again.").data)
    wanted = accepted(q) if value is None else [value]
    right = any(same(answer, a, q.get("tolerance", 0.02)) for a in wanted)
    hint = next((h for a, h in (q.get("hints") or {}).items() if same(answer, a, 0.02)), q["hint"])
    text = f"<b>Yes.</b> {escape(q['because'])}" if right else f"<b>Not yet.</b> {escape(hint)}"
    return told(key, f"{escape(q['ask'])}<br>Your answer: {escape(str(answer))}<br>{text}", right)


def told(key: str, body: str, passed: bool) -> Checked:
    """What check() and exercise() give back; a pass is remembered if that was asked for."""
    out = Checked(box(body, "right" if passed else "wrong").data)
    out.passed = passed
    if passed and not headless() and REMEMBER in os.environ:
        path = Path(os.environ[REMEMBER])
        path.write_text(json.dumps(sorted({*_passed(path), key}), indent=1) + "\n", encoding="utf-8")
    return out


def remember(path: str | Path) -> HTML:
    """From now on keep the keys of what passes in the file `path` on this machine, and show those it has.

    Raises CourseError for a file that is no such list. Without this call nothing is written.
    """
    path = Path(path).resolve()
    known = _passed(path)
    os.environ[REMEMBER] = str(path)
    return box(f"{len(known)} passed: {escape(', '.join(known)) or 'none yet'}. Kept in {escape(path.name)}.")


def _passed(path: Path) -> list[str]:
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    except (OSError, ValueError):
        known = None
    if not isinstance(known, list) or not all(isinstance(key, str) for key in known):
        raise CourseError(f"{path.name}: not a list of passed questions: give another file")
    return known


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

    The data: `ask`, `cases` (list of {args, want}), `because`, `hint`. An argument {run: scenario, base: code base}
    stands for the journal of that run. A function that raises is told so, in one line; one that returns None is
    taken as not written yet.
    """
    q = question(key)
    for k, case in enumerate(q["cases"]):
        call = f"<code>{escape(function.__name__)}({escape(', '.join(map(_shown, case['args'])))})</code>"
        try:
            got = function(*map(_argument, case["args"]))
        except Exception as error:  # the reader's code may raise anything
            raised = f"{escape(type(error).__name__)}: {escape(str(error))}"
            return told(key, f"<b>Not yet.</b> {call} raised {raised}", False)
        if got is None and not k:
            return Checked(box(f"<b>{escape(q['ask'])}</b> {len(q['cases'])} cases wait; the first is {call}.").data)
        if not same(got, case["want"], q.get("tolerance", 1e-6)):
            text = f"{call} gives {escape(repr(got))}, {escape(repr(case['want']))} is wanted."
            return told(key, f"<b>Not yet.</b> {text} {escape(q['hint'])}", False)
    return told(key, f"<b>Yes.</b> All {len(q['cases'])} cases. {escape(q['because'])}", True)


def _argument(given: Any) -> Any:
    if not isinstance(given, Mapping):
        return given
    return _journal(given["run"], given.get("base"))


@cache
def _journal(scenario: str, base: str | None) -> Journal:
    return run(ROOT / "scenarios" / f"{scenario}.yaml", base=base).journal


def _shown(given: Any) -> str:
    if not isinstance(given, Mapping):
        return repr(given)
    return f"journal of {given['run']} at {given.get('base', '11.1')}"


# --- what the model says ---

def verdicts(runs: Mapping[str, Run | Journal | Result], *rules: str, claim: Sequence[str] = ()) -> HTML:
    """Rules over several journals as a table: a column each, the reason under what is broken.

    A result of explore() speaks for every order of events. `rules`: ids of migsim.checks.RULES, all when none is
    given. `claim`: what the text says of the first rule, a verdict for each column; where the reader's parameters tell
    another story the table says so. Raises CourseError for an unknown id.
    """
    for rule in rules:
        if rule not in RULES:
            near = difflib.get_close_matches(rule, RULES, 1, 0.0)[0]
            raise CourseError(f"{rule!r}: no such rule: allowed is {', '.join(RULES)}; nearest is {near!r}")
    columns = {title: _judged(r, rules) for title, r in runs.items()}
    head = "".join(f"<th scope=col>{escape(title)}</th>" for title in columns)
    rows = []
    for rule in rules or RULES:
        cells = "".join(f"<td>{MARKS[word]}<br><small>{escape(reason)}</small></td>"
                        for word, reason in (column.get(rule, ("n/a", "")) for column in columns.values()))
        rows.append(f"<tr><th scope=row>{rule}<br><small>{escape(RULES[rule].sentence)}</small></th>{cells}</tr>")
    got = [column.get((rules or tuple(RULES))[0], ("n/a", ""))[0] for column in columns.values()]
    other = bool(claim) and got != list(claim)
    table = f"<table><tr><th scope=col>rule</th>{head}</tr>{''.join(rows)}</table>"
    if other:
        table += f"<p>The text is about {escape(', '.join(claim))}; with these parameters it is otherwise.</p>"
    return box(table, "wrong" if other else "")


def _judged(what: Run | Journal | Result, rules: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """rule -> (verdict, reason)."""
    if not isinstance(what, Result):
        return {v.id: (v.verdict, v.reason) for v in judge(journal_of(what), *rules)}
    every = f"in all orders: {what.states} states"
    return {f.id: (f.verdict, f"in some order: the shortest has {len(f.path)} steps" if f.verdict == "violated" else
                   f.reason if f.verdict == "n/a" else every) for f in what.properties}


def verdict(what: Run | Journal | Result, rule: str) -> str:
    """One rule's verdict, as a word: for asserting it in a cell."""
    return _judged(what, (rule,))[rule][0]


def journal_of(what: Run | Journal) -> Journal:
    """The journal, of the last attempt if a run had several."""
    return what if isinstance(what, Journal) else what.attempt_journals()[-1]


def fingerprint(*what: Run | Journal) -> str:
    """Twelve hexadecimal digits that are the same for the same events at the same times, on any machine."""
    digest = hashlib.sha256()
    for journal in map(journal_of, what):
        for side in SIDES:
            digest.update(journal.log_text(side).encode())
    return digest.hexdigest()[:12]


def source_of(function: Callable, qemu: str = "") -> HTML:
    """The model's lines of a function, as they are in the package; `qemu`: where QEMU has it.

    Lines that ask for a condition of the ladder are marked; below stands which patch each condition is.
    """
    lines, first = inspect.getsourcelines(function)
    file = Path(inspect.getsourcefile(function) or "")
    where = f"{file.parent.name}/{file.name}" if file.parent.name == "qemu" else file.name
    said = f"<b>migsim/{escape(where)}</b>, line {first}" + (f"; in QEMU: <code>{escape(qemu)}</code>" if qemu else "")
    names = [name for name in dict.fromkeys(CONDITION.findall("".join(lines))) if hasattr(CodeBase, name)]
    marked = [f"<b>{escape(line)}</b>" if any(f"code.{name}" in line for name in names) else escape(line)
              for line in lines]
    patches = "".join(f"<li><code>code.{name}</code>: {escape(getattr(CodeBase, name).__doc__ or '')}</li>"
                      for name in names)
    return box(f"{said}<pre><code>{''.join(marked)}</code></pre>" + (f"<ul>{patches}</ul>" if patches else ""))


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
