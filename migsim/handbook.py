"""The generated parts of the documents: the README's table of patches, the instructor's timings, schedules and answers.

    python -m migsim.gallery --map      brings them up to date, with the map of notebook 00

Each stands between `<!-- NAME -->` and `<!-- end of NAME -->`; the tests compare it with what the notebooks and
`data/course` say.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import yaml

from .gallery import heading, kept, order
from .ladder import PATCHES

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "notebooks"
DATA = ROOT / "data" / "course"
#: what fits into a morning: the story from the problem to a failed migration
HALF_DAY = ("00-start-here", "01-live-migration-and-switchover", "03-the-problem", "p06-reusable-ack",
            "p07-fail-on-late-request", "lab-two-versions", "lab-downtime", "capstone")
START, LUNCH, AFTER = 9 * 60, 12 * 60, 90  # minutes of the day; a break after so many minutes of work
BREAK, LONG_BREAK = 15, 60


def books() -> list[Path]:
    """The notebooks in the course's order."""
    return sorted(NOTEBOOKS.glob("*.ipynb"), key=order)


def _head(path: Path) -> tuple[str, str, str]:
    return heading(nbformat.read(path, as_version=4))


def minutes(path: Path) -> int:
    """What the notebook's first cell says; of a span the longer time. Raises ValueError where it says nothing."""
    found = re.findall(r"\d+", _head(path)[2])
    if not found:
        raise ValueError(f"{path.name}: no time in the first cell")
    return max(map(int, found))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def patches() -> str:
    """The README's table: code base, patch, notebook, rules that it shows broken before and kept after."""
    rows = []
    for number, subject in PATCHES.items():
        found = [path for path in books() if path.name.startswith(f"p{number:02d}-")]
        links = ", ".join(f"[{path.stem}](notebooks/{path.name})" for path in found)
        rules = ", ".join(f"`{rule}`" for path in found for rule in kept(nbformat.read(path, as_version=4)))
        rows.append((f"p{number}", subject, links, rules))
    return _table(("base", "patch", "notebook", "broken before, kept after"), rows)


def timings() -> str:
    """Every notebook with its minutes and how many questions it asks."""
    rows = [(f"[{_head(path)[0]}](../notebooks/{path.name})", str(minutes(path)), str(len(questions(path.stem))))
            for path in books()]
    total = sum(minutes(path) for path in books())
    return _table(("notebook", "minutes", "questions"), [*rows, ("all", str(total), "")])


def plan(paths: Iterable[Path]) -> list[tuple[int, str, int]]:
    """(start, what, minutes) of a day: the notebooks one after another, breaks between them."""
    now, since, eaten, out = START, 0, False, []
    for path in paths:
        if out and (since >= AFTER or (now >= LUNCH and not eaten)):
            lunch = now >= LUNCH and not eaten
            out.append((now, "lunch" if lunch else "break", LONG_BREAK if lunch else BREAK))
            now, since, eaten = now + out[-1][2], 0, eaten or lunch
        out.append((now, f"[{_head(path)[0]}](../notebooks/{path.name})", minutes(path)))
        now, since = now + minutes(path), since + minutes(path)
    return [*out, (now, "end", 0)]


def _day(title: str, paths: Iterable[Path]) -> str:
    rows = [(f"{start // 60}:{start % 60:02d}", what, str(length) if length else "")
            for start, what, length in plan(paths)]
    return f"### {title}\n\n{_table(('from', 'what', 'minutes'), rows)}"


def days() -> dict[str, list[Path]]:
    """Title -> the notebooks of that day: a half-day, and two days with everything but the reference."""
    patches_ = [path for path in books() if re.match(r"\d\d|p\d\d", path.stem)]
    rest = [path for path in books() if path not in patches_ and not path.stem.startswith("ref-")]
    return {"Half a day": [NOTEBOOKS / f"{stem}.ipynb" for stem in HALF_DAY],
            "Two days: the first, foundations and patches": patches_,
            "Two days: the second, review, labs and capstone": rest}


def schedules() -> str:
    """A half-day and two days."""
    return "\n\n".join(_day(title, paths) for title, paths in days().items())


def questions(stem: str) -> dict[str, dict[str, Any]]:
    """The questions of a notebook; they are keyed by its name, or by what its name begins with."""
    names = (stem, stem.partition("-")[0])
    found = next((DATA / f"{name}.yaml" for name in names if (DATA / f"{name}.yaml").is_file()), None)
    return yaml.safe_load(found.read_text(encoding="utf-8")) if found else {}


def answer(question: Mapping[str, Any]) -> str:
    """The answer in words; of an exercise, how many cases it is tried with."""
    if "cases" in question:
        return f"exercise, {len(question['cases'])} cases; a solution is in the notebook"
    if "choices" in question:
        return str(question["choices"][question["answer"]])
    given = question["answer"]
    return " or ".join(map(str, given)) if isinstance(given, list) else str(given)


def answers() -> str:
    """Every question with its answer and why, notebook by notebook."""
    out = []
    for path in books():
        lines = [f"- {_line(q['ask'])} **{_line(answer(q))}** {_line(q['because'])}"
                 for q in questions(path.stem).values()]
        if lines:
            out.append("\n".join([f"### {_head(path)[0]}", "", *lines]))
    return "\n\n".join(out)


def _line(text: object) -> str:
    return " ".join(str(text).split()).replace("*", "\\*").replace("_", "\\_").replace("<", "&lt;")


#: document -> its generated parts
PARTS: dict[Path, dict[str, Callable[[], str]]] = {
    ROOT / "README.md": {"patches": patches},
    ROOT / "docs" / "instructor.md": {"timings": timings, "schedules": schedules, "answers": answers}}


def renewed(text: str, parts: Mapping[str, Callable[[], str]]) -> str:
    """A document with its parts generated anew. Raises ValueError where a part's marks are missing."""
    for name, write in parts.items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"no place for {name!r}: wanted is {begin.strip()} ... {end.strip()}")
        text = text[:text.index(begin)] + begin + write() + text[text.index(end):]
    return text


def update() -> list[Path]:
    """Write the parts anew, all or none."""
    texts = {path: renewed(path.read_text(encoding="utf-8"), parts) for path, parts in PARTS.items()}
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return list(texts)
