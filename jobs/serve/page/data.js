// What the server said of files and curves, kept while the page shows the same state of the index.
import { get } from "./api.js";
import { findCuts } from "./events.js";

const MARGIN_S = 40; // beyond the view, so that most events which begin or end outside are known as a whole
/** Longer files have their curves in parts, with a score for some frames, and longer stretches a picture of samples. */
export const WHOLE_S = 3600;
const MOST_CURVES_S = 360_000; // a number for each 40 ms: some 70 MB

/** A map that keeps what was wanted last, and drops the rest. */
export class Recent extends Map {
  /** `most`: of all entries together, each of which counts by its `size`, or as 1. The last one always stays. */
  constructor(most) {
    super();
    this.most = most;
  }

  get(key) {
    if (this.has(key)) this.set(key, super.get(key));
    return super.get(key);
  }

  set(key, value) {
    let total = 0;
    this.delete(key);
    super.set(key, value);
    for (const [one, { size = 1 }] of [...this].reverse()) {
      total += size;
      if (total > this.most && one !== key) this.delete(one);
    }
    return this;
  }
}

export class Data {
  files = new Recent(2000);
  parts = new Recent(MOST_CURVES_S); // of curves

  file(uri) {
    return (this.files.get(uri) ?? this.#keep(this.files, uri, { answer: get("file", { uri }) })).answer;
  }

  /** The curve of a text over at least from_s .. to_s of a file, and so far beyond that it cuts no event. */
  async curve({ uri, duration_s }, text, from_s, to_s, threshold) {
    let [first_s, last_s] = [Math.max(from_s, 0), Math.min(to_s, duration_s)];
    const isLong = () => last_s - first_s > WHOLE_S;
    const covers = (part) => part.uri === uri && part.text === text && part.start_s <= first_s && part.end_s >= last_s;
    const holds = (part) => covers(part) && (isLong() || part.end_s - part.start_s <= WHOLE_S + 1);
    for (let margin_s = duration_s <= WHOLE_S ? WHOLE_S : Math.max(MARGIN_S, (to_s - from_s) / 2); ; margin_s *= 2) {
      const part = [...this.parts.keys()].find(holds) ?? { uri, text };
      if (!part.answer) {
        const room_s = isLong() || duration_s <= WHOLE_S ? margin_s : (WHOLE_S - last_s + first_s) / 2;
        const beyond_s = Math.min(margin_s, room_s);
        const [start_s, end_s] = [Math.max(first_s - beyond_s, 0), Math.min(last_s + beyond_s, duration_s)];
        const answer = get("curve", { uri, text, start_s: start_s.toFixed(3), end_s: end_s.toFixed(3) });
        Object.assign(part, { start_s, end_s, answer, size: Math.max(end_s - start_s, MARGIN_S) });
      }
      const curve = await this.#keep(this.parts, part, part).answer;
      const [isCutBefore, isCutBehind] = findCuts(curve, threshold);
      if (isCutBefore) first_s = Math.max(part.start_s - curve.frame_s, 0);
      if (isCutBehind) last_s = Math.min(part.end_s + curve.frame_s, duration_s);
      if (holds(part)) return curve;
    }
  }

  #keep(recent, key, asked) {
    recent.set(key, asked);
    asked.answer.catch(() => recent.delete(key));
    return asked;
  }
}
