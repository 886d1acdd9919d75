"use strict";

/* Compare: the filters of the table of queries (?q=, ?show=won|lost|tied, ?of=LETTER of the run, ?group=), how much of
   the rankings shows (?top=10|20|all), and the lines of the image that is pointed at. */
(() => {
  const { state } = Fieldscope;

  function filters(form) {
    const rows = [...document.querySelectorAll("table[data-filtered] > tbody > tr")];
    const controls = [...form.elements].filter((control) => control.name);
    const value = (name) => form.elements[name]?.value ?? "";
    const texts = new Map(rows.map((row) => [row, row.cells[0].textContent.toLowerCase()]));

    function apply() {
      const words = value("q").toLowerCase().split(/\s+/).filter(Boolean);
      const of = (value("of") || "B").toLowerCase();
      let shown = 0;
      for (const row of rows) {
        const fits =
          words.every((word) => texts.get(row).includes(word)) &&
          (!value("show") || row.getAttribute(`data-${of}`) === value("show")) &&
          (!value("group") || row.querySelector("[data-group]")?.textContent === value("group"));
        row.hidden = !fits;
        shown += fits;
      }
      form.querySelector("[data-shown]").textContent = shown < rows.length ? `${shown} of ${rows.length}` : "";
      document.querySelector("[data-none]").hidden = shown > 0;
    }

    function changed(control) {
      const first = control instanceof HTMLSelectElement && control.selectedIndex === 0;
      state(control.name, first ? null : control.value);
      apply();
    }

    for (const control of controls) {
      const kept = state(control.name);
      if (kept !== null) control.value = kept;
      if (control instanceof HTMLSelectElement && control.selectedIndex < 0) control.selectedIndex = 0;
      control.addEventListener("input", () => changed(control));
    }
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    apply();
  }

  function rankings(box) {
    const places = [...box.querySelectorAll("[data-place]")];
    const buttons = [...document.querySelectorAll("[data-top]")];

    function show(top) {
      for (const place of places) place.hidden = top !== "all" && Number(place.dataset.place) > Number(top);
      for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.top === top));
    }

    const [usual] = buttons;
    for (const button of buttons) {
      button.addEventListener("click", () => {
        state("top", button === usual ? null : button.dataset.top);
        show(button.dataset.top);
      });
    }
    const kept = buttons.find((button) => button.dataset.top === state("top")) ?? usual;
    kept.parentElement.hidden = false;
    show(kept.dataset.top);

    function point(event) {
      const image = event.target.closest?.("[data-image]")?.dataset.image;
      box.classList.toggle("pointing", image !== undefined);
      for (const part of box.querySelectorAll(".lit")) part.classList.remove("lit");
      if (image === undefined) return;
      for (const part of box.querySelectorAll(`[data-image="${image}"]`)) part.classList.add("lit");
    }

    box.addEventListener("pointerover", point);
    box.addEventListener("pointerleave", point);
    box.addEventListener("focusin", point);
    box.addEventListener("focusout", point);
  }

  document.querySelectorAll("form[data-filters]").forEach(filters);
  document.querySelectorAll("[data-rankings]").forEach(rankings);
})();
