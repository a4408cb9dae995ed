// The player: draws the picture of one or two journals and steps through it, without the kernel.
// All text from a journal goes into the page by textContent. Geometry and classes are those of svg.py.
const ROOMY = {guest: 24, status: 22, device: 22, thread: 32, counter: 24, wire: 70};
const DENSE = {guest: 20, status: 18, device: 15, thread: 30, counter: 20, wire: 57};
const GAP = 3, AXIS = 24, TITLE = 26, CHAR = 6.0, BOLD = 6.9;
const STEP_MS = [60, 260], PLAY_MS = 45000;  // a step of play; the whole takes about 45 s
const PATTERN = {RUNNING_P2P: "dots", destination: "dots", PRE_COPY: "up", active: "up", PRE_COPY_P2P: "updots",
  STOP_COPY: "down", stopped: "down", device: "down", RESUMING: "lines", ERROR: "cross", both: "cross",
  failed: "cross", failing: "cross", STOP: "grid", quit: "grid", cancelling: "cross", cancelled: "cross"};
const PLAIN = new Set(["RUNNING", "source", "completed", "setup"]);
const TILES = {
  up: [["path", "hatch", "M-1 1L1 -1M0 8L8 0M7 9L9 7"]], down: [["path", "hatch", "M-1 7L1 9M0 0L8 8M7 -1L9 1"]],
  lines: [["path", "hatch", "M0 4H8"]], grid: [["path", "hatch", "M4 0V8"]],
  dots: [["circle", "dot", 2, 2], ["circle", "dot", 6, 6]],
  updots: [["path", "hatch", "M-1 1L1 -1M0 8L8 0M7 9L9 7"], ["circle", "dot", 2, 2]],
  cross: [["path", "hatch", "M0 0L8 8M0 8L8 0"]]};
const NAMED = {vfio_query_precopy_size_request_switchover_ack: "REINIT", migration_thread_low_pending: "switch over!",
  loadvm_approve_switchover: "approves", loadvm_approve_switchover_legacy: "approves", migrate_error: "error",
  migration_cancel: "cancel"};
const LOUD = new Set(["error", "REINIT", "cancel"]);
const SHORT = {SWITCHOVER_ACK: "ACK", OPEN_RETURN_PATH: "OPEN", SWITCHOVER_START: "START"};
const RANK = ["ack", "marker", "command", "shut", "data", "pong", "config", "state"];
const KEYS = "Keys: space play · ←/→ step · shift+←/→ protocol event · Home/End · z switchover · +/− zoom · "
  + "0 whole · t true time · d next difference";
let instances = 0;

function html(tag, css, parent, text) {
  const e = document.createElement(tag);
  if (css) e.className = css;
  if (text !== undefined) e.textContent = text;
  if (parent) parent.appendChild(e);
  return e;
}

function draw(tag, attributes, parent) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const k in attributes) e.setAttribute(k, attributes[k]);
  parent.appendChild(e);
  return e;
}

function usText(us, digits) {
  const sign = us < 0 ? "-" : "", a = Math.abs(us);
  const short = (v) => digits === undefined ? String(+v.toFixed(6)) : v.toFixed(digits);
  if (a >= 1e6) return `${sign}${short(a / 1e6)} s`;
  if (a >= 1e3) return `${sign}${short(a / 1e3)} ms`;
  return `${sign}${Math.round(a)} µs`;
}

function lengthText(us) { return us < 100000 ? `${(us / 1000).toFixed(1)} ms` : `${Math.round(us / 1000)} ms`; }

function interpolate(xs, ys, value) {
  let low = 0, high = xs.length - 1;
  if (high === 0) return ys[0];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= value) low = middle; else high = middle;
  }
  const part = (value - xs[low]) / ((xs[high] - xs[low]) || 1);
  return ys[low] + Math.min(Math.max(part, 0), 1) * (ys[high] - ys[low]);
}

function roundest(low, high) {
  let step = 1;
  while (Math.ceil(low / (step * 10)) * step * 10 <= high && step < 1e12) step *= 10;
  for (const part of [5, 2, 1]) {
    const at = Math.ceil(low / (step * part)) * step * part;
    if (at <= high) return at;
  }
  return Math.round(low);
}

function lastAtOrBefore(list, value, of) {  // index of the last element whose of(e) <= value, or -1
  let low = -1, high = list.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (of(list[middle]) <= value) low = middle; else high = middle;
  }
  return low;
}

// --- the data: arrays into objects ---

