"""The player: a journal as a sequence diagram to step through, in JupyterLab and in any exported page.

All stepping happens in the browser. `show()` is the widget, `html()` the same as a page fragment without network or
kernel, `svg()` the static twin, `describe()` the picture in words, `knobs()` a panel that simulates anew.
"""
from __future__ import annotations

import gc
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache
from html import escape
from typing import Any

import anywidget
import ipywidgets
import traitlets

from .journal import Journal
from .ladder import CODE_BASES
from .picture import Picture, pictures, warp
from .run import Run, run
from .scenario import Scenario, ScenarioError, load_scenario
from .svg import STATIC, describe, sentences, style, svg

__all__ = ["Player", "describe", "html", "knobs", "show", "svg"]
KINDS = {"detail": 0, "protocol": 1, "fold": 2}


class _Strings(dict):
    """Text -> its number in the payload's table."""

    def __missing__(self, text: str) -> int:
        self[text] = len(self)
        return self[text]


def _packed(p: Picture, s: _Strings) -> dict[str, Any]:
    return {
        "title": p.title, "notes": p.notes, "events": p.events, "downtime": p.downtime, "lanes": p.lanes,
        "items": [(i.us, i.end, KINDS[i.kind], s[i.lane], s[i.thread], s[i.name], s[i.text], s[i.what], s[i.why],
                   s[i.function], i.patch, i.count, int(i.differs)) for i in p.items],
        "bands": [(s[b.lane], b.us, b.end, s[b.state], s[b.label]) for b in p.bands],
        "messages": [(s[m.kind], s[m.label], s[m.sender], m.us, m.us_last, s[m.receiver], m.at, m.at_last, m.count)
                     for m in p.messages],
        "counter": p.counter}


