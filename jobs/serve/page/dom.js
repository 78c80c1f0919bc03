// Elements and words. Text from an index only ever becomes a text node or an attribute, never markup.
export const $ = (id) => document.getElementById(id);
export const cloneTemplate = (id) => $(id).content.firstElementChild.cloneNode(true);

/** Make `tag.class.class` with attributes and children. */
export function el(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const node = document.createElement(name);
  if (classes.length) node.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.flat().filter((child) => child != null));
  return node;
}

export const button = (label, onclick, attributes = {}) =>
  Object.assign(el("button", { type: "button", ...attributes }, label), { onclick });

export function chip(text, drop, look = "") {
  const close = button("×", drop, { "aria-label": `without ${text}` });
  return el(`span.chip${look}`, { dir: "auto" }, el("span", {}, text), close);
}

export function pairs(values) {
  const filled = Object.entries(values ?? {}).filter(([, value]) => value != null && value !== "");
  return filled.map(([name, value]) => el("span.pair", { dir: "auto" }, el("i", {}, name), ` ${value}`));
}

/** Say something to those who see the page and to those who hear it; for Infinity: until something else is said. */
export function say(text, isError = false, shown_ms = isError ? 8000 : 3500) {
  Object.assign($("status"), { textContent: text, className: `status is-shown${isError ? " is-error" : ""}` });
  clearTimeout(say.timer);
  const end = () => Object.assign($("status"), { textContent: "", className: "status" });
  if (shown_ms < Infinity) say.timer = setTimeout(end, shown_ms);
}

/** Seconds as the command line shows them: 0:03.80, 1:02:03.45. */
export function showTime(seconds, digits = 2) {
  const rounded = Number(seconds.toFixed(digits));
  const [hours, minutes] = [Math.floor(rounded / 3600), Math.floor(rounded / 60) % 60];
  const rest = (rounded - hours * 3600 - minutes * 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

export const showNumber = (value) => (value == null ? "–" : value.toFixed(3));
export const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** The folder and the name of a uri, for display. */
export function splitUri(uri) {
  const cut = uri.replace(/\/+$/, "").lastIndexOf("/") + 1;
  return [uri.slice(0, cut), uri.slice(cut)];
}

/** Do `work` once, `wait_ms` after the last call. */
export function later(work, wait_ms) {
  let timer = null;
  return () => (clearTimeout(timer), (timer = setTimeout(work, wait_ms)));
}

/** What this browser keeps of the page; where storage is forbidden, until the page is closed. */
export const kept = (() => { try { return localStorage; } catch { return {}; } })();
