// The time axis: overview, fault bands, one lane per thread (or key, or node), latency, rate.
//
// Every strip draws from `app.view` and the same gutter, so one vertical line is one moment on all
// of them. A lane is packed into rows in which operations do not overlap; calls and returns then
// both rise along a row, so what is visible is found by binary search and only that is drawn.

const GUTTER = 118;
const LANE_HEIGHT = 22;
const FAULT_HEIGHT = 20;
const FONT = "11px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace";

const theme = {};
function readTheme() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["card", "ink", "soft", "faint", "line", "grid", "hover", "accent", "ok", "ok-read", "ok-ink", "ok-read-ink",
    "fail", "info", "mark", "brush", "fault-1", "fault-2", "fault-3", "fault-4", "fault-5"])
    theme[name] = style.getPropertyValue("--" + name).trim();
  const tile = document.createElement("canvas");
  tile.width = tile.height = 6;
  const ctx = tile.getContext("2d");
  ctx.strokeStyle = theme.info;
  ctx.lineWidth = 1.6;
  ctx.beginPath();
  for (const shift of [-6, 0, 6]) { ctx.moveTo(shift - 1, 7); ctx.lineTo(shift + 7, -1); }
  ctx.stroke();
  theme.hatch = ctx.createPattern(tile, "repeat");
}

function toggleTheme() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  readTheme();
  redraw();
}

class Strip {
  constructor(parent, id, height, label, paint) {
    this.canvas = el("canvas", { role: "img", "aria-label": label });
    this.box = el("div", { class: "strip", id }, this.canvas);
    parent.append(this.box);
    this.height = height;
    this.paint = paint;
    painters.push(() => this.draw());
  }

  draw() {
    const height = typeof this.height === "function" ? this.height() : this.height;
    const width = this.box.clientWidth;
    const ratio = window.devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
      this.canvas.style.height = height + "px";
    }
    const ctx = this.canvas.getContext("2d");
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, width, height);
    ctx.font = FONT;
    ctx.textBaseline = "middle";
    ctx.lineWidth = 1;
    this.paint(ctx, width, height);
  }
}

function scale(width) {
  const { from, to } = app.view;
  const factor = (width - GUTTER) / (to - from);
  return (time) => GUTTER + (time - from) * factor;
}

function timeAt(x, width) {
  const { from, to } = app.view;
  return from + ((x - GUTTER) / (width - GUTTER)) * (to - from);
}

function faultKinds() {
  return [...new Set(app.data.faults.map((fault) => fault.kind))];
}

function faultColor(kind) {
  return theme["fault-" + ((faultKinds().indexOf(kind) % 5) + 1)];
}

function faultSpan(fault) {
  return [fault.applied ?? fault.planned ?? 0, fault.undone ?? app.data.end];
}

function clipToPlot(ctx, width, height) {
  ctx.save();
  ctx.beginPath();
  ctx.rect(GUTTER, 0, width - GUTTER, height);
  ctx.clip();
}

function paintBands(ctx, width, height) {
  const x = scale(width);
  clipToPlot(ctx, width, height);
  for (const fault of app.data.faults) {
    const [start, end] = faultSpan(fault);
    ctx.globalAlpha = 0.12;
    ctx.fillStyle = faultColor(fault.kind);
    ctx.fillRect(x(start), 0, Math.max(1, x(end) - x(start)), height);
  }
  ctx.globalAlpha = 1;
  ctx.setLineDash([3, 3]);
  ctx.strokeStyle = theme.faint;
  for (const phase of app.data.phases) {
    const at = Math.round(x(phase.start)) + 0.5;
    ctx.beginPath(); ctx.moveTo(at, 0); ctx.lineTo(at, height); ctx.stroke();
  }
  ctx.setLineDash([]);
  const anomaly = app.data.anomalies[app.anomaly];
  if (anomaly) {
    ctx.fillStyle = theme.mark;
    ctx.globalAlpha = 0.07;
    ctx.fillRect(x(anomaly.start), 0, Math.max(1, x(anomaly.end) - x(anomaly.start)), height);
    ctx.globalAlpha = 1;
  }
  if (app.cursor !== null) {
    ctx.strokeStyle = theme.accent;
    const at = Math.round(x(app.cursor)) + 0.5;
    ctx.beginPath(); ctx.moveTo(at, 0); ctx.lineTo(at, height); ctx.stroke();
  }
  ctx.restore();
}

