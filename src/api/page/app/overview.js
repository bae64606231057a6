// The overview: GET /api/stats now and over the last minutes.

import { Chart, SPAN, spark } from "./chart.js";
import { bar, byId, el, facts, foreign, plain, replaceUnlessUsed, setText, table } from "./dom.js";
import { bytes, count, duration, lag, number, percent, rate, shortHash, words } from "./format.js";

const PROTOCOLS = ["http", "https", "udp"];
const FAMILIES = [["ipv4", "IPv4"], ["ipv6", "IPv6"]];
const ROLES = ["seeders", "leechers", "paused"];

/** A journal further behind than this (seconds) is reported. */
const JOURNAL_LATE = 30;

/** Reasons of refusals listed. */
const REASONS = 8;

const sumOf = (object) => Object.values(object ?? {}).reduce((sum, value) => sum + number(value), 0);
const peersOf = (stats, role) => FAMILIES.reduce((sum, [key]) => sum + number(stats.peers?.[key]?.[role]), 0);

export class Overview {
  #samples = [];
  #last = null;
  #tiles = new Map();
  #charts = [];

  /** `open` is called with the info hash of a selected torrent. */
  constructor(open) {
    this.open = open;
    const chart = (id, options) => this.#charts.push(new Chart(byId(id), options));
    chart("chart-announces", {
      label: "Announces a second", stacked: true, format: rate,
      series: [
        { label: "UDP", tone: "tone-1", value: (it) => it.udp },
        { label: "HTTP", tone: "tone-2", value: (it) => it.http },
        { label: "HTTPS", tone: "tone-3", value: (it) => it.https },
      ],
    });
    chart("chart-peers", {
      label: "Peers", stacked: true, format: count, least: 4,
      series: [
        { label: "Seeders", tone: "tone-1", value: (it) => it.seeders },
        { label: "Leechers", tone: "tone-4", value: (it) => it.leechers },
        { label: "Paused", tone: "tone-5", value: (it) => it.paused },
      ],
    });
    chart("chart-refusals", {
      label: "Refusals a second", format: rate,
      series: [{ label: "Refusals", tone: "tone-4", value: (it) => it.refusals }],
    });
    chart("chart-journal", {
      label: "Age of the oldest change that is not in storage", format: lag, unit: " s", least: 2,
      series: [{ label: "Lag", tone: "tone-3", value: (it) => it.age }],
    });
  }

