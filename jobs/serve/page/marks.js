// Judgements: right, wrong or unsure, for a stretch of a file and a text. The newest wins; undo puts back what was.

import { get, post } from "./api.js";
import { $, button, count, el, say, showNumber, showTime, splitUri } from "./dom.js";

const MOST_SHOWN = 2000;

/** Each verdict has a letter and a sign of its own, besides a colour. */
export const VERDICTS = { right: ["R", "✓"], wrong: ["W", "✕"], unsure: ["U", "?"] };

export class Marks {
  byUri = new Map();
  done = []; // what undo puts back
  changed = () => {};

  /** Marks of a file {uri, audio_id} as its content is now, the newest first. */
  async of({ uri, audio_id }) {
    if (!this.byUri.has(uri)) this.byUri.set(uri, get("marks", { uri }).then(sortMarks, () => []));
    return (await this.byUri.get(uri)).filter((mark) => mark.audio_id === audio_id);
  }

  /** The mark on a target {uri, audio_id, start_s, end_s, text}: of the same text, and sharing half of the shorter span. */
  async find({ uri, audio_id, start_s, end_s, text }) {
    return (await this.of({ uri, audio_id })).find((mark) => {
      const shared_s = Math.min(mark.end_s, end_s) - Math.max(mark.start_s, start_s);
      return mark.text === text && shared_s > 0.5 * Math.min(mark.end_s - mark.start_s, end_s - start_s);
    });
  }

  /** Mark a target, on the span of the mark that it has, if any. */
  async put(target, verdict) {
    if (!target.text) return say("Only answers to words can be marked: a mark says whether a text fits", true);
    const before = target.isRegion ? null : await this.find(target);
    const [{ uri, audio_id, text, score }, { start_s, end_s }] = [target, before ?? target];
    const mark = { uri, audio_id, start_s, end_s, text, score, verdict };
    const said = `Marked ${verdict}: ${text}, ${showTime(start_s)} to ${showTime(end_s)}`;
    if (await this.#send(mark, said)) this.done.push({ ...mark, verdict: before?.verdict ?? "none" });
  }

  async takeBack({ uri, audio_id, start_s, end_s, text, score, verdict }) {
    const mark = { uri, audio_id, start_s, end_s, text, score };
    const said = "Mark taken back; z undoes that";
    if (await this.#send({ ...mark, verdict: "none" }, said)) this.done.push({ ...mark, verdict });
  }

  async undo() {
    const last = this.done.at(-1);
    if (!last) return say("Nothing to undo");
    const said = last.verdict === "none" ? "Mark taken back" : `Marked ${last.verdict} again`;
    if (await this.#send(last, said)) this.done.pop();
  }

  async #send(mark, said) {
    const answer = await post("marks", { marks: [mark] }).catch((error) => say(`Not marked: ${error.message}`, true));
    if (!answer) return false;
    this.byUri.delete(mark.uri);
    this.changed(mark.uri);
    say(said);
    return true;
  }
}

const sortMarks = ({ marks }) =>
  marks.filter(({ verdict }) => verdict !== "none").sort((a, b) => (a.marked_at < b.marked_at ? 1 : -1));

/** A badge of the verdict, for those who see no colours as well. */
export function badge(verdict) {
  const [letter, sign] = VERDICTS[verdict] ?? ["", ""];
  return el(`span.badge.is-${verdict}`, { title: verdict }, `${sign} ${letter}`, el("span.hidden", {}, ` ${verdict}`));
}

/** All marks as a table. `open(mark)` shows one in its file. */
export async function showMarks(marks, open) {
  const answer = await get("marks", { limit: MOST_SHOWN }).catch(({ message }) => ({ marks: [], message }));
  const shown = sortMarks(answer);
  $("marks-title").textContent = count(shown.length, "mark");
  $("marks-table").hidden = !shown.length;
  const none = answer.message ?? "Nothing is marked yet. On an answer to words, press r, w or u.";
  $("no-marks").textContent = shown.length ? "" : none;
  const toRow = (mark) => {
    const name = splitUri(mark.uri)[1];
    const [label, off] = mark.status === "gone" ? [`${name} (content gone)`, { disabled: "" }] : [name, {}];
    const link = button(label, () => open(mark), { class: "link", title: mark.uri, ...off });
    const back = button("Take back", () => marks.takeBack(mark), { class: "quiet" });
    const numbers = [showTime(mark.start_s), showTime(mark.end_s), showNumber(mark.score)];
    const when = new Date(mark.marked_at).toLocaleString("sv").slice(0, 16);
    const cells = [badge(mark.verdict), mark.text, link, ...numbers, mark.who ?? "", when, back];
    return el("tr", {}, cells.map((cell, k) => el(k > 2 && k < 6 ? "td.number" : "td", { dir: "auto" }, cell)));
  };
  $("marks-rows").replaceChildren(...shown.map(toRow));
}