function tickStep(span, count) {
  const raw = span / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  return power * (raw / power <= 1 ? 1 : raw / power <= 2 ? 2 : raw / power <= 5 ? 5 : 10);
}

function paintGrid(ctx, width, height) {
  const { from, to } = app.view;
  const x = scale(width);
  const step = tickStep(to - from, (width - GUTTER) / 110);
  ctx.strokeStyle = theme.grid;
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
    const place = Math.round(x(at)) + 0.5;
    ctx.beginPath(); ctx.moveTo(place, 0); ctx.lineTo(place, height); ctx.stroke();
  }
}

function gutterText(ctx, text, y, color) {
  ctx.fillStyle = color || theme.soft;
  ctx.textAlign = "left";
  ctx.fillText(fit(ctx, text, GUTTER - 16), 10, y);
}

function fit(ctx, text, width) {
  if (ctx.measureText(text).width <= width) return text;
  const room = Math.floor(width / 6.7) - 1;
  return room > 0 ? text.slice(0, room) + "…" : "";
}

// Ruler, phases and a lane per fault kind.
function paintHead(ctx, width, height) {
  const { from, to } = app.view;
  const x = scale(width);
  const step = tickStep(to - from, (width - GUTTER) / 110);
  const digits = Math.max(0, Math.min(6, 6 - Math.floor(Math.log10(step))));
  paintGrid(ctx, width, height);
  gutterText(ctx, "time", 11);
  ctx.textAlign = "center";
  ctx.fillStyle = theme.soft;
  for (let at = Math.ceil(from / step) * step; at <= to; at += step)
    if (x(at) > GUTTER + 18 && x(at) < width - 24) ctx.fillText((at / 1e6).toFixed(digits) + " s", x(at), 11);
  faultKinds().forEach((kind, i) => {
    const y = 22 + i * FAULT_HEIGHT;
    gutterText(ctx, kind, y + FAULT_HEIGHT / 2, theme.ink);
    clipToPlot(ctx, width, height);
    for (const fault of app.data.faults) {
      if (fault.kind !== kind) continue;
      const [start, end] = faultSpan(fault);
      if (end < from || start > to) continue;
      const left = Math.max(GUTTER, x(start));
      const size = Math.max(3, Math.min(width, x(end)) - left);
      ctx.fillStyle = faultColor(kind);
      ctx.globalAlpha = fault.bit === false ? 0.18 : 0.42;
      ctx.fillRect(left, y + 2, size, FAULT_HEIGHT - 4);
      ctx.globalAlpha = 1;
      ctx.fillRect(left, y + 2, 2.5, FAULT_HEIGHT - 4);
      ctx.fillStyle = theme.ink;
      ctx.textAlign = "left";
      // A cut through the whole cluster is told by its plan alone.
      const nodes = fault.plan && fault.targets.length === app.data.nodes.length ? "" : fault.targets.join(",") + "  ";
      const words = `${nodes}${fault.plan}${fault.bit === false ? "  (did not bite)" : ""}`;
      if (size > 24) ctx.fillText(fit(ctx, words, size - 10), left + 7, y + FAULT_HEIGHT / 2 + 0.5);
    }
    ctx.restore();
  });
  const y = 22 + faultKinds().length * FAULT_HEIGHT + 9;
  if (app.data.phases.length) {
    gutterText(ctx, "phase", y);
    clipToPlot(ctx, width, height);
    app.data.phases.forEach((phase, i) => {
      const end = app.data.phases[i + 1]?.start ?? app.data.end;
      const left = Math.max(GUTTER, x(phase.start));
      if (end < from || phase.start > to) return;
      ctx.fillStyle = theme.faint;
      ctx.fillRect(Math.round(x(phase.start)), y - 8, 1, 16);
      ctx.textAlign = "left";
      ctx.fillStyle = theme.soft;
      ctx.fillText(fit(ctx, phase.name, x(end) - left - 6), left + 5, y);
    });
    ctx.restore();
  }
}

function headHeight() {
  return 22 + faultKinds().length * FAULT_HEIGHT + (app.data.phases.length ? 19 : 0);
}

// Lanes.
const lanes = { rows: [], labels: [], rowOf: null, infos: [] };

function laneName(row) {
  if (app.group === "key") return opKey(row) ?? "(no key)";
  if (app.group === "node") return opNode(row) ?? "(no node)";
  return "thread " + app.ops.thread[row];
}