function decode(data) {
  const s = data.strings;
  const pictures = data.pictures.map((p, number) => ({
    number, title: p.title, notes: p.notes, downtime: p.downtime, events: p.events,
    lanes: p.lanes.map(([key, label, side, kind]) => ({key, label, side, kind})),
    items: p.items.map(([us, end, kind, lane, thread, name, text, what, why, fn, patch, count, differs]) => ({
      us, end, kind, lane: s[lane], thread: s[thread], name: s[name], text: s[text], what: s[what], why: s[why],
      fn: s[fn], patch, count, differs, number})),
    bands: p.bands.map(([lane, us, end, state, label]) => ({lane: s[lane], us, end, state: s[state], label: s[label]})),
    messages: p.messages.map(([kind, label, sender, us, usLast, receiver, at, atLast, count]) => ({
      kind: s[kind], label: s[label], sender: s[sender], us, usLast, receiver: s[receiver], at, atLast, count})),
    counter: p.counter.map(([us, value]) => ({us, value}))}));
  const steps = pictures.flatMap((p) => p.items);
  if (pictures.length > 1) steps.sort((a, b) => a.us - b.us);
  for (const p of pictures) {
    p.threads = new Map();
    p.tracks = new Map();
    steps.forEach((item, k) => {
      if (item.number !== p.number) return;
      if (!p.threads.has(item.thread)) p.threads.set(item.thread, []);
      p.threads.get(item.thread).push(k);
    });
    for (const b of p.bands) {
      if (!p.tracks.has(b.lane)) p.tracks.set(b.lane, []);
      p.tracks.get(b.lane).push(b);
    }
  }
  return {title: data.title, pictures, steps, us: data.warp[0], place: data.warp[1], home: data.home, switchover: data.switchover};
}

class Player {
  constructor(el, data) {
    this.id = `msp${instances++}-`;
    this.frame = 0;
    this.playing = 0;
    this.linear = false;
    this.root = html("div", "migsim-player migsim-picture", el);
    this.root.dataset.lmSuppressShortcuts = "true";  // JupyterLab keeps its own keys to itself here
    this.build();
    this.load(data, true);
    this.resize = new ResizeObserver(() => this.width() !== this.drawnWidth && this.later());
    this.resize.observe(this.root);
  }

  close() { this.pause(); this.resize.disconnect(); }

  // --- building the page ---

  build() {
    const root = this.root;
    root.tabIndex = 0;
    root.setAttribute("role", "group");
    this.heading = html("div", "ms-heading", root);
    const bar = html("div", "ms-bar", root);
    this.buttons = {};
    const button = (key, label, text, action) => {
      const b = html("button", "", bar, text);
      b.type = "button";
      b.title = label;
      b.setAttribute("aria-label", label);
      b.dataset.action = key;
      b.addEventListener("click", action);
      this.buttons[key] = b;
    };
    button("home", "First step (Home)", "|◀", () => this.go(0));
    button("previous", "Previous protocol event (shift+left)", "◀◀", () => this.jump(-1, (i) => i.kind === 1));
    button("back", "Step back (left)", "◀", () => this.go(this.cursor - 1));
    button("play", "Play or pause (space)", "▶ Play", () => this.toggle());
    button("step", "Step (right)", "▶", () => this.go(this.cursor + 1));
    button("next", "Next protocol event (shift+right)", "▶▶", () => this.jump(1, (i) => i.kind === 1));
    button("end", "Last step (End)", "▶|", () => this.go(this.data.steps.length - 1));
    html("span", "ms-space", bar);
    button("zoom", "Zoom to the switchover (z)", "Switchover", () => this.toSwitchover());
    button("in", "Zoom in (+)", "+", () => this.zoom(0.5));
    button("out", "Zoom out (−)", "−", () => this.zoom(2));
    button("whole", "Whole picture (0)", "Whole", () => this.whole());
    button("time", "True time, or stretched where much happens (t)", "True time", () => this.trueTime());
    button("difference", "Next difference (d)", "Next ◆", () => this.jump(1, (i) => i.differs, true));
    this.now = html("div", "ms-now", root);
    this.stage = html("div", "ms-stage", root);
    this.svg = draw("svg", {role: "img", focusable: "false"}, this.stage);
    this.tip = html("div", "ms-tip", this.stage);
    this.tip.hidden = true;
    this.range = html("input", "ms-range", root);
    this.range.type = "range";
    this.range.min = 0;
    this.range.setAttribute("aria-label", "Step");
    this.range.addEventListener("input", () => this.go(+this.range.value));
    this.detail = html("div", "ms-detail", root);
    this.detail.setAttribute("aria-live", "polite");
    this.where = html("div", "ms-where", this.detail);
    this.event = html("div", "ms-event", this.detail);
    this.what = html("div", "ms-what", this.detail);
    this.why = html("div", "ms-why", this.detail);
    this.notes = html("div", "ms-notes", root);
    html("div", "ms-keys", root, KEYS);
    this.listen();
  }

