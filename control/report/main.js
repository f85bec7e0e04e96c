// Put the page together, follow the link, and say so if anything goes wrong.

function toTimeline() {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  document.getElementById("timeline")?.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
}

function focusFinding(finding) {
  const margin = Math.max(5000, (finding.end - finding.start) * 0.4);
  setView(finding.start - margin, finding.end + margin);
  if (finding.ops.length === 1) pin(finding.ops[0]);
}

/** Zoom to the window of an anomaly, with enough of its past to see where its state came from. */
function focusAnomaly(place) {
  const anomaly = app.data.anomalies[place];
  app.anomaly = place;
  markAnomaly(anomaly);
  const window = Math.max(4000, anomaly.end - anomaly.start);
  const past = anomaly.steps.slice(-6).map((step) => app.ops.call[step.op]).filter((call) => call > anomaly.start - 4 * window);
  const from = Math.min(anomaly.start, ...past);
  const to = anomaly.end;
  if (anomaly.key !== null) setQuery(`key:${/\s/.test(anomaly.key) ? `"${anomaly.key}"` : anomaly.key}`);
  setView(from - (to - from) * 0.12, to + (to - from) * 0.12);
  const last = anomaly.rejected[0]?.op ?? anomaly.steps.at(-1)?.op;
  if (last !== undefined) reveal(last);
}

function controls() {
  const groups = { thread: "by thread" };
  if (app.ops.keys.length) groups.key = "by key";
  if (app.ops.nodes.length) groups.node = "by node";
  const buttons = Object.entries(groups).map(([group, name]) => {
    const button = el("button", { "aria-pressed": String(group === app.group), onclick: () => {
      app.group = group;
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      layoutLanes();
      redraw();
    } }, name);
    return button;
  });
  const count = el("span", { class: "soft" });
  painters.push(() => {
    const total = app.ops.index.length;
    const matching = app.match === null ? total : app.match.reduce((sum, bit) => sum + bit, 0);
    count.textContent = app.match === null ? `${total} operations` : `${matching} of ${total} operations match`;
  });
  return el("div", { class: "row no-print" },
    el("input", { id: "filter", type: "search", placeholder: "key:k7 f:read type:info process:3 text", "aria-label": "filter operations",
      spellcheck: "false", oninput: (event) => setQuery(event.target.value),
      onkeydown: (event) => { if (event.key === "Escape") document.getElementById("strips").focus(); } }),
    buttons,
    el("button", { onclick: () => { app.anomaly = -1; markAnomaly(null); setQuery(""); setView(0, fullSpan()); } }, "whole run"),
    app.data.anomalies.length ? el("button", { onclick: () => focusAnomaly(Math.max(0, app.anomaly)) }, "anomaly") : null,
    count);
}

function legend() {
  const item = (name, text) => el("span", {}, el("i", { class: "glyph g-" + name }), text);
  return el("div", { class: "row soft side" }, item("ok", "ok"), item("ok-read", "ok read"), item("fail", "fail: no effect"), item("info", "info: unknown, may still happen"));
}

function followLink() {
  const link = new URLSearchParams(location.hash.slice(1));
  const row = app.rowOfIndex.get(Number(link.get("op")));
  if (link.has("q")) setQuery(link.get("q"));
  const span = /^([\d.]+)-([\d.]+)$/.exec(link.get("t") ?? "");
  if (span) setView(span[1] * 1e6, span[2] * 1e6);
  if (link.has("op") && row !== undefined) { span ? pin(row) : goTo(row); reveal(row); return true; }
  return Boolean(span) || link.has("q");
}

function build(data) {
  adopt(data);
  const root = document.documentElement;
  root.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  readTheme();
  const page = document.getElementById("page");
  const detail = el("div", { class: "detail", id: "detail", "aria-live": "polite" });
  const fallback = document.getElementById("fallback");
  const words = fallback.querySelector("pre").textContent;
  const copyButton = el("button", { class: "no-print", onclick: () => copy(words, copyButton) }, "copy");
  const add = (...nodes) => page.append(...nodes.filter((node) => node !== null));
  // One explanation is enough to begin with; the others must not push the timeline off the page.
  const anomalies = data.anomalies.map((anomaly, i) => anomalyPanel(data, anomaly, i));
  add(headerPanel(data), verdictPanel(data), ...anomalies.slice(0, 1));
  add(el("section", { class: "card", id: "timeline", "aria-label": "timeline" },
    el("header", {}, el("h2", {}, "Timeline"), legend()), controls(), timelinePanel(), detail));
  add(...anomalies.slice(1));
  detailPanel(detail);
  add(faultPanel(data), latencyPanel(data), logPanel(data));
  add(el("section", { class: "card" }, el("details", {},
    el("summary", {}, "The same in words, as the terminal prints it"), copyButton, el("pre", {}, words))));
  fallback.hidden = true;
  page.hidden = false;
  for (const steps of page.querySelectorAll(".steps .scroll")) steps.scrollTop = steps.scrollHeight;
  layoutLanes();
  if (!followLink() && data.anomalies.length) focusAnomaly(0);
  addEventListener("hashchange", followLink);
  addEventListener("resize", redraw);
  addEventListener("beforeprint", () => { for (const paint of painters) paint(); });
  redraw();
  root.dataset.ops = String(data.ops.index.length);
  root.dataset.state = "ready";
}

function sayError(error) {
  const root = document.documentElement;
  root.dataset.state = "failed";
  root.dataset.error = String(error && error.stack ? error.stack : error);
  document.getElementById("fallback").hidden = false;
  document.getElementById("fallback").prepend(el("p", {}, `The page could not be drawn (${error}); here is the same in words.`));
}

addEventListener("error", (event) => sayError(event.error ?? event.message));
addEventListener("unhandledrejection", (event) => sayError(event.reason));
unpack(document.getElementById("data").textContent).then(build).catch(sayError);