function layoutLanes() {
  const ops = app.ops;
  const n = ops.index.length;
  const byLane = new Map();
  for (let i = 0; i < n; i++) {
    const name = laneName(i);
    let lane = byLane.get(name);
    if (!lane) byLane.set(name, (lane = { ops: [], isWanted: false }));
    lane.ops.push(i);
    lane.isWanted ||= isMatch(i);
  }
  const order = new Intl.Collator("en", { numeric: true });
  const names = [...byLane.keys()].filter((name) => byLane.get(name).isWanted).sort(order.compare);
  lanes.rows = []; lanes.labels = []; lanes.infos = [];
  lanes.rowOf = new Int32Array(n).fill(-1);
  for (const name of names) {
    const ends = []; // of the last operation in each row of this lane
    const first = lanes.rows.length;
    for (const i of byLane.get(name).ops) {
      let row = ends.findIndex((end) => end <= ops.call[i]);
      if (row < 0) { row = ends.length; ends.push(0); lanes.rows.push([]); lanes.infos.push([]); lanes.labels.push(row ? "" : name); }
      ends[row] = ops.ret[i];
      lanes.rows[first + row].push(i);
      lanes.rowOf[i] = first + row;
      if (ops.outcome[i] >= 2) lanes.infos[first + row].push(i);
    }
  }
}

function lowerBound(list, test) {
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (test(list[middle])) high = middle; else low = middle + 1;
  }
  return low;
}

function lanesHeight() {
  return Math.max(LANE_HEIGHT, lanes.rows.length * LANE_HEIGHT);
}

function paintLanes(ctx, width, height, scrollTop) {
  const ops = app.ops;
  const { from, to } = app.view;
  const x = scale(width);
  paintGrid(ctx, width, height);
  paintBands(ctx, width, height);
  const firstRow = Math.floor(scrollTop / LANE_HEIGHT);
  const lastRow = Math.min(lanes.rows.length - 1, Math.ceil((scrollTop + height) / LANE_HEIGHT));
  const reads = ops.f_names.indexOf("read");
  for (let r = firstRow; r <= lastRow; r++) {
    const y = r * LANE_HEIGHT - scrollTop;
    ctx.fillStyle = theme.line;
    if (lanes.labels[r] && r) ctx.fillRect(0, y, width, 0.5);
    if (lanes.labels[r]) gutterText(ctx, lanes.labels[r], y + LANE_HEIGHT / 2, theme.ink);
    const list = lanes.rows[r];
    clipToPlot(ctx, width, height);
    paintTails(ctx, r, y, x, width);
    let lastPixel = -1, lastLook = -1;
    for (let k = lowerBound(list, (i) => ops.ret[i] >= from); k < list.length && ops.call[list[k]] <= to; k++) {
      const i = list[k];
      const outcome = ops.outcome[i];
      const left = x(ops.call[i]);
      const right = outcome === 3 ? width : x(ops.ret[i]);
      // Operations thinner than a pixel: one of each outcome stands for its neighbours.
      const pixel = Math.round(left);
      const look = outcome * 2 + (isMatch(i) ? 1 : 0);
      if (right - left < 1 && pixel === lastPixel && look === lastLook && i !== app.pinned) continue;
      lastPixel = pixel; lastLook = look;
      paintOp(ctx, i, left, Math.max(1.5, right - left - 0.5), y + 3, LANE_HEIGHT - 6, ops.f[i] === reads);
    }
    ctx.restore();
  }
  if (!lanes.rows.length) gutterText(ctx, ops.index.length ? "no operation matches the filter" : "no operations", LANE_HEIGHT / 2);
  paintAnomaly(ctx, width, height, scrollTop, x);
}

const marked = new Set();
function markAnomaly(anomaly) {
  marked.clear();
  for (const entry of anomaly ? [...anomaly.steps, ...anomaly.rejected] : []) marked.add(entry.op);
}

