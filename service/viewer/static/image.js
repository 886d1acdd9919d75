"use strict";

/* Another image of the ranking, chosen to see what separates the two. */
(() => {
  const form = document.querySelector("[data-above]");
  if (!form) return;
  form.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    location.assign(form.querySelector("select").value);
  });
})();
