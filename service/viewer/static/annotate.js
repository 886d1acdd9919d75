"use strict";

/* Marks are taken without leaving the page. Where that fails, the form is sent as it would be without a script. */
(() => {
  const page = () => document.querySelector("#annotate");

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.matches(".mark-form") || !event.submitter) return;
    event.preventDefault();
    const fields = new URLSearchParams(new FormData(form));
    fields.set(event.submitter.name, event.submitter.value);
    const label = event.submitter.getAttribute("aria-label");
    try {
      const answer = await fetch(location.pathname + location.search, { method: "POST", body: fields });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("#annotate");
      if (!answer.ok || !fresh) throw new Error(answer.statusText);
      page().replaceWith(fresh);
      // What was pressed keeps the focus, or after taking a mark back what stands beside it.
      const buttons = [...fresh.querySelectorAll("button")];
      const same = buttons.find((button) => button.getAttribute("aria-label") === label);
      (same ?? fresh.querySelector(`[name=predicate][value="${CSS.escape(fields.get("predicate"))}"]`)?.form.querySelector("button"))?.focus();
    } catch {
      const mark = document.createElement("input");
      mark.type = "hidden";
      mark.name = event.submitter.name;
      mark.value = event.submitter.value;
      form.append(mark);
      form.submit();
    }
  });
})();