function paintOp(ctx, i, left, size, y, height, isRead) {
  const ops = app.ops;
  const outcome = ops.outcome[i];
  ctx.globalAlpha = isMatch(i) ? 1 : 0.16;
  if (outcome === 0) {
    ctx.fillStyle = isRead ? theme["ok-read"] : theme.ok;
    ctx.fillRect(left, y, size, height);
  } else if (outcome === 1) {
    ctx.strokeStyle = theme.fail;
    ctx.lineWidth = 1.3;
    ctx.strokeRect(left + 0.7, y + 0.7, Math.max(0.4, size - 1.4), height - 1.4);
    ctx.lineWidth = 1;
  } else {
    ctx.fillStyle = theme.hatch;
    ctx.fillRect(left, y, size, height);
    ctx.fillStyle = theme.info;
    ctx.fillRect(left, y, 2, height);
  }
  if (size > 30 || size > ops.label[i].length * 6.7 + 6) {
    // The number of a step sits at the start of its bar; the label makes room for it.
    const start = Math.max(left + (marked.has(i) ? 18 : 0), GUTTER);
    const room = left + size - start - 6;
    const text = fit(ctx, ops.label[i], room);
    if (text) {
      const widthOfText = ctx.measureText(text).width;
      if (outcome >= 2) { ctx.fillStyle = theme.card; ctx.fillRect(start + 2.5, y + 1, widthOfText + 4, height - 2); }
      ctx.textAlign = "left";
      ctx.fillStyle = outcome === 0 ? (isRead ? theme["ok-read-ink"] : theme["ok-ink"]) : outcome === 1 ? theme.fail : theme.info;
      ctx.fillText(text, start + 4, y + height / 2 + 0.5);
    }
  }
  if (i === app.pinned || i === app.hover) {
    ctx.globalAlpha = 1;
    ctx.strokeStyle = theme.ink;
    ctx.lineWidth = 2;
    ctx.strokeRect(left - 1, y - 1, size + 2, height + 2);
    ctx.lineWidth = 1;
  }
  ctx.globalAlpha = 1;
}

/** What nobody knows may still happen: it fades towards the end of the run, below the row's ops. */
function paintTails(ctx, r, y, x, width) {
  const ops = app.ops;
  const { from, to } = app.view;
  const infos = lanes.infos[r];
  // Later tails lie over earlier ones, so a few of them look like all of them.
  const first = Math.max(0, lowerBound(infos, (i) => ops.call[i] > from) - 3);
  for (let k = first; k < infos.length && ops.call[infos[k]] <= to; k++) {
    const i = infos[k];
    const start = x(ops.outcome[i] === 3 ? ops.call[i] : ops.ret[i]);
    const end = x(app.data.end);
    if (end - start < 1) continue;
    const fade = ctx.createLinearGradient(start, 0, end, 0);
    fade.addColorStop(0, theme.info);
    fade.addColorStop(1, theme.info + "00"); // "transparent" would fade through black
    ctx.fillStyle = fade;
    ctx.globalAlpha = isMatch(i) ? 0.75 : 0.12;
    ctx.fillRect(Math.max(start, GUTTER), y + LANE_HEIGHT - 3.5, Math.min(end, width) - Math.max(start, GUTTER), 2);
  }
  ctx.globalAlpha = 1;
}

function paintAnomaly(ctx, width, height, scrollTop, x) {
  const anomaly = app.data.anomalies[app.anomaly];
  if (!anomaly || app.view.to - app.view.from > Math.max(60 * (anomaly.end - anomaly.start), 2e6)) return;
  const y = (row) => lanes.rowOf[row] * LANE_HEIGHT + LANE_HEIGHT / 2 - scrollTop;
  const points = anomaly.steps.map((step, i) => ({ row: step.op, x: x(step.at) + 9, y: y(step.op), n: anomaly.steps_cut + i + 1 }))
    .filter((point) => lanes.rowOf[point.row] >= 0);
  // Moments that coincide are told apart by moving them a little: their order is what counts.
  for (let i = 1; i < points.length; i++) points[i].x = Math.max(points[i].x, Math.min(points[i - 1].x + 6, x(app.ops.ret[points[i].row]) - 3));
  clipToPlot(ctx, width, height);
  ctx.strokeStyle = theme.mark;
  ctx.lineWidth = 1.8;
  ctx.beginPath();
  points.forEach((point, i) => (i ? ctx.lineTo(point.x, point.y) : ctx.moveTo(point.x, point.y)));
  ctx.stroke();
  ctx.textAlign = "center";
  for (const point of points) {
    ctx.fillStyle = theme.mark;
    ctx.beginPath(); ctx.arc(point.x, point.y, point.n > 99 ? 11 : 8.5, 0, 7); ctx.fill();
    ctx.fillStyle = theme.card;
    ctx.font = "bold 10px " + FONT.slice(5);
    ctx.fillText(String(point.n), point.x, point.y + 0.5);
  }
  for (const entry of anomaly.rejected) {
    if (lanes.rowOf[entry.op] < 0) continue;
    const left = x(app.ops.call[entry.op]);
    const right = Math.min(x(app.ops.ret[entry.op]), width);
    const middle = y(entry.op);
    ctx.strokeStyle = theme.mark;
    ctx.lineWidth = 2;
    ctx.strokeRect(left, middle - LANE_HEIGHT / 2 + 2, Math.max(2, right - left), LANE_HEIGHT - 4);
    const at = Math.max(left + 8, Math.min(x(entry.at) + 9, right - 9));
    ctx.fillStyle = theme.card;
    ctx.beginPath(); ctx.arc(at, middle, 9, 0, 7); ctx.fill(); ctx.stroke();
    ctx.lineWidth = 2.6;
    ctx.beginPath();
    ctx.moveTo(at - 4, middle - 4); ctx.lineTo(at + 4, middle + 4);
    ctx.moveTo(at + 4, middle - 4); ctx.lineTo(at - 4, middle + 4);
    ctx.stroke();
  }
  ctx.lineWidth = 1;
  ctx.font = FONT;
  ctx.restore();
}

