"""Sweeps: every run once, equal rows whoever runs them, gone on with after a kill; bad input in one line."""
from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migsim import ScenarioError, load_scenario, run, sweep
from migsim.cli import main
from migsim.results import Results, SweepError
from migsim.sweep import Sweep, drawn, frame, load_sweep, run_batch, run_sweep
from migsim.workers import BATCH, DIED, Crew, ThisProcess, execute

ROOT = Path(__file__).parent.parent
HOST = {"qemu": "11.1.3", "machine": "pc-q35-11.1"}
SMALL = {"source": HOST, "destination": HOST, "caps": {"return-path": True, "switchover-ack": True},
         "params": {"avail-switchover-bandwidth": 10**9}, "timeout_ms": 2000,
         "devices": [{"common": {"v2": 1}, "source": {"query_us": 20000}, "destination": {"load_init_ms": 20}}]}
GRID = {"scenario": SMALL, "grid": {"devices.0.destination.load_init_ms": [20, 60],
                                    "devices.0.destination.load_stop_ms": [0, 5, 9]}}


def made(**changes: object) -> Sweep:
    return load_sweep({**GRID, **changes})


# --- points ---

def test_a_grid_has_every_combination_once_last_key_fastest() -> None:
    points = [tuple(made().point(k).values()) for k in range(6)]
    assert points == [(20, 0), (20, 5), (20, 9), (60, 0), (60, 5), (60, 9)]


def test_draws_are_the_same_in_each_cell_and_hang_on_the_seed() -> None:
    draw = {"devices.0.source.stopcopy": {"uniform": [1, 10**6]}}
    one, other = (made(draw=draw, runs=4, seed=seed) for seed in (1, 2))
    values = [one.point(k)["devices.0.source.stopcopy"] for k in range(len(one))]
    assert len(one) == 24 and values[:4] * 6 == values and len(set(values)) == 4
    assert values[:4] != [other.point(k)["devices.0.source.stopcopy"] for k in range(4)]


numbers = st.integers(1, 10**9) | st.floats(0.001, 1e9)


@given(numbers, numbers, st.integers())
def test_draws_keep_to_their_bounds(a: float, b: float, seed: int) -> None:
    (low, high), rng = sorted((a, b)), random.Random(seed)
    whole = isinstance(low, int) and isinstance(high, int)
    for kind in ("uniform", "loguniform"):
        value = drawn(kind, (low, high), rng)
        assert low <= value <= high and isinstance(value, int) == whole
    assert drawn("choice", (low, high), rng) in (low, high)
    assert drawn("normal", (low, 0), rng) == low


def test_draws_are_as_likely_as_they_should_be() -> None:
    rng = random.Random(1)
    cuts = {kind: statistics.quantiles([drawn(kind, args, rng) for _ in range(4000)], n=4)
            for kind, args in (("uniform", (0.0, 100.0)), ("loguniform", (1.0, 10000.0)), ("normal", (50.0, 10.0)))}
    assert cuts == {"uniform": pytest.approx([25, 50, 75], abs=3), "normal": pytest.approx([43.3, 50, 56.7], abs=1),
                    "loguniform": pytest.approx([10, 100, 1000], rel=0.2)}


@settings(max_examples=20)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=5, unique=True), st.integers(1, 5), st.integers(0, 10**6))
def test_points_have_their_own_keys(values: list[int], runs: int, seed: int) -> None:
    got = load_sweep({"scenario": SMALL, "grid": {"devices.0.destination.load_init_ms": values}, "draw": {
        "devices.0.source.start_ms": {"uniform": [0.0, 1000.0]}}, "runs": runs, "seed": seed})
    assert len({got.key(k) for k in range(len(got))}) == len(got) == len(values) * runs


# --- rows ---

def test_a_row_is_the_run() -> None:
    got = made()
    row, done = got.row(4), run(load_scenario(SMALL).replace(**got.point(4)))
    assert row["status"] == "completed" and row["reason"] == "" and row["downtime_ms"] == done.outcome["downtime"]
    assert row["events"] == len(done.raw) and row["acks"] == 1 and row["vfio_bytes"] > 4 << 20
    assert got.run_of(4).journal == done.journal


def test_base_is_a_key() -> None:
    rows = run_sweep({"scenario": SMALL, "grid": {"base": ["old", "merged"]}})
    assert [len(run(SMALL, base=b).raw) for b in ("old", "merged")] == [row["events"] for row in rows]
    assert rows[0]["events"] != rows[1]["events"]


