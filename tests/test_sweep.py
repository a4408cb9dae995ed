"""Sweeps: points, draws, rows; bad input in one line."""
from __future__ import annotations

import json
import random
import statistics
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migsim import ScenarioError, load_scenario, run, sweep
from migsim.cli import main
from migsim.sweep import drawn, frame, load_sweep, run_batch, run_sweep
from sweeps import GRID, SMALL, made

ROOT = Path(__file__).parent.parent


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