  listen() {
    this.root.addEventListener("keydown", (e) => this.key(e));
    const at = (e) => e.clientX - this.svg.getBoundingClientRect().left;
    this.svg.addEventListener("pointerdown", (e) => {
      if (e.button || at(e) < this.left) return;
      this.svg.setPointerCapture(e.pointerId);
      this.dragging = true;
      this.root.focus({preventScroll: true});
      this.scrub(at(e), e);
    });
    this.svg.addEventListener("pointerup", () => { this.dragging = false; });
    this.svg.addEventListener("pointermove", (e) => this.dragging ? this.scrub(at(e)) : this.hover(e));
    this.svg.addEventListener("pointerleave", () => { this.tip.hidden = true; });
    this.svg.addEventListener("wheel", (e) => {
      if (!e.ctrlKey) return;
      e.preventDefault();
      this.zoom(e.deltaY > 0 ? 1.25 : 0.8, this.placeAt(at(e)));
    }, {passive: false});
  }

  load(data, first) {
    const us = first ? null : this.data.steps[this.cursor]?.us;
    this.data = decode(data);
    const steps = this.data.steps, n = steps.length;
    this.heading.textContent = this.data.title;
    this.heading.hidden = !this.data.title;
    this.range.max = Math.max(n - 1, 0);
    this.buttons.difference.hidden = !steps.some((i) => i.differs);
    this.root.dataset.events = n;
    this.root.setAttribute("aria-label", `Player of a migration: ${this.data.title} ${n} steps`);
    this.notes.textContent = this.data.pictures.flatMap((p) => p.notes).join(" · ");
    this.notes.hidden = !this.notes.textContent;
    if (first || !this.zoomed) this.setHome();
    const start = us ?? this.data.home[0];
    this.cursor = Math.min(Math.max(lastAtOrBefore(steps, start, (i) => i.us), 0), Math.max(n - 1, 0));
    this.redraw();
  }

  setHome() { this.zoomed = false; this.view = this.data.home.map((us) => this.place(us)); }

  // --- time and place ---

  place(us) { return this.linear ? us : interpolate(this.data.us, this.data.place, us); }
  usAt(place) { return this.linear ? place : interpolate(this.data.place, this.data.us, place); }
  x(us) { return this.left + (this.place(us) - this.view[0]) / (this.view[1] - this.view[0]) * (this.right - this.left); }
  placeAt(x) { return this.view[0] + (x - this.left) / (this.right - this.left) * (this.view[1] - this.view[0]); }
  width() { return Math.max(Math.floor(this.root.clientWidth) - 2, 320); }

  // --- actions ---

  key(e) {
    if (e.altKey || e.metaKey || (e.ctrlKey && e.key !== "Home" && e.key !== "End")) return;
    if (e.key === " " && e.target.tagName === "BUTTON") return;
    const protocol = (i) => i.kind === 1;
    const actions = {
      " ": () => this.toggle(), Home: () => this.go(0), End: () => this.go(this.data.steps.length - 1),
      ArrowRight: () => e.shiftKey ? this.jump(1, protocol) : this.go(this.cursor + 1),
      ArrowLeft: () => e.shiftKey ? this.jump(-1, protocol) : this.go(this.cursor - 1),
      z: () => this.toSwitchover(), "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), "-": () => this.zoom(2),
      0: () => this.whole(), t: () => this.trueTime(), d: () => this.jump(1, (i) => i.differs, true)};
    const action = actions[e.key];
    if (!action) return;
    e.preventDefault();
    e.stopPropagation();
    if (e.key !== " ") this.pause();
    action();
  }

  go(index) {
    const n = this.data.steps.length;
    this.cursor = Math.min(Math.max(index, 0), Math.max(n - 1, 0));
    this.root.dataset.cursor = this.cursor;
    this.later(true);
  }

  jump(direction, wanted, around) {
    const steps = this.data.steps;
    for (let k = this.cursor + direction; k >= 0 && k < steps.length; k += direction) if (wanted(steps[k])) return this.go(k);
    if (around) {
      const k = steps.findIndex(wanted);
      if (k >= 0) this.go(k);
    }
  }