def _switchover(ps: list[Picture]) -> tuple[int, int]:
    """From the decision to the end of the downtime; without a switchover the last tenth."""
    spans = [(min([i.us for i in p.items if i.name == "migration_thread_low_pending" and i.us <= a][-1:], default=a), b)
             for p in ps for a, b in p.downtime[-1:]]
    if spans:
        return min(a for a, _ in spans), max(b for _, b in spans)
    end = max(p.home[1] for p in ps)
    return end - max(end // 10, 1), end


def payload(ps: list[Picture], title: str = "") -> str:
    """What the browser gets: the model as compact JSON, texts in a table."""
    strings = _Strings()
    packed = [_packed(p, strings) for p in ps]
    points = warp(ps)
    return json.dumps({
        "title": title, "pictures": packed, "strings": list(strings),
        "warp": [[us for us, _ in points], [place for _, place in points]],
        "home": [min(p.home[0] for p in ps), max(p.home[1] for p in ps)],
        "switchover": _switchover(ps)}, separators=(",", ":"), ensure_ascii=False)


def _words(ps: list[Picture]) -> str:
    return "\n".join(sentence for p in ps for sentence in sentences(p))


@cache
def player_css() -> str:
    """Styles of the picture and the player."""
    return style() + (STATIC / "player.css").read_text(encoding="utf-8")


@cache
def _module() -> str:
    return (STATIC / "player.js").read_text(encoding="utf-8")


def player_script() -> str:
    """The player's code for a page without kernel: defines `Player(element, data)`."""
    return _module().replace("export default {render};", "")


class Player(anywidget.AnyWidget):
    """The widget. `data`: the picture as JSON; a new value redraws it. `text`: the picture in words."""

    _esm = _module()
    _css = player_css()
    data = traitlets.Unicode().tag(sync=True)

    def __init__(self, data: str, text: str = "") -> None:
        super().__init__(data=data)
        self.text = text

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle and self.text:
            (bundle[0] if isinstance(bundle, tuple) else bundle)["text/plain"] = self.text
        return bundle


def show(journal: Journal, other: Journal | None = None, title: str = "", titles: tuple[str, str] = ("", "")) -> Player:
    """A widget that plays the journal; with `other` both in one time scale, aligned at `setup`, differences marked."""
    ps = pictures(journal, other, titles)
    return Player(payload(ps, title), _words(ps))


def html(journal: Journal, other: Journal | None = None, title: str = "", titles: tuple[str, str] = ("", "")) -> str:
    """The player as a fragment for any page: no network, no kernel. Where scripts are off, the static twin is seen."""
    data = payload(pictures(journal, other, titles), title).replace("<", "\\u003c")
    uid = f"migsim-{zlib.crc32(data.encode()):08x}"
    twin = svg(journal, other, titles=titles).replace(f"<style>{style()}</style>", "")
    return (f'<style>{player_css()}</style><div id="{uid}">{twin}</div>'
            f'<script type="application/json" id="{uid}-data">{data}</script>'
            f'<script>(() => {{\n{player_script()}\n'
            f'const el = document.getElementById("{uid}");\nel.replaceChildren();\n'
            f'new Player(el, JSON.parse(document.getElementById("{uid}-data").textContent));\n}})();</script>')


# --- knobs ---

BASE = "base"


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection meanwhile: it would walk a notebook's whole memory for every few thousand events."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@lru_cache(maxsize=16)
def _simulated(key: str) -> tuple[Run, str, str]:
    config, base = json.loads(key)
    with _no_collection():
        got = run(load_scenario(config), base=base)
        ps = pictures(got.journal)
        return got, payload(ps), _words(ps)


def _simulate(scenario: Scenario, base: str | None) -> tuple[Run, str, str]:
    return _simulated(json.dumps([scenario.config, base], sort_keys=True))


def _control(path: str, what: Any, scenario: Scenario) -> ipywidgets.ValueWidget:
    """A widget for one value: a range (low, high[, step]) is a slider, a list a drop-down, a mapping a drop-down whose
    keys are the labels."""
    label = path.rsplit(".", 1)[-1].replace("_", " ")
    common = {"description": label, "style": {"description_width": "160px"}, "layout": {"width": "480px"}}
    now = _value(scenario, path)
    if isinstance(what, Mapping):
        options: list = list(what.items())
    elif isinstance(what, list):
        options = [(str(v), v) for v in what]
    elif isinstance(what, tuple) and len(what) in (2, 3) and all(isinstance(v, int | float) for v in what):
        kind = ipywidgets.IntSlider if all(isinstance(v, int) for v in what) else ipywidgets.FloatSlider
        low, high, step = (*what, 1)[:3]
        start = now if isinstance(now, int | float) else low
        return kind(value=min(max(start, low), high), min=low, max=high, step=step, continuous_update=False,
                    readout=True, **common)
    else:
        raise ScenarioError(f"knobs: {path}: {what!r}: allowed is (low, high), (low, high, step), a list or a mapping")
    values = [v for _, v in options]
    return ipywidgets.Dropdown(options=options, value=now if now in values else values[0], **common)


def _value(scenario: Scenario, path: str) -> Any:
    """What the scenario has at `path`: as it is written there, else the value that holds (common, default)."""
    written: Any = scenario.config
    holds: Any = scenario
    for key in path.split("."):
        if isinstance(written, list):
            written = written[int(key)] if key.isdigit() and int(key) < len(written) else None
        else:
            written = written.get(key) if isinstance(written, Mapping) else None
        if isinstance(holds, tuple):
            holds = (holds[int(key)] if int(key) < len(holds) else None) if key.isdigit() else dict(holds).get(key)
        else:
            holds = getattr(holds, "source" if key == "common" else key, None)
    return holds if written is None else written


class Knobs(ipywidgets.VBox):
    """Controls above a player. `controls`: path -> widget; `run`: the run that is shown; `readout`: what it says."""

    def __init__(self, scenario: Scenario, what: Mapping[str, Any]) -> None:
        self.scenario = scenario
        self.controls = {path: self._base(w) if path == BASE else _control(path, w, scenario)
                         for path, w in what.items()}
        self.readout = ipywidgets.HTML()
        self.run, data, text = self._go()
        self.player = Player(data, text)
        self._say()
        super().__init__([*self.controls.values(), self.readout, self.player])
        for control in self.controls.values():
            control.observe(self._changed, "value")

    def _base(self, what: Any) -> ipywidgets.Dropdown:
        options = list(CODE_BASES) if what is True else list(what)
        return ipywidgets.Dropdown(options=options, value=options[-1], description="code base",
                                   style={"description_width": "160px"}, layout={"width": "480px"})

    def _go(self) -> tuple[Run, str, str]:
        scenario, base = self.scenario, None
        for path, control in self.controls.items():
            if path == BASE:
                base = control.value
            elif control.value is not None:
                scenario = scenario.with_value(path, control.value)
        return _simulate(scenario, base)

    def _say(self) -> None:
        outcome = self.run.outcome
        status, error, down = (outcome.get(k) for k in ("status", "error-desc", "downtime"))
        words = f"status {status}" + (f", downtime {down} ms" if down is not None else "")
        words += f": {error}" if error else ""
        self.readout.value = f'<span role="status">{escape(words)}</span>'

    def _changed(self, _: Any) -> None:
        try:
            self.run, data, text = self._go()
        except ValueError as error:
            self.readout.value = f'<span role="alert">{escape(str(error))}</span>'
            return
        self.player.text = text
        self.player.data = data  # first: the picture is what everybody waits for
        self._say()


def knobs(scenario: Any, **what: Any) -> Knobs:
    """A panel that simulates `scenario` anew at every change and shows the run in a player.

    `what`: for a path of Scenario.with_value() a slider (low, high[, step]), a list of values or a mapping label ->
    value, beginning at what the scenario has; `base=True` or a list adds the code base, beginning at the last. In a
    keyword `__` stands for a dot: devices__0__source__reinit, params__downtime_limit. Raises ScenarioError, one line.
    """
    if not isinstance(scenario, Scenario):
        scenario = load_scenario(scenario)
    return Knobs(scenario, {_path(name): value for name, value in what.items()})


def _path(name: str) -> str:
    parts = name.replace("__", ".").split(".")
    if parts[0] in ("params", "dst_params", "caps"):
        parts[1:] = [part.replace("_", "-") for part in parts[1:]]
    return ".".join(parts)
