// What the page says and asks: toasts, confirmations, the sheet with one user or torrent.

import { byId, el, foreign, plain, setText } from "./dom.js";

const TOAST = 6_000; // milliseconds that a word of success stays

let readOnly = false;

/** Says in a corner how something went. A failure stays until it is closed. */
export function say(text, failed = false) {
  const toast = el("div", { class: failed ? "toast failed" : "toast" }, el("span", {}, plain(text)));
  const close = el("button", { type: "button", class: "quiet", "aria-label": "Dismiss", onclick: () => toast.remove() }, "×");
  toast.append(close);
  // What is outside of an open sheet can be neither seen well nor reached.
  const place = [...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body;
  if (byId("toasts").parentNode !== place) place.append(byId("toasts"));
  byId("toasts").append(toast);
  if (!failed) setTimeout(() => toast.remove(), TOAST);
}

/** Says that something failed; whoever may only read is told so, and finds what writes turned off. */
export function sayFailure(what, error) {
  if (error.status === 403) {
    readOnly = true;
    turnOffWriting(document);
    say(`${what}: this login may only read (${error.message})`, true);
  } else {
    say(`${what}: ${error.message}`, true);
  }
}

/** Who signs in anew may write until told otherwise. */
export function allowWriting() {
  readOnly = false;
  for (const node of document.querySelectorAll("[data-writes]")) {
    node.disabled = false;
    node.removeAttribute("title");
  }
  for (const node of document.querySelectorAll(".read-only")) node.remove();
}

/** Turns off what a login that may only read can't do, and says why. Elements that write have `data-writes`. */
export function turnOffWriting(within) {
  if (!readOnly) return;
  for (const node of within.querySelectorAll("[data-writes]")) {
    node.disabled = true;
    node.title = "This login may only read";
  }
  for (const form of within.querySelectorAll("form:has([data-writes]):not(:has(.read-only))")) {
    form.append(el("p", { class: "hint read-only" }, "This login may only read; adding is off."));
  }
}

/**
 * Asks before something that is missed afterwards. Gives null for no, else the reason that was typed
 * (empty where none was asked for).
 */
export function confirm({ title, text, yes, reason = false }) {
  const dialog = byId("confirm");
  setText(byId("confirm-title"), plain(title));
  setText(byId("confirm-text"), text);
  setText(byId("confirm-yes"), yes);
  byId("confirm-reason").hidden = !reason;
  byId("reason").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  byId(reason ? "reason" : "confirm-no").focus();
  return new Promise((answer) => {
    dialog.addEventListener("close", () => answer(dialog.returnValue === "yes" ? byId("reason").value.trim() : null), { once: true });
  });
}

/** Shows one thing in a sheet over the page; `body` are its nodes. */
export function showDetail(title, ...body) {
  const dialog = byId("detail");
  byId("detail-title").replaceChildren(foreign(title));
  byId("detail-body").replaceChildren(...body);
  turnOffWriting(dialog);
  if (!dialog.open) dialog.showModal();
}

export function closeAll() {
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
}

export function prepareDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("close", () => dialog.contains(byId("toasts")) && document.body.append(byId("toasts")));
  }
  byId("detail-close").addEventListener("click", () => byId("detail").close());
  byId("confirm-no").addEventListener("click", () => byId("confirm").close(""));
  byId("confirm-form").addEventListener("submit", (event) => {
    event.preventDefault();
    byId("confirm").close("yes");
  });
}