  toggle() { if (this.playing) this.pause(); else this.play(); }

  play() {
    if (this.cursor >= this.data.steps.length - 1) this.go(0);
    this.buttons.play.textContent = "‖ Pause";
    this.playing = setInterval(() => {
      if (this.cursor >= this.data.steps.length - 1) this.pause(); else this.go(this.cursor + 1);
    }, Math.min(Math.max(PLAY_MS / this.data.steps.length, STEP_MS[0]), STEP_MS[1]));
  }

  pause() {
    clearInterval(this.playing);
    this.playing = 0;
    this.buttons.play.textContent = "▶ Play";
  }

  zoom(factor, around) {
    const [a, b] = this.view, us = this.data.steps[this.cursor]?.us ?? 0;
    const middle = around ?? Math.min(Math.max(this.place(us), a), b);
    const all = [this.place(this.data.us[0]), this.place(this.data.us[this.data.us.length - 1])];
    const least = this.linear ? 20 : 1e-3 * (all[1] - all[0]);
    const size = Math.min(Math.max((b - a) * factor, least), all[1] - all[0]);
    const start = Math.min(Math.max(middle - (middle - a) / (b - a) * size, all[0]), all[1] - size);
    this.view = [start, start + size];
    this.zoomed = true;
    this.later();
  }

  whole() { this.setHome(); this.later(); }

  toSwitchover() {
    const [a, b] = this.data.switchover, low = this.place(a), high = this.place(b), margin = (high - low) * 0.06 || 1;
    this.view = [low - margin, high + margin];
    this.zoomed = true;
    const us = this.data.steps[this.cursor]?.us;
    if (us < a || us > b) this.cursor = this.data.steps.findIndex((i) => i.us >= a);
    this.root.dataset.cursor = this.cursor;
    this.later();
  }

  trueTime() {
    const ends = this.view.map((p) => this.usAt(p));
    this.linear = !this.linear;
    this.buttons.time.textContent = this.linear ? "Stretched" : "True time";
    this.view = ends.map((us) => this.place(us));
    this.later();
  }

  scrub(x, down) {
    const us = this.usAt(this.placeAt(x));
    const hit = down && this.nearest(down);
    this.pause();
    this.go(hit && !hit.label ? this.data.steps.indexOf(hit) : lastAtOrBefore(this.data.steps, us, (i) => i.us));
  }

  hover(e) {
    const hit = this.nearest(e);
    this.tip.hidden = !hit;
    if (!hit) return;
    const box = this.stage.getBoundingClientRect();
    this.tip.replaceChildren();
    html("div", "ms-event", this.tip, hit.label ?? `${hit.name} ${hit.text}`);
    html("div", "", this.tip, hit.what);
    if (hit.why) html("div", "ms-why", this.tip, hit.why);
    this.tip.style.left = `${Math.max(Math.min(e.clientX - box.left + 12, box.width - 330), 0)}px`;
    this.tip.style.top = `${e.clientY - box.top + 16}px`;
  }

  nearest(e) {
    const box = this.svg.getBoundingClientRect(), x = e.clientX - box.left, y = e.clientY - box.top;
    let best = null, distance = 7;
    for (const [item, ix, top, bottom, end] of this.hits) {
      if (y < top || y > bottom) continue;
      const d = x >= ix && x <= end ? (item.label ? 6 : item.kind === 2 ? 5 : 0) : Math.min(Math.abs(x - ix), Math.abs(x - end));
      if (d < distance) { best = item; distance = d; }
    }
    return best;
  }

  // --- drawing: everything (redraw), or only what follows the cursor (follow) ---

