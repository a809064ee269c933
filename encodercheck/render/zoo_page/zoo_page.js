"use strict";
// Search, filter and sort rows that are in the page already; what names hold is text, and stays it.
(() => {
  const CHUNK = 50;
  const part = id => document.getElementById(id);
  const table = part("models"), search = part("search"), more = part("more"), status = part("shown");
  const home = table.tBodies[0];
  const number = new Intl.NumberFormat("en");
  const alike = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  const rows = Array.from(table.tBodies).flatMap(body => Array.from(body.rows)).map((element, place) => {
    const [, model, check, , architecture] = Array.from(element.cells, cell => cell.textContent.trim());
    const { group, p, parameters, seconds } = element.dataset;
    const numeric = text => (text === undefined ? NaN : Number(text));
    return {
      element, group,
      text: `${model} ${architecture} ${check}`.toLowerCase(),
      // In the page the gravest come first.
      verdict: place, model, check, architecture,
      p: numeric(p), parameters: numeric(parameters), seconds: numeric(seconds),
    };
  });
  while (table.tBodies.length > 1) table.tBodies[1].remove();

  const columns = Array.from(table.tHead.rows[0].cells, cell => cell.dataset.column);
  const groups = Array.from(part("tiles").children, tile => tile.dataset.group);
  let state, ordered = rows, order = "verdict", matching = rows, laid = 0;

  function read() {
    const told = new URLSearchParams(location.hash.slice(1));
    const sort = told.get("sort") || "verdict";
    return {
      query: told.get("q") || "",
      groups: (told.get("verdict") || "").split(",").filter(group => groups.includes(group)),
      sort: columns.includes(sort.replace(/^-/, "")) ? sort : "verdict",
    };
  }

  function write() {
    const told = new URLSearchParams();
    if (state.query) told.set("q", state.query);
    if (state.groups.length) told.set("verdict", state.groups.join(","));
    if (state.sort !== "verdict") told.set("sort", state.sort);
    const hash = told.toString();
    // Replaced, so that "back" leaves the page and does not undo one letter after the other.
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }

  function compare(column, downward) {
    const empty = value => value === "" || Number.isNaN(value);
    return (one, other) => {
      const [a, b] = [one[column], other[column]];
      // What has no value comes last, whichever way round.
      if (empty(a) || empty(b)) return empty(a) - empty(b) || one.verdict - other.verdict;
      const sign = typeof a === "string" ? alike.compare(a, b) : a - b;
      return (downward ? -sign : sign) || one.verdict - other.verdict;
    };
  }

  function update() {
    if (order !== state.sort) {
      const downward = state.sort.startsWith("-");
      ordered = [...rows].sort(compare(state.sort.replace(/^-/, ""), downward));
      order = state.sort;
    }
    const terms = state.query.toLowerCase().split(/\s+/).filter(Boolean);
    matching = ordered.filter(row => (!state.groups.length || state.groups.includes(row.group))
      && terms.every(term => row.text.includes(term)));
    laid = 0;
    home.replaceChildren();
    lay(CHUNK);
    show();
  }

  function lay(count) {
    home.append(...matching.slice(laid, laid + count).map(row => row.element));
    laid = Math.min(laid + count, matching.length);
    more.hidden = laid >= matching.length;
  }

  function show() {
    const found = number.format(matching.length), all = number.format(rows.length);
    const models = rows.length === 1 ? "model" : "models";
    status.textContent = matching.length === rows.length ? `${all} ${models}`
      : `${matching.length ? found : "None"} of ${all} ${models}`;
    for (const tile of part("tiles").querySelectorAll("button"))
      tile.setAttribute("aria-pressed", state.groups.includes(tile.parentElement.dataset.group));
    for (const cell of table.tHead.rows[0].cells) {
      const downward = state.sort === `-${cell.dataset.column}`;
      if (downward || state.sort === cell.dataset.column)
        cell.setAttribute("aria-sort", downward ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
    part("reset").disabled = !state.query && !state.groups.length && state.sort === "verdict";
  }

  function change(changes) {
    Object.assign(state, changes);
    write();
    update();
  }

  function adopt() {
    state = read();
    search.value = state.query;
    update();
  }

  function button(inside, className, pressed) {
    const made = document.createElement("button");
    made.type = "button";
    made.className = className;
    made.append(...inside.childNodes);
    made.addEventListener("click", pressed);
    inside.append(made);
  }

  for (const cell of table.tHead.rows[0].cells) {
    const column = cell.dataset.column;
    button(cell, "sort", () => change({ sort: state.sort === column ? `-${column}` : column }));
  }
  for (const tile of part("tiles").children) {
    const group = tile.dataset.group;
    tile.classList.add("pressable");
    button(tile, "", () => change({
      groups: groups.filter(one => (one === group) !== state.groups.includes(one)),
    }));
  }
  search.addEventListener("input", () => change({ query: search.value }));
  part("reset").addEventListener("click", () => {
    search.value = "";
    change({ query: "", groups: [], sort: "verdict" });
    search.focus();
  });
  more.addEventListener("click", () => {
    const next = laid;
    lay(CHUNK);
    // Who came by keyboard goes on where the new rows begin.
    const link = matching[next].element.querySelector("a");
    if (link) link.focus();
  });
  new IntersectionObserver(seen => { if (seen.some(one => one.isIntersecting)) lay(CHUNK); },
    { rootMargin: "600px" }).observe(more);
  // The link that skips to the table is no state.
  addEventListener("hashchange", () => (location.hash === "#models" ? write() : adopt()));
  addEventListener("beforeprint", () => lay(matching.length));

  part("controls").hidden = false;
  table.classList.add("ready");
  adopt();
})();