  /** Adds the figures of the time `at` (milliseconds). */
  update(stats, at) {
    const last = this.#last;
    if (last && number(stats.uptime) < number(last.stats.uptime)) {
      this.#samples = []; // Restarted, and counts from 0.
      this.#last = null;
    }
    const sample = sampleOf(stats, this.#last, at);
    if (sample) this.#samples.push(sample);
    this.#samples = this.#samples.filter((it) => it.at >= at - SPAN - 10_000);
    this.#last = { stats, at };
    this.#drawTiles(stats, sample);
    for (const chart of this.#charts) chart.draw(this.#samples, at);
    this.#drawPanels(stats, sample);
  }

  #drawTiles(stats, sample) {
    const requests = sumOf(stats.announces) + sumOf(stats.scrapes);
    const refused = sumOf(stats.refusals);
    const peers = ROLES.reduce((sum, role) => sum + peersOf(stats, role), 0);
    const journal = stats.journal ?? {};
    this.#tile("Announces", "/ s", sample ? rate(sample.announces) : "…", `${count(sumOf(stats.announces))} since the start`,
      (it) => it.announces, "tone-1");
    this.#tile("Peers", "", count(peers), `${count(peersOf(stats, "seeders"))} seeders, ${count(peersOf(stats, "leechers"))} leechers`,
      (it) => it.seeders + it.leechers + it.paused, "tone-1");
    this.#tile("Swarms", "", count(stats.swarms), `${count(stats.registry?.torrents)} registered`, (it) => it.swarms, "tone-1");
    this.#tile("Snatches", "", count(stats.snatches), sample ? `${count(Math.round(this.#lastMinute((it) => it.snatches)))} in the last minute` : "since the start",
      (it) => it.snatches, "tone-2");
    this.#tile("Refusals", "/ s", sample ? rate(sample.refusals) : "…",
      `${percent(refused, requests + refused)} of all requests`, (it) => it.refusals, "tone-4");
    this.#tile("Journal lag", "", lag(journal.age), `${count(journal.pending)} changes pending`, (it) => it.age, "tone-3");
    this.#tile("Connections", "", count(stats.connections?.open), sample ? `${rate(sample.accepted)} accepted a second` : "open",
      (it) => it.open, "tone-2");
    this.#tile("Memory", "", bytes(stats.memory), peers > 9999 ? `${bytes(number(stats.memory) / peers)} a peer` : "resident",
      (it) => it.memory, "tone-5");
  }

  /** A rate summed over the last minute, or over the samples there are. */
  #lastMinute(rateOf) {
    const end = this.#samples.at(-1).at;
    const last = this.#samples.filter(({ at }) => at > end - 60_000);
    return last.reduce((sum, it) => sum + rateOf(it) * it.seconds, 0);
  }

  #tile(label, unit, value, hint, series, tone) {
    if (!this.#tiles.has(label)) {
      const tile = { value: el("span", {}), hint: el("dd", { class: "hint" }), line: el("dd", { class: "trend" }) };
      const figure = el("dd", { class: "figure" }, tile.value, unit && el("small", {}, ` ${unit}`));
      byId("tiles").append(el("div", { class: "tile" }, el("dt", {}, label), figure, tile.hint, tile.line));
      this.#tiles.set(label, tile);
    }
    const tile = this.#tiles.get(label);
    setText(tile.value, value);
    setText(tile.hint, hint);
    tile.line.replaceChildren(spark(this.#samples, series, tone));
  }

  #drawPanels(stats, sample) {
    this.#drawFamilies(stats);
    this.#drawReasons(stats, sample);
    const journal = stats.journal ?? {};
    facts(byId("journal"), [
      ["Oldest change", lag(journal.age)],
      ["Pending", count(journal.pending)],
      ["Not in storage", count(journal.backlog)],
      ["Batches", count(journal.batches)],
      ["Failed", count(journal.batch_failures)],
      ["Spilled", count(journal.spilled)],
    ]);
    this.#drawHealth(stats);
    facts(byId("node"), [
      ["Users", count(stats.registry?.users)],
      ["Torrents", count(stats.registry?.torrents)],
      ["Clients allowed", count(stats.registry?.clients)],
      ["Scrapes", count(sumOf(stats.scrapes))],
      ["UDP connects", count(stats.udp_connects)],
      ["Peers expired", count(stats.expired)],
    ].filter(([term]) => term !== "Users" || stats.mode !== "public"));
    this.#drawBusiest(stats.busiest ?? []);
    this.#drawClients(stats.clients ?? []);
  }

  #drawFamilies(stats) {
    const columns = [{ title: "Family" }, ...ROLES.map((role) => ({ title: role[0].toUpperCase() + role.slice(1), number: true }))];
    const rows = FAMILIES.map(([key, name]) => [name, ...ROLES.map((role) => count(stats.peers?.[key]?.[role]))]);
    byId("families").replaceChildren(table(columns, rows, "Peers by address family and role"));
  }

  #drawReasons(stats, sample) {
    const reasons = Object.entries(stats.refusals ?? {}).filter(([, total]) => total > 0);
    reasons.sort(([, one], [, other]) => other - one);
    const most = reasons[0]?.[1];
    const rows = reasons.slice(0, REASONS).map(([name, total]) =>
      [words(name), sample ? rate(sample.reasons[name]) : "…", count(total), bar(total / most, "tone-4")]);
    const columns = [{ title: "Reason" }, { title: "/ s", number: true }, { title: "Total", number: true }, { title: "", kind: "share" }];
    byId("reasons").replaceChildren(rows.length > 0
      ? table(columns, rows, "Refusals by reason")
      : el("p", { class: "empty" }, "Nothing was refused yet."));
  }

  #drawHealth(stats) {
    const lines = healthOf(stats).map(({ level, name, text }) =>
      el("li", { class: level }, el("i", { class: "light" }), el("b", {}, name), el("span", {}, text)));
    byId("health").replaceChildren(...lines);
  }

  #drawBusiest(torrents) {
    const most = Math.max(...torrents.map((it) => number(it.seeders) + number(it.leechers)));
    const rows = torrents.map((it) => {
      const label = it.name ? foreign(it.name) : el("code", {}, shortHash(it.info_hash));
      const open = el("button", { type: "button", class: "link cut", title: plain(it.name ?? it.info_hash), onclick: () => this.open(it.info_hash) }, label);
      return [open, count(it.seeders), count(it.leechers), bar((number(it.seeders) + number(it.leechers)) / most, "tone-1")];
    });
    const columns = [{ title: "Torrent", kind: "name" }, { title: "Seeders", number: true }, { title: "Leechers", number: true }, { title: "", kind: "share" }];
    replaceUnlessUsed(byId("busiest"), rows.length > 0
      ? table(columns, rows, "The torrents with most peers")
      : el("p", { class: "empty" }, "No torrent has peers yet."));
  }

  #drawClients(clients) {
    const most = Math.max(...clients.map((it) => number(it.started)));
    const rows = clients.map((it) =>
      [foreign(clientName(it)), count(it.started), bar(number(it.started) / most, "tone-2")]);
    const columns = [{ title: "Client", kind: "name" }, { title: "Started", number: true }, { title: "", kind: "share" }];
    byId("clients").replaceChildren(rows.length > 0
      ? el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Clients" }, table(columns, rows, "Sessions started, by client"))
      : el("p", { class: "empty" }, "No client has announced yet."));
  }
}

