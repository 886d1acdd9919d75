"use strict";

/* Prompts of two runs, edited side by side: the price of each changed side, then a job for each, and the comparison. */
(() => {
  const { find, words, counted, useKey, json, events, problem, trying, status } = Workbench;
  const form = find("#edit");
  const root = form.dataset.service;
  const go = find("button[type=submit]", form);
  const sides = ["A", "B"].map((letter) => ({ letter, name: form[`name-${letter}`], fields: [...form.querySelectorAll(`[data-side=${letter}] textarea`)] }));

  /* The prompts of a side whose words were changed: name -> {system, template}. */
  function changed(side) {
    const touched = new Set(side.fields.filter((field) => field.value.trim() !== field.defaultValue.trim()).map((field) => field.dataset.prompt));
    return Object.fromEntries(
      [...touched].map((prompt) => [prompt, Object.fromEntries(side.fields.filter((field) => field.dataset.prompt === prompt).map((field) => [field.name, field.value]))]),
    );
  }

  const work = () => sides.map((side) => ({ ...side, prompts: changed(side) })).filter((side) => Object.keys(side.prompts).length);
  const body = (side) => ({ prompts: side.prompts, queries: Number(form.queries.value), ...(side.name.value.trim() ? { name: side.name.value.trim() } : {}) });
  const address = (side) => `${root}v1/runs/${side.name.dataset.run}/reworded`;

  let pricing = 0;
  function price() {
    const mine = ++pricing;
    go.disabled = true;
    setTimeout(async () => {
      if (mine !== pricing) return;
      const now = work();
      find("[data-caveats]").hidden = true;
      if (!now.length || !form.checkValidity()) {
        find("[data-price]").textContent = now.length ? "" : "Change the words of a prompt to see what it costs.";
        return;
      }
      await trying(async () => {
        const costs = await Promise.all(now.map((side) => json(`${address(side)}/estimate`, "POST", body(side))));
        if (mine !== pricing) return;
        find("[data-price]").textContent = now.map((side, at) => `${side.letter} asks ${Workbench.price(costs[at])}, for ${counted(costs[at].queries, "query", "queries")}.`).join(" ");
        const caveats = [...new Set(costs.map((cost) => cost.caveat).filter(Boolean))];
        find("[data-caveats]").replaceChildren(...caveats.map((caveat) => words(`${caveat}.`, "li")));
        find("[data-caveats]").hidden = !caveats.length;
        go.disabled = false;
      });
    }, 250);
  }

  async function run() {
    await trying(async () => {
      go.disabled = true;
      const now = work();
      const begun = await Promise.all(now.map((side) => json(address(side), "POST", body(side))));
      const done = new Map();
      await Promise.all(begun.map((job, at) => follow(job, now[at].letter, done)));
      const keys = sides.map((side) => begun[now.findIndex((each) => each.letter === side.letter)]?.run ?? side.name.dataset.run);
      if (new Set(keys).size < 2) throw new Error("both sides have the same words; change one of them");
      location.assign(`${form.dataset.compare}${keys.join("+")}/index.html`);
    });
    go.disabled = false;
  }

  async function follow(begun, letter, done) {
    for await (const [kind, data] of events(`${root}${begun.events.slice(1)}`)) {
      if (kind === "advanced") {
        done.set(letter, data);
        show(done);
      }
      if (data.error) throw new Error(data.error.message);
      if (kind === "cancelled") throw new Error(`${letter} was cancelled; run it again`);
    }
  }

  function show(done) {
    const all = [...done.values()];
    const [finished, total] = ["done", "total"].map((name) => all.reduce((sum, each) => sum + each[name], 0));
    const line = find("[data-progress]");
    line.hidden = false;
    find("progress", line).max = total || 1;
    find("progress", line).value = finished;
    const text = `${finished} of ${counted(total, "query", "queries")}`;
    find("span", line).textContent = text;
    status(text);
  }

  form.addEventListener("input", price);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  find("#key").addEventListener("submit", (event) => {
    event.preventDefault();
    useKey(find("#key input").value.trim());
    find("#key input").value = "";
    find("#key").hidden = true;
    price();
  });
  price();
})();
