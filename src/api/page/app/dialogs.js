// Toasts, confirmations, and the sheet of one user or torrent.

import { byId, el, foreign, plain, setText } from "./dom.js";

const TOAST = 6_000; // milliseconds that a success message stays

let readOnly = false;

/** Shows the result of an action. A failure stays until it is closed. */
export function say(text, failed = false) {
  const toast = el("div", { class: failed ? "toast failed" : "toast" }, el("span", {}, plain(text)));
  const close = el("button", { type: "button", class: "quiet", "aria-label": "Dismiss", onclick: () => toast.remove() }, "×");
  toast.append(close);
  // Content outside an open sheet is inert.
  const place = [...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body;
  if (byId("toasts").parentNode !== place) place.append(byId("toasts"));
  byId("toasts").append(toast);
  if (!failed) setTimeout(() => toast.remove(), TOAST);
}

/** Shows a failure; for a read-only login, says so and disables what writes. */
export function sayFailure(what, error) {
  if (error.status === 403) {
    readOnly = true;
    turnOffWriting(document);
    say(`${what}: this login may only read (${error.message})`, true);
  } else {
    say(`${what}: ${error.message}`, true);
  }
}

/** A new login may write until the API refuses it. */
export function allowWriting() {
  readOnly = false;
  for (const node of document.querySelectorAll("[data-writes]")) {
    node.disabled = false;
    node.removeAttribute("title");
  }
  for (const node of document.querySelectorAll(".read-only")) node.remove();
}

/** Disables what a read-only login can't do, with the reason. Elements that write have `data-writes`. */
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

/** Asks for confirmation. Returns null for no, else the reason that was typed (empty without a field). */
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

/** Opens a sheet over the page; `body` are its nodes. */
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
