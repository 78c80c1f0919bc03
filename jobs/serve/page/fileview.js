// A whole recording: an overview, and below it any stretch of it with the events of up to five texts as lanes.
import { WHOLE_S } from "./data.js";
import { $, chip, clamp, el, later, pairs, say, showNumber, showTime, splitUri } from "./dom.js";
import { badge } from "./marks.js";
import { Track } from "./track.js";

const [MOST_LANES, SHORTEST_S] = [5, 0.2];
const inTime = (a, b) => a.peak_s - b.peak_s || (a.text < b.text ? -1 : a.text > b.text ? 1 : 0);

export class FileView {
  constructor(page) {
    Object.assign(this, { page, store: page.store, file: null, now: null, track: null }); // now: the current event
    this.fillLanes = later(() => this.#fillLanes(), 80);
    $("lanes-form").onsubmit = () => {
      this.store.set({ lane: [...new Set([...this.store.state.lane, $("lane").value.trim()])] }, true);
      $("lane").value = "";
    };
    this.playhead = { setPlayhead: (t) => [this.overview, this.track].forEach((one) => one?.setPlayhead(t)) };
  }

  /** What marks and searches are about: the drawn region with the text of the current lane, else the current event. */
  get target() {
    const { file, now, track } = this;
    if (!file || !(track.region ?? now)) return null;
    const text = now?.text ?? this.store.state.lane[0] ?? "";
    const [{ uri, audio_id }, { start_s, end_s }] = [file, track.region ?? now];
    return { uri, audio_id, start_s, end_s, text, score: track.region ? null : now?.score, isRegion: !!track.region };
  }

  get view() {
    const [{ from, to }, { duration_s }] = [this.store.state, this.file];
    const start_s = clamp(from ?? 0, 0, Math.max(duration_s - SHORTEST_S, 0));
    return [start_s, clamp(to ?? duration_s, Math.min(start_s + SHORTEST_S, duration_s), duration_s)];
  }

  #setView(from, length_s) {
    const { duration_s } = this.file;
    const shown_s = clamp(length_s, SHORTEST_S, duration_s);
    const start_s = clamp(from, 0, duration_s - shown_s);
    this.store.set({ from: start_s, to: start_s + shown_s });
  }

  #centre = (t, [from, to] = this.view) => this.#setView(t - (to - from) / 2, to - from);
  pan = (share, [from, to] = this.view) => this.#setView(from + share * (to - from), to - from);

  zoom(step, around = null) {
    const [from, to] = this.view;
    const centre = around ?? clamp(this.now?.peak_s ?? (from + to) / 2, from, to);
    const factor = 1.5 ** -step;
    this.#setView(centre - (centre - from) * factor, (to - from) * factor);
  }

