"""The reference pages: glossary, QEMU's symbols and the model's, trace events, error texts. Everything is read from the
code, the notebooks and `data/reference` when a page is shown; the tests hold the three against each other.
"""
from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from .course import STYLE
from .events import EVENTS
from .explain import explain, function_of, words_of
from .ladder import CODE_BASES
from .provenance import FORMS

ROOT = Path(__file__).parent.parent
DATA = ROOT / "data" / "reference"
MODEL = Path(__file__).parent / "qemu"
NOTEBOOKS = ROOT / "notebooks"


class Place(NamedTuple):
    """A function or class of the model: file in migsim/qemu, name, line, first sentence of its docstring."""

    file: str
    name: str
    line: int
    says: str


class ErrorText(NamedTuple):
    """An error text of QEMU's; `shown`: a scenario that says it, with its code base behind a comma, or ""."""

    text: str
    where: str
    means: str
    look: str
    shown: str

    @property
    def pattern(self) -> re.Pattern[str]:
        """What a log has, with anything for each %s."""
        return re.compile(".*".join(map(re.escape, self.text.split("%s"))), re.DOTALL)


def _read(name: str) -> Any:
    return yaml.safe_load((DATA / f"{name}.yaml").read_text(encoding="utf-8"))


@cache
def symbols() -> dict[str, str]:
    """QEMU's symbol -> the file that defines it."""
    return {symbol: file for file, names in _read("symbols").items() for symbol in names}


@cache
def places() -> tuple[Place, ...]:
    """Every function and class of the model and every method with a docstring, in the order of its files."""
    out = []
    for path in sorted(MODEL.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                out.append(_place(path, node, node.name))
            if isinstance(node, ast.ClassDef):
                out += [_place(path, part, f"{node.name}.{part.name}") for part in node.body
                        if isinstance(part, ast.FunctionDef) and ast.get_docstring(part)]
    return tuple(out)


def _place(path: Path, node: ast.FunctionDef | ast.ClassDef, name: str) -> Place:
    return Place(path.name, name, node.lineno, " ".join((ast.get_docstring(node) or "").split()))


def symbols_of(place: Place) -> list[str]:
    """QEMU's symbols that a function of the model is, or is a part of: its own name and those its docstring names."""
    words = {place.name, *re.findall(r"\w+", place.says)}
    return [symbol for symbol in symbols() if symbol in words]


@cache
def places_of(symbol: str) -> tuple[Place, ...]:
    """Where the model has a symbol of QEMU's; the function of that name first."""
    return tuple(sorted((place for place in places() if symbol in symbols_of(place)),
                        key=lambda place: place.name != symbol))


@cache
def words() -> dict[str, frozenset[str]]:
    """Notebook -> the words in its cells; the reference pages themselves are left out."""
    books = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
    return {stem: frozenset(word for cell in book["cells"] for word in re.findall(r"\w+", "".join(cell["source"])))
            for stem, book in books.items() if not stem.startswith("ref-")}


@cache
def notebooks_of(symbol: str) -> tuple[str, ...]:
    """The notebooks that name a symbol."""
    return tuple(stem for stem, said in words().items() if symbol in said)


@cache
def errors() -> tuple[ErrorText, ...]:
    """QEMU's error texts that the model can say."""
    return tuple(ErrorText(**entry) for entry in _read("errors"))


def meaning_of(text: str) -> ErrorText | None:
    """The entry for an error text of a log: that with the longest constant part. None: not one of the model's."""
    found = [entry for entry in errors() if entry.pattern.fullmatch(text)]
    return max(found, key=lambda entry: len(entry.text), default=None)


def glossary() -> dict[str, dict[str, str]]:
    """Term -> means, see (a notebook's stem, or a symbol)."""
    return _read("glossary")


def bases_of(event: str) -> str:
    """The code bases that write an event, where it is not all of them; its forms together."""
    ranges = [(first, last) for name, _, first, last in FORMS if name == event]
    if not ranges:
        return ""
    order = list(CODE_BASES)
    first, last = min((a for a, _ in ranges), key=order.index), max((b for _, b in ranges), key=order.index)
    return "" if (first, last) == ("old", "merged") else first if first == last else f"{first} to {last}"


# --- pages ---

def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML already."""
    first = "".join(f"<th scope=col>{word}</th>" for word in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    style = "overflow-wrap: anywhere; max-height: 44em; overflow: auto"
    return (f'{STYLE}<div class="migsim-course" tabindex="0" style="{style}">'
            f"<table><thead><tr>{first}</tr></thead>{body}</table></div>")


def _books(stems: Iterable[str]) -> str:
    return ", ".join(f'<a href="{escape(stem)}.ipynb">{escape(stem)}</a>' for stem in stems)


def symbol_page(file: str = "") -> str:
    """QEMU's symbols -> the model's names, and the notebooks that name them; of one of QEMU's files, or all."""
    return _table(("QEMU", "migsim/qemu", "notebooks"), (
        (f"{_code(symbol)}<br><small>{escape(where)}</small>",
         "<br>".join(_code(f"{place.file}: {place.name}") for place in places_of(symbol)),
         _books(notebooks_of(symbol)))
        for symbol, where in sorted(symbols().items(), key=lambda item: (item[1], item[0])) if where.startswith(file)))


def model_page(file: str) -> str:
    """The model's names of one file -> QEMU's symbols, and what each does. Raises ValueError for an unknown file."""
    known = sorted({place.file for place in places()})
    if file not in known:
        raise ValueError(f"{file!r}: no file of the model: allowed is {', '.join(known)}")
    return _table(("migsim/qemu/" + escape(file), "is, or belongs to", "what it does"), (
        (_code(place.name), "<br>".join(map(_code, symbols_of(place))), escape(place.says))
        for place in places() if place.file == file))


def notebook_page() -> str:
    """Notebook -> QEMU's symbols that it names."""
    rows = ((_books([stem]), ", ".join(_code(symbol) for symbol in symbols() if stem in notebooks_of(symbol)))
            for stem in words())
    return _table(("notebook", "QEMU's names in it"), rows)


def glossary_page() -> str:
    """The terms in alphabetical order."""
    rows = ((f"<b>{escape(term)}</b>", escape(entry["means"]),
             _books([entry["see"]]) if entry["see"] not in symbols() else _code(entry["see"]))
            for term, entry in sorted(glossary().items(), key=lambda item: item[0].lower()))
    return _table(("term", "meaning", "see"), rows)


def event_page(begins: str = "") -> str:
    """Trace events whose name begins so: forms, meaning, QEMU's function, code bases."""
    def row(name: str) -> tuple[str, ...]:
        forms = "<br>".join(_code(form.template.strip() or "(no arguments)") for form in EVENTS[name])
        what, why = words_of(name)
        patch = explain(name).patch
        said = escape(what) + (f"<br><small>{escape(why)}</small>" if why else "")
        return (f"{_code(name)}<br>{forms}", said, _code(function_of(name)),
                ", ".join(filter(None, (escape(bases_of(name)), f"patch {patch}" if patch else ""))))
    return _table(("event and its arguments", "what it says, and why", "QEMU's function", "written by"),
                  (row(name) for name in EVENTS if name.startswith(begins)))


def error_page() -> str:
    """Error texts: who says them, what they mean, where to look, which scenario shows them."""
    return _table(("QEMU says", "meaning", "look at", "shown by"), (
        (f"{_code(e.text)}<br><small>{escape(e.where)}</small>", escape(e.means), escape(e.look),
         _code(e.shown) if e.shown else "") for e in errors()))
