"""Sweeps: one scenario over grids and seeded random draws of its keys; every run becomes a row.

A row says where the run stood (`run`, `point`), how it ended (`status`, `reason`) and what was measured. It depends on
the sweep alone: not on the order of the runs, on who ran them, or on when. Workers are in workers.py, the file that
can be gone on with in results.py.
"""
from __future__ import annotations

import gc
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import scenario_file
from .ladder import code_base
from .run import ENDED, Run, run
from .scenario import Scenario, ScenarioError, load_scenario
from .scenario import _bad as bad
from .scenario import _keys as known_keys
from .waiting import pending_at_end, why_not_ended

if TYPE_CHECKING:
    import pandas

MAX_RUNS = 10_000_000
BASE = "base"  # the key for the code base at both ends
KEYS = ("name", "shows", "scenario", "grid", "draw", "runs", "seed", "measure")
DISTRIBUTIONS = ("uniform", "loguniform", "normal", "choice")


def _guest_downtime(done: Run) -> float | None:
    ns = done.world.acct.guest_down_ns
    return ns / 1e6 if ns >= 0 else None


MEASURES: dict[str, Callable[[Run], Any]] = {  # ms and bytes; None where there is none
    "downtime_ms": lambda done: done.outcome.get("downtime"),
    "guest_downtime_ms": _guest_downtime,
    "total_ms": lambda done: done.outcome["total-time"] if "downtime" in done.outcome else None,  # only if it ended
    "transferred_bytes": lambda done: done.outcome.get("ram", {}).get("transferred"),
    "vfio_bytes": lambda done: done.outcome.get("vfio", {}).get("transferred"),
    "syncs": lambda done: done.outcome.get("ram", {}).get("dirty-sync-count"),
    "acks": lambda done: done.world.src.acks,
    "pending_bytes": pending_at_end,
    "threshold_bytes": lambda done: int(done.world.acct.threshold),
    "bandwidth_bytes_per_s": lambda done: int(done.world.acct.bandwidth * 1000),
    "events": lambda done: len(done.raw),
}


@dataclass(frozen=True)
class Sweep:
    """What to run. `grid`: key -> values, every combination; `draw`: key -> (distribution, its arguments), drawn
    `runs` times, the same draws in each cell of the grid. Keys as in Scenario.with_value(), and `base`."""

    scenario: Scenario
    grid: dict[str, list]
    draw: dict[str, tuple[str, tuple]]
    runs: int = 1
    seed: int = 0
    measure: tuple[str, ...] = tuple(MEASURES)
    name: str = "sweep"

    def __len__(self) -> int:
        return prod(len(values) for values in self.grid.values()) * self.runs

    def point(self, index: int) -> dict[str, Any]:
        """The values of run `index`; the last key of the grid changes fastest, after the draws."""
        if not 0 <= index < len(self):
            raise IndexError(f"run {index}: the sweep has {len(self)} runs")
        cell, k = divmod(index, self.runs)
        got = {}
        for key, values in reversed(self.grid.items()):
            cell, place = divmod(cell, len(values))
            got[key] = values[place]
        got = dict(reversed(got.items()))
        for key, (kind, args) in self.draw.items():
            got[key] = drawn(kind, args, random.Random(f"{self.seed}/{k}/{key}"))
        return got

    def run_of(self, index: int) -> Run:
        """Run `index`, with its journal. Raises ScenarioError if its values do not go together."""
        point = self.point(index)
        base = point.pop(BASE, None)
        return run(self.scenario.replace(**point) if point else self.scenario, base)

    @cached_property
    def digest(self) -> str:
        """What a results file is known by: equal only for sweeps with equal rows."""
        return _digest([self.scenario.config, list(self.grid.items()), list(self.draw.items()), self.runs, self.seed,
                        self.measure])

    def key(self, index: int) -> str:
        """What a row is known by: a digest of what run `index` is given."""
        return _digest([self.digest, self.point(index)])

    def _start_of_row(self, index: int) -> dict[str, Any]:
        return {"run": index, "key": self.key(index), "point": self.point(index)}

    def row(self, index: int) -> dict[str, Any]:
        """Run `index` as a row. A run that cannot be run, or fails in the model, is a row with the reason."""
        try:
            done = self.run_of(index)
        except ScenarioError as error:
            return self.lost_row(index, "refused", str(error))
        except Exception as error:  # a fault of ours in one run must not take the others along
            return self.lost_row(index, "error", " ".join(f"{type(error).__name__}: {error}".split()))
        measured = {name: MEASURES[name](done) for name in self.measure}
        return {**self._start_of_row(index), **outcome(done), **measured}

    def lost_row(self, index: int, status: str, reason: str) -> dict[str, Any]:
        """The row of a run that gave nothing to measure."""
        nothing = dict.fromkeys(self.measure)
        return {**self._start_of_row(index), "status": status, "reason": reason, **nothing}


