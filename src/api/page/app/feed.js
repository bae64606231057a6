// The live events of GET /api/events, the newest first.

import { events, isSignedIn } from "./client.js";
import { byId, el, foreign } from "./dom.js";
import { clock, count, shortHash, words } from "./format.js";

/** Events kept and shown. */
const SHOWN = 60;

/** Milliseconds between repaints: a flood of refusals is painted in batches. */
const PAINT = 400;

const WAIT_MIN = 1_000; // milliseconds before reconnecting
const WAIT_MAX = 30_000;

export class Feed {
  #kept = [];
  #skipped = 0;
  #paused = false;
  #stop = null;
  #timer = 0;

  /** `open` is called with the {user} or {info_hash} of an event; `refused` if the login is refused. */
  constructor(open, refused) {
    this.open = open;
    this.refused = refused;
    const button = byId("events-pause");
    button.addEventListener("click", () => {
      this.#paused = !this.#paused;
      button.setAttribute("aria-pressed", String(this.#paused));
      button.textContent = this.#paused ? "Go on" : "Pause";
      this.#paint();
    });
    this.#paint();
  }

  start() {
    if (this.#stop) return;
    this.#stop = new AbortController();
    this.#follow(this.#stop.signal);
  }

  stop() {
    this.#stop?.abort();
    this.#stop = null;
    this.#kept = [];
    this.#skipped = 0;
    this.#paint();
  }

  async #follow(signal) {
    let wait = WAIT_MIN;
    while (!signal.aborted) {
      try {
        for await (const event of events("/api/events", signal)) {
          wait = WAIT_MIN;
          this.#take(event);
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error.status === 401) return this.refused(isSignedIn());
        if (error.status === 404) return;
      }
      await new Promise((done) => setTimeout(done, wait * (0.5 + Math.random() / 2)));
      wait = Math.min(wait * 2, WAIT_MAX);
    }
  }

  #take(event) {
    this.#kept.push({ ...event, at: new Date() });
    if (this.#kept.length > SHOWN) {
      this.#kept.shift();
      this.#skipped += 1;
    }
    if (!this.#timer) this.#timer = setTimeout(() => this.#paint(), PAINT);
  }

  #paint() {
    this.#timer = 0;
    const list = byId("events");
    if (this.#paused || list.querySelector(":focus")) return;
    const lines = this.#kept.map((event) => this.#line(event)).reverse();
    if (this.#skipped > 0) lines.push(el("li", { class: "empty" }, `${count(this.#skipped)} earlier ones are not kept`));
    list.replaceChildren(...(lines.length > 0 ? lines : [el("li", { class: "empty" }, "Waiting for something to happen …")]));
  }

  #line({ name, data, at }) {
    return el("li", {}, el("time", { datetime: at.toISOString() }, clock(at)),
      el("span", { class: `badge ${KINDS.includes(name) ? name : "other"}` }, name), el("span", {}, ...this.#text(name, data)));
  }

  #text(name, data) {
    switch (name) {
      case "registry": return [...(this.#subject(data) ?? [data.what === "all" ? "everything" : words(data.what ?? "")]), " changed"];
      case "snatch": return [...(this.#subject({ info_hash: data.info_hash }) ?? ["a torrent"]), ...((data.user ?? null) === null ? [] : [" by ", ...(this.#subject({ id: data.user }) ?? [])])];
      case "refusal": return [words(data.reason), data.protocol ? `, ${data.protocol.toUpperCase()}` : "", data.address ? ", " : "", foreign(data.address ?? "")];
      case "lost": return [`${count(data.events)} events came too fast to be sent`];
      default: return [foreign(JSON.stringify(data))];
    }
  }

  /** A button that opens the user or torrent of an event, if it names one. */
  #subject({ info_hash: hash, id, what }) {
    const button = (text, subject) => [el("button", { type: "button", class: "link", onclick: () => this.open(subject) }, text)];
    if (hash) return button(`torrent ${shortHash(hash)}`, { info_hash: hash });
    return id === null || id === undefined || what === "torrent" ? null : button(`user ${id}`, { user: id });
  }
}

const KINDS = ["registry", "snatch", "refusal", "lost"];