function opAt(px, py, width, scrollTop) {
  const row = Math.floor((py + scrollTop) / LANE_HEIGHT);
  const list = lanes.rows[row];
  if (!list || px < GUTTER) return -1;
  const ops = app.ops;
  const { from, to } = app.view;
  const slack = ((to - from) / (width - GUTTER)) * 3;
  const at = timeAt(px, width);
  const k = lowerBound(list, (i) => ops.ret[i] >= at - slack);
  const candidates = [list[k], list[k + 1]].filter((i) => i !== undefined && ops.call[i] <= at + slack);
  const inside = candidates.find((i) => ops.call[i] <= at && at <= ops.ret[i]);
  return inside ?? candidates[0] ?? -1;
}

// Latency, rate and overview.
function paintLatency(ctx, width, height) {
  const ops = app.ops;
  const { from, to } = app.view;
  const x = scale(width);
  paintGrid(ctx, width, height);
  paintBands(ctx, width, height);
  const low = 2.3, high = 7; // 0.2 ms to 10 s
  const y = (us) => height - 5 - ((Math.log10(Math.max(us, 200)) - low) / (high - low)) * (height - 10);
  gutterText(ctx, "latency", 10, theme.ink);
  ctx.textAlign = "right";
  ctx.fillStyle = theme.faint;
  for (const [us, name] of [[1e3, "1 ms"], [1e4, "10 ms"], [1e5, "100 ms"], [1e6, "1 s"]]) {
    ctx.fillStyle = theme.grid; ctx.fillRect(GUTTER, y(us), width, 1);
    ctx.fillStyle = theme.faint; ctx.fillText(name, GUTTER - 6, y(us));
  }
  clipToPlot(ctx, width, height);
  const start = lowerBoundTyped(ops.call, from);
  const dot = lowerBoundTyped(ops.call, to) - start < 600 ? 4 : 2.2;
  for (let i = start; i < ops.call.length && ops.call[i] <= to; i++) {
    if (ops.took[i] < 0 || !isMatch(i)) continue;
    const px = x(ops.call[i]), py = y(ops.took[i]);
    if (ops.outcome[i] === 0) { ctx.globalAlpha = 0.6; ctx.fillStyle = theme.ok; ctx.fillRect(px - dot / 2, py - dot / 2, dot, dot); }
    else if (ops.outcome[i] === 1) { ctx.globalAlpha = 0.9; ctx.strokeStyle = theme.fail; ctx.strokeRect(px - 2, py - 2, 4, 4); }
    else {
      ctx.globalAlpha = 0.9; ctx.fillStyle = theme.info;
      ctx.beginPath(); ctx.moveTo(px, py - 3.5); ctx.lineTo(px + 3.5, py + 2.5); ctx.lineTo(px - 3.5, py + 2.5); ctx.fill();
    }
  }
  ctx.globalAlpha = 1;
  ctx.restore();
}

function lowerBoundTyped(list, value) {
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle] >= value) high = middle; else low = middle + 1;
  }
  return low;
}

function ratePeak() {
  const rate = app.data.rate;
  return rate.ok.reduce((most, ok, i) => Math.max(most, ok + rate.fail[i] + rate.info[i]), 1);
}