  #wheel(event, t) {
    event.preventDefault();
    const { deltaX, deltaY, shiftKey } = event;
    if (shiftKey || Math.abs(deltaX) > Math.abs(deltaY)) this.pan((deltaX || deltaY) / 1000);
    else this.zoom(-deltaY / 240, t);
  }

  async open() {
    const [{ uri }, opening] = [this.store.state, (this.opening = {})];
    [this.track, this.overview].forEach((one) => one?.release());
    this.file = this.now = this.track = this.filling = null;
    [$("file-folder").textContent, $("file-name").textContent] = splitUri(uri);
    for (const id of ["file-facts", "file-pairs", "overview", "track", "chosen", "lane-chips"]) $(id).replaceChildren();
    const file = await this.page.data.file(uri).catch(({ message }) => ({ status: "No answer", message }));
    if (this.opening !== opening) return; // the other one shows it
    const { duration_s, sample_rate_hz: hz, codec, channels, metadata } = file;
    const facts = { length: duration_s ? showTime(duration_s) : "", rate: hz && `${hz / 1000} kHz`, codec, channels };
    $("file-pairs").replaceChildren(...pairs({ ...facts, ...metadata }));
    const unusual = file.status === "indexed" ? "" : `${file.status}: ${file.message || file.reason}`;
    const moved = file.is_changed ? "The file has changed since it was indexed" : unusual;
    $("file-facts").textContent = file.is_gone ? "The file is gone: its stored curves remain" : moved;
    $("file-work").hidden = !duration_s; // of a file that failed there is nothing to see
    if (!duration_s) return;
    this.file = file;
    const region = (span) => span && this.#setView(span.start_s, span.end_s - span.start_s);
    this.overview = new Track(uri, duration_s, { play: (t) => this.#centre(t), region });
    const play = (t) => this.page.player.play(uri, t, duration_s, this.playhead);
    const [threshold, wheel] = [(t) => this.store.set({ t }), (event, t) => this.#wheel(event, t)];
    this.track = new Track(uri, duration_s, { play, threshold, wheel, region: () => this.#tell() });
    $("overview").append(this.overview.element);
    $("track").append(this.track.element);
    this.look(true);
    this.showMarks();
  }

  look(isNew = false) {
    const { file, track, overview } = this;
    if (!file) return;
    const { gain, low, high, t, lane } = this.store.state;
    const texts = file.n_frames ? lane.slice(0, MOST_LANES) : [];
    [track.from, track.to] = this.view;
    track.threshold = overview.threshold = t;
    overview.region = { start_s: track.from, end_s: track.to };
    if (isNew || texts.join("\n") !== track.lanes.map(({ text }) => text).join("\n")) this.#setLanes(texts);
    for (const one of [track, overview]) one.show({ gain, low, high, rate_hz: file.sample_rate_hz });
    this.fillLanes();
  }

  #setLanes(texts) {
    const { track, overview } = this;
    track.setLanes(texts.map((text, colour) => ({ text, label: text, colour, curve: null })));
    const isLong = overview.to > WHOLE_S; // its overview is the curve of the first text
    overview.setLanes(isLong ? texts.slice(0, 1).map((text) => ({ text, curve: null })) : []);
    if (!texts.includes(this.now?.text)) this.now = track.span = null;
    const drop = (text) => this.store.set({ lane: texts.filter((one) => one !== text) }, true);
    $("lane-chips").replaceChildren(...texts.map((text, k) => chip(text, () => drop(text), `.colour-${k}`)));
    $("lane-adder").hidden = !this.file.n_frames || texts.length >= MOST_LANES;
  }

  async #fillLanes() {
    const { file, track, overview, page } = this;
    if (!file) return;
    const [[from, to], { t }, filling] = [this.view, this.store.state, {}];
    this.filling = filling;
    const fill = async (lane, start_s, end_s) => {
      const asked = page.data.curve(file, lane.text, start_s, end_s, t);
      const curve = await asked.catch(({ message }) => (say(message, true), lane.curve));
      if (this.filling === filling) lane.curve = curve;
    };
    const fillAll = (one, ...span) => Promise.all(one.lanes.map((lane) => fill(lane, ...span)));
    await Promise.all([fillAll(track, from, to), fillAll(overview, 0, file.duration_s)]);
    if (this.filling !== filling) return; // another stretch or file is shown by now
    [track, overview].forEach((one) => one.draw());
    const { text, peak_s } = this.now ?? { peak_s: (from + to) / 2 }; // at first, the nearest
    const off = (one) => (text && one.text !== text ? Infinity : Math.abs(one.peak_s - peak_s));
    const nearest = this.#events.reduce((a, b) => (off(b) < off(a) ? b : a), { peak_s: Infinity });
    if (off(nearest) < to - from) this.now = track.span = nearest;
    track.draw();
    this.#tell();
  }

  get #events() {
    const withText = ({ text, events }) => (events ?? []).map((one) => ({ ...one, text }));
    return this.track.lanes.flatMap(withText).sort(inTime);
  }

  move(step) {
    const here = this.now ?? { peak_s: (this.view[0] + this.view[1]) / 2, text: "" };
    const beyond = this.#events.filter((one) => step * inTime(one, here) > 0);
    const nearby = this.file.duration_s > WHOLE_S ? " nearby" : ""; // of a longer one, a part is known
    if (!beyond.length) return say(`No ${step > 0 ? "later" : "earlier"} event${nearby}`);
    this.now = this.track.span = beyond.at(step > 0 ? 0 : -1);
    this.track.setRegion(null, true);
    const [from, to] = this.view;
    if (this.now.start_s < from || this.now.end_s > to) this.#centre(this.now.peak_s);
  }

  /** Say what marks and "more like this" are about. */
  async #tell() {
    const { target, now } = this;
    if (!target) return $("chosen").replaceChildren("↑ and ↓ go from event to event. Draw a region to search or mark.");
    const { mark } = await this.page.marks.see(target);
    const facts = now && !target.isRegion ? ` · ${showNumber(now.probability)} · ${showNumber(now.score)}` : "";
    const times = `${showTime(target.start_s)} – ${showTime(target.end_s)}${facts}`;
    const parts = [el("b", { dir: "auto" }, target.text || "region"), el("span.number", {}, times)];
    $("chosen").replaceChildren(...parts, ...(mark ? [badge(mark.verdict)] : []));
  }

  async showMarks() {
    const { file, track } = this;
    if (!file) return;
    track.marks = (await this.page.marks.see(file)).all;
    track.draw();
    if (file === this.file) this.#tell();
  }

  play() {
    const { start_s, end_s } = this.target ?? { start_s: this.view[0], end_s: this.file.duration_s };
    this.page.player.play(this.file.uri, start_s, end_s, this.playhead);
  }
}
