"use strict";

/* What every page's script stands on. It runs before the page is drawn, so that hidden truth never shows.

   Fieldscope.state(name)          a parameter of this page's address, or null
   Fieldscope.state(name, value)   writes it; null or "" takes it away. `truth` goes along to every page of the site.
   Fieldscope.sortable(table)      sorts <table data-sortable="NAME"> by its <th data-key="KEY">: by the cells'
                                   data-value (numbers as such), else by their text; nothing comes last. A third click
                                   restores the order. Kept as ?sort=KEY&down=1 for the page's first table, or the one with
                                   data-main, and as ?NAME-sort=KEY&NAME-down=1 for others; tables of one name are
                                   sorted together. A column starts with its largest numbers, or its first words;
                                   data-first="up" or "down" says otherwise. Every such table is made sortable by itself.
   Fieldscope.keys({"j ArrowRight": [words, act]})   keyboard shortcuts, told in the help
   Fieldscope.truth(shown)         shows or hides what .truth marks; without an argument says whether it shows

   An element with data-matrix or data-compare is what the keys m and c press. */
window.Fieldscope = (() => {
  const query = new URLSearchParams(location.search);
  const shortcuts = new Map(); // a key's name -> what it does
  const described = []; // [the keys, in words what they do]
  const sortings = new Map(); // a name -> {tables, prefix}

  function state(name, value) {
    if (value === undefined) return query.get(name);
    if (value === null || value === "") query.delete(name);
    else query.set(name, value);
    const text = query.toString();
    history.replaceState(null, "", location.pathname + (text ? `?${text}` : "") + location.hash);
    if (name === "truth") document.querySelectorAll("a[href]").forEach(carry);
    return value;
  }

  /* A link to a page of this site keeps the truth hidden. */
  function carry(link) {
    const given = link.getAttribute("href");
    if (/^([a-z][a-z0-9+.-]*:|#|\/\/)/i.test(given) || link.hasAttribute("download")) return;
    const url = new URL(given, location.href);
    if (!/(\.html|\/)$/.test(url.pathname)) return;
    const [, path, search, hash] = given.match(/^([^?#]*)\??([^#]*)(#.*)?$/);
    const carried = new URLSearchParams(search);
    if (query.get("truth")) carried.set("truth", query.get("truth"));
    else if (carried.has("truth")) carried.delete("truth");
    else return;
    const text = carried.toString();
    link.setAttribute("href", path + (text ? `?${text}` : "") + (hash || ""));
  }

  function truth(shown) {
    if (shown === undefined) return document.documentElement.dataset.truth !== "hide";
    document.documentElement.dataset.truth = shown ? "show" : "hide";
    state("truth", shown ? null : "hide");
    const button = document.querySelector("[data-toggle-truth]");
    if (button) button.textContent = shown ? "Hide truth" : "Show truth";
    return shown;
  }

  /* Sorting */

  function sortable(table) {
    const name = table.dataset.sortable;
    const main = document.querySelector("table[data-main]") ?? document.querySelector("table[data-sortable]");
    if (!sortings.has(name)) sortings.set(name, { tables: [], prefix: name === main.dataset.sortable ? "" : `${name}-` });
    const { tables, prefix } = sortings.get(name);
    if (tables.includes(table)) return;
    tables.push(table);
    table.tBodies[0]?.querySelectorAll(":scope > tr").forEach((row, place) => (row.dataset.place = place));
    for (const head of table.tHead?.querySelectorAll("th[data-key]") ?? []) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      button.addEventListener("click", () => choose(name, head));
      head.append(button);
    }
    if (state(`${prefix}sort`)) arrange(table, prefix);
  }

  function choose(name, head) {
    const { tables, prefix } = sortings.get(name);
    const key = head.dataset.key;
    const starts = head.dataset.first ? head.dataset.first === "down" : numeric(head);
    const now = state(`${prefix}sort`) === key ? state(`${prefix}down`) === "1" : null;
    const next = now === null ? starts : now === starts ? !starts : null;
    state(`${prefix}sort`, next === null ? null : key);
    state(`${prefix}down`, next ? "1" : null);
    tables.forEach((table) => arrange(table, prefix));
  }

  function arrange(table, prefix) {
    const key = state(`${prefix}sort`);
    const down = state(`${prefix}down`) === "1";
    const body = table.tBodies[0];
    if (!body) return;
    const rows = [...body.rows].sort((a, b) => a.dataset.place - b.dataset.place);
    let by = null;
    for (const head of table.tHead.querySelectorAll("th[data-key]")) {
      if (head.dataset.key === key) by = head;
      head.removeAttribute("aria-sort");
    }
    if (by) {
      by.setAttribute("aria-sort", down ? "descending" : "ascending");
      const asNumbers = numeric(by);
      const values = new Map(rows.map((row) => [row, valueOf(row.cells[by.cellIndex])]));
      rows.sort((a, b) => {
        const [one, other] = [values.get(a), values.get(b)];
        if (one === "" || other === "") return (one === "") - (other === "");
        const order = asNumbers ? one - other : one.localeCompare(other, "en", { numeric: true });
        return down ? -order : order;
      });
    }
    body.append(...rows);
  }

  function valueOf(cell) {
    return (cell?.dataset.value ?? cell?.textContent ?? "").trim();
  }

  function numeric(head) {
    const rows = head.closest("table").tBodies[0]?.rows ?? [];
    const values = [...rows].map((row) => valueOf(row.cells[head.cellIndex])).filter((value) => value !== "");
    return values.length > 0 && values.every((value) => Number.isFinite(Number(value)));
  }

  /* The keyboard */

  function keys(given) {
    for (const [names, [words, act]] of Object.entries(given)) {
      described.push([names.split(" "), words]);
      names.split(" ").forEach((name) => shortcuts.set(name, act));
    }
  }

  function pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (document.querySelector("dialog[open]")) return;
    if (event.target.closest?.("input:not([type=checkbox]), textarea, select, [contenteditable]")) return;
    // Within a table that is too wide, the arrows are for scrolling.
    if (event.key.startsWith("Arrow") && event.target.closest?.(".wide, [role=slider], [type=radio]")) return;
    const act = shortcuts.get(event.key);
    if (!act) return;
    event.preventDefault();
    act();
  }

  function press(selector) {
    document.querySelector(selector)?.click();
  }

  function help() {
    const dialog = document.createElement("dialog");
    dialog.setAttribute("aria-labelledby", "help-title");
    const title = document.createElement("h2");
    title.id = "help-title";
    title.textContent = "Keyboard shortcuts";
    const list = document.createElement("dl");
    list.className = "pairs";
    for (const [names, words] of described) {
      const [what, does] = [document.createElement("dt"), document.createElement("dd")];
      names.forEach((name) => {
        const key = document.createElement("kbd");
        key.textContent = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" }[name] ?? name;
        what.append(key, " ");
      });
      does.textContent = words;
      list.append(what, does);
    }
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = "Close";
    close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.append(title, list, close);
    document.body.append(dialog);
    dialog.showModal();
  }

  function begin() {
    const has = (selector) => document.querySelector(selector) !== null;
    if (has("a[data-next]")) keys({ "j ArrowRight": ["next", () => press("a[data-next]")] });
    if (has("a[data-previous]")) keys({ "k ArrowLeft": ["previous", () => press("a[data-previous]")] });
    if (has("a[data-up]")) keys({ u: ["up: the page above", () => press("a[data-up]")] });
    if (has(".truth")) {
      keys({ t: ["show or hide the human judgments", () => truth(!truth())] });
      const button = document.querySelector("[data-toggle-truth]");
      button.hidden = false;
      button.addEventListener("click", () => truth(!truth()));
    }
    if (has("[data-matrix]")) keys({ m: ["the matrix of images and questions", () => press("[data-matrix]")] });
    if (has("[data-compare]")) keys({ c: ["compare with other runs", () => press("[data-compare]")] });
    keys({ "?": ["this help", help] });
    const button = document.querySelector("[data-help]");
    button.hidden = false;
    button.addEventListener("click", help);
    document.querySelectorAll("table[data-sortable]").forEach(sortable);
    if (state("truth") === "hide") truth(false);
    document.addEventListener("keydown", pressed);
    // Links that a page's own script makes.
    const late = (event) => event.target.closest?.("a[href]") && carry(event.target.closest("a[href]"));
    document.addEventListener("click", late, true);
  }

  document.documentElement.dataset.truth = query.get("truth") === "hide" ? "hide" : "show";
  document.addEventListener("DOMContentLoaded", begin);
  return { state, sortable, keys, truth };
})();
