// Elements of the page. Names of users, torrents and clients come from strangers: every text
// becomes a text node, and nothing here or elsewhere on the page takes markup.

export const byId = (id) => document.getElementById(id);

/** An element: attributes by name, functions as listeners (`onclick`), children as nodes or texts. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

/** Control characters, and those that turn the direction of text: they would hide what stands there. */
const UNSAFE = /[\p{Cc}\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu;

/** A name that strangers chose, as it is: what would disguise it is written out. */
export function plain(text) {
  return String(text).replace(UNSAFE, (letter) => `\\u{${letter.codePointAt(0).toString(16)}}`);
}

/** The same as an element, so that a name from right to left does not turn its neighbours. */
export function foreign(text) {
  return el("bdi", {}, plain(text));
}

/** Changes the text only if it is another, so that nothing is painted or read out anew. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A table with its head; `columns` are {title, number}, `rows` arrays of texts or nodes. */
export function table(columns, rows, caption) {
  const head = columns.map(({ title, number }) =>
    (title ? el("th", { scope: "col", class: number ? "number" : null }, title) : el("td", {})));
  const line = (cells) => el("tr", {}, ...cells.map((cell, at) => {
    const kind = columns[at].number ? "number" : columns[at].kind;
    return at === 0 ? el("th", { scope: "row", class: kind }, cell) : el("td", { class: kind }, cell);
  }));
  return el("table", {},
    el("caption", { class: "unseen" }, caption),
    el("thead", {}, el("tr", {}, ...head)),
    el("tbody", {}, ...rows.map(line)));
}

/** Pairs of a term and its value as the children of a `dl`. */
export function facts(list, pairs) {
  list.replaceChildren(...pairs.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value))));
}

/** A horizontal bar that fills `share` (0 to 1) of its place. Decoration beside a number. */
export function bar(share, tone = "") {
  const inner = el("span", { class: tone });
  inner.style.width = `${Math.round(Math.max(0, Math.min(1, share || 0)) * 1000) / 10}%`;
  return el("span", { class: "meter", "aria-hidden": "true" }, inner);
}

/**
 * Puts `content` into `host`, but not under a finger: while the keyboard is in there, it waits until
 * the next time, so that nobody loses the place where they are.
 */
export function replaceUnlessUsed(host, ...content) {
  if (!host.contains(document.activeElement)) host.replaceChildren(...content);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined).map((child) =>
    (child instanceof Node ? child : String(child))));
  return node;
}
