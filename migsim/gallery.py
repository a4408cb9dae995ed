"""The gallery: every notebook executed, as plain pages with working players; no kernel and no network needed.

    python -m migsim.gallery [--out DIR] [NOTEBOOK ...]   pages and an index, by default in build/gallery
    python -m migsim.gallery --learner [DIR]              the notebooks without the cells tagged `solution`
    python -m migsim.gallery --map                        the map in notebook 00, and what migsim.handbook generates
"""
from __future__ import annotations

import argparse
import ast
import copy
import difflib
import multiprocessing
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from .checks import RULES
from .player import player_css, player_script
from .runner import NotebookError, run_notebook

ROOT = Path(__file__).parent.parent
STATIC = Path(__file__).parent / "static"
NOTEBOOKS = ROOT / "notebooks"
WORKERS = 2
VIEW, STATE = "application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json"
PART = re.compile(r"\*\*(You will be able to|Time)\*\*:? (.*?)(?:\n\n|$)", re.DOTALL)
SERIES = ("0", "p", "review", "lab", "capstone", "ref")  # the course's order, by how names begin
INTRODUCTION = """<h1>migsim: the notebooks</h1>
<p>QEMU live migration with a VFIO device, REINIT and switchover-ack, at every step of the series. Every notebook below
was executed; the players work here, too: click one, then use the arrow keys. To move the knobs, open JupyterLab with
<code>make lab</code>.</p>
"""


def order(path: Path) -> tuple[int, str]:
    """Where a notebook stands in the course: foundations, patches, review, labs, capstone, reference."""
    return next((k for k, begin in enumerate(SERIES) if path.stem.startswith(begin)), len(SERIES)), path.stem


def heading(node: NotebookNode) -> tuple[str, str, str]:
    """Title, what the reader will be able to do, and minutes, from the first cell."""
    text = node.cells[0].source if node.cells else ""
    parts = {name: " ".join(said.split()) for name, said in PART.findall(text)}
    return text.partition("\n")[0].removeprefix("# "), parts.get("You will be able to", ""), parts.get("Time", "")


def kept(node: NotebookNode) -> list[str]:
    """Rules of migsim.checks that the notebook claims to be broken in one run and to hold in another: by the claims of
    its verdicts(), unless the second column is still broken, and by what it compares verdict() with."""
    words: dict[str, set[str]] = {}
    for cell in node.cells:
        for part in ast.walk(ast.parse(cell.source)) if cell.cell_type == "code" else ():
            call = part.left if isinstance(part, ast.Compare) else part
            if not isinstance(call, ast.Call) or len(call.args) < 2 or not isinstance(call.args[1], ast.Constant):
                continue
            said = part.comparators if isinstance(part, ast.Compare) else [k.value for k in call.keywords]
            found = [c.value for value in said for c in ast.walk(value)
                     if isinstance(c, ast.Constant) and isinstance(c.value, str)]
            if found[:2] != ["violated", "violated"]:
                words.setdefault(call.args[1].value, set()).update(found)
    return [rule for rule, told in words.items() if rule in RULES and {"violated", "holds"} <= told]


def map_table(paths: Iterable[Path]) -> str:
    """The map of notebook 00: a row for each notebook, in the course's order."""
    rows = []
    for path in sorted(paths, key=order):
        node = nbformat.read(path, as_version=4)
        title, _, minutes = heading(node)
        rows.append(f"| [{title}]({path.name}) | {minutes} | {', '.join(f'`{rule}`' for rule in kept(node))} |")
    return "\n".join(["| notebook | time | broken before, kept after |", "| --- | --- | --- |", *rows])


def update_map(folder: Path) -> Path:
    """Put the map into the cell of notebook 00 that is tagged `map`, under its heading."""
    path = folder / "00-start-here.ipynb"
    node = nbformat.read(path, as_version=4)
    for cell in node.cells:
        if "map" in cell.metadata.get("tags", []):
            cell.source = cell.source.partition("\n| ")[0].rstrip() + "\n\n" + map_table(folder.glob("*.ipynb"))
    nbformat.write(node, path)
    return path


# --- widgets without a kernel ---

