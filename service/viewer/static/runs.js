"use strict";

/* Ticking runs for a comparison, kept as ?ticked=KEY+KEY in the order in which they were ticked: live, differences are
   to the first. A copy on disk has some comparisons only, which the sections name. */
(() => {
  const bar = document.getElementById("compare");
  if (!bar) return;
  const [status, go, clear] = [bar.querySelector("p"), bar.querySelector("a"), bar.querySelector("button")];
  const live = bar.dataset.live === "yes";
  const boxes = new Map([...document.querySelectorAll(".task input")].map((box) => [box.value, box]));
  let ticked = (Fieldscope.state("ticked") ?? "").split("+").filter((key) => boxes.has(key));

  function show() {
    boxes.forEach((box, key) => (box.checked = ticked.includes(key)));
    Fieldscope.state("ticked", ticked.join("+"));
    const [words, address] = chosen();
    status.textContent = words;
    go.textContent = ticked.length > 1 ? `Compare ${ticked.length} runs` : "Compare";
    if (address) go.setAttribute("href", address);
    else go.removeAttribute("href");
    go.toggleAttribute("aria-disabled", !address);
    if (!address) go.setAttribute("aria-disabled", "true");
    clear.hidden = ticked.length === 0;
  }

  /* What to say, and where the comparison lies; no address where there is none. */
  function chosen() {
    if (ticked.length === 0) return ["Select two or more runs to compare them."];
    if (ticked.length === 1) return ["Select another run of the same benchmark to compare the two."];
    const tasks = new Set(ticked.map((key) => boxes.get(key).closest(".task")));
    if (tasks.size > 1) return ["These runs are of different benchmarks or splits. Select runs of one table."];
    if (live) return [`Differences are measured against ${nameOf(ticked[0])}.`, address(ticked)];
    const [task] = tasks;
    const available = task.dataset.available.split(" ").map((keys) => keys.split("+"));
    const same = available.filter((keys) => keys.length === ticked.length && keys.every((key) => ticked.includes(key)));
    const found = same.find((keys) => keys.join() === ticked.join()) ?? same[0];
    if (found) return [`Differences are measured against ${nameOf(found[0])}.`, address(found)];
    return ["This exported copy has no comparison of exactly these runs. It compares every two runs, and all of them."];
  }

  function nameOf(key) {
    return boxes.get(key).dataset.name;
  }

  function address(keys) {
    return `compare/${keys.join("+")}/index.html`;
  }

  boxes.forEach((box, key) => {
    box.hidden = boxes.size < 2;
    box.addEventListener("change", () => {
      ticked = box.checked ? [...ticked, key] : ticked.filter((other) => other !== key);
      show();
    });
  });
  clear.addEventListener("click", () => {
    ticked = [];
    show();
  });
  bar.hidden = boxes.size < 2;
  show();
})();

/* The filter of the runs, kept as ?q=WORDS: words of a name, strategy, model, tag or note. */
(() => {
  const form = document.getElementById("filters");
  if (!form) return;
  const rows = [...document.querySelectorAll(".task tbody tr")];
  const words = new Map(rows.map((row) => [row, [...row.cells].slice(1, 4).map((cell) => cell.textContent).join(" ").toLowerCase()]));
  const search = form.elements.q;

  function filter() {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const row of rows) {
      row.hidden = !wanted.every((word) => words.get(row).includes(word));
      left += !row.hidden;
    }
    for (const task of document.querySelectorAll(".task")) task.hidden = !task.querySelector("tbody tr:not([hidden])");
    form.querySelector("output").textContent = left < rows.length ? `${left} of ${rows.length} runs` : "";
  }

  search.value = Fieldscope.state("q") ?? "";
  search.addEventListener("input", () => {
    Fieldscope.state("q", search.value);
    filter();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  Fieldscope.keys({ "/": ["filter the runs", () => search.focus()] });
  form.hidden = rows.length < 2;
  filter();
})();
