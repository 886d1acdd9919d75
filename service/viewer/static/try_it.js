"use strict";

/* Asks the service, and shows what it says while it says it. The state is in the address: ?q=&collection=&strategy=&
   budget=&precision=&confidence=; whoever opens it with a query gets the search. The API key, where one is wanted, goes along in a header. */
(() => {
  const $ = (selector, within = document) => within.querySelector(selector);
  const form = $("#ask");
  const KEY = "fieldscope-key";
  const TOP = 24;
  const REASONS = 3;
  const NEAREST = 5;
  let strategies = [];
  let running = null;

  function make(tag, attributes = {}, ...children) {
    const made = tag === "svg" || tag === "rect" ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  const words = (text, tag = "span", attributes = {}) => make(tag, { dir: "auto", ...attributes }, text);
  const counted = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

  /* The service */

  function key() {
    return sessionStorage.getItem(KEY);
  }

  async function ask(address, options = {}) {
    const headers = { ...options.headers, ...(key() ? { "X-API-Key": key() } : {}) };
    const response = await fetch(address, { ...options, headers });
    if (response.ok) return response;
    let sentence = `the service answered with status ${response.status}`;
    try {
      sentence = (await response.json()).error.message;
    } catch {
      // not one of the service's own answers: the status is all there is to say
    }
    if (response.status === 401) {
      sessionStorage.removeItem(KEY);
      $("#key").hidden = false;
      $("#key input").focus();
    }
    throw new Error(sentence);
  }

  /* A picture. An <img> sends no header, so with a key it is fetched, and shown as a data URL. */
  function picture(reference, size) {
    const [collection, id] = reference.replace(/^fieldscope:\/\//, "").split(/\/(.*)/s);
    const path = id.split("/").map(encodeURIComponent).join("/");
    const address = `v1/collections/${encodeURIComponent(collection)}/thumbnails/${path}`;
    const shown = make("img", { alt: id, loading: "lazy", width: size, height: size });
    if (!key()) {
      shown.src = address;
      return shown;
    }
    ask(address)
      .then((response) => response.blob())
      .then((blob) => {
        const reader = new FileReader();
        reader.addEventListener("load", () => (shown.src = reader.result));
        reader.readAsDataURL(blob);
      })
      .catch(() => {}); // its name stands for it
    return shown;
  }

  /* Server-sent events of a response, one at a time. */
  async function* events(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value;
      for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
        const fields = {};
        for (const line of text.slice(0, end).split("\n")) {
          const at = line.indexOf(": ");
          if (at > 0) fields[line.slice(0, at)] = line.slice(at + 2);
        }
        text = text.slice(end + 2);
        if (fields.event) yield [fields.event, JSON.parse(fields.data)];
      }
    }
  }

  /* Stages */

  const stage = (name) => $(`[data-stage="${name}"]`);
  const body = (name) => $("[data-body]", stage(name));

  function mark(name, state, text) {
    const shown = stage(name);
    shown.hidden = false;
    shown.dataset.state = state;
    $("[data-mark]", shown).textContent = text;
    $("[data-mark]", shown).className = `chip ${{ working: "accent", done: "match" }[state] ?? ""}`;
  }

  function finish(...names) {
    for (const name of names) {
      const chip = $("[data-mark]", stage(name));
      if (stage(name).dataset.state === "working") mark(name, "done", chip.textContent.replace(" so far", ""));
    }
  }

  function begin(strategy) {
    for (const shown of document.querySelectorAll("[data-stage]")) {
      $("[data-body]", shown).replaceChildren();
      shown.dataset.state = "waiting";
      $("[data-mark]", shown).textContent = "waiting";
      $("[data-mark]", shown).className = "chip";
      shown.hidden = !["retrieve", "rank", ...(strategy?.stages ?? [])].includes(shown.dataset.stage);
    }
    $("#stages").hidden = false;
    $("#found").hidden = true;
    $("#problem").hidden = true;
    $(".ranking").replaceChildren();
  }

  const looked = { images: 0, planned: 0, unknown: 0, cached: 0, answers: 0, compared: 0, waves: 0 };

  const show = {
    synthesized(data) {
      const rows = make("dl", { class: "pairs" });
      const row = (name, text) => text && rows.append(make("dt", {}, name), words(text, "dd"));
      if (data.round) row("refined", `round ${data.round}`);
      row("thought", data.thought);
      data.descriptions.forEach((text, at) => row(at ? "" : "descriptions", text));
      row("in the query’s own words", data.fallback && `no usable answer: ${data.fallback}`);
      body("synthesize").append(rows);
      mark("synthesize", "done", data.round ? `round ${data.round + 1}` : "done");
    },
    retrieved(data) {
      mark("retrieve", "done", counted(data.candidates, "picture", "pictures"));
    },
    decomposed(data) {
      const list = $(".questions", body("decompose")) ?? body("decompose").appendChild(make("ul", { class: "questions" }));
      for (const question of Object.values(data.new)) {
        const [, text, expected] = question.match(/^(.*) (yes|no)$/s) ?? [null, question, "yes"];
        list.append(make("li", {}, words(text), " ", make("span", { class: "chip" }, `must be ${expected}`)));
      }
      mark("decompose", "done", counted(data.predicates, "question", "questions"));
    },
    planned(data) {
      finish("retrieve");
      looked.planned += data.images ?? 0;
      if (!$("progress", body("verify"))) {
        body("verify").append(
          make("progress", { max: 1, value: 0, "aria-label": "Images verified" }),
          make("p", { class: "small soft", "data-counts": "" }),
          make("div", { class: "strip" }),
        );
      }
      mark("verify", "working", "looking");
    },
    verified(data) {
      looked.images += 1;
      looked.answers += data.states.answered ?? 0;
      looked.unknown += data.states.unknown ?? 0;
      looked.cached += data.cached;
      const bar = $("progress", body("verify"));
      bar.max = Math.max(looked.planned, looked.images);
      bar.value = looked.images;
      const unknown = looked.unknown ? `; ${looked.unknown} failed` : "";
      const cached = looked.cached ? `, ${looked.cached} of them from the cache` : "";
      $("[data-counts]", body("verify")).textContent = `${counted(looked.answers, "answer", "answers")}${cached}${unknown}`;
      const strip = $(".strip", body("verify"));
      if (![...strip.children].some((shown) => shown.dataset.of === data.image_id)) {
        const small = picture(data.image_id, 44);
        small.dataset.of = data.image_id;
        strip.append(small);
      }
      mark("verify", "working", `${counted(strip.children.length, "image", "images")} so far`);
    },
    assessed(data) {
      finish("verify");
      const { wanting: missing, again } = data;
      if (missing) body("verify").append(words(`${missing}${again ? " So the query is refined." : ""}`, "p"));
    },
    paired(data) {
      finish("verify");
      if (data.calls) mark("compare", "working", "comparing");
    },
    compared(data) {
      looked.compared += 1;
      const strip = $(".strip", body("compare")) ?? body("compare").appendChild(make("div", { class: "strip" }));
      if (looked.compared <= 12) strip.append(...data.shown.map((id) => picture(id, 44)), make("span", { "aria-hidden": "true" }, " "));
      mark("compare", "working", `${counted(looked.compared, "group", "groups")} so far`);
    },
    ranked(data) {
      finish("verify", "compare");
      for (const name of ["verify", "compare"]) {
        const shown = stage(name);
        if (!shown.hidden && shown.dataset.state === "waiting") mark(name, "waiting", data.ended ? "not reached" : "not needed");
      }
      const asked = [counted(data.answered, "answer", "answers")];
      if (data.unknown) asked.push(`${data.unknown} unknown`);
      if (data.not_asked) asked.push(`${data.not_asked} not asked`);
      if (data.ended) asked.push(`the budget ran out in ${data.ended}`);
      mark("rank", "done", asked.join(", "));
    },
  };

  /* The ranking */

  function moved(result) {
    const ranks = result.prior_rank - result.rank;
    if (!ranks) return make("span", { class: "even small" }, "as before");
    return make("span", { class: `${ranks > 0 ? "better" : "worse"} small` }, `${ranks > 0 ? "▲" : "▼"} ${Math.abs(ranks)} from ${result.prior_rank}`);
  }

  function bar(p) {
    return make(
      "svg",
      { viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
      make("rect", { width: 100, height: 6, rx: 1, fill: "var(--code)" }),
      make("rect", { width: (100 * p).toFixed(1), height: 6, rx: 1, class: "fill-match" }),
    );
  }

  function questionsOf(result, predicates) {
    if (!result.verdicts?.length) return null;
    const list = make("ul", { class: "questions small" });
    for (const verdict of result.verdicts) {
      const asked = predicates.find((predicate) => predicate.id === verdict.predicate);
      const said = verdict.state === "answered" ? `${Math.round(100 * verdict.p_expected)} % as expected` : verdict.state.replace("_", " ");
      list.append(make("li", {}, words(asked?.question ?? verdict.predicate), " ", make("span", { class: "chip" }, said)));
    }
    return make("details", {}, make("summary", { class: "small" }, "answers"), list);
  }

  /* What a table and the camera say of an image; no model saw it. */
  function metadataOf(result) {
    const cells = Object.entries(result.metadata ?? {});
    if (!cells.length) return null;
    const list = make("dl", { class: "pairs" });
    for (const [column, cell] of cells) list.append(words(column, "dt"), words(cell, "dd"));
    return make("details", {}, make("summary", { class: "small" }, "metadata"), list);
  }

  /* That no image seems to match: the sentences, and the nearest images with what they show and lack. */
  function nothing(said) {
    const section = $("[data-nothing]");
    section.hidden = !said;
    section.replaceChildren();
    if (!said) return;
    section.append(...said.sentences.map((sentence, at) => words(sentence, "p", at ? {} : { class: "sentence problem" })));
    if (!said.nearest.length) return;
    const list = make("ol", { class: "plain nearest small" });
    for (const near of said.nearest.slice(0, NEAREST)) {
      const parts = near.holds.length + near.fails.length + near.open.length;
      const lacks = [...near.fails, ...near.open.map((question) => `${question} (no answer)`)].join("; ");
      list.append(make("li", {}, words(near.image), `: ${near.holds.length} of ${parts} parts`, lacks && ", missing: ", words(lacks)));
    }
    section.append(make("p", {}, "Nearest by parts that hold:"), list);
  }

  /* What a promised precision keeps, what is promised, and what weakens it. */
  function promise(cutoff) {
    const section = $("[data-promise]");
    section.hidden = !cutoff;
    if (!cutoff) return;
    const kept = `Kept: ${counted(cutoff.kept, "image", "images")}, those with P(match) of at least ${cutoff.threshold.toFixed(3)}.`;
    section.replaceChildren(words([kept, cutoff.promise, ...cutoff.caveats].join(" ")));
  }

  function ranking(reply) {
    nothing(reply.nothing);
    promise(reply.cutoff);
    const list = $(".ranking");
    for (const result of reply.results) {
      const p = result.p_match;
      list.append(
        make(
          "li",
          {},
          picture(result.url, 160),
          make(
            "p",
            { class: "head" },
            make("span", { class: "place" }, `${result.rank}`),
            moved(result),
            p === null ? null : make("span", { class: "p small" }, `P(match) ${(100 * p).toFixed(p < 0.01 ? 1 : 0)} %`),
            result.kept ? make("span", { class: "chip match" }, "kept") : null,
          ),
          p === null ? null : bar(p),
          words(result.image, "p", { class: "id small soft" }),
          result.reason ? words(result.reason, "p", { class: "why small" }) : null,
          questionsOf(result, reply.predicates ?? []),
          metadataOf(result),
        ),
      );
    }
    const { usage } = reply;
    const trace = make("a", { href: `v1/traces/${encodeURIComponent(reply.trace_id)}/page` }, "Open the trace");
    const cost = `${counted(usage.calls, "question", "questions")} to the model, ${usage.cached} of them from the cache, ${counted(usage.total_tokens, "token", "tokens")}, ${usage.seconds.toFixed(1)}\u00a0s. `;
    const summary = $("[data-summary]");
    summary.replaceChildren(`The best ${reply.results.length} of ${reply.candidates}. ${cost}`, trace, " with every image and every answer.");
    if (reply.relative) summary.append(" P(match) is relative to this list of images; it can't be compared with that of another list.");
    for (const flag of reply.flags) summary.append(" ", words(flag, "span", { class: "chip worse" }));
    $("#found").hidden = false;
    const found = reply.nothing ? reply.nothing.sentences[0] : `${reply.results.length} images.`;
    $("#status").textContent = `The ranking is complete: ${found}`;
  }

  /* Asking */

  function strategyNow() {
    return strategies.find((strategy) => strategy.name === form.strategy.value);
  }

  function describe() {
    const strategy = strategyNow();
    if (!strategy) return;
    const { cost } = strategy;
    const asks = strategy.asks ? ` It asks ${cost.at_most ? "at most" : "about"} ${counted(cost.calls, "question", "questions")} for ${cost.candidates} images.` : " It asks no model.";
    $("[data-about]").textContent = strategy.description.trim() + asks;
  }

  function remember() {
    Fieldscope.state("q", form.q.value.trim());
    Fieldscope.state("collection", form.collection.value);
    Fieldscope.state("strategy", form.strategy.value);
    Fieldscope.state("budget", form.budget.value);
    Fieldscope.state("precision", form.precision.value);
    Fieldscope.state("confidence", form.precision.value && form.confidence.value);
  }

  function problem(sentence) {
    $("#problem").textContent = sentence;
    $("#problem").hidden = false;
  }

  async function search() {
    running?.abort();
    const mine = (running = new AbortController());
    remember();
    begin(strategyNow());
    for (const name of Object.keys(looked)) looked[name] = 0;
    $("[data-stop]").hidden = false;
    $("#status").textContent = "Searching.";
    const wanted = {
      query: form.q.value.trim(),
      collection: form.collection.value,
      strategy: form.strategy.value,
      top_n: TOP,
      explain: strategyNow()?.asks ? REASONS : 0,
      predicates: true,
      stream: true,
      ...(form.budget.value ? { budget: { max_calls: Number(form.budget.value) } } : {}),
      ...(form.precision.value ? { precision: Number(form.precision.value), confidence: Number(form.confidence.value) } : {}),
    };
    try {
      const response = await ask("v1/search", {
        method: "POST",
        headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
        body: JSON.stringify(wanted),
        signal: mine.signal,
      });
      let over = false;
      for await (const [kind, data] of events(response)) {
        if (mine !== running) return;
        if (kind === "error") throw new Error(data.error.message);
        if (kind === "result") ranking(data);
        else show[kind]?.(data);
        over ||= kind === "result";
      }
      if (!over) throw new Error("the service stopped before the ranking was complete. Try again.");
    } catch (error) {
      if (mine !== running) return;
      problem(error.name === "AbortError" ? "Stopped. Answers so far are kept in the cache." : error.message);
    } finally {
      if (mine === running) {
        running = null;
        $("[data-stop]").hidden = true;
      }
    }
  }

  function choices(select, names, chosen) {
    select.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
    if (names.includes(chosen)) select.value = chosen;
  }

  async function start() {
    try {
      const [collections, offered] = await Promise.all(
        ["v1/collections", "v1/strategies"].map((address) => ask(address).then((response) => response.json())),
      );
      strategies = offered.strategies;
      const searchable = collections.collections.filter((each) => each.searchable).map((each) => each.name);
      choices(form.collection, searchable, Fieldscope.state("collection"));
      choices(form.strategy, strategies.map((each) => each.name), Fieldscope.state("strategy"));
      describe();
      if (!searchable.length) throw new Error("No collection can be searched. Start the service with a collection and an encoder.");
      $("#key").hidden = true;
      $("#problem").hidden = true;
      if (form.q.value.trim()) search();
    } catch (error) {
      problem(error.message);
    }
  }

  // Somebody may have begun to type while this script was on its way.
  form.q.value = Fieldscope.state("q") ?? form.q.value;
  for (const name of ["budget", "precision", "confidence"]) {
    const [field, usual] = [form[name], form[name].value];
    field.value = Fieldscope.state(name) || usual;
    if (field.selectedIndex < 0) field.value = usual;
  }
  form.strategy.addEventListener("change", describe);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  $("[data-stop]").addEventListener("click", () => running?.abort());
  $("#key").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, $("#key input").value.trim());
    $("#key input").value = "";
    start();
  });
  Fieldscope.keys({ "/": ["to the query field", () => form.q.focus()] });
  start();
})();
