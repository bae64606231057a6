// Users: search, show, and change permissions.

import { call } from "./client.js";
import { confirm, sayFailure, say, showDetail } from "./dialogs.js";
import { el, facts, foreign } from "./dom.js";
import { bytes, count, duration } from "./format.js";
import { Listing } from "./listing.js";

const GROUPS = [["active", "Active torrents"], ["complete", "Complete"], ["incomplete", "Incomplete"], ["hnr", "Hit and run"]];

/** What became of a user whose switch is off, and on. */
const DONE = { enabled: ["is disabled", "is enabled"], can_leech: ["may not leech", "may leech"] };

const yesNo = (flag) => el("span", { class: flag ? "badge good" : "badge bad" }, flag ? "yes" : "no");

export class Users {
  constructor(fail) {
    const total = (title, sort, format) => ({ title, sort, number: true, cell: (row) => format(row[sort]) });
    const minor = (...column) => ({ ...total(...column), minor: true });
    this.list = new Listing({
      name: "users", path: "/api/users", fail, open: (row) => this.open(row.user_id),
      sort: { sort: "id", order: "asc" },
      columns: [
        { title: "Name", sort: "name", kind: "name", cell: (row) => foreign(row.username) },
        { title: "Id", sort: "id", number: true, minor: true, cell: (row) => String(row.user_id) },
        { title: "Enabled", cell: (row) => yesNo(row.enabled) },
        { title: "May leech", minor: true, cell: (row) => yesNo(row.can_leech) },
        total("Uploaded", "uploaded", bytes), total("Downloaded", "downloaded", bytes),
        minor("Snatches", "snatches", count), minor("Announces", "announces", count), minor("Seed time", "seed_time", duration),
      ],
    });
  }

  async show() {
    await this.list.refresh();
  }

  /** Opens a user by id if a number was typed, which may also be part of a name. */
  openNamed() {
    if (/^\d+$/.test(this.list.query)) this.open(this.list.query, true);
  }

  /** The sheet of one user. With `maybe`, the user may not exist. */
  async open(id, maybe = false) {
    const path = `/api/user/${encodeURIComponent(id)}`;
    try {
      const user = await call("GET", path);
      const torrents = await call("GET", `${path}/torrents`).catch(() => null);
      this.#draw(user, torrents, path);
    } catch (error) {
      if (!(maybe && error.status === 404)) sayFailure(`User ${id}`, error);
    }
  }

  #draw(user, torrents, path) {
    const list = el("dl", { class: "facts" });
    const groups = GROUPS.map(([key, name]) => [name, count(torrents?.[key]?.length)]);
    facts(list, [
      ["Id", String(user.user_id)],
      ["Enabled", yesNo(user.enabled)], ["May leech", yesNo(user.can_leech)],
      ["Uploaded", bytes(user.uploaded)], ["Downloaded", bytes(user.downloaded)],
      ["Snatches", count(user.snatches)], ["Announces", count(user.announces)], ["Seed time", duration(user.seed_time)],
      ...(torrents ? groups : []),
    ]);
    const change = (text, what, ask) => el("button", {
      type: "button", "data-writes": true, class: ask ? "danger" : null, onclick: () => this.#change(user, path, what, ask),
    }, text);
    const enable = user.enabled
      ? change("Disable", { enabled: false }, "Their announces are refused until they are enabled again.")
      : change("Enable", { enabled: true });
    const leech = user.can_leech
      ? change("Forbid leeching", { can_leech: false }, "They may still seed.")
      : change("Allow leeching", { can_leech: true });
    showDetail(user.username, list, ...passkeyOf(user), el("div", { class: "actions" }, enable, leech));
  }

  async #change(user, path, what, ask) {
    const [key, value] = Object.entries(what)[0];
    const title = key === "enabled" ? `Disable ${user.username}?` : `Forbid ${user.username} to leech?`;
    if (ask && (await confirm({ title, text: ask, yes: key === "enabled" ? "Disable" : "Forbid" })) === null) return;
    try {
      await call("POST", path, what);
      say(`${user.username} ${DONE[key][Number(value)]}`);
      await Promise.all([this.open(user.user_id), this.list.refresh()]);
    } catch (error) {
      sayFailure(user.username, error);
    }
  }
}

/** A passkey is shown only on demand, because of people who look over a shoulder. */
function passkeyOf({ passkey }) {
  if (!passkey) return [];
  const code = el("code", { class: "passkey" }, "••••••••••••••••");
  const button = el("button", { type: "button", class: "quiet", "aria-pressed": "false" }, "Show");
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    button.textContent = shown ? "Hide" : "Show";
    code.textContent = shown ? passkey : "••••••••••••••••";
  });
  return [el("p", { class: "secret" }, el("span", {}, "Passkey"), code, button)];
}
