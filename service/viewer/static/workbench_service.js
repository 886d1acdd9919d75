"use strict";

/* What the scripts of the search page share: elements made from data as text only, and requests to the service.

   Workbench.make(tag, attributes, ...children)   an element; children are texts and elements
   Workbench.price(cost)                          an estimate in words
   Workbench.ask(address, options)                a response, or an error with the service's own sentence
   Workbench.json(address, method, body)          the parsed reply
   Workbench.events(address)                      [kind, data] of each server-sent event
   Workbench.picture(address, name, attributes)   an <img>; with an API key its data are fetched with it */
window.Workbench = (() => {
  const KEY = "fieldscope-key";
  const SVG = "http://www.w3.org/2000/svg";
  const DRAWN = new Set(["svg", "rect"]);

  const find = (selector, within = document) => within.querySelector(selector);

  function make(tag, attributes = {}, ...children) {
    const made = DRAWN.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== undefined) made.setAttribute(name, value);
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  const words = (text, tag = "span", attributes = {}) => make(tag, { dir: "auto", ...attributes }, text);
  const counted = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
  const percent = (p) => `${(100 * p).toFixed(p < 0.01 || (p > 0.99 && p < 1) ? 1 : 0)} %`;

  /* What an estimate says, such as "at most 120 questions and 9,000 tokens (0.02 USD)". */
  function price(cost) {
    const tokens = counted(cost.prompt_tokens + cost.completion_tokens, "token", "tokens");
    const money = cost.amount === null ? "" : ` (${cost.amount.toFixed(cost.amount < 0.1 ? 4 : 2)} ${cost.currency})`;
    return `${cost.at_most ? "at most" : "about"} ${counted(cost.calls, "question", "questions")} and ${tokens}${money}`;
  }

  const key = () => sessionStorage.getItem(KEY);

  function useKey(secret) {
    sessionStorage.setItem(KEY, secret);
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
      find("#key").hidden = false;
      find("#key input").focus();
    }
    throw new Error(sentence);
  }

  async function json(address, method = "GET", body = undefined) {
    const sent = body === undefined ? {} : { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    return (await ask(address, { method, ...sent })).json();
  }

  /* An <img> sends no header, so with a key it is fetched, and shown as a data URL. */
  function picture(address, name, attributes = {}) {
    const shown = make("img", { alt: name, loading: "lazy", ...attributes });
    if (!address) return shown;
    const place = address.replace(/^\//, "");
    if (!key()) {
      shown.src = place;
      return shown;
    }
    ask(place)
      .then((response) => response.blob())
      .then((blob) => {
        const reader = new FileReader();
        reader.addEventListener("load", () => (shown.src = reader.result));
        reader.readAsDataURL(blob);
      })
      .catch(() => {}); // its name stands for it
    return shown;
  }

  async function* events(address, signal) {
    const response = await ask(address, { headers: { Accept: "text/event-stream" }, signal });
    if (!response.body) return;
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

  function problem(sentence) {
    find("#problem").textContent = sentence;
    find("#problem").hidden = !sentence;
  }

  /* Runs an action; what goes wrong is said on the page. */
  async function trying(action) {
    try {
      problem("");
      return await action();
    } catch (error) {
      problem(error.message);
      return undefined;
    }
  }

  const status = (text) => (find("#status").textContent = text);

  return { find, make, words, counted, percent, price, useKey, ask, json, picture, events, problem, trying, status };
})();
