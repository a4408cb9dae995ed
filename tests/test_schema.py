"""The schema that editors use: up to date, true to every scenario there is, and never stricter than the checks."""
from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from migsim import ScenarioError, load_scenario
from migsim.scenario import TOP
from migsim.schema import schema, text

DATA = Path(__file__).parent.parent / "data"
SCENARIOS = sorted((DATA / "scenarios").glob("*.yaml"))
RECORDINGS = sorted(DATA.glob("recordings*/*/scenario.json"))
HEAD = "# yaml-language-server: $schema=../scenario.schema.json\n"
VALIDATOR = Draft202012Validator(schema())


def errors(config: object) -> list[str]:
    return [f"{e.json_path}: {e.message}" for e in VALIDATOR.iter_errors(config)]


def test_the_file_is_up_to_date() -> None:
    Draft202012Validator.check_schema(schema())
    assert (DATA / "scenario.schema.json").read_text("utf-8") == text(), "make schema"


def test_it_has_every_key() -> None:
    assert set(schema()["properties"]) == TOP


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda p: p.stem)
def test_scenarios_name_the_schema_and_keep_it(path: Path) -> None:
    assert path.read_text("utf-8").startswith(HEAD)
    assert errors(yaml.safe_load(path.read_text("utf-8"))) == []


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda p: p.parent.name)
def test_recordings_keep_it(path: Path) -> None:
    assert errors(json.loads(path.read_text("utf-8"))["config"]) == []


@pytest.mark.parametrize("place, value", [
    ("mem", "8 Gib"), ("mem", 0), ("boot_s", 61), ("timeout_ms", True), ("source", {"qemu": "7.0"}),
    ("source", {"machine": "pc-q35-12.0"}), ("source", {"globals": ["migration.switchover-ack-legcy=on"]}),
    ("caps", {"switchoverack": True}), ("caps", {"return-path": 1}), ("params", {"downtime-limit": -1}),
    ("devices", [{"source": {"initial": "4 Mib"}}]), ("devices", [{"source": {"reinit": "x600:8192"}}]),
    ("devices", [{"source": {"reinit_every": 300}}]), ("devices", [{"source": {"p2p": 2}}]),
    ("devices", [{}] * 17), ("actions", [{"do": "pause"}]), ("actions", [{"at_ms": 5}]), ("transport", "udp"),
    ("guest", {"pags": 1}), ("cost", {"stp": 1}), ("devcies", [])])
def test_what_it_refuses_is_refused(place: str, value: object) -> None:
    assert errors({place: value}) != []
    with pytest.raises(ScenarioError):
        load_scenario({place: value})


BASE = yaml.safe_load((DATA / "scenarios" / "first-migration.yaml").read_text("utf-8")) | {
    "guest": {"pages": 10}, "before": [{"do": "stop"}], "cost": {"step": 1}, "dst_params": {"downtime-limit": "1 s"},
    "actions": [{"do": "migrate-set-parameters", "at_ms": 1, "args": {"max-bandwidth": "1 MB"}}],
    "devices": [{"common": {"reinit_every": None, "v2": 1}, "destination": None, "id": "nic0"}]}
odd = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 1 << 52), st.floats(allow_nan=True), st.just([]), st.just({}),
    st.sampled_from(["", "4 MiB", "-1 MiB", " 3 s", "2.5 ms", "300:8192:10", "t600:8192; gap:4 KiB;", "unix", "11.1",
                     "pc-q35-10.2", "v2", "on", "migration.switchover-ack-legacy=on", "stop", "x.y=z"]),
    st.text(max_size=8))


def places(at: object, path: tuple = ()) -> list[tuple]:
    """Every path in nested mappings and lists."""
    items = at.items() if isinstance(at, dict) else enumerate(at) if isinstance(at, list) else ()
    return [(*path, key) for key, _ in items] + [p for key, value in items for p in places(value, (*path, key))]


@settings(max_examples=600)
@given(st.sampled_from(places(BASE)), odd, st.sampled_from([None, "initial", "at_ms", "nix", "qemu", "id"]))
def test_what_is_accepted_keeps_the_schema(place: tuple, value: object, key: str | None) -> None:
    config = copy.deepcopy(BASE)
    at = config
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = {key: value} if key else value
    try:
        load_scenario(config)
    except ScenarioError:
        return
    assert errors(config) == []
