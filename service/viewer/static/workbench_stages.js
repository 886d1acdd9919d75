"use strict";

/* The stages of a search as they happen: Workbench.stages.begin(strategy), and .show(kind, data) for each event. */
Workbench.stages = (() => {
  const { find, make, words, counted, picture } = Workbench;
  const stage = (name) => find(`[data-stage="${name}"]`);
  const body = (name) => find("[data-body]", stage(name));
  const looked = {};

  function mark(name, state, text) {
    const shown = stage(name);
    shown.hidden = false;
    shown.dataset.state = state;
    find("[data-mark]", shown).textContent = text;
    find("[data-mark]", shown).className = `chip ${{ working: "accent", done: "match" }[state] ?? ""}`;
  }

  function finish(...names) {
    for (const name of names) {
      const chip = find("[data-mark]", stage(name));
      if (stage(name).dataset.state === "working") mark(name, "done", chip.textContent.replace(" so far", ""));
    }
  }

  function begin(strategy) {
    Object.assign(looked, { images: 0, planned: 0, unknown: 0, cached: 0, answers: 0, compared: 0 });
    for (const shown of document.querySelectorAll("[data-stage]")) {
      find("[data-body]", shown).replaceChildren();
      shown.dataset.state = "waiting";
      find("[data-mark]", shown).textContent = "waiting";
      find("[data-mark]", shown).className = "chip";
      shown.hidden = !["retrieve", "rank", ...(strategy?.stages ?? [])].includes(shown.dataset.stage);
    }
    find("#stages").hidden = false;
    find("#stages details").open = true;
  }

  /* A thumbnail of an image of a registered collection, which a trace names as fieldscope://COLLECTION/ID. */
  function small(reference) {
    const [collection, id] = reference.replace(/^fieldscope:\/\//, "").split(/\/(.*)/s);
    const path = (id ?? "").split("/").map(encodeURIComponent).join("/");
    return picture(`v1/collections/${encodeURIComponent(collection)}/thumbnails/${path}`, id ?? reference, { width: 44, height: 44 });
  }

  const handlers = {
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
      const list = find(".questions", body("decompose")) ?? body("decompose").appendChild(make("ul", { class: "questions" }));
      for (const question of Object.values(data.new)) {
        const [, text, expected] = question.match(/^(.*) (yes|no)$/s) ?? [null, question, "yes"];
        list.append(make("li", {}, words(text), " ", make("span", { class: "chip" }, `must be ${expected}`)));
      }
      mark("decompose", "done", counted(data.predicates, "question", "questions"));
    },
    planned(data) {
      finish("retrieve");
      looked.planned += data.images ?? 0;
      if (!find("progress", body("verify"))) {
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
      const bar = find("progress", body("verify"));
      bar.max = Math.max(looked.planned, looked.images);
      bar.value = looked.images;
      const unknown = looked.unknown ? `; ${looked.unknown} failed` : "";
      const cached = looked.cached ? `, ${looked.cached} of them from the cache` : "";
      find("[data-counts]", body("verify")).textContent = `${counted(looked.answers, "answer", "answers")}${cached}${unknown}`;
      const strip = find(".strip", body("verify"));
      if (![...strip.children].some((shown) => shown.dataset.of === data.image_id)) {
        const shown = small(data.image_id);
        shown.dataset.of = data.image_id;
        strip.append(shown);
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
    compared() {
      looked.compared += 1;
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

  return { begin, show: (kind, data) => handlers[kind]?.(data) };
})();
