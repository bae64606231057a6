// The whitelist of clients.

import { call } from "./client.js";
import { confirm, say, sayFailure, turnOffWriting } from "./dialogs.js";
import { byId, el, foreign } from "./dom.js";

export class Whitelist {
  constructor(fail) {
    this.fail = fail;
    byId("whitelist-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#add();
    });
  }

  async show() {
    const host = byId("whitelist-rows");
    try {
      this.#draw(host, (await call("GET", "/api/whitelist")) ?? []);
    } catch (error) {
      this.fail(error, host);
    }
  }

  #draw(host, clients) {
    if (clients.length === 0) {
      host.replaceChildren(el("p", { class: "empty" }, "No client is on the whitelist."));
      return;
    }
    const rows = clients.map(({ prefix, client }) => el("tr", {},
      el("th", { scope: "row" }, el("code", {}, foreign(prefix))),
      el("td", { class: "name" }, foreign(client)),
      el("td", { class: "number" }, el("button", {
        type: "button", class: "quiet", "data-writes": true, "aria-label": `Remove ${prefix} ${client}`, onclick: () => this.#remove(prefix, client),
      }, "Remove"))));
    const titles = ["Peer id begins with", "Client"].map((title) => el("th", { scope: "col" }, title));
    host.replaceChildren(el("table", {},
      el("caption", { class: "unseen" }, "Clients that may announce"),
      el("thead", {}, el("tr", {}, ...titles, el("td", {}))),
      el("tbody", {}, ...rows)));
    turnOffWriting(host);
  }

  async #add() {
    const [prefix, client] = [byId("prefix"), byId("client")];
    const entry = { prefix: prefix.value.trim(), client: client.value.trim() };
    try {
      await call("POST", "/api/whitelist", entry);
    } catch (error) {
      if (error.status === 409) say(`${entry.prefix} is on the whitelist already`, true);
      else sayFailure(`Adding ${entry.prefix}`, error);
      return;
    }
    say(`${entry.client} (${entry.prefix}) may announce`);
    prefix.value = "";
    client.value = "";
    prefix.focus();
    await this.show();
  }

  async #remove(prefix, client) {
    const answer = await confirm({
      title: `Remove ${client}?`, text: `Clients whose peer id begins with ${prefix} are refused from then on.`, yes: "Remove",
    });
    if (answer === null) return;
    try {
      await call("DELETE", `/api/whitelist/${encodeURIComponent(prefix)}`);
    } catch (error) {
      sayFailure(`Removing ${prefix}`, error);
      return;
    }
    say(`${client} (${prefix}) was removed`);
    await this.show();
    byId("whitelist-title").focus();
  }
}
