"""What a scenario may say: each mistake gets one line with its place, what is allowed and the nearest right name."""
from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migsim import ScenarioError, load_scenario
from migsim.cli import main
from migsim.scenario import PARAMS, TOP, Device, DeviceScript
from migsim.scenario_file import MAX_FILE


def error(config: object) -> str:
    with pytest.raises(ScenarioError) as caught:
        load_scenario(config)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 1000
    return text


def dev(**keys: object) -> dict:
    return {"devices": [{"source": keys}]}


@pytest.mark.parametrize("config, place, told", [
    ({"devcies": []}, "devcies", "nearest is 'devices'"),
    ({"caps": {"switchoverack": True}}, "caps.switchoverack", "nearest is 'switchover-ack'"),
    ({"caps": {"return-path": "yes"}}, "caps.return-path", "true or false"),
    ({"params": {"downtime_limit": 3}}, "params.downtime_limit", "nearest is 'downtime-limit'"),
    ({"params": {"mode": "cpr-rebot"}}, "params.mode", "nearest is 'cpr-reboot'"),
    ({"params": {"max-bandwidth": "10 Mb"}}, "params.max-bandwidth", "nearest is '10 M"),
    (dev(intial=3), "devices[0].source.intial", "nearest is 'initial'"),
    (dev(initial=-1), "devices[0].source.initial", "from 0 to"), (dev(initial=1.5), "initial", "a whole number"),
    (dev(initial="4 Mib"), "devices[0].source.initial", "nearest is '4 MiB'"), (dev(rec=0), "rec", "from 1 to"),
    (dev(stopcopy=1 << 40, rec=1), "devices[0].source.stopcopy", "10000 records of rec=1 bytes at most"),
    (dev(precopy=2), "precopy", "0 or 1"), (dev(load_init_ms="3 hours"), "load_init_ms", "a time in ms"),
    (dev(reinit="x600:8192"), "reinit", "t<ms>:size"), (dev(reinit="gap5:8192"), "reinit", "gap:size"),
    (dev(reinit="t:8192"), "reinit", "t<ms>:size"), (dev(reinit="t600:0"), "reinit", "from 1 to"),
    (dev(reinit_every="0:1:5"), "reinit_every", "endless REINIT never ends"),
    (dev(reinit_every="300:8192:1000000"), "reinit_every", "endless REINIT never ends"),
    (dev(reinit_every=1081632010), "reinit_every", "in quotes"),
    (dev(reinit=";".join(["t1:1"] * 10001)), "", "at most"),
    (dev(fail_state="PRECOPY"), "fail_state", "nearest is 'PRE_COPY'"), (dev(info_errno=0), "info_errno", "an errno"),
    ({"devices": [{}] * 17}, "devices", "at most 16"),
    ({"devices": [{"id": "a"}, {"id": "a"}]}, "devices", "different"),
    ({"devices": [{"id": "a\nb"}]}, "devices[0].id", "printable"), ({"devices": {}}, "devices", "a list"),
    ({"devices": [{"props": {"x-pre": 1}}]}, "devices[0].props.x-pre", "nearest is"),
    ({"source": {"machine": "pc-q35-12.0"}}, "source.machine", "nearest is 'pc-q35-1"),
    ({"source": {"qemu": "7.2"}}, "source.qemu", "8.1 to 11.1"), ({"source": {"qemu": "mergd"}}, "qemu", "'merged'"),
    ({"source": {"globals": ["migration.switchover-ack-legcy=on"]}}, "source.globals[0]", "switchover-ack-legacy=on'"),
    ({"source": {"globals": "x"}}, "source.globals", "a list"), ({"source": 3}, "source", "a mapping"),
    ({"actions": [{"do": "migrate_cancle"}]}, "actions[0].do", "nearest is 'migrate_cancel'"),
    ({"actions": [{"do": "stop", "args": {"x": 1}}]}, "actions[0].args", "no arguments"),
    ({"actions": [{"do": "stop", "attempt": 2}]}, "actions[0].attempt", "at most attempts=1"),
    ({"actions": [{"do": "stop"}] * 1001}, "actions", "at most 1000"), ({"transport": "upd"}, "transport", "unix, tcp"),
    ({"attempts": 11}, "attempts", "from 1 to 10"), ({"mem": "8 MB"}, "mem", "nearest is '8 "),
    ({"mem": 10**18}, "mem", "from 1 to"), ({"timeout_ms": float("nan")}, "timeout_ms", "a time"),
    ({"attempts": True}, "attempts", "a number"),
    ({"boot_s": float("inf")}, "boot_s", "seconds"), ({"seed": -1}, "seed", "unsigned"),
    ({"guest": {"pages": 0}}, "guest", "at least one page"),
    ({"guest": {"pages": 10**6}}, "guest.pages", "mem (64 MiB)"),
    ({"cost": {"bitmap-sync": 1}}, "cost.bitmap-sync", "nearest is 'bitmap_sync'"), ({"name": 5}, "name", "a text"),
    ({"shows": "x" * 2001}, "shows", "2000"), ({"destination_per_attempt": 1}, "destination_per_attempt", "true"),
    ([], "scenario", "a mapping"), (None, "scenario", "a mapping"), ("a\0b", "scenario", "the path"),
    ({5: 1}, "5", "nearest is"),
    ({"k" * 10**6: 1}, "kkk...", "nearest is"), ({10**5000: 1}, "a huge int", ""),
    ({"mem": "9" * 5000}, "mem", "MiB"), ({"seed": 10**5000}, "seed", "a huge int")])
