"use strict";
// What every part of the page shares: building nodes, formatting, the unpacked data, the state of
// the view. Values of a run reach the page through text nodes and canvas text only.

const OUTCOMES = ["ok", "fail", "info", "open"];
const VERDICT_SIGN = { valid: "✓", invalid: "✗", unknown: "?", error: "!", none: "–" };
const MAX_ZOOM_SPAN_US = 50;

/** Make an element; strings among the children become text nodes, null is left out. */
function el(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false)
      node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity))
    if (child !== null && child !== undefined)
      node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  return node;
}

function seconds(us, digits = 3) {
  return us === null || us === undefined ? "–" : (us / 1e6).toFixed(digits) + " s";
}

function duration(us) {
  if (us === null || us === undefined || us < 0) return "–";
  if (us < 1000) return us + " µs";
  if (us < 1e6) return (us / 1000).toFixed(us < 1e4 ? 2 : 1) + " ms";
  return (us / 1e6).toFixed(2) + " s";
}

async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** Everything that changes while somebody looks. */
const app = {
  data: null,
  ops: null, // the columns, with absolute times in `call` and `ret`
  rowOfIndex: new Map(), // history index -> row
  view: { from: 0, to: 1 },
  group: "thread",
  query: "",
  match: null, // Uint8Array: which rows match the filter; null: all
  pinned: -1,
  hover: -1,
  anomaly: -1,
  cursor: null,
};

function adopt(data) {
  const ops = data.ops;
  const n = ops.index.length;
  ops.call = new Float64Array(n);
  ops.ret = new Float64Array(n);
  let now = 0;
  for (let i = 0; i < n; i++) {
    now += ops.call_delta[i];
    ops.call[i] = now;
    ops.ret[i] = ops.took[i] < 0 ? Infinity : now + ops.took[i];
    app.rowOfIndex.set(ops.index[i], i);
    if (ops.ret_index[i] >= 0) app.rowOfIndex.set(ops.ret_index[i], i);
  }
  app.data = data;
  app.ops = ops;
  app.view = { from: 0, to: fullSpan() };
}

function fullSpan() {
  return Math.max(1000, app.data.end * 1.005);
}

function opKey(row) {
  const key = app.ops.key[row];
  return key < 0 ? null : app.ops.keys[key];
}

function opNode(row) {
  const node = app.ops.node[row];
  return node < 0 ? null : app.ops.nodes[node];
}

// One redraw per frame, however many things changed.
const painters = [];
let isScheduled = false;
function redraw() {
  if (isScheduled) return;
  isScheduled = true;
  requestAnimationFrame(() => {
    isScheduled = false;
    for (const paint of painters) paint();
  });
}

function setView(from, to) {
  const full = fullSpan();
  const span = Math.min(full, Math.max(MAX_ZOOM_SPAN_US, to - from));
  const middle = (from + to) / 2;
  from = Math.max(0, Math.min(full - span, middle - span / 2));
  app.view = { from, to: from + span };
  redraw();
}

function zoom(factor, around) {
  const { from, to } = app.view;
  const at = around === undefined ? (from + to) / 2 : around;
  const full = fullSpan();
  const span = Math.min(full, Math.max(MAX_ZOOM_SPAN_US, (to - from) * factor));
  const share = (at - from) / (to - from);
  setView(at - share * span, at + (1 - share) * span);
}

/** Parse `key:k7 f:read,cas type:info process:3 some text` into a test of rows. */
function compile(query) {
  const ops = app.ops;
  const fields = {
    key: (i) => opKey(i) ?? "",
    f: (i) => ops.f_names[ops.f[i]],
    type: (i) => (ops.outcome[i] === 3 ? "info" : OUTCOMES[ops.outcome[i]]),
    process: (i) => String(ops.process[i]),
    thread: (i) => String(ops.thread[i]),
    node: (i) => opNode(i) ?? "",
    index: (i) => String(ops.index[i]),
    value: (i) => ops.result[i] ?? ops.value[i],
  };
  fields.outcome = fields.type;
  const tests = [];
  for (const token of query.match(/(?:[^\s"]|"[^"]*")+/g) || []) {
    const colon = token.indexOf(":");
    const name = token.slice(0, colon);
    if (colon > 0 && Object.hasOwn(fields, name)) {
      const wanted = new Set(token.slice(colon + 1).replaceAll('"', "").split(","));
      tests.push((i) => wanted.has(fields[name](i)));
    } else {
      const text = token.replaceAll('"', "").toLowerCase();
      tests.push((i) =>
        `${ops.label[i]} ${ops.value[i]} ${ops.result[i] ?? ""} ${ops.error[i] ?? ""} ${opKey(i) ?? ""}`
          .toLowerCase().includes(text));
    }
  }
  return tests;
}

function setQuery(query) {
  app.query = query;
  const tests = compile(query);
  const n = app.ops.index.length;
  app.match = null;
  if (tests.length) {
    app.match = new Uint8Array(n);
    for (let i = 0; i < n; i++) app.match[i] = tests.every((test) => test(i)) ? 1 : 0;
  }
  const box = document.getElementById("filter");
  if (box && box.value !== query) box.value = query;
  layoutLanes();
  redraw();
}

function isMatch(row) {
  return app.match === null || app.match[row] === 1;
}

function pin(row) {
  app.pinned = row;
  app.hover = -1;
  if (row >= 0) app.cursor = app.ops.call[row];
  const parts = [];
  if (row >= 0) parts.push("op=" + app.ops.index[row]);
  try {
    history.replaceState(null, "", parts.length ? "#" + parts.join("&") : location.pathname);
  } catch { /* some browsers forbid it for files; the link is a convenience */ }
  redraw();
}

/** Show an operation: pin it and bring it into view. */
function goTo(row) {
  const { from, to } = app.view;
  const call = app.ops.call[row];
  const took = Math.max(2000, app.ops.took[row]);
  if (call < from || call > to || took > to - from || took < (to - from) / 400)
    setView(call - took * 12, call + took * 13);
  pin(row);
}

async function copy(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = el("textarea", { "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = "copied";
  setTimeout(() => { button.textContent = before; }, 1500);
}
