// Judgements: right, wrong or unsure, for a stretch of a file and a text. The newest wins; undo puts back what was.
import { get, post } from "./api.js";
import { $, button, count, el, say, showNumber, showTime, splitUri } from "./dom.js";
import { share_s } from "./events.js";
import { Recent } from "./data.js";

/** Each verdict has a letter and a sign of its own, besides a colour. */
export const VERDICTS = { right: ["R", "✓"], wrong: ["W", "✕"], unsure: ["U", "?"] };

/** The mark on a target {start_s, end_s, text} among those of its file: of this text, and sharing half of a span. */
function findMark(marks, target) {
  const half_s = ({ start_s, end_s }) => (end_s - start_s) / 2;
  const isHere = (mark) => share_s(mark, target) > Math.min(half_s(mark), half_s(target));
  return marks.find((mark) => mark.text === target.text && isHere(mark));
}

export class Marks {
  byUri = new Recent(2000);
  done = []; // what undo puts back
  last = Promise.resolve();
  changed = () => {};

  /** Marks of a file {uri, audio_id} as its content is now, the newest first. Throws as `get`. */
  async of({ uri, audio_id }) {
    const asked = this.byUri.get(uri) ?? get("marks", { uri });
    this.byUri.set(uri, asked);
    asked.catch(() => this.byUri.get(uri) === asked && this.byUri.delete(uri));
    const marks = (await asked).marks.filter((mark) => mark.audio_id === audio_id);
    return this.byUri.get(uri) === asked ? marks : this.of({ uri, audio_id }); // they have changed meanwhile
  }

  /** What is seen of a target: {all, mark}, the marks of its file and its own. */
  async see(target) {
    const all = await this.of(target).catch(({ message }) => (say(`Marks are not shown: ${message}`, true), []));
    return { all, mark: findMark(all, target) };
  }

  refresh() {
    this.byUri.clear(); // others mark, too
    this.changed();
  }

  /** Mark a target, on the span of the mark that it has, if any: `before`, if that is known. `none` takes it back. */
  put(target, verdict, before = null) {
    if (!target.text) return say("Only answers to words can be marked: a mark says whether a text fits", true);
    this.#inTurn(async () => {
      before ??= target.isRegion ? null : findMark(await this.of(target), target); // if unknown, none is made
      const [{ uri, audio_id, text, score }, { start_s, end_s }] = [target, before ?? target];
      const mark = { uri, audio_id, start_s, end_s, text, score };
      const { marks } = await this.#send({ ...mark, verdict });
      const back = { ...mark, verdict: before?.verdict ?? "none", replaces: marks?.[0].marked_at };
      if (marks) this.done.push({ back, before_at: before?.marked_at });
    });
  }

  undo() {
    this.#inTurn(async () => {
      if (!this.done.length) return say("Nothing to undo");
      const { back, before_at } = this.done.at(-1);
      const { marks, error } = await this.#send(back);
      if (marks || error.status === 409) this.done.pop(); // 409: somebody marked the same since, and that stays
      for (const one of this.done) if (marks && one.back.replaces === before_at) one.back.replaces = marks[0].marked_at;
    });
  }

  /** One after the other: what is undone, and on what span a mark lies, depends on what was done before. */
  #inTurn(work) {
    this.last = this.last.then(work).catch(({ message }) => say(`Not marked: ${message}`, true));
  }

  async #send(mark) {
    const sent = { marks: [{ ...mark, who: $("who").value.trim() || null }] };
    const answer = await post("marks", sent).catch((error) => ({ error }));
    const said = mark.verdict === "none" ? "Mark taken back" : `Marked ${mark.verdict}`;
    const done = `${said}: ${mark.text}, ${showTime(mark.start_s)} to ${showTime(mark.end_s)}`;
    say(answer.error ? `Not marked: ${answer.error.message}` : done, Boolean(answer.error));
    if (answer.error && answer.error.status !== 409) this.byUri.clear(); // to read them now would hide why
    else this.refresh();
    return answer;
  }
}

/** A badge of the verdict, for those who see no colours as well. */
export function badge(verdict) {
  const [letter, sign] = VERDICTS[verdict] ?? ["", ""];
  return el(`span.badge.is-${verdict}`, { title: verdict }, `${sign} ${letter}`, el("span.hidden", {}, ` ${verdict}`));
}

let asking = null;
/** All marks as a table. `open(mark)` shows one in its file. */
export async function showMarks(marks, open) {
  const asked = (asking = get("marks", { limit: 2000 }));
  const answer = await asked.catch(({ message }) => ({ marks: [], message }));
  if (asking !== asked) return; // a later one was asked for
  const hasFocus = $("marks-rows").contains(document.activeElement);
  $("marks-title").textContent = `${answer.is_cut ? "The newest " : ""}${count(answer.marks.length, "mark")}`;
  $("marks-table").hidden = !answer.marks.length;
  $("no-marks").textContent = answer.marks.length ? "" : answer.message ?? "No marks yet: press r, w or u on an answer";
  const toRow = (mark) => {
    const name = splitUri(mark.uri)[1];
    const [label, off] = mark.status === "gone" ? [`${name} (content gone)`, { disabled: "" }] : [name, {}];
    const link = button(label, () => open(mark), { class: "link", title: mark.uri, ...off });
    const back = button("Take back", () => marks.put(mark, "none", mark), { class: "quiet" });
    const numbers = [showTime(mark.start_s), showTime(mark.end_s), showNumber(mark.score)];
    const when = new Date(mark.marked_at).toLocaleString("sv").slice(0, 16);
    const cells = [badge(mark.verdict), mark.text, link, ...numbers, mark.who ?? "", when, back];
    return el("tr", {}, cells.map((cell, k) => el(k > 2 && k < 6 ? "td.number" : "td", { dir: "auto" }, cell)));
  };
  $("marks-rows").replaceChildren(...answer.marks.map(toRow));
  if (hasFocus) $("main").focus(); // what had it is gone
}
