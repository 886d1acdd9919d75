"use strict";

/* The list of marks: found by words (?q=), by mark (?mark=) and by what is marked (?on=). */
(() => {
  const form = document.querySelector("[data-marks-filter]");
  if (!form) return;
  const rows = [...document.querySelectorAll("tr[data-mark]")];
  const told = form.querySelector("output");

  function filter() {
    const [words, mark, on] = ["q", "mark", "on"].map((name) => form.elements[name].value.trim());
    let shown = 0;
    for (const row of rows) {
      const fits =
        (!mark || row.dataset.mark === mark) &&
        (!on || row.dataset.on === on) &&
        row.textContent.toLowerCase().includes(words.toLowerCase());
      row.hidden = !fits;
      shown += fits;
    }
    told.textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
  }

  for (const field of form.querySelectorAll("[name]")) {
    field.value = Fieldscope.state(field.name) ?? "";
    field.addEventListener("input", () => {
      Fieldscope.state(field.name, field.value);
      filter();
    });
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  filter();
})();
