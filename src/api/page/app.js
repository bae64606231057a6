// The dashboard: login, views, and polling.

import { call, isSignedIn, signIn, signInByToken, signOut } from "./app/client.js";
import { allowWriting, closeAll, prepareDialogs } from "./app/dialogs.js";
import { byId, el, setText } from "./app/dom.js";
import { Feed } from "./app/feed.js";
import { duration } from "./app/format.js";
import { Overview, healthOf } from "./app/overview.js";
import { Torrents } from "./app/torrents.js";
import { Users } from "./app/users.js";
import { Whitelist } from "./app/whitelist.js";

const POLL = 2_000; // poll interval in milliseconds
const POLL_HIDDEN = 20_000; // while the page is hidden
const POLL_AWAY = 30_000; // the longest wait while the tracker is away

const THEME = "mika.theme";
const VIEWS = ["overview", "users", "torrents", "whitelist"];

const users = new Users(failIn);
const torrents = new Torrents(failIn);
const views = { users, torrents, whitelist: new Whitelist(failIn) };
const overview = new Overview((hash) => torrents.open(hash));
const feed = new Feed((what) => (what.info_hash ? torrents.open(what.info_hash) : users.open(what.user)), showLogin);

let timer = 0;
let turn = 0;
let failures = 0;
let signedIn = false;
let mode = "";

/** Polls the tracker repeatedly. Responses to earlier polls, and from before a sign-out, are ignored. */
async function poll() {
  clearTimeout(timer);
  const mine = ++turn;
  try {
    const stats = await call("GET", "/api/stats");
    if (mine !== turn) return;
    failures = 0;
    show(stats);
  } catch (error) {
    if (mine !== turn) return;
    if (error.status === 401) {
      showLogin(isSignedIn());
      return;
    }
    if (error.status === 429 && !signedIn) {
      showLogin(true, error.message);
      return;
    }
    failures += 1;
    showAway(error);
  }
  timer = setTimeout(poll, pause());
}

function pause() {
  if (failures > 0) return Math.min(POLL * 2 ** (failures - 1), POLL_AWAY) * (0.75 + Math.random() / 4);
  return document.hidden ? POLL_HIDDEN : POLL;
}

function show(stats) {
  byId("notice").hidden = true;
  document.body.classList.remove("away");
  mode = stats.mode;
  if (!signedIn) enter();
  const about = [stats.node, stats.mode, `v${stats.version}`, `up ${duration(stats.uptime)}`];
  setText(byId("about"), about.filter(Boolean).join(" · "));
  const bad = healthOf(stats).filter(({ level }) => level !== "good");
  const worst = bad.some(({ level }) => level === "bad") ? "bad" : bad.length > 0 ? "warn" : "good";
  showState(worst, bad.length > 0 ? bad.map(({ name, text }) => `${name}: ${text}`).join(", ") : "All is well");
  overview.update(stats, Date.now());
}

/** Shows the page once the first figures are there. */
function enter() {
  signedIn = true;
  byId("login").hidden = true;
  byId("nav").hidden = false;
  byId("nav-users").hidden = mode === "public"; // it has none
  byId("sign-out").hidden = !isSignedIn();
  feed.start();
  showView();
}

function showState(level, text) {
  const state = byId("state");
  if (state.className !== `state ${level}`) state.className = `state ${level}`;
  setText(state, text);
  state.title = text;
}

function showAway(error) {
  const notice = byId("notice");
  const what = error.status === 0 ? "The tracker does not answer" : "The tracker can't say how it is";
  setText(notice, `${what} (${error.message}). Trying again; figures are those of the last reply.`);
  notice.hidden = false;
  document.body.classList.add("away");
  showState("bad", "No contact");
}

/** Returns to the login form; `wasSignedIn` if a login was refused, with the tracker's reason in `why`. */
function showLogin(wasSignedIn, why = signedIn ? "This login is not accepted any more." : "That name, password or token is not right.") {
  clearTimeout(timer);
  turn += 1;
  const error = byId("login-error");
  setText(error, wasSignedIn ? why : "");
  signOut();
  signedIn = false;
  failures = 0;
  feed.stop();
  closeAll();
  byId("notice").hidden = true;
  showState("", "");
  setText(byId("about"), "");
  for (const id of ["nav", "sign-out"]) byId(id).hidden = true;
  for (const view of VIEWS) byId(`view-${view}`).hidden = true;
  for (const view of ["users", "torrents", "whitelist"]) byId(`${view}-rows`).replaceChildren();
  byId("login").hidden = false;
  const first = byId("login-token").hidden ? "username" : "token";
  byId(wasSignedIn && first === "username" ? "password" : first).focus();
}

function submitLogin(event) {
  event.preventDefault();
  if (byId("login-token").hidden) signIn(byId("username").value, byId("password").value);
  else signInByToken(byId("token").value.trim());
  byId("password").value = "";
  byId("token").value = "";
  allowWriting();
  poll();
}

function switchLogin() {
  const byToken = byId("login-token").hidden;
  byId("login-token").hidden = !byToken;
  byId("login-password").hidden = byToken;
  byId("login-other").textContent = byToken ? "Use name and password instead" : "Use a token instead";
  byId(byToken ? "token" : "username").focus();
}

function showView() {
  if (!signedIn) return;
  const wanted = location.hash.slice(1);
  const current = VIEWS.includes(wanted) && !(wanted === "users" && mode === "public") ? wanted : "overview";
  for (const view of VIEWS) byId(`view-${view}`).hidden = view !== current;
  for (const link of byId("nav").querySelectorAll("a")) {
    if (link.hash === `#${current}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = current === "overview" ? "Mika" : `${current[0].toUpperCase()}${current.slice(1)} · Mika`;
  views[current]?.show();
}

/** What a list shows if its rows can't be loaded. */
function failIn(error, host) {
  if (error.status === 401) showLogin(isSignedIn());
  else host.replaceChildren(el("p", { class: "empty error", role: "alert" }, `It can't be shown: ${error.message}`));
}

function prepareTheme() {
  const select = byId("theme");
  const set = (theme) => {
    document.documentElement.dataset.theme = theme;
    select.value = theme;
  };
  set(localStorage.getItem(THEME) ?? "auto");
  select.addEventListener("change", () => {
    set(select.value);
    localStorage.setItem(THEME, select.value);
  });
}

prepareTheme();
prepareDialogs();
byId("login-form").addEventListener("submit", submitLogin);
byId("login-other").addEventListener("click", switchLogin);
byId("sign-out").addEventListener("click", () => showLogin(false));
byId("torrents-form").addEventListener("submit", () => torrents.openNamed());
byId("users-form").addEventListener("submit", () => users.openNamed());
addEventListener("hashchange", showView);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && signedIn) poll();
});
poll();
