"""Who runs a sweep: this process, a pool of processes or a Dask cluster, all as concurrent.futures executors."""
from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import chain, islice
from multiprocessing.connection import wait as wait_for
from typing import TYPE_CHECKING, Any, NamedTuple

from .results import SweepError

if TYPE_CHECKING:
    from .sweep import Sweep

BATCH = 16  # runs that a worker gets at most: some 0.15 s, so that handing out costs next to nothing
AHEAD = 3  # batches per worker that are handed out
CONNECT_S = 5
DIED = "the worker process died in this run, twice"


class Crew(NamedTuple):
    """`open`: gives an executor; `in_flight`: batches handed out at a time; `deaths`: how a dead worker shows."""

    open: Callable[[], AbstractContextManager[Executor]]
    in_flight: int
    deaths: tuple[type[Exception], ...] = (BrokenExecutor,)


class ThisProcess(Executor):
    """Runs at submit()."""

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """A future that is done."""
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def crew(workers: int, dask: str | None = None) -> Crew:
    """Those who do the work. Raises SweepError if there is no cluster at the address, or no Dask."""
    if dask is not None:
        return _cluster(dask)
    return Crew(ThisProcess, 1) if workers == 1 else Crew(partial(_pool, workers), AHEAD * workers)


@contextmanager
def _pool(workers: int) -> Iterator[Executor]:
    context = multiprocessing.get_context("spawn")  # fork would copy a notebook's threads and locks
    with ProcessPoolExecutor(workers, context, initializer=_begin) as pool:
        try:
            pool.submit(os.getpid).result()
        except BrokenExecutor:
            raise SweepError("no worker process could be started (a script must start the sweep under "
                             "`if __name__ == \"__main__\":`)") from None
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """A worker leaves Ctrl-C to its parent, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _cluster(address: str) -> Crew:
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        raise SweepError("--dask needs the extra: pip install 'migsim[dask]'") from None
    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise SweepError(f"no Dask scheduler at {address!r}: {' '.join(str(error).split())[:200]}") from None
    with client:
        cores = sum(client.nthreads().values())

    @contextmanager
    def connected() -> Iterator[Executor]:
        with Client(address, timeout=CONNECT_S, set_as_default=False) as client, \
                client.get_executor(pure=False) as executor:
            yield executor

    return Crew(connected, AHEAD * max(1, cores), (BrokenExecutor, KilledWorker))


def execute(sweep: Sweep, todo: Iterable[int], hands: Crew) -> Iterator[list[str]]:
    """Rows as lines, batch by batch, as they come. Each index of `todo` gives one row, whoever dies."""
    remaining, size = iter(todo), min(BATCH, 1 + len(sweep) // 100)
    batches = iter(lambda: tuple(islice(remaining, size)), ())
    for batch in batches:
        lost: list[int] = []
        with hands.open() as executor:
            yield from _handed_out(sweep, executor, hands, chain([batch], batches), lost)
        if lost:
            yield from _alone(sweep, sorted(lost), hands)


def _handed_out(sweep: Sweep, executor: Executor, hands: Crew, batches: Iterator[tuple[int, ...]],
                lost: list[int]) -> Iterator[list[str]]:
    """Hand out batches, never more than `in_flight` at once. `lost` gets what died with a worker; then no more is
    handed out."""
    from .sweep import run_batch

    waiting: dict[Future, tuple[int, ...]] = {}
    while True:
        while not lost and len(waiting) < hands.in_flight and (batch := next(batches, None)):
            try:
                waiting[executor.submit(run_batch, sweep, batch)] = batch
            except hands.deaths:
                lost += batch
        if not waiting:
            return
        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
            indices = waiting.pop(future)
            try:
                yield future.result()
            except hands.deaths:
                lost += indices
            except Exception as error:
                raise SweepError(f"a worker cannot run the sweep: {type(error).__name__}: {error}") from None


def _alone(sweep: Sweep, indices: list[int], hands: Crew) -> Iterator[list[str]]:
    """Runs that died with a worker, one at a time: what dies again alone is a row that says so."""
    from .sweep import run_batch

    while indices:
        with hands.open() as executor:
            try:
                while indices:
                    yield executor.submit(run_batch, sweep, indices[:1]).result()
                    indices = indices[1:]
            except hands.deaths:
                yield [json.dumps(sweep.lost_row(indices[0], "error", DIED))]
                indices = indices[1:]