  later(cursorOnly) {
    this.all = this.all || !cursorOnly;
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      if (this.all || this.pan()) this.redraw(); else this.follow();
    });
  }

  pan() {  // the cursor has left the view: move the view
    const item = this.data.steps[this.cursor];
    if (!item) return false;
    const at = this.place(item.us), [a, b] = this.view;
    if (at >= a - 1e-9 && at <= b + 1e-9) return false;
    const start = at - (b - a) * (at < a ? 0.85 : 0.15);
    this.view = [start, start + b - a];
    this.zoomed = true;
    return true;
  }

  redraw() {
    this.all = false;
    this.pan();
    const width = this.drawnWidth = this.width();
    this.left = width >= 800 ? 190 : 176;
    this.right = width - 10;
    this.hits = [];
    this.sheets = [];
    const svg = this.svg;
    svg.replaceChildren();
    this.patterns(draw("defs", {}, svg));
    draw("rect", {class: "bg", width: "100%", height: "100%"}, svg);
    draw("path", {d: `M${this.left} 0H${this.right}V9999H${this.left}Z`}, draw("clipPath", {id: this.id + "clip"}, svg.firstChild));
    const grid = draw("g", {}, svg);
    const devices = (p) => p.lanes.filter((l) => l.kind === "device").length;
    this.h = this.data.pictures.reduce((n, p) => n + devices(p), 0) > 6 ? DENSE : ROOMY;
    let y = 4;
    for (const p of this.data.pictures) {
      if (p.title) { this.label(svg, 6, y + 14, p.title, "title"); y += TITLE - 4; }
      y = new Sheet(this, p, svg, y).draw();
      y += 8;
    }
    this.axis(grid, svg, y);
    const height = y + AXIS;
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.cursorLine = draw("path", {class: "cursor"}, svg);
    this.marks = draw("g", {"clip-path": `url(#${this.id}clip)`}, svg);
    this.bottom = y;
    this.follow();
  }

  patterns(defs) {
    for (const name in TILES) {
      const p = draw("pattern", {id: this.id + name, width: 8, height: 8, patternUnits: "userSpaceOnUse"}, defs);
      for (const [tag, css, a, b] of TILES[name]) {
        draw(tag, tag === "path" ? {class: css, d: a} : {class: css, cx: a, cy: b, r: 0.9}, p);
      }
    }
  }

  label(parent, x, y, text, css, anchor) {
    const e = draw("text", {x: x.toFixed(1), y: y.toFixed(1), class: css || ""}, parent);
    if (anchor) e.setAttribute("text-anchor", anchor);
    e.textContent = text;
    return e;
  }

  axis(grid, svg, y) {
    let last = -1e9;
    for (let x = this.left + 12; x < this.right - 20; x += 88) {
      const us = roundest(this.usAt(this.placeAt(x - 10)), this.usAt(this.placeAt(x + 26))), at = this.x(us);
      if (at < this.left || at > this.right - 16 || at - last < 62) continue;
      last = at;
      draw("path", {class: "grid", d: `M${at.toFixed(1)} 0V${y}`}, grid);
      this.label(svg, at, y + 12, usText(us), "small soft", "middle");
    }
    this.label(svg, 6, y + 12, this.linear ? "after setup, true time" : "after setup, stretched", "small soft");
  }

  follow() {
    const {steps, pictures} = this.data, item = steps[this.cursor];
    this.root.dataset.cursor = this.cursor;
    this.range.value = this.cursor;
    if (item) {
      const x = this.x(item.us).toFixed(1);
      this.cursorLine.setAttribute("d", `M${x} 0V${this.bottom}`);
      this.marks.replaceChildren();
      for (const sheet of this.sheets) sheet.follow(item.us, this.cursor, this.marks);
      this.tell(item);
      this.now.replaceChildren();
      for (const p of pictures) this.state(p, item.us);
    }
    this.frame += 1;
    this.root.dataset.frame = this.frame;
  }

  tell(item) {
    const p = this.data.pictures[item.number], thread = p.lanes.find((l) => l.key === item.thread);
    const parts = [`Step ${this.cursor + 1} of ${this.data.steps.length}`, `${usText(item.us, 3)} after setup`];
    if (p.title && this.data.pictures.length > 1) parts.push(p.title);
    if (thread) parts.push(`${thread.side}, ${thread.label}`);
    if (item.kind !== 2) parts.push(`${item.fn}()`);
    this.range.setAttribute("aria-valuetext", parts.slice(0, 2).join(", "));
    this.where.textContent = parts.join(" · ");
    this.event.textContent = item.kind === 2 && item.count > 1 ? item.text : `${item.name} ${item.text}`;
    this.what.textContent = item.what + (item.what ? "." : "") + (item.differs ? " ◆ Only here." : "");
    this.why.textContent = [item.why && item.why + ".", item.patch && `Patch ${item.patch} of the series.`].filter(Boolean).join(" ");
  }

  // The documentation's notation for a device: (VM state, migration status, device state).
  state(p, us) {
    const at = (lane) => {
      const track = p.tracks.get(lane) ?? [], k = lastAtOrBefore(track, us, (b) => b.us);
      return k < 0 ? "–" : track[k].state;
    };
    const guest = at("guest"), line = html("div", "", this.now);
    if (p.title && this.data.pictures.length > 1) html("b", "", line, p.title);
    for (const side of ["source", "destination"]) {
      const devices = p.lanes.filter((l) => l.kind === "device" && l.side === side).map((l) => at(l.key));
      const runs = guest === side || guest === "both" ? "RUNNING" : "stopped";
      const kinds = [...new Set(devices)].map((d) => {
        const n = devices.filter((e) => e === d).length;
        return n > 1 ? `${n}×${d}` : d;
      });
      html("span", "ms-side", line, side === "source" ? "source " : "destination ");
      html("code", "", line, `(${[runs, at(side + "/status"), ...kinds].join(", ")})`);
    }
    const k = lastAtOrBefore(p.counter, us, (c) => c.us);
    html("span", "ms-side", line, "ACKs awaited ");
    html("code", "", line, k < 0 ? "–" : p.counter[k].value);
  }
}