def test_each_mistake_has_its_line(config: object, place: str, told: str) -> None:
    text = error(config)
    assert place in text and told in text


# --- files ---

HOSTILE = {
    "alias": "devices: [{common: &c {initial: 5}, source: *c}]\n",
    "anchors": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "tag": "mem: !!python/object/apply:os.system ['true']\n",
    "twice": "mem: 8\nmem: 9\n", "tab": "mem:\t- 8\n\t9", "open": "devices: [{", "list": "- 1\n", "empty": "",
    "deep": "[" * 20000, "number": "mem: " + "9" * 5000,
    "binary": "mem: !!binary aGVsbG8=\n", "key": "? [1, 2]\n: 3\n", "date": "name: 2026-01-01\n",
    "control": "na\x1b[31mme: 1\n", "two": "mem: 8\n---\nmem: 9\n"}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_yaml_is_one_line(what: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(HOSTILE[what], "utf-8")
    began = time.perf_counter()
    assert error(tmp_path / "x.yaml").startswith(str(tmp_path / "x.yaml"))
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("text", ['{"mem": 8, "mem": 9}', "[1", "[" * 100_000, "3", '{"mem": 1e999}', '{"mem": NaN}'])
def test_hostile_json_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text, "utf-8")
    error(tmp_path / "x.json")


def test_files_that_are_none(tmp_path: Path) -> None:
    big, raw = tmp_path / "big.yaml", tmp_path / "raw.yaml"
    big.write_text(" " * (MAX_FILE + 1))
    raw.write_bytes(b"\xff\xfe\x00")
    assert "larger than 1 MiB" in error(big) and "UTF-8" in error(raw)
    assert "No such file" in error(tmp_path / "nix.yaml") and "scenario.json" in error(tmp_path)
    assert "not a file" in error("/dev/zero")


def test_the_command_line_shows_no_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"na\x1b[31mme\r": 1}), "utf-8")
    assert main(["run", str(tmp_path / "x.json")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and all(c.isprintable() for c in err.rstrip("\n"))


# --- what is right ---

def test_units_and_defaults() -> None:
    got = load_scenario({**dev(initial="4 MiB", stopcopy="2 kB", load_init_ms="1.5 s", query_us="2 ms",
                               reinit=" t600:8192 ;gap:4 KiB;; rd1.5:1"), "mem": "8 GiB", "boot_s": "500 ms",
                         "params": {"downtime-limit": "2 s", "max-bandwidth": "1 GB"}})
    script = got.devices[0].source
    assert (script.initial, script.stopcopy, script.load_init_ms, script.query_us) == (4 << 20, 2000, 1500, 2000)
    assert script.reinit == (("t", 600.0, 8192), ("gap", 0.0, 4096), ("rd", 1.5, 1))
    assert (got.mem, got.boot_s, dict(got.params)["downtime-limit"]) == (8192, 0.5, 2000)
    assert dict(got.params) == {**PARAMS, "downtime-limit": 2000, "max-bandwidth": 10**9}
    assert load_scenario({"devices": [{}]}).devices == (Device("vfio0", DeviceScript(), DeviceScript()),)


def test_common_is_overridden_by_the_side() -> None:
    got = load_scenario({"devices": [{"common": {"v2": 0, "rec": 9999}, "destination": {"v2": 1}}]}).devices[0]
    assert (got.source.v2, got.destination.v2, got.source.rec, got.destination.rec) == (0, 1, 9999, 9999)


def test_it_reads_back_what_it_was_given() -> None:
    config = dev(reinit="gap:8192") | {"name": "x", "actions": [{"do": "stop", "at_ms": 5}]}
    first = load_scenario(config)
    assert first.to_config() == config and load_scenario(first.to_config()) == first
    first.to_config()["devices"][0]["source"]["reinit"] = ""
    assert first.to_config() == config


def test_with_value() -> None:
    first = load_scenario(dev(initial=5) | {"mem": 8})
    other = first.with_value("devices.0.source.initial", 7)
    assert (first.devices[0].source.initial, other.devices[0].source.initial) == (5, 7)
    assert dict(first.with_value("params.downtime-limit", 9).params)["downtime-limit"] == 9
    for path, told in (("devices.3.id", "below 1"), ("mem.x", "name of a mapping"), ("meem", "nearest is 'mem'")):
        with pytest.raises(ScenarioError, match=told):
            first.with_value(path, 1)


# --- anything at all ---

leaf = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=4))
names = st.one_of(st.sampled_from(sorted(TOP | set(PARAMS) | {"id", "common", "qemu", "machine", "globals", "do",
                                                             "at_ms", "args", "initial", "reinit", "pages"})),
                  st.text(max_size=5), st.integers())
anything = st.recursive(leaf, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=5),
                        max_leaves=25)


@settings(max_examples=500)
@given(st.dictionaries(names, anything, max_size=6))
def test_any_mapping_is_a_scenario_or_one_line(config: dict) -> None:
    try:
        load_scenario(config)
    except ScenarioError as told:
        assert "\n" not in str(told)


def test_replace_leaves_what_it_is_given_alone() -> None:
    devices = [{"id": "a", "source": {"stopcopy": 1}}]
    changed = load_scenario({}).replace(**{"devices": devices, "devices.0.source.stopcopy": 2})
    assert changed.devices[0].source.stopcopy == 2 and devices == [{"id": "a", "source": {"stopcopy": 1}}]
