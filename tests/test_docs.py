"""What the documents show is what the code does."""
from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from migsim.explore import Explorer, Limits, explore, variant
from migsim.properties import PROPERTIES
from migsim.qemu import vfio
from migsim.replay import from_string

explored = importlib.import_module("migsim.explore")  # the module, not the function of that name
REPORT = (Path(__file__).parent.parent / "docs" / "handshake-in-11.1.md").read_text(encoding="utf-8")
PATHS = re.findall(r"^  `([\w,-]+~n\dr\d\S*~\S+)`$", REPORT, re.M)


@pytest.mark.parametrize("text", PATHS)
def test_each_path_of_the_report_breaks_a_property(text: str) -> None:
    which, limits, path = from_string(text)
    explorer = Explorer(which, limits)
    world = explorer.start()
    for label in path:
        world = explorer.apply(world, label)
        assert world is not None
    item = REPORT[:REPORT.index(f"`{text}`")].rsplit("- **", 1)[1]
    broken = {p.id for p in PROPERTIES.values() if p.premise(world, world.env) and not p.holds(world, world.env)}
    assert item.split("**")[0] in broken | {"always-ends"}


def test_the_report_has_its_paths() -> None:
    assert len(PATHS) == 9


def test_the_change_that_the_report_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def deliver(w: object, i: int) -> int:
        w.sdev[i].request_switchover_ack = w.sdev[i].initial_data_sent = False
        return 0

    def keep(w: object, i: int) -> int:
        return 0

    monkeypatch.setattr(vfio, "clear_initial_data_sent", keep)
    monkeypatch.setattr(vfio, "clear_request", deliver)
    for step in (keep, deliver):
        monkeypatch.setitem(explored.DEVICE_ARG, step, 1)
        monkeypatch.setattr(explored, "NO_CHANNEL", explored.NO_CHANNEL | {step})
    for limits in (Limits(1, 1, "stop"), Limits(1, 1, "stop", ioctl_failure=True), Limits(2, 1)):
        got = {f.id: f.verdict for f in explore(variant("merged"), limits).properties}
        assert got["counter-never-underflows"] == "holds" and got["initial-data-loaded"] == "holds"
        assert got["always-ends"] == "holds"
