"use strict";

/* The search page: the form with its price, the questions before they are asked, the kept searches, and one of them
   opened. ?search=ID opens a search and asks no model; ?q= only fills in the form. */
(() => {
  const { find, make, words, counted, useKey, json, events, problem, trying, status } = Workbench;
  const form = find("#ask");
  const REASONS = 3;
  let strategies = [];
  let opened = null; // the search that is shown, or at work
  let following = null;

  /* The form */

  const strategyNow = () => strategies.find((each) => each.name === form.strategy.value);

  function request() {
    const asks = strategyNow()?.asks;
    return {
      query: form.q.value.trim(),
      collection: form.collection.value,
      strategy: form.strategy.value,
      explain: asks ? REASONS : 0,
      ...(form.top_k.value ? { top_k: Number(form.top_k.value) } : {}),
      ...(form.reference.value.trim() ? { reference: form.reference.value.trim() } : {}),
      ...(conditions().length ? { filter: conditions() } : {}),
      ...(dialogue().length ? { dialogue: dialogue() } : {}),
      ...(form.budget.value ? { budget: { max_calls: Number(form.budget.value) } } : {}),
      ...(form.precision.value ? { precision: Number(form.precision.value), confidence: Number(form.confidence.value) } : {}),
      predicates: questions.given() ?? false,
    };
  }

  /* Rounds of a dialogue: a line for each, with the question and its answer around a bar. */
  function dialogue() {
    const rounds = form.dialogue.value.split("\n").filter((line) => line.includes("|"));
    return rounds.map((line) => {
      const [question, ...answer] = line.split("|");
      return { question: question.trim(), answer: answer.join("|").trim() };
    });
  }

  const conditions = () => form.filter.value.split("\n").map((line) => line.trim()).filter(Boolean);

  let pricing = 0;
  function price() {
    const strategy = strategyNow();
    if (!strategy) return;
    find("[data-about]").textContent = strategy.description.trim();
    const mine = ++pricing;
    setTimeout(async () => {
      if (mine !== pricing || !form.q.value.trim()) return;
      try {
        const cost = await json("v1/searches/estimate", "POST", request());
        if (mine !== pricing) return;
        find("[data-price]").textContent = cost.calls ? `It asks ${Workbench.price(cost)} for ${counted(cost.candidates, "image", "images")}.` : "It asks no model.";
      } catch (error) {
        if (mine === pricing) find("[data-price]").textContent = error.message;
      }
    }, 250);
  }

  function fill(wanted) {
    form.q.value = wanted.query ?? "";
    for (const name of ["collection", "strategy", "top_k", "reference"]) if (wanted[name] !== undefined) form[name].value = wanted[name];
    form.budget.value = wanted.budget?.max_calls ?? "";
    form.dialogue.value = (wanted.dialogue ?? []).map((round) => `${round.question} | ${round.answer}`).join("\n");
    form.filter.value = Array.isArray(wanted.filter) ? wanted.filter.join("\n") : (wanted.filter ?? "");
    questions.set(Array.isArray(wanted.predicates) ? wanted.predicates : []);
    price();
  }

  /* The questions that are asked of each image */

  const questions = (() => {
    const list = find("#questions-list");
    const rows = () => [...list.children];

    function add(each = { question: "", expected: "yes" }) {
      const number = list.children.length + 1;
      const question = make("input", { name: "question", maxlength: 500, dir: "auto", "aria-label": `Question ${number}` });
      question.value = each.question;
      const expected = make("select", { name: "expected", "aria-label": `Answer that a match gives to question ${number}` });
      expected.append(...["yes", "no"].map((answer) => make("option", { value: answer }, answer)));
      expected.value = each.expected;
      const weight = make("input", { name: "weight", type: "number", min: 0, max: 10, step: 0.5, "aria-label": `Weight of question ${number}` });
      weight.value = each.weight ?? 1;
      const remove = make("button", { type: "button", "aria-label": `Remove question ${number}` }, "Remove");
      const line = make("li", { class: "line" }, question, expected, weight, remove);
      remove.addEventListener("click", () => line.remove());
      list.append(line);
      return question;
    }

    function given() {
      const asked = rows().map((line) => ({
        question: find("[name=question]", line).value.trim(),
        expected: find("[name=expected]", line).value,
        weight: Number(find("[name=weight]", line).value),
      }));
      const filled = asked.filter((each) => each.question);
      return filled.length ? filled : null;
    }

    function set(all) {
      list.replaceChildren();
      all.forEach((each) => add(each));
    }

    async function derive() {
      await trying(async () => {
        find("#questions").open = true;
        status("The model reads the query.");
        const reply = await json("v1/predicates", "POST", { ...request(), predicates: false });
        set(reply.predicates);
        const made = `${counted(reply.predicates.length, "question", "questions")}. Change them, and search.`;
        status([made, ...reply.flags].join(" "));
      });
    }

    find("[data-derive]").addEventListener("click", derive);
    find("[data-add]").addEventListener("click", () => add().focus());
    find("[data-reset]").addEventListener("click", () => set([]));
    return { given, set };
  })();

  /* Searching, and following a search at work */

  async function search() {
    await trying(async () => {
      const begun = await json("v1/searches", "POST", request());
      Fieldscope.state("search", begun.id);
      await follow(begun);
    });
  }

  async function follow(begun) {
    following?.abort();
    const mine = (following = new AbortController());
    opened = begun;
    Workbench.results.close();
    Workbench.stages.begin(strategies.find((each) => each.name === begun.strategy));
    find("[data-stop]").hidden = false;
    status("Searching.");
    try {
      for await (const [kind, data] of events(`v1/jobs/${begun.job}/events`, mine.signal)) {
        if (mine !== following) return;
        Workbench.stages.show(kind, data);
      }
      if (mine === following) await open(begun.id);
    } catch (error) {
      if (mine === following) problem(error.message);
    } finally {
      if (mine === following) find("[data-stop]").hidden = true;
      await list();
    }
  }

  async function open(id, query = null) {
    const wanted = query === null ? "" : `?query_id=${encodeURIComponent(query)}`;
    const view = await json(`v1/searches/${encodeURIComponent(id)}${wanted}`);
    opened = view;
    if (["waiting", "running"].includes(view.state)) return follow(view);
    find("#search-title").textContent = view.name;
    const facts = [view.strategy, view.collection, view.usage && `${counted(view.usage.calls, "question", "questions")}, ${view.usage.cached} of them from the cache`];
    find("[data-summary]").replaceChildren(facts.filter(Boolean).join(" · "), " ");
    if (view.page) find("[data-summary]").append(make("a", { href: view.page.replace(/^\//, "") }, "Everything that led to it"));
    for (const flag of view.flags ?? []) find("[data-summary]").append(" ", words(flag, "span", { class: "chip worse" }));
    find("[data-nothing]").replaceChildren(...(view.nothing?.sentences ?? []).map((sentence) => words(sentence, "p", { class: "sentence problem" })));
    if (view.state !== "done") {
      Workbench.results.close();
      problem(view.problem ?? `This search was ${view.state} and has no ranking. Repeat it.`);
      return undefined;
    }
    find("#stages details").open = false;
    const several = find("[data-queries]");
    several.hidden = view.queries.length < 2;
    find("select", several).replaceChildren(...view.queries.map((each) => make("option", { value: each.id }, each.text || each.id)));
    find("select", several).value = view.query_id;
    Workbench.results.open(view);
    status(`The ranking is complete: ${counted(view.results.length, "image", "images")}.`);
    return view;
  }

  /* The kept searches */

  async function list() {
    const wanted = find("#kept-words").value.trim();
    const reply = await json(`v1/searches?limit=50&q=${encodeURIComponent(wanted)}`);
    const alike = (each) => opened && each.page && each.id !== opened.id && each.query === opened.query && each.collection === opened.collection;
    find("#kept-list").replaceChildren(
      ...reply.searches.map((each) => {
        const link = make("a", { href: `?search=${encodeURIComponent(each.id)}`, dir: "auto", ...(each.id === opened?.id ? { "aria-current": "true" } : {}) }, each.name);
        const marked = each.marks.accepted ? `, ${each.marks.accepted} accepted` : "";
        const about = ` ${each.strategy ?? ""} · ${each.created.slice(0, 16).replace("T", " ")} · ${each.state}${marked} `;
        const compare = alike(each) ? make("a", { href: `searches/compare/${opened.id}+${each.id}/index.html` }, "Compare") : null;
        const button = (name, act) => {
          const made = make("button", { type: "button", "aria-label": `${name} ${each.name}` }, name);
          made.addEventListener("click", () => trying(act));
          return made;
        };
        return make(
          "li",
          { class: "line" },
          make("span", { class: "grow" }, link, make("span", { class: "soft small" }, about), compare),
          button("Rename", () => rename(each)),
          button("Repeat", () => repeat(each)),
          button("Delete", () => remove(each)),
        );
      }),
    );
    find("#kept").hidden = !reply.searches.length && !wanted;
  }

  async function rename(each) {
    const name = window.prompt("Name of the search", each.name)?.trim();
    if (!name) return;
    await json(`v1/searches/${each.id}`, "PATCH", { name });
    if (opened?.id === each.id) find("#search-title").textContent = name;
    await list();
  }

  async function repeat(each) {
    const begun = await json(`v1/searches/${each.id}/repeat`, "POST");
    Fieldscope.state("search", begun.id);
    await follow(begun);
  }

  async function remove(each) {
    if (!window.confirm(`Delete “${each.name}” with its marks?`)) return;
    await json(`v1/searches/${each.id}`, "DELETE");
    if (opened?.id === each.id) {
      opened = null;
      Fieldscope.state("search", null);
      Workbench.results.close();
    }
    await list();
  }

  /* The beginning */

  function choices(select, names, chosen) {
    select.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
    if (names.includes(chosen)) select.value = chosen;
  }

  async function start() {
    try {
      const [collections, offered] = await Promise.all([json("v1/collections"), json("v1/strategies")]);
      strategies = offered.strategies;
      const searchable = collections.collections.filter((each) => each.searchable).map((each) => each.name);
      choices(form.collection, searchable, Fieldscope.state("collection"));
      choices(form.strategy, strategies.map((each) => each.name), Fieldscope.state("strategy"));
      find("#key").hidden = true;
      problem(searchable.length ? "" : "No collection can be searched. Start the service with a collection and an encoder.");
      const id = Fieldscope.state("search");
      if (id) {
        const view = await json(`v1/searches/${encodeURIComponent(id)}`);
        fill(view.request);
        await open(id);
      } else price();
      await list();
    } catch (error) {
      problem(error.message);
    }
  }

  form.q.value = Fieldscope.state("q") ?? form.q.value;
  form.addEventListener("input", price);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  find("[data-stop]").addEventListener("click", () => opened?.job && trying(() => json(`v1/jobs/${opened.job}/cancel`, "POST")));
  find("[data-queries] select").addEventListener("change", (event) => trying(() => open(opened.id, event.target.value)));
  document.addEventListener("fieldscope-reference", (event) => {
    form.reference.value = event.detail;
    form.reference.closest("details").open = true;
    form.q.focus();
    price();
    status("The image is the reference; say what changes, and search.");
  });
  find("#kept-words").addEventListener("input", () => trying(list));
  find("#key").addEventListener("submit", (event) => {
    event.preventDefault();
    useKey(find("#key input").value.trim());
    find("#key input").value = "";
    start();
  });
  Fieldscope.keys({ "/": ["to the query field", () => form.q.focus()] });
  start();
})();
