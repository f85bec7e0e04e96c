// Everything that is text: header, verdicts, anomalies, tables, logs.

function chip(verdict, big) {
  const name = verdict ?? "none";
  const word = verdict === null ? "NO VERDICT" : name.toUpperCase();
  return el("span", { class: `chip v-${name}${big ? " big" : ""}` }, `${VERDICT_SIGN[name]} ${word}`);
}

function card(id, title, ...children) {
  return el("section", { class: "card", id, "aria-label": title },
    el("header", {}, el("h2", {}, title)), children);
}

function headerPanel(data) {
  const command = (name, text) => {
    if (!text) return null;
    const button = el("button", { class: "no-print", onclick: () => copy(text, button) }, "copy");
    return el("div", { class: "command" }, el("span", { class: "soft" }, name), el("code", {}, text), button);
  };
  return el("section", { class: `card v-${data.verdict ?? "none"}`, id: "top" },
    el("div", { class: "row" },
      chip(data.verdict, true), el("h1", {}, data.title),
      el("span", { class: "soft mono" }, data.seed === null ? "" : `seed ${data.seed}`),
      el("button", { class: "no-print", id: "theme", onclick: toggleTheme, title: "light or dark" }, "◐")),
    el("p", { class: "cause" }, data.cause),
    command("re-run", data.rerun), command("re-check", data.recheck),
    el("dl", { class: "facts" }, data.facts.map(([name, value]) =>
      el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
    data.errors.length ? el("ul", { class: "notices errors" },
      data.errors.map((error) => el("li", {}, "rig error: " + error))) : null,
    data.notices.length ? el("ul", { class: "notices", id: "notices" },
      data.notices.map((notice) => el("li", {}, notice))) : null);
}

function verdictPanel(data) {
  if (!data.checkers.length) return null;
  return card("verdicts", "Verdict by checker", data.checkers.map((checker) =>
    el("div", { class: "checker" },
      chip(checker.verdict), el("b", {}, checker.name),
      el("div", { class: "body" },
        el("div", {}, checker.summary),
        checker.hint ? el("div", { class: "hint" }, "→ " + checker.hint) : null,
        checker.findings.map(findingRow),
        checker.findings_cut
          ? el("div", { class: "soft" }, `… and ${checker.findings_cut} more findings in results.json`) : null))));
}

function findingRow(finding) {
  // An explained finding has its own section: here only the headline.
  const text = finding.anomaly === null ? finding.message : finding.message.split("\n")[0];
  if (finding.start === null) return el("div", { class: "finding" }, text);
  const show = () => (finding.anomaly !== null ? focusAnomaly(finding.anomaly) : focusFinding(finding));
  return el("button", { class: "finding", title: "show on the timeline", onclick: () => { show(); toTimeline(); } }, text);
}

function opRow(row, cells) {
  return el("tr", { class: "link", tabindex: "0",
    onclick: () => { goTo(row); toTimeline(); },
    onkeydown: (event) => { if (event.key === "Enter") { goTo(row); toTimeline(); } } },
    cells.map((cell) => (cell instanceof Node && cell.tagName === "TD" ? cell : el("td", {}, cell))));
}

function table(names, rows) {
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, names.map((name) =>
      el("th", { class: name.startsWith("#") ? "num" : null }, name.replace("#", ""))))),
    el("tbody", {}, rows)));
}

const right = (text) => el("td", { class: "num" }, text);
const mono = (text) => el("td", { class: "mono" }, text);

