// What the server said of files and curves, kept as long as the page shows the same state of the index.

import { get } from "./api.js";

const MARGIN_S = 40; // beyond the view, so that an event which begins or ends outside is known as a whole
const WHOLE_S = 3600; // the curve of a shorter file is asked for as a whole

export class Data {
  files = new Map();
  curves = new Map();

  /** What /api/file says. */
  file(uri) {
    if (!this.files.has(uri)) this.#keep(this.files, uri, { answer: get("file", { uri }) });
    return this.files.get(uri).answer;
  }

  /** The curve of a text over at least from_s .. to_s of a file. */
  curve({ uri, duration_s }, text, from_s, to_s) {
    const key = JSON.stringify([uri, text]);
    const kept = this.curves.get(key);
    if (kept && kept.start_s <= from_s && kept.end_s >= to_s) return kept.answer;
    const margin_s = duration_s <= WHOLE_S ? WHOLE_S : Math.max(MARGIN_S, (to_s - from_s) / 2);
    const [start_s, end_s] = [Math.max(from_s - margin_s, 0), Math.min(to_s + margin_s, duration_s)];
    const answer = get("curve", { uri, text, start_s: start_s.toFixed(3), end_s: end_s.toFixed(3) });
    return this.#keep(this.curves, key, { start_s, end_s, answer });
  }

  #keep(map, key, asked) {
    map.set(key, asked);
    asked.answer.catch(() => map.delete(key));
    return asked.answer;
  }
}
