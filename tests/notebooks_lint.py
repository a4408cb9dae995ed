"""The rules that every notebook keeps, checked without running it.

`lint(path)` gives one line for each broken rule: "file: cell 3: rule: what is wrong or wanted". Cells
are counted from 1. A rule is a function over the notebook that yields (cell number or 0, message).
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import nbformat
import papermill
from nbformat import NotebookNode

Finding = tuple[int, str]

TITLE_CHARACTERS = 80
MARKDOWN_WORDS = 120
CODE_LINES_MOST, CODE_LINES_USUAL, DEF_LINES = 30, 12, 10
OUTLINE = ["You will be able to", "You need", "Time"]
NAME = re.compile(r"(?:(?P<mark>\d\d|p\d\d|lab|review|ref)-[a-z0-9]+(-[a-z0-9]+)*|capstone)\.ipynb")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
WAITING_WIDGETS = {"interact", "interactive", "interactive_output", "interact_manual", "Output"}
NETWORK = {"urllib", "requests", "httpx", "socket", "http"}
NOTEBOOK_METADATA = {"kernelspec", "language_info"}
CELL_METADATA = {"tags", "jupyter", "editable"}
STRIP = "strip it: jupyter nbconvert --clear-output --inplace FILE"


@dataclass
class Notebook:
    """A notebook as the rules see it; `cells` and the rest pair each cell with its number, counted from 1."""

    path: Path
    node: NotebookNode
    cells: list[tuple[int, NotebookNode]] = field(init=False)

    def __post_init__(self) -> None:
        self.cells = list(enumerate(self.node.cells, start=1))

    @property
    def code(self) -> list[tuple[int, NotebookNode]]:
        return [(number, cell) for number, cell in self.cells if cell.cell_type == "code"]

    @property
    def markdown(self) -> list[tuple[int, NotebookNode]]:
        return [(number, cell) for number, cell in self.cells if cell.cell_type == "markdown"]

    @property
    def trees(self) -> list[tuple[int, ast.Module]]:
        """The parsed code cells; one that does not parse is left to the rule `plain-python`."""
        return [(number, tree) for number, cell in self.code if (tree := _parse(cell.source)) is not None]

    @property
    def mark(self) -> str:
        """What the file's name begins with: a number, p and a patch's number, or a word."""
        match = NAME.fullmatch(self.path.name)
        return match["mark"] or "" if match else ""

    @property
    def of_patch(self) -> bool:
        return self.mark.startswith("p")

    def tagged(self, tag: str) -> list[int]:
        return [number for number, cell in self.cells if tag in _tags(cell)]


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _parse(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except SyntaxError:
        return None


def file_name(book: Notebook) -> Iterator[Finding]:
    if not NAME.fullmatch(book.path.name):
        yield 0, ("a name is NN-words.ipynb, pNN-words.ipynb (patch NN), lab-, review- or ref-words.ipynb, "
                  "or capstone.ipynb")


def title(book: Notebook) -> Iterator[Finding]:
    """The first cell: title, what the reader will be able to do, what is needed, minutes, and the patch."""
    if not book.cells or book.cells[0][1].cell_type != "markdown":
        yield 1, "the first cell is markdown, with the title"
        return
    text = book.cells[0][1].source
    first = text.splitlines()[0] if text else ""
    wanted = f"# {book.mark}. " if re.search(r"\d", book.mark) else "# "
    if not first.startswith(wanted) or len(first) <= len(wanted):
        yield 1, f"the first line is '{wanted}Title'"
    if len(first) > TITLE_CHARACTERS:
        yield 1, f"the title has {len(first)} characters; {TITLE_CHARACTERS} at most"
    for heading in [*OUTLINE, "Patch"] if book.of_patch else OUTLINE:
        if f"**{heading}" not in text:
            yield 1, f"the first cell has a part '**{heading}**'"
    if "**Time" in text and not re.search(r"\*\*Time.*\b\d+ min", text):
        yield 1, "the time is given in minutes, as in '**Time** 10 min'"


def parameters(book: Notebook) -> Iterator[Finding]:
    """One cell of parameters, the first with code; each a literal with a type and a comment for papermill."""
    found = book.tagged("parameters")
    if len(found) != 1:
        yield 0, f"exactly one cell is tagged 'parameters'; here {len(found)}"
        return
    number = found[0]
    if not book.code or book.code[0][0] != number:
        yield number, "the cell tagged 'parameters' is the first with code"
    tree = _parse(book.node.cells[number - 1].source)
    names = [_parameter_name(statement) for statement in tree.body] if tree else []
    if not names or None in names:
        yield number, "parameters are only lines 'name: type = literal  # what it is, unit'"
        return
    read = papermill.inspect_notebook(book.path)
    for name in names:
        if name not in read:
            yield number, f"papermill does not see parameter {name!r}; plain types: int, float, str, bool"
        elif not read[name]["help"]:
            yield number, f"parameter {name!r} has no comment behind it"


def _parameter_name(statement: ast.stmt) -> str | None:
    if not isinstance(statement, ast.AnnAssign) or statement.value is None:
        return None
    try:
        ast.literal_eval(statement.value)
    except ValueError:
        return None
    return ast.unparse(statement.target)


def plain_python(book: Notebook) -> Iterator[Finding]:
    """No magics and no shell: a cell is Python, and needs neither the network nor an installation."""
    for number, cell in book.code:
        if _parse(cell.source) is None:
            magic = any(line.lstrip().startswith(("%", "!")) for line in cell.source.splitlines())
            yield number, "no lines with % or !" if magic else "this is not Python"


def no_network(book: Notebook) -> Iterator[Finding]:
    for number, tree in book.trees:
        for name in sorted(_imported(tree) & NETWORK):
            yield number, f"imports {name}; a notebook does without the network"


def _imported(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def waiting_widgets(book: Notebook) -> Iterator[Finding]:
    """papermill can hang on Output widgets and what is made of them (jupyter/nbclient#312)."""
    for number, tree in book.trees:
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        used |= {alias.name for node in imports for alias in node.names}
        for name in sorted(used & WAITING_WIDGETS):
            yield number, f"no {name}: update an HTML or Image widget from observe"


def code_length(book: Notebook) -> Iterator[Finding]:
    lengths = [(len(cell.source.splitlines()), number) for number, cell in book.code]
    for lines, number in lengths:
        if lines > CODE_LINES_MOST:
            yield number, f"{lines} lines of code; {CODE_LINES_MOST} at most"
    long = [number for lines, number in lengths if lines > CODE_LINES_USUAL]
    if len(long) > max(1, len(lengths) // 10):
        yield long[0], f"cells {long} are over {CODE_LINES_USUAL} lines; one in ten may be"


def def_length(book: Notebook) -> Iterator[Finding]:
    for number, tree in book.trees:
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > DEF_LINES:
                yield number, f"{node.name} has {lines} lines; over {DEF_LINES} it belongs in the package"


def prose(book: Notebook) -> Iterator[Finding]:
    for number, _ in book.code:
        before = book.node.cells[number - 2] if number > 1 else None
        if before is None or before.cell_type != "markdown" or not before.source.strip():
            yield number, "a sentence of markdown stands before each code cell"


def markdown_length(book: Notebook) -> Iterator[Finding]:
    """Prose is short; a table is looked up, not read, and does not count."""
    for number, cell in book.markdown:
        words = sum(len(line.split()) for line in cell.source.splitlines() if not line.startswith("|"))
        if words > MARKDOWN_WORDS:
            yield number, f"{words} words; {MARKDOWN_WORDS} at most"


def predict(book: Notebook) -> Iterator[Finding]:
    """A question stands before its result: each cell tagged `predict` has its own `reveal` behind it."""
    asked, revealed = book.tagged("predict"), book.tagged("reveal")
    if book.of_patch and not asked:
        yield 0, "at least one cell is tagged 'predict'"
    bounds = [*asked, len(book.cells) + 1]
    for start, end in pairwise(bounds):
        if not any(start < number < end for number in revealed):
            yield start, "a cell tagged 'reveal' follows each 'predict'"


def self_checks(book: Notebook) -> Iterator[Finding]:
    """A patch's notebook lets its reader check what was understood, and write something."""
    called = [node.func.id for _, tree in book.trees for node in ast.walk(tree)
              if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    if book.of_patch and called.count("check") < 2:
        yield 0, "at least two calls of check()"
    if book.of_patch and "exercise" not in called:
        yield 0, "an exercise()"


def solution(book: Notebook) -> Iterator[Finding]:
    """Every exercise is solved in a folded code cell behind it, tagged `solution`, which the learner does not get."""
    solved = [number for number, cell in book.code if "solution" in _tags(cell)]
    for number, cell in book.code:
        if "exercise(" in cell.source and number not in solved and not any(other > number for other in solved):
            yield number, "a code cell tagged 'solution' follows the exercise"
    for number in solved:
        if book.of_patch and not book.node.cells[number - 1].metadata.get("jupyter", {}).get("source_hidden"):
            yield number, "a solution is folded: metadata jupyter.source_hidden"


def widget_twin(book: Notebook) -> Iterator[Finding]:
    """A page without a kernel shows no widget, so the same figure stands before it."""
    code = [number for number, _ in book.code]
    static = book.tagged("static")
    for number in book.tagged("widget"):
        earlier = [other for other in code if other < number]
        if not earlier or earlier[-1] not in static:
            yield number, "the code cell before a 'widget' is tagged 'static' and draws the same figure"


def stripped(book: Notebook) -> Iterator[Finding]:
    for number, cell in book.code:
        if cell.get("outputs") or cell.get("execution_count") is not None:
            yield number, f"outputs or counts are kept; {STRIP}"
    for number, cell in book.cells:
        for key in sorted(set(cell.metadata) - CELL_METADATA):
            yield number, f"metadata {key!r} is kept; only {', '.join(sorted(CELL_METADATA))} may be"
    for key in sorted(set(book.node.metadata) - NOTEBOOK_METADATA):
        yield 0, f"notebook metadata {key!r} is kept; only {', '.join(sorted(NOTEBOOK_METADATA))} may be"
    if book.node.metadata.get("kernelspec", {}).get("name") != "python3":
        yield 0, "the kernel is 'python3'"


def one_source(book: Notebook) -> Iterator[Finding]:
    for suffix in (".py", ".md"):
        if book.path.with_suffix(suffix).exists():
            yield 0, f"a twin with {suffix} lies beside it; the notebook is the one source"


def links(book: Notebook) -> Iterator[Finding]:
    for number, cell in book.markdown:
        for target in LINK.findall(cell.source):
            file = target.split("#")[0]
            if file and ":" not in file and not (book.path.parent / file).exists():
                yield number, f"the link to {target} leads nowhere"


def ending(book: Notebook) -> Iterator[Finding]:
    """The last cell: a summary of three lines or more, where to go next, and for a patch a link to it."""
    if not book.cells:
        return
    number, cell = book.cells[-1]
    lines = [line for line in cell.source.splitlines() if line.strip()]
    following = [line for line in lines if line.startswith("Next:")]
    if cell.cell_type != "markdown" or not following or not LINK.search(following[-1]):
        yield number, "the last cell is markdown and has a line 'Next: [title](file)'"
        return
    if len([line for line in lines if not line.startswith(("#", "Next:"))]) < 3:
        yield number, "the last cell sums up in three lines"
    if book.of_patch and not re.search(r"\]\(https?:", cell.source):
        yield number, "the last cell links to the patch"


RULES: dict[str, Callable[[Notebook], Iterator[Finding]]] = {
    rule.__name__.replace("_", "-"): rule
    for rule in (
        *(file_name, title, parameters, plain_python, no_network, waiting_widgets, code_length, def_length),
        *(prose, markdown_length, predict, self_checks, solution, widget_twin, stripped, one_source, links, ending),
    )
}


def lint(path: Path) -> list[str]:
    """One line for each broken rule of the notebook `path`; empty when it keeps them all."""
    book = Notebook(path, nbformat.read(path, as_version=4))
    return [
        f"{path.name}: {f'cell {number}: ' if number else ''}{name}: {message}"
        for name, rule in RULES.items()
        for number, message in rule(book)
    ]


if __name__ == "__main__":
    broken = [line for argument in sys.argv[1:] for line in lint(Path(argument))]
    print("\n".join(broken) or "all rules kept")
    sys.exit(bool(broken))