def frozen(model: str, states: Mapping[str, Any]) -> str:
    """A widget as HTML: players play, boxes hold what they hold, controls say their value, a button folds what follows
    it."""
    name, state = states[model]["model_name"], states[model]["state"]
    if state.get("_anywidget_id") == "migsim.player.Player":
        return ('<div class="migsim-frozen"></div><script type="application/json">'
                + state["data"].replace("<", "\\u003c") + "</script>")
    if name == "HTMLModel":
        return state["value"]
    if "children" in state:
        layout = states.get(str(state.get("layout")).removeprefix("IPY_MODEL_"), {}).get("state", {})
        columns = layout.get("grid_template_columns") or ""
        return _box(name, [child.removeprefix("IPY_MODEL_") for child in state["children"]], states, columns)
    return f'<div class="control">{escape(state.get("description") or "")}{_value(state)}</div>'


def _box(name: str, children: list[str], states: Mapping[str, Any], columns: str) -> str:
    """A box; in a column what stands under a button is folded, as if it waited for the click."""
    if columns:
        cells = "".join(f"<div>{frozen(child, states)}</div>" for child in children)
        return f'<div class="box grid" style="grid-template-columns: {escape(columns)}">{cells}</div>'
    if name in ("HBoxModel", "GridBoxModel"):
        return f'<div class="box across">{"".join(f"<div>{frozen(child, states)}</div>" for child in children)}</div>'
    inner = ""
    for k, child in enumerate(children):
        if states[child]["model_name"] == "ButtonModel" and k + 1 < len(children):
            label = escape(states[child]["state"]["description"])
            rest = "".join(frozen(other, states) for other in children[k + 1:])
            return f'<div class="box">{inner}<details><summary>{label}</summary>{rest}</details></div>'
        inner += f"<div>{frozen(child, states)}</div>"
    return f'<div class="box">{inner}</div>'


def _value(state: Mapping[str, Any]) -> str:
    """What a control is set to: all choices, the chosen one marked; or a number and its range."""
    if "_options_labels" in state:
        chosen = ' class="chosen"'
        items = (f"<li{chosen if k == state.get('index') else ''}>{escape(str(label))}</li>"
                 for k, label in enumerate(state["_options_labels"]))
        return f"<ul>{''.join(items)}</ul>"
    if state.get("value") is None:
        return ""
    reach = f" <small>({state['min']:g} to {state['max']:g})</small>" if "min" in state and "max" in state else ""
    return f": <b>{escape(str(state['value']))}</b>{reach}"


def without_kernel(node: NotebookNode) -> NotebookNode:
    """A copy of an executed notebook whose views are HTML."""
    node = copy.deepcopy(node)
    states = node.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    for cell in node.cells:
        for output in cell.get("outputs", []):
            view = output.get("data", {}).pop(VIEW, None)
            if view and view["model_id"] in states:
                output["data"]["text/html"] = frozen(view["model_id"], states)
    node.metadata.pop("widgets", None)
    return node


# --- pages ---

def page(node: NotebookNode, names: Iterable[str]) -> str:
    """The page of an executed notebook in a gallery of the notebooks `names` (stems)."""
    body, _ = HTMLExporter(template_name="basic").from_notebook_node(without_kernel(node))
    names = set(names)
    body = re.sub(r'href="([\w-]+)\.ipynb', lambda m: f'href="{m[1]}.html' if m[1] in names else m[0], body)
    body = body.replace('href="../', 'href="../../')  # the gallery is one folder deeper
    return _whole(heading(node)[0], f'<p class="back"><a href="index.html">All notebooks</a></p>{body}')


def index(found: Sequence[tuple[str, NotebookNode]]) -> str:
    """The first page: every notebook with what it teaches and how long it takes."""
    rows = []
    for stem, node in found:
        title, able, minutes = heading(node)
        rows.append(f'<tr><td><a href="{escape(stem, quote=True)}.html">{escape(title)}</a></td>'
                    f"<td>{escape(able)}</td><td>{escape(minutes)}</td></tr>")
    head = "".join(f"<th>{word}</th>" for word in ("Notebook", "You will be able to", "Time"))
    table = f"<table><thead><tr>{head}</tr></thead>\n<tbody>{''.join(rows)}</tbody></table>\n"
    return _whole("migsim: the notebooks", INTRODUCTION + table)


