// The state of the page, which lives in the address: a link reproduces the view, back and forward work.

const NUMBER = (text) => (text !== "" && Number.isFinite(Number(text)) ? Number(text) : null);
const ONE_OF = (...values) => (text) => (values.includes(text) ? text : null);

/** Name, value without mention, how it is read. Lists stand once for each value. */
const FIELDS = {
  view: ["search", ONE_OF("search", "file", "marks")],
  q: ["", String],
  mode: ["moments", ONE_OF("moments", "clips")],
  k: [20, NUMBER],
  t: [0.3, NUMBER], // the threshold
  where: [[], String], // pieces of SQL
  like: ["", String], // the uri of a sound to compare with, from like_from to like_to
  ...{ like_from: [null, NUMBER], like_to: [null, NUMBER] },
  upload: ["", String], // the name of a sound that was dropped or recorded; the sound itself is in no address
  hit: [1, NUMBER],
  context: [2, NUMBER], // seconds shown around a hit
  uri: ["", String], // of the file view, which shows from .. to
  ...{ from: [null, NUMBER], to: [null, NUMBER] },
  lane: [[], String],
  gain: [0, NUMBER],
  ...{ low: [null, NUMBER], high: [null, NUMBER] }, // kHz
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
  const shown = new URLSearchParams();
  for (const [name, [otherwise]] of Object.entries(FIELDS)) {
    const value = state[name];
    if (Array.isArray(value)) value.forEach((one) => shown.append(name, one));
    else if (value != null && value !== otherwise) shown.append(name, write(value));
  }
  return `#${shown}`;
}

/** The state, and who is told when it changes: `listener(state, the names of what changed)`. */
export class Store {
  state = readAddress(location.hash);
  listener = () => {};

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
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#write(), 150); // dragging changes it more often than browsers allow
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
