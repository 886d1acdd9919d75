"use strict";

/* A link to a call opens it, and the one that was opened last is in the address. */
(() => {
  const named = () => (location.hash.length > 1 ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null);

  function open() {
    const call = named();
    if (!call?.matches("details.raw")) return;
    call.open = true;
    call.scrollIntoView();
  }

  document.querySelectorAll("details.raw").forEach((call) =>
    call.addEventListener("toggle", () => {
      if (call.open === (named() === call)) return;
      history.replaceState(null, "", location.pathname + location.search + (call.open ? `#${call.id}` : ""));
    }),
  );
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#call-"]');
    if (link && link.hash === location.hash) open(); // no change of the hash tells of it
  });
  window.addEventListener("hashchange", open);
  open();
})();
