"use strict";

/* The views of the ranking: ?view=matrix or flow, the grid without; all=1 shows every tile of the grid. */
(() => {
  const { state, keys } = window.Fieldscope;
  const views = [...document.querySelectorAll("[data-view]")];
  const tabs = [...document.querySelectorAll("[data-tab]")];
  const grid = document.getElementById("grid");
  const more = document.querySelector("[data-all]");

  function show(wanted) {
    const known = views.some((view) => view.dataset.view === wanted) ? wanted : "grid";
    views.forEach((view) => (view.hidden = view.dataset.view !== known));
    tabs.forEach((tab) => {
      if (tab.dataset.tab === known) tab.setAttribute("aria-current", "true");
      else tab.removeAttribute("aria-current");
    });
    return known;
  }

  function open(wanted) {
    const known = show(wanted);
    state("view", known === "grid" ? null : known);
    const heading = document.getElementById("ranking");
    const { top } = heading.getBoundingClientRect();
    if (top < 0 || top > innerHeight / 2) heading.scrollIntoView();
  }

  function all(shown) {
    grid.classList.toggle("short", !shown);
    more.textContent = shown ? `Show the first ${grid.querySelectorAll(".tile:not(.later)").length}` : more.dataset.words;
  }

  tabs.forEach((tab) =>
    tab.addEventListener("click", (event) => {
      event.preventDefault();
      open(tab.dataset.tab);
    }),
  );

  if (more) {
    more.hidden = false;
    more.dataset.words = more.textContent;
    more.addEventListener("click", () => {
      const shown = grid.classList.contains("short");
      state("all", shown ? "1" : null);
      all(shown);
    });
    all(state("all") === "1");
  }

  show(state("view"));
  const others = { g: ["the grid of images", () => open("grid")] };
  if (tabs.some((tab) => tab.dataset.tab === "flow")) others.f = ["the rank flow", () => open("flow")];
  keys(others);
})();
