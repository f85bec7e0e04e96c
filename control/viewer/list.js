"use strict";
/* The run list: filter, sort, choose two, and keep up with what goes on. The rows come from the
   server as markup in which every value is escaped; nothing here makes markup of text. */

const POLL_MS = 2000;
const FIELDS = { verdict: 1, started: 2, name: 2, workload: 3, faults: 4, env: 5, seed: 6, ok: 7, fail: 8, info: 9, revision: 11, why: 12 };

const form = document.querySelector("form");
const body = document.querySelector("#runs tbody");
const filter = document.getElementById("filter");
const sorting = { column: 0, kind: "", descending: false };
let version = form.dataset.version;

function textOf(row, column) {
  return row.cells[column].textContent.trim();
}

/** `a b` both, `-a` not, `field:a` in a column, `field=a` the whole of it, quotes around spaces. */
function compile(query) {
  const terms = query.match(/-?(?:[a-z]+[:=])?(?:"[^"]*"?|[^\s"]+)/gi) || [];
  return terms.map((term) => {
    const [, not, field, sign, quoted] = term.match(/^(-?)(?:([a-z]+)([:=]))?(.*)$/is);
    const text = quoted.replaceAll('"', "").toLowerCase();
    const column = field && FIELDS[field.toLowerCase()];
    let test;
    if (field && column === undefined) {
      const plain = term.slice(not.length).toLowerCase();
      test = (row) => row.textContent.toLowerCase().includes(plain);
    } else if (sign === "=") {
      const bare = (value) => value.replaceAll(" ", "");
      test = (row) => bare(textOf(row, column).toLowerCase()) === bare(text);
    } else {
      test = (row) => (field ? row.cells[column] : row).textContent.toLowerCase().includes(text);
    }
    return not ? (row) => !test(row) : test;
  });
}

function applyFilter() {
  const tests = compile(filter.value);
  let shown = 0;
  for (const row of body.rows) {
    row.hidden = !tests.every((test) => test(row));
    if (!row.hidden) shown++;
  }
  const all = body.rows.length;
  document.getElementById("count").textContent = shown === all ? String(all) : `${shown} of ${all}`;
  const query = filter.value.trim();
  history.replaceState(null, "", query ? "?q=" + encodeURIComponent(query) : location.pathname);
}

function sort() {
  const { column, kind, descending } = sorting;
  const keyed = [...body.rows].map((row) => {
    const text = textOf(row, column || 2);
    if (!column) return [/^\d{4}-/.test(text) ? text : "", row];
    return [kind === "num" ? (text === "" ? -1 : Number(text)) : text, row];
  });
  const down = column ? descending : true;
  keyed.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1));
  body.append(...keyed.map(([, row]) => row));
}

for (const button of document.querySelectorAll("button.sort")) {
  button.addEventListener("click", () => {
    const column = Number(button.dataset.column);
    const again = sorting.column === column;
    Object.assign(sorting, { column, kind: button.dataset.kind, descending: again ? !sorting.descending : button.dataset.kind === "num" });
    for (const head of document.querySelectorAll("#runs th")) head.removeAttribute("aria-sort");
    button.parentElement.setAttribute("aria-sort", sorting.descending ? "descending" : "ascending");
    sort();
  });
}

const compare = document.getElementById("compare");
function countChosen() {
  compare.disabled = body.querySelectorAll("input:checked").length !== 2;
}
body.addEventListener("change", countChosen);

filter.addEventListener("input", applyFilter);
filter.addEventListener("keydown", (event) => { if (event.key === "Enter") event.preventDefault(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && event.target === document.body) { event.preventDefault(); filter.focus(); }
});
document.getElementById("grid")?.addEventListener("click", (event) => {
  const tile = event.target.closest("a.tile");
  if (!tile) return;
  event.preventDefault();
  filter.value = new URL(tile.href).searchParams.get("q");
  applyFilter();
  form.scrollIntoView({ behavior: "smooth" });
});

function take(rows, gone) {
  const template = document.createElement("template");
  for (const [id, markup] of Object.entries(rows)) {
    template.innerHTML = markup;
    const fresh = template.content.firstElementChild;
    const old = document.getElementById(id);
    if (old) {
      fresh.querySelector("input").checked = old.querySelector("input").checked;
      old.replaceWith(fresh);
    } else {
      fresh.classList.add("new");
      body.prepend(fresh);
    }
  }
  for (const id of gone) document.getElementById(id)?.remove();
}

async function poll() {
  const live = document.getElementById("live");
  try {
    if (!document.hidden) {
      const answer = await fetch("/live?version=" + encodeURIComponent(version));
      if (!answer.ok) throw new Error(answer.statusText);
      const news = await answer.json();
      if (news.reload) return location.reload();
      if (news.version !== version) {
        version = news.version;
        take(news.rows, news.gone);
        const grid = document.getElementById("grid");
        if (grid) grid.innerHTML = news.grid;
        sort();
        applyFilter();
        countChosen();
      }
      live.textContent = news.running ? `${news.running} running` : "";
    }
  } catch {
    live.textContent = "labrys serve does not answer";
  }
  setTimeout(poll, POLL_MS);
}

filter.value = new URLSearchParams(location.search).get("q") || "";
countChosen();
applyFilter();
setTimeout(poll, POLL_MS);