function bars(ctx, x, top, height) {
  const rate = app.data.rate;
  const peak = ratePeak();
  for (let i = 0; i < rate.ok.length; i++) {
    const left = x(i * rate.bucket);
    const size = Math.max(0.7, x((i + 1) * rate.bucket) - left - 0.7);
    let y = top + height;
    for (const [count, fill] of [[rate.ok[i], theme.ok], [rate.fail[i], theme.fail], [rate.info[i], theme.info]]) {
      const tall = (count / peak) * height;
      y -= tall;
      ctx.fillStyle = fill;
      ctx.fillRect(left, y, size, tall);
    }
  }
}

function paintRate(ctx, width, height) {
  paintGrid(ctx, width, height);
  paintBands(ctx, width, height);
  const step = app.data.rate.bucket / 1e6;
  gutterText(ctx, "ops/s", 10, theme.ink);
  ctx.textAlign = "right";
  ctx.fillStyle = theme.faint;
  ctx.fillText(String(Math.round(ratePeak() / step)), GUTTER - 6, 10);
  clipToPlot(ctx, width, height);
  bars(ctx, scale(width), 5, height - 6);
  ctx.restore();
}

function overviewScale(width) {
  const full = fullSpan();
  return (time) => GUTTER + (time / full) * (width - GUTTER);
}

function paintOverview(ctx, width, height) {
  const x = overviewScale(width);
  gutterText(ctx, "whole run", height / 2, theme.ink);
  for (const fault of app.data.faults) {
    const [start, end] = faultSpan(fault);
    ctx.globalAlpha = 0.18;
    ctx.fillStyle = faultColor(fault.kind);
    ctx.fillRect(x(start), 0, Math.max(1, x(end) - x(start)), height);
  }
  ctx.globalAlpha = 0.75;
  bars(ctx, x, 4, height - 4);
  ctx.globalAlpha = 1;
  ctx.fillStyle = theme.mark;
  for (const anomaly of app.data.anomalies) {
    const at = x((anomaly.start + anomaly.end) / 2);
    ctx.fillRect(at - 1, 0, 2, height);
    ctx.beginPath(); ctx.moveTo(at - 5, 0); ctx.lineTo(at + 5, 0); ctx.lineTo(at, 7); ctx.fill();
  }
  const left = x(app.view.from);
  const size = Math.max(3, x(app.view.to) - left);
  ctx.fillStyle = theme.brush;
  ctx.fillRect(left, 0, size, height);
  ctx.strokeStyle = theme.accent;
  ctx.strokeRect(left + 0.5, 0.5, size - 1, height - 1);
}

// Hands on it.
function wheelZooms(canvas) {
  canvas.addEventListener("wheel", (event) => {
    if (event.ctrlKey && !event.deltaY) return;
    const { from, to } = app.view;
    const isWhole = to - from >= fullSpan() * 0.999;
    const across = event.shiftKey ? event.deltaY : event.deltaX;
    if (Math.abs(across) > Math.abs(event.shiftKey ? 0 : event.deltaY)) {
      const shift = (across / 600) * (to - from);
      setView(from + shift, to + shift);
    } else if (event.deltaY > 0 && isWhole) return; // nothing more to see: let the page scroll
    else zoom(Math.exp(Math.max(-0.5, Math.min(0.5, event.deltaY / 300))), timeAt(event.offsetX, canvas.clientWidth));
    event.preventDefault();
  }, { passive: false });
}

function dragPans(canvas, scroller) {
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    drag = { x: event.clientX, y: event.clientY, view: { ...app.view }, top: scroller ? scroller.scrollTop : 0, isMoved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drag) {
      const dx = event.clientX - drag.x, dy = event.clientY - drag.y;
      if (Math.abs(dx) + Math.abs(dy) > 3) drag.isMoved = true;
      if (!drag.isMoved) return;
      const shift = (dx / (canvas.clientWidth - GUTTER)) * (drag.view.to - drag.view.from);
      setView(drag.view.from - shift, drag.view.to - shift);
      if (scroller) scroller.scrollTop = drag.top - dy;
    } else if (scroller) {
      const row = opAt(event.offsetX, event.offsetY, canvas.clientWidth, scroller.scrollTop);
      if (row !== app.hover) { app.hover = row; redraw(); }
      canvas.style.cursor = row >= 0 ? "pointer" : "";
    }
  });
  canvas.addEventListener("pointerup", (event) => {
    const wasClick = drag && !drag.isMoved;
    drag = null;
    if (!wasClick) return;
    if (scroller) pin(opAt(event.offsetX, event.offsetY, canvas.clientWidth, scroller.scrollTop));
    else { app.cursor = timeAt(event.offsetX, canvas.clientWidth); redraw(); }
  });
  canvas.addEventListener("pointercancel", () => { drag = null; });
  canvas.addEventListener("pointerleave", () => { if (app.hover >= 0) { app.hover = -1; redraw(); } });
}