def test_what_does_not_go_together_or_fails_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = {"mem": [32, 64], "guest": [{"start_mib": 1, "pages": 10}, {"start_mib": 40, "pages": 10}]}
    rows = run_sweep({"scenario": {**SMALL, "timeout_ms": 300}, "grid": grid})
    assert [row["status"] == "refused" for row in rows] == [False, True, False, False]
    assert rows[1]["reason"].startswith("scenario: guest.pages: '10': allowed is at most")

    def breaks(*_: object) -> None:
        raise RuntimeError("a\nfault")
    monkeypatch.setattr(sweep, "run", breaks)
    assert [(row["status"], row["reason"]) for row in run_sweep(made())] == [("error", "RuntimeError: a fault")] * 6


def test_capabilities_that_qemu_refuses_are_a_row() -> None:
    rows = run_sweep({"scenario": SMALL, "grid": {"caps.return-path": [True, False]}})
    assert rows[1]["reason"] == "Capability 'switchover-ack' requires capability 'return-path'"
    assert [row["status"] for row in rows] == ["completed", "refused"]


def busy(name: str, **changes: object) -> dict:
    """A recording's row at its time-out."""
    return load_sweep({"scenario": str(ROOT / "data" / name), "grid": {key.replace("__", "."): [value] for
                       key, value in {"timeout_ms": 9000, **changes}.items()}}).row(0)


def test_why_it_never_ends_with_a_chunk_behind_ram() -> None:
    row = busy("recordings-busy/k1-chunk-behind-ram-new")
    assert row["reason"].endswith("that is never sent: RAM uses up the rate limit of each window") and row["acks"] == 1


def test_why_it_never_ends_with_a_starved_estimate() -> None:
    row = busy("recordings/bb-measured-bandwidth-legacy")
    assert row["reason"].endswith("bandwidth is measured while only what gets dirty is sent")
    assert row["pending_bytes"] > row["threshold_bytes"]


def test_why_it_never_ends_with_a_busy_guest() -> None:
    row = busy("recordings-busy/b1-ram-high-rate-limit-raised", actions=[])
    assert row["reason"] == "data gets dirty as fast as it is sent"
    assert row["pending_bytes"] > 40 * 10**6 > row["threshold_bytes"] * 3


def test_why_it_never_ends_without_an_approval() -> None:
    mixed = {**SMALL, "destination": {**HOST, "globals": ["migration.switchover-ack-legacy=on"]},
             "devices": [*SMALL["devices"], {"common": {"v2": 1}}]}
    row = load_sweep({"scenario": mixed, "grid": {"seed": [0]}}).row(0)
    assert row["reason"] == "an ACK is awaited: the initial data is sent, its approval has not come back"


# --- whoever runs it ---

@pytest.fixture(scope="module")
def expected() -> list[dict]:
    return run_sweep(many())


def many() -> Sweep:
    return load_sweep({"scenario": SMALL, "grid": {"devices.0.destination.load_init_ms": [20, 60]}, "draw": {
        "devices.0.source.stopcopy": {"loguniform": [4096, 4194304]}}, "runs": 200, "seed": 3})


def test_a_pool_gives_the_same_rows(expected: list[dict]) -> None:
    assert run_sweep(many(), workers=2) == expected


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
def test_a_worker_that_dies_takes_nothing_along(expected: list[dict], tmp_path: Path, always: bool) -> None:
    plain = many()
    deadly = Deadly(plain.scenario, plain.grid, plain.draw, plain.runs, plain.seed,
                    name="" if always else str(tmp_path / "died"))
    rows = list(expected)
    if always:
        rows[37] = plain.lost_row(37, "error", DIED)
    assert run_sweep(deadly, workers=2) == rows


# --- the file ---

def test_gone_on_with_at_any_torn_byte(tmp_path: Path) -> None:
    out, got = tmp_path / "r.jsonl", made()
    rows = run_sweep(got, out)
    whole = out.read_bytes()
    for cut in (*range(0, len(whole), 97), len(whole) - 1):
        out.write_bytes(whole[:cut])
        assert run_sweep(got, out) == rows and out.read_bytes() == whole


def test_what_is_there_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, got = tmp_path / "r.jsonl", made()
    run_sweep(got, out)
    monkeypatch.setattr(sweep, "run", lambda *_: pytest.fail("ran again"))
    seen: list[int] = []
    assert len(run_sweep(got, out, progress=seen.append)) == 6 and seen == [6]


