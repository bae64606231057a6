// Torrents: search, show peers, disable and enable.

import { call } from "./client.js";
import { confirm, say, sayFailure, showDetail } from "./dialogs.js";
import { el, facts, foreign, table } from "./dom.js";
import { bytes, count, duration, number, shortHash } from "./format.js";
import { Listing } from "./listing.js";

const HASH = /^[0-9a-f]{40}$/i;

/** Peers listed in the sheet of a torrent. */
const PEERS = 100;

export class Torrents {
  constructor(fail) {
    const total = (title, sort, format = count) => ({ title, sort, number: true, cell: (row) => format(row[sort]) });
    const minor = (...column) => ({ ...total(...column), minor: true });
    this.list = new Listing({
      name: "torrents", path: "/api/torrents", open: (row) => this.open(row.info_hash), fail,
      sort: { sort: "seeders", order: "desc" },
      columns: [
        { title: "Name", sort: "name", kind: "name", cell: (row) => foreign(row.name || shortHash(row.info_hash)) },
        { title: "State", cell: (row) => stateOf(row) },
        total("Seeders", "seeders"), total("Leechers", "leechers"), minor("Snatches", "snatches"),
        minor("Announces", "announces"), minor("Uploaded", "uploaded", bytes), minor("Downloaded", "downloaded", bytes),
        { title: "Info hash", minor: true, cell: (row) => el("code", { title: row.info_hash }, shortHash(row.info_hash)) },
      ],
    });
  }

  async show() {
    await this.list.refresh();
  }

  /** Opens a torrent if a whole info hash was typed. */
  openNamed() {
    if (HASH.test(this.list.query)) this.open(this.list.query.toLowerCase());
  }

  /** The sheet of one torrent. */
  async open(hash) {
    try {
      this.#draw(await call("GET", `/api/torrent/${encodeURIComponent(hash)}`));
    } catch (error) {
      sayFailure(`Torrent ${shortHash(hash)}`, error);
    }
  }

  #draw(torrent) {
    const list = el("dl", { class: "facts" });
    facts(list, [
      ["Id", String(torrent.torrent_id ?? "–")], ["State", stateOf(torrent)],
      ["Seeders", count(torrent.seeders)], ["Leechers", count(torrent.leechers)],
      ["Snatches", count(torrent.snatches)], ["Announces", count(torrent.announces)],
      ["Uploaded", bytes(torrent.uploaded)], ["Downloaded", bytes(torrent.downloaded)],
      ["Upload counts", `× ${number(torrent.multi_up)}`], ["Download counts", `× ${number(torrent.multi_dn)}`],
    ]);
    const hash = el("p", { class: "secret" }, el("span", {}, "Info hash"), el("code", {}, torrent.info_hash));
    const reason = torrent.reason ? el("p", { class: "secret" }, el("span", {}, "Reason"), foreign(torrent.reason)) : null;
    const toggle = torrent.enabled
      ? el("button", { type: "button", class: "danger", "data-writes": true, onclick: () => this.#disable(torrent) }, "Disable")
      : el("button", { type: "button", "data-writes": true, onclick: () => this.#enable(torrent) }, "Enable");
    const parts = [list, hash, reason, el("div", { class: "actions" }, toggle), ...peersOf(torrent.peers)];
    showDetail(torrent.name || shortHash(torrent.info_hash), ...parts.filter(Boolean));
  }

  async #disable(torrent) {
    const reason = await confirm({
      title: `Disable ${torrent.name || shortHash(torrent.info_hash)}?`,
      text: "Announces for it are refused until it is enabled again.", yes: "Disable", reason: true,
    });
    if (reason === null) return;
    const body = reason === "" ? undefined : { reason };
    await this.#change(torrent, "disabled", () => call("DELETE", `/api/torrent/${torrent.info_hash}`, body));
  }

  #enable({ torrent_id, info_hash, name, ...rest }) {
    const torrent = { torrent_id, info_hash, name, ...rest };
    return this.#change(torrent, "enabled", () => call("POST", "/api/torrent", { torrent_id, info_hash, name }));
  }

  async #change(torrent, done, send) {
    try {
      await send();
      say(`${torrent.name || shortHash(torrent.info_hash)}: ${done}`);
      await Promise.all([this.open(torrent.info_hash), this.list.refresh()]);
    } catch (error) {
      sayFailure(torrent.name || shortHash(torrent.info_hash), error);
    }
  }
}

function stateOf({ enabled, reason }) {
  if (enabled !== false) return el("span", { class: "badge good" }, "enabled");
  return el("span", { class: "badge bad", title: reason ?? "" }, "disabled");
}

/** The current peers of a torrent. A public tracker knows only their addresses, not their totals. */
function peersOf(peers) {
  if (!Array.isArray(peers) || peers.length === 0) return [el("p", { class: "empty" }, "Nobody shares it now.")];
  const known = [
    ["user_id", "User", String], ["ip", "Address", String], ["port", "Port", String], ["peer_id", "Peer id", String],
    ["seeder", "Seeds", (flag) => (flag ? "yes" : "no")], ["left", "Left", bytes], ["uploaded", "Uploaded", bytes],
    ["downloaded", "Downloaded", bytes], ["speed_up", "Up / s", bytes], ["speed_dn", "Down / s", bytes], ["total_time", "Seed time", duration],
  ].filter(([key]) => peers.some((peer) => peer[key] !== undefined && peer[key] !== null));
  const columns = known.map(([, title, format]) => ({ title, number: format === bytes || format === duration }));
  const rows = peers.slice(0, PEERS).map((peer) =>
    known.map(([key, , format]) => foreign(peer[key] === undefined || peer[key] === null ? "" : format(peer[key]))));
  const more = peers.length > PEERS ? [el("p", { class: "hint" }, `and ${count(peers.length - PEERS)} more`)] : [];
  return [
    el("h3", {}, "Peers"),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Peers" }, table(columns, rows, "Peers")),
    ...more,
  ];
}