// One journal's part of the picture.
class Sheet {
  constructor(player, p, svg, top) {
    this.player = player;
    this.p = p;
    this.rows = new Map();
    this.taken = new Map();
    this.top = top;
    let y = top;
    this.wire = [y, y];
    const h = this.h = player.h;
    for (const lane of p.lanes) {
      if (lane.key === "destination/status") { this.wire = [y, y + h.wire]; y += h.wire; }
      this.rows.set(lane.key, [y, h[lane.kind]]);
      y += h[lane.kind] + GAP;
    }
    this.bottom = y;
    this.labels = draw("g", {}, svg);
    this.plot = draw("g", {"clip-path": `url(#${player.id}clip)`}, svg);
    this.low = player.usAt(player.view[0]);
    this.high = player.usAt(player.view[1]);
    player.sheets.push(this);
  }

  line(lane) { const [y, h] = this.rows.get(lane); return y + (h === this.h.thread ? h - 11 : h / 2); }
  seen(us, end) { return end >= this.low && us <= this.high; }

  free(row, x, end) {
    const spans = this.taken.get(row) ?? this.taken.set(row, []).get(row);
    if (x < this.player.left || end > this.player.right + 4 || spans.some(([a, b]) => x < b && a < end)) return false;
    spans.push([x - 3, end + 3]);
    return true;
  }

  text(x, y, text, css, anchor) { return this.player.label(this.plot, x, y, text, css, anchor); }

  draw() {
    this.ground();
    this.functions = new Map();
    for (const lane of this.p.lanes) this.lane(lane);
    const bands = this.p.bands.filter((b) => this.rows.has(b.lane) && this.seen(b.us, b.end));
    for (const b of bands) this.band(b);
    const messages = this.p.messages.filter((m) => this.rows.has(m.sender) && this.rows.has(m.receiver)
      && this.seen(m.us, m.atLast ?? m.usLast));
    for (const m of messages) this.message(m);
    const items = this.p.items.filter((i) => this.rows.has(i.lane) && this.seen(i.us, i.end));
    for (const i of items) if (i.kind === 2) this.fold(i);
    this.lastTick = new Map();
    for (const i of items) if (i.kind !== 2) this.tick(i);
    this.names(items);
    for (const b of bands) this.bandName(b);
    this.counter();
    messages.sort((a, b) => RANK.indexOf(a.kind) - RANK.indexOf(b.kind));
    for (const m of messages.slice(0, 400)) this.messageName(m);
    return this.bottom;
  }

  ground() {
    const pl = this.player;
    for (const [a, b] of this.p.downtime) {
      if (!this.seen(a, b)) continue;
      const x = pl.x(Math.max(a, this.low)), w = Math.max(pl.x(Math.min(b, this.high)) - x, 1.5);
      draw("rect", {class: "down", x, y: this.top, width: w, height: this.bottom - this.top - GAP}, this.plot);
    }
    for (const lane of this.p.lanes) if (lane.kind === "thread" || lane.kind === "counter") {
      draw("path", {class: "life", d: `M${pl.left} ${this.line(lane.key)}H${pl.right}`}, this.plot);
    }
  }

  lane(lane) {
    const strong = lane.kind === "status" || lane.kind === "guest", y = this.rows.get(lane.key)[0];
    const short = lane.label.length > 22 ? `${lane.label.slice(0, 12)}…${lane.label.slice(-8)}` : lane.label;
    const at = lane.kind === "thread" ? y + 14 : this.line(lane.key) + 4;
    const e = this.player.label(this.labels, strong ? 6 : 16, at, short, strong ? "strong" : "");
    if (short !== lane.label) draw("title", {}, e).textContent = lane.label;
    if (lane.kind === "thread") this.functions.set(lane.key, this.player.label(this.labels, 16, y + 27, "", "fn"));
  }

