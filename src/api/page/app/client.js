// The client of the API. The login is kept in this tab only, never in a cookie.

const LOGIN = "mika.authorization";
const TIMEOUT = 10_000; // of a response, in milliseconds
const EVENT_MAX = 65_536; // in characters

/** A failed call: `status` is that of HTTP, or 0 without a response. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const isSignedIn = () => sessionStorage.getItem(LOGIN) !== null;

export function signIn(name, password) {
  const octets = new TextEncoder().encode(`${name}:${password}`);
  sessionStorage.setItem(LOGIN, `Basic ${btoa(String.fromCharCode(...octets))}`);
}

export function signInByToken(token) {
  sessionStorage.setItem(LOGIN, `Bearer ${token}`);
}

export function signOut() {
  sessionStorage.removeItem(LOGIN);
}

/** Sends `body` as JSON, and returns the JSON of the response. */
export async function call(method, path, body) {
  const headers = { Accept: "application/json" };
  const init = { method, headers, signal: AbortSignal.timeout(TIMEOUT) };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(body);
  }
  const reply = await send(path, init);
  const text = await reply.text().catch(() => "");
  const value = parse(text);
  if (!reply.ok) throw new ApiError(reply.status, refusal(value, reply));
  return value;
}

/** `path` with the parameters that are not empty. */
export function withQuery(path, parameters) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== ""));
  return `${path}?${query}`;
}

/** Yields server-sent events: {name, data}. EventSource itself can't send the login. */
export async function* events(path, signal) {
  const reply = await send(path, { headers: { Accept: "text/event-stream" }, signal });
  if (!reply.ok) throw new ApiError(reply.status, refusal(parse(await reply.text()), reply));
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop();
    if (rest.length > EVENT_MAX) throw new ApiError(0, "an event without an end");
    for (const block of blocks) {
      const event = eventOf(block);
      if (event) yield event;
    }
  }
}

/** A block of lines as an event; none for a comment, which only keeps the connection alive. */
function eventOf(block) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
  }
  const value = data.length > 0 ? parse(data.join("\n")) : null;
  return value && { name, data: value };
}

async function send(path, init) {
  const login = sessionStorage.getItem(LOGIN);
  if (login) init.headers.Authorization = login;
  try {
    // "omit" keeps the browser from showing its own dialog for a 401.
    return await fetch(path, { ...init, credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, error.name === "TimeoutError" ? "no reply in time" : "no connection");
  }
}

function parse(text) {
  try {
    return text === "" ? null : JSON.parse(text);
  } catch {
    return null;
  }
}

function refusal(value, reply) {
  return typeof value?.message === "string" ? value.message : `${reply.status} ${reply.statusText}`;
}