def _digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def drawn(kind: str, args: tuple, rng: random.Random) -> Any:
    """One value. uniform, loguniform: [low, high]; normal: [mean, deviation]; choice: of these. Whole numbers give
    whole numbers."""
    if kind == "choice":
        return rng.choice(args)
    a, b = args
    if kind == "uniform":
        return rng.randint(a, b) if isinstance(a, int) and isinstance(b, int) else rng.uniform(a, b)
    value = rng.normalvariate(a, b) if kind == "normal" else min(max(a * (b / a) ** rng.random(), a), b)
    return round(value) if isinstance(a, int) and isinstance(b, int) else value


def outcome(done: Run) -> dict[str, str]:
    """How a run ended: `status` as query-migrate has it, or `refused`; `reason` where it did not complete."""
    status = done.outcome.get("status", "none")
    if done.refused:
        return {"status": "refused", "reason": done.refused}
    if status in ENDED:
        return {"status": status, "reason": done.outcome.get("error-desc", "")}
    return {"status": status, "reason": done.deadlock or why_not_ended(done)}


# --- reading a sweep ---

def load_sweep(what: str | Path | Mapping[str, Any]) -> Sweep:
    """A sweep from a YAML or JSON file or a mapping; a `scenario` path is relative to the file.

    Raises ScenarioError, one line: where, what, what is allowed, the nearest name.
    """
    if isinstance(what, Mapping):
        return _parse(dict(what), Path(), "sweep")
    path = Path(what)
    if not path.is_file():
        why = "not a file" if path.exists() else "No such file"
        raise ScenarioError(f"{path}: {why}: a YAML or JSON sweep is needed")
    return _parse(scenario_file.read(path), path.parent, path.stem, f"{path}: ")


def _parse(got: Any, folder: Path, name: str, where: str = "sweep: ") -> Sweep:
    try:
        return _checked(got, folder, name)
    except ScenarioError as error:
        told = str(error)
        raise ScenarioError(told if told.startswith(where) else where + told) from None


def _checked(got: Any, folder: Path, name: str) -> Sweep:
    got = known_keys("", got, KEYS)
    scenario = got.get("scenario")
    if not isinstance(scenario, str | Mapping):
        raise bad("scenario", scenario, "the path of a scenario, or a mapping")
    scenario = load_scenario(scenario if isinstance(scenario, Mapping) else folder / scenario)
    grid = {key: _values(f"grid.{key}", values) for key, values in _mapping("grid", got.get("grid")).items()}
    draw = {key: _distribution(f"draw.{key}", given) for key, given in _mapping("draw", got.get("draw")).items()}
    if not grid and not draw:
        raise bad("grid", None, "a key with a list of values, here or under draw")
    if twice := sorted(grid.keys() & draw.keys()):
        raise bad(f"draw.{twice[0]}", twice[0], "a key that is not in grid too")
    runs = _whole("runs", got.get("runs", 1), 1, MAX_RUNS)
    if "runs" in got and not draw:
        raise bad("runs", runs, "only together with draw: without, all runs of a cell are the same")
    sweep = Sweep(scenario, grid, draw, runs, _whole("seed", got.get("seed", 0), 0, 2**64 - 1),
                  _measures(got.get("measure")), str(got.get("name", name)))
    if len(sweep) > MAX_RUNS:
        raise bad("grid", f"{len(sweep)} runs", f"at most {MAX_RUNS}")
    _try_values(sweep)
    return sweep


