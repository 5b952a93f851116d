// The page of one node. It asks the node for news at intervals, and draws the charts that are in view.
//
//   ask -> state -> tell (text, tables)            at once
//               \-> charts marked as out of date   drawn one per frame, if they are in view
//
// In a report (deca-node report) the data are in the page, and no node is asked.
// Names come from other machines: they enter the page as text only, and plotly gets them escaped.
"use strict";

const ASK_SECONDS = 1.5;
const ANSWER_SECONDS = 10;
const EVENTS = 50;
const POINTS_MAX = 2000; // the node sends at most this many
const OVER = ["leaving", "staying", "done", "stopped", "failed", "saving"]; // phases in which a node trains no more
const LABELS_MAX = 24; // with more members, names are shown under the pointer only
const SMOOTHING_POINTS = 16;
const MIB = 2 ** 20;

const state = { status: null, members: [], run: [], map: null, points: null, evaluations: [], next: 0, events: [], silentSince: null };
const sorting = { column: 0, down: false };
let colours = {};

const $ = (id) => document.getElementById(id);

// --- asking ---------------------------------------------------------------------------------------

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_SECONDS * 1000) });
  if (!answer.ok) throw new Error((await answer.text()).trim() || `the node answered with status ${answer.status}`);
  return answer.json();
}

async function refresh() {
  const [status, members, run, history, events] = await Promise.all([
    ask("/v1/status"), ask("/v1/members"), ask("/v1/run"), ask(`/v1/history?since=${state.next}`), ask(`/v1/events?last=${EVENTS}`),
  ]);
  const began = Math.round(status.time - status.uptime_seconds);
  const restarted = state.status && Math.abs(began - state.began) > 2;
  const moved = mapKey(status, members) !== state.mapKey;
  if (moved || restarted) state.map = await ask("/v1/map");
  Object.assign(state, { status, members, run, events, began, mapKey: mapKey(status, members) });
  if (restarted && !history.whole) state.next = 0; // the page's points come from the process before: ask for all
  else takeIn(history);
}

// The facts on which the map depends. The map is large and seldom changes.
function mapKey(status, members) {
  return JSON.stringify([status.position && status.position.activation, status.phase, members.map((m) => [m.name, m.state])]);
}

function takeIn(history) {
  if (history.whole || !state.points) state.points = history.columns;
  else for (const [name, values] of Object.entries(history.columns)) {
    state.points[name].push(...values);
    state.points[name].splice(0, state.points[name].length - POINTS_MAX);
  }
  state.next = history.next;
  state.stride = history.stride;
  state.evaluations = history.evaluations;
}

// The page of a finished run, from the last data that the node wrote.
function report(told) {
  const { status, members, run, map, history, events } = told;
  Object.assign(state, { status, members, run, map, events, began: Math.round(status.time - status.uptime_seconds) });
  takeIn(history);
  tell();
  const when = new Date(status.time * 1000).toLocaleString([], { hour12: false, dateStyle: "medium", timeStyle: "short" });
  put("about", `${$("about").textContent} · report of ${when}`);
  // A node that was killed, or still runs, has told its phase at a moment and not its end.
  if (!["done", "staying", "stopped", "failed"].includes(status.phase)) put("phase", `${status.phase} when last heard of`);
  if (["done", "staying"].includes(status.phase)) $("phase").className = "badge ready";
  $("awaits").hidden = true;
  const facts = Object.entries(told.agreed).map(([name, value]) => {
    const row = element("tr");
    row.append(element("th", name), element("td", String(value)));
    return row;
  });
  $("agreed").hidden = !facts.length;
  $("agreed").querySelector("tbody").replaceChildren(...facts);
  markAll();
}

async function live() {
  for (;;) {
    if (!document.hidden) {
      try {
        await refresh();
        state.silentSince = null;
        tell();
        markAll();
      } catch (problem) {
        tellTrouble(problem);
      }
    }
    await new Promise((wake) => setTimeout(wake, ASK_SECONDS * 1000));
  }
}