/** Name and version. For unlisted and unknown clients both are the same word, shown once. */
function clientName({ client, version }) {
  return version && version !== client ? `${client} ${version}` : client;
}

/** Health: {level: "good|warn|bad", name, text}; the worst decides the overall state. */
export function healthOf(stats) {
  const server = (name, it) => ({
    level: it.up ? "good" : "bad",
    name: `${name} · ${it.driver}`,
    text: it.up ? "up" : it.problem ?? "away",
  });
  const journal = stats.journal ?? {};
  const late = number(journal.age) > JOURNAL_LATE;
  return [
    server("Storage", stats.storage ?? { driver: "unknown", up: false }),
    stats.cache ? server("Cache", stats.cache) : { level: "good", name: "Cache", text: "none: this node stands alone" },
    {
      level: late ? "warn" : "good",
      name: "Journal",
      text: late ? `${duration(journal.age)} behind; no credit is lost` : "keeps up",
    },
  ];
}

/** Rates between two polls, and current figures. */
function sampleOf(stats, last, at) {
  if (!last || at - last.at < 200) return null;
  const seconds = (at - last.at) / 1000;
  const per = (now, before) => Math.max(0, number(now) - number(before)) / seconds;
  const before = last.stats;
  const sample = {
    at,
    seconds,
    swarms: number(stats.swarms),
    snatches: per(stats.snatches, before.snatches),
    refusals: per(sumOf(stats.refusals), sumOf(before.refusals)),
    accepted: per(stats.connections?.accepted, before.connections?.accepted),
    open: number(stats.connections?.open),
    age: number(stats.journal?.age),
    memory: number(stats.memory),
    reasons: {},
  };
  for (const protocol of PROTOCOLS) sample[protocol] = per(stats.announces?.[protocol], before.announces?.[protocol]);
  sample.announces = PROTOCOLS.reduce((sum, protocol) => sum + sample[protocol], 0);
  for (const role of ROLES) sample[role] = peersOf(stats, role);
  for (const [name, total] of Object.entries(stats.refusals ?? {})) sample.reasons[name] = per(total, before.refusals?.[name]);
  return sample;
}
