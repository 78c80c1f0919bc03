// Requests to the server. Each names the state of the index that this page shows, although newer ones are published.

/** `at`: the number of that state; what to do when the server is missed, is back, and when the state is gone. */
export const server = { at: null, offline: () => {}, online: () => {}, stateGone: () => {} };

/** The address of an endpoint. Values that are null or empty are left out, lists are repeated. */
export function url(path, values = {}) {
  const filled = Object.entries({ ...values, at: server.at }).filter(([, value]) => value != null && value !== "");
  const parameters = filled.flatMap(([name, value]) => [value].flat().map((one) => [name, one]));
  return `api/${path}?${new URLSearchParams(parameters)}`;
}

const requestJson = async (address, options) => (await request(address, options)).json();

/** Ask; returns the JSON answer. Throws an Error with the server's own line and its `status`, 0 without an answer. */
export const get = (path, values = {}, signal = undefined) =>
  requestJson(url(path, values), { signal }).catch((error) => {
    if (error.status !== 410 || server.at === null) throw error;
    server.at = null;
    server.stateGone();
    return get(path, values, signal);
  });

/** Send JSON or a form; returns the JSON answer. */
export function post(path, sent, signal = undefined) {
  const json = { headers: { "Content-Type": "application/json" }, body: JSON.stringify(sent) };
  return requestJson(url(path), { method: "POST", signal, ...(sent instanceof FormData ? { body: sent } : json) });
}

/** Ask; returns the answer of an endpoint that sends no JSON. Throws as `get`. */
export async function request(address, options) {
  const answer = await fetch(address, options).catch((error) => {
    if (error.name === "AbortError") throw error;
    server.offline();
    throw Object.assign(new Error("The server does not answer. Is “earshot serve” still running?"), { status: 0 });
  });
  server.online();
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({}));
  throw Object.assign(new Error(error ?? `The server answered ${answer.status}`), { status: answer.status });
}
