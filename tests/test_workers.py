"""Workers: equal rows whoever runs them, and nothing is lost with one that dies."""
from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from migsim.results import SweepError
from migsim.sweep import Sweep, run_sweep
from migsim.workers import BATCH, DIED, Crew, ThisProcess, execute
from sweeps import expected, made, many


def test_a_pool_gives_the_same_rows() -> None:
    assert run_sweep(many(), workers=2) == expected()


def test_never_more_than_a_few_batches_are_handed_out() -> None:
    out: list[int] = []

    class Slow(ThisProcess):
        def submit(self, fn: Callable, /, *args: object) -> Future:
            out.append(len(args[1]))
            return super().submit(fn, *args)

    seen = 0
    for lines in execute(many(), iter(range(400)), Crew(Slow, 3)):
        seen += len(lines)
        assert sum(out) - seen <= 3 * BATCH
    assert seen == 400


class Deadly(Sweep):
    """Run 37 kills its worker: the first time, which it notes in the file `name`, or always, without a name."""

    def row(self, index: int) -> dict:
        if index == 37 and not (self.name and Path(self.name).exists()):
            if self.name:
                Path(self.name).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().row(index)


@pytest.mark.parametrize("always", [False, True])
def test_a_worker_that_dies_takes_nothing_along(tmp_path: Path, always: bool) -> None:
    plain = many()
    deadly = Deadly(plain.scenario, plain.grid, plain.draw, plain.runs, plain.seed,
                    name="" if always else str(tmp_path / "died"))
    rows = list(expected())
    if always:
        rows[37] = plain.lost_row(37, "error", DIED)
    assert run_sweep(deadly, workers=2) == rows


# --- a Dask cluster ---

def test_a_cluster_that_loses_a_worker_gives_the_same_rows(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    out = tmp_path / "r.jsonl"
    with distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None, worker_dashboard_address=None,
                                  silence_logs=50) as cluster:
        victim = next(iter(cluster.workers.values()))
        seen = 0

        def progress(rows: int) -> None:
            nonlocal seen
            if seen < 200 <= seen + rows:
                os.kill(victim.pid, signal.SIGKILL)
            seen += rows

        assert run_sweep(many(), out, dask=cluster.scheduler_address, progress=progress) == expected()
    assert seen == 400 and out.read_bytes().count(b"\n") == 401


def test_no_cluster_at_the_address_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    for address in ("nonsense", "tcp://127.0.0.1:1"):
        with pytest.raises(SweepError, match="no Dask scheduler at") as caught:
            run_sweep(made(), tmp_path / "r.jsonl", dask=address)
        assert "\n" not in str(caught.value) and not (tmp_path / "r.jsonl").exists()
