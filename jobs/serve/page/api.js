// Requests to the server. Each names the state of the index that this page shows, although newer ones are published.

/** `at`: the number of that state. What to do when the server is missed or is back, and when the state is gone. */
export const server = { at: null, offline: () => {}, online: () => {}, renew: async () => {} };
const AT = /(?<=[?&]at=)\d+/;
let renewing = null;

/** The address of an endpoint. Values that are null or empty are left out, lists are repeated. */
export function url(path, values = {}) {
  const filled = Object.entries({ ...values, at: server.at }).filter(([, value]) => value != null && value !== "");
  const parameters = filled.flatMap(([name, value]) => [value].flat().map((one) => [name, one]));
  return `api/${path}?${new URLSearchParams(parameters)}`;
}

/** Ask, or send JSON or a form; both return the JSON answer. */
export const get = async (path, values = {}, signal) => (await request(url(path, values), { signal })).json();
export const post = async (path, sent, signal) => (await request(url(path), { sent, signal })).json();

/** Ask, or send `sent`; returns the answer. Throws an Error with the server's line and its `status`, 0 without one. */
export async function request(address, { sent, ...options } = {}, isAgain = false) {
  const json = { headers: { "Content-Type": "application/json" }, body: JSON.stringify(sent) };
  const body = sent && { method: "POST", ...(sent instanceof FormData ? { body: sent } : json) };
  const answer = await fetch(address, { ...options, ...body }).catch((error) => {
    if (error.name === "AbortError") throw error;
    server.offline();
    throw Object.assign(new Error("The server does not answer. Is “earshot serve” still running?"), { status: 0 });
  });
  server.online();
  if (answer.ok) return answer;
  const { status } = answer;
  if (status === 410 && !isAgain) { // nothing was done; once the newest is shown, that is asked
    if (address.match(AT)?.[0] === `${server.at}`) await (renewing ??= server.renew().finally(() => (renewing = null)));
    if (!(sent instanceof FormData)) return request(address.replace(AT, server.at), { sent, ...options }, true);
  }
  const { error } = await answer.json().catch(() => ({}));
  throw Object.assign(new Error(error ?? `The server answered ${status}`), { status });
}