  extent(b) {
    const pl = this.player, a = Math.max(pl.x(Math.max(b.us, this.low)), pl.left);
    return [a, Math.max(Math.min(pl.x(Math.min(b.end, this.high)), pl.right) - a, 0.8)];
  }

  band(b) {
    const [x, width] = this.extent(b), [y, height] = this.rows.get(b.lane);
    const state = b.state in PATTERN || PLAIN.has(b.state) ? b.state : "other";
    draw("rect", {class: `band s-${state}`, x, y, width, height, rx: 2}, this.plot);
    if (b.state in PATTERN) draw("rect", {fill: `url(#${this.player.id}${PATTERN[b.state]})`, x, y, width, height}, this.plot);
    this.player.hits.push([{label: b.label, what: `${usText(b.us)} to ${usText(b.end)}: ${lengthText(b.end - b.us)}`},
      x + 6, y, y + height, x + width - 6]);
  }

  bandName(b) {
    const [a, width] = this.extent(b), [y, h] = this.rows.get(b.lane), names = [b.label];
    const down = b.lane === "guest" && this.p.downtime.find((d) => d[1] === b.end);
    if (down) names.unshift(`stopped · downtime ${lengthText(down[1] - down[0])}`);
    for (const name of names) {
      const w = name.length * BOLD;
      for (const x of [a + (width - w) / 2, a + 4, a + width - w - 4]) {
        if (width > w + 6 && this.free(b.lane, x, x + w)) return this.text(x + w / 2, y + h / 2 + 4, name, "strong small", "middle");
      }
    }
  }

  fold(i) {
    const pl = this.player, x = Math.max(pl.x(i.us), pl.left - 2), width = Math.min(pl.x(i.end), pl.right) - x;
    const y = this.line(i.lane) - 4;
    if (width < 3) return;
    draw("rect", {class: "fold", x, y, width, height: 8}, this.plot);
    draw("rect", {fill: `url(#${pl.id}up)`, x, y, width, height: 8}, this.plot);
    pl.hits.push([i, x, y - 4, y + 12, x + width]);
  }

  tick(i) {
    const x = this.player.x(i.us), line = this.line(i.lane), protocol = i.kind === 1;
    const onDevice = i.lane.includes("/device"), [y, h] = this.rows.get(i.lane);
    const key = i.lane + protocol, before = this.lastTick.get(key);
    if (before !== undefined && x - before < 0.6 && !i.differs && i.name !== "migrate_error") return;
    this.lastTick.set(key, x);
    const [low, high] = onDevice ? [y + h - (protocol ? 7 : 4), y + h] : protocol ? [line - 8, line + 8] : [line - 4, line + 4];
    const css = "tick" + (protocol ? " protocol" : "") + (i.name === "migrate_error" ? " error" : "");
    draw("path", {class: css, d: `M${x.toFixed(1)} ${low}V${high}`}, this.plot);
    if (i.differs) draw("path", {class: "differs", d: `M${x.toFixed(1)} ${high - 9}l4.5 4.5l-4.5 4.5l-4.5 -4.5z`}, this.plot);
    this.player.hits.push([i, x, onDevice ? y : line - 12, onDevice ? y + h : line + 10, x]);
  }

  names(items) {
    const pl = this.player;
    for (const i of items) {
      const word = NAMED[i.name];
      if (!word || i.kind === 2) continue;
      const [y, h] = this.rows.get(i.lane), x = pl.x(i.us), w = word.length * BOLD;
      for (const start of [x, x - w / 2, x - w]) {
        if (!this.free(i.lane, start, start + w)) continue;
        this.text(start, y + (h === this.h.thread ? 9 : h / 2 + 4), word, `halo small ${LOUD.has(word) ? "warn" : "strong"}`);
        break;
      }
    }
    for (const i of items) {
      if (i.kind !== 2) continue;
      const a = Math.max(pl.x(i.us), pl.left), w = Math.min(pl.x(i.end), pl.right) - a, name = i.text.split(" (")[0];
      const need = name.length * CHAR, x = a + (w - need) / 2;
      if (w > need && this.free(i.lane, x, x + need)) this.text(x, this.rows.get(i.lane)[0] + 9, name, "small soft");
    }
  }