def _whole(title: str, body: str) -> str:
    light = HtmlFormatter(style="friendly").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    css = "\n".join([light, f"@media (prefers-color-scheme: dark) {{ {dark} }}", player_css(),
                     (STATIC / "gallery.css").read_text(encoding="utf-8")])
    script = player_script() + "\n" + (STATIC / "gallery.js").read_text(encoding="utf-8")
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{css}</style></head>'
            f"<body><main>{body}</main><script>(() => {{\n{script}\n}})();</script></body></html>\n")


def render(executed: Iterable[Path], out: Path) -> list[Path]:
    """Pages of executed notebooks and their index in `out`."""
    paths = sorted(executed, key=order)
    found = [(path.stem, nbformat.read(path, as_version=4)) for path in paths]
    out.mkdir(parents=True, exist_ok=True)
    texts = {stem: page(node, [name for name, _ in found]) for stem, node in found}
    written = []
    for stem, text in {**texts, "index": index(found)}.items():
        written.append(out / f"{stem}.html")
        written[-1].write_text(text, encoding="utf-8")
    return written


def _execute(job: tuple[Path, Path]) -> str:
    """In a process of its own: "" or why it failed, in one line."""
    try:
        run_notebook(job[0], output=job[1])
    except NotebookError as error:
        return str(error)
    return ""


def gallery(out: Path, notebooks: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """Execute the notebooks, two at a time, and render those that ran: (files, failures in one line each).

    Executed copies, of the failed ones too, are in `out`/executed.
    """
    jobs = [(path, out / "executed" / path.name) for path in notebooks]
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        said = pool.map(_execute, jobs, chunksize=1)
    good = [copy for (_, copy), failure in zip(jobs, said, strict=True) if not failure]
    return render(good, out), [failure for failure in said if failure]


# --- the learner's edition ---

def learner(node: NotebookNode) -> NotebookNode:
    """A copy without the cells tagged `solution`."""
    node = copy.deepcopy(node)
    node.cells = [cell for cell in node.cells if "solution" not in cell.metadata.get("tags", [])]
    return node


def write_learner(out: Path, notebooks: Iterable[Path]) -> list[Path]:
    """The learner's edition of the notebooks in the folder `out`, with links to what they read beside it."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("data", "docs"):
        if not (out.parent / name).exists():
            (out.parent / name).symlink_to(ROOT / name)
    written = []
    for path in notebooks:
        written.append(out / path.name)
        nbformat.write(learner(nbformat.read(path, as_version=4)), written[-1])
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 if a notebook failed; 2 for what cannot be read or written, with one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m migsim.gallery", description="Executed notebooks as plain pages.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="all of notebooks/ when none is given")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gallery", metavar="DIR")
    parser.add_argument("--learner", type=Path, nargs="?", metavar="DIR",
                        const=ROOT / "build" / "learner" / "notebooks",
                        help="write the edition without solutions instead")
    parser.add_argument("--map", action="store_true",
                        help="only bring the map, the README's table and the instructor's pages up to date")
    given = parser.parse_args(arguments)
    notebooks = sorted(given.notebooks or NOTEBOOKS.glob("*.ipynb"), key=order)
    failures: list[str] = []
    try:
        for path in notebooks:
            if not path.is_file():
                near = difflib.get_close_matches(path.name, [p.name for p in NOTEBOOKS.glob("*.ipynb")], 1, 0.0)
                raise ValueError(f"{path}: no such notebook; nearest is {near[0]}" if near else f"{path}: no notebook")
        if given.map:
            from .handbook import update  # which reads headings and rules with this module

            print(*(f"{path}: up to date" for path in (update_map(NOTEBOOKS), *update())), sep="\n")
        elif given.learner:
            print(f"{len(write_learner(given.learner, notebooks))} notebooks without solutions in {given.learner}")
        else:
            given.out.mkdir(parents=True, exist_ok=True)
            files, failures = gallery(given.out, notebooks)
            print(f"{len(files)} pages: open {given.out / 'index.html'}")
    except (OSError, nbformat.ValidationError, ValueError) as error:
        print(f"gallery: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(*failures, sep="\n", end="\n" if failures else "", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
