// A searchable, sorted and paged list: users and torrents.

import { call, withQuery } from "./client.js";
import { turnOffWriting } from "./dialogs.js";
import { byId, el } from "./dom.js";
import { count, number } from "./format.js";

const LIMIT = 50;

/**
 * `name` is that of the view and its form; `path` is the route; `columns` are {title, sort, number, kind,
 * minor, cell: (row) => text or node}, the first of which opens the row by `open`, and the minor of which
 * phones leave out; `sort` is the first order.
 */
export class Listing {
  #state = { page: 1 };
  #turn = 0;

  constructor({ name, path, columns, sort, open, fail }) {
    Object.assign(this, { name, path, columns, open, fail });
    Object.assign(this.#state, sort);
    this.host = byId(`${name}-rows`);
    byId(`${name}-form`).addEventListener("submit", (event) => {
      event.preventDefault();
      this.#load({ page: 1 });
    });
    byId(`${name}-enabled`).addEventListener("change", () => this.#load({ page: 1 }));
  }

  /** The text of the search field. */
  get query() {
    return byId(`${this.name}-q`).value.trim();
  }

  refresh() {
    return this.#load({});
  }

  async #load(change) {
    Object.assign(this.#state, change);
    // Only the response to the latest request is shown.
    const turn = ++this.#turn;
    const enabled = byId(`${this.name}-enabled`).value;
    this.host.setAttribute("aria-busy", "true");
    try {
      const list = await call("GET", withQuery(this.path, { q: this.query, enabled, ...this.#state, limit: LIMIT }));
      if (turn === this.#turn) this.#draw(list);
    } catch (error) {
      if (turn === this.#turn) this.fail(error, this.host);
    } finally {
      this.host.removeAttribute("aria-busy");
    }
  }

  #draw(list) {
    const sorted = this.host.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const rows = list?.rows ?? [];
    if (rows.length === 0) {
      this.host.replaceChildren(el("p", { class: "empty" }, this.query ? "Nothing matches." : "There are none yet."));
      return;
    }
    const body = rows.map((row) => el("tr", {}, ...this.columns.map((column, at) => this.#cell(row, column, at))));
    const table = el("table", {},
      el("caption", { class: "unseen" }, this.name),
      el("thead", {}, el("tr", {}, ...this.columns.map((column) => this.#head(column)))),
      el("tbody", {}, ...body));
    this.host.replaceChildren(el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": this.name }, table), this.#pages(list));
    turnOffWriting(this.host);
    if (sorted) this.host.querySelector(`[data-key="${CSS.escape(sorted)}"]`)?.focus();
  }

  #head(column) {
    const { title, sort, number: right } = column;
    const { sort: current, order } = this.#state;
    const is = sort && current === sort;
    const attributes = { scope: "col", class: classOf(column), "aria-sort": is ? `${order}ending` : null };
    if (!sort) return el("th", attributes, title);
    const next = is && order === "desc" ? "asc" : "desc";
    const mark = is ? (order === "desc" ? " ↓" : " ↑") : "";
    return el("th", attributes, el("button", {
      type: "button", class: "sort", "data-key": sort, onclick: () => this.#load({ sort, order: is ? next : right ? "desc" : "asc", page: 1 }),
    }, title, el("span", { "aria-hidden": "true" }, mark)));
  }

  #cell(row, column, at) {
    const attributes = { class: classOf(column) };
    if (at > 0) return el("td", attributes, column.cell(row));
    return el("th", { scope: "row", ...attributes },
      el("button", { type: "button", class: "link cut", onclick: () => this.open(row) }, column.cell(row)));
  }

  #pages({ total, page, limit }) {
    const last = Math.max(1, Math.ceil(number(total) / (number(limit) || LIMIT)));
    const go = (text, to) => el("button", {
      type: "button", "data-key": text, disabled: to < 1 || to > last, onclick: () => this.#load({ page: to }),
    }, text);
    return el("nav", { class: "pages", "aria-label": `Pages of ${this.name}` },
      el("span", {}, `${count(total)} in all, page ${page} of ${last}`), go("Previous", page - 1), go("Next", page + 1));
  }
}

function classOf({ number: right, kind, minor }) {
  return [right && "number", kind, minor && "minor"].filter(Boolean).join(" ") || null;
}