function brushes(canvas) {
  let from = null;
  const time = (event) => ((event.offsetX - GUTTER) / (canvas.clientWidth - GUTTER)) * fullSpan();
  canvas.addEventListener("pointerdown", (event) => { from = { at: time(event), x: event.clientX }; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => {
    if (from && Math.abs(event.clientX - from.x) > 4) setView(Math.min(from.at, time(event)), Math.max(from.at, time(event)));
  });
  canvas.addEventListener("pointerup", (event) => {
    if (from && Math.abs(event.clientX - from.x) <= 4) {
      const half = (app.view.to - app.view.from) / 2;
      setView(from.at - half, from.at + half);
    }
    from = null;
  });
  canvas.addEventListener("dblclick", () => setView(0, fullSpan()));
}

function timelinePanel() {
  const box = el("div", { class: "strips", tabindex: "0", id: "strips",
    "aria-label": "timeline: plus and minus zoom, arrows pan, n and p step through operations" });
  const strips = [];
  const overview = new Strip(box, "overview", 42, "operations per second over the whole run", paintOverview);
  strips.push(new Strip(box, "head", headHeight, "time, faults and phases", paintHead));
  const area = new Strip(box, "lanes", () => Math.min(520, lanesHeight()), "operations", (ctx, width, height) => {
    spacer.style.height = lanesHeight() + "px";
    paintLanes(ctx, width, height, area.box.scrollTop);
  });
  const spacer = el("div", { class: "spacer" });
  area.box.append(spacer);
  spacer.append(area.canvas);
  area.box.addEventListener("scroll", redraw);
  strips.push(area);
  strips.push(new Strip(box, "latency", 96, "latency of each operation, logarithmic", paintLatency));
  strips.push(new Strip(box, "rate", 56, "operations per second by outcome", paintRate));
  for (const strip of strips) { wheelZooms(strip.canvas); dragPans(strip.canvas, strip === area ? area.box : null); }
  brushes(overview.canvas);
  box.addEventListener("keydown", timelineKey);
  return box;
}

/** Scroll the lanes so that the row of this operation can be seen. */
function reveal(row) {
  const box = document.getElementById("lanes");
  const y = lanes.rowOf[row] * LANE_HEIGHT;
  if (box && (y < box.scrollTop || y > box.scrollTop + box.clientHeight - LANE_HEIGHT)) box.scrollTop = y - box.clientHeight / 2;
}

function timelineKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { from, to } = app.view;
  const step = (to - from) / 8;
  const box = document.getElementById("lanes");
  const actions = {
    ArrowLeft: () => setView(from - step, to - step), ArrowRight: () => setView(from + step, to + step),
    ArrowUp: () => { box.scrollTop -= LANE_HEIGHT * 2; }, ArrowDown: () => { box.scrollTop += LANE_HEIGHT * 2; },
    "+": () => zoom(0.6, app.cursor ?? undefined), "=": () => zoom(0.6, app.cursor ?? undefined), "-": () => zoom(1 / 0.6, app.cursor ?? undefined),
    0: () => setView(0, fullSpan()), Home: () => setView(0, fullSpan()),
    n: () => stepOp(1), p: () => stepOp(-1),
    a: () => app.data.anomalies.length && focusAnomaly((app.anomaly + 1) % app.data.anomalies.length),
    "/": () => document.getElementById("filter").focus(), Escape: () => pin(-1),
  };
  const action = actions[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function stepOp(direction) {
  const n = app.ops.index.length;
  let row = app.pinned >= 0 ? app.pinned + direction : lowerBoundTyped(app.ops.call, app.view.from);
  while (row >= 0 && row < n && !isMatch(row)) row += direction;
  if (row < 0 || row >= n) return;
  const { from, to } = app.view;
  const call = app.ops.call[row];
  if (call < from || call > to) setView(call - (to - from) / 2, call + (to - from) / 2);
  pin(row);
  reveal(row);
}
