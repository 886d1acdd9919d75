"use strict";

/* The results of a search: a grid with filters, a cut-off line and marks, and the large picture beside it.

   Workbench.results.open(view)   shows a search as GET /v1/searches/ID gives it
   Workbench.results.close()      shows nothing */
Workbench.results = (() => {
  const { find, make, words, counted, percent, json, picture, trying, status } = Workbench;
  const MARKS = { accepted: "✓ accepted", rejected: "✗ rejected", unsure: "? unsure" };
  const tools = find("#tools");
  const grid = find("#grid");
  let view = null;
  let shown = []; // rows in their order in the grid
  let current = null; // an image id
  let selected = new Set();
  let refit = null; // image id -> {p_match, moved, place}
  let queue = null; // {images, blind}

  const row = (image) => view.results.find((each) => each.image === image);
  const p = (each) => refit?.get(each.image)?.p_match ?? each.p_match;

  function open(next) {
    const same = view?.id === next.id && view.query_id === next.query_id;
    view = next;
    if (!same) {
      [selected, refit, queue] = [new Set(), null, null];
      current = view.results[0]?.image ?? null;
      find("#changes").replaceChildren();
    }
    options();
    for (const link of document.querySelectorAll("[data-finds]")) {
      link.href = `v1/searches/${view.id}/${link.dataset.finds}?query_id=${encodeURIComponent(view.query_id)}`;
    }
    find("#found").hidden = false;
    draw();
  }

  function close() {
    view = null;
    find("#found").hidden = true;
  }

  /* Filters */

  function options() {
    const parts = view.predicates.flatMap((each) => [
      make("option", { value: `holds ${each.id}` }, `holds: ${each.question}`),
      make("option", { value: `fails ${each.id}` }, `does not hold: ${each.question}`),
    ]);
    const kept = tools.part.value;
    tools.part.replaceChildren(make("option", { value: "" }, "any"), ...parts);
    tools.part.value = [...tools.part.options].some((each) => each.value === kept) ? kept : "";
    const columns = [...new Set(view.results.flatMap((each) => Object.keys(each.metadata ?? {})))];
    find("[data-columns]").hidden = !columns.length;
    find("[data-alike]").hidden = !view.results.some((each) => each.alike.length);
    const column = tools.column.value;
    tools.column.replaceChildren(...columns.map((name) => make("option", { value: name }, name)));
    if (columns.includes(column)) tools.column.value = column;
  }

  function passes(each) {
    if (queue) return queue.images.includes(each.image);
    const wanted = tools.mark.value;
    if (wanted && (wanted === "none" ? each.mark !== null : each.mark !== wanted)) return false;
    const least = Number(tools.least.value) / 100;
    if (least && !((p(each) ?? -1) >= least)) return false;
    const text = tools.name.value.trim().toLowerCase();
    if (text && !each.name.toLowerCase().includes(text)) return false;
    const value = tools.value.value.trim().toLowerCase();
    if (value && !String(each.metadata?.[tools.column.value] ?? "").toLowerCase().includes(value)) return false;
    const [side, predicate] = tools.part.value.split(" ");
    if (!predicate) return true;
    const answer = each.parts.find((part) => part.predicate === predicate)?.p_expected ?? null;
    return answer !== null && answer > 0.5 === (side === "holds");
  }

  const orders = {
    rank: (a, b) => a.rank - b.rank,
    prior: (a, b) => a.prior_rank - b.prior_rank,
    name: (a, b) => a.name.localeCompare(b.name, "en", { numeric: true }),
    uncertain: (a, b) => Math.abs((p(a) ?? 2) - 0.5) - Math.abs((p(b) ?? 2) - 0.5),
    column: (a, b) =>
      String(a.metadata?.[tools.column.value] ?? "").localeCompare(String(b.metadata?.[tools.column.value] ?? ""), "en", { numeric: true }),
    marks: (a, b) => group(a) - group(b) || (refit?.get(a.image)?.place ?? a.rank) - (refit?.get(b.image)?.place ?? b.rank),
  };

  const group = (each) => ({ accepted: 0, rejected: 2 })[each.mark] ?? 1;

  /* The grid */

  function draw() {
    shown = view.results.filter(passes);
    if (queue) shown.sort((a, b) => queue.images.indexOf(a.image) - queue.images.indexOf(b.image));
    else shown.sort(orders[tools.sort.value] ?? orders.rank);
    if (!queue && !tools.alike.checked) shown = bestOfGroups(shown);
    if (!shown.some((each) => each.image === current)) current = shown[0]?.image ?? null;
    const cut = Number(tools.cut.value) / 100;
    const ordered = !queue && ["rank", "marks"].includes(tools.sort.value);
    const tiles = [];
    let above = 0;
    let drawn = false;
    for (const each of shown) {
      if (cut && ordered && !drawn && !((p(each) ?? -1) >= cut)) {
        drawn = true;
        tiles.push(make("div", { class: "cut", role: "presentation" }, `${counted(above, "image", "images")} at or above the line of ${percent(cut)}`));
      }
      above += 1;
      tiles.push(tile(each));
    }
    grid.replaceChildren(...tiles);
    grid.style.setProperty("--tile", `${tools.zoom.value}px`);
    summarise();
    point(false);
  }

  /* Of images that show the same, only the first in this order. */
  function bestOfGroups(rows) {
    const seen = new Set();
    return rows.filter((each) => {
      const group = each.alike[0] ?? each.image;
      if (seen.has(group)) return false;
      seen.add(group);
      return true;
    });
  }

  function tile(each) {
    const blind = queue?.blind;
    const moved = refit?.get(each.image)?.moved;
    const chance = p(each);
    return make(
      "div",
      { role: "option", id: `tile-${each.rank}`, class: "tile", "data-image": each.image, "data-mark": each.mark, "aria-selected": String(selected.has(each.image)) },
      picture(each.thumbnail, each.name),
      make(
        "span",
        { class: "line small" },
        blind ? null : make("b", {}, String(each.rank)),
        blind || chance === null ? null : make("span", {}, percent(chance)),
        moved && !blind ? make("span", { class: moved > 0 ? "better" : "worse" }, `${moved > 0 ? "▲" : "▼"} ${Math.abs(moved)}`) : null,
      ),
      words(each.name, "span", { class: "small soft name" }),
      each.alike.length && !tools.alike.checked ? make("span", { class: "chip small" }, `+${each.alike.length - 1} alike`) : null,
      each.mark ? make("span", { class: "chip small" }, MARKS[each.mark]) : null,
    );
  }

  function summarise() {
    const counts = Object.keys(MARKS).map((mark) => `${view.results.filter((each) => each.mark === mark).length} ${mark}`);
    find("[data-shown]").textContent = `${shown.length} of ${counted(view.results.length, "image", "images")} shown; ${counts.join(", ")}; ${selected.size} selected.`;
  }

  /* The current image */

  function point(scroll = true) {
    for (const each of grid.querySelectorAll(".tile")) {
      const here = each.dataset.image === current;
      each.classList.toggle("current", here);
      if (here && scroll) each.scrollIntoView({ block: "nearest" });
      if (here) grid.setAttribute("aria-activedescendant", each.id);
    }
    if (current === null) grid.removeAttribute("aria-activedescendant");
    Workbench.large.show(current === null ? null : row(current), view, { blind: Boolean(queue?.blind), p: current === null ? null : p(row(current)) });
  }

  function step(by) {
    const at = shown.findIndex((each) => each.image === current);
    const next = shown[Math.min(Math.max(at + by, 0), shown.length - 1)];
    if (!next) return;
    current = next.image;
    point();
  }

  const columns = () => getComputedStyle(grid).gridTemplateColumns.split(" ").length;

  function select(image, whole) {
    if (whole) {
      const [from, to] = [current, image].map((each) => shown.findIndex((one) => one.image === each)).sort((a, b) => a - b);
      shown.slice(from, to + 1).forEach((each) => selected.add(each.image));
    } else if (selected.has(image)) selected.delete(image);
    else selected.add(image);
    current = image;
    draw();
  }

  /* Marks */

  async function mark(kind) {
    const images = selected.size ? [...selected] : current === null ? [] : [current];
    if (!images.length) return;
    // The next image is current at once, so that keys may be pressed faster than the service replies.
    if (selected.size) selected = new Set();
    else step(1);
    await trying(async () => {
      const marks = Object.fromEntries(images.map((image) => [image, kind]));
      const saved = await json(`v1/searches/${view.id}/marks`, "POST", { marks, query_id: view.query_id, by: tools.by.value.trim() });
      for (const image of images) row(image).mark = saved.marks[image] ?? null;
      status(`${counted(images.length, "image is", "images are")} ${kind ?? "unmarked"}.`);
      draw();
    });
  }

  async function rerank() {
    await trying(async () => {
      const reply = await json(`v1/searches/${view.id}/refit?query_id=${encodeURIComponent(view.query_id)}`);
      refit = new Map(reply.images.map((each, place) => [each.image, { ...each, place }]));
      queue = null;
      tools.sort.value = "marks";
      find("#changes").replaceChildren(...reply.changes.map((sentence) => words(sentence, "p", { class: "small" })));
      status(reply.changes.join(" "));
      draw();
    });
  }

  async function review() {
    await trying(async () => {
      const blind = tools.blind.checked;
      const reply = await json(`v1/searches/${view.id}/queue`, "POST", { query_id: view.query_id, images: Number(tools.draws.value) });
      queue = { images: reply.waiting.map((each) => each.image), blind };
      current = queue.images[0] ?? null;
      find("#changes").replaceChildren(...reply.report.map((sentence) => words(sentence, "p", { class: "small" })));
      draw();
      grid.focus();
    });
  }

  function everything() {
    queue = null;
    draw();
  }

  tools.addEventListener("input", (event) => view && !["by", "draws", "blind"].includes(event.target.name) && draw());
  tools.addEventListener("submit", (event) => event.preventDefault());
  grid.addEventListener("click", (event) => {
    const image = event.target.closest(".tile")?.dataset.image;
    if (!image) return;
    if (event.shiftKey || event.ctrlKey || event.metaKey) select(image, event.shiftKey);
    else {
      current = image;
      point(false);
      if (matchMedia("(max-width: 860px)").matches) find("#large").scrollIntoView({ block: "start" });
    }
    grid.focus({ preventScroll: true });
  });
  const acts = {
    accept: () => mark("accepted"),
    reject: () => mark("rejected"),
    unsure: () => mark("unsure"),
    clear: () => mark(null),
    all: () => {
      selected = new Set(shown.map((each) => each.image));
      draw();
    },
    above: () => {
      const cut = Number(tools.cut.value) / 100;
      selected = new Set(shown.filter((each) => (p(each) ?? -1) >= cut).map((each) => each.image));
      draw();
    },
    none: () => {
      selected = new Set();
      draw();
    },
    rerank,
    review,
    everything,
  };
  document.addEventListener("click", (event) => {
    const act = event.target.closest("[data-act]")?.dataset.act;
    if (act && view) acts[act]?.();
  });
  const open_ = (act) => () => view && act();
  Fieldscope.keys({
    "j ArrowRight": ["next image", open_(() => step(1))],
    "k ArrowLeft": ["previous image", open_(() => step(-1))],
    ArrowDown: ["one row down", open_(() => step(columns()))],
    ArrowUp: ["one row up", open_(() => step(-columns()))],
    a: ["accept the image, or those selected", open_(acts.accept)],
    r: ["reject", open_(acts.reject)],
    s: ["unsure", open_(acts.unsure)],
    d: ["take the mark back", open_(acts.clear)],
    x: ["select the image", open_(() => current && select(current, false))],
    m: ["re-rank by the marks", open_(rerank)],
    n: ["what to look at next", open_(review)],
  });
  return { open, close };
})();