def test_another_sweeps_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    run_sweep(made(), out)
    before = out.read_bytes()
    with pytest.raises(SweepError, match=r"r\.jsonl: rows of another sweep, .*; give another --out$"):
        run_sweep(made(measure=["acks"]), out)
    out.write_bytes(before.replace(b'"migsim": "', b'"migsim": "9'))
    with pytest.raises(SweepError, match=r"rows of migsim '9"):
        run_sweep(made(), out)
    out.write_bytes(before)
    with pytest.raises(SweepError, match="another process is writing it"), Results(out, made()):
        run_sweep(made(), out)
    assert out.read_bytes() == before


@pytest.mark.parametrize("text", ["precious", "{}\n", '{"sweep": 3}\n', "[" * 9999 + "\n"])
def test_a_file_that_is_not_ours_is_left_alone(text: str, tmp_path: Path) -> None:
    out = tmp_path / "notes.txt"
    out.write_text(text)
    with pytest.raises(SweepError, match="not a results file of a sweep"):
        run_sweep(made(), out)
    assert out.read_text() == text


@pytest.mark.parametrize("damage", [lambda ls: [*ls, ls[2]], lambda ls: [ls[0], "x\n", *ls[1:]],
                                    lambda ls: [ls[0], ls[1].replace('"run": 0', '"run": 1'), *ls[2:]]])