function anomalyPanel(data, anomaly, place) {
  const ops = app.ops;
  const number = new Map(anomaly.steps.map((step, i) => [step.op, anomaly.steps_cut + i + 1]));
  const rejected = new Set(anomaly.rejected.map((entry) => entry.op));
  const name = anomaly.key === null ? "the history" : `key ${anomaly.key}`;
  const state = anomaly.state;
  return el("section", { class: "card anomaly", id: `anomaly-${place}`, "aria-label": `anomaly of ${name}` },
    el("header", {},
      el("h2", {}, `Why ${name} is invalid`),
      el("span", { class: "soft" }, `${seconds(anomaly.start)} – ${seconds(anomaly.end)}`),
      el("button", { class: "side no-print", onclick: () => { focusAnomaly(place); toTimeline(); } }, "show on the timeline")),
    el("div", { class: "why" },
      el("div", {},
        el("h3", {}, "What cannot come next"),
        anomaly.rejected.map((entry) => el("div", { class: "rejected" },
          el("div", {}, el("b", {}, `✗ ${ops.label[entry.op]}`),
            el("span", { class: "soft" }, `  op ${ops.index[entry.op]}, process ${ops.process[entry.op]}, ${seconds(ops.call[entry.op])}`)),
          el("div", {}, entry.reason))),
        anomaly.core.length ? [el("h3", {}, "These contradict each other, whatever became of the others"),
          table(["operation", "#op", "#process", "#invoked", "#completed"], anomaly.core.map((row) => opRow(row, [
            mono(ops.label[row]), right(ops.index[row]), right(ops.process[row]), right(seconds(ops.call[row])),
            right(ops.took[row] < 0 ? "–" : seconds(ops.ret[row]))])))] : null,
        el("details", {}, el("summary", {}, "as the checker words it"), el("pre", {}, anomaly.message))),
      el("div", { class: "steps" },
        el("h3", {}, anomaly.steps.length
          ? `Longest linearizable prefix${anomaly.steps_cut ? ` (after ${anomaly.steps_cut} earlier steps)` : ""}`
          : "No operation can come first"),
        anomaly.steps.length ? table(["#step", "operation", "leaves state", "#op", "#process", "#at"],
          anomaly.steps.map((step, i) => opRow(step.op, [
            right(el("span", { class: "num-dot" }, anomaly.steps_cut + i + 1)),
            mono(ops.label[step.op]), mono(step.state ?? (i === anomaly.steps.length - 1 ? state ?? "" : "")),
            right(ops.index[step.op]), right(ops.process[step.op]), right(seconds(step.at))]))) : null)),
    el("details", {},
      el("summary", {}, `all ${anomaly.ops.length} operations of ${name} around the window` +
        (anomaly.ops_cut ? ` (${anomaly.ops_cut} earlier ones left out)` : "")),
      opTable(anomaly.ops, (row) => (number.has(row) ? String(number.get(row)) : rejected.has(row) ? "✗" : ""))));
}

function opTable(rows, mark) {
  const ops = app.ops;
  return table(["", "#op", "#process", "node", "operation", "outcome", "#invoked", "#completed", "#took", "error"],
    rows.map((row) => opRow(row, [
      mark(row), right(ops.index[row]), right(ops.process[row]), opNode(row) ?? "", mono(ops.label[row]),
      el("td", { class: "o-" + OUTCOMES[ops.outcome[row]] }, OUTCOMES[ops.outcome[row]]),
      right(seconds(ops.call[row])), right(ops.took[row] < 0 ? "–" : seconds(ops.ret[row])),
      right(duration(ops.took[row])), ops.error[row] ?? ""])));
}

function faultPanel(data) {
  if (!data.faults.length) return null;
  const bit = { true: "✓ yes", false: "✗ no", null: "– nobody looked" };
  return card("faults", "Faults", table(
    ["#fault", "kind", "nodes", "plan", "#planned", "#applied", "bit", "evidence", "#undone", "#held", "error"],
    data.faults.map((fault) => {
      const start = fault.applied ?? fault.planned ?? 0;
      const end = fault.undone ?? data.end;
      const show = () => { setView(start - (end - start) * .2, end + (end - start) * .2); toTimeline(); };
      return el("tr", { class: "link", tabindex: "0", onclick: show,
        onkeydown: (event) => { if (event.key === "Enter") show(); } },
        right(fault.id), el("td", {}, el("b", {}, fault.kind)), el("td", {}, fault.targets.join(", ")), mono(fault.plan),
        right(seconds(fault.planned)), right(seconds(fault.applied)), el("td", { class: "mark" }, bit[fault.bit]), mono(fault.evidence),
        right(fault.undone === null ? "never" : seconds(fault.undone)),
        right(fault.applied === null || fault.undone === null ? "–" : duration(fault.undone - fault.applied)),
        el("td", {}, fault.error ?? ""));
    })));
}

function latencyPanel(data) {
  if (!data.latencies.length) return null;
  return card("latencies", "Operations and latency", table(
    ["f", "#ok", "#fail", "#info", "#p50", "#p95", "#p99", "#max"],
    data.latencies.map((row) => el("tr", {}, el("td", {}, el("b", {}, row.f)), right(row.ok), right(row.fail), right(row.info),
      right(duration(row.p50)), right(duration(row.p95)), right(duration(row.p99)), right(duration(row.max))))));
}

const LOG_ROWS_MAX = 500;