// --- words and numbers ----------------------------------------------------------------------------

const number = (value, digits = 3) => (value == null ? "–" : Number(value).toPrecision(digits));
const small = (value) => (value == null ? "–" : value === 0 ? "0" : value.toExponential(1));
const total = (kinds) => Object.values(kinds || {}).reduce((sum, n) => sum + n, 0);
const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; bytes >= 1000 && unit < units.length - 1; unit++) bytes /= 1024;
  return `${unit && bytes < 100 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

function span(seconds) {
  if (seconds == null) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} days`;
}

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  if (text !== "") made.textContent = text;
  if (className) made.className = className;
  return made;
}

function put(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

// --- telling --------------------------------------------------------------------------------------

function tell() {
  const s = state.status;
  document.title = `${s.name}: ${s.phase} – deca-node`;
  put("name", s.name);
  put("phase", s.phase);
  $("phase").className = `badge ${s.ready ? "ready" : "notready"}`;
  const print = s.fingerprint ? `, fingerprint ${s.fingerprint.slice(0, 16)}` : "";
  put("about", `run ${s.run}${print} · up for ${span(s.uptime_seconds)} · deca-node ${s.version}`);
  put("awaits", s.doing ? s.doing[0].toUpperCase() + s.doing.slice(1) : "");
  const own = s.alone ? `The tuned model is not the others': ${s.alone}` : "";
  $("trouble").hidden = !s.warning && !own;
  put("trouble", own || (s.warning ? `Warning: ${s.warning}` : ""));
  tellGone(s.peers.filter((peer) => peer.member === "dead"), s.phase);
  tellPosition(s.position);
  tellTiles(s);
  tellRun();
  tellPeers();
  tellEvents();
}

// Which nodes are lost, and that the others go on, if there is still something to do.
function tellGone(peers, phase) {
  const why = peers.map((peer) => peer.why || `${peer.name} is given up`).join("; ");
  const over = $("told") || OVER.includes(phase);
  $("gone").hidden = !peers.length;
  put("gone", peers.length ? `${why}.${over ? "" : " The others do not wait for it; they train on."}` : "");
}

function tellTrouble(problem) {
  state.silentSince ??= Date.now() / 1000;
  const why = problem.name === "TypeError" || problem.name === "TimeoutError" ? "it may have ended" : problem.message;
  $("trouble").hidden = false;
  put("trouble", `No answer from this node since ${clock(state.silentSince)} (${why}). The page shows its last data.`);
  $("phase").className = "badge notready";
  put("phase", "no answer");
}

function tellPosition(p) {
  $("progress").value = p ? p.done / Math.max(p.total, 1) : 0;
  if (!p) return put("position", "The model is being loaded.");
  const round = p.round > p.rounds ? "flush" : `round ${p.round} of ${p.rounds}`;
  const share = ((100 * p.done) / Math.max(p.total, 1)).toFixed(1);
  put("position", `${share} % done: ${round}, block ${p.block} of ${p.blocks} (${p.block_name}), step ${p.step} of ${p.steps}`);
}

function ranks(rows) {
  if (!rows || !rows.length) return null;
  const seconds = rows.map((row) => row.compute_seconds).filter((value) => value != null);
  if (!seconds.length) return `${rows.length}`;
  return `${rows.length}: ${number(Math.min(...seconds))} to ${number(Math.max(...seconds))} s`;
}

function tellTiles(s) {
  const up = s.peers.filter((peer) => peer.state === "up").length;
  const kept = s.checkpoint;
  const tiles = [
    ["training loss", number(s.train_loss, 4)],
    ["held-out loss", number(s.heldout_loss, 4)],
    // Classifiers only: a tile without a value is hidden.
    ["accuracy", s.heldout_accuracy == null ? null : number(s.heldout_accuracy, 3)],
    ["macro-F1", s.heldout_macro_f1 == null ? null : number(s.heldout_macro_f1, 3)],
    ["consensus distance", small(s.consensus_distance)],
    ["steps per second", number(s.steps_per_second)],
    ["time left", span(s.remaining_seconds)],
    // Trainers on several devices only: the fastest and the slowest rank's time for its share of a step.
    [s.sharded ? "ranks, sharded" : "ranks", ranks(s.ranks)],
    ["peers here", `${up} of ${s.peers.length}`],
    ["sent", size(s.sent_bytes_total)],
    // Nodes that relay only.
    ["relayed for others", s.relayed_bytes_total ? size(s.relayed_bytes_total) : null],
    ["last checkpoint", kept.failure && !kept.written ? "failed" : kept.age_seconds == null ? "–" : `${span(kept.age_seconds)} ago`],
  ];
  const list = $("tiles");
  if (!list.children.length) {
    for (const [what] of tiles) {
      const tile = element("div");
      tile.append(element("dt", what), element("dd"));
      list.append(tile);
    }
  }
  tiles.forEach(([, value], i) => {
    const shown = list.children[i].lastChild;
    list.children[i].hidden = value === null;
    if (shown.textContent !== value) shown.textContent = value;
  });
}

// The state of an edge of this node, or of a peer without an edge, as the name of a colour.
function health(peer) {
  const p = state.status.position;
  const early = p && p.step > 0 && p.step < p.steps; // at the end of a visit every edge is closed
  if (peer.state !== "up") return "bad";
  if ((peer.edge === "closed" && early) || (peer.edge === "open" && peer.behind > 1)) return "late";
  return peer.edge === "open" ? "good" : "idle";
}

const dot = (peer) => (peer.state === "up" ? "good" : peer.neighbour || ["refused", "quarantined"].includes(peer.state) ? "bad" : "unseen");
const COLUMNS = [
  // heading, sort key, text, class
  ["peer", (p) => p.name, (p) => p.name, "words"],
  ["state", (p) => p.state, (p) => (p.relay ? `${p.state} through ${p.relay}` : p.state), "words"],
  ["edge", (p) => p.edge + p.neighbour, (p) => p.edge || (p.neighbour ? "neighbour" : ""), "words"],
  ["behind", (p) => p.behind ?? -1, (p) => p.behind ?? "", ""],
  ["activation", (p) => p.activation ?? -1, (p) => p.activation ?? "", ""],
  ["round trip, ms", (p) => (p.rtt ? p.rtt.p50 : -1), (p) => (p.rtt ? (1000 * p.rtt.p50).toFixed(1) : ""), ""],
  ["sent", (p) => total(p.sent_bytes), (p) => size(total(p.sent_bytes)), ""],
  ["received", (p) => total(p.received_bytes), (p) => size(total(p.received_bytes)), ""],
  ["address", (p) => p.address, (p) => p.address, "words"],
  ["last problem", (p) => p.why, (p) => p.why, "why"],
];

function tellHeadings() {
  const line = $("peers").tHead.rows[0];
  COLUMNS.forEach(([heading, , , kind], i) => {
    const cell = element("th", "", kind ? "words" : "");
    const button = element("button", heading);
    button.type = "button";
    button.addEventListener("click", () => {
      sorting.down = sorting.column === i && !sorting.down;
      sorting.column = i;
      if (state.status) tellPeers();
    });
    cell.scope = "col";
    cell.append(button);
    line.append(cell);
  });
}

const share = (row) => (row.total ? row.done / row.total : null);
const RUN = [
  // heading, content, class
  ["member", (row) => pageOf(row), "words"],
  ["state", (row) => [element("i", "", { alive: "good", suspect: "late", dead: "bad" }[row.state] ?? "idle"), row.phase && row.state === "alive" ? row.phase : row.state], "words"],
  ["done", (row) => (share(row) == null ? ["–"] : [bar(share(row)), `${(100 * share(row)).toFixed(0)} %`]), ""],
  ["round", (row) => [row.round ? (row.round > state.status.position?.rounds ? "flush" : row.round) : "–"], ""],
  ["block", (row) => [row.block || "–"], ""],
  ["training loss", (row) => [number(row.loss, 4)], ""],
  ["held-out loss", (row) => [number(row.heldout_loss, 4)], ""],
  ["steps per second", (row) => [number(row.steps_per_second)], ""],
  ["sent", (row) => [row.sent_bytes == null ? "–" : size(row.sent_bytes)], ""],
  ["received", (row) => [row.received_bytes == null ? "–" : size(row.received_bytes)], ""],
  ["links", (row) => [row.peers_up ?? "–"], ""],
  ["told", (row) => [row.own ? "now" : row.age_seconds == null ? "–" : `${span(row.age_seconds)} ago`], ""],
];

function bar(value) {
  const made = element("progress");
  made.max = 1;
  made.value = value;
  return made;
}

// The name of a member, with a link to its page if there is one that this browser may reach. The address was checked by the node.
function pageOf(row) {
  const near = /^(127\.|\[::1\]|localhost)/;
  const reachable = row.page && (!near.test(row.page) || near.test(location.host));
  if (row.own || !reachable || $("told")) return [row.name];
  const link = element("a", row.name);
  link.href = `http:/${"/"}${row.page}/`;
  link.rel = "noreferrer";
  return [link];
}

// What every member tells of itself. The news of members without a link to this node came from others.
function tellRun() {
  if (!$("run").tHead.rows[0].cells.length) {
    $("run").tHead.rows[0].append(...RUN.map(([heading, , kind]) => {
      const cell = element("th", heading, kind);
      cell.scope = "col";
      return cell;
    }));
  }
  $("whole").hidden = !state.run.length;
  const key = JSON.stringify(state.run);
  if (key === state.runShown) return;
  state.runShown = key;
  $("run").tBodies[0].replaceChildren(...state.run.map((row) => {
    const line = element("tr", "", row.own ? "own" : "");
    line.append(...RUN.map(([heading, content, kind], i) => {
      const cell = element(i ? "td" : "th", "", kind);
      cell.dataset.heading = heading; // shown on a phone, where the table is a list
      if (!i) cell.scope = "row";
      cell.append(...content(row));
      return cell;
    }));
    return line;
  }));
  put("run-words", runWords());
}

function runWords() {
  const known = state.run.filter((row) => row.state === "alive" && share(row) != null);
  const gone = state.run.filter((row) => row.state === "dead").length;
  const parts = [`${state.run.length} members`];
  if (gone) parts.push(`${gone} given up`);
  if (known.length) parts.push(`the last is at ${(100 * Math.min(...known.map(share))).toFixed(0)} %, the first at ${(100 * Math.max(...known.map(share))).toFixed(0)} %`);
  const sent = state.run.reduce((sum, row) => sum + (row.sent_bytes ?? 0), 0);
  if (sent) parts.push(`${size(sent)} sent by all`);
  return `${parts.join(", ")}. Every figure is a member's own word, passed on from node to node.`;
}

function tellPeers() {
  const [, by] = COLUMNS[sorting.column];
  const order = (a, b) => (by(a) < by(b) ? -1 : by(a) > by(b) ? 1 : 0) * (sorting.down ? -1 : 1);
  const lines = [...state.status.peers].sort(order).map((peer) => {
    const line = element("tr");
    COLUMNS.forEach(([, , show, kind], i) => {
      const cell = element(i ? "td" : "th", i === 1 ? "" : show(peer), kind);
      if (i === 0) cell.scope = "row";
      if (i === 1) cell.append(element("i", "", dot(peer)), show(peer));
      line.append(cell);
    });
    return line;
  });
  $("peers").tBodies[0].replaceChildren(...lines);
  [...$("peers").tHead.rows[0].cells].forEach((cell, i) => {
    if (i === sorting.column) cell.setAttribute("aria-sort", sorting.down ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  });
}

function tellEvents() {
  const key = JSON.stringify(state.events);
  if (key === state.eventsShown) return;
  state.eventsShown = key;
  const lines = [...state.events].reverse().map((event) => {
    const line = element("li", "", event.level);
    if (event.time != null) line.append(element("time", clock(event.time)));
    if (event.level !== "info") line.append(element("b", `${event.level}: `));
    line.append(event.message);
    return line;
  });
  $("events").replaceChildren(...lines);
}

// --- drawing --------------------------------------------------------------------------------------

const COARSE = matchMedia("(pointer: coarse)");
const DARK = matchMedia("(prefers-color-scheme: dark)");
const CONFIG = { displayModeBar: false, responsive: true, doubleClick: "reset" };

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const names = "page text quiet line grid accent good late bad idle unseen earlier taken coming second third fourth";
  colours = Object.fromEntries(names.split(" ").map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

function layout(x, y, more = {}) {
  const axis = { automargin: true, zeroline: false, gridcolor: colours.grid, linecolor: colours.line, tickcolor: colours.line };
  return {
    margin: { l: 8, r: 8, t: 8, b: 8 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12, color: colours.text },
    hoverlabel: { bgcolor: colours.page, bordercolor: colours.line, font: { color: colours.text } },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", traceorder: "normal" },
    hovermode: "x unified",
    dragmode: COARSE.matches ? false : "zoom", // a finger scrolls the page
    uirevision: "kept", // what the reader zoomed to stays
    ...more,
    xaxis: { ...axis, title: { text: x }, showgrid: false, ...more.xaxis },
    yaxis: { ...axis, title: { text: y }, ...more.yaxis },
  };
}

// A logarithmic axis; ticks at 1, 2 and 5 if it shows few powers of ten.
function logarithmic(values) {
  const known = values.filter((value) => value > 0);
  const decades = Math.log10(known.reduce((a, b) => Math.max(a, b), 0) / known.reduce((a, b) => Math.min(a, b), Infinity));
  return { type: "log", tickformat: "~e", dtick: decades > 2.5 ? 1 : decades > 0.5 ? "D2" : undefined };
}

const line = (x, y, name, colour, more = {}) => ({ x, y, name, mode: "lines", line: { color: colour, width: 2 }, ...more });
const positive = (values) => values.map((value) => (value > 0 ? value : null)); // 0 has no logarithm

// The points of a curve, in spans of steps that follow each other. Between two spans the node was away, or it went back
// to a checkpoint: a line that joined them would tell of steps that this node did not do.
function spans(values) {
  const found = [];
  state.points.ordinal.forEach((ordinal, i, all) => {
    if (!i || ordinal - all[i - 1] !== state.stride) found.push({ x: [], y: [] });
    if (values[i] == null) return; // some figures are not measured at every step
    found.at(-1).x.push(ordinal + 1);
    found.at(-1).y.push(values[i]);
  });
  return found.filter((span) => span.x.length);
}

const apart = (found, axis) => found.flatMap((span, i) => (i ? [null, ...span[axis]] : span[axis]));

// A line with a gap between spans, as running mean over so many points.
function curve(values, name, colour, more = {}, smoothing = 1) {
  const found = spans(values).map(({ x, y }) => ({ x, y: runningMean(y, smoothing) }));
  return line(apart(found, "x"), apart(found, "y"), name, colour, more);
}

function runningMean(values, width) {
  if (width === 1) return values;
  const kept = [];
  return values.map((value) => {
    kept.push(value);
    if (kept.length > width) kept.shift();
    return kept.reduce((sum, each) => sum + each, 0) / kept.length;
  });
}

// Held-out losses, with a gap where the node was away between two of them.
function heldOut() {
  const all = state.points.ordinal;
  const holes = all.map((ordinal, i) => [all[i - 1], ordinal]).filter(([before, ordinal]) => ordinal - before > state.stride);
  return state.evaluations.flatMap((here, i, every) => {
    const before = i ? every[i - 1][0] : here[0];
    const away = here[0] < before || holes.some(([last, first]) => last + 1 < here[0] && first > before);
    return away ? [[null, null, ""], here] : [here];
  });
}

function drawLoss() {
  const { loss } = state.points;
  const held = heldOut();
  return [[
    curve(loss, "one batch", colours.accent, { opacity: 0.25, line: { color: colours.accent, width: 1 }, hoverinfo: "skip", showlegend: false }),
    curve(loss, "training", colours.accent, { hovertemplate: "%{y:.4f}" }, SMOOTHING_POINTS),
    line(held.map((e) => e[0]), held.map((e) => e[1]), "held-out", colours.second, {
      mode: "lines+markers", marker: { size: 8 }, customdata: held.map((e) => escaped(e[2])), hovertemplate: "%{y:.4f} (%{customdata})",
    }),
  ], layout("step", "")];
}

function drawDistance() {
  const data = curve(positive(state.points.consensus_distance), "", colours.accent, { hovertemplate: "%{y:.2e}<extra></extra>" });
  return [[data], layout("step", "", { yaxis: logarithmic(state.points.consensus_distance) })];
}

function drawSignal() {
  const data = curve(positive(state.points.h_rms), "", colours.third, { hovertemplate: "%{y:.2e}<extra></extra>" });
  return [[data], layout("step", "", { yaxis: logarithmic(state.points.h_rms) })];
}

function drawSplit() {
  const parts = [["compute", "accent"], ["encode", "fourth"], ["wait", "second"], ["mix", "third"]];
  const data = parts.map(([part, colour]) => line(...stacked(state.points[`${part}_seconds`]), part, colours[colour], {
    stackgroup: "step", line: { color: colours[colour], width: 0.5 }, hovertemplate: "%{y:.3f} s",
  }));
  return [data, layout("step", "seconds", { yaxis: { rangemode: "tozero" } })];
}

// Areas have no gaps, so they fall to zero where the node was away. A step that was done again counts as it was last.
function stacked(values) {
  const points = new Map();
  spans(values.map((value) => value ?? 0)).forEach(({ x, y }) => {
    const means = runningMean(y, SMOOTHING_POINTS);
    const edge = state.stride / 100;
    points.set(x[0] - edge, 0);
    x.forEach((step, i) => points.set(step, means[i]));
    points.set(x.at(-1) + edge, 0);
  });
  const sorted = [...points].sort((a, b) => a[0] - b[0]);
  return [sorted.map((point) => point[0]), sorted.map((point) => point[1])];
}

function drawBytes() {
  const mib = (name) => state.points[name].map((bytes) => bytes / MIB);
  return [[
    curve(mib("sent_bytes"), "sent", colours.accent, { hovertemplate: "%{y:.1f} MiB" }),
    curve(mib("received_bytes"), "received", colours.second, { hovertemplate: "%{y:.1f} MiB", line: { color: colours.second, width: 2, dash: "dash" } }),
  ], layout("step", "MiB", { yaxis: { rangemode: "tozero" } })];
}

// Members are on a circle in the order of their names, so a change in their edges moves none of them.
function drawGraph() {
  const names = [...new Set([...state.members.map((m) => m.name), ...state.map.members])].sort();
  const place = new Map(names.map((name, i) => {
    const angle = Math.PI / 2 - (2 * Math.PI * i) / names.length;
    return [name, [Math.cos(angle), Math.sin(angle)]];
  }));
  // The names at the sides stand beside their points, where they cross no edge.
  const longest = Math.max(0, ...names.filter((name) => beside(place.get(name))).map((name) => name.length));
  const wide = Math.max(1.4, 1.15 + 0.07 * longest);
  const frame = { showgrid: false, visible: false, range: [-wide, wide] };
  const more = { xaxis: frame, yaxis: { ...frame, range: [-1.3, 1.3] }, showlegend: false, hovermode: "closest", dragmode: false };
  return [[...drawEdges(place), drawMembers(names, place)], layout("", "", more)];
}

const beside = ([, y]) => Math.abs(y) < 0.5;

// One trace for all edges that look the same, because a full graph of many members has thousands of edges.
function drawEdges(place) {
  const own = state.status.name;
  const peers = new Map(state.status.peers.map((peer) => [peer.name, peer]));
  const faint = Math.max(0.15, Math.min(1, 100 / state.map.edges.length));
  const unseen = { x: [], y: [], mode: "lines", line: { color: colours.unseen, width: 1 }, opacity: faint, hoverinfo: "skip" };
  const seen = new Map();
  for (const [i, j, weight] of state.map.edges) {
    const [a, b] = [state.map.members[i], state.map.members[j]];
    const [[ax, ay], [bx, by]] = [place.get(a), place.get(b)];
    const peer = a === own ? peers.get(b) : b === own ? peers.get(a) : null;
    const trace = peer ? edgesLike(seen, health(peer), weight) : unseen;
    // A point in the middle, so that the pointer finds the edge there.
    trace.x.push(ax, (ax + bx) / 2, bx, null);
    trace.y.push(ay, (ay + by) / 2, by, null);
    if (peer) trace.text.push(...Array(4).fill(escaped(edgeWords(peer, weight))));
  }
  return [unseen, ...seen.values()];
}

function edgesLike(seen, kind, weight) {
  const key = `${kind} ${weight}`;
  const dash = kind === "bad" ? "dot" : kind === "late" ? "dash" : "solid";
  const looks = { color: colours[kind], width: 1.5 + 5 * weight, dash };
  if (!seen.has(key)) seen.set(key, { x: [], y: [], text: [], mode: "lines", line: looks, hovertemplate: "%{text}<extra></extra>" });
  return seen.get(key);
}

function edgeWords(peer, weight) {
  const parts = [peer.name, peer.state, peer.relay && `through ${peer.relay}`, peer.edge && `edge ${peer.edge}`, `weight ${weight.toFixed(2)}`];
  if (peer.behind) parts.push(`${peer.behind} behind`);
  if (peer.rtt) parts.push(`${(1000 * peer.rtt.p50).toFixed(1)} ms`);
  return parts.filter(Boolean).join(", ");
}

function drawMembers(names, place) {
  const known = new Map(state.members.map((member) => [member.name, member.state]));
  const peers = new Map(state.status.peers.map((peer) => [peer.name, peer]));
  const looks = names.map((name) => {
    if (name === state.status.name) return ["circle", colours.accent, "this node"];
    const peer = peers.get(name);
    const said = known.get(name) ?? "unknown";
    if (said === "dead") return ["x", colours.bad, "dead"];
    if (said === "left") return ["square-open", colours.idle, "has left"];
    if (said === "suspect") return ["diamond", colours.late, "suspect: it does not answer"];
    return peer && peer.neighbour && peer.state !== "up" ? ["x", colours.bad, peer.state] : ["circle", colours.good, said];
  });
  const points = names.map((name) => place.get(name));
  return {
    x: points.map((p) => p[0]), y: points.map((p) => p[1]), mode: names.length <= LABELS_MAX ? "markers+text" : "markers",
    text: names.map((name) => (name === state.status.name ? `<b>${escaped(name)}</b>` : escaped(name))),
    textposition: points.map((p) => (beside(p) ? (p[0] > 0 ? "middle right" : "middle left") : p[1] > 0 ? "top center" : "bottom center")),
    cliponaxis: false,
    marker: {
      opacity: 1,
      size: names.map((name) => (name === state.status.name ? 17 : names.length > LABELS_MAX ? 9 : 13)),
      symbol: looks.map((look) => look[0]), color: looks.map((look) => look[1]), line: { width: 1.5, color: colours.page },
    },
    customdata: looks.map((look) => look[2]), hovertemplate: "%{text}: %{customdata}<extra></extra>",
  };
}

const LETTERS = { ".": [0, "to come"], e: [1, "done before this start"], d: [2, "done"], f: [3, "fetched from others"], n: [4, "under way"] };

function drawMap() {
  const { blocks, rounds, first, rows } = state.map;
  const p = state.status.position;
  const under = p && p.done < p.total && !OVER.includes(state.status.phase);
  const letters = rows.map((row, i) => [...row].map((c, b) => (under && first + i === p.round - 1 && b === p.block - 1 ? "n" : c)));
  const shades = ["coming", "earlier", "accent", "taken", "late"].map((name) => colours[name]);
  const data = {
    type: "heatmap", z: letters.map((row) => row.map((c) => LETTERS[c][0])), zmin: -0.5, zmax: 4.5, showscale: false,
    x: blocks.map((_, b) => b + 1), y: rows.map((_, i) => first + i + 1), xgap: blocks.length > 60 ? 0 : 2, ygap: rows.length > 40 ? 0 : 2,
    colorscale: shades.flatMap((shade, i) => [[i / 5, shade], [(i + 1) / 5, shade]]),
    text: letters.map((row, i) => row.map((c, b) => `${first + i < rounds ? `round ${first + i + 1}` : "flush"}, ${escaped(blocks[b])}: ${LETTERS[c][1]}`)),
    hovertemplate: "%{text}<extra></extra>",
  };
  const every = Math.ceil(rows.length / 12);
  const ticks = rows.map((_, i) => first + i).filter((r) => r === rounds || (r - first) % every === 0);
  const yaxis = { autorange: "reversed", showgrid: false, tickvals: ticks.map((r) => r + 1), ticktext: ticks.map((r) => (r === rounds ? "flush" : r + 1)) };
  return [[data], layout("block", "round", { hovermode: "closest", xaxis: { dtick: Math.ceil(blocks.length / 12) }, yaxis })];
}

const CHARTS = { graph: drawGraph, map: drawMap, loss: drawLoss, distance: drawDistance, signal: drawSignal, split: drawSplit, bytes: drawBytes };
const dirty = new Set();
const seen = new Set();
const drawn = {};
let frame = 0;

// The data of a chart. A chart whose key did not change is not drawn again.
function chartKey(id) {
  const { map, members, status, next, evaluations } = state;
  const look = colours.page;
  if (id === "graph") return JSON.stringify([look, map.members, map.edges.length, members.map((m) => m.state), status.peers.map((p) => [p.name, p.neighbour, health(p)])]);
  if (id === "map") return JSON.stringify([look, map.rows, map.first, status.phase, status.position && [status.position.round, status.position.block]]);
  return JSON.stringify([look, next, state.began, evaluations.length, state.points.ordinal.length]);
}

function markAll() {
  readColours();
  const has = state.points?.h_rms.some((value) => value != null) ?? false;
  $("signal").closest("figure").hidden = !has; // most runs have no h
  for (const id of Object.keys(CHARTS)) if (drawn[id] !== chartKey(id)) dirty.add(id);
  if (!frame) frame = requestAnimationFrame(drawOne);
}

function drawOne() {
  frame = 0;
  const id = Object.keys(CHARTS).find((each) => dirty.has(each) && seen.has(each));
  if (!id || !state.points || !state.map || !window.Plotly) return;
  dirty.delete(id);
  drawn[id] = chartKey(id);
  Plotly.react(id, ...CHARTS[id](), CONFIG);
  frame = requestAnimationFrame(drawOne);
}

function watchCharts() {
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) isIntersecting ? seen.add(target.id) : seen.delete(target.id);
    if (state.status && !frame) frame = requestAnimationFrame(drawOne);
  }, { rootMargin: "200px" });
  for (const id of Object.keys(CHARTS)) watcher.observe($(id));
  DARK.addEventListener("change", () => state.status && markAll());
}

// The drawing code is large. Facts and tables do not wait for it, and charts follow once it is there.
addEventListener("load", () => {
  if (state.status && !frame) frame = requestAnimationFrame(drawOne);
});
readColours();
tellHeadings();
watchCharts();
if ($("told")) report(JSON.parse($("told").textContent));
else live();
