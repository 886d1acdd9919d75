"use strict";

/* The two prompts that are compared are ?a=NAME&b=NAME, the example that was opened is ?call=KEY. */
(() => {
  const { state } = window.Fieldscope;
  const form = document.querySelector("form[data-pick]");
  const pairs = [...document.querySelectorAll(".pair")];

  function choose() {
    const [a, b] = [form.a.value, form.b.value];
    for (const pair of pairs) {
      const chosen = [a, b].includes(pair.dataset.a) && [a, b].includes(pair.dataset.b) && a !== b;
      pair.hidden = !chosen;
      pair.open = chosen;
    }
    document.querySelector("[data-hint]").hidden = Boolean(a && b);
    document.querySelector("[data-same]").hidden = !(a && a === b);
  }

  if (form) {
    form.hidden = false;
    for (const select of [form.a, form.b]) {
      select.value = [...select.options].some((option) => option.value === state(select.name)) ? state(select.name) : "";
      select.addEventListener("change", () => {
        state(select.name, select.value);
        choose();
      });
    }
    form.addEventListener("submit", (event) => event.preventDefault());
    choose();
  }

  const examples = [...document.querySelectorAll(".example")];
  const asked = examples.find((example) => example.dataset.call && example.dataset.call === state("call"));
  if (asked) {
    asked.parentElement.querySelectorAll(".example").forEach((example) => (example.open = example === asked));
    asked.scrollIntoView();
  }
  for (const example of examples) {
    example.querySelector("summary").addEventListener("click", () => state("call", example.open ? null : example.dataset.call));
  }
})();