  counter() {
    if (!this.rows.has("counter")) return;
    const pl = this.player, [y, h] = this.rows.get("counter"), c = this.p.counter;
    let last = -1e9;
    for (let k = lastAtOrBefore(c, this.low, (v) => v.us); k < c.length && (k < 0 || c[k].us <= this.high); k++) {
      if (k < 0) continue;
      const w = c[k].value.length * 7 + 8, next = c[k + 1];
      let x = Math.max(pl.x(c[k].us), pl.left + 2);
      if (x < last + 1 && next && pl.x(next.us) - x < w) continue;  // the next number takes its place
      x = Math.max(x, last);
      draw("rect", {class: c[k].value === "0" ? "chip" : "chip pending", x, y: y + 2, width: w, height: h - 4, rx: 8}, this.plot);
      this.text(x + w / 2, y + h / 2 + 4, c[k].value, "strong", "middle");
      last = x + w;
    }
  }

  // --- messages ---

  ends(m) {
    const pl = this.player, y = this.line(m.sender), v = this.line(m.receiver), x = pl.x(m.us);
    return m.at === null ? [x, y, x + 10, (y + v) / 2] : [x, y, pl.x(m.at), v];
  }

  message(m) {
    const [x, y, u, v] = this.ends(m);
    if (m.kind === "data" && m.at !== null) {
      const a = Math.max(this.player.x(m.usLast), x + 1), b = Math.max(this.player.x(m.atLast), u + 1);
      draw("path", {class: "data", d: `M${x} ${y}H${a}L${b} ${v}H${u}Z`}, this.plot);
      return;
    }
    draw("path", {class: `msg m-${m.kind}${m.at === null ? " lost" : ""}`, d: `M${x} ${y}L${u} ${v}`}, this.plot);
    if (m.at === null) return void draw("circle", {class: "end", cx: u, cy: v, r: 3}, this.plot);
    const length = Math.hypot(u - x, v - y) || 1, dx = (u - x) / length, dy = (v - y) / length, a = u - 7 * dx, b = v - 7 * dy;
    draw("path", {class: `arrow m-${m.kind}`,
      d: `M${u} ${v}L${a - 3 * dy} ${b + 3 * dx}L${a + 3 * dy} ${b - 3 * dx}Z`}, this.plot);
  }

  messageName(m) {
    const [x, y, u, v] = this.ends(m), [top, bottom] = this.wire, strong = m.kind === "ack" || m.kind === "marker";
    const tail = (m.count > 1 ? ` x ${m.count}` : "") + (m.at === null ? " (not received)" : "");
    for (const name of m.label in SHORT ? [m.label + tail, SHORT[m.label] + tail] : [m.label + tail]) {
      const w = name.length * (strong ? BOLD : CHAR);
      for (let level = 0; level < Math.floor((bottom - top - 8) / 13); level++) {
        const atY = top + 15 + 13 * level, at = m.at === null ? u : x + (u - x) * (atY - y) / ((v - y) || 1);
        for (const start of [at + 4, at - w - 4]) {
          if (this.free("wire" + level, start, start + w)) {
            return this.text(start, atY, name, `halo small ${strong ? "strong" : "soft"}`);
          }
        }
      }
    }
  }

  // What follows the cursor: present functions, messages on their way.
  follow(us, cursor, marks) {
    for (const [lane, label] of this.functions) {
      const list = this.p.threads.get(lane) ?? [], k = lastAtOrBefore(list, cursor, (n) => n);
      const fn = k < 0 ? "" : this.player.data.steps[list[k]].fn + "()";
      const room = Math.floor((this.player.left - 18) / 5.8);
      const shown = fn.length > room ? fn.slice(0, room - 1) + "…" : fn;
      if (label.textContent !== shown) label.textContent = shown;
    }
    for (const m of this.p.messages) {
      if (m.us > us || m.at === null || m.atLast <= us || !this.rows.has(m.sender) || !this.rows.has(m.receiver)) continue;
      const [x, y, u, v] = this.ends(m), X = this.player.x(us);
      const part = u > x ? Math.min(Math.max((X - x) / (u - x), 0), 1) : 1;
      draw("circle", {class: `flying m-${m.kind}`, cx: X, cy: y + part * (v - y), r: 4.5}, marks);
    }
  }
}

function render({model, el}) {
  const player = new Player(el, JSON.parse(model.get("data")));
  model.on("change:data", () => player.load(JSON.parse(model.get("data")), false));
  return () => player.close();
}

export default {render};