function logPanel(data) {
  if (!data.logs.length) return null;
  const shown = new Set(data.logs.map((log) => log.name));
  const hasTimes = data.logs.some((log) => log.at.some((at) => at !== null));
  let scope = hasTimes ? "view" : "all";
  const list = el("div", { class: "log", tabindex: "0", "aria-label": "node logs" });
  const note = el("span", { class: "soft" });
  const search = el("input", { placeholder: "text in the log", "aria-label": "text in the log", oninput: () => { painted = ""; redraw(); } });
  const choice = el("select", { "aria-label": "which lines", onchange: () => { scope = choice.value; painted = ""; redraw(); } },
    hasTimes ? el("option", { value: "view" }, "of the visible time ± 0.25 s") : null,
    hasTimes ? el("option", { value: "cursor" }, "± 0.5 s around the selected op") : null,
    el("option", { value: "all" }, "all"));
  let painted = "";
  let visible = true;
  painters.push(() => {
    const { from, to } = scope === "view" ? { from: app.view.from - 2.5e5, to: app.view.to + 2.5e5 }
      : scope === "cursor" && app.cursor !== null ? { from: app.cursor - 5e5, to: app.cursor + 5e5 } : { from: -Infinity, to: Infinity };
    const state = [from, to, scope, search.value, [...shown].join()].join("|");
    if (!visible || state === painted) return;
    painted = state;
    const wanted = search.value.toLowerCase();
    const lines = [];
    for (const log of data.logs) {
      if (!shown.has(log.name)) continue;
      log.text.forEach((text, i) => {
        const at = log.at[i];
        if (scope !== "all" && (at === null || at < from || at > to)) return;
        if (wanted && !text.toLowerCase().includes(wanted)) return;
        lines.push([at, log.name, text]);
      });
    }
    lines.sort((a, b) => (a[0] ?? -1) - (b[0] ?? -1));
    const kept = lines.slice(0, LOG_ROWS_MAX);
    note.textContent = kept.length < lines.length
      ? `the first ${kept.length} of ${lines.length} lines: zoom in or search` : `${lines.length} lines`;
    if (!kept.length) list.replaceChildren(el("p", { class: "soft" }, "no line: zoom out, or show all"));
    else list.replaceChildren(...kept.map(([at, name, text]) => {
      const tone = /panic|traceback|assert|fatal|\berror\b/i.test(text) ? "bad" : /\bwarn/i.test(text) ? "warn" : null;
      return el("div", {}, el("span", { class: "soft" }, at === null ? "" : seconds(at)), el("b", {}, name), el("span", { class: tone }, text));
    }));
  });
  const toggles = data.logs.map((log) => {
    const button = el("button", { "aria-pressed": "true", onclick: () => {
      shown.has(log.name) ? shown.delete(log.name) : shown.add(log.name);
      button.setAttribute("aria-pressed", String(shown.has(log.name)));
      redraw();
    } }, log.name);
    return button;
  });
  return card("logs", "Node logs", el("div", { class: "row no-print" }, toggles, choice, search, note), el("br"), list);
}

function detailPanel(box) {
  let painted = null;
  painters.push(() => {
    const row = app.hover >= 0 ? app.hover : app.pinned;
    const state = row + "/" + app.pinned;
    if (state === painted) return;
    painted = state;
    if (row < 0) {
      box.replaceChildren(el("p", { class: "soft" }, "Point at an operation to see it, click to keep it. "),
        el("p", { class: "soft no-print" }, "wheel or ", el("kbd", {}, "+"), " ", el("kbd", {}, "-"), " zoom · drag or ",
          el("kbd", {}, "←"), " ", el("kbd", {}, "→"), " pan · ", el("kbd", {}, "n"), " ", el("kbd", {}, "p"), " next, previous operation · ",
          el("kbd", {}, "a"), " anomaly · ", el("kbd", {}, "0"), " everything · ", el("kbd", {}, "/"), " filter · ", el("kbd", {}, "Esc"), " let go"));
      return;
    }
    const ops = app.ops;
    const during = app.data.faults.filter((fault) => (fault.applied ?? fault.planned ?? Infinity) <= ops.ret[row] && (fault.undone ?? Infinity) >= ops.call[row]);
    const anomaly = app.data.anomalies[app.anomaly];
    const reasons = anomaly ? anomaly.rejected.filter((entry) => entry.op === row).map((entry) => entry.reason) : [];
    const facts = [
      ["op", ops.index[row] + (ops.ret_index[row] < 0 ? "" : `–${ops.ret_index[row]}`)], ["process", ops.process[row]], ["node", opNode(row)],
      ["key", opKey(row)], ["invoked with", ops.value[row]], ["returned", ops.result[row]], ["error", ops.error[row]],
      ["invoked", seconds(ops.call[row], 6)], ["completed", ops.took[row] < 0 ? "never" : seconds(ops.ret[row], 6)], ["took", duration(ops.took[row])],
      ["during", during.map((fault) => `${fault.kind} ${fault.targets.join(",")}`).join("; ") || null], ["rejected", reasons.join("; ") || null]];
    box.replaceChildren(
      el("div", { class: "row" }, el("b", { class: "mono" }, ops.label[row]),
        el("span", { class: "o-" + OUTCOMES[ops.outcome[row]] }, ops.outcome[row] === 3 ? "open: it never completed" : OUTCOMES[ops.outcome[row]]),
        app.pinned === row ? el("span", { class: "soft" }, "kept") : null),
      el("dl", {}, facts.filter(([, value]) => value !== null && value !== undefined)
        .map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))));
  });
}