def _mapping(place: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise bad(place, value, "a mapping of keys such as params.downtime-limit")
    return value


def _values(place: str, value: Any) -> list:
    if not isinstance(value, list | tuple | range) or not value:
        raise bad(place, value, "a list of values, at least one")
    return [v.item() if hasattr(v, "item") else v for v in value]  # numpy's numbers


def _whole(place: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise bad(place, value, f"a whole number from {low} to {high}")
    return value


def _distribution(place: str, value: Any) -> tuple[str, tuple]:
    given = known_keys(place, value, DISTRIBUTIONS)
    if len(given) != 1:
        raise bad(place, value, f"one of {', '.join(DISTRIBUTIONS)}, such as uniform: [0, 100]")
    (kind, args), = given.items()
    place = f"{place}.{kind}"
    if kind == "choice":
        return kind, tuple(_values(place, args))
    pair = args if isinstance(args, list | tuple) and len(args) == 2 else (None, None)
    numbers = all(type(number) in (int, float) and abs(number) < 1e300 for number in pair)
    fits = {"uniform": lambda a, b: a <= b, "loguniform": lambda a, b: 0 < a <= b, "normal": lambda _, b: b >= 0}
    if not numbers or not fits[kind](*pair):
        raise bad(place, args, {"uniform": "[low, high], two numbers", "loguniform": "[low, high], numbers above 0",
                                "normal": "[mean, deviation]"}[kind])
    return kind, tuple(pair)


def _measures(value: Any) -> tuple[str, ...]:
    if value is None:
        return tuple(MEASURES)
    given = value if isinstance(value, list) else [value]
    return tuple(known_keys("measure", dict.fromkeys(map(str, given)), MEASURES))


def _try_values(sweep: Sweep) -> None:
    """Refuse what can never run: a value that fits neither the first nor the last cell; a draw that does not fit."""
    cells = [{key: values[at] for key, values in sweep.grid.items()} for at in (0, -1)]
    first_draw = {key: value for key, value in sweep.point(0).items() if key in sweep.draw}
    _try("draw", sweep, [{**cell, **first_draw} for cell in cells] if first_draw else [])
    for key, values in sweep.grid.items():
        for i, value in enumerate(values):
            _try(f"grid.{key}[{i}]", sweep, [{**first_draw, **cell, key: value} for cell in cells])


def _try(place: str, sweep: Sweep, points: list[dict[str, Any]]) -> None:
    told = ""
    for point in points:
        point = dict(point)
        try:
            if (base := point.pop(BASE, None)) is not None:
                code_base(base)
            sweep.scenario.replace(**point)
            return
        except ValueError as error:
            told = told or str(error).removeprefix(f"{sweep.scenario.name or 'scenario'}: ")
    if points:
        raise ScenarioError(f"{place}: {told}")


# --- running ---

@contextmanager
def rare_collection() -> Iterator[None]:
    """Garbage is collected a hundred times less often: a run allocates much and keeps nearly all of it to its end."""
    before = gc.get_threshold()
    gc.set_threshold(70_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def run_batch(sweep: Sweep, indices: Iterable[int]) -> list[str]:
    """Rows as lines of JSON: what a worker is asked for."""
    with rare_collection():
        return [json.dumps(sweep.row(index)) for index in indices]


def run_sweep(what: Any, out: str | Path | None = None, workers: int = 1, dask: str | None = None,
              progress: Callable[[int], Any] | None = None) -> list[dict[str, Any]]:
    """All rows, in order of `run`. `what`: a Sweep, a mapping or a file.

    `out`: a file that gets each row as it comes; what it already has is not run again. `workers`: 1 is this process,
    more a pool; `dask`: the address of a scheduler instead. `progress` is called with the number of rows that came.
    Raises ScenarioError and SweepError, one line.
    """
    from .results import Results, SweepError
    from .workers import crew, execute

    sweep = what if isinstance(what, Sweep) else load_sweep(what)
    if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= 256:
        raise SweepError(f"workers: {workers!r}: allowed is a whole number from 1 to 256")
    report = progress or (lambda rows: None)
    hands = crew(workers, dask)
    with Results(out, sweep) as results:
        report(len(results.done))
        todo = (index for index in range(len(sweep)) if index not in results.done)
        for lines in execute(sweep, todo, hands):
            results.write(lines)
            report(len(lines))
        return results.rows()


def frame(rows: Iterable[Mapping[str, Any]]) -> pandas.DataFrame:
    """Rows as a table: a column for each key of the point and for each measure, `run` as index."""
    import pandas

    rows = list(rows)
    flat = [{**{k: v for k, v in row.items() if k not in ("point", "key")}, **row["point"]} for row in rows]
    keys = list(dict.fromkeys(chain.from_iterable(row["point"] for row in rows)))
    table = pandas.DataFrame(flat)
    rest = [column for column in table.columns if column not in keys]
    return table[rest[:1] + keys + rest[1:]].set_index("run")
