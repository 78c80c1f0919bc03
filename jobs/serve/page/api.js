// Requests to the server. Each names the state of the index that this page shows, although newer ones are published.

/** `at`: the number of that state. What to do when the server is missed or is back, and when the state is gone. */
export const server = { at: null, offline: () => {}, online: () => {}, renew: async () => {} };
let renewing = null;

/** The address of an endpoint. Values that are null or empty are left out, lists are repeated. */
export function url(path, values = {}) {
  const filled = Object.entries({ ...values, at: server.at }).filter(([, value]) => value != null && value !== "");
  const parameters = filled.flatMap(([name, value]) => [value].flat().map((one) => [name, one]));
  return `api/${path}?${new URLSearchParams(parameters)}`;
}

/** Ask; returns the JSON answer. Throws an Error with the server's own line and its `status`, 0 without an answer. */
export const get = (path, values = {}, signal = undefined) => askJson(() => url(path, values), { signal });

/** Send JSON or a form; returns the JSON answer. */
export function post(path, sent, signal = undefined) {
  const json = { headers: { "Content-Type": "application/json" }, body: JSON.stringify(sent) };
  return askJson(() => url(path), { method: "POST", signal, ...(sent instanceof FormData ? { body: sent } : json) });
}

/** Where the state is gone, nothing was done: it is asked again, in the one that is shown by then. */
async function askJson(makeAddress, options) {
  const again = (error) => (error.status === 410 ? request(makeAddress(), options) : Promise.reject(error));
  return (await request(makeAddress(), options).catch(again)).json();
}

/** Ask; returns the answer of an endpoint that sends no JSON. Throws as `get`, on a 410 once the newest is shown. */
export async function request(address, options) {
  const { at } = server;
  const answer = await fetch(address, options).catch((error) => {
    if (error.name === "AbortError") throw error;
    server.offline();
    throw Object.assign(new Error("The server does not answer. Is “earshot serve” still running?"), { status: 0 });
  });
  server.online();
  if (answer.ok) return answer;
  const { status } = answer;
  if (status === 410 && at === server.at) await (renewing ??= server.renew().finally(() => (renewing = null)));
  const { error } = await answer.json().catch(() => ({}));
  throw Object.assign(new Error(error ?? `The server answered ${status}`), { status });
}
