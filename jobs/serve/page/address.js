// The state of the page, which lives in the address: a link reproduces the view, back and forward work.
import { clamp, later } from "./dom.js";

const NUMBER = (low, high = Infinity) => (text) => (text && Number.isFinite(+text) ? clamp(+text, low, high) : null);
const WHOLE = (low, high) => (text) => Math.round(NUMBER(low, high)(text) ?? NaN) || null;
const ONE_OF = (...values) => (text) => (values.includes(text) ? text : null);

/** Name, value without mention, how it is read. Lists stand once for each value. */
export const FIELDS = {
  view: ["search", ONE_OF("search", "file", "marks")],
  q: ["", String],
  mode: ["moments", ONE_OF("moments", "clips")],
  k: [20, WHOLE(1, 1000)],
  t: [0.3, NUMBER(0.01, 0.99)], // the threshold
  where: [[], String], // pieces of SQL
  like: ["", String], // the uri of a sound to compare with, from like_from to like_to
  ...{ like_from: [null, NUMBER(0)], like_to: [null, NUMBER(0)] },
  upload: ["", String], // the name of a sound that was dropped or recorded; the sound itself is in no address
  hit: [1, WHOLE(1)],
  context: [2, NUMBER(0.25, 32)], // seconds shown around a hit
  uri: ["", String], // of the file view, which shows from .. to
  ...{ from: [null, NUMBER(0)], to: [null, NUMBER(0)] },
  lane: [[], String],
  gain: [0, NUMBER(-120, 120)],
  ...{ low: [null, NUMBER(0)], high: [null, NUMBER(0)] }, // kHz
  speed: ["1", ONE_OF("1", "0.5", "0.25", "x10")],
  loop: [false, (text) => text === "1"],
};

/** What makes up a question: as long as none of it changes, no request is made. */
export const QUESTION = ["q", "mode", "k", "where", "like", "like_from", "like_to", "upload"];

export function readAddress(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const read = ([name, [otherwise, parse]]) => {
    if (Array.isArray(otherwise)) return [name, given.getAll(name).map(parse)];
    return [name, given.has(name) ? parse(given.get(name)) ?? otherwise : otherwise];
  };
  return Object.fromEntries(Object.entries(FIELDS).map(read));
}

const write = (value) => (value === true ? "1" : typeof value === "number" ? Number(value.toFixed(3)) : value);
export function writeAddress(state) {
  const isShown = ([name, value]) => value != null && value !== FIELDS[name][0];
  const values = Object.keys(FIELDS).flatMap((name) => [state[name]].flat().map((one) => [name, one]));
  return `#${new URLSearchParams(values.filter(isShown).map(([name, one]) => [name, write(one)]))}`;
}

/** The state, and who is told when it changes: `listener(state, the names of what changed)`. */
export class Store {
  state = readAddress(location.hash);
  listener = () => {};
  writeLater = later(() => this.#write(), 150); // dragging changes it more often than browsers allow

  constructor() {
    addEventListener("pagehide", () => this.#write());
    addEventListener("popstate", () => this.#take(readAddress(location.hash)));
  }

  /** Change fields. `isStep`: a person would want to go back from there. */
  set(changes, isStep = false) {
    const next = { ...this.state, ...changes };
    if (isStep && writeAddress(next) !== writeAddress(this.state)) {
      this.#write();
      history.pushState(null, "", writeAddress(next));
    }
    this.writeLater();
    this.#take(next);
  }

  #write() {
    const address = writeAddress(this.state);
    if (address !== writeAddress(readAddress(location.hash))) history.replaceState(null, "", address);
  }

  #take(next) {
    const before = this.state;
    const changed = Object.keys(FIELDS).filter((name) => JSON.stringify(before[name]) !== JSON.stringify(next[name]));
    this.state = next;
    if (changed.length) this.listener(next, new Set(changed));
  }
}
