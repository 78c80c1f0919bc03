// Requests to the server. Every question names the state of the index that this page shows (`at`), so that what it
// shows stays of one piece while an indexing run publishes newer states.

export const watchers = { offline: () => {}, online: () => {}, stateGone: () => {} };
let at = null;

/** Ask from now on for the state with this number. */
export const setState = (seq) => (at = seq);

/** The address of an endpoint. Values that are null or empty are left out, lists are repeated. */
export function url(path, values = {}) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...values, at })) {
    if (value != null && value !== "") [value].flat().forEach((one) => parameters.append(name, one));
  }
  return `api/${path}?${parameters}`;
}

/** Ask; returns the JSON answer. Throws an Error with the server's own line and its `status`, 0 without an answer. */
export async function get(path, values = {}, signal = undefined) {
  try {
    return await request(url(path, values), { signal });
  } catch (error) {
    if (error.status !== 410 || at === null) throw error;
    at = null;
    watchers.stateGone();
    return request(url(path, values), { signal });
  }
}

/** Send JSON or a form; returns the JSON answer. */
export function post(path, body, signal = undefined) {
  const isForm = body instanceof FormData;
  const headers = isForm ? {} : { "Content-Type": "application/json" };
  return request(url(path), { method: "POST", headers, body: isForm ? body : JSON.stringify(body), signal });
}

/** Why a picture or a sound failed to load, in the server's words. */
export const whyNot = (address) =>
  request(address, { headers: { Range: "bytes=0-0" } }).then(() => "The browser refuses it", ({ message }) => message);

async function request(address, options) {
  const answer = await fetch(address, options).catch((error) => {
    if (error.name === "AbortError") throw error;
    watchers.offline();
    throw Object.assign(new Error("The server does not answer. Is “earshot serve” still running?"), { status: 0 });
  });
  watchers.online();
  const body = answer.headers.get("Content-Type")?.includes("json") ? await answer.json() : null;
  if (answer.ok) return body;
  throw Object.assign(new Error(body?.error ?? `The server answered ${answer.status}`), { status: answer.status });
}
