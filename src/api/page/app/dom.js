// Elements of the page. Names of users, torrents and clients come from strangers: every text
// becomes a text node, and nothing on the page parses markup.

export const byId = (id) => document.getElementById(id);

/** An element: attributes by name, functions as listeners (`onclick`), children as nodes or texts. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element, likewise. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

/** Control characters, and those that change the direction of text: they could disguise a name. */
const UNSAFE = /[\p{Cc}\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu;

/** A name chosen by strangers, with characters escaped that would disguise it. */
export function plain(text) {
  return String(text).replace(UNSAFE, (letter) => `\\u{${letter.codePointAt(0).toString(16)}}`);
}

/** The name as an isolated element, so that a right-to-left name does not affect its neighbours. */
export function foreign(text) {
  return el("bdi", {}, plain(text));
}

/** Changes the text only if it differs, to avoid repaints and repeated announcements. */
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

/** A horizontal bar that fills `share` (0 to 1). Decoration beside a number. */
export function bar(share, tone = "") {
  const inner = el("span", { class: tone });
  inner.style.width = `${Math.round(Math.max(0, Math.min(1, share || 0)) * 1000) / 10}%`;
  return el("span", { class: "meter", "aria-hidden": "true" }, inner);
}

/** Replaces the content of `host`, unless it has the keyboard focus, which the user would lose. */
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
