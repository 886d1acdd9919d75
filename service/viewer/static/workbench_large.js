"use strict";

/* The large picture beside the grid: Workbench.large.show(row, view, {blind, p}) with the boxes of closer looks drawn
   in, which parts hold, and why. */
Workbench.large = (() => {
  const { find, make, words, percent, picture } = Workbench;
  const place = find("#large-body");

  function show(row, view, { blind, p }) {
    if (row === null) {
      place.replaceChildren(make("p", { class: "soft" }, "No image passes the filters."));
      return;
    }
    const questions = new Map(view.predicates.map((each) => [each.id, each]));
    const image = picture(row.picture, row.name, { loading: "eager" });
    const frame = make("div", { class: "frame" }, image);
    const boxes = blind ? [] : row.looks.filter((look) => look.box);
    if (boxes.length) {
      const drawn = make("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" });
      for (const look of boxes) {
        const [left, top, right, bottom] = look.box;
        drawn.append(make("rect", { x: left, y: top, width: right - left, height: bottom - top, class: (look.p_expected ?? 0) > 0.5 ? "holds" : "fails" }));
      }
      frame.append(drawn);
    }
    const facts = blind
      ? []
      : [
          make("p", { class: "small" }, `Rank ${row.rank} (first stage ${row.prior_rank})`, p === null ? "" : `, P(match) ${percent(p)}`, row.judged === "not judged" ? ", not judged" : ""),
          parts(row.parts, questions),
          boxes.length ? looks(boxes, questions) : null,
          row.reason ? words(row.reason, "p", { class: "small" }) : null,
          metadata(row.metadata ?? {}),
          reference(row),
          make("p", { class: "small" }, make("a", { href: row.page.replace(/^\//, "") }, "Everything about this image")),
        ];
    place.replaceChildren(frame, words(row.name, "h3", { class: "name" }), ...facts.filter(Boolean));
  }

  function parts(answers, questions) {
    if (!answers.length) return null;
    const list = make("ul", { class: "questions small" });
    for (const part of answers) {
      const asked = questions.get(part.predicate);
      const holds = part.p_expected === null ? part.state.replace("_", " ") : `${part.p_expected > 0.5 ? "✓ holds" : "✗ does not hold"}, ${percent(part.p_expected)}`;
      const expected = asked?.expected === "no" ? " (must be no)" : "";
      list.append(make("li", {}, words(`${asked?.question ?? part.predicate}${expected}`), " ", make("span", { class: "chip" }, holds)));
    }
    return list;
  }

  function reference(row) {
    const button = make("button", { type: "button" }, "Use as reference image");
    button.addEventListener("click", () => document.dispatchEvent(new CustomEvent("fieldscope-reference", { detail: row.image })));
    return button;
  }

  function looks(boxes, questions) {
    const list = make("ol", { class: "small" });
    for (const look of boxes) {
      const said = look.p_expected === null ? look.state.replace("_", " ") : percent(look.p_expected);
      list.append(make("li", {}, words(questions.get(look.predicate)?.question ?? look.predicate), ` ${said}`));
    }
    return make("details", {}, make("summary", { class: "small" }, `${boxes.length} closer looks`), list);
  }

  function metadata(values) {
    const entries = Object.entries(values);
    if (!entries.length) return null;
    const list = make("dl", { class: "pairs small" });
    for (const [name, value] of entries) list.append(words(name, "dt"), words(String(value), "dd"));
    return list;
  }

  return { show };
})();
