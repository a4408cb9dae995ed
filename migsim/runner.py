"""Run a notebook headless with papermill, strictly.

papermill only warns about a parameter that the notebook does not have, and waits for ever on a cell that
hangs; here the first is an error and every cell has a limit.
"""

from __future__ import annotations

import ast
import difflib
import os
from collections.abc import Mapping
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.reader import NotJSONError
from papermill.exceptions import PapermillExecutionError

HEADLESS = "MIGSIM_HEADLESS"  # tells migsim.course that nobody sits at the notebook
CELL_TIMEOUT_S = 60
START_TIMEOUT_S = 60


class NotebookError(ValueError):
    """A notebook that cannot be run as asked, or failed; the message is one line."""


def run_notebook(
    path: str | Path,
    parameters: Mapping[str, object] | None = None,
    output: str | Path | None = None,
    *,
    cell_timeout_s: int = CELL_TIMEOUT_S,
    start_timeout_s: int = START_TIMEOUT_S,
) -> NotebookNode:
    """Run the notebook `path` in a fresh kernel, in its own folder, and return the executed copy.

    `parameters` replace values of the cell tagged `parameters`. With `output` the executed copy is written
    there, also when a cell fails. Limits are in seconds: for each cell, and for the start of the kernel.
    Raises NotebookError for a notebook that cannot be read, an unknown parameter, a value of another type
    than the declared default, a cell that fails or takes too long, and a kernel that does not start or dies.
    """
    path = Path(path).resolve()
    given = dict(parameters or {})
    _check_parameters(path, given)
    target = Path(output).resolve() if output is not None else None
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
    before = os.environ.get(HEADLESS)
    os.environ[HEADLESS] = "1"  # questions answer themselves
    try:
        return papermill.execute_notebook(
            path,
            target,
            given,
            cwd=path.parent,
            progress_bar=False,
            execution_timeout=cell_timeout_s,
            start_timeout=start_timeout_s,
        )
    except PapermillExecutionError as error:
        raise _failure(path, target, f"{error.ename}: {error.evalue}", error.source) from None
    except CellTimeoutError:
        raise _failure(path, target, f"not done after {cell_timeout_s} s") from None
    except DeadKernelError:
        raise _failure(path, target, "the kernel died") from None
    except RuntimeError as error:
        raise NotebookError(f"{path.name}: the kernel did not start: {_one_line(error)}") from None
    finally:
        os.environ.pop(HEADLESS)
        if before is not None:
            os.environ[HEADLESS] = before


def _check_parameters(path: Path, given: Mapping[str, object]) -> None:
    known = _declared(path)
    for name, value in given.items():
        if name not in known:
            raise NotebookError(f"{path.name}: no parameter {name!r}; {_allowed(name, list(known))}")
        default = known[name]
        if default is not None and not _fits(value, default):
            raise NotebookError(
                f"{path.name}: parameter {name!r}: {value!r} is of type {type(value).__name__}, "
                f"but {type(default).__name__} is wanted, as in the default {default!r}"
            )


def _declared(path: Path) -> dict[str, object]:
    """The parameters that `path` declares, each with its default; None where it says no type."""
    try:
        found = papermill.inspect_notebook(path)
    except OSError as error:
        raise NotebookError(f"{path}: {error.strerror}") from None
    except (NotJSONError, nbformat.ValidationError, AttributeError, UnicodeDecodeError) as error:
        raise NotebookError(f"{path.name}: not a notebook: {_one_line(error)}") from None
    return {name: _literal(entry["default"]) for name, entry in found.items()}


def _literal(source: str) -> object:
    try:
        return ast.literal_eval(source)
    except (SyntaxError, ValueError):
        return None


def _fits(value: object, default: object) -> bool:
    if isinstance(default, float) and type(value) is int:
        return True
    return type(value) is type(default)


def _allowed(name: str, known: list[str]) -> str:
    if not known:
        return "the notebook has none"
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"allowed: {', '.join(known)}" + (f"; did you mean {nearest[0]!r}?" if nearest else "")


def _failure(path: Path, target: Path | None, what: str, source: str = "") -> NotebookError:
    where, copy = "", ""
    if target is not None and target.exists():
        where, source = _broken_cell(target)
        copy = f"; executed copy: {target}"
    start = next((line.strip() for line in source.splitlines() if line.strip()), "")
    place = where + (f" ({start})" if start else "")
    return NotebookError(": ".join(filter(None, [path.name, place.strip(), _one_line(what)])) + copy)


def _broken_cell(executed: Path) -> tuple[str, str]:
    """The first cell that failed or did not end: its number in the notebook as written, and its text."""
    number = 0
    for cell in nbformat.read(executed, as_version=4).cells:
        tags = cell.metadata.get("tags", [])
        if "papermill-error-cell-tag" in tags:
            continue
        injected = "injected-parameters" in tags
        number += not injected
        if cell.cell_type == "code" and cell.source.strip() and not _ended_well(cell):
            return ("the given parameters" if injected else f"cell {number}"), cell.source
    return "", ""


def _ended_well(cell: NotebookNode) -> bool:
    failed = any(output.output_type == "error" for output in cell.outputs)
    return not failed and "shell.execute_reply" in cell.metadata.get("execution", {})


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
