"use strict";

/* Which queries the table shows: ?show=hurt|helped|even|unknown, ?group=KIND:NAME, ?q=WORDS. */
(() => {
  const form = document.getElementById("filters");
  const rows = [...document.getElementById("queries-table").tBodies[0].rows];
  const words = new Map(rows.map((row) => [row, `${row.cells[0].textContent} ${row.cells[1].textContent}`.toLowerCase()]));
  const sides = { hurt: "worse", helped: "better", even: "even" };
  const [search, group, told] = [form.elements.q, form.elements.group, form.querySelector("output")];

  function fits(row, show, wanted, members) {
    if (show === "unknown" && row.dataset.unknown === undefined) return false;
    if (sides[show] && row.dataset.side !== sides[show]) return false;
    if (members && !(row.dataset.groups ?? "").split("|").includes(members)) return false;
    return wanted.every((word) => words.get(row).includes(word));
  }

  function filter() {
    const show = Fieldscope.state("show") ?? "";
    const wanted = (Fieldscope.state("q") ?? "").toLowerCase().split(/\s+/);
    const members = Fieldscope.state("group");
    let left = 0;
    for (const row of rows) {
      row.hidden = !fits(row, show, wanted, members);
      left += !row.hidden;
    }
    form.querySelectorAll("[data-show]").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.show === show));
    });
    const all = rows.length === 1 ? "1 query" : `${rows.length} queries`;
    told.textContent = left === rows.length ? all : `${left} of ${all}`;
    document.getElementById("none-left").hidden = left > 0;
  }

  form.addEventListener("click", (event) => {
    const button = event.target.closest("[data-show]");
    if (!button) return;
    Fieldscope.state("show", button.dataset.show);
    filter();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  search.value = Fieldscope.state("q") ?? "";
  search.addEventListener("input", () => {
    Fieldscope.state("q", search.value);
    filter();
  });
  if (group) {
    group.value = Fieldscope.state("group") ?? "";
    group.addEventListener("change", () => {
      Fieldscope.state("group", group.value);
      filter();
    });
  }
  Fieldscope.keys({ "/": ["search the queries", () => search.focus()] });
  form.hidden = false;
  filter();
})();