def test_a_damaged_file_is_refused(damage: Callable, tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    run_sweep(made(), out)
    out.write_text("".join(damage(out.read_text().splitlines(keepends=True))))
    with pytest.raises(SweepError, match=r"line \d is no row of this sweep"):
        run_sweep(made(), out)


def children(pid: int) -> list[int]:
    return [int(p) for task in Path(f"/proc/{pid}/task").glob("*/children") for p in task.read_text().split()]


def wait_until(holds: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_killed_and_started_again_it_goes_on(tmp_path: Path, expected: list[dict]) -> None:
    out, what = tmp_path / "r.jsonl", tmp_path / "many.json"
    what.write_text(json.dumps({"scenario": SMALL, "grid": many().grid, "draw": {
        "devices.0.source.stopcopy": {"loguniform": [4096, 4194304]}}, "runs": 200, "seed": 3}))
    command = [sys.executable, "-m", "migsim", "sweep", str(what), "--out", str(out), "--workers", "2"]
    for rows in (20, 120):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT)
        wait_until(lambda rows=rows: out.exists() and out.read_bytes().count(b"\n") > rows)
        workers = [pid for child in children(process.pid) for pid in (child, *children(child))]
        assert workers
        process.kill()
        process.wait()
        wait_until(lambda workers=workers: not any(Path(f"/proc/{pid}").exists() for pid in workers), 10)
    before = out.read_bytes().count(b"\n")
    assert 120 < before < 401
    assert run_sweep(load_sweep(what), out) == expected
    assert out.read_bytes().count(b"\n") == 401


# --- a Dask cluster ---

def test_a_cluster_that_loses_a_worker_gives_the_same_rows(expected: list[dict], tmp_path: Path) -> None:
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

        assert run_sweep(many(), out, dask=cluster.scheduler_address, progress=progress) == expected
    assert seen == 400 and out.read_bytes().count(b"\n") == 401


def test_no_cluster_at_the_address_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    for address in ("nonsense", "tcp://127.0.0.1:1"):
        with pytest.raises(SweepError, match="no Dask scheduler at") as caught:
            run_sweep(made(), tmp_path / "r.jsonl", dask=address)
        assert "\n" not in str(caught.value) and not (tmp_path / "r.jsonl").exists()


# --- from Python ---

def test_frame_has_a_column_for_each_key() -> None:
    table = frame(run_sweep(made(measure=["downtime_ms", "acks"])))
    assert list(table.columns) == [*made().grid, "status", "reason", "downtime_ms", "acks"]
    assert table.index.name == "run" and list(table["acks"]) == [1] * 6


def test_values_of_numpy_are_plain() -> None:
    numpy = pytest.importorskip("numpy")
    got = load_sweep({"scenario": SMALL, "grid": {"devices.0.destination.load_init_ms": list(numpy.arange(3))}})
    assert json.loads(run_batch(got, [2])[0])["point"] == {"devices.0.destination.load_init_ms": 2}


@pytest.mark.parametrize("change, told", [
    ({"grdi": {}}, "grdi: 'grdi': allowed is draw, grid, measure, name, runs, scenario, seed, shows; nearest is"),
    ({"scenario": "nix.yaml"}, "nix.yaml: No such file"), ({"scenario": 3}, "scenario: '3': allowed is the path"),
    ({"grid": {}}, "grid: 'None': allowed is a key"), ({"grid": {"mem": []}}, "grid.mem: '[]': allowed is a list"),
    ({"grid": {"mem": 64}}, "grid.mem: '64': allowed is a list"), ({"grid": {1: [2]}}, "allowed is a mapping of keys"),
    ({"grid": {"meme": [64]}}, "grid.meme[0]: meme: 'meme': allowed is"),
    ({"grid": {"mem": [64, "64 GBit"]}}, "grid.mem[1]: mem: '64 GBit': allowed is MiB"),
    ({"grid": {"base": ["merged", "p14"]}}, "grid.base[1]: unknown code base 'p14'"),
    ({"grid": {"devices.3.id": ["x"]}}, "grid.devices.3.id[0]: devices.3.id: '3': allowed is a number below 1"),
    ({"draw": {"mem": {"unifrom": [1, 2]}}}, "nearest is 'uniform'"),
    ({"draw": {"mem": {"uniform": [2, 1]}}}, "draw.mem.uniform: '[2, 1]': allowed is [low, high]"),
    ({"draw": {"mem": {"loguniform": [0, 1]}}}, "numbers above 0"), ({"draw": {"mem": {}}}, "draw.mem: '{}'"),
    ({"draw": {"mem": {"normal": [1, True]}}}, "[mean, deviation]"), ({"draw": {"mem": {"choice": 3}}}, "a list"),
    ({"draw": {"mem": {"uniform": [1.5, 1.6]}}}, "draw: mem: '1."), ({"runs": 3}, "only together with draw"),
    ({"draw": {"mem": {"choice": [1]}}, "runs": 0}, "runs: '0': allowed is a whole number from 1 to 10000000"),
    ({"draw": {"seed": {"choice": [1]}}, "runs": 10**7}, "grid: '60000000 runs': allowed is at most 10000000"),
    ({"seed": -1}, "seed: '-1'"), ({"measure": ["downtime"]}, "nearest is 'downtime_ms'"),
    ({"draw": {"devices.0.destination.load_init_ms": {"choice": [1]}}}, "a key that is not in grid too")])
def test_a_bad_sweep_is_one_line(change: dict, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ScenarioError) as caught:
        made(**change)
    assert told in str(caught.value) and "\n" not in str(caught.value)
    path = tmp_path / "s.json"
    path.write_text(json.dumps({**GRID, **change}))
    if all(isinstance(key, str) for key in change.get("grid", {})):  # JSON has no other keys
        assert main(["sweep", str(path), "--out", str(tmp_path / "r.jsonl")]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and told in err and not (tmp_path / "r.jsonl").exists()


@pytest.mark.parametrize("argv, told", [
    (["nix.yaml"], "nix.yaml: No such file: a YAML or JSON sweep is needed"), (["."], ".: not a file"),
    (["OK", "--workers", "0"], "workers: 0: allowed is a whole number from 1 to 256"),
    (["OK", "--workers", "1", "--out", "/nowhere/r.jsonl"], "/nowhere/r.jsonl: No such file"),
    (["OK", "--workers", "1", "--out", "/dev/null"], "/dev/null: not a file that can be gone on with"),
    (["OK", "--workers", "2", "--dask", "x"], "not allowed with argument")])
def test_bad_options_are_one_line(argv: list[str], told: str, tmp_path: Path,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps(GRID))
    try:
        code = main(["sweep", *(str(path) if a == "OK" else a for a in argv)])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and told in err and err.count("\n") == 1


def test_the_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad\x1bname.json"
    path.write_text(json.dumps({**GRID, "measure": ["downtime_ms", "acks"], "runs": 2, "draw": {
        "devices.0.source.stopcopy": {"choice": ["1 MiB"]}}}))
    assert main(["sweep", str(path), "--workers", "1"]) == 0
    assert capsys.readouterr().out == """\
bad\\x1bname: 12 runs: 12 completed
downtime_ms, across: devices.0.destination.load_stop_ms
devices.0.destination.load_init_ms   0   5   9
20                                  22  27  31
60                                  22  27  31
downtime_ms over all draws: 5 % 22, 25 % 22, 50 % 27, 75 % 31, 95 % 31
"""


def test_each_example_loads() -> None:
    paths = sorted((ROOT / "data" / "sweeps").glob("*.yaml"))
    assert paths and all(load_sweep(path).name == path.stem for path in paths)
